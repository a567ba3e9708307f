# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor does on each exit, and the table of it.

A handler finds the exit recorded in the VMCS and answers RESUME (done, the guest goes on behind the
instruction), REFLECT (the event, or the fault that it became, is injected) or STOP.  It pays for each field
it touches and for its own work; exit and entry are booked around it.  What the instruction does is
emulate.pxd's: the same code as under every other style.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.cost.ledger cimport *
from pyx86v.devices.platform cimport platform_ack
from pyx86v.vmm.account cimport access_port
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.msr cimport MSR_EFER, MSR_TSC
from pyx86v.vmm.vmx.ept_map cimport ept_fill
from pyx86v.vmm.vmx.exit cimport *

cdef inline void monitor_reads(Guest* g) noexcept nogil:
    """What the monitor reads before it knows what happened."""
    vmread(g, EXIT_REASON)
    vmread(g, IDT_VECTORING_INFO)

# Events ----------------------------------------------------------------------------------------

cdef inline int exit_exception(Guest* g, Event* e) noexcept nogil:
    """The guest's own exception (or INT3, INTO): inject it again."""
    cdef uint32_t info = <uint32_t>vmread(g, EXIT_INTR_INFO)
    cdef uint32_t error = <uint32_t>vmread(g, EXIT_INTR_ERROR_CODE) if info & INTR_ERROR_CODE else 0
    cdef int kind = <int>(info >> 8 & 7)
    charge(g.ledger, EMULATION, EMUL_EXCEPTION)
    inject_event(g, kind, e.vector, info & INTR_ERROR_CODE != 0, error,
                 <int>vmread(g, EXIT_INSTR_LENGTH) if kind == INTR_SOFT_EXCEPTION else 0)
    return REFLECT

cdef inline int inject_interrupt(Guest* g, Event* e) noexcept nogil:
    """Acknowledge the interrupt controller and inject the vector (the guest is open)."""
    e.vector = platform_ack(g.platform, guest_time(g))
    e.has_error = False
    e.delivery = DELIVER_EXTERNAL
    g.vcpu.line_seen = False
    g.vcpu.window = False
    inject_event(g, INTR_EXTERNAL, e.vector, False, 0, 0)
    return REFLECT

cdef inline int offer_interrupt(Guest* g, Event* e) noexcept nogil:
    """Inject now if IF and the shadows allow, else ask for the window."""
    vmread(g, GUEST_RFLAGS)
    vmread(g, GUEST_INTERRUPTIBILITY)
    charge(g.ledger, EMULATION, EMUL_INTERRUPT)
    if e.open:
        return inject_interrupt(g, e)
    g.vcpu.line_seen = True
    g.vcpu.window = True
    set_window(g, True)
    return RESUME

cdef inline void set_window(Guest* g, bint on) noexcept nogil:
    """Interrupt-window exiting.  The control is legal either way: no new entry checks."""
    cdef Vmx* x = vmx_of(g)
    cdef bint dirty = x.dirty
    cdef uint64_t controls = proc_controls(&x.vmcs) & ~<uint64_t>PROC_INTERRUPT_WINDOW
    vmwrite(g, PROC_BASED_CONTROLS, controls | PROC_INTERRUPT_WINDOW if on else controls)
    x.dirty = dirty

cdef inline int exit_external_interrupt(Guest* g, Event* e) noexcept nogil:
    return offer_interrupt(g, e)

cdef inline int exit_interrupt_window(Guest* g, Event* e) noexcept nogil:
    set_window(g, False)
    charge(g.ledger, EMULATION, EMUL_INTERRUPT)
    return inject_interrupt(g, e)

cdef inline int exit_triple_fault(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_OTHER)
    g.vcpu.stop_reason = STOP_SHUTDOWN
    return STOP

# Instructions ----------------------------------------------------------------------------------

cdef inline int exit_cpuid(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_CPUID)
    return finish(g, e, emul_cpuid(g, e))

cdef inline int exit_hlt(Guest* g, Event* e) noexcept nogil:
    """The monitor waits in place of the guest; the entry comes with what wakes it."""
    charge(g.ledger, EMULATION, EMUL_HLT)
    return finish(g, e, emul_hlt(g, e))

