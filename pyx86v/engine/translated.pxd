# SPDX-License-Identifier: GPL-2.0-or-later
"""A translated kernel at work: what happens when translated code leaves for the monitor, and how guest code gets its translation.

Three hops: code without a translation, or an exit that is not chained yet, ends in INT BT_INT_EXIT; `cache_interrupt`, called by
the INTR hook, finds what it stands for; `cache_go` looks the guest's address up, has it translated if need be, chains, and
enters.  The instruction of a call-out runs alone in the virtual state (ring_step), as one that trapped.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.decode cimport Insn
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.cost.block cimport InsnInfo, MARK_SENSITIVE
from pyx86v.cost.block cimport insn_decode as block_insn
from pyx86v.cost.ledger cimport BT_DISPATCH, BT_TRANSLATE, TRANSLATION, charge, charge_units
from pyx86v.engine.access cimport Fault
from pyx86v.engine.breakpoints cimport RESUME_NOT
from pyx86v.engine.budget cimport grant, settle
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.cache_kill cimport *
from pyx86v.engine.cache_link cimport *
from pyx86v.engine.cache_space cimport space_check
from pyx86v.engine.census cimport census_look
from pyx86v.engine.fill cimport noncanonical, read_quiet
from pyx86v.engine.intercept cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.operands cimport fetch_insn
from pyx86v.engine.ring cimport *
from pyx86v.engine.softtlb cimport soft_flush
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer, window_hpa
from pyx86v.mmu.mmu cimport XLAT_NO_RAM, XLAT_OK, XLAT_PAGE_FAULT, full_walk, walker_init
from pyx86v.mmu.nested cimport NestedPage, Walker
from pyx86v.mmu.shadow_code cimport shadow_trace_code
from pyx86v.mmu.state cimport DROP_NOTHING
from pyx86v.mmu.walk cimport GuestPage
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.trap.kinds cimport *

cdef enum:                   # what cache_interrupt answers
    CACHE_EVENT = 0          # the guest's own event, by number, in the virtual state
    CACHE_DONE = 1           # the guest goes on
    CACHE_FAULT = 2          # its code cannot be fetched: deliver the fault
    MOST_AHEAD = 8           # units that are translated before they are reached

# Reading the guest's code --------------------------------------------------------------------------

cdef inline int code_page(Engine* e, uint64_t pc, uint64_t* gfn, Fault* f) noexcept nogil:
    """Walk to the page of guest code as a fetch does, accessed flags included.  XlatStatus, XLAT_PAGE_FAULT for #GP too; `f`: the guest's fault."""
    cdef Walker w
    cdef GuestPage page
    cdef NestedPage at
    cdef int status
    if noncanonical(e, pc, 1):
        f.vector = VEC_GP
        f.error = 0
        return XLAT_PAGE_FAULT
    walker_init(&w, e.mmu, &e.ram, e.ledger, &e.vcpu.paging)
    w.quiet = True
    w.cached = False
    status = full_walk(&w, pc, ACCESS_FETCH, SUPERVISOR, &page, &at)
    gfn[0] = NO_GFN
    if status == XLAT_PAGE_FAULT:
        f.vector = VEC_PF
        f.error = page.pfec
        env_u64(e.env, ENV_CR + 16)[0] = pc
    elif status == XLAT_OK and at.hpa - e.world.window.base < e.world.window.size:
        gfn[0] = (at.hpa - e.world.window.base) >> PAGE_SHIFT
    return status

cdef inline const uint8_t* frame_bytes(Engine* e, uint64_t gfn) noexcept nogil:
    return ram_pointer(&e.ram, e.world.window.base + (gfn << PAGE_SHIFT), PAGE_SIZE) if gfn != NO_GFN else NULL

# Making units ------------------------------------------------------------------------------------------

