# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `trap+shadow`: trap-and-emulate on a processor without virtualization, as Popek and Goldberg define it.

The guest's kernel is deprivileged to ring 1 as soon as it has descriptor tables and paging of its own (the boot part
before runs in ring 0 under intercepts, and so does a kernel that switches paging off again).  Privileged instructions trap and
are emulated; the sensitive ones that do not trap run as the silicon runs them, and are recorded as holes.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_start
from pyx86v.vmm.trap.handlers cimport fill_trap_table
from pyx86v.vmm.trap.kinds cimport N_TRAP_KINDS, fill_kind_names

cdef Style STYLE

cdef int trap_start(Guest* g) noexcept nogil:
    """Note the descriptor tables that the boot protocol left, so as to know when the guest has its own.  0; -1: no room."""
    cdef uint64_t size = g.vcpu.paging.window.size
    g.vcpu.ring.boot_gdtr = g.cpu.get(g.cpu, REG_GDTR_BASE) + g.cpu.get(g.cpu, REG_GDTR_LIMIT)
    g.vcpu.ring.boot_idtr = g.cpu.get(g.cpu, REG_IDTR_BASE) + g.cpu.get(g.cpu, REG_IDTR_LIMIT)
    if shadow_start(g, g.vcpu.paging.window.base + size, shadow_bytes(size)) != 0:
        return -1
    g.shadow.config.software = 1
    return 0

cdef uint64_t trap_monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return shadow_bytes(guest_bytes)

cdef void fill(Style* s) noexcept:
    cdef int i
    s.name = b"trap+shadow"
    s.shadow = True
    s.deprivileged = True
    s.start = trap_start
    s.monitor_bytes = trap_monitor_bytes
    fill_trap_table(s.handlers)
    for i in range(MAX_EXIT_KINDS):
        s.exit_names[i] = NULL
    fill_kind_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
