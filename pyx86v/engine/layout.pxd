# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's private layout: the only file that knows where Unicorn 2.1.4 keeps things.

The wheel exports its internal functions; the structures behind them are reached by offset.
`layout.pyx` proves every offset at import by planting values through the public API
and finding them here; a mismatch is one clear ImportError.  Offsets are those of the manylinux
x86-64 wheel.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.cpu cimport CpuSegment
from pyx86v.engine.uc cimport uc_engine

cdef extern from *:
    """
    #include <stdbool.h>
    #include <stdint.h>
    struct uc_struct;
    /* exported by the wheel's libunicorn.so.2, declared in no public header */
    extern void tlb_set_page_x86_64(void *cpu, uint64_t va, uint64_t pa, int prot, int mmu_idx, uint64_t size);
    extern void tlb_flush_page_x86_64(void *cpu, uint64_t va);
    extern void tlb_flush_x86_64(void *cpu);
    extern void tlb_init_x86_64(void *cpu);
    extern void tb_flush_jmp_cache_x86_64(void *cpu, uint64_t va);
    extern void raise_exception_err_ra_x86_64(void *env, int vector, int error, uintptr_t ra) __attribute__((noreturn));
    extern void raise_exception_err_x86_64(void *env, int vector, int error) __attribute__((noreturn));
    extern void cpu_loop_exit_noexc_x86_64(void *cpu) __attribute__((noreturn));
    extern _Bool cpu_restore_state_x86_64(void *cpu, uintptr_t ra, _Bool will_exit);
    extern void *tcg_tb_lookup_x86_64(void *tcg_ctx, uintptr_t ra);
    extern void tb_invalidate_phys_range_x86_64(void *uc, uint64_t start, uint64_t end);
    extern void tb_flush_x86_64(void *cpu);
    extern void cpu_x86_update_cr0_x86_64(void *env, uint32_t v);
    extern void cpu_x86_update_cr3_x86_64(void *env, uint64_t v);
    extern void cpu_x86_update_cr4_x86_64(void *env, uint32_t v);
    extern void cpu_x86_update_dr7_x86_64(void *env, uint32_t v);
    extern uint32_t cpu_cc_compute_all_x86_64(void *env, int op);
    extern void cpu_x86_cpuid_x86_64(void *env, uint32_t i, uint32_t c, uint32_t *a, uint32_t *b, uint32_t *cc, uint32_t *d);
    extern _Bool x86_cpu_tlb_fill_x86_64(void *cpu, uint64_t va, int size, int access, int mmu_idx, _Bool probe, uintptr_t ra);
    extern void helper_check_exit_request_x86_64(void *uc, uint32_t a);
    extern int cpu_breakpoint_insert_x86_64(void *cpu, uint64_t pc, int flags, void **bp);
    extern void cpu_breakpoint_remove_all_x86_64(void *cpu, int flags);
    extern void breakpoint_handler_x86_64(void *cpu);
    extern _Bool x86_cpu_exec_interrupt_x86_64(void *cpu, int request);
    extern void uc_add_inline_hook_x86_64(void *uc, void *hook, void **args, int n);
    /* translator */
    extern void *tcg_temp_new_internal_x86_64(void *s, int type, _Bool local);
    extern void tcg_temp_free_internal_x86_64(void *s, void *temp);
    extern void *tcg_const_i64_x86_64(void *s, int64_t value);
    extern void tcg_gen_andi_i64_x86_64(void *s, void *to, void *a, int64_t b);
    extern void tcg_gen_shli_i64_x86_64(void *s, void *to, void *a, int64_t left);
    extern void *helper_lookup_tb_ptr_x86_64(void *env);
    extern void *gen_new_label_x86_64(void *s);
    extern void tcg_gen_brcondi_i64_x86_64(void *s, int cond, void *a, int64_t b, void *label);
    extern void tcg_gen_op1_x86_64(void *s, int op, uintptr_t a);
    extern void tcg_gen_op2_x86_64(void *s, int op, uintptr_t a, uintptr_t b);
    extern void tcg_gen_op3_x86_64(void *s, int op, uintptr_t a, uintptr_t b, uintptr_t c);
    extern void tcg_gen_callN_x86_64(void *s, void *func, void *ret, int n, void **args);
    """
    void tlb_set_page_x86_64(void* cpu, uint64_t va, uint64_t pa, int prot, int mmu_idx, uint64_t size) noexcept nogil
    void tlb_flush_page_x86_64(void* cpu, uint64_t va) noexcept nogil
    void tlb_flush_x86_64(void* cpu) noexcept nogil
    void tlb_init_x86_64(void* cpu) noexcept nogil
    void tb_flush_jmp_cache_x86_64(void* cpu, uint64_t va) noexcept nogil
    void raise_exception_err_ra_x86_64(void* env, int vector, int error, uintptr_t ra) noexcept nogil
    void raise_exception_err_x86_64(void* env, int vector, int error) noexcept nogil
    void cpu_loop_exit_noexc_x86_64(void* cpu) noexcept nogil
    bint cpu_restore_state_x86_64(void* cpu, uintptr_t ra, bint will_exit) noexcept nogil
    void* tcg_tb_lookup_x86_64(void* tcg_ctx, uintptr_t ra) noexcept nogil
    void tb_invalidate_phys_range_x86_64(void* uc, uint64_t start, uint64_t end) noexcept nogil
    void tb_flush_x86_64(void* cpu) noexcept nogil
    void cpu_x86_update_cr0_x86_64(void* env, uint32_t v) noexcept nogil
    void cpu_x86_update_cr3_x86_64(void* env, uint64_t v) noexcept nogil
    void cpu_x86_update_cr4_x86_64(void* env, uint32_t v) noexcept nogil
    void cpu_x86_update_dr7_x86_64(void* env, uint32_t v) noexcept nogil
    uint32_t cpu_cc_compute_all_x86_64(void* env, int op) noexcept nogil
    void cpu_x86_cpuid_x86_64(void* env, uint32_t i, uint32_t c, uint32_t* a, uint32_t* b, uint32_t* cc, uint32_t* d) noexcept nogil
    bint x86_cpu_tlb_fill_x86_64(void* cpu, uint64_t va, int size, int access, int mmu_idx, bint probe, uintptr_t ra) noexcept nogil
    void helper_check_exit_request_x86_64(void* uc, uint32_t a) noexcept nogil
    int cpu_breakpoint_insert_x86_64(void* cpu, uint64_t pc, int flags, void** bp) noexcept nogil
    void cpu_breakpoint_remove_all_x86_64(void* cpu, int flags) noexcept nogil
    void breakpoint_handler_x86_64(void* cpu) noexcept nogil
    bint x86_cpu_exec_interrupt_x86_64(void* cpu, int request) noexcept nogil
    void uc_add_inline_hook_x86_64(void* uc, void* hook, void** args, int n) noexcept nogil
    void* tcg_temp_new_internal_x86_64(void* s, int type, bint local) noexcept nogil
    void tcg_temp_free_internal_x86_64(void* s, void* temp) noexcept nogil
    void* tcg_const_i64_x86_64(void* s, int64_t value) noexcept nogil
    void tcg_gen_andi_i64_x86_64(void* s, void* to, void* a, int64_t b) noexcept nogil
    void tcg_gen_shli_i64_x86_64(void* s, void* to, void* a, int64_t left) noexcept nogil
    void* helper_lookup_tb_ptr_x86_64(void* env) noexcept nogil
    void* gen_new_label_x86_64(void* s) noexcept nogil
    void tcg_gen_brcondi_i64_x86_64(void* s, int cond, void* a, int64_t b, void* label) noexcept nogil
    void tcg_gen_op1_x86_64(void* s, int op, uintptr_t a) noexcept nogil
    void tcg_gen_op2_x86_64(void* s, int op, uintptr_t a, uintptr_t b) noexcept nogil
    void tcg_gen_op3_x86_64(void* s, int op, uintptr_t a, uintptr_t b, uintptr_t c) noexcept nogil
    void tcg_gen_callN_x86_64(void* s, void* func, void* ret, int n, void** args) noexcept nogil