cdef inline int exit_cache(Guest* g, Event* e) noexcept nogil:
    """INVD and WBINVD."""
    charge(g.ledger, EMULATION, EMUL_OTHER)
    return finish(g, e, emul_nothing(g, e))

cdef inline int exit_invlpg(Guest* g, Event* e) noexcept nogil:
    vmread(g, EXIT_QUALIFICATION)
    charge(g.ledger, EMULATION, EMUL_INVLPG)
    return finish(g, e, emul_invlpg(g, e))

cdef inline int exit_invpcid(Guest* g, Event* e) noexcept nogil:
    vmread(g, EXIT_QUALIFICATION)
    vmread(g, EXIT_INSTR_INFO)
    charge(g.ledger, EMULATION, EMUL_INVLPG)
    return finish(g, e, emul_invpcid(g, e))

cdef inline int exit_rdtsc(Guest* g, Event* e) noexcept nogil:
    """RDTSC and RDTSCP."""
    charge(g.ledger, EMULATION, EMUL_RDTSC)
    return finish(g, e, emul_rdtsc(g, e))

cdef inline int exit_undefined(Guest* g, Event* e) noexcept nogil:
    """Not offered to guests: VMX instructions (no nested virtualization, no hypercalls), RDPMC, MONITOR, XSETBV."""
    charge(g.ledger, EMULATION, EMUL_OTHER)
    return finish(g, e, emul_undefined(g, e))

# Control registers -----------------------------------------------------------------------------

cdef inline void fix_task_type(Guest* g) noexcept nogil:
    """IA-32e mode needs a busy 64-bit TSS in TR at entry; the guest loads its own later (26.3.1.2)."""
    cdef uint64_t rights = vmread(g, GUEST_TR_AR)
    if rights & AR_TYPE != 11:
        vmwrite(g, GUEST_TR_AR, (rights & ~<uint64_t>AR_TYPE) | 11)

cdef inline void follow_efer(Guest* g) noexcept nogil:
    """EFER.LMA changed: the IA-32e entry control and the guest's EFER follow it."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    cdef bint long_mode = g.cpu.get(g.cpu, REG_EFER) & EFER_LMA != 0
    cdef uint64_t controls = field_get(v, ENTRY_CONTROLS) & ~<uint64_t>ENTRY_IA32E
    vmwrite(g, GUEST_EFER, guest_field(g, GUEST_EFER))
    if long_mode != (field_get(v, ENTRY_CONTROLS) & ENTRY_IA32E != 0):
        vmwrite(g, ENTRY_CONTROLS, controls | ENTRY_IA32E if long_mode else controls)
        if long_mode:
            fix_task_type(g)

cdef inline void write_pdptes(Guest* g) noexcept nogil:
    """Under EPT a PAE guest's PDPTE registers are VMCS fields."""
    cdef int i
    if secondary_controls(&vmx_of(g).vmcs) & SEC_EPT and g.vcpu.paging.mode == PAGING_PAE:
        for i in range(4):
            vmwrite(g, <uint32_t>(GUEST_PDPTE0 + 2 * i), g.vcpu.paging.pdpte[i])

cdef inline void write_root(Guest* g) noexcept nogil:
    """Other paging registers may mean another shadow root."""
    if g.vcpu.shadowing and field_get(&vmx_of(g).vmcs, GUEST_CR3) != g.vcpu.hardware.cr3:
        vmwrite(g, GUEST_CR3, g.vcpu.hardware.cr3)

cdef inline void write_cr0(Guest* g, uint64_t old) noexcept nogil:
    """Show the guest its new CR0 and run it on the real one."""
    cdef uint64_t view = g.cpu.get(g.cpu, REG_CR0)
    vmwrite(g, CR0_READ_SHADOW, view)
    vmwrite(g, GUEST_CR0, real_cr0(g, view))
    write_root(g)
    if (view ^ old) & CR0_PG:
        write_pdptes(g)
        if g.cpu.get(g.cpu, REG_EFER) & EFER_LME:
            follow_efer(g)

