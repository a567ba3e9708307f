# SPDX-License-Identifier: GPL-2.0-or-later
"""The byte form of one instruction: prefixes, opcode map, ModRM and, from these, its length.

A block is cut into instructions here, in a few nanoseconds each; what an instruction *is* comes from
capstone, asked once per form (block.pyx).  The rules are those of SDM 2A chapter 2 and appendix A.  One
differs: with an operand-size prefix, near branches in 64-bit mode take a 16-bit displacement, as on AMD
(APM 3, "near branches in 64-bit mode") and in the engine, whose block sizes these lengths must add up to.
"""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    INSN_MAX_BYTES = 15

cdef enum:               # what follows an opcode byte; bits of FormTables
    FORM_MODRM = 0x01
    FORM_IMM8 = 0x02
    FORM_IMM16 = 0x04
    FORM_IMMZ = 0x08     # 16 or 32 bits, by operand size
    FORM_IMMV = 0x10     # 16, 32 or 64 bits, by operand size
    FORM_OFFSET = 0x20   # an address, by address size
    FORM_BRANCH = 0x40   # with FORM_IMMZ: displacement of a near branch
    FORM_TEST = 0x80     # an immediate only if ModRM.reg is 0 or 1 (group 3)

cdef enum:               # bits of Form.prefixes
    PREFIX_66 = 0x01
    PREFIX_67 = 0x02
    PREFIX_REPNE = 0x04
    PREFIX_REP = 0x08
    PREFIX_LOCK = 0x10
    PREFIX_VEX = 0x20    # VEX or EVEX

cdef enum:               # what an instruction does with its explicit memory operand
    MEMORY_READ = 1
    MEMORY_WRITE = 2
    MEMORY_BOTH = 3

cdef enum OpcodeMap:
    MAP_ONE = 0          # one-byte opcodes
    MAP_0F = 1
    MAP_0F38 = 2
    MAP_0F3A = 3

ctypedef struct FormTables:
    uint8_t after[4][256]     # FORM_* by opcode map and opcode

ctypedef struct Form:
    uint8_t length            # bytes
    uint8_t prefixes
    uint8_t rex               # the REX byte, or 0
    uint8_t map
    uint8_t opcode
    uint8_t has_modrm
    uint8_t modrm


cdef inline void form_fill(uint8_t* after, int first, int last, int what) noexcept nogil:
    cdef int i
    for i in range(first, last + 1):
        after[i] = <uint8_t>what


