# SPDX-License-Identifier: GPL-2.0-or-later
"""The modelled translation caches: first-level TLBs, second level, paging-structure caches, nested TLB.

All of them are arrays of sets in one pool and work alike.  An entry is found by (number, size, tag):
the address above the page offset, the page size, and the number of an entry of the tag table, which
names an address space (asid, pcid, nested root).  Every tag lists its live entries, so a flush costs
what it drops, and a dropped entry is really gone: no generation, nothing lazily dead.

Replacement.  Each set keeps its ways in a ring, next victim first.  A dropped entry goes to the front,
so that free ways are used before live ones; a filled entry goes to the back.
    FIFO    the front                       LRU     the front, and a use sends an entry to the back
    RANDOM  a free way, lowest index first; else xorshift64* picks the way
    ROUND_ROBIN  the way after the last one filled, free or not; drops change nothing
A first-level array is never LRU: its hits are not seen by the model, the engine caches them.
The levels are not inclusive: eviction from the second level leaves the first level alone.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport VA_MASK
from pyx86v.arch.types cimport gva_t, hpa_t, gpa_t, PAGE_SHIFT

cdef extern from *:
    """
    #include <emmintrin.h>
    #include <stdint.h>
    /* Bit i: of the `ways` bytes (at most 16, all of which can be read) byte i is `want`. */
    static inline uint32_t pyx_ways_like(const uint8_t *like, uint8_t want, int ways)
    {
        __m128i all = _mm_loadu_si128((const __m128i *)like);
        return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8((char)want))) & ((1u << ways) - 1);
    }
    #define pyx_lowest_bit(x) __builtin_ctz(x)
    """
    uint32_t ways_like "pyx_ways_like" (const uint8_t* like, uint8_t want, int ways) noexcept nogil
    int lowest_bit "pyx_lowest_bit" (uint32_t x) noexcept nogil

cdef enum:
    TLB_POOL = 4096      # entries of all arrays together, at most
    TLB_TAGS = TLB_POOL + 8  # every entry of its own tag, and the current ones: never full
    TLB_BUCKETS = 128
    TLB_SCAN_WAYS = 16   # sets wider than this are found through a hash index
    TLB_NIL = 0xffff

cdef enum TlbArrayId:
    ARRAY_I_4K = 0
    ARRAY_I_2M = 1
    ARRAY_I_1G = 2
    ARRAY_D_4K = 3
    ARRAY_D_2M = 4
    ARRAY_D_1G = 5
    ARRAY_L2 = 6         # shared by I and D unless split; 4K, also 2M where the configuration says so
    ARRAY_L2_2M = 7
    ARRAY_L2_1G = 8
    ARRAY_L2_CODE = 9    # of I alone; 4K, also 2M where the configuration says so
    N_TLB_ARRAYS = 10    # the arrays above hold final translations, those below parts of walks
    ARRAY_PML4E = 10
    ARRAY_PDPTE = 11
    ARRAY_PDE = 12
    ARRAY_NESTED = 13
    N_ARRAYS = 14

cdef enum TlbPolicy:
    POLICY_FIFO = 0
    POLICY_ROUND_ROBIN = 1
    POLICY_RANDOM = 2
    POLICY_LRU = 3

cdef enum PageSize:      # index of a page size
    SIZE_4K = 0
    SIZE_2M = 1          # a 4 MB page takes two such entries (CPUID leaf 2, descriptor B1h)
    SIZE_1G = 2
    SIZE_512G = 3        # what a PML4E covers; paging-structure caches only
    N_SIZES = 4

cdef enum TlbFlag:       # rights of a translation; W and U are where the page-table entry has them
    TLB_W = 0x2          # writable at every guest level
    TLB_U = 0x4          # user at every guest level
    TLB_NX = 0x8         # no-execute at some guest level
    TLB_D = 0x10         # dirty flags are set wherever a write would set them: writes need no walk
    TLB_EPT_R = 0x20     # R, W, X at every nested level; all three when not nested
    TLB_EPT_W = 0x40
    TLB_EPT_X = 0x80
    TLB_EPT_RWX = 0xe0
    TLB_G = 0x100        # global: any pcid of the asid
    TLB_HOLE = 0x200     # there is no RAM: a device or nothing; the page frame means nothing

cdef enum:               # in the place of a pcid: tags that are no guest address space
    TAG_GLOBAL = 0xffff
    TAG_UNPAGED = 0xfffe # CR0.PG = 0 under nested paging
    TAG_NESTED = 0xfffd  # guest-physical: nested TLB

cdef extern from *:
    """
    #define PYX_TLB_VALID 0x8000000000000000ULL
    """
    const uint64_t TLB_VALID "PYX_TLB_VALID"

ctypedef struct ArrayConfig:
    uint16_t entries     # 0: the part has none
    uint16_t ways        # 1..256; 0: fully associative
    uint16_t policy      # TlbPolicy
    uint16_t pad

ctypedef struct TlbEntry:
    uint64_t pfn         # hpa >> 12 of the page's (or table's) first frame
    uint64_t gfn         # gpa >> 12 of the same
    uint16_t tag         # index in Tlb.tag: asid, pcid, nested root
    uint16_t chain       # next in the hash bucket
    uint16_t flags       # TlbFlag
    uint8_t shift        # 12, 21 or 30: what this entry covers
    uint8_t guest_shift  # 12, 21, 22 or 30: the guest's page; larger than `shift` when fractured
    uint8_t array        # TlbArrayId
    uint8_t size         # PageSize
    uint16_t set         # pool index of the first way of its set
    uint32_t pad

ctypedef struct TlbTag:
    uint64_t eptp        # nested root and its accessed/dirty switch (EPTP bits 51:12 and 6); 0 = not nested
    uint32_t live        # entries, and 1 while the tag is current
    uint16_t asid
    uint16_t pcid        # or TAG_*
    uint16_t head[2]     # live entries: final translations, parts of walks
    uint32_t pad

ctypedef struct TlbArray:
    uint16_t base        # first index in the pool
    uint16_t entries
    uint16_t ways
    uint16_t set_mask
    uint16_t policy
    uint16_t hashed
    uint16_t live[N_SIZES]
    uint16_t bucket[TLB_BUCKETS]
    uint64_t random      # xorshift64* state
    uint64_t hits        # counted for the second level, walk caches and nested TLB
    uint64_t fills
    uint64_t evictions   # fills that replaced a live entry

ctypedef struct Tlb:
    uint64_t key[TLB_POOL]       # 0 = free; else valid, tag, size, number: see tlb_key
    uint8_t like[TLB_POOL + TLB_SCAN_WAYS]   # tlb_like of the key: a set is searched by these, sixteen at once
    TlbEntry entry[TLB_POOL]
    uint16_t tag_next[TLB_POOL]  # the lists of a tag's live entries
    uint16_t tag_prev[TLB_POOL]
    uint8_t ring_next[TLB_POOL]  # ways of a set in order of replacement
    uint8_t ring_prev[TLB_POOL]
    uint8_t ring_first[TLB_POOL] # at the index of each set's first way
    TlbArray array[N_ARRAYS]
    TlbTag tag[TLB_TAGS]
    uint16_t n_tags
    uint16_t local               # tags of the current context
    uint16_t shared              # its global pages
    uint16_t nested
    uint32_t current             # asid << 16 | pcid of `local`; valid with has_current
    uint32_t has_current
    uint64_t current_eptp
    uint64_t victim_key          # what the last tlb_insert replaced, 0 = nothing
    uint16_t victim_tag
    uint16_t victim_shift
    uint32_t pad
    uint16_t fractured[1024]     # live fractured entries by hash of the guest's page: see fractured_slot

cdef inline uint64_t tlb_number(gva_t at, int shift) noexcept nogil:
    return (at & VA_MASK) >> shift

cdef inline uint64_t gpa_number(gpa_t at, int shift) noexcept nogil:
    return at >> shift

cdef inline uint64_t tlb_key(uint64_t number, int size, uint64_t tag) noexcept nogil:
    """Bits 47:0 number, 49:48 page size, 62:50 tag, 63 valid."""
    return TLB_VALID | tag << 50 | (<uint64_t>size) << 48 | number

cdef inline uint8_t tlb_like(uint64_t number, int size) noexcept nogil:
    return <uint8_t>((number * 4 + <uint64_t>size) * 0x9e3779b97f4a7c15ULL >> 56)

cdef inline int size_shift(int size) noexcept nogil:
    return PAGE_SHIFT + 9 * size

cdef inline uint32_t tlb_bucket(uint64_t number) noexcept nogil:
    return (number ^ number >> 7 ^ number >> 14) & (TLB_BUCKETS - 1)

cdef inline uint32_t fractured_slot(gva_t at, int guest_shift) noexcept nogil:
    """Counter of the live entries that are part of this guest page (and of its hash neighbours):
    0 proves that dropping the page needs no search for parts of it."""
    return <uint32_t>((tlb_number(at, guest_shift) * 64 + <uint64_t>guest_shift) * 0x9e3779b97f4a7c15ULL >> 54)

# ---------------------------------------------------------------- set-up

cdef inline uint64_t random_step(uint64_t* state) noexcept nogil:
    """xorshift64* (Vigna 2016, "An experimental exploration of Marsaglia's xorshift generators, scrambled")."""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * 0x2545f4914f6cdd1dULL

cdef inline int array_init(Tlb* t, int a, const ArrayConfig* c, int base, uint64_t seed) noexcept nogil:
    """Lay array `a` out at pool index `base`.  Returns the next free index, or -1: impossible geometry."""
    cdef TlbArray* r = &t.array[a]
    cdef int ways = c.ways if c.ways else c.entries
    cdef int sets = 0, i, way
    memset(r, 0, sizeof(TlbArray))
    for i in range(TLB_BUCKETS):
        r.bucket[i] = TLB_NIL
    r.base = <uint16_t>base
    if c.entries == 0:
        return base
    while sets * ways < c.entries:
        sets = sets * 2 if sets else 1
    if ways > 256 or sets * ways != c.entries or base + c.entries > TLB_POOL or c.policy > POLICY_LRU:
        return -1
    if a < ARRAY_L2 and c.policy == POLICY_LRU:
        return -1
    r.entries = c.entries
    r.ways = <uint16_t>ways
    r.set_mask = <uint16_t>(sets - 1)
    r.policy = c.policy
    r.hashed = ways > TLB_SCAN_WAYS
    r.random = (seed + <uint64_t>(a + 1)) * 0x9e3779b97f4a7c15ULL | 1
    for i in range(sets):
        for way in range(ways):
            t.ring_next[base + i * ways + way] = <uint8_t>(way + 1 if way + 1 < ways else 0)
            t.ring_prev[base + i * ways + way] = <uint8_t>(way - 1 if way else ways - 1)
    return base + c.entries

cdef inline int tlb_init(Tlb* t, const ArrayConfig* config, uint64_t seed) noexcept nogil:
    """Empty caches of the given N_ARRAYS geometries.  0, or -(array number + 1) of an impossible one."""
    cdef int a, base = 0
    memset(t, 0, sizeof(Tlb))
    for a in range(N_ARRAYS):
        base = array_init(t, a, &config[a], base, seed)
        if base < 0:
            return -(a + 1)
    return 0

# ---------------------------------------------------------------- tags

cdef inline int tag_find(Tlb* t, int asid, int pcid, uint64_t eptp) noexcept nogil:
    """The tag of this address space, made when it has no live entry anywhere."""
    cdef int i, free = -1
    for i in range(t.n_tags):
        if t.tag[i].live == 0:
            if free < 0:
                free = i
        elif t.tag[i].pcid == pcid and t.tag[i].asid == asid and t.tag[i].eptp == eptp:
            return i
    if free < 0:
        free = t.n_tags
        t.n_tags += 1
    t.tag[free].eptp = eptp
    t.tag[free].asid = <uint16_t>asid
    t.tag[free].pcid = <uint16_t>pcid
    t.tag[free].head[0] = TLB_NIL
    t.tag[free].head[1] = TLB_NIL
    return free

cdef inline void tags_enter(Tlb* t, uint32_t space, uint64_t eptp) noexcept nogil:
    """Make (asid << 16 | pcid, nested root) the space that lookups and fills mean."""
    if t.has_current and t.current == space and t.current_eptp == eptp:
        return
    if t.has_current:
        t.tag[t.local].live -= 1
        t.tag[t.shared].live -= 1
        t.tag[t.nested].live -= 1
    t.has_current = 1
    t.current = space
    t.current_eptp = eptp
    t.local = <uint16_t>tag_find(t, space >> 16, space & 0xffff, eptp)
    t.tag[t.local].live += 1
    t.shared = <uint16_t>tag_find(t, space >> 16, TAG_GLOBAL, eptp)
    t.tag[t.shared].live += 1
    t.nested = <uint16_t>tag_find(t, 0, TAG_NESTED, eptp)
    t.tag[t.nested].live += 1

# ---------------------------------------------------------------- lookup

cdef inline bint tlb_is(const Tlb* t, int index, uint64_t number, int size, int tag, int other) noexcept nogil:
    """Is the entry this page of one of two tags?"""
    return t.key[index] == tlb_key(number, size, tag) or t.key[index] == tlb_key(number, size, other)

cdef inline int tlb_find(const Tlb* t, int a, uint64_t number, int size, int tag, int other) noexcept nogil:
    """Pool index of the page's entry of either tag, or -1.  Changes nothing."""
    cdef const TlbArray* r = &t.array[a]
    cdef uint32_t ways
    cdef int i
    if r.live[size] == 0:
        return -1
    if r.hashed:
        i = r.bucket[tlb_bucket(number)]
        while i != TLB_NIL:
            if tlb_is(t, i, number, size, tag, other):
                return i
            i = t.entry[i].chain
        return -1
    i = r.base + <int>(number & r.set_mask) * r.ways
    ways = ways_like(&t.like[i], tlb_like(number, size), r.ways)
    while ways:
        if tlb_is(t, i + lowest_bit(ways), number, size, tag, other):
            return i + lowest_bit(ways)
        ways &= ways - 1
    return -1

