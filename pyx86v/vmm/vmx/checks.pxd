# SPDX-License-Identifier: GPL-2.0-or-later
"""VM-entry checks on controls and on host state (SDM 3C 26.2): plain functions of a VMCS.

Each function returns the first rule that is broken, or RULE_NONE.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.vmm.msr cimport is_canonical
from pyx86v.vmm.vmx.controls cimport *
from pyx86v.vmm.vmx.fields cimport *
from pyx86v.vmm.vmx.rules cimport *
from pyx86v.vmm.vmx.vmcs cimport *

cdef enum:                   # interruption types in bits 10:8 of the entry and exit fields (24.8.3, 24.9.2)
    INTR_EXTERNAL = 0
    INTR_RESERVED = 1
    INTR_NMI = 2
    INTR_EXCEPTION = 3
    INTR_SOFTWARE = 4
    INTR_PRIVILEGED = 5
    INTR_SOFT_EXCEPTION = 6
    INTR_OTHER = 7
    INTR_ERROR_CODE = 1 << 11

cdef extern from *:
    """
    #define PYX_INTR_VALID 0x80000000u
    """
    const uint32_t INTR_VALID "PYX_INTR_VALID"

cdef enum:                   # vectors that push an error code: DF TS NP SS GP PF AC
    VECTORS_WITH_ERROR = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17

cdef inline uint64_t proc_controls(const Vmcs* v) noexcept nogil:
    return field_get(v, PROC_BASED_CONTROLS)

cdef inline uint64_t secondary_controls(const Vmcs* v) noexcept nogil:
    """The secondary controls in force: all 0 while the primary ones do not activate them."""
    return field_get(v, SECONDARY_CONTROLS) if field_get(v, PROC_BASED_CONTROLS) & PROC_SECONDARY else 0

cdef inline bint bad_address(const Vmcs* v, const VmxCaps* c, uint32_t field, uint64_t low_bits) noexcept nogil:
    """One of `low_bits`, or a bit beyond the physical-address width, is set in an address field."""
    cdef uint64_t a = field_get(v, field)
    return a & low_bits != 0 or a >> c.maxphyaddr != 0

cdef inline bint bad_pair(const Vmcs* v, const VmxCaps* c, uint32_t first) noexcept nogil:
    """One of two page addresses in consecutive fields is illegal."""
    return bad_address(v, c, first, 0xfff) or bad_address(v, c, first + 2, 0xfff)

cdef inline bint bad_msr_area(const Vmcs* v, const VmxCaps* c, uint32_t count, uint32_t address) noexcept nogil:
    """An MSR area in use: 16-byte aligned, and its last byte within the physical-address width."""
    cdef uint64_t n = field_get(v, count)
    return n != 0 and (bad_address(v, c, address, 15) or (field_get(v, address) + n * 16 - 1) >> c.maxphyaddr != 0)

cdef inline bint canonical(const Vmcs* v, uint32_t field) noexcept nogil:
    return is_canonical(field_get(v, field))

cdef inline bint pat_legal(uint64_t pat) noexcept nogil:
    """Each byte is one of the memory types 0 1 4 5 6 7 (SDM 3A 11.12.2)."""
    cdef int i
    cdef uint64_t kind
    for i in range(8):
        kind = pat >> 8 * i & 0xff
        if kind > 7 or kind == 2 or kind == 3:
            return False
    return True

cdef inline int check_eptp(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """26.2.1.1, "enable EPT": the EPT pointer of 24.6.11."""
    cdef uint64_t p = field_get(v, EPT_POINTER)
    if not ((p & 7 == 6 and c.ept_vpid & EPT_CAP_WB) or (p & 7 == 0 and c.ept_vpid & EPT_CAP_UC)): return CTL_EPTP_TYPE
    if p >> 3 & 7 != 3 or not c.ept_vpid & EPT_CAP_LEVELS_4: return CTL_EPTP_LEVELS
    if p & 1 << 6 and not c.ept_vpid & EPT_CAP_AD: return CTL_EPTP_AD
    if p & 0xf80 or p >> c.maxphyaddr: return CTL_EPTP_RESERVED
    return RULE_NONE

cdef inline int check_virtual_apic(const Vmcs* v, const VmxCaps* c, uint64_t sec) noexcept nogil:
    """26.2.1.1, the local-APIC controls.  The virtual TPR is taken as 0: a threshold above it is illegal."""
    cdef bint tpr = proc_controls(v) & PROC_TPR_SHADOW != 0
    cdef uint64_t threshold = field_get(v, TPR_THRESHOLD)
    if tpr and bad_address(v, c, VIRTUAL_APIC_ADDR, 0xfff): return CTL_VIRTUAL_APIC
    if tpr and not sec & SEC_VIRTUAL_INTERRUPT and threshold >> 4: return CTL_TPR_THRESHOLD
    if tpr and not sec & (SEC_VIRTUAL_INTERRUPT | SEC_APIC_ACCESSES) and threshold & 15: return CTL_TPR_THRESHOLD_VTPR
    if sec & SEC_APIC_ACCESSES and bad_address(v, c, APIC_ACCESS_ADDR, 0xfff): return CTL_APIC_ACCESS
    if not tpr and sec & (SEC_X2APIC | SEC_APIC_REGISTERS | SEC_VIRTUAL_INTERRUPT): return CTL_APIC_WITHOUT_TPR
    if sec & SEC_X2APIC and sec & SEC_APIC_ACCESSES: return CTL_X2APIC
    return RULE_NONE

cdef inline int check_execution_controls(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.1.1."""
    cdef uint64_t pin = field_get(v, PIN_BASED_CONTROLS), proc = proc_controls(v), sec = secondary_controls(v)
    cdef bint posted_bad
    cdef int rule
    if not controls_allowed(pin, c.pin): return CTL_PIN_RESERVED
    if not controls_allowed(proc, c.proc): return CTL_PROC_RESERVED
    if proc & PROC_SECONDARY and not controls_allowed(sec, c.secondary): return CTL_SECONDARY_RESERVED
    if field_get(v, CR3_TARGET_COUNT) > (c.misc >> 16 & 0x1ff): return CTL_CR3_TARGETS
    if proc & PROC_IO_BITMAPS and bad_pair(v, c, IO_BITMAP_A): return CTL_IO_BITMAPS
    if proc & PROC_MSR_BITMAPS and bad_address(v, c, MSR_BITMAP, 0xfff): return CTL_MSR_BITMAPS
    rule = check_virtual_apic(v, c, sec)
    if rule: return rule
    if not pin & PIN_NMI and pin & PIN_VIRTUAL_NMIS: return CTL_VIRTUAL_NMIS
    if not pin & PIN_VIRTUAL_NMIS and proc & PROC_NMI_WINDOW: return CTL_NMI_WINDOW
    if sec & SEC_VIRTUAL_INTERRUPT and not pin & PIN_EXTERNAL_INTERRUPT: return CTL_VIRTUAL_INTERRUPT
    posted_bad = (not sec & SEC_VIRTUAL_INTERRUPT or not field_get(v, EXIT_CONTROLS) & EXIT_ACK_INTERRUPT or
                  field_get(v, POSTED_INTR_NV) > 255 or bad_address(v, c, POSTED_INTR_DESC_ADDR, 0x3f))
    if pin & PIN_POSTED_INTERRUPTS and posted_bad: return CTL_POSTED_INTERRUPTS
    if sec & SEC_VPID and not field_get(v, VPID): return CTL_VPID
    rule = check_eptp(v, c) if sec & SEC_EPT else RULE_NONE
    if rule: return rule
    if sec & SEC_PML and not sec & SEC_EPT: return CTL_PML_EPT
    if sec & SEC_PML and bad_address(v, c, PML_ADDRESS, 0xfff): return CTL_PML_ADDRESS
    if sec & SEC_UNRESTRICTED and not sec & SEC_EPT: return CTL_UNRESTRICTED_EPT
    if sec & SEC_VM_FUNCTIONS and field_get(v, VM_FUNCTION_CONTROLS): return CTL_VM_FUNCTIONS
    if sec & SEC_VMCS_SHADOWING and bad_pair(v, c, VMREAD_BITMAP): return CTL_SHADOW_BITMAPS
    if sec & SEC_EPT_VE and bad_address(v, c, VE_INFO_ADDR, 0xfff): return CTL_VE_ADDRESS
    return RULE_NONE

