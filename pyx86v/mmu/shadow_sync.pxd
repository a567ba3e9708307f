# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow entries and the guest entries they come from: what an entry should be, traced writes, sync."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.ptes cimport *
from pyx86v.arch.types cimport PAGE_MASK, gpa_t, gva_t, hpa_t
from pyx86v.cost.ledger cimport BT_TRACE_NEW, BT_TRACE_UPDATE, SHADOW, SHADOW_NEW, SHADOW_SYNC, SHADOW_UPDATE, charge
from pyx86v.mmu.memory cimport ram_read32, ram_read64, window_hpa, window_is_rom
from pyx86v.mmu.shadow_pool cimport *
from pyx86v.mmu.shadow_state cimport *
from pyx86v.mmu.walk cimport guest_reserved, is_leaf

ctypedef struct Source:      # what one shadow entry stands for
    bint valid               # present, accessed, no reserved bit
    bint page                # maps a page; else points to a table of the next level
    uint64_t gfn             # of the page or table
    uint64_t rights          # PTE_W, PTE_U, PTE_NX of the guest's entry
    bint dirty

# ---------------------------------------------------------------- where an entry comes from

cdef inline bint role_is_32(const Shadower* w) noexcept nogil:
    """Are the derived pages those of 32-bit tables?  The guest may have turned paging off meanwhile."""
    return w.s.role & 3 == PAGING_32

cdef inline uint64_t guest_index(const Shadower* w, const ShadowPage* p, uint32_t index) noexcept nogil:
    """Number of the guest entry from which entry `index` of the page comes.  A 32-bit table has 1,024: a PDE feeds
    two shadow entries of 2 MB, and a table takes four shadow tables at level 2 and two at level 1."""
    if not role_is_32(w):
        return index
    return <uint64_t>p.quadrant << 8 | index >> 1 if p.level == 2 else <uint64_t>p.quadrant << 9 | index

cdef inline uint64_t guest_entry(const Shadower* w, const ShadowPage* p, uint32_t index) noexcept nogil:
    cdef bint is_32 = role_is_32(w)
    cdef gpa_t at = (p.gfn << 12) + guest_index(w, p, index) * (4 if is_32 else 8)
    cdef hpa_t hpa = window_hpa(&w.guest.window, at)
    cdef uint32_t narrow
    cdef uint64_t e
    if is_32:
        ram_read32(w.ram, hpa, &narrow)
        return narrow
    ram_read64(w.ram, hpa, &e)
    return e

cdef inline void source_direct(const Shadower* w, const ShadowPage* p, uint32_t index, Source* src) noexcept nogil:
    src.valid = src.page = src.dirty = True
    src.gfn = (p.gfn + (<uint64_t>index << 9 * (p.level - 1))) & w.guest.window.a20_mask >> 12
    src.rights = PTE_W | PTE_U

cdef inline void source_of(Shadower* w, const ShadowPage* p, uint32_t index, Source* src) noexcept nogil:
    """Read the guest entry for entry `index` of the page."""
    cdef uint64_t e
    if p.kind == KIND_DIRECT:
        source_direct(w, p, index, src)
        return
    e = guest_entry(w, p, index)
    src.page = is_leaf(&w.walker, e, p.level)
    src.valid = e & (PTE_P | PTE_A) == PTE_P | PTE_A and e & guest_reserved(&w.walker, src.page, p.level) == 0
    src.rights = e & (PTE_W | PTE_U | PTE_NX)
    src.dirty = e & PTE_D != 0
    src.gfn = e & FRAME_MASK & w.guest.window.a20_mask
    if src.page and p.level == 2 and role_is_32(w):
        src.gfn = (frame_4m(e) + (<uint64_t>(index & 1) << 21)) & w.guest.window.a20_mask
    elif src.page and p.level > 1:
        src.gfn &= ~<uint64_t>0 << (12 + 9 * (p.level - 1))
    src.gfn >>= 12

cdef inline uint64_t leaf_entry(const Shadower* w, const Source* src, hpa_t hpa) noexcept nogil:
    """The 4 KB entry for a source: writable only when dirty and not traced (invariants 1 and 2).  Accessed and dirty
    are set beforehand, for the processor need not tell."""
    cdef uint64_t e = hpa | src.rights | PTE_P | PTE_A | PTE_D
    if not src.dirty or frame_is_traced(w, src.gfn) or src.gfn >= w.s.frames:
        e &= ~<uint64_t>PTE_W
    return e

# ---------------------------------------------------------------- out of sync and back