cdef inline void form_tables_fill(FormTables* t) noexcept nogil:
    """What follows each opcode (SDM 2D appendix A, tables A-2 and A-3)."""
    cdef uint8_t* a = t.after[<int>MAP_ONE]
    cdef int i
    form_fill(a, 0x00, 0xFF, 0)
    for i in range(0x00, 0x40, 8):                      # ADD OR ADC SBB AND SUB XOR CMP
        form_fill(a, i, i + 3, FORM_MODRM)
        a[i + 4] = FORM_IMM8
        a[i + 5] = FORM_IMMZ
    form_fill(a, 0x62, 0x63, FORM_MODRM)                # BOUND, ARPL or MOVSXD
    a[0x68] = FORM_IMMZ
    a[0x69] = FORM_MODRM | FORM_IMMZ
    a[0x6A] = FORM_IMM8
    a[0x6B] = FORM_MODRM | FORM_IMM8
    form_fill(a, 0x70, 0x7F, FORM_IMM8)                 # Jcc short
    form_fill(a, 0x80, 0x83, FORM_MODRM | FORM_IMM8)
    a[0x81] = FORM_MODRM | FORM_IMMZ
    form_fill(a, 0x84, 0x8F, FORM_MODRM)
    a[0x9A] = FORM_IMMZ | FORM_IMM16                    # CALL ptr16:16/32
    form_fill(a, 0xA0, 0xA3, FORM_OFFSET)
    a[0xA8] = FORM_IMM8
    a[0xA9] = FORM_IMMZ
    form_fill(a, 0xB0, 0xB7, FORM_IMM8)
    form_fill(a, 0xB8, 0xBF, FORM_IMMV)
    form_fill(a, 0xC0, 0xC1, FORM_MODRM | FORM_IMM8)
    a[0xC2] = FORM_IMM16
    form_fill(a, 0xC4, 0xC5, FORM_MODRM)                # LES, LDS (VEX is taken before)
    a[0xC6] = FORM_MODRM | FORM_IMM8
    a[0xC7] = FORM_MODRM | FORM_IMMZ
    a[0xC8] = FORM_IMM16 | FORM_IMM8                    # ENTER
    a[0xCA] = FORM_IMM16
    a[0xCD] = FORM_IMM8
    form_fill(a, 0xD0, 0xD3, FORM_MODRM)
    form_fill(a, 0xD4, 0xD5, FORM_IMM8)                 # AAM, AAD
    form_fill(a, 0xD8, 0xDF, FORM_MODRM)                # x87
    form_fill(a, 0xE0, 0xE7, FORM_IMM8)                 # LOOPcc, JCXZ, IN, OUT
    form_fill(a, 0xE8, 0xE9, FORM_IMMZ | FORM_BRANCH)
    a[0xEA] = FORM_IMMZ | FORM_IMM16                    # JMP ptr16:16/32
    a[0xEB] = FORM_IMM8
    a[0xF6] = FORM_MODRM | FORM_IMM8 | FORM_TEST
    a[0xF7] = FORM_MODRM | FORM_IMMZ | FORM_TEST
    form_fill(a, 0xFE, 0xFF, FORM_MODRM)

    a = t.after[<int>MAP_0F]
    form_fill(a, 0x00, 0xFF, FORM_MODRM)
    form_fill(a, 0x04, 0x0C, 0)                         # SYSCALL CLTS SYSRET INVD WBINVD UD2
    a[0x0E] = 0                                         # FEMMS
    a[0x0F] = FORM_MODRM | FORM_IMM8                    # 3DNow!: the opcode is the last byte
    form_fill(a, 0x30, 0x37, 0)                         # WRMSR RDTSC RDMSR RDPMC SYSENTER SYSEXIT GETSEC
    form_fill(a, 0x70, 0x73, FORM_MODRM | FORM_IMM8)
    a[0x77] = 0                                         # EMMS
    form_fill(a, 0x80, 0x8F, FORM_IMMZ | FORM_BRANCH)   # Jcc near
    form_fill(a, 0xA0, 0xA2, 0)                         # PUSH FS, POP FS, CPUID
    a[0xA4] = FORM_MODRM | FORM_IMM8
    form_fill(a, 0xA8, 0xAA, 0)                         # PUSH GS, POP GS, RSM
    a[0xAC] = FORM_MODRM | FORM_IMM8
    a[0xBA] = FORM_MODRM | FORM_IMM8
    a[0xC2] = FORM_MODRM | FORM_IMM8
    form_fill(a, 0xC4, 0xC6, FORM_MODRM | FORM_IMM8)
    form_fill(a, 0xC8, 0xCF, 0)                         # BSWAP

    form_fill(t.after[<int>MAP_0F38], 0x00, 0xFF, FORM_MODRM)
    form_fill(t.after[<int>MAP_0F3A], 0x00, 0xFF, FORM_MODRM | FORM_IMM8)


cdef inline uint32_t form_prefixes(const uint8_t* code, uint32_t size, int bits, Form* f) noexcept nogil:
    """Take the prefixes; returns the offset of the first byte after them (SDM 2A 2.1.1, 2.2.1)."""
    cdef uint32_t at = 0
    cdef uint8_t b
    f.prefixes = 0
    f.rex = 0
    while at < size and at < INSN_MAX_BYTES:
        b = code[at]
        if b == 0x66:
            f.prefixes |= PREFIX_66
        elif b == 0x67:
            f.prefixes |= PREFIX_67
        elif b == 0xF0:
            f.prefixes |= PREFIX_LOCK
        elif b == 0xF2:
            f.prefixes = (f.prefixes & ~PREFIX_REP) | PREFIX_REPNE      # the last of the two counts
        elif b == 0xF3:
            f.prefixes = (f.prefixes & ~PREFIX_REPNE) | PREFIX_REP
        elif bits == 64 and b & 0xF0 == 0x40:
            f.rex = b
            at += 1
            continue
        elif not (b == 0x2E or b == 0x36 or b == 0x3E or b == 0x26 or b == 0x64 or b == 0x65):
            break
        f.rex = 0                                       # a REX before another prefix does not count
        at += 1
    return at


