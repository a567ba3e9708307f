# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest page walks: 32-bit with PSE, PAE and 4-level, and the rules of access (SDM 3A 4.3 to 4.7).

Each table address goes through table_page (nested.pxd), so the same loop makes one-dimensional and 2-D walks.
Canonical addresses are the engine's business: bits 63:48 are ignored here.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.ptes cimport *
from pyx86v.arch.regs cimport (CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_NXE, PFEC_I, PFEC_P,
                               PFEC_RSVD, PFEC_U, PFEC_W)
from pyx86v.arch.types cimport (ACCESS_FETCH, ACCESS_READ, ACCESS_WRITE, SUPERVISOR, SUPERVISOR_SMAP, USER, gpa_t,
                                gva_t, hpa_t)
from pyx86v.cost.ledger cimport WALK_GUEST_1, WALK_REF_1
from pyx86v.mmu.memory cimport HPA_NONE, ram_read32, ram_read64, ram_write32, ram_write64, window_is_rom
from pyx86v.mmu.nested cimport *
from pyx86v.mmu.pwc cimport pwc_fill, pwc_find, pwc_shift
from pyx86v.mmu.state cimport *
from pyx86v.mmu.tlb cimport TLB_D, TLB_EPT_RWX, TLB_EPT_W, TLB_G, TLB_NX, TLB_U, TLB_W, TlbEntry

cdef extern from *:
    """
    #define PYX_HPA_UNKNOWN 0xfffffffffffffffeULL
    """
    const hpa_t HPA_UNKNOWN "PYX_HPA_UNKNOWN"   # not looked for yet

ctypedef struct GuestPage:   # what a guest walk found
    gpa_t gpa            # of the 4 KB page of the address
    uint32_t pfec        # set with XLAT_PAGE_FAULT
    int flags            # TLB_W, U, NX, G, D
    int shift            # 12, 21, 22, 30

cdef inline uint32_t fault_code(const PagingContext* ctx, int access, int privilege) noexcept nogil:
    """Error code bits that the access itself determines; I only where fetches can be forbidden (SDM 3A 4.7)."""
    cdef uint32_t code = 0
    if access == ACCESS_WRITE:
        code |= PFEC_W
    if privilege == USER:
        code |= PFEC_U
    if access == ACCESS_FETCH and (ctx.cr4 & CR4_SMEP or (ctx.cr4 & CR4_PAE and ctx.efer & EFER_NXE)):
        code |= PFEC_I
    return code

cdef inline bint access_allowed(const PagingContext* ctx, int flags, int access, int privilege) noexcept nogil:
    """Do the guest's rights (TLB_W, U, NX) allow it?  SDM 3A 4.6.1."""
    cdef bint user_page = flags & TLB_U != 0
    if privilege == USER:
        if not user_page:
            return False
    elif user_page:
        if access == ACCESS_FETCH:
            if ctx.cr4 & CR4_SMEP:
                return False
        elif privilege == SUPERVISOR_SMAP and ctx.cr4 & CR4_SMAP:
            return False
    if access == ACCESS_FETCH:
        return not flags & TLB_NX
    if access == ACCESS_WRITE:
        return flags & TLB_W != 0 or (privilege != USER and not ctx.cr0 & CR0_WP)
    return True

cdef inline uint64_t guest_reserved(Walker* w, bint leaf, int level) noexcept nogil:
    cdef int m = w.ctx.maxphyaddr
    cdef bint nxe = w.ctx.efer & EFER_NXE != 0
    if w.ctx.mode == PAGING_LONG:
        return reserved_long(leaf, level, m, nxe, w.m.config.page1g)
    if w.ctx.mode == PAGING_PAE:
        return reserved_pae(leaf, level, m, nxe)
    return reserved_32(leaf, level, m)

cdef inline bint is_leaf(Walker* w, uint64_t e, int level) noexcept nogil:
    """Does the entry map a page?  PS is ignored in a 32-bit PDE without CR4.PSE."""
    if level == 1:
        return True
    return e & PTE_PS != 0 and level < 4 and (w.ctx.mode != PAGING_32 or w.ctx.cr4 & CR4_PSE)

cdef inline uint64_t guest_read(Walker* w, hpa_t at, int level) noexcept nogil:
    """Read one guest entry of the mode's width, booked."""
    cdef uint32_t narrow
    cdef uint64_t e
    if not w.quiet:
        w.m.count.guest_refs[level] += 1
        charge_reference(w, at, WALK_GUEST_1 + level - 1, WALK_REF_1 + level - 1)
    if w.ctx.mode == PAGING_32:
        ram_read32(w.ram, at, &narrow)
        return narrow
    ram_read64(w.ram, at, &e)
    return e

cdef inline int guest_mark(Walker* w, const NestedPage* table, hpa_t at, gpa_t entry, uint64_t e,
                           uint64_t flags) noexcept nogil:
    """Set accessed or dirty in a guest entry.  An EPT violation when its page may not be written: possible
    only without EPT accessed and dirty flags, since with them the read already counted as a write."""
    if not w.marks or e & flags == flags:
        return XLAT_OK
    if not table.flags & TLB_EPT_W and not w.absent:
        w.fault_gpa = entry
        w.qualification = qualify(EPT_W, (table.flags & TLB_EPT_RWX) >> EPT_TO_TLB, NESTED_FOR_TABLE)
        return XLAT_EPT_VIOLATION
    if window_is_rom(&w.ctx.window, at):
        return XLAT_OK                       # tables in firmware stay as they are
    w.m.count.table_writes += not w.quiet
    if w.ctx.mode == PAGING_32:
        ram_write32(w.ram, at, <uint32_t>(e | flags))
    else:
        ram_write64(w.ram, at, e | flags)
    return XLAT_OK