cdef inline void slot_sync(Shadower* w, uint32_t slot) noexcept nogil:
    """Drop the entry of a leaf table when it grants something the guest's entry does not, or its accessed flag is clear."""
    cdef uint64_t e = w.table[slot], now
    cdef Source src
    if not e & PTE_P:
        return
    w.s.count.entries_synced += 1
    charge(w.ledger, SHADOW, SHADOW_SYNC)
    source_of(w, &w.page[slot >> 9], slot & 511, &src)
    now = leaf_entry(w, &src, window_hpa(&w.guest.window, src.gfn << 12))
    if not src.valid or (e ^ now) & (FRAME_MASK | PTE_NX | PTE_U) or e & ~now & PTE_W:
        w.s.count.entries_stale += 1
        entry_set(w, slot, 0)

cdef inline void frame_sync(Shadower* w, uint64_t gfn) noexcept nogil:
    """Sync all leaf tables derived from the frame."""
    cdef uint32_t i = bucket_of(w, gfn)[0], index, left
    while i != NIL:
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE:
            left = w.page[i].live
            index = 0
            while left:
                left -= <uint32_t>(w.table[i << 9 | index] & PTE_P)
                slot_sync(w, i << 9 | index)
                index += 1
        i = w.page[i].next

cdef inline void frame_resync(Shadower* w, uint64_t gfn) noexcept nogil:
    """Back in sync, and traced again."""
    frame_sync(w, gfn)
    unsynced_remove(w, gfn)
    w.frame[gfn].writes = 0
    frame_protect(w, gfn)
    w.s.count.resynced += 1

cdef inline void frame_unsync(Shadower* w, uint64_t gfn) noexcept nogil:
    """Let the guest write the table without being seen (invariant 2, relaxed)."""
    if w.s.n_unsynced >= w.s.config.most_unsynced:
        frame_resync(w, w.s.unsynced[0])
    w.s.unsynced[w.s.n_unsynced] = gfn
    w.s.n_unsynced += 1
    w.frame[gfn].unsynced = 1
    w.frame[gfn].writes = 0
    w.s.count.unsynced += 1

cdef inline void sync_all(Shadower* w) noexcept nogil:
    """MOV to CR3: no entry may be stale any more."""
    w.s.count.syncs += w.s.n_unsynced != 0
    while w.s.n_unsynced:
        frame_resync(w, w.s.unsynced[w.s.n_unsynced - 1])

cdef inline void sync_address(Shadower* w, gva_t gva) noexcept nogil:
    """INVLPG: every walk for the address ends at the same index of some leaf table, so this covers all paths to it,
    those too that are broken at an upper level now and will be made again."""
    cdef uint32_t i, k
    w.s.count.syncs += w.s.n_unsynced != 0
    for k in range(w.s.n_unsynced):
        i = bucket_of(w, w.s.unsynced[k])[0]
        while i != NIL:
            if w.page[i].gfn == w.s.unsynced[k] and w.page[i].kind == KIND_TABLE:
                slot_sync(w, i << 9 | <uint32_t>(gva >> 12 & 511))
            i = w.page[i].next

# ---------------------------------------------------------------- traced writes

cdef inline void entry_drop(Shadower* w, uint32_t slot) noexcept nogil:
    if w.table[slot] & PTE_P:
        w.s.count.drops += 1
        entry_set(w, slot, 0)

cdef inline void page_drop(Shadower* w, uint32_t i, uint64_t first, uint64_t last) noexcept nogil:
    """Drop the page's entries that come from the guest entries with these byte offsets in their table."""
    cdef ShadowPage* p = &w.page[i]
    cdef uint64_t g
    if not role_is_32(w):
        for g in range(first >> 3, (last >> 3) + 1):
            entry_drop(w, i << 9 | <uint32_t>g)
        return
    for g in range(first >> 2, (last >> 2) + 1):
        if p.level == 2 and g >> 8 == p.quadrant:
            entry_drop(w, i << 9 | <uint32_t>(g & 255) << 1)
            entry_drop(w, i << 9 | <uint32_t>(g & 255) << 1 | 1)
        elif p.level == 1 and g >> 9 == p.quadrant:
            entry_drop(w, i << 9 | <uint32_t>(g & 511))

cdef inline void frame_written(Shadower* w, uint64_t gfn, uint64_t first, uint64_t last) noexcept nogil:
    """Bytes first..last of the frame change: drop what was derived from them."""
    cdef uint32_t i = bucket_of(w, gfn)[0]
    while i != NIL:
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE:
            page_drop(w, i, first, last)
        i = w.page[i].next

cdef inline void frame_zap(Shadower* w, uint64_t gfn) noexcept nogil:
    """Drop every page derived from the frame; of a root that the processor uses, its entries."""
    cdef uint32_t i = bucket_of(w, gfn)[0], next
    while i != NIL:
        next = w.page[i].next
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE:
            w.s.count.zaps += 1
            if w.page[i].level == 4 and page_is_root(w, i):
                page_clear(w, i)
            else:
                page_free(w, i)
        i = next

