# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code in, code for the translation cache and a map of it out: a pure function (state.pxd has the contract).

Every instruction falls under one rule, by opcode (SDM 2D appendix A).  What is not in these tables is copied.  An instruction that
does not exist is a call-out like any other: the monitor finds out what it does natively.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx86v.arch.sensitive cimport *
from pyx86v.cost.form cimport MAP_0F, MAP_0F38, MAP_0F3A, MAP_ONE, PREFIX_LOCK, PREFIX_REP, PREFIX_REPNE, PREFIX_VEX, form_tables_fill
from pyx86v.vmm.bt.expand cimport *
from pyx86v.arch.sensitive import NAMES, NUMBER

cdef enum Rule:
    COPY = 0
    UNKNOWN                  # call-out: no instruction
    EVENT                    # call-out: CPUID, RDRAND: answered by the monitor under every style
    CALL_OUT                 # call-out: a sensitive instruction
    BRANCH
    CALL_DIRECT
    RETURN
    IN_PLACE                 # CLI, STI, PUSHF, POPF, RDTSC
    PUSH_CS
    GROUP                    # ModRM.reg decides, or a prefix

cdef uint8_t RULE[4][256]
cdef uint8_t SENSITIVE[2][256]
cdef uint8_t NOT_IN_64[256]  # one-byte opcodes that 64-bit mode does not have
cdef uint8_t LOCKABLE[2][256]

RULES = {                    # map: {rule: opcodes}
    MAP_ONE: {
        UNKNOWN: (0xd6,),
        CALL_OUT: (0x07, 0x16, 0x17, 0x1f, 0x6c, 0x6d, 0x6e, 0x6f, 0x8e, 0x9a, 0xc4, 0xc5, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf,
                   0xe4, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xed, 0xee, 0xef, 0xf1, 0xf4),
        BRANCH: (*range(0x70, 0x80), 0xe0, 0xe1, 0xe2, 0xe3, 0xe9, 0xeb),
        CALL_DIRECT: (0xe8,),
        RETURN: (0xc2, 0xc3),
        IN_PLACE: (0x9c, 0x9d, 0xfa, 0xfb),
        PUSH_CS: (0x0e,),
        GROUP: (0x62, 0x8c, 0x8d, 0x8f, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff)},
    MAP_0F: {
        UNKNOWN: (0x04, 0x0a, 0x0b, 0x0c, 0x0e, 0x0f, *range(0x24, 0x28), 0x36, *range(0x39, 0x40), 0x7a, 0x7b, 0xa6, 0xa7, 0xb9, 0xff),
        EVENT: (0xa2,),
        CALL_OUT: (0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x09, 0x21, 0x23, 0x30, 0x32, 0x33, 0x34, 0x35, 0x37, 0x78, 0x79, 0xa1, 0xa9, 0xaa,
                   0xb2, 0xb4, 0xb5),
        BRANCH: range(0x80, 0x90),
        IN_PLACE: (0x31,),
        GROUP: (0x00, 0x01, 0x20, 0x22, 0x50, 0x71, 0x72, 0x73, 0xa0, 0xa8, 0xae, 0xb8, 0xba, 0xc5, 0xc7, 0xd6, 0xd7, 0xf7)},
    MAP_0F38: {CALL_OUT: (0x80, 0x81, 0x82, 0xf5), GROUP: (0xf0, 0xf1)},
    MAP_0F3A: {}}

