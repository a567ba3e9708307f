# SPDX-License-Identifier: GPL-2.0-or-later
"""VM-entry checks on guest state (SDM 3C 26.3.1): plain functions of a VMCS.

Each function returns the first rule that is broken, or RULE_NONE.  A broken rule is an exit with
reason 33 and bit 31; `guest_qualification` gives its qualification.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.vmm.vmx.checks cimport *
from pyx86v.vmm.vmx.state cimport AR_DB, AR_G, AR_L, AR_P, AR_S, AR_UNUSABLE

cdef inline uint64_t rights_of(const Vmcs* v, int seg) noexcept nogil:
    return field_get(v, GUEST_ES_AR + 2 * seg)

cdef inline uint64_t base_of(const Vmcs* v, int seg) noexcept nogil:
    return field_get(v, GUEST_ES_BASE + 2 * seg)

cdef inline uint64_t selector_of(const Vmcs* v, int seg) noexcept nogil:
    return field_get(v, GUEST_ES_SELECTOR + 2 * seg)

cdef inline uint64_t limit_of(const Vmcs* v, int seg) noexcept nogil:
    return field_get(v, GUEST_ES_LIMIT + 2 * seg)

cdef inline bint usable(const Vmcs* v, int seg) noexcept nogil:
    return not rights_of(v, seg) & AR_UNUSABLE

cdef inline int dpl_of(const Vmcs* v, int seg) noexcept nogil:
    return <int>(rights_of(v, seg) >> 5 & 3)

cdef inline int rpl_of(const Vmcs* v, int seg) noexcept nogil:
    return <int>(selector_of(v, seg) & 3)

cdef inline bint in_ia32e(const Vmcs* v) noexcept nogil:
    return field_get(v, ENTRY_CONTROLS) & ENTRY_IA32E != 0

cdef inline bint in_v86(const Vmcs* v) noexcept nogil:
    return field_get(v, GUEST_RFLAGS) & FL_VM != 0

cdef inline bint is_unrestricted(const Vmcs* v) noexcept nogil:
    return secondary_controls(v) & SEC_UNRESTRICTED != 0

cdef inline bint granularity_bad(const Vmcs* v, int seg) noexcept nogil:
    """G must be 0 if a bit of limit 11:0 is 0, and 1 if a bit of limit 31:20 is 1."""
    cdef uint64_t limit = limit_of(v, seg)
    cdef bint g = rights_of(v, seg) & AR_G != 0
    return (limit & 0xfff != 0xfff and g) or (limit >> 20 != 0 and not g)

cdef inline int check_guest_control(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.3.1.1."""
    cdef uint64_t cr0 = field_get(v, GUEST_CR0), cr4 = field_get(v, GUEST_CR4), efer = field_get(v, GUEST_EFER)
    cdef uint64_t entry = field_get(v, ENTRY_CONTROLS), must = c.cr0_fixed0
    if is_unrestricted(v):
        must &= ~(CR0_PG | CR0_PE)
    if cr0 & must != must or cr0 & ~c.cr0_fixed1: return GUEST_RULE_CR0_FIXED
    if cr0 & CR0_PG and not cr0 & CR0_PE: return GUEST_RULE_PG_PE
    if cr4 & c.cr4_fixed0 != c.cr4_fixed0 or cr4 & ~c.cr4_fixed1: return GUEST_RULE_CR4_FIXED
    if entry & ENTRY_LOAD_DEBUG and field_get(v, GUEST_DEBUGCTL) & ~<uint64_t>0xffc3: return GUEST_RULE_DEBUGCTL
    if in_ia32e(v) and not (cr0 & CR0_PG and cr4 & CR4_PAE): return GUEST_RULE_IA32E_PAGING
    if not in_ia32e(v) and cr4 & CR4_PCIDE: return GUEST_RULE_PCIDE
    if field_get(v, GUEST_CR3) >> c.maxphyaddr: return GUEST_RULE_CR3
    if entry & ENTRY_LOAD_DEBUG and field_get(v, GUEST_DR7) >> 32: return GUEST_RULE_DR7
    if not canonical(v, GUEST_SYSENTER_ESP) or not canonical(v, GUEST_SYSENTER_EIP): return GUEST_RULE_SYSENTER
    if entry & ENTRY_LOAD_PAT and not pat_legal(field_get(v, GUEST_PAT)): return GUEST_RULE_PAT
    if entry & ENTRY_LOAD_EFER and efer & ~<uint64_t>0xd01: return GUEST_RULE_EFER_RESERVED
    if entry & ENTRY_LOAD_EFER and (efer & EFER_LMA != 0) != in_ia32e(v): return GUEST_RULE_EFER_LMA
    if entry & ENTRY_LOAD_EFER and cr0 & CR0_PG and efer & EFER_LMA != (efer & EFER_LME) << 2: return GUEST_RULE_EFER_LME
    return RULE_NONE

