# SPDX-License-Identifier: GPL-2.0-or-later
"""Translation as the engine sees it: look up, else translate.  Invalidation is in invalidate.pxd.

The engine keeps its own translations a subset of the first level here: it fills what mmu_lookup or
mmu_translate allow, and drops what `evicted`, `drop` and the invalidations name.

A fault or violation never depends on what is cached: a walk that used a paging-structure cache or the nested TLB
and fails is repeated without them (SDM 3A 4.10.4.3 allows the spurious fault; it would differ between styles).
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport *
from pyx86v.arch.regs cimport CR0_CD, CR0_NW, CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP
from pyx86v.arch.types cimport ACCESS_FETCH, ACCESS_READ, ACCESS_WRITE, SUPERVISOR_SMAP, USER, gpa_t, gva_t, hpa_t
from pyx86v.cost.ledger cimport Ledger, TLB, TLB_L2_HIT, WALK_BASE, WALK_GUEST_1, WALK_REF_1, WALK_START, charge
from pyx86v.mmu.memory cimport HPA_NONE, Ram, Window, ram_holds, ram_read64
from pyx86v.mmu.nested cimport *
from pyx86v.mmu.pwc cimport nested_tlb_find, pwc_drop_address
from pyx86v.mmu.state cimport *
from pyx86v.mmu.tlb cimport *
from pyx86v.mmu.walk cimport *

# ---------------------------------------------------------------- set-up

cdef inline void route_size(Mmu* m, int side, int size) noexcept nogil:
    """Which array of `side` takes pages of `size` whole.  The first level's 4K array takes all when large_whole."""
    cdef int a = size + (ARRAY_I_4K if side == SIDE_I else ARRAY_D_4K)
    if side == ROUTE_L2 + SIDE_I and m.config.l2_split:
        a = ARRAY_L2_CODE if size == SIZE_4K or size == SIZE_2M and m.config.l2_code_2m else NO_ARRAY
    elif side >= ROUTE_L2:
        a = ARRAY_L2 if size == SIZE_2M and m.config.l2_2m else ARRAY_L2 + size
    elif m.config.array[a].entries == 0 and m.config.large_whole:
        a = a - size
    if a != NO_ARRAY and m.config.array[a].entries == 0:
        a = NO_ARRAY
    m.route[side][size] = <uint8_t>a

cdef inline int mmu_init(Mmu* m, const MmuConfig* config) noexcept nogil:
    """An empty MMU.  0; -(n + 1): array n has an impossible geometry or policy; -100: a first level has no 4K array.

    Sets (entries / ways) are a power of two, ways at most 256, entries of all arrays together at most TLB_POOL;
    a first-level array is not LRU.
    """
    cdef int side, size, status
    memset(m, 0, sizeof(Mmu))
    m.config = config[0]
    for side in range(ROUTE_L2 + 2):
        for size in range(N_SIZES):
            m.route[side][size] = NO_ARRAY
        for size in range(SIZE_512G):
            route_size(m, side, size)
    status = tlb_init(&m.tlb, config.array, config.seed)
    if status == 0 and (m.route[0][0] == NO_ARRAY or m.route[1][0] == NO_ARRAY):
        return -100
    return status

cdef enum:
    NESTED_TO_PROT = 5   # TLB_EPT_R >> NESTED_TO_PROT is PROT_R; W and X follow

# ---------------------------------------------------------------- entries

cdef inline void mmu_enter(Mmu* m, const PagingContext* ctx) noexcept nogil:
    """Make the caches answer for this context."""
    cdef uint32_t pcid = ctx.pcid if ctx.mode != PAGING_NONE else TAG_UNPAGED
    tags_enter(&m.tlb, <uint32_t>ctx.asid << 16 | pcid, ctx.eptp & (FRAME_MASK | EPTP_AD))

