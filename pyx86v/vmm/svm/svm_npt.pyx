# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `svm+npt`: AMD-V with nested paging, after KVM's way of using it.

The guest runs at its own privilege levels and on its own page tables; the nested tables map its memory.  One
path for everything: event -> does a bit of the VMCB intercept it? -> #VMEXIT -> handler -> VMRUN.
Paging, INVLPG, MOV CR3, page faults, RDTSC and most exceptions are the guest's own and cost no exit.
"""
from cpython.pycapsule cimport PyCapsule_New
from pyx86v.cost.ledger cimport SWITCH_SVM
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.svm.codes cimport N_KINDS, fill_exit_names
from pyx86v.vmm.svm.handlers cimport fill_exit_table, write_cr0
from pyx86v.vmm.svm.native cimport fill_native_table
from pyx86v.vmm.svm.path cimport svm_path
from pyx86v.vmm.svm.setup cimport *

cdef handler_fn EXITS[N_KINDS]
cdef handler_fn NATIVE[N_EVENTS]
cdef Style STYLE

cdef int svm_npt_event(Guest* g, Event* e) noexcept nogil:
    return svm_path(g, e, EXITS, NATIVE)

cdef int svm_npt_start(Guest* g) noexcept nogil:
    """Set the monitor up and run the guest.  0; -1: no memory for the monitor, or the first VMRUN failed."""
    if svm_on(g, svm_monitor_bytes(g.vcpu.paging.window.size)) != 0 or use_npt(g) != 0:
        return -1
    write_cr0(g)
    return vmrun(g)

cdef void fill(Style* s) noexcept:
    cdef int i
    fill_exit_table(EXITS)
    fill_native_table(NATIVE)
    s.name = b"svm+npt"
    s.nested = True
    s.start = svm_npt_start
    s.monitor_bytes = svm_monitor_bytes
    s.switch_price = SWITCH_SVM
    s.retag = svm_retag
    s.is_sound = svm_is_sound
    for i in range(N_EVENTS):
        s.handlers[i] = svm_npt_event
    fill_exit_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
