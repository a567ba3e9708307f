# SPDX-License-Identifier: GPL-2.0-or-later
"""Nested paging, from guest-physical to machine addresses: EPT (SDM 3C 28.3, "The extended page table mechanism")
and AMD's NPT (APM 2 15.25), whose tables have the format of ordinary long-mode paging.

An access is given as EPT_R, EPT_W, EPT_X bits.  Entries are read and charged one by one; the accessed flag
of a table entry is set on the way down, that of the leaf, and dirty, only when the access is allowed.
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.ptes cimport *
from pyx86v.arch.regs cimport PFEC_I, PFEC_P, PFEC_RSVD, PFEC_U, PFEC_W
from pyx86v.arch.types cimport gpa_t, hpa_t
from pyx86v.cost.ledger cimport CACHE_L1, Ledger, NESTED_REF_1, NESTED_TLB_HIT, TLB, WALK_NESTED_1, charge
from pyx86v.mmu.cache cimport cache_access
from pyx86v.mmu.memory cimport HPA_NONE, Ram, ram_read64, ram_write64, window_hpa
from pyx86v.mmu.pwc cimport nested_tlb_fill, nested_tlb_find
from pyx86v.mmu.state cimport *
from pyx86v.mmu.tlb cimport TLB_D, TLB_EPT_R, TLB_EPT_RWX, TLB_EPT_W, TLB_EPT_X, TlbEntry, tlb_used

cdef enum:               # exit qualification of an EPT violation (SDM 3C table 27-7)
    QUAL_READ = 0x1
    QUAL_WRITE = 0x2
    QUAL_FETCH = 0x4
    QUAL_ENTRY_SHIFT = 3 # bits 5:3: R, W, X of all entries read, ANDed
    QUAL_GVA_VALID = 0x80
    QUAL_FINAL = 0x100   # the access to the page itself, not to a paging structure

cdef extern from *:      # EXITINFO1 of a nested page fault: an error code, and what was translated (APM 2 15.25.6)
    """
    #define PYX_NPF_FINAL (1ULL << 32)
    #define PYX_NPF_TABLE (1ULL << 33)
    """
    const uint64_t NPF_FINAL "PYX_NPF_FINAL"     # the guest's final physical address
    const uint64_t NPF_TABLE "PYX_NPF_TABLE"     # a guest paging structure

cdef enum:
    EPT_TO_TLB = 5       # EPT_R << EPT_TO_TLB is TLB_EPT_R

ctypedef struct Walker:  # one walk; lives on the stack
    Mmu* m
    const Ram* ram
    Ledger* ledger       # not used when quiet
    const PagingContext* ctx
    bint quiet           # no reference is charged or counted, no cache of walks filled
    bint marks           # accessed and dirty flags are set, a failure drops what the TLB holds
    bint absent          # the monitor's walk: what the EPT forbids or lacks is read on the guest's bus instead
    bint cached          # use paging-structure caches and nested TLB
    bint hit             # one of them did answer
    uint64_t qualification   # set with XLAT_EPT_VIOLATION
    gpa_t fault_gpa          # set with XLAT_EPT_*

ctypedef struct NestedPage:  # where a guest-physical page lies
    hpa_t hpa            # of its 4 KB page, or HPA_NONE
    int flags            # TLB_EPT_*; TLB_D when writes find the dirty flag set
    int shift            # 12, 21, 30

cdef inline uint64_t qualify(uint64_t want, uint64_t rights, int kind) noexcept nogil:
    """Exit qualification.  An access to a guest paging structure that counts as a write because EPT
    accessed and dirty flags are on reports both read and write."""
    return want | rights << QUAL_ENTRY_SHIFT | QUAL_GVA_VALID | (QUAL_FINAL if kind == NESTED_FOR_PAGE else 0)

cdef inline bint nested_final(uint64_t qualification) noexcept nogil:
    """Was it the page itself that could not be reached?  No bit of either format stands for something else in the other."""
    return qualification & (QUAL_FINAL | NPF_FINAL) != 0

cdef inline void charge_reference(Walker* w, hpa_t at, int cause, int price) noexcept nogil:
    """Book one reference to a paging structure at the price of its level, or of the cache that has it."""
    charge(w.ledger, cause, price if w.ram.caches is NULL else CACHE_L1 + cache_access(w.ram.caches, at))

cdef inline uint64_t ept_read(Walker* w, hpa_t at, int level, int kind) noexcept nogil:
    """Read one nested entry, booked."""
    cdef uint64_t e
    if not w.quiet:
        w.m.count.nested_refs[kind][level] += 1
        charge_reference(w, at, WALK_NESTED_1 + level - 1, NESTED_REF_1 + level - 1)
    ram_read64(w.ram, at, &e)
    return e

cdef inline void ept_mark(Walker* w, hpa_t at, uint64_t e, uint64_t flags) noexcept nogil:
    """Set accessed or dirty in a nested entry, when the EPT pointer turns them on."""
    if not w.marks or not w.ctx.eptp & EPTP_AD or e & flags == flags:
        return
    w.m.count.nested_writes += 1
    ram_write64(w.ram, at, e | flags)

cdef inline int ept_walk(Walker* w, gpa_t gpa, uint64_t want, int kind, NestedPage* page) noexcept nogil:
    """Walk the EPT for an access `want` to `gpa`.  XLAT_OK, XLAT_EPT_VIOLATION or XLAT_EPT_MISCONFIG."""
    cdef hpa_t table = w.ctx.eptp & FRAME_MASK, at = 0
    cdef uint64_t e = 0, rights = EPT_RWX
    cdef int level = 4, shift = 39
    cdef bint leaf = False
    w.fault_gpa = gpa
    if gpa >> 48:        # beyond what four levels translate
        w.qualification = qualify(want, 0, kind)
        return XLAT_EPT_VIOLATION
    while True:
        at = table + (gpa >> shift & 511) * 8
        e = ept_read(w, at, level, kind)
        rights &= e
        if e & EPT_RWX == 0:
            w.qualification = qualify(want, 0, kind)
            return XLAT_EPT_VIOLATION
        leaf = level == 1 or (level < 4 and e & EPT_PS != 0)
        if (e & reserved_ept(leaf, level, w.ctx.maxphyaddr, w.m.config.ept_1g)
                or ept_illegal(e, leaf, w.m.config.ept_exec_only)):
            return XLAT_EPT_MISCONFIG
        if leaf:
            break
        ept_mark(w, at, e, EPT_A)
        table = e & FRAME_MASK
        level -= 1
        shift -= 9
    if want & ~rights:
        w.qualification = qualify(want, rights, kind)
        return XLAT_EPT_VIOLATION
    ept_mark(w, at, e, EPT_A | (EPT_D if want & EPT_W else 0))
    page.shift = shift
    page.hpa = (e & FRAME_MASK & ~((<uint64_t>1 << shift) - 1)) + (gpa & ((<uint64_t>1 << shift) - 1) & FRAME_MASK)
    page.flags = <int>rights << EPT_TO_TLB
    if not w.ctx.eptp & EPTP_AD or e & EPT_D or want & EPT_W:
        page.flags |= TLB_D
    return XLAT_OK

cdef inline int npt_fault(Walker* w, uint64_t want, int kind, uint64_t code) noexcept nogil:
    """#NPF.  Every access counts as the user's; I only where the host's tables can forbid fetches (APM 2 15.25.6)."""
    w.qualification = code | PFEC_U | (NPF_FINAL if kind == NESTED_FOR_PAGE else NPF_TABLE)
    if want & EPT_W:
        w.qualification |= PFEC_W
    if want & EPT_X and w.ctx.nested_nxe:
        w.qualification |= PFEC_I
    return XLAT_EPT_VIOLATION

