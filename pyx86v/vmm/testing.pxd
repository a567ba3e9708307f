# SPDX-License-Identifier: GPL-2.0-or-later
"""StyleBench for the benches of single styles to cimport."""
from libc.stdint cimport uint64_t
from pyx86v.arch.cpu cimport Cpu, N_CPU_REGS
from pyx86v.arch.regs cimport N_SEGS, Segment
from pyx86v.cost.ledger cimport Ledger
from pyx86v.devices.platform cimport Platform
from pyx86v.mmu.memory cimport Ram
from pyx86v.mmu.mmu cimport Mmu
from pyx86v.mmu.shadow_state cimport Shadow
from pyx86v.vmm.guest cimport Guest, Style, Vcpu

ctypedef struct Fake:        # what the callbacks reach
    uint64_t reg[N_CPU_REGS]
    uint64_t gpr[16]
    Segment segment[N_SEGS]
    uint64_t flushes
    uint64_t device_value    # what ports and devices read
    uint64_t written
    int device_verdict

cdef class StyleBench:
    cdef Fake fake
    cdef Cpu cpu
    cdef Ledger ledger
    cdef Ram ram
    cdef Platform* platform
    cdef Mmu* mmu
    cdef Vcpu* vcpu
    cdef Guest g
    cdef void* state_bytes   # the style's own struct
    cdef Shadow* shadow
    cdef const Style* style

    cdef void connect(self, bint vpid, int leaf)
