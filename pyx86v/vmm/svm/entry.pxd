# SPDX-License-Identifier: GPL-2.0-or-later
"""VMRUN (APM 2 15.5.1): price, checks, what it loads, and the account of the exit that it ends.

Checks have no effect when they pass, so they are made when the clean bits name a group that they read, and when an
event is injected.  The price does not depend on it.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport ENTRY, UNTAGGED_SWITCH, VM_ENTRY, VMLOAD, charge
from pyx86v.mmu.invalidate cimport INVEPT_CONTEXT, mmu_flush_all, mmu_flush_asid, mmu_invept
from pyx86v.vmm.account cimport exit_ends
from pyx86v.vmm.guest cimport Guest, STOP_ERROR
from pyx86v.vmm.paging cimport paging_refresh
from pyx86v.vmm.svm.checks cimport *
from pyx86v.vmm.svm.codes cimport EXIT_INVALID, KIND_INVALID
from pyx86v.vmm.svm.state cimport *

cdef inline void ask_flush(Guest* g, Vmcb* v) noexcept nogil:
    """What the next VMRUN is to drop, unless the monitor asks for more: everything on a processor without ASIDs."""
    v.tlb_control = TLB_NOTHING if g.cpu_vpid else TLB_FLUSH_ALL

cdef inline void flush_as_told(Guest* g, const Vmcb* v) noexcept nogil:
    """TLB_CONTROL (15.16.1).  The guest's nested translations have no other instruction that drops them."""
    if v.tlb_control == TLB_NOTHING:
        return
    if v.tlb_control == TLB_FLUSH_ALL:
        charge(g.ledger, ENTRY, UNTAGGED_SWITCH)
        mmu_flush_all(g.mmu)
    else:
        mmu_flush_asid(g.mmu, g.vcpu.paging.asid)
        if v.np_control & NP_ENABLE:
            mmu_invept(g.mmu, INVEPT_CONTEXT, v.n_cr3)
    g.cpu.flush(g.cpu)

cdef inline int vmrun_fails(Guest* g, Vmcb* v, int rule) noexcept nogil:
    """VMEXIT_INVALID.  The run's status is the rule's number."""
    svm_of(g).failed_rule = rule
    v.exitcode = <uint64_t>EXIT_INVALID
    g.vcpu.exits[KIND_INVALID].count += 1
    g.vcpu.stop_reason = STOP_ERROR
    g.vcpu.stop_status = rule
    return -1

cdef inline int vmrun(Guest* g) noexcept nogil:
    """VMLOAD and VMRUN.  0: the guest runs; -1: the VMCB is illegal, the run stops."""
    cdef Svm* x = svm_of(g)
    cdef Vmcb* v = vmcb_of(g)
    cdef int rule = RULE_NONE
    v.rax = g.cpu.gpr[RAX]                   # the monitor keeps them with the other general registers
    v.rsp = g.cpu.gpr[RSP]
    write_pdpt(g)
    charge(g.ledger, ENTRY, VMLOAD)
    charge(g.ledger, ENTRY, VM_ENTRY)
    if v.clean & CLEAN_CHECKED != CLEAN_CHECKED or v.eventinj & INJECT_VALID:
        rule = check_vmrun(v, x.maxphyaddr)
    if x.host:
        exit_ends(g, x.kind)
    if rule:
        return vmrun_fails(g, v, rule)
    flush_as_told(g, v)
    if x.vmload:
        vmload(g, v)
    if load_guest(g, v):
        paging_refresh(g)
    v.clean = CLEAN_ALL
    ask_flush(g, v)
    x.vmload = False
    x.host = False
    return 0
