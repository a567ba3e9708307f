# SPDX-License-Identifier: GPL-2.0-or-later
"""RET and indirect jumps of translated code, the way the engine runs them.

What the translation cache holds is the code that a processor would run, and its instructions are what a block costs
(blocks.pxd).  Unicorn checks each of the thirteen accesses to the monitor's cells as if it were the guest's, and ends a block in the middle;
so for the same effect it is given operations of its own: the guest's RCX goes to its cell and back, the table of targets is
read, all by host addresses, and the block goes on where the table says.  A miss leaves by the same INT.  A block with single
steps, RF or the shadow of STI takes the long way.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.regs cimport FL_RF, FL_TF, RCX
from pyx86v.engine.inline cimport temp_of
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport Engine
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.cells cimport *

cdef enum:
    LONG_WAY = FL_TF | FL_RF | HF_INHIBIT_IRQ    # in a block's flags
    MISS_BYTES = 2           # INT BT_INT_LOOKUP
    SAVE_BYTES_64 = 8        # MOV [CELL_RCX], RCX
    SAVE_BYTES_32 = 7

cdef inline bint looks_up(const char* dc) noexcept nogil:
    """May the block's indirect transfer go the short way?"""
    return not (<uint32_t*>((<char**>(dc + DC_TB))[0] + TB_FLAGS))[0] & LONG_WAY

cdef inline void* host_cell(Engine* e, char* s, uint32_t offset) noexcept nogil:
    """A constant: where this offset from the page of cells lies for the host."""
    cdef Bt* b = <Bt*>e.world.style_state
    return tcg_const_i64_x86_64(s, <int64_t><uintptr_t>ram_pointer(&e.ram, b.data + offset, 8))

cdef inline uintptr_t register_temp(char* s, int reg) noexcept nogil:
    return <uintptr_t>(s + (<uintptr_t*>(s + TCG_REGS))[reg])

cdef inline void emit_rcx_save(Engine* e, char* s) noexcept nogil:
    cdef void* cell = host_cell(e, s, CELL_RCX)
    tcg_gen_op3_x86_64(s, OP_ST_I64, register_temp(s, RCX), <uintptr_t>temp_of(s, cell), 0)
    tcg_temp_free_internal_x86_64(s, temp_of(s, cell))

cdef inline void emit_flags_kind(char* s, const char* dc) noexcept nogil:
    """CPUX86State.cc_op, as the translator writes it at the end of a block."""
    if dc[DC_CC_OP_DIRTY]:
        tcg_gen_op2_x86_64(s, OP_MOVI_I32, <uintptr_t>(s + (<uintptr_t*>(s + TCG_CC_OP))[0]), <uintptr_t>(<const int32_t*>(dc + DC_CC_OP))[0])

cdef inline void emit_lookup(Engine* e, char* s, const char* dc, bint wide) noexcept nogil:
    """RCX is the target: go there if the table has it.  On a miss what is emitted next runs; RCX is the guest's either way."""
    cdef uintptr_t env = <uintptr_t>(s + (<uintptr_t*>(s + TCG_CPU_ENV))[0]), rcx = register_temp(s, RCX)
    cdef int load = OP_LD_I64 if wide else OP_LD32U_I64
    cdef void* miss = gen_new_label_x86_64(s)
    cdef void* cells = host_cell(e, s, 0)
    cdef void* entry = host_cell(e, s, BT_TABLE - BT_DATA)
    cdef void* word = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    cdef uintptr_t w = <uintptr_t>word, at = <uintptr_t>temp_of(s, entry)
    tcg_gen_op3_x86_64(s, OP_ST_I64, rcx, <uintptr_t>temp_of(s, cells), CELL_TARGET)
    tcg_gen_andi_i64_x86_64(s, <void*>(w - <uintptr_t>s), <void*>(rcx - <uintptr_t>s), BT_TARGETS - 1)
    tcg_gen_shli_i64_x86_64(s, <void*>(w - <uintptr_t>s), <void*>(w - <uintptr_t>s), 4 if wide else 3)
    tcg_gen_op3_x86_64(s, OP_ADD_I64, at, at, w)
    tcg_gen_op3_x86_64(s, load, w, at, 8 if wide else 4)
    tcg_gen_op3_x86_64(s, OP_ST_I64, w, env, ENV_EIP)
    tcg_gen_op3_x86_64(s, load, w, at, 0)
    tcg_gen_op3_x86_64(s, OP_ADD_I64, w, w, rcx)
    if not wide:
        tcg_gen_op2_x86_64(s, OP_EXT32U_I64, w, w)
    tcg_gen_op3_x86_64(s, load, rcx, <uintptr_t>temp_of(s, cells), CELL_RCX)
    emit_flags_kind(s, dc)
    tcg_gen_brcondi_i64_x86_64(s, COND_NE, <void*>(w - <uintptr_t>s), 0, miss)
    tcg_temp_free_internal_x86_64(s, word)
    tcg_temp_free_internal_x86_64(s, temp_of(s, entry))
    tcg_temp_free_internal_x86_64(s, temp_of(s, cells))
    tcg_gen_lookup_and_goto_ptr_x86_64(s)
    tcg_gen_op1_x86_64(s, OP_SET_LABEL, <uintptr_t>miss)

cdef inline uint64_t transfer_follow(Engine* e, char* dc, uint64_t pc) noexcept nogil:
    """The translator is at `pc`, the start of e.part.  Where it is to read on: behind what was emitted instead, or at `pc`."""
    cdef char* s = (<char**>(<char*>e.uc + UC_TCG_CONTEXT))[0]
    cdef const BtPart* part = e.part
    cdef bint wide = e.context_base >= BT_BASE_64
    if part.kind != BT_RETURN and part.kind != BT_INDIRECT or not looks_up(dc):
        return pc
    if part.flags & PART_LOOKUP and part + 2 <= e.last_part:
        emit_lookup(e, s, dc, wide)
        return e.context_base + part[2].start - MISS_BYTES
    if part.flags & PART_FIRST and part.flags & PART_MONITOR:
        emit_rcx_save(e, s)
        return pc + (SAVE_BYTES_64 if wide else SAVE_BYTES_32)
    return pc