cdef inline uint32_t form_vex(const uint8_t* code, uint32_t size, uint32_t at, int bits, Form* f) noexcept nogil:
    """If a VEX or EVEX prefix lies at `at`, take it with its opcode; returns the offset after the
    opcode, 0 if there is none (SDM 2A 2.3.5, 2.7.1).  Outside 64-bit mode the byte after it must look like a register ModRM."""
    cdef uint8_t b = code[at]
    cdef uint32_t n = 2 if b == 0xC5 else (3 if b == 0xC4 else 4)
    if not (b == 0xC4 or b == 0xC5 or b == 0x62) or at + n >= size:
        return 0
    if bits != 64 and code[at + 1] & 0xC0 != 0xC0:
        return 0
    f.prefixes |= PREFIX_VEX
    f.map = MAP_0F if n == 2 else code[at + 1] & 3
    cdef uint8_t pp = code[at + 1 if n == 2 else at + 2] & 3
    if pp == 1:
        f.prefixes |= PREFIX_66
    elif pp == 2:
        f.prefixes |= PREFIX_REP
    elif pp == 3:
        f.prefixes |= PREFIX_REPNE
    if n > 2 and code[at + 2] & 0x80:
        f.rex = 0x48                                    # VEX.W
    f.opcode = code[at + n]
    return at + n + 1


cdef inline uint32_t form_modrm_bytes(const uint8_t* code, uint32_t size, uint32_t at, bint address16) noexcept nogil:
    """Bytes of ModRM, SIB and displacement at `at` (SDM 2A tables 2-1 to 2-3)."""
    cdef uint8_t m = code[at]
    cdef uint8_t mod = m >> 6, rm = m & 7
    if mod == 3:
        return 1
    if address16:
        return 3 if mod == 2 or (mod == 0 and rm == 6) else 1 + mod
    cdef uint32_t n = 1
    if rm == 4:
        n = 2
        if at + 1 < size and mod == 0 and code[at + 1] & 7 == 5:
            return 6
    elif mod == 0 and rm == 5:
        return 5
    return n + (0 if mod == 0 else (1 if mod == 1 else 4))


cdef inline uint32_t form_immediate_bytes(const Form* f, int what, int bits) noexcept nogil:
    """Bytes of immediate, displacement or far pointer after ModRM."""
    cdef bint wide = f.rex & 8 != 0
    cdef uint32_t operand = 4 if wide or (bits != 16) != (f.prefixes & PREFIX_66 != 0) else 2
    cdef uint32_t n = 0
    if what & FORM_TEST and f.modrm >> 3 & 6:
        return 0
    if what & FORM_IMM8:
        n += 1
    if what & FORM_IMM16:
        n += 2
    if what & FORM_IMMZ:
        n += operand
    elif what & FORM_IMMV:
        n += 8 if wide else operand
    elif what & FORM_OFFSET:
        if bits == 64:
            n += 4 if f.prefixes & PREFIX_67 else 8
        else:
            n += 4 if (bits == 32) != (f.prefixes & PREFIX_67 != 0) else 2
    return n


cdef inline int form_decode(const FormTables* t, const uint8_t* code, uint32_t size, int bits, Form* f) noexcept nogil:
    """Read the form of the instruction at `code`, of which `size` bytes are there, for a 16-, 32- or 64-bit code segment.

    Returns its length in bytes; 0 if it runs past `size` or past 15 bytes.  Whether the opcode exists is not judged.
    """
    cdef uint32_t at = form_prefixes(code, size, bits, f), after
    cdef int what
    cdef bint address16
    f.map = MAP_ONE
    f.has_modrm = 0
    f.modrm = 0
    if at >= size or at >= INSN_MAX_BYTES:
        return 0
    after = form_vex(code, size, at, bits, f)
    if after:
        at = after
    else:
        f.opcode = code[at]
        at += 1
        if f.opcode == 0x0F:
            if at >= size:
                return 0
            f.map = MAP_0F
            f.opcode = code[at]
            at += 1
            if f.opcode == 0x38 or f.opcode == 0x3A:
                if at >= size:
                    return 0
                f.map = MAP_0F38 if f.opcode == 0x38 else MAP_0F3A
                f.opcode = code[at]
                at += 1
    what = t.after[f.map][f.opcode]
    if what & FORM_MODRM:
        if at >= size:
            return 0
        f.has_modrm = 1
        f.modrm = code[at]
        if f.map == MAP_0F and 0x20 <= f.opcode <= 0x27:
            f.modrm |= 0xC0                             # MOV CR, DR: mod is ignored (SDM 2B, MOV to/from control registers), by the engine behind VEX too
            at += 1
        else:
            address16 = bits != 64 and (bits == 16) != (f.prefixes & PREFIX_67 != 0)
            at += form_modrm_bytes(code, size, at, address16)
    at += form_immediate_bytes(f, what, bits)
    if f.map == MAP_0F and f.opcode == 0x78 and f.prefixes & (PREFIX_66 | PREFIX_REPNE) and not f.prefixes & PREFIX_VEX:
        at += 2                                         # EXTRQ, INSERTQ with two immediate bytes (APM 4)
    if at > size or at > INSN_MAX_BYTES:
        return 0
    f.length = <uint8_t>at
    return <int>at


