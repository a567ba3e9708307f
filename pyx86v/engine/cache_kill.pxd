# SPDX-License-Identifier: GPL-2.0-or-later
"""Translations that are wrong from now on: the guest code that they come from is written."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.types cimport *
from pyx86v.engine.budget cimport grant, settle
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.mmu.shadow_code cimport shadow_trace_code
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.state cimport *

cdef inline void cache_patched(Engine* e, uint64_t offset, uint64_t n) noexcept nogil:
    """The monitor wrote n bytes at this offset of the code area: the engine forgets what it made of them."""
    cdef uint64_t at = bt_of(e).code + offset
    if e.page_state[at >> PAGE_SHIFT] != PAGE_DATA or n > PAGE_SIZE:
        tb_invalidate_phys_range_x86_64(e.uc, at, at + n)

cdef inline void unit_kill(Engine* e, Unit* u) noexcept nogil:
    """Whoever jumps there arrives at the monitor."""
    cdef Bt* b = bt_of(e)
    cdef uint32_t* at = head_of(b, &e.ram, u.pc, u.mode, u.space)
    cdef uint8_t* code = ram_pointer(&e.ram, b.code + u.code, 2)
    cdef uint32_t n = 0, number = number_of(b, &e.ram, u)
    cdef Unit* v
    if u.flags & UNIT_DEAD or at is NULL or code is NULL:
        return
    u.flags |= UNIT_DEAD
    b.count.dead += 1
    while at[0] and at[0] != number and n < MAX_UNITS:
        n += 1
        v = unit_of(b, &e.ram, at[0])
        if v is NULL:
            return
        at = &v.next
    if at[0] == number:
        at[0] = u.next
    code[0] = 0xcd
    code[1] = BT_INT_EXIT
    cache_patched(e, u.code, 2)

cdef inline bint unit_runs(Engine* e, const Unit* u) noexcept nogil:
    """Is the unit's code in the block that runs?"""
    cdef uint64_t at = e.current[0].pc - cache_base(e)
    cdef const Unit* v = unit_at(bt_of(e), &e.ram, at)
    while v is not NULL and v is not u:
        v = unit_behind(e, v)
        if v is not NULL and v.code >= at + e.current[0].size:
            return False
    return v is not NULL

cdef inline bint cache_written(Engine* e) noexcept nogil:
    """Guest code that was translated has been or will now be written: its units die.  True: one of them runs now."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t first = e.world.shadow.code_first, last = e.world.shadow.code_last, gfn
    cdef uint32_t* frame
    cdef uint32_t number, n, writes, weight
    cdef Unit* u
    cdef bint running = False, wild
    e.world.shadow.code_writes = 0
    for gfn in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1):
        frame = frame_of(b, &e.ram, gfn)
        if frame is NULL:
            return running
        writes = frame[1] & CODE_WRITES
        wild = writes + DEADLY_WRITE >= MAX_CODE_WRITES
        weight = 1
        number = frame[0]
        n = 0
        while number and n < MAX_UNITS:
            n += 1
            u = unit_of(b, &e.ram, number)
            if u is NULL:
                break
            if not u.flags & UNIT_DEAD and (wild or unit_touches(u, first, last, gfn)):
                running |= in_cache(e) and unit_runs(e, u)
                unit_kill(e, u)
                weight = DEADLY_WRITE
            number = u.same_frame if u.gfn == gfn else u.same_frame2
        frame[1] = writes + weight
        if wild:
            frame[0] = 0
            frame[1] = MAX_CODE_WRITES
            shadow_trace_code(&e.world.shadow, e.mmu, &e.ram, e.ledger, &e.vcpu.hardware, gfn, False)
    return running

cdef inline void cache_trapped(Engine* e, uintptr_t ra) noexcept nogil:
    """Translated code wrote a guest table that is in use: if the instruction does so often, it becomes a call-out."""
    cdef Place p
    if ra:
        cpu_restore_state_x86_64(e.cpu, ra, False)
    place_find(e, env_u64(e.env, ENV_EIP)[0], &p)
    if p.unit is not NULL and p.exit < 0 and hot_trapped(bt_of(e), p.eip, e.world.shadow.count.traced_writes):
        unit_kill(e, p.unit)
        look_again(e)

cdef inline void look_again(Engine* e) noexcept nogil:
    """Have the next block looked up.  A block that jumps to itself does so on when it has been invalidated: the engine first takes it off
    the list of those that jump to it, and then redirects those on the list."""
    e.look_first = e.look_again = True
    settle(e)
    grant(e, 0)

cdef inline void frame_calms(Engine* e, uint64_t gfn) noexcept nogil:
    """The monitor entered code of a frame that is not traced and found it unchanged.  After a while it is traced again."""
    cdef Bt* b = bt_of(e)
    cdef uint32_t* frame = frame_of(b, &e.ram, gfn)
    cdef uint32_t number, n = 0
    cdef Unit* u
    if frame is NULL:
        return
    frame[1] += CODE_ENTRY
    if frame[1] < CALM_ENTRIES * CODE_ENTRY:
        return
    number = frame[0]
    while number and n < MAX_UNITS:
        n += 1
        u = unit_of(b, &e.ram, number)
        if u is NULL:
            break
        unit_kill(e, u)
        number = u.same_frame if u.gfn == gfn else u.same_frame2
    frame[0] = frame[1] = 0
