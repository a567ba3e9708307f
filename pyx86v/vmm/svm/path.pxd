# SPDX-License-Identifier: GPL-2.0-or-later
"""The one path of an event under AMD-V: intercepted? -> #VMEXIT -> handler -> VMRUN."""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.vmm.account cimport exit_ends
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.svm.handlers cimport *
from pyx86v.vmm.svm.intercept cimport intercept

cdef inline int enter(Guest* g, int verdict) noexcept nogil:
    """Back to the guest with the handler's verdict, unless it stopped the run or VMRUN fails."""
    if verdict == STOP:
        exit_ends(g, svm_of(g).kind)
        return STOP
    return verdict if vmrun(g) == 0 else STOP

cdef inline int wake(Guest* g, Event* e) noexcept nogil:
    """The guest is halted in the monitor, which now has an event for it: no exit, only VMRUN.

    The HLT exit ends here; the time that was skipped is not part of it.
    """
    if e.kind == EV_INTERRUPT:
        return enter(g, offer_interrupt(g, e))
    return enter(g, RESUME)

cdef inline bint is_event(const Event* e) noexcept nogil:
    """Not the fault of an instruction, but an event in the first place."""
    return e.kind == EV_EXCEPTION or e.kind == EV_SOFTWARE_INT or e.kind == EV_INTERRUPT

cdef inline int svm_path(Guest* g, Event* e, handler_fn* exits, handler_fn* native) noexcept nogil:
    """Answer an event by the VMCB and the two tables."""
    cdef ExitInfo info
    cdef int code, verdict
    if svm_of(g).host and e.kind == EV_EPT_VIOLATION:
        return exits[KIND_NPF](g, e)         # the monitor's own access to guest memory, for its handler
    if svm_of(g).host:
        verdict = wake(g, e)
        if e.kind == EV_INTERRUPT or verdict == STOP:
            return verdict
    code = intercept(g, e, &info)
    if code == NO_EXIT:
        verdict = native[e.kind](g, e)
        if verdict != REFLECT or is_event(e):
            return verdict
        e.kind = EV_EXCEPTION                # a fault of the instruction, which may have an intercept of its own
        e.detail = 0
        code = intercept(g, e, &info)
        if code == NO_EXIT:
            return REFLECT
    vmexit(g, e, code, &info)
    verdict = exits[exit_kind(code)](g, e)
    if code == EXIT_HLT and verdict == RESUME:
        return RESUME            # the processor stays with the monitor until an event wakes the guest
    return enter(g, verdict)
