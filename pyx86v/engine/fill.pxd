# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's TLB fill: every translation that the engine lacks comes here, once.

Invariants
1. The engine's soft TLB holds a translation only while the modelled first level holds it.  An entry
   that the model evicts is dropped here before the new one goes in; a miss in the engine is then
   either a modelled hit (refilled free) or a modelled miss.
2. A host frame with translated code (PAGE_CODE) is mapped nowhere without the engine seeing stores
   to it: either no mapping is writable, or (PAGE_MIXED) the writable ones are also executable, which
   makes the engine compare every store with its translations.
"""
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.ptes cimport PAGING_LONG, PAGING_NONE, PAGING_PAE
from pyx86v.arch.regs cimport CR4_SMAP, FL_AC, SEG_CS, PFEC_I, PFEC_P, PFEC_RSVD, PFEC_U, PFEC_W, VEC_GP, VEC_PF
from pyx86v.arch.types cimport *
from pyx86v.cost.block cimport InsnInfo, InsnMark, block_decode
from pyx86v.cost.block cimport insn_decode as block_insn
from pyx86v.engine.budget cimport grant, settle, spend
from pyx86v.engine.cache_kill cimport cache_trapped, cache_written
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.datacache cimport data_line
from pyx86v.engine.layout cimport *
from pyx86v.engine.remap cimport code_page_filled
from pyx86v.engine.ops cimport env_bits, env_flat_code
from pyx86v.engine.softtlb cimport evict_page, page_drop, page_set, soft_flush, soft_set
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer, window_is_rom
from pyx86v.mmu.mmu cimport *
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM, SHADOW_ONCE
from pyx86v.vmm.guest cimport EV_EPT_MISCONFIG, EV_EPT_VIOLATION, EV_SHADOW_FAULT, STOP_ERROR, Event, event_init, walked
from pyx86v.vmm.paging cimport cr3_loaded

cdef enum:
    ENGINE_MAX_INSNS = 512
    XLAT_STOP = 16       # beyond XlatStatus
    XLAT_AGAIN = 17      # the monitor made a shadow entry
    FILL_RETRIES = 8     # violations and hidden faults that a monitor may repair for one access

cdef inline void drop_evicted(Engine* e, const Translation* t) noexcept nogil:
    """Invariant 1: what the model evicted leaves the engine, or is noted for the world whose it was (kept.pxd)."""
    cdef uint32_t i
    for i in range(t.n_evicted):
        if t.evicted[i].asid == walked(e.vcpu).asid or e.style.translates and t.evicted[i].asid == bt_of(e).context.asid:
            evict_page(e.cpu, &t.evicted[i], e.portable)
        else:
            e.evicted[e.evictions % EVICT_LOG] = t.evicted[i]
            e.evictions += 1

cdef inline void frame_drop_code(Engine* e, uint64_t frame) noexcept nogil:
    """Forget the translated code of a frame and every mapping that could run it."""
    tb_invalidate_phys_range_x86_64(e.uc, frame << PAGE_SHIFT, (frame + 1) << PAGE_SHIFT)
    soft_flush(e.cpu)

cdef inline bint frame_is_running(Engine* e, uint64_t frame) noexcept nogil:
    cdef BlockRecord* r = e.current[0]
    return r.frame == frame or r.frame2 == frame

cdef inline void frame_fetched(Engine* e, uint64_t frame) noexcept nogil:
    """Code is about to be translated from this frame: no writable mapping may survive."""
    if e.page_state[frame] != PAGE_DATA:
        return
    e.page_state[frame] = PAGE_CODE
    if e.write_map[frame] == ~<uint64_t>0:
        soft_flush(e.cpu)
    elif e.write_map[frame]:
        page_drop(e.cpu, e.write_map[frame] & ~<uint64_t>PAGE_MASK)
    e.write_map[frame] = 0

cdef inline void frame_stored(Engine* e, uint64_t frame) noexcept nogil:
    """A store to a PAGE_CODE frame: it becomes data, or mixed when it would flip for ever."""
    if frame_is_running(e, frame) or e.page_flips[frame] >= MAX_PAGE_FLIPS:
        e.page_state[frame] = PAGE_MIXED
        soft_flush(e.cpu)              # other mappings of it must become executable-or-unwritable
        return
    e.page_flips[frame] += 1
    e.page_state[frame] = PAGE_DATA
    frame_drop_code(e, frame)

cdef inline void frame_mapped_writable(Engine* e, uint64_t frame, gva_t page) noexcept nogil:
    if e.write_map[frame] == 0:
        e.write_map[frame] = page | 1
    elif e.write_map[frame] != (page | 1):
        e.write_map[frame] = ~<uint64_t>0

cdef inline void host_wrote(Engine* e, hpa_t hpa, uint64_t n) noexcept nogil:
    """The monitor or a device wrote guest memory behind the engine's back: drop stale code."""
    cdef uint64_t frame = hpa >> PAGE_SHIFT
    if frame < e.frames and e.page_state[frame] != PAGE_DATA:
        tb_invalidate_phys_range_x86_64(e.uc, hpa, hpa + n)

