# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's parts before it runs: what a profile says put where the engine reads it, machine RAM, the engine's tables."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.arch.types cimport PAGE_SHIFT, PAGE_SIZE
from pyx86v.cost.block cimport InsnMark, decoder_free, decoder_new
from pyx86v.cost.heat cimport heat_free, heat_new
from pyx86v.cost.predictor cimport Predictor
from pyx86v.engine.lookup cimport SHORTCUTS, Shortcut
from pyx86v.engine.state cimport *
from pyx86v.mmu.cache cimport LINE_SHIFT, Caches
from pyx86v.mmu.mmu cimport MmuConfig, mmu_init
from pyx86v.mmu.tlb cimport *
from pyx86v.vmm.bt.cache cimport bt_bytes
from pyx86v.vmm.guest cimport ClockPolicy

from pyx86v.cost.model.profile import load_model

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    enum:
        MADV_HUGEPAGE
        MADV_NOHUGEPAGE
        PROT_READ
        PROT_WRITE
        MAP_PRIVATE
        MAP_ANONYMOUS
        MAP_NORESERVE

cdef enum:
    ROM_BYTES = 16 << 20
    LARGE_PAGE = 2 << 20
    N_PROFILE_PRICES = 256

cdef extern from *:
    """
    #define PYX_ANY_ADDRESS 0xffffffffffffffffULL
    """
    const uint64_t ANY_ADDRESS "PYX_ANY_ADDRESS"

_ARRAYS = {("code", "4K"): ARRAY_I_4K, ("code", "2M"): ARRAY_I_2M, ("code", "1G"): ARRAY_I_1G,
           ("data", "4K"): ARRAY_D_4K, ("data", "2M"): ARRAY_D_2M, ("data", "1G"): ARRAY_D_1G}
_POLICIES = {"fifo": POLICY_FIFO, "round-robin": POLICY_ROUND_ROBIN, "random": POLICY_RANDOM, "lru": POLICY_LRU}

# Profile ---------------------------------------------------------------------------------------

cdef uint32_t signature(dict cpuid) except? 0:
    """CPUID.1:EAX from family, model, stepping (SDM 2A CPUID)."""
    family, model = cpuid["family"], cpuid["model"]
    base, extended = (family, 0) if family < 15 else (15, family - 15)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | cpuid["stepping"]


cdef list first_level_arrays(MmuConfig* config, object t):
    """The MMU's arrays that a profile's first-level TLB stands for.  One for 4K pages takes the larger ones whole."""
    if "4K" in t.pages and len(t.pages) > 1:
        config.large_whole = 1
    sizes = ("4K",) if "4K" in t.pages else t.pages
    return [_ARRAYS[side, size] for side in (("code", "data") if t.side == "both" else (t.side,)) for size in sizes]


cdef list second_level_arrays(MmuConfig* config, object t):
    """The same of the second level: shared by both sides, or of data, and then code has its own or none."""
    config.l2_split |= t.side != "both"
    if t.side == "code":
        config.l2_code_2m = "2M" in t.pages
        return [ARRAY_L2_CODE] if "4K" in t.pages else []
    config.l2_2m |= "4K" in t.pages and "2M" in t.pages
    return [{"4K": ARRAY_L2, "2M": ARRAY_L2_2M, "1G": ARRAY_L2_1G}[size] for size in t.pages
            if size != "2M" or "4K" not in t.pages]


cdef int mmu_config(MmuConfig* config, object p, uint64_t seed) except -1:
    """The profile's TLB geometry as the MMU takes it."""
    memset(config, 0, sizeof(MmuConfig))
    config.seed = seed
    config.page1g = p.features["pages_1g"]
    config.ept_1g = 1
    for t in p.tlbs:
        for index in (second_level_arrays(config, t) if t.level == 2 else first_level_arrays(config, t)):
            config.array[<int>index].entries = t.entries
            config.array[<int>index].ways = 0 if t.ways >= t.entries else t.ways
            config.array[<int>index].policy = _POLICIES[t.replacement]
    for name, index in (("pml4e", ARRAY_PML4E), ("pdpte", ARRAY_PDPTE), ("pde", ARRAY_PDE)):
        config.array[<int>index].entries = p.walk_cache[name]
        config.array[<int>index].policy = POLICY_LRU
    config.array[<int>ARRAY_NESTED].entries = p.nested_tlb
    config.array[<int>ARRAY_NESTED].policy = POLICY_LRU
    return 0


