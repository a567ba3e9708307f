# SPDX-License-Identifier: GPL-2.0-or-later
"""The translation cache: which guest code has been translated, where its translation lies, when it is wrong.

`Bt` is the style's saved state.  The code and everything that is looked up lie in the monitor's memory behind the guest's
window, so that snapshots have them.  What comes from there is never trusted to be an index: each read is bounded.

    code     BT_CACHE_BYTES, mapped at BT_BASE of the monitor's region              units    one Unit each, in the order of their code
    data     the cells and tables that translated code reads and writes        pool     parts, instructions, exits, guest bytes of units
    tables   three pages that map both, by 2 MB pages                          heads    first unit of each hash chain
    spaces   see below                                                         frames   first unit of each guest frame

A unit is found by linear address, mode and *space*.  A space stands for one view of the guest's addresses, as far as
translated code lies in them: the entries of the root table that lead to it, and the entries below (`Link`).  Translated code
jumps without looking, so what it relies on is looked at whenever the guest must tell the processor that it changed its
tables (MOV to CR, INVLPG, a task switch): `space_choose` finds the space whose root entries are those of the current root.  Where an
entry below has changed or lost its accessed flag, the units of its region die (engine/cache_space.pxd).  Processes share the kernel's part of the root table, so they share a space; a
kernel that isolates its page tables (PTI) has two.

Frames with translated code are traced as guest tables are (mmu/shadow_code.pxd).  A unit whose code was written is dead: its
first bytes become INT BT_EXIT, so whoever is chained to it arrives at the monitor, or a jump to the unit that replaced it.
A frame that is written over and over is not traced any longer; its units have one instruction, nobody is chained to them,
and the monitor compares their bytes each time it enters them (`UNIT_CHECKED`), until it has found them unchanged for long.
When one of the arrays is full everything is forgotten: a new generation.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from pyx86v.arch.ptes cimport *
from pyx86v.arch.regs cimport CR4_PSE, CR4_SMEP, EFER_NXE
from pyx86v.arch.types cimport *
from pyx86v.mmu.memory cimport Ram, Window, ram_pointer, ram_read32, ram_read64, ram_write64, window_hpa
from pyx86v.mmu.state cimport PagingContext
from pyx86v.vmm.bt.cells cimport *
from pyx86v.vmm.bt.state cimport *

cdef enum:
    DATA_BYTES = 2 << 20
    TABLE_BYTES = 4 << 12
    MAX_UNITS = 1 << 17
    POOL_BYTES = 24 << 20
    HEADS = 1 << 16
    MAX_SPACES = 8
    MAX_ROOTS = 64               # root entries of a space
    MAX_LINKS = 4096             # entries below them
    RECENT = 64                  # entries of the table of targets that are taken out one by one
    MOST_STALE = 8               # of them that may change at a time, or the whole space is dropped
    CODE_LINE = 8                # units begin so
    STUB_BYTES = 6               # INT BT_INT_EXIT and the unit's number
    NO_STUB = 0xffff             # BtExit.stub: the exit is chained for good
    DISPATCH_BYTES = 64          # the start of the code area: INT BT_INT_EXIT, for a guest address without a translation
    MAX_CODE_WRITES = 512        # to one frame, until it is no longer traced; those that
    DEADLY_WRITE = 32            # meet a translation count for so many
    HOT = 512
    HOT_TRAPS = 4                # of an instruction, until it becomes a call-out (Adams and Agesen, section 4)
    HOT_IDLE = 64                # call-outs in a row that wrote no table, until it runs in the cache again
    CALM_ENTRIES = 128           # into its unchanged code, until it is traced again
    CODE_WRITES = 0xfff          # a frame's second number: writes, and entries above
    CODE_ENTRY = 0x1000
    LARGE = 2 << 20

cdef enum UnitFlags:
    UNIT_DEAD = 1
    UNIT_CHECKED = 2

ctypedef struct Unit:        # one translation
    uint64_t pc              # linear address of the guest's code
    uint64_t eip             # as instruction pointer
    uint64_t gfn             # guest frame of its first byte; NO_GFN: not in RAM
    uint64_t gfn2            # of its last byte
    uint32_t mode            # packed BtMode
    uint32_t space
    uint32_t code            # offset in the code area
    uint16_t code_bytes
    uint16_t guest_bytes
    uint32_t pool            # byte offset of its BtPart, BtInsn, BtExit arrays and guest bytes
    uint8_t n_parts
    uint8_t n_insns
    uint8_t n_exits
    uint8_t flags            # UNIT_*
    uint8_t ends_with        # BT_END_*
    uint8_t pad[3]
    uint32_t next            # of the hash chain, plus 1; 0: none
    uint32_t same_frame      # next unit of gfn, plus 1
    uint32_t same_frame2

ctypedef struct Link:
    hpa_t at                 # of a guest table's entry
    uint64_t value           # what must not change (LINK_MASK)
    uint64_t region          # the linear addresses behind it: the first one, and in its low bits the log2 of their number

ctypedef struct Space:
    uint32_t n_roots
    uint32_t n_links
    uint32_t role            # space_role()
    uint32_t narrow          # entries of 4 bytes
    uint64_t used            # when it was current last
    uint32_t root[MAX_ROOTS]
    uint64_t value[MAX_ROOTS]
    Link link[MAX_LINKS]

ctypedef struct BtCounters:
    uint64_t units           # translated
    uint64_t insns
    uint64_t guest_bytes
    uint64_t code_bytes
    uint64_t dispatches      # entries from the monitor
    uint64_t chains          # exits chained
    uint64_t lookups         # indirect targets that the table in the cache did not have
    uint64_t callouts
    uint64_t dead            # units whose code, or the tables that lead there, were written
    uint64_t generations
    uint64_t spaces          # made
    uint64_t dropped         # times that entries had changed
    uint64_t adapted         # instructions retranslated to call-outs because they write traced tables
    uint64_t restored        # and back
    uint64_t by_kind[64]     # call-outs, by TrapKind

ctypedef struct Hot:         # an instruction that wrote a guest table in use, and trapped for it
    uint64_t eip
    uint64_t traced          # traced writes of all so far, when it was met last
    uint32_t traps
    uint16_t idle            # call-outs in a row that wrote none
    uint16_t callout         # it is a call-out now

ctypedef struct Bt:          # saved
    hpa_t at                 # of the monitor's memory for all this
    uint64_t bytes
    hpa_t code
    hpa_t data
    hpa_t tables
    uint64_t frames          # of guest memory
    uint32_t n_units
    uint32_t code_used
    uint32_t pool_used
    uint32_t space           # the current one
    uint32_t recheck         # the guest's tables may have changed: choose the space anew
    uint32_t bits            # of the code that the table of targets is for,
    uint32_t mode            # and its packed BtMode
    uint64_t clock
    uint64_t clears          # how often the table was emptied
    uint32_t published       # entries made since then,
    uint16_t recent[RECENT]  # and where the first of them are
    uint32_t stubs           # offset of the lowest stub that lies at the end of its page; 0: none
    uint32_t adaptive        # instructions that trap often become call-outs
    PagingContext context    # maps the monitor's region
    Hot hot[HOT]             # by eip
    BtCounters count

cdef extern from *:
    """
    #define PYX_NO_GFN (~0ULL)
    #define PYX_LINK_MASK 0x800ffffffffff0a5ULL
    """
    const uint64_t NO_GFN "PYX_NO_GFN"
    const uint64_t LINK_MASK "PYX_LINK_MASK"     # frame, NX, PS, A, U/S, P: what a fetch depends on, and that its flag is set

# Where things lie ---------------------------------------------------------------------------------

cdef enum:
    OFF_UNITS = 0
    OFF_POOL = OFF_UNITS + MAX_UNITS * 96
    OFF_HEADS = OFF_POOL + POOL_BYTES
    OFF_SPACES = OFF_HEADS + HEADS * 4

cdef inline uint64_t off_frames() noexcept nogil:
    return OFF_SPACES + MAX_SPACES * sizeof(Space)

cdef inline uint64_t bt_bytes(uint64_t guest_bytes) noexcept nogil:
    """Monitor memory for a guest of this size."""
    return (LARGE + BT_CACHE_BYTES + DATA_BYTES + TABLE_BYTES + off_frames() + (guest_bytes >> 12) * 8 + PAGE_MASK) & ~<uint64_t>PAGE_MASK

cdef inline char* bt_meta(const Bt* b, const Ram* ram) noexcept nogil:
    """The arrays that only the monitor reads; NULL: not in RAM."""
    return <char*>ram_pointer(ram, b.tables + TABLE_BYTES, off_frames() + b.frames * 8)

cdef inline Unit* unit_of(const Bt* b, const Ram* ram, uint32_t number) noexcept nogil:
    """Unit `number` (from 1), or NULL."""
    cdef char* meta = bt_meta(b, ram)
    cdef Unit* u
    if meta is NULL or number == 0 or number > b.n_units or number > MAX_UNITS:
        return NULL
    u = <Unit*>(meta + OFF_UNITS) + (number - 1)
    return u if <uint64_t>u.code + u.code_bytes <= BT_CACHE_BYTES else NULL

cdef inline uint64_t pool_bytes(const Unit* u) noexcept nogil:
    return u.n_parts * sizeof(BtPart) + u.n_insns * sizeof(BtInsn) + u.n_exits * sizeof(BtExit) + u.guest_bytes

cdef inline char* pool_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    cdef char* meta = bt_meta(b, ram)
    if meta is NULL or u.pool > POOL_BYTES or pool_bytes(u) > POOL_BYTES - u.pool:
        return NULL
    return meta + OFF_POOL + u.pool

cdef inline BtExit* exits_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    """The exits stand first (they have 64-bit fields), then parts, instructions, guest bytes.  NULL: a broken unit."""
    return <BtExit*>pool_of(b, ram, u)

cdef inline BtPart* parts_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    cdef char* p = pool_of(b, ram, u)
    return <BtPart*>(p + u.n_exits * sizeof(BtExit)) if p is not NULL else NULL

cdef inline BtInsn* insns_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    cdef char* p = <char*>parts_of(b, ram, u)
    return <BtInsn*>(p + u.n_parts * sizeof(BtPart)) if p is not NULL else NULL

cdef inline uint8_t* guest_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    cdef char* p = <char*>insns_of(b, ram, u)
    return <uint8_t*>(p + u.n_insns * sizeof(BtInsn)) if p is not NULL else NULL

cdef inline uint32_t* head_of(const Bt* b, const Ram* ram, uint64_t pc, uint32_t mode, uint32_t space) noexcept nogil:
    cdef char* meta = bt_meta(b, ram)
    cdef uint64_t h = (pc * 0x9e3779b97f4a7c15ULL) ^ ((<uint64_t>mode * 0x85ebca6bULL + space) * 0xc2b2ae35ULL << 24)
    return <uint32_t*>(meta + OFF_HEADS) + (h >> 40 & (HEADS - 1)) if meta is not NULL else NULL

cdef inline uint32_t* frame_of(const Bt* b, const Ram* ram, uint64_t gfn) noexcept nogil:
    """Two numbers: the first unit of the frame; writes to its code, and, when it is not traced, entries since the last of them."""
    cdef char* meta = bt_meta(b, ram)
    return <uint32_t*>(meta + off_frames()) + 2 * gfn if meta is not NULL and gfn < b.frames else NULL

cdef inline Space* space_of(const Bt* b, const Ram* ram, uint32_t i) noexcept nogil:
    cdef char* meta = bt_meta(b, ram)
    return <Space*>(meta + OFF_SPACES) + (i & (MAX_SPACES - 1)) if meta is not NULL else NULL

cdef inline uint64_t* cell_of(const Bt* b, const Ram* ram, uint32_t offset) noexcept nogil:
    """A cell of the data area that translated code uses; NULL only with a broken state."""
    return <uint64_t*>ram_pointer(ram, b.data + offset, 8)

# Setting up ------------------------------------------------------------------------------------------

cdef inline void map_region(Bt* b, const Ram* ram) noexcept nogil:
    """The monitor's tables: one page directory serves both formats, since the region ends each kind of address space."""
    cdef hpa_t pml4 = b.tables, pdpt = b.tables + 4096, pd = b.tables + 8192
    cdef uint64_t i, first = BT_BASE_32 >> 21 & 511
    ram_write64(ram, pml4 + 511 * 8, pdpt | PTE_P | PTE_W | PTE_A)
    ram_write64(ram, pml4, pdpt | PTE_P | PTE_W | PTE_A)         # compatibility mode
    ram_write64(ram, pdpt + 3 * 8, pd | PTE_P | PTE_W | PTE_A)
    ram_write64(ram, pdpt + 511 * 8, pd | PTE_P | PTE_W | PTE_A)
    for i in range(BT_CACHE_BYTES >> 21):
        ram_write64(ram, pd + (first + i) * 8, (b.code + (i << 21)) | PTE_P | PTE_A | PTE_D | PTE_PS | PTE_G)
    ram_write64(ram, pd + (first + (BT_DATA >> 21)) * 8, b.data | PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS | PTE_G | PTE_NX)

