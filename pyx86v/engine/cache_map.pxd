# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses in the translation cache and the guest's addresses that they stand for (vmm/bt/cache.pxd, vmm/bt/state.pxd).

A translated kernel's real RIP lies in the translation cache.  What looks at the guest wants the guest's RIP, and, inside an
expansion, the guest's values of the registers that the expansion uses.  `cache_leave` brings both, `cache_enter` goes back.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.softtlb cimport page_drop, soft_flush
from pyx86v.engine.ops cimport env_bits, ops_get, ops_set
from pyx86v.engine.state cimport *
from pyx86v.arch.cpu cimport REG_CR8
from pyx86v.devices.lapic cimport lapic_listens
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.mmu.mmu cimport PagingContext
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.cells cimport *
from pyx86v.vmm.bt.state cimport *
from pyx86v.vmm.guest cimport walked
from pyx86v.vmm.ring cimport Ring

cdef enum:
    BT_ASID = 0x7fff         # no guest's

ctypedef struct Place:       # what an offset in the code area stands for
    Unit* unit               # NULL: the dispatch stub, or nothing
    BtPart* part
    int number               # of the part
    int exit                 # number of the direct exit, or -1
    bint dead                # the start of a unit whose code was written: it leads to the monitor, or to another unit
    int insn                 # the guest instruction that is under way or next
    bint defined             # all registers are the guest's here, and its RIP is `eip`
    uint64_t eip

cdef inline Bt* bt_of(Engine* e) noexcept nogil:
    return <Bt*>e.world.style_state

cdef inline bint in_cache(Engine* e) noexcept nogil:
    """Does the processor run translated code now?"""
    return e.style.translates and e.vcpu.ring.real and e.vcpu.ring.cpl == 0

cdef inline uint64_t cache_base(Engine* e) noexcept nogil:
    return BT_BASE_64 if env_u32(e.env, ENV_HFLAGS)[0] & HF_CS64 else BT_BASE_32

cdef inline bint is_cache_address(Engine* e, uint64_t va) noexcept nogil:
    return va - cache_base(e) < BT_CACHE_BYTES

cdef inline PagingContext* fetched(Engine* e) noexcept nogil:
    """The context that code is fetched in."""
    return &bt_of(e).context if in_cache(e) else walked(e.vcpu)

cdef inline void place_find(Engine* e, uint64_t rip, Place* p) noexcept nogil:
    """What `rip` (real, in the code area) stands for.  The registers are not looked at."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t offset = rip - cache_base(e)
    cdef BtPart* parts
    cdef BtInsn* insns
    cdef BtExit* exits
    cdef int i
    cdef uint32_t at
    p.unit = NULL
    p.part = NULL
    p.dead = False
    p.exit = -1
    p.insn = 0
    p.number = 0
    p.defined = True
    p.eip = e.vcpu.ring.target
    if offset < DISPATCH_BYTES:
        return
    p.unit = unit_at(b, &e.ram, offset)
    if p.unit is NULL:
        p.unit = unit_of_stub(b, &e.ram, offset)
    if p.unit is NULL:
        return
    at = <uint32_t>offset - p.unit.code
    p.dead = at == 0 and p.unit.flags & UNIT_DEAD != 0
    p.eip = p.unit.eip
    parts = parts_of(b, &e.ram, p.unit)
    insns = insns_of(b, &e.ram, p.unit)
    exits = exits_of(b, &e.ram, p.unit)
    if parts is NULL or p.unit.n_parts == 0 or p.unit.n_insns == 0:
        p.unit = NULL
        return
    for i in range(1, p.unit.n_parts):
        if parts[i].start > at:
            break
        p.number = i
    p.part = &parts[p.number]
    for i in range(p.unit.n_exits):
        if exits[i].at == at + 1 and at >= insns[p.unit.n_insns - 1].code_end or p.part.flags & PART_EXIT and (exits[i].stub == at or exits[i].stub + 2 == at):
            p.exit = i                       # behind one's stub may lie the next one's
    if p.exit >= 0:
        p.insn = p.unit.n_insns
        p.eip = exits[p.exit].target
        return
    if p.part.flags & PART_EXIT:
        p.defined = False
        p.insn = p.unit.n_insns - 1
    elif p.part.kind == BT_COPIED:
        p.insn = p.part.insn
        for i in range(p.part.insn + 1, p.unit.n_insns):
            if insns[i].code > at:
                break
            p.insn = i
    else:
        p.insn = p.part.insn
    if p.insn >= p.unit.n_insns:
        p.insn = p.unit.n_insns - 1
    p.defined = insns[p.insn].code == at
    p.eip = p.unit.eip + insns[p.insn].offset
    if env_bits(e.env) != 64:
        p.eip &= 0xffffffffULL

cdef inline Unit* unit_behind(Engine* e, const Unit* u) noexcept nogil:
    """The unit further on in the page that `u` only jumps to because a unit has so many instructions, or NULL."""
    cdef Bt* b = bt_of(e)
    cdef const BtExit* x = exits_of(b, &e.ram, u)
    cdef const uint8_t* p
    cdef int32_t rel
    cdef Unit* v
    if u.n_exits != 1 or x is NULL or x.transfer != EXIT_PLAIN:
        return NULL
    p = ram_pointer(&e.ram, b.code + u.code + x.at - 1, 5)
    if p is NULL or x.at == 0 or p[0] != 0xe9:
        return NULL
    memcpy(&rel, p + 1, 4)
    v = unit_at(b, &e.ram, u.code + x.at + 4 + <int64_t>rel)
    if v is NULL or v.code != <uint32_t>(u.code + x.at + 4 + rel) or v.code <= u.code or (v.code + v.code_bytes ^ u.code) >> PAGE_SHIFT:
        return NULL
    return v

cdef inline Unit* unit_joined(Engine* e, const Unit* u) noexcept nogil:
    """The unit behind `u` that the engine makes one block of with it, or NULL.

    The jump between them is no place where the guest takes interrupts (parts.pxd).
    """
    cdef Unit* v = unit_behind(e, u)
    cdef const BtPart* first
    if v is NULL or (u.flags | v.flags) or v.space != u.space or v.mode != u.mode:
        return NULL
    first = parts_of(bt_of(e), &e.ram, v)
    return v if first is not NULL and first.kind != BT_CALLOUT and first.kind != BT_RDTSC else NULL

cdef inline uint64_t guest_linear(Engine* e, uint64_t rip) noexcept nogil:
    """Linear address of the guest's instruction that `rip` (real, in the code area) stands for."""
    cdef Place p
    place_find(e, rip, &p)
    return p.eip + (p.unit.pc - p.unit.eip if p.unit is not NULL else 0)

