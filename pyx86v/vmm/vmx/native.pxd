# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event does that no control intercepts: the guest's processor carries it out itself."""
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.devices.platform cimport platform_ack
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.vmx.handlers cimport *
from pyx86v.vmm.vmx.intercept cimport field, secondary
from pyx86v.vmm.vmx.controls cimport SEC_INVPCID, SEC_RDTSCP
from pyx86v.vmm.vmx.fields cimport CR0_MASK

cdef inline int guest_reflect(Guest* g, Event* e) noexcept nogil:
    return REFLECT

cdef inline int guest_interrupt(Guest* g, Event* e) noexcept nogil:
    """No exit: the line waits for the window; or, without external-interrupt exiting, the guest takes it itself."""
    if not e.open or g.vcpu.line_seen:
        return RESUME
    e.vector = platform_ack(g.platform, guest_time(g))
    e.delivery = DELIVER_EXTERNAL
    return REFLECT

cdef inline int guest_rdtsc(Guest* g, Event* e) noexcept nogil:
    """RDTSCP is #UD unless the control enables it (25.3); the TSC offset is the clock's."""
    return undefined(e) if e.detail and not secondary(g, SEC_RDTSCP) else emul_rdtsc(g, e)

cdef inline int guest_invpcid(Guest* g, Event* e) noexcept nogil:
    return emul_invpcid(g, e) if secondary(g, SEC_INVPCID) else undefined(e)

cdef inline int guest_clts(Guest* g, Event* e) noexcept nogil:
    """CLTS on a TS that the monitor owns and shows as 0 does nothing (25.3)."""
    if field(g, CR0_MASK) & CR0_TS and not g.cpu.get(g.cpu, REG_CPL):
        return RESUME
    return emul_clts(g, e)

cdef inline int guest_cr_write(Guest* g, Event* e) noexcept nogil:
    """MOV to CR that loads PDPTEs from where the guest has no memory exits for them (26.3.2.4, 28.3.3.2)."""
    cdef int verdict = emul_cr_write(g, e)
    cdef Event load
    if e.qualification == 0:
        return verdict
    event_init(&load, EV_EPT_VIOLATION)
    load.gpa = e.gpa
    load.rip = e.rip
    vm_exit(g, &load, REASON_EPT_VIOLATION, e.qualification)
    monitor_reads(g)
    if exit_ept_violation(g, &load) == STOP or vm_entry(g) != 0:
        return STOP
    return verdict

cdef inline int guest_dr(Guest* g, Event* e) noexcept nogil:
    return general_protection(e) if g.cpu.get(g.cpu, REG_CPL) else emul_dr(g, e)

cdef inline int guest_permit(Guest* g, Event* e) noexcept nogil:
    """LTR: the engine loads the register itself."""
    return RESUME

cdef inline int guest_impossible(Guest* g, Event* e) noexcept nogil:
    """An event that always exits, or that the engine handles itself."""
    g.vcpu.stop_reason = STOP_ERROR
    return STOP

cdef inline void fill_native_table(handler_fn* t) noexcept:
    """The one list of what runs without the monitor, in the order of EventKind."""
    cdef int i
    for i in range(N_EVENTS):
        t[i] = guest_impossible
    t[EV_EXCEPTION] = guest_reflect
    t[EV_SOFTWARE_INT] = guest_reflect
    t[EV_INTERRUPT] = guest_interrupt
    t[EV_RDTSC] = guest_rdtsc
    t[EV_HLT] = emul_hlt
    t[EV_CR_WRITE] = guest_cr_write
    t[EV_CR_READ] = emul_cr_read
    t[EV_CLTS] = guest_clts
    t[EV_LMSW] = emul_lmsw
    t[EV_DR_WRITE] = guest_dr
    t[EV_DR_READ] = guest_dr
    t[EV_INVLPG] = emul_invlpg
    t[EV_INVPCID] = guest_invpcid
    t[EV_RDMSR] = emul_rdmsr
    t[EV_WRMSR] = emul_wrmsr
    t[EV_PORT_IN] = access_port
    t[EV_PORT_OUT] = access_port
    t[EV_WBINVD] = emul_nothing
    t[EV_INVD] = emul_nothing
    t[EV_DESCRIPTOR_LOAD] = guest_permit
    t[EV_XSETBV] = emul_undefined
    t[EV_RDPMC] = emul_undefined
    t[EV_MONITOR] = emul_undefined
    t[EV_VMX_INSN] = emul_undefined
