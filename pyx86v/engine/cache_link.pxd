# SPDX-License-Identifier: GPL-2.0-or-later
"""Where translations lie, and how one leads to the next without the monitor.

A direct exit leads to a stub until its target has a translation; then its jump is patched.  What follows a branch that is not
taken needs no jump if it is translated next: it comes to lie in the jump's place, as in Adams and Agesen's translator (section 3).
So the stub of the branch that is taken is moved out of the way, to the end of the page.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.engine.cache_kill cimport *
from pyx86v.engine.cache_map cimport *
from pyx86v.vmm.bt.translate cimport bt_translate

cdef enum:
    SHORTEST_CUT = 5         # bytes of a unit that gave its last jump up: a jump has to fit (chain)
    MOST_CUT = 128           # bytes that lie there: a jump, stubs, the rest of a line

cdef inline uint64_t cache_base_of(const BtMode* m) noexcept nogil:
    return BT_BASE_64 if m.bits == 64 else BT_BASE_32

cdef inline int64_t room_at(const Bt* b, uint32_t at) noexcept nogil:
    """Bytes of code that fit at this offset with the stubs of one unit, in its page."""
    cdef int64_t end = (at | <uint32_t>PAGE_MASK) + 1
    if b.stubs >> PAGE_SHIFT == at >> PAGE_SHIFT and b.stubs != 0:
        end = b.stubs
    return min(end - at - BT_MAX_EXITS * STUB_BYTES, BT_MAX_CODE)

cdef inline int unit_write(Engine* e, const uint8_t* guest, uint64_t n, uint64_t eip, const BtMode* m, uint32_t cut, uint32_t* at, BtUnit* t) noexcept nogil:
    """bt_translate to offset `cut` of the code area if it fits there, else to the end of what is used; `at`: the offset.

    No unit crosses a page.
    """
    cdef Bt* b = bt_of(e)
    cdef uint8_t* code = ram_pointer(&e.ram, b.code, BT_CACHE_BYTES)
    cdef uint8_t kept[MOST_CUT]
    cdef int got
    if code is NULL or b.code_used > BT_CACHE_BYTES - 2 * PAGE_SIZE:
        return BT_NO_ROOM
    if cut and room_at(b, cut) > 0:
        memcpy(kept, code + cut, MOST_CUT)
        at[0] = cut
        got = bt_translate(e.translator, guest, <int>n, eip, m, cache_base_of(m) + cut, code + cut, <int>room_at(b, cut), t)
        if got > 0:
            return got
        memcpy(code + cut, kept, MOST_CUT)
        if got != BT_NO_ROOM:
            return got
    at[0] = b.code_used
    if 0 < room_at(b, at[0]) < BT_MAX_CODE:
        got = bt_translate(e.translator, guest, <int>n, eip, m, cache_base_of(m) + at[0], code + at[0], <int>room_at(b, at[0]), t)
        if got != BT_NO_ROOM:
            return got
    if room_at(b, at[0]) < BT_MAX_CODE:
        at[0] = (at[0] | <uint32_t>PAGE_MASK) + 1
    return bt_translate(e.translator, guest, <int>n, eip, m, cache_base_of(m) + at[0], code + at[0], BT_MAX_CODE, t)

cdef inline void jump_set(Engine* e, uint64_t at, uint64_t target) noexcept nogil:
    """Write the rel32 at this offset of the code area."""
    cdef uint8_t* p = ram_pointer(&e.ram, bt_of(e).code + at, 4)
    cdef uint32_t rel = <uint32_t>(target - at - 4)
    if p is not NULL and at + 4 <= BT_CACHE_BYTES:
        memcpy(p, &rel, 4)

cdef inline void jump_patch(Engine* e, uint64_t at, uint64_t target) noexcept nogil:
    """The same where it may have run."""
    jump_set(e, at, target)
    cache_patched(e, at, 4)

cdef inline void stub_move(Engine* e, const Unit* u, BtExit* x) noexcept nogil:
    """The stub of an exit that has not run yet goes to the end of the page."""
    cdef Bt* b = bt_of(e)
    cdef uint32_t end = (u.code | <uint32_t>PAGE_MASK) + 1, number = number_of(b, &e.ram, u)
    cdef uint32_t at = (b.stubs if b.stubs >> PAGE_SHIFT == u.code >> PAGE_SHIFT and b.stubs != 0 else end) - STUB_BYTES
    cdef uint8_t* p = ram_pointer(&e.ram, b.code + at, STUB_BYTES)
    if p is NULL or at < u.code + u.code_bytes:
        return
    b.stubs = at
    p[0] = 0xcd
    p[1] = BT_INT_EXIT
    memcpy(p + 2, &number, 4)
    x.stub = <uint16_t>(at - u.code)
    jump_set(e, u.code + x.at, at)

cdef inline bint exit_is_open(Engine* e, const Unit* u, const BtExit* x) noexcept nogil:
    """Does it lead to its stub?"""
    cdef const uint8_t* p = ram_pointer(&e.ram, bt_of(e).code + u.code + x.at, 4)
    cdef int32_t rel
    if p is NULL or x.stub == NO_STUB:
        return False
    memcpy(&rel, p, 4)
    return x.at + 4 + rel == x.stub

cdef inline bint branch_turn(Engine* e, const Unit* u) noexcept nogil:
    """Have the unit's Jcc test the opposite, and its two exits change places, if what it jumps to is not known yet.  True: done.

    What is translated already cannot come to lie behind the branch, and a jump there would be one more block for the engine.
    """
    cdef BtExit* exits = exits_of(bt_of(e), &e.ram, u)
    cdef uint8_t* p
    cdef uint64_t target
    if u.n_exits != 2 or insns_of(bt_of(e), &e.ram, u)[u.n_insns - 1].kind != BT_BRANCH or not exit_is_open(e, u, &exits[0]):
        return False
    p = ram_pointer(&e.ram, bt_of(e).code + u.code + exits[0].at - 2, 2)
    if p is NULL or exits[0].at < 2 or p[0] != 0x0f or p[1] & 0xf0 != 0x80:
        return False
    p[1] ^= 1                                # Jcc: the lowest bit of the opcode negates (SDM 2D B.1.4.7)
    target = exits[0].target
    exits[0].target = exits[1].target
    exits[1].target = target
    return True

cdef inline Unit* exit_leads_to(Engine* e, const Unit* u, const BtExit* x) noexcept nogil:
    """The unit that the exit may be chained to, or NULL."""
    cdef Unit* to = unit_find(bt_of(e), &e.ram, cache_pc(e, x.target), x.target, u.mode)
    return to if to is not NULL and not to.flags & UNIT_CHECKED else NULL

cdef inline void exits_settle(Engine* e, Unit* u) noexcept nogil:
    """A new unit's exits: those whose target is translated lead there, the stubs of the others give way."""
    cdef Bt* b = bt_of(e)
    cdef BtExit* exits = exits_of(b, &e.ram, u)
    cdef Unit* to
    cdef int i
    if u.flags & UNIT_CHECKED:
        return
    if u.n_exits == 2 and exit_leads_to(e, u, &exits[0]) is NULL and exit_leads_to(e, u, &exits[1]) is not NULL:
        branch_turn(e, u)
    for i in range(u.n_exits):
        to = exit_leads_to(e, u, &exits[i])
        if to is not NULL:
            jump_set(e, u.code + exits[i].at, to.code)
            exits[i].stub = NO_STUB
            b.count.chains += 1
        elif i < u.n_exits - 1:
            stub_move(e, u, &exits[i])