SENSITIVES = {               # (map, opcode): name in arch/sensitive.py; of groups, group_number below
    **{(MAP_ONE, op): name for op, name in {
        0x07: "pop_segment", 0x0e: "push_segment", 0x16: "push_segment", 0x17: "pop_segment", 0x1f: "pop_segment", 0x6c: "ins", 0x6d: "ins",
        0x6e: "outs", 0x6f: "outs", 0x8c: "mov_from_segment", 0x8e: "mov_to_segment", 0x9a: "call_far", 0x9c: "pushf", 0x9d: "popf",
        0xc4: "les", 0xc5: "lds", 0xca: "ret_far", 0xcb: "ret_far", 0xcc: "int3", 0xcd: "int", 0xce: "into", 0xcf: "iret", 0xe4: "in",
        0xe5: "in", 0xe6: "out", 0xe7: "out", 0xea: "jmp_far", 0xec: "in", 0xed: "in", 0xee: "out", 0xef: "out", 0xf1: "int1", 0xf4: "hlt",
        0xfa: "cli", 0xfb: "sti"}.items()},
    **{(MAP_0F, op): name for op, name in {
        0x02: "lar", 0x03: "lsl", 0x05: "syscall", 0x06: "clts", 0x07: "sysret", 0x08: "invd", 0x09: "wbinvd", 0x20: "mov_from_cr",
        0x21: "mov_from_dr", 0x22: "mov_to_cr", 0x23: "mov_to_dr", 0x30: "wrmsr", 0x31: "rdtsc", 0x32: "rdmsr", 0x33: "rdpmc",
        0x34: "sysenter", 0x35: "sysexit", 0x37: "getsec", 0x78: "vmread", 0x79: "vmwrite", 0xa1: "pop_segment", 0xa9: "pop_segment",
        0xaa: "rsm", 0xb2: "lss", 0xb4: "lfs", 0xb5: "lgs"}.items()}}
SENSITIVES_0F38 = {0x80: "invept", 0x81: "invvpid", 0x82: "invpcid", 0xf5: "wruss"}
GROUP_0F00 = ("sldt", "str", "lldt", "ltr", "verr", "verw", "", "")
GROUP_0F01 = ("sgdt", "sidt", "lgdt", "lidt", "smsw", "", "lmsw", "invlpg")
GROUP_0F01_REGISTER = {
    0xc1: "vmcall", 0xc2: "vmlaunch", 0xc3: "vmresume", 0xc4: "vmxoff", 0xc5: "pconfig", 0xc8: "monitor", 0xc9: "mwait", 0xca: "clac",
    0xcb: "stac", 0xcf: "encls", 0xd1: "xsetbv", 0xd4: "vmfunc", 0xd8: "vmrun", 0xd9: "vmmcall", 0xda: "vmload", 0xdb: "vmsave",
    0xdc: "stgi", 0xdd: "clgi", 0xde: "skinit", 0xdf: "invlpga", 0xf8: "swapgs", 0xf9: "rdtscp", 0xfa: "monitorx", 0xfb: "mwaitx",
    **{modrm: "smsw" for modrm in range(0xe0, 0xe8)}, **{modrm: "lmsw" for modrm in range(0xf0, 0xf8)}}

cdef uint8_t OF_0F00[8]
cdef uint8_t OF_0F01[256]    # by ModRM
cdef uint8_t OF_0F38[256]
cdef int CALL_FAR = NUMBER["call_far"], JMP_FAR = NUMBER["jmp_far"], XSAVES = NUMBER["xsaves"], XRSTORS = NUMBER["xrstors"]
cdef int VMPTRLD = NUMBER["vmptrld"], VMPTRST = NUMBER["vmptrst"], VMXON = NUMBER["vmxon"], VMCLEAR = NUMBER["vmclear"]


cdef void fill_rules():
    for map_, rules in RULES.items():
        for rule, opcodes in rules.items():
            for op in opcodes:
                RULE[<int>map_][op] = rule
    for (map_, op), name in SENSITIVES.items():
        SENSITIVE[<int>map_][op] = NUMBER[name]
    for op, name in SENSITIVES_0F38.items():
        OF_0F38[op] = NUMBER[name]
    for i in range(8):
        OF_0F00[i] = NUMBER.get(GROUP_0F00[i], 0)
    for modrm in range(256):
        name = GROUP_0F01_REGISTER.get(modrm, "") if modrm >= 0xc0 else GROUP_0F01[modrm >> 3 & 7]
        OF_0F01[modrm] = NUMBER.get(name, 0)
    for op in (0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62, 0x82, 0x9a, 0xc4, 0xc5, 0xce, 0xd4, 0xd5, 0xea):
        NOT_IN_64[op] = 1
    for op in (*range(0, 0x38, 8), *range(1, 0x38, 8), 0x80, 0x81, 0x82, 0x83, 0x86, 0x87, 0xf6, 0xf7, 0xfe, 0xff):
        LOCKABLE[<int>MAP_ONE][op] = 1
    for op in (0xab, 0xb0, 0xb1, 0xb3, 0xba, 0xbb, 0xc0, 0xc1, 0xc7):
        LOCKABLE[<int>MAP_0F][op] = 1


