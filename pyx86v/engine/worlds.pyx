# SPDX-License-Identifier: GPL-2.0-or-later
"""The scheduler of a machine with several guests (worlds.pxd says what a world is).

A slice ends when the clock's quantity has grown by `quantum`, when the guest halts (it then waits for its next event)
or when it ends.  The next world in turn that has something to do gets the processor; when every world waits, time
jumps to the earliest event of all.  With one world the scheduler is not there: engine_run does all.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from pyx86v.arch.types cimport PAGE_MASK, PAGE_SHIFT
from pyx86v.cost.ledger cimport IDLE, SWITCH_TASK, UNITS_PER_CYCLE, WORLD_SWITCH, charge, charge_units
from pyx86v.devices.sinks cimport sinks_free, sinks_init
from pyx86v.engine.cache_map cimport BT_ASID
from pyx86v.engine.budget cimport MAX_INSN_UNITS
from pyx86v.engine.dma cimport bus_connect
from pyx86v.engine.engine cimport engine_run
from pyx86v.engine.kept cimport kept_env, kept_free, kept_front, kept_make, kept_note_space
from pyx86v.engine.softtlb cimport EMPTY, SoftEntry, soft_victims
from pyx86v.mmu.invalidate cimport INVVPID_ALL, mmu_flush_asid, mmu_invvpid
from pyx86v.arch.ptes cimport FRAME_MASK
from pyx86v.mmu.mmu cimport entry_hpa, level_find, mmu_enter
from pyx86v.mmu.state cimport PagingContext, SIDE_D, SIDE_I
from pyx86v.mmu.tlb cimport ARRAY_PDE, ARRAY_PDPTE, ARRAY_PML4E, TAG_NESTED, TLB_POOL
from pyx86v.vmm.clock cimport INSTRUCTION_CYCLES, next_event, units_until
from pyx86v.vmm.guest cimport *

cdef enum:
    POLL_UNITS = 1 << 26
    PATIENCE = 20_000        # cycles: of the walks that one instruction may take, and more

cdef extern from *:
    """
    #define PYX_NEVER 0xffffffffffffffffULL
    """
    const uint64_t NEVER "PYX_NEVER"

# Making ----------------------------------------------------------------------------------------

cdef Worlds* worlds_new(Engine* e, uint32_t count) except NULL:
    """Seats for `count` worlds around an engine that does not exist yet; the first is in front.  MemoryError."""
    cdef Worlds* w = <Worlds*>calloc(1, sizeof(Worlds))
    cdef uint32_t i
    if w is NULL:
        raise MemoryError("worlds")
    w.engine = e
    w.seat = <Seat*>calloc(count, sizeof(Seat))
    if w.seat is not NULL:
        w.plan.count = count
        for i in range(count):
            sinks_init(&w.seat[i].sinks)
            w.seat[i].world = <World*>calloc(1, sizeof(World))
            if w.seat[i].world is NULL:
                w.plan.count = i + 1
                break
    if w.seat is NULL or w.seat[w.plan.count - 1].world is NULL:
        worlds_free(w)
        raise MemoryError("worlds")
    e.world = w.seat[0].world
    e.py_ports = w.seat[0].py_ports
    return w


cdef void worlds_free(Worlds* w) noexcept:
    cdef uint32_t i
    if w is NULL:
        return
    for i in range(w.plan.count):
        sinks_free(&w.seat[i].sinks)
        if i != w.held:
            kept_free(&w.seat[i].kept)
        free(w.seat[i].world)
    free(w.seat)
    free(w)


cdef void worlds_connect(Worlds* w) noexcept:
    """The engine stands, with world 0 in it just reset: let the others start as it does, each with pointers of its own."""
    cdef Engine* e = w.engine
    cdef Seat* s
    cdef uint32_t i
    w.plan.next_asid = 1
    w.plan.zero_owner = MAX_WORLDS
    e.gives_way = w.plan.count > 1
    e.guest.sinks = &w.seat[0].sinks
    env_u32(e.cpu, CPU_CLUSTER)[0] = 0
    kept_front(e, &w.seat[0].kept)
    for i in range(w.plan.count):
        bus_connect(e, &w.seat[i].sinks.bus)
    for i in range(1, w.plan.count):
        s = &w.seat[i]
        s.guest = e.guest
        s.guest.platform = &s.world.platform
        s.guest.vcpu = &s.world.vcpu[0]
        s.guest.style_state = s.world.style_state
        s.guest.sinks = &s.sinks
        s.guest.shadow = &s.world.shadow if s.style.shadow else NULL
        s.standing.open = True
        kept_make(e, &s.kept)
        memcpy(s.standing.image, e.env, ENV_IMAGE_BYTES)

# Tags ------------------------------------------------------------------------------------------

cdef void world_tag(Worlds* w) noexcept nogil:
    """Give the world in front a tag that holds nothing of another world's (invariant 2).

    Tags are handed out upwards; when they are used up a new generation begins, everything that is tagged is flushed and
    each world gets a new one when its turn comes (as KVM does for AMD's ASIDs).
    """
    cdef Engine* e = w.engine
    cdef Standing* s = &w.seat[w.plan.front].standing
    if e.style.retag is NULL or not e.guest.cpu_vpid:
        if w.plan.zero_owner != w.plan.front:
            if w.plan.zero_owner != MAX_WORLDS:
                kept_note_space(e, 0)
                mmu_flush_asid(e.mmu, 0)
                kept_note_space(e, BT_ASID)          # that of translated code
                mmu_flush_asid(e.mmu, BT_ASID)
            w.plan.zero_owner = w.plan.front
        return
    if s.generation == w.plan.generation and s.generation:
        return
    if w.plan.generation == 0 or w.plan.next_asid > w.plan.last_asid:
        if w.plan.generation:
            mmu_invvpid(e.mmu, INVVPID_ALL, 0, 0)
        w.plan.generation += 1
        w.plan.next_asid = 1
    s.generation = w.plan.generation
    s.asid = w.plan.next_asid
    w.plan.next_asid += 1
    e.style.retag(&e.guest, <int>s.asid)

# Whose turn ------------------------------------------------------------------------------------

cdef bint has_work(Worlds* w, uint32_t i) noexcept nogil:
    cdef const Standing* s = &w.seat[i].standing
    return not s.ended and (not s.waiting or s.wake <= w.engine.ledger.total)

cdef int next_with_work(Worlds* w) noexcept nogil:
    """The next world in turn that can run, the one in front last; -1: none can."""
    cdef uint32_t k, i
    for k in range(w.plan.count):
        i = (w.plan.front + 1 + k) % w.plan.count
        if has_work(w, i):
            return <int>i
    return -1

cdef int next_to_wake(Worlds* w) noexcept nogil:
    """The world whose event comes first, in turn where several do; -1: all have ended."""
    cdef uint32_t k, i
    cdef int best = -1
    for k in range(w.plan.count):
        i = (w.plan.front + 1 + k) % w.plan.count
        if not w.seat[i].standing.ended and (best < 0 or w.seat[i].standing.wake < w.seat[best].standing.wake):
            best = <int>i
    return best

cdef void world_front(Worlds* w, uint32_t i) noexcept nogil:
    """The monitor puts world `i` on the processor; the world that comes pays."""
    cdef Engine* e = w.engine
    if i == w.plan.front:
        return
    world_sit(w)
    world_stand(w, i)
    w.plan.switches += 1
    charge(e.ledger, WORLD_SWITCH, e.style.switch_price if e.style.switch_price else SWITCH_TASK)
    e.vcpu.exit_started += busy(e) - w.seat[i].standing.left

cdef void idle_until(Worlds* w, uint32_t i, uint64_t units) noexcept nogil:
    """Time jumps to `units`, where world `i` waits: idle time is that world's."""
    cdef Account now
    if units > w.engine.ledger.total:
        worlds_book(w)
        charge_units(w.engine.ledger, IDLE, units - w.engine.ledger.total)
        account_now(w.engine.ledger, w.engine.mmu, &now)
        account_book(&w.seat[i].standing.account, &w.plan.booked, &now)

cdef void begin_slice(Worlds* w) noexcept nogil:
    """Under --clock instructions the slice has an end in cycles too, for a guest that only faults; it is far
    enough away not to make the engine look for it (grant_until, engine.pyx)."""
    cdef Engine* e = w.engine
    w.plan.slice_retired = e.ledger.instructions
    w.plan.slice_instructions = NEVER
    w.plan.slice_units = e.ledger.total + w.plan.quantum * <uint64_t>UNITS_PER_CYCLE
    if e.guest.clock_instructions:
        w.plan.slice_instructions = e.ledger.instructions + w.plan.quantum
        w.plan.slice_units = e.ledger.total + 2 * w.plan.quantum * <uint64_t>MAX_INSN_UNITS

cdef bint slice_over(const Worlds* w) noexcept nogil:
    return w.engine.ledger.total >= w.plan.slice_units or w.engine.ledger.instructions >= w.plan.slice_instructions

cdef void give_patience(Worlds* w) noexcept nogil:
    """A slice in which no instruction retired goes on to the first one: where a switch drops all translations, walks alone may
    fill a short slice, and no guest would ever get anywhere.  Not for ever: it may be a guest that only faults."""
    cdef Engine* e = w.engine
    if w.plan.slice_units and e.ledger.total >= w.plan.slice_units and e.ledger.instructions == w.plan.slice_retired:
        w.plan.slice_retired = NEVER
        w.plan.slice_units = e.ledger.total + <uint64_t>PATIENCE * UNITS_PER_CYCLE
        w.plan.slice_instructions = e.ledger.instructions + 1

cdef bint give_turn(Worlds* w, uint64_t max_units) noexcept nogil:
    """Begin the next slice.  False: every guest has ended, or the machine's limit comes before anything does."""
    cdef Engine* e = w.engine
    cdef int i = next_with_work(w)
    cdef uint64_t wake
    if i < 0:
        i = next_to_wake(w)
        if i < 0:
            return False
        wake = w.seat[i].standing.wake
        idle_until(w, <uint32_t>i, wake if wake < max_units else max_units)
        if wake > e.ledger.total:
            return False
    world_front(w, <uint32_t>i)
    begin_slice(w)
    return True

# Running ---------------------------------------------------------------------------------------

cdef void world_waits(Worlds* w) noexcept nogil:
    """The world in front has halted: when does its next event come?  Its own clock may be one of instructions."""
    cdef Engine* e = w.engine
    cdef Standing* s = &w.seat[w.plan.front].standing
    s.waiting = True
    s.wake = e.ledger.total + units_until(&e.guest, next_event(&e.guest))

cdef void world_goes_on(Worlds* w) noexcept nogil:
    """Its event has come.  Under --clock instructions the guest's clock skips what the machine spent elsewhere."""
    cdef Engine* e = w.engine
    cdef Standing* s = &w.seat[w.plan.front].standing
    cdef uint64_t due = next_event(&e.guest)
    s.waiting = False
    if e.guest.clock_instructions and due != NEVER:
        e.guest.skipped += units_until(&e.guest, due) // <uint64_t>UNITS_PER_CYCLE

cdef bint ends_guest(int reason) noexcept nogil:
    return STOP_EXIT <= reason <= STOP_SHUTDOWN or reason == STOP_HOLE or reason == STOP_ERROR

cdef bint machine_stops(Worlds* w, int reason, uint64_t max_units, uint64_t max_instructions, uint64_t max_exits) noexcept nogil:
    """Is this stop the whole machine's, and not the end of a slice or of one guest?"""
    cdef Engine* e = w.engine
    if reason == STOP_BREAKPOINT or reason == STOP_SIGNAL:
        return True
    return e.ledger.total >= max_units or e.ledger.instructions >= max_instructions or worlds_exits(w) >= max_exits

cdef bint signalled(Engine* e) noexcept nogil:
    """Guests that do nothing but halt make no blocks that would look for signals."""
    if e.ledger.total < e.poll_units:
        return False
    e.poll_units = e.ledger.total + POLL_UNITS
    return e.poll is not NULL and e.poll(e.owner) != 0

cdef int run_slice(Worlds* w, bint step, uint64_t max_units, uint64_t max_instructions, uint64_t max_exits) noexcept nogil:
    """Run the world in front to the end of its slice or a limit of the machine's.  The engine's error."""
    cdef Engine* e = w.engine
    cdef Standing* s = &w.seat[w.plan.front].standing
    cdef int err
    world_tag(w)
    if s.waiting:
        world_goes_on(w)
    e.max_units = max_units if max_units < w.plan.slice_units else w.plan.slice_units
    e.max_instructions = max_instructions if max_instructions < w.plan.slice_instructions else w.plan.slice_instructions
    e.max_exits = NEVER if max_exits == NEVER else max_exits - worlds_exits(w) + e.vcpu.exit_total
    err = engine_run(e, step)
    if e.vcpu.stop_reason == STOP_WAIT:
        world_waits(w)
    elif ends_guest(e.vcpu.stop_reason):
        s.ended = True
    return err

cdef int worlds_run(Worlds* w, bint step) noexcept nogil:
    """Run until every guest has ended, a limit is reached or something asks the machine to stop: engine_run for all worlds.

    The limits are the engine's (max_exits: of all worlds).  The stop is that of the world in front, and STOP_LIMIT or
    the end of the last guest otherwise.  Returns the engine's error.
    """
    cdef Engine* e = w.engine
    cdef uint64_t max_units = e.max_units, max_instructions = e.max_instructions, max_exits = e.max_exits
    cdef int err = 0, reason
    if w.plan.count == 1:
        err = engine_run(e, step)
        worlds_book(w)
        return err
    while True:
        give_patience(w)
        if not has_work(w, w.plan.front) or slice_over(w):
            if not give_turn(w, max_units):
                break
        err = run_slice(w, step, max_units, max_instructions, max_exits)
        reason = e.vcpu.stop_reason
        if not ends_guest(reason) and signalled(e):
            reason = e.vcpu.stop_reason = STOP_SIGNAL
        if err or step or machine_stops(w, reason, max_units, max_instructions, max_exits):
            break
    worlds_book(w)
    return err

# Looking ---------------------------------------------------------------------------------------

cdef list soft_held(char* env, uint64_t ram_size):
    """[(linear address, machine address, sides)] of the pages of the machine's RAM that a soft TLB maps; no side: for an
    access that is over.  `env`: behind its tables."""
    cdef SoftEntry* s
    cdef char* desc
    cdef uint64_t i, slots, at
    cdef int mode
    found = []
    for mode in range(SOFT_MODES):
        desc = env + ENV_SOFT_DESC + SOFT_DESC_SIZE * mode
        fast = env_u64(env, ENV_SOFT_TABLE + SOFT_TABLE_SIZE * mode)
        slots = fast[0] // sizeof(SoftEntry) + 1
        for i in range(slots + soft_victims(desc)):
            s = &(<SoftEntry*>fast[1])[i] if i < slots else &(<SoftEntry*>(desc + SOFT_VICTIMS))[i - slots]
            at = s.read & s.write & s.code
            if at != EMPTY and s.paddr < ram_size:
                sides = ("d" if s.read & s.write != EMPTY else "") + ("i" if s.code != EMPTY else "")
                found.append((at & ~<uint64_t>PAGE_MASK, s.paddr & ~<uint64_t>PAGE_MASK, "" if at & PAGE_MASK else sides))
    return found


cdef set soft_beyond_model(Engine* e):
    """{(linear address, side)} of what the soft TLB in front holds and the modelled first level does not (kept.pxd)."""
    cdef PagingContext* p = walked(e.vcpu)
    cdef int at
    found = set()
    if p.mode or p.eptp:
        mmu_enter(e.mmu, p)
        for gva, hpa, sides in soft_held(e.env, e.ram.size):
            for side in sides:
                at = level_find(e.mmu, SIDE_I if side == "i" else SIDE_D, gva)
                if at < 0 or hpa != e.void_page and entry_hpa(&e.mmu.tlb.entry[at], gva) >> PAGE_SHIFT != hpa >> PAGE_SHIFT:
                    found.add((gva, side))
    return found


cdef dict worlds_held(Worlds* w):
    """Who could reach what of the machine's RAM now.

    memory   [(first, end, firmware, its end)] of each world: its window, and firmware; its monitor's memory lies between
    pages    {(world, machine address, bytes)} of the pages that the modelled TLBs and the soft TLBs hold
    tables   the same of the walk caches
    beyond   {(linear address, side)} of what the soft TLB in front holds and the modelled TLB does not: nothing
    A modelled entry is the world's whose tag or nested root it carries, and -1's where no world has it.
    """
    cdef Engine* e = w.engine
    cdef uint32_t n
    cdef int i
    owners, memory, pages, tables = {}, [], set(), set()
    for n in range(w.plan.count):
        v = &w.seat[n].world.vcpu[0]
        root = v.paging.eptp & FRAME_MASK
        if root:
            owners[None, root] = owners[0, root] = n
        if v.paging.asid and w.seat[n].standing.generation == w.plan.generation:
            owners[v.paging.asid, root] = n
        pages |= {(n, at, 4096) for _, at, _ in soft_held(e.env if n == w.held else kept_env(&w.seat[n].kept), e.ram.size)}
        p = &w.seat[n].world.window
        memory.append((p.base, p.base + p.size, p.rom_base, p.rom_base + p.rom_size))
    if w.plan.zero_owner < w.plan.count:
        owners[0, 0] = w.plan.zero_owner
    for i in range(TLB_POOL):
        if e.mmu.tlb.key[i]:
            entry = &e.mmu.tlb.entry[i]
            tag = &e.mmu.tlb.tag[entry.tag]
            owner = owners.get((None if tag.pcid == TAG_NESTED else tag.asid, tag.eptp & FRAME_MASK), -1)
            if entry.array == ARRAY_PML4E or entry.array == ARRAY_PDPTE or entry.array == ARRAY_PDE:
                tables.add((owner, entry.pfn << PAGE_SHIFT, 4096))
            else:
                pages.add((owner, entry.pfn << PAGE_SHIFT, 1 << entry.shift))
    return {"memory": memory, "pages": pages, "tables": tables, "beyond": soft_beyond_model(e), "ones": e.void_page, "end": e.ram.size}