cdef enum:                     # struct uc_struct
    UC_ADD_INLINE_HOOK = 0x190
    UC_CPU = 0x1b8
    UC_TCG_CONTEXT = 0x300
    UC_EXITS = 0x798           # GTree* of addresses at which a run ends: the translator looks each instruction's up
    TREE_COMPARE = 8           # int (const void *address, const void *node's, void *data)
    TREE_DATA = 0x20
    HOOK_CALLBACK = 0x28       # struct hook

cdef enum:                     # CPUState
    CPU_JUMP_CACHE = 0x138     # 4096 pointers to TranslationBlock, by linear address
    CPU_NEXT_CFLAGS = 0x18     # u32: how the next block is translated; its low 15 bits limit the instructions
    CPU_INTERRUPT_REQUEST = 0x1c   # u32: what `cpu_exec_interrupt` is called with before a block is looked up; not when blocks are chained
    REQUEST_ANY = 2            # CPU_INTERRUPT_HARD: a request that the engine leaves to that function
    CPU_ENV = 0x128
    CPU_CLUSTER = 0x8194       # u32: goes into bits 31:24 of the cflags of what is translated and looked for
    CPU_EXCEPTION_INDEX = 0x81a0
    CPU_CLASS = 0x81b0
    CLASS_TLB_FILL = 9         # in pointers, from the class object
    CLASS_TLB_FILL_SYSTEM = 10
    CLASS_DEBUG = 15           # debug_excp_handler
    CLASS_EXEC_INTERRUPT = 18  # bool cpu_exec_interrupt(cpu, request): True when it changed what runs next