cdef inline void forget_translations(Engine* e) noexcept nogil:
    """A new generation: no translation, and nothing that the engine made of one."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t gfn
    for gfn in range(b.frames):
        if frame_of(b, &e.ram, gfn)[0]:
            shadow_trace_code(&e.world.shadow, e.mmu, &e.ram, e.ledger, &e.vcpu.hardware, gfn, False)
    bt_forget(b, &e.ram)
    cache_patched(e, 0, BT_CACHE_BYTES)

cdef inline void frame_rely(Engine* e, uint64_t gfn) noexcept nogil:
    """Translated code comes from the frame: writes to it arrive at the monitor, unless there were too many."""
    cdef Bt* b = bt_of(e)
    cdef uint32_t* frame = frame_of(b, &e.ram, gfn)
    if frame is NULL or frame[1] & CODE_WRITES >= MAX_CODE_WRITES:
        return
    if shadow_trace_code(&e.world.shadow, e.mmu, &e.ram, e.ledger, &e.vcpu.hardware, gfn, True) != DROP_NOTHING:
        soft_flush(e.cpu)

cdef inline bint frame_is_wild(Engine* e, uint64_t gfn) noexcept nogil:
    """Is its code compared at each entry?"""
    cdef uint32_t* frame = frame_of(bt_of(e), &e.ram, gfn)
    return frame is NULL or frame[1] & CODE_WRITES >= MAX_CODE_WRITES

cdef inline void stops_note(Engine* e, BtMode* m, uint64_t pc, uint64_t eip) noexcept nogil:
    """A unit ends before a breakpoint of the user's."""
    cdef int i
    for i in range(e.breakpoint_count):
        if 0 < e.breakpoints[i] - pc < 16 * BT_INSNS and m.n_stop_before < BT_MAX_LIST:
            m.stop_before[m.n_stop_before] = eip + (e.breakpoints[i] - pc)
            m.n_stop_before += 1

cdef inline Unit* unit_make(Engine* e, uint64_t eip, BtMode* m, uint32_t key, uint32_t cut, Fault* f) noexcept nogil:
    """Translate the guest's code at `eip`.  NULL: `f`, or the monitor is to run one instruction (f.vector -1).

    cut    0, or where in the code area it would best lie (cut_of)
    """
    cdef Bt* b = bt_of(e)
    cdef uint64_t pc = cache_pc(e, eip), offset = pc & PAGE_MASK, gfn, gfn2
    cdef uint8_t code[2 * 16 * BT_INSNS]
    cdef BtUnit t
    cdef Unit* u
    cdef uint32_t at = 0
    cdef uint64_t n = min(<uint64_t>sizeof(code), PAGE_SIZE - offset)
    cdef int got, flags = 0
    f.vector = -1
    if code_page(e, pc, &gfn, f) == XLAT_PAGE_FAULT or gfn == NO_GFN:
        return NULL
    if not unit_room(b) or not space_rely(b, &e.ram, &e.vcpu.paging, pc):
        forget_translations(e)
        cut = 0
        space_check(e)
        space_rely(b, &e.ram, &e.vcpu.paging, pc)
    gfn2 = gfn
    memcpy(code, frame_bytes(e, gfn) + offset, n)
    if frame_is_wild(e, gfn):
        flags = UNIT_CHECKED
        cut = 0
    stops_note(e, m, pc, eip)
    hot_note(b, m, eip)
    if flags & UNIT_CHECKED:
        n = whole_insn(e, code, n, pc)       # one instruction
    got = unit_write(e, code, n, eip, m, cut, &at, &t)
    if got == 0:                             # it goes on in the next page
        if code_page(e, (pc | PAGE_MASK) + 1 if m.bits == 64 else ((pc | PAGE_MASK) + 1) & 0xffffffffULL, &gfn2, f) == XLAT_PAGE_FAULT or gfn2 == NO_GFN:
            return NULL
        space_rely(b, &e.ram, &e.vcpu.paging, (pc | PAGE_MASK) + 1)
        memcpy(code + n, frame_bytes(e, gfn2), 16)
        if frame_is_wild(e, gfn2):
            flags = UNIT_CHECKED
            cut = 0
        got = unit_write(e, code, n + 15, eip, m, cut, &at, &t)
    if got <= 0:
        return NULL
    charge_units(e.ledger, TRANSLATION, e.ledger.price[<int>BT_TRANSLATE] * t.n_insns)
    if t.guest_length <= PAGE_SIZE - offset:
        gfn2 = gfn
    u = unit_add(b, &e.ram, &t, pc, eip, key, at, code, gfn, gfn2, flags)
    if u is NULL:
        return NULL
    exits_settle(e, u)
    frame_rely(e, gfn)
    if gfn2 != gfn:
        frame_rely(e, gfn2)
    if not flags & UNIT_CHECKED and t.n_insns and insns_of(b, &e.ram, u)[0].kind != BT_CALLOUT:
        lookup_publish(b, &e.ram, eip, cache_base_of(m) + at)
    return u

