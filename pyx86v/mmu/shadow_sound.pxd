# SPDX-License-Identifier: GPL-2.0-or-later
"""May shadow tables out of a file be used?  As in sound.pxd: checked is what the code follows without looking.

That is the place and size of the arrays, every list and what it leads to, and the counts that end loops.  Entries that
map what the guest's tables do not are the file's own affair, as long as they map the guest's memory or its firmware.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.ptes cimport *
from pyx86v.arch.types cimport hpa_t
from pyx86v.mmu.memory cimport Ram, Window
from pyx86v.mmu.shadow cimport shadow_bytes, shadow_layout
from pyx86v.mmu.shadow_pool cimport bucket_of, list_of, page_find
from pyx86v.mmu.shadow_state cimport *
from pyx86v.mmu.state cimport PagingContext

cdef inline bint layout_is_sound(const Shadow* s, const Window* guest, hpa_t at) noexcept nogil:
    cdef Shadow fresh
    return shadow_layout(&fresh, guest, at, shadow_bytes(guest.size)) == 0 and s.at == fresh.at and \
        s.guest_base == fresh.guest_base and s.frames == fresh.frames and s.n_pages == fresh.n_pages and \
        s.bucket_bits == fresh.bucket_bits and s.n_used <= s.n_pages and s.config.most_unsynced <= MAX_UNSYNCED and \
        s.n_unsynced <= s.config.most_unsynced

cdef inline bint hardware_is_sound(const PagingContext* h, const PagingContext* guest, const Ram* ram) noexcept nogil:
    """The context that the processor walks: all of machine memory, which its tables may name as they like."""
    return (h.mode == PAGING_PAE or h.mode == PAGING_LONG) and h.eptp == 0 and h.maxphyaddr == guest.maxphyaddr and \
        h.window.base == 0 and h.window.size == ram.size and h.window.rom_size == 0 and h.window.a20_mask == ~<uint64_t>0

cdef inline bint is_used(const Shadower* w, uint32_t i) noexcept nogil:
    return i < w.s.n_pages and w.page[i].kind != KIND_FREE

cdef inline bint leaf_is_sound(const Shadower* w, const Window* guest, int level, uint64_t e) noexcept nogil:
    """It maps the guest's memory, or firmware, and large pages only where a list is kept of them."""
    cdef hpa_t at = e & FRAME_MASK
    if level == 2:
        return at & 0x1fffff == 0 and at >= w.s.guest_base and (at - w.s.guest_base) >> 12 < w.s.frames
    return not e & PTE_PS and (at - w.s.guest_base < w.s.frames << 12 or at - guest.rom_base < guest.rom_size)

cdef inline bint entry_is_sound(const Shadower* w, const Window* guest, uint32_t slot, uint64_t e) noexcept nogil:
    """It maps a page, or points to a table one level below: no way up or down goes round."""
    cdef int level = w.page[slot >> 9].level
    cdef uint64_t below = (e & FRAME_MASK) - w.s.at
    if level == 1 or level == 2 and e & PTE_PS:
        return leaf_is_sound(w, guest, level, e)
    return not e & PTE_PS and below >> 12 < w.s.n_pages and is_used(w, <uint32_t>(below >> 12)) and \
        w.page[below >> 12].level == level - 1

cdef inline int64_t page_live(const Shadower* w, const Window* guest, uint32_t i) noexcept nogil:
    """Entries of a page; -1: something in it is wrong."""
    cdef const ShadowPage* p = &w.page[i]
    cdef int64_t n = 0
    cdef uint32_t k
    cdef uint64_t e
    if p.kind > KIND_DIRECT or p.kind != KIND_FREE and (p.level < 1 or p.level > 4 or p.quadrant > 3):
        return -1
    if p.kind == KIND_FREE and not p.clean:
        return 0                             # cleared before it is used
    for k in range(SHADOW_ENTRIES):
        e = w.table[i << 9 | k]
        if e and (p.kind == KIND_FREE or not e & PTE_P or not entry_is_sound(w, guest, i << 9 | k, e)):
            return -1
        n += e != 0
    return n if p.kind == KIND_FREE or n == p.live else -1

cdef inline int64_t entries_live(const Shadower* w, const Window* guest) noexcept nogil:
    """Entries of all pages that are on a list: all but those that map firmware.  -1: something is wrong."""
    cdef int64_t n, total = 0, used = 0
    cdef uint32_t i, slot
    for i in range(w.s.n_pages):
        n = page_live(w, guest, i)
        if n < 0:
            return -1
        used += w.page[i].kind != KIND_FREE
    if used != w.s.n_used:
        return -1
    for slot in range(w.s.n_pages * SHADOW_ENTRIES):
        if w.page[slot >> 9].kind != KIND_FREE and w.table[slot]:
            total += list_of(<Shadower*>w, slot, w.table[slot]) is not NULL
    return total

cdef inline int64_t list_length(const Shadower* w, uint32_t* head) noexcept nogil:
    """Entries on a list; -1: it is not one, or has an entry that belongs on another."""
    cdef uint32_t slot = head[0], before = NIL
    cdef int64_t n = 0
    while slot != NIL:
        if slot >= w.s.n_pages * SHADOW_ENTRIES or w.link[slot].prev != before or not is_used(w, slot >> 9) or \
                not w.table[slot] or list_of(<Shadower*>w, slot, w.table[slot]) is not head:
            return -1
        before = slot
        slot = w.link[slot].next
        n += 1
    return n

