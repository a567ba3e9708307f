# SPDX-License-Identifier: GPL-2.0-or-later
"""RET and indirect jumps of translated code, the way the engine runs them.

What the translation cache holds is the code that a processor would run, and its instructions are what a block costs
(cache_blocks.pxd).  Unicorn checks each of the thirteen accesses to the monitor's cells as if it were the guest's, and ends a block in the middle;
so for the same effect it is given operations of its own: the guest's RCX goes to its cell and back, the table of targets is
read, all by host addresses, and the block goes on where the table says.  A miss leaves by the same INT.  A block with single
steps, RF or the shadow of STI takes the long way.

Unicorn's own lookup of the next block is a chain of loads that depend on each other, and of a mispredicted return all of them count.  A
`Shortcut` has the end of that chain by the guest's target; what makes it valid is looked at beside the way.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from pyx86v.arch.regs cimport FL_RF, FL_TF, RCX
from pyx86v.arch.types cimport PAGE_SHIFT
from pyx86v.engine.inline cimport emit_call, temp_of
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
    SHORTCUTS = 4096
    SHORTCUT_SHIFT = 6

ctypedef struct Shortcut:    # where a target's translation was found last, a line of the host's cache each
    uint64_t target
    uint64_t code            # of the host, for
    uint64_t block           # its TranslationBlock (from CPUState), while that is not invalid;
    uint64_t epoch           # ENV_EPOCH: since then the model has not lost the page;
    uint64_t state           # for blocks of this kind and world (shortcut_state)
    uint64_t pad[3]

cdef enum:                   # offsets in it
    CUT_TARGET = 0
    CUT_CODE = 8
    CUT_BLOCK = 16
    CUT_EPOCH = 24
    CUT_STATE = 32

cdef inline uint64_t shortcut_state(Engine* e, uint32_t flags) noexcept nogil:
    return flags | <uint64_t>env_u32(e.cpu, CPU_CLUSTER)[0] << 32

cdef inline bint looks_up(const Engine* e, const char* dc) noexcept nogil:
    """May the block's indirect transfer go the short way?"""
    return not e.lookups_by_code and not (<uint32_t*>((<char**>(dc + DC_TB))[0] + TB_FLAGS))[0] & LONG_WAY

cdef inline void* number_of_temp(char* s, void* temp) noexcept nogil:
    """The inverse of temp_of."""
    return <void*>(<char*>temp - s)

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

cdef inline void combine(char* s, int op, void* to, void* a, void* b) noexcept nogil:
    tcg_gen_op3_x86_64(s, op, <uintptr_t>to, <uintptr_t>a, <uintptr_t>b)

cdef inline void* load_from(char* s, void* to, void* base, uint64_t offset) noexcept nogil:
    tcg_gen_op3_x86_64(s, OP_LD_I64, <uintptr_t>to, <uintptr_t>base, offset)
    return to

cdef inline void* constant(char* s, uint64_t value) noexcept nogil:
    return temp_of(s, tcg_const_i64_x86_64(s, <int64_t>value))

cdef inline void emit_goto(char* s, void* code) noexcept nogil:
    tcg_gen_op1_x86_64(s, OP_GOTO_PTR, <uintptr_t>code)

cdef inline void* emit_place(Engine* e, char* s, void* target) noexcept nogil:
    """Where in Engine.shortcuts the target's is."""
    cdef void* cut = constant(s, <uintptr_t>e.shortcuts)
    cdef void* word = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    tcg_gen_andi_i64_x86_64(s, number_of_temp(s, word), number_of_temp(s, target), SHORTCUTS - 1)
    tcg_gen_shli_i64_x86_64(s, number_of_temp(s, word), number_of_temp(s, word), SHORTCUT_SHIFT)
    combine(s, OP_ADD_I64, cut, cut, word)
    tcg_temp_free_internal_x86_64(s, word)
    return cut