cdef inline uint64_t whole_insn(Engine* e, const uint8_t* code, uint64_t n, uint64_t pc) noexcept nogil:
    """Bytes of the first instruction, at most n; 15 when it is none."""
    cdef InsnInfo info
    cdef int length = block_insn(e.decoder, code, <uint32_t>min(n, <uint64_t>15), pc, env_bits(e.env), &info)
    return <uint64_t>length if 0 < <uint64_t>length <= n else min(n, <uint64_t>15)

cdef inline void make_ahead(Engine* e, Unit* u, BtMode* m, uint32_t key) noexcept nogil:
    """Translate what the new unit `u` goes on with for sure, as far as that needs no walk of tables: where it is in the same page."""
    cdef Bt* b = bt_of(e)
    cdef Fault f
    cdef BtExit* x
    cdef uint64_t pc, generation = b.count.generations
    cdef Unit* to
    cdef int i
    for i in range(MOST_AHEAD):
        if u.n_exits != 1 or u.flags or not unit_room(b):
            return
        x = exits_of(b, &e.ram, u)
        pc = cache_pc(e, x.target)
        if x.stub == NO_STUB or (pc ^ u.pc) >> PAGE_SHIFT or u.gfn2 != u.gfn or pc & PAGE_MASK > PAGE_SIZE - 16 * BT_INSNS:
            return
        m.n_no_inline = m.n_stop_before = 0
        to = unit_make(e, x.target, m, key, 0, &f)
        if to is NULL or to.flags or b.count.generations != generation:
            return
        exits_settle(e, u)
        u = to

# Going on --------------------------------------------------------------------------------------------------

cdef inline int cache_go(Engine* e, uint32_t from_unit, int exit, bint publish, Fault* f) noexcept nogil:
    """The guest's kernel goes on at RIP (virtual state): by its translation, which is made now if there is none."""
    cdef Bt* b = bt_of(e)
    cdef BtMode m
    cdef uint32_t key = cache_mode(e, &m), cut = 0
    cdef uint64_t eip = env_u64(e.env, ENV_EIP)[0], generation = b.count.generations
    cdef Unit* u
    cdef Insn d
    b.count.dispatches += 1
    charge(e.ledger, TRANSLATION, BT_DISPATCH)
    if wants_steps(e):
        drop_in(e)
        return CACHE_DONE
    if b.recheck:
        space_check(e)
    u = unit_find(b, &e.ram, cache_pc(e, eip), eip, key)
    if u is not NULL and u.flags & UNIT_CHECKED:
        if unit_is_current(e, u):
            frame_calms(e, u.gfn)
        else:
            unit_kill(e, u)
        if u.flags & UNIT_DEAD:
            u = NULL
    if u is NULL:
        cut = cut_of(e, from_unit, exit, key)
        u = unit_make(e, eip, &m, key, cut, f)
        if u is NULL and f.vector >= 0:
            return CACHE_FAULT
        if u is NULL:                        # it runs from where there is no memory
            fetch_insn(e, eip, &d)
            ring_step_first(e, callout_kind(&d), eip, d.length)
            return CACHE_DONE
        make_ahead(e, u, &m, key)
    elif publish and not u.flags & UNIT_CHECKED:
        lookup_publish(b, &e.ram, eip, cache_base_of(&m) + u.code)
    if cut and u.code == cut:
        cut_done(e, from_unit, exit, u)
    elif from_unit and exit >= -1:
        chain(e, from_unit, exit, u, generation)
    to_real(e)
    return CACHE_DONE