cdef inline int npt_walk(Walker* w, gpa_t gpa, uint64_t want, int kind, NestedPage* page) noexcept nogil:
    """Walk the NPT for an access `want` to `gpa` (APM 2 15.25.5).  XLAT_OK, or XLAT_EPT_VIOLATION for a #NPF.

    Reading guest tables counts as writing them.  There are no misconfigurations: a reserved bit is RSVD in the error code.
    """
    cdef hpa_t table = w.ctx.eptp & FRAME_MASK, at = 0
    cdef uint64_t e = 0, rights = EPT_RWX
    cdef int level = 4, shift = 39
    cdef bint leaf = False
    w.fault_gpa = gpa
    if gpa >> 48:        # beyond what four levels translate
        return npt_fault(w, want, kind, 0)
    while True:
        at = table + (gpa >> shift & 511) * 8
        e = ept_read(w, at, level, kind)
        if not e & PTE_P:
            return npt_fault(w, want, kind, 0)
        leaf = level == 1 or (level < 4 and e & PTE_PS != 0)
        if e & reserved_long(leaf, level, w.ctx.maxphyaddr, w.ctx.nested_nxe, w.m.config.page1g):
            return npt_fault(w, want, kind, PFEC_P | PFEC_RSVD)
        if not e & PTE_U:
            rights = 0
        if not e & PTE_W:
            rights &= ~<uint64_t>EPT_W
        if e & PTE_NX:
            rights &= ~<uint64_t>EPT_X
        if leaf:
            break
        ept_mark(w, at, e, PTE_A)
        table = e & FRAME_MASK
        level -= 1
        shift -= 9
    if want & ~rights:
        return npt_fault(w, want, kind, PFEC_P)
    ept_mark(w, at, e, PTE_A | (PTE_D if want & EPT_W else 0))
    page.shift = shift
    page.hpa = (e & FRAME_MASK & ~((<uint64_t>1 << shift) - 1)) + (gpa & ((<uint64_t>1 << shift) - 1) & FRAME_MASK)
    page.flags = <int>rights << EPT_TO_TLB
    if e & PTE_D or want & EPT_W:
        page.flags |= TLB_D
    return XLAT_OK

