# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoding of single system instructions: prefixes, ModRM, effective address (SDM 2A chapter 2).

Only what a monitor needs of an instruction that the processor has already accepted: length,
opcode, registers, the linear address of a memory operand.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.regs cimport SEG_CS, SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS

ctypedef struct Insn:
    int length           # bytes
    int map              # 0: one-byte opcodes, 1: 0F, 2: 0F38, 3: 0F3A
    int opcode
    int modrm            # -1: none
    int reg              # ModRM.reg with REX.R
    int rm               # ModRM.rm with REX.B (register form)
    bint is_register     # ModRM.mod = 3
    bint rep             # F2 or F3
    bint op16            # 66
    bint rex_w
    bint lock
    int segment          # of the memory operand
    int base             # general register, or -1
    int index            # general register, or -1
    int scale
    int64_t disp
    bint rip_relative
    int address_bits     # 16, 32, 64

cdef inline bint has_modrm(int map, int op) noexcept nogil:
    """SDM 2D appendix A."""
    if map == 0:
        if op < 0x40:
            return op & 7 < 4
        return 0x80 <= op <= 0x8f or 0xd8 <= op <= 0xdf or 0xd0 <= op <= 0xd3 or 0x62 <= op <= 0x63 or op | 2 == 0x6b or \
            (0xc0 <= op <= 0xc7 and op | 1 != 0xc3) or op | 1 == 0xf7 or op | 1 == 0xff
    if map == 1:
        return not (0x04 <= op <= 0x0c or op == 0x0e or 0x30 <= op <= 0x37 or op == 0x77 or 0x80 <= op <= 0x8f or
                    0xa0 <= op <= 0xa2 or 0xa8 <= op <= 0xaa or 0xc8 <= op <= 0xcf)
    return True

cdef inline int base16(int rm) noexcept nogil:
    """BX BX BP BP - - BP BX."""
    if rm == 0 or rm == 1 or rm == 7:
        return 3
    if rm == 4 or rm == 5:
        return -1
    return 5

cdef inline int decode_modrm16(Insn* d, const uint8_t* p, int mod, int rm) noexcept nogil:
    """16-bit addressing (SDM 2A table 2-1).  Returns the bytes taken behind ModRM."""
    cdef int16_t w
    d.base = base16(rm)
    d.index = 6 if rm == 0 or rm == 2 or rm == 4 else 7 if rm == 1 or rm == 3 or rm == 5 else -1
    d.scale = 0
    if rm == 2 or rm == 3 or (rm == 6 and mod != 0):
        d.segment = SEG_SS
    if mod == 1:
        d.disp = <int8_t>p[0]
        return 1
    if mod == 2 or (mod == 0 and rm == 6):
        if mod == 0:
            d.base = -1
        memcpy(&w, p, 2)
        d.disp = w
        return 2
    return 0

cdef inline int decode_modrm32(Insn* d, const uint8_t* p, int mod, int rm, int rex, bint long_mode) noexcept nogil:
    """32- and 64-bit addressing (SDM 2A tables 2-2, 2-3).  Returns the bytes taken behind ModRM."""
    cdef int taken = 0, sib
    cdef int32_t w
    d.base = rm | (8 if rex & 1 else 0)
    if rm == 4:
        sib = p[0]
        taken = 1
        d.scale = sib >> 6
        d.index = ((sib >> 3) & 7) | (8 if rex & 2 else 0)
        if d.index == 4:
            d.index = -1
        rm = sib & 7
        d.base = rm | (8 if rex & 1 else 0)
        if rm == 5 and mod == 0:
            d.base = -1
    elif rm == 5 and mod == 0:
        d.base = -1
        d.rip_relative = long_mode
    if d.base == 4 or d.base == 5:
        d.segment = SEG_SS
    if mod == 1:
        d.disp = <int8_t>p[taken]
        return taken + 1
    if mod == 2 or d.base == -1:
        memcpy(&w, p + taken, 4)
        d.disp = w
        return taken + 4
    return taken

