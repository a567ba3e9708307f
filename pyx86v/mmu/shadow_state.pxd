# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow tables: what is kept, and where.

A shadow page is a table in the monitor's memory that the processor really walks.  It is derived from one guest
table (KIND_TABLE) or maps guest-physical memory as it stands (KIND_DIRECT: paging off, or a part of a large guest
page).  Shadow tables have the 4-level format, or PAE's for a guest in another mode; they hold machine addresses.

`Shadow` is saved with the style's state.  Everything else lies in the monitor's memory behind the guest's window:

    tables   512 entries a page                       links    for each entry: the list it is on
    pages    a ShadowPage each                        frames   for each frame of guest memory a ShadowFrame
    larges   for each 2 MB of guest memory            buckets  the pages by guest frame

An entry has a slot number, page * 512 + index.  An entry that maps a page is on the list of the frame (of the
2 MB) it maps; one that points to a shadow page is on that page's list of parents.  So whatever has to be found
backwards is found, and nothing is ever allocated: hostile tables cost evictions, not memory.

Invariants
1. A present entry grants no more than the guest's entry it comes from; the processor ANDs rights along the path.
   Accessed is set in every guest entry on the way.  A page is writable only when the guest's dirty flag is set too.
   Relaxed for the supervisor of a guest with CR0.WP = 0, which may write any page (SDM 3A 4.6.1) while the processor has
   WP = 1: an entry may be writable that the guest's is not, when it is the supervisor's alone (W = 1, U = 0).  No such entry
   outlives that CR0.WP (`wp_bypassed`), and none is made with SMEP or SMAP, which ask whether the page is a user's.
2. A frame with derived shadow pages, or translated code, is traced: no entry maps it writable.  Relaxed while it is unsynced: its
   entries may then be stale, as a TLB's may, for each address until INVLPG of it, for all until MOV to CR3.
3. The TLB holds no writable translation of a traced frame.  Dropping a writable entry leaves what the TLB has
   (the guest must INVLPG) and sets `stale_writable`; tracing a frame then flushes.
4. No walk cache points into a page that was freed: freeing sets `flush_due`, and every call ends with the flush.
5. All KIND_TABLE pages have one role (format, PSE, NXE); another role, or another A20, drops them all.
6. INVLPG drops all that the TLB holds of a large guest page (SDM 3A 4.10.4.1), which may be several translations where
   such pages were split (`split_made`).  When entries above leaf tables were dropped since the last flush, some of these
   may be stale (`stale_split`): it flushes.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.ptes cimport *
from pyx86v.arch.types cimport gpa_t, gva_t, hpa_t
from pyx86v.cost.ledger cimport Ledger
from pyx86v.mmu.memory cimport Ram, Window, ram_pointer
from pyx86v.mmu.nested cimport Walker
from pyx86v.mmu.state cimport Mmu, PagingContext

cdef enum:
    SHADOW_ENTRIES = 512     # of a table
    MAX_UNSYNCED = 32        # frames out of sync at a time
    LEAST_PAGES = 8          # a walk holds at most four
    LONG_LIST = 256          # entries of one frame that are kept when it becomes a table
    POOL_FLOOR = 64          # pages beyond the share of guest memory
    POOL_SHARE = 50          # one shadow page for so many guest pages: 2 %, as KVM

cdef extern from *:
    """
    #define PYX_SHADOW_NIL 0xffffffffU
    """
    const uint32_t NIL "PYX_SHADOW_NIL"   # no page, no slot

cdef enum ShadowKind:
    KIND_FREE = 0
    KIND_TABLE = 1
    KIND_DIRECT = 2

ctypedef struct ShadowConfig:
    uint32_t unsync_after    # traced writes to a leaf table, none of its entries used between, that let it go out of sync; 0: never
    uint32_t zap_after       # the same for a table that the processor's walk does not reach, data perhaps: it is dropped; 0: never
    uint32_t most_unsynced   # frames out of sync at a time, at most MAX_UNSYNCED
    uint32_t software        # the monitor hands the guest's faults on as it does all exceptions (EMUL_REFLECT)

ctypedef struct ShadowCounters:
    uint64_t hidden_faults   # faults of the shadow that the guest's tables do not have
    uint64_t true_faults     # faults of the guest's own
    uint64_t no_ram          # accesses to devices, holes, and stores to firmware
    uint64_t single_writes   # supervisor writes to read-only pages with CR0.WP = 0 and SMEP or SMAP
    uint64_t traced_writes
    uint64_t fills           # leaf entries made
    uint64_t large_fills     # of these, 2 MB entries
    uint64_t pages           # shadow pages made
    uint64_t splits          # of these, to map a part of a large guest page by smaller ones
    uint64_t drops           # entries dropped because of writes to guest tables
    uint64_t syncs           # INVLPG and MOV to CR3 with tables out of sync
    uint64_t entries_synced  # entries compared
    uint64_t entries_stale   # of these, wrong and dropped
    uint64_t unsynced        # tables that went out of sync
    uint64_t resynced        # and back
    uint64_t protected       # frames that became traced while entries mapped them writable
    uint64_t zaps            # pages dropped: written too often, or their role or A20 changed
    uint64_t evictions       # pages dropped to make room
    uint64_t flushes         # of the TLB, for invariants 3 and 4