cdef inline int tlb_probe(const Tlb* t, int a, uint64_t number, int size, int tag) noexcept nogil:
    """Pool index of the page's entry of this tag, or -1.  Changes nothing."""
    return tlb_find(t, a, number, size, tag, tag)

# ---------------------------------------------------------------- order of replacement

cdef inline void ring_move(Tlb* t, int base, int way, bint to_front) noexcept nogil:
    """Make `way` the first or the last of its set's ring."""
    cdef int first = t.ring_first[base], last, before, after
    if way == first:
        if not to_front:
            t.ring_first[base] = t.ring_next[base + way]
        return
    last = t.ring_prev[base + first]
    if way == last:
        if to_front:
            t.ring_first[base] = <uint8_t>way
        return
    before = t.ring_prev[base + way]
    after = t.ring_next[base + way]
    t.ring_next[base + before] = <uint8_t>after
    t.ring_prev[base + after] = <uint8_t>before
    t.ring_next[base + last] = <uint8_t>way
    t.ring_prev[base + way] = <uint8_t>last
    t.ring_next[base + way] = <uint8_t>first
    t.ring_prev[base + first] = <uint8_t>way
    if to_front:
        t.ring_first[base] = <uint8_t>way

cdef inline void tlb_used(Tlb* t, int index) noexcept nogil:
    """Count a hit of a second-level or walk-cache entry, and tell LRU."""
    cdef TlbArray* r = &t.array[t.entry[index].array]
    r.hits += 1
    if r.policy == POLICY_LRU:
        ring_move(t, t.entry[index].set, index - t.entry[index].set, False)

