# SPDX-License-Identifier: GPL-2.0-or-later
"""Model-specific registers (SDM volume 4): which exist, what they read, what a write may hold.

The registers that the engine itself uses live in the engine; the rest, which only have to
read back what was written, live in `Vcpu.msr_value`, and those of the local APIC in the platform.  A number that is
not listed raises #GP.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.devices.platform cimport platform_msr_read, platform_msr_write, platform_tsc_set
from pyx86v.vmm.clock cimport clock_time, guest_time, tsc_time
from pyx86v.vmm.paging cimport nxe_changed
from pyx86v.vmm.guest cimport Guest, N_MSR_SLOTS

cdef extern from *:
    """
    #define MSR_EFER_NO 0xC0000080u
    #define MSR_STAR_NO 0xC0000081u
    #define MSR_LSTAR_NO 0xC0000082u
    #define MSR_CSTAR_NO 0xC0000083u
    #define MSR_FMASK_NO 0xC0000084u
    #define MSR_FS_BASE_NO 0xC0000100u
    #define MSR_GS_BASE_NO 0xC0000101u
    #define MSR_KERNEL_GS_NO 0xC0000102u
    #define MSR_TSC_AUX_NO 0xC0000103u
    #define MSR_HWCR_NO 0xC0010015u
    #define MSR_NB_CFG_NO 0xC001001Fu
    #define MSR_SYSCFG_NO 0xC0010010u
    """
    const uint32_t MSR_EFER "MSR_EFER_NO"
    const uint32_t MSR_STAR "MSR_STAR_NO"
    const uint32_t MSR_LSTAR "MSR_LSTAR_NO"
    const uint32_t MSR_CSTAR "MSR_CSTAR_NO"
    const uint32_t MSR_FMASK "MSR_FMASK_NO"
    const uint32_t MSR_FS_BASE "MSR_FS_BASE_NO"
    const uint32_t MSR_GS_BASE "MSR_GS_BASE_NO"
    const uint32_t MSR_KERNEL_GS_BASE "MSR_KERNEL_GS_NO"
    const uint32_t MSR_TSC_AUX "MSR_TSC_AUX_NO"
    const uint32_t MSR_SYSCFG "MSR_SYSCFG_NO"    # these three of AMD (PPR for family 17h, 2.1.14)
    const uint32_t MSR_HWCR "MSR_HWCR_NO"
    const uint32_t MSR_NB_CFG "MSR_NB_CFG_NO"

cdef enum:
    MSR_TSC = 0x10
    MSR_PLATFORM_ID = 0x17
    MSR_FEATURE_CONTROL = 0x3a
    MSR_BIOS_SIGN_ID = 0x8b
    MSR_MTRRCAP = 0xfe
    MSR_SYSENTER_CS = 0x174
    MSR_SYSENTER_ESP = 0x175
    MSR_SYSENTER_EIP = 0x176
    MSR_MISC_ENABLE = 0x1a0
    MSR_MTRR_FIRST = 0x200       # eight variable ranges, base and mask
    MSR_MTRR_LAST = 0x20f
    MSR_MTRR_FIX_FIRST = 0x250
    MSR_MTRR_FIX_LAST = 0x26f
    MSR_PAT = 0x277
    MSR_MTRR_DEF_TYPE = 0x2ff
    SLOT_TSC_AUX = 0
    SLOT_MISC_ENABLE = 1
    SLOT_DEF_TYPE = 2
    SLOT_BIOS_SIGN = 3
    SLOT_MTRR = 4                # 16 slots
    SLOT_MTRR_FIX = 20           # 32 slots
    SLOT_HWCR = 52               # from here on AMD's
    SLOT_NB_CFG = 53
    SLOT_SYSCFG = 54
    HWCR_TSC_P0 = 1 << 24        # the time stamp counter counts at the base frequency
    MICROCODE = 0xF0             # revision: above those that systems want because of errata, which are not modelled

cdef inline bint is_canonical(uint64_t a) noexcept nogil:
    """Bits 63..47 equal (SDM 1 3.3.7.1)."""
    return (<uint64_t>((<int64_t>(a << 16)) >> 16)) == a

cdef inline int msr_slot(uint32_t msr) noexcept nogil:
    """The slot of a register that only reads back what was written, or -1."""
    if msr == MSR_TSC_AUX:
        return SLOT_TSC_AUX
    if msr == MSR_MISC_ENABLE:
        return SLOT_MISC_ENABLE
    if msr == MSR_MTRR_DEF_TYPE:
        return SLOT_DEF_TYPE
    if msr == MSR_BIOS_SIGN_ID:
        return SLOT_BIOS_SIGN
    if msr == MSR_HWCR:
        return SLOT_HWCR
    if msr == MSR_SYSCFG:
        return SLOT_SYSCFG
    if msr == MSR_NB_CFG:
        return SLOT_NB_CFG
    if MSR_MTRR_FIRST <= msr <= MSR_MTRR_LAST:
        return SLOT_MTRR + <int>(msr - MSR_MTRR_FIRST)
    if MSR_MTRR_FIX_FIRST <= msr <= MSR_MTRR_FIX_LAST:
        return SLOT_MTRR_FIX + <int>(msr - MSR_MTRR_FIX_FIRST)
    return -1

cdef inline int msr_cpu_reg(uint32_t msr) noexcept nogil:
    """The engine's register behind an MSR, or -1."""
    if msr == MSR_STAR:
        return REG_STAR
    if msr == MSR_LSTAR:
        return REG_LSTAR
    if msr == MSR_CSTAR:
        return REG_CSTAR
    if msr == MSR_FMASK:
        return REG_FMASK
    if msr == MSR_KERNEL_GS_BASE:
        return REG_KERNEL_GS_BASE
    if msr == MSR_SYSENTER_CS:
        return REG_SYSENTER_CS
    if msr == MSR_SYSENTER_ESP:
        return REG_SYSENTER_ESP
    if msr == MSR_SYSENTER_EIP:
        return REG_SYSENTER_EIP
    if msr == MSR_PAT:
        return REG_PAT
    return -1

