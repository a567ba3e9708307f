# SPDX-License-Identifier: GPL-2.0-or-later
"""Block records: what the engine knows of each translated block, decoded at its first execution.

A record belongs to one translation and dies with it; when the arena is nearly full all translations are
dropped together.  Invariant 3: a block that crosses a page is looked up by its first page only when it is
entered, and may be chained to; so it takes the slow path every time, which looks its last page up, and the
block after it looks its own page up, since that lookup may have evicted it.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.decode cimport Insn, insn_decode
from pyx86v.arch.types cimport *
from libc.string cimport memset
from pyx86v.cost.block cimport BLOCK_MAX_BYTES, InsnInfo, InsnMark, MARK_CT, MARK_SENSITIVE, block_decode
from pyx86v.cost.block cimport insn_decode as block_insn
from pyx86v.engine.breakpoints cimport resume_flag
from pyx86v.engine.cache_blocks cimport BLOCK_PIECES, cache_record
from pyx86v.engine.cache_map cimport in_cache
from pyx86v.engine.census cimport census_wants
from pyx86v.engine.fill cimport ENGINE_MAX_INSNS, code_frame, read_quiet
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport code_mode, env_based_code, env_bits
from pyx86v.engine.price cimport price_marks, record_stretch, set_cost
from pyx86v.engine.state cimport *
from pyx86v.vmm.trap.holes cimport is_hole

cdef enum:
    WASTE_WINDOW = 256       # translations looked at together
    WASTE_RATIO = 16         # translated instructions for each that ran
    SHORT_BLOCKS = 8192

cdef inline BlockRecord* record_new(Engine* e) noexcept nogil:
    """A fresh record; the shared `lost` one when the arena is full (every execution is then slow, and right)."""
    cdef BlockRecord* r
    if e.record_count >= MAX_RECORDS - 1:
        e.flush_blocks = True
        r = &e.lost
    else:
        e.record_count += 1
        r = &e.records[e.record_count]
        if e.record_count > MAX_RECORDS - 4096 or e.mark_count > MAX_MARKS - 64 * ENGINE_MAX_INSNS or \
                e.piece_count > MAX_PIECES - 64 * BLOCK_PIECES:
            e.flush_blocks = True
    r.cost = SLOW_COST
    r.flags = REC_NEW
    r.size = 0
    r.count = 0
    r.next = 0
    return r

cdef inline bint ends_by_itself(Engine* e, const BlockRecord* r, const uint8_t* code) noexcept nogil:
    """Does the block end where the guest's control flow says so, and not the engine?

    A control transfer; POPF, after which the engine always ends a block; or the one instruction
    in the shadow of STI or MOV SS.
    """
    if e.marks[r.first_mark + r.count - 1].flags & MARK_CT:
        return True
    if code[r.size - 1] == 0x9d:
        return True
    return env_u32(e.env, ENV_HFLAGS)[0] & HF_INHIBIT_IRQ != 0

cdef inline bint ends_far(Engine* e, const BlockRecord* r, const uint8_t* code) noexcept nogil:
    """Far CALL, JMP or IRET outside IA-32e mode (the portable engine has one record for all modes)."""
    cdef Insn d
    if not e.marks[r.first_mark + r.count - 1].flags & MARK_CT or \
            (env_u32(e.env, ENV_HFLAGS)[0] & HF_LMA and not e.portable):
        return False
    insn_decode(code + (e.marks[r.first_mark + r.count - 2].end if r.count > 1 else 0), env_bits(e.env), &d)
    return d.map == 0 and (d.opcode == 0x9a or d.opcode == 0xea or d.opcode == 0xcf or
                           (d.opcode == 0xff and not d.is_register and (d.reg & 7 == 3 or d.reg & 7 == 5)))

cdef inline void watch_waste(Engine* e, int count) noexcept nogil:
    """A guest that overwrites the code ahead of it makes the engine translate 512 instructions to run one.

    When translations cost far more than what runs, the next ones are cut to one instruction each; then it is measured again.
    """
    e.window_blocks += 1
    e.window_insns += <uint64_t>count
    if e.window_blocks < WASTE_WINDOW:
        return
    if e.window_insns > WASTE_RATIO * (e.ledger.instructions - e.window_start + WASTE_WINDOW):
        e.short_blocks = SHORT_BLOCKS
    e.window_blocks = 0
    e.window_insns = 0
    e.window_start = e.ledger.instructions

cdef inline void mark_holes(Engine* e, BlockRecord* r, const uint8_t* code) noexcept nogil:
    """Mark the holes of a block (MARK_HOLE), and say whether it begins with one and has to be cut before one."""
    cdef InsnMark* m = &e.marks[r.first_mark]
    cdef int i, bits = env_bits(e.env)
    cdef uint32_t at = 0
    for i in range(r.count):
        if m[i].flags >> MARK_SENSITIVE and is_hole(m[i].flags >> MARK_SENSITIVE, code + at, bits):
            m[i].flags |= MARK_HOLE
            r.flags |= REC_SLOW | (REC_CUT if i else REC_HOLE)
        at = m[i].end

cdef inline void complete_last(Engine* e, BlockRecord* r) noexcept nogil:
    """In ring 1 the engine translates MOV to and from CR to a #GP before it has read all of it, and INVPCID, which we emulate, in any: know
    the instruction all the same.  An audit is to change no price."""
    cdef InsnMark* last = &e.marks[r.first_mark + r.count - 1]
    cdef uint32_t start = last[-1].end if r.count > 1 else 0
    cdef uint8_t code[16]
    cdef InsnInfo info
    memset(code, 0, sizeof(code))
    read_quiet(e, r.pc + start, code, 15)
    if block_insn(e.decoder, code, 15, r.pc + start, env_bits(e.env), &info) > <int>(r.size - start):
        if not e.style.deprivileged:
            last.flags |= info.flags >> MARK_SENSITIVE << MARK_SENSITIVE
            return
        last.flags = info.flags
        last.units = info.units + (last[-1].units if r.count > 1 else 0)

cdef inline void record_decode(Engine* e, BlockRecord* r, uint64_t pc, uint32_t size, bint restart) noexcept nogil:
    """Fill the record of the block at `pc` (linear) in, which is about to run for the first time."""
    cdef uint8_t code[BLOCK_MAX_BYTES + 32]
    cdef int n
    if in_cache(e):
        cache_record(e, r, pc, size)
        return
    if size > BLOCK_MAX_BYTES:
        size = BLOCK_MAX_BYTES
    elif size == 0:
        size = 1                             # at least one mark: what follows looks at the last
    r.pc = pc
    r.eip = env_eip_of(e, pc)
    r.size = <uint16_t>size
    r.mode = code_mode(e.env)
    r.first_mark = <uint32_t>e.mark_count if e.mark_count + ENGINE_MAX_INSNS < MAX_MARKS else 0
    read_quiet(e, pc, code, size)
    n = block_decode(e.decoder, code, size, pc, env_bits(e.env), &e.marks[r.first_mark], ENGINE_MAX_INSNS)
    r.count = <uint16_t>n
    e.mark_count = r.first_mark + <uint64_t>n
    watch_waste(e, n)
    if e.style.deprivileged or e.audit:
        complete_last(e, r)
    r.flags = 0
    r.translated = NOT_TRANSLATED
    price_marks(&e.marks[r.first_mark], n)
    if ends_by_itself(e, r, code):
        r.flags |= REC_TRANSFER
    r.frame = r.frame2 = <uint32_t>code_frame(e, pc)
    if (pc ^ (pc + size - 1)) >> PAGE_SHIFT:
        r.flags |= REC_STRADDLE | REC_SLOW
        r.frame2 = <uint32_t>code_frame(e, pc + size - 1)
    if restart:
        r.flags |= REC_RESTART | REC_SLOW
    if r is &e.lost or resume_flag(e) or census_wants(e, r) or env_based_code(e.env):
        r.flags |= REC_SLOW
    memset(code + size, 0, 32)               # the decoder of one instruction looks further
    if ends_far(e, r, code):
        r.flags |= REC_FAR | REC_SLOW
    if e.style.deprivileged:
        mark_holes(e, r, code)
    record_stretch(e, r)
    set_cost(e, r)

cdef inline uint64_t env_eip_of(Engine* e, uint64_t pc) noexcept nogil:
    """Instruction pointer of a linear address in the running code segment."""
    if env_bits(e.env) == 64:
        return pc
    return (pc - env_segment(e.env, 1).base) & 0xffffffffULL

cdef inline void records_reset(Engine* e) noexcept nogil:
    """No record.  Number 0 is never used: it stands at the end of each chain of the portable engine."""
    cdef int i
    e.record_count = 0
    e.mark_count = 0
    e.piece_count = BLOCK_PIECES
    e.flush_blocks = False
    if e.portable:
        e.records[0].cost = SLOW_COST
        for i in range(RECORD_HASH):
            e.hash[i] = &e.records[0]

cdef inline void records_clear(Engine* e) noexcept nogil:
    """Forget every translation and record; the next blocks start from scratch."""
    tb_flush_x86_64(e.cpu)
    records_reset(e)
