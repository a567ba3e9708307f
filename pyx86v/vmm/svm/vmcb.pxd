# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMCB (APM 2 appendix B): 4 KB of ordinary memory, the control area and from 400h on the state save area.

The monitor reads and writes it like any memory, at no price.  What it writes of a group that the processor may keep
cached it names in the clean bits (APM 2 15.15), by `modified`.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.types cimport PAGE_SIZE, hpa_t
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.guest cimport Guest
from pyx86v.vmm.nested_map cimport NestedMap

cdef packed struct VmcbSegment:
    uint16_t selector
    uint16_t attributes      # descriptor bits 55:52 and 47:40
    uint32_t limit
    uint64_t base

ctypedef VmcbSegment VmcbSegment_t

cdef packed struct Vmcb:
    uint16_t cr_reads        # 000h: intercepts, a bit for each register,
    uint16_t cr_writes
    uint16_t dr_reads
    uint16_t dr_writes
    uint32_t exceptions      # 008h: for each vector,
    uint32_t instructions_1  # 00Ch: for exit codes 60h to 7Fh,
    uint32_t instructions_2  # 010h: 80h to 9Fh,
    uint32_t instructions_3  # 014h: A0h on
    uint8_t reserved_018[36]
    uint16_t pause_threshold # 03Ch
    uint16_t pause_count
    uint64_t iopm_base       # 040h
    uint64_t msrpm_base
    uint64_t tsc_offset      # 050h
    uint32_t asid            # 058h
    uint8_t tlb_control
    uint8_t reserved_05d[3]
    uint64_t vintr           # 060h: V_*
    uint64_t interrupt_shadow
    uint64_t exitcode        # 070h
    uint64_t exitinfo1
    uint64_t exitinfo2
    uint64_t exitintinfo
    uint64_t np_control      # 090h
    uint8_t reserved_098[16]
    uint64_t eventinj        # 0A8h
    uint64_t n_cr3           # 0B0h
    uint64_t lbr_control
    uint32_t clean           # 0C0h
    uint32_t reserved_0c4
    uint64_t nrip            # 0C8h
    uint8_t insn_count       # 0D0h: guest instruction bytes; none are given
    uint8_t insn_bytes[15]
    uint8_t reserved_0e0[800]
    VmcbSegment segment[10]  # 400h: ES CS SS DS FS GS GDTR LDTR IDTR TR
    uint8_t reserved_4a0[43]
    uint8_t cpl              # 4CBh
    uint8_t reserved_4cc[4]
    uint64_t efer            # 4D0h
    uint8_t reserved_4d8[112]
    uint64_t cr4             # 548h
    uint64_t cr3
    uint64_t cr0
    uint64_t dr7
    uint64_t dr6
    uint64_t rflags
    uint64_t rip             # 578h
    uint8_t reserved_580[88]
    uint64_t rsp             # 5D8h
    uint8_t reserved_5e0[24]
    uint64_t rax             # 5F8h
    uint64_t star            # 600h: from here to SYSENTER_EIP by VMLOAD and VMSAVE
    uint64_t lstar
    uint64_t cstar
    uint64_t fmask
    uint64_t kernel_gs_base
    uint64_t sysenter_cs
    uint64_t sysenter_esp
    uint64_t sysenter_eip
    uint64_t cr2             # 640h
    uint8_t reserved_648[32]
    uint64_t g_pat           # 668h
    uint64_t dbgctl
    uint64_t br_from         # 678h: last branch and last exception record
    uint64_t br_to
    uint64_t last_exception_from
    uint64_t last_exception_to
    uint8_t reserved_698[2408]

ctypedef Vmcb Vmcb_t

cdef enum:                   # places in `segment` that are not SEG_* of arch/regs.pxd
    VMCB_GDTR = 6
    VMCB_LDTR = 7
    VMCB_IDTR = 8
    VMCB_TR = 9

