# SPDX-License-Identifier: GPL-2.0-or-later
"""From bytes to what the model needs to know of each instruction: group, micro-operations, what it waits for, what it writes.

Capstone says what the operands are.  What it does with the first of them comes from groups.py, as capstone 5 is wrong of
several; a shorter register is a part of the whole one, so writing 8 or 16 bits reads the rest (optimisation manual, partial registers).
"""
from libc.string cimport memset

from pyx86v.cost.model.types cimport *
from pyx86v.cost.model.groups import GROUPS, INDEX, bare, group_of, role_of


cdef extern from "capstone/capstone.h" nogil:
    ctypedef size_t csh
    enum: CS_ARCH_X86, CS_MODE_16, CS_MODE_32, CS_MODE_64, CS_OPT_DETAIL, CS_OPT_ON, CS_ERR_OK
    enum: X86_INS_ENDING, X86_REG_ENDING, X86_OP_REG, X86_OP_IMM, X86_OP_MEM, X86_PREFIX_LOCK, X86_PREFIX_REP, X86_PREFIX_REPNE
    enum: X86_REG_RIP, X86_REG_EIP, X86_REG_EFLAGS, X86_REG_XMM0
    unsigned long long X86_EFLAGS_MODIFY_CF, X86_EFLAGS_RESET_CF, X86_EFLAGS_SET_CF, X86_EFLAGS_UNDEFINED_CF, X86_EFLAGS_TEST_CF
    unsigned long long X86_EFLAGS_MODIFY_SF, X86_EFLAGS_MODIFY_ZF, X86_EFLAGS_MODIFY_OF, X86_EFLAGS_MODIFY_PF, X86_EFLAGS_MODIFY_AF
    unsigned long long X86_EFLAGS_TEST_SF, X86_EFLAGS_TEST_ZF, X86_EFLAGS_TEST_OF, X86_EFLAGS_TEST_PF, X86_EFLAGS_TEST_AF
    ctypedef struct x86_op_mem:
        int segment
        int base
        int index
        int scale
        int64_t disp
    ctypedef struct cs_x86_op:
        int type
        int reg
        int64_t imm
        x86_op_mem mem
        uint8_t size
    ctypedef struct cs_x86:
        uint8_t prefix[4]
        uint8_t opcode[4]
        uint8_t rex
        uint8_t modrm
        uint64_t eflags
        uint8_t op_count
        cs_x86_op operands[8]
    ctypedef struct cs_detail:
        uint16_t regs_read[20]
        uint8_t regs_read_count
        uint16_t regs_write[20]
        uint8_t regs_write_count
        cs_x86 x86
    ctypedef struct cs_insn:
        unsigned int id
        uint16_t size
        cs_detail* detail
    int cs_open(int arch, int mode, csh* handle)
    int cs_close(csh* handle)
    int cs_option(csh handle, int type, size_t value)
    cs_insn* cs_malloc(csh handle)
    void cs_free(cs_insn* insn, size_t count)
    bint cs_disasm_iter(csh handle, const uint8_t** code, size_t* size, uint64_t* address, cs_insn* insn)
    const char* cs_insn_name(csh handle, unsigned int id)
    const char* cs_reg_name(csh handle, unsigned int id)

cdef enum:
    MAX_IDS = 4096
    MAX_REGS = 512
    PADDED = 32

cdef enum:                     # bits of FUSIBLE and of Insn.branch: kinds of conditional branch
    FUSES_SIGN = 1             # on overflow, sign, parity
    FUSES_CARRY = 2            # on carry, or on carry and zero
    FUSES_ZERO = 4             # equal, less, less or equal
    FUSES_ANY = 7
    FUSES_COMPARE = 8          # CMP and TEST themselves

cdef enum:                     # bits of ROLE: what the first operand is
    ROLE_READ = 1
    ROLE_WRITE = 2

# Filled once at import, read-only afterwards.
cdef uint8_t GROUP[MAX_IDS]
cdef uint8_t ROLE[MAX_IDS]
cdef uint8_t EVAL[MAX_IDS]
cdef uint8_t FUSIBLE[MAX_IDS]      # FUSES_*: which conditional branches may fuse with it
cdef uint8_t ZEROES[MAX_IDS]       # an operation that gives zero of two equal registers: 1 known to need no execution, 2 independent only
cdef uint8_t FALSELY[MAX_IDS]      # waits for its destination though it overwrites it
cdef uint8_t PLAIN_LOAD[MAX_IDS]   # its memory form is a load and nothing else
cdef uint8_t PLAIN_STORE[MAX_IDS]  # its store form is a store and nothing else
cdef uint8_t VEX[MAX_IDS]
cdef uint8_t CELL[MAX_REGS]
cdef uint8_t WIDTH[MAX_REGS]       # bytes; 9 for AH, BH, CH, DH
cdef int G[MAX_GROUPS]

EVALS = {"mov": 1, "movabs": 1, "movzx": 1, "add": 2, "sub": 3, "and": 4, "or": 5, "xor": 6, "shl": 7, "sal": 7, "shr": 8, "sar": 9,
         "lea": 10, "inc": 11, "dec": 12, "neg": 13, "not": 14, "movsx": 15, "movsxd": 15, "imul": 16, "pop": 17, "push": 18,
         "cmp": 19, "test": 19, "bt": 19}