cdef inline void bt_forget(Bt* b, const Ram* ram) noexcept nogil:
    """A new generation: nothing is translated.  The caller unpublishes (lookup_clear) and forgets what it has of the code."""
    cdef char* meta = bt_meta(b, ram)
    cdef uint32_t i
    b.n_units = b.pool_used = b.space = 0
    b.code_used = DISPATCH_BYTES
    b.recheck = 1
    b.stubs = 0
    b.count.generations += 1
    if meta is NULL:
        return
    memset(meta + OFF_HEADS, 0, HEADS * 4)
    memset(meta + off_frames(), 0, b.frames * 8)
    for i in range(MAX_SPACES):
        (<Space*>(meta + OFF_SPACES))[i].n_roots = 0
        (<Space*>(meta + OFF_SPACES))[i].n_links = 0
        (<Space*>(meta + OFF_SPACES))[i].used = 0
    lookup_clear(b, ram)

cdef inline int bt_layout(Bt* b, const Window* guest, hpa_t at, uint64_t bytes) noexcept nogil:
    """Where everything is in [at, at + bytes), all else zero.  0, or -1: no room."""
    memset(b, 0, sizeof(Bt))
    b.at = at
    b.bytes = bytes
    b.frames = guest.size >> 12
    b.code = (at + LARGE - 1) & ~<uint64_t>(LARGE - 1)
    b.data = b.code + BT_CACHE_BYTES
    b.tables = b.data + DATA_BYTES
    return 0 if bytes >= bt_bytes(guest.size) else -1

