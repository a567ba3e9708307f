# SPDX-License-Identifier: GPL-2.0-or-later
"""The fields of a Machine, for other Cython modules (`from pyx86v._core cimport Machine`).

The structs behind the pointers are declared in engine/state.pxd, vmm/guest.pxd, cost/ledger.pxd and mmu/state.pxd.
Read them whenever the machine does not run; a change that an engine caches (registers that derive others, memory
with translated code, TLB contents) must go through Machine's methods.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport Ledger
from pyx86v.engine.state cimport Engine
from pyx86v.engine.worlds cimport Worlds
from pyx86v.mmu.mmu cimport Mmu
from pyx86v.vmm.guest cimport Event

cdef class MachineState:
    cdef Engine* e               # e.ram, e.ops (registers), e.guest (what styles see), e.world: of the guest in front
    cdef Worlds* worlds          # every guest's
    cdef Ledger ledger_
    cdef Mmu* mmu
    cdef readonly str clock
    cdef readonly dict options
    cdef list _guests
    cdef object _profile
    cdef bint running
    cdef unsigned long runner    # the thread that runs it
    cdef object _own(self)
    cdef int _expect_stopped(self, str what) except -1
    cdef int _expect_made(self) except -1
    cdef int _expect_mine(self) except -1