fill_rules()


# What an instruction is ---------------------------------------------------------------------------

ctypedef struct Meaning:
    int kind                 # BT_*
    int callout              # CALLOUT_*
    int sensitive            # SENSITIVE_*


cdef inline void out(Meaning* m, int reason, int sensitive) noexcept nogil:
    m.kind = BT_CALLOUT
    m.callout = reason
    m.sensitive = sensitive


cdef inline bint lock_is_valid(const Source* s) noexcept nogil:
    """SDM 2A, LOCK: these instructions, with a destination in memory."""
    cdef int op = s.f.opcode
    if s.mod == 3 or not s.f.has_modrm or s.f.map > MAP_0F or s.f.prefixes & PREFIX_VEX or not LOCKABLE[s.f.map][op]:
        return False
    if s.f.map == MAP_ONE:
        if 0x80 <= op <= 0x83:
            return s.reg != 7
        if op == 0xf6 or op == 0xf7:
            return s.reg == 2 or s.reg == 3
        return op < 0xfe or s.reg < 2
    if op == 0xba:
        return s.reg > 4
    return op != 0xc7 or s.reg == 1


cdef inline void meaning_of_ff(const Source* s, Meaning* m) noexcept nogil:
    if s.reg == 2 or s.reg == 4:
        m.kind = BT_INDIRECT
    elif s.reg == 3 or s.reg == 5:
        if s.mod == 3:
            out(m, CALLOUT_UNKNOWN, 0)
        else:
            out(m, CALLOUT_SENSITIVE, CALL_FAR if s.reg == 3 else JMP_FAR)
    elif s.reg == 7:
        out(m, CALLOUT_UNKNOWN, 0)


cdef inline void meaning_of_group_one(const Source* s, Meaning* m) noexcept nogil:
    """Opcodes of one byte that ModRM decides."""
    cdef int op = s.f.opcode
    if op == 0xff:
        meaning_of_ff(s, m)
    elif op == 0x8c:
        if s.reg == SEG_CS:
            m.kind = BT_CONSTANT
            m.sensitive = SENSITIVE_MOV_FROM_SEGMENT
        elif s.reg == SEG_SS:
            m.kind = BT_SS_READ
            m.sensitive = SENSITIVE_MOV_FROM_SEGMENT
            if s.mod != 3:
                out(m, CALLOUT_SENSITIVE, SENSITIVE_MOV_FROM_SEGMENT)
        elif s.reg == SEG_GS and s.bits != 64:
            out(m, CALLOUT_SEGMENT, 0)
        elif s.reg > SEG_GS:
            out(m, CALLOUT_UNKNOWN, 0)
    elif op == 0x62:                                     # BOUND, or EVEX
        if s.mod == 3 or s.f.prefixes & PREFIX_VEX:
            out(m, CALLOUT_UNKNOWN, 0)
    elif op == 0x8d:
        if s.mod == 3:
            out(m, CALLOUT_UNKNOWN, 0)
    elif op == 0xf6 or op == 0xf7:
        if s.reg == 1:
            out(m, CALLOUT_UNKNOWN, 0)
    elif s.reg > (1 if op == 0xfe else 0):               # FE, C6, C7, 8F
        out(m, CALLOUT_UNKNOWN, 0)


