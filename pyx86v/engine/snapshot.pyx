# SPDX-License-Identifier: GPL-2.0-or-later
"""Between a stopped engine and the sections of a snapshot.

Saved: the worlds, the ledger, what the block model said (cost/heat.pxd), the modelled TLB, the register images, the sinks and all RAM that is not zero (the
guests', the monitors', firmware); with several worlds also how each stands, and the scheduler.  Not saved, because it only caches these: translated code and its records, the
engine's soft TLB, page states, budget and due time.

Why the future is the same without them
1. A machine stops only where a block starts, and RIP is that block's.  Where blocks are cut afterwards follows from
   RIP, mode and code alone; what a block costs does not depend on cuts (price.pxd).
2. The engine's soft TLB is a subset of the modelled first level (invariant 1 of fill.pxd).  Empty is a subset: what
   it held is refilled free, by modelled hits that change nothing (a first level is never LRU).
3. Whether the last block ended in a control transfer decides if an interrupt may be taken now: section "boundary".
4. A block that straddles pages makes its successor look its page up (invariant 3 of blocks.pxd).  With an empty
   soft TLB the successor is looked up anyway.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from pyx86v.arch.types cimport PAGE_SHIFT, PAGE_SIZE
from pyx86v.cost.heat cimport heat_image, heat_load
from pyx86v.cost.ledger cimport Ledger
from pyx86v.cost.predictor cimport Predictor
from pyx86v.devices.sinks cimport Buffer, Sinks, buffer_append
from pyx86v.engine.layout cimport *
from pyx86v.engine.media cimport media_load, media_sections
from pyx86v.engine.sound cimport caches_are_sound, ledger_is_sound, predictor_is_sound, registers_are_sound, schedule_is_sound, standing_is_sound, world_is_sound
from pyx86v.engine.softtlb cimport soft_flush
from pyx86v.engine.state cimport *
from pyx86v.engine.worlds cimport *
from pyx86v.mmu.cache cimport Caches
from pyx86v.mmu.mmu cimport Mmu
from pyx86v.mmu.shadow cimport shadow_bytes
from pyx86v.mmu.shadow_sound cimport shadow_is_sound
from pyx86v.mmu.sound cimport mmu_is_sound

SINKS = ("console", "debug", "report", "input", "keys", "probe")

cdef view(void* data, uint64_t size):
    """The memory itself, not a copy; valid until the machine runs on or is gone."""
    return memoryview(<uint8_t[:size]><uint8_t*>data) if size else b""


cdef bint page_is_zero(const uint64_t* page) noexcept nogil:
    cdef int i
    for i in range(0, <int>PAGE_SIZE // 8, 8):
        if page[i] | page[i + 1] | page[i + 2] | page[i + 3] | page[i + 4] | page[i + 5] | page[i + 6] | page[i + 7]:
            return False
    return True


cdef uint64_t find_pages(Engine* e, uint32_t* frames) noexcept nogil:
    """List the frames of RAM that are not all zero; returns how many."""
    cdef uint64_t frame, n = 0
    for frame in range(e.frames):
        if not page_is_zero(<const uint64_t*>(e.ram.base + (frame << PAGE_SHIFT))):
            frames[n] = <uint32_t>frame
            n += 1
    return n


cdef list ram_sections(Engine* e):
    """The numbers of the pages that are not zero, and the pages, one view for each run of neighbours."""
    cdef uint64_t n, i, first = 0
    cdef uint32_t* frames = <uint32_t*>malloc(e.frames * sizeof(uint32_t))
    if frames is NULL:
        raise MemoryError("snapshot")
    try:
        with nogil:
            n = find_pages(e, frames)
        pages = []
        for i in range(1, n + 1):
            if i == n or frames[i] != frames[i - 1] + 1:
                pages.append(view(e.ram.base + (<uint64_t>frames[first] << PAGE_SHIFT), (i - first) << PAGE_SHIFT))
                first = i
        return [("frames", [(<char*>frames)[:n * sizeof(uint32_t)]]), ("ram", pages)]
    finally:
        free(frames)


cdef bytes register_image(const char* env):
    """The processor's registers as they are the same in every process.

    Left out: the engine's pointers to its breakpoints (they follow from DR0-DR3 and DR7), its scratch registers, and what
    its instructions leave in the padding of x87 registers and above the 16 bytes of XMM registers, at times host addresses.
    """
    cdef char image[ENV_IMAGE_BYTES]
    memcpy(image, env, ENV_IMAGE_BYTES)
    scrub(image)
    return image[:ENV_IMAGE_BYTES]


cdef void scrub(char* image) noexcept:
    cdef int i
    memset(image + ENV_BREAKPOINTS, 0, ENV_OLD_EXCEPTION - ENV_BREAKPOINTS)
    memset(image + ENV_FT0, 0, 16)
    memset(image + ENV_AFTER_XMM, 0, ENV_SYSENTER_CS - ENV_AFTER_XMM)
    for i in range(8):
        memset(image + ENV_FPREGS + 16 * i + 10, 0, 6)
    for i in range(32):
        memset(image + ENV_XMM + 64 * i + 16, 0, 48)


cdef bytes engine_fpu_image(Engine* e):
    """x87 stack top, status, control, tags and registers, MXCSR, XMM0-15: what the processor defines of them.

    The engine's slots are wider than the registers and their rest is whatever was there.
    """
    cdef int i
    parts = [(<char*>e.env + ENV_FPU)[:16]]
    for i in range(8):
        parts.append((<char*>e.env + ENV_FPREGS + 16 * i)[:10])
    parts.append((<char*>e.env + ENV_MXCSR)[:4])
    for i in range(16):
        parts.append((<char*>e.env + ENV_XMM + 64 * i)[:16])
    return b"".join(parts)


cdef list machine_sections(Worlds* w):
    """The structs without pointers that the machine has once, as they are."""
    cdef Engine* e = w.engine
    sections = [("ledger", [view(e.ledger, sizeof(Ledger))]), ("mmu", [view(e.mmu, sizeof(Mmu))])]
    if e.ram.caches is not NULL:
        sections.append(("caches", [view(e.ram.caches, e.ram.caches.bytes)]))
    if e.predictor is not NULL:
        e.predictor.last.pending = e.branch_block is not NULL and e.branch_block is e.current[0]
        sections.append(("predictor", [view(e.predictor, sizeof(Predictor))]))
    if w.plan.count > 1:
        sections.append(("schedule", [view(&w.plan, sizeof(Schedule))]))
    return sections


cdef list world_sections(Worlds* w, uint32_t i, str end):
    """What there is of each world; `end` is the end of the sections' names."""
    cdef Seat* s = &w.seat[i]
    cdef const char* registers = w.engine.env if i == w.plan.front else <const char*>s.standing.image
    sections = [("world" + end, [view(s.world, sizeof(World))]), ("registers" + end, [register_image(registers)]),
                ("boundary" + end, [b"\1" if s.standing.open else b"\0"])]
    if w.plan.count > 1:
        sections.append(("standing" + end, [view(&s.standing, <char*>s.standing.image - <char*>&s.standing)]))
    return sections