cdef inline void write_cr4(Guest* g) noexcept nogil:
    cdef uint64_t view = g.cpu.get(g.cpu, REG_CR4)
    vmwrite(g, CR4_READ_SHADOW, view)
    vmwrite(g, GUEST_CR4, real_cr4(g, view))
    write_root(g)
    write_pdptes(g)

cdef inline int emul_cr(Guest* g, Event* e) noexcept nogil:
    """The four kinds of access that share the exit reason (table 27-3)."""
    if e.kind == EV_CR_READ:
        return emul_cr_read(g, e)
    if e.kind == EV_CLTS:
        return emul_clts(g, e)
    return emul_lmsw(g, e) if e.kind == EV_LMSW else emul_cr_write(g, e)

cdef inline int exit_cr(Guest* g, Event* e) noexcept nogil:
    cdef uint64_t old = g.cpu.get(g.cpu, REG_CR0)
    cdef bint writes0 = e.kind == EV_CLTS or e.kind == EV_LMSW or (e.kind == EV_CR_WRITE and e.reg == 0)
    cdef int verdict
    vmread(g, EXIT_QUALIFICATION)
    charge(g.ledger, EMULATION, EMUL_CR)
    verdict = emul_cr(g, e)
    if verdict == RESUME and writes0:
        write_cr0(g, old)
    elif verdict == RESUME and e.kind == EV_CR_WRITE and e.reg == 4:
        write_cr4(g)
    elif verdict == RESUME and e.kind == EV_CR_WRITE and e.reg == 3:
        vmwrite(g, GUEST_CR3, guest_field(g, GUEST_CR3))
    return finish(g, e, verdict)

cdef inline int exit_dr(Guest* g, Event* e) noexcept nogil:
    vmread(g, EXIT_QUALIFICATION)
    charge(g.ledger, EMULATION, EMUL_CR)
    return finish(g, e, emul_dr(g, e))

# MSRs, ports, memory ---------------------------------------------------------------------------

cdef inline int exit_rdmsr(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, EMULATION, EMUL_MSR)
    return finish(g, e, emul_rdmsr(g, e))

cdef inline int exit_wrmsr(Guest* g, Event* e) noexcept nogil:
    cdef int verdict
    charge(g.ledger, EMULATION, EMUL_MSR)
    verdict = emul_wrmsr(g, e)
    if verdict == RESUME and <uint32_t>e.reg == MSR_EFER:
        follow_efer(g)
    elif verdict == RESUME and e.reg == MSR_TSC:
        vmwrite(g, TSC_OFFSET, g.vcpu.tsc_offset)
    return finish(g, e, verdict)

cdef inline int exit_io(Guest* g, Event* e) noexcept nogil:
    vmread(g, EXIT_QUALIFICATION)
    charge(g.ledger, EMULATION, EMUL_IO)
    return finish(g, e, access_port(g, e))

cdef inline int emulate_mmio(Guest* g, Event* e) noexcept nogil:
    """Decode the guest's instruction and carry it out on the device."""
    charge(g.ledger, EMULATION, EMUL_MMIO)
    charge(g.ledger, DEVICE, MMIO_WRITE if e.kind == EV_MMIO_WRITE else MMIO_READ)
    return finish(g, e, g.mmio(g, e))

cdef inline int exit_ept_violation(Guest* g, Event* e) noexcept nogil:
    """A device's page: emulate the access.  Guest memory that is not mapped yet: map it and try again.
    Neither, on the way through the guest's tables, at a fetch or for the processor itself: there is nothing, or firmware
    whose accessed flags are to be set, and the monitor finishes the access in the guest's place (`detail`)."""
    vmread(g, EXIT_QUALIFICATION)
    vmread(g, GUEST_PHYSICAL_ADDRESS)
    if e.kind == EV_MMIO_READ or e.kind == EV_MMIO_WRITE:
        return emulate_mmio(g, e)
    charge(g.ledger, EMULATION, EMUL_EPT)
    e.detail = e.gpa >= g.vcpu.paging.window.size
    if not e.detail and ept_fill(g, e.gpa) != 0:
        g.vcpu.stop_reason = STOP_ERROR
        return STOP
    e.retire = False
    return RESUME

