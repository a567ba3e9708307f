# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks of VMRUN (APM 2 15.5.1): plain functions of a VMCB.

Each returns the first rule that is broken, or RULE_NONE.  SVM asks much less of a guest than VMX: segments are not
looked at, and real-address mode, paged or not (15.19), is as good as any other.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.vmm.svm.codes cimport EXIT_VMRUN
from pyx86v.vmm.svm.rules cimport *
from pyx86v.vmm.svm.state cimport ATTRIBUTE_DB, ATTRIBUTE_L
from pyx86v.vmm.svm.vmcb cimport *

cdef enum:
    MSRPM_BYTES = 2 * 4096
    IOPM_BYTES = 3 * 4096
    EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_SVME
    CR4_KNOWN = (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
                 CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)

cdef inline bint pat_legal(uint64_t pat) noexcept nogil:
    """Each byte is one of the memory types 0 1 4 5 6 7 (APM 2 7.8.1)."""
    cdef int i
    cdef uint64_t kind
    for i in range(8):
        kind = pat >> 8 * i & 0xff
        if kind > 7 or kind == 2 or kind == 3:
            return False
    return True

cdef inline int check_registers(const Vmcb* v, uint32_t maxphyaddr) noexcept nogil:
    cdef bint long_paging = v.efer & EFER_LME != 0 and v.cr0 & CR0_PG != 0
    cdef uint32_t cs = v.segment[<int>SEG_CS].attributes
    if not v.efer & EFER_SVME: return RULE_SVME
    if not v.cr0 & CR0_CD and v.cr0 & CR0_NW: return RULE_CR0_CACHE
    if v.cr0 >> 32: return RULE_CR0_HIGH
    if v.cr3 >> maxphyaddr: return RULE_CR3
    if v.cr4 & ~<uint64_t>CR4_KNOWN: return RULE_CR4
    if v.dr6 >> 32: return RULE_DR6
    if v.dr7 >> 32: return RULE_DR7
    if v.efer & ~<uint64_t>EFER_KNOWN: return RULE_EFER
    if long_paging and not v.cr4 & CR4_PAE: return RULE_LONG_PAE
    if long_paging and not v.cr0 & CR0_PE: return RULE_LONG_PE
    if long_paging and cs & ATTRIBUTE_L and cs & ATTRIBUTE_DB: return RULE_LONG_CS
    return RULE_NONE

cdef inline int check_controls(const Vmcb* v, uint32_t maxphyaddr) noexcept nogil:
    if not v.instructions_2 & 1: return RULE_VMRUN_INTERCEPT
    if (v.msrpm_base + MSRPM_BYTES - 1) >> maxphyaddr or (v.iopm_base + IOPM_BYTES - 1) >> maxphyaddr: return RULE_MAPS
    if not v.asid: return RULE_ASID
    return RULE_NONE

cdef inline int check_injection(const Vmcb* v) noexcept nogil:
    """15.20: types 1 and 5 to 7 are reserved, exceptions are vectors 0 to 31 but NMI, and #BR and #OF do not occur in
    64-bit mode."""
    cdef int kind = <int>(v.eventinj >> 8 & 7), vector = <int>(v.eventinj & 0xff)
    cdef bint wide = v.efer & EFER_LMA != 0 and v.segment[<int>SEG_CS].attributes & ATTRIBUTE_L != 0
    if not v.eventinj & INJECT_VALID: return RULE_NONE
    if kind == 1 or kind > INJECT_SOFTWARE: return RULE_INJECT_TYPE
    if kind != INJECT_EXCEPTION: return RULE_NONE
    if vector > 31 or vector == VEC_NMI or (wide and (vector == VEC_BR or vector == VEC_OF)): return RULE_INJECT_VECTOR
    return RULE_NONE

cdef inline int check_nested(const Vmcb* v, uint32_t maxphyaddr) noexcept nogil:
    if not v.np_control & NP_ENABLE: return RULE_NONE
    if v.n_cr3 >> maxphyaddr: return RULE_N_CR3
    if not pat_legal(v.g_pat): return RULE_G_PAT
    return RULE_NONE

cdef inline int check_vmrun(const Vmcb* v, uint32_t maxphyaddr) noexcept nogil:
    """All rules: the first that is broken, or RULE_NONE."""
    cdef int rule = check_registers(v, maxphyaddr)
    if not rule:
        rule = check_controls(v, maxphyaddr)
    if not rule:
        rule = check_injection(v)
    return rule if rule else check_nested(v, maxphyaddr)