cdef list sink_sections(Sinks* s, str end):
    return [("console" + end, [view(s.console.data, s.console.size)]), ("debug" + end, [view(s.debug.data, s.debug.size)]),
            ("report" + end, [view(s.report.data, s.report.size)]), ("input" + end, [view(s.input.data, s.input.size)]),
            ("keys" + end, [view(s.keys.data, s.keys.size)]), ("probe" + end, [view(s.probe.data, s.probe.size)])]


cdef str name_end(uint32_t i):
    """The first world's sections have plain names, the others' a number."""
    return f".{i}" if i else ""


cdef list snapshot_sections(Worlds* w):
    """[(name, [buffer, ...])] of a machine that has stopped.  The buffers are the machine's own memory."""
    cdef Engine* e = w.engine
    cdef Seat* front = &w.seat[w.plan.front]
    cdef uint32_t i
    worlds_book(w)
    front.guest.skipped = e.guest.skipped
    front.standing.open = e.current[0].flags & REC_TRANSFER != 0
    front.standing.left = busy(e)
    sections = machine_sections(w)
    for i in range(w.plan.count):
        w.seat[i].world.skipped = w.seat[i].guest.skipped
        sections += world_sections(w, i, name_end(i)) + sink_sections(&w.seat[i].sinks, name_end(i)) + \
            media_sections(&w.seat[i].sinks, name_end(i))
    if e.heat is not NULL:
        sections.append(("heat", [heat_image(e.heat)]))
    return sections + ram_sections(e)


# The way back ---------------------------------------------------------------------------------

cdef bint load_ram(Engine* e, const uint8_t[::1] frames, const uint8_t[::1] pages) noexcept:
    """Put the pages of a fresh machine, all zero, in place.  False: they cannot be this machine's."""
    cdef uint64_t n = frames.shape[0] // 4, i
    cdef uint32_t frame
    if frames.shape[0] % 4 or <uint64_t>pages.shape[0] != n << PAGE_SHIFT:
        return False
    for i in range(n):
        memcpy(&frame, &frames[4 * i], 4)
        if frame >= e.frames:
            return False
        memcpy(e.ram.base + (<uint64_t>frame << PAGE_SHIFT), &pages[i << PAGE_SHIFT], PAGE_SIZE)
    return True


cdef bint load_sink(Buffer* b, const uint8_t[::1] data) noexcept:
    return data.shape[0] == 0 or buffer_append(b, &data[0], data.shape[0])


cdef str load_bytes(void* to, uint64_t size, str name, dict sections):
    """Copy a section whose size must be right.  None, or what does not fit."""
    cdef const uint8_t[::1] data = sections.get(name, b"")
    if <uint64_t>data.shape[0] != size:
        return f"{name}: {data.shape[0]} bytes, expected {size}: another version of pyx86v wrote it"
    memcpy(to, &data[0], size)
    return None


cdef str cannot_be(str name):
    return f"{name}: a state that this machine cannot be in"


