# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor of a translated kernel does on each event: what that of a deprivileged one does (vmm/trap/handlers.pxd), but

- an exit of translated code is a call-out (`ring.callout`), not a fault;
- RDTSC runs in place;
- whatever tells the processor that the guest changed its tables has the space of translations chosen anew (cache.pxd).
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.sensitive cimport SENSITIVE_LAR, SENSITIVE_VERW
from pyx86v.arch.types cimport REFLECT, RESUME
from pyx86v.cost.ledger cimport *
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM
from pyx86v.vmm.bt.cache cimport Bt
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_resolve
from pyx86v.vmm.trap.exit cimport exit_closes, exit_opens, trap_exit, trap_return
from pyx86v.vmm.trap.handlers cimport (access_port, fill_trap_table, on_cr_write, on_invlpg, on_msr, on_port, on_rdtsc, on_task_switch,
                                       on_trap)
from pyx86v.vmm.trap.kinds cimport *

cdef enum:
    POST_PORT = 0x80         # of the manufacturer's diagnostics; software reads and writes it to wait a little

cdef inline void tables_changed(Guest* g) noexcept nogil:
    (<Bt*>g.style_state).recheck = 1

cdef inline int bt_cr_write(Guest* g, Event* e) noexcept nogil:
    tables_changed(g)
    return on_cr_write(g, e)

cdef inline int bt_invlpg(Guest* g, Event* e) noexcept nogil:
    tables_changed(g)
    return on_invlpg(g, e)

cdef inline int bt_msr(Guest* g, Event* e) noexcept nogil:
    tables_changed(g)
    return on_msr(g, e)

cdef inline int bt_task_switch(Guest* g, Event* e) noexcept nogil:
    tables_changed(g)
    return on_task_switch(g, e)

cdef inline int bt_rdtsc(Guest* g, Event* e) noexcept nogil:
    """In place when translated code meets it."""
    if g.vcpu.ring.step or g.vcpu.ring.callout or g.cpu.get(g.cpu, REG_CPL) != 0:
        return on_rdtsc(g, e)
    charge(g.ledger, EMULATION, BT_RDTSC)
    e.charge_insn = False
    return emul_rdtsc(g, e)

cdef inline int bt_trap(Guest* g, Event* e) noexcept nogil:
    """A call-out.  That of a port is booked with the access (bt_port).  The write of a page table that has been retranslated is
    simulated: it calls nothing, and its price does not depend on what the table is."""
    if e.detail == TRAP_PORT_IN or e.detail == TRAP_PORT_OUT:
        return RESUME
    if e.detail != TRAP_TABLE_WRITE:
        return on_trap(g, e)
    exit_opens(g, e.detail)
    charge(g.ledger, SHADOW, BT_TRACE)
    exit_closes(g, e.detail)
    return RESUME

cdef inline int bt_port(Guest* g, Event* e) noexcept nogil:
    """IN and OUT of translated code.  Port 80h is a byte of the virtual chipset's that nobody waits for; others are called out."""
    cdef int kind = TRAP_PORT_IN if e.kind == EV_PORT_IN else TRAP_PORT_OUT, verdict
    if e.string or not g.vcpu.ring.step or not g.vcpu.ring.callout:
        return on_port(g, e)
    if e.port == POST_PORT:
        exit_opens(g, kind)
        charge(g.ledger, EMULATION, BT_PORT)
        verdict = g.port_in(g, e) if e.kind == EV_PORT_IN else g.port_out(g, e)
    else:
        trap_exit(g, kind)
        charge(g.ledger, EMULATION, EMUL_OTHER)
        verdict = access_port(g, e)
    exit_closes(g, kind)
    return verdict

cdef inline int bt_shadow_fault(Guest* g, Event* e) noexcept nogil:
    """A fault while the monitor carries an instruction out has no exit of its own: the monitor walks before it accesses."""
    cdef uint64_t began = g.ledger.total
    cdef bint inside = g.vcpu.ring.step and g.vcpu.ring.callout
    cdef int status, kind
    g.shadow.simulated = inside and g.vcpu.ring.simulating
    status = shadow_resolve(g, e)
    g.shadow.simulated = 0
    kind = TRAP_PAGE_FAULT if status == SHADOW_FAULT else TRAP_HIDDEN_FAULT
    if status == SHADOW_NO_RAM or inside:
        return RESUME
    trap_exit(g, kind)
    g.vcpu.exit_started = began
    trap_return(g, kind)
    return RESUME

cdef inline int bt_hole(Guest* g, Event* e) noexcept nogil:
    """User code runs directly, and there the sensitive instructions that do not trap show the real state.  The monitor has
    looked at the code before it ran, and put a breakpoint on each of them, as Plex86 did (Lawton 1999): it traps.  LAR and
    its like do so even when they fail: natively they have read a descriptor, which leaves an accessed flag."""
    return REFLECT if e.qualification != 0 or SENSITIVE_LAR <= e.detail <= SENSITIVE_VERW else RESUME

cdef inline void fill_bt_table(handler_fn* t) noexcept:
    fill_trap_table(t)
    t[EV_CR_WRITE] = bt_cr_write
    t[EV_CLTS] = bt_cr_write
    t[EV_LMSW] = bt_cr_write
    t[EV_INVLPG] = bt_invlpg
    t[EV_INVPCID] = bt_invlpg
    t[EV_RDMSR] = bt_msr
    t[EV_WRMSR] = bt_msr
    t[EV_TASK_SWITCH] = bt_task_switch
    t[EV_RDTSC] = bt_rdtsc
    t[EV_TRAP] = bt_trap
    t[EV_PORT_IN] = bt_port
    t[EV_PORT_OUT] = bt_port
    t[EV_SHADOW_FAULT] = bt_shadow_fault
    t[EV_HOLE] = bt_hole
