# SPDX-License-Identifier: GPL-2.0-or-later
"""The translations that are not copies, one function for each kind of instruction.

All return False when there is no encoding; the caller then takes back what was written and makes a call-out.  EFLAGS survive
everything but what the instruction itself defines: MOV, MOVZX, LEA, XCHG and JRCXZ are what is used.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.regs cimport *
from pyx86v.vmm.bt.source cimport *

cdef enum:
    TARGET_SCALE_64 = 2      # log2 of the bytes of an entry in the table of targets, by 4
    TARGET_SCALE_32 = 1

cdef inline bint callout(Emitter* e) noexcept nogil:
    part(e, BT_CALLOUT, PART_FIRST, 0)
    interrupt(e, BT_INT_CALLOUT)
    return True

# Transfers ----------------------------------------------------------------------------------------

cdef inline uint64_t branch_target(const Source* s) noexcept nogil:
    """Where a direct branch leads (SDM 2A, JMP: a 16-bit operand cuts EIP)."""
    cdef const uint8_t* p = s.code + s.length
    cdef int8_t d8
    cdef int16_t d16
    cdef int32_t d32
    cdef int64_t distance
    cdef int op = s.f.opcode
    if s.f.map == MAP_ONE and (op < 0x80 or 0xe0 <= op <= 0xe3 or op == 0xeb):
        memcpy(&d8, p - 1, 1)
        distance = d8
    elif s.op16:
        memcpy(&d16, p - 2, 2)
        distance = d16
    else:
        memcpy(&d32, p - 4, 4)
        distance = d32
    return masked(s, s.next + <uint64_t>distance) & (0xffff if s.op16 else <uint64_t>-1)

cdef inline bint expand_branch(Emitter* e, const Source* s) noexcept nogil:
    """JMP, Jcc, LOOPcc and JCXZ.  What is not taken leaves by a jump behind the instruction."""
    cdef uint64_t target = branch_target(s)
    cdef int op = s.f.opcode, taken
    run(e)
    if s.f.map == MAP_ONE and (op == 0xe9 or op == 0xeb):
        jump_out(e, target, EXIT_TRANSFER)
    elif s.f.map == MAP_ONE and op >= 0xe0:
        if (s.f.prefixes & PREFIX_67 != 0) != (s.bits == 16):
            byte(e, 0x67)                                # CX, ECX or RCX
        taken = forward(e, op)
        e.unit.insns[e.insn].code_end = <uint16_t>e.at
        part(e, BT_BRANCH, PART_EXIT, 0)
        jump_out(e, s.next, EXIT_TRANSFER)
        here(e, taken)
        part(e, BT_BRANCH, PART_EXIT, 0)
        jump_out(e, target, EXIT_TRANSFER)
    else:
        bytes2(e, 0x0f, 0x80 | (op & 0xf))
        exit_at(e, target, EXIT_TRANSFER)
        e.unit.insns[e.insn].code_end = <uint16_t>e.at
        part(e, BT_BRANCH, PART_EXIT, 0)
        jump_out(e, s.next, EXIT_TRANSFER)
    return True

cdef inline void push_return(Emitter* e, const Source* s) noexcept nogil:
    """The guest's own return address.  In 64-bit code PUSH extends the sign; the second store cannot fault after the first."""
    if s.op16:
        bytes2(e, 0x66, 0x68)
        bytes2(e, <int>(s.next & 0xff), <int>(s.next >> 8 & 0xff))
        return
    byte(e, 0x68)
    dword(e, <uint32_t>s.next)
    if s.bits == 64 and <int64_t>s.next != <int32_t>s.next:
        bytes2(e, 0xc7, 0x44)                            # MOV dword [RSP + 4], upper half
        bytes2(e, 0x24, 0x04)
        dword(e, <uint32_t>(s.next >> 32))

cdef inline bint expand_call(Emitter* e, const Source* s) noexcept nogil:
    run(e)
    push_return(e, s)
    jump_out(e, branch_target(s), EXIT_TRANSFER)
    return True

cdef inline void table_load(Emitter* e, int word) noexcept nogil:
    """MOV word RDX, the key (0) or value (1) of the entry at RDX."""
    monitor_operand(e, True, 0x8b, RDX, e.cells - BT_DATA + BT_TABLE + <uint32_t>(word * (8 if e.wide else 4)), RDX,
                    TARGET_SCALE_64 if e.wide else TARGET_SCALE_32)