cdef inline int memory_one(uint8_t op, uint8_t reg) noexcept nogil:
    """MEMORY_* of a one-byte opcode with a memory operand; `reg` is ModRM.reg."""
    if op < 0x40:                                       # ADD OR ADC SBB AND SUB XOR, CMP
        return MEMORY_READ if op & 2 or op & 0x38 == 0x38 else MEMORY_BOTH
    if 0x80 <= op <= 0x83:
        return MEMORY_READ if reg == 7 else MEMORY_BOTH
    if op == 0x86 or op == 0x87 or op == 0xC0 or op == 0xC1 or 0xD0 <= op <= 0xD3:      # XCHG, shifts
        return MEMORY_BOTH
    if op == 0x88 or op == 0x89 or op == 0x8C or op == 0x8F or op == 0xA2 or op == 0xA3 or op == 0xC6 or op == 0xC7:
        return MEMORY_WRITE                             # MOV, POP
    if op == 0x8D:                                      # LEA
        return 0
    if op & 0xF9 == 0xD9:                               # x87: FLD, FLDENV, FRSTOR, FLDCW, FILD, FBLD read; the rest stores
        return MEMORY_READ if reg == 0 or reg == 4 or reg == 5 else MEMORY_WRITE
    if op == 0xF6 or op == 0xF7:
        return MEMORY_BOTH if reg == 2 or reg == 3 else MEMORY_READ                     # NOT, NEG
    if op == 0xFE or op == 0xFF:
        return MEMORY_BOTH if reg < 2 else MEMORY_READ                                  # INC, DEC
    return MEMORY_READ


cdef inline int memory_0f(uint8_t op, uint8_t reg, int prefixes) noexcept nogil:
    """MEMORY_* of a 0F opcode with a memory operand."""
    if op == 0x00:
        return MEMORY_WRITE if reg < 2 else MEMORY_READ                                 # SLDT, STR
    if op == 0x0D or 0x18 <= op <= 0x1F:                # prefetches and hints
        return 0
    if op == 0x11 or op == 0x13 or op == 0x17 or op == 0x29 or op == 0x2B or op == 0x7F or op == 0xC3 or op == 0xD6 or op == 0xE7:
        return MEMORY_WRITE                             # stores of SSE, MOVNTI
    if op == 0x7E:
        return MEMORY_READ if prefixes & PREFIX_REP else MEMORY_WRITE                   # MOVQ, MOVD
    if op & 0xF0 == 0x90 or op == 0x78:                 # SETcc, VMREAD
        return MEMORY_WRITE
    if op & 0xF6 == 0xA4 or op == 0xAB or op == 0xB3 or op == 0xBB:                     # SHLD, SHRD, BTS, BTR, BTC
        return MEMORY_BOTH
    if op == 0xB0 or op == 0xB1 or op == 0xC0 or op == 0xC1:                            # CMPXCHG, XADD
        return MEMORY_BOTH
    if op == 0xBA:
        return MEMORY_READ if reg == 4 else MEMORY_BOTH                                 # BT, the others
    if op == 0xC7:
        return MEMORY_BOTH if reg == 1 else MEMORY_READ                                 # CMPXCHG8B
    return MEMORY_READ


cdef inline int form_memory(const Form* f) noexcept nogil:
    """MEMORY_* of the explicit memory operand, 0 if there is none (SDM 2, operand descriptions)."""
    cdef uint8_t reg = f.modrm >> 3 & 7
    if f.map == MAP_ONE and not f.prefixes & PREFIX_VEX and f.opcode & 0xFC == 0xA0:    # MOV with an offset
        return memory_one(f.opcode, 0)
    if not f.has_modrm or f.modrm >= 0xC0:
        return 0
    if f.map == MAP_ONE:
        return memory_one(f.opcode, reg)
    if f.map == MAP_0F:
        return memory_0f(f.opcode, reg, f.prefixes)
    if f.map == MAP_0F38:                               # MOVBE, VMASKMOV, VPMASKMOV store
        if f.opcode == 0xF1 and not f.prefixes & PREFIX_REPNE:
            return MEMORY_WRITE
        return MEMORY_WRITE if f.prefixes & PREFIX_VEX and (f.opcode & 0xFE == 0x2E or f.opcode == 0x8E) else MEMORY_READ
    if 0x14 <= f.opcode <= 0x17 or f.prefixes & PREFIX_VEX and (f.opcode & 0xDF == 0x19 or f.opcode == 0x1D):
        return MEMORY_WRITE                             # PEXTR, EXTRACTPS, VEXTRACTF128, VCVTPS2PH
    return MEMORY_READ
