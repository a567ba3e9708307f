# SPDX-License-Identifier: GPL-2.0-or-later
"""Between a stopped engine and the sections of a snapshot.

Saved: the world, the ledger, the modelled TLB, the register image, the sinks and all RAM that is not zero (the
guest's, the monitor's, firmware).  Not saved, because it only caches these: translated code and its records, the
engine's soft TLB, page states, budget and due time.

Why the future is the same without them
1. A machine stops only where a block starts, and RIP is that block's.  Where blocks are cut afterwards follows from
   RIP, mode and code alone; costs are sums over instructions, so cuts do not matter to the ledger.
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
from pyx86v.cost.ledger cimport Ledger
from pyx86v.devices.sinks cimport Buffer, Sinks, buffer_append
from pyx86v.engine.intercept cimport intercepts_on
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *
from pyx86v.mmu.mmu cimport Mmu

cdef enum:
    DR7_ENABLES = 0xff           # L0 G0 ... L3 G3 (SDM 3B 17.2.4)
    DR7_RESET = 0x400

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


cdef bytes register_image(Engine* e):
    """The processor's registers as they are the same in every process.

    Left out: the engine's pointers to its breakpoints (they follow from DR0-DR3 and DR7), its scratch registers, and what
    its instructions leave in the padding of x87 registers and above the 16 bytes of XMM registers, at times host addresses.
    """
    cdef char image[ENV_IMAGE_BYTES]
    cdef int i
    memcpy(image, e.env, ENV_IMAGE_BYTES)
    memset(image + ENV_BREAKPOINTS, 0, ENV_OLD_EXCEPTION - ENV_BREAKPOINTS)
    memset(image + ENV_FT0, 0, 16)
    memset(image + ENV_AFTER_XMM, 0, ENV_SYSENTER_CS - ENV_AFTER_XMM)
    for i in range(8):
        memset(image + ENV_FPREGS + 16 * i + 10, 0, 6)
    for i in range(32):
        memset(image + ENV_XMM + 64 * i + 16, 0, 48)
    return image[:ENV_IMAGE_BYTES]


cdef list fixed_sections(Engine* e):
    """The structs without pointers, as they are."""
    return [("world", [view(e.world, sizeof(World))]), ("ledger", [view(e.ledger, sizeof(Ledger))]),
            ("mmu", [view(e.mmu, sizeof(Mmu))])]


cdef list sink_sections(Sinks* s):
    return [("console", [view(s.console.data, s.console.size)]), ("debug", [view(s.debug.data, s.debug.size)]),
            ("report", [view(s.report.data, s.report.size)]), ("input", [view(s.input.data, s.input.size)])]


cdef list snapshot_sections(Engine* e, Sinks* sinks):
    """[(name, [buffer, ...])] of a machine that has stopped.  The buffers are the machine's own memory."""
    e.world.skipped = e.guest.skipped
    boundary = b"\1" if e.current[0].flags & REC_TRANSFER else b"\0"
    return (fixed_sections(e) + [("registers", [register_image(e)]), ("boundary", [boundary])] + sink_sections(sinks) +
            ram_sections(e))


# The way back ---------------------------------------------------------------------------------

cdef void load_registers(Engine* e, const uint8_t* image) noexcept:
    """Take a register image over, and set up again what the engine derives from it."""
    cdef uint64_t dr7
    memcpy(e.env, image, ENV_IMAGE_BYTES)
    dr7 = env_u64(e.env, ENV_DR + 56)[0]
    if dr7 & DR7_ENABLES:
        env_u64(e.env, ENV_DR + 56)[0] = DR7_RESET
        cpu_x86_update_dr7_x86_64(e.env, <uint32_t>dr7)
        env_u64(e.env, ENV_DR + 56)[0] = dr7
    intercepts_on(e)
    tlb_flush_x86_64(e.cpu)


cdef bint load_ram(Engine* e, const uint8_t[::1] frames, const uint8_t[::1] pages) noexcept:
    """Put the pages of a fresh machine, all zero, in place.  False: they cannot be this machine's."""
    cdef uint64_t n = frames.shape[0] // 4, i
    cdef uint32_t frame
    if frames.shape[0] % 4 or <uint64_t>pages.shape[0] != n << PAGE_SHIFT:
        return False
    memset(e.ram.base + e.void_page, 0, e.ram.size - e.void_page)    # what _core put there itself
    for i in range(n):
        memcpy(&frame, &frames[4 * i], 4)
        if frame >= e.frames:
            return False
        memcpy(e.ram.base + (<uint64_t>frame << PAGE_SHIFT), &pages[i << PAGE_SHIFT], PAGE_SIZE)
    return True


cdef bint load_sink(Buffer* b, const uint8_t[::1] data) noexcept:
    return data.shape[0] == 0 or buffer_append(b, &data[0], data.shape[0])


cdef str snapshot_apply(Engine* e, Sinks* sinks, dict sections):
    """Make a fresh machine of the same options the saved one.  None, or what does not fit (field: why)."""
    cdef const uint8_t[::1] data
    for name, buffers in fixed_sections(e) + [("registers", [bytes(ENV_IMAGE_BYTES)]), ("boundary", [b"\0"])]:
        size = len(sections.get(name, b""))
        if size != len(buffers[0]):
            return f"{name}: {size} bytes, expected {len(buffers[0])}: another version of pyx86v wrote it"
    data = sections["world"]
    memcpy(e.world, &data[0], sizeof(World))
    data = sections["ledger"]
    memcpy(e.ledger, &data[0], sizeof(Ledger))
    data = sections["mmu"]
    memcpy(e.mmu, &data[0], sizeof(Mmu))
    data = sections["registers"]
    load_registers(e, &data[0])
    if not load_ram(e, sections["frames"], sections["ram"]):
        return "ram: pages that this machine does not have"
    if not (load_sink(&sinks.console, sections["console"]) and load_sink(&sinks.debug, sections["debug"]) and
            load_sink(&sinks.report, sections["report"]) and load_sink(&sinks.input, sections["input"])):
        return "console: does not fit in memory"
    e.guest.skipped = e.world.skipped
    e.current[0] = &e.open_end if sections["boundary"][0] else &e.closed_end
    return None