cdef inline void lookup(Emitter* e, int kind) noexcept nogil:
    """RCX, whose guest's value lies in its cell, is where the guest goes.  Within a MONITOR part.

    A slot's key is minus its target, so RCX + key is 0 on a hit.  The last jump goes through a cell, as all registers are the guest's.
    """
    cdef int hit
    store(e, CELL_TARGET, RCX)
    store(e, CELL_RDX, RDX)
    shifted(e, RDX, RCX, 2)
    bytes2(e, 0x0f, 0xb7)                                # MOVZX EDX, DX
    byte(e, 0xc0 | RDX << 3 | RDX)
    store_dword(e, CELL_INDEX, RDX)
    table_load(e, 0)
    add_registers(e, RCX, RCX, RDX)
    hit = forward(e, 0xe3)                               # JRCXZ, JECXZ
    part(e, kind, PART_MONITOR, 0)
    load(e, RDX, CELL_RDX)
    load(e, RCX, CELL_RCX)
    interrupt(e, BT_INT_LOOKUP)
    here(e, hit)
    part(e, kind, PART_MONITOR, 0)
    monitor_operand(e, False, 0x8b, RDX, e.cells + CELL_INDEX, -1, 0)
    table_load(e, 1)
    store(e, CELL_JUMP, RDX)
    load(e, RDX, CELL_RDX)
    load(e, RCX, CELL_RCX)
    monitor_operand(e, False, 0xff, 4, e.cells + CELL_JUMP, -1, 0)             # JMP [jump]

cdef inline void save_rcx(Emitter* e, int kind) noexcept nogil:
    part(e, kind, PART_MONITOR | PART_FIRST, 0)
    store(e, CELL_RCX, RCX)

cdef inline bint expand_return(Emitter* e, const Source* s) noexcept nogil:
    """RET, RET n: a pop that may fault, then the lookup."""
    cdef int16_t drop = 0                                # the engine extends the sign, natively too; the manual does not
    save_rcx(e, BT_RETURN)
    part(e, BT_RETURN, 0, SAVED_RCX)
    pop_rcx(e, s.op16)
    part(e, BT_RETURN, PART_MONITOR, 0)
    if s.op16:
        narrow_rcx(e)
    if s.f.opcode == 0xc2:
        memcpy(&drop, s.code + s.length - 2, 2)
        release_stack(e, drop)
    lookup(e, BT_RETURN)
    return True

cdef inline void release_stack(Emitter* e, int drop) noexcept nogil:
    """LEA SP, [SP + drop], of the width of the guest's stack."""
    if not e.wide and not e.stack32:
        byte(e, 0x66)
    word_prefix(e)
    byte(e, 0x8d)
    bytes2(e, 0x80 | RSP << 3 | 4, 0x20 | RSP)
    dword(e, <uint32_t>drop)

cdef inline bint expand_indirect(Emitter* e, const Source* s) noexcept nogil:
    """JMP and CALL with a register or memory operand: read it, push, look it up."""
    cdef bint call = s.reg == 2
    cdef int from_ = s.rm | (s.f.rex & 1) << 3
    if s.mod == 3:
        if call:
            if from_ == RSP:
                return False                             # it is read before the push: nobody does that
            run(e)
            push_return(e, s)
        part(e, BT_INDIRECT, PART_MONITOR | (0 if call else PART_FIRST), 0)
        store(e, CELL_RCX, RCX)
        register_to_rcx(e, from_, s.op16)
    else:
        save_rcx(e, BT_INDIRECT)
        part(e, BT_INDIRECT, 0, SAVED_RCX)
        if not write_operand(e, s, 0x0fb7 if s.op16 else 0x8b, True, RCX, 0):
            return False
        if call:
            push_return(e, s)
        part(e, BT_INDIRECT, PART_MONITOR, 0)
    lookup(e, BT_INDIRECT)
    return True

cdef inline void register_to_rcx(Emitter* e, int from_, bint op16) noexcept nogil:
    """MOV or MOVZX to RCX."""
    if e.wide:
        byte(e, 0x48 | from_ >> 3)
    if op16:
        byte(e, 0x0f)
    bytes2(e, 0xb7 if op16 else 0x8b, 0xc0 | RCX << 3 | (from_ & 7))

# Flags --------------------------------------------------------------------------------------------

