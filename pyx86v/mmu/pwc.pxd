# SPDX-License-Identifier: GPL-2.0-or-later
"""Paging-structure caches and the nested TLB (SDM 3A 4.10.3, SDM 3C 28.4.1).

A PML4E, PDPTE or PDE cache entry holds the machine address of the *next* table and the rights so far;
in a nested space it is a combined mapping and has the nested rights of that table's page too.  Entries
belong to an asid, a pcid and a nested root, and are never global.
The nested TLB maps pages of guest paging structures, guest-physical to machine; the final page's
translation ends in the TLB itself and is not put here.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport PAGING_32
from pyx86v.arch.types cimport gpa_t, gva_t, hpa_t
from pyx86v.mmu.tlb cimport *

cdef inline int pwc_array(int level) noexcept nogil:
    """The cache of entries of this level (4 PML4E, 3 PDPTE, 2 PDE)."""
    return ARRAY_PML4E + 4 - level

cdef inline int pwc_shift(int level, bint is_32) noexcept nogil:
    """Address bits below what an entry of this level covers."""
    return 12 + (10 if is_32 else 9) * (level - 1)

cdef inline const TlbEntry* pwc_find(Tlb* t, gva_t gva, int level, bint is_32) noexcept nogil:
    """The current context's cached entry of this level for `gva`, or NULL.  Counts and ages a hit."""
    cdef int a = pwc_array(level)
    cdef int index = tlb_probe(t, a, tlb_number(gva, pwc_shift(level, is_32)), level - 1, t.local)
    if index < 0:
        return NULL
    tlb_used(t, index)
    return &t.entry[index]

cdef inline void pwc_fill(Tlb* t, gva_t gva, int level, bint is_32, gpa_t table, hpa_t table_hpa,
                          int flags) noexcept nogil:
    """Remember that the entry of this level leads to `table` with these rights (TlbFlag)."""
    cdef int a = pwc_array(level), index
    cdef uint64_t number = tlb_number(gva, pwc_shift(level, is_32))
    if t.array[a].entries == 0:
        return
    index = tlb_probe(t, a, number, level - 1, t.local)
    if index >= 0:
        t.entry[index].pfn = table_hpa >> 12
        t.entry[index].gfn = table >> 12
        t.entry[index].flags = <uint16_t>flags
        return
    tlb_insert(t, a, number, level - 1, t.local, table_hpa >> 12, table >> 12, flags, 12, 12)

cdef inline void pwc_drop_address(Tlb* t, int tag, gva_t gva, bint is_32) noexcept nogil:
    """Drop the entries that a walk for `gva` would use."""
    cdef int level, index
    for level in range(2, 5):
        index = tlb_probe(t, pwc_array(level), tlb_number(gva, pwc_shift(level, is_32)), level - 1, tag)
        if index >= 0:
            tlb_drop(t, index)

cdef inline int nested_tlb_find(Tlb* t, gpa_t gpa) noexcept nogil:
    """Pool index of the entry of any size for `gpa` under the current nested root, or -1.  Does not count."""
    cdef int size, index
    for size in range(SIZE_512G):
        index = tlb_probe(t, ARRAY_NESTED, gpa >> size_shift(size), size, t.nested)
        if index >= 0:
            return index
    return -1

cdef inline void nested_tlb_fill(Tlb* t, gpa_t gpa, hpa_t hpa, int shift, int flags) noexcept nogil:
    """Remember that the nested page of size `shift` with `gpa` in it lies at the page of `hpa` (4 KB pages)."""
    cdef int size = (shift > 12) + (shift > 21)
    cdef uint64_t inside = (gpa & ((<uint64_t>1 << shift) - 1)) >> 12
    cdef int index
    if t.array[<int>ARRAY_NESTED].entries == 0:
        return
    index = nested_tlb_find(t, gpa)
    if index >= 0:
        tlb_drop(t, index)
    tlb_insert(t, ARRAY_NESTED, gpa >> shift, size, t.nested, (hpa >> 12) - inside, (gpa >> 12) - inside, flags,
               shift, shift)
