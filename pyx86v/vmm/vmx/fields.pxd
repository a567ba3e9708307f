# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCS field encodings (SDM 3D appendix B) and the rule behind them (SDM 3C 24.11.2).

bit 0      high half of a 64-bit field
bits 9:1   index
bits 11:10 type: 0 control, 1 read-only data, 2 guest state, 3 host state
bit 12     reserved
bits 14:13 width: 0 16-bit, 1 64-bit, 2 32-bit, 3 natural (64 bits here)

Names are the manual's, shortened as monitors write them.  Every 64-bit field also has its
high half at the encoding + 1, which needs no name.
"""
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    WIDTH_16 = 0
    WIDTH_64 = 1
    WIDTH_32 = 2
    WIDTH_NATURAL = 3
    TYPE_CONTROL = 0
    TYPE_READ_ONLY = 1
    TYPE_GUEST = 2
    TYPE_HOST = 3
    N_FIELD_GROUPS = 16      # width * 4 + type
    N_FIELD_INDEXES = 64

cpdef enum Field:
    # B.1.1 16-bit control
    VPID = 0x0000
    POSTED_INTR_NV = 0x0002
    EPTP_INDEX = 0x0004
    HLAT_PREFIX_SIZE = 0x0006
    LAST_PID_POINTER_INDEX = 0x0008
    # B.1.2 16-bit guest state
    GUEST_ES_SELECTOR = 0x0800
    GUEST_CS_SELECTOR = 0x0802
    GUEST_SS_SELECTOR = 0x0804
    GUEST_DS_SELECTOR = 0x0806
    GUEST_FS_SELECTOR = 0x0808
    GUEST_GS_SELECTOR = 0x080a
    GUEST_LDTR_SELECTOR = 0x080c
    GUEST_TR_SELECTOR = 0x080e
    GUEST_INTR_STATUS = 0x0810
    GUEST_PML_INDEX = 0x0812
    GUEST_UINV = 0x0814
    # B.1.3 16-bit host state
    HOST_ES_SELECTOR = 0x0c00
    HOST_CS_SELECTOR = 0x0c02
    HOST_SS_SELECTOR = 0x0c04
    HOST_DS_SELECTOR = 0x0c06
    HOST_FS_SELECTOR = 0x0c08
    HOST_GS_SELECTOR = 0x0c0a
    HOST_TR_SELECTOR = 0x0c0c
    # B.2.1 64-bit control
    IO_BITMAP_A = 0x2000
    IO_BITMAP_B = 0x2002
    MSR_BITMAP = 0x2004
    EXIT_MSR_STORE_ADDR = 0x2006
    EXIT_MSR_LOAD_ADDR = 0x2008
    ENTRY_MSR_LOAD_ADDR = 0x200a
    EXECUTIVE_VMCS_POINTER = 0x200c
    PML_ADDRESS = 0x200e
    TSC_OFFSET = 0x2010
    VIRTUAL_APIC_ADDR = 0x2012
    APIC_ACCESS_ADDR = 0x2014
    POSTED_INTR_DESC_ADDR = 0x2016
    VM_FUNCTION_CONTROLS = 0x2018
    EPT_POINTER = 0x201a
    EOI_EXIT_BITMAP0 = 0x201c
    EOI_EXIT_BITMAP1 = 0x201e
    EOI_EXIT_BITMAP2 = 0x2020
    EOI_EXIT_BITMAP3 = 0x2022
    EPTP_LIST_ADDR = 0x2024
    VMREAD_BITMAP = 0x2026
    VMWRITE_BITMAP = 0x2028
    VE_INFO_ADDR = 0x202a
    XSS_EXIT_BITMAP = 0x202c
    ENCLS_EXIT_BITMAP = 0x202e
    SPP_TABLE_POINTER = 0x2030
    TSC_MULTIPLIER = 0x2032
    TERTIARY_EXEC_CONTROL = 0x2034
    ENCLV_EXIT_BITMAP = 0x2036
    LOW_PASID_DIRECTORY = 0x2038
    HIGH_PASID_DIRECTORY = 0x203a
    SHARED_EPT_POINTER = 0x203c
    PCONFIG_EXIT_BITMAP = 0x203e
    HLAT_POINTER = 0x2040
    PID_POINTER_TABLE = 0x2042
    SECONDARY_EXIT_CONTROLS = 0x2044
    SPEC_CTRL_MASK = 0x204a
    SPEC_CTRL_SHADOW = 0x204c
    # B.2.2 64-bit read-only
    GUEST_PHYSICAL_ADDRESS = 0x2400
    # B.2.3 64-bit guest state
    VMCS_LINK_POINTER = 0x2800
    GUEST_DEBUGCTL = 0x2802
    GUEST_PAT = 0x2804
    GUEST_EFER = 0x2806
    GUEST_PERF_GLOBAL_CTRL = 0x2808
    GUEST_PDPTE0 = 0x280a
    GUEST_PDPTE1 = 0x280c
    GUEST_PDPTE2 = 0x280e
    GUEST_PDPTE3 = 0x2810
    GUEST_BNDCFGS = 0x2812
    GUEST_RTIT_CTL = 0x2814
    GUEST_LBR_CTL = 0x2816
    GUEST_PKRS = 0x2818
    # B.2.4 64-bit host state
    HOST_PAT = 0x2c00
    HOST_EFER = 0x2c02
    HOST_PERF_GLOBAL_CTRL = 0x2c04
    HOST_PKRS = 0x2c06
    # B.3.1 32-bit control
    PIN_BASED_CONTROLS = 0x4000
    PROC_BASED_CONTROLS = 0x4002
    EXCEPTION_BITMAP = 0x4004
    PF_ERROR_MASK = 0x4006
    PF_ERROR_MATCH = 0x4008
    CR3_TARGET_COUNT = 0x400a
    EXIT_CONTROLS = 0x400c
    EXIT_MSR_STORE_COUNT = 0x400e
    EXIT_MSR_LOAD_COUNT = 0x4010
    ENTRY_CONTROLS = 0x4012
    ENTRY_MSR_LOAD_COUNT = 0x4014
    ENTRY_INTR_INFO = 0x4016
    ENTRY_ERROR_CODE = 0x4018
    ENTRY_INSTR_LENGTH = 0x401a
    TPR_THRESHOLD = 0x401c
    SECONDARY_CONTROLS = 0x401e
    PLE_GAP = 0x4020
    PLE_WINDOW = 0x4022
    INSTR_TIMEOUT = 0x4024
    # B.3.2 32-bit read-only
    VM_INSTR_ERROR = 0x4400
    EXIT_REASON = 0x4402
    EXIT_INTR_INFO = 0x4404
    EXIT_INTR_ERROR_CODE = 0x4406
    IDT_VECTORING_INFO = 0x4408
    IDT_VECTORING_ERROR_CODE = 0x440a
    EXIT_INSTR_LENGTH = 0x440c
    EXIT_INSTR_INFO = 0x440e
    # B.3.3 32-bit guest state
    GUEST_ES_LIMIT = 0x4800
    GUEST_CS_LIMIT = 0x4802
    GUEST_SS_LIMIT = 0x4804
    GUEST_DS_LIMIT = 0x4806
    GUEST_FS_LIMIT = 0x4808
    GUEST_GS_LIMIT = 0x480a
    GUEST_LDTR_LIMIT = 0x480c
    GUEST_TR_LIMIT = 0x480e
    GUEST_GDTR_LIMIT = 0x4810
    GUEST_IDTR_LIMIT = 0x4812
    GUEST_ES_AR = 0x4814
    GUEST_CS_AR = 0x4816
    GUEST_SS_AR = 0x4818
    GUEST_DS_AR = 0x481a
    GUEST_FS_AR = 0x481c
    GUEST_GS_AR = 0x481e
    GUEST_LDTR_AR = 0x4820
    GUEST_TR_AR = 0x4822
    GUEST_INTERRUPTIBILITY = 0x4824
    GUEST_ACTIVITY_STATE = 0x4826
    GUEST_SMBASE = 0x4828
    GUEST_SYSENTER_CS = 0x482a
    PREEMPTION_TIMER = 0x482e
    # B.3.4 32-bit host state
    HOST_SYSENTER_CS = 0x4c00
    # B.4.1 natural-width control
    CR0_MASK = 0x6000
    CR4_MASK = 0x6002
    CR0_READ_SHADOW = 0x6004
    CR4_READ_SHADOW = 0x6006
    CR3_TARGET_VALUE0 = 0x6008
    CR3_TARGET_VALUE1 = 0x600a
    CR3_TARGET_VALUE2 = 0x600c
    CR3_TARGET_VALUE3 = 0x600e
    # B.4.2 natural-width read-only
    EXIT_QUALIFICATION = 0x6400
    IO_RCX = 0x6402
    IO_RSI = 0x6404
    IO_RDI = 0x6406
    IO_RIP = 0x6408
    GUEST_LINEAR_ADDRESS = 0x640a
    # B.4.3 natural-width guest state
    GUEST_CR0 = 0x6800
    GUEST_CR3 = 0x6802
    GUEST_CR4 = 0x6804
    GUEST_ES_BASE = 0x6806
    GUEST_CS_BASE = 0x6808
    GUEST_SS_BASE = 0x680a
    GUEST_DS_BASE = 0x680c
    GUEST_FS_BASE = 0x680e
    GUEST_GS_BASE = 0x6810
    GUEST_LDTR_BASE = 0x6812
    GUEST_TR_BASE = 0x6814
    GUEST_GDTR_BASE = 0x6816
    GUEST_IDTR_BASE = 0x6818
    GUEST_DR7 = 0x681a
    GUEST_RSP = 0x681c
    GUEST_RIP = 0x681e
    GUEST_RFLAGS = 0x6820
    GUEST_PENDING_DEBUG = 0x6822
    GUEST_SYSENTER_ESP = 0x6824
    GUEST_SYSENTER_EIP = 0x6826
    GUEST_S_CET = 0x6828
    GUEST_SSP = 0x682a
    GUEST_INTR_SSP_TABLE = 0x682c
    # B.4.4 natural-width host state
    HOST_CR0 = 0x6c00
    HOST_CR3 = 0x6c02
    HOST_CR4 = 0x6c04
    HOST_FS_BASE = 0x6c06
    HOST_GS_BASE = 0x6c08
    HOST_TR_BASE = 0x6c0a
    HOST_GDTR_BASE = 0x6c0c
    HOST_IDTR_BASE = 0x6c0e
    HOST_SYSENTER_ESP = 0x6c10
    HOST_SYSENTER_EIP = 0x6c12
    HOST_RSP = 0x6c14
    HOST_RIP = 0x6c16
    HOST_S_CET = 0x6c18
    HOST_SSP = 0x6c1a
    HOST_INTR_SSP_TABLE = 0x6c1c

cdef inline int field_width(uint32_t field) noexcept nogil:
    return (field >> 13) & 3

cdef inline int field_type(uint32_t field) noexcept nogil:
    return (field >> 10) & 3

cdef inline int field_group(uint32_t field) noexcept nogil:
    """Width * 4 + type: the row of the field's array."""
    return field_width(field) << 2 | field_type(field)

