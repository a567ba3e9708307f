# SPDX-License-Identifier: GPL-2.0-or-later
"""The two states of a deprivileged guest (vmm/ring.pxd), and the way from one to the other.

Every hook brings the virtual state (`to_virtual`) before anybody looks, and the real one (`to_real`) before the guest goes
on; so everything else works as for a guest in ring 0.  An instruction that trapped is either one that the engine intercepts
under every style, and becomes the same event; or it runs once more, alone, in the virtual state (`ring_step`): the engine
does exactly what it does natively, faults included.  That the step is done is seen before the next block is looked up
(`ring_stepped`), or when it starts (`ring_block`).

The real state: CPL 1 in place of 0 (paging's view of a supervisor, and another one than the user's), a GDT and an IDT that
are empty, so that every segment load, IRET and far transfer traps; IF set and IOPL 0; CR4.TSD and CR0.WP set (in translated
code CR4.FSGSBASE instead of TSD).
Invariants
1. A machine that does not run is in the virtual state.
2. The kernel's CS and SS change in hooks only: whatever loads them traps, or is taken before it runs (hole.pxd).
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.arch.decode cimport Insn
from pyx86v.arch.regs cimport *
from pyx86v.cost.ledger cimport charge_block
from pyx86v.engine.breakpoints cimport RESUME_NOT
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.cache_space cimport cache_enter
from pyx86v.engine.budget cimport grant, settle, spend, units_before
from pyx86v.engine.fill cimport page_is_held
from pyx86v.engine.intercept cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.lookup cimport shortcuts_check
from pyx86v.engine.operands cimport fetch_insn, linear_rip
from pyx86v.engine.ops cimport env_bits, env_cpl, env_flat_code, env_update_hflags
from pyx86v.engine.softtlb cimport soft_flush
from pyx86v.engine.state cimport *
from pyx86v.mmu.shadow cimport shadow_write_ended
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.ring cimport *
from pyx86v.vmm.trap.kinds cimport *

cdef extern from *:
    """
    #define PYX_MONITOR_32 0xffc00000ULL
    #define PYX_MONITOR_64 0xffffffffffc00000ULL
    """
    const uint64_t MONITOR_32 "PYX_MONITOR_32"     # where the monitor's tables lie: the top 4 MiB of each address space
    const uint64_t MONITOR_64 "PYX_MONITOR_64"

cdef enum:
    MONITOR_TSS = 0x8        # selectors of the monitor
    MONITOR_IDT = 0x1000     # offset
    RPL = 3
    DPL = 3 << 13
    FLAT_CODE = 0xc09b00     # present, S, readable code, accessed, 32-bit, 4 KiB granularity
    FLAT_DATA = 0xc09300

# The states -----------------------------------------------------------------------------------

cdef inline void keep_segment(Segment* to, const EnvSegment* s) noexcept nogil:
    to.base = s.base
    to.limit = s.limit
    to.selector = <uint16_t>s.selector
    to.flags = s.flags

cdef inline void put_segment(EnvSegment* to, const Segment* s) noexcept nogil:
    to.base = s.base
    to.limit = s.limit
    to.selector = s.selector
    to.flags = s.flags

cdef inline void in_ring_1(EnvSegment* s) noexcept nogil:
    s.selector = (s.selector & ~<uint32_t>RPL) | 1
    s.flags = (s.flags & ~<uint32_t>DPL) | 1 << 13

cdef inline void monitor_tables(Engine* e) noexcept nogil:
    """The monitor's GDT, IDT, LDT and task register.  TR keeps the guest's base, where an IRET with NT set looks before it
    finds that there is no such task."""
    cdef uint64_t base = MONITOR_64 if env_u32(e.env, ENV_HFLAGS)[0] & HF_LMA else MONITOR_32
    cdef EnvSegment* ldt = env_segment(e.env, SEG_LDTR)
    env_segment(e.env, 8).base = base
    env_segment(e.env, 8).limit = 0
    env_segment(e.env, 9).base = base + MONITOR_IDT
    env_segment(e.env, 9).limit = 0
    ldt.selector = 0
    ldt.base = 0
    ldt.limit = 0
    ldt.flags = 0
    env_segment(e.env, SEG_TR).selector = MONITOR_TSS

cdef inline void monitor_segments(Engine* e, bint wide) noexcept nogil:
    """Translated code has the monitor's flat CS, and outside 64-bit mode its flat GS (vmm/bt/cells.pxd)."""
    cdef EnvSegment* cs = env_segment(e.env, SEG_CS)
    cdef EnvSegment* gs = env_segment(e.env, SEG_GS)
    if wide:
        return
    keep_segment(&e.vcpu.ring.gs, gs)
    cs.base = gs.base = 0
    cs.limit = gs.limit = 0xffffffffU
    cs.flags = FLAT_CODE | 1 << 13
    gs.flags = FLAT_DATA | 1 << 13

