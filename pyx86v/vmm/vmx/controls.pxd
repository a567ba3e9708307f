# SPDX-License-Identifier: GPL-2.0-or-later
"""VMX controls: their bits (SDM 3C 24.6-24.8) and what the processor allows (SDM 3D appendix A).

A capability MSR holds allowed-0 settings in its low half (a 1 there: the control must be 1) and
allowed-1 settings in its high half (a 0 there: the control must be 0).
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport *

cdef enum:                   # pin-based (24.6.1)
    PIN_EXTERNAL_INTERRUPT = 1 << 0
    PIN_NMI = 1 << 3
    PIN_VIRTUAL_NMIS = 1 << 5
    PIN_PREEMPTION_TIMER = 1 << 6
    PIN_POSTED_INTERRUPTS = 1 << 7

cdef enum:                   # primary processor-based (24.6.2)
    PROC_INTERRUPT_WINDOW = 1 << 2
    PROC_TSC_OFFSETTING = 1 << 3
    PROC_HLT = 1 << 7
    PROC_INVLPG = 1 << 9
    PROC_MWAIT = 1 << 10
    PROC_RDPMC = 1 << 11
    PROC_RDTSC = 1 << 12
    PROC_CR3_LOAD = 1 << 15
    PROC_CR3_STORE = 1 << 16
    PROC_CR8_LOAD = 1 << 19
    PROC_CR8_STORE = 1 << 20
    PROC_TPR_SHADOW = 1 << 21
    PROC_NMI_WINDOW = 1 << 22
    PROC_MOV_DR = 1 << 23
    PROC_IO = 1 << 24
    PROC_IO_BITMAPS = 1 << 25
    PROC_MONITOR_TRAP = 1 << 27
    PROC_MSR_BITMAPS = 1 << 28
    PROC_MONITOR = 1 << 29
    PROC_PAUSE = 1 << 30

cdef extern from *:
    """
    #define PYX_PROC_SECONDARY 0x80000000u
    """
    const uint32_t PROC_SECONDARY "PYX_PROC_SECONDARY"   # bit 31

cdef enum:                   # secondary processor-based (24.6.2)
    SEC_APIC_ACCESSES = 1 << 0
    SEC_EPT = 1 << 1
    SEC_DESCRIPTOR_TABLE = 1 << 2
    SEC_RDTSCP = 1 << 3
    SEC_X2APIC = 1 << 4
    SEC_VPID = 1 << 5
    SEC_WBINVD = 1 << 6
    SEC_UNRESTRICTED = 1 << 7
    SEC_APIC_REGISTERS = 1 << 8
    SEC_VIRTUAL_INTERRUPT = 1 << 9
    SEC_PAUSE_LOOP = 1 << 10
    SEC_RDRAND = 1 << 11
    SEC_INVPCID = 1 << 12
    SEC_VM_FUNCTIONS = 1 << 13
    SEC_VMCS_SHADOWING = 1 << 14
    SEC_RDSEED = 1 << 16
    SEC_PML = 1 << 17
    SEC_EPT_VE = 1 << 18
    SEC_XSAVES = 1 << 20
    SEC_TSC_SCALING = 1 << 25

cdef enum:                   # exit (24.7.1)
    EXIT_SAVE_DEBUG = 1 << 2
    EXIT_HOST_64 = 1 << 9
    EXIT_LOAD_PERF = 1 << 12
    EXIT_ACK_INTERRUPT = 1 << 15
    EXIT_SAVE_PAT = 1 << 18
    EXIT_LOAD_PAT = 1 << 19
    EXIT_SAVE_EFER = 1 << 20
    EXIT_LOAD_EFER = 1 << 21
    EXIT_SAVE_TIMER = 1 << 22

cdef enum:                   # entry (24.8.1)
    ENTRY_LOAD_DEBUG = 1 << 2
    ENTRY_IA32E = 1 << 9
    ENTRY_SMM = 1 << 10
    ENTRY_DUAL_MONITOR = 1 << 11
    ENTRY_LOAD_PERF = 1 << 13
    ENTRY_LOAD_PAT = 1 << 14
    ENTRY_LOAD_EFER = 1 << 15

cdef enum:                   # IA32_VMX_EPT_VPID_CAP (A.10)
    EPT_CAP_EXEC_ONLY = 1 << 0
    EPT_CAP_LEVELS_4 = 1 << 6
    EPT_CAP_UC = 1 << 8
    EPT_CAP_WB = 1 << 14
    EPT_CAP_2M = 1 << 16
    EPT_CAP_1G = 1 << 17
    EPT_CAP_INVEPT = 1 << 20
    EPT_CAP_AD = 1 << 21
    EPT_CAP_INVEPT_SINGLE = 1 << 25
    EPT_CAP_INVEPT_ALL = 1 << 26

cdef enum:                   # default1 settings (A.3-A.5); the TRUE MSRs relax some of them
    PIN_DEFAULT1 = 0x16
    PROC_DEFAULT1_TRUE = 0x04006172
    EXIT_DEFAULT1_TRUE = 0x00036dfb
    ENTRY_DEFAULT1_TRUE = 0x000011fb
    VMCS_REVISION = 4
    FEATURE_CONTROL_LOCK = 1 << 0
    FEATURE_CONTROL_VMXON = 1 << 2     # VMXON outside SMX

ctypedef struct VmxCaps:     # the capability MSRs, IA32_VMX_BASIC (480h) and on
    uint64_t feature_control # IA32_FEATURE_CONTROL (3Ah): lock bit and VMX enable, as firmware leaves it
    uint64_t basic
    uint64_t pin             # TRUE_PINBASED_CTLS
    uint64_t proc            # TRUE_PROCBASED_CTLS
    uint64_t secondary       # PROCBASED_CTLS2
    uint64_t exit            # TRUE_EXIT_CTLS
    uint64_t entry           # TRUE_ENTRY_CTLS
    uint64_t misc
    uint64_t cr0_fixed0      # bits that must be 1
    uint64_t cr0_fixed1      # bits that may be 1
    uint64_t cr4_fixed0
    uint64_t cr4_fixed1
    uint64_t ept_vpid
    uint32_t maxphyaddr

cdef inline uint64_t allowed(uint32_t must, uint64_t may) noexcept nogil:
    """A capability MSR from what must be 1 and what else may be 1."""
    return <uint64_t>must | (must | may) << 32

cdef inline bint controls_allowed(uint64_t value, uint64_t msr) noexcept nogil:
    """The value sets what the MSR demands and nothing that it forbids."""
    return value & 0xffffffffULL & msr == msr & 0xffffffffULL and not value & ~(msr >> 32)

cdef inline uint32_t controls_adjust(uint32_t wanted, uint64_t msr) noexcept nogil:
    """The wanted controls, made legal: what every monitor does at start."""
    return (wanted | <uint32_t>msr) & <uint32_t>(msr >> 32)

cdef inline void caps_fill(VmxCaps* c, bint vpid, bint invpcid, bint pcid, uint32_t maxphyaddr) noexcept nogil:
    """A processor with EPT and unrestricted guests; VPID, INVPCID and PCID as the profile has them."""
    cdef uint64_t proc, secondary
    proc = (PROC_INTERRUPT_WINDOW | PROC_TSC_OFFSETTING | PROC_HLT | PROC_INVLPG | PROC_MWAIT | PROC_RDPMC | PROC_RDTSC |
            PROC_CR3_LOAD | PROC_CR3_STORE | PROC_CR8_LOAD | PROC_CR8_STORE | PROC_TPR_SHADOW | PROC_NMI_WINDOW |
            PROC_MOV_DR | PROC_IO | PROC_IO_BITMAPS | PROC_MSR_BITMAPS | PROC_MONITOR | PROC_PAUSE | <uint64_t>PROC_SECONDARY)
    secondary = SEC_EPT | SEC_DESCRIPTOR_TABLE | SEC_RDTSCP | SEC_WBINVD | SEC_UNRESTRICTED
    if vpid:
        secondary |= SEC_VPID
    if invpcid:
        secondary |= SEC_INVPCID
    c.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON
    # revision, 4096-byte region, write-back, INS/OUTS information, TRUE MSRs (A.1)
    c.basic = VMCS_REVISION | <uint64_t>4096 << 32 | <uint64_t>6 << 50 | <uint64_t>1 << 54 | <uint64_t>1 << 55
    c.pin = allowed(PIN_DEFAULT1, PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMIS)
    c.proc = allowed(PROC_DEFAULT1_TRUE, proc)
    c.secondary = allowed(0, secondary)
    c.exit = allowed(EXIT_DEFAULT1_TRUE, EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACK_INTERRUPT | EXIT_SAVE_PAT |
                     EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER)
    c.entry = allowed(ENTRY_DEFAULT1_TRUE, ENTRY_LOAD_DEBUG | ENTRY_IA32E | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER)
    c.misc = 1 << 5 | 1 << 6 | 4 << 16       # stores EFER.LMA, HLT activity state, 4 CR3 targets (A.6)
    c.cr0_fixed0 = CR0_PG | CR0_NE | CR0_PE
    c.cr0_fixed1 = 0xffffffffULL
    c.cr4_fixed0 = CR4_VMXE
    c.cr4_fixed1 = (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
                    CR4_OSXMMEXCPT | CR4_VMXE | CR4_FSGSBASE | CR4_SMEP | CR4_SMAP)
    if pcid:
        c.cr4_fixed1 |= CR4_PCIDE
    c.ept_vpid = (EPT_CAP_LEVELS_4 | EPT_CAP_EXEC_ONLY | EPT_CAP_UC | EPT_CAP_WB | EPT_CAP_2M | EPT_CAP_1G | EPT_CAP_INVEPT |
                  EPT_CAP_AD | EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL)
    if vpid:
        c.ept_vpid |= <uint64_t>0xf01 << 32  # INVVPID and its four types
    c.maxphyaddr = maxphyaddr
