# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof of layout.pxd: plant values through Unicorn's public API, find them where the offsets say.

Runs once, at import.  A mismatch is an ImportError that names the versions, never a crash later.
"""
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memset
from pyx86v.engine.layout cimport *
from pyx86v.engine.softtlb cimport EMPTY, SoftEntry, soft_slot
from pyx86v.engine.uc cimport *

WANTED = (2, 1)
MARK = 0x5A5A_0000_1234_0000


class LayoutError(ImportError):
    """The installed Unicorn is not the one this package was built for."""


def version():
    """(major, minor) of the loaded Unicorn library."""
    cdef unsigned major = 0, minor = 0
    uc_version(&major, &minor)
    return major, minor


cdef bint plausible(void* p) noexcept nogil:
    """A pointer that may be looked behind: aligned, in user space."""
    return <uintptr_t>p > 0x10000 and <uintptr_t>p < <uintptr_t>0x800000000000ULL and <uintptr_t>p & 7 == 0


cdef bint plausible_text(const char* p, bytes text) noexcept:
    """Does a string of the library's begin so?"""
    return <uintptr_t>p > 0x10000 and <uintptr_t>p < <uintptr_t>0x800000000000ULL and p[:len(text)] == text


cdef uint64_t plant(uc_engine* uc, int reg, uint64_t value) noexcept:
    uc_reg_write(uc, reg, &value)
    return value


cdef uint64_t plant_msr(uc_engine* uc, uint32_t number, uint64_t value) noexcept:
    cdef uc_x86_msr msr
    msr.rid = number
    msr.value = value
    uc_reg_write(uc, UC_X86_REG_MSR, &msr)
    return value


cdef str check_registers(uc_engine* uc, char* env):
    """The first register that is not where it should be, or None."""
    for name, number, offset, mask in (
            ("RIP", UC_X86_REG_RIP, ENV_EIP, 0), ("RSP", UC_X86_REG_RSP, ENV_REGS + 32, 0),
            ("R15", UC_X86_REG_R15, ENV_REGS + 120, 0), ("CR2", UC_X86_REG_CR2, ENV_CR + 16, 0),
            ("DR3", UC_X86_REG_DR3, ENV_DR + 24, 0), ("XMM0", UC_X86_REG_XMM0, ENV_XMM, 0)):
        value = MARK + number
        plant(uc, number, value)
        if env_u64(env, offset)[0] != value:
            return name
        plant(uc, number, 0)
    for number, offset in ((0xC0000081, ENV_STAR), (0xC0000082, ENV_LSTAR), (0xC0000083, ENV_CSTAR), (0xC0000084, ENV_FMASK),
                           (0xC0000102, ENV_KERNEL_GS_BASE), (0x175, ENV_SYSENTER_ESP), (0x176, ENV_SYSENTER_EIP),
                           (0x277, ENV_PAT), (0x250, ENV_BUDGET), (0x258, ENV_CURRENT), (0x259, ENV_ENGINE), (0x268, ENV_EPOCH)):
        value = 0x0000_7123_0000_0000 + <unsigned int>number
        plant_msr(uc, number, value)
        if env_u64(env, offset)[0] != value:
            return f"MSR {number:#x}"
        plant_msr(uc, number, 0)
    return None


cdef str check_tables(uc_engine* uc, char* env):
    cdef uc_x86_mmr table
    for name, number, offset in (("GDTR", UC_X86_REG_GDTR, 8), ("IDTR", UC_X86_REG_IDTR, 9), ("LDTR", UC_X86_REG_LDTR, 6),
                                 ("TR", UC_X86_REG_TR, 7)):
        memset(&table, 0, sizeof(table))
        table.base = 0x1234_5000 + <unsigned int>number
        table.limit = 0x4321
        uc_reg_write(uc, number, &table)
        if env_segment(env, offset).base != table.base or env_segment(env, offset).limit != table.limit:
            return name
    return None


