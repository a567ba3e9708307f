# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of translated code: which of the guest's instructions retire in them, and what their code costs.

The code in the translation cache is charged as what it is, by the block model as any other code (price.pxd).  A block of it
consists of *pieces*, each up to a transfer: the code of one unit, of each unit that the engine goes on with, the way of a lookup that
hits; or the jump behind a branch that was not taken.  A piece is a stretch.  Heat knows it by its bytes without the distance of its last jump, which changes with what the
jump leads to.  What the translation's own cuts leave of a stretch (an INT, RDTSC, REP) begins another.

The prices of a piece's instructions are summed up by the guest's instructions that they stand for.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.cost.block cimport InsnMark, MARK_CT, MARK_SENSITIVE, block_decode
from pyx86v.cost.heat cimport *
from pyx86v.engine.breakpoints cimport resume_flag
from pyx86v.engine.budget cimport pack
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.census cimport census_wants
from pyx86v.engine.fill cimport ENGINE_MAX_INSNS, code_frame, read_quiet
from pyx86v.engine.ops cimport code_mode, env_bits
from pyx86v.engine.parts cimport MOST_INSNS, MOST_JOINED
from pyx86v.engine.price cimport plain_part, price_marks, put_prices, spread
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.state cimport *

cdef enum:
    BLOCK_PIECES = MOST_JOINED + 2   # units, and the way of a hit
    JMP_REL32_BYTES = 5
    JCC_REL32_BYTES = 6

ctypedef struct Retired:     # what of the guest's retires in a block of translated code
    Unit* unit               # the last that it has code of,
    int insn                 # the instruction of the unit that comes next,
    int count                # instructions so far,
    int most                 # that there is room for,
    uint32_t units           # and the price of all code so far

# Pieces ------------------------------------------------------------------------------------------

cdef inline const uint8_t* piece_code(Engine* e, const Piece* p, uint8_t* code) noexcept nogil:
    """The bytes that Heat knows the piece by, in `code`; NULL: there are none."""
    cdef const uint8_t* there = ram_pointer(&e.ram, bt_of(e).code + p.at, p.bytes)
    if there is NULL:
        return NULL
    memcpy(code, there, p.bytes)
    if p.jumps:
        memset(code + p.bytes - 4, 0, 4)
    return code

cdef inline bint has_rel32(const InsnMark* m, int i, const uint8_t* code) noexcept nogil:
    """Is instruction i a JMP or Jcc with a distance of 32 bits?"""
    cdef uint32_t start = m[i - 1].end if i else 0
    if m[i].end - start == JMP_REL32_BYTES:
        return code[start] == 0xe9
    return m[i].end - start == JCC_REL32_BYTES and code[start] == 0x0f and code[start + 1] & 0xf0 == 0x80

cdef inline void piece_price(Engine* e, BlockRecord* r, uint32_t at, InsnMark* m, int n) noexcept nogil:
    """The next piece of `r` has n instructions at this offset of the code area: they get the model's price if Heat has one, else are counted."""
    cdef Piece* p = &e.pieces[r.slot + r.plain]
    cdef uint8_t code[PLAIN_BYTES]
    cdef uint32_t price[PLAIN_INSNS]
    cdef HeatSlot* s
    cdef bint whole
    cdef int plain
    if e.heat is NULL or r.plain == BLOCK_PIECES:
        return
    plain = plain_part(m, n, PLAIN_BYTES, &whole)
    if plain == 0:
        return
    p.at = at
    p.bytes = <uint8_t>m[plain - 1].end
    p.insns = <uint8_t>plain
    p.base = m[plain - 1].units
    p.jumps = False
    if piece_code(e, p, code) is NULL:
        return
    p.jumps = has_rel32(m, plain - 1, code)
    piece_code(e, p, code)
    s = heat_find(e.heat, code_key(code, p.bytes, env_bits(e.env)), True)
    if s is NULL:
        return
    p.slot = <uint32_t>(s - e.heat.slot)
    p.units = s.units
    r.plain += 1
    if s.units:
        spread(m, plain, s.units, price)
        put_prices(m, n, price, plain)
    else:
        r.flags |= REC_COUNT

# Blocks --------------------------------------------------------------------------------------------

cdef inline int code_marks(Engine* e, BlockRecord* r, const Unit* u, uint32_t at, uint32_t end, InsnMark* m) noexcept nogil:
    """Marks of a piece of `r`: code [at, end) of the unit, or as far as its first transfer; how many, 0: none of it is there."""
    cdef const uint8_t* code = ram_pointer(&e.ram, bt_of(e).code + u.code + at, end - at if end > at else 1)
    cdef int n = 0, i
    if code is not NULL and end > at:
        n = block_decode(e.decoder, code, end - at, 0, env_bits(e.env), m, MOST_INSNS)
    for i in range(n - 1):
        if m[i].flags & MARK_CT:
            n = i + 1
            break
    price_marks(m, n)
    piece_price(e, r, u.code + at, m, n)
    return n