cdef enum:                     # CPUX86State
    ENV_REGS = 0
    ENV_EIP = 0x80
    ENV_EFLAGS = 0x88
    ENV_CC_DST = 0x90
    ENV_CC_SRC = 0x98
    ENV_CC_SRC2 = 0xa0
    ENV_CC_OP = 0xa8
    ENV_DF = 0xac
    ENV_HFLAGS = 0xb0
    ENV_HFLAGS2 = 0xb4
    ENV_SEGS = 0xb8            # ES CS SS DS FS GS LDT TR GDT IDT, 24 bytes each
    ENV_LDT = 0x148
    ENV_TR = 0x160
    ENV_GDT = 0x178
    ENV_IDT = 0x190
    ENV_CR = 0x1a8
    ENV_EFER = 0x250
    ENV_FPU = 0x25c            # x87 stack top, status, control, tags: 16 bytes
    ENV_FPREGS = 0x270         # eight slots of 16 bytes
    ENV_FPCS = 0x2f2           # where the last x87 instruction lay: selector,
    ENV_FPIP = 0x2f8           # and offset
    ENV_FP_STATUS = 0x308      # float_status of x87,
    ENV_FT0 = 0x310            # 16 bytes of scratch
    ENV_MMX_STATUS = 0x320     # MMX
    ENV_SSE_STATUS = 0x328     # and SSE
    ROUNDING_MODE = 1          # i8 in them: 0 nearest, 1 down, 2 up, 3 to zero
    ENV_MXCSR = 0x330
    ENV_XMM = 0x338            # slots of 64 bytes
    ENV_AFTER_XMM = 0xb38      # behind 32 of them: scratch, and the state of extensions that the engine does not have
    BP_GDB = 0x10              # a debugger's breakpoint: no resume flag, no DR6
    ENV_SYSENTER_CS = 0x12c0
    ENV_SYSENTER_ESP = 0x12c8
    ENV_SYSENTER_EIP = 0x12d0
    ENV_STAR = 0x12d8
    ENV_LSTAR = 0x12e8
    ENV_CSTAR = 0x12f0
    ENV_FMASK = 0x12f8
    ENV_KERNEL_GS_BASE = 0x1300
    ENV_PAT = 0x14a0
    ENV_ERROR_CODE = 0x1508
    ENV_EXCEPTION_IS_INT = 0x150c
    ENV_EXCEPTION_NEXT_EIP = 0x1510
    ENV_DR = 0x1518
    ENV_BREAKPOINTS = 0x1558   # four pointers: the engine's breakpoints and watchpoints for DR0-DR3
    ENV_OLD_EXCEPTION = 0x1578
    ENV_VM_VMCB = 0x1580
    ENV_INTERCEPT = 0x1590
    ENV_INTERCEPT_CR_READ = 0x1598
    ENV_INTERCEPT_CR_WRITE = 0x159a
    ENV_INTERCEPT_DR_READ = 0x159c
    ENV_INTERCEPT_DR_WRITE = 0x159e
    ENV_INTERCEPT_EXCEPTIONS = 0x15a0
    ENV_FEATURES_1_ECX = 0x1608
    ENV_FEATURES_7_EBX = 0x1610
    ENV_IMAGE_BYTES = 0x15c0   # registers of every kind: what a world switch or a snapshot copies
    # The fixed-range MTRRs lie behind the image and the engine never reads them (ours live in
    # Vcpu.msr_value): their slots hold what translated code must reach relative to env.
    ENV_BUDGET = 0x18b0        # int64: what is left until the slow path
    ENV_CURRENT = 0x18b8       # BlockRecord*: the block that runs
    ENV_ENGINE = 0x18c0        # Engine*
    ENV_EPOCH = 0x18c8         # counts what may have taken a page of the translation cache from the soft TLB