cdef inline void restore_saved(Engine* e, const BtPart* part) noexcept nogil:
    """Inside an expansion: the guest's registers that lie in cells."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t mask = ~<uint64_t>0 if cache_base(e) == BT_BASE_64 else 0xffffffffULL
    cdef uint64_t* gpr = env_u64(e.env, ENV_REGS)
    if part.saved & SAVED_RCX:
        gpr[RCX] = cell_of(b, &e.ram, CELL_RCX)[0] & mask
    if part.saved & SAVED_RDX:
        gpr[RDX] = cell_of(b, &e.ram, CELL_RDX)[0] & mask
    if part.saved & SAVED_RSP:
        gpr[RSP] = cell_of(b, &e.ram, CELL_RSP)[0] & mask

cdef inline bint place_shadowed(Engine* e, const Place* p) noexcept nogil:
    """Does STI come right before it?"""
    cdef BtInsn* insns
    if p.unit is NULL:
        return False
    if p.exit >= 0:
        return exits_of(bt_of(e), &e.ram, p.unit)[p.exit].transfer == EXIT_SHADOW
    insns = insns_of(bt_of(e), &e.ram, p.unit)
    return p.insn > 0 and insns is not NULL and insns[p.insn - 1].kind == BT_STI

cdef inline void cache_leave(Engine* e) noexcept nogil:
    """RIP and registers become the guest's.  Real state."""
    cdef Place p
    place_find(e, env_u64(e.env, ENV_EIP)[0], &p)
    if p.unit is not NULL and not p.defined and p.exit < 0:
        restore_saved(e, p.part)
    if place_shadowed(e, &p):
        env_u32(e.env, ENV_HFLAGS)[0] |= HF_INHIBIT_IRQ
    env_u64(e.env, ENV_EIP)[0] = p.eip

cdef inline bint has_fsgsbase(Engine* e) noexcept nogil:
    """Has the processor RDGSBASE and its like (SDM 2A, CPUID leaf 7, EBX bit 0)?"""
    return env_u32(e.env, ENV_FEATURES_7_EBX)[0] & 1 != 0

cdef inline uint32_t cache_mode(Engine* e, BtMode* m) noexcept nogil:
    """What a translation depends on, virtual state; packed for looking it up."""
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    cdef bint ss32 = ss.flags & (1 << 22) != 0
    m.bits = <uint8_t>env_bits(e.env)
    m.ss32 = ss32 or m.bits == 64
    m.ss_flat = m.bits == 64 or ss32 and ss.base == 0
    m.cs_flat = m.bits == 64 or env_segment(e.env, SEG_CS).base == 0
    m.smap = e.vcpu.paging.cr4 & CR4_SMAP != 0
    m.fsgsbase = env_u64(e.env, ENV_CR)[4] & CR4_FSGSBASE != 0
    m.swapgs = has_fsgsbase(e)
    m.compatibility = m.bits != 64 and env_u32(e.env, ENV_HFLAGS)[0] & HF_LMA != 0
    m.cs = <uint16_t>env_segment(e.env, SEG_CS).selector
    m.n_no_inline = m.n_stop_before = 0
    return <uint32_t>m.cs << 16 | <uint32_t>(m.bits >> 4) | <uint32_t>m.ss32 << 4 | <uint32_t>m.ss_flat << 5 | \
        <uint32_t>m.cs_flat << 6 | <uint32_t>m.smap << 7 | <uint32_t>m.compatibility << 8 | <uint32_t>m.fsgsbase << 9