cdef inline void meaning_of_0f01(const Source* s, const BtMode* mode, Meaning* m) noexcept nogil:
    cdef int number = OF_0F01[s.f.modrm]
    if s.f.modrm == 0xf8 and s.bits == 64:
        if mode.swapgs:
            m.kind = BT_SWAPGS
            m.sensitive = number
            return
    if s.f.modrm == 0xf9:                                # RDTSCP
        m.kind = BT_RDTSC
        m.sensitive = number
        return
    out(m, CALLOUT_SENSITIVE if number else CALLOUT_UNKNOWN, number)


cdef inline void meaning_of_0fc7(const Source* s, Meaning* m) noexcept nogil:
    """CMPXCHG8B is copied; VMPTRLD and its like, XSAVES, RDRAND, RDSEED are not."""
    cdef int number = 0
    if s.mod == 3:
        out(m, CALLOUT_EVENT if s.reg >= 6 else CALLOUT_UNKNOWN, 0)
        return
    if s.reg == 1:
        return
    if s.reg == 3:
        number = XRSTORS
    elif s.reg == 5:
        number = XSAVES
    elif s.reg == 7:
        number = VMPTRST
    elif s.reg == 6:
        number = VMXON if s.f.prefixes & PREFIX_REP else VMCLEAR if s.f.prefixes & PREFIX_66 else VMPTRLD
    out(m, CALLOUT_SENSITIVE if number else CALLOUT_RARE, number)


cdef inline void meaning_of_group_0f(const Source* s, const BtMode* mode, Meaning* m) noexcept nogil:
    """Opcodes behind 0F that ModRM or a prefix decides."""
    cdef int op = s.f.opcode, cr = s.reg | (8 if s.f.rex & 4 else 0)
    if op == 0x00:
        out(m, CALLOUT_SENSITIVE if OF_0F00[s.reg] else CALLOUT_UNKNOWN, OF_0F00[s.reg])
    elif op == 0x01:
        meaning_of_0f01(s, mode, m)
    elif op == 0x20:
        if cr == 8:
            m.kind = BT_CR8_READ
        elif cr == 0 or 2 <= cr <= 4:
            m.kind = BT_CR_READ
        else:
            out(m, CALLOUT_UNKNOWN, 0)
        m.sensitive = SENSITIVE[<int>MAP_0F][op]
    elif op == 0x22:
        m.kind = BT_CR8_WRITE
        if cr != 8:
            out(m, CALLOUT_SENSITIVE, 0)
        m.sensitive = SENSITIVE[<int>MAP_0F][op]
    elif op == 0xa0 or op == 0xa8:                       # PUSH FS, PUSH GS
        if op == 0xa8 and s.bits != 64:
            out(m, CALLOUT_SEGMENT, 0)
    elif op == 0xae:                                     # XSAVE, XRSTOR, XSAVEOPT; FXSAVE stores where the last x87 instruction lay
        if s.mod != 3 and (4 <= s.reg <= 6 or s.reg == 0):
            out(m, CALLOUT_RARE, 0)
        elif s.mod == 3 and s.reg < 4 and not mode.fsgsbase:
            out(m, CALLOUT_UNKNOWN, 0)                   # RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE
    elif op == 0xb8:
        if not s.f.prefixes & PREFIX_REP:
            out(m, CALLOUT_UNKNOWN, 0)
    elif op == 0xba:
        if s.reg < 4:
            out(m, CALLOUT_UNKNOWN, 0)
    elif op == 0xc7:
        meaning_of_0fc7(s, m)
    elif s.mod != 3 and (op != 0xd6 or s.f.prefixes & (PREFIX_REP | PREFIX_REPNE)):
        # MOVMSK, PEXTRW, shifts by a constant, MOVQ2DQ, MASKMOVQ know registers only
        out(m, CALLOUT_UNKNOWN, 0)


cdef inline void meaning_in_place(const Source* s, const BtMode* mode, Meaning* m) noexcept nogil:
    cdef int op = s.f.opcode
    if s.f.map == MAP_0F:
        m.kind = BT_RDTSC
    elif op == 0xfa:
        m.kind = BT_CLI
    elif op == 0xfb:
        m.kind = BT_STI
    elif s.bits != 64 and not mode.ss_flat:
        out(m, CALLOUT_STACK, m.sensitive)
    else:
        m.kind = BT_PUSHF if op == 0x9c else BT_POPF


