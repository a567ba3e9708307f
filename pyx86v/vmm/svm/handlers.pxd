# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor does on each exit, and the table of it.

A handler finds the exit recorded in the VMCB and answers RESUME (done, the guest goes on behind the
instruction), REFLECT (the event, or the fault that it became, is injected) or STOP.  It pays for its own work: the
VMCB is memory, exit and VMRUN are booked around it.  What the instruction does is emulate.pxd's: the same code
as under every other style.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.cost.ledger cimport *
from pyx86v.devices.platform cimport platform_ack
from pyx86v.vmm.account cimport access_port
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.msr cimport MSR_EFER, MSR_PAT, MSR_TSC
from pyx86v.vmm.nested_map cimport map_fill
from pyx86v.vmm.svm.exit cimport *
from pyx86v.vmm.svm.intercept cimport intercepted

# Events ----------------------------------------------------------------------------------------

cdef inline int exit_exception(Guest* g, Event* e) noexcept nogil:
    """The guest's own exception (or INT3, INTO): inject it again.  EVENTINJ pushes the VMCB's RIP, which for a trap by an
    instruction has to be the next one."""
    cdef Vmcb* v = vmcb_of(g)
    charge(g.ledger, EMULATION, EMUL_EXCEPTION)
    if e.kind == EV_SOFTWARE_INT:
        v.rip = v.nrip
    if e.vector == VEC_PF:
        v.cr2 = v.exitinfo2
        modified(v, CLEAN_CR2)
    inject_event(g, INJECT_EXCEPTION, e.vector, e.has_error, <uint32_t>v.exitinfo1)
    return REFLECT

cdef inline int inject_interrupt(Guest* g, Event* e) noexcept nogil:
    """Acknowledge the interrupt controller and inject the vector (the guest is open)."""
    e.vector = platform_ack(g.platform, guest_time(g))
    e.has_error = False
    e.delivery = DELIVER_EXTERNAL
    g.vcpu.line_seen = False
    g.vcpu.window = False
    inject_event(g, INJECT_INTERRUPT, e.vector, False, 0)
    return REFLECT

cdef inline void set_window(Guest* g, bint on) noexcept nogil:
    """A virtual interrupt of the highest priority, whose only purpose is the exit that comes before it is taken."""
    cdef Vmcb* v = vmcb_of(g)
    if on:
        v.vintr |= V_IRQ | V_INTR_PRIO
        v.instructions_1 |= 1 << (EXIT_VINTR & 31)
    else:
        v.vintr &= ~<uint64_t>(V_IRQ | V_INTR_PRIO)
        v.instructions_1 &= ~<uint32_t>(1 << (EXIT_VINTR & 31))
    modified(v, CLEAN_VINTR | CLEAN_INTERCEPTS)

cdef inline int offer_interrupt(Guest* g, Event* e) noexcept nogil:
    """Inject now if IF and the shadow allow, else ask for the window."""
    charge(g.ledger, EMULATION, EMUL_INTERRUPT)
    if e.open:
        return inject_interrupt(g, e)
    g.vcpu.line_seen = True
    g.vcpu.window = True
    set_window(g, True)
    return RESUME

cdef inline int exit_intr(Guest* g, Event* e) noexcept nogil:
    return offer_interrupt(g, e)

cdef inline int exit_vintr(Guest* g, Event* e) noexcept nogil:
    set_window(g, False)
    charge(g.ledger, EMULATION, EMUL_INTERRUPT)
    return inject_interrupt(g, e)

cdef inline int exit_shutdown(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_OTHER)
    g.vcpu.stop_reason = STOP_SHUTDOWN
    return STOP

# Instructions ----------------------------------------------------------------------------------

cdef inline int exit_cpuid(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_CPUID)
    return finish(g, e, emul_cpuid(g, e))

cdef inline int exit_hlt(Guest* g, Event* e) noexcept nogil:
    """The monitor waits in place of the guest; VMRUN comes with what wakes it."""
    charge(g.ledger, EMULATION, EMUL_HLT)
    return finish(g, e, emul_hlt(g, e))

cdef inline int exit_cache(Guest* g, Event* e) noexcept nogil:
    """INVD and WBINVD."""
    charge(g.ledger, EMULATION, EMUL_OTHER)
    return finish(g, e, emul_nothing(g, e))

cdef inline int exit_invlpg(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_INVLPG)
    return finish(g, e, emul_invlpg(g, e))

cdef inline int exit_invpcid(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_INVLPG)
    return finish(g, e, emul_invpcid(g, e))

