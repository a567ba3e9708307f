# SPDX-License-Identifier: GPL-2.0-or-later
"""From bytes to what the model needs to know of each instruction (decode.pyx)."""
from libc.stdint cimport uint8_t, uint32_t

from pyx86v.cost.model.types cimport Block, Uarch

ctypedef struct Capstone:
    size_t handle[3]          # for 16, 32 and 64 bits
    void* insn

cdef bint capstone_open(Capstone* c) noexcept nogil
cdef void capstone_close(Capstone* c) noexcept nogil
cdef int model_decode(Capstone* c, const Uarch* u, const uint8_t* code, uint32_t size, int bits, Block* out) noexcept nogil
