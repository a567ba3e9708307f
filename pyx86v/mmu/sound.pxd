# SPDX-License-Identifier: GPL-2.0-or-later
"""May an `Mmu` out of a file be used?  A snapshot's checksum says that it is whole, not that it is true.

What is checked is what the code of this folder follows without looking: indexes, lists, rings, machine addresses of
pages.  Counters and rights may be anything.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memcmp
from pyx86v.arch.ptes cimport VA_MASK
from pyx86v.arch.types cimport PAGE_SHIFT
from pyx86v.mmu.state cimport Mmu
from pyx86v.mmu.tlb cimport *

cdef inline bint same_layout(const TlbArray* r, const TlbArray* fresh) noexcept nogil:
    return r.base == fresh.base and r.entries == fresh.entries and r.ways == fresh.ways and \
        r.set_mask == fresh.set_mask and r.policy == fresh.policy and r.hashed == fresh.hashed

cdef inline bint entry_is_sound(const Tlb* t, int a, int index, uint64_t frames) noexcept nogil:
    """A live entry says of itself where it lies, and translates to memory that there is."""
    cdef const TlbArray* r = &t.array[a]
    cdef const TlbEntry* e = &t.entry[index]
    cdef uint64_t number = t.key[index] & VA_MASK
    cdef int size = <int>(t.key[index] >> 48 & 3)
    if t.key[index] != tlb_key(number, size, e.tag) or e.array != a or e.size != size or e.tag >= t.n_tags or \
            t.like[index] != tlb_like(number, size):
        return False
    if e.set != r.base + <int>(number & r.set_mask) * r.ways or index < e.set or index >= e.set + r.ways:
        return False
    if e.shift not in (12, 21, 30) or e.guest_shift not in (12, 21, 22, 30):
        return False
    if a >= N_TLB_ARRAYS:                # parts of walks: tables are read within RAM, wherever they are said to lie
        return True
    return e.shift == size_shift(size) and \
        (e.flags & TLB_HOLE or e.pfn < frames and frames - e.pfn >= <uint64_t>1 << (e.shift - 12))

cdef inline bint ring_is_sound(const Tlb* t, int base, int ways) noexcept nogil:
    """One ring through all ways of a set, the same in both directions."""
    cdef int way = 0, after, n
    if t.ring_first[base] >= ways:
        return False
    for n in range(ways):
        after = t.ring_next[base + way]
        if after >= ways or t.ring_prev[base + after] != way or (after == 0) != (n == ways - 1):
            return False
        way = after
    return True

cdef inline bint chains_are_sound(const Tlb* t, const TlbArray* r, int live) noexcept nogil:
    """The hash index of an array finds each of its `live` entries, once."""
    cdef int b, index, n = 0
    if not r.hashed:
        return True
    for b in range(TLB_BUCKETS):
        index = r.bucket[b]
        while index != TLB_NIL:
            n += 1
            if index < r.base or index >= r.base + r.entries or t.key[index] == 0 or n > live or \
                    tlb_bucket(t.key[index] & VA_MASK) != <uint64_t>b:
                return False
            index = t.entry[index].chain
    return n == live

cdef inline int array_live(const Tlb* t, int a, uint64_t frames) noexcept nogil:
    """How many entries of an array are live; -1: something in it is wrong."""
    cdef const TlbArray* r = &t.array[a]
    cdef int live[4]
    cdef int i, n = 0
    for i in range(4):
        live[i] = 0
    for i in range(r.base, r.base + r.entries):
        if t.key[i] == 0:
            continue
        if not entry_is_sound(t, a, i, frames):
            return -1
        live[t.entry[i].size] += 1
        n += 1
    for i in range(4):
        if r.live[i] != live[i]:
            return -1
    for i in range(r.entries // r.ways if r.ways else 0):
        if not ring_is_sound(t, r.base + i * r.ways, r.ways):
            return -1
    return n if chains_are_sound(t, r, n) else -1

cdef inline int list_length(const Tlb* t, int tag, int part) noexcept nogil:
    """Entries in one of a tag's two lists; -1: it is not one."""
    cdef int n = 0, before = TLB_NIL, index = t.tag[tag].head[part]
    while index != TLB_NIL:
        if index >= TLB_POOL or n == TLB_POOL or t.key[index] == 0 or t.entry[index].tag != tag or \
                (t.entry[index].array >= N_TLB_ARRAYS) != part or t.tag_prev[index] != before:
            return -1
        before = index
        index = t.tag_next[index]
        n += 1
    return n

cdef inline int tag_live(const Tlb* t, int tag) noexcept nogil:
    """Live entries of a tag; -1: its lists or its count are wrong."""
    cdef int walks = list_length(t, tag, 1), pages = list_length(t, tag, 0), roles = 0
    if t.has_current:
        roles = (t.local == tag) + (t.shared == tag) + (t.nested == tag)
    if pages < 0 or walks < 0 or t.tag[tag].live != <uint64_t>(pages + walks + roles):
        return -1
    return pages + walks

cdef inline bint tlb_is_sound(const Tlb* t, const Tlb* fresh, uint64_t frames) noexcept nogil:
    cdef int i, n, used = 0, live = 0, listed = 0
    if t.n_tags > TLB_TAGS or t.has_current > 1 or \
            t.has_current and (t.local >= t.n_tags or t.shared >= t.n_tags or t.nested >= t.n_tags):
        return False
    for i in range(N_ARRAYS):
        if not same_layout(&t.array[i], &fresh.array[i]):
            return False
        n = array_live(t, i, frames)
        if n < 0:
            return False
        live += n
        used += t.array[i].entries
    for i in range(used, TLB_POOL):
        if t.key[i]:
            return False
    for i in range(t.n_tags):
        n = tag_live(t, i)
        if n < 0:
            return False
        listed += n
    return live == listed

cdef inline bint mmu_is_sound(const Mmu* m, const Mmu* fresh, uint64_t ram_bytes) noexcept nogil:
    """May this state replace `fresh`, an empty one of the same processor, on a machine with so much RAM?"""
    return memcmp(&m.config, &fresh.config, sizeof(m.config)) == 0 and \
        memcmp(&m.route, &fresh.route, sizeof(m.route)) == 0 and tlb_is_sound(&m.tlb, &fresh.tlb, ram_bytes >> PAGE_SHIFT)