cdef inline int bt_start(Bt* b, const Ram* ram, const Window* guest, hpa_t at, uint64_t bytes) noexcept nogil:
    """Nothing is translated yet.  0, or -1: no room."""
    if bt_layout(b, guest, at, bytes) != 0 or bt_meta(b, ram) is NULL:
        return -1
    map_region(b, ram)
    b.bits = 64
    b.adaptive = 1
    bt_cells_init(ram.base + b.data)
    ram.base[b.code] = 0xcd
    ram.base[b.code + 1] = BT_INT_EXIT
    bt_forget(b, ram)
    return 0

# The table of indirect targets, which translated code reads -------------------------------------------

cdef inline void table_put(Bt* b, char* table, uint64_t i, uint64_t key, uint64_t value) noexcept nogil:
    if b.bits == 64:
        (<uint64_t*>table)[2 * i] = key
        (<uint64_t*>table)[2 * i + 1] = value
    else:
        (<uint32_t*>table)[2 * i] = <uint32_t>key
        (<uint32_t*>table)[2 * i + 1] = <uint32_t>value

cdef inline char* table_of(const Bt* b, const Ram* ram) noexcept nogil:
    return <char*>ram_pointer(ram, b.data + (BT_TABLE - BT_DATA), <uint64_t>BT_TARGETS * 16)