cdef enum:                     # hflags
    HF_CPL = 3
    HF_INHIBIT_IRQ = 1 << 3
    HF_CS32 = 1 << 4
    HF_SS32 = 1 << 5
    HF_ADDSEG = 1 << 6
    HF_PE = 1 << 7
    HF_LMA = 1 << 14
    HF_CS64 = 1 << 15
    HF_VM = 1 << 17
    HF_GUEST = 1 << 21
    HF_SMAP = 1 << 23
    HF2_GIF = 1

cdef enum:                     # CPUTLB, below CPUX86State
    ENV_SOFT = -0x890          # all of it
    SOFT_BYTES = 0x880
    SOFT_WORDS = 0x110
    ENV_SOFT_DIRTY = -0x890    # u16: privileges that have entries
    ENV_SOFT_DESC = -0x870     # CPUTLBDesc of each privilege
    SOFT_DESC_SIZE = 0x2b8
    SOFT_USED = 0x20           # n_used_entries
    SOFT_VICTIMS_USED = 0x28   # vindex
    SOFT_VICTIMS = 0x30        # vtable
    SOFT_VICTIM_IOTLB = 0x230
    SOFT_IOTLB = 0x2b0         # pointer to an array beside the table
    SOFT_IOTLB_SIZE = 16
    SOFT_VICTIM_ENTRIES = 8
    ENV_SOFT_TABLE = -0x40     # CPUTLBDescFast of each privilege: mask, table
    SOFT_TABLE_SIZE = 16
    SOFT_MODES = 3
    SOFT_NO_ATTRIBUTES = 1     # MEMTXATTRS_UNSPECIFIED

