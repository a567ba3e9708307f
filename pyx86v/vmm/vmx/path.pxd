# SPDX-License-Identifier: GPL-2.0-or-later
"""The one path of an event under VT-x: intercepted? -> exit -> handler -> entry."""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.vmx.handlers cimport *
from pyx86v.vmm.vmx.intercept cimport intercept

cdef inline int enter(Guest* g, int verdict) noexcept nogil:
    """Back to the guest with the handler's verdict, unless it stopped the run, the entry fails, or the processor cannot
    run the guest in its state: then the monitor interprets it (shadow.pxd)."""
    cdef Vmx* x = vmx_of(g)
    if verdict == STOP:
        exit_ends(g, vmx_of(g).reason)
        return STOP
    if g.vcpu.shadowing and x.dirty and not enterable(g):
        if x.root:
            exit_ends(g, vmx_of(g).reason)
        x.root = False
        field_set(&x.vmcs, ENTRY_INTR_INFO, 0)
        g.vcpu.interpreting = True
        return verdict
    return verdict if vm_entry(g) == 0 else STOP

cdef inline int wake(Guest* g, Event* e) noexcept nogil:
    """The guest is halted in the monitor, which now has an event for it: no exit, only the entry.

    The HLT exit ends here; the time that was skipped is not part of it.
    """
    if e.kind == EV_INTERRUPT:
        return enter(g, offer_interrupt(g, e))
    return enter(g, RESUME)

cdef inline int vmx_path(Guest* g, Event* e, handler_fn* exits, handler_fn* native) noexcept nogil:
    """Answer an event by the VMCS's controls and the two tables."""
    cdef uint64_t qualification = 0
    cdef int reason, verdict
    if vmx_of(g).root and e.kind == EV_EPT_VIOLATION:
        return exits[REASON_EPT_VIOLATION](g, e)     # the monitor's own access to guest memory, for its handler
    if vmx_of(g).root:
        verdict = wake(g, e)
        if e.kind == EV_INTERRUPT or verdict == STOP:
            return verdict
    reason = intercept(g, e, &qualification)
    if reason == NO_EXIT:
        return native[e.kind](g, e)
    vm_exit(g, e, reason, qualification)
    monitor_reads(g)
    verdict = exits[reason](g, e)
    if reason == REASON_HLT and verdict == RESUME:
        return RESUME            # the processor stays in root operation until an event wakes the guest
    return enter(g, verdict)
