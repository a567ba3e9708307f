# SPDX-License-Identifier: GPL-2.0-or-later
"""What a block costs: at first by the classes of its instructions, later by the block model (cost/heat.pxd).

The sum of the classes' prices does not depend on where blocks are cut.  The model's price of a block does, so it is not the engine's
block that is priced.  A *stretch* begins where control came from elsewhere (behind a transfer, an event, or what else always ends
a block) and goes on to the first transfer, its *plain part* to the first instruction that the model says nothing of, to
PLAIN_INSNS, PLAIN_BYTES or the page's end.  The plain part has one price, which is spread over its instructions by their
classes' prices; every instruction behind it has that of its class.  All of this follows from the bytes at the stretch's beginning.

Where the engine cuts a stretch (steps, breakpoints, code that changes itself, its own limits) `Vcpu.lead` keeps where it
began, or that its plain part is over, and the next block, which takes the slow path, is priced as the part of it that it is.
So a cut changes no price.

Invariants
1. `Vcpu.lead` is 0 where a block ends behind which a stretch begins; a block that ends elsewhere (REC_OPEN) always takes the slow
   path, and so does the block after it.
2. A record with its final price is in no need of the slow path; one without (REC_COUNT) takes it until it has one.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy
from pyx86v.arch.types cimport *
from pyx86v.cost.block cimport InsnMark, MARK_CT, MARK_ENDS, MARK_PLAIN, MARK_REP, block_decode, plain_decode
from pyx86v.cost.heat cimport *
from pyx86v.engine.budget cimport MAX_INSN_UNITS, pack
from pyx86v.engine.fill cimport ENGINE_MAX_INSNS, read_quiet
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer

cdef extern from *:
    """
    #define PYX_LEAD_OVER ((1ULL << 63) + 1)
    """
    const uint64_t LEAD_OVER "PYX_LEAD_OVER"     # Vcpu.lead behind the plain part: no code lies near that address, in any mode

cdef enum:
    INSN_BYTES = 15

cdef inline void price_marks(InsnMark* m, int n) noexcept nogil:
    """Keep each instruction's price between 1 and MAX_INSN_UNITS, as the packed budget needs (budget.pxd)."""
    cdef int i
    cdef uint32_t before = 0, cost, total = 0
    for i in range(n):
        cost = m[i].units - before
        before = m[i].units
        if cost < 1:
            cost = 1
        elif cost > MAX_INSN_UNITS:
            cost = MAX_INSN_UNITS
        total += cost
        m[i].units = total

cdef inline uint32_t room_of(gva_t pc) noexcept nogil:
    """How many bytes from `pc` on may belong to a plain part."""
    cdef uint32_t left = <uint32_t>(PAGE_SIZE - (pc & PAGE_MASK))
    return left if left < PLAIN_BYTES else PLAIN_BYTES

cdef inline int plain_part(const InsnMark* m, int n, uint32_t room, bint* whole) noexcept nogil:
    """How many of n instructions are the plain part of the stretch that begins with them; whole[0]: all of it is among them."""
    cdef int i
    whole[0] = True
    for i in range(n):
        if i == PLAIN_INSNS or m[i].end > room or not m[i].flags & MARK_PLAIN:
            return i
        if m[i].flags & MARK_CT:
            return i + 1
    whole[0] = n >= PLAIN_INSNS or (n > 0 and m[n - 1].end >= room)
    return n

cdef inline const uint8_t* stretch_code(Engine* e, const BlockRecord* r, gva_t first, uint8_t* buffer) noexcept nogil:
    """The room_of(first) bytes from `first` on, which lies in the page where `r` begins; if need be read into the buffer."""
    cdef const uint8_t* code = NULL
    if r.frame != NO_FRAME:
        code = ram_pointer(&e.ram, (<hpa_t>r.frame << PAGE_SHIFT) + (first & PAGE_MASK), room_of(first))
    if code is NULL:
        read_quiet(e, first, buffer, room_of(first))
        code = buffer
    return code

