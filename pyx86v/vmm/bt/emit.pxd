# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing of x86 code: bytes, parts, exits, and the few instructions that expansions are made of (SDM 2A chapter 2).

All of these leave EFLAGS alone.  A "word" is 8 bytes in 64-bit code and 4 otherwise.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.regs cimport RCX, RSP
from pyx86v.vmm.bt.cells cimport *
from pyx86v.vmm.bt.state cimport *

ctypedef struct Emitter:
    uint8_t* out
    int at                   # bytes written
    int room
    bint full                # something did not fit
    bint wide                # 64-bit code
    bint stack32             # SS.B
    uint64_t base            # linear address of out[0]
    uint32_t cells           # displacement of the page of cells
    int insn                 # guest instruction that is translated
    BtUnit* unit

cdef inline void byte(Emitter* e, int value) noexcept nogil:
    if e.at < e.room:
        e.out[e.at] = <uint8_t>value
    else:
        e.full = True
    e.at += 1

cdef inline void bytes2(Emitter* e, int first, int second) noexcept nogil:
    byte(e, first)
    byte(e, second)

cdef inline void dword(Emitter* e, uint32_t value) noexcept nogil:
    cdef int i
    for i in range(4):
        byte(e, value >> 8 * i & 0xff)

cdef inline void copy_bytes(Emitter* e, const uint8_t* source, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        byte(e, source[i])

# Parts and exits --------------------------------------------------------------------------------

cdef inline void part(Emitter* e, int kind, int flags, int saved) noexcept nogil:
    """What follows is a part of its own.  One without code gives way to the next."""
    cdef BtPart* p
    if e.unit.n_parts and e.unit.parts[e.unit.n_parts - 1].start == e.at:
        e.unit.n_parts -= 1
    if e.unit.n_parts == BT_MAX_PARTS:
        e.full = True
        return
    p = &e.unit.parts[e.unit.n_parts]
    e.unit.n_parts += 1
    p.start = <uint16_t>e.at
    p.insn = <uint8_t>e.insn
    p.flags = <uint8_t>flags
    p.saved = <uint8_t>saved
    p.kind = <uint8_t>kind
    p.pad = 0

cdef inline void run(Emitter* e) noexcept nogil:
    """What follows is the guest's own: it goes on with the run before it, if there is one."""
    if e.unit.n_parts == 0 or e.unit.parts[e.unit.n_parts - 1].kind != BT_COPIED:
        part(e, BT_COPIED, PART_FIRST, 0)

cdef inline void interrupt(Emitter* e, int number) noexcept nogil:
    bytes2(e, 0xcd, number)

cdef inline void exit_at(Emitter* e, uint64_t target, int transfer) noexcept nogil:
    """The rel32 field of a direct exit."""
    cdef BtExit* x
    if e.unit.n_exits == BT_MAX_EXITS:
        e.full = True
        return
    x = &e.unit.exits[e.unit.n_exits]
    e.unit.n_exits += 1
    x.target = target
    x.at = <uint16_t>e.at
    x.transfer = <uint8_t>transfer
    dword(e, 0)

cdef inline void jump_out(Emitter* e, uint64_t target, int transfer) noexcept nogil:
    """JMP rel32 to another unit."""
    byte(e, 0xe9)
    exit_at(e, target, transfer)

cdef inline void stubs(Emitter* e) noexcept nogil:
    """One INT for each exit, behind the code."""
    cdef BtExit* x
    cdef int i
    cdef int32_t distance
    for i in range(e.unit.n_exits):
        x = &e.unit.exits[i]
        part(e, BT_EXIT_STUB, PART_EXIT | PART_FIRST, 0)
        x.stub = <uint16_t>e.at
        interrupt(e, BT_INT_EXIT)
        if not e.full:
            distance = x.stub - (x.at + 4)
            memcpy(e.out + x.at, &distance, 4)

cdef inline int forward(Emitter* e, int opcode) noexcept nogil:
    """A branch with a rel8 that `here` fills in."""
    bytes2(e, opcode, 0)
    return e.at

cdef inline void here(Emitter* e, int branch) noexcept nogil:
    if not e.full:
        e.out[branch - 1] = <uint8_t>(e.at - branch)

# Instructions -----------------------------------------------------------------------------------

cdef inline void monitor_operand(Emitter* e, bint word, int opcode, int reg, uint32_t displacement, int index, int scale) noexcept nogil:
    """`opcode` (0x0fxx: two bytes) with register `reg` and [displacement + index << scale] in the monitor's memory; index -1: none."""
    cdef int rex = (8 if word and e.wide else 0) | (4 if reg & 8 else 0)
    if not e.wide:
        byte(e, 0x65)                                    # GS
    elif rex:
        byte(e, 0x40 | rex)
    if opcode > 0xff:
        byte(e, 0x0f)
    byte(e, opcode & 0xff)
    if index >= 0:
        bytes2(e, (reg & 7) << 3 | 4, scale << 6 | index << 3 | 5)
    elif e.wide:
        bytes2(e, (reg & 7) << 3 | 4, 0x25)              # without a SIB byte it would be relative to RIP
    else:
        byte(e, (reg & 7) << 3 | 5)
    dword(e, displacement)

cdef inline void store(Emitter* e, int cell, int reg) noexcept nogil:
    """MOV [cell], word register."""
    monitor_operand(e, True, 0x89, reg, e.cells + <uint32_t>cell, -1, 0)

cdef inline void load(Emitter* e, int reg, int cell) noexcept nogil:
    """MOV word register, [cell]."""
    monitor_operand(e, True, 0x8b, reg, e.cells + <uint32_t>cell, -1, 0)

cdef inline void store_constant(Emitter* e, int cell, uint32_t value) noexcept nogil:
    """MOV dword [cell], value."""
    monitor_operand(e, False, 0xc7, 0, e.cells + <uint32_t>cell, -1, 0)
    dword(e, value)

cdef inline void store_dword(Emitter* e, int cell, int reg) noexcept nogil:
    monitor_operand(e, False, 0x89, reg, e.cells + <uint32_t>cell, -1, 0)

cdef inline void load_byte(Emitter* e, int reg, int cell) noexcept nogil:
    """MOVZX r32, byte [cell]."""
    monitor_operand(e, False, 0x0fb6, reg, e.cells + <uint32_t>cell, -1, 0)

cdef inline void load_table_byte(Emitter* e, int reg, int table, int index) noexcept nogil:
    """MOVZX r32, byte [table + index]."""
    monitor_operand(e, False, 0x0fb6, reg, e.cells + <uint32_t>table, index, 0)

cdef inline void word_prefix(Emitter* e) noexcept nogil:
    if e.wide:
        byte(e, 0x48)

cdef inline void add_registers(Emitter* e, int to, int base, int index) noexcept nogil:
    """LEA to, [base + index]; base is none that encodes as without a displacement (BP, R13), index not SP."""
    word_prefix(e)
    byte(e, 0x8d)
    bytes2(e, to << 3 | 4, index << 3 | base)

cdef inline void add_constant(Emitter* e, int to, int base, int index, int32_t value) noexcept nogil:
    """LEA to, [base + index + value]."""
    word_prefix(e)
    byte(e, 0x8d)
    bytes2(e, 0x80 | to << 3 | 4, index << 3 | base)
    dword(e, <uint32_t>value)

cdef inline void shifted(Emitter* e, int to, int index, int left) noexcept nogil:
    """LEA r32, [index << left]."""
    bytes2(e, 0x8d, to << 3 | 4)
    byte(e, left << 6 | index << 3 | 5)
    dword(e, 0)

cdef inline void stack_to_cell(Emitter* e, int cell) noexcept nogil:
    """MOV word SP, address of the cell."""
    word_prefix(e)
    if e.wide:
        bytes2(e, 0xc7, 0xc0 | RSP)                      # sign-extended
    else:
        byte(e, 0xb8 | RSP)
    dword(e, e.cells + <uint32_t>cell)

cdef inline void pop_rcx(Emitter* e, bint op16) noexcept nogil:
    if op16:
        byte(e, 0x66)
    byte(e, 0x58 | RCX)

cdef inline void narrow_rcx(Emitter* e) noexcept nogil:
    """MOVZX ECX, CX."""
    bytes2(e, 0x0f, 0xb7)
    byte(e, 0xc0 | RCX << 3 | RCX)
