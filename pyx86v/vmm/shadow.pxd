# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow paging as the styles share it: from a fault of the processor's walk to what it really was.

A style's handler of EV_SHADOW_FAULT calls `shadow_resolve` and takes its exit around it.  The answer is in the event:

detail         ShadowStatus: an entry was made (walk again), the guest's own page fault (error), a device's page
               (gpa; the access itself exits, EV_MMIO_*), or one store that goes through at `target` without an entry
qualification  Drop: what the engine must drop of its own translations
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport hpa_t
from pyx86v.mmu.mmu cimport DROP_NOTHING
from pyx86v.mmu.shadow cimport ShadowAnswer, shadow_fault, shadow_host_wrote, shadow_init
from pyx86v.vmm.guest cimport Event, Guest
from pyx86v.vmm.paging cimport paging_refresh

cdef inline int shadow_start(Guest* g, hpa_t at, uint64_t size) noexcept nogil:
    """Shadow tables in [at, at + size) of the monitor's memory, in use from here on.  0, or -1: no room."""
    if shadow_init(g.shadow, g.ram, &g.vcpu.paging.window, at, size) != 0:
        return -1
    g.shadow.config.unsync_after = g.shadow_unsync
    g.vcpu.shadowing = True
    paging_refresh(g)
    return 0

cdef inline void shadow_written(Guest* g, hpa_t at, uint64_t n) noexcept nogil:
    """The host wrote n bytes of machine memory: it may have been a table of the guest's."""
    if g.vcpu.shadowing and shadow_host_wrote(g.shadow, g.mmu, g.ram, g.ledger, &g.vcpu.paging, &g.vcpu.hardware, at, n) != DROP_NOTHING:
        g.cpu.flush(g.cpu)

cdef inline int shadow_resolve(Guest* g, Event* e) noexcept nogil:
    """Find out what the fault is, and make the shadow entry if it was only missing.  Returns ShadowStatus."""
    cdef ShadowAnswer answer
    e.detail = shadow_fault(g.shadow, g.mmu, g.ram, g.ledger, &g.vcpu.paging, &g.vcpu.hardware, e.address, e.size,
                            e.access, e.privilege, &answer)
    e.gpa = answer.gpa
    e.target = answer.hpa
    e.qualification = <uint64_t>answer.drop
    e.error = answer.pfec
    return e.detail