cdef inline int stretch_marks(Engine* e, gva_t pc, const uint8_t* code, InsnMark* m) noexcept nogil:
    """The plain part of the stretch at `pc` with these bytes: marks with classes' prices, how many instructions."""
    cdef uint32_t room = room_of(pc)
    cdef bint whole
    cdef int n
    n = plain_part(m, plain_decode(e.decoder, code, room, env_bits(e.env), m, PLAIN_INSNS + 1), room, &whole)
    price_marks(m, n)
    return n

cdef inline void spread(const InsnMark* m, int n, uint32_t units, uint32_t* price) noexcept nogil:
    """Spread the model's `units` over n instructions by their classes' prices, each at least 1 and at most MAX_INSN_UNITS."""
    cdef uint64_t more = units - <uint32_t>n if units > <uint32_t>n else 0, weight = m[n - 1].units - <uint32_t>n, before = 0, share
    cdef int i
    for i in range(n):
        share = more * (m[i].units - <uint32_t>i - 1) // weight if weight else more * <uint64_t>(i + 1) // <uint64_t>n
        price[i] = <uint32_t>(1 + share - before)
        if price[i] > MAX_INSN_UNITS:
            price[i] = MAX_INSN_UNITS
        before = share

cdef inline bint is_slow(const BlockRecord* r) noexcept nogil:
    return r.flags & (REC_SLOW | REC_COUNT | REC_CONTINUES | REC_TWIN | REC_STEPPED) != 0

cdef inline void set_cost(Engine* e, BlockRecord* r) noexcept nogil:
    r.true_cost = pack(e, e.marks[r.first_mark + r.count - 1].units, <uint64_t>r.count)
    r.cost = SLOW_COST if is_slow(r) else r.true_cost

cdef inline void put_prices(InsnMark* m, int count, const uint32_t* price, int n) noexcept nogil:
    """Give the first n of `count` instructions these prices; the others keep theirs."""
    cdef uint32_t before = 0, cost, total = 0
    cdef int i
    for i in range(count):
        cost = price[i] if i < n else m[i].units - before
        before = m[i].units
        total += cost
        m[i].units = total

cdef inline void set_prices(Engine* e, BlockRecord* r, const uint32_t* price, int n) noexcept nogil:
    put_prices(&e.marks[r.first_mark], r.count, price, n)

cdef inline void record_stretch(Engine* e, BlockRecord* r) noexcept nogil:
    """A new record: is the plain part of the stretch at its beginning in it, and does a stretch begin behind it?"""
    cdef InsnMark* m = &e.marks[r.first_mark]
    cdef bint whole
    cdef int n
    r.plain = 0
    r.slot = 0
    if e.heat is NULL:
        return
    if not r.flags & REC_TRANSFER and not m[r.count - 1].flags & (MARK_REP | MARK_ENDS):
        r.flags |= REC_OPEN | REC_SLOW
    n = plain_part(m, r.count, room_of(r.pc), &whole)
    if n == r.count - 1 and m[n].flags == 0 and not r.flags & REC_TRANSFER:
        whole = False                            # a breakpoint: the engine's block ends one byte behind its address
    if not whole:
        if r.flags & REC_TRANSFER or r.frame == NO_FRAME:
            return                               # in the shadow of STI or MOV SS: one instruction, not the stretch's first
        r.flags |= REC_PART
    r.plain = <uint16_t>n
    if n and r.frame != NO_FRAME:
        r.flags |= REC_COUNT

cdef inline void classes_again(Engine* e, BlockRecord* r) noexcept nogil:
    """Plain instructions get their classes' prices back, where they have others."""
    cdef uint8_t[8192] code
    cdef InsnMark marks[ENGINE_MAX_INSNS]
    cdef uint32_t price[ENGINE_MAX_INSNS]
    cdef InsnMark* m = &e.marks[r.first_mark]
    cdef int i, n
    if not r.flags & REC_PRICED:
        return
    r.flags &= <uint16_t>~REC_PRICED
    read_quiet(e, r.pc, code, r.size)
    n = block_decode(e.decoder, code, r.size, r.pc, env_bits(e.env), marks, ENGINE_MAX_INSNS)
    price_marks(marks, n)
    if n > r.count:
        n = r.count
    for i in range(n):
        if m[i].flags & MARK_PLAIN and m[i].end == marks[i].end:
            price[i] = marks[i].units - (marks[i - 1].units if i else 0)
        else:
            price[i] = m[i].units - (m[i - 1].units if i else 0)
    set_prices(e, r, price, n)