cdef inline bint side_holds(Engine* e, gva_t va, hpa_t hpa, int access, int mmu_idx) noexcept nogil:
    """May the engine hold this right to the page at `hpa` too?  Yes when the modelled first level has the same page
    there (the guest may have changed its tables since it was filled), or nothing is modelled."""
    cdef PagingContext* p = walked(e.vcpu)
    cdef const TlbEntry* held
    if p.mode == PAGING_NONE and p.eptp == 0:
        return True
    held = mmu_lookup(e.mmu, p, va, access, mmu_idx)
    return held is not NULL and (entry_hpa(held, va) ^ hpa) >> PAGE_SHIFT == 0

cdef inline int fill_fetch(Engine* e, const Translation* t, gva_t page, int mmu_idx) noexcept nogil:
    """Rights of an instruction fetch; the data side joins when the model holds it too."""
    cdef uint64_t frame = t.hpa >> PAGE_SHIFT
    cdef int prot = PROT_X
    code_page_filled(e, page, frame)
    frame_fetched(e, frame)
    if e.page_state[frame] == PAGE_MIXED:
        if side_holds(e, page, t.hpa, ACCESS_WRITE, mmu_idx):
            return PROT_R | PROT_W | PROT_X
    if side_holds(e, page, t.hpa, ACCESS_READ, mmu_idx):
        prot |= PROT_R
    return prot

cdef inline int fill_data(Engine* e, const Translation* t, gva_t va, int access, int mmu_idx, uint64_t* bytes) noexcept nogil:
    """Rights of a data access.  `bytes` 1 makes the entry serve this one access only."""
    cdef uint64_t frame = t.hpa >> PAGE_SHIFT
    cdef int prot = t.prot & (PROT_R | PROT_W)
    cdef int state = e.page_state[frame]
    if state == PAGE_CODE and access == ACCESS_WRITE:
        frame_stored(e, frame)
        state = e.page_state[frame]
    if e.world.window.rom_size and window_is_rom(&e.world.window, t.hpa):
        prot &= ~PROT_W
    if state == PAGE_DATA:
        if prot & PROT_W:
            frame_mapped_writable(e, frame, va & ~<uint64_t>PAGE_MASK)
        return prot
    if side_holds(e, va, t.hpa, ACCESS_FETCH, mmu_idx):
        prot |= PROT_X
    if state == PAGE_CODE:
        return prot & ~PROT_W
    if not prot & PROT_X and prot & PROT_W:
        if access == ACCESS_WRITE:           # mixed, written through a mapping that may not execute: seen this once,
            prot |= PROT_X                   # by the engine too, which may have to leave the block that runs
            bytes[0] = 1
        else:
            prot &= ~PROT_W
    return prot

cdef inline uint32_t access_pfec(int access, int mmu_idx) noexcept nogil:
    return (PFEC_W if access == ACCESS_WRITE else 0) | (PFEC_I if access == ACCESS_FETCH else 0) | \
           (PFEC_U if mmu_idx == USER else 0)

cdef inline void remember_mmio(Engine* e, gva_t va, uintptr_t ra) noexcept nogil:
    """A device access is coming: note where, for the callback that has no way of knowing."""
    if ra:
        cpu_restore_state_x86_64(e.cpu, ra, False)
    e.mmio_rip = env_u64(e.env, ENV_EIP)[0]
    e.mmio_gva = va

cdef inline void task_switched(Engine* e) noexcept nogil:
    """The engine switched tasks by itself (far transfer to a TSS) and loaded CR3 from it (SDM 3A 7.3): follow."""
    cdef Translation t
    e.vcpu.cr3 = env_u64(e.env, ENV_CR + 24)[0]
    if e.vcpu.paging.mode == PAGING_PAE:
        mmu_load_pdptes(e.mmu, &e.ram, e.ledger, &e.vcpu.paging, e.vcpu.cr3, True, &t)
    cr3_loaded(&e.guest, False)

