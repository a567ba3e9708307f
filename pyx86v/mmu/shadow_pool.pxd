# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow pages and their entries: the lists that lead backwards, tracing, eviction."""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport *
from pyx86v.cost.ledger cimport SHADOW, SHADOW_PAGE, SHADOW_ZAP, charge
from pyx86v.mmu.shadow_state cimport *

# ---------------------------------------------------------------- entries

cdef inline uint32_t* list_of(Shadower* w, uint32_t slot, uint64_t e) noexcept nogil:
    """Head of the list that the present entry belongs to; NULL for a page of firmware, which nobody looks for."""
    cdef uint64_t gfn
    if not maps_page(w, slot, e):
        return &w.page[((e & FRAME_MASK) - w.s.at) >> 12].parents
    gfn = ((e & FRAME_MASK) - w.s.guest_base) >> 12
    if gfn >= w.s.frames:
        return NULL
    return &w.large[gfn >> 9].maps if e & PTE_PS else &w.frame[gfn].maps

cdef inline void list_add(Shadower* w, uint32_t* head, uint32_t slot) noexcept nogil:
    w.link[slot].prev = NIL
    w.link[slot].next = head[0]
    if head[0] != NIL:
        w.link[head[0]].prev = slot
    head[0] = slot

cdef inline void list_remove(Shadower* w, uint32_t* head, uint32_t slot) noexcept nogil:
    cdef ShadowLink* l = &w.link[slot]
    if l.prev != NIL:
        w.link[l.prev].next = l.next
    else:
        head[0] = l.next
    if l.next != NIL:
        w.link[l.next].prev = l.prev

cdef inline void entry_set(Shadower* w, uint32_t slot, uint64_t e) noexcept nogil:
    """Write a shadow entry (0: none) and keep lists, counts and invariants 3 and 6."""
    cdef uint64_t old = w.table[slot]
    cdef uint32_t* was = NULL
    cdef uint32_t* now = NULL
    if old == e:
        return
    if old & PTE_P:
        was = list_of(w, slot, old)
    if e & PTE_P:
        now = list_of(w, slot, e)
    if was != now:
        if was is not NULL:
            list_remove(w, was, slot)
        if now is not NULL:
            list_add(w, now, slot)
    if old & PTE_P and old & PTE_W and maps_page(w, slot, old) and (was != now or not e & PTE_W):
        w.s.stale_writable = 1
    if old & PTE_P and was != now and w.page[slot >> 9].level > 1:
        w.s.stale_split |= w.s.split_made
    w.page[slot >> 9].live += <int>(e & PTE_P) - <int>(old & PTE_P)
    w.table[slot] = e

# ---------------------------------------------------------------- least recently used

cdef inline void age_remove(Shadower* w, uint32_t i) noexcept nogil:
    cdef ShadowPage* p = &w.page[i]
    if p.older != NIL:
        w.page[p.older].newer = p.newer
    else:
        w.s.oldest = p.newer
    if p.newer != NIL:
        w.page[p.newer].older = p.older
    else:
        w.s.newest = p.older

cdef inline void age_add(Shadower* w, uint32_t i) noexcept nogil:
    w.page[i].newer = NIL
    w.page[i].older = w.s.newest
    if w.s.newest != NIL:
        w.page[w.s.newest].newer = i
    else:
        w.s.oldest = i
    w.s.newest = i

cdef inline void page_used(Shadower* w, uint32_t i) noexcept nogil:
    """The walk in progress goes through this page."""
    w.pin[w.n_pins & 3] = i
    w.n_pins += 1
    if w.s.newest != i:
        age_remove(w, i)
        age_add(w, i)

# ---------------------------------------------------------------- tracing

cdef inline void frame_protect(Shadower* w, uint64_t gfn) noexcept nogil:
    """No entry maps the frame writable from here on, nor does the TLB once the flush is made.  Of a long list the rest is
    dropped, so that the work stays in proportion to the entries that were made."""
    cdef uint32_t slot = w.frame[gfn].maps, next
    cdef int n = 0
    cdef bint did = False
    while slot != NIL:
        next = w.link[slot].next
        did |= w.table[slot] & PTE_W != 0
        entry_set(w, slot, w.table[slot] & ~<uint64_t>PTE_W if n < LONG_LIST else 0)
        n += 1
        slot = next
    slot = w.large[gfn >> 9].maps
    while slot != NIL:
        next = w.link[slot].next
        entry_set(w, slot, 0)
        did = True
        slot = next
    w.s.count.protected += did
    w.s.flush_due |= w.s.stale_writable

cdef inline void unsynced_remove(Shadower* w, uint64_t gfn) noexcept nogil:
    """Take the frame off the list of those out of sync."""
    cdef uint32_t i
    for i in range(w.s.n_unsynced):
        if w.s.unsynced[i] == gfn:
            w.s.n_unsynced -= 1
            w.s.unsynced[i] = w.s.unsynced[w.s.n_unsynced]
            break
    w.frame[gfn].unsynced = 0

cdef inline void frame_trace(Shadower* w, uint64_t gfn) noexcept nogil:
    """A shadow page is derived from the frame.  Tables outside RAM or in firmware cannot change: nothing to trace."""
    if gfn >= w.s.frames:
        return
    w.frame[gfn].tables += 1
    if w.frame[gfn].tables == 1:
        w.frame[gfn].writes = 0
        if not w.frame[gfn].code:
            w.large[gfn >> 9].tables += 1
            frame_protect(w, gfn)

