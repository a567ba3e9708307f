# SPDX-License-Identifier: GPL-2.0-or-later
"""AMD-V without nested paging: page faults and devices on shadow tables.

Whatever mode the guest is in, the processor runs it: with the shadow tables of an unpaged guest CR0.PG is on and PE is
the guest's own, which in real-address mode is paged real mode (APM 2 15.19).  Nothing needs to be interpreted.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM
from pyx86v.vmm.account cimport busy_units
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_resolve
from pyx86v.vmm.svm.handlers cimport *
from pyx86v.vmm.svm.path cimport enter
from pyx86v.vmm.svm.setup cimport intercept_on

cdef inline void use_shadow(Guest* g) noexcept nogil:
    """Turn on what keeps shadow tables in step: exits for page faults, MOV to and from CR3, INVLPG and INVPCID."""
    cdef Vmcb* v = vmcb_of(g)
    v.exceptions |= 1 << VEC_PF
    v.cr_reads |= 1 << 3
    v.cr_writes |= 1 << 3
    intercept_on(v, EXIT_INVLPG)
    intercept_on(v, EXIT_INVPCID)
    modified(v, CLEAN_INTERCEPTS)

cdef inline int inject_page_fault(Guest* g, Event* e) noexcept nogil:
    """The fault is the guest's own, with an error code of its tables' making."""
    cdef Vmcb* v = vmcb_of(g)
    v.cr2 = e.address
    modified(v, CLEAN_CR2)
    return inject_fault(g, e)

cdef inline int exit_shadow_fault(Guest* g, Event* e) noexcept nogil:
    """Each page fault exits.  The monitor walks the guest's tables: its own entry was missing, or a table is written
    (the monitor carries the store out and moves RIP, which the engine does by itself), or the fault is the guest's.
    shadow_resolve books that work."""
    cdef ExitInfo info
    cdef uint64_t began = busy_units(g.ledger)
    cdef int status
    info.info1 = e.error
    info.info2 = e.address
    status = shadow_resolve(g, e)
    if status == SHADOW_NO_RAM or svm_of(g).host:
        return RESUME                        # the access to the device exits; the monitor's own takes no exits
    vmexit(g, e, EXIT_EXCEPTION + VEC_PF, &info)
    g.vcpu.exit_started = began
    return enter(g, inject_page_fault(g, e) if status == SHADOW_FAULT else RESUME)

cdef inline int exit_page_fault(Guest* g, Event* e) noexcept nogil:
    """A device's page, which no shadow entry maps."""
    if e.kind == EV_MMIO_READ or e.kind == EV_MMIO_WRITE:
        return emulate_mmio(g, e)
    return exit_exception(g, e)