cdef inline int nested_walk(Walker* w, gpa_t gpa, uint64_t want, int kind, NestedPage* page) noexcept nogil:
    if w.ctx.nested_kind == NESTED_NPT:
        return npt_walk(w, gpa, want, kind, page)
    return ept_walk(w, gpa, want, kind, page)

cdef inline int window_page(Walker* w, gpa_t at, NestedPage* page) noexcept nogil:
    """The page of `at` in the world's window; HPA_NONE, whose entries read as all ones, where it has no memory."""
    page.hpa = window_hpa(&w.ctx.window, at & FRAME_MASK)
    page.flags = TLB_EPT_RWX | TLB_D
    page.shift = 12
    return XLAT_OK

cdef inline int nested_table_page(Walker* w, gpa_t entry, NestedPage* page) noexcept nogil:
    """table_page of a nested space: through the nested TLB or the nested tables, as a write when EPT accessed and dirty
    flags are on (SDM 3C 28.3.5), and always under NPT."""
    cdef uint64_t want = EPT_R
    cdef int needed = TLB_EPT_R
    cdef const TlbEntry* e
    cdef int index, status
    entry &= w.ctx.window.a20_mask
    if w.ctx.eptp & EPTP_AD:
        want = EPT_R | EPT_W
        needed = TLB_EPT_R | TLB_EPT_W
    if w.cached:
        index = nested_tlb_find(&w.m.tlb, entry)
        if index >= 0 and w.m.tlb.entry[index].flags & needed == needed:
            e = &w.m.tlb.entry[index]
            tlb_used(&w.m.tlb, index)
            w.hit = True
            charge(w.ledger, TLB, NESTED_TLB_HIT)
            page.hpa = (e.pfn + (entry >> 12) - e.gfn) << 12
            page.flags = e.flags
            page.shift = e.shift
            return XLAT_OK
    status = nested_walk(w, entry, want, NESTED_FOR_TABLE, page)
    if status == XLAT_EPT_VIOLATION and w.absent:
        return window_page(w, entry, page)
    if status == XLAT_OK and not w.quiet:
        nested_tlb_fill(&w.m.tlb, entry, page.hpa, page.shift, page.flags)
    return status

cdef inline int table_page(Walker* w, gpa_t entry, NestedPage* page) noexcept nogil:
    """Find the 4 KB page in which a guest paging-structure entry lies: in the world's window or under the nested tables.
    XLAT_OK or XLAT_EPT_*."""
    return nested_table_page(w, entry, page) if w.ctx.eptp else window_page(w, entry, page)

cdef inline int final_page(Walker* w, gpa_t gpa, uint64_t want, NestedPage* page) noexcept nogil:
    """Find the page of a final address for an access `want`."""
    if w.ctx.eptp == 0:
        page.hpa = window_hpa(&w.ctx.window, gpa)
        page.flags = TLB_EPT_RWX | TLB_D
        page.shift = 30
        return XLAT_OK
    return nested_walk(w, gpa & w.ctx.window.a20_mask, want, NESTED_FOR_PAGE, page)
