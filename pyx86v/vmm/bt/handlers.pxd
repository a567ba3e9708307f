# SPDX-License-Identifier: GPL-2.0-or-later
"""What the monitor of a translated kernel does on each event: what that of a deprivileged one does (vmm/trap/handlers.pxd), but

- an exit of translated code is a call-out (`ring.callout`), not a fault;
- RDTSC runs in place;
- whatever tells the processor that the guest changed its tables has the space of translations chosen anew (cache.pxd).
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME
from pyx86v.cost.ledger cimport *
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM
from pyx86v.vmm.bt.cache cimport Bt
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_resolve
from pyx86v.vmm.trap.exit cimport trap_exit, trap_return
from pyx86v.vmm.trap.handlers cimport (fill_trap_table, on_cr_write, on_invlpg, on_msr, on_rdtsc, on_task_switch)
from pyx86v.vmm.trap.kinds cimport *

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

cdef inline int bt_shadow_fault(Guest* g, Event* e) noexcept nogil:
    """A fault while the monitor carries an instruction out has no exit of its own: the monitor walks before it accesses."""
    cdef uint64_t began = g.ledger.total
    cdef int status = shadow_resolve(g, e)
    cdef int kind = TRAP_PAGE_FAULT if status == SHADOW_FAULT else TRAP_HIDDEN_FAULT
    if status == SHADOW_NO_RAM or g.vcpu.ring.step and g.vcpu.ring.callout:
        return RESUME
    trap_exit(g, kind)
    g.vcpu.exit_started = began
    trap_return(g, kind)
    return RESUME

cdef inline int bt_hole(Guest* g, Event* e) noexcept nogil:
    """User code runs directly, and there the sensitive instructions that do not trap show the real state.  The monitor has
    looked at the code before it ran, and put a breakpoint on each of them, as Plex86 did (Lawton 1999): it traps."""
    return REFLECT if e.qualification != 0 else RESUME

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
    t[EV_SHADOW_FAULT] = bt_shadow_fault
    t[EV_HOLE] = bt_hole