cdef inline int exit_task_switch(Guest* g, Event* e) noexcept nogil:
    """Task switches always exit (25.4.2).  The monitor makes them in the guest's memory and loads what changed."""
    cdef uint64_t old = g.cpu.get(g.cpu, REG_CR0)
    cdef int verdict
    vmread(g, EXIT_QUALIFICATION)
    charge(g.ledger, EMULATION, EMUL_DESCRIPTOR)
    verdict = g.switch_task(g, e)
    e.charge_insn = False
    if verdict != STOP:
        write_task(g, old)
    return inject_fault(g, e) if verdict == REFLECT else verdict

cdef inline void write_task(Guest* g, uint64_t old_cr0) noexcept nogil:
    """The new task's registers are in the processor already: write the fields as they are."""
    cdef uint32_t i
    write_cr0(g, old_cr0)
    if not g.vcpu.shadowing:
        vmwrite(g, GUEST_CR3, guest_field(g, GUEST_CR3))
        write_pdptes(g)
    for i in range(N_SEGS):
        write_back(g, GUEST_ES_SELECTOR + 2 * i)
        write_back(g, GUEST_ES_BASE + 2 * i)
        write_back(g, GUEST_ES_LIMIT + 2 * i)
        write_back(g, GUEST_ES_AR + 2 * i)
    write_back(g, GUEST_RIP)
    write_back(g, GUEST_RSP)
    write_back(g, GUEST_RFLAGS)
    write_back(g, GUEST_DR7)

cdef inline void write_back(Guest* g, uint32_t name) noexcept nogil:
    vmwrite(g, name, guest_field(g, name))

cdef inline int exit_unexpected(Guest* g, Event* e) noexcept nogil:
    """An exit that the monitor never asked for, a misconfigured EPT entry among them: its own mistake."""
    g.vcpu.stop_reason = STOP_ERROR
    return STOP

cdef inline void fill_exit_table(handler_fn* t) noexcept:
    """The one list of what the monitor does on each exit.  SDM order (appendix C)."""
    cdef int r
    for r in range(N_REASONS):
        t[r] = exit_unexpected
    t[REASON_EXCEPTION] = exit_exception
    t[REASON_EXTERNAL_INTERRUPT] = exit_external_interrupt
    t[REASON_TRIPLE_FAULT] = exit_triple_fault
    t[REASON_INTERRUPT_WINDOW] = exit_interrupt_window
    t[REASON_TASK_SWITCH] = exit_task_switch
    t[REASON_CPUID] = exit_cpuid
    t[REASON_HLT] = exit_hlt
    t[REASON_INVD] = exit_cache
    t[REASON_INVLPG] = exit_invlpg
    t[REASON_RDPMC] = exit_undefined
    t[REASON_RDTSC] = exit_rdtsc
    t[REASON_VMCALL] = exit_undefined
    t[REASON_VMCLEAR] = exit_undefined
    t[REASON_VMLAUNCH] = exit_undefined
    t[REASON_VMPTRLD] = exit_undefined
    t[REASON_VMPTRST] = exit_undefined
    t[REASON_VMREAD] = exit_undefined
    t[REASON_VMRESUME] = exit_undefined
    t[REASON_VMWRITE] = exit_undefined
    t[REASON_VMXOFF] = exit_undefined
    t[REASON_VMXON] = exit_undefined
    t[REASON_CR] = exit_cr
    t[REASON_DR] = exit_dr
    t[REASON_IO] = exit_io
    t[REASON_RDMSR] = exit_rdmsr
    t[REASON_WRMSR] = exit_wrmsr
    t[REASON_MWAIT] = exit_undefined
    t[REASON_MONITOR] = exit_undefined
    t[REASON_EPT_VIOLATION] = exit_ept_violation
    t[REASON_INVEPT] = exit_undefined
    t[REASON_RDTSCP] = exit_rdtsc
    t[REASON_INVVPID] = exit_undefined
    t[REASON_WBINVD] = exit_cache
    t[REASON_XSETBV] = exit_undefined
    t[REASON_INVPCID] = exit_invpcid
    t[REASON_VMFUNC] = exit_undefined