cdef inline int field_index(uint32_t field) noexcept nogil:
    return (field >> 1) & 0x1ff

cdef inline uint64_t first_indexes(int n) noexcept nogil:
    return (<uint64_t>1 << n) - 1

cdef inline uint64_t group_indexes(int group) noexcept nogil:
    """The indexes that exist in a group, as a bit mask: appendix B read by rows."""
    if group == WIDTH_16 << 2 | TYPE_CONTROL: return first_indexes(5)
    if group == WIDTH_16 << 2 | TYPE_GUEST: return first_indexes(11)
    if group == WIDTH_16 << 2 | TYPE_HOST: return first_indexes(7)
    if group == WIDTH_64 << 2 | TYPE_CONTROL: return first_indexes(35) | <uint64_t>3 << 37
    if group == WIDTH_64 << 2 | TYPE_READ_ONLY: return first_indexes(1)
    if group == WIDTH_64 << 2 | TYPE_GUEST: return first_indexes(13)
    if group == WIDTH_64 << 2 | TYPE_HOST: return first_indexes(4)
    if group == WIDTH_32 << 2 | TYPE_CONTROL: return first_indexes(19)
    if group == WIDTH_32 << 2 | TYPE_READ_ONLY: return first_indexes(8)
    if group == WIDTH_32 << 2 | TYPE_GUEST: return first_indexes(22) | <uint64_t>1 << 23
    if group == WIDTH_32 << 2 | TYPE_HOST: return first_indexes(1)
    if group == WIDTH_NATURAL << 2 | TYPE_CONTROL: return first_indexes(8)
    if group == WIDTH_NATURAL << 2 | TYPE_READ_ONLY: return first_indexes(6)
    if group == WIDTH_NATURAL << 2 | TYPE_GUEST: return first_indexes(23)
    if group == WIDTH_NATURAL << 2 | TYPE_HOST: return first_indexes(15)
    return 0                 # there is no 16-bit read-only field

cdef inline bint field_exists(uint32_t field) noexcept nogil:
    """A field of appendix B; the odd encoding exists only where there is a high half."""
    if field & ~<uint32_t>0x6fff or field_index(field) >= N_FIELD_INDEXES:
        return False
    if field & 1 and field_width(field) != WIDTH_64:
        return False
    return (group_indexes(field_group(field)) >> field_index(field)) & 1

cdef inline uint64_t field_mask(uint32_t field) noexcept nogil:
    """The bits that the field holds (of the whole field, for a high half)."""
    if field_width(field) == WIDTH_16: return 0xffff
    if field_width(field) == WIDTH_32: return 0xffffffffULL
    return ~<uint64_t>0