cdef inline bint noncanonical(Engine* e, gva_t va, int size) noexcept nogil:
    """In long mode bits 63..47 of an access's linear addresses must agree, or it is #GP(0) or #SS(0) (SDM 1 3.3.7.1)."""
    cdef gva_t last = va + <uint64_t>(size - 1) if size > 1 else va
    return e.vcpu.paging.mode == PAGING_LONG and \
        (<uint64_t>((<int64_t>(va << 16)) >> 16) != va or <uint64_t>((<int64_t>(last << 16)) >> 16) != last)

cdef inline int ept_exit(Engine* e, gva_t va, int status, const Translation* t, Event* ev) noexcept nogil:
    """Hand an EPT violation or misconfiguration to the style.  Its verdict."""
    event_init(ev, EV_EPT_VIOLATION if status == XLAT_EPT_VIOLATION else EV_EPT_MISCONFIG)
    ev.gpa = t.gpa
    ev.address = va
    ev.qualification = t.qualification
    ev.rip = env_u64(e.env, ENV_EIP)[0]
    return e.style.handlers[ev.kind](&e.guest, ev)

cdef inline int shadow_miss(Engine* e, gva_t va, int size, int access, int privilege, Translation* t) noexcept nogil:
    """The walk of the shadow tables faulted: the monitor makes an entry (XLAT_AGAIN), or finds the guest's own fault, a
    device, or a store that goes through once without an entry."""
    cdef Event ev
    cdef int verdict
    event_init(&ev, EV_SHADOW_FAULT)
    ev.address = va
    ev.size = size
    ev.access = access
    ev.privilege = privilege
    ev.vector = VEC_PF
    ev.has_error = True
    ev.error = t.pfec
    ev.rip = env_u64(e.env, ENV_EIP)[0]
    verdict = e.style.handlers[EV_SHADOW_FAULT](&e.guest, &ev)
    if ev.qualification == DROP_ALL:
        soft_flush(e.cpu)
    elif ev.qualification == DROP_PAGE:
        page_drop(e.cpu, va)
    t.gpa = ev.gpa
    if verdict == STOP:
        return XLAT_STOP
    if ev.detail == SHADOW_FAULT:
        t.pfec = ev.error
        return XLAT_PAGE_FAULT
    if ev.detail == SHADOW_NO_RAM:
        if access == ACCESS_FETCH:
            mmu_hold_hole(e.mmu, walked(e.vcpu), va, ev.gpa, privilege, t)
            drop_evicted(e, t)
        return XLAT_NO_RAM
    if ev.detail == SHADOW_ONCE:
        t.hpa = ev.target
        t.prot = PROT_R | PROT_W
        t.once = True
        return XLAT_OK
    return XLAT_AGAIN

cdef inline int translate(Engine* e, gva_t va, int size, int access, int privilege, Translation* t) noexcept nogil:
    """mmu_translate, with exits for EPT and shadow tables taken by the style until the access goes through.

    size   bytes from `va` on that the access needs

    XLAT_OK, XLAT_PAGE_FAULT, XLAT_NO_RAM (t.gpa: a device or a hole), XLAT_GP (non-canonical), or
    XLAT_STOP: the style ended the run.
    """
    cdef int status = XLAT_OK, verdict, i
    cdef bint absent = False
    cdef Event ev
    if env_u64(e.env, ENV_CR + 24)[0] != e.vcpu.cr3:
        task_switched(e)
    if noncanonical(e, va, size):
        return XLAT_GP
    for i in range(FILL_RETRIES):
        if absent:
            status = mmu_translate_absent(e.mmu, &e.ram, e.ledger, walked(e.vcpu), va, access, privilege, t)
        else:
            status = mmu_translate(e.mmu, &e.ram, e.ledger, walked(e.vcpu), va, access, privilege, t)
        drop_evicted(e, t)
        if t.drop == DROP_ALL:
            soft_flush(e.cpu)
        elif t.drop == DROP_PAGE:
            page_drop(e.cpu, va)
        if status == XLAT_PAGE_FAULT and e.vcpu.shadowing:
            status = shadow_miss(e, va, size, access, privilege, t)
            if status == XLAT_AGAIN:
                continue
            return status
        if status == XLAT_OK and access == ACCESS_WRITE and window_is_rom(&e.world.window, t.hpa):
            t.gpa += va & PAGE_MASK
            return XLAT_NO_RAM               # a store to firmware goes to the bus, where nothing takes it
        if status != XLAT_EPT_VIOLATION and status != XLAT_EPT_MISCONFIG:
            return status
        if access != ACCESS_FETCH and t.gpa >= e.world.window.size and nested_final(t.qualification):
            return XLAT_NO_RAM               # the exit is taken by the access itself (EV_MMIO_*)
        verdict = ept_exit(e, va, status, t, &ev)
        if verdict == REFLECT:
            t.pfec = access_pfec(access, privilege) | PFEC_P | PFEC_RSVD
            return XLAT_PAGE_FAULT
        if verdict == STOP:
            return XLAT_STOP
        absent = ev.detail != 0
    t.pfec = access_pfec(access, privilege) | PFEC_P | PFEC_RSVD
    return XLAT_PAGE_FAULT

