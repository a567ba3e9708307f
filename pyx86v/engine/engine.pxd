# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's face to _core: create, run, stop, destroy."""
from libc.stdint cimport uint64_t
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport uc_engine

cdef int engine_open(Engine* e, bint portable) noexcept
cdef void engine_reset(Engine* e) noexcept
cdef int engine_run(Engine* e, bint step) noexcept nogil
cdef void engine_close(Engine* e) noexcept
cdef void engine_changed_memory(Engine* e, uint64_t hpa, uint64_t n) noexcept nogil
cdef void engine_flush(Engine* e) noexcept nogil
cdef void engine_settle(Engine* e) noexcept nogil
cdef bint engine_step_boundary(Engine* e) noexcept nogil
