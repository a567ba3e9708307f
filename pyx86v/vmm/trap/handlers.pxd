# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor of a deprivileged guest does on each event.

The events are those of a guest in ring 0, in the virtual state.  An event that comes while an instruction runs in the
virtual state (`ring.step`) belongs to the exit that EV_TRAP took for it.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport FL_IF, VEC_PF
from pyx86v.arch.types cimport REFLECT, RESUME, STOP, hpa_t
from pyx86v.cost.ledger cimport *
from pyx86v.devices.platform cimport platform_ack
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM, shadow_bytes
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.ring cimport *
from pyx86v.vmm.shadow cimport shadow_resolve, shadow_start
from pyx86v.vmm.trap.exit cimport *
from pyx86v.vmm.trap.kinds cimport *

# The guest's own events ------------------------------------------------------------------------

cdef inline int monitor_start(Guest* g, hpa_t at) noexcept nogil:
    """Shadow tables from `at` on.  Note the descriptor tables that the boot protocol left, so as to know when the guest has its own.
    0; -1: no room."""
    g.vcpu.ring.boot_gdtr = g.cpu.get(g.cpu, REG_GDTR_BASE) + g.cpu.get(g.cpu, REG_GDTR_LIMIT)
    g.vcpu.ring.boot_idtr = g.cpu.get(g.cpu, REG_IDTR_BASE) + g.cpu.get(g.cpu, REG_IDTR_LIMIT)
    if shadow_start(g, at, shadow_bytes(g.vcpu.paging.window.size)) != 0:
        return -1
    g.shadow.config.software = 1
    return 0

cdef inline void enter_kernel(Guest* g, int kind, bint by_trap) noexcept nogil:
    """To the guest's kernel: gate, segment and task state are read and the frame is pushed by software."""
    if not g.vcpu.ring.step and by_trap:
        trap_exit(g, kind)
    elif not g.vcpu.ring.step:
        exit_opens(g, kind)
    charge(g.ledger, EMULATION, EMUL_REFLECT)
    if not g.vcpu.ring.step:
        trap_return(g, kind)

cdef inline int reflect(Guest* g, int kind) noexcept nogil:
    enter_kernel(g, kind, True)
    return REFLECT

cdef inline int on_shadow_fault(Guest* g, Event* e) noexcept nogil:
    """Every page fault arrives at the monitor: an entry of its own was missing, a table is written, or it is the guest's."""
    cdef uint64_t began = g.ledger.total
    cdef int status = shadow_resolve(g, e)
    cdef int kind = TRAP_PAGE_FAULT if status == SHADOW_FAULT else TRAP_HIDDEN_FAULT
    if status == SHADOW_NO_RAM:
        return RESUME                        # the access to the device traps (EV_MMIO_*)
    trap_exit(g, kind)
    g.vcpu.exit_started = began
    trap_return(g, kind)
    return RESUME

cdef inline int on_exception(Guest* g, Event* e) noexcept nogil:
    """A page fault has had its exit (EV_SHADOW_FAULT), and this is its delivery."""
    if e.vector == VEC_PF and g.vcpu.shadowing:
        return REFLECT
    return reflect(g, TRAP_PAGE_FAULT if e.vector == VEC_PF else TRAP_EXCEPTION)

cdef inline int on_software_int(Guest* g, Event* e) noexcept nogil:
    return reflect(g, TRAP_SOFTWARE_INT)

cdef inline int on_syscall(Guest* g, Event* e) noexcept nogil:
    """SYSCALL and SYSENTER arrive at the monitor's entry point: the way in is the instruction itself, and priced as one.  The
    engine sets the guest's kernel up."""
    enter_kernel(g, TRAP_SYSCALL, False)
    return RESUME

cdef inline int on_external(Guest* g, Event* e) noexcept nogil:
    """The real IF is always set: the interrupt arrives at once, and waits in the monitor until the virtual IF allows it."""
    cdef bint arrives = not g.vcpu.line_seen and not g.vcpu.halted
    if arrives:
        trap_exit(g, TRAP_EXTERNAL)
        charge(g.ledger, EMULATION, EMUL_INTERRUPT)
        trap_return(g, TRAP_EXTERNAL)
    g.vcpu.line_seen = True
    if not e.open:
        return RESUME
    g.vcpu.line_seen = False
    charge(g.ledger, EMULATION, EMUL_REFLECT)
    e.vector = platform_ack(g.platform, guest_time(g))
    e.delivery = DELIVER_EXTERNAL
    return REFLECT