cdef inline void meaning_by_rule(const Source* s, const BtMode* mode, Meaning* m) noexcept nogil:
    cdef int op = s.f.opcode, rule = RULE[s.f.map][op]
    if s.f.map <= MAP_0F:
        m.sensitive = SENSITIVE[s.f.map][op]
    elif s.f.map == MAP_0F38:
        m.sensitive = OF_0F38[op]
    if s.f.map == MAP_ONE and s.bits == 64 and NOT_IN_64[op]:
        out(m, CALLOUT_UNKNOWN, 0)
    elif s.f.map == MAP_ONE and (op == 0xd9 or op == 0xdd) and s.mod != 3 and s.reg == 6:
        out(m, CALLOUT_RARE, 0)                          # FNSTENV, FNSAVE: the same
    elif rule == UNKNOWN:
        out(m, CALLOUT_UNKNOWN, 0)
    elif rule == EVENT:
        out(m, CALLOUT_EVENT, 0)
    elif rule == CALL_OUT:
        out(m, CALLOUT_SENSITIVE, m.sensitive)
    elif rule == BRANCH:
        m.kind = BT_BRANCH
    elif rule == CALL_DIRECT:
        m.kind = BT_CALL
    elif rule == RETURN:
        m.kind = BT_RETURN
    elif rule == PUSH_CS:
        m.kind = BT_CONSTANT
    elif rule == IN_PLACE:
        meaning_in_place(s, mode, m)
    elif rule == GROUP:
        m.sensitive = 0
        if s.f.map == MAP_0F38:
            if s.mod == 3 and not s.f.prefixes & PREFIX_REPNE:
                out(m, CALLOUT_UNKNOWN, 0)               # MOVBE between registers
        elif s.f.map == MAP_ONE:
            meaning_of_group_one(s, m)
        else:
            meaning_of_group_0f(s, mode, m)


cdef inline void meaning_of_vex(const Source* s, Meaning* m) noexcept nogil:
    """BMI is copied; what AVX there may be is left to the monitor, and 16-bit code, where the engine knows no VEX."""
    cdef int op = s.f.opcode
    if s.bits == 16 or not (s.f.map == MAP_0F38 and (op == 0xf2 or op == 0xf3 or 0xf5 <= op <= 0xf7)) and not (s.f.map == MAP_0F3A and op == 0xf0):
        out(m, CALLOUT_RARE, 0)


cdef inline bint behind_relative(const Source* s) noexcept nogil:
    """SHLD, SHRD and RORX with an immediate, for which the engine takes RIP before the immediate: left to it, as natively."""
    cdef int op = s.f.opcode
    return s.f.map == MAP_0F3A and op == 0xf0 if s.f.prefixes & PREFIX_VEX else s.f.map == MAP_0F and (op == 0xa4 or op == 0xac)


cdef inline bint is_listed(const uint64_t* list_, int n, uint64_t eip) noexcept nogil:
    cdef int i
    for i in range(n):
        if list_[i] == eip:
            return True
    return False


cdef inline void source_meaning(const Source* s, const BtMode* mode, Meaning* m) noexcept nogil:
    m.kind = BT_COPIED
    m.callout = CALLOUT_NONE
    m.sensitive = SENSITIVE_NONE
    if s.f.prefixes & PREFIX_VEX:
        meaning_of_vex(s, m)
    else:
        meaning_by_rule(s, mode, m)
    if m.kind == BT_CALLOUT:
        return
    if s.f.prefixes & PREFIX_LOCK and not lock_is_valid(s):
        out(m, CALLOUT_UNKNOWN, m.sensitive)
    elif is_listed(mode.no_inline, mode.n_no_inline, s.eip):
        out(m, CALLOUT_ADAPTIVE, m.sensitive)
    elif s.bits != 64 and (s.segment == SEG_GS or (s.segment == SEG_CS and not mode.cs_flat)) and \
            (m.kind == BT_COPIED or m.kind == BT_INDIRECT or m.kind == BT_CONSTANT):
        out(m, CALLOUT_SEGMENT, m.sensitive)
    elif mode.compatibility and (m.kind == BT_RETURN or m.kind == BT_INDIRECT or m.kind == BT_PUSHF or m.kind == BT_POPF):
        out(m, CALLOUT_RARE, m.sensitive)                # these borrow registers
    elif s.relative and behind_relative(s):
        out(m, CALLOUT_RARE, 0)
    elif s.bits == 64 and s.op16 and BT_BRANCH <= m.kind <= BT_INDIRECT:
        out(m, CALLOUT_RARE, m.sensitive)                # Intel ignores 66 there, AMD does not