cdef inline int hit_marks(Engine* e, BlockRecord* r, const Unit* u, uint32_t at, const BtPart* miss, InsnMark* m) noexcept nogil:
    """Marks of a short lookup: what a processor would run, so the way of a hit instead of that of a miss."""
    cdef InsnMark hit[MOST_INSNS]
    cdef int n = code_marks(e, r, u, at, miss.start, m), k = code_marks(e, r, u, miss[1].start, u.code_bytes, hit)
    if n and k:
        m[n - 1].units += hit[k - 1].units
        m[n - 1].end = <uint16_t>(miss[1].start - at)
    return n

cdef inline void cache_marks(Engine* e, BlockRecord* r, Retired* t, const InsnMark* from_, int n, uint32_t at, bint whole) noexcept nogil:
    """Code of t.unit runs in the block: from the marks of translated instructions to those of the guest's that retire.

    An instruction of the guest's has the price of all code since the one before it.
    from_   n marks, of code at this offset of the unit
    whole   the instruction under way retires with the last of them
    """
    cdef InsnMark* m = &e.marks[r.first_mark]
    cdef const BtInsn* insns = insns_of(bt_of(e), &e.ram, t.unit)
    cdef uint32_t before = <uint32_t>(cache_base(e) + t.unit.code + at - r.pc)
    cdef int i
    for i in range(n):
        if t.insn >= t.unit.n_insns or t.count == t.most or insns[t.insn].kind == BT_CALLOUT:    # the monitor's step will count a call-out
            break
        if insns[t.insn].code_end != at + from_[i].end and not (whole and i == n - 1):
            continue
        m[t.count].end = <uint16_t>(before + from_[i].end)
        m[t.count].units = t.units + from_[i].units
        m[t.count].flags = <uint16_t>((from_[i].flags & (1 << MARK_SENSITIVE) - 1) | <uint16_t>insns[t.insn].sensitive << MARK_SENSITIVE)
        t.count += 1
        t.insn += 1
    t.units += from_[n - 1].units
    if t.count:
        m[t.count - 1].units = t.units

cdef inline const BtPart* short_lookup(Engine* e, const Unit* u, uint32_t at, uint32_t end) noexcept nogil:
    """The part behind the lookup of an indirect transfer that the engine does its own way (lookup.pxd), or NULL: code [at, end) of
    the unit has all of the lookup then, up to the INT of a miss."""
    cdef const BtPart* parts = parts_of(bt_of(e), &e.ram, u)
    cdef int i
    for i in range(u.n_parts - 2):
        if parts[i].flags & PART_LOOKUP and parts[i].start >= at and parts[i + 2].start == end:
            return &parts[i + 1]
    return NULL

cdef inline void cache_segments(Engine* e, BlockRecord* r, const Place* p, Retired* t) noexcept nogil:
    """What retires in the block, unit by unit: it has more than one where unit_follow (parts.pxd) went on."""
    cdef InsnMark m[MOST_INSNS]
    cdef uint32_t start = <uint32_t>(r.pc - cache_base(e)), stop = start + r.size, at = start - p.unit.code, end, jump
    cdef const BtPart* miss
    cdef Unit* next_
    cdef int n
    t.unit = p.unit
    t.insn = p.insn
    t.count = 0
    t.units = 0
    while True:
        end = stop - t.unit.code
        next_ = unit_joined(e, t.unit)
        jump = exits_of(bt_of(e), &e.ram, t.unit).at + 4 if next_ is not NULL else 0
        if next_ is not NULL and jump < end:
            end = jump
        else:
            next_ = NULL
        miss = short_lookup(e, t.unit, at, end)
        n = hit_marks(e, r, t.unit, at, miss, m) if miss is not NULL else code_marks(e, r, t.unit, at, end, m)
        if n == 0:
            return
        cache_marks(e, r, t, m, n, at, next_ is NULL and ends_by_lookup(e, t.unit, end))
        if next_ is NULL:
            return
        t.unit = next_
        t.insn = 0
        at = 0

cdef inline bint ends_by_lookup(Engine* e, const Unit* u, uint32_t end) noexcept nogil:
    """Is INT BT_INT_LOOKUP the last of the unit's code before `end`?  The instruction has retired then."""
    cdef const uint8_t* p = ram_pointer(&e.ram, bt_of(e).code + u.code + end - 2, 2) if end >= 2 else NULL
    return p is not NULL and p[0] == 0xcd and p[1] == BT_INT_LOOKUP

