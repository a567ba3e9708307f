# SPDX-License-Identifier: GPL-2.0-or-later
"""Invalidation: which instruction drops what (SDM 3A 4.10.4.1; under VMX SDM 3C 28.4.3.1 and 28.4.3.3).

Invalidations act on one asid (VPID) and on the mappings of every nested root that it has.  Where the manual
allows more than it requires, the choice is written at the function.  Every function returns Drop: what the
engine must drop of its own translations (a Drop for another asid than the current one concerns that world).
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.ptes cimport FRAME_MASK
from pyx86v.arch.regs cimport CR0_PG, CR4_PAE, CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMEP
from pyx86v.arch.types cimport gva_t
from pyx86v.mmu.mmu cimport drop_everywhere, drop_of
from pyx86v.mmu.state cimport *
from pyx86v.mmu.tlb cimport *

cdef enum:               # any pcid of an address space, where a pcid is asked for
    PCID_ANY = -1

cdef enum InvpcidType:   # SDM 2A, INVPCID
    INVPCID_ADDRESS = 0
    INVPCID_CONTEXT = 1
    INVPCID_ALL = 2
    INVPCID_ALL_BUT_GLOBAL = 3

cdef enum InveptType:    # SDM 3C chapter 30, INVEPT
    INVEPT_CONTEXT = 1
    INVEPT_ALL = 2

cdef enum InvvpidType:   # SDM 3C chapter 30, INVVPID
    INVVPID_ADDRESS = 0
    INVVPID_CONTEXT = 1
    INVVPID_ALL = 2
    INVVPID_CONTEXT_BUT_GLOBAL = 3

cdef inline int flushed(Mmu* m, int kind, uint64_t entries) noexcept nogil:
    """Count one flush."""
    m.count.flushes[kind] += 1
    m.count.entries_flushed += entries
    return DROP_ALL if entries else DROP_NOTHING

cdef inline uint64_t flush_space(Mmu* m, int asid, int pcid, bint with_global) noexcept nogil:
    """Drop the final translations and walk-cache entries of (asid, pcid or PCID_ANY); global ones when asked.
    Unpaged mappings belong to no pcid and go with PCID_ANY.  Returns the final translations dropped."""
    cdef uint64_t n = 0
    cdef int i
    cdef TlbTag* tag
    for i in range(m.tlb.n_tags):
        tag = &m.tlb.tag[i]
        if tag.asid != asid or tag.pcid == TAG_NESTED:
            continue
        if tag.pcid == TAG_GLOBAL:
            if with_global:
                n += tag_flush(&m.tlb, i, 0)
        elif pcid == PCID_ANY or tag.pcid == pcid:
            n += tag_flush(&m.tlb, i, 0)
            tag_flush(&m.tlb, i, 1)
    return n

cdef inline void flush_walks(Mmu* m, int asid, int pcid) noexcept nogil:
    """Drop the paging-structure-cache entries of (asid, pcid)."""
    cdef int i
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].asid == asid and m.tlb.tag[i].pcid == pcid:
            tag_flush(&m.tlb, i, 1)

cdef inline int mmu_mov_cr3(Mmu* m, int asid, int pcid, bint pcide, bint noflush) noexcept nogil:
    """MOV to CR3.  Without PCIDE: everything but global of PCID 0.  With it: of the new PCID (`pcid`, source bits
    11:0), and nothing when `noflush` (source bit 63) is set."""
    if not pcide:
        return flushed(m, FLUSH_CR3, flush_space(m, asid, 0, False))
    if noflush:
        return DROP_NOTHING
    return flushed(m, FLUSH_CR3, flush_space(m, asid, pcid, False))

cdef inline int mmu_invlpg(Mmu* m, int asid, int pcid, gva_t gva) noexcept nogil:
    """INVLPG: the page for the current PCID, the page of any PCID if global, all parts of a fractured page, and
    every paging-structure-cache entry of the current PCID."""
    cdef int largest = 0
    flushed(m, FLUSH_INVLPG, drop_everywhere(m, asid, pcid, gva, &largest))
    flush_walks(m, asid, pcid)
    return drop_of(largest)

cdef inline int invpcid_address(Mmu* m, int asid, int pcid, gva_t gva) noexcept nogil:
    """INVPCID type 0: not the global translations.  Also drops the whole walk cache of that PCID, as INVLPG does."""
    cdef int i, largest = 0
    cdef uint64_t n = 0
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].asid == asid and m.tlb.tag[i].pcid == pcid:
            largest = max(largest, tag_drop_page(&m.tlb, i, gva, &n))
    flush_walks(m, asid, pcid)
    flushed(m, FLUSH_INVPCID, n)
    return drop_of(largest)

cdef inline int mmu_invpcid(Mmu* m, int asid, int type, int pcid, gva_t gva) noexcept nogil:
    """INVPCID.  The caller has checked the descriptor and the type (#GP otherwise)."""
    if type == INVPCID_ADDRESS:
        return invpcid_address(m, asid, pcid, gva)
    if type == INVPCID_CONTEXT:
        return flushed(m, FLUSH_INVPCID, flush_space(m, asid, pcid, False))
    return flushed(m, FLUSH_INVPCID, flush_space(m, asid, PCID_ANY, type == INVPCID_ALL))

cdef inline int mmu_mode_change(Mmu* m, int asid, int pcid, uint64_t cr0, uint64_t cr4, uint64_t old_cr0,
                                uint64_t old_cr4) noexcept nogil:
    """MOV to CR0 or CR4: everything of the asid when PG is cleared, PGE changes or PCIDE is cleared; everything of
    the current PCID (`pcid`), global pages included, when PAE or PSE changes or SMEP is set.  The manual does not
    list PSE; its effect on cached 4 MB entries is the same as PAE's.  WP and SMAP drop nothing: rights are
    checked at each lookup."""
    cdef uint64_t changed = cr4 ^ old_cr4
    if old_cr0 & CR0_PG and not cr0 & CR0_PG or changed & CR4_PGE or old_cr4 & CR4_PCIDE and not cr4 & CR4_PCIDE:
        return flushed(m, FLUSH_MODE, flush_space(m, asid, PCID_ANY, True))
    if changed & (CR4_PAE | CR4_PSE) or cr4 & CR4_SMEP and not old_cr4 & CR4_SMEP:
        return flushed(m, FLUSH_MODE, flush_space(m, asid, pcid, True))
    return DROP_NOTHING

cdef inline int mmu_flush_asid(Mmu* m, int asid) noexcept nogil:
    """Everything of one asid, as an entry or exit without VPID does for asid 0.  Guest-physical mappings stay."""
    return flushed(m, FLUSH_ASID, flush_space(m, asid, PCID_ANY, True))

cdef inline int mmu_flush_guest(Mmu* m, int asid, uint64_t eptp) noexcept nogil:
    """Everything of one guest, its guest-physical mappings too: its A20 line has changed."""
    cdef uint64_t n = flush_space(m, asid, PCID_ANY, True)
    cdef int i
    for i in range(m.tlb.n_tags):
        if eptp and m.tlb.tag[i].eptp and (m.tlb.tag[i].eptp ^ eptp) & FRAME_MASK == 0:
            n += tag_flush(&m.tlb, i, 0)
            tag_flush(&m.tlb, i, 1)
    return flushed(m, FLUSH_ASID, n)

cdef inline uint64_t flush_every_space(Mmu* m, bint with_zero, bint with_nested) noexcept nogil:
    """Drop the translations of every asid, of asid 0 and of the nested TLB only when asked."""
    cdef uint64_t n = 0
    cdef int i
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].pcid == TAG_NESTED:
            if with_nested:
                tag_flush(&m.tlb, i, 1)
        elif with_zero or m.tlb.tag[i].asid:
            n += tag_flush(&m.tlb, i, 0)
            tag_flush(&m.tlb, i, 1)
    return n