cdef int configure_profile(Engine* e, object p, uint64_t seed) except -1:
    """Prices into the ledger, geometry into the MMU, identity and clock rate into the guest.

    The caller sets e.ledger and e.mmu, and cpu_vendor and cpu_brand, whose text must outlive the machine.
    Raises ValueError for a geometry that cannot be.
    """
    cdef MmuConfig config
    cdef int i, status
    for i, units in enumerate(p.prices):
        e.ledger.price[i] = units
    mmu_config(&config, p, seed)
    status = mmu_init(e.mmu, &config)
    if status:
        raise ValueError(f"profile: {p.name}: TLB array {-status - 1} has a geometry that cannot be, "
                         "expected sets (entries / ways) a power of two")
    e.guest.frequency_hz = p.frequency_hz
    e.guest.cpu_signature = signature(p.cpuid)
    e.guest.cpu_maxphyaddr = p.maxphyaddr
    e.guest.cpu_pcid = p.features["pcid"]
    e.guest.cpu_invpcid = p.features["invpcid"]
    e.guest.cpu_vpid = p.features["tagged_tlb"]
    return 0

cdef int configure_clocks(Engine* e, object tsc, object timers) except -1:
    """What the guests' clocks show of machine time (clocks.Policy)."""
    e.guest.tsc = ClockPolicy(tsc.numerator, tsc.denominator, tsc.hidden)
    e.guest.timers = ClockPolicy(timers.numerator, timers.denominator, timers.hidden)
    return 0

cdef int configure_caches(Engine* e, object p, int mode) except -1:
    """The profile's data caches, in a CacheMode that is not off.  ValueError when it has none."""
    cdef uint64_t lines = 0
    cdef Caches header
    cdef int i
    if not p.cache:
        raise ValueError(f"caches: the profile {p.name} has none, expected off")
    memset(&header, 0, sizeof(Caches))
    for i, name in enumerate(("l1", "l2", "l3")):
        size, ways = p.cache.get(name, (0, 0))
        header.level[i].sets = size // (ways << LINE_SHIFT) if ways else 0
        header.level[i].ways = ways
        header.level[i].first = <uint32_t>lines
        lines += size >> LINE_SHIFT
    header.mode = mode
    header.bytes = sizeof(Caches) + lines * sizeof(uint32_t)
    e.ram.caches = <Caches*>calloc(header.bytes, 1)
    if e.ram.caches is NULL:
        raise MemoryError("caches")
    e.ram.caches[0] = header
    return 0


cdef int configure_predictor(Engine* e, object p) except -1:
    """The profile's branch predictor.  ValueError when it has none."""
    if not p.predictor:
        raise ValueError(f"branches: the profile {p.name} has no predictor, expected off")
    e.predictor = <Predictor*>calloc(1, sizeof(Predictor))
    if e.predictor is NULL:
        raise MemoryError("predictor")
    e.predictor.counters, e.predictor.targets, e.predictor.returns = (p.predictor[name] for name in ("counters", "targets", "returns"))
    memset(e.predictor.counter, 1, sizeof(e.predictor.counter))
    return 0

# Memory ----------------------------------------------------------------------------------------

cdef uint64_t place_world(Engine* e, World* w, uint64_t at, uint64_t guest_bytes, uint64_t monitor_bytes) noexcept:
    """Machine RAM of one world, from `at` on: the guest, the monitor's memory, firmware.  Returns where it ends.

    Worlds begin at 2 MiB boundaries, so that each may have large pages where the first one has them.
    """
    at = (at + LARGE_PAGE - 1) & ~<uint64_t>(LARGE_PAGE - 1)
    w.vcpu_count = 1
    w.window.base = at
    w.window.size = guest_bytes
    w.window.a20_mask = ANY_ADDRESS
    w.window.rom_base = at + guest_bytes + monitor_bytes
    w.vcpu[0].paging.window = w.window
    w.vcpu[0].paging.maxphyaddr = <uint8_t>e.guest.cpu_maxphyaddr
    return w.window.rom_base + ROM_BYTES


