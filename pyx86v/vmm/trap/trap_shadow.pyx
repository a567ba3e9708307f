# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `trap+shadow`: trap-and-emulate on a processor without virtualization, as Popek and Goldberg define it.

The guest's kernel is deprivileged to ring 1 as soon as it has descriptor tables and paging of its own (the boot part
before runs in ring 0 under intercepts, and so does a kernel that switches paging off again).  Privileged instructions trap and
are emulated; the sensitive ones that do not trap run as the silicon runs them, and are recorded as holes.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.trap.handlers cimport fill_trap_table, monitor_start
from pyx86v.vmm.trap.kinds cimport N_TRAP_KINDS, fill_kind_names

cdef Style STYLE

cdef int trap_start(Guest* g) noexcept nogil:
    return monitor_start(g, g.vcpu.paging.window.base + g.vcpu.paging.window.size)

cdef uint64_t trap_monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return shadow_bytes(guest_bytes)

cdef void fill(Style* s) noexcept:
    s.name = b"trap+shadow"
    s.shadow = True
    s.deprivileged = True
    s.start = trap_start
    s.monitor_bytes = trap_monitor_bytes
    fill_trap_table(s.handlers)
    fill_kind_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
