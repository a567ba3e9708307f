# SPDX-License-Identifier: GPL-2.0-or-later
"""Block decoder (the model is described in block.pxd).

Lengths come from form.pxd.  What an instruction is comes from capstone, but only the first time a decoder meets its form
(opcode, the prefixes that matter, ModRM without its registers): capstone takes a third of a microsecond an instruction,
as it also prints it, and a booting kernel runs a few thousand forms in half a million instructions.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx86v.arch.sensitive cimport *
from pyx86v.cost.form cimport (
    FORM_MODRM, MAP_0F, MAP_0F38, MAP_0F3A, MAP_ONE, MEMORY_READ, MEMORY_WRITE, PREFIX_66, PREFIX_67, PREFIX_LOCK, PREFIX_REP, PREFIX_REPNE, PREFIX_VEX,
    Form, form_decode, form_memory, form_tables_fill)
from pyx86v.arch.sensitive import BY_MNEMONIC, NUMBER
from pyx86v.cost.classes import CLASSES, INDEX, PORTS, STRINGS, TRANSFERS, WHOLE, WITHOUT_MODEL, class_of


cdef extern from "capstone/capstone.h" nogil:
    ctypedef size_t csh
    enum: CS_ARCH_X86, CS_MODE_16, CS_MODE_32, CS_MODE_64, CS_OPT_DETAIL, CS_OPT_ON
    enum: CS_API_MAJOR, CS_ERR_OK, X86_INS_ENDING, X86_OP_IMM
    ctypedef struct cs_x86_op:
        int type
        uint8_t size
    ctypedef struct cs_x86:
        uint8_t op_count
        cs_x86_op operands[8]
    ctypedef struct cs_detail:
        cs_x86 x86
    ctypedef struct cs_insn:
        unsigned int id
        uint16_t size
        cs_detail* detail
    unsigned int cs_version(int* major, int* minor)
    int cs_open(int arch, int mode, csh* handle)
    int cs_close(csh* handle)
    int cs_option(csh handle, int type, size_t value)
    cs_insn* cs_malloc(csh handle)
    void cs_free(cs_insn* insn, size_t count)
    bint cs_disasm_iter(csh handle, const uint8_t** code, size_t* size, uint64_t* address, cs_insn* insn)
    const char* cs_insn_name(csh handle, unsigned int id)

cdef enum:
    MAX_IDS = 4096
    PADDED = 32

# Filled once at import, read-only afterwards.
cdef uint8_t CLASS_OF_ID[MAX_IDS]
cdef uint8_t SENSITIVE_OF_ID[MAX_IDS]
cdef uint8_t ENDS_OF_ID[MAX_IDS]
cdef int MOV_TO_CR = NUMBER["mov_to_cr"], MOV_FROM_CR = NUMBER["mov_from_cr"]
cdef int MOV_TO_DR = NUMBER["mov_to_dr"], MOV_FROM_DR = NUMBER["mov_from_dr"]
cdef uint16_t FLAGS_OF_CLASS[MAX_CLASSES]
cdef bint CLASS_IS_WHOLE[MAX_CLASSES]
cdef bint CLASS_IS_STRING[MAX_CLASSES]
cdef int N_CLASSES = len(CLASSES)
cdef int DEFAULT = INDEX["default"], LOAD = INDEX["load"], STORE = INDEX["store"], LOCK = INDEX["lock"]
cdef int JUMP = INDEX["jump"], JUMP_INDIRECT = INDEX["jump_indirect"], CALL = INDEX["call"], CALL_INDIRECT = INDEX["call_indirect"]
cdef int LOAD_SEGMENT = INDEX["load_segment"], READ_CR = INDEX["read_cr"], WRITE_CR = INDEX["write_cr"]
cdef int DEBUG_REGISTER = INDEX["debug_register"], POP = INDEX["pop"]
cdef int STRING_MOVE = INDEX["string_move"], STRING_STORE = INDEX["string_store"], STRING_COMPARE = INDEX["string_compare"]
cdef int FAR = INDEX["far"], REP_MOVE = INDEX["rep_move"], REP_STORE = INDEX["rep_store"]
cdef int DIVIDE_8 = INDEX["divide_8"], DIVIDE_16 = INDEX["divide_16"], DIVIDE_32 = INDEX["divide_32"], DIVIDE_64 = INDEX["divide_64"]


cdef void fill_class_tables() except *:
    """Number the classes of capstone's instruction ids."""
    cdef int major = 0, minor = 0
    cdef csh handle = 0
    cdef const char* name
    cs_version(&major, &minor)
    if major != CS_API_MAJOR:
        raise ImportError(f"pyx86v was built for capstone {CS_API_MAJOR}, this is capstone {major}.{minor}")
    if len(CLASSES) > MAX_CLASSES or <int>X86_INS_ENDING > MAX_IDS or cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK:
        raise ImportError(f"capstone {major}.{minor} does not open for x86")
    for number in range(X86_INS_ENDING):
        name = cs_insn_name(handle, number)
        CLASS_OF_ID[number] = INDEX[class_of(name.decode())] if name != NULL else 0
        SENSITIVE_OF_ID[number] = BY_MNEMONIC.get(name.decode(), 0) if name != NULL else 0
        ENDS_OF_ID[number] = name != NULL and name.decode() in ("sti", "stac", "clac", "pause")
    cs_close(&handle)
    for name_, number in INDEX.items():
        FLAGS_OF_CLASS[number] = (MARK_CT if name_ in TRANSFERS else 0) | (MARK_IO if name_ in PORTS else 0) | \
            (MARK_PLAIN if name_ not in WITHOUT_MODEL else 0)
        CLASS_IS_WHOLE[number] = name_ in WHOLE
        CLASS_IS_STRING[number] = name_ in STRINGS