cdef str check_features(char* env):
    """A bit that changes here changes in what CPUID says."""
    cdef uint32_t before[4]
    cdef uint32_t after[4]
    for name, leaf, i, offset in (("1 ECX", 1, 2, ENV_FEATURES_1_ECX), ("7 EBX", 7, 1, ENV_FEATURES_7_EBX)):
        cpu_x86_cpuid_x86_64(env, leaf, 0, &before[0], &before[1], &before[2], &before[3])
        env_u32(env, offset)[0] ^= 1
        cpu_x86_cpuid_x86_64(env, leaf, 0, &after[0], &after[1], &after[2], &after[3])
        env_u32(env, offset)[0] ^= 1
        if before[<int>i] ^ after[<int>i] != 1:
            return f"CPUID {name}"
    return None


cdef str check_class(uc_engine* uc, char* cpu):
    cdef void** cls = (<void***>(cpu + CPU_CLASS))[0]
    if not plausible(cls) or cls[CLASS_TLB_FILL_SYSTEM] != <void*>x86_cpu_tlb_fill_x86_64:
        return "CPUClass.tlb_fill"
    if cls[CLASS_DEBUG] != <void*>breakpoint_handler_x86_64:
        return "CPUClass.debug_excp_handler"
    if cls[CLASS_EXEC_INTERRUPT] != <void*>x86_cpu_exec_interrupt_x86_64:
        return "CPUClass.cpu_exec_interrupt"
    if (<void**>(<char*>uc + UC_ADD_INLINE_HOOK))[0] != <void*>uc_add_inline_hook_x86_64:
        return "uc_struct.add_inline_hook"
    return None


cdef str check_translator(uc_engine* uc):
    cdef char* s = (<char**>(<char*>uc + UC_TCG_CONTEXT))[0]
    cdef char* table
    cdef uintptr_t env_temp
    if not plausible(s) or (<void**>(s + TCG_UC))[0] != <void*>uc:
        return "TCGContext"
    table = (<char**>(s + TCG_HELPER_TABLE))[0]
    if not plausible(table) or not plausible((<void**>(table + HASH_NODES))[0]) or not 0 < (<int*>table)[0] < 1 << 20:
        return "TCGContext.helper_table"
    for offset, name in ((TCG_CPU_ENV, b"env"), (TCG_CC_OP, b"cc_op"), (TCG_REGS, b"rax"), (TCG_REGS + 8, b"rcx"), (TCG_REGS + 120, b"r15")):
        env_temp = (<uintptr_t*>(s + <int>offset))[0]
        if env_temp == 0 or env_temp > 0x100000 or env_temp & 7 or not plausible_text((<char**>(s + env_temp + TEMP_NAME))[0], name):
            return f"TCGContext, {name.decode()}"
    env_temp = (<uintptr_t*>(s + TCG_CPU_ENV))[0]
    if env_temp == 0 or env_temp > 0x100000 or env_temp & 7:
        return "TCGContext.cpu_env"
    return None


cdef bint holds(const SoftEntry* s, uint64_t page, const unsigned char* host) noexcept:
    """Is it the entry of `page`, which the memory at `host` backs, for loads and fetches?"""
    return s.read == page and s.code == page and s.write == EMPTY and s.paddr == 0x10000 and s.addend + page == <uintptr_t>host