# Optimisation manual, table of what fuses with which branch: TEST and AND with all, INC and DEC with none that reads carry.
FUSIBLES = {"test": FUSES_ANY | FUSES_COMPARE, "and": FUSES_ANY, "cmp": FUSES_CARRY | FUSES_ZERO | FUSES_COMPARE, "add": FUSES_CARRY | FUSES_ZERO,
            "sub": FUSES_CARRY | FUSES_ZERO, "inc": FUSES_ZERO, "dec": FUSES_ZERO}
IDIOMS = frozenset("xor sub pxor xorps xorpd psubb psubw psubd psubq pcmpgtb pcmpgtw pcmpgtd pcmpgtq".split())
ONES = frozenset("pcmpeqb pcmpeqw pcmpeqd pcmpeqq".split())
# Optimisation manual, and uops.info: these wait for the register that they overwrite, in their two-operand form.
FALSE_DEPENDENCIES = frozenset("bsf bsr popcnt cvtsi2sd cvtsi2ss cvtss2sd cvtsd2ss sqrtss sqrtsd rcpss rsqrtss roundss roundsd".split())
LOADS = frozenset("mov movabs movaps movups movapd movupd movdqa movdqu lddqu movntdqa movss movsd movd movq movddup movshdup movsldup "
                  "broadcastss broadcastsd pbroadcastd pbroadcastq broadcastf128 broadcasti128 pop movzx movsx movsxd push prefetch "
                  "prefetchw prefetchnta prefetcht0 prefetcht1 prefetcht2".split())
STORES = frozenset("mov movabs movaps movups movapd movupd movdqa movdqu movss movsd movd movq movlps movhps movlpd movhpd movntps movntpd "
                   "movntdq movnti push extractf128 extracti128".split())


cdef void fill_tables() except *:
    cdef csh handle = 0
    cdef const char* raw
    cdef int i
    if <int>X86_INS_ENDING > MAX_IDS or <int>X86_REG_ENDING > MAX_REGS or cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK:
        raise ImportError("capstone does not open for x86")
    for i in range(1, X86_INS_ENDING):
        raw = cs_insn_name(handle, i)
        if raw == NULL:
            continue
        fill_mnemonic(i, raw.decode())
    for i in range(MAX_REGS):
        CELL[i] = NO_CELL
    for i in range(1, X86_REG_ENDING):
        raw = cs_reg_name(handle, i)
        if raw != NULL:
            CELL[i], WIDTH[i] = cell_of(raw.decode())
    cs_close(&handle)


cdef fill_mnemonic(int i, name):
    short = bare(name)
    role = role_of(name)
    GROUP[i] = INDEX[group_of(name)]
    ROLE[i] = ROLE_READ if role == "r" else (ROLE_WRITE if role == "w" else ROLE_READ | ROLE_WRITE)
    EVAL[i] = EVALS.get(name, EVAL_KEEP if name.startswith("cmov") else EVAL_UNKNOWN)
    FUSIBLE[i] = FUSIBLES.get(name, 0)
    ZEROES[i] = 1 if short in IDIOMS else (2 if short in ONES else 0)
    FALSELY[i] = name in FALSE_DEPENDENCIES
    PLAIN_LOAD[i] = short in LOADS
    PLAIN_STORE[i] = short in STORES
    VEX[i] = name != short or name.startswith(("vfm", "vfnm", "vcmp"))


LEGACY = {"a": 0, "c": 1, "d": 2, "b": 3}
NAMED = {"sp": 4, "bp": 5, "si": 6, "di": 7}


def cell_of(name):
    """(cell, bytes) of a register by its name."""
    if name in ("eflags", "rflags", "flags"):
        return CELL_FLAGS, 8
    if name[:3] in ("xmm", "ymm", "zmm") and int(name[3:]) < 16:
        return CELL_VECTOR + int(name[3:]), {"x": 16, "y": 32, "z": 64}[name[0]]
    if name.startswith("mm") and name[2:].isdigit():
        return CELL_MMX + int(name[2:]), 8
    if name.startswith("st") or name == "fpsw":
        return CELL_X87, 10
    if name[0] == "r" and name[1:].rstrip("dwb").isdigit():
        return int(name[1:].rstrip("dwb")), {"d": 4, "w": 2, "b": 1}.get(name[len(name) - 1:], 8)
    if len(name) == 2 and name[0] in LEGACY and name[1] in "lh":
        return LEGACY[name[0]], 1 if name[1] == "l" else 9
    if len(name) == 3 and name[:2] in NAMED and name[2] == "l":
        return NAMED[name[:2]], 1
    width = {"r": 8, "e": 4}.get(name[0], 2) if len(name) == 3 else 2
    core = name[len(name) - 2:]
    if core in NAMED:
        return NAMED[core], width
    if len(core) == 2 and core[1] == "x" and core[0] in LEGACY:
        return LEGACY[core[0]], width
    return NO_CELL, 0


fill_tables()