cdef inline int way_to_fill(Tlb* t, TlbArray* r, int base) noexcept nogil:
    """Choose the way of the set at `base` and put it at the back of the ring."""
    cdef int way = t.ring_first[base]
    if r.policy == POLICY_RANDOM:
        if t.key[base + way]:
            way = <int>((random_step(&r.random) >> 32) * r.ways >> 32)
        else:
            way = 0
            while t.key[base + way]:
                way += 1
    ring_move(t, base, way, False)
    return way

# ---------------------------------------------------------------- change

cdef inline void tlb_unlink(Tlb* t, int index) noexcept nogil:
    """Take a live entry out of its tag's list, the hash index and the counts; its ring place stays."""
    cdef TlbEntry* e = &t.entry[index]
    cdef TlbArray* r = &t.array[e.array]
    cdef TlbTag* tag = &t.tag[e.tag]
    cdef uint16_t* link
    cdef uint16_t before = t.tag_prev[index], after = t.tag_next[index]
    if before == TLB_NIL:
        tag.head[e.array >= N_TLB_ARRAYS] = after
    else:
        t.tag_next[before] = after
    if after != TLB_NIL:
        t.tag_prev[after] = before
    tag.live -= 1
    if r.hashed:
        link = &r.bucket[tlb_bucket(t.key[index] & VA_MASK)]
        while link[0] != index:
            link = &t.entry[link[0]].chain
        link[0] = e.chain
    if e.guest_shift > e.shift:
        t.fractured[fractured_slot((t.key[index] & VA_MASK) << e.shift, e.guest_shift)] -= 1
    r.live[e.size] -= 1
    t.key[index] = 0