cdef inline int exit_rdtsc(Guest* g, Event* e) noexcept nogil:
    """RDTSC and RDTSCP."""
    charge(g.ledger, EMULATION, EMUL_RDTSC)
    return finish(g, e, emul_rdtsc(g, e))

cdef inline int exit_undefined(Guest* g, Event* e) noexcept nogil:
    """Not offered to guests: SVM's instructions (no nested virtualization, no hypercalls), RDPMC, MONITOR, XSETBV."""
    charge(g.ledger, EMULATION, EMUL_OTHER)
    return finish(g, e, emul_undefined(g, e))

# Control registers -----------------------------------------------------------------------------

cdef inline void write_efer(Guest* g) noexcept nogil:
    cdef Vmcb* v = vmcb_of(g)
    v.efer = real_efer(g, g.cpu.get(g.cpu, REG_EFER))
    modified(v, CLEAN_CR)

cdef inline void write_cr0(Guest* g) noexcept nogil:
    """Run the guest on the real CR0.  Only while that is not what the guest shall see do its accesses all exit; SVM has
    no read shadow.  EFER.LMA follows CR0.PG."""
    cdef Vmcb* v = vmcb_of(g)
    cdef uint64_t view = g.cpu.get(g.cpu, REG_CR0)
    cdef uint16_t exits = v.cr_reads & 1
    v.cr0 = real_cr0(g, view)
    v.cr_reads = v.cr_reads & ~<uint16_t>1 | (1 if v.cr0 != view else 0)
    v.cr_writes = v.cr_writes & ~<uint16_t>1 | (v.cr_reads & 1)
    write_efer(g)
    if exits != v.cr_reads & 1:
        modified(v, CLEAN_INTERCEPTS)

cdef inline void write_cr3_cr4(Guest* g) noexcept nogil:
    cdef Vmcb* v = vmcb_of(g)
    v.cr3 = real_cr3(g)
    v.cr4 = real_cr4(g, g.cpu.get(g.cpu, REG_CR4))
    modified(v, CLEAN_CR)

cdef inline int emul_cr(Guest* g, Event* e) noexcept nogil:
    """What shares the exit codes of a control register."""
    if e.kind == EV_CR_READ:
        return emul_cr_read(g, e)
    if e.kind == EV_CLTS:
        return emul_clts(g, e)
    return emul_lmsw(g, e) if e.kind == EV_LMSW else emul_cr_write(g, e)

cdef inline int exit_cr(Guest* g, Event* e) noexcept nogil:
    cdef int verdict
    charge(g.ledger, EMULATION, EMUL_CR)
    verdict = emul_cr(g, e)
    if verdict == RESUME and e.kind != EV_CR_READ:
        write_cr0(g)
        write_cr3_cr4(g)
    return finish(g, e, verdict)

cdef inline int exit_dr(Guest* g, Event* e) noexcept nogil:
    cdef Vmcb* v = vmcb_of(g)
    cdef int verdict
    charge(g.ledger, EMULATION, EMUL_CR)
    verdict = emul_dr(g, e)
    if verdict == RESUME and e.kind == EV_DR_WRITE:
        v.dr6 = g.cpu.get(g.cpu, REG_DR6) & <uint64_t>LOW_32
        v.dr7 = g.cpu.get(g.cpu, REG_DR7) & <uint64_t>LOW_32
        modified(v, CLEAN_DR)
    return finish(g, e, verdict)

cdef inline int exit_task_switch(Guest* g, Event* e) noexcept nogil:
    """Task switches exit (15.14.1).  The monitor makes them in the guest's memory, and the VMCB gets the new task's state."""
    cdef Vmcb* v = vmcb_of(g)
    cdef int verdict
    charge(g.ledger, EMULATION, EMUL_DESCRIPTOR)
    verdict = g.switch_task(g, e)
    e.charge_insn = False
    if verdict != STOP:
        save_guest(g, v)
        vmsave(g, v)
        write_cr0(g)
        write_cr3_cr4(g)
        modified(v, CLEAN_SEGMENTS | CLEAN_DR)
    return inject_fault(g, e) if verdict == REFLECT else verdict

# MSRs, ports, memory ---------------------------------------------------------------------------

cdef inline void write_msr_fields(Guest* g, uint32_t msr) noexcept nogil:
    """What of the VMCB an emulated WRMSR changes."""
    cdef Vmcb* v = vmcb_of(g)
    if msr == MSR_EFER:
        write_efer(g)
    elif msr == MSR_TSC:
        v.tsc_offset = g.vcpu.tsc_offset
        modified(v, CLEAN_INTERCEPTS)
    elif msr == MSR_PAT:
        v.g_pat = g.cpu.get(g.cpu, REG_PAT)
        modified(v, CLEAN_NP)
    else:
        vmsave(g, v)