cdef inline void lookup_clear(Bt* b, const Ram* ram) noexcept nogil:
    """No place matches any target.  Outside 64-bit mode the words have 4 bytes."""
    cdef uint32_t i, at, n = b.published
    cdef char* table = table_of(b, ram)
    if table is NULL or b.clears and n == 0:
        return
    b.clears += 1
    b.published = 0
    if n <= RECENT and b.clears > 1:
        for i in range(n):
            at = b.recent[i] & (BT_TARGETS - 1)
            table_put(b, table, at, bt_empty_key(at), 0)
        return
    for i in range(BT_TARGETS):
        table_put(b, table, i, bt_empty_key(i), 0)

cdef inline uint64_t lookup_find(const Bt* b, const Ram* ram, uint64_t target) noexcept nogil:
    """Where (linear) the table says that the translation of `target` lies, or 0."""
    cdef const char* table = table_of(b, ram)
    cdef uint64_t i = target & (BT_TARGETS - 1)
    if table is NULL:
        return 0
    if b.bits == 64:
        return (<const uint64_t*>table)[2 * i + 1] if (<const uint64_t*>table)[2 * i] == 0 - target else 0
    return (<const uint32_t*>table)[2 * i + 1] if (<const uint32_t*>table)[2 * i] == <uint32_t>(0 - target) else 0