cdef inline hpa_t entry_hpa(const TlbEntry* e, gva_t gva) noexcept nogil:
    """Machine address of `gva`, which the entry translates."""
    return (e.pfn << 12) + (gva & ((<uint64_t>1 << e.shift) - 1))

cdef inline gpa_t entry_gpa(const TlbEntry* e, gva_t gva) noexcept nogil:
    """Guest-physical address of `gva`, which the entry translates."""
    return (e.gfn << 12) + (gva & ((<uint64_t>1 << e.shift) - 1))

cdef inline bint rights_allow(const PagingContext* ctx, int flags, int access, int privilege) noexcept nogil:
    """May the access go through without a walk?  Guest and nested rights, and for a write the dirty flags."""
    cdef int needed = TLB_EPT_R
    if access == ACCESS_WRITE:
        needed = TLB_EPT_W | TLB_D
    elif access == ACCESS_FETCH:
        needed = TLB_EPT_X
    return flags & needed == needed and (ctx.mode == PAGING_NONE or access_allowed(ctx, flags, access, privilege))

cdef inline int rights_prot(const PagingContext* ctx, int flags, int privilege) noexcept nogil:
    """PROT_* of what this privilege may do without a walk: rights_allow of all three accesses at once."""
    cdef int prot = flags >> NESTED_TO_PROT & (PROT_R | PROT_W | PROT_X)
    if not flags & TLB_D:
        prot &= ~PROT_W
    if ctx.mode == PAGING_NONE:
        return prot
    if not flags & TLB_W and (privilege == USER or ctx.cr0 & CR0_WP):
        prot &= ~PROT_W
    if flags & TLB_NX:
        prot &= ~PROT_X
    if not flags & TLB_U:
        return prot if privilege != USER else 0
    if privilege != USER and ctx.cr4 & CR4_SMEP:
        prot &= ~PROT_X
    if privilege == SUPERVISOR_SMAP and ctx.cr4 & CR4_SMAP:
        prot &= PROT_X
    return prot

cdef inline int entry_prot(const TlbEntry* e, const PagingContext* ctx, int privilege) noexcept nogil:
    """PROT_* of an entry that mmu_lookup returned."""
    return rights_prot(ctx, e.flags, privilege)

cdef inline int size_find(const Mmu* m, int side, gva_t gva, int size) noexcept nogil:
    """level_find for one page size."""
    cdef int a = m.route[side][size]
    if a == NO_ARRAY:
        return -1
    return tlb_find(&m.tlb, a, tlb_number(gva, size_shift(size)), size, m.tlb.local, m.tlb.shared)

cdef inline int level_find(const Mmu* m, int side, gva_t gva) noexcept nogil:
    """Index of the current context's entry for `gva` on SIDE_I, SIDE_D or ROUTE_L2 + side, or -1."""
    cdef int index = size_find(m, side, gva, SIZE_4K)
    if index < 0:
        index = size_find(m, side, gva, SIZE_2M)
    if index < 0:
        index = size_find(m, side, gva, SIZE_1G)
    return index

cdef inline const TlbEntry* mmu_lookup(Mmu* m, const PagingContext* ctx, gva_t gva, int access,
                                       int privilege) noexcept nogil:
    """The first-level entry that allows this access, or NULL: then mmu_translate.  Counts and changes nothing.

    NULL also when an entry lacks the right or a write needs its dirty flag, and always when nothing is
    translated (paging off, not nested).
    """
    cdef int index
    if ctx.mode == PAGING_NONE and ctx.eptp == 0:
        return NULL
    mmu_enter(m, ctx)
    index = level_find(m, SIDE_I if access == ACCESS_FETCH else SIDE_D, gva)
    if index < 0 or not rights_allow(ctx, m.tlb.entry[index].flags, access, privilege):
        return NULL
    return &m.tlb.entry[index]

# ---------------------------------------------------------------- fills

