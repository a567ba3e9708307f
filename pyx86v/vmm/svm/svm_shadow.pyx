# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `svm+shadow`: the first AMD-V, without nested paging.

The guest runs on tables that the monitor derives from its own.  All that svm+npt has, and besides: page faults, MOV to
and from CR3 and INVLPG exit.  Real-address mode runs as any other.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport SWITCH_SVM
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_start
from pyx86v.vmm.svm.codes cimport EXIT_EXCEPTION, N_KINDS, fill_exit_names
from pyx86v.vmm.svm.handlers cimport fill_exit_table, write_cr0, write_cr3_cr4
from pyx86v.vmm.svm.native cimport fill_native_table
from pyx86v.vmm.svm.path cimport svm_path
from pyx86v.vmm.svm.setup cimport *
from pyx86v.vmm.svm.shadow cimport exit_page_fault, exit_shadow_fault, use_shadow

cdef handler_fn EXITS[N_KINDS]
cdef handler_fn NATIVE[N_EVENTS]
cdef Style STYLE

cdef uint64_t svm_shadow_bytes(uint64_t guest_bytes) noexcept nogil:
    return FIXED_BYTES + shadow_bytes(guest_bytes)

cdef int svm_shadow_event(Guest* g, Event* e) noexcept nogil:
    if e.kind == EV_SHADOW_FAULT:
        return exit_shadow_fault(g, e)
    return svm_path(g, e, EXITS, NATIVE)

cdef int svm_shadow_start(Guest* g) noexcept nogil:
    """Set the monitor up and run the guest.  0; -1: no memory for the monitor, or the first VMRUN failed."""
    cdef uint64_t size = g.vcpu.paging.window.size
    if svm_on(g, svm_shadow_bytes(size)) != 0:
        return -1
    use_shadow(g)
    if shadow_start(g, svm_of(g).monitor + FIXED_BYTES, shadow_bytes(size)) != 0:
        return -1
    write_cr0(g)
    write_cr3_cr4(g)
    return vmrun(g)

cdef void fill(Style* s) noexcept:
    cdef int i
    fill_exit_table(EXITS)
    EXITS[EXIT_EXCEPTION + VEC_PF] = exit_page_fault
    fill_native_table(NATIVE)
    s.name = b"svm+shadow"
    s.shadow = True
    s.start = svm_shadow_start
    s.monitor_bytes = svm_shadow_bytes
    s.switch_price = SWITCH_SVM
    s.retag = svm_retag
    s.is_sound = svm_is_sound
    for i in range(N_EVENTS):
        s.handlers[i] = svm_shadow_event
    fill_exit_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