cdef str load_machine(Worlds* w, dict sections):
    """What the machine has once.  None, or what does not fit or cannot be."""
    cdef Engine* e = w.engine
    cdef bytes ledger = bytes(view(e.ledger, sizeof(Ledger))), mmu = bytes(view(e.mmu, sizeof(Mmu)))
    cdef Schedule fresh = w.plan
    cdef uint8_t[::1] own
    cdef Caches caches
    cdef Predictor predictor
    if e.ram.caches is not NULL:
        caches = e.ram.caches[0]
    if e.predictor is not NULL:
        predictor = e.predictor[0]
    for name, buffers in machine_sections(w):
        own = buffers[0]
        problem = load_bytes(<void*>&own[0], own.shape[0], name, sections)
        if problem is not None:
            return problem
    if not schedule_is_sound(&w.plan, &fresh):
        w.plan = fresh                       # the seats that there are
        return cannot_be("schedule")
    if e.ram.caches is not NULL and not caches_are_sound(e.ram.caches, &caches):
        e.ram.caches[0] = caches
        return cannot_be("caches")
    if e.predictor is not NULL and not predictor_is_sound(e.predictor, &predictor):
        return cannot_be("predictor")
    if not ledger_is_sound(e.ledger, <const Ledger*><const char*>ledger):
        return cannot_be("ledger")
    return None if mmu_is_sound(e.mmu, <const Mmu*><const char*>mmu, e.ram.size) else cannot_be("mmu")


cdef str load_world(Worlds* w, uint32_t i, dict sections, str end):
    """What there is of one world, into its seat."""
    cdef Seat* s = &w.seat[i]
    cdef bytes fresh = bytes(view(s.world, sizeof(World)))
    cdef uint8_t boundary = 0
    if w.plan.count > 1:
        problem = load_bytes(&s.standing, <char*>s.standing.image - <char*>&s.standing, "standing" + end, sections)
        if problem is not None:
            return problem
    problem = (load_bytes(s.world, sizeof(World), "world" + end, sections) or
               load_bytes(s.standing.image, ENV_IMAGE_BYTES, "registers" + end, sections) or
               load_bytes(&boundary, 1, "boundary" + end, sections))
    if problem is not None:
        return problem
    if not standing_is_sound(&s.standing):
        return cannot_be("standing" + end)
    if not world_is_sound(s.world, <const World*><const char*>fresh, s.style, &s.guest):
        return cannot_be("world" + end)
    scrub(<char*>s.standing.image)
    if not registers_are_sound(<char*>s.standing.image):
        return cannot_be("registers" + end)
    s.standing.open = boundary != 0
    s.guest.skipped = s.world.skipped
    if not (load_sink(&s.sinks.console, sections["console" + end]) and load_sink(&s.sinks.debug, sections["debug" + end]) and
            load_sink(&s.sinks.report, sections["report" + end]) and load_sink(&s.sinks.input, sections["input" + end]) and
            load_sink(&s.sinks.keys, sections["keys" + end]) and load_sink(&s.sinks.probe, sections["probe" + end])):
        return "console: does not fit in memory"
    return media_load(s, sections, end)


cdef str missing(uint32_t count, dict sections):
    """The first section of no fixed size that is not there, or None."""
    for name in ["frames", "ram"] + [name + name_end(i) for i in range(count) for name in SINKS]:
        if name not in sections:
            return f"{name}: no such section, expected what Machine.save() writes"
    return None


cdef bint shadow_serves(Engine* e, Seat* s) noexcept nogil:
    """May a world's shadow tables be used, which are in memory now?  They end the monitor's memory, which follows the guest's."""
    cdef Vcpu* v = &s.world.vcpu[0]
    cdef uint64_t size = v.paging.window.size
    return not v.shadowing or shadow_is_sound(&s.world.shadow, &e.ram, &v.paging, &v.hardware,
                                              v.paging.window.base + size + s.style.monitor_bytes(size) - shadow_bytes(size))


cdef str snapshot_apply(Worlds* w, dict sections):
    """Make a fresh machine of the same options the saved one.  None, or what does not fit (field: why)."""
    cdef Engine* e = w.engine
    cdef uint32_t i, count = w.plan.count
    world_sit(w)
    problem = missing(count, sections) or load_machine(w, sections)
    if problem is not None:
        return problem
    for i in range(count):
        problem = load_world(w, i, sections, name_end(i))
        if problem is not None:
            return problem
    if e.heat is not NULL and not heat_load(e.heat, sections.get("heat", b"")):
        return cannot_be("heat")
    if not load_ram(e, sections["frames"], sections["ram"]):
        return "ram: pages that this machine does not have"
    for i in range(count):
        if not shadow_serves(e, &w.seat[i]):
            return cannot_be("shadow" + name_end(i))
    if count == 1:
        worlds_book(w)
        w.seat[0].standing.left = busy(e)
    world_stand(w, w.plan.front)
    e.branch_block = e.current[0] if e.predictor is not NULL and e.predictor.last.pending else NULL
    soft_flush(e.cpu)
    return None