cdef inline bint cache_transfers(Engine* e, const Place* p, const Retired* t) noexcept nogil:
    """Is the block's end one where the guest takes interrupts?"""
    cdef BtExit* exits = exits_of(bt_of(e), &e.ram, p.unit)
    if p.exit >= 0:
        return exits[p.exit].transfer == EXIT_TRANSFER or exits[p.exit].transfer == EXIT_WINDOW
    return t.count and t.insn == t.unit.n_insns and (t.unit.ends_with == BT_END_TRANSFER or t.unit.ends_with == BT_END_WINDOW)

cdef inline bint is_piece(const Place* p) noexcept nogil:
    """Is it code that guest instructions retire by?"""
    return p.unit is not NULL and p.part is not NULL and not p.dead and p.exit < 0 and p.part.kind != BT_CALLOUT and not p.part.flags & PART_EXIT

cdef inline void exit_marks(Engine* e, BlockRecord* r, Retired* t) noexcept nogil:
    """A block of code that only leaves: no instruction of the guest's."""
    cdef uint8_t code[BT_MAX_CODE]
    cdef InsnMark m[MOST_INSNS]
    cdef int n
    read_quiet(e, r.pc, code, r.size)
    n = block_decode(e.decoder, code, r.size, r.pc, env_bits(e.env), m, MOST_INSNS)
    price_marks(m, n)
    if is_cache_address(e, r.pc):
        piece_price(e, r, <uint32_t>(r.pc - cache_base(e)), m, n)
    t.count = 0
    t.units = m[n - 1].units

cdef inline void cache_price(Engine* e, BlockRecord* r, const Place* p, Retired* t) noexcept nogil:
    """Which of the guest's instructions retire in the block, and what its code costs by now."""
    r.plain = 0
    r.flags &= <uint16_t>~REC_COUNT
    if is_piece(p):
        cache_segments(e, r, p, t)
    else:
        exit_marks(e, r, t)
    r.count = <uint16_t>t.count
    r.true_cost = pack(e, t.units, <uint64_t>t.count)
    r.cost = SLOW_COST if r.flags & (REC_SLOW | REC_COUNT) else r.true_cost

cdef inline void price_pieces(Engine* e, BlockRecord* r) noexcept nogil:
    """`r` is about to run: its pieces are executed, and it costs what the model says of them once it says something."""
    cdef uint8_t code[PLAIN_BYTES]
    cdef Place place
    cdef Retired t
    cdef Piece* p
    cdef HeatSlot* s
    cdef bint news = False
    cdef int i
    if not r.flags & REC_COUNT:
        return
    for i in range(r.plain):
        p = &e.pieces[r.slot + i]
        s = &e.heat.slot[p.slot]
        if s.units == 0 and piece_code(e, p, code) is not NULL:
            heat_execute(e.heat, s, code, p.bytes, env_bits(e.env), p.insns, p.base)
        if s.units != p.units:
            news = True
    if news:
        place_find(e, r.pc, &place)
        t.most = r.count
        cache_price(e, r, &place, &t)

cdef inline bint only_leaves(const Place* p) noexcept nogil:
    """Does nothing lie there but the INT of a call-out, or of a dead unit?  An interrupt may come before it, which a block without an
    instruction of the guest's would not use the budget up for."""
    return p.unit is not NULL and p.part is not NULL and (p.dead or p.exit < 0 and p.part.kind == BT_CALLOUT)

cdef inline void cache_record(Engine* e, BlockRecord* r, uint64_t pc, uint32_t size) noexcept nogil:
    """record_decode of a block of translated code."""
    cdef Place p
    cdef Retired t
    r.pc = r.eip = pc
    r.size = <uint16_t>max(1, min(size, <uint32_t>BT_MAX_CODE))
    r.mode = code_mode(e.env)
    r.first_mark = <uint32_t>e.mark_count if e.mark_count + ENGINE_MAX_INSNS < MAX_MARKS else 0
    r.slot = e.piece_count if e.piece_count + BLOCK_PIECES <= MAX_PIECES else 0
    r.flags = 0
    r.plain = 0
    r.translated = TRANSLATED
    place_find(e, pc, &p)
    t.most = ENGINE_MAX_INSNS
    cache_price(e, r, &p, &t)
    if is_piece(&p) and not p.defined:
        r.translated = TRANSLATED_INSIDE
    if p.unit is not NULL and not p.dead and cache_transfers(e, &p, &t):
        r.flags |= REC_TRANSFER
    e.mark_count = r.first_mark + <uint64_t>r.count
    e.piece_count = r.slot + r.plain
    r.frame = r.frame2 = <uint32_t>code_frame(e, pc)
    if r is &e.lost or resume_flag(e) or census_wants(e, r) or only_leaves(&p):
        r.flags |= REC_SLOW
        r.cost = SLOW_COST