cdef inline bint expand_interrupt_flag(Emitter* e, int kind) noexcept nogil:
    """CLI, STI."""
    part(e, kind, PART_MONITOR | PART_FIRST, 0)
    store_constant(e, CELL_IF, FL_IF if kind == BT_STI else 0)
    return True

cdef inline bint expand_pushf(Emitter* e, const Source* s) noexcept nogil:
    """The real flags by way of a stack of the monitor's, with the guest's IF and IOPL in place of the real ones (1 and 0)."""
    save_rcx(e, BT_PUSHF)
    store(e, CELL_RSP, RSP)
    stack_to_cell(e, CELL_IMAGE)
    byte(e, 0x9c)
    byte(e, 0x58 | RCX)
    load(e, RSP, CELL_IF)
    add_constant(e, RCX, RSP, RCX, -FL_IF)
    load(e, RSP, CELL_IOPL)
    add_registers(e, RCX, RSP, RCX)
    load(e, RSP, CELL_RSP)
    part(e, BT_PUSHF, 0, SAVED_RCX)
    if s.op16:
        byte(e, 0x66)
    byte(e, 0x50 | RCX)
    part(e, BT_PUSHF, PART_MONITOR, 0)
    load(e, RCX, CELL_RCX)
    return True

cdef inline bint expand_popf(Emitter* e, const Source* s, bint smap) noexcept nogil:
    """A pop that may fault; a look at the image, two bytes of it by table; then IF and IOPL to their cells and the rest to EFLAGS.

    TF, NT, VIF, VIP and, with SMAP, AC are the monitor's business.  Behind the test the arithmetic flags are dead.
    """
    cdef int plain
    save_rcx(e, BT_POPF)
    store(e, CELL_RDX, RDX)
    store(e, CELL_RSP, RSP)
    part(e, BT_POPF, 0, SAVED_RCX)
    pop_rcx(e, s.op16)
    part(e, BT_POPF, PART_MONITOR, 0)
    if s.op16:
        narrow_rcx(e)
    store(e, CELL_IMAGE, RCX)
    load_byte(e, RDX, CELL_IMAGE + 1)
    load_table_byte(e, RDX, CELL_ODD, RDX)
    load_byte(e, RCX, CELL_IMAGE + 2)
    load_table_byte(e, RCX, CELL_ODD_SMAP if smap else CELL_ODD_PLAIN, RCX)
    add_registers(e, RCX, RCX, RDX)
    load(e, RDX, CELL_RDX)
    plain = forward(e, 0xe3)
    part(e, BT_CALLOUT, PART_MONITOR, 0)
    load(e, RSP, CELL_RSP)
    load(e, RCX, CELL_RCX)
    interrupt(e, BT_INT_CALLOUT)
    here(e, plain)
    part(e, BT_POPF, PART_MONITOR, 0)
    flag_to_cell(e, FL_IF, CELL_IF)
    flag_to_cell(e, FL_IOPL, CELL_IOPL)
    load(e, RCX, CELL_RCX)
    store(e, CELL_RSP, RSP)
    stack_to_cell(e, CELL_IMAGE)
    if s.op16:
        byte(e, 0x66)
    byte(e, 0x9d)
    part(e, BT_POPF, PART_MONITOR, 0)
    load(e, RSP, CELL_RSP)
    return True

cdef inline void flag_to_cell(Emitter* e, uint32_t mask, int cell) noexcept nogil:
    """MOV ECX, [image]; AND ECX, mask; MOV [cell], ECX."""
    monitor_operand(e, False, 0x8b, RCX, e.cells + CELL_IMAGE, -1, 0)
    bytes2(e, 0x81, 0xe0 | RCX)
    dword(e, mask)
    store_dword(e, cell, RCX)

# System registers -----------------------------------------------------------------------------------

cdef inline bint expand_rdtsc(Emitter* e, const Source* s) noexcept nogil:
    """RDTSC, RDTSCP."""
    part(e, BT_RDTSC, PART_FIRST, 0)
    bytes2(e, 0x0f, s.f.opcode)
    if s.f.opcode == 0x01:
        byte(e, 0xf9)
    return True

cdef inline bint expand_cr_read(Emitter* e, int kind, int cr, int reg) noexcept nogil:
    cdef int cell = CELL_CR8 if cr == 8 else CELL_CR0 if cr == 0 else CELL_CR2 + 8 * (cr - 2)
    part(e, kind, PART_MONITOR | PART_FIRST, 0)
    load(e, reg, cell)
    return True

