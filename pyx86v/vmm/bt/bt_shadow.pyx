# SPDX-License-Identifier: GPL-2.0-or-later
"""Style `bt+shadow`: binary translation, as Adams and Agesen describe it (ASPLOS 2006).

The guest's kernel runs in ring 1 as under trap+shadow, but never its own code: the monitor translates it, block by block as it
is reached, to code without sensitive instructions (translate.pyx), and that runs, from the translation cache (cache.pxd).  User
code runs directly.  Only real mode runs in ring 0, under intercepts, as the boot part does under trap+shadow.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.vmm.bt.cache cimport MAX_SPACES, MAX_UNITS, POOL_BYTES, Bt, bt_bytes, bt_layout, bt_start
from pyx86v.vmm.bt.cells cimport BT_CACHE_BYTES
from pyx86v.vmm.bt.handlers cimport fill_bt_table
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.trap.handlers cimport monitor_start
from pyx86v.vmm.trap.kinds cimport N_TRAP_KINDS, fill_kind_names

cdef Style STYLE

cdef int start(Guest* g) noexcept nogil:
    cdef uint64_t size = g.vcpu.paging.window.size, behind = g.vcpu.paging.window.base + size
    if bt_start(<Bt*>g.style_state, g.ram, &g.vcpu.paging.window, behind, bt_bytes(size)) != 0:
        return -1
    (<Bt*>g.style_state).adaptive = g.adaptive
    return monitor_start(g, behind + bt_bytes(size))         # shadow tables come last, as under every style

cdef uint64_t monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return shadow_bytes(guest_bytes) + bt_bytes(guest_bytes)

cdef bint is_sound(const Guest* g) noexcept nogil:
    """May a style_state out of a file be used?  Everything lies where `start` puts it; what is found there is bounded when it is read."""
    cdef const Bt* b = <const Bt*>g.style_state
    cdef uint64_t size = g.vcpu.paging.window.size
    cdef Bt fresh
    return bt_layout(&fresh, &g.vcpu.paging.window, g.vcpu.paging.window.base + size, bt_bytes(size)) == 0 and \
        b.at == fresh.at and b.bytes == fresh.bytes and b.frames == fresh.frames and b.code == fresh.code and \
        b.data == fresh.data and b.tables == fresh.tables and b.n_units <= MAX_UNITS and b.code_used <= BT_CACHE_BYTES and \
        b.pool_used <= POOL_BYTES and b.space < MAX_SPACES and (b.bits == 32 or b.bits == 64) and \
        g.shadow.code_writes == 0

cdef void fill(Style* s) noexcept:
    s.name = b"bt+shadow"
    s.shadow = True
    s.deprivileged = True
    s.translates = True
    s.start = start
    s.monitor_bytes = monitor_bytes
    s.is_sound = is_sound
    fill_bt_table(s.handlers)
    fill_kind_names(s.exit_names)

fill(&STYLE)

def style_capsule():
    """The style's table, for the loader: a capsule named "pyx86v.style"."""
    return PyCapsule_New(&STYLE, b"pyx86v.style", NULL)