cdef inline void lookup_publish(Bt* b, const Ram* ram, uint64_t target, uint64_t code) noexcept nogil:
    """Translated code finds the translation of `target` at `code` (linear) by itself."""
    cdef char* table = table_of(b, ram)
    if b.published < RECENT:
        b.recent[b.published] = <uint16_t>(target & (BT_TARGETS - 1))
    if b.published <= RECENT:
        b.published += 1
    if table is not NULL:
        table_put(b, table, target & (BT_TARGETS - 1), 0 - target, code)

# Spaces ----------------------------------------------------------------------------------------------

cdef inline uint64_t table_entry(const Ram* ram, hpa_t at, bint narrow) noexcept nogil:
    cdef uint64_t e = 0
    cdef uint32_t n = 0
    if narrow:
        ram_read32(ram, at, &n)
        return n
    ram_read64(ram, at, &e)
    return e

cdef inline uint64_t root_entry(const Ram* ram, const PagingContext* p, uint32_t index) noexcept nogil:
    """The entry that leads to the addresses with this index: of the root table, or with PAE of the four page directories, which
    differ from process to process although they hold the same kernel."""
    if p.mode == PAGING_PAE:
        if not p.pdpte[index >> 9 & 3] & PTE_P:
            return 0
        return table_entry(ram, window_hpa(&p.window, (p.pdpte[index >> 9 & 3] & FRAME_MASK) + (index & 511) * 8), False)
    if p.mode == PAGING_LONG:
        return table_entry(ram, window_hpa(&p.window, (p.cr3 & FRAME_MASK) + (index & 511) * 8), False)
    if p.mode == PAGING_32:
        return table_entry(ram, window_hpa(&p.window, (p.cr3 & 0xfffff000ULL) + (index & 1023) * 4), True)
    return 0

cdef inline uint32_t root_index(const PagingContext* p, gva_t pc) noexcept nogil:
    return <uint32_t>(pc >> 39 & 511 if p.mode == PAGING_LONG else pc >> 21 & 2047 if p.mode == PAGING_PAE else pc >> 22 & 1023)

cdef inline uint32_t space_role(const PagingContext* p) noexcept nogil:
    """What, besides the tables, decides where the kernel may fetch from: the format, PSE, NXE, SMEP and the A20 line."""
    return (p.mode | (4 if p.mode == PAGING_32 and p.cr4 & CR4_PSE else 0) | (8 if p.efer & EFER_NXE else 0) |
            (16 if p.cr4 & CR4_SMEP else 0) | (32 if p.window.a20_mask >> 20 & 1 else 0))

cdef inline bint space_fits(const Ram* ram, const Space* s, const PagingContext* p) noexcept nogil:
    """Are the root entries of the space those of the current root, and is its role the current one?"""
    cdef uint32_t i
    if s.role != space_role(p):
        return s.n_roots == 0
    for i in range(min(s.n_roots, <uint32_t>MAX_ROOTS)):
        if root_entry(ram, p, s.root[i]) & LINK_MASK != s.value[i]:
            return False
    return True

cdef inline bint region_holds(uint64_t region, gva_t va) noexcept nogil:
    return (region ^ va) >> (region & 63) == 0

cdef inline int space_stale(const Ram* ram, Space* s, uint64_t* regions) noexcept nogil:
    """The regions of up to MOST_STALE entries that are not as they were; links into them are forgotten.  How many; MOST_STALE + 1: more."""
    cdef uint32_t i = 0, links = min(s.n_links, <uint32_t>MAX_LINKS)
    cdef int n = 0, k
    for i in range(links):
        if table_entry(ram, s.link[i].at, s.narrow != 0) & LINK_MASK != s.link[i].value:
            if n == MOST_STALE:
                return MOST_STALE + 1
            regions[n] = s.link[i].region
            n += 1
    i = 0
    while n and i < links:
        for k in range(n):
            if region_holds(regions[k], s.link[i].region) and s.link[i].region & 63 <= regions[k] & 63:
                links -= 1
                s.link[i] = s.link[links]
                break
        else:
            i += 1
    s.n_links = links
    return n

