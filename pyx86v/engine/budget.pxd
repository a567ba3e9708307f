# SPDX-License-Identifier: GPL-2.0-or-later
"""The budget: one subtraction per block counts cycles, instructions, the next event and the poll.

A block's cost is packed into 64 bits.  The high part is the quantity that the clock follows (units of
1/64 cycle, or instructions under --clock instructions), the low 32 bits are the other one:

    --clock cycles         units << 32 | instructions
    --clock instructions   instructions << 32 | units

A grant of L lets blocks run until the high part exceeds L; its low half starts at all ones, so that
the low sums never borrow.  L is capped so that they cannot overflow 32 bits either: an instruction
costs at least one unit, and at most MAX_INSN_UNITS.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyx86v.cost.ledger cimport charge_block
from pyx86v.engine.census cimport census_called, census_count
from pyx86v.engine.state cimport BlockRecord, Engine

cdef enum:
    GRANT_CAP_UNITS = 1 << 26          # 1 M cycles
    GRANT_CAP_INSTRUCTIONS = 1 << 17   # times MAX_INSN_UNITS stays below 2**32
    MAX_INSN_UNITS = 1 << 14           # 256 cycles; dearer instructions are charged as events

cdef inline int64_t pack(Engine* e, uint64_t units, uint64_t instructions) noexcept nogil:
    if e.guest.clock_instructions:
        return <int64_t>(instructions << 32 | units)
    return <int64_t>(units << 32 | instructions)

cdef inline void settle(Engine* e) noexcept nogil:
    """Book everything that the budget has counted since the last time."""
    cdef uint64_t used = <uint64_t>(e.granted - e.budget[0])
    if used == 0:
        return
    e.granted = e.budget[0]
    if e.guest.clock_instructions:
        charge_block(e.ledger, <int64_t>(used & 0xffffffffULL), <int64_t>(used >> 32))
    else:
        charge_block(e.ledger, <int64_t>(used >> 32), <int64_t>(used & 0xffffffffULL))

cdef inline void grant(Engine* e, uint64_t limit) noexcept nogil:
    """Let the guest run for `limit` more of the clock's quantity.  The ledger must be settled."""
    cdef uint64_t cap = GRANT_CAP_INSTRUCTIONS if e.guest.clock_instructions else GRANT_CAP_UNITS
    if limit > cap:
        limit = cap
    e.budget[0] = <int64_t>(limit << 32 | 0xffffffffULL)
    e.granted = e.budget[0]

cdef inline void spend(Engine* e, uint64_t units) noexcept nogil:
    """Something in the middle of a block was booked directly: the next event is that much nearer.

    Without this the moment of an interrupt would depend on when the budget was last granted.
    """
    if not e.guest.clock_instructions:
        e.budget[0] -= <int64_t>(units << 32)
        e.granted -= <int64_t>(units << 32)

cdef inline int mark_at(Engine* e, const BlockRecord* r, uint64_t rip) noexcept nogil:
    """How many instructions of the block lie before `rip` (an instruction pointer), or -1."""
    cdef uint64_t off = rip - r.eip
    cdef int lo = 0, hi = r.count, mid
    if off == 0:
        return 0
    if r.flags & 8 or off > r.size:
        return -1
    while lo < hi:
        mid = (lo + hi) >> 1
        if e.marks[r.first_mark + mid].end < off:
            lo = mid + 1
        else:
            hi = mid
    if lo < r.count and e.marks[r.first_mark + lo].end == off:
        return lo + 1
    return lo if r.translated else -1        # inside the expansion of one

cdef inline uint64_t units_before(Engine* e, const BlockRecord* r, int n) noexcept nogil:
    """Units of the first n instructions of a block."""
    return e.marks[r.first_mark + n - 1].units if n > 0 else 0

cdef inline void book_rest(Engine* e, const BlockRecord* r, int n, int sign) noexcept nogil:
    """Book (sign 1) or unbook (-1) what of a block comes behind its first n instructions, n from mark_at."""
    if n < 0 or n >= r.count:
        return
    charge_block(e.ledger, sign * (<int64_t>units_before(e, r, r.count) - <int64_t>units_before(e, r, n)),
                 sign * (<int64_t>r.count - n))
    if e.audit:
        census_count(e, r, n, r.count, sign)

cdef inline void give_back(Engine* e, uint64_t rip) noexcept nogil:
    """The running block goes no further than `rip`: settle, and unbook the instructions from there on."""
    settle(e)
    book_rest(e, e.current[0], mark_at(e, e.current[0], rip), -1)

cdef inline void take_again(Engine* e, uint64_t rip) noexcept nogil:
    """The reverse of give_back: the block goes on behind `rip` after all."""
    book_rest(e, e.current[0], mark_at(e, e.current[0], rip), 1)

cdef inline void retire(Engine* e, uint64_t rip, bint priced) noexcept nogil:
    """The one instruction at `rip` of the running block was emulated: book it, where it is `priced` with its price."""
    cdef BlockRecord* r = e.current[0]
    cdef int n = mark_at(e, r, rip)
    cdef int64_t units = 64
    if n >= 0 and n < r.count:
        units = <int64_t>units_before(e, r, n + 1) - <int64_t>units_before(e, r, n)
    if e.audit:
        if r.translated:
            census_called(e, e.called, e.called_at)
        elif n >= 0 and n < r.count:
            census_count(e, r, n, n + 1, 1)
    charge_block(e.ledger, units if priced else 0, 1)
