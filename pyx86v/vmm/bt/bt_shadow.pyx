# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `bt+shadow`: binary translation, as Adams and Agesen describe it (ASPLOS 2006).

The guest's kernel runs in ring 1 as under trap+shadow, but never its own code: the monitor translates it, block by block as it
is reached, to code without sensitive instructions (translate.pyx), and that runs, from the translation cache (cache.pxd).  User
code runs directly.  The boot part before paging runs in ring 0 under intercepts, as under trap+shadow.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.bt.cache cimport Bt, bt_bytes, bt_start
from pyx86v.vmm.bt.handlers cimport fill_bt_table
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_start
from pyx86v.vmm.trap.kinds cimport N_TRAP_KINDS, fill_kind_names

cdef Style STYLE

cdef int start(Guest* g) noexcept nogil:
    """Note the descriptor tables that the boot protocol left, so as to know when the guest has its own.  0; -1: no room."""
    cdef uint64_t size = g.vcpu.paging.window.size, behind = g.vcpu.paging.window.base + size
    g.vcpu.ring.boot_gdtr = g.cpu.get(g.cpu, REG_GDTR_BASE) + g.cpu.get(g.cpu, REG_GDTR_LIMIT)
    g.vcpu.ring.boot_idtr = g.cpu.get(g.cpu, REG_IDTR_BASE) + g.cpu.get(g.cpu, REG_IDTR_LIMIT)
    if bt_start(<Bt*>g.style_state, g.ram, &g.vcpu.paging.window, behind + shadow_bytes(size), bt_bytes(size)) != 0:
        return -1
    return shadow_start(g, behind, shadow_bytes(size))

cdef uint64_t monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return shadow_bytes(guest_bytes) + bt_bytes(guest_bytes)

cdef void fill(Style* s) noexcept:
    cdef int i
    s.name = b"bt+shadow"
    s.shadow = True
    s.deprivileged = True
    s.translates = True
    s.start = start
    s.monitor_bytes = monitor_bytes
    fill_bt_table(s.handlers)
    for i in range(MAX_EXIT_KINDS):
        s.exit_names[i] = NULL
    fill_kind_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
