# SPDX-License-Identifier: GPL-2.0-or-later
"""MmuBench: RAM, a modelled MMU, a context and a ledger under the hands of a test.  Not part of the product's API."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.cost.ledger cimport MAX_PRICES, N_CAUSES, Ledger
from pyx86v.mmu.cache cimport Caches, cache_access
from pyx86v.mmu.invalidate cimport *
from pyx86v.mmu.memory cimport *
from pyx86v.mmu.mmu cimport *

ARRAYS = ("I_4K", "I_2M", "I_1G", "D_4K", "D_2M", "D_1G", "L2", "L2_2M", "L2_1G", "L2_CODE", "PML4E", "PDPTE", "PDE", "NESTED")
POLICIES = ("fifo", "round-robin", "random", "lru")
STATUS = ("ok", "page-fault", "no-ram", "ept-violation", "ept-misconfig", "gp")
FLUSHES = ("cr3", "invlpg", "invpcid", "mode", "asid", "all", "invept", "invvpid", "fault")
FIELDS = ("cr0", "cr3", "cr4", "efer", "eptp", "asid", "pcid", "maxphyaddr", "window_base", "window_size", "a20_mask",
          "rom_gpa", "rom_size", "rom_base", "pdpte", "nested_kind", "nested_nxe")


cdef class MmuBench:
    """One MMU with `ram` bytes of machine memory.

    config   {array name of ARRAYS: (entries, ways, policy of POLICIES), option of MmuConfig: value}
    prices   {number of Price: units}
    """
    cdef Mmu* m
    cdef Ram ram
    cdef Ledger ledger
    cdef PagingContext ctx
    cdef Translation out

    def __cinit__(self, uint64_t ram=1 << 20, config=None, prices=None):
        self.m = <Mmu*>calloc(1, sizeof(Mmu))
        self.ram.base = <uint8_t*>calloc(ram, 1)
        self.ram.size = ram
        if self.m == NULL or self.ram.base == NULL:
            raise MemoryError

    def __init__(self, uint64_t ram=1 << 20, config=None, prices=None):
        cdef MmuConfig c
        memset(&c, 0, sizeof(c))
        options = {"D_4K": (64, 4, "fifo"), "I_4K": (64, 4, "fifo")} | (config or {})
        for name, (entries, ways, policy) in ((n, v) for n, v in options.items() if n in ARRAYS):
            c.array[<int>ARRAYS.index(name)].entries = entries
            c.array[<int>ARRAYS.index(name)].ways = ways
            c.array[<int>ARRAYS.index(name)].policy = POLICIES.index(policy)
        c.seed = options.get("seed", 0)
        c.large_whole = options.get("large_whole", 0)
        c.l2_2m = options.get("l2_2m", 0)
        c.l2_split = options.get("l2_split", 0)
        c.l2_code_2m = options.get("l2_code_2m", 0)
        c.page1g = options.get("page1g", 1)
        c.ept_1g = options.get("ept_1g", 1)
        c.ept_exec_only = options.get("ept_exec_only", 0)
        status = mmu_init(self.m, &c)
        if status:
            raise ValueError(f"mmu_init: {status}")
        memset(&self.ledger, 0, sizeof(Ledger))
        for price, units in (prices or {}).items():
            self.ledger.price[<int>price] = units
        memset(&self.ctx, 0, sizeof(PagingContext))
        self.set(maxphyaddr=40, window_size=self.ram.size, a20_mask=(1 << 64) - 1)

    def __dealloc__(self):
        free(self.m)
        free(self.ram.base)

    def set(self, **fields):
        """Change the context; the paging mode follows."""
        assert not set(fields) - set(FIELDS), fields
        self.ctx.cr0 = fields.get("cr0", self.ctx.cr0)
        self.ctx.cr3 = fields.get("cr3", self.ctx.cr3)
        self.ctx.cr4 = fields.get("cr4", self.ctx.cr4)
        self.ctx.efer = fields.get("efer", self.ctx.efer)
        self.ctx.eptp = fields.get("eptp", self.ctx.eptp)
        self.ctx.asid = fields.get("asid", self.ctx.asid)
        self.ctx.pcid = fields.get("pcid", self.ctx.pcid)
        self.ctx.maxphyaddr = fields.get("maxphyaddr", self.ctx.maxphyaddr)
        self.ctx.window.base = fields.get("window_base", self.ctx.window.base)
        self.ctx.window.size = fields.get("window_size", self.ctx.window.size)
        self.ctx.window.a20_mask = fields.get("a20_mask", self.ctx.window.a20_mask)
        self.ctx.window.rom_gpa = fields.get("rom_gpa", self.ctx.window.rom_gpa)
        self.ctx.window.rom_size = fields.get("rom_size", self.ctx.window.rom_size)
        self.ctx.window.rom_base = fields.get("rom_base", self.ctx.window.rom_base)
        self.ctx.nested_kind = fields.get("nested_kind", self.ctx.nested_kind)
        self.ctx.nested_nxe = fields.get("nested_nxe", self.ctx.nested_nxe)
        for i, value in enumerate(fields.get("pdpte", ())):
            self.ctx.pdpte[<int>i] = value
        self.ctx.mode = paging_mode(self.ctx.cr0, self.ctx.cr4, self.ctx.efer)

    def write(self, uint64_t at, bytes data):
        assert ram_write_bytes(&self.ram, at, <const char*>data, len(data))

    def read(self, uint64_t at, uint64_t n):
        data = bytes(n)
        assert ram_read_bytes(&self.ram, at, <char*>data, n)
        return data

    def load(self, uint64_t at, int width):
        """(inside RAM?, value) of 8 to 64 bits."""
        cdef uint8_t b = 0
        cdef uint16_t h = 0
        cdef uint32_t w = 0
        cdef uint64_t q = 0
        if width == 8:
            return bool(ram_read8(&self.ram, at, &b)), b
        if width == 16:
            return bool(ram_read16(&self.ram, at, &h)), h
        if width == 32:
            return bool(ram_read32(&self.ram, at, &w)), w
        return bool(ram_read64(&self.ram, at, &q)), q

    def store(self, uint64_t at, int width, uint64_t value):
        """Inside RAM?"""
        if width == 8:
            return bool(ram_write8(&self.ram, at, <uint8_t>value))
        if width == 16:
            return bool(ram_write16(&self.ram, at, <uint16_t>value))
        if width == 32:
            return bool(ram_write32(&self.ram, at, <uint32_t>value))
        return bool(ram_write64(&self.ram, at, value))

    # ------------------------------------------------------------ translation

    cdef dict answer(self, int status):
        cdef Translation* o = &self.out
        evicted = [{"gva": o.evicted[i].gva, "asid": o.evicted[i].asid, "pcid": o.evicted[i].pcid,
                    "shift": o.evicted[i].shift, "side": o.evicted[i].side} for i in range(<int>o.n_evicted)]
        return {"status": STATUS[status], "hpa": o.hpa, "gpa": o.gpa, "qualification": o.qualification,
                "pfec": o.pfec, "prot": o.prot, "shift": o.shift, "source": o.source, "drop": o.drop,
                "evicted": evicted}

    def translate(self, uint64_t gva, int access=0, int privilege=2):
        memset(&self.out, 0, sizeof(Translation))
        return self.answer(mmu_translate(self.m, &self.ram, &self.ledger, &self.ctx, gva, access, privilege, &self.out))

    def translate_absent(self, uint64_t gva, int access=0, int privilege=2):
        return self.answer(mmu_translate_absent(self.m, &self.ram, &self.ledger, &self.ctx, gva, access, privilege, &self.out))

    def quiet(self, uint64_t gva, int access=0, int privilege=2, bint absent=False):
        memset(&self.out, 0, sizeof(Translation))
        return self.answer(mmu_translate_quiet(self.m, &self.ram, &self.ctx, gva, access, privilege, absent, &self.out))

    def lookup(self, uint64_t gva, int access=0, int privilege=2):
        """(hpa, gpa, shift, prot), or None."""
        cdef const TlbEntry* e = mmu_lookup(self.m, &self.ctx, gva, access, privilege)
        if e == NULL:
            return None
        return entry_hpa(e, gva), entry_gpa(e, gva), e.shift, entry_prot(e, &self.ctx, privilege)

    def touch(self, gvas, int access=0, int privilege=2):
        """Translate every address that mmu_lookup does not have, as the engine would; the number of such."""
        cdef uint64_t gva
        cdef int n = 0
        for gva in gvas:
            if mmu_lookup(self.m, &self.ctx, gva, access, privilege) == NULL:
                mmu_translate(self.m, &self.ram, &self.ledger, &self.ctx, gva, access, privilege, &self.out)
                n += 1
        return n

    def sweep(self, uint64_t gva, list entries, int width, list states):
        """For each state (a value for each entry address) and each access and privilege, with cold caches:
        [(status, pfec, gpa, qualification, prot, entries after)], states outermost, privilege innermost."""
        cdef int access, privilege, status, i, n = len(entries)
        cdef uint64_t at[16]
        cdef uint64_t value[16]
        result = []
        for i in range(n):
            at[i] = entries[i]
        for state in states:
            for i in range(n):
                value[i] = state[i]
            for access in range(3):
                for privilege in range(3):
                    for i in range(n):
                        memcpy(self.ram.base + at[i], &value[i], width)
                    flush_every_space(self.m, True, True)
                    memset(&self.out, 0, sizeof(Translation))
                    status = mmu_translate(self.m, &self.ram, &self.ledger, &self.ctx, gva, access, privilege, &self.out)
                    after = tuple([int.from_bytes((<char*>self.ram.base + at[i])[:width], "little") for i in range(n)])
                    result.append((status, self.out.pfec, self.out.gpa, self.out.qualification, self.out.prot, after))
        return result

    def load_pdptes(self, uint64_t cr3, bint absent=False):
        memset(&self.out, 0, sizeof(Translation))
        status = mmu_load_pdptes(self.m, &self.ram, &self.ledger, &self.ctx, cr3, absent, &self.out)
        return self.answer(status) | {"pdpte": [self.ctx.pdpte[i] for i in range(4)]}

    # ------------------------------------------------------------ invalidation

    def mov_cr3(self, uint64_t cr3, bint pcide=False, bint noflush=False):
        self.ctx.cr3 = cr3
        self.ctx.pcid = cr3 & 0xfff if pcide else 0
        return mmu_mov_cr3(self.m, self.ctx.asid, self.ctx.pcid, pcide, noflush)

    def invlpg(self, uint64_t gva):
        return mmu_invlpg(self.m, self.ctx.asid, self.ctx.pcid, gva)

    def invpcid(self, int type, int pcid=0, uint64_t gva=0):
        return mmu_invpcid(self.m, self.ctx.asid, type, pcid, gva)

    def mode_change(self, **fields):
        """MOV to CR0 or CR4: change the context and drop what that drops."""
        old_cr0, old_cr4 = self.ctx.cr0, self.ctx.cr4
        self.set(**fields)
        return mmu_mode_change(self.m, self.ctx.asid, self.ctx.pcid, self.ctx.cr0, self.ctx.cr4, old_cr0, old_cr4)

    def flush_asid(self, int asid):
        return mmu_flush_asid(self.m, asid)

    def flush_all(self):
        return mmu_flush_all(self.m)

    def invept(self, int type, uint64_t eptp=0):
        return mmu_invept(self.m, type, eptp)

    def invvpid(self, int type, int asid=0, uint64_t gva=0):
        return mmu_invvpid(self.m, type, asid, gva)

    # ------------------------------------------------------------ counts

    def counts(self):
        """All counters by name; `fills`, `evictions`, `hits` and `live` by array."""
        cdef MmuCounters* c = &self.m.count
        return {
            "l1i_misses": c.l1_misses[0], "l1d_misses": c.l1_misses[1], "l2_hits": c.l2_hits,
            "walks_i": c.walks[0], "walks_d": c.walks[1], "rewalks": c.rewalks, "page_faults": c.page_faults,
            "ept_violations": c.ept_violations, "ept_misconfigs": c.ept_misconfigs, "no_ram": c.no_ram,
            "guest_refs": [c.guest_refs[i] for i in range(5)],
            "table_refs": [c.nested_refs[0][i] for i in range(5)],
            "page_refs": [c.nested_refs[1][i] for i in range(5)],
            "table_writes": c.table_writes, "nested_writes": c.nested_writes, "pdpte_loads": c.pdpte_loads,
            "flushes": {name: c.flushes[i] for i, name in enumerate(FLUSHES)}, "entries_flushed": c.entries_flushed,
            "fills": {name: self.m.tlb.array[<int>i].fills for i, name in enumerate(ARRAYS)},
            "evictions": {name: self.m.tlb.array[<int>i].evictions for i, name in enumerate(ARRAYS)},
            "hits": {name: self.m.tlb.array[<int>i].hits for i, name in enumerate(ARRAYS)},
            "live": {name: sum([self.m.tlb.array[<int>i].live[j] for j in range(4)]) for i, name in enumerate(ARRAYS)},
        }

    def ledger_units(self):
        """(total, [units by cause])"""
        return self.ledger.total, [self.ledger.by[i] for i in range(<int>N_CAUSES)]

    def check(self):
        """Assert the structure's invariants: lists, counts and rings agree with the keys."""
        cdef Tlb* t = &self.m.tlb
        cdef int i, a, base, way, seen
        listed = 0
        for i in range(t.n_tags):
            count = 0
            for part in range(2):
                index = t.tag[i].head[<int>part]
                while index != TLB_NIL:
                    assert t.key[<int>index] and t.entry[<int>index].tag == i
                    count += 1
                    index = t.tag_next[<int>index]
            pins = t.has_current * ((t.local == i) + (t.shared == i) + (t.nested == i))
            assert t.tag[i].live == count + pins, (i, t.tag[i].live, count, pins)
            listed += count
        assert listed == sum([1 for i in range(<int>TLB_POOL) if t.key[i]])
        assert listed == sum([t.array[a].live[i] for a in range(<int>N_ARRAYS) for i in range(4)])
        parts = 0
        for i in range(<int>TLB_POOL):
            parts += t.key[i] != 0 and t.entry[i].guest_shift > t.entry[i].shift
        assert parts == sum([t.fractured[i] for i in range(1024)])
        for a in range(<int>N_ARRAYS):
            for base in range(t.array[a].base, t.array[a].base + t.array[a].entries, max(1, t.array[a].ways)):
                self.check_ring(a, base)

    cdef check_ring(self, int a, int base):
        """Every way once; free ways first unless round-robin."""
        cdef Tlb* t = &self.m.tlb
        cdef int way = t.ring_first[base], i
        order = []
        for i in range(t.array[a].ways):
            assert t.ring_prev[base + t.ring_next[base + way]] == way
            order.append(way)
            way = t.ring_next[base + way]
        assert sorted(order) == list(range(t.array[a].ways))
        live = [t.key[base + <int>w] != 0 for w in order]
        assert t.array[a].policy == POLICY_ROUND_ROBIN or live == sorted(live), (a, live)

    def state(self):
        """All of the MMU as bytes."""
        return (<char*>self.m)[:sizeof(Mmu)]

    def time(self, str what, uint64_t gva, uint64_t step, int pages, int rounds):
        """Run `what` ("lookup", "translate", "cr3") over `pages` addresses, `rounds` times; for benchmarks."""
        cdef int r, p, kind = ("lookup", "translate", "cr3").index(what)
        cdef uint64_t n = 0
        with nogil:
            for r in range(rounds):
                for p in range(pages):
                    if kind == 0:
                        n += mmu_lookup(self.m, &self.ctx, gva + p * step, 0, 2) != NULL
                    elif kind == 1:
                        mmu_translate(self.m, &self.ram, &self.ledger, &self.ctx, gva + p * step, 0, 2, &self.out)
                    else:
                        mmu_mov_cr3(self.m, self.ctx.asid, 0, False, False)
        return n


cdef class FakeCaches:
    """Data caches of [(bytes, ways)], for tests."""
    cdef Caches* c

    def __cinit__(self, geometry):
        lines = sum(size // 64 for size, ways in geometry)
        self.c = <Caches*>calloc(1, sizeof(Caches) + lines * sizeof(uint32_t))
        first = 0
        for i, (size, ways) in enumerate(geometry):
            self.c.level[<int>i].sets, self.c.level[<int>i].ways, self.c.level[<int>i].first = size // 64 // ways, ways, first
            first += size // 64

    def __dealloc__(self):
        free(self.c)

    def access(self, uint64_t at):
        """Level that had it, 3: none."""
        return cache_access(self.c, at)