cdef inline void emit_check(Engine* e, char* s, const char* dc, void* differs, void* target, void* cut) noexcept nogil:
    """`differs`: not 0 unless the shortcut is the target's and holds."""
    cdef void* state = constant(s, shortcut_state(e, (<uint32_t*>((<char**>(dc + DC_TB))[0] + TB_FLAGS))[0]))
    cdef void* cpu = constant(s, <uintptr_t>e.cpu)
    cdef void* word = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    cdef void* held = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    combine(s, OP_XOR_I64, differs, load_from(s, word, cut, CUT_TARGET), target)
    combine(s, OP_XOR_I64, word, load_from(s, word, cut, CUT_STATE), state)
    combine(s, OP_OR_I64, differs, differs, word)
    load_from(s, held, temp_of(s, (<void**>(s + TCG_CPU_ENV))[0]), ENV_EPOCH)
    combine(s, OP_XOR_I64, word, load_from(s, word, cut, CUT_EPOCH), held)
    combine(s, OP_OR_I64, differs, differs, word)
    combine(s, OP_ADD_I64, word, load_from(s, word, cut, CUT_BLOCK), cpu)
    combine(s, OP_LD32U_I64, word, word, <void*>TB_CFLAGS)
    tcg_gen_andi_i64_x86_64(s, number_of_temp(s, word), number_of_temp(s, word), TB_INVALID)
    combine(s, OP_OR_I64, differs, differs, word)
    tcg_temp_free_internal_x86_64(s, word)
    tcg_temp_free_internal_x86_64(s, held)
    tcg_temp_free_internal_x86_64(s, cpu)
    tcg_temp_free_internal_x86_64(s, state)

cdef inline void emit_rest(Engine* e, char* s, const char* dc, void* differs, void* cut) noexcept nogil:
    """Go where the shortcut says unless it `differs`, else where find_code does.  If that does not know, what is emitted next runs."""
    cdef void* slow = gen_new_label_x86_64(s)
    cdef void* miss = gen_new_label_x86_64(s)
    cdef void* code = tcg_temp_new_internal_x86_64(s, TYPE_I64, True)
    cdef void* went
    load_from(s, code, cut, CUT_CODE)
    emit_flags_kind(s, dc)
    tcg_gen_brcondi_i64_x86_64(s, COND_NE, number_of_temp(s, differs), 0, slow)
    tcg_temp_free_internal_x86_64(s, differs)
    tcg_temp_free_internal_x86_64(s, cut)
    emit_goto(s, code)
    tcg_gen_op1_x86_64(s, OP_SET_LABEL, <uintptr_t>slow)
    emit_call(e, s, e.lookup_slow, &e.lookup_known, NULL)
    went = constant(s, <uintptr_t>&e.went)
    load_from(s, code, went, 0)
    tcg_temp_free_internal_x86_64(s, went)
    tcg_gen_brcondi_i64_x86_64(s, COND_EQ, number_of_temp(s, code), 0, miss)
    emit_goto(s, code)
    tcg_temp_free_internal_x86_64(s, code)
    tcg_gen_op1_x86_64(s, OP_SET_LABEL, <uintptr_t>miss)

cdef inline void emit_lookup(Engine* e, char* s, const char* dc) noexcept nogil:
    """RCX is the target of an indirect transfer.  RCX is the guest's behind it, on a miss too."""
    cdef void* rcx = <void*>register_temp(s, RCX)
    cdef void* cells = temp_of(s, host_cell(e, s, 0))
    cdef void* cut = emit_place(e, s, rcx)
    cdef void* differs = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    combine(s, OP_ST_I64, rcx, cells, <void*>CELL_TARGET)
    emit_check(e, s, dc, differs, rcx, cut)
    load_from(s, rcx, cells, CELL_RCX)
    tcg_temp_free_internal_x86_64(s, cells)
    emit_rest(e, s, dc, differs, cut)

cdef inline void emit_jump(Engine* e, char* s, const char* dc, uint64_t to) noexcept nogil:
    """A direct jump to the translation of `to` in another page, where Unicorn links no blocks."""
    cdef void* cell = temp_of(s, host_cell(e, s, CELL_TARGET))
    cdef void* target = constant(s, to)
    cdef void* cut = constant(s, <uintptr_t>&(<Shortcut*>e.shortcuts)[to & (SHORTCUTS - 1)])
    cdef void* differs = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    combine(s, OP_ST_I64, target, cell, NULL)
    tcg_temp_free_internal_x86_64(s, cell)
    emit_check(e, s, dc, differs, target, cut)
    tcg_temp_free_internal_x86_64(s, target)
    emit_rest(e, s, dc, differs, cut)