cdef inline bint is_intel(const Guest* g) noexcept nogil:
    return g.cpu_vendor[0] == b"G"

cdef inline void msr_init(Guest* g, bint from_firmware) noexcept nogil:
    """The state that firmware hands over: memory is write-back, but for the PC's hole and what lies above 3 GiB."""
    cdef uint64_t* mtrr = &g.vcpu.msr_value[<int>SLOT_MTRR]
    cdef uint64_t* fix = &g.vcpu.msr_value[<int>SLOT_MTRR_FIX]
    cdef int i
    g.vcpu.msr_value[<int>SLOT_MISC_ENABLE] = 1  # fast strings
    g.vcpu.msr_value[<int>SLOT_HWCR] = HWCR_TSC_P0
    if not from_firmware:
        return
    g.vcpu.msr_value[<int>SLOT_DEF_TYPE] = 0xC06 # on, with fixed ranges; write-back (SDM 3A 11.11.2.1)
    mtrr[0] = 0xC0000000ULL                      # uncacheable
    mtrr[1] = ((<uint64_t>1 << g.cpu_maxphyaddr) - 0x40000000ULL) | 0x800
    fix[0] = fix[8] = 0x0606060606060606ULL      # 250H, 258H: below A0000H; 259H is the screen's, uncacheable
    for i in range(0x18, 0x20):
        fix[i] = 0x0505050505050505ULL           # 268H to 26FH: firmware, write-protected

