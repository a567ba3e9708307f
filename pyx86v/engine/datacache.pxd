# SPDX-License-Identifier: GPL-2.0-or-later
"""Data accesses and the modelled caches (mmu/cache.pxd), as far as an engine can see them.

The access that misses the first-level TLB comes through `fill`.  All others are seen only through Unicorn's memory hooks, which make
every load and store a call: CACHES_FULL.  Instruction fetches and the monitor's own accesses go by the caches.
"""
from libc.stdint cimport int64_t, uint64_t
from pyx86v.arch.ptes cimport PAGING_NONE
from pyx86v.arch.types cimport gva_t, hpa_t
from pyx86v.cost.ledger cimport CACHE, CACHE_L1, charge_units
from pyx86v.engine.budget cimport spend
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport uc_engine
from pyx86v.mmu.cache cimport *
from pyx86v.mmu.memory cimport window_hpa
from pyx86v.mmu.mmu cimport PagingContext, SIDE_D, TLB_HOLE, TlbEntry, entry_hpa, level_find, mmu_enter
from pyx86v.vmm.guest cimport walked

cdef inline void data_line(Engine* e, hpa_t at) noexcept nogil:
    """An access to a line; in CACHES_FULL it takes what its level costs more than the first."""
    cdef int level = cache_access(e.ram.caches, at)
    cdef uint64_t units
    if e.ram.caches.mode != CACHES_FULL or level == 0:
        return
    units = e.ledger.price[<int>CACHE_L1 + level] - e.ledger.price[<int>CACHE_L1]
    charge_units(e.ledger, CACHE, units)
    spend(e, units)

cdef inline bint data_hpa(Engine* e, gva_t gva, hpa_t* at) noexcept nogil:
    """Where the modelled TLB has an address.  False: nowhere, or no memory is there; what is missing comes through fill()."""
    cdef const PagingContext* p = walked(e.vcpu)
    cdef const TlbEntry* entry
    cdef int index
    if p.mode == PAGING_NONE and p.eptp == 0:
        at[0] = window_hpa(&p.window, gva & 0xffffffffULL)
        return True
    mmu_enter(e.mmu, p)
    index = level_find(e.mmu, SIDE_D, gva)
    if index < 0:
        return False
    entry = &e.mmu.tlb.entry[index]
    at[0] = entry_hpa(entry, gva)
    return not entry.flags & TLB_HOLE

cdef inline void on_data(uc_engine* uc, int kind, uint64_t address, int size, int64_t value, void* user) noexcept nogil:
    """UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE: each access, and the second line of one that crosses into it."""
    cdef Engine* e = <Engine*>user
    cdef uint64_t last = address + <uint64_t>size - 1
    cdef hpa_t at
    if data_hpa(e, address, &at):
        data_line(e, at)
    if (address ^ last) >> LINE_SHIFT and data_hpa(e, last, &at):
        data_line(e, at)