# Units ----------------------------------------------------------------------------------------------

cdef inline bint expand(Emitter* e, const Source* s, const BtMode* mode, int kind) noexcept nogil:
    cdef int reg = s.rm | (s.f.rex & 1) << 3
    if kind == BT_COPIED:
        return copy_insn(e, s)
    if kind == BT_BRANCH:
        return expand_branch(e, s)
    if kind == BT_CALL:
        return expand_call(e, s)
    if kind == BT_RETURN:
        return expand_return(e, s)
    if kind == BT_INDIRECT:
        return expand_indirect(e, s)
    if kind == BT_CLI or kind == BT_STI:
        return expand_interrupt_flag(e, kind)
    if kind == BT_PUSHF:
        return expand_pushf(e, s)
    if kind == BT_POPF:
        return expand_popf(e, s, mode.smap)
    if kind == BT_RDTSC:
        return expand_rdtsc(e, s)
    if kind == BT_CR_READ or kind == BT_CR8_READ:
        return expand_cr_read(e, kind, s.reg | (8 if s.f.rex & 4 else 0), reg)
    if kind == BT_CR8_WRITE:
        return expand_cr8_write(e, reg)
    if kind == BT_SWAPGS:
        return expand_swapgs(e)
    if kind == BT_SS_READ:
        return expand_ss_read(e, s, reg)
    if kind == BT_CONSTANT:
        return expand_push_cs(e, s, mode.cs) if s.f.opcode == 0x0e else expand_mov_from_cs(e, s, mode.cs)
    return callout(e)


cdef inline void translate_insn(Emitter* e, const Source* s, const BtMode* mode, uint64_t start) noexcept nogil:
    """Write the translation of one instruction; a call-out where there is none."""
    cdef Meaning m
    cdef BtUnit* u = e.unit
    cdef BtInsn* n = &u.insns[e.insn]
    cdef int at = e.at, n_parts = u.n_parts, n_exits = u.n_exits
    source_meaning(s, mode, &m)
    n.offset = <uint16_t>(s.eip - start)
    n.length = <uint8_t>s.length
    n.code = <uint16_t>e.at
    n.code_end = 0
    if not expand(e, s, mode, m.kind):
        e.at = at
        u.n_parts = <uint8_t>n_parts
        u.n_exits = <uint8_t>n_exits
        out(&m, CALLOUT_ENCODING, m.sensitive)
        callout(e)
    if n.code_end == 0:
        n.code_end = <uint16_t>e.at
    n.kind = <uint8_t>m.kind
    n.sensitive = <uint8_t>m.sensitive
    n.callout = <uint8_t>m.callout


cdef inline void overlong(Source* s, const uint8_t* code, int bits, uint64_t eip) noexcept nogil:
    """More than 15 bytes: a call-out, and the monitor finds the fault."""
    memset(s, 0, sizeof(Source))
    s.code = code
    s.bits = bits
    s.eip = eip
    s.length = INSN_MAX_BYTES
    s.next = masked(s, eip + INSN_MAX_BYTES)
    s.f.map = MAP_0F
    s.f.opcode = 0x0b