cdef inline void chain(Engine* e, uint32_t from_unit, int exit, Unit* to, uint64_t generation) noexcept nogil:
    """The exit of the unit, or its start when it is dead (exit -1), leads to `to` from here on."""
    cdef Bt* b = bt_of(e)
    cdef Unit* u = unit_of(b, &e.ram, from_unit)
    cdef uint8_t* code
    if u is NULL or to.flags & UNIT_CHECKED or u.space != to.space or generation != b.count.generations:
        return
    if exit >= 0 and not u.flags & UNIT_DEAD:
        if exit == 1 and branch_turn(e, u):
            exit = 0
            cache_patched(e, u.code + exits_of(b, &e.ram, u)[0].at - 2, 2)
        jump_patch(e, u.code + exits_of(b, &e.ram, u)[exit].at, to.code)
        b.count.chains += 1
    elif exit < 0 and u.code_bytes >= 5 and u.flags & UNIT_DEAD:
        code = ram_pointer(&e.ram, b.code + u.code, 5)
        code[0] = 0xe9
        jump_patch(e, u.code + 1, to.code)

cdef inline uint32_t cut_of(Engine* e, uint32_t from_unit, int exit, uint32_t key) noexcept nogil:
    """Where the jump of the unit's exit lies that what comes next may replace, or 0."""
    cdef Bt* b = bt_of(e)
    cdef Unit* u = unit_of(b, &e.ram, from_unit)
    cdef const uint8_t* p
    cdef BtExit* exits
    cdef BtInsn* last
    cdef uint32_t cut
    cdef int i
    if u is NULL or from_unit != b.n_units or exit < 0 or exit != u.n_exits - 1 or u.flags or u.space != b.space or u.mode != key:
        return 0
    exits = exits_of(b, &e.ram, u)
    last = &insns_of(b, &e.ram, u)[u.n_insns - 1]
    cut = u.code + exits[exit].at - 1
    p = ram_pointer(&e.ram, b.code + cut, MOST_CUT)
    if p is NULL or p[0] != 0xe9 or exits[exit].at < SHORTEST_CUT + 1 or exits[exit].stub == NO_STUB or b.code_used - cut > MOST_CUT:
        return 0
    if last.kind != BT_BRANCH or u.n_exits < 2:              # the engine links blocks that end in a transfer only
        return 0
    for i in range(exit):
        if exits[i].stub != NO_STUB and u.code + exits[i].stub < b.code_used:
            return 0
    return cut

cdef inline void cut_done(Engine* e, uint32_t from_unit, int exit, const Unit* to) noexcept nogil:
    """`to` lies where the last jump of the unit was."""
    cdef Bt* b = bt_of(e)
    cdef Unit* u = unit_of(b, &e.ram, from_unit)
    u.code_bytes = <uint16_t>(to.code - u.code)
    exits_of(b, &e.ram, u)[exit].stub = NO_STUB
    b.count.chains += 1
    cache_patched(e, to.code, MOST_CUT if to.code_bytes < MOST_CUT else to.code_bytes)