cdef inline int fetch_privilege(Engine* e) noexcept nogil:
    """Whose code is running: under SMEP the supervisor does not see the user's."""
    return USER if env_u32(e.env, ENV_HFLAGS)[0] & HF_CPL == 3 else SUPERVISOR

cdef inline bint page_is_held(Engine* e, gva_t pc) noexcept nogil:
    """Does the modelled first level hold this code page (or is nothing modelled)?"""
    cdef const PagingContext* p = fetched(e)
    if p.mode == 0 and p.eptp == 0:
        return True
    return mmu_lookup(e.mmu, p, pc, ACCESS_FETCH, fetch_privilege(e)) is not NULL

cdef inline bint code_hpa(Engine* e, gva_t gva, hpa_t* hpa) noexcept nogil:
    """Where running code lies: as the modelled first level has it, which the engine runs from even when the guest has
    changed its tables since; else as the tables say.  False: nowhere."""
    cdef Translation t
    cdef const TlbEntry* held = mmu_lookup(e.mmu, fetched(e), gva, ACCESS_FETCH, fetch_privilege(e))
    if held is not NULL:
        hpa[0] = entry_hpa(held, gva)
        return not held.flags & TLB_HOLE
    if mmu_translate_quiet(e.mmu, &e.ram, &bt_of(e).context if in_cache(e) else &e.vcpu.paging, gva, ACCESS_FETCH, fetch_privilege(e), True, &t) != XLAT_OK:
        return False
    hpa[0] = t.hpa + (gva & PAGE_MASK)
    return True

cdef inline uint64_t code_frame(Engine* e, gva_t pc) noexcept nogil:
    """Host frame of code that is being executed."""
    cdef hpa_t at
    return at >> PAGE_SHIFT if code_hpa(e, pc, &at) else NO_FRAME      # NO_FRAME is beyond any RAM

cdef inline bint read_quiet(Engine* e, gva_t gva, void* out, uint64_t n) noexcept nogil:
    """Read running code without charging, counting or filling; what cannot be fetched reads as all ones.  True: all could."""
    cdef hpa_t at
    cdef uint64_t piece
    cdef uint8_t* p
    cdef uint8_t* to = <uint8_t*>out
    cdef bint good = True
    while n:
        piece = PAGE_SIZE - (gva & PAGE_MASK)
        if piece > n:
            piece = n
        p = NULL
        if code_hpa(e, gva, &at):
            p = ram_pointer(&e.ram, at, piece)
        if p is NULL:
            memset(to, 0xff, piece)
            good = False
        else:
            memcpy(to, p, piece)
        to += piece
        gva += piece
        n -= piece
    return good

cdef inline int whole_before(Engine* e, uint64_t eip, gva_t page) noexcept nogil:
    """How many instructions from `eip` on end before `page` begins."""
    cdef InsnMark marks[ENGINE_MAX_INSNS]
    cdef uint8_t code[PAGE_SIZE]
    cdef gva_t pc = linear_of(e, eip)
    cdef uint64_t room = page - pc
    cdef int n
    if room == 0 or room > PAGE_SIZE:
        return 0
    memset(code, 0, sizeof(code))
    read_quiet(e, pc, code, room)
    n = block_decode(e.decoder, code, <uint32_t>room, pc, env_bits(e.env), marks, ENGINE_MAX_INSNS)
    return n if n and complete_tail(e, code, room, marks, n, pc) else n - 1

