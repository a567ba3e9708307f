# SPDX-License-Identifier: GPL-2.0-or-later
"""arch/cpu.pxd on Unicorn: registers of the running engine, with the derived state kept in step.

Derived state: `hflags` repeats CPL, code size, stack size and "segments have bases" so that
translated code need not look; a segment written here updates them (unicorn's own
cpu_x86_load_seg_cache does the same for guest instructions).
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.devices.platform cimport Platform, platform_cr8, platform_set_cr8
from pyx86v.engine.layout cimport *
from pyx86v.engine.softtlb cimport page_drop, soft_flush
from pyx86v.engine.state cimport Engine

cdef enum:
    TSS_KIND = 0x9700        # present, system, busy, type but for its size: of a TSS that the engine may use,
    TSS_AVAILABLE = 0x8100   # it is available; the engine aborts on any other
    CC_OP_EFLAGS = 1
    CC_MASK = 0x8d5          # CF PF AF ZF SF OF

cdef inline char* ops_env(Cpu* c) noexcept nogil:
    return cpu_env(<char*>c.owner)

cdef inline Platform* ops_platform(char* env) noexcept nogil:
    """CR8 is the local APIC's task priority, and lives there."""
    return &(<Engine**>(env + ENV_ENGINE))[0].world.platform

cdef inline uint64_t env_rflags(char* env) noexcept nogil:
    """EFLAGS is lazy: conditions live in cc_*, DF as +1/-1.  The engine's CMPXCHG8B can leave reserved bits in cc_src."""
    cdef uint64_t f = env_u64(env, ENV_EFLAGS)[0]
    f |= cpu_cc_compute_all_x86_64(env, <int>env_u32(env, ENV_CC_OP)[0])
    f |= env_u32(env, ENV_DF)[0] & FL_DF
    return f & FL_ALL | FL_FIXED

cdef inline void env_set_rflags(char* env, uint64_t v) noexcept nogil:
    env_u64(env, ENV_CC_SRC)[0] = v & CC_MASK
    env_u64(env, ENV_CC_DST)[0] = 0
    env_u32(env, ENV_CC_OP)[0] = CC_OP_EFLAGS
    env_u32(env, ENV_DF)[0] = <uint32_t>(-1 if v & FL_DF else 1)
    env_u64(env, ENV_EFLAGS)[0] = (v & ~<uint64_t>(CC_MASK | FL_DF)) | FL_FIXED

cdef inline int env_cpl(char* env) noexcept nogil:
    return <int>(env_u32(env, ENV_HFLAGS)[0] & HF_CPL)

cdef inline int env_bits(char* env) noexcept nogil:
    cdef uint32_t h = env_u32(env, ENV_HFLAGS)[0]
    if h & HF_CS64:
        return 64
    return 32 if h & HF_CS32 else 16

cdef inline uint16_t code_mode(char* env) noexcept nogil:
    """What a translation depends on beside the address: 16, 32 or 64-bit code, and RF."""
    return <uint16_t>(env_u32(env, ENV_HFLAGS)[0] & (HF_CS32 | HF_CS64)) | <uint16_t>(env_u64(env, ENV_EFLAGS)[0] >> 16 & 1)

cdef inline void env_update_hflags(char* env) noexcept nogil:
    """Recompute what depends on CS, SS, DS, ES, CR0.PE, EFER.LMA and EFLAGS.VM."""
    cdef uint32_t h = env_u32(env, ENV_HFLAGS)[0]
    cdef uint64_t fl = env_u64(env, ENV_EFLAGS)[0]
    cdef EnvSegment* cs = env_segment(env, SEG_CS)
    cdef EnvSegment* ss = env_segment(env, SEG_SS)
    h &= ~<uint32_t>(HF_CPL | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG)
    if h & HF_PE:
        h |= 3 if fl & FL_VM else (ss.flags >> 13) & 3
    if h & HF_LMA and cs.flags & (1 << 21):
        h |= HF_CS32 | HF_SS32 | HF_CS64
    else:
        if cs.flags & (1 << 22):
            h |= HF_CS32
        if ss.flags & (1 << 22):
            h |= HF_SS32
        if not h & HF_PE or fl & FL_VM or not h & HF_CS32 or \
                env_segment(env, SEG_DS).base or env_segment(env, SEG_ES).base or ss.base:
            h |= HF_ADDSEG
    env_u32(env, ENV_HFLAGS)[0] = h

cdef inline bint env_based_code(char* env) noexcept nogil:
    """64-bit mode ignores the base of CS (SDM 3A 3.4.4), and the engine adds it: is there one?"""
    return env_u32(env, ENV_HFLAGS)[0] & HF_CS64 != 0 and env_segment(env, SEG_CS).base != 0

cdef inline bint env_flat_code(char* env) noexcept nogil:
    """Take it away.  True: there was one, and code was looked for at the wrong place."""
    if not env_based_code(env):
        return False
    env_segment(env, SEG_CS).base = 0
    return True

