# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest instruction as the translator sees it, and its memory operand written anew for the translation cache."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.regs cimport SEG_CS, SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS
from pyx86v.cost.form cimport (
    FORM_MODRM, INSN_MAX_BYTES, MAP_0F, MAP_0F38, MAP_0F3A, MAP_ONE, PREFIX_66, PREFIX_67, PREFIX_LOCK, PREFIX_VEX, Form, FormTables,
    form_decode, form_modrm_bytes, form_prefixes)
from pyx86v.vmm.bt.emit cimport *

ctypedef struct Source:
    Form f
    const uint8_t* code
    int bits                 # of the code segment
    int length
    uint64_t eip
    uint64_t next            # instruction pointer behind it
    int segment              # override: SEG_*, or -1
    int opcode_at            # first byte behind the prefixes, REX being one
    int modrm_at             # 0: none
    int operand              # bytes of ModRM, SIB and displacement
    int immediate            # bytes behind them
    int mod
    int reg                  # without REX
    int rm
    bint op16                # 16-bit operands
    bint relative            # the operand is relative to RIP

cdef inline uint64_t masked(const Source* s, uint64_t eip) noexcept nogil:
    """An instruction pointer in the code segment."""
    return eip if s.bits == 64 else eip & 0xffffffffULL

cdef inline int override_of(const uint8_t* code, int n) noexcept nogil:
    """The last segment override among n prefix bytes, or -1."""
    cdef int i, found = -1
    for i in range(n):
        if code[i] == 0x26: found = SEG_ES
        elif code[i] == 0x2e: found = SEG_CS
        elif code[i] == 0x36: found = SEG_SS
        elif code[i] == 0x3e: found = SEG_DS
        elif code[i] == 0x64: found = SEG_FS
        elif code[i] == 0x65: found = SEG_GS
    return found

cdef inline int source_read(const FormTables* t, const uint8_t* code, int available, int bits, uint64_t eip, Source* s) noexcept nogil:
    """Decode.  Its length; 0: not all of it is there; -1: longer than 15 bytes."""
    cdef Form scratch
    cdef bint address16
    cdef int length = form_decode(t, code, <uint32_t>available, bits, &s.f)
    if length == 0:
        return 0 if available < <int>INSN_MAX_BYTES else -1
    s.code = code
    s.bits = bits
    s.length = length
    s.eip = eip
    s.next = masked(s, eip + <uint64_t>length)
    s.opcode_at = <int>form_prefixes(code, <uint32_t>available, bits, &scratch)
    s.segment = override_of(code, s.opcode_at)
    s.op16 = (bits == 16) != (s.f.prefixes & PREFIX_66 != 0) and not s.f.rex & 8
    s.modrm_at = s.operand = s.immediate = s.mod = s.reg = s.rm = 0
    s.relative = False
    if s.f.has_modrm:
        s.modrm_at = s.opcode_at + (1 if s.f.map == MAP_ONE else 2 if s.f.map == MAP_0F else 3)
        if s.f.prefixes & PREFIX_VEX:
            s.modrm_at = s.opcode_at + (3 if code[s.opcode_at] == 0xc5 else 4 if code[s.opcode_at] == 0xc4 else 5)
        address16 = bits != 64 and (bits == 16) != (s.f.prefixes & PREFIX_67 != 0)
        s.mod = s.f.modrm >> 6
        s.reg = s.f.modrm >> 3 & 7
        s.rm = s.f.modrm & 7
        s.operand = 1
        if s.mod != 3:
            s.operand = <int>form_modrm_bytes(code, <uint32_t>length, <uint32_t>s.modrm_at, address16)
        s.immediate = length - s.modrm_at - s.operand
        s.relative = bits == 64 and s.mod == 0 and s.rm == 5
    return length

cdef inline bint write_relative(Emitter* e, const Source* s, int reg, int behind) noexcept nogil:
    """ModRM, SIB and displacement of an operand that is relative to RIP, with `behind` more bytes to come; REX.X is 0.

    Absolute if a sign-extended 32-bit displacement (a zero-extended one with 67) reaches it, else relative to where it now is.
    False: neither reaches it.
    """
    cdef int32_t near
    cdef int64_t far
    memcpy(&near, s.code + s.modrm_at + 1, 4)
    far = <int64_t>(s.next + <uint64_t><int64_t>near)
    if s.f.prefixes & PREFIX_67 or far == <int32_t>far:
        bytes2(e, reg << 3 | 4, 0x25)
        dword(e, <uint32_t>far)
        return True
    far -= <int64_t>(e.base + <uint64_t>(e.at + 5 + behind))
    byte(e, reg << 3 | 5)
    dword(e, <uint32_t>far)
    return far == <int32_t>far