cdef inline bint complete_tail(Engine* e, const uint8_t* code, uint64_t room, const InsnMark* marks, int n, gva_t pc) noexcept nogil:
    """Does the last decoded instruction really end at the page's end, or did the decoder run out of bytes?"""
    cdef uint8_t tail[32]
    cdef InsnInfo info
    cdef uint64_t start = marks[n - 2].end if n > 1 else 0
    memset(tail, 0, sizeof(tail))
    memcpy(tail, code + start, room - start if room - start < 16 else 16)
    return block_insn(e.decoder, tail, 16, pc + start, env_bits(e.env), &info) == <int>(room - start)

cdef inline void fault_of_block(Engine* e, gva_t va) noexcept nogil:
    """A #PF while a block that crosses into `va`'s page is being translated.

    The instructions before that page have not run yet and the fault is not theirs: have just them translated and
    run first (longjmp), so that the fault comes at the instruction that really reaches the page.
    """
    cdef uint64_t eip = env_u64(e.env, ENV_EIP)[0]
    cdef int n
    if (linear_of(e, eip) ^ va) >> PAGE_SHIFT == 0:
        return
    n = whole_before(e, eip, va & ~<uint64_t>PAGE_MASK)
    if e.split_eip == eip and n >= e.split_count:            # the engine went further than our decoder: fewer, down to
        n = e.split_count >> 1                               # the one instruction at `eip`, whose own fault it is
    if n > 0:
        e.split_eip = eip
        e.split_count = n
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = <uint32_t>n
        e.step_next = True
        cpu_loop_exit_noexc_x86_64(e.cpu)

cdef inline gva_t linear_of(Engine* e, uint64_t eip) noexcept nogil:
    return eip if env_bits(e.env) == 64 else (env_segment(e.env, SEG_CS).base + eip) & 0xffffffffULL

cdef inline bint fill_is_plain(Engine* e, int prot) noexcept nogil:
    """May the page go into the soft TLB without the engine's help?  It watches stores to pages that may execute."""
    return not e.portable and prot & (PROT_W | PROT_X) != PROT_W | PROT_X

cdef inline void exit_in_block(Engine* e) noexcept nogil:
    """An exit in the middle of a block may have taken the code's page from the modelled TLB, as all do where it is not
    tagged.  Blocks that are chained run without a lookup, so the next one makes it (invariant 3, blocks.pxd)."""
    if e.current[0].count and not page_is_held(e, e.current[0].pc):
        e.look_first = True
        settle(e)
        grant(e, 0)

cdef inline int smap_privilege(Engine* e, gva_t page, int mmu_idx) noexcept nogil:
    """Whose rights an access has.  Under a style that translates the engine does not know SMAP, so that one of its
    privileges is free for the monitor; a page that AC opens is dropped when AC is clear again (smap_closed)."""
    if mmu_idx != SUPERVISOR or not e.vcpu.paging.cr4 & CR4_SMAP:
        return mmu_idx
    if not env_u64(e.env, ENV_EFLAGS)[0] & FL_AC:
        return SUPERVISOR_SMAP
    if e.open_count < MAX_OPEN_PAGES:
        e.open_pages[e.open_count] = page
    e.open_count += 1
    return SUPERVISOR

cdef inline bint is_simulated(Engine* e, gva_t va, int access, int privilege) noexcept nogil:
    """Is it a retranslated instruction's write to a page that the shadow tables do not let it write?  The monitor has been called
    already, so the processor neither walks nor faults."""
    cdef Translation t
    return e.vcpu.ring.step and e.vcpu.shadowing and access == ACCESS_WRITE and \
        mmu_translate_quiet(e.mmu, &e.ram, walked(e.vcpu), va, access, privilege, False, &t) == XLAT_PAGE_FAULT

cdef inline bint cache_fill(Engine* e, gva_t va, int access, int mmu_idx, uintptr_t ra) noexcept nogil:
    """Translated code, or what its expansions read and write of the monitor's."""
    cdef Translation t
    cdef gva_t page = va & ~<uint64_t>PAGE_MASK
    cdef uint64_t before = e.ledger.total
    cdef int prot = PROT_X
    cdef int status = mmu_translate(e.mmu, &e.ram, e.ledger, &bt_of(e).context, va, access, SUPERVISOR, &t)
    drop_evicted(e, &t)
    spend(e, e.ledger.total - before)
    if status != XLAT_OK:                    # only with a state that was forged
        e.vcpu.stop_reason = STOP_ERROR
        e.stopping = True
        raise_exception_err_ra_x86_64(e.env, VEC_GP, 0, ra)
    if access == ACCESS_FETCH:
        frame_fetched(e, t.hpa >> PAGE_SHIFT)
    else:
        prot = t.prot & (PROT_R | PROT_W)
    soft_set(e.env, page, t.hpa & ~<uint64_t>PAGE_MASK, <char*>e.ram.base, prot, mmu_idx, t.fresh and access != ACCESS_FETCH)
    return True

