# SPDX-License-Identifier: GPL-2.0-or-later
"""ShadowBench: a guest's memory, a monitor's shadow tables and a modelled MMU under the hands of a test.  Not part of the product's API."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.cost.ledger cimport N_CAUSES, SHADOW, Ledger
from pyx86v.mmu.invalidate cimport mmu_invlpg
from pyx86v.mmu.memory cimport *
from pyx86v.mmu.mmu cimport *
from pyx86v.mmu.shadow cimport *

FIELDS = ("cr0", "cr3", "cr4", "efer", "pcid", "maxphyaddr", "a20_mask")


cdef class ShadowBench:
    """Guest memory of `guest` bytes at machine address `base`, a pool that fits `pool` shadow pages (0: the usual share),
    and `rom` bytes of firmware below 4 GiB.

    access() does what an engine does: look in the first level, translate, let the monitor work on a fault, walk again.
    """
    cdef Mmu* m
    cdef Ram ram
    cdef Ledger ledger
    cdef PagingContext guest
    cdef PagingContext hardware
    cdef Shadow shadow
    cdef Translation out
    cdef readonly uint64_t base, size, rom_base
    cdef readonly int retries

    def __cinit__(self, uint64_t guest=1 << 20, uint64_t base=0, pool=0, uint64_t rom=0, **options):
        cdef uint64_t bytes = shadow_bytes(guest)
        if pool:
            bytes = bytes_for(guest >> 12, pool, bucket_bits_for(pool)) + pool * 4 + 256
        self.m = <Mmu*>calloc(1, sizeof(Mmu))
        self.ram.size = (base + guest + bytes + rom + 8191) & ~<uint64_t>4095
        self.ram.base = <uint8_t*>calloc(self.ram.size, 1)
        if self.m == NULL or self.ram.base == NULL:
            raise MemoryError
        self.base, self.size = base, guest
        memset(&self.guest, 0, sizeof(PagingContext))
        memset(&self.hardware, 0, sizeof(PagingContext))
        self.guest.window.base = base
        self.guest.window.size = guest
        self.guest.window.a20_mask = ~<uint64_t>0
        self.guest.window.rom_size = rom
        self.guest.window.rom_gpa = (<uint64_t>1 << 32) - rom
        self.guest.window.rom_base = self.rom_base = self.ram.size - rom
        self.guest.maxphyaddr = 40
        if shadow_init(&self.shadow, &self.ram, &self.guest.window, base + guest, bytes):
            raise ValueError("shadow_init")

    def __init__(self, uint64_t guest=1 << 20, uint64_t base=0, pool=0, uint64_t rom=0, prices=None, **options):
        """options: fields of ShadowConfig; page1g; entries, walks: sizes of the TLB and of each walk cache."""
        cdef MmuConfig c
        cdef int a
        memset(&c, 0, sizeof(c))
        for a in (ARRAY_I_4K, ARRAY_D_4K, ARRAY_I_2M, ARRAY_D_2M):
            c.array[a].entries = c.array[a].ways = options.get("entries", 16)
        for a in range(<int>ARRAY_PML4E, <int>ARRAY_PDE + 1):
            c.array[a].entries = c.array[a].ways = options.get("walks", 4)
        c.page1g = options.get("page1g", 1)
        if mmu_init(self.m, &c):
            raise ValueError("mmu_init")
        memset(&self.ledger, 0, sizeof(Ledger))
        for price, units in (prices or {}).items():
            self.ledger.price[<int>price] = units
        self.shadow.config.unsync_after = options.get("unsync_after", self.shadow.config.unsync_after)
        self.shadow.config.zap_after = options.get("zap_after", self.shadow.config.zap_after)
        self.shadow.config.most_unsynced = options.get("most_unsynced", self.shadow.config.most_unsynced)
        self.enter()

    def __dealloc__(self):
        free(self.m)
        free(self.ram.base)

    # ------------------------------------------------------------ memory, as somebody outside sees it

    def poke(self, uint64_t gpa, bytes data):
        """Write guest memory without telling anybody: the processor's store after an allowed access, or set-up."""
        assert gpa + len(data) <= self.size
        memcpy(self.ram.base + self.base + gpa, <const char*>data, len(data))

    def peek(self, uint64_t gpa, uint64_t n):
        assert gpa + n <= self.size
        return (<char*>self.ram.base + self.base + gpa)[:n]

    def firmware(self, uint64_t offset, bytes data):
        assert offset + len(data) <= self.guest.window.rom_size
        memcpy(self.ram.base + self.guest.window.rom_base + offset, <const char*>data, len(data))

    # ------------------------------------------------------------ the guest's registers

    def set(self, **fields):
        """Change paging registers without telling the monitor."""
        assert not set(fields) - set(FIELDS) - {"pdpte"}, fields
        self.guest.cr0 = fields.get("cr0", self.guest.cr0)
        self.guest.cr3 = fields.get("cr3", self.guest.cr3)
        self.guest.cr4 = fields.get("cr4", self.guest.cr4)
        self.guest.efer = fields.get("efer", self.guest.efer)
        self.guest.pcid = fields.get("pcid", self.guest.pcid)
        self.guest.maxphyaddr = fields.get("maxphyaddr", self.guest.maxphyaddr)
        self.guest.window.a20_mask = fields.get("a20_mask", self.guest.window.a20_mask)
        for i, value in enumerate(fields.get("pdpte", ())):
            self.guest.pdpte[<int>i] = value
        self.guest.mode = paging_mode(self.guest.cr0, self.guest.cr4, self.guest.efer)

    def enter(self, **fields):
        """MOV to a control register or EFER: change the registers, let the monitor follow."""
        self.set(**fields)
        return shadow_enter(&self.shadow, self.m, &self.ram, &self.ledger, &self.guest, &self.hardware, 1)

    def load_pdptes(self, uint64_t cr3):
        """MOV to CR3 under PAE.  False: #GP, nothing changed."""
        if mmu_load_pdptes(self.m, &self.ram, &self.ledger, &self.guest, cr3, False, &self.out) != XLAT_OK:
            return False
        self.enter(cr3=cr3)
        return True

    def invlpg(self, uint64_t gva):
        return shadow_invlpg(&self.shadow, self.m, &self.ram, &self.ledger, &self.guest, &self.hardware, gva)

    def host_wrote(self, uint64_t gpa, uint64_t n):
        return shadow_host_wrote(&self.shadow, self.m, &self.ram, &self.ledger, &self.guest, &self.hardware, self.base + gpa, n)

    # ------------------------------------------------------------ accesses

    cdef tuple refused(self, uint64_t gva, int size, int access, int privilege):
        """The monitor's answer to a fault of the shadow; None: walk again."""
        cdef ShadowAnswer a
        cdef int status = shadow_fault(&self.shadow, self.m, &self.ram, &self.ledger, &self.guest, &self.hardware, gva, size,
                                       access, privilege, &a)
        if status == SHADOW_RETRY:
            return None
        if status == SHADOW_FAULT:
            return "page-fault", a.pfec
        return ("no-ram", a.gpa) if status == SHADOW_NO_RAM else ("once", a.hpa + (gva & 0xfff))

    def access(self, uint64_t gva, int access=0, int privilege=2, int size=1):
        """("ok", machine address), ("once", machine address), ("page-fault", error code) or ("no-ram", guest-physical address)."""
        cdef const TlbEntry* e = mmu_lookup(self.m, &self.hardware, gva, access, privilege)
        if e != NULL:
            return "ok", entry_hpa(e, gva)
        self.retries = 0
        while mmu_translate(self.m, &self.ram, &self.ledger, &self.hardware, gva, access, privilege, &self.out) != XLAT_OK:
            answer = self.refused(gva, size, access, privilege)
            if answer is not None:
                return answer
            self.retries += 1
            assert self.retries < 3, "the entry that was made does not serve"
        return "ok", self.out.hpa + (gva & 0xfff)

    def time(self, uint64_t gva, int pages, int rounds):
        """Hidden faults: `rounds` times drop all entries of one leaf table and touch `pages` pages; for measuring."""
        cdef int r, p
        cdef ShadowAnswer a
        with nogil:
            for r in range(rounds):
                for p in range(pages):
                    shadow_fault(&self.shadow, self.m, &self.ram, &self.ledger, &self.guest, &self.hardware,
                                 gva + (<uint64_t>p << 12), 1, 0, 2, &a)

    # ------------------------------------------------------------ what is inside

    def counts(self):
        """The shadow's counters by name, and the MMU's references by level."""
        return dict(self.shadow.count) | {"guest_refs": [self.m.count.guest_refs[i] for i in range(5)],
                                          "used": self.shadow.n_used, "pool": self.shadow.n_pages,
                                          "out_of_sync": self.shadow.n_unsynced}

    def charged(self):
        """Units by cause, without the zeros."""
        return {c: self.ledger.by[c] for c in range(<int>N_CAUSES) if self.ledger.by[c]}

    def state(self):
        """The shadow's state as bytes."""
        return (<char*>&self.shadow)[:sizeof(Shadow)] + (<char*>self.ram.base)[:self.ram.size]

    cdef set walk_list(self, Shadower* w, uint32_t head):
        cdef uint32_t slot = head, before = NIL
        slots = set()
        while slot != NIL:
            assert w.link[slot].prev == before and slot not in slots
            slots.add(slot)
            before, slot = slot, w.link[slot].next
        return slots

    def check(self):
        """Assert the invariants: lists and counts agree with the entries, no traced frame is writable anywhere."""
        cdef Shadower w
        cdef uint32_t i, slot
        cdef uint64_t e, gfn
        cdef int k
        w.s = &self.shadow
        w.ram = &self.ram
        assert arrays_find(&w)
        frames, larges, parents, tables = {}, {}, {}, {}
        used = 0
        for i in range(self.shadow.n_pages):
            if w.page[i].kind == KIND_FREE:
                assert not w.page[i].clean or not any([w.table[i << 9 | k] for k in range(512)])
                continue
            used += 1
            live = 0
            assert page_find(&w, w.page[i].kind, w.page[i].level, w.page[i].gfn, w.page[i].quadrant) == i
            if w.page[i].kind == KIND_TABLE and w.page[i].gfn < self.shadow.frames:
                tables[w.page[i].gfn] = tables.get(w.page[i].gfn, 0) + 1
            for k in range(512):
                slot = i << 9 | k
                e = w.table[slot]
                if not e & 1:
                    assert e == 0
                    continue
                live += 1
                gfn = ((e & FRAME_MASK) - self.base) >> 12
                if not maps_page(&w, slot, e):
                    parents.setdefault(((e & FRAME_MASK) - self.shadow.at) >> 12, set()).add(slot)
                elif gfn < self.shadow.frames:
                    (larges if e & 0x80 else frames).setdefault(gfn >> 9 if e & 0x80 else gfn, set()).add(slot)
                    assert not (e & 2 and frame_is_traced(&w, gfn)) or e & 0x80
                else:
                    assert self.guest.window.rom_size and not e & 2
            assert live == w.page[i].live
        assert used == self.shadow.n_used
        for i in range(self.shadow.n_pages):
            if w.page[i].kind != KIND_FREE:
                assert self.walk_list(&w, w.page[i].parents) == parents.pop(i, set())
        assert not parents, "an entry points to a free page"
        for gfn in range(self.shadow.frames):
            assert self.walk_list(&w, w.frame[gfn].maps) == frames.get(gfn, set())
            assert w.frame[gfn].tables == tables.get(gfn, 0)
        for gfn in range(larges_of(self.shadow.frames)):
            assert self.walk_list(&w, w.large[gfn].maps) == larges.get(gfn, set())
            assert w.large[gfn].tables == sum([1 for f in tables if f >> 9 == gfn])
            assert not (w.large[gfn].tables and w.large[gfn].maps != NIL)
        self.check_tlb(&w)

    cdef check_tlb(self, Shadower* w):
        """Invariant 3: no writable translation of a traced frame."""
        cdef Tlb* t = &self.m.tlb
        cdef int i
        cdef uint64_t gfn
        for i in range(<int>TLB_POOL):
            if t.key[i] and t.entry[i].array < N_TLB_ARRAYS and t.entry[i].flags & TLB_W:
                gfn = t.entry[i].pfn - (self.base >> 12)
                for gfn in range(gfn, gfn + (1 << (t.entry[i].shift - 12))):
                    assert not frame_is_traced(w, gfn), hex(gfn)
