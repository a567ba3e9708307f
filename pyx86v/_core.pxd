# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine for other Cython modules: `from pyx86v._core cimport Machine`.  Its fields are in _state.pxd."""
from libc.stdint cimport uint64_t
from pyx86v._state cimport MachineState
from pyx86v.vmm.guest cimport Event

cdef class Machine(MachineState):
    cdef object _error, _brand, _vendor, _idle_hook
    cdef object __weakref__
    cdef int _open(self, uint64_t seed, engine, int ept_leaf, tsc, timers) except -1
    cdef object _result(self, int reason)
    cdef int _set_entry(self, dict entry) except -1
    cdef int _start(self) except -1
    cdef object _run(self, max_cycles, max_instructions, max_exits, bint step)
    cdef int _expect_devices(self) except -1
    cdef uint64_t _idle_for(self, uint64_t cycles) noexcept
    cdef int _failed(self, error) noexcept
    cdef int _port_event(self, Event* ev) noexcept
    cdef int _mmio_event(self, Event* ev) noexcept
    cdef int _exit_event(self, Event* ev) noexcept
