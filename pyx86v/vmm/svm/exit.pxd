# SPDX-License-Identifier: GPL-2.0-or-later
"""#VMEXIT (APM 2 15.6): what the processor records, and what every exit costs.

0  The guest did something that a bit of the VMCB intercepts (intercept.pxd).
1  The processor saves the guest and records code, information and event: `vmexit`.  The monitor saves the rest
   (VMSAVE) and loads its own (VMLOAD), as KVM does at each exit.
2  The monitor's handler for the code reads the VMCB, works, writes the VMCB (handlers.pxd).
3  VMLOAD and VMRUN (entry.pxd).
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.cpu cimport REG_CR0
from pyx86v.arch.regs cimport CR0_PE, VEC_BP, VEC_OF, VEC_PF
from pyx86v.arch.types cimport REFLECT, RESUME
from pyx86v.cost.ledger cimport EXIT, VM_EXIT, VM_EXIT_EPT, VM_EXIT_PAGE_FAULT, VMLOAD, VMSAVE, charge
from pyx86v.vmm.account cimport exit_begins
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.svm.codes cimport *
from pyx86v.vmm.svm.entry cimport *

ctypedef struct ExitInfo:
    uint64_t info1
    uint64_t info2

cdef inline int exit_price(int code) noexcept nogil:
    if code == EXIT_NPF:
        return VM_EXIT_EPT
    return VM_EXIT_PAGE_FAULT if code == EXIT_EXCEPTION + VEC_PF else VM_EXIT

cdef inline bint has_nrip(const Event* e, int code) noexcept nogil:
    """nRIP is given for intercepted instructions and for INT3 and INTO, else it is 0 (15.7.1)."""
    if code < EXIT_EXCEPTION:
        return True
    if code < EXIT_INTR:
        return e.kind == EV_SOFTWARE_INT
    return EXIT_VINTR < code < EXIT_NPF and code != EXIT_SHUTDOWN and code != EXIT_TASK_SWITCH

cdef inline bint in_delivery(const Guest* g, int code) noexcept nogil:
    """Was an event being delivered through the guest's tables?  Then it is told too (15.7.2)."""
    return g.vcpu.depth and (code == EXIT_NPF or code == EXIT_TASK_SWITCH or EXIT_EXCEPTION <= code < EXIT_INTR)

cdef inline uint64_t delivered_event(const Vcpu* v) noexcept nogil:
    """EXITINTINFO: the event in EVENTINJ's format; INT3 and INTO are exceptions there (15.7.2)."""
    cdef int kind = INJECT_EXCEPTION
    if v.first_kind == DELIVER_EXTERNAL:
        kind = INJECT_INTERRUPT
    elif v.first_kind == DELIVER_INT_N and v.first_vector != VEC_BP and v.first_vector != VEC_OF:
        kind = INJECT_SOFTWARE
    return event_info(kind, v.first_vector, v.first_has_error, v.first_error)

cdef inline void vmexit(Guest* g, Event* e, int code, const ExitInfo* info) noexcept nogil:
    """The guest leaves for the monitor.  EVENTINJ has been used up."""
    cdef Svm* x = svm_of(g)
    cdef Vmcb* v = vmcb_of(g)
    x.kind = exit_kind(code)
    x.host = True
    exit_begins(g, x.kind)
    charge(g.ledger, EXIT, exit_price(code))
    charge(g.ledger, EXIT, VMSAVE)
    charge(g.ledger, EXIT, VMLOAD)
    save_guest(g, v)
    vmsave(g, v)
    v.exitcode = <uint64_t>code
    v.exitinfo1 = info.info1
    v.exitinfo2 = info.info2
    v.exitintinfo = delivered_event(g.vcpu) if in_delivery(g, code) else 0
    v.nrip = v.rip + <uint64_t>e.length if has_nrip(e, code) else 0
    v.eventinj = 0

# What monitors do around the work itself ------------------------------------------------------

cdef inline void skip_instruction(Guest* g, Event* e) noexcept nogil:
    """Move the guest behind the instruction that the monitor carried out, and out of an interrupt shadow.

    The engine moves its own RIP when it retires the instruction.  The guest's processor did not execute it.
    """
    cdef Vmcb* v = vmcb_of(g)
    v.rip = v.nrip if v.nrip else v.rip + <uint64_t>e.length
    v.interrupt_shadow = 0
    e.charge_insn = False

cdef inline void inject_event(Guest* g, int kind, int vector, bint has_error, uint32_t error) noexcept nogil:
    """Set the event that the next VMRUN injects (15.20).  In real-address mode no vector pushes an error code."""
    has_error = has_error and g.cpu.get(g.cpu, REG_CR0) & CR0_PE != 0
    vmcb_of(g).eventinj = event_info(kind, vector, has_error, error)

cdef inline int inject_fault(Guest* g, Event* e) noexcept nogil:
    """Raise the exception in the event at the next VMRUN: the engine delivers it."""
    e.delivery = DELIVER_EXCEPTION
    inject_event(g, INJECT_EXCEPTION, e.vector, e.has_error, e.error)
    return REFLECT

cdef inline int finish(Guest* g, Event* e, int verdict) noexcept nogil:
    """After an emulated instruction: skip it, or inject the fault that it raised."""
    if verdict == REFLECT:
        return inject_fault(g, e)
    if verdict == RESUME:
        skip_instruction(g, e)
    return verdict