cdef inline void put_real(Engine* e) noexcept nogil:
    """The registers of the real state, but for RIP."""
    cdef Ring* r = &e.vcpu.ring
    cdef uint64_t* flags = env_u64(e.env, ENV_EFLAGS)
    cdef uint64_t* cr = env_u64(e.env, ENV_CR)
    cdef bint wide
    r.real = True
    r.callout = False
    r.cpl = <uint32_t>env_cpl(e.env)
    keep_segment(&r.cs, env_segment(e.env, SEG_CS))
    keep_segment(&r.ss, env_segment(e.env, SEG_SS))
    keep_segment(&r.ldtr, env_segment(e.env, SEG_LDTR))
    keep_segment(&r.tr, env_segment(e.env, SEG_TR))
    r.gdtr_base = env_segment(e.env, 8).base
    r.gdtr_limit = env_segment(e.env, 8).limit
    r.idtr_base = env_segment(e.env, 9).base
    r.idtr_limit = env_segment(e.env, 9).limit
    r.flags = flags[0] & (FL_IF | FL_IOPL)
    r.cr0 = cr[0]
    r.cr4 = cr[4]
    monitor_tables(e)
    flags[0] = (flags[0] & ~<uint64_t>FL_IOPL) | FL_IF
    cr[0] |= CR0_WP
    cr[4] |= CR4_TSD
    if r.cpl == 0:
        in_ring_1(env_segment(e.env, SEG_CS))
        in_ring_1(env_segment(e.env, SEG_SS))
        if e.style.translates:
            wide = env_bits(e.env) == 64
            cr[4] &= ~<uint64_t>CR4_TSD
            if has_fsgsbase(e):
                cr[4] |= CR4_FSGSBASE        # translations of SWAPGS use it; the guest's own are none unless it has set it
            monitor_segments(e, wide)
        env_update_hflags(e.env)
    if e.style.translates:
        env_u32(e.env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_SMAP      # fill.pxd enforces it

cdef inline void to_real(Engine* e) noexcept nogil:
    """The guest is about to run: from the virtual state to the real one."""
    env_flat_code(e.env)
    if e.style.translates:
        smap_closed(e)
        if env_cpl(e.env) == 0:
            cache_enter(e)
            shortcuts_check(e)
    put_real(e)

cdef inline void take_cells(Engine* e) noexcept nogil:
    """What translated code has changed of the guest's state without a word."""
    cdef Ring* r = &e.vcpu.ring
    cdef Bt* b = bt_of(e)
    cdef Place p
    cdef uint64_t cr8 = cell_of(b, &e.ram, CELL_CR8)[0] & 15
    r.flags = (cell_of(b, &e.ram, CELL_IF)[0] & FL_IF) | (cell_of(b, &e.ram, CELL_IOPL)[0] & FL_IOPL)
    if cr8 != ops_get(&e.ops, REG_CR8):
        ops_set(&e.ops, REG_CR8, cr8)
    env_u64(e.env, ENV_KERNEL_GS_BASE)[0] = cell_of(b, &e.ram, CELL_GS_OTHER)[0]
    if not env_u32(e.env, ENV_HFLAGS)[0] & HF_CS64:
        put_segment(env_segment(e.env, SEG_GS), &r.gs)
    if is_cache_address(e, env_u64(e.env, ENV_FPIP)[0]):     # FXSAVE and its like show it
        place_find(e, env_u64(e.env, ENV_FPIP)[0], &p)
        env_u64(e.env, ENV_FPIP)[0] = p.eip

cdef inline void x87_selector(Engine* e) noexcept nogil:
    """An x87 instruction of the kernel noted CS as it was in ring 1, for FNSTENV and FNSAVE to show."""
    cdef uint16_t* noted = env_u16(e.env, ENV_FPCS)
    if noted[0] == env_segment(e.env, SEG_CS).selector:
        noted[0] = <uint16_t>e.vcpu.ring.cs.selector

cdef inline void to_virtual(Engine* e) noexcept nogil:
    """Something happened: from the real state to the virtual one.  Nothing to do when it is there already."""
    cdef Ring* r = &e.vcpu.ring
    cdef uint64_t* flags = env_u64(e.env, ENV_EFLAGS)
    if not r.real:
        return
    if in_cache(e):
        cache_leave(e)
        take_cells(e)
    r.real = False
    put_segment(env_segment(e.env, SEG_LDTR), &r.ldtr)
    put_segment(env_segment(e.env, SEG_TR), &r.tr)
    env_segment(e.env, 8).base = r.gdtr_base
    env_segment(e.env, 8).limit = r.gdtr_limit
    env_segment(e.env, 9).base = r.idtr_base
    env_segment(e.env, 9).limit = r.idtr_limit
    flags[0] = (flags[0] & ~<uint64_t>(FL_IF | FL_IOPL)) | r.flags
    env_u64(e.env, ENV_CR)[0] = r.cr0
    env_u64(e.env, ENV_CR)[4] = r.cr4
    if r.cpl == 0:
        x87_selector(e)
        put_segment(env_segment(e.env, SEG_CS), &r.cs)
        put_segment(env_segment(e.env, SEG_SS), &r.ss)
        env_update_hflags(e.env)

# Looking without moving: translated code may be in the middle of an expansion -----------------------

ctypedef struct Peek:
    bint real
    uint64_t eip             # the real ones
    uint64_t rcx
    uint64_t rdx
    uint64_t rsp
    uint64_t seen            # the virtual RIP

cdef inline void ring_peek(Engine* e, Peek* k) noexcept nogil:
    """The virtual state, for somebody who looks; ring_back follows, or the guest goes on elsewhere."""
    cdef uint64_t* gpr = env_u64(e.env, ENV_REGS)
    k.real = e.vcpu.ring.real
    k.eip = env_u64(e.env, ENV_EIP)[0]
    k.rcx = gpr[RCX]
    k.rdx = gpr[RDX]
    k.rsp = gpr[RSP]
    to_virtual(e)
    k.seen = env_u64(e.env, ENV_EIP)[0]

cdef inline void ring_back(Engine* e, const Peek* k) noexcept nogil:
    """Back to the real state where it was, if that is where the guest still is."""
    cdef uint64_t* gpr = env_u64(e.env, ENV_REGS)
    cdef BtMode mode
    if not k.real:
        return
    if not e.style.translates or env_cpl(e.env) != 0 or env_u64(e.env, ENV_EIP)[0] != k.seen:
        to_real(e)
        return
    cells_fill(e, cache_mode(e, &mode))
    put_real(e)
    env_u32(e.env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_INHIBIT_IRQ
    env_u64(e.env, ENV_EIP)[0] = k.eip
    gpr[RCX] = k.rcx
    gpr[RDX] = k.rdx
    gpr[RSP] = k.rsp

cdef inline bint ring_wanted(Engine* e) noexcept nogil:
    """The kernel has paging, a GDT and an IDT of its own: it can be deprivileged.  Translated, it needs none of them, but
    protected mode.  Virtual state."""
    cdef Ring* r = &e.vcpu.ring
    if e.style.translates:
        return env_u64(e.env, ENV_CR)[0] & CR0_PE != 0
    return env_u64(e.env, ENV_CR)[0] & CR0_PG != 0 and \
        env_segment(e.env, 8).base + env_segment(e.env, 8).limit != r.boot_gdtr and \
        env_segment(e.env, 9).base + env_segment(e.env, 9).limit != r.boot_idtr

# Around hooks ---------------------------------------------------------------------------------

cdef inline bint wants_steps(Engine* e) noexcept nogil:
    """Must the monitor carry out the guest's next kernel instruction alone?  In the shadow of STI or MOV SS, with a trap flag
    or a breakpoint register, or when a user steps."""
    return env_u32(e.env, ENV_HFLAGS)[0] & HF_INHIBIT_IRQ != 0 or env_u64(e.env, ENV_EFLAGS)[0] & FL_TF != 0 or \
        env_u64(e.env, ENV_DR + 56)[0] & 0xff != 0 or e.stepping

cdef inline void drop_in(Engine* e) noexcept nogil:
    """To the real state; a kernel that is translated may have to be stepped instead."""
    cdef Insn d
    if e.style.translates and env_cpl(e.env) == 0 and wants_steps(e):
        fetch_insn(e, env_u64(e.env, ENV_EIP)[0], &d)
        ring_step_first(e, callout_kind(&d), env_u64(e.env, ENV_EIP)[0], d.length)
        return
    to_real(e)

cdef inline void ring_resume(Engine* e) noexcept nogil:
    """An event of an instruction is over: choose the ring anew, unless one instruction is to run in the virtual state."""
    cdef Ring* r = &e.vcpu.ring
    cdef bint wanted
    if not e.style.deprivileged or r.step or r.real:
        return
    wanted = ring_wanted(e)
    if e.style.translates and wanted != r.dropped:
        soft_flush(e.cpu)              # one of its privileges changes its meaning (fill.pxd)
    r.dropped = wanted
    tables_intercepted(e)
    if r.dropped:
        drop_in(e)

cdef inline void ring_go_on(Engine* e) noexcept nogil:
    """The guest goes on as it was: in the middle of a block, or at a block's start."""
    cdef Ring* r = &e.vcpu.ring
    if r.dropped and not r.real and not r.step:
        drop_in(e)

cdef inline int ring_poll(Engine* e) noexcept nogil:
    """Let Python look at signals; their handlers may look at the machine."""
    cdef Peek k
    cdef int result
    ring_peek(e, &k)
    result = e.poll(e.owner)
    ring_back(e, &k)
    return result

cdef inline void arm_step(Engine* e) noexcept nogil:
    """The next block is one instruction, and takes the slow path."""
    settle(e)
    grant(e, 0)
    env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 1
    e.step_next = True

cdef inline void ring_start(Engine* e) noexcept nogil:
    """A block is about to be looked up without an event before it: a run begins, or a block was left before it ran."""
    if e.vcpu.ring.step:
        arm_step(e)
    else:
        ring_go_on(e)

# One instruction in the virtual state ------------------------------------------------------------

cdef inline void ring_step(Engine* e, int kind, uint64_t rip, int length) noexcept nogil:
    """Ask the style about the instruction that trapped, and have it run alone in the virtual state."""
    cdef Event ev
    event_init(&ev, EV_TRAP)
    ev.rip = rip
    ev.detail = kind
    ev.length = length
    e.vcpu.ring.simulating = kind == TRAP_TABLE_WRITE
    if e.style.handlers[EV_TRAP](&e.guest, &ev) != 0:
        e.stopping = True
        return
    if env_bits(e.env) != 64:
        env_u64(e.env, ENV_EIP)[0] &= 0xffffffffULL          # it may lie behind one that ends where the segment does
    e.vcpu.ring.step = True
    e.resuming = RESUME_NOT
    tables_intercepted(e)
    e.current[0] = &e.closed_end
    arm_step(e)

cdef inline void ring_step_first(Engine* e, int kind, uint64_t rip, int length) noexcept nogil:
    """The same for a translated kernel's instruction that has not begun: an interrupt may come before it, if what lies before ended so."""
    cdef bint open_ = e.current[0].flags & REC_TRANSFER != 0
    e.vcpu.ring.callout = True
    ring_step(e, kind, rip, length)
    if open_:
        e.current[0] = &e.open_end

cdef inline void step_done(Engine* e) noexcept nogil:
    """The instruction of the step has run.  The guest's processor did not execute it, the monitor did: its price is unbooked."""
    cdef Ring* ring = &e.vcpu.ring
    cdef const BlockRecord* done = e.current[0]
    settle(e)
    charge_block(e.ledger, -<int64_t>units_before(e, done, done.count), 0)
    ring.step = False
    if ring.simulating:
        ring.simulating = False
        shadow_write_ended(&e.world.shadow, e.mmu, &e.ram, e.ledger, &e.vcpu.paging, &e.vcpu.hardware)
    ring_resume(e)

cdef inline bint ring_stepped(Engine* e) noexcept nogil:
    """The engine is about to look a block up.  True: the step before it is done, and RIP is in the state in which the guest goes on.

    So no block is translated and looked up for the virtual state that never runs.  Where that lookup could take a
    walk, or the engine has something else in mind (a restart, a stop), ring_block sees the end of the step.
    """
    cdef const BlockRecord* done = e.current[0]
    cdef uint64_t eip = env_u64(e.env, ENV_EIP)[0], pc = linear_rip(e, eip)
    if not e.vcpu.ring.step or e.step_next or e.stopping or env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] != 0xffffffffU or done.count == 0 or \
            (pc ^ done.pc) >> PAGE_SHIFT or not page_is_held(e, pc) or (eip >> 32 and env_bits(e.env) != 64):
        return False
    step_done(e)
    ring_start(e)
    return True

cdef inline bint ring_block(Engine* e, const BlockRecord* r) noexcept nogil:
    """A block is about to run.  True: leave it, because the step before it is done, or to have it cut before a hole."""
    cdef Ring* ring = &e.vcpu.ring
    cdef int n
    if ring.step and not e.step_next and not r.flags & REC_RESTART:
        env_u64(e.env, ENV_EIP)[0] = r.eip       # chained blocks do not keep it
        step_done(e)
        return True
    if ring.step:
        env_u32(e.cpu, CPU_INTERRUPT_REQUEST)[0] |= REQUEST_ANY       # asks for ring_stepped
    if r.flags & REC_CUT and ring.real:
        env_u64(e.env, ENV_EIP)[0] = r.eip
        n = 1
        while not e.marks[r.first_mark + n].flags & MARK_HOLE:
            n += 1
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = <uint32_t>n
        e.step_next = True
        return True
    return False

cdef inline int intercept_code(int kind, const Insn* d) noexcept nogil:
    """The intercept that the instruction has in ring 0 under every style (intercept.pxd), or -1."""
    if kind == TRAP_CR_READ:
        return SVM_CR_READ + d.reg if d.reg == 3 or d.reg == 8 else -1
    if kind == TRAP_CR_WRITE:
        if d.opcode != 0x22:
            return SVM_CR_WRITE
        return SVM_CR_WRITE + d.reg if d.reg == 0 or d.reg == 3 or d.reg == 4 or d.reg == 8 else -1
    if kind == TRAP_MSR:
        return SVM_MSR
    if kind == TRAP_RDTSC:
        return SVM_RDTSC
    if kind == TRAP_HLT:
        return SVM_HLT
    if kind == TRAP_INVLPG:
        return SVM_INVLPG
    if kind == TRAP_CACHE:
        return SVM_INVD if d.opcode == 0x08 else SVM_WBINVD
    return -1

cdef inline bint ring_takes(Engine* e, uint32_t* number, uint64_t rip, bint software) noexcept nogil:
    """The INTR hook's number (`software`: of INT n), seen from the monitor of a deprivileged guest; brings the virtual state.

    True: the instruction runs again in the virtual state.  False: an event as under every style, by `number`, which
    becomes an intercept's where the instruction has one in ring 0.
    """
    cdef Ring* r = &e.vcpu.ring
    cdef bint real = r.real
    cdef Insn d
    cdef int kind, code
    to_virtual(e)
    if number[0] == 0x100 + SVM_IDTR_WRITE or number[0] == 0x100 + SVM_GDTR_WRITE:
        fetch_insn(e, rip, &d)
        ring_step(e, TRAP_TABLES, rip, d.length)
        return True
    if not real or software or not (VEC_TS <= number[0] <= VEC_GP or number[0] == VEC_UD):
        return False
    fetch_insn(e, rip, &d)
    kind = trap_kind(&d)
    if number[0] == VEC_UD and kind != TRAP_AC:
        return False
    code = -1
    if not d.lock and (r.cpl == 0 or (kind == TRAP_RDTSC and not r.cr4 & CR4_TSD)):
        code = intercept_code(kind, &d)
    if code >= 0:
        number[0] = <uint32_t>(0x100 + code)
        return False
    ring_step(e, kind, rip, d.length)
    return True

cdef inline void ring_syscall(Engine* e) noexcept nogil:
    """SYSCALL and SYSENTER enter the monitor, which enters the guest's kernel.  In the middle of a block."""
    cdef Event ev
    cdef uint64_t before = e.ledger.total
    if not e.style.deprivileged:
        return
    to_virtual(e)
    event_init(&ev, EV_SYSCALL)
    ev.rip = env_u64(e.env, ENV_EIP)[0]
    if e.style.handlers[EV_SYSCALL](&e.guest, &ev) != 0:
        e.stopping = True
    spend(e, e.ledger.total - before)