cdef inline int on_triple_fault(Guest* g, Event* e) noexcept nogil:
    g.vcpu.exits[TRAP_TRIPLE_FAULT].count += 1
    g.vcpu.stop_reason = STOP_SHUTDOWN
    return STOP

# Instructions that the engine runs in the virtual state -----------------------------------------

cdef inline int price_of(int kind) noexcept nogil:
    """What the monitor's own code for an instruction costs."""
    if kind == TRAP_SEGMENT or kind == TRAP_FAR or kind == TRAP_IRET or kind == TRAP_RETURN_TO_USER or kind == TRAP_V86:
        return EMUL_SEGMENT
    if kind == TRAP_TABLES:
        return EMUL_DESCRIPTOR
    if kind == TRAP_INTERRUPT_FLAG or kind == TRAP_SWAPGS or kind == TRAP_AC:
        return EMUL_FLAG
    if kind == TRAP_CR_READ or kind == TRAP_CR_WRITE or kind == TRAP_DR:
        return EMUL_CR
    return EMUL_RDTSC if kind == TRAP_RDTSC else EMUL_OTHER

cdef inline int on_trap(Guest* g, Event* e) noexcept nogil:
    """A privileged instruction, or one that wants the guest's descriptors.  One that only looks like it, because the guest
    runs into a #GP of its own, costs the same decoding."""
    trap_exit(g, e.detail)
    emulated(g, price_of(e.detail))
    trap_return(g, e.detail)
    return RESUME

# Instructions with a handler --------------------------------------------------------------------

cdef inline int carry(Guest* g, Event* e, int kind, int price, handler_fn emulate) noexcept nogil:
    """An exit around the emulation of one instruction."""
    cdef bint inside = g.vcpu.ring.step
    cdef int verdict
    if not inside:
        trap_exit(g, kind)
        emulated(g, price)
    verdict = emulate(g, e)
    e.charge_insn = False
    if verdict == REFLECT:
        charge(g.ledger, EMULATION, EMUL_REFLECT)
    if not inside:
        trap_return(g, kind)
    return verdict

cdef inline int write_cr0(Guest* g, Event* e) noexcept nogil:
    """MOV, CLTS and LMSW share the intercept."""
    if e.kind == EV_CLTS:
        return emul_clts(g, e)
    return emul_lmsw(g, e) if e.kind == EV_LMSW else emul_cr_write(g, e)

cdef inline int access_port(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, PORT_IN if e.kind == EV_PORT_IN else PORT_OUT)
    return g.port_in(g, e) if e.kind == EV_PORT_IN else g.port_out(g, e)

cdef inline int access_mmio(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, MMIO_WRITE if e.kind == EV_MMIO_WRITE else MMIO_READ)
    return g.mmio(g, e)

cdef inline int permit(Guest* g, Event* e) noexcept nogil:
    """LTR: the engine loads the register itself."""
    return RESUME

cdef inline int on_task_switch(Guest* g, Event* e) noexcept nogil:
    """The far transfer, or the event that goes through a task gate, has had its exit."""
    charge(g.ledger, EMULATION, EMUL_SEGMENT)
    e.charge_insn = False
    return g.switch_task(g, e)

cdef inline int on_cr_write(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_CR_WRITE, EMUL_CR, write_cr0)

cdef inline int on_cr_read(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_CR_READ, EMUL_CR, emul_cr_read)

cdef inline int on_msr(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_MSR, EMUL_MSR, emul_rdmsr if e.kind == EV_RDMSR else emul_wrmsr)

cdef inline int on_invlpg(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_INVLPG, EMUL_INVLPG, emul_invlpg if e.kind == EV_INVLPG else emul_invpcid)

cdef inline int on_hlt(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_HLT, EMUL_HLT, emul_hlt)

cdef inline int on_rdtsc(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_RDTSC, EMUL_RDTSC, emul_rdtsc)