cdef inline bint lists_are_sound(const Shadower* w, int64_t live) noexcept nogil:
    """Every entry is on the list where it belongs."""
    cdef int64_t n, total = 0
    cdef uint64_t i
    for i in range(w.s.frames + larges_of(w.s.frames) + w.s.n_pages):
        if i < w.s.frames:
            n = list_length(w, &w.frame[i].maps)
        elif i < w.s.frames + larges_of(w.s.frames):
            n = list_length(w, &w.large[i - w.s.frames].maps)
        elif w.page[i - w.s.frames - larges_of(w.s.frames)].kind != KIND_FREE:
            n = list_length(w, &w.page[i - w.s.frames - larges_of(w.s.frames)].parents)
        else:
            n = 0
        if n < 0:
            return False
        total += n
    return total == live

cdef inline bint free_is_sound(const Shadower* w) noexcept nogil:
    """The list of free pages has each of them."""
    cdef uint32_t i = w.s.free, n = 0
    while i != NIL:
        n += 1
        if n > w.s.n_pages or i >= w.s.n_pages or w.page[i].kind != KIND_FREE:
            return False
        i = w.page[i].next
    return n == w.s.n_pages - w.s.n_used     # no page twice: the list would not end

cdef inline bint ages_are_sound(const Shadower* w) noexcept nogil:
    """The list by age has each used page."""
    cdef uint32_t i = w.s.oldest, before = NIL, n = 0
    while i != NIL:
        n += 1
        if n > w.s.n_used or not is_used(w, i) or w.page[i].older != before:
            return False
        before = i
        i = w.page[i].newer
    return n == w.s.n_used and w.s.newest == before

cdef inline bint buckets_are_sound(const Shadower* w) noexcept nogil:
    """Each used page is in its bucket."""
    cdef uint64_t b
    cdef uint32_t i, n = 0
    for b in range(<uint64_t>1 << w.s.bucket_bits):
        i = w.bucket[b]
        while i != NIL:
            n += 1
            if n > w.s.n_used or not is_used(w, i) or bucket_of(<Shadower*>w, w.page[i].gfn) is not &w.bucket[b]:
                return False
            i = w.page[i].next
    return n == w.s.n_used

cdef inline uint32_t derived(const Shadower* w, uint64_t gfn) noexcept nogil:
    """Shadow pages derived from a frame."""
    cdef uint32_t i = bucket_of(<Shadower*>w, gfn)[0], n = 0
    while i != NIL:
        n += w.page[i].gfn == gfn and w.page[i].kind == KIND_TABLE
        i = w.page[i].next
    return n

cdef inline bint frames_are_sound(const Shadower* w) noexcept nogil:
    """What is said of each frame and each 2 MB agrees with the pages."""
    cdef uint64_t gfn
    cdef uint32_t tables = 0, unsynced = 0, i
    for gfn in range(w.s.frames):
        if w.frame[gfn].tables:
            if w.frame[gfn].tables != derived(w, gfn):
                return False
        if w.frame[gfn].tables or w.frame[gfn].code:
            tables += 1
        if w.frame[gfn].unsynced:
            unsynced += 1
            if not w.frame[gfn].tables:
                return False
        if gfn & 511 == 511 or gfn + 1 == w.s.frames:
            if w.large[gfn >> 9].tables != tables:
                return False
            tables = 0
    for i in range(w.s.n_pages):
        if w.page[i].kind == KIND_TABLE and w.page[i].gfn < w.s.frames and not w.frame[w.page[i].gfn].tables:
            return False
    for i in range(w.s.n_unsynced):
        if w.s.unsynced[i] >= w.s.frames or not w.frame[w.s.unsynced[i]].unsynced:
            return False
    return unsynced == w.s.n_unsynced

cdef inline bint roots_are_sound(const Shadower* w, bint is_long) noexcept nogil:
    """One page of the fourth level, or up to four of the second."""
    cdef int k
    for k in range(4):
        if w.s.root[k] == NIL:
            if is_long and k == 0:
                return False
        elif not is_used(w, w.s.root[k]) or is_long and k or w.page[w.s.root[k]].level != (4 if is_long else 2):
            return False
    return True

cdef inline bint shadow_is_sound(Shadow* s, const Ram* ram, const PagingContext* guest, const PagingContext* hardware,
                                 hpa_t at) noexcept nogil:
    """May these tables, whose arrays lie at `at`, serve the guest?"""
    cdef Shadower w
    cdef int64_t live
    w.s = s
    w.ram = ram
    if not layout_is_sound(s, &guest.window, at) or not hardware_is_sound(hardware, guest, ram) or not arrays_find(&w):
        return False
    live = entries_live(&w, &guest.window)
    return live >= 0 and buckets_are_sound(&w) and free_is_sound(&w) and ages_are_sound(&w) and lists_are_sound(&w, live) and \
        frames_are_sound(&w) and roots_are_sound(&w, hardware.mode == PAGING_LONG)