cdef inline bint insn_decode(const uint8_t* code, int bits, Insn* d) noexcept nogil:
    """Decode up to 15 bytes at `code` (the buffer must hold 32).  False: too long."""
    cdef int i = 0, rex = 0, mod, rm, forced = -1
    cdef bint addr_flip = False
    d.rep = d.op16 = d.rex_w = d.lock = d.rip_relative = d.is_register = False
    d.map = 0
    d.segment = SEG_DS
    d.base = d.index = -1
    d.scale = 0
    d.disp = 0
    d.modrm = -1
    d.reg = d.rm = 0
    while i < 14:
        if code[i] == 0x66:
            d.op16 = True
        elif code[i] == 0x67:
            addr_flip = True
        elif code[i] == 0xf2 or code[i] == 0xf3:
            d.rep = True
        elif code[i] == 0xf0:
            d.lock = True
        elif code[i] == 0x2e:
            forced = SEG_CS
        elif code[i] == 0x36:
            forced = SEG_SS
        elif code[i] == 0x3e:
            forced = SEG_DS
        elif code[i] == 0x26:
            forced = SEG_ES
        elif code[i] == 0x64:
            forced = SEG_FS
        elif code[i] == 0x65:
            forced = SEG_GS
        else:
            break
        i += 1
    if bits == 64 and code[i] & 0xf0 == 0x40:
        rex = code[i]
        d.rex_w = rex & 8 != 0
        i += 1
    if code[i] == 0x0f:
        i += 1
        d.map = 1
        if code[i] == 0x38 or code[i] == 0x3a:
            d.map = 2 if code[i] == 0x38 else 3
            i += 1
    d.opcode = code[i]
    i += 1
    d.address_bits = (64 if not addr_flip else 32) if bits == 64 else (16 if (bits == 16) != addr_flip else 32)
    if has_modrm(d.map, d.opcode):
        d.modrm = code[i]
        i += 1
        mod = d.modrm >> 6
        rm = d.modrm & 7
        d.reg = ((d.modrm >> 3) & 7) | (8 if rex & 4 else 0)
        d.rm = rm | (8 if rex & 1 else 0)
        d.is_register = mod == 3
        if mod != 3 and not (d.map == 1 and 0x20 <= d.opcode <= 0x23):   # MOV CR/DR ignore mod
            if d.address_bits == 16:
                i += decode_modrm16(d, code + i, mod, rm)
            else:
                i += decode_modrm32(d, code + i, mod, rm, rex, bits == 64)
        elif d.map == 1 and 0x20 <= d.opcode <= 0x23:
            d.is_register = True
    if d.map == 0 and (d.opcode == 0xcd or 0xe4 <= d.opcode <= 0xe7):
        i += 1                               # imm8 of INT n, IN, OUT
    if forced >= SEG_FS or (forced >= 0 and bits != 64):    # the other four are ignored in 64-bit mode
        d.segment = forced
    d.length = i
    return i <= 15

cdef inline uint64_t insn_offset(const Insn* d, const uint64_t* gpr, uint64_t rip) noexcept nogil:
    """The effective address: offset in its segment."""
    cdef uint64_t a = <uint64_t>d.disp
    if d.rip_relative:
        a += rip + <uint64_t>d.length
    if d.base >= 0:
        a += gpr[d.base]
    if d.index >= 0:
        a += gpr[d.index] << d.scale
    if d.address_bits == 16:
        return a & 0xffff
    return a & 0xffffffffULL if d.address_bits == 32 else a

cdef inline uint32_t insn_info(const Insn* d) noexcept nogil:
    """The operand as VT-x's instruction information has it (SDM 3C tables 27-8 to 27-14): scaling 1:0, register 6:3, address
    size 9:7, register form 10, segment 17:15, index 21:18 or none 22, base 26:23 or none 27."""
    cdef uint32_t size = 0 if d.address_bits == 16 else 1 if d.address_bits == 32 else 2
    if d.is_register:
        return <uint32_t>(1 << 10 | d.rm << 3)
    return <uint32_t>d.scale | size << 7 | <uint32_t>d.segment << 15 | \
        (<uint32_t>d.index << 18 if d.index >= 0 else 1 << 22) | (<uint32_t>d.base << 23 if d.base >= 0 else 1 << 27)

cdef inline uint64_t insn_displacement(const Insn* d, uint64_t rip) noexcept nogil:
    """Of the memory operand, as the exit qualification has it (SDM 3C 27.2.1): relative to RIP it is the address."""
    if d.is_register:
        return 0
    return <uint64_t>d.disp + (rip + <uint64_t>d.length if d.rip_relative else 0)

cdef inline bint uses_stack(const Insn* d) noexcept nogil:
    """In 64-bit mode: does the instruction push or pop, beside what its memory operand is for?"""
    cdef int op = d.opcode
    if d.map == 1:
        return op & ~9 == 0xa0                           # PUSH and POP of FS and GS
    if d.map or op == 0xff:
        return d.map == 0 and (d.reg & 7 == 2 or d.reg & 7 == 3 or d.reg & 7 == 6)       # CALL, far CALL, PUSH
    return 0x50 <= op <= 0x5f or op | 2 == 0x6a or op == 0x8f or 0x9c <= op <= 0x9d or 0xc2 <= op <= 0xc3 or \
        0xc8 <= op <= 0xcb or op == 0xcf or op == 0xe8