cdef inline bint write_operand(Emitter* e, const Source* s, int opcode, bint word, int reg, int behind) noexcept nogil:
    """Another instruction with the memory operand of this one: `opcode` (0x0fxx: two bytes), register `reg`; word: REX.W in 64-bit code.

    `behind` bytes of immediate follow.  False: the operand is out of reach.
    """
    cdef int rex = (8 if word and s.bits == 64 else 0) | (s.f.rex & (1 if s.relative else 3))
    if s.segment >= 0:
        byte(e, segment_prefix(s.segment))
    if (s.f.prefixes & PREFIX_67 != 0) != (s.bits == 16):
        byte(e, 0x67)
    if rex:
        byte(e, 0x40 | rex)
    if opcode > 0xff:
        byte(e, 0x0f)
    byte(e, opcode & 0xff)
    if s.relative:
        return write_relative(e, s, reg, behind)
    byte(e, (s.f.modrm & 0xc7) | reg << 3)
    copy_bytes(e, s.code + s.modrm_at + 1, s.operand - 1)
    return True

cdef inline int segment_prefix(int segment) noexcept nogil:
    if segment >= SEG_FS:
        return 0x64 if segment == SEG_FS else 0x65
    return 0x26 | segment << 3

# Copies -------------------------------------------------------------------------------------------

cdef inline bint copy_relative(Emitter* e, const Source* s) noexcept nogil:
    """Verbatim but for the operand.  With a SIB byte the X bit has a meaning, so it is cleared (set, in VEX: inverted)."""
    cdef int start = e.at
    copy_bytes(e, s.code, s.modrm_at)
    if not e.full:
        if s.f.prefixes & PREFIX_VEX:
            if s.code[s.opcode_at] == 0xc4:
                e.out[start + s.opcode_at + 1] |= 0x40
        elif s.f.rex:
            e.out[start + s.opcode_at - 1] &= 0xfd
    if not write_relative(e, s, s.reg, s.immediate):
        return False
    copy_bytes(e, s.code + s.length - s.immediate, s.immediate)
    return e.at - start <= INSN_MAX_BYTES

cdef inline bint address_matters(const Source* s) noexcept nogil:
    """Does the instruction make an address: of an operand, an offset, or in string registers and BX?"""
    cdef int op = s.f.opcode
    if s.f.has_modrm and s.mod != 3:
        return True
    if s.f.map == MAP_ONE and not s.f.prefixes & PREFIX_VEX:
        return 0xa0 <= op <= 0xa7 or 0xaa <= op <= 0xaf or op == 0xd7
    return s.f.map == MAP_0F and op == 0xf7              # MASKMOVQ

cdef inline bint operand_size_matters(const Source* s) noexcept nogil:
    """Is 66 an operand size here, and not a part of the opcode as with SSE (SDM 2D table A-3)?

    For POPCNT, MOVBE and CRC32 the manual says so; the engine only looks whether 66 is there, and native is what all styles equal.
    """
    cdef int op = s.f.opcode
    if s.f.map == MAP_0F:
        return 0x40 <= op <= 0x4f or 0x80 <= op <= 0xad or (0xaf <= op <= 0xc1 and op != 0xb8) or 0xc8 <= op <= 0xcf
    return s.f.map == MAP_ONE

cdef inline bint copy_16(Emitter* e, const Source* s) noexcept nogil:
    """16-bit code for a 32-bit segment: the sizes' prefixes the other way round."""
    cdef int i, start = e.at
    cdef bint had = s.f.prefixes & PREFIX_66 != 0
    if had != operand_size_matters(s):
        byte(e, 0x66)
    if s.f.prefixes & PREFIX_67 == 0 and address_matters(s):
        byte(e, 0x67)
    for i in range(s.opcode_at):
        if s.code[i] != 0x66 and s.code[i] != 0x67:
            byte(e, s.code[i])
    copy_bytes(e, s.code + s.opcode_at, s.length - s.opcode_at)
    return e.at - start <= INSN_MAX_BYTES

cdef inline bint copy_insn(Emitter* e, const Source* s) noexcept nogil:
    """The same operation from the translation cache.  False: there is no encoding."""
    run(e)
    if s.bits == 16:
        return copy_16(e, s)
    if s.relative:
        return copy_relative(e, s)
    copy_bytes(e, s.code, s.length)
    return True