cdef inline int on_cache(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_CACHE, EMUL_OTHER, emul_nothing)

cdef inline int on_undefined(Guest* g, Event* e) noexcept nogil:
    """Not offered to guests: XSETBV, RDPMC, MONITOR, VMX."""
    return carry(g, e, TRAP_UNDEFINED, EMUL_OTHER, emul_undefined)

cdef inline int on_task_register(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_TABLES, EMUL_DESCRIPTOR, permit)

cdef inline int on_port(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_PORT_IN if e.kind == EV_PORT_IN else TRAP_PORT_OUT, EMUL_IO, access_port)

cdef inline int on_mmio(Guest* g, Event* e) noexcept nogil:
    return carry(g, e, TRAP_MMIO, EMUL_MMIO, access_mmio)

# Holes --------------------------------------------------------------------------------------------

cdef inline void note_hole(Ring* r, Event* e) noexcept nogil:
    """Count the hole, by mnemonic and by address (the first MAX_HOLE_SITES addresses)."""
    cdef uint32_t i
    cdef HoleSite* s
    r.count[e.detail] += 1
    r.last_hole = <uint32_t>e.detail
    for i in range(r.site_count):
        if r.sites[i].address == e.address and r.sites[i].hole == <uint32_t>e.detail:
            break
    else:
        i = r.site_count
    r.last_site = i
    if i == MAX_HOLE_SITES:
        return
    s = &r.sites[i]
    if i == r.site_count:
        r.site_count += 1
        s.address = e.address
        s.hole = <uint32_t>e.detail
    s.count += 1
    s.effective += e.qualification != 0

cdef inline int on_hole(Guest* g, Event* e) noexcept nogil:
    """A sensitive instruction runs without the monitor.  The user's counts when it shows; ring 0's always."""
    cdef Ring* r = &g.vcpu.ring
    cdef bint effective = e.qualification != 0
    if r.cpl and not effective:
        return RESUME
    note_hole(r, e)
    if not effective or r.keep_on:
        return RESUME
    r.hole_address = e.address
    r.hole_seen = e.value
    r.hole_wanted = e.target
    g.vcpu.stop_reason = STOP_HOLE
    return STOP

# The table ------------------------------------------------------------------------------------------

cdef inline int impossible(Guest* g, Event* e) noexcept nogil:
    """An event that cannot occur under this style."""
    g.vcpu.stop_reason = STOP_ERROR
    return STOP

cdef inline void fill_trap_table(handler_fn* t) noexcept:
    """The one list of what the monitor does on each event, in the order of EventKind."""
    cdef int i
    for i in range(N_EVENTS):
        t[i] = impossible
    t[EV_EXCEPTION] = on_exception
    t[EV_SOFTWARE_INT] = on_software_int
    t[EV_INTERRUPT] = on_external
    t[EV_TRIPLE_FAULT] = on_triple_fault
    t[EV_CPUID] = emul_cpuid                 # does not trap
    t[EV_RDTSC] = on_rdtsc
    t[EV_HLT] = on_hlt
    t[EV_CR_WRITE] = on_cr_write
    t[EV_CR_READ] = on_cr_read
    t[EV_CLTS] = on_cr_write
    t[EV_LMSW] = on_cr_write
    t[EV_INVLPG] = on_invlpg
    t[EV_INVPCID] = on_invlpg
    t[EV_RDMSR] = on_msr
    t[EV_WRMSR] = on_msr
    t[EV_PORT_IN] = on_port
    t[EV_PORT_OUT] = on_port
    t[EV_MMIO_READ] = on_mmio
    t[EV_MMIO_WRITE] = on_mmio
    t[EV_WBINVD] = on_cache
    t[EV_INVD] = on_cache
    t[EV_DESCRIPTOR_LOAD] = on_task_register
    t[EV_XSETBV] = on_undefined
    t[EV_RDPMC] = on_undefined
    t[EV_MONITOR] = on_undefined
    t[EV_VMX_INSN] = on_undefined
    t[EV_SHADOW_FAULT] = on_shadow_fault
    t[EV_TRAP] = on_trap
    t[EV_SYSCALL] = on_syscall
    t[EV_HOLE] = on_hole
    t[EV_TASK_SWITCH] = on_task_switch