cdef inline int check_v86_segments(const Vmcs* v) noexcept nogil:
    """26.3.1.2 for a virtual-8086 guest: ES CS SS DS FS GS as the mode defines them."""
    cdef int seg
    for seg in range(SEG_LDTR):
        if base_of(v, seg) != selector_of(v, seg) << 4: return GUEST_RULE_V86_BASE
        if limit_of(v, seg) != 0xffff: return GUEST_RULE_V86_LIMIT
        if rights_of(v, seg) != 0xf3: return GUEST_RULE_V86_RIGHTS
    return RULE_NONE

cdef inline int check_code_segment(const Vmcs* v) noexcept nogil:
    """26.3.1.2: type, DPL and D/B of CS.  Type 3 is real-address mode under an unrestricted guest."""
    cdef uint64_t cs = rights_of(v, SEG_CS)
    cdef int kind = <int>(cs & 15), dpl = dpl_of(v, SEG_CS), ss = dpl_of(v, SEG_SS)
    if not (kind & 9 == 9 or (kind == 3 and is_unrestricted(v))): return GUEST_RULE_CS_TYPE
    if (kind == 3 and dpl != 0) or (kind & 13 == 9 and dpl != ss) or (kind & 13 == 13 and dpl > ss): return GUEST_RULE_CS_DPL
    if in_ia32e(v) and cs & AR_L and cs & AR_DB: return GUEST_RULE_CS_DB
    return RULE_NONE

cdef inline int check_stack_segment(const Vmcs* v) noexcept nogil:
    """26.3.1.2: type and DPL of SS."""
    cdef int kind = <int>(rights_of(v, SEG_SS) & 15), dpl = dpl_of(v, SEG_SS)
    cdef bint zero = rights_of(v, SEG_CS) & 15 == 3 or not field_get(v, GUEST_CR0) & CR0_PE
    if usable(v, SEG_SS) and kind != 3 and kind != 7: return GUEST_RULE_SS_TYPE
    if not is_unrestricted(v) and dpl != rpl_of(v, SEG_SS): return GUEST_RULE_SS_DPL_RPL
    if dpl and zero: return GUEST_RULE_SS_DPL_ZERO
    return RULE_NONE

cdef inline int check_data_segment(const Vmcs* v, int seg) noexcept nogil:
    """26.3.1.2: type and DPL of a usable DS, ES, FS or GS."""
    cdef int kind = <int>(rights_of(v, seg) & 15)
    if not kind & 1: return GUEST_RULE_DATA_ACCESSED
    if kind & 8 and not kind & 2: return GUEST_RULE_DATA_READABLE
    if not is_unrestricted(v) and kind < 12 and dpl_of(v, seg) < rpl_of(v, seg): return GUEST_RULE_DATA_DPL
    return RULE_NONE

cdef inline int check_segment_rights(const Vmcs* v, int seg) noexcept nogil:
    """26.3.1.2: S, P, reserved bits and G of a usable ES CS SS DS FS or GS."""
    cdef uint64_t rights = rights_of(v, seg)
    if not rights & AR_S: return GUEST_RULE_SEGMENT_S
    if not rights & AR_P: return GUEST_RULE_SEGMENT_P
    if rights & 0xfffe0f00ULL: return GUEST_RULE_SEGMENT_RESERVED
    if granularity_bad(v, seg): return GUEST_RULE_GRANULARITY
    return RULE_NONE

cdef inline int check_protected_segments(const Vmcs* v) noexcept nogil:
    """26.3.1.2 for any other guest."""
    cdef int seg, rule = check_code_segment(v)
    if not rule:
        rule = check_stack_segment(v)
    for seg in range(SEG_LDTR):
        if not rule and seg != SEG_CS and seg != SEG_SS and usable(v, seg):
            rule = check_data_segment(v, seg)
        if not rule and (seg == SEG_CS or usable(v, seg)):
            rule = check_segment_rights(v, seg)
    return rule

cdef inline int check_task_segment(const Vmcs* v) noexcept nogil:
    """26.3.1.2: TR."""
    cdef uint64_t rights = rights_of(v, SEG_TR)
    if not (rights & 15 == 11 or (rights & 15 == 3 and not in_ia32e(v))): return GUEST_RULE_TR_TYPE
    if rights & AR_S: return GUEST_RULE_TR_S
    if not rights & AR_P: return GUEST_RULE_TR_P
    if rights & 0xfffe0f00ULL: return GUEST_RULE_TR_RESERVED
    if granularity_bad(v, SEG_TR): return GUEST_RULE_TR_GRANULARITY
    if rights & AR_UNUSABLE: return GUEST_RULE_TR_UNUSABLE
    return RULE_NONE