cdef inline void report_victim(Mmu* m, int side, Translation* out) noexcept nogil:
    """Tell the engine which first-level entry the last fill replaced."""
    cdef Evicted* v
    if m.tlb.victim_key == 0:
        return
    v = &out.evicted[out.n_evicted]
    v.gva = (m.tlb.victim_key & VA_MASK) << m.tlb.victim_shift
    v.asid = m.tlb.tag[m.tlb.victim_tag].asid
    v.pcid = m.tlb.tag[m.tlb.victim_tag].pcid
    v.shift = <uint8_t>m.tlb.victim_shift
    v.side = <uint8_t>side
    out.n_evicted += 1

cdef inline void level_fill(Mmu* m, int side, int index, gva_t gva, const TlbEntry* page,
                            Translation* out) noexcept nogil:
    """Enter the page in the first level or the second, which now holds `gva` at `index` (-1: not at all).
    The first level fractures what it has no array for, the second leaves it out.  An entry of the same page, size
    and tag is replaced in place: no fill, no eviction."""
    cdef Tlb* t = &m.tlb
    cdef int size = (page.shift > 12) + (page.shift > 21)
    cdef int tag = t.shared if page.flags & TLB_G else t.local
    cdef uint64_t inside, pfn, gfn
    cdef int shift
    while m.route[side][size] == NO_ARRAY:
        if side >= ROUTE_L2:
            return
        size -= 1
    shift = size_shift(size)
    inside = (gva & ((<uint64_t>1 << page.shift) - 1)) >> shift << (shift - 12)
    pfn = page.pfn + inside
    gfn = page.gfn + inside
    if index >= 0:
        if t.entry[index].tag == tag and t.entry[index].size == size and t.entry[index].guest_shift == page.guest_shift:
            t.entry[index].pfn = pfn
            t.entry[index].gfn = gfn
            t.entry[index].flags = page.flags
            return
        tlb_drop(t, index)
    tlb_insert(t, m.route[side][size], tlb_number(gva, shift), size, tag, pfn, gfn, page.flags, shift,
               page.guest_shift)
    if side < ROUTE_L2:
        report_victim(m, side, out)

cdef inline int answer(const PagingContext* ctx, const TlbEntry* e, gva_t gva, int privilege, int source,
                       Translation* out) noexcept nogil:
    """Fill `out` in from an entry that translates `gva`.  XLAT_OK, or XLAT_NO_RAM."""
    out.hpa = entry_hpa(e, gva) & ~<uint64_t>0xfff
    out.gpa = entry_gpa(e, gva) & ~<uint64_t>0xfff
    out.prot = <uint8_t>rights_prot(ctx, e.flags, privilege)
    out.shift = e.shift
    out.source = <uint8_t>source
    if e.flags & TLB_HOLE:
        out.hpa = HPA_NONE
        out.gpa += gva & 0xfff
        return XLAT_NO_RAM
    return XLAT_OK

# ---------------------------------------------------------------- walk

cdef inline int full_walk(Walker* w, gva_t gva, int access, int privilege, GuestPage* guest,
                          NestedPage* nested) noexcept nogil:
    """Guest walk and the final nested walk.  On XLAT_NO_RAM and XLAT_EPT_* w.fault_gpa is the exact address."""
    cdef const PagingContext* ctx = w.ctx
    cdef int status
    cdef uint64_t want = EPT_R
    if ctx.mode == PAGING_NONE:
        guest.gpa = gva & 0xfffff000ULL      # without paging a linear address has 32 bits and wraps (SDM 3A 3.1)
        guest.flags = TLB_W | TLB_U | TLB_D
        guest.shift = 30
    else:
        status = guest_walk(w, gva, access, privilege, guest)
        if status != XLAT_OK and w.hit:
            w.cached = False
            status = guest_walk(w, gva, access, privilege, guest)
        if status != XLAT_OK:
            return status
    if access == ACCESS_WRITE:
        want = EPT_W
    elif access == ACCESS_FETCH:
        want = EPT_X
    guest.gpa &= ctx.window.a20_mask
    w.fault_gpa = guest.gpa + (gva & 0xfff)
    status = final_page(w, w.fault_gpa, want, nested)
    if status == XLAT_EPT_VIOLATION and w.absent:
        nested.hpa = HPA_NONE
        nested.flags = TLB_EPT_X         # the monitor lets a page of ones be executed; data are emulated one by one
        nested.shift = 12
        return XLAT_NO_RAM
    if status == XLAT_OK:
        nested.hpa &= ~<uint64_t>0xfff
        if not ram_holds(w.ram, nested.hpa, 4096):
            return XLAT_NO_RAM
    return status

