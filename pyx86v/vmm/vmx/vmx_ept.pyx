# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `vmx+ept`: VT-x with extended page tables, after KVM's way of using them.

The guest runs in non-root operation at its own privilege levels and on its own page tables; EPT maps its
memory.  One path for everything: event -> does a control intercept it? -> exit -> handler -> entry.
Paging, INVLPG, MOV CR3, page faults, RDTSC and most exceptions are the guest's own and cost no exit.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport RESUME, STOP
from pyx86v.cost.ledger cimport SWITCH_VMX
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.vmx.handlers cimport fill_exit_table
from pyx86v.vmm.vmx.native cimport fill_native_table
from pyx86v.vmm.vmx.path cimport vmx_path
from pyx86v.vmm.vmx.reasons cimport N_REASONS, fill_reason_names
from pyx86v.vmm.vmx.setup cimport *

cdef handler_fn EXITS[N_REASONS]
cdef handler_fn NATIVE[N_EVENTS]
cdef Style STYLE

cdef int vmx_ept_event(Guest* g, Event* e) noexcept nogil:
    return vmx_path(g, e, EXITS, NATIVE)

cdef int vmx_ept_start(Guest* g) noexcept nogil:
    """Set the monitor up and launch the guest.  0; -1: no memory for the monitor, or the first entry failed."""
    cdef uint64_t size = g.vcpu.paging.window.size
    if vmx_on(g, size, monitor_bytes_ept(size)) != 0:
        return -1
    write_controls(g)
    write_addresses(g)
    write_host(g)
    if use_ept(g) != 0:
        return -1
    use_vpid(g)
    return vm_entry(g)

cdef void fill(Style* s) noexcept:
    cdef int i
    fill_exit_table(EXITS)
    fill_native_table(NATIVE)
    s.name = b"vmx+ept"
    s.nested = True
    s.start = vmx_ept_start
    s.monitor_bytes = monitor_bytes_ept
    s.switch_price = SWITCH_VMX
    s.retag = vmx_retag
    s.is_sound = vmx_is_sound
    for i in range(N_EVENTS):
        s.handlers[i] = vmx_ept_event
    fill_reason_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
