# SPDX-License-Identifier: GPL-2.0-or-later
"""Translated code, part by part: what the engine translates at a time, and with whose rights (vmm/bt/state.pxd).

The engine gives memory rights by block: the translator's context (DisasContext, on its stack while it calls the inline hook)
holds the index of the soft TLB that all accesses of the block use, and how many instructions the block may have.  Parts that
may touch the monitor's memory use an index that no code of the guest's kernel uses.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.types cimport SUPERVISOR_SMAP
from pyx86v.cost.block cimport InsnMark, block_decode
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.state cimport *

cdef enum:
    MOST_INSNS = 128         # of a block of translated code

cdef inline int part_insns(Engine* e, uint64_t pc, const Place* p) noexcept nogil:
    """Instructions from `pc` to the end of its part."""
    cdef Bt* b = bt_of(e)
    cdef BtPart* parts = parts_of(b, &e.ram, p.unit)
    cdef uint32_t at = <uint32_t>(pc - cache_base(e)) - p.unit.code
    cdef uint32_t end = parts[p.number + 1].start if p.number + 1 < p.unit.n_parts else p.unit.code_bytes
    cdef const uint8_t* code = ram_pointer(&e.ram, b.code + p.unit.code + at, <uint64_t>(end - at) if end > at else 1)
    cdef InsnMark marks[MOST_INSNS]
    if code is NULL or end <= at:
        return 1
    return block_decode(e.decoder, code, end - at, pc, env_bits(e.env), marks, MOST_INSNS)

cdef inline void part_limits(Engine* e, char* dc) noexcept nogil:
    """The translator is at the start of a block of translated code, its context at `dc`."""
    cdef Place p
    cdef int32_t* most = <int32_t*>(dc + DC_MAX_INSNS)
    cdef int n = 1
    place_find(e, (<uint64_t*>(dc + DC_PC_FIRST))[0], &p)
    if p.unit is not NULL and p.part is not NULL and not p.dead:
        n = part_insns(e, (<uint64_t*>(dc + DC_PC_FIRST))[0], &p)
        if p.part.flags & PART_MONITOR:
            (<int32_t*>(dc + DC_MEM_INDEX))[0] = SUPERVISOR_SMAP
    if n < most[0]:
        most[0] = n
