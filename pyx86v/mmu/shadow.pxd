# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow paging: the processor walks tables that the monitor derives from the guest's (shadow_state.pxd).

A style calls shadow_enter when the guest's paging registers change, walks the `hardware` context, and calls
shadow_fault when that walk faults; INVLPG goes to shadow_invlpg, and what others write to guest memory to
shadow_host_wrote.  Entries are made when they are needed, one walk at a time.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport *
from pyx86v.arch.regs cimport CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_LME, EFER_NXE
from pyx86v.arch.types cimport ACCESS_WRITE, PAGE_MASK, USER, gpa_t, gva_t, hpa_t
from pyx86v.cost.ledger cimport EMULATION, EMUL_REFLECT, SHADOW, SHADOW_FILL, SHADOW_REFLECT, SHADOW_TRACE, SHADOW_WALK, Ledger, charge
from pyx86v.mmu.invalidate cimport mmu_flush_asid, mmu_invlpg
from pyx86v.mmu.memory cimport *
from pyx86v.mmu.mmu cimport full_walk
from pyx86v.mmu.nested cimport NestedPage
from pyx86v.mmu.shadow_code cimport code_written
from pyx86v.mmu.shadow_pool cimport *
from pyx86v.mmu.shadow_state cimport *
from pyx86v.mmu.shadow_sync cimport *
from pyx86v.mmu.state cimport *
from pyx86v.mmu.tlb cimport TLB_D, TLB_W
from pyx86v.mmu.walk cimport GuestPage

cdef enum ShadowStatus:
    SHADOW_RETRY = 0         # an entry was made: walk again
    SHADOW_FAULT = 1         # the guest's own page fault: pfec
    SHADOW_NO_RAM = 2        # a device, a hole, or a store to firmware: gpa, exact
    SHADOW_ONCE = 3          # this one access goes to the page at hpa; no entry allows it

ctypedef struct ShadowAnswer:
    hpa_t hpa
    gpa_t gpa
    uint32_t pfec
    int drop                 # Drop: what the engine must drop of its own translations

# ---------------------------------------------------------------- set-up

cdef inline uint64_t shadow_bytes(uint64_t guest_bytes) noexcept nogil:
    """Memory that a monitor sets aside for the shadow tables of a guest of this size, in whole pages."""
    cdef uint64_t frames = guest_bytes >> 12, pages = frames // POOL_SHARE + POOL_FLOOR
    return (bytes_for(frames, pages, bucket_bits_for(pages)) + PAGE_MASK) & ~<uint64_t>PAGE_MASK