cdef inline int whole_shift(Walker* w, gva_t gva, const GuestPage* guest, const NestedPage* nested) noexcept nogil:
    """Size of the TLB entry: the smaller page of guest and nested; 4 KB when not all of it is RAM, or A20 is off."""
    cdef int shift = min(guest.shift, nested.shift)
    cdef uint64_t size, inside
    if shift == 22:
        shift = 21
    if shift == 12:
        return 12
    if not w.ctx.window.a20_mask & 0x100000:
        return 12
    size = <uint64_t>1 << shift
    inside = gva & (size - 1) & FRAME_MASK
    if nested.hpa < inside or not ram_holds(w.ram, nested.hpa - inside, size):
        return 12
    if w.ctx.eptp == 0 and guest.gpa - inside + size > w.ctx.window.size:
        return 12
    return shift

cdef inline void walked_page(Walker* w, gva_t gva, const GuestPage* guest, const NestedPage* nested,
                             TlbEntry* page) noexcept nogil:
    """The TLB entry that a complete walk yields."""
    cdef int shift = whole_shift(w, gva, guest, nested)
    cdef uint64_t inside = (gva & ((<uint64_t>1 << shift) - 1)) >> 12
    page.pfn = (nested.hpa >> 12) - inside
    page.gfn = (guest.gpa >> 12) - inside
    page.shift = <uint8_t>shift
    page.guest_shift = <uint8_t>(guest.shift if w.ctx.mode != PAGING_NONE else shift)
    page.flags = <uint16_t>(guest.flags & (nested.flags | ~TLB_D) | nested.flags & TLB_EPT_RWX)

cdef inline uint64_t drop_everywhere(Mmu* m, int asid, int pcid, gva_t gva, int* largest) noexcept nogil:
    """Drop the page's final translations for (asid, pcid), global and unpaged ones included, under every nested
    root.  Returns how many; `largest` becomes the largest shift dropped."""
    cdef uint64_t n = 0
    cdef int i
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].asid == asid and (m.tlb.tag[i].pcid == pcid or m.tlb.tag[i].pcid == TAG_GLOBAL
                                          or m.tlb.tag[i].pcid == TAG_UNPAGED):
            largest[0] = max(largest[0], tag_drop_page(&m.tlb, i, gva, &n))
    return n

cdef inline int drop_of(int largest) noexcept nogil:
    """What the engine must drop when the largest page dropped here has this shift."""
    if largest == 0:
        return DROP_NOTHING
    return DROP_PAGE if largest == 12 else DROP_ALL

cdef inline void violation_drops(Walker* w, gva_t gva, Translation* out) noexcept nogil:
    """An EPT violation drops the guest-physical mapping of its address and, at the final page, the combined
    mappings of the linear address (SDM 3C 28.4.3.1)."""
    cdef Mmu* m = w.m
    cdef int index = nested_tlb_find(&m.tlb, w.fault_gpa), largest = 0
    cdef uint64_t n = 0
    if index >= 0:
        tlb_drop(&m.tlb, index)
    m.count.ept_violations += 1
    if nested_final(w.qualification):
        largest = tag_drop_page(&m.tlb, m.tlb.local, gva, &n)
        largest = max(largest, tag_drop_page(&m.tlb, m.tlb.shared, gva, &n))
    if n:
        m.count.flushes[<int>FLUSH_FAULT] += 1
        m.count.entries_flushed += n
    out.drop = <uint8_t>drop_of(largest)

