# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine for other Cython modules: `from pyx86v._core cimport Machine`.

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

cdef class Machine:
    cdef Engine* e               # e.ram, e.ops (registers), e.guest (what styles see), e.world: of the guest in front
    cdef Worlds* worlds          # every guest's
    cdef Ledger ledger_
    cdef Mmu* mmu
    cdef readonly str clock
    cdef readonly dict options
    cdef list _guests
    cdef object _profile, _error, _brand, _vendor
    cdef bint running
    cdef unsigned long runner    # the thread that runs it
    cdef object __weakref__
    cdef int _open(self, uint64_t seed, engine, int ept_leaf) except -1
    cdef object _own(self)
    cdef object _result(self, int reason)
    cdef int _set_entry(self, dict entry) except -1
    cdef int _start(self) except -1
    cdef object _run(self, max_cycles, max_instructions, max_exits, bint step)
    cdef int _expect_stopped(self, str what) except -1
    cdef int _expect_made(self) except -1
    cdef int _expect_mine(self) except -1
    cdef int _expect_devices(self) except -1
    cdef int _failed(self, error) noexcept
    cdef int _port_event(self, Event* ev) noexcept
    cdef int _mmio_event(self, Event* ev) noexcept
    cdef int _exit_event(self, Event* ev) noexcept
