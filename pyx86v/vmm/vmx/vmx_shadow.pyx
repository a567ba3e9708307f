# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `vmx+shadow`: the first VT-x, without EPT and without unrestricted guests.

The guest runs in non-root operation on tables that the monitor derives from its own.  All that vmx+ept has, and
besides: page faults, MOV to and from CR3 and INVLPG exit, and real-address mode is interpreted (shadow.pxd).
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport PAGE_SIZE, RESUME, STOP
from pyx86v.cost.ledger cimport SWITCH_VMX
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_start
from pyx86v.vmm.vmx.handlers cimport fill_exit_table
from pyx86v.vmm.vmx.native cimport fill_native_table
from pyx86v.vmm.vmx.path cimport vmx_path
from pyx86v.vmm.vmx.reasons cimport N_REASONS, REASON_EXCEPTION, fill_reason_names
from pyx86v.vmm.vmx.setup cimport *
from pyx86v.vmm.vmx.shadow cimport *

cdef handler_fn EXITS[N_REASONS]
cdef handler_fn NATIVE[N_EVENTS]
cdef handler_fn INTERPRETER[N_EVENTS]
cdef Style STYLE

cdef uint64_t vmx_shadow_bytes(uint64_t guest_bytes) noexcept nogil:
    return FIXED_PAGES * PAGE_SIZE + shadow_bytes(guest_bytes)

cdef int vmx_shadow_event(Guest* g, Event* e) noexcept nogil:
    if g.vcpu.interpreting:
        return INTERPRETER[e.kind](g, e)
    if e.kind == EV_SHADOW_FAULT:
        return exit_shadow_fault(g, e)
    return vmx_path(g, e, EXITS, NATIVE)

cdef int vmx_shadow_interpret(Guest* g, int instructions) noexcept nogil:
    return interpret(g, instructions)

cdef int vmx_shadow_start(Guest* g) noexcept nogil:
    """Set the monitor up and launch the guest, or interpret it.  0; -1: no memory for the monitor, or the first entry failed."""
    cdef uint64_t size = g.vcpu.paging.window.size
    if vmx_on(g, size, vmx_shadow_bytes(size)) != 0:
        return -1
    write_controls(g)
    write_addresses(g)
    write_host(g)
    use_shadow(g)
    use_vpid(g)
    if shadow_start(g, vmx_of(g).monitor + FIXED_PAGES * PAGE_SIZE, shadow_bytes(size)) != 0:
        return -1
    return enter(g, RESUME)

cdef void fill(Style* s) noexcept:
    cdef int i
    fill_exit_table(EXITS)
    EXITS[REASON_EXCEPTION] = exit_page_fault
    fill_native_table(NATIVE)
    fill_interpreter_table(INTERPRETER)
    s.name = b"vmx+shadow"
    s.shadow = True
    s.start = vmx_shadow_start
    s.interpret = vmx_shadow_interpret
    s.monitor_bytes = vmx_shadow_bytes
    s.is_sound = vmx_is_sound
    s.switch_price = SWITCH_VMX
    s.retag = vmx_retag
    for i in range(N_EVENTS):
        s.handlers[i] = vmx_shadow_event
    fill_reason_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