cdef inline void fault_drops(Mmu* m, const PagingContext* ctx, gva_t gva, Translation* out) noexcept nogil:
    """A page fault drops the page's entries and the walk-cache entries on the way to it (SDM 3A 4.10.4.1)."""
    cdef int largest = 0
    cdef uint64_t n = drop_everywhere(m, ctx.asid, ctx.pcid, gva, &largest)
    pwc_drop_address(&m.tlb, m.tlb.local, gva, ctx.mode == PAGING_32)
    m.count.page_faults += 1
    if n:
        m.count.flushes[<int>FLUSH_FAULT] += 1
        m.count.entries_flushed += n
    out.drop = <uint8_t>drop_of(largest)

cdef inline int walk_failed(Walker* w, int status, gva_t gva, const GuestPage* guest, Translation* out) noexcept nogil:
    """Report and count a walk that gave no page."""
    out.source = FROM_WALK
    if status == XLAT_PAGE_FAULT:
        out.pfec = guest.pfec
        if w.marks:
            fault_drops(w.m, w.ctx, gva, out)
        return status
    out.gpa = w.fault_gpa
    if status == XLAT_EPT_VIOLATION:
        out.qualification = w.qualification
        if w.marks:
            violation_drops(w, gva, out)
    elif w.marks:
        w.m.count.no_ram += status == XLAT_NO_RAM
        w.m.count.ept_misconfigs += status == XLAT_EPT_MISCONFIG
    return status

cdef inline int identity(const Ram* ram, const PagingContext* ctx, gva_t gva, Translation* out) noexcept nogil:
    """Paging off, not nested: no cache takes part."""
    out.gpa = gva & 0xffffffffULL & ctx.window.a20_mask      # 32 bits: it wraps (SDM 3A 3.1)
    out.hpa = window_hpa(&ctx.window, gva & 0xfffff000ULL)
    out.shift = 12
    if not ram_holds(ram, out.hpa, 4096):
        return XLAT_NO_RAM
    out.gpa &= FRAME_MASK
    out.prot = PROT_R | PROT_W | PROT_X
    return XLAT_OK

cdef inline void clear(Translation* out) noexcept nogil:
    out.hpa = HPA_NONE
    out.qualification = 0
    out.pfec = 0
    out.prot = 0
    out.shift = 0
    out.source = FROM_NOWHERE
    out.drop = DROP_NOTHING
    out.n_evicted = 0
    out.fresh = 0
    out.once = 0

# ---------------------------------------------------------------- translate

cdef inline void walker_init(Walker* w, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* ctx) noexcept nogil:
    """The processor's own walk; without a ledger one that changes nothing."""
    w.m = m
    w.ram = ram
    w.ledger = ledger
    w.ctx = ctx
    w.quiet = ledger is NULL
    w.marks = w.cached = ledger is not NULL
    w.absent = False
    w.hit = False

cdef inline int walk_and_fill(Walker* w, gva_t gva, int access, int privilege, int in_l1, int in_l2,
                              Translation* out) noexcept nogil:
    """Walk, fill both levels, answer.  in_l1, in_l2: index of what each level holds for `gva`, or -1."""
    cdef GuestPage guest
    cdef NestedPage nested
    cdef TlbEntry page
    cdef int side = SIDE_I if access == ACCESS_FETCH else SIDE_D
    cdef int status = full_walk(w, gva, access, privilege, &guest, &nested)
    if status == XLAT_NO_RAM and (w.ctx.eptp == 0 or access == ACCESS_FETCH):
        w.m.count.no_ram += 1            # a device's page is translated like any; under EPT its data exit instead
    elif status != XLAT_OK:
        return walk_failed(w, status, gva, &guest, out)
    walked_page(w, gva, &guest, &nested, &page)
    if status == XLAT_NO_RAM:
        page.flags |= TLB_HOLE
    level_fill(w.m, ROUTE_L2 + side, in_l2, gva, &page, out)
    level_fill(w.m, side, in_l1, gva, &page, out)
    return answer(w.ctx, &page, gva, privilege, FROM_WALK, out)