cdef inline int check_exit_controls(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.1.2."""
    cdef uint64_t controls = field_get(v, EXIT_CONTROLS)
    if not controls_allowed(controls, c.exit): return CTL_EXIT_RESERVED
    if controls & EXIT_SAVE_TIMER and not field_get(v, PIN_BASED_CONTROLS) & PIN_PREEMPTION_TIMER: return CTL_EXIT_TIMER
    if bad_msr_area(v, c, EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE_ADDR): return CTL_EXIT_MSR_STORE
    if bad_msr_area(v, c, EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD_ADDR): return CTL_EXIT_MSR_LOAD
    return RULE_NONE

cdef inline int check_injection(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.1.3, the event to be injected.  GUEST_CR0 must be up to date."""
    cdef uint64_t info = field_get(v, ENTRY_INTR_INFO), length = field_get(v, ENTRY_INSTR_LENGTH)
    cdef int kind = <int>(info >> 8 & 7), vector = <int>(info & 0xff)
    cdef bint protected = field_get(v, GUEST_CR0) & CR0_PE != 0 or not secondary_controls(v) & SEC_UNRESTRICTED
    cdef bint pushes = kind == INTR_EXCEPTION and vector < 32 and VECTORS_WITH_ERROR >> vector & 1 and protected
    cdef bint vector_bad = ((kind == INTR_NMI and vector != 2) or (kind == INTR_EXCEPTION and vector > 31) or
                            (kind == INTR_OTHER and vector != 0))
    cdef bint length_bad = length > 15 or (length == 0 and not c.misc >> 30 & 1)
    if not info & INTR_VALID:
        return RULE_NONE
    if kind == INTR_RESERVED or (kind == INTR_OTHER and not c.proc >> 32 & PROC_MONITOR_TRAP): return CTL_INJECT_TYPE
    if vector_bad: return CTL_INJECT_VECTOR
    if (info & INTR_ERROR_CODE != 0) != pushes: return CTL_INJECT_ERROR_BIT
    if info & 0x7ffff000: return CTL_INJECT_RESERVED
    if info & INTR_ERROR_CODE and field_get(v, ENTRY_ERROR_CODE) >> 16: return CTL_INJECT_ERROR_CODE
    if INTR_SOFTWARE <= kind <= INTR_SOFT_EXCEPTION and length_bad: return CTL_INJECT_LENGTH
    return RULE_NONE

cdef inline int check_entry_controls(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.1.3."""
    cdef uint64_t controls = field_get(v, ENTRY_CONTROLS)
    cdef int rule
    if controls & (ENTRY_SMM | ENTRY_DUAL_MONITOR): return CTL_ENTRY_SMM      # outside SMM both are 0
    if not controls_allowed(controls, c.entry): return CTL_ENTRY_RESERVED
    rule = check_injection(v, c)
    if rule: return rule
    if bad_msr_area(v, c, ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_ADDR): return CTL_ENTRY_MSR_LOAD
    return RULE_NONE

cdef inline int check_controls(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.1: a broken rule is VMfailValid, error 7."""
    cdef int rule = check_execution_controls(v, c)
    if not rule:
        rule = check_exit_controls(v, c)
    return rule if rule else check_entry_controls(v, c)

cdef inline int check_host_segments(const Vmcs* v, bint host64) noexcept nogil:
    """SDM 3C 26.2.3."""
    cdef uint32_t i
    for i in range(7):       # ES CS SS DS FS GS TR
        if field_get(v, HOST_ES_SELECTOR + 2 * i) & 7: return HOST_RULE_SELECTOR_BITS
    if not field_get(v, HOST_CS_SELECTOR): return HOST_RULE_CS_ZERO
    if not field_get(v, HOST_TR_SELECTOR): return HOST_RULE_TR_ZERO
    if not host64 and not field_get(v, HOST_SS_SELECTOR): return HOST_RULE_SS_ZERO
    for i in range(5):       # FS GS TR GDTR IDTR
        if not canonical(v, HOST_FS_BASE + 2 * i): return HOST_RULE_BASES
    return RULE_NONE

cdef inline int check_host(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.2.2 to 26.2.4, for a monitor in IA-32e mode: a broken rule is VMfailValid, error 8."""
    cdef uint64_t cr0 = field_get(v, HOST_CR0), cr4 = field_get(v, HOST_CR4), efer = field_get(v, HOST_EFER)
    cdef uint64_t exits = field_get(v, EXIT_CONTROLS), rip = field_get(v, HOST_RIP)
    cdef bint host64 = exits & EXIT_HOST_64 != 0, guest64 = field_get(v, ENTRY_CONTROLS) & ENTRY_IA32E != 0
    cdef uint64_t long_bits = EFER_LMA | EFER_LME if host64 else 0
    cdef int rule
    if cr0 & c.cr0_fixed0 != c.cr0_fixed0 or cr0 & ~c.cr0_fixed1: return HOST_RULE_CR0
    if cr4 & c.cr4_fixed0 != c.cr4_fixed0 or cr4 & ~c.cr4_fixed1: return HOST_RULE_CR4
    if field_get(v, HOST_CR3) >> c.maxphyaddr: return HOST_RULE_CR3
    if not canonical(v, HOST_SYSENTER_ESP) or not canonical(v, HOST_SYSENTER_EIP): return HOST_RULE_SYSENTER
    if exits & EXIT_LOAD_PAT and not pat_legal(field_get(v, HOST_PAT)): return HOST_RULE_PAT
    if exits & EXIT_LOAD_EFER and (efer & ~<uint64_t>0xd01 or efer & (EFER_LMA | EFER_LME) != long_bits): return HOST_RULE_EFER
    rule = check_host_segments(v, host64)
    if rule: return rule
    if not host64 and guest64: return HOST_RULE_32_GUEST_64
    if not host64 and cr4 & CR4_PCIDE: return HOST_RULE_32_PCIDE
    if not host64 and rip >> 32: return HOST_RULE_32_RIP
    if not host64: return HOST_RULE_ADDRESS_SIZE         # a processor in IA-32e mode needs the control
    if not cr4 & CR4_PAE: return HOST_RULE_64_PAE
    if not is_canonical(rip): return HOST_RULE_64_RIP
    return RULE_NONE