cdef inline int env_reg_offset(int reg) noexcept nogil:
    """Where a register lies that is 64 plain bits to read, or -1.  (A chain of nothing but ==, so that C has a table.)"""
    if reg == REG_RIP:
        return ENV_EIP
    elif reg == REG_CR0:
        return ENV_CR
    elif reg == REG_CR2:
        return ENV_CR + 16
    elif reg == REG_CR3:
        return ENV_CR + 24
    elif reg == REG_CR4:
        return ENV_CR + 32
    elif reg == REG_EFER:
        return ENV_EFER
    elif reg == REG_GDTR_BASE:
        return ENV_GDT + 8
    elif reg == REG_IDTR_BASE:
        return ENV_IDT + 8
    elif reg == REG_DR6:
        return ENV_DR + 48
    elif reg == REG_DR7:
        return ENV_DR + 56
    elif reg == REG_STAR:
        return ENV_STAR
    elif reg == REG_LSTAR:
        return ENV_LSTAR
    elif reg == REG_CSTAR:
        return ENV_CSTAR
    elif reg == REG_FMASK:
        return ENV_FMASK
    elif reg == REG_KERNEL_GS_BASE:
        return ENV_KERNEL_GS_BASE
    elif reg == REG_SYSENTER_CS:
        return ENV_SYSENTER_CS
    elif reg == REG_SYSENTER_ESP:
        return ENV_SYSENTER_ESP
    elif reg == REG_SYSENTER_EIP:
        return ENV_SYSENTER_EIP
    elif reg == REG_PAT:
        return ENV_PAT
    elif reg == REG_DR0:
        return ENV_DR
    elif reg == REG_DR1:
        return ENV_DR + 8
    elif reg == REG_DR2:
        return ENV_DR + 16
    elif reg == REG_DR3:
        return ENV_DR + 24
    else:
        return -1

cdef inline uint64_t ops_get(Cpu* c, int reg) noexcept nogil:
    cdef char* env = ops_env(c)
    if reg == REG_RFLAGS:
        return env_rflags(env)
    elif reg == REG_CR8:
        return platform_cr8(ops_platform(env))
    elif reg == REG_CPL:
        return env_cpl(env)
    elif reg == REG_BITS:
        return env_bits(env)
    elif reg == REG_SHADOW:
        return env_u32(env, ENV_HFLAGS)[0] & HF_INHIBIT_IRQ != 0
    elif reg == REG_GDTR_LIMIT:
        return env_segment(env, 8).limit
    elif reg == REG_IDTR_LIMIT:
        return env_segment(env, 9).limit
    else:
        return env_u64(env, env_reg_offset(reg))[0]

cdef inline void ops_set_efer(char* env, uint64_t v) noexcept nogil:
    """EFER and the LMA bit that hflags repeats."""
    env_u64(env, ENV_EFER)[0] = v
    if v & EFER_LMA:
        env_u32(env, ENV_HFLAGS)[0] |= HF_LMA
    else:
        env_u32(env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_LMA

cdef inline void ops_set(Cpu* c, int reg, uint64_t v) noexcept nogil:
    cdef char* env = ops_env(c)
    if reg == REG_RFLAGS:
        env_set_rflags(env, v)
        env_update_hflags(env)
    elif reg == REG_CR0:
        cpu_x86_update_cr0_x86_64(env, <uint32_t>v)
        env_update_hflags(env)
    elif reg == REG_CR4:
        cpu_x86_update_cr4_x86_64(env, <uint32_t>v)
        env_u64(env, ENV_CR + 32)[0] = v
    elif reg == REG_CR8:
        platform_set_cr8(ops_platform(env), <uint32_t>v)
    elif reg == REG_EFER:
        ops_set_efer(env, v)
    elif reg == REG_SHADOW:
        if v:
            env_u32(env, ENV_HFLAGS)[0] |= HF_INHIBIT_IRQ
        else:
            env_u32(env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_INHIBIT_IRQ
    elif reg == REG_GDTR_LIMIT:
        env_segment(env, 8).limit = <uint32_t>v
    elif reg == REG_IDTR_LIMIT:
        env_segment(env, 9).limit = <uint32_t>v
    elif reg != REG_CPL and reg != REG_BITS:
        env_u64(env, env_reg_offset(reg))[0] = v

cdef inline void ops_get_segment(Cpu* c, int seg, Segment* out) noexcept nogil:
    cdef EnvSegment* s = env_segment(ops_env(c), seg)
    out.base = s.base
    out.limit = s.limit
    out.selector = <uint16_t>s.selector
    out.flags = s.flags
    out.pad = 0
    out.pad2 = 0

cdef inline void ops_set_segment(Cpu* c, int seg, const Segment* v) noexcept nogil:
    cdef char* env = ops_env(c)
    cdef EnvSegment* s = env_segment(env, seg)
    s.base = v.base
    s.limit = v.limit
    s.selector = v.selector
    s.flags = v.flags
    if seg == SEG_TR and v.flags & TSS_KIND != TSS_AVAILABLE:    # a monitor's state out of a file may hold anything
        s.flags = (v.flags & ~<uint32_t>TSS_KIND) | TSS_AVAILABLE
    if seg <= SEG_DS:
        env_update_hflags(env)

cdef inline void ops_flush(Cpu* c) noexcept nogil:
    soft_flush(c.owner)

cdef inline void ops_flush_page(Cpu* c, uint64_t gva) noexcept nogil:
    page_drop(c.owner, gva)

cdef inline void ops_init(Cpu* c, char* cpu) noexcept nogil:
    cdef int reg
    c.owner = cpu
    c.gpr = <uint64_t*>(cpu_env(cpu) + ENV_REGS)
    c.segments = env_segment(cpu_env(cpu), SEG_ES)
    for reg in range(N_CPU_REGS):
        c.at[reg] = env_u64(cpu_env(cpu), env_reg_offset(reg)) if env_reg_offset(reg) >= 0 else NULL
    c.get = ops_get
    c.set = ops_set
    c.get_segment = ops_get_segment
    c.set_segment = ops_set_segment
    c.flush = ops_flush
    c.flush_page = ops_flush_page