cdef inline int mmu_walk(Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* ctx, gva_t gva, int access,
                         int privilege, int in_l1, int in_l2, Translation* out) noexcept nogil:
    """walk_and_fill as the processor does it."""
    cdef Walker w
    walker_init(&w, m, ram, ledger, ctx)
    charge(ledger, WALK_BASE, WALK_START)
    return walk_and_fill(&w, gva, access, privilege, in_l1, in_l2, out)

cdef inline int mmu_translate(Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* ctx, gva_t gva, int access,
                              int privilege, Translation* out) noexcept nogil:
    """Translate one access through the modelled caches: counts, charges, fills, sets accessed and dirty flags.

    access     Access, privilege  Privilege (arch/types.pxd)
    Returns XlatStatus.  Whatever it is, out.n_evicted and out.drop say what the engine must drop.
    """
    cdef int side = SIDE_I if access == ACCESS_FETCH else SIDE_D
    cdef int index
    clear(out)
    if ctx.mode == PAGING_NONE and ctx.eptp == 0:
        return identity(ram, ctx, gva, out)
    mmu_enter(m, ctx)
    index = level_find(m, side, gva)
    if index >= 0:
        if rights_allow(ctx, m.tlb.entry[index].flags, access, privilege):
            return answer(ctx, &m.tlb.entry[index], gva, privilege, FROM_L1, out)
        m.count.rewalks += 1
        return mmu_walk(m, ram, ledger, ctx, gva, access, privilege, index, level_find(m, ROUTE_L2 + side, gva), out)
    m.count.l1_misses[side] += 1
    out.fresh = 1
    index = level_find(m, ROUTE_L2 + side, gva)
    if index < 0:
        m.count.walks[side] += 1
        return mmu_walk(m, ram, ledger, ctx, gva, access, privilege, -1, -1, out)
    m.count.l2_hits += 1
    charge(ledger, TLB, TLB_L2_HIT)
    tlb_used(&m.tlb, index)
    if not rights_allow(ctx, m.tlb.entry[index].flags, access, privilege):
        m.count.rewalks += 1
        return mmu_walk(m, ram, ledger, ctx, gva, access, privilege, -1, index, out)
    level_fill(m, side, -1, gva, &m.tlb.entry[index], out)
    return answer(ctx, &m.tlb.entry[index], gva, privilege, FROM_L2, out)

cdef inline int mmu_translate_absent(Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* ctx, gva_t gva, int access,
                                     int privilege, Translation* out) noexcept nogil:
    """mmu_translate after an EPT violation where the guest has no memory: the monitor's own walk, paid by its handler.

    It finds what a machine without a monitor finds.  Tables outside memory read as all ones, those in firmware keep
    their accessed and dirty flags as they are, and code outside memory is a page of ones that may only be executed.
    The translation goes into the TLB, the tables on the way into no cache: their next use exits again.
    """
    cdef Walker w
    cdef int side = SIDE_I if access == ACCESS_FETCH else SIDE_D
    clear(out)
    mmu_enter(m, ctx)
    walker_init(&w, m, ram, ledger, ctx)
    w.quiet = w.absent = True
    w.cached = False
    return walk_and_fill(&w, gva, access, privilege, level_find(m, side, gva), level_find(m, ROUTE_L2 + side, gva), out)