cdef int DEFAULT = INDEX["default"], NOP = INDEX["nop"], MOVE = INDEX["move"], ZERO = INDEX["zero"], LOAD = INDEX["load"], STORE = INDEX["store"]
cdef int PREFETCH = INDEX["prefetch"], MOVE_IMM = INDEX["move_imm"], MOVE_NARROW = INDEX["move_narrow"], MOVE_SEGMENT = INDEX["move_segment"]
cdef int ALU = INDEX["alu"], ZERO_EXTEND = INDEX["zero_extend"], ALU_CARRY = INDEX["alu_carry"], CARRY_STORE = INDEX["carry_store"]
cdef int LEA = INDEX["lea"], LEA_3 = INDEX["lea_3"], LEA_RIP = INDEX["lea_rip"]
cdef int SHIFT = INDEX["shift"], SHIFT_CL = INDEX["shift_cl"], ROTATE = INDEX["rotate"], ROTATE_1 = INDEX["rotate_1"], ROTATE_CL = INDEX["rotate_cl"]
cdef int ROTATE_CARRY = INDEX["rotate_carry"], ROTATE_CARRY_1 = INDEX["rotate_carry_1"]
cdef int SHIFT_DOUBLE = INDEX["shift_double"], SHIFT_DOUBLE_CL = INDEX["shift_double_cl"], BIT = INDEX["bit"], BIT_STRING = INDEX["bit_string"]
cdef int BSWAP = INDEX["bswap"], BSWAP_64 = INDEX["bswap_64"], EXCHANGE = INDEX["exchange"], EXCHANGE_MEMORY = INDEX["exchange_memory"]
cdef int COMPARE_EXCHANGE = INDEX["compare_exchange"], LOCKED = INDEX["locked"], MULTIPLY = INDEX["multiply"], MULTIPLY_16I = INDEX["multiply_16i"]
cdef int MULTIPLY_8 = INDEX["multiply_8"], DIVIDE_8 = INDEX["divide_8"], DIVIDE_SIGNED_64 = INDEX["divide_signed_64"], MULTIPLY_32 = INDEX["multiply_32"], MULTIPLY_X = INDEX["multiply_x"]
cdef int PUSH = INDEX["push"], POP = INDEX["pop"], LEAVE = INDEX["leave"], CALL = INDEX["call"], RETURN = INDEX["return"], JUMP = INDEX["jump"]
cdef int BRANCH = INDEX["branch"], STRING_MOVE = INDEX["string_move"], STRING_STORE = INDEX["string_store"], STRING_LOAD = INDEX["string_load"]
cdef int STRING_SCAN = INDEX["string_scan"], STRING_COMPARE = INDEX["string_compare"], STRING_REPEAT = INDEX["string_repeat"]
cdef int VECTOR_MOVE = INDEX["vector_move"], VECTOR_MOVE_INT = INDEX["vector_move_int"], VECTOR_TO_INT = INDEX["vector_to_int"]
cdef int VECTOR_MOVE_LOW = INDEX["vector_move_low"], VECTOR_MERGE = INDEX["vector_merge"], VECTOR_SHIFT = INDEX["vector_shift"]
cdef int VECTOR_SHIFT_X = INDEX["vector_shift_x"], VECTOR_BLEND_BY = INDEX["vector_blend_by"], VECTOR_BLEND_BY_4 = INDEX["vector_blend_by_4"]
cdef int VECTOR_INSERT = INDEX["vector_insert"], VECTOR_INSERT_MEMORY = INDEX["vector_insert_memory"]
cdef int VECTOR_EXTRACT = INDEX["vector_extract"], VECTOR_EXTRACT_MEMORY = INDEX["vector_extract_memory"]
cdef int VECTOR_SHUFFLE = INDEX["vector_shuffle"], VECTOR_CROSS = INDEX["vector_cross"], VECTOR_BROADCAST = INDEX["vector_broadcast"]
cdef int FP_DIVIDE_SS = INDEX["fp_divide_ss"], FP_ROOT_SS = INDEX["fp_root_ss"], FP_FROM_INT = INDEX["fp_from_int"]
cdef int FP_TO_INT = INDEX["fp_to_int"], FP_COMPARE = INDEX["fp_compare"], X87_MOVE = INDEX["x87_move"], X87_CONTROL = INDEX["x87_control"]
cdef int VECTOR_FIRST = INDEX["vector_move"], VECTOR_LAST = INDEX["upper_all"], STATE = INDEX["state"]
cdef int ID_MOVZX = 0, ID_IDIV = 0, ID_CVTSI2SS = 0, ID_IMUL = 0


cdef void fill_ids() except *:
    global ID_MOVZX, ID_IDIV, ID_IMUL
    cdef csh handle = 0
    cs_open(CS_ARCH_X86, CS_MODE_64, &handle)
    for i in range(1, X86_INS_ENDING):
        raw = cs_insn_name(handle, i)
        name = raw.decode() if raw != NULL else ""
        if name == "movzx":
            ID_MOVZX = i
        elif name == "idiv":
            ID_IDIV = i
        elif name == "imul":
            ID_IMUL = i
    cs_close(&handle)


fill_ids()