cdef inline void space_drop(Bt* b, const Ram* ram, uint32_t number) noexcept nogil:
    """Forget the space's units: they leave their chains, and so nobody enters them again."""
    cdef char* meta = bt_meta(b, ram)
    cdef Space* s = space_of(b, ram, number)
    cdef uint32_t* at
    cdef uint32_t i, n
    cdef Unit* u
    if s is NULL:
        return
    for i in range(HEADS):
        at = <uint32_t*>(meta + OFF_HEADS) + i
        n = 0
        while at[0] and n < MAX_UNITS:
            n += 1
            u = unit_of(b, ram, at[0])
            if u is NULL:
                at[0] = 0
            elif u.space == number:
                u.flags |= UNIT_DEAD
                at[0] = u.next
            else:
                at = &u.next
    s.n_roots = s.n_links = 0
    s.used = 0

cdef inline int space_choose(Bt* b, const Ram* ram, const PagingContext* p, uint64_t* regions) noexcept nogil:
    """Make the space of the current tables the current one; clears the table of targets when something has changed.

    How many `regions` there are (MOST_STALE at most) whose units are wrong; the caller kills them.
    """
    cdef uint32_t i, best = 0
    cdef uint32_t was = b.space
    cdef int stale = 0
    cdef Space* s = space_of(b, ram, was)
    b.recheck = 0
    b.clock += 1
    if s is NULL:
        return 0
    if not (s.n_roots and space_fits(ram, s, p)):
        for i in range(MAX_SPACES):
            s = space_of(b, ram, i)
            if s.n_roots and space_fits(ram, s, p):
                break
        else:
            for i in range(MAX_SPACES):
                if space_of(b, ram, i).used < space_of(b, ram, best).used:
                    best = i
            i = best
            s = space_of(b, ram, i)
            if s.n_roots:
                space_drop(b, ram, i)
            b.count.spaces += 1
        b.space = i
    s.used = b.clock
    if s.n_roots:
        stale = space_stale(ram, s, regions)
    if stale > MOST_STALE:
        space_drop(b, ram, b.space)
        s.used = b.clock
        stale = 0
        b.count.dropped += 1
        lookup_clear(b, ram)
    elif stale:
        b.count.dropped += 1
        lookup_clear(b, ram)
    if s.n_roots == 0:
        s.role = space_role(p)
        s.narrow = p.mode == PAGING_32
    if b.space != was:
        lookup_clear(b, ram)
    return stale

cdef inline bint link_add(Space* s, hpa_t at, uint64_t value, uint64_t region) noexcept nogil:
    cdef uint32_t i = s.n_links
    while i:
        i -= 1
        if s.link[i].at == at and s.link[i].region == region:
            return True
    if s.n_links >= MAX_LINKS:
        return False
    s.link[s.n_links].at = at
    s.link[s.n_links].value = value
    s.link[s.n_links].region = region
    s.n_links += 1
    return True

cdef inline bint space_rely(Bt* b, const Ram* ram, const PagingContext* p, gva_t pc) noexcept nogil:
    """Code at `pc`, whose walk has just succeeded, is translated: note the entries that led there.  False: no room."""
    cdef Space* s = space_of(b, ram, b.space)
    cdef uint32_t i, index = root_index(p, pc), shift
    cdef int level = 3 if p.mode == PAGING_LONG else 1
    cdef uint64_t e = root_entry(ram, p, index)
    cdef hpa_t at
    if s is NULL or p.mode == PAGING_NONE:
        return s is not NULL
    for i in range(min(s.n_roots, <uint32_t>MAX_ROOTS)):
        if s.root[i] == index:
            break
    else:
        if s.n_roots >= MAX_ROOTS:
            return False
        s.root[s.n_roots] = index
        s.value[s.n_roots] = e & LINK_MASK
        s.n_roots += 1
    while level and not (p.mode != PAGING_LONG and e & PTE_PS):
        shift = <uint32_t>(3 + 9 * level)
        if p.mode == PAGING_32:
            at = window_hpa(&p.window, (e & 0xfffff000ULL) + (pc >> 12 & 1023) * 4)
        else:
            at = window_hpa(&p.window, (e & FRAME_MASK) + (pc >> shift & 511) * 8)
        e = table_entry(ram, at, p.mode == PAGING_32)
        if not link_add(s, at, e & LINK_MASK, (pc >> shift << shift) | shift):
            return False
        if level > 1 and e & PTE_PS:
            break
        level -= 1
    return True