# A part's prices follow from its own instructions, the stretch's bytes and what Heat says of them: while that is so, nothing is to be done.

cdef inline PricedRecord* known_of(Engine* e, const BlockRecord* r) noexcept nogil:
    return &e.known[<uintptr_t>r // sizeof(BlockRecord) & (KNOWN_PRICES - 1)]

cdef inline bint is_known(Engine* e, const BlockRecord* r, gva_t first, const uint8_t* code) noexcept nogil:
    """Does the record have the prices of this part of the stretch at `first`?"""
    cdef const PricedRecord* k = known_of(e, r)
    cdef const HeatSlot* s = NULL
    if k.record != r or k.first != first or (r.flags & REC_PRICED != 0) != (k.units != 0) or memcmp(k.code, code, k.looked_at) != 0:
        return False
    if k.key:
        s = heat_find(e.heat, k.key, False)
    return k.units == (s.units if s is not NULL else 0)

cdef inline void known_note(Engine* e, const BlockRecord* r, gva_t first, const uint8_t* code, uint32_t end, uint64_t key, uint32_t units) noexcept nogil:
    """`end`: bytes of the plain part, which follows from them and from the instruction behind it."""
    cdef PricedRecord* k = known_of(e, r)
    cdef uint32_t room = room_of(first)
    k.record = r
    k.first = first
    k.key = key
    k.units = units
    k.end = <uint16_t>end
    k.looked_at = <uint16_t>(end + INSN_BYTES if end + INSN_BYTES < room else room)
    memcpy(k.code, code, k.looked_at)

cdef inline bint price_first(Engine* e, BlockRecord* r) noexcept nogil:
    """`r` begins a stretch and is about to run: count it, and give it the model's price once there is one.

    Does the stretch's plain part go on behind it?
    """
    cdef uint8_t buffer[PLAIN_BYTES]
    cdef InsnMark marks[PLAIN_INSNS + 1]
    cdef uint32_t price[PLAIN_INSNS]
    cdef const InsnMark* m = &e.marks[r.first_mark]
    cdef const uint8_t* code
    cdef HeatSlot* s
    cdef uint32_t units, end
    cdef int n = r.plain
    if r.flags & REC_CONTINUES:
        r.flags &= <uint16_t>~REC_CONTINUES
        classes_again(e, r)
        r.flags |= REC_COUNT
    if r.flags & REC_PART:
        code = stretch_code(e, r, r.pc, buffer)
        if r.flags & REC_PRICED and is_known(e, r, r.pc, code):
            return known_of(e, r).end > r.size
        n = stretch_marks(e, r.pc, code, marks)
        m = marks
        r.slot = 0
        classes_again(e, r)
    else:
        code = ram_pointer(&e.ram, (<hpa_t>r.frame << PAGE_SHIFT) + (r.pc & PAGE_MASK), m[n - 1].end if n else 1)
    if n == 0 or code is NULL:
        r.flags &= <uint16_t>~REC_COUNT
        set_cost(e, r)
        return False
    end = m[n - 1].end
    if r.slot == 0:
        s = heat_find(e.heat, code_key(code, end, env_bits(e.env)), True)
        if s is NULL:
            r.flags &= <uint16_t>~REC_COUNT
            set_cost(e, r)
            return end > r.size
        r.slot = <uint32_t>(s - e.heat.slot) + 1
    units = heat_execute(e.heat, &e.heat.slot[r.slot - 1], code, end, env_bits(e.env), <uint32_t>n, m[n - 1].units)
    if units:
        spread(m, n, units, price)
        r.flags = (r.flags | REC_PRICED) & <uint16_t>~REC_COUNT
        set_prices(e, r, price, n if n < r.count else r.count)
        if r.flags & REC_PART:
            known_note(e, r, r.pc, code, end, e.heat.slot[r.slot - 1].key, units)
    set_cost(e, r)
    return end > r.size

cdef inline int part_prices(const BlockRecord* r, const InsnMark* m, uint64_t at, const InsnMark* stretch, int n, const uint32_t* there, uint32_t* here) noexcept nogil:
    """The prices `there` of a stretch's n instructions for those of `r`, with marks m, which begins `at` bytes behind it: of how many."""
    cdef int i, j = 0
    cdef uint64_t start
    for i in range(r.count):
        start = at + (m[i - 1].end if i else 0)
        while j < n and (stretch[j - 1].end if j else 0) < start:
            j += 1
        if j >= n or (stretch[j - 1].end if j else 0) != start or stretch[j].end != at + m[i].end:
            return i
        here[i] = there[j]
    return r.count

cdef inline bint price_rest(Engine* e, BlockRecord* r) noexcept nogil:
    """`r` goes on with the stretch that `Vcpu.lead` says: its instructions have the prices that they have there.

    Does the stretch's plain part go on behind it?
    """
    cdef uint8_t buffer[PLAIN_BYTES]
    cdef InsnMark marks[PLAIN_INSNS + 1]
    cdef uint32_t there[PLAIN_INSNS]
    cdef uint32_t here[PLAIN_INSNS]
    cdef gva_t first = e.vcpu.lead - 1
    cdef uint64_t at = r.pc - first, key = 0
    cdef const uint8_t* code
    cdef const HeatSlot* s = NULL
    cdef uint32_t end = 0, units = 0
    cdef int n
    if at < room_of(first):
        code = stretch_code(e, r, first, buffer)
        if r.flags & REC_CONTINUES and is_known(e, r, first, code):
            return known_of(e, r).end > at + r.size
        n = stretch_marks(e, first, code, marks)
        end = marks[n - 1].end if n else 0
        if at < end:
            key = code_key(code, end, env_bits(e.env))
            s = heat_find(e.heat, key, False)
            units = s.units if s is not NULL else 0
        known_note(e, r, first, code, end, key, units)
    classes_again(e, r)
    r.flags |= REC_CONTINUES
    if units:
        spread(marks, n, units, there)
        n = part_prices(r, &e.marks[r.first_mark], at, marks, n, there, here)
        r.flags |= REC_PRICED
        set_prices(e, r, here, n)
    set_cost(e, r)
    return end > at + r.size

cdef inline void price_block(Engine* e, BlockRecord* r) noexcept nogil:
    """`r` is about to be booked, on the slow path."""
    cdef uint64_t lead
    cdef bint more = False
    if e.heat is NULL:
        return
    e.running_lead = lead = e.vcpu.lead
    if lead:
        more = price_rest(e, r)
    elif r.flags & (REC_COUNT | REC_PART | REC_CONTINUES):
        more = price_first(e, r)
    if not r.flags & REC_OPEN:
        e.vcpu.lead = 0
    elif not more:
        e.vcpu.lead = LEAD_OVER
    elif lead == 0:
        e.vcpu.lead = r.pc + 1

cdef inline bint only_counts(Engine* e, const BlockRecord* r) noexcept nogil:
    """Does `r` take the slow path for nothing but price_first, since the budget covers it?  Then nothing else is due."""
    return r.flags & (REC_COUNT | REC_SLOW | REC_CONTINUES | REC_PART | REC_NEW) == REC_COUNT and e.vcpu.lead == 0 and \
        e.budget[0] >= r.true_cost

cdef inline void stretch_stays(Engine* e) noexcept nogil:
    """The block that runs is left in its middle, and what follows goes on with its stretch."""
    cdef const BlockRecord* r = e.current[0]
    if e.heat is not NULL and r.count and not r.translated:
        e.vcpu.lead = e.running_lead if r.flags & REC_CONTINUES else r.pc + 1