cdef inline void jump_follow(Engine* e, char* dc, uint64_t pc) noexcept nogil:
    """The translator is at `pc`.  If that is a jump to a translation in another page, go there by a shortcut."""
    cdef const Unit* u = e.context_unit
    cdef const BtExit* x = exits_of(<Bt*>e.world.style_state, &e.ram, u)
    cdef const uint8_t* p
    cdef uint32_t at = <uint32_t>(pc - e.context_base), page
    cdef int32_t rel
    cdef int i
    for i in range(u.n_exits):
        if x[i].at != at + 1 or not looks_up(e, dc):
            continue
        p = ram_pointer(&e.ram, (<Bt*>e.world.style_state).code + u.code + at, 5)
        if p is NULL or p[0] != 0xe9:
            return
        memcpy(&rel, p + 1, 4)
        page = (u.code + at + 5 + rel) >> PAGE_SHIFT
        if page != u.code >> PAGE_SHIFT:
            emit_jump(e, (<char**>(<char*>e.uc + UC_TCG_CONTEXT))[0], dc, x[i].target)

cdef inline uint64_t transfer_follow(Engine* e, char* dc, uint64_t pc) noexcept nogil:
    """The translator is at `pc`, the start of e.part.  Where it is to read on: behind what was emitted instead, or at `pc`."""
    cdef char* s = (<char**>(<char*>e.uc + UC_TCG_CONTEXT))[0]
    cdef const BtPart* part = e.part
    cdef bint wide = e.context_base >= BT_BASE_64
    if part.kind != BT_RETURN and part.kind != BT_INDIRECT or not looks_up(e, dc):
        return pc
    if part.flags & PART_LOOKUP and part + 2 <= e.last_part:
        emit_lookup(e, s, dc)
        return e.context_base + part[2].start - MISS_BYTES
    if part.flags & PART_FIRST and part.flags & PART_MONITOR:
        emit_rcx_save(e, s)
        return pc + (SAVE_BYTES_64 if wide else SAVE_BYTES_32)
    return pc

cdef inline void find_code(Engine* e) noexcept nogil:
    """Engine.went: the host's code for what the guest's target at CELL_TARGET is translated to, or NULL if it is not in the table.

    Called by translated code that found no valid shortcut.
    """
    cdef Bt* b = <Bt*>e.world.style_state
    cdef uint64_t target = cell_of(b, &e.ram, CELL_TARGET)[0], pc, state = shortcut_state(e, 0)
    cdef Shortcut* cut
    cdef char* tb
    e.went = NULL
    if b.bits != 64:
        target &= 0xffffffffULL
    pc = lookup_find(b, &e.ram, target)
    if pc == 0:
        return
    env_u64(e.env, ENV_EIP)[0] = pc
    e.went = helper_lookup_tb_ptr_x86_64(e.env)
    tb = <char*>jump_slot(e.cpu, pc)[0]
    if tb is not NULL and (<uint64_t*>(tb + TB_PC))[0] == pc and (<void**>(tb + TB_CODE))[0] == e.went:
        cut = &(<Shortcut*>e.shortcuts)[target & (SHORTCUTS - 1)]
        cut.target = target
        cut.code = <uintptr_t>e.went
        cut.block = <uint64_t>(tb - e.cpu)
        cut.epoch = env_u64(e.env, ENV_EPOCH)[0]
        cut.state = state | (<uint32_t*>(tb + TB_FLAGS))[0]

cdef inline void shortcuts_check(Engine* e) noexcept nogil:
    """The table of targets has been emptied: so are the shortcuts."""
    cdef uint64_t clears = (<Bt*>e.world.style_state).clears
    cdef uint64_t* seen = &e.seen_clears[env_u32(e.cpu, CPU_CLUSTER)[0] & 255]
    if seen[0] != clears:
        seen[0] = clears
        memset(e.shortcuts, 0, SHORTCUTS * sizeof(Shortcut))

cdef inline void shortcuts_follow(Engine* e, uintptr_t tb) noexcept nogil:
    """The engine translates a block, described at `tb`.  It fills its memory upwards: when it starts anew, what lay there is gone."""
    if tb <= e.last_tb:
        memset(e.shortcuts, 0, SHORTCUTS * sizeof(Shortcut))
    e.last_tb = tb