cdef int allocate_ram(Engine* e, uint64_t at) except -1:
    """Machine RAM: `at` bytes of worlds.  Behind it, out of any guest's reach (also of one with an EPT from a file): one page of
    all ones twice, which is the MSR bitmap that makes every access exit, and the engine's "VMCB".

    Raises MemoryError when that much address space is not to be had.
    """
    cdef void* base = mmap(NULL, at + SPARE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == <void*>-1:
        raise MemoryError(f"memory: {at} bytes are not available")
    madvise(base, at + SPARE_BYTES, MADV_HUGEPAGE)       # the host's own TLB misses would be half of a modelled one's time
    e.ram.base = <uint8_t*>base
    e.ram.size = at
    e.void_page = at
    memset(e.ram.base + at, 0xff, 2 * PAGE_SIZE)
    e.vmcb_page = at + 2 * PAGE_SIZE
    (<uint64_t*>(e.ram.base + e.vmcb_page + 0x48))[0] = at       # MSRPM_BASE_PA (APM 2 table B-1): every MSR exits
    return 0


cdef void small_pages(Engine* e, const World* w) noexcept:
    """The arrays of a translation cache fill up from their beginnings: a small guest would wait for the clearing of large pages."""
    cdef uint64_t size = w.window.size
    madvise(e.ram.base + w.window.base + size, bt_bytes(size), MADV_NOHUGEPAGE)


cdef int add_rom(Engine* e, uint64_t gpa, bytes data) except -1:
    """Firmware at `gpa`.  ValueError when it is too large."""
    cdef const uint8_t* p = data
    if len(data) > ROM_BYTES:
        raise ValueError(f"firmware: {len(data)} bytes, expected at most {ROM_BYTES}")
    memcpy(e.ram.base + e.world.window.rom_base, p, len(data))
    e.world.window.rom_gpa = gpa
    e.world.window.rom_size = len(data)
    e.vcpu.paging.window = e.world.window
    return 0


cdef int allocate_tables(Engine* e, object profile) except -1:
    """Block records, page states, the block decoder with its prices (units by instruction class), and the block model."""
    cdef uint32_t units[N_PROFILE_PRICES]
    memset(units, 0, sizeof(units))
    for i, price in enumerate(profile.instructions):
        units[i] = price
    e.decoder = decoder_new(units)
    e.frames = e.ram.size >> PAGE_SHIFT
    e.record_memory = calloc(MAX_RECORDS + 1, sizeof(BlockRecord))
    e.records = <BlockRecord*>((<uintptr_t>e.record_memory + sizeof(BlockRecord) - 1) & ~<uintptr_t>(sizeof(BlockRecord) - 1))
    e.marks = <InsnMark*>calloc(MAX_MARKS, sizeof(InsnMark))
    e.pieces = <Piece*>calloc(MAX_PIECES, sizeof(Piece))
    e.hash = <BlockRecord**>calloc(RECORD_HASH, sizeof(BlockRecord*))
    e.page_state = <uint8_t*>calloc(e.frames, 1)
    e.page_flips = <uint8_t*>calloc(e.frames, 1)
    e.write_map = <uint64_t*>calloc(e.frames, 8)
    if e.decoder is NULL or e.record_memory is NULL or e.marks is NULL or e.pieces is NULL or e.hash is NULL or e.page_state is NULL or \
            e.page_flips is NULL or e.write_map is NULL:
        raise MemoryError("engine tables")
    e.shortcuts = calloc(SHORTCUTS, sizeof(Shortcut))
    if e.shortcuts is NULL:
        raise MemoryError("engine tables")
    if profile.block_model:
        e.heat = heat_new(load_model(profile.block_model), profile.block_model_after)
    return 0


cdef void free_engine(Engine* e) noexcept:
    """Everything that was allocated here, and the Engine."""
    free(e.record_memory)
    free(e.shortcuts)
    free(e.marks)
    free(e.pieces)
    free(e.hash)
    free(e.page_state)
    free(e.page_flips)
    free(e.write_map)
    heat_free(e.heat)
    free(e.ram.caches)
    free(e.predictor)
    if e.decoder is not NULL:
        decoder_free(e.decoder)
    if e.ram.base is not NULL:
        munmap(e.ram.base, e.ram.size + SPARE_BYTES)
    free(e)