fill_class_tables()


cdef Decoder* decoder_new(const uint32_t* units) noexcept nogil:
    """A decoder with the prices `units` (1/64 cycle, one for each of classes.CLASSES); NULL without memory or capstone."""
    cdef Decoder* d = <Decoder*>calloc(1, sizeof(Decoder))
    cdef int mode, i
    if d == NULL:
        return NULL
    memcpy(d.price, units, N_CLASSES * sizeof(uint32_t))
    form_tables_fill(&d.forms)
    for i in range(3):
        mode = CS_MODE_16 if i == 0 else (CS_MODE_32 if i == 1 else CS_MODE_64)
        if cs_open(CS_ARCH_X86, mode, &d.handle[i]) != CS_ERR_OK or \
                cs_option(d.handle[i], CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK:
            decoder_free(d)
            return NULL
    d.insn = cs_malloc(d.handle[2])
    if d.insn == NULL:
        decoder_free(d)
        return NULL
    return d


cdef void decoder_free(Decoder* d) noexcept nogil:
    cdef int i
    if d == NULL:
        return
    if d.insn != NULL:
        cs_free(<cs_insn*>d.insn, 1)
    for i in range(3):
        if d.handle[i]:
            cs_close(&d.handle[i])
    free(d)


cdef inline int class_by_operands(int known, const Form* f, const cs_x86* x) noexcept nogil:
    """The class where the mnemonic alone does not say it."""
    if f.map == MAP_ONE and not f.prefixes & PREFIX_VEX:
        if f.opcode == 0xA4 or f.opcode == 0xA5:        # MOVSD shares its mnemonic with SSE2
            return REP_MOVE if f.prefixes & (PREFIX_REP | PREFIX_REPNE) else STRING_MOVE
        if f.opcode == 0xAA or f.opcode == 0xAB:
            return REP_STORE if f.prefixes & (PREFIX_REP | PREFIX_REPNE) else STRING_STORE
        if f.opcode == 0xA6 or f.opcode == 0xA7:
            return STRING_COMPARE
        if f.opcode == 0x8E or (known == POP and (f.opcode == 0x07 or f.opcode == 0x17 or f.opcode == 0x1F)):
            return LOAD_SEGMENT
        if f.opcode == 0xFF and (f.modrm >> 3 & 7 == 3 or f.modrm >> 3 & 7 == 5):
            return FAR                                  # capstone calls some far jumps plain ones
        if (f.opcode == 0xF6 or f.opcode == 0xF7) and f.modrm >> 3 & 6 == 6 and x.op_count > 0:
            return DIVIDE_8 if x.operands[0].size == 1 else (DIVIDE_16 if x.operands[0].size == 2 else (
                DIVIDE_32 if x.operands[0].size == 4 else DIVIDE_64))
    elif f.map == MAP_0F and not f.prefixes & PREFIX_VEX:
        if f.opcode == 0xA1 or f.opcode == 0xA9:
            return LOAD_SEGMENT
        if f.opcode == 0x20:
            return READ_CR
        if f.opcode == 0x22:
            return WRITE_CR
        if f.opcode == 0x21 or f.opcode == 0x23:
            return DEBUG_REGISTER
    if x.op_count > 0 and x.operands[0].type != X86_OP_IMM:
        if known == JUMP:
            return JUMP_INDIRECT
        if known == CALL:
            return CALL_INDIRECT
    return known


cdef inline int sensitive_by_form(int known, const Form* f) noexcept nogil:
    """The number of the sensitive instruction where the mnemonic alone does not say it."""
    cdef int group = f.modrm >> 3 & 7
    if f.prefixes & PREFIX_VEX:
        return known
    if f.map == MAP_ONE:
        if f.opcode == 0x8C: return SENSITIVE_MOV_FROM_SEGMENT if group == 1 or group == 2 else SENSITIVE_NONE     # CS, SS
        if f.opcode == 0x8E: return SENSITIVE_MOV_TO_SEGMENT
        if f.opcode == 0x0E or f.opcode == 0x16: return SENSITIVE_PUSH_SEGMENT
        if f.opcode == 0x07 or f.opcode == 0x17 or f.opcode == 0x1F: return SENSITIVE_POP_SEGMENT
        if f.opcode == 0xFF and group == 3: return SENSITIVE_CALL_FAR
        if f.opcode == 0xFF and group == 5: return SENSITIVE_JMP_FAR
    elif f.map == MAP_0F:
        if f.opcode == 0xA1 or f.opcode == 0xA9: return SENSITIVE_POP_SEGMENT
        if f.opcode == 0x20: return MOV_FROM_CR
        if f.opcode == 0x21: return MOV_FROM_DR
        if f.opcode == 0x22: return MOV_TO_CR
        if f.opcode == 0x23: return MOV_TO_DR
    return known


cdef inline bint ends_block(const Form* f, unsigned int id, int bits) noexcept nogil:
    """Does the engine end a block behind it whatever follows?  STI, STAC, CLAC, PAUSE, and a load of SS, outside 16-bit code of DS or ES."""
    cdef int reg = -1
    if f.map == MAP_ONE and not f.prefixes & PREFIX_VEX:
        if f.opcode == 0x8E:
            reg = f.modrm >> 3 & 7
        elif f.opcode == 0x07 or f.opcode == 0x17 or f.opcode == 0x1F:
            reg = f.opcode >> 3
    if reg >= 0:
        return reg == 2 or (bits != 16 and (reg == 0 or reg == 3))
    return id < MAX_IDS and ENDS_OF_ID[id]


cdef void fact_fill(Decoder* d, const Form* f, const cs_insn* insn, int bits, Fact* fact) noexcept nogil:
    """Class, flags and price of a form that capstone knows."""
    cdef const cs_x86* x = &insn.detail.x86
    cdef int c = class_by_operands(CLASS_OF_ID[insn.id] if insn.id < MAX_IDS else DEFAULT, f, x)
    cdef int access = form_memory(f)                    # capstone 5 calls FSTP, SETcc and CMPXCHG reads
    fact.insn_class = <uint8_t>c
    fact.units = d.price[c]
    if not CLASS_IS_WHOLE[c]:
        if access & MEMORY_READ:
            fact.units += d.price[LOAD]
        if access & MEMORY_WRITE:
            fact.units += d.price[STORE]
    if f.prefixes & PREFIX_LOCK or (access and f.map == MAP_ONE and (f.opcode == 0x86 or f.opcode == 0x87)):
        fact.units += d.price[LOCK]                     # XCHG with memory locks by itself (SDM 3A 8.1.2.1)
    fact.flags = FLAGS_OF_CLASS[c]
    if f.prefixes & (PREFIX_REP | PREFIX_REPNE) and (CLASS_IS_STRING[c] or c == REP_MOVE or c == REP_STORE):
        fact.flags = (fact.flags | MARK_REP) & <uint16_t>~MARK_PLAIN
    if ends_block(f, insn.id, bits):
        fact.flags |= MARK_ENDS
    fact.flags |= <uint16_t>(sensitive_by_form(SENSITIVE_OF_ID[insn.id] if insn.id < MAX_IDS else SENSITIVE_NONE, f) << MARK_SENSITIVE)
    if fact.flags >> MARK_SENSITIVE:
        fact.flags &= <uint16_t>~MARK_PLAIN


cdef inline uint8_t form_modrm(const Form* f) noexcept nogil:
    """ModRM as far as class and price depend on it: register or memory, and ModRM.reg, which names group instructions."""
    if not f.has_modrm:
        return 0
    if f.modrm < 0xC0:
        return f.modrm & 0x38
    if (f.map == MAP_ONE and f.opcode & 0xF8 == 0xD8) or (f.map == MAP_0F and (f.opcode == 0x01 or f.opcode == 0x1E)):
        return f.modrm                                  # x87, group 7 and ENDBR are named by ModRM.rm too
    return f.modrm & 0xF8


cdef inline uint32_t form_key(const Form* f, int bits) noexcept nogil:
    """Everything that class, flags and price depend on; never 0."""
    return (0x80000000U | <uint32_t>(bits >> 5) << 26 | <uint32_t>(f.rex >> 3 & 1) << 25 | <uint32_t>(f.rex & 1) << 24
            | <uint32_t>(f.prefixes & ~PREFIX_67) << 18 | <uint32_t>f.map << 16 | <uint32_t>f.opcode << 8 | form_modrm(f))


cdef void form_write(const Form* f, uint8_t* out) noexcept nogil:
    """The plainest instruction with the key of `f`, so that what is learnt does not depend on which one came first."""
    cdef int n = 0
    if f.prefixes & PREFIX_66:
        out[n] = 0x66
        n += 1
    if f.prefixes & PREFIX_LOCK:
        out[n] = 0xF0
        n += 1
    if f.prefixes & (PREFIX_REP | PREFIX_REPNE):
        out[n] = 0xF3 if f.prefixes & PREFIX_REP else 0xF2
        n += 1
    if f.rex & 9:
        out[n] = 0x40 | (f.rex & 9)
        n += 1
    if f.map != MAP_ONE:
        out[n] = 0x0F
        n += 1
    if f.map == MAP_0F38 or f.map == MAP_0F3A:
        out[n] = 0x38 if f.map == MAP_0F38 else 0x3A
        n += 1
    out[n] = f.opcode
    if f.has_modrm:
        out[n + 1] = form_modrm(f)


cdef bint capstone_decode(Decoder* d, const uint8_t* code, uint64_t pc, int bits) noexcept nogil:
    """Have capstone decode the instruction at `code`, of which PADDED bytes are there, into d.insn."""
    cdef size_t left = PADDED
    return cs_disasm_iter(d.handle[bits >> 5], &code, &left, &pc, <cs_insn*>d.insn)


cdef const Fact* fact_of(Decoder* d, const Form* f, const uint8_t* code, int bits) noexcept nogil:
    """What is known of the form of the instruction at `code`; asks capstone at first sight.

    VEX forms are asked each time: their validity hangs on more bits than a key holds.
    """
    cdef uint32_t key = form_key(f, bits)
    cdef Fact* fact = &d.facts[(key * 0x9E3779B1U) >> 19 & (FACTS - 1)]
    cdef uint8_t[PADDED] plain
    cdef Form bare
    if f.prefixes & PREFIX_VEX:
        fact = &d.vex
    elif fact.key == key:
        return fact
    memset(plain, 0, PADDED)
    if f.prefixes & PREFIX_VEX:
        memcpy(plain, code, f.length)
    else:
        form_write(f, plain)
    fact.key = key
    if capstone_decode(d, plain, 0, bits):
        fact_fill(d, f, <cs_insn*>d.insn, bits, fact)
        return fact
    bare = f[0]                                         # capstone takes some meaningless prefixes for errors
    bare.prefixes = 0
    memset(plain, 0, PADDED)
    form_write(&bare, plain)
    if not f.prefixes & PREFIX_VEX and capstone_decode(d, plain, 0, bits):
        fact_fill(d, f, <cs_insn*>d.insn, bits, fact)
    else:
        fact.insn_class = <uint8_t>DEFAULT
        fact.units = d.price[DEFAULT]
        fact.flags = 0
    return fact


cdef inline int decode(Decoder* d, const uint8_t* code, uint32_t size, int bits, InsnMark* marks, int max_marks, bint plain) noexcept nogil:
    """block_decode, or plain_decode."""
    cdef uint32_t at = 0, units = 0
    cdef int n = 0
    cdef Form f
    cdef const Fact* fact
    if size > BLOCK_MAX_BYTES:
        size = BLOCK_MAX_BYTES
    while at < size and n < max_marks:
        if form_decode(&d.forms, code + at, size - at, bits, &f):
            fact = fact_of(d, &f, code + at, bits)
            units += fact.units
            at += f.length
            marks[n].flags = fact.flags
        else:
            units += d.price[DEFAULT]
            at = size
            marks[n].flags = 0
        marks[n].end = <uint16_t>at
        marks[n].units = units
        n += 1
        if plain and marks[n - 1].flags & (MARK_PLAIN | MARK_CT) != MARK_PLAIN:
            return n
    if n:
        marks[n - 1].end = <uint16_t>size
    return n


cdef int block_decode(Decoder* d, const uint8_t* code, uint32_t size, uint64_t pc, int bits,
                      InsnMark* marks, int max_marks) noexcept nogil:
    """Cut `size` bytes of code, fetched at `pc` by a 16-, 32- or 64-bit code segment, into instructions.

    Fills marks[0..n), the last of which ends at `size`, and returns n, 0 for an empty block.  A truncated instruction
    at the end counts as one of class `default`; what is left after `max_marks` instructions belongs to the last of them.
    At most BLOCK_MAX_BYTES are looked at.  This model's prices do not depend on `pc`; one of the front end's do.
    """
    return decode(d, code, size, bits, marks, max_marks, False)


cdef int plain_decode(Decoder* d, const uint8_t* code, uint32_t size, int bits, InsnMark* marks, int max_marks) noexcept nogil:
    """The same up to the first instruction behind which no plain one follows: one that is none, or a control transfer."""
    return decode(d, code, size, bits, marks, max_marks, True)


cdef int insn_decode(Decoder* d, const uint8_t* code, uint32_t avail, uint64_t pc, int bits, InsnInfo* out) noexcept nogil:
    """Decode the one instruction at `code`, of which `avail` bytes are there.

    Returns its length in bytes, 0 if `avail` or 15 bytes do not hold it.  `out.id` is capstone's, asked each time.
    """
    cdef Form f
    cdef const Fact* fact
    cdef uint8_t[PADDED] padded
    if form_decode(&d.forms, code, avail, bits, &f) == 0:
        return 0
    fact = fact_of(d, &f, code, bits)
    out.length = f.length
    out.insn_class = fact.insn_class
    out.flags = fact.flags
    out.units = fact.units
    memset(padded, 0, PADDED)                           # where capstone holds an instruction to be longer, it still knows it
    memcpy(padded, code, f.length)
    out.id = (<cs_insn*>d.insn).id if capstone_decode(d, padded, pc, bits) else 0
    return f.length


cdef list decoder_forms(const Decoder* d):
    """[(machine code of the plainest instruction of the form, padded with zeros, bits of the mode, class name)] of the forms that the
    decoder has met and still holds: a form may have lost its place to another, and VEX forms have none."""
    cdef uint8_t[PADDED] code
    cdef Form f
    rows = []
    for i in range(FACTS):
        key = d.facts[i].key
        if key == 0:
            continue
        f.rex = (0x40 | (8 if key >> 25 & 1 else 0) | (1 if key >> 24 & 1 else 0)) if key >> 24 & 3 else 0
        f.prefixes = key >> 18 & 0x3F
        f.map = key >> 16 & 3
        f.opcode = key >> 8 & 0xFF
        f.has_modrm = d.forms.after[f.map][f.opcode] & FORM_MODRM != 0
        f.modrm = key & 0xFF
        memset(code, 0, PADDED)
        form_write(&f, code)
        rows.append((bytes(code[:15]), 16 << (key >> 26 & 3), NAMES[d.facts[i].insn_class]))
    return rows


cdef class BlockDecoder:
    """The decoder for Python: tests, and the command that explains a block.

    prices  units (1/64 cycle) for each of classes.CLASSES, as in Profile.instructions
    """
    cdef Decoder* d
    cdef InsnMark marks[BLOCK_MAX_INSNS]

    def __cinit__(self, prices):
        cdef uint32_t units[MAX_CLASSES]
        if len(prices) != N_CLASSES:
            raise ValueError(f"prices: expected {N_CLASSES} numbers, one for each class, got {len(prices)}")
        for i, price in enumerate(prices):
            units[i] = price
        self.d = decoder_new(units)
        if self.d == NULL:
            raise MemoryError("capstone does not open")

    def __dealloc__(self):
        decoder_free(self.d)

    def block(self, bytes code not None, uint64_t pc=0, int bits=64, int max_marks=BLOCK_MAX_INSNS):
        """[(end, units, flags)] of a block; what the numbers mean stands at InsnMark."""
        cdef int i, n
        check_arguments(len(code), bits, max_marks)
        n = block_decode(self.d, code, <uint32_t>len(code), pc, bits, self.marks, max_marks)
        return [(self.marks[i].end, self.marks[i].units, self.marks[i].flags) for i in range(n)]

    def forms(self):
        """What decoder_forms says of this decoder."""
        return decoder_forms(self.d)

    def insn(self, bytes code not None, uint64_t pc=0, int bits=64):
        """(length, class name, flags, capstone id, units) of one instruction, None if the bytes do not hold one."""
        cdef InsnInfo info
        check_arguments(len(code), bits, 1)
        if len(code) == 0 or insn_decode(self.d, code, <uint32_t>len(code), pc, bits, &info) == 0:
            return None
        return info.length, NAMES[info.insn_class], info.flags, info.id, info.units


NAMES = tuple(CLASSES)


cdef int check_arguments(Py_ssize_t size, int bits, int max_marks) except -1:
    if bits != 16 and bits != 32 and bits != 64:
        raise ValueError(f"bits: expected 16, 32 or 64, got {bits}")
    if size > BLOCK_MAX_BYTES:
        raise ValueError(f"code: expected at most {BLOCK_MAX_BYTES} bytes, got {size}")
    if not 1 <= max_marks <= BLOCK_MAX_INSNS:
        raise ValueError(f"max_marks: expected 1 to {BLOCK_MAX_INSNS}, got {max_marks}")
    return 0


def decode_block(code, pc, bits, profile):
    """[(end, units, flags, class name)] of a block under a Profile."""
    decoder = BlockDecoder(profile.instructions)
    rows, start = [], 0
    for end, units, flags in decoder.block(code, pc, bits):
        insn = decoder.insn(code[start:end], pc + start, bits)
        rows.append((end, units, flags, insn[1] if insn else "default"))
        start = end
    return rows
