# SPDX-License-Identifier: GPL-2.0-or-later
"""A deprivileged guest: its kernel runs in ring 1 and believes to be in ring 0.

Two states of the processor stand for one guest.  The *virtual* state is what the guest believes: it is the one that
styles, devices, delivery, snapshots and Python see.  The *real* state is what runs: CPL 1 in place of 0, the monitor's
descriptor tables, IF set, IOPL 0.  engine/ring.pxd swaps them; `Ring` keeps the virtual values while the real ones are in
the processor, and is all that a snapshot needs, since a stopped machine is in the virtual state.

A *hole* is a sensitive instruction that does not trap (Robin and Irvine, USENIX Security 2000): it reads or writes the
real state.  It is effective when that shows.  Holes are numbered as in arch/sensitive.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport Segment
from pyx86v.arch.sensitive cimport SENSITIVE_PUSH_SEGMENT

cdef enum:
    MAX_HOLE_SITES = 64
    N_HOLES = SENSITIVE_PUSH_SEGMENT + 1

ctypedef struct HoleSite:
    uint64_t address     # linear
    uint64_t count       # executions
    uint64_t effective   # of them showed the real state
    uint32_t hole
    uint32_t pad

ctypedef struct Ring:
    bint dropped         # the kernel runs in ring 1; else the boot part in ring 0, under intercepts
    bint real            # the processor holds the real state
    bint step            # one instruction runs in the virtual state
    bint callout         # the exit that is under way is a call-out of translated code (vmm/bt)
    bint open            # the guest enters translated code at a boundary where interrupts are taken
    bint shadowed        # behind STI or MOV SS
    bint simulating      # the step is a write to a page table that was retranslated because it trapped often
    uint64_t kept        # where in translated code a run stopped, 0: not there,
    uint64_t kept_eip    # and the guest's instruction pointer then: a run that goes on there goes on in the same translation
    uint64_t target      # where the guest goes on when that is not translated yet: instruction pointer
    bint keep_on         # effective holes do not end the run
    uint64_t gdtr_base   # the virtual values, while the real ones are in the processor
    uint64_t idtr_base
    uint32_t gdtr_limit
    uint32_t idtr_limit
    Segment cs
    Segment ss
    Segment ldtr
    Segment tr
    Segment gs           # outside 64-bit mode translated code reaches the monitor through GS
    uint64_t flags       # IF and IOPL
    uint64_t cr0
    uint64_t cr4
    uint32_t cpl
    uint32_t last_site   # of the hole that ran last
    uint64_t boot_gdtr   # base + limit, before the guest loaded any
    uint64_t boot_idtr
    uint64_t count[N_HOLES]  # by SENSITIVE_*
    uint32_t site_count
    uint32_t last_hole
    HoleSite sites[MAX_HOLE_SITES]     # the first ones
    uint64_t hole_address    # of the hole that ended the run: linear,
    uint64_t hole_seen       # what the processor gave,
    uint64_t hole_wanted     # and what virtual ring 0 requires

cdef dict hole_counts(const Ring* r)
cdef list hole_sites(const Ring* r)
cdef str hole_text(const Ring* r)