cdef enum:                     # TCGContext
    TCG_OPS = 0x38             # int: operations of the block that is being translated
    TCG_OPS_FULL = 4000        # at which the translator ends it
    TCG_HELPER_TABLE = 0x98e0
    TCG_CPU_ENV = 0x98f0
    TCG_UC = 0x9970
    TCG_CC_OP = 0x9990         # temporaries, by offset in the context: how the flags are kept
    TCG_REGS = 0x9998          # and RAX to R15
    TEMP_NAME = 0x20           # TCGTemp: const char*
    OP_MOVI_I32 = 6
    OP_LD32U_I64 = 71
    OP_LD_I64 = 73
    OP_ST_I64 = 77
    OP_ADD_I64 = 78
    OP_SUB_I64 = 79
    OP_OR_I64 = 88
    OP_XOR_I64 = 89
    OP_GOTO_PTR = 132
    OP_SET_LABEL = 1
    COND_GE = 3                # TCG_COND_GE: bit 1 signed, bit 0 inverted
    COND_EQ = 8
    COND_NE = 9
    TYPE_I64 = 1
    CALL_NO_SIDE_EFFECTS = 4
    HASH_NODES = 0x18          # GHashTable: size at 0, nodes of 24 bytes

cdef enum:                     # TranslationBlock
    TB_PC = 0
    TB_CS_BASE = 8
    TB_FLAGS = 16
    TB_SIZE = 20               # u16
    TB_ICOUNT = 22             # u16
    TB_CODE = 0x20             # pointer to the host's
    TB_CFLAGS = 24             # u32, low 15 bits: instruction limit
    TB_INVALID = 0x40000       # in them: the code is no longer what it was

cdef enum:                     # DisasContext, the translator's; who calls uc_struct.add_inline_hook has it beside the arguments
    DC_FROM_ARGS = -2          # in pointers
    DC_TB = 0                  # TranslationBlock*
    DC_PC_FIRST = 8            # and pc_next behind it
    DC_NUM_INSNS = 0x1c        # int
    DC_MAX_INSNS = 0x20        # int
    DC_PC_START = 0x38         # of the instruction, and the byte to be read next behind it
    CC_OP_ADDL = 8
    DC_CC_OP = 0x74            # int: how its flags are kept
    DC_CC_OP_DIRTY = 0x7c      # bool: and CPUX86State does not say so yet
    DC_CPL = 0x8c              # int
    DC_MEM_INDEX = 0xa0        # int

ctypedef CpuSegment EnvSegment    # SegmentCache

cdef inline bint is_disas_context(const char* dc, uint64_t pc) noexcept nogil:
    """Is it the translator's context, at the start of the block at `pc`?"""
    cdef uint64_t tb = (<uint64_t*>(dc + DC_TB))[0]
    return (<uint64_t*>(dc + DC_PC_FIRST))[0] == pc and (<uint64_t*>(dc + DC_PC_FIRST))[1] == pc and \
        (<uint64_t*>(dc + DC_PC_FIRST))[2] == 0 and tb > 0x10000 and tb >> 47 == 0 and (<uint64_t*>tb)[0] == pc

cdef inline char* uc_cpu(uc_engine* uc) noexcept nogil:
    return (<char**>(<char*>uc + UC_CPU))[0]

cdef inline char* cpu_env(char* cpu) noexcept nogil:
    return (<char**>(cpu + CPU_ENV))[0]

cdef inline uint64_t* env_u64(char* env, int offset) noexcept nogil:
    return <uint64_t*>(env + offset)

cdef inline uint32_t* env_u32(char* env, int offset) noexcept nogil:
    return <uint32_t*>(env + offset)

cdef inline uint16_t* env_u16(char* env, int offset) noexcept nogil:
    return <uint16_t*>(env + offset)

cdef inline EnvSegment* env_segment(char* env, int seg) noexcept nogil:
    """ES CS SS DS FS GS LDTR TR in the order of arch/regs.pxd; 8 GDTR, 9 IDTR."""
    return <EnvSegment*>(env + ENV_SEGS + 24 * seg)

cdef inline uint64_t* jump_slot(char* cpu, uint64_t pc) noexcept nogil:
    """The place of the code at `pc` (linear) in the engine's jump cache."""
    cdef uint64_t mixed = pc ^ pc >> 6
    return env_u64(cpu, CPU_JUMP_CACHE) + (mixed >> 6 & 0xfc0 | mixed & 0x3f)