cdef inline void audit_callout(Engine* e, uint64_t rip) noexcept nogil:
    """In an audit: note what the monitor is about to carry out, which `retire` counts.  Virtual state."""
    cdef uint8_t code[16]
    cdef InsnInfo info
    if not e.audit:
        return
    e.called_at = cache_pc(e, rip)
    e.called = 0
    read_quiet(e, e.called_at, code, 15)
    code[15] = 0
    if block_insn(e.decoder, code, 15, e.called_at, env_bits(e.env), &info) > 0:
        e.called = info.flags >> MARK_SENSITIVE
    census_look(e)

cdef inline int cache_callout(Engine* e, bint adaptive, uint32_t* number, uint64_t* rip) noexcept nogil:
    """One guest instruction by the monitor (`adaptive`: because it writes page tables).  Virtual state, RIP at the instruction."""
    cdef Insn d
    cdef int kind, code = -1
    rip[0] = env_u64(e.env, ENV_EIP)[0]
    fetch_insn(e, rip[0], &d)
    kind = TRAP_TABLE_WRITE if adaptive else callout_kind(&d)
    bt_of(e).count.callouts += 1
    bt_of(e).count.by_kind[kind & 63] += 1
    e.vcpu.ring.callout = True
    if not d.lock:
        code = intercept_code(kind, &d)
    if code >= 0:
        number[0] = <uint32_t>(0x100 + code)
        audit_callout(e, rip[0])
        return CACHE_EVENT
    ring_step(e, kind, rip[0], d.length)
    return CACHE_DONE

cdef inline int cache_interrupt(Engine* e, uint32_t* number, uint64_t* rip, bint* software, Fault* f) noexcept nogil:
    """The INTR hook while translated code ran: one of its own interrupts, or an event of the guest's.  Brings the virtual state."""
    cdef Bt* b = bt_of(e)
    cdef Place p
    cdef uint32_t unit = 0
    cdef bint dead, adaptive
    if e.redo:
        e.redo = False
        to_virtual(e)
        return cache_callout(e, False, number, rip)
    if not software[0] or not is_cache_address(e, rip[0] - 2):
        to_virtual(e)
        rip[0] = env_u64(e.env, ENV_EIP)[0]
        audit_callout(e, rip[0])
        return CACHE_EVENT
    software[0] = False
    place_find(e, rip[0] - 2, &p)
    env_u64(e.env, ENV_EIP)[0] = rip[0] - 2
    dead = p.dead
    if number[0] == BT_INT_CALLOUT and not dead:
        to_virtual(e)
        adaptive = p.unit is not NULL and insns_of(b, &e.ram, p.unit)[p.insn].callout == CALLOUT_ADAPTIVE
        if adaptive and hot_called(b, env_u64(e.env, ENV_EIP)[0], e.world.shadow.count.traced_writes):
            unit_kill(e, p.unit)
        return cache_callout(e, adaptive, number, rip)
    if p.unit is not NULL:
        unit = number_of(b, &e.ram, p.unit)
    to_virtual(e)
    if number[0] == BT_INT_LOOKUP and not dead:
        b.count.lookups += 1
        env_u32(e.env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_INHIBIT_IRQ       # the transfer was in the shadow of STI, its target is not
        env_u64(e.env, ENV_EIP)[0] = cell_of(b, &e.ram, CELL_TARGET)[0] & (~<uint64_t>0 if b.bits == 64 else 0xffffffffULL)
        e.current[0] = &e.open_end
        return cache_go(e, 0, -2, True, f)
    if p.unit is NULL:
        e.current[0] = &e.open_end if e.vcpu.ring.open else &e.closed_end
        return cache_go(e, 0, -2, False, f)
    if dead:
        env_u64(e.env, ENV_EIP)[0] = p.unit.eip
        e.current[0] = &e.closed_end
        return cache_go(e, unit, -1, False, f)
    e.current[0] = &e.closed_end
    if p.exit >= 0 and (exits_of(b, &e.ram, p.unit)[p.exit].transfer == EXIT_TRANSFER or
                        exits_of(b, &e.ram, p.unit)[p.exit].transfer == EXIT_WINDOW):
        e.current[0] = &e.open_end
    return cache_go(e, unit, p.exit if p.exit >= 0 else -2, False, f)