cdef inline int mmu_flush_all(Mmu* m) noexcept nogil:
    """Everything, as after reset."""
    return flushed(m, FLUSH_ALL, flush_every_space(m, True, True))

cdef inline int mmu_invept(Mmu* m, int type, uint64_t eptp) noexcept nogil:
    """INVEPT: guest-physical and combined mappings of the EPTP's root, or of every root."""
    cdef uint64_t n = 0
    cdef int i
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].eptp and (type == INVEPT_ALL or (m.tlb.tag[i].eptp ^ eptp) & FRAME_MASK == 0):
            n += tag_flush(&m.tlb, i, 0)
            tag_flush(&m.tlb, i, 1)
    return flushed(m, FLUSH_INVEPT, n)

cdef inline int invvpid_address(Mmu* m, int asid, gva_t gva) noexcept nogil:
    """INVVPID type 0: the page for every PCID, global or not, and the asid's whole walk cache."""
    cdef int i, largest = 0
    cdef uint64_t n = 0
    for i in range(m.tlb.n_tags):
        if m.tlb.tag[i].asid == asid and m.tlb.tag[i].pcid != TAG_NESTED:
            largest = max(largest, tag_drop_page(&m.tlb, i, gva, &n))
            tag_flush(&m.tlb, i, 1)
    flushed(m, FLUSH_INVVPID, n)
    return drop_of(largest)

cdef inline int mmu_invvpid(Mmu* m, int type, int asid, gva_t gva) noexcept nogil:
    """INVVPID.  The caller has checked type and descriptor.  Type 2 leaves VPID 0 alone."""
    if type == INVVPID_ADDRESS:
        return invvpid_address(m, asid, gva)
    if type == INVVPID_ALL:
        return flushed(m, FLUSH_INVVPID, flush_every_space(m, False, False))
    return flushed(m, FLUSH_INVVPID, flush_space(m, asid, PCID_ANY, type == INVVPID_CONTEXT))
