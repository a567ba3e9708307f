# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model for the engine: what a piece of code takes, in units, without the GIL and without allocating."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from pyx86v.cost.model.decode cimport Capstone
from pyx86v.cost.model.simulate cimport Sim
from pyx86v.cost.model.types cimport Block, Uarch

cdef enum:
    MAX_INSTANCES = 16384

ctypedef struct Arena:        # of one processor and thread; about 300 KB, nothing of a machine's state in it
    Capstone capstone
    Uarch uarch
    Block block
    Sim sim
    int32_t parent[MAX_INSTANCES]

cdef Arena* arena_new(dict table) except NULL
cdef void arena_free(Arena* a) noexcept
cdef uint32_t code_units(Arena* a, const uint8_t* code, uint32_t size, int bits, bint loop) noexcept nogil
