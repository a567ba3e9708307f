# SPDX-License-Identifier: GPL-2.0-or-later
"""VM entry (SDM 3C chapter 26): price, checks, launch state, and the account of the exit that it ends.

Checks have no effect when they pass, so they are made when a field that they read was written: at the first
entry, and after the monitor wrote a control or guest field (`dirty`).  The price does not depend on it.
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.cpu cimport REG_CR0
from pyx86v.arch.regs cimport CR0_PE
from pyx86v.cost.ledger cimport ENTRY, EXIT, UNTAGGED_SWITCH, VM_ENTRY, charge
from pyx86v.mmu.invalidate cimport mmu_flush_asid
from pyx86v.vmm.account cimport busy_units, exit_begins, exit_ends
from pyx86v.vmm.guest cimport Guest, STOP_ERROR
from pyx86v.vmm.vmx.checks cimport *
from pyx86v.vmm.vmx.checks_guest cimport *
from pyx86v.vmm.vmx.reasons cimport *
from pyx86v.vmm.vmx.state cimport *

cdef inline void untagged_switch(Guest* g, int cause) noexcept nogil:
    """Without VPID every transition drops the linear and combined mappings (SDM 3C 28.4.3.1)."""
    if secondary_controls(&vmx_of(g).vmcs) & SEC_VPID:
        return
    charge(g.ledger, cause, UNTAGGED_SWITCH)
    mmu_flush_asid(g.mmu, g.vcpu.paging.asid)
    g.cpu.flush(g.cpu)

cdef inline int entry_checks(const Vmcs* v, const VmxCaps* c) noexcept nogil:
    """All rules in the manual's order: the first that is broken, or RULE_NONE."""
    cdef int rule = check_controls(v, c)
    if not rule:
        rule = check_host(v, c)
    return rule if rule else check_guest(v, c)

cdef inline int entry_failure(Guest* g, int rule) noexcept nogil:
    """VMfailValid (26.1) for controls and host state, an exit with reason 33 and bit 31 (26.7) for guest state.
    The run's status is the rule's number."""
    cdef Vmx* x = vmx_of(g)
    x.failed_rule = rule
    if rule <= HOST_LAST:
        field_set(&x.vmcs, VM_INSTR_ERROR, VMERR_ENTRY_CONTROLS if rule <= CTL_LAST else VMERR_ENTRY_HOST)
    else:
        field_set(&x.vmcs, EXIT_REASON, ENTRY_FAILURE | REASON_ENTRY_GUEST)
        field_set(&x.vmcs, EXIT_QUALIFICATION, guest_qualification(rule))
        g.vcpu.exits[REASON_ENTRY_GUEST].count += 1
    g.vcpu.stop_reason = STOP_ERROR
    g.vcpu.stop_status = rule
    return -1

cdef inline bint enterable(Guest* g) noexcept nogil:
    """Would an entry without unrestricted guests accept the mode and the segments?"""
    if not g.cpu.get(g.cpu, REG_CR0) & CR0_PE:
        return False
    sync_guest(g)
    return check_guest_segments(&vmx_of(g).vmcs) == RULE_NONE

cdef inline int vm_entry(Guest* g) noexcept nogil:
    """VMLAUNCH or VMRESUME, as the launch state asks.  0: the guest runs; -1: the entry failed, the run stops."""
    cdef Vmx* x = vmx_of(g)
    cdef int rule = RULE_NONE
    charge(g.ledger, ENTRY, VM_ENTRY)
    untagged_switch(g, ENTRY)
    if x.dirty:
        sync_guest(g)
        rule = entry_checks(&x.vmcs, &x.caps)
    elif field_get(&x.vmcs, ENTRY_INTR_INFO) & INTR_VALID:
        field_set(&x.vmcs, GUEST_CR0, guest_field(g, GUEST_CR0))
        rule = check_injection(&x.vmcs, &x.caps)
    if x.root:
        exit_ends(g, x.reason)
    if rule:
        return entry_failure(g, rule)
    x.dirty = False
    x.root = False
    x.vmcs.launch = LAUNCHED
    return 0