cdef inline int shadow_layout(Shadow* s, const Window* guest, hpa_t at, uint64_t bytes) noexcept nogil:
    """Where and how many, all else zero; the pool gets what `bytes` leave room for.  0, or -1: no room for a walk."""
    cdef uint64_t frames = guest.size >> 12, each = bytes_for(0, 1, 0) + 4, fixed = bytes_for(frames, 0, 4)
    memset(s, 0, sizeof(Shadow))
    if bytes < fixed + LEAST_PAGES * each or at & PAGE_MASK:
        return -1
    s.at = at
    s.guest_base = guest.base
    s.frames = frames
    s.n_pages = <uint32_t>min((bytes - fixed) // each, <uint64_t>1 << 22)
    s.bucket_bits = <uint32_t>bucket_bits_for(s.n_pages)
    while bytes_for(frames, s.n_pages, <int>s.bucket_bits) > bytes:
        s.bucket_bits -= 1
    return 0

cdef inline int shadow_init(Shadow* s, const Ram* ram, const Window* guest, hpa_t at, uint64_t bytes) noexcept nogil:
    """No shadow pages yet.  0, or -1: not in RAM, or no room for a walk."""
    cdef Shadower w
    if shadow_layout(s, guest, at, bytes) != 0 or ram_pointer(ram, at, bytes) == NULL:
        return -1
    s.config.unsync_after = 0                # each write to a table in use is traced, as the monitors of 2005 did
    s.config.zap_after = 4
    s.config.most_unsynced = MAX_UNSYNCED
    s.a20_mask = guest.a20_mask
    w.s = s
    w.ram = ram
    arrays_find(&w)
    pool_init(&w)
    return 0

cdef inline bint begin(Shadower* w, Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                       PagingContext* hardware) noexcept nogil:
    """Set a call up.  False: the arrays are not in RAM (never, after shadow_init)."""
    w.s = s
    w.m = m
    w.ram = ram
    w.ledger = ledger
    w.guest = guest
    w.hardware = hardware
    w.walker.m = m
    w.walker.ram = ram
    w.walker.ledger = ledger
    w.walker.ctx = guest
    w.walker.quiet = True
    w.walker.marks = True
    w.walker.absent = False
    w.walker.cached = False
    w.walker.hit = False
    if not arrays_find(w):
        return False
    write_ended(w)
    return True

cdef inline int finish(Shadower* w) noexcept nogil:
    """Make the flush that invariants 3 and 4 ask for.  Returns Drop."""
    if not w.s.flush_due:
        return DROP_NOTHING
    w.s.flush_due = w.s.stale_writable = w.s.stale_split = 0
    w.s.count.flushes += 1
    return mmu_flush_asid(w.m, w.hardware.asid)

# ---------------------------------------------------------------- making entries

cdef inline uint32_t page_get(Shadower* w, int kind, int level, uint64_t gfn, int quadrant) noexcept nogil:
    """The shadow page for this, made when there is none.  A frame that becomes a table of another kind, too, is no
    longer one that may be out of sync."""
    cdef uint32_t i = page_find(w, kind, level, gfn, quadrant)
    if i == NIL:
        if kind == KIND_TABLE and gfn < w.s.frames and w.frame[gfn].unsynced:
            frame_resync(w, gfn)
        i = page_new(w, kind, level, gfn, quadrant)
    return i

cdef inline uint32_t root_of(Shadower* w, gva_t gva) noexcept nogil:
    """The top page for the address.  Of the four under PAE each is made when it is needed."""
    cdef int k = 0 if w.guest.mode == PAGING_LONG else <int>(gva >> 30 & 3)
    if w.s.root[k] != NIL:
        return w.s.root[k]
    if w.guest.mode == PAGING_NONE:
        w.s.root[k] = page_get(w, KIND_DIRECT, 2, <uint64_t>k << 18, 0)
    elif w.guest.mode == PAGING_32:
        w.s.root[k] = page_get(w, KIND_TABLE, 2, (w.guest.cr3 & 0xfffff000ULL & w.s.a20_mask) >> 12, k)
    else:
        w.s.root[k] = page_get(w, KIND_TABLE, 2, (w.guest.pdpte[k] & FRAME_MASK & w.s.a20_mask) >> 12, 0)
    w.hardware.pdpte[k] = page_hpa(w, w.s.root[k]) | PTE_P
    return w.s.root[k]

cdef inline bint large_fits(const Shadower* w, uint64_t gfn) noexcept nogil:
    """Can one 2 MB entry map the guest's 2 MB at this frame?  Whole, aligned in machine memory, no table in it."""
    return (gfn & 511 == 0 and w.s.guest_base & 0x1fffff == 0 and gfn + 512 <= w.s.frames and w.s.a20_mask & 0x100000
            and w.large[gfn >> 9].tables == 0)

cdef inline uint32_t child_of(Shadower* w, uint32_t slot, int level, const Source* src) noexcept nogil:
    """The page below an entry of this level that maps no page, or more than one entry can."""
    if not src.page:
        return page_get(w, KIND_TABLE, level - 1, src.gfn,
                        <int>(slot & 1) if w.guest.mode == PAGING_32 else 0)
    w.s.count.splits += page_find(w, KIND_DIRECT, level - 1, src.gfn, 0) == NIL
    return page_get(w, KIND_DIRECT, level - 1, src.gfn, 0)

cdef inline bint bypasses_wp(const PagingContext* guest) noexcept nogil:
    """May entries be made that let the supervisor write where the guest's do not (invariant 1)?"""
    return guest.mode != PAGING_NONE and not guest.cr0 & CR0_WP and not guest.cr4 & (CR4_SMEP | CR4_SMAP)

cdef inline uint64_t bypass_wp(Shadower* w, uint64_t old, uint64_t rights, int access, int privilege) noexcept nogil:
    """Rights of an entry of a guest with CR0.WP = 0, in place of `old`.  A page of the supervisor's loses nothing by being
    writable; a user's goes to the supervisor when that writes, and back when the user comes."""
    if rights & PTE_W or not bypasses_wp(w.guest):
        return rights
    if rights & PTE_U and (privilege == USER or access != ACCESS_WRITE and old & (PTE_P | PTE_W | PTE_U) != PTE_P | PTE_W):
        return rights
    w.s.wp_bypassed = 1
    return (rights | PTE_W) & ~<uint64_t>PTE_U

cdef inline void fill_path(Shadower* w, gva_t gva, hpa_t hpa, bint dirty, int access, int privilege) noexcept nogil:
    """Make the entries for an address whose guest walk for this access has succeeded, from the top to the page at `hpa`.
    `dirty` is the walk's word: tables in firmware count as marked, though they stay as they are."""
    cdef uint32_t page = root_of(w, gva), slot, child
    cdef uint64_t e
    cdef Source src
    cdef int level
    cdef bint whole
    while True:
        page_used(w, page)
        level = w.page[page].level
        slot = page << 9 | <uint32_t>(gva >> (3 + 9 * level) & 511)
        source_of(w, &w.page[page], slot & 511, &src)
        src.rights = bypass_wp(w, w.table[slot], src.rights, access, privilege)
        if w.page[page].kind == KIND_TABLE and w.page[page].gfn < w.s.frames:
            w.frame[w.page[page].gfn].writes = 0
        if src.page and w.page[page].kind == KIND_TABLE:
            src.dirty = dirty
        if level == 1:
            entry_set(w, slot, leaf_entry(w, &src, hpa))
            break
        if not src.dirty and src.page:
            src.rights &= ~<uint64_t>PTE_W
        e = src.rights | PTE_P | PTE_A
        whole = level == 2 and src.page and large_fits(w, src.gfn)
        if src.page and w.page[page].kind == KIND_TABLE and (not whole or w.guest.mode == PAGING_32):
            w.s.split_made = 1               # 4 MB by 2 MB, or what does not fit
        if whole:
            entry_set(w, slot, e | PTE_D | PTE_PS | (w.s.guest_base + (src.gfn << 12)))
            w.s.count.large_fills += 1
            break
        child = child_of(w, slot, level, &src)
        entry_set(w, slot, e | page_hpa(w, child))
        page = child
    w.s.count.fills += 1
    charge(w.ledger, SHADOW, SHADOW_FILL)

# ---------------------------------------------------------------- faults

cdef inline void charge_access(Shadower* w, int price) noexcept nogil:
    """Work on the access that faulted, unless that is a retranslated write's, which has paid BT_TRACE."""
    if not w.s.simulated:
        charge(w.ledger, SHADOW, price)

cdef inline bint write_is_single(Shadower* w, const GuestPage* page, hpa_t hpa, gva_t gva, int size) noexcept nogil:
    """Must this allowed write go through without an entry?  Traced writes drop what they make wrong, before they do."""
    cdef uint64_t gfn = (hpa - w.s.guest_base) >> 12, first = gva & PAGE_MASK
    cdef uint64_t last = min(first + <uint64_t>(size if size > 0 else 16) - 1, <uint64_t>PAGE_MASK)
    if gfn < w.s.frames and w.frame[gfn].code:
        code_written(w, (gfn << 12) + first, (gfn << 12) + last)
        if not w.frame[gfn].tables:
            charge_access(w, SHADOW_TRACE)
            return True
    if frame_is_traced(w, gfn):
        w.s.count.traced_writes += 1
        charge_access(w, SHADOW_TRACE)
        write_begins(w, hpa + first)
        frame_written(w, gfn, first, last)
        frame_flooded(w, gfn)
        if frame_is_traced(w, gfn):
            return True
    if not page.flags & TLB_W and not bypasses_wp(w.guest):
        w.s.count.single_writes += 1
        return True
    return False

cdef inline int fault_answer(Shadower* w, gva_t gva, int size, int access, int privilege, ShadowAnswer* out) noexcept nogil:
    cdef GuestPage page
    cdef NestedPage at
    cdef int status
    charge_access(w, SHADOW_WALK)
    status = full_walk(&w.walker, gva, access, privilege, &page, &at)
    if status == XLAT_PAGE_FAULT:
        w.s.count.true_faults += 1
        if w.s.config.software:
            charge(w.ledger, EMULATION, EMUL_REFLECT)
        else:
            charge(w.ledger, SHADOW, SHADOW_REFLECT)
        out.pfec = page.pfec
        return SHADOW_FAULT
    out.gpa = w.walker.fault_gpa
    if status != XLAT_OK or access == ACCESS_WRITE and window_is_rom(&w.guest.window, at.hpa):
        w.s.count.no_ram += 1
        return SHADOW_NO_RAM
    out.hpa = at.hpa
    if access == ACCESS_WRITE and write_is_single(w, &page, at.hpa, gva, size):
        return SHADOW_ONCE
    w.s.count.hidden_faults += 1
    fill_path(w, gva, at.hpa, page.flags & TLB_D != 0, access, privilege)
    return SHADOW_RETRY

cdef inline int shadow_fault(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                             PagingContext* hardware, gva_t gva, int size, int access, int privilege,
                             ShadowAnswer* out) noexcept nogil:
    """The walk of `hardware` faulted on this access (`size` bytes from `gva`; 0: unknown, at most 16).  Returns
    ShadowStatus.  Accessed and dirty flags of the guest's entries are set as the processor would.

    A write that may not have an entry (SHADOW_ONCE) must come before any other translation of the vCPU.
    """
    cdef Shadower w
    cdef int status
    out.hpa = out.gpa = 0
    out.pfec = 0
    out.drop = DROP_NOTHING
    if not begin(&w, s, m, ram, ledger, guest, hardware):
        return SHADOW_FAULT
    status = fault_answer(&w, gva, size, access, privilege, out)
    if status != SHADOW_RETRY and s.n_unsynced:
        sync_address(&w, gva)                # a fault drops what the TLB held for the page (SDM 3A 4.10.4.1)
    out.drop = finish(&w)
    return status

cdef inline void shadow_write_ended(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                                    PagingContext* hardware) noexcept nogil:
    """A simulated write has reached memory."""
    cdef Shadower w
    begin(&w, s, m, ram, ledger, guest, hardware)

# ---------------------------------------------------------------- the guest's registers

cdef inline uint64_t role_of(const PagingContext* guest) noexcept nogil:
    """What, besides the guest's tables, an entry depends on: the format in bits 1:0, PSE, NXE."""
    return guest.mode | (4 if guest.cr4 & CR4_PSE and guest.mode == PAGING_32 else 0) | (8 if guest.efer & EFER_NXE else 0)

cdef inline void zap_pages(Shadower* w, bint direct) noexcept nogil:
    """Drop every derived page, and every direct one when asked."""
    cdef uint32_t i = w.s.oldest, next
    while i != NIL:
        next = w.page[i].newer
        if w.page[i].kind == KIND_TABLE or direct:
            w.s.count.zaps += 1
            page_free(w, i)
        i = next
    w.s.split_made = w.s.wp_bypassed = 0

cdef inline void hardware_fill(Shadower* w, int asid) noexcept nogil:
    """The context that the processor walks: 4 levels in long mode, else PAE; all that the guest set of SMEP and SMAP."""
    cdef PagingContext* h = w.hardware
    cdef bint is_long = w.guest.mode == PAGING_LONG
    memset(h, 0, sizeof(PagingContext))
    h.cr0 = CR0_PG | CR0_WP | CR0_PE
    h.cr4 = CR4_PAE | (w.guest.cr4 & (CR4_SMEP | CR4_SMAP) if w.guest.mode != PAGING_NONE else 0)
    h.efer = EFER_NXE | (EFER_LME | EFER_LMA if is_long else 0)
    h.asid = <uint16_t>asid
    h.maxphyaddr = w.guest.maxphyaddr
    h.mode = PAGING_LONG if is_long else PAGING_PAE
    h.window.size = w.ram.size
    h.window.a20_mask = ~<uint64_t>0

cdef inline void choose_roots(Shadower* w) noexcept nogil:
    """A 4-level root is made now; the four of PAE when they are needed."""
    cdef int k
    for k in range(4):
        w.s.root[k] = NIL
    if w.guest.mode == PAGING_LONG:
        w.s.root[0] = page_get(w, KIND_TABLE, 4,
                               (w.guest.cr3 & FRAME_MASK & ~above(w.guest.maxphyaddr) & w.s.a20_mask) >> 12, 0)
        w.hardware.cr3 = page_hpa(w, w.s.root[0])

cdef inline int shadow_enter(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                             PagingContext* hardware, int asid) noexcept nogil:
    """After any change of CR0, CR3, CR4, EFER, the PDPTEs or A20, and for INVPCID: sync, choose the roots, fill
    `hardware`, drop what the TLB holds for `asid`.  Returns Drop."""
    cdef Shadower w
    if not begin(&w, s, m, ram, ledger, guest, hardware):
        return DROP_ALL
    if guest.window.a20_mask != s.a20_mask:
        zap_pages(&w, True)
        s.a20_mask = guest.window.a20_mask
    if guest.mode != PAGING_NONE and role_of(guest) != s.role:
        zap_pages(&w, False)
        s.role = role_of(guest)
    if s.wp_bypassed and guest.mode != PAGING_NONE and not bypasses_wp(guest):
        zap_pages(&w, False)
    if guest.mode != PAGING_NONE:
        sync_all(&w)
    hardware_fill(&w, asid)
    choose_roots(&w)
    s.flush_due = s.stale_writable = s.stale_split = 0
    mmu_flush_asid(m, asid)
    return DROP_ALL

cdef inline int shadow_invlpg(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                              PagingContext* hardware, gva_t gva) noexcept nogil:
    """INVLPG, or INVPCID of one address in the current PCID.  Returns Drop."""
    cdef Shadower w
    cdef int drop
    if not begin(&w, s, m, ram, ledger, guest, hardware):
        return DROP_ALL
    if guest.mode != PAGING_NONE:
        sync_address(&w, gva)
    s.flush_due |= s.stale_split
    drop = mmu_invlpg(m, hardware.asid, 0, gva)
    return max(drop, finish(&w))

cdef inline int shadow_host_wrote(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, const PagingContext* guest,
                                  PagingContext* hardware, hpa_t at, uint64_t n) noexcept nogil:
    """Somebody else than the guest wrote (or will now write) n bytes of its memory.  Returns Drop."""
    cdef Shadower w
    cdef uint64_t gfn, first = at - s.guest_base, last = first + n - 1
    if n == 0 or first >= s.frames << 12 or not begin(&w, s, m, ram, ledger, guest, hardware):
        return DROP_NOTHING
    last = min(last, (s.frames << 12) - 1)
    for gfn in range(first >> 12, (last >> 12) + 1):
        if w.frame[gfn].code:
            code_written(&w, max(first, gfn << 12), min(last, (gfn << 12) + PAGE_MASK))
        if w.frame[gfn].tables:
            frame_written(&w, gfn, first & PAGE_MASK if gfn == first >> 12 else 0,
                          last & PAGE_MASK if gfn == last >> 12 else PAGE_MASK)
    return finish(&w)