cdef inline int end_of(int kind, bint shadow) noexcept nogil:
    """BT_END_* behind an instruction of this kind, or -1: the unit goes on."""
    if kind == BT_CALLOUT:
        return BT_END_CALLOUT
    if BT_BRANCH <= kind <= BT_INDIRECT:
        return BT_END_TRANSFER
    return BT_END_WINDOW if kind == BT_POPF or shadow else -1


cdef int bt_translate(const BtTranslator* t, const uint8_t* code, int available, uint64_t eip, const BtMode* mode,
                      uint64_t tc_linear, uint8_t* code_out, int room, BtUnit* u) noexcept nogil:
    """Translate the unit at `eip`, of whose guest code `available` bytes lie at `code`, to `code_out`, which will lie at linear `tc_linear`.

    Returns the bytes of code.  BT_NEED_MORE: the first instruction reaches beyond `available` (a later one ends the unit before it).
    BT_NO_ROOM: `room` is too small; BT_MAX_CODE never is.
    """
    cdef Emitter e
    cdef Source s
    cdef int length, kind, end = BT_END_PLAIN
    cdef bint shadow = False                             # the instruction before was STI
    memset(&e, 0, sizeof(e))
    e.out = code_out
    e.room = room
    e.wide = mode.bits == 64
    e.stack32 = mode.ss32
    e.base = tc_linear
    e.cells = <uint32_t>((BT_BASE_64 if e.wide else BT_BASE_32) + BT_DATA)
    e.unit = u
    u.n_insns = u.n_parts = u.n_exits = 0
    u.guest_length = 0
    u.next = eip
    while u.n_insns < BT_MAX_INSNS + (1 if shadow else 0):
        if u.n_insns and is_listed(mode.stop_before, mode.n_stop_before, u.next):
            break
        length = source_read(&t.forms, code + u.guest_length, available - u.guest_length, mode.bits, u.next, &s)
        if length == 0:
            if u.n_insns == 0:
                return BT_NEED_MORE
            break
        if length < 0:
            overlong(&s, code + u.guest_length, mode.bits, u.next)
        e.insn = u.n_insns
        translate_insn(&e, &s, mode, eip)
        kind = u.insns[e.insn].kind
        u.n_insns += 1
        u.guest_length += <uint16_t>s.length
        u.next = s.next
        end = end_of(kind, shadow)
        if end >= 0:
            break
        shadow = kind == BT_STI
        end = BT_END_SHADOW if shadow else BT_END_PLAIN
    u.ends_with = <uint8_t>end
    finish_unit(&e)
    return BT_NO_ROOM if e.full else e.at


cdef inline void finish_unit(Emitter* e) noexcept nogil:
    """The jump behind the last instruction, if it goes on there, and the stubs."""
    cdef BtUnit* u = e.unit
    if u.ends_with == BT_END_PLAIN:
        jump_out(e, u.next, EXIT_PLAIN)
    elif u.ends_with == BT_END_WINDOW:
        jump_out(e, u.next, EXIT_WINDOW)
    elif u.ends_with == BT_END_SHADOW:
        jump_out(e, u.next, EXIT_SHADOW)
    stubs(e)
    u.length = <uint16_t>e.at


cdef void bt_translator_init(BtTranslator* t) noexcept nogil:
    form_tables_fill(&t.forms)


# For Python -------------------------------------------------------------------------------------------

KINDS = ("copied", "branch", "call", "return", "indirect", "cli", "sti", "pushf", "popf", "rdtsc", "cr_read", "cr8_read", "cr8_write",
         "swapgs", "ss_read", "constant", "callout", "stub")
CALLOUTS = ("", "sensitive", "unknown", "encoding", "segment", "stack", "adaptive", "rare", "event")
ENDS = ("plain", "transfer", "callout", "window", "shadow")
CELLS = {"if": CELL_IF, "iopl": CELL_IOPL, "cr0": CELL_CR0, "cr2": CELL_CR2, "cr3": CELL_CR3, "cr4": CELL_CR4, "cr8": CELL_CR8,
         "cr8_hold": CELL_CR8_HOLD, "gs_other": CELL_GS_OTHER, "ss": CELL_SS, "target": CELL_TARGET, "rcx": CELL_RCX, "rdx": CELL_RDX, "rsp": CELL_RSP}