# Adaptive translation ----------------------------------------------------------------------------------

cdef inline Hot* hot_of(Bt* b, uint64_t eip) noexcept nogil:
    return &b.hot[eip * 0x9e3779b97f4a7c15ULL >> 55 & (HOT - 1)]

cdef inline bint hot_trapped(Bt* b, uint64_t eip, uint64_t traced) noexcept nogil:
    """The instruction wrote a table that is in use.  True: it is to become a call-out now."""
    cdef Hot* h = hot_of(b, eip)
    if h.eip != eip:
        if h.callout and h.traps:
            h.traps -= 1                     # the one that has the place keeps it for a while
            return False
        h.eip = eip
        h.traps = 0
        h.callout = 0
    h.traps += 1
    if h.callout or h.traps < HOT_TRAPS or not b.adaptive:
        return False
    h.callout = 1
    h.idle = 0
    h.traced = traced
    b.count.adapted += 1
    return True

cdef inline bint hot_called(Bt* b, uint64_t eip, uint64_t traced) noexcept nogil:
    """Its call-out is about to run.  True: it has written no table for long, and is to run in the cache again."""
    cdef Hot* h = hot_of(b, eip)
    if h.eip != eip or not h.callout:
        return True
    h.idle = h.idle + 1 if traced == h.traced else 0
    h.traced = traced
    if h.idle < HOT_IDLE:
        return False
    h.callout = 0
    h.eip = 0
    b.count.restored += 1
    return True

cdef inline void hot_note(Bt* b, BtMode* m, uint64_t eip) noexcept nogil:
    """Tell the translator of a unit at `eip` which of its instructions are call-outs."""
    cdef int i
    for i in range(HOT):
        if b.hot[i].callout and b.hot[i].eip - eip < 16 * BT_INSNS and m.n_no_inline < BT_MAX_LIST:
            m.no_inline[m.n_no_inline] = b.hot[i].eip
            m.n_no_inline += 1

# Units -------------------------------------------------------------------------------------------------

cdef inline Unit* unit_find(Bt* b, const Ram* ram, gva_t pc, uint64_t eip, uint32_t mode) noexcept nogil:
    """The live unit that starts at `pc` in the current space, or NULL."""
    cdef uint32_t* at = head_of(b, ram, pc, mode, b.space)
    cdef uint32_t number, n = 0
    cdef Unit* u
    if at is NULL:
        return NULL
    number = at[0]
    while number and n < MAX_UNITS:
        n += 1
        u = unit_of(b, ram, number)
        if u is NULL:
            return NULL
        if u.pc == pc and u.mode == mode and u.space == b.space and u.eip == eip and not u.flags & UNIT_DEAD:
            return u
        number = u.next
    return NULL

cdef inline uint32_t number_of(const Bt* b, const Ram* ram, const Unit* u) noexcept nogil:
    return <uint32_t>(u - <Unit*>(bt_meta(b, ram) + OFF_UNITS)) + 1

cdef inline Unit* unit_at(const Bt* b, const Ram* ram, uint64_t offset) noexcept nogil:
    """The unit whose code holds this offset of the code area, or NULL.  Units lie in the order of their code."""
    cdef uint32_t lo = 1, hi = b.n_units, mid
    cdef Unit* u
    while lo < hi:
        mid = (lo + hi + 1) >> 1
        u = unit_of(b, ram, mid)
        if u is NULL:
            return NULL
        if u.code > offset:
            hi = mid - 1
        else:
            lo = mid
    u = unit_of(b, ram, lo)
    return u if u is not NULL and u.code <= offset < <uint64_t>u.code + u.code_bytes else NULL