cdef inline void tlb_drop(Tlb* t, int index) noexcept nogil:
    """Invalidate one live entry."""
    cdef TlbArray* r = &t.array[t.entry[index].array]
    tlb_unlink(t, index)
    if r.policy != POLICY_ROUND_ROBIN:
        ring_move(t, t.entry[index].set, index - t.entry[index].set, True)

cdef inline int tlb_insert(Tlb* t, int a, uint64_t number, int size, int tag, uint64_t pfn, uint64_t gfn, int flags,
                           int shift, int guest_shift) noexcept nogil:
    """Fill an entry of array `a`.  Returns its pool index.

    The caller has looked: no entry of this key is live.  t.victim_* tell what was replaced.
    """
    cdef TlbArray* r = &t.array[a]
    cdef int base = r.base + <int>(number & r.set_mask) * r.ways
    cdef int index = base + way_to_fill(t, r, base)
    cdef TlbEntry* e = &t.entry[index]
    cdef uint16_t* head = &t.tag[tag].head[a >= N_TLB_ARRAYS]
    cdef uint32_t bucket
    t.victim_key = t.key[index]
    if t.victim_key:
        t.victim_tag = e.tag
        t.victim_shift = e.shift
        tlb_unlink(t, index)
        r.evictions += 1
    r.fills += 1
    r.live[size] += 1
    t.key[index] = tlb_key(number, size, tag)
    t.like[index] = tlb_like(number, size)
    e.pfn = pfn
    e.gfn = gfn
    e.flags = <uint16_t>flags
    e.shift = <uint8_t>shift
    e.guest_shift = <uint8_t>guest_shift
    e.array = <uint8_t>a
    e.size = <uint8_t>size
    e.set = <uint16_t>base
    e.tag = <uint16_t>tag
    t.tag_prev[index] = TLB_NIL
    t.tag_next[index] = head[0]
    if head[0] != TLB_NIL:
        t.tag_prev[head[0]] = <uint16_t>index
    head[0] = <uint16_t>index
    t.tag[tag].live += 1
    if r.hashed:
        bucket = tlb_bucket(number)
        e.chain = r.bucket[bucket]
        r.bucket[bucket] = <uint16_t>index
    if guest_shift > shift:
        t.fractured[fractured_slot(number << shift, guest_shift)] += 1
    return index