LAYOUT = {"base32": BT_BASE_32, "base64": BT_BASE_64, "data": BT_DATA, "table": BT_TABLE, "targets": BT_TARGETS}


def empty_key(index):
    """The key of an unused place of the table of targets."""
    return bt_empty_key(index)


def cells_page():
    """The page of cells as it is at first."""
    cdef uint8_t page[4096]
    memset(page, 0, sizeof(page))
    bt_cells_init(page)
    return bytes(page[:4096])


def translate(bytes code, uint64_t eip, int bits, *, tc=None, ss32=True, ss_flat=True, cs_flat=True, smap=False, fsgsbase=True, swapgs=True, cs=0x10,
              compatibility=False, no_inline=(), stop_before=(), room=BT_MAX_CODE):
    """Translate the unit that starts with `code` at instruction pointer `eip` of a 16-, 32- or 64-bit code segment.

    tc    linear address that the translation will have; at first the start of the translation cache
    room  bytes that it may have

    Returns a dict: code (bytes), insns, parts, exits (dicts in order), ends_with, next; None if `code` does not hold an instruction,
    or `room` not its translation.  Raises ValueError for other `bits`, more room than there is, or too long a list.
    """
    cdef BtTranslator t
    cdef BtMode mode
    cdef BtUnit u
    cdef uint8_t[BT_MAX_CODE] made
    cdef int n
    if bits not in (16, 32, 64) or len(no_inline) > BT_MAX_LIST or len(stop_before) > BT_MAX_LIST or not 0 <= room <= <int>BT_MAX_CODE:
        raise ValueError(f"bits must be 16, 32 or 64, not {bits}, lists at most {BT_MAX_LIST} long, room {room} at most {<int>BT_MAX_CODE}")
    bt_translator_init(&t)
    memset(&mode, 0, sizeof(mode))
    mode.bits, mode.ss32, mode.ss_flat, mode.cs_flat, mode.smap, mode.fsgsbase, mode.cs = bits, ss32, ss_flat, cs_flat, smap, fsgsbase, cs
    mode.swapgs, mode.compatibility = swapgs, compatibility
    mode.n_no_inline, mode.n_stop_before = len(no_inline), len(stop_before)
    for n, value in enumerate(no_inline):
        mode.no_inline[n] = value
    for n, value in enumerate(stop_before):
        mode.stop_before[n] = value
    if tc is None:
        tc = BT_BASE_64 if bits == 64 else BT_BASE_32
    n = bt_translate(&t, code, len(code), eip, &mode, tc, made, room, &u)
    return unit_dict(&u, made, eip) if n > 0 else None


cdef dict unit_dict(const BtUnit* u, const uint8_t* code, uint64_t eip):
    return {"code": bytes(code[:u.length]), "eip": eip, "guest_length": u.guest_length, "ends_with": ENDS[u.ends_with], "next": u.next,
            "insns": [insn_dict(&u.insns[i]) for i in range(u.n_insns)], "parts": [part_dict(&u.parts[i]) for i in range(u.n_parts)],
            "exits": [exit_dict(&u.exits[i]) for i in range(u.n_exits)]}


cdef dict insn_dict(const BtInsn* n):
    return {"offset": n.offset, "length": n.length, "code": n.code, "code_end": n.code_end, "kind": KINDS[n.kind],
            "sensitive": NAMES[n.sensitive], "callout": CALLOUTS[n.callout]}


cdef dict part_dict(const BtPart* p):
    return {"start": p.start, "insn": p.insn, "kind": KINDS[p.kind], "monitor": p.flags & PART_MONITOR != 0, "first": p.flags & PART_FIRST != 0,
            "exit": p.flags & PART_EXIT != 0, "saved": p.saved}


cdef dict exit_dict(const BtExit* x):
    return {"target": x.target, "at": x.at, "stub": x.stub, "transfer": x.transfer}