ctypedef struct Shadow:
    ShadowConfig config
    ShadowCounters count
    hpa_t at                 # of the monitor's memory for shadow tables
    hpa_t guest_base         # of the guest's window
    uint64_t frames          # of guest memory
    uint64_t a20_mask
    uint64_t role
    uint64_t old_entry       # of the traced write that is under way: what it overwrites
    hpa_t old_entry_at       # and where it lies, plus 1, plus 2 if it is simulated; 0: none
    uint64_t unsynced[MAX_UNSYNCED]   # guest frames
    uint32_t n_unsynced
    uint32_t n_pages
    uint32_t n_used
    uint32_t free            # first free page
    uint32_t oldest          # least recently used page
    uint32_t newest
    uint32_t root[4]         # pages the processor's CR3 (root[0]) or PDPTEs point to
    uint32_t bucket_bits
    uint32_t stale_writable  # the TLB may hold writable translations that no entry shows
    uint32_t flush_due
    uint32_t split_made      # entries map parts of large guest pages
    uint32_t stale_split     # the TLB may hold such parts that no entry shows
    uint32_t wp_bypassed     # entries are writable for the supervisor alone, against the guest's (invariant 1)
    uint32_t simulated       # the access is a retranslated write's: prices BT_TRACE and on, in place of SHADOW_WALK and SHADOW_TRACE and on
    uint32_t code_writes     # writes to frames with translated code since somebody looked (shadow_code.pxd),
    uint64_t code_first      # guest-physical address of the first byte of them all
    uint64_t code_last       # and of the last

ctypedef struct ShadowPage:
    uint64_t gfn             # of the guest table; direct: first frame mapped
    uint32_t next            # in its bucket, or free
    uint32_t older
    uint32_t newer
    uint32_t parents         # slots that point here
    uint16_t live            # present entries
    uint8_t kind
    uint8_t level            # 4..1
    uint8_t quadrant         # 32-bit: which part of the 1,024 guest entries
    uint8_t clean            # its memory holds no entries
    uint8_t pad[2]

ctypedef struct ShadowLink:
    uint32_t next
    uint32_t prev

ctypedef struct ShadowFrame:
    uint32_t maps            # slots that map the frame by 4 KB
    uint16_t tables          # shadow pages derived from it
    uint8_t writes           # traced writes since an entry derived from it was used
    uint8_t unsynced
    uint8_t code             # translated code comes from it (shadow_code.pxd): traced as tables are
    uint8_t pad[3]

ctypedef struct ShadowLarge:
    uint32_t maps            # slots that map the 2 MB whole
    uint32_t tables          # frames in it with derived shadow pages

ctypedef struct Shadower:    # one call at work; lives on the stack
    Shadow* s
    Mmu* m
    const Ram* ram
    Ledger* ledger
    const PagingContext* guest
    PagingContext* hardware
    uint64_t* table
    ShadowLink* link
    ShadowPage* page
    ShadowFrame* frame
    ShadowLarge* large
    uint32_t* bucket
    uint32_t pin[4]          # pages of the walk in progress, never evicted
    uint32_t n_pins
    Walker walker            # reads the guest's tables: no charge, no caches, but accessed and dirty flags

cdef inline uint64_t larges_of(uint64_t frames) noexcept nogil:
    return (frames + 511) >> 9

cdef inline uint64_t bytes_for(uint64_t frames, uint64_t pages, int bucket_bits) noexcept nogil:
    """Size of all arrays, in bytes."""
    return (pages * (4096 + SHADOW_ENTRIES * sizeof(ShadowLink) + sizeof(ShadowPage)) + frames * sizeof(ShadowFrame)
            + larges_of(frames) * sizeof(ShadowLarge) + (<uint64_t>4 << bucket_bits))

cdef inline int bucket_bits_for(uint64_t pages) noexcept nogil:
    cdef int bits = 4
    while <uint64_t>1 << bits < pages and bits < 24:
        bits += 1
    return bits

cdef inline bint arrays_find(Shadower* w) noexcept nogil:
    """Point w at the arrays.  False: they do not lie in RAM."""
    cdef Shadow* s = w.s
    cdef char* p = <char*>ram_pointer(w.ram, s.at, bytes_for(s.frames, s.n_pages, <int>s.bucket_bits))
    if p is NULL:
        return False
    w.table = <uint64_t*>p
    p += <uint64_t>s.n_pages * 4096
    w.link = <ShadowLink*>p
    p += <uint64_t>s.n_pages * SHADOW_ENTRIES * sizeof(ShadowLink)
    w.page = <ShadowPage*>p
    p += <uint64_t>s.n_pages * sizeof(ShadowPage)
    w.frame = <ShadowFrame*>p
    p += s.frames * sizeof(ShadowFrame)
    w.large = <ShadowLarge*>p
    p += larges_of(s.frames) * sizeof(ShadowLarge)
    w.bucket = <uint32_t*>p
    w.n_pins = 0
    return True

cdef inline hpa_t page_hpa(const Shadower* w, uint32_t page) noexcept nogil:
    return w.s.at + (<uint64_t>page << 12)

cdef inline bint frame_is_traced(const Shadower* w, uint64_t gfn) noexcept nogil:
    return gfn < w.s.frames and (w.frame[gfn].code != 0 or w.frame[gfn].tables != 0 and not w.frame[gfn].unsynced)

cdef inline bint maps_page(const Shadower* w, uint32_t slot, uint64_t e) noexcept nogil:
    """Does the present entry map a page, not point to a table?"""
    return e & PTE_PS != 0 or w.page[slot >> 9].level == 1
