# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `native`: the guest owns the machine.  The ground truth that every other style must equal.

Nothing exits.  The engine still intercepts sensitive instructions so that the modelled TLB and the
clock stay exact; the guest pays only what the instruction itself costs.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.cost.ledger cimport DEVICE, MMIO_READ, MMIO_WRITE, PORT_IN, PORT_OUT, SWITCH_TASK, charge
from pyx86v.devices.platform cimport platform_ack
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *

cdef int native_reflect(Guest* g, Event* e) noexcept nogil:
    return REFLECT

cdef int native_permit(Guest* g, Event* e) noexcept nogil:
    """LTR: the engine loads the register itself."""
    return RESUME

cdef int native_interrupt(Guest* g, Event* e) noexcept nogil:
    """INTR is up: taken when IF is set and no shadow is in force (SDM 3A 6.8)."""
    if not e.open:
        return RESUME
    e.vector = platform_ack(g.platform, guest_time(g))
    e.delivery = DELIVER_EXTERNAL
    return REFLECT

cdef int native_triple_fault(Guest* g, Event* e) noexcept nogil:
    g.vcpu.stop_reason = STOP_SHUTDOWN
    return STOP

cdef int native_port_in(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, PORT_IN)
    return g.port_in(g, e)

cdef int native_port_out(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, PORT_OUT)
    return g.port_out(g, e)

cdef int native_mmio(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, MMIO_WRITE if e.kind == EV_MMIO_WRITE else MMIO_READ)
    return g.mmio(g, e)

cdef int native_task_switch(Guest* g, Event* e) noexcept nogil:
    return g.switch_task(g, e)

cdef int native_impossible(Guest* g, Event* e) noexcept nogil:
    """An event that cannot occur under this style (EPT without EPT)."""
    g.vcpu.stop_reason = STOP_ERROR
    return STOP

cdef int native_start(Guest* g) noexcept nogil:
    return 0

cdef uint64_t native_monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return 0

cdef Style STYLE

cdef void fill(Style* s) noexcept:
    """The one list of what native does with each event, in the order of EventKind."""
    cdef int i
    s.name = b"native"
    s.start = native_start
    s.monitor_bytes = native_monitor_bytes
    s.switch_price = SWITCH_TASK
    for i in range(N_EVENTS):
        s.handlers[i] = native_impossible
    s.handlers[EV_EXCEPTION] = native_reflect
    s.handlers[EV_SOFTWARE_INT] = native_reflect
    s.handlers[EV_INTERRUPT] = native_interrupt
    s.handlers[EV_TRIPLE_FAULT] = native_triple_fault
    s.handlers[EV_CPUID] = emul_cpuid
    s.handlers[EV_RDTSC] = emul_rdtsc
    s.handlers[EV_HLT] = emul_hlt
    s.handlers[EV_CR_WRITE] = emul_cr_write
    s.handlers[EV_CR_READ] = emul_cr_read
    s.handlers[EV_CLTS] = emul_clts
    s.handlers[EV_LMSW] = emul_lmsw
    s.handlers[EV_INVLPG] = emul_invlpg
    s.handlers[EV_INVPCID] = emul_invpcid
    s.handlers[EV_RDMSR] = emul_rdmsr
    s.handlers[EV_WRMSR] = emul_wrmsr
    s.handlers[EV_PORT_IN] = native_port_in
    s.handlers[EV_PORT_OUT] = native_port_out
    s.handlers[EV_MMIO_READ] = native_mmio
    s.handlers[EV_MMIO_WRITE] = native_mmio
    s.handlers[EV_WBINVD] = emul_nothing
    s.handlers[EV_INVD] = emul_nothing
    s.handlers[EV_DESCRIPTOR_LOAD] = native_permit
    s.handlers[EV_XSETBV] = emul_undefined
    s.handlers[EV_RDPMC] = emul_undefined
    s.handlers[EV_MONITOR] = emul_undefined
    s.handlers[EV_VMX_INSN] = emul_undefined
    s.handlers[EV_TASK_SWITCH] = native_task_switch

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
