# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's parts before it runs (configure.pyx)."""
from libc.stdint cimport uint64_t
from pyx86v.engine.state cimport Engine, World

cdef int configure_profile(Engine* e, object profile, uint64_t seed) except -1
cdef int configure_caches(Engine* e, object profile, int mode) except -1
cdef int configure_predictor(Engine* e, object profile) except -1
cdef int configure_clocks(Engine* e, object tsc, object timers) except -1
cdef uint64_t place_world(Engine* e, World* w, uint64_t at, uint64_t guest_bytes, uint64_t monitor_bytes) noexcept
cdef int allocate_ram(Engine* e, uint64_t at) except -1
cdef void small_pages(Engine* e, const World* w) noexcept
cdef int allocate_tables(Engine* e, object profile) except -1
cdef void free_engine(Engine* e) noexcept
cdef int add_rom(Engine* e, uint64_t gpa, bytes data) except -1
