# SPDX-License-Identifier: GPL-2.0-or-later
"""Data caches: which of three levels has a line of machine memory.

Each level is set-associative with true LRU, by machine address, lines of 64 bytes.  An access looks from the first level on
and fills every level that did not have the line; a hit tells the levels behind it nothing, and an eviction none of the others, so
they are neither inclusive nor exclusive.  Reads and writes are alike; there is no prefetcher and no write buffer.
`Caches` is one plain block of memory without pointers, as long as its lines need: it can be saved and restored as bytes.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.types cimport hpa_t

cdef enum:
    CACHE_LEVELS = 3
    LINE_SHIFT = 6
    MAX_WAYS = 64
    FARTHEST_LINE = 37       # bits of an address that has a line: beyond RAM there is nothing to hold

cdef enum CacheMode:         # which accesses go through the caches
    CACHES_OFF = 0           # none: a reference of a walk has the price of its level
    CACHES_WALKS = 1         # references of page walks; and, free of charge, the data access that missed the TLB
    CACHES_FULL = 2          # and all other data accesses, at what they take beyond a hit in the first level

ctypedef struct CacheLevel:
    uint32_t sets            # 0: the part has no such level
    uint32_t ways
    uint32_t first           # index in `line` of the first set
    uint32_t pad
    uint64_t hits

ctypedef struct Caches:
    uint64_t bytes           # of the whole block
    uint64_t mode            # CacheMode
    CacheLevel level[CACHE_LEVELS]
    uint64_t misses          # accesses that no level had
    uint32_t line[1]         # number + 1 of the line in each way, 0: none; a set's most recently used one comes first

cdef inline bint set_touch(Caches* c, const CacheLevel* l, uint32_t number) noexcept nogil:
    """Make the line the most recently used of its set.  False: it was not there, and took the place of the least recently used."""
    cdef uint32_t* line = &c.line[l.first + number % l.sets * l.ways]
    cdef uint32_t i = 0, last = l.ways - 1, moved = number + 1, next
    cdef bint held = False
    while not held and i <= last:
        next = line[i]
        line[i] = moved
        held = next == number + 1
        moved = next
        i += 1
    return held

cdef inline int cache_access(Caches* c, hpa_t at) noexcept nogil:
    """Access the line of a machine address.  The level that had it, from 0, or CACHE_LEVELS: memory."""
    cdef int i
    if at >> FARTHEST_LINE:
        return CACHE_LEVELS
    for i in range(CACHE_LEVELS):
        if c.level[i].sets and set_touch(c, &c.level[i], <uint32_t>(at >> LINE_SHIFT)):
            c.level[i].hits += 1
            return i
    c.misses += 1
    return CACHE_LEVELS