cdef inline int check_local_table(const Vmcs* v) noexcept nogil:
    """26.3.1.2: a usable LDTR."""
    cdef uint64_t rights = rights_of(v, SEG_LDTR)
    if not usable(v, SEG_LDTR):
        return RULE_NONE
    if rights & 15 != 2: return GUEST_RULE_LDTR_TYPE
    if rights & AR_S: return GUEST_RULE_LDTR_S
    if not rights & AR_P: return GUEST_RULE_LDTR_P
    if rights & 0xfffe0f00ULL: return GUEST_RULE_LDTR_RESERVED
    if granularity_bad(v, SEG_LDTR): return GUEST_RULE_LDTR_GRANULARITY
    return RULE_NONE

cdef inline int check_selectors_and_bases(const Vmcs* v) noexcept nogil:
    """26.3.1.2: selectors and base addresses, whatever the mode."""
    cdef bint v86 = in_v86(v)
    cdef int seg
    if selector_of(v, SEG_TR) & 4: return GUEST_RULE_TR_TI
    if usable(v, SEG_LDTR) and selector_of(v, SEG_LDTR) & 4: return GUEST_RULE_LDTR_TI
    if not v86 and not is_unrestricted(v) and rpl_of(v, SEG_SS) != rpl_of(v, SEG_CS): return GUEST_RULE_SS_RPL
    if not canonical(v, GUEST_TR_BASE): return GUEST_RULE_BASE_CANONICAL
    if not canonical(v, GUEST_FS_BASE) or not canonical(v, GUEST_GS_BASE): return GUEST_RULE_BASE_CANONICAL
    if usable(v, SEG_LDTR) and not canonical(v, GUEST_LDTR_BASE): return GUEST_RULE_BASE_CANONICAL
    if base_of(v, SEG_CS) >> 32: return GUEST_RULE_BASE_32
    for seg in range(SEG_FS):        # ES SS DS
        if seg != SEG_CS and usable(v, seg) and base_of(v, seg) >> 32: return GUEST_RULE_BASE_32
    return RULE_NONE

cdef inline int check_guest_segments(const Vmcs* v) noexcept nogil:
    """SDM 3C 26.3.1.2."""
    cdef int rule = check_selectors_and_bases(v)
    if not rule:
        rule = check_v86_segments(v) if in_v86(v) else check_protected_segments(v)
    if not rule:
        rule = check_task_segment(v)
    return rule if rule else check_local_table(v)

cdef inline int check_guest_tables(const Vmcs* v) noexcept nogil:
    """SDM 3C 26.3.1.3."""
    if not canonical(v, GUEST_GDTR_BASE) or not canonical(v, GUEST_IDTR_BASE): return GUEST_RULE_TABLE_BASE
    if field_get(v, GUEST_GDTR_LIMIT) >> 16 or field_get(v, GUEST_IDTR_LIMIT) >> 16: return GUEST_RULE_TABLE_LIMIT
    return RULE_NONE

cdef inline bint injects(const Vmcs* v, int kind) noexcept nogil:
    """The entry injects an event of this interruption type."""
    cdef uint64_t info = field_get(v, ENTRY_INTR_INFO)
    return info & INTR_VALID != 0 and <int>(info >> 8 & 7) == kind

cdef inline int check_guest_rip(const Vmcs* v) noexcept nogil:
    """SDM 3C 26.3.1.4.  In 64-bit code bits 63:48 of RIP must be equal; bit 47 need not equal them."""
    cdef uint64_t rip = field_get(v, GUEST_RIP), flags = field_get(v, GUEST_RFLAGS)
    cdef bint code64 = in_ia32e(v) and rights_of(v, SEG_CS) & AR_L
    if not code64 and rip >> 32: return GUEST_RULE_RIP_32
    if code64 and rip >> 48 != 0 and rip >> 48 != 0xffff: return GUEST_RULE_RIP_64
    if flags & ~<uint64_t>FL_ALL or not flags & FL_FIXED: return GUEST_RULE_RFLAGS_RESERVED
    if flags & FL_VM and (in_ia32e(v) or not field_get(v, GUEST_CR0) & CR0_PE): return GUEST_RULE_RFLAGS_VM
    if injects(v, INTR_EXTERNAL) and not flags & FL_IF: return GUEST_RULE_RFLAGS_IF
    return RULE_NONE

