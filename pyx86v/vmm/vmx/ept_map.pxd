# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's EPT: the nested map, write-back."""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport gpa_t, hpa_t
from pyx86v.mmu.invalidate cimport INVEPT_CONTEXT, mmu_invept
from pyx86v.vmm.guest cimport Guest
from pyx86v.vmm.nested_map cimport map_build, map_fill, map_page, map_pages
from pyx86v.vmm.vmx.state cimport *

cdef enum:
    EPT_WRITE_BACK = 6       # memory type: bits 2:0 of the EPT pointer, 5:3 of a leaf (24.6.11, 28.3.2)
    EPT_WALK_4 = 3 << 3      # walk length - 1

cdef inline hpa_t ept_root(Guest* g) noexcept nogil:
    """An empty EPT.  0: no room."""
    cdef Vmx* x = vmx_of(g)
    x.ept.kind = EPT_WRITE_BACK << 3
    x.ept.root = map_page(&x.ept, g.ram)
    return x.ept.root

cdef inline int ept_build(Guest* g, int limit) noexcept nogil:
    """Map all of the guest's memory in pages of at most `limit` (1 4K, 2 2M, 3 1G).  0, or -1: no room."""
    return map_build(&vmx_of(g).ept, g.ram, &g.vcpu.paging.window, limit)

cdef inline int ept_fill(Guest* g, gpa_t gpa) noexcept nogil:
    """Map the page of an EPT violation, if the guest has memory there.  0, or -1: there is none, or it was mapped."""
    if map_fill(&vmx_of(g).ept, g.ram, &g.vcpu.paging.window, gpa) != 0:
        return -1
    mmu_invept(g.mmu, INVEPT_CONTEXT, field_get(&vmx_of(g).vmcs, EPT_POINTER))
    g.cpu.flush(g.cpu)
    return 0

cdef inline uint64_t ept_pages(uint64_t guest_bytes) noexcept nogil:
    """Pages of tables that 4 KB leaves need."""
    return map_pages(guest_bytes)