cdef inline int exit_msr(Guest* g, Event* e) noexcept nogil:
    """RDMSR and WRMSR share the code."""
    cdef int verdict
    charge(g.ledger, EMULATION, EMUL_MSR)
    if e.kind == EV_RDMSR:
        return finish(g, e, emul_rdmsr(g, e))
    verdict = emul_wrmsr(g, e)
    if verdict == RESUME:
        write_msr_fields(g, <uint32_t>e.reg)
    return finish(g, e, verdict)

cdef inline int exit_ioio(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_IO)
    return finish(g, e, access_port(g, e))

cdef inline int emulate_mmio(Guest* g, Event* e) noexcept nogil:
    """Decode the guest's instruction and carry it out on the device."""
    charge(g.ledger, EMULATION, EMUL_MMIO)
    charge(g.ledger, DEVICE, MMIO_WRITE if e.kind == EV_MMIO_WRITE else MMIO_READ)
    return finish(g, e, g.mmio(g, e))

cdef inline int exit_npf(Guest* g, Event* e) noexcept nogil:
    """A device's page: emulate the access.  Guest memory that is not mapped yet: map it and try again.
    Neither, on the way through the guest's tables, at a fetch or for the processor itself: there is nothing, or firmware
    whose accessed flags are to be set, and the monitor finishes the access in the guest's place (`detail`)."""
    if e.kind == EV_MMIO_READ or e.kind == EV_MMIO_WRITE:
        return emulate_mmio(g, e)
    charge(g.ledger, EMULATION, EMUL_EPT)
    e.detail = e.gpa >= g.vcpu.paging.window.size
    if not e.detail and map_fill(&svm_of(g).npt, g.ram, &g.vcpu.paging.window, e.gpa) != 0:
        g.vcpu.stop_reason = STOP_ERROR
        return STOP
    e.retire = False
    return RESUME

cdef inline int exit_unexpected(Guest* g, Event* e) noexcept nogil:
    """An exit that the monitor never asked for: its own mistake."""
    g.vcpu.stop_reason = STOP_ERROR
    return STOP

cdef inline void fill_exit_table(handler_fn* t) noexcept:
    """The one list of what the monitor does on each exit.  The manual's order (appendix C)."""
    cdef int k
    for k in range(N_KINDS):
        t[k] = exit_unexpected
    for k in range(16):
        t[EXIT_READ_CR0 + k] = exit_cr
        t[EXIT_WRITE_CR0 + k] = exit_cr
        t[EXIT_READ_DR0 + k] = exit_dr
        t[EXIT_WRITE_DR0 + k] = exit_dr
    for k in range(32):
        t[EXIT_EXCEPTION + k] = exit_exception
    t[EXIT_INTR] = exit_intr
    t[EXIT_VINTR] = exit_vintr
    t[EXIT_CR0_SEL_WRITE] = exit_cr
    t[EXIT_RDTSC] = exit_rdtsc
    t[EXIT_RDPMC] = exit_undefined
    t[EXIT_CPUID] = exit_cpuid
    t[EXIT_INVD] = exit_cache
    t[EXIT_HLT] = exit_hlt
    t[EXIT_INVLPG] = exit_invlpg
    t[EXIT_INVLPGA] = exit_undefined
    t[EXIT_IOIO] = exit_ioio
    t[EXIT_MSR] = exit_msr
    t[EXIT_TASK_SWITCH] = exit_task_switch
    t[EXIT_SHUTDOWN] = exit_shutdown
    t[EXIT_VMRUN] = exit_undefined
    t[EXIT_VMMCALL] = exit_undefined
    t[EXIT_VMLOAD] = exit_undefined
    t[EXIT_VMSAVE] = exit_undefined
    t[EXIT_STGI] = exit_undefined
    t[EXIT_CLGI] = exit_undefined
    t[EXIT_SKINIT] = exit_undefined
    t[EXIT_RDTSCP] = exit_rdtsc
    t[EXIT_WBINVD] = exit_cache
    t[EXIT_MONITOR] = exit_undefined
    t[EXIT_MWAIT] = exit_undefined
    t[EXIT_XSETBV] = exit_undefined
    t[EXIT_INVPCID] = exit_invpcid
    t[KIND_NPF] = exit_npf