cdef inline bint wakes_halted(const Vmcs* v) noexcept nogil:
    """The events that may be injected into the HLT activity state: interrupts, NMI, #DB and #MC."""
    cdef int vector = <int>(field_get(v, ENTRY_INTR_INFO) & 0xff)
    if not field_get(v, ENTRY_INTR_INFO) & INTR_VALID or injects(v, INTR_EXTERNAL) or injects(v, INTR_NMI):
        return True
    return injects(v, INTR_EXCEPTION) and (vector == VEC_DB or vector == VEC_MC)

cdef inline int check_guest_shadow(const Vmcs* v) noexcept nogil:
    """26.3.1.5: interruptibility state (bit 0 STI, 1 MOV SS, 2 SMI, 3 NMI, 4 enclave)."""
    cdef uint64_t s = field_get(v, GUEST_INTERRUPTIBILITY)
    cdef bint virtual_nmis = field_get(v, PIN_BASED_CONTROLS) & PIN_VIRTUAL_NMIS != 0
    if s >> 4: return GUEST_RULE_SHADOW_RESERVED
    if s & 3 == 3: return GUEST_RULE_SHADOW_BOTH
    if s & 1 and not field_get(v, GUEST_RFLAGS) & FL_IF: return GUEST_RULE_SHADOW_IF
    if s & 3 and injects(v, INTR_EXTERNAL): return GUEST_RULE_SHADOW_INTERRUPT
    if s & 2 and injects(v, INTR_NMI): return GUEST_RULE_SHADOW_NMI
    if s & 4: return GUEST_RULE_SHADOW_SMI               # entry outside SMM
    if s & 8 and injects(v, INTR_NMI) and virtual_nmis: return GUEST_RULE_SHADOW_VIRTUAL_NMI
    return RULE_NONE

cdef inline int check_guest_activity(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.3.1.5."""
    cdef uint64_t state = field_get(v, GUEST_ACTIVITY_STATE), pending = field_get(v, GUEST_PENDING_DEBUG)
    cdef uint64_t shadow = field_get(v, GUEST_INTERRUPTIBILITY) & 3
    cdef bint step = field_get(v, GUEST_RFLAGS) & FL_TF and not field_get(v, GUEST_DEBUGCTL) & 2
    cdef int rule
    if state > 3 or (state and not c.misc >> (5 + state) & 1): return GUEST_RULE_ACTIVITY
    if state == 1 and dpl_of(v, SEG_SS): return GUEST_RULE_HLT_DPL
    if state and shadow: return GUEST_RULE_ACTIVITY_SHADOW
    if state == 1 and not wakes_halted(v): return GUEST_RULE_HLT_EVENT
    rule = check_guest_shadow(v)
    if rule: return rule
    if pending & ~<uint64_t>0x1500f: return GUEST_RULE_PENDING_RESERVED
    if (shadow or state == 1) and (pending & 1 << 14 != 0) != step: return GUEST_RULE_PENDING_BS
    if field_get(v, VMCS_LINK_POINTER) != NO_VMCS: return GUEST_RULE_LINK_POINTER
    return RULE_NONE

cdef inline int check_guest_pdptes(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.3.1.6: present PDPTEs of a PAE guest under EPT have no reserved bit (SDM 3A 4.4.1)."""
    cdef bint pae = field_get(v, GUEST_CR0) & CR0_PG != 0 and field_get(v, GUEST_CR4) & CR4_PAE != 0 and not in_ia32e(v)
    cdef uint64_t entry
    cdef int i
    if not pae or not secondary_controls(v) & SEC_EPT:
        return RULE_NONE
    for i in range(4):
        entry = field_get(v, GUEST_PDPTE0 + 2 * i)
        if entry & 1 and (entry & 0x1e6 or entry >> c.maxphyaddr): return GUEST_RULE_PDPTE
    return RULE_NONE

cdef inline int check_guest(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """SDM 3C 26.3.1, all of it."""
    cdef int rule = check_guest_control(v, c)
    if not rule:
        rule = check_guest_segments(v)
    if not rule:
        rule = check_guest_tables(v)
    if not rule:
        rule = check_guest_rip(v)
    if not rule:
        rule = check_guest_activity(v, c)
    return rule if rule else check_guest_pdptes(v, c)

cdef inline uint64_t guest_qualification(int rule) noexcept nogil:
    """Exit qualification of a failed entry (26.7): 2 PDPTEs, 3 NMI under MOV SS, 4 link pointer."""
    if rule == GUEST_RULE_PDPTE: return 2
    if rule == GUEST_RULE_SHADOW_NMI: return 3
    if rule == GUEST_RULE_LINK_POINTER: return 4
    return 0