cdef inline Unit* unit_of_stub(const Bt* b, const Ram* ram, uint64_t offset) noexcept nogil:
    """The unit one of whose exits' stubs lies at the end of a page, or NULL: INT, and the unit's number behind it."""
    cdef const uint8_t* p = ram_pointer(ram, b.code + offset, STUB_BYTES) if offset <= BT_CACHE_BYTES - STUB_BYTES else NULL
    cdef Unit* u
    cdef BtExit* exits
    cdef uint32_t number
    cdef int i
    if p is NULL or p[0] != 0xcd or p[1] != BT_INT_EXIT:
        return NULL
    memcpy(&number, p + 2, 4)
    u = unit_of(b, ram, number)
    exits = exits_of(b, ram, u) if u is not NULL else NULL
    if exits is NULL:
        return NULL
    for i in range(u.n_exits):
        if exits[i].stub != NO_STUB and u.code + exits[i].stub == offset:
            return u
    return NULL

cdef inline bint unit_room(const Bt* b) noexcept nogil:
    """Is there room for one more unit of any size?"""
    return b.n_units < MAX_UNITS and b.code_used + 2 * PAGE_SIZE <= BT_CACHE_BYTES and b.pool_used + 4096 <= POOL_BYTES

cdef inline Unit* unit_add(Bt* b, const Ram* ram, const BtUnit* t, gva_t pc, uint64_t eip, uint32_t mode, uint32_t code,
                           const uint8_t* guest, uint64_t gfn, uint64_t gfn2, int flags) noexcept nogil:
    """Enter a translation that lies at `code` of the code area."""
    cdef uint32_t* head
    cdef uint32_t* frame
    cdef Unit* u
    b.n_units += 1
    u = unit_of(b, ram, b.n_units)
    head = head_of(b, ram, pc, mode, b.space)
    if u is NULL or head is NULL:
        b.n_units -= 1
        return NULL
    u.pc = pc
    u.eip = eip
    u.gfn = gfn
    u.gfn2 = gfn2
    u.mode = mode
    u.space = b.space
    u.code = code
    u.code_bytes = t.length
    u.guest_bytes = t.guest_length
    u.n_parts = t.n_parts
    u.n_insns = t.n_insns
    u.n_exits = t.n_exits
    u.flags = <uint8_t>flags
    u.ends_with = t.ends_with
    u.pool = b.pool_used
    u.same_frame = u.same_frame2 = 0
    memcpy(exits_of(b, ram, u), t.exits, t.n_exits * sizeof(BtExit))
    memcpy(parts_of(b, ram, u), t.parts, t.n_parts * sizeof(BtPart))
    memcpy(insns_of(b, ram, u), t.insns, t.n_insns * sizeof(BtInsn))
    memcpy(guest_of(b, ram, u), guest, t.guest_length)
    b.pool_used += (<uint32_t>pool_bytes(u) + 7) & ~<uint32_t>7
    b.code_used = (code + t.length + CODE_LINE - 1) & ~<uint32_t>(CODE_LINE - 1)
    u.next = head[0]
    head[0] = b.n_units
    frame = frame_of(b, ram, gfn)
    if frame is not NULL:
        u.same_frame = frame[0]
        frame[0] = b.n_units
    frame = frame_of(b, ram, gfn2) if gfn2 != gfn else NULL
    if frame is not NULL:
        u.same_frame2 = frame[0]
        frame[0] = b.n_units
    b.count.units += 1
    b.count.insns += t.n_insns
    b.count.guest_bytes += t.guest_length
    b.count.code_bytes += t.length
    return u

cdef inline gva_t unit_last(const Unit* u) noexcept nogil:
    """Linear address of the last byte of its guest code."""
    cdef gva_t last = u.pc + u.guest_bytes - 1
    return last if u.mode & 7 == 4 else last & 0xffffffffULL

cdef inline bint unit_touches(const Unit* u, uint64_t first, uint64_t last, uint64_t gfn) noexcept nogil:
    """Do guest-physical bytes first..last, both in frame `gfn`, hold code of the unit?"""
    cdef uint64_t offset = u.pc & PAGE_MASK, here = min(<uint64_t>u.guest_bytes, PAGE_SIZE - offset)
    if u.gfn == gfn and first <= (gfn << 12) + offset + here - 1 and last >= (gfn << 12) + offset:
        return True
    return u.gfn2 == gfn and u.gfn2 != u.gfn and u.guest_bytes > here and first < (gfn << 12) + (u.guest_bytes - here)