cdef str check_soft_tlb(uc_engine* uc, char* cpu):
    """Two pages that share a slot go into the third privilege's table; the first moves to the victims and is dropped there."""
    cdef char* env = cpu_env(cpu)
    cdef char* desc = env + ENV_SOFT_DESC + 2 * SOFT_DESC_SIZE
    cdef uint64_t* fast = env_u64(env, ENV_SOFT_TABLE + 2 * SOFT_TABLE_SIZE)
    cdef uint64_t page = 0x10000, other = page + ((fast[0] // sizeof(SoftEntry) + 1) << 12)
    cdef SoftEntry* victim = <SoftEntry*>(desc + SOFT_VICTIMS)
    cdef unsigned char* host
    cdef uint64_t* iotlb
    if fast[0] & 63 or not 0 < fast[0] < 1 << 30 or not plausible(<void*>fast[1]) or not plausible((<void**>(desc + SOFT_IOTLB))[0]):
        return "CPUTLB"
    tlb_flush_x86_64(cpu)
    tlb_set_page_x86_64(cpu, page, 0x10000, 5, 2, 4096)
    iotlb = <uint64_t*>((<char**>(desc + SOFT_IOTLB))[0] + SOFT_IOTLB_SIZE * (page >> 12 & fast[0] // sizeof(SoftEntry)))
    host = <unsigned char*><uintptr_t>(soft_slot(env, 2, page).addend + page)
    if not plausible(host) or host[3] != 0xf4 or not holds(soft_slot(env, 2, page), page, host):
        return "CPUTLBEntry"
    if iotlb[0] != 0 - page or <uint32_t>iotlb[1] != SOFT_NO_ATTRIBUTES:
        return "CPUIOTLBEntry"
    if env_u64(desc, SOFT_USED)[0] != 1 or env_u64(desc, SOFT_VICTIMS_USED)[0] or env_u16(env, ENV_SOFT_DIRTY)[0] != 1 << 2:
        return "CPUTLBDesc"
    tlb_set_page_x86_64(cpu, other, 0x10000, 5, 2, 4096)
    if not holds(soft_slot(env, 2, other), other, host) or not holds(victim, page, host) or env_u64(desc, SOFT_VICTIMS_USED)[0] != 1:
        return "CPUTLBDesc.vtable"
    if env_u64(desc, SOFT_VICTIM_IOTLB)[0] != 0 - page or env_u64(desc, SOFT_USED)[0] != 1:
        return "CPUTLBDesc.viotlb"
    tlb_flush_page_x86_64(cpu, page)
    return None if victim.read == EMPTY and victim.code == EMPTY else "tlb_flush_page"


cdef int SEEN_SIZE = 0, SEEN_COUNT = 0, SEEN_CFLAGS = 0
cdef char* SEEN_TB = NULL        # in its place of the jump cache, and with the caller's code


cdef void see_block(uc_engine* uc, uint64_t pc, uint32_t size, void* user) noexcept nogil:
    """Find the running block's TranslationBlock through the call's return address into translated code."""
    global SEEN_SIZE, SEEN_COUNT, SEEN_CFLAGS, SEEN_TB
    cdef char* s = (<char**>(<char*>uc + UC_TCG_CONTEXT))[0]
    cdef char* tb = <char*>tcg_tb_lookup_x86_64(s, CALLER())
    if tb is not NULL and (<uint64_t*>(tb + TB_PC))[0] == pc:
        SEEN_SIZE = (<unsigned short*>(tb + TB_SIZE))[0]
        SEEN_COUNT = (<unsigned short*>(tb + TB_ICOUNT))[0]
        SEEN_CFLAGS = (<int*>(tb + TB_CFLAGS))[0]
        if <char*>jump_slot(uc_cpu(uc), pc)[0] == tb and CALLER() - (<uintptr_t*>(tb + TB_CODE))[0] < 4096:
            SEEN_TB = tb


cdef extern from *:
    """
    #define PYX_CALLER() ((uintptr_t)__builtin_return_address(0))
    """
    uintptr_t CALLER "PYX_CALLER" () noexcept nogil


cdef str check_block(uc_engine* uc):
    """Run five bytes (NOP NOP NOP HLT) and look at the block's description."""
    cdef uc_hook h
    cdef unsigned char code[4096]
    memset(code, 0x90, sizeof(code))
    code[3] = 0xf4
    if uc_mem_map(uc, 0x10000, 4096, UC_PROT_ALL) or uc_mem_write(uc, 0x10000, code, 4096):
        return "memory"
    uc_hook_add(uc, &h, UC_HOOK_BLOCK, <void*>see_block, NULL, 1, 0)
    env_u32(uc_cpu(uc), CPU_CLUSTER)[0] = 5
    uc_emu_start(uc, 0x10000, 0, 0, 0)
    if not 0 < (<int*>((<char**>(<char*>uc + UC_TCG_CONTEXT))[0] + TCG_OPS))[0] < TCG_OPS_FULL:
        return "TCGContext.nb_ops"
    if SEEN_SIZE != 4 or SEEN_COUNT != 4 or SEEN_CFLAGS & 0xff007fff != 5 << 24:
        return f"TranslationBlock (size {SEEN_SIZE}, instructions {SEEN_COUNT})"
    if SEEN_TB is NULL:
        return "CPUState.tb_jmp_cache"
    tb_invalidate_phys_range_x86_64(uc, 0, 1)          # the first byte of the only RAM
    return None if (<uint32_t*>(SEEN_TB + TB_CFLAGS))[0] & TB_INVALID else "CF_INVALID"


cdef int SEEN_REQUEST = 0


cdef bint see_request(void* cpu, int request) noexcept nogil:
    global SEEN_REQUEST
    SEEN_REQUEST = request
    env_u32(<char*>cpu, CPU_INTERRUPT_REQUEST)[0] = 0
    return False


cdef str check_request(uc_engine* uc, char* cpu):
    """The same block once more, with a request."""
    cdef void** cls = (<void***>(cpu + CPU_CLASS))[0]
    cls[CLASS_EXEC_INTERRUPT] = <void*>see_request
    env_u32(cpu, CPU_INTERRUPT_REQUEST)[0] = REQUEST_ANY
    uc_emu_start(uc, 0x10000, 0, 0, 0)
    cls[CLASS_EXEC_INTERRUPT] = <void*>x86_cpu_exec_interrupt_x86_64
    return None if SEEN_REQUEST == REQUEST_ANY else "CPUState.interrupt_request"


cdef int SEEN_INDEX = -1, SEEN_CPL = -1


cdef void see_context(void* uc, void* hook, void** args, int n) noexcept nogil:
    """Look at the translator's context, and have the block end after two instructions."""
    global SEEN_INDEX, SEEN_CPL
    global SEEN_DC
    cdef char* dc = (<char**>args)[DC_FROM_ARGS]
    SEEN_DC = dc if plausible(dc) else NULL
    if plausible(dc) and is_disas_context(dc, 0x10000):
        SEEN_INDEX = (<int*>(dc + DC_MEM_INDEX))[0]
        SEEN_CPL = (<int*>(dc + DC_CPL))[0]
        (<int*>(dc + DC_MAX_INSNS))[0] = 2
    uc_add_inline_hook_x86_64(uc, hook, args, n)


cdef str check_context(uc_engine* uc, char* env):
    """The same block again, in ring 0 and in ring 3."""
    global SEEN_INDEX, SEEN_CPL
    cdef uint32_t before = env_u32(env, ENV_HFLAGS)[0]
    cdef int cpl
    for cpl in (0, 3):
        SEEN_INDEX = SEEN_CPL = -1
        uc_ctl_flush_tb(uc)
        (<void**>(<char*>uc + UC_ADD_INLINE_HOOK))[0] = <void*>see_context
        env_u32(env, ENV_HFLAGS)[0] = (before & ~<uint32_t>HF_CPL) | <uint32_t>cpl
        uc_emu_start(uc, 0x10000, 0, 0, 0)
        (<void**>(<char*>uc + UC_ADD_INLINE_HOOK))[0] = <void*>uc_add_inline_hook_x86_64
        if SEEN_CPL != cpl or SEEN_INDEX != (1 if cpl else 2):
            return f"DisasContext (ring {SEEN_CPL}, index {SEEN_INDEX})"
    env_u32(env, ENV_HFLAGS)[0] = before
    return None


cdef int SEEN_INSNS = 0, SEEN_FLAGS = -1
cdef char* SEEN_DC = NULL


cdef int see_insn(const void* at, const void* exit, void* data) noexcept nogil:
    """At each instruction; at the second, behind an ADD, how the flags are kept."""
    global SEEN_INSNS, SEEN_FLAGS
    cdef uint64_t pc = (<const uint64_t*>at)[0]
    if SEEN_DC is not NULL and pc == 0x10002 and (<uint64_t*>(SEEN_DC + DC_PC_START))[0] == pc and (<uint64_t*>(SEEN_DC + DC_PC_START))[1] == pc:
        SEEN_FLAGS = (<int*>(SEEN_DC + DC_CC_OP))[0] | SEEN_DC[DC_CC_OP_DIRTY] << 8
    if data == <void*>&SEEN_INSNS:
        SEEN_INSNS = SEEN_INSNS * 16 + <int>((<const uint64_t*>at)[0] - 0xffff)
    return -1


cdef str check_exits(uc_engine* uc):
    """ADD NOP HLT with one exit elsewhere: the translator compares the block's address and those of its instructions with it."""
    global SEEN_INSNS, SEEN_FLAGS, SEEN_DC
    cdef uint64_t exit = MARK
    cdef char* tree
    cdef uint64_t** node
    if uc_ctl_exits_enable(uc) or uc_ctl_set_exits(uc, &exit, 1):
        return "exits"
    tree = (<char**>(<char*>uc + UC_EXITS))[0]
    if not plausible(tree) or not plausible((<void**>tree)[0]):
        return "uc_struct.ctl_exits"
    node = (<uint64_t***>tree)[0]
    if not plausible(node[0]) or node[0][0] != exit:
        return "GTreeNode"
    (<void**>(tree + TREE_COMPARE))[0] = <void*>see_insn
    (<void**>(tree + TREE_DATA))[0] = <void*>&SEEN_INSNS
    SEEN_INSNS = 0
    SEEN_FLAGS = -1
    SEEN_DC = NULL
    uc_mem_write(uc, 0x10000, b"\x01\xc8\x90\xf4", 4)
    uc_ctl_flush_tb(uc)
    (<void**>(<char*>uc + UC_ADD_INLINE_HOOK))[0] = <void*>see_context
    uc_emu_start(uc, 0x10000, 0, 0, 0)
    (<void**>(<char*>uc + UC_ADD_INLINE_HOOK))[0] = <void*>uc_add_inline_hook_x86_64
    if SEEN_INSNS != 0x11344:                                 # see_context cuts the block before the HLT
        return f"the translator's look at exits ({SEEN_INSNS:#x})"
    return None if SEEN_FLAGS == CC_OP_ADDL | 1 << 8 else f"DisasContext (flags {SEEN_FLAGS:#x})"


def first_mismatch():
    """What of the private layout is not where it should be (str), or None."""
    cdef uc_engine* uc = NULL
    cdef char* cpu
    if version() != WANTED:
        return f"version {version()[0]}.{version()[1]}"
    if uc_open(UC_ARCH_X86, UC_MODE_64, &uc):
        return "uc_open"
    try:
        uc_ctl_set_cpu_model(uc, UC_CPU_X86_HASWELL)
        plant(uc, UC_X86_REG_RIP, 0)                 # the first call that initialises the engine
        cpu = uc_cpu(uc)
        if not plausible(cpu) or not plausible(cpu_env(cpu)):
            return "CPUState"
        return (check_registers(uc, cpu_env(cpu)) or check_features(cpu_env(cpu)) or check_class(uc, cpu) or check_translator(uc)
                or check_block(uc) or check_request(uc, cpu) or check_context(uc, cpu_env(cpu)) or check_tables(uc, cpu_env(cpu))
                or check_soft_tlb(uc, cpu) or check_exits(uc))
    finally:
        uc_close(uc)


def verify():
    """Raise LayoutError when the private layout is not the one this package was written for."""
    wrong = first_mismatch()
    if wrong is not None:
        import unicorn
        raise LayoutError(f"pyx86v needs unicorn 2.1.4 (manylinux x86-64 wheel); the installed {unicorn.__version__} "
                          f"has another layout: {wrong}.  Expected: pip install unicorn==2.1.4")