cdef inline void mmu_hold_hole(Mmu* m, const PagingContext* ctx, gva_t gva, gpa_t gpa, int privilege, Translation* out) noexcept nogil:
    """Let both levels hold that code is fetched at `gva` where there is no memory: the monitor has mapped a page of ones."""
    cdef TlbEntry page
    clear(out)
    mmu_enter(m, ctx)
    page.pfn = HPA_NONE >> 12
    page.gfn = gpa >> 12
    page.shift = page.guest_shift = 12
    page.flags = <uint16_t>(TLB_EPT_X | TLB_HOLE | (TLB_U if privilege == USER else 0))
    level_fill(m, ROUTE_L2 + SIDE_I, level_find(m, ROUTE_L2 + SIDE_I, gva), gva, &page, out)
    level_fill(m, SIDE_I, level_find(m, SIDE_I, gva), gva, &page, out)
    out.gpa = gpa

cdef inline int mmu_translate_quiet(Mmu* m, const Ram* ram, const PagingContext* ctx, gva_t gva, int access,
                                    int privilege, bint absent, Translation* out) noexcept nogil:
    """What the tables in memory say of this access: nothing cached is used, nothing changes or is counted.
    `absent`: as the monitor would finish it (mmu_translate_absent), instead of XLAT_EPT_VIOLATION."""
    cdef Walker w
    cdef GuestPage guest
    cdef NestedPage nested
    cdef TlbEntry page
    cdef int status
    clear(out)
    if ctx.mode == PAGING_NONE and ctx.eptp == 0:
        return identity(ram, ctx, gva, out)
    walker_init(&w, m, ram, NULL, ctx)
    w.absent = absent
    status = full_walk(&w, gva, access, privilege, &guest, &nested)
    if status != XLAT_OK:
        return walk_failed(&w, status, gva, &guest, out)
    walked_page(&w, gva, &guest, &nested, &page)
    return answer(ctx, &page, gva, privilege, FROM_WALK, out)

# ---------------------------------------------------------------- PAE PDPTE registers

cdef inline bint pdptes_due(uint64_t cr0, uint64_t cr4, uint64_t old_cr0, uint64_t old_cr4,
                            uint64_t efer) noexcept nogil:
    """Does a MOV to CR0 or CR4 load the PDPTE registers?  SDM 3A 4.4.1."""
    return (paging_mode(cr0, cr4, efer) == PAGING_PAE and
            ((cr0 ^ old_cr0) & (CR0_CD | CR0_NW | CR0_PG) != 0 or
             (cr4 ^ old_cr4) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) != 0))

cdef inline int mmu_load_pdptes(Mmu* m, const Ram* ram, Ledger* ledger, PagingContext* ctx, uint64_t cr3, bint absent,
                                Translation* out) noexcept nogil:
    """Load ctx.pdpte from the 32 bytes at CR3 bits 31:5: one reference of level 3, all four lie in one line.

    XLAT_OK; XLAT_GP: a present PDPTE has a reserved bit, nothing is loaded; or XLAT_EPT_* of a nested space.
    `absent`: the monitor loads them, after an EPT violation; outside memory it finds all ones.
    """
    cdef Walker w
    cdef NestedPage page
    cdef uint64_t pdpte[4]
    cdef gpa_t at = cr3 & 0xffffffe0ULL
    cdef int i, status
    clear(out)
    walker_init(&w, m, ram, ledger, ctx)
    w.quiet = w.absent = absent
    mmu_enter(m, ctx)
    status = table_page(&w, at, &page)
    if status != XLAT_OK:
        w.qualification &= ~<uint64_t>QUAL_GVA_VALID
        return walk_failed(&w, status, 0, NULL, out)
    m.count.pdpte_loads += 1
    charge_reference(&w, page.hpa + (at & 0xfff) if page.hpa != HPA_NONE else HPA_NONE, WALK_GUEST_1 + 2, WALK_REF_1 + 2)
    for i in range(4):
        ram_read64(ram, page.hpa + (at & 0xfff) + 8 * i if page.hpa != HPA_NONE else HPA_NONE, &pdpte[i])
        if pdpte[i] & PTE_P and pdpte[i] & reserved_pdpte(ctx.maxphyaddr):
            return XLAT_GP
    for i in range(4):
        ctx.pdpte[i] = pdpte[i]
    return XLAT_OK
