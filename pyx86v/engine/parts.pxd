# SPDX-License-Identifier: GPL-2.0-or-later
"""Translated code, part by part: what the engine translates at a time, and with whose rights (vmm/bt/state.pxd).

The translator's context (DisasContext, on its stack while it calls the inline hook) holds the index of the soft TLB that an
instruction's accesses use, and how many instructions the block may have.  Parts that may touch the monitor's memory use an
index that no code of the guest's kernel uses.  The index changes in the middle of a block: the translator compares each
instruction's address with those at which a run is to end, and the function that it compares with is `part_follow`.
It may also have the translator read on elsewhere: in the unit behind (unit_follow), or behind what was emitted instead (lookup.pxd).
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.types cimport SUPERVISOR_SMAP
from pyx86v.cost.block cimport InsnMark, MARK_CT, block_decode
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.lookup cimport jump_follow, transfer_follow
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport uc_ctl_set_exits
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.state cimport *

cdef enum:
    MOST_INSNS = 256         # of a block of translated code
    MOST_JOINED = 3          # units beyond the first

cdef inline uint32_t block_room(const BtPart* part, const BtPart* last, uint32_t bytes) noexcept nogil:
    """Offset in the unit's code at which a block that starts in `part` ends at the latest: RDTSC is a block of its own."""
    if part.kind == BT_RDTSC:
        return part[1].start if part < last else bytes
    while part < last:
        part += 1
        if part.kind == BT_RDTSC:
            return part.start
    return bytes

cdef inline int block_insns(Engine* e, const Unit* u, uint32_t at) noexcept nogil:
    """Instructions of the block at this offset of the unit, in e.part, as far as the unit goes."""
    cdef uint32_t end = block_room(e.part, e.last_part, u.code_bytes)
    cdef const uint8_t* code = ram_pointer(&e.ram, bt_of(e).code + u.code + at, <uint64_t>(end - at) if end > at else 1)
    cdef InsnMark marks[MOST_INSNS]
    cdef int n, i
    if code is NULL or end <= at:
        return 1
    n = block_decode(e.decoder, code, end - at, 0, env_bits(e.env), marks, MOST_INSNS)
    for i in range(n):
        if marks[i].flags & MARK_CT:
            return i + 1
    return n

cdef inline void context_enter(Engine* e, Unit* u, BtPart* part) noexcept nogil:
    """The translator goes on in this part of the unit."""
    e.context_unit = u
    e.context_base = cache_base(e) + u.code
    e.part = part
    e.last_part = parts_of(bt_of(e), &e.ram, u) + (u.n_parts - 1)

cdef inline bint part_limits(Engine* e, char* dc) noexcept nogil:
    """The translator is at the start of a block of translated code, its context at `dc`.

    True: it is the jump at the start of a dead unit.  No guest instruction lies there, so whether the guest takes interrupts behind it is
    what the block before says, and that one stays the current one.
    """
    cdef Place p
    cdef uint64_t pc = (<uint64_t*>(dc + DC_PC_FIRST))[0]
    cdef int32_t* most = <int32_t*>(dc + DC_MAX_INSNS)
    cdef const uint8_t* code
    cdef int n = 1
    place_find(e, pc, &p)
    e.context = NULL
    if p.unit is not NULL and p.part is not NULL and not p.dead:
        context_enter(e, p.unit, p.part)
        n = block_insns(e, p.unit, <uint32_t>(pc - e.context_base))
        e.context_most = most[0]
        e.context_joined = 0
        e.guest_index = (<int32_t*>(dc + DC_MEM_INDEX))[0]
        e.context_tb = (<uint64_t*>(dc + DC_TB))[0]
        e.context_first = pc
        e.context = dc
    if n < most[0]:
        most[0] = n
    if not p.dead:
        return False
    code = ram_pointer(&e.ram, bt_of(e).code + p.unit.code, 1)
    return code is not NULL and code[0] == 0xe9

cdef inline void part_at(Engine* e, uint64_t pc) noexcept nogil:
    while e.part < e.last_part and e.part[1].start <= <uint32_t>(pc - e.context_base):
        e.part += 1

cdef inline uint64_t unit_follow(Engine* e, char* dc, uint64_t pc) noexcept nogil:
    """At the jump to the unit behind: where that begins, if the block goes on there.  Else `pc`.

    A fault of the instruction there is reported at the jump, which stands for the same place of the guest's (place_find).
    """
    cdef const BtExit* x = exits_of(bt_of(e), &e.ram, e.context_unit)
    cdef Unit* v
    cdef int32_t most
    if pc == e.context_first or e.context_unit.n_exits != 1 or x.at != <uint32_t>(pc - e.context_base) + 1 or e.context_joined == MOST_JOINED:
        return pc
    v = unit_joined(e, e.context_unit)
    if v is NULL or cache_base(e) + v.code + v.code_bytes - e.context_first > BT_MAX_CODE:
        return pc
    e.context_joined += 1
    context_enter(e, v, parts_of(bt_of(e), &e.ram, v))
    most = (<int32_t*>(dc + DC_NUM_INSNS))[0] - 1 + block_insns(e, v, 0)
    (<int32_t*>(dc + DC_MAX_INSNS))[0] = min(most, e.context_most)
    return e.context_base

cdef inline int part_follow(const void* at, const void* exit, void* engine) noexcept nogil:
    """The translator is at the instruction `at`, if it is still at the block that part_limits saw.  Not an exit."""
    cdef Engine* e = <Engine*>engine
    cdef uint64_t pc = (<const uint64_t*>at)[0]
    cdef char* dc = e.context
    if dc is NULL or (<uint64_t*>(dc + DC_TB))[0] != e.context_tb or (<uint64_t*>(dc + DC_PC_FIRST))[0] != e.context_first or \
            (<uint64_t*>(dc + DC_PC_FIRST))[1] != pc or (<int32_t*>(dc + DC_NUM_INSNS))[0] == 0:
        return -1
    part_at(e, pc)
    if unit_follow(e, dc, pc) != pc:
        pc = e.context_base
        (<uint64_t*>(dc + DC_PC_START))[0] = (<uint64_t*>(dc + DC_PC_START))[1] = pc
    if e.part.start == <uint32_t>(pc - e.context_base):
        pc = transfer_follow(e, dc, pc)
        (<uint64_t*>(dc + DC_PC_START))[0] = (<uint64_t*>(dc + DC_PC_START))[1] = pc
        part_at(e, pc)
    jump_follow(e, dc, pc)
    (<int32_t*>(dc + DC_MEM_INDEX))[0] = SUPERVISOR_SMAP if e.part.flags & PART_MONITOR else e.guest_index
    return -1

cdef inline int parts_attach(Engine* e) noexcept nogil:
    """Have the translator call part_follow.  0, or a uc_err."""
    cdef uint64_t nowhere = 0    # one exit, or there would be nothing to compare; each run begins with fetching from all others
    cdef char* tree
    cdef int err = uc_ctl_set_exits(e.uc, &nowhere, 1)
    if err == 0:
        tree = (<char**>(<char*>e.uc + UC_EXITS))[0]
        (<void**>(tree + TREE_COMPARE))[0] = <void*>part_follow
        (<void**>(tree + TREE_DATA))[0] = <void*>e
    return err
