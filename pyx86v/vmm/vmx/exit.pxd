# SPDX-License-Identifier: GPL-2.0-or-later
"""VM exit (SDM 3C chapter 27): what the processor records, and what every exit costs.

0  The guest did something that a control intercepts (intercept.pxd).
1  The processor records reason, qualification, addresses, event and instruction information: `vm_exit`.
2  The monitor's handler for the reason reads fields, works, writes fields (handlers.pxd).
3  VM entry (entry.pxd).
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.cpu cimport REG_CR0
from pyx86v.arch.regs cimport CR0_PE, VEC_BP, VEC_OF, VEC_PF
from pyx86v.arch.types cimport REFLECT, RESUME
from pyx86v.cost.ledger cimport EXIT, VM_EXIT, VM_EXIT_EPT, VM_EXIT_PAGE_FAULT, charge
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.vmx.entry cimport *

cdef inline uint32_t event_info(int kind, int vector, bint has_error) noexcept nogil:
    """Interruption information: vector 7:0, type 10:8, error code valid 11, valid 31 (24.8.3, 24.9.2)."""
    return INTR_VALID | <uint32_t>(kind << 8) | <uint32_t>vector | (<uint32_t>INTR_ERROR_CODE if has_error else 0)

cdef inline int vectoring_kind(const Vcpu* v) noexcept nogil:
    """Type of the event whose delivery the exit cut short (24.9.3)."""
    if v.first_kind == DELIVER_EXTERNAL:
        return INTR_EXTERNAL
    if v.first_kind != DELIVER_INT_N:
        return INTR_EXCEPTION
    return INTR_SOFT_EXCEPTION if v.first_vector == VEC_BP or v.first_vector == VEC_OF else INTR_SOFTWARE

cdef inline void record_event(Guest* g, Event* e, int reason) noexcept nogil:
    """Exit-interruption information (27.2.2) and IDT-vectoring information (27.2.3)."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    cdef int kind = INTR_EXCEPTION
    cdef uint32_t info = 0
    if reason == REASON_EXCEPTION:
        if e.kind == EV_SOFTWARE_INT and (e.vector == VEC_BP or e.vector == VEC_OF):
            kind = INTR_SOFT_EXCEPTION
        info = event_info(kind, e.vector, e.has_error)
        if e.has_error:
            field_set(v, EXIT_INTR_ERROR_CODE, e.error)
    field_set(v, EXIT_INTR_INFO, info)
    info = 0
    if g.vcpu.depth and (reason == REASON_EXCEPTION or reason == REASON_EPT_VIOLATION or reason == REASON_EPT_MISCONFIG or
                         reason == REASON_TASK_SWITCH):
        info = event_info(vectoring_kind(g.vcpu), g.vcpu.first_vector, g.vcpu.first_has_error)
        field_set(v, IDT_VECTORING_ERROR_CODE, g.vcpu.first_error)
    field_set(v, IDT_VECTORING_INFO, info)

cdef inline void record_addresses(Guest* g, Event* e, int reason) noexcept nogil:
    """Guest-linear and guest-physical address, where the reason defines them (27.2.1)."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    if reason == REASON_EPT_VIOLATION or reason == REASON_EPT_MISCONFIG:
        field_set(v, GUEST_PHYSICAL_ADDRESS, e.gpa)
        field_set(v, GUEST_LINEAR_ADDRESS, e.address)
    elif reason == REASON_IO and e.string:
        field_set(v, GUEST_LINEAR_ADDRESS, e.address)    # of the string operand

cdef inline int exit_price(Event* e, int reason) noexcept nogil:
    if reason == REASON_EPT_VIOLATION or reason == REASON_EPT_MISCONFIG:
        return VM_EXIT_EPT
    if reason == REASON_EXCEPTION and e.vector == VEC_PF:
        return VM_EXIT_PAGE_FAULT
    return VM_EXIT

cdef inline void vm_exit(Guest* g, Event* e, int reason, uint64_t qualification) noexcept nogil:
    """The guest leaves for the monitor.  The fields that an entry uses up are cleared (27.2.5: the valid bit of
    the injected event)."""
    cdef Vmx* x = vmx_of(g)
    x.reason = reason
    x.root = True
    exit_begins(g, reason)
    charge(g.ledger, EXIT, exit_price(e, reason))
    untagged_switch(g, EXIT)
    field_set(&x.vmcs, EXIT_REASON, <uint64_t>reason)
    field_set(&x.vmcs, EXIT_QUALIFICATION, qualification)
    field_set(&x.vmcs, EXIT_INSTR_LENGTH, <uint64_t>e.length)
    field_set(&x.vmcs, ENTRY_INTR_INFO, field_get(&x.vmcs, ENTRY_INTR_INFO) & ~<uint64_t>INTR_VALID)
    field_set(&x.vmcs, EXIT_INSTR_INFO, e.insn_info)
    record_event(g, e, reason)
    record_addresses(g, e, reason)

# What monitors do around the work itself ------------------------------------------------------

cdef inline void skip_instruction(Guest* g, Event* e) noexcept nogil:
    """Move the guest behind the instruction that the monitor carried out.

    The VMWRITE of RIP is the monitor's, but the engine performs it when it retires the instruction; the
    interrupt shadow ends there too.  The guest's processor did not execute the instruction.
    """
    cdef Vmx* x = vmx_of(g)
    cdef uint64_t length = vmread(g, EXIT_INSTR_LENGTH), rip = vmread(g, GUEST_RIP)
    vmread(g, GUEST_INTERRUPTIBILITY)
    charge(g.ledger, VMCS, VMWRITE)
    x.writes += 1
    field_set(&x.vmcs, GUEST_RIP, rip + length)
    e.charge_insn = False

cdef inline void inject_event(Guest* g, int kind, int vector, bint has_error, uint32_t error, int length) noexcept nogil:
    """Set the event that the next entry injects (24.8.3).  In real-address mode no vector pushes an error code."""
    has_error = has_error and g.cpu.get(g.cpu, REG_CR0) & CR0_PE != 0
    if has_error:
        vmwrite(g, ENTRY_ERROR_CODE, error)
    if kind >= INTR_SOFTWARE and kind <= INTR_SOFT_EXCEPTION:
        vmwrite(g, ENTRY_INSTR_LENGTH, <uint64_t>length)
    vmwrite(g, ENTRY_INTR_INFO, event_info(kind, vector, has_error))

cdef inline int inject_fault(Guest* g, Event* e) noexcept nogil:
    """Raise the exception in the event at the next entry: the engine delivers it."""
    e.delivery = DELIVER_EXCEPTION
    inject_event(g, INTR_EXCEPTION, e.vector, e.has_error, e.error, 0)
    return REFLECT

cdef inline int finish(Guest* g, Event* e, int verdict) noexcept nogil:
    """After an emulated instruction: skip it, or inject the fault that it raised."""
    if verdict == REFLECT:
        return inject_fault(g, e)
    if verdict == RESUME:
        skip_instruction(g, e)
    return verdict