cdef inline bint may_unsync(const Shadower* w, uint64_t gfn, uint32_t i) noexcept nogil:
    """Are all pages derived from the frame leaf tables, and is one in use?  `i`: first page of its bucket."""
    cdef bint used = False
    while i != NIL:
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE:
            if w.page[i].level != 1:
                return False
            used |= w.page[i].parents != NIL
        i = w.page[i].next
    return used and w.guest.mode != PAGING_NONE and w.s.config.most_unsynced != 0

cdef inline bint page_in_use(const Shadower* w, uint32_t i) noexcept nogil:
    """Does the processor's walk reach the page, by the entry that was made last at each level above?"""
    while not page_is_root(w, i):
        if w.page[i].parents == NIL:
            return False
        i = w.page[i].parents >> 9           # a level up
    return True

cdef inline bint frame_in_use(const Shadower* w, uint64_t gfn) noexcept nogil:
    """Does it reach a page derived from the frame?"""
    cdef uint32_t i = bucket_of(w, gfn)[0]
    while i != NIL:
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE and page_in_use(w, i):
            return True
        i = w.page[i].next
    return False

cdef inline void frame_flooded(Shadower* w, uint64_t gfn) noexcept nogil:
    """Count a traced write; too many without a use between and the frame is no longer traced."""
    cdef ShadowFrame* f = &w.frame[gfn]
    if f.writes < 255:
        f.writes += 1
    if w.s.config.unsync_after and f.writes > w.s.config.unsync_after and may_unsync(w, gfn, bucket_of(w, gfn)[0]):
        frame_unsync(w, gfn)
    elif w.s.config.zap_after and f.writes > w.s.config.zap_after and not frame_in_use(w, gfn):
        f.writes = 0
        frame_zap(w, gfn)

cdef inline uint64_t entry_at(const Shadower* w, hpa_t at) noexcept nogil:
    cdef uint64_t e = 0
    cdef uint32_t narrow = 0
    if role_is_32(w):
        ram_read32(w.ram, at, &narrow)
        return narrow
    ram_read64(w.ram, at, &e)
    return e

cdef inline void write_begins(Shadower* w, hpa_t at) noexcept nogil:
    """Remember the entry that a traced write is going to change."""
    at &= ~<uint64_t>(3 if role_is_32(w) else 7)
    w.s.old_entry = entry_at(w, at)
    w.s.old_entry_at = at | (3 if w.s.simulated else 1)

cdef inline void entry_derive(Shadower* w, hpa_t at) noexcept nogil:
    """Make the leaf entries that come from the guest entry at `at`, as far as that is marked accessed and maps RAM: the next access
    to its page then needs no fault."""
    cdef uint64_t gfn = (at - w.s.guest_base) >> 12, g = (at & PAGE_MASK) >> (2 if role_is_32(w) else 3)
    cdef uint32_t i, slot
    cdef Source src
    cdef hpa_t hpa
    if gfn >= w.s.frames or w.guest.mode == PAGING_NONE:
        return
    i = bucket_of(w, gfn)[0]
    while i != NIL:
        if w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE and w.page[i].level == 1 and g >> 9 == w.page[i].quadrant:
            slot = i << 9 | <uint32_t>(g & 511)
            source_of(w, &w.page[i], slot & 511, &src)
            hpa = window_hpa(&w.guest.window, src.gfn << 12)
            if src.valid and src.gfn < w.s.frames and not w.table[slot] & PTE_P and not window_is_rom(&w.guest.window, hpa):
                entry_set(w, slot, leaf_entry(w, &src, hpa))
                w.s.count.fills += 1
        i = w.page[i].next

cdef inline void write_ended(Shadower* w) noexcept nogil:
    """Book the monitor's work on the last traced write, which is known when its value is in memory: a present entry
    is checked and derived anew, one that was not present before needs more."""
    cdef bint simulated = w.s.old_entry_at & 2 != 0
    if w.s.old_entry_at == 0:
        return
    if entry_at(w, w.s.old_entry_at & ~<uint64_t>3) & PTE_P:
        charge(w.ledger, SHADOW, BT_TRACE_UPDATE if simulated else SHADOW_UPDATE)
        if not w.s.old_entry & PTE_P:
            charge(w.ledger, SHADOW, BT_TRACE_NEW if simulated else SHADOW_NEW)
        if simulated:
            entry_derive(w, w.s.old_entry_at & ~<uint64_t>3)
    w.s.old_entry_at = 0