cdef inline bint msr_read(Guest* g, uint32_t msr, uint64_t* out) noexcept nogil:
    """True and the value, or False: the register does not exist (#GP)."""
    cdef int slot = msr_slot(msr), reg = msr_cpu_reg(msr)
    cdef Segment seg
    if slot >= SLOT_HWCR and is_intel(g):
        return False
    if reg >= 0:
        out[0] = g.cpu.get(g.cpu, reg)
    elif slot >= 0:
        out[0] = g.vcpu.msr_value[slot]
        if msr == MSR_BIOS_SIGN_ID and is_intel(g):
            out[0] = <uint64_t>MICROCODE << 32
    elif msr == MSR_EFER:
        out[0] = g.cpu.get(g.cpu, REG_EFER)
    elif msr == MSR_FS_BASE or msr == MSR_GS_BASE:
        g.cpu.get_segment(g.cpu, SEG_FS if msr == MSR_FS_BASE else SEG_GS, &seg)
        out[0] = seg.base
    elif msr == MSR_TSC:
        out[0] = tsc_time(g)
    elif msr == MSR_MTRRCAP:
        out[0] = 0x508               # 8 variable ranges, fixed ranges, write-combining (SDM 3A 11.11.1)
    elif msr == MSR_FEATURE_CONTROL:
        out[0] = 1                   # locked, VMX off: a guest is not offered nested virtualization
    elif msr == MSR_PLATFORM_ID:
        out[0] = 0
    else:
        return platform_msr_read(g.platform, msr, out, guest_time(g))
    return True

cdef inline bint efer_write(Guest* g, uint64_t value) noexcept nogil:
    """IA32_EFER: reserved bits, and LME while paging is on, raise #GP (SDM 3A 4.1, 9.8.5)."""
    cdef uint64_t old = g.cpu.get(g.cpu, REG_EFER)
    if value & ~<uint64_t>(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE):
        return False
    if g.cpu.get(g.cpu, REG_CR0) & CR0_PG and (value ^ old) & EFER_LME:
        return False
    value = (value & ~<uint64_t>EFER_LMA) | (old & EFER_LMA)     # LMA is the processor's
    g.cpu.set(g.cpu, REG_EFER, value)
    g.vcpu.paging.efer = value
    if (value ^ old) & EFER_NXE:
        nxe_changed(g)
    return True

cdef inline bint msr_write(Guest* g, uint32_t msr, uint64_t value) noexcept nogil:
    """True, or False: no such register, or a value that it cannot hold (#GP)."""
    cdef int slot = msr_slot(msr), reg = msr_cpu_reg(msr), i
    cdef Segment seg
    if msr == MSR_EFER:
        return efer_write(g, value)
    if msr == MSR_TSC:
        g.vcpu.tsc_offset = value - clock_time(g, &g.tsc)
        platform_tsc_set(g.platform, g.vcpu.tsc_offset, guest_time(g))
        return True
    if msr in (MSR_LSTAR, MSR_CSTAR, MSR_KERNEL_GS_BASE, MSR_FS_BASE, MSR_GS_BASE,
               <uint32_t>MSR_SYSENTER_ESP, <uint32_t>MSR_SYSENTER_EIP) and not is_canonical(value):
        return False
    if msr == MSR_PAT:               # each byte one of the defined memory types (SDM 3A 11.12.2)
        for i in range(8):
            if (value >> (8 * i)) & 0xff in (2, 3) or (value >> (8 * i)) & 0xff > 7:
                return False
    if (msr == MSR_TSC_AUX and value >> 32) or (slot >= SLOT_HWCR and is_intel(g)):
        return False
    if reg >= 0:
        if msr == MSR_FMASK or msr == MSR_SYSENTER_CS:
            value &= 0xffffffffULL
        g.cpu.set(g.cpu, reg, value)
    elif slot >= 0:
        g.vcpu.msr_value[slot] = value if msr != MSR_BIOS_SIGN_ID else 0
    elif msr == MSR_FS_BASE or msr == MSR_GS_BASE:
        g.cpu.get_segment(g.cpu, SEG_FS if msr == MSR_FS_BASE else SEG_GS, &seg)
        seg.base = value
        g.cpu.set_segment(g.cpu, SEG_FS if msr == MSR_FS_BASE else SEG_GS, &seg)
    else:
        return platform_msr_write(g.platform, msr, value, guest_time(g))
    return True