cdef inline void frame_untrace(Shadower* w, uint64_t gfn) noexcept nogil:
    if gfn >= w.s.frames:
        return
    w.frame[gfn].tables -= 1
    if w.frame[gfn].tables == 0:
        w.large[gfn >> 9].tables -= w.frame[gfn].code == 0
        if w.frame[gfn].unsynced:
            unsynced_remove(w, gfn)

# ---------------------------------------------------------------- pages

cdef inline uint32_t* bucket_of(Shadower* w, uint64_t gfn) noexcept nogil:
    return &w.bucket[gfn * 0x9e3779b97f4a7c15ULL >> (64 - w.s.bucket_bits)]

cdef inline uint32_t page_find(Shadower* w, int kind, int level, uint64_t gfn, int quadrant) noexcept nogil:
    cdef uint32_t i = bucket_of(w, gfn)[0]
    cdef ShadowPage* p
    while i != NIL:
        p = &w.page[i]
        if p.gfn == gfn and p.level == level and p.kind == kind and p.quadrant == quadrant:
            return i
        i = p.next
    return NIL

cdef inline bint page_is_root(const Shadower* w, uint32_t i) noexcept nogil:
    return w.s.root[0] == i or w.s.root[1] == i or w.s.root[2] == i or w.s.root[3] == i

cdef inline void page_clear(Shadower* w, uint32_t i) noexcept nogil:
    """Drop all entries of the page."""
    cdef uint32_t slot = i << 9
    while w.page[i].live:
        entry_set(w, slot, 0)
        slot += 1

cdef inline void page_free(Shadower* w, uint32_t i) noexcept nogil:
    """Drop a page with its entries and all that point to it."""
    cdef ShadowPage* p = &w.page[i]
    cdef uint32_t* at = bucket_of(w, p.gfn)
    cdef int k
    charge(w.ledger, SHADOW, SHADOW_ZAP)
    page_clear(w, i)
    while p.parents != NIL:
        entry_set(w, p.parents, 0)
    for k in range(4):
        if w.s.root[k] == i:
            w.s.root[k] = NIL
            w.hardware.pdpte[k] = 0
    while at[0] != i:
        at = &w.page[at[0]].next
    at[0] = p.next
    age_remove(w, i)
    if p.kind == KIND_TABLE:
        frame_untrace(w, p.gfn)
    p.kind = KIND_FREE
    p.next = w.s.free
    w.s.free = i
    w.s.n_used -= 1
    w.s.flush_due = 1

cdef inline bint page_is_pinned(const Shadower* w, uint32_t i) noexcept nogil:
    """In the walk in progress, or the root of a 4-level space: CR3 always has one."""
    cdef uint32_t k
    for k in range(min(w.n_pins, 4)):
        if w.pin[k] == i:
            return True
    return w.page[i].level == 4 and page_is_root(w, i)

cdef inline void evict_one(Shadower* w) noexcept nogil:
    cdef uint32_t i = w.s.oldest
    while i != NIL and page_is_pinned(w, i):
        i = w.page[i].newer
    if i != NIL:
        w.s.count.evictions += 1
        page_free(w, i)

cdef inline uint32_t page_new(Shadower* w, int kind, int level, uint64_t gfn, int quadrant) noexcept nogil:
    """An empty shadow page; the least recently used one makes room when there is none."""
    cdef uint32_t* bucket = bucket_of(w, gfn)
    cdef ShadowPage* p
    cdef uint32_t i
    if w.s.free == NIL:
        evict_one(w)
    i = w.s.free
    p = &w.page[i]
    w.s.free = p.next
    w.s.n_used += 1
    w.s.count.pages += 1
    charge(w.ledger, SHADOW, SHADOW_PAGE)
    p.gfn = gfn
    p.kind = <uint8_t>kind
    p.level = <uint8_t>level
    p.quadrant = <uint8_t>quadrant
    p.live = 0
    p.parents = NIL
    if not p.clean:
        memset(&w.table[<uint64_t>i << 9], 0, 4096)
        p.clean = 1                          # and a page that is freed has no entries left
    p.next = bucket[0]
    bucket[0] = i
    age_add(w, i)
    if kind == KIND_TABLE:
        frame_trace(w, gfn)
    return i

cdef inline void pool_init(Shadower* w) noexcept nogil:
    """All pages free, no frame mapped.  Tables are cleared when they are first used."""
    cdef Shadow* s = w.s
    cdef uint64_t i
    for i in range(s.n_pages):
        w.page[i].kind = KIND_FREE
        w.page[i].clean = 0
        w.page[i].next = <uint32_t>i + 1 if i + 1 < s.n_pages else NIL
    memset(w.frame, 0, s.frames * sizeof(ShadowFrame))
    memset(w.large, 0, larges_of(s.frames) * sizeof(ShadowLarge))
    for i in range(s.frames):
        w.frame[i].maps = NIL
    for i in range(larges_of(s.frames)):
        w.large[i].maps = NIL
    for i in range(<uint64_t>1 << s.bucket_bits):
        w.bucket[i] = NIL
    for i in range(4):
        s.root[i] = NIL
    s.free = 0
    s.oldest = s.newest = NIL