cdef inline uint64_t cache_pc(Engine* e, uint64_t eip) noexcept nogil:
    """Linear address of the guest's `eip`, virtual state."""
    return eip if env_bits(e.env) == 64 else (env_segment(e.env, SEG_CS).base + eip) & 0xffffffffULL

cdef inline void context_fill(Engine* e, Bt* b) noexcept nogil:
    """The monitor's region as the processor walks it: by tables of the monitor's, under a tag of its own."""
    cdef PagingContext* c = &b.context
    cdef bint is_long = env_u32(e.env, ENV_HFLAGS)[0] & HF_LMA != 0
    c.cr0 = CR0_PG | CR0_WP | CR0_PE
    c.cr4 = CR4_PAE | CR4_PGE
    c.efer = EFER_NXE | (EFER_LME | EFER_LMA if is_long else 0)
    c.cr3 = b.tables
    c.pdpte[3] = (b.tables + 8192) | PTE_P
    c.asid = BT_ASID
    c.maxphyaddr = e.vcpu.paging.maxphyaddr
    c.mode = PAGING_LONG if is_long else PAGING_PAE
    c.window.base = 0
    c.window.size = e.ram.size
    c.window.a20_mask = ~<uint64_t>0

cdef inline void cells_fill(Engine* e, uint32_t key) noexcept nogil:
    """What translated code reads of the guest's state, whose packed mode is `key`.  Virtual state."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t flags = env_u64(e.env, ENV_EFLAGS)[0]
    cdef uint64_t* cr = env_u64(e.env, ENV_CR)
    cell_of(b, &e.ram, CELL_IF)[0] = flags & FL_IF
    cell_of(b, &e.ram, CELL_IOPL)[0] = flags & FL_IOPL
    cell_of(b, &e.ram, CELL_CR0)[0] = cr[0]
    cell_of(b, &e.ram, CELL_CR2)[0] = cr[2]
    cell_of(b, &e.ram, CELL_CR3)[0] = cr[3]
    cell_of(b, &e.ram, CELL_CR4)[0] = cr[4]
    cell_of(b, &e.ram, CELL_CR8)[0] = ops_get(&e.ops, REG_CR8)
    cell_of(b, &e.ram, CELL_SS)[0] = env_segment(e.env, SEG_SS).selector & 0xffff
    cell_of(b, &e.ram, CELL_GS_OTHER)[0] = env_u64(e.env, ENV_KERNEL_GS_BASE)[0]
    cell_of(b, &e.ram, CELL_CR8_HOLD)[0] = lapic_listens(&e.world.platform.lapic, e.world.platform.ioapic.low, 24)
    context_fill(e, b)
    if b.mode != key:
        if key & 7 != b.mode & 7:
            b.published = RECENT + 1         # the empty places look otherwise, too
        b.mode = key
        b.bits = 64 if key & 7 == 4 else 32
        lookup_clear(b, &e.ram)

cdef inline void smap_closed(Engine* e) noexcept nogil:
    """EFLAGS.AC is clear: what the supervisor was shown of the user's while it was set goes (fill.pxd)."""
    cdef int i
    if e.open_count == 0 or env_u64(e.env, ENV_EFLAGS)[0] & FL_AC:
        return
    if e.open_count > MAX_OPEN_PAGES:
        soft_flush(e.cpu)
    else:
        for i in range(e.open_count):
            page_drop(e.cpu, e.open_pages[i])
    e.open_count = 0

cdef inline bint unit_is_current(Engine* e, const Unit* u) noexcept nogil:
    """A unit whose frame is not traced: are the guest's bytes still those that were translated?"""
    cdef Bt* b = bt_of(e)
    cdef const uint8_t* kept = guest_of(b, &e.ram, u)
    cdef uint64_t offset = u.pc & PAGE_MASK, here = min(<uint64_t>u.guest_bytes, PAGE_SIZE - offset)
    cdef const uint8_t* p
    if not u.flags & UNIT_CHECKED:
        return True
    if kept is NULL or u.gfn == NO_GFN or u.gfn2 == NO_GFN:
        return False
    p = ram_pointer(&e.ram, window_hpa(&e.world.window, (u.gfn << 12) + offset), here)
    if p is NULL or memcmp(p, kept, here) != 0:
        return False
    if here == u.guest_bytes:
        return True
    p = ram_pointer(&e.ram, window_hpa(&e.world.window, u.gfn2 << 12), u.guest_bytes - here)
    return p is not NULL and memcmp(p, kept + here, u.guest_bytes - here) == 0