cdef inline uint64_t entry_offset(gva_t gva, int level, bint is_32) noexcept nogil:
    """Bytes from the start of a table to the entry of this level for `gva`."""
    if is_32:
        return (gva >> (2 + 10 * level) & 1023) * 4
    return (gva >> (3 + 9 * level) & 511) * 8

cdef inline int walk_start(Walker* w, gva_t gva, NestedPage* table, gpa_t* table_gpa,
                           int* flags) noexcept nogil:
    """Level to read first: below the lowest cached entry, or the top.  Fills `table_gpa` and, on a cache hit,
    `table` and `flags`; table.hpa is HPA_UNKNOWN when still to be found.  0: the PAE PDPTE is not present."""
    cdef int level, top = 4 if w.ctx.mode == PAGING_LONG else 2
    cdef const TlbEntry* e
    cdef uint64_t pdpte
    table.hpa = HPA_UNKNOWN
    flags[0] = TLB_W | TLB_U
    if w.cached:
        for level in range(2, top + 1):
            e = pwc_find(&w.m.tlb, gva, level, w.ctx.mode == PAGING_32)
            if e != NULL:
                w.hit = True
                table.hpa = e.pfn << 12
                table.flags = e.flags & (TLB_EPT_RWX | TLB_D)
                table_gpa[0] = e.gfn << 12
                flags[0] = e.flags & (TLB_W | TLB_U | TLB_NX)
                return level - 1
    if w.ctx.mode == PAGING_PAE:
        pdpte = w.ctx.pdpte[gva >> 30 & 3]
        table_gpa[0] = pdpte & FRAME_MASK
        return 2 if pdpte & PTE_P else 0
    table_gpa[0] = w.ctx.cr3 & (0xfffff000ULL if w.ctx.mode == PAGING_32 else FRAME_MASK & ~above(w.ctx.maxphyaddr))
    return top

cdef inline int guest_leaf(Walker* w, gva_t gva, uint64_t e, int shift, int flags, GuestPage* out) noexcept nogil:
    """The page that leaf entry `e` maps."""
    cdef uint64_t inside = ((<uint64_t>1 << shift) - 1) & FRAME_MASK
    if shift == 22:
        out.gpa = frame_4m(e)
    else:
        out.gpa = e & FRAME_MASK & ~inside
    out.gpa += gva & inside
    out.shift = shift
    out.flags = flags
    if e & PTE_D:
        out.flags |= TLB_D
    if e & PTE_G and w.ctx.cr4 & CR4_PGE:
        out.flags |= TLB_G
    return XLAT_OK

cdef inline int guest_walk(Walker* w, gva_t gva, int access, int privilege, GuestPage* out) noexcept nogil:
    """Walk the guest's tables for one access, beginning below a paging-structure cache hit when w.cached.

    XLAT_OK with accessed and dirty flags set, XLAT_PAGE_FAULT with out.pfec, or XLAT_EPT_*.
    The accessed flag of a table entry is set on the way down, that of the leaf only if the access is allowed.
    """
    cdef bint is_32 = w.ctx.mode == PAGING_32
    cdef int flags, status, level
    cdef gpa_t table_gpa = 0
    cdef uint64_t e, offset
    cdef NestedPage table
    cdef bint leaf
    level = walk_start(w, gva, &table, &table_gpa, &flags)
    out.pfec = fault_code(w.ctx, access, privilege)
    if level == 0:
        return XLAT_PAGE_FAULT
    offset = entry_offset(gva, level, is_32)
    if table.hpa == HPA_UNKNOWN:
        status = table_page(w, table_gpa + offset, &table)
        if status != XLAT_OK:
            return status
    while True:
        e = guest_read(w, table.hpa + offset if table.hpa != HPA_NONE else HPA_NONE, level)
        if not e & PTE_P:
            return XLAT_PAGE_FAULT
        leaf = is_leaf(w, e, level)
        if e & guest_reserved(w, leaf, level):
            out.pfec |= PFEC_P | PFEC_RSVD
            return XLAT_PAGE_FAULT
        flags &= <int>e | ~(TLB_W | TLB_U)
        if e & PTE_NX:
            flags |= TLB_NX
        if leaf:
            break
        status = guest_mark(w, &table, table.hpa + offset, table_gpa + offset, e, PTE_A)
        if status != XLAT_OK:
            return status
        level -= 1
        table_gpa = e & FRAME_MASK
        offset = entry_offset(gva, level, is_32)
        status = table_page(w, table_gpa + offset, &table)
        if status != XLAT_OK:
            return status
        if not w.quiet and table.hpa != HPA_NONE:
            pwc_fill(&w.m.tlb, gva, level + 1, is_32, table_gpa, table.hpa, flags | table.flags)
    if not access_allowed(w.ctx, flags, access, privilege):
        out.pfec |= PFEC_P
        return XLAT_PAGE_FAULT
    status = guest_mark(w, &table, table.hpa + offset, table_gpa + offset, e,
                        PTE_A | PTE_D if access == ACCESS_WRITE else PTE_A)
    if status != XLAT_OK:
        return status
    if access == ACCESS_WRITE:
        e |= PTE_D
    return guest_leaf(w, gva, e, pwc_shift(level, is_32), flags, out)