cdef enum:                   # clean bits (APM 2 table 15-9)
    CLEAN_INTERCEPTS = 1 << 0    # intercepts, TSC offset, pause filter
    CLEAN_MAPS = 1 << 1
    CLEAN_ASID = 1 << 2
    CLEAN_VINTR = 1 << 3
    CLEAN_NP = 1 << 4            # N_CR3, G_PAT
    CLEAN_CR = 1 << 5            # CR0 CR3 CR4 EFER
    CLEAN_DR = 1 << 6
    CLEAN_DT = 1 << 7            # GDTR IDTR
    CLEAN_SEGMENTS = 1 << 8      # CS DS SS ES, CPL
    CLEAN_CR2 = 1 << 9
    CLEAN_LBR = 1 << 10
    CLEAN_ALL = 0x7ff
    CLEAN_CHECKED = CLEAN_INTERCEPTS | CLEAN_MAPS | CLEAN_ASID | CLEAN_NP | CLEAN_CR | CLEAN_DR | CLEAN_SEGMENTS

cdef enum:                   # TLB_CONTROL (APM 2 15.16.1)
    TLB_NOTHING = 0
    TLB_FLUSH_ALL = 1
    TLB_FLUSH_GUEST = 3
    TLB_FLUSH_GUEST_LOCAL = 7    # but global entries

cdef enum:                   # VINTR, low half (060h)
    V_TPR = 0xff
    V_IRQ = 1 << 8
    V_INTR_PRIO = 0xf << 16
    V_IGN_TPR = 1 << 20
    V_INTR_MASKING = 1 << 24
    NP_ENABLE = 1
    INTERRUPT_SHADOW = 1         # 068h

cdef enum:                   # EVENTINJ and EXITINTINFO: type in bits 10:8 (APM 2 15.20)
    INJECT_INTERRUPT = 0
    INJECT_NMI = 2
    INJECT_EXCEPTION = 3
    INJECT_SOFTWARE = 4
    INJECT_ERROR_CODE = 1 << 11

cdef extern from *:
    """
    #define PYX_INJECT_VALID 0x80000000ULL
    """
    const uint64_t INJECT_VALID "PYX_INJECT_VALID"

cdef enum Layout:            # of the monitor's memory
    VMCB_AT = 0
    HOST_SAVE_AT = PAGE_SIZE
    PDPT_AT = 2 * PAGE_SIZE      # of shadow tables in PAE format
    MSRPM_AT = 3 * PAGE_SIZE
    IOPM_AT = 5 * PAGE_SIZE
    FIXED_BYTES = 8 * PAGE_SIZE

ctypedef struct Svm:         # SVM on one logical processor, and the monitor's bookkeeping
    hpa_t monitor            # first byte of the monitor's memory,
    hpa_t monitor_end
    hpa_t vmcb               # and what lies in it
    hpa_t host_save          # VM_HSAVE_PA
    NestedMap npt
    uint32_t maxphyaddr
    bint host                # the processor runs the monitor: a #VMEXIT without its VMRUN yet
    bint vmload              # the monitor wrote what VMLOAD loads
    int kind                 # of the exit being handled: exit_kind of its code
    int failed_rule          # the rule that the last VMRUN broke

cdef inline Svm* svm_of(Guest* g) noexcept nogil:
    return <Svm*>g.style_state

cdef inline Vmcb* vmcb_of(Guest* g) noexcept nogil:
    """The guest's VMCB.  Its page was found in memory when the monitor started."""
    return <Vmcb*>ram_pointer(g.ram, svm_of(g).vmcb, PAGE_SIZE)

cdef inline void modified(Vmcb* v, uint32_t group) noexcept nogil:
    """The monitor wrote a field of this group (CLEAN_*): the processor must not use what it has cached."""
    v.clean &= ~group

cdef inline uint64_t event_info(int kind, int vector, bint has_error, uint32_t error) noexcept nogil:
    """EVENTINJ or EXITINTINFO of an event."""
    cdef uint64_t info = INJECT_VALID | <uint64_t>(kind << 8) | <uint64_t>vector
    return info | INJECT_ERROR_CODE | <uint64_t>error << 32 if has_error else info