cdef inline bint expand_ss_read(Emitter* e, const Source* s, int reg) noexcept nogil:
    """16 bits, zero-extended where the operand is larger (SDM 2B, MOV)."""
    part(e, BT_SS_READ, PART_MONITOR | PART_FIRST, 0)
    if s.op16:
        byte(e, 0x66)
    monitor_operand(e, False, 0x8b, reg, e.cells + CELL_SS, -1, 0)
    return True

cdef inline bint expand_cr8_write(Emitter* e, int reg) noexcept nogil:
    """Stored in place if the monitor does not hold CR8 and the value is below 16, both seen by one sum that is 0.

    Value >> 8 is read from the cell one byte on; value & 0xf0 as byte 1 of 16 times the lowest byte.
    """
    cdef int plain
    save_rcx(e, BT_CR8_WRITE)
    store(e, CELL_RDX, RDX)
    store(e, CELL_WORK, reg)
    load(e, RCX, CELL_WORK + 1)
    monitor_operand(e, False, 0x8b, RDX, e.cells + CELL_CR8_HOLD, -1, 0)
    add_registers(e, RCX, RCX, RDX)
    load_byte(e, RDX, CELL_WORK)
    scale_rdx(e)
    store(e, CELL_SMALL, RDX)
    load_byte(e, RDX, CELL_SMALL + 1)
    add_registers(e, RCX, RCX, RDX)
    load(e, RDX, CELL_RDX)
    plain = forward(e, 0xe3)
    part(e, BT_CALLOUT, PART_MONITOR, 0)
    load(e, RCX, CELL_RCX)
    interrupt(e, BT_INT_CALLOUT)
    here(e, plain)
    part(e, BT_CR8_WRITE, PART_MONITOR, 0)
    load_byte(e, RCX, CELL_WORK)
    store(e, CELL_CR8, RCX)
    load(e, RCX, CELL_RCX)
    return True

cdef inline void scale_rdx(Emitter* e) noexcept nogil:
    """RDX times 16: LEA EDX, [RDX * 8]; LEA EDX, [RDX + RDX]."""
    shifted(e, RDX, RDX, 3)
    add_registers(e, RDX, RDX, RDX)

cdef inline bint expand_swapgs(Emitter* e) noexcept nogil:
    """By RDGSBASE and WRGSBASE, which do not ask for ring 0."""
    part(e, BT_SWAPGS, PART_MONITOR | PART_FIRST, 0)
    store(e, CELL_RCX, RCX)
    gs_base(e, 1)
    store(e, CELL_WORK, RCX)
    load(e, RCX, CELL_GS_OTHER)
    gs_base(e, 3)
    load(e, RCX, CELL_WORK)
    store(e, CELL_GS_OTHER, RCX)
    load(e, RCX, CELL_RCX)
    return True

cdef inline void gs_base(Emitter* e, int operation) noexcept nogil:
    """RDGSBASE (1) or WRGSBASE (3) RCX."""
    bytes2(e, 0xf3, 0x48)
    bytes2(e, 0x0f, 0xae)
    byte(e, 0xc0 | operation << 3 | RCX)

# Constants ------------------------------------------------------------------------------------------

cdef inline bint expand_push_cs(Emitter* e, const Source* s, int cs) noexcept nogil:
    run(e)
    if s.op16:
        byte(e, 0x66)
    bytes2(e, 0x68, cs & 0xff)
    byte(e, cs >> 8)
    if not s.op16:
        bytes2(e, 0, 0)
    return True

cdef inline bint expand_mov_from_cs(Emitter* e, const Source* s, int cs) noexcept nogil:
    """To a register of any size, or 16 bits to memory."""
    run(e)
    if s.mod != 3:
        byte(e, 0x66)
        if not write_operand(e, s, 0xc7, False, 0, 2):
            return False
        bytes2(e, cs & 0xff, cs >> 8)
        return True
    if s.op16:
        byte(e, 0x66)
    if s.f.rex & 1:
        byte(e, 0x41)
    bytes2(e, 0xb8 | s.rm, cs & 0xff)
    byte(e, cs >> 8)
    if not s.op16:
        bytes2(e, 0, 0)
    return True