cdef inline bint fill(void* cpu, uint64_t va, int size, int access, int mmu_idx, bint probe, uintptr_t ra) noexcept nogil:
    """CPUClass.tlb_fill.  Either installs a translation or leaves through the guest's #PF (longjmp)."""
    cdef Engine* e = (<Engine**>(cpu_env(<char*>cpu) + ENV_ENGINE))[0]
    cdef Translation t
    cdef uint64_t bytes = PAGE_SIZE
    cdef gva_t page = va & ~<uint64_t>PAGE_MASK
    cdef uint64_t before = e.ledger.total, exits = e.vcpu.exit_total, traced = e.world.shadow.count.traced_writes
    cdef int prot
    cdef int status, who = mmu_idx
    if access == ACCESS_FETCH and ra == 0 and env_flat_code(e.env):
        if e.step_next:
            env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 1
        cpu_loop_exit_noexc_x86_64(e.cpu)
    if e.style.translates and e.vcpu.ring.dropped:
        if in_cache(e) and (access == ACCESS_FETCH or mmu_idx == SUPERVISOR_SMAP):
            return cache_fill(e, va, access, mmu_idx, ra)
        who = smap_privilege(e, page, mmu_idx)
    status = XLAT_AGAIN
    if e.vcpu.ring.simulating and is_simulated(e, va, access, who):
        memset(&t, 0, sizeof(t))
        status = shadow_miss(e, va, size, access, who, &t)
    if status == XLAT_AGAIN:
        status = translate(e, va, size, access, who, &t)
    if e.world.shadow.count.traced_writes != traced and in_cache(e):
        cache_trapped(e, ra)
    if e.style.translates and e.world.shadow.code_writes and cache_written(e):
        e.redo = True                        # the running unit is overwritten: the monitor carries the store out
        raise_exception_err_ra_x86_64(e.env, VEC_GP, 0, ra)
    spend(e, e.ledger.total - before)
    if e.vcpu.exit_total != exits:
        exit_in_block(e)
    if status == XLAT_OK:
        if e.ram.caches is not NULL and access != ACCESS_FETCH and (t.source == FROM_L2 or t.source == FROM_WALK):
            data_line(e, t.hpa + (va & PAGE_MASK))
        if access == ACCESS_FETCH:
            prot = fill_fetch(e, &t, page, who)
        else:
            prot = fill_data(e, &t, va, access, who, &bytes)
            if t.once:
                bytes = 1
        if bytes == PAGE_SIZE and fill_is_plain(e, prot):
            soft_set(e.env, page, t.hpa, <char*>e.ram.base, prot, mmu_idx, t.fresh and access != ACCESS_FETCH)
        else:
            page_set(cpu, page, t.hpa, prot, mmu_idx, bytes)
        return True
    if status == XLAT_NO_RAM:
        if access == ACCESS_FETCH:           # nothing answers: the processor reads all ones
            page_set(cpu, page, e.void_page, PROT_X, mmu_idx, PAGE_SIZE)
        else:
            remember_mmio(e, va, ra)
            page_set(cpu, page, MMIO_BASE + (t.gpa & ~<uint64_t>PAGE_MASK), PROT_R | PROT_W, mmu_idx, 1)
        return True
    if probe:
        return False
    if status == XLAT_PAGE_FAULT:
        if access == ACCESS_FETCH and ra == 0:
            fault_of_block(e, va)
        env_u64(e.env, ENV_CR + 16)[0] = va
        raise_exception_err_ra_x86_64(e.env, VEC_PF, <int>t.pfec, ra)
    if status == XLAT_STOP:
        e.stopping = True                    # in the middle of an instruction: on_interrupt sees it
    elif access != ACCESS_FETCH:
        e.stray = va
    raise_exception_err_ra_x86_64(e.env, VEC_GP, 0, ra)
    return False