# ---------------------------------------------------------------- flush

cdef inline uint64_t tag_flush(Tlb* t, int tag, int part) noexcept nogil:
    """Drop a tag's final translations (part 0) or parts of walks (part 1).  Returns how many."""
    cdef uint64_t n = 0
    while t.tag[tag].head[part] != TLB_NIL:
        tlb_drop(t, t.tag[tag].head[part])
        n += 1
    return n

cdef inline int drop_parts(Tlb* t, int tag, gva_t at, int guest_shift, uint64_t* entries) noexcept nogil:
    """Drop the fractured parts of the guest page of this size that holds `at`.  Returns guest_shift, or 0: none."""
    cdef int index, next_index, found = 0
    cdef const TlbEntry* e
    if t.fractured[fractured_slot(at, guest_shift)] == 0:
        return 0
    index = t.tag[tag].head[0]
    while index != TLB_NIL:
        e = &t.entry[index]
        next_index = t.tag_next[index]
        if (e.guest_shift == guest_shift and e.shift < guest_shift and
                (t.key[index] & VA_MASK) >> (guest_shift - e.shift) == tlb_number(at, guest_shift)):
            found = guest_shift
            tlb_drop(t, index)
            entries[0] += 1
        index = next_index
    return found

cdef inline int tag_drop_page(Tlb* t, int tag, gva_t at, uint64_t* entries) noexcept nogil:
    """Drop every final translation of the page that holds `at`.  Adds their number to `entries`;
    returns the largest shift of a page dropped (the guest's page for its fractured parts), or 0."""
    cdef int a, size, index, largest = 0
    if t.tag[tag].head[0] == TLB_NIL:
        return 0
    for a in range(N_TLB_ARRAYS):
        for size in range(SIZE_512G):
            index = tlb_probe(t, a, tlb_number(at, size_shift(size)), size, tag)
            if index >= 0:
                largest = max(largest, <int>t.entry[index].guest_shift, <int>t.entry[index].shift)
                tlb_drop(t, index)
                entries[0] += 1
    largest = max(largest, drop_parts(t, tag, at, 21, entries))
    largest = max(largest, drop_parts(t, tag, at, 22, entries))
    return max(largest, drop_parts(t, tag, at, 30, entries))