cdef bint capstone_open(Capstone* c) noexcept nogil:
    cdef int i
    memset(c, 0, sizeof(Capstone))
    for i in range(3):
        if cs_open(CS_ARCH_X86, CS_MODE_16 if i == 0 else (CS_MODE_32 if i == 1 else CS_MODE_64), &c.handle[i]) != CS_ERR_OK or \
                cs_option(c.handle[i], CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK:
            return False
    c.insn = cs_malloc(c.handle[2])
    return c.insn != NULL


cdef void capstone_close(Capstone* c) noexcept nogil:
    cdef int i
    if c.insn != NULL:
        cs_free(<cs_insn*>c.insn, 1)
    for i in range(3):
        if c.handle[i]:
            cs_close(&c.handle[i])


cdef inline bint is_vector(const cs_x86_op* op) noexcept nogil:
    return op.type == X86_OP_REG and CELL_VECTOR <= CELL[op.reg] < CELL_VECTOR + 16


cdef inline bint is_wide(const cs_x86_op* op) noexcept nogil:
    return op.type == X86_OP_REG and WIDTH[op.reg] == 32


cdef inline bint is_cl(const cs_x86_op* op) noexcept nogil:
    return op.type == X86_OP_REG and CELL[op.reg] == 1 and WIDTH[op.reg] == 1


cdef int refine_integer(int g, const cs_x86* x, unsigned int id, int memory) noexcept nogil:
    """The group of an integer instruction by its operands; `memory` is the number of its memory operand or -1."""
    cdef const cs_x86_op* a = &x.operands[0]
    cdef const cs_x86_op* b = &x.operands[1]
    cdef int n = x.op_count
    cdef int size = a.size
    if g == MOVE and n == 2:
        if memory == 0: return STORE
        if memory == 1: return LOAD if size >= 4 else MOVE_NARROW
        if b.type == X86_OP_IMM: return MOVE_IMM
        if CELL[a.reg] == NO_CELL or CELL[b.reg] == NO_CELL: return MOVE_SEGMENT
        return MOVE if size >= 4 and a.reg != b.reg else MOVE_NARROW
    if g == ALU and n == 2 and PLAIN_LOAD[id]:                         # MOVZX, MOVSX, MOVSXD
        if memory == 1: return LOAD if size >= 4 else ALU
        if id == <unsigned int>ID_MOVZX and WIDTH[b.reg] == 1 and size >= 4 and CELL[a.reg] != CELL[b.reg]: return ZERO_EXTEND
        return g
    if g == ALU_CARRY: return CARRY_STORE if memory == 0 else g
    if g == LEA:
        if b.mem.base == X86_REG_RIP or b.mem.base == X86_REG_EIP: return LEA_RIP
        if b.mem.base and b.mem.index and (b.mem.disp != 0 or CELL[b.mem.base] == 5 or CELL[b.mem.base] == 13): return LEA_3
        return g
    if (g == SHIFT or g == ROTATE or g == ROTATE_CARRY):
        if n > 1 and is_cl(b): return SHIFT_CL if g == SHIFT else (ROTATE_CL if g == ROTATE else g)
        if n < 2 or (x.opcode[0] & 0xFE) == 0xD0: return g if g == SHIFT else (ROTATE_1 if g == ROTATE else ROTATE_CARRY_1)
        return g
    if g == SHIFT_DOUBLE: return SHIFT_DOUBLE_CL if n > 2 and is_cl(&x.operands[2]) else g
    if g == BIT: return BIT_STRING if memory == 0 and b.type == X86_OP_REG else g
    if g == BSWAP: return BSWAP_64 if size == 8 else g
    if g == EXCHANGE: return EXCHANGE_MEMORY if memory >= 0 and ROLE[id] == 3 and x.opcode[0] != 0x0F else g
    if g == MULTIPLY_32:
        if n == 3 and size == 2 and x.operands[2].type == X86_OP_IMM: return MULTIPLY_16I
        if n > 1: return MULTIPLY
        return MULTIPLY_8 + (0 if size == 1 else (1 if size == 2 else (2 if size == 4 else 3)))
    if g == DIVIDE_8:
        if size == 8: return DIVIDE_SIGNED_64 if id == <unsigned int>ID_IDIV else DIVIDE_8 + 3
        return DIVIDE_8 + (0 if size == 1 else (1 if size == 2 else 2))
    return g


cdef int refine_vector(int g, const cs_x86* x, int memory) noexcept nogil:
    """The same of a vector instruction."""
    cdef const cs_x86_op* a = &x.operands[0]
    cdef const cs_x86_op* b = &x.operands[1]
    cdef const cs_x86_op* last = &x.operands[x.op_count - 1 if x.op_count > 0 else 0]
    cdef bint vectors = is_vector(a) or is_vector(b) or is_vector(last)
    if g == STRING_MOVE or g == STRING_COMPARE: return g
    if g == VECTOR_MOVE: return LOAD if memory > 0 else (STORE if memory == 0 else g)
    if g == VECTOR_MOVE_INT or g == VECTOR_MOVE_LOW:
        if memory > 0: return LOAD
        if memory == 0: return STORE
        if vectors and not is_vector(a): return VECTOR_TO_INT
        return VECTOR_MOVE_LOW if is_vector(a) and is_vector(b) else VECTOR_MOVE_INT
    if g == VECTOR_SHIFT: return VECTOR_SHIFT_X if last.type != X86_OP_IMM else g
    if g == VECTOR_BLEND_BY: return VECTOR_BLEND_BY_4 if x.op_count == 4 else g
    if g == VECTOR_INSERT: return VECTOR_INSERT_MEMORY if memory >= 0 else g
    if g == VECTOR_EXTRACT: return VECTOR_EXTRACT_MEMORY if memory == 0 else g
    if g == VECTOR_SHUFFLE: return VECTOR_CROSS if is_wide(a) and is_vector(b) and not is_wide(b) and x.op_count == 2 else g
    if g == FP_DIVIDE_SS or g == FP_DIVIDE_SS + 1 or g == FP_ROOT_SS or g == FP_ROOT_SS + 1: return g + 2 if is_wide(a) else g
    if g == FP_FROM_INT: return g + 1 if last.size == 8 and x.opcode[2] == 0xFF else g
    return g


cdef inline void add_cell(uint8_t* cells, uint8_t* n, int most, int cell) noexcept nogil:
    cdef int i
    if cell == NO_CELL or n[0] >= most:
        return
    for i in range(n[0]):
        if cells[i] == cell:
            return
    cells[n[0]] = <uint8_t>cell
    n[0] += 1


cdef inline void add_source(Insn* i, int cell) noexcept nogil:
    add_cell(i.source, &i.n_source, 12, cell)


cdef inline void add_result(Insn* i, int cell) noexcept nogil:
    add_cell(i.result, &i.n_result, 8, cell)


cdef void take_flags(Insn* i, const cs_x86* x) noexcept nogil:
    """Carry and the other flags are renamed apart (optimisation manual, on INC and DEC)."""
    cdef uint64_t f = x.eflags
    if f & X86_EFLAGS_TEST_CF:
        add_source(i, CELL_CARRY)
    if f & (X86_EFLAGS_TEST_SF | X86_EFLAGS_TEST_ZF | X86_EFLAGS_TEST_OF | X86_EFLAGS_TEST_PF | X86_EFLAGS_TEST_AF):
        add_source(i, CELL_FLAGS)
    if f & (X86_EFLAGS_MODIFY_CF | X86_EFLAGS_RESET_CF | X86_EFLAGS_SET_CF | X86_EFLAGS_UNDEFINED_CF):
        add_result(i, CELL_CARRY)
    if f & (X86_EFLAGS_MODIFY_SF | X86_EFLAGS_MODIFY_ZF | X86_EFLAGS_MODIFY_OF | X86_EFLAGS_MODIFY_PF | X86_EFLAGS_MODIFY_AF):
        add_result(i, CELL_FLAGS)


cdef void take_registers(Insn* i, const cs_insn* insn, int role) noexcept nogil:
    """What the instruction waits for and what it writes."""
    cdef const cs_detail* d = insn.detail
    cdef const cs_x86* x = &d.x86
    cdef const cs_x86_op* op
    cdef int k, cell, first = 0
    cdef bint stack = i.stack != 0
    for k in range(x.op_count):
        op = &x.operands[k]
        if op.type != X86_OP_REG:
            continue
        cell = CELL[op.reg]
        if cell == NO_CELL:
            continue
        if k == 0:
            if role & ROLE_READ or (role & ROLE_WRITE and (WIDTH[op.reg] <= 2 or WIDTH[op.reg] == 9)):
                add_source(i, cell)
            if role & ROLE_WRITE:
                add_result(i, cell)
            continue
        if k == 1 and i.group == MULTIPLY_X:            # its low half
            add_result(i, cell)
            continue
        add_source(i, cell)
        if k == 1 and i.group == EXCHANGE or i.group == EXCHANGE_MEMORY:
            add_result(i, cell)
    for k in range(d.regs_read_count):
        cell = CELL[d.regs_read[k]] if d.regs_read[k] < MAX_REGS else NO_CELL
        if cell == CELL_FLAGS or (stack and cell == CELL_RSP):
            continue
        add_source(i, cell)
    for k in range(d.regs_write_count):
        cell = CELL[d.regs_write[k]] if d.regs_write[k] < MAX_REGS else NO_CELL
        if cell == CELL_FLAGS or (stack and cell == CELL_RSP):
            continue
        add_result(i, cell)


cdef void take_memory(Insn* i, const cs_x86_op* op) noexcept nogil:
    i.base = CELL_RIP if op.mem.base == X86_REG_RIP or op.mem.base == X86_REG_EIP else CELL[op.mem.base]
    i.index = CELL[op.mem.index]
    i.scale = <uint8_t>op.mem.scale
    i.disp = op.mem.disp
    i.size = op.size if op.size else 8
    if i.base < N_CELLS:
        add_cell(i.address, &i.n_address, 2, i.base)
    if i.index < N_CELLS:
        add_cell(i.address, &i.n_address, 2, i.index)
    i.chase = i.index == NO_CELL and i.base < 16 and 0 <= op.mem.disp < 2048


cdef void take_stack(Insn* i, int g, int bits, const cs_x86* x) noexcept nogil:
    """PUSH, POP, CALL and RET: memory at RSP, which the stack engine keeps (optimisation manual, stack pointer tracker)."""
    cdef int width = x.operands[0].size if g == PUSH or g == POP else bits // 8
    if width == 0 or x.operands[0].type == X86_OP_IMM:
        width = bits // 8
    i.stack = <int8_t>(width if g == POP or g == RETURN else -width)
    if g == PUSH or g == CALL:
        i.stores = 1
    else:
        i.loads = 1
    if i.base == NO_CELL and i.index == NO_CELL and i.size == 0:
        i.base = CELL_RSP
        i.size = <uint8_t>width


cdef void take_value(Insn* i, const cs_insn* insn) noexcept nogil:
    """What becomes of the general register that the instruction writes."""
    cdef const cs_x86* x = &insn.detail.x86
    cdef const cs_x86_op* a = &x.operands[0]
    cdef const cs_x86_op* b = &x.operands[1]
    cdef int n = x.op_count
    i.to = NO_CELL
    i.by = NO_CELL
    i.eval = EVAL[insn.id] if insn.id < MAX_IDS else EVAL_UNKNOWN
    if n == 0:
        i.eval = EVAL_UNKNOWN
        return
    i.width = a.size
    i.to_memory = a.type == X86_OP_MEM
    if a.type == X86_OP_REG and CELL[a.reg] < 16:
        i.to = CELL[a.reg]
        if WIDTH[a.reg] == 9:
            i.eval = EVAL_UNKNOWN
    elif a.type == X86_OP_REG:
        i.eval = EVAL_UNKNOWN
    if i.eval == EVAL_PUSH:
        i.by = i.to
        i.immediate = a.imm
        i.to = NO_CELL
        return
    if n > 1:
        if b.type == X86_OP_REG:
            i.by = CELL[b.reg]
            if i.by >= 16 or WIDTH[b.reg] == 9 or n > 2:
                i.eval = EVAL_UNKNOWN if i.eval != EVAL_KEEP else EVAL_KEEP
            if i.eval == EVAL_SIGN or (i.eval == EVAL_MOVE and WIDTH[b.reg] < i.width):
                i.scale = WIDTH[b.reg]
        elif b.type == X86_OP_MEM:
            i.by_memory = 1
        else:
            i.immediate = b.imm
    elif i.eval == EVAL_SHL or i.eval == EVAL_SHR or i.eval == EVAL_SAR:
        i.immediate = 1
    elif i.eval == EVAL_MULTIPLY:
        i.eval = EVAL_UNKNOWN
    if n > 2 and i.eval == EVAL_MULTIPLY:
        i.eval = EVAL_UNKNOWN


cdef void add_uops(Block* b, Insn* i, uint16_t ports, int count, int kind) noexcept nogil:
    while count > 0 and b.n_uops < MAX_UOPS and i.n_uops < MAX_INSN_UOPS:
        b.uops[b.n_uops].ports = ports
        b.uops[b.n_uops].kind = <uint8_t>kind
        b.n_uops += 1
        i.n_uops += 1
        count -= 1


cdef void make_uops(Block* b, Insn* i, const Uarch* u) noexcept nogil:
    """The micro-operations, in the order load, operation, store; how many fused ones they make when decoded and when issued."""
    cdef const Group* g = &u.groups[i.group]
    cdef int k, compute = 0, apart, wide
    cdef bint indexed = i.index != NO_CELL and i.loads + i.stores > 0
    i.first = <uint16_t>b.n_uops
    i.n_uops = 0
    wide = u.pipe.wide_access if i.size == 32 else 1
    add_uops(b, i, u.ports.load, i.loads * wide, UOP_LOAD)
    for k in range(g.kinds):
        add_uops(b, i, g.ports[k], g.counts[k], UOP_COMPUTE)
        compute += g.counts[k]
    add_uops(b, i, u.ports.address_indexed if indexed else u.ports.address, i.stores, UOP_ADDRESS)
    add_uops(b, i, u.ports.data, i.stores * wide, UOP_DATA)
    if i.stores:
        i.fused = g.rmw if g.rmw and (i.loads or not g.loaded) else <uint8_t>(compute + i.stores + (i.loads if compute == 0 else 0))
    elif i.loads:
        i.fused = g.loaded if g.loaded else <uint8_t>(compute if compute else 1)
    else:
        i.fused = g.fused if g.fused else <uint8_t>(compute if compute else 1)
    if i.fused < 1:
        i.fused = 1
    i.slots = i.fused
    apart = i.n_uops - i.fused - (i.loads + i.stores) * (wide - 1)
    if indexed and apart > 0:
        if u.pipe.unlaminate_indexed == 2:
            i.slots = <uint8_t>(i.fused + apart)
        elif u.pipe.unlaminate_indexed == 1 and i.loads and not i.stores and not reads_result(i):
            i.slots += 1
    for k in range(i.n_uops):
        b.uops[i.first + k].slot = <uint8_t>(k * i.slots // i.n_uops)
    i.complex = i.fused > u.pipe.simple or g.first
    if i.group == POP and u.pipe.pop_first and i.n_result and (i.result[0] == 4 or i.result[0] == 12):
        i.complex = 1
    i.latency = g.latency
    i.busy = g.busy
    i.serial = g.serial


cdef inline bint reads_result(const Insn* i) noexcept nogil:
    """Is a register both read and written?  Then an indexed load stays fused (optimisation manual, micro-fusion)."""
    cdef int k, j
    for k in range(i.n_result):
        if i.result[k] < CELL_CARRY:
            for j in range(i.n_source):
                if i.source[j] == i.result[k]:
                    return True
    return False


cdef bint is_idiom(const cs_insn* insn, Insn* i) noexcept nogil:
    """A result that does not depend on the operands, as both are one register."""
    cdef const cs_x86* x = &insn.detail.x86
    cdef int n = x.op_count
    if not ZEROES[insn.id] or n < 2 or n > 3:
        return False
    cdef const cs_x86_op* a = &x.operands[n - 1]
    cdef const cs_x86_op* b = &x.operands[n - 2]
    return a.type == X86_OP_REG and b.type == X86_OP_REG and a.reg == b.reg and x.operands[0].type == X86_OP_REG and WIDTH[a.reg] >= 4 and WIDTH[a.reg] != 9


cdef int opcode_offset(const uint8_t* code, int length, int bits, uint8_t* prefixed) noexcept nogil:
    """Offset of the nominal opcode byte; prefixed[0]: 1 with a 66 prefix that REX.W does not override."""
    cdef int at = 0
    cdef bint short = False
    while at < length and (code[at] == 0x66 or code[at] == 0x67 or code[at] == 0xF2 or code[at] == 0xF3 or code[at] == 0xF0 or code[at] == 0x2E
                           or code[at] == 0x36 or code[at] == 0x3E or code[at] == 0x26 or code[at] == 0x64 or code[at] == 0x65):
        short |= code[at] == 0x66
        at += 1
    if bits == 64 and at < length and code[at] & 0xF0 == 0x40:
        if code[at] & 8:
            short = False
        at += 1
    prefixed[0] = short
    if at >= length:
        return 0
    if code[at] == 0x0F:
        at += 1
        if at < length and (code[at] == 0x38 or code[at] == 0x3A):
            at += 1
    elif code[at] == 0xC5 and bits == 64:
        at += 2
    elif code[at] == 0xC4 and bits == 64:
        at += 3
    return at if at < length else length - 1


cdef bint changes_length(const uint8_t* code, int at, int length, uint8_t prefixed) noexcept nogil:
    """Does a 66 prefix shorten the immediate?  (optimisation manual, length-changing prefixes)"""
    if not prefixed or at >= length:
        return False
    cdef uint8_t op = code[at]
    if op == 0xF7:
        return at + 1 < length and code[at + 1] >> 3 & 7 < 2
    return op == 0x69 or op == 0x81 or op == 0xC7 or op == 0xA9 or (op & 0xC7 == 0x05 and op < 0x40) or 0xB8 <= op <= 0xBF


cdef void decode_one(Insn* i, const cs_insn* insn, const Uarch* u, const uint8_t* code, int bits) noexcept nogil:
    cdef const cs_x86* x = &insn.detail.x86
    cdef unsigned int id = insn.id if insn.id < MAX_IDS else 0
    cdef int g = GROUP[id], k, memory = -1, role = ROLE[id]
    cdef uint8_t prefixed = 0
    i.opcode_at = <uint8_t>opcode_offset(code, i.length, bits, &prefixed)
    i.length_change = changes_length(code, i.opcode_at, i.length, prefixed)
    i.base = i.index = NO_CELL
    i.uncovered = g == DEFAULT
    for k in range(x.op_count):
        if x.operands[k].type == X86_OP_MEM:
            memory = k
            break
    if (g == VECTOR_MERGE or g == FP_COMPARE or g == DEFAULT) and x.op_count > 1 and x.operands[0].type == X86_OP_MEM and x.operands[1].type == X86_OP_MEM:
        g = STRING_MOVE                                 # MOVSD, CMPSD share their mnemonics with SSE2
    elif g == DEFAULT and x.op_count > 1 and (is_vector(&x.operands[0])):
        g = FP_COMPARE
        i.uncovered = 0
    if STRING_MOVE <= g <= STRING_COMPARE:
        i.uncovered = 0
        if g == STRING_COMPARE and x.operands[0].type == X86_OP_MEM and x.opcode[0] & 0xFE == 0xA4:
            g = STRING_MOVE
        i.loads = 1 if g != STRING_STORE else 0
        i.stores = 1 if g == STRING_MOVE or g == STRING_STORE else 0
        if x.prefix[0] == X86_PREFIX_REP or x.prefix[0] == X86_PREFIX_REPNE:
            g = STRING_REPEAT
        role = ROLE_READ
    elif VECTOR_FIRST <= g <= VECTOR_LAST:
        if VEX[id] and x.op_count >= 3 and g != INDEX_FUSED:
            role = ROLE_WRITE
        elif x.op_count >= 2 and (g == VECTOR_MERGE) and memory > 0 and not is_half(x):
            role = ROLE_WRITE
        g = refine_vector(g, x, memory)
        if g == VECTOR_MERGE and memory == 0:
            g, role = STORE, ROLE_WRITE
        elif memory > 0 and PLAIN_LOAD[id]:
            g = LOAD
        elif memory == 0 and PLAIN_STORE[id]:
            g = STORE
    else:
        g = refine_integer(g, x, id, memory)
        if id == <unsigned int>ID_IMUL and x.op_count != 2:         # of one operand it only reads that, of three it only writes the first
            role = ROLE_READ if x.op_count == 1 else ROLE_WRITE
    i.group = <uint8_t>g
    i.branch = branch_kind(x) if g == BRANCH else 0
    if memory >= 0 and g != NOP and not LEA <= g <= LEA_RIP and not STRING_MOVE <= g <= STRING_REPEAT:
        take_memory(i, &x.operands[memory])
        i.loads = memory > 0 or role & ROLE_READ != 0
        i.stores = memory == 0 and role & ROLE_WRITE != 0
        if g == EXCHANGE or g == EXCHANGE_MEMORY:
            i.loads = i.stores = 1
        if x.prefix[0] == X86_PREFIX_LOCK and i.stores:
            i.group = <uint8_t>LOCKED
    elif LEA <= g <= LEA_RIP:
        take_memory(i, &x.operands[memory])
        i.chase = 0
    if g == PUSH or g == POP or g == CALL or g == RETURN:
        take_stack(i, g, bits, x)
    if is_idiom(insn, i):
        i.n_source = 0
        if ZEROES[id] == 1:
            i.group = <uint8_t>ZERO
        role = ROLE_WRITE
        take_registers(i, insn, role)
        i.n_source = 0
    else:
        take_registers(i, insn, role)
        if FALSELY[id] and x.op_count > 0 and x.operands[0].type == X86_OP_REG:
            add_source(i, CELL[x.operands[0].reg])
    if LEA <= g <= LEA_RIP:
        for k in range(i.n_address):
            add_source(i, i.address[k])
        i.n_address = 0
    if not (X87_MOVE <= g <= STATE):
        take_flags(i, x)
    take_value(i, insn)
    i.vector = 0
    for k in range(x.op_count):
        if x.operands[k].type == X86_OP_REG and CELL_VECTOR <= CELL[x.operands[k].reg] < CELL_VECTOR + 16:
            i.vector = 1
    if i.stack == 0:
        for k in range(i.n_source):
            i.names_rsp |= i.source[k] == CELL_RSP
        for k in range(i.n_address):
            i.names_rsp |= i.address[k] == CELL_RSP
        for k in range(i.n_result):
            i.names_rsp |= i.result[k] == CELL_RSP
    i.fusible = 0 if i.stores or (i.loads and x.op_count > 1 and x.operands[1].type == X86_OP_IMM) else FUSIBLE[id]
    if not (i.fusible & FUSES_COMPARE or u.pipe.fuse_arithmetic):
        i.fusible = 0
    i.eliminated = u.pipe.move_elimination and (i.group == MOVE or i.group == ZERO_EXTEND or i.group == VECTOR_MOVE)
    i.load_latency = <uint8_t>(u.pipe.load_vector if i.vector else u.pipe.load)
    i.chase = i.chase and (i.group == LOAD) and not i.vector


cdef int INDEX_FUSED = INDEX["fp_fused"]


cdef inline bint is_half(const cs_x86* x) noexcept nogil:
    """MOVLPS, MOVHPS and the like from memory keep the other half."""
    return x.opcode[1] == 0x12 or x.opcode[1] == 0x16 or x.opcode[0] == 0x12 or x.opcode[0] == 0x16


cdef inline uint8_t branch_kind(const cs_x86* x) noexcept nogil:
    """FUSES_* of a conditional branch by its condition; 0 for JRCXZ, which never fuses."""
    cdef int condition = x.opcode[1] if x.opcode[0] == 0x0F else x.opcode[0]
    if condition >> 4 != 7 and condition >> 4 != 8:
        return 0
    condition = condition >> 1 & 7
    if condition == 1 or condition == 3:
        return FUSES_CARRY
    return FUSES_ZERO if condition == 2 or condition >= 6 else FUSES_SIGN


cdef void fuse_branches(Block* b) noexcept nogil:
    """A conditional branch after CMP, TEST, ADD, SUB, AND, INC or DEC is decoded and issued with it (optimisation manual, macro-fusion)."""
    cdef int k
    for k in range(1, b.n):
        if b.insns[k - 1].fusible & b.insns[k].branch:
            b.insns[k].fused_branch = 1


cdef int model_decode(Capstone* c, const Uarch* u, const uint8_t* code, uint32_t size, int bits, Block* out) noexcept nogil:
    """Decode `size` bytes into out; returns the number of bytes that are instructions, less than `size` at the first that is none."""
    cdef cs_insn* insn = <cs_insn*>c.insn
    cdef const uint8_t* at = code
    cdef const uint8_t* start
    cdef size_t left = size
    cdef uint64_t address = 0
    cdef Insn* i
    out.n = out.n_uops = out.uncovered = 0
    while left > 0 and out.n < MAX_INSNS and out.n_uops < MAX_UOPS - MAX_INSN_UOPS:
        start = at
        if not cs_disasm_iter(c.handle[bits >> 5], &at, &left, &address, insn):
            break
        i = &out.insns[out.n]
        memset(i, 0, sizeof(Insn))
        i.length = <uint8_t>insn.size
        decode_one(i, insn, u, start, bits)
        make_uops(out, i, u)
        out.uncovered += i.uncovered
        out.n += 1
    fuse_branches(out)
    out.bytes = <int32_t>(size - left)
    return out.bytes
