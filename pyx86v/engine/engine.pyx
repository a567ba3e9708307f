# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine: the only code that runs Unicorn.  Hooks turn what happens into events and carry verdicts out.

Paths through this file
    a block starts      -> block_slow, when the budget is used up or the block is new
    a translation lacks -> fill.pxd
    INTR hook           -> on_interrupt: exception, INT n or intercept -> event -> style -> verdict
    invalid instruction -> on_invalid
    IN, OUT, MMIO       -> ports.pxd
    stops, time, limits -> limits.pxd
    SYSCALL, SYSENTER   -> syscall.pxd
Nothing here takes the GIL (but for the signal poll), allocates, or raises.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.cost.ledger cimport IDLE, UNITS_PER_CYCLE, charge_units
from pyx86v.devices.platform cimport platform_advance, platform_irq
from pyx86v.engine.access cimport *
from pyx86v.engine.blocks cimport *
from pyx86v.engine.branches cimport branch_seen
from pyx86v.engine.breakpoints cimport *
from pyx86v.engine.budget cimport *
from pyx86v.engine.cache_blocks cimport price_pieces
from pyx86v.engine.cache_kill cimport cache_written
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.census cimport census_block
from pyx86v.engine.datacache cimport on_data
from pyx86v.engine.deliver cimport *
from pyx86v.engine.descriptors cimport has_error_code, load_flat, set_cpl
from pyx86v.engine.hole cimport ring_hole
from pyx86v.engine.fill cimport fill
from pyx86v.engine.inline cimport *
from pyx86v.engine.intercept cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.limits cimport *
from pyx86v.engine.operands cimport fetch_insn, linear_rip
from pyx86v.engine.ops cimport *
from pyx86v.engine.portable cimport portable_find, portable_forget, record_slot
from pyx86v.engine.lookup cimport find_code, shortcuts_follow
from pyx86v.engine.parts cimport part_limits, parts_attach
from pyx86v.engine.ports cimport *
from pyx86v.engine.price cimport only_counts, price_block, stretch_stays
from pyx86v.engine.ring cimport *
from pyx86v.engine.softtlb cimport page_drop, soft_flush
from pyx86v.engine.state cimport *
from pyx86v.engine.stray cimport stray_vector
from pyx86v.engine.syscall cimport do_syscall, do_sysenter
from pyx86v.engine.task cimport FAR_FAULT, FAR_RUN, far_done, far_step, style_switch_task, task_possible
from pyx86v.engine.translated cimport *
from pyx86v.engine.uc cimport *
from pyx86v.vmm.bt.state cimport BtTranslator
from pyx86v.vmm.bt.translate cimport bt_translator_init
from pyx86v.mmu.cache cimport CACHES_FULL
from pyx86v.vmm.clock cimport guest_time, units_until
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_written

cdef extern from *:
    """
    #define PYX_RETURN_ADDRESS ((uintptr_t)__builtin_return_address(0))
    """
    uintptr_t RETURN_ADDRESS "PYX_RETURN_ADDRESS"

cdef enum:
    IDLE_TURNS = 16          # starts of the engine without a block that runs: it will not run any

cdef BtTranslator TRANSLATOR     # tables
cdef PyxHelperInfo EXIT_CHECK    # the exit check without side effects: the same for every engine

# Delivery -------------------------------------------------------------------------------------

cdef bint carry_out(Engine* e, Event* ev, uint64_t next_rip) noexcept nogil:
    """Deliver what a REFLECT asks for.  `next_rip` is pushed for traps and interrupts, ev.rip for faults."""
    cdef Attempt d
    d.vector = ev.vector
    d.error = ev.error
    d.has_error = ev.has_error and env_u32(e.env, ENV_HFLAGS)[0] & HF_PE != 0
    d.kind = ev.delivery
    d.rip = ev.rip if ev.delivery == DELIVER_EXCEPTION else next_rip
    e.fault_rip = next_rip if ev.delivery == DELIVER_EXTERNAL else ev.rip
    if deliver(e, &d):
        e.current[0] = &e.open_end
        return True
    if not e.stopping:
        triple_fault(e)
    return False

cdef void triple_fault(Engine* e) noexcept nogil:
    cdef Event ev
    event_init(&ev, EV_TRIPLE_FAULT)
    e.style.handlers[EV_TRIPLE_FAULT](&e.guest, &ev)
    stop(e, STOP_SHUTDOWN, 0)

cdef bint offer_interrupt(Engine* e, uint64_t rip, bint shadow) noexcept nogil:
    """INTR is up at an instruction boundary.  True: it was delivered and RIP is the handler's."""
    cdef Event ev
    cdef int verdict
    cdef Peek k
    ring_peek(e, &k)
    event_init(&ev, EV_INTERRUPT)
    if e.style.translates:
        rip = env_u64(e.env, ENV_EIP)[0]
    ev.rip = rip
    ev.open = env_u64(e.env, ENV_EFLAGS)[0] & FL_IF != 0 and not shadow
    verdict = e.style.handlers[EV_INTERRUPT](&e.guest, &ev)
    if verdict == REFLECT:
        e.vcpu.halted = False
        if e.vcpu.ring.step:
            e.vcpu.ring.step = e.step_next = False     # of an instruction that has not begun
        carry_out(e, &ev, rip)
        refresh_due(e)
        return True
    if verdict == STOP:
        e.stopping = True
    ring_back(e, &k)
    return False

cdef void far_transfer(Engine* e, BlockRecord* r) noexcept nogil:
    """A block that ends in a far transfer: returns when the engine is to run it."""
    cdef Fault f
    cdef int done = far_step(e, r, &f)
    if done == FAR_RUN:
        return
    e.vcpu.lead = 0
    if done == FAR_FAULT:
        raise_fault(e, e.fault_rip, &f)
        far_done(e)
    leave_block(e, env_u64(e.env, ENV_EIP)[0])

# The slow path of a block ---------------------------------------------------------------------

cdef uint64_t guest_pc(Engine* e, const BlockRecord* r) noexcept nogil:
    """Linear address of the guest's code that begins here."""
    return guest_linear(e, r.pc) if r.translated else r.pc

cdef inline void price_any(Engine* e, BlockRecord* r) noexcept nogil:
    if r.translated:
        e.vcpu.lead = 0
        price_pieces(e, r)
    else:
        price_block(e, r)

cdef void block_enter(Engine* e, BlockRecord* r) noexcept nogil:
    """A block is about to run and the budget does not cover it: the one place where time is looked at.

    The budget has just been reduced by the block's cost; that is undone first.  Leaves by
    longjmp when the block must not run, else returns with the block booked.
    """
    cdef bint pending = False, open_boundary
    cdef uint64_t now
    e.slow_paths += 1
    if r.translated:
        env_u64(e.env, ENV_EIP)[0] = r.eip       # chained blocks do not keep it
        if r.translated == TRANSLATED_INSIDE:
            settle(e)
            price_pieces(e, r)
            grant(e, 0)
            e.budget[0] -= r.true_cost
            if e.audit:
                census_block(e, r)
            return
    if env_flat_code(e.env):
        stay_cut(e, r)
        leave_block(e, env_u64(e.env, ENV_EIP)[0])
    if e.style.deprivileged and ring_block(e, r):
        leave_block(e, env_u64(e.env, ENV_EIP)[0])
    if e.resuming == RESUME_RUNS and resumed(e, r):
        leave_block(e, r.eip)
    if r.flags & REC_RESTART and not e.step_next:
        stretch_stays(e)
        give_back(e, r.eip)                  # the engine changed its own block and runs one instruction of it again
        e.current[0] = &e.closed_end
    settle(e)
    if e.flush_blocks or e.rearm:
        records_clear(e)
        if e.rearm and e.style.translates:
            forget_translations(e)
        breakpoints_arm(e, NEVER)
        e.current[0] = &e.open_end if e.current[0].flags & REC_TRANSFER else &e.closed_end
        leave_block(e, r.eip)
    if e.stopping or over_limit(e):
        leave_block(e, r.eip)
    if r.flags & REC_STRADDLE and e.looked_up is not r and not page_is_held(e, r.pc + r.size - 1):
        e.looked_up = r                  # once: a TLB too small for both pages never holds them
        page_drop(e.cpu, (r.pc + r.size - 1) & ~<uint64_t>PAGE_MASK)
        stay_cut(e, r)
        leave_block(e, r.eip)
    e.looked_up = NULL
    if e.look_first:
        e.look_first = False
        if e.look_again or not page_is_held(e, r.pc):
            e.look_again = False
            page_drop(e.cpu, r.pc & ~<uint64_t>PAGE_MASK)
            stay_cut(e, r)
            leave_block(e, r.eip)
    if e.breakpoint_count and not e.step_next and at_breakpoint(e, guest_pc(e, r)):
        stop(e, STOP_BREAKPOINT, 0)
        leave_block(e, r.eip)
    open_boundary = e.current[0].flags & REC_TRANSFER != 0
    if e.due != NEVER and open_boundary:     # which every style has at the same places
        now = guest_time(&e.guest)
        if now >= e.due:
            platform_advance(&e.world.platform, e.guest.sinks, now)
            refresh_due(e)
    if platform_irq(&e.world.platform):
        pending = True
        if open_boundary and offer_interrupt(e, r.eip, env_u32(e.env, ENV_HFLAGS)[0] & HF_INHIBIT_IRQ != 0):
            leave_block(e, env_u64(e.env, ENV_EIP)[0])
        if e.stopping:
            leave_block(e, r.eip)
    elif e.vcpu.line_seen:
        e.vcpu.line_seen = False       # withdrawn before it could be taken
    if resume_flag(e) and not resume_one(e, r):
        leave_block(e, r.eip)
    if r.flags & REC_FAR and task_possible(e):
        far_transfer(e, r)
    if e.vcpu.interpreting and e.style.interpret(&e.guest, r.count) != 0:
        e.stopping = True
        leave_block(e, r.eip)
    if r.flags & REC_HOLE and ring_hole(e, r):
        leave_block(e, r.eip)
    e.step_next = False
    e.split_eip = NEVER
    if e.predictor is not NULL:
        branch_seen(e, r)
    price_any(e, r)
    grant(e, grant_until(e, pending or e.vcpu.lead != 0 or e.breakpoint_count != 0 or e.resuming != RESUME_NOT or e.vcpu.ring.step))
    if r.flags & REC_STRADDLE:
        e.look_first = True
        if not page_is_held(e, r.pc):    # its last page took its place, and only then did the engine note where the
            page_drop(e.cpu, r.pc & ~<uint64_t>PAGE_MASK)       # block lies: forget that, to look again
        grant(e, 0)
    e.budget[0] -= r.true_cost
    if e.audit:
        census_block(e, r)

cdef void block_slow(Engine* e, BlockRecord* r) noexcept nogil:
    """Called by translated code (inline.pxd) at a block's start."""
    cdef uintptr_t ra = RETURN_ADDRESS
    cdef char* tb
    e.budget[0] += r.cost
    if r.flags & REC_NEW or r is &e.lost:
        e.context = NULL
        tb = <char*>tcg_tb_lookup_x86_64((<void**>(<char*>e.uc + UC_TCG_CONTEXT))[0], ra)
        record_decode(e, r, (<uint64_t*>(tb + TB_PC))[0], (<uint16_t*>(tb + TB_SIZE))[0],
                      (<uint32_t*>(tb + TB_CFLAGS))[0] & 0x7fff == 1)
    elif only_counts(e, r):
        price_any(e, r)
        e.budget[0] -= r.true_cost
        return
    block_enter(e, r)

cdef void lookup_slow(Engine* e, void* unused) noexcept nogil:
    """Called by translated code for an indirect target (lookup.pxd)."""
    find_code(e)

cdef void emit_hook(void* uc, void* hook, void** args, int n) noexcept nogil:
    """uc_struct.add_inline_hook: called by the translator once a block."""
    cdef Engine* e = (<Engine**>(cpu_env(uc_cpu(<uc_engine*>uc)) + ENV_ENGINE))[0]
    cdef int* operations = <int*>((<char**>(<char*>uc + UC_TCG_CONTEXT))[0] + TCG_OPS)
    cdef int before = operations[0]
    cdef char* dc = (<char**>args)[DC_FROM_ARGS]
    cdef bint passed = False
    shortcuts_follow(e, (<uintptr_t*>(dc + DC_TB))[0])
    if in_cache(e):
        if is_disas_context(dc, env_u64(e.env, ENV_EIP)[0]):
            passed = part_limits(e, dc)
        else:
            stop(e, STOP_ERROR, 0)
    emit_accounting(e, <void*>block_slow, record_new(e), not passed)
    operations[0] = before + 1               # as the public hook's call counts: blocks end at the same place in both engines
    if e.short_blocks:
        e.short_blocks -= 1                  # one instruction a block
        operations[0] = TCG_OPS_FULL

# The portable engine: the public BLOCK hook ---------------------------------------------------

cdef void on_edge(uc_engine* uc, uc_tb* cur, uc_tb* prev, void* user) noexcept nogil:
    """A new block was translated: forget what was known at its address."""
    portable_forget(<Engine*>user, cur.pc)

cdef void block_rest(Engine* e, uint64_t pc, uint32_t size) noexcept nogil:
    """A block starts that is not the first of its chain, or that the budget does not cover."""
    cdef BlockRecord* r = portable_find(e, pc, size)
    cdef int64_t cost = r.true_cost if r.flags & (REC_TWIN | REC_SLOW | REC_COUNT | REC_CONTINUES) == REC_TWIN else r.cost
    if e.own_budget < cost:
        block_enter(e, r)
    else:
        e.own_budget -= cost
    e.own_current = r

cdef void on_block(uc_engine* uc, uint64_t pc, uint32_t size, void* user) noexcept nogil:
    """UC_HOOK_BLOCK of the portable engine.  Each of its dozen host instructions shows in the speed."""
    cdef Engine* e = <Engine*>user
    cdef BlockRecord* r = e.hash[record_slot(pc)]
    cdef int64_t left = e.own_budget - r.cost
    if r.pc == pc and r.size == <uint16_t>size and left >= 0:
        e.own_budget = left
        e.own_current = r
    else:
        e.block_rest(e, pc, size)

# Instruction events ---------------------------------------------------------------------------

cdef void finish(Engine* e, Event* ev, int verdict) noexcept nogil:
    """Carry the verdict on an instruction event out.  The ledger stands just before the instruction."""
    if verdict == RESUME:
        if ev.retire:
            resume_clear(e)
            retire(e, ev.rip, ev.charge_insn)
            env_u64(e.env, ENV_EIP)[0] = advance(e, ev.rip, ev.length)
            env_u32(e.env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_INHIBIT_IRQ
        e.current[0] = &e.closed_end
    elif verdict == REFLECT:
        carry_out(e, ev, advance(e, ev.rip, ev.length))
    else:
        e.stopping = True
    if ev.kind == EV_WRMSR or (ev.kind == EV_CR_WRITE and ev.reg == 8):      # of the local APIC, or the time stamp counter
        refresh_due(e)
    if e.has_exit_hook and e.py_exit(e.owner, ev) != 0:
        stop(e, STOP_SIGNAL, 0)
    if e.vcpu.halted and not e.stopping:
        wait_for_interrupt(e)

cdef void raise_fault(Engine* e, uint64_t rip, const Fault* f) noexcept nogil:
    """A fault met while an instruction's operands were read."""
    cdef Event ev
    if f.stop:
        e.stopping = True
        return
    event_init(&ev, EV_EXCEPTION)
    ev.rip = rip
    ev.vector = f.vector
    ev.error = f.error
    ev.has_error = has_error_code(f.vector)
    finish(e, &ev, e.style.handlers[EV_EXCEPTION](&e.guest, &ev))

cdef uint64_t sleeps_until(Engine* e, uint64_t now) noexcept nogil:
    """Guest time at which HLT's wait goes on: that of the next event, or what the host's pace makes of it."""
    cdef uint64_t passed
    if e.idle is NULL:
        return e.due
    passed = e.idle(e.owner, NEVER if e.due == NEVER else e.due - now)
    if passed == NEVER:
        stop(e, STOP_SIGNAL, 0)
        return now
    return now + passed

cdef void wait_for_interrupt(Engine* e) noexcept nogil:
    """HLT: machine time jumps to the next event until something wakes the guest."""
    cdef uint64_t now, until, units, rip = env_u64(e.env, ENV_EIP)[0]
    while True:
        if platform_irq(&e.world.platform):
            if offer_interrupt(e, rip, False) or e.stopping:
                return
        refresh_due(e)
        if (e.due == NEVER and e.idle is NULL) or not env_u64(e.env, ENV_EFLAGS)[0] & FL_IF:
            stop(e, STOP_HALT, 0)
            return
        now = guest_time(&e.guest)
        if e.due > now:
            if e.gives_way:
                stop(e, STOP_WAIT, 0)
                return
            until = sleeps_until(e, now)
            if e.stopping:
                return
            units = units_until(&e.guest, until)
            if e.guest.clock_instructions:
                e.guest.skipped += units // UNITS_PER_CYCLE
            charge_units(e.ledger, IDLE, units)
        if over_limit(e):
            return
        platform_advance(&e.world.platform, e.guest.sinks, guest_time(&e.guest))

cdef void dispatch(Engine* e, Event* ev) noexcept nogil:
    """Hand an instruction event to the style."""
    cdef Fault f
    cdef int verdict = e.style.handlers[ev.kind](&e.guest, ev)
    if ev.kind == EV_DESCRIPTOR_LOAD and verdict == RESUME:
        f.vector = -1
        f.stop = False
        if not load_task_register(e, <uint32_t>ev.value, &f):
            raise_fault(e, ev.rip, &f)
            return
    finish(e, ev, verdict)

cdef void on_intercept(Engine* e, int code, uint64_t rip) noexcept nogil:
    cdef Event ev
    cdef Fault f
    f.vector = -1
    f.stop = False
    if event_of_intercept(e, code, rip, &ev, &f):
        dispatch(e, &ev)
    else:
        raise_fault(e, rip, &f)

cdef void on_exception(Engine* e, int vector, uint64_t rip, bint software) noexcept nogil:
    """An exception of the processor, or INT n (RIP behind it)."""
    cdef Event ev
    cdef BlockRecord* r
    cdef int n
    event_init(&ev, EV_SOFTWARE_INT if software else EV_EXCEPTION)
    ev.vector = vector
    ev.rip = rip
    ev.retire = False
    if software:
        r = e.current[0]
        n = mark_at(e, r, rip)
        ev.length = <int>(rip - r.eip - (e.marks[r.first_mark + n - 2].end if n > 1 else 0)) if n > 0 else 2
        ev.rip = rip - <uint64_t>ev.length
        ev.delivery = DELIVER_INT_N
    else:
        if e.stray:
            ev.vector = stray_vector(e, e.stray, rip)
        ev.has_error = has_error_code(vector)
        ev.error = env_u32(e.env, ENV_ERROR_CODE)[0] if ev.has_error else 0
        ev.address = env_u64(e.env, ENV_CR + 16)[0]
    e.stray = 0
    finish(e, &ev, e.style.handlers[ev.kind](&e.guest, &ev))

cdef void on_interrupt(uc_engine* uc, uint32_t number, void* user) noexcept nogil:
    """UC_HOOK_INTR: exceptions, INT n, and (0x100 + code) intercepts."""
    cdef Engine* e = <Engine*>user
    cdef bint software = env_u32(e.env, ENV_EXCEPTION_IS_INT)[0] != 0
    cdef uint64_t rip = env_u64(e.env, ENV_EIP)[0]
    cdef Fault f
    cdef int done
    env_u32(e.env, ENV_OLD_EXCEPTION)[0] = 0xffffffffU       # faults are never acknowledged otherwise
    env_u32(e.env, ENV_EXCEPTION_IS_INT)[0] = 0
    if e.stopping and number == VEC_GP:                      # fill.pxd gave the instruction up
        stretch_stays(e)
        give_back(e, rip)
        uc_emu_stop(uc)
        return
    give_back(e, rip)
    if in_cache(e):
        f.vector = -1
        f.stop = False
        done = cache_interrupt(e, &number, &rip, &software, &f)
        if done == CACHE_FAULT:
            raise_fault(e, env_u64(e.env, ENV_EIP)[0], &f)
        if done != CACHE_EVENT:
            after_event(e)
            return
    if not e.style.deprivileged or not ring_takes(e, &number, rip, software):
        if number >= 0x100 and number < 0x100 + 0x400:
            on_intercept(e, <int>(number - 0x100), rip)
        else:
            on_exception(e, <int>(number & 0xff), rip, software)
        e.vcpu.ring.step = False
    after_event(e)

cdef inline void after_event(Engine* e) noexcept nogil:
    """The engine goes on at RIP: the next block takes the slow path and looks at everything.

    Limits are looked at here too: a guest whose handlers fault at their first byte never starts a block.
    """
    e.vcpu.lead = 0
    if e.stepping and not e.vcpu.ring.step:
        stop(e, STOP_LIMIT, 0)               # a delivered exception is a step
    ring_resume(e)
    if e.stopping or over_limit(e):
        uc_emu_stop(e.uc)
    grant(e, grant_until(e, e.vcpu.ring.step or e.rearm or platform_irq(&e.world.platform)))

cdef void on_debug(void* cpu) noexcept nogil:
    """CPUClass.debug_excp_handler: a breakpoint inside a block, ours or the guest's (DR0-DR3).  Never returns:
    the engine would wait for ever for a debugger, as it does with its own handler when CS has a base."""
    cdef Engine* e = (<Engine**>(cpu_env(<char*>cpu) + ENV_ENGINE))[0]
    cdef uint64_t eip = env_u64(e.env, ENV_EIP)[0], pc = linear_rip(e, eip)
    if at_breakpoint(e, pc):
        stretch_stays(e)
        give_back(e, eip)
        e.current[0] = &e.closed_end
        stop(e, STOP_BREAKPOINT, 0)
        leave_block(e, eip)
    if e.rearm:                              # one that a callback has removed since
        breakpoints_arm(e, NEVER)
        leave_block(e, eip)
    env_u64(e.env, ENV_DR + 48)[0] |= debug_registers_hit(e, pc)
    raise_exception_err_x86_64(e.env, VEC_DB, 0)

cdef bint on_request(void* cpu, int request) noexcept nogil:
    """CPUClass.cpu_exec_interrupt, before a block is looked up: True when the guest goes on elsewhere, or stops."""
    cdef Engine* e = (<Engine**>(cpu_env(<char*>cpu) + ENV_ENGINE))[0]
    env_u32(e.cpu, CPU_INTERRUPT_REQUEST)[0] &= ~<uint32_t>REQUEST_ANY
    if not ring_stepped(e):
        return False
    if e.stopping:
        uc_emu_stop(e.uc)
    return True

cdef bint on_invalid(uc_engine* uc, void* user) noexcept nogil:
    """UC_HOOK_INSN_INVALID: ours to emulate, or #UD."""
    cdef Engine* e = <Engine*>user
    cdef uint64_t rip = env_u64(e.env, ENV_EIP)[0]
    cdef uint32_t number = VEC_UD
    cdef Event ev
    cdef Fault f
    env_u32(e.env, ENV_OLD_EXCEPTION)[0] = 0xffffffffU
    env_u32(e.env, ENV_EXCEPTION_IS_INT)[0] = 0
    f.vector = -1
    f.stop = False
    give_back(e, rip)
    if in_cache(e):
        to_virtual(e)
        rip = env_u64(e.env, ENV_EIP)[0]
        audit_callout(e, rip)
    if not e.style.deprivileged or not ring_takes(e, &number, rip, False):
        if event_of_invalid(e, rip, &ev, &f):
            dispatch(e, &ev)
        else:
            raise_fault(e, rip, &f)
        e.vcpu.ring.step = False
    after_event(e)
    return True

# System calls ---------------------------------------------------------------------------------

cdef void on_syscall(uc_engine* uc, void* user) noexcept nogil:
    do_syscall(<Engine*>user)

cdef void on_sysenter(uc_engine* uc, void* user) noexcept nogil:
    do_sysenter(<Engine*>user)

# Helpers that styles call ---------------------------------------------------------------------

cdef void cpuid_of_engine(Cpu* c, uint32_t leaf, uint32_t sub, uint32_t* out) noexcept nogil:
    cpu_x86_cpuid_x86_64(cpu_env(<char*>c.owner), leaf, sub, &out[0], &out[1], &out[2], &out[3])

cdef int style_read_linear(Guest* g, gva_t gva, int size, void* out) noexcept nogil:
    cdef Fault f
    return 0 if read_system(<Engine*>g.owner, gva, out, <uint64_t>size, &f) else -1

# Life ----------------------------------------------------------------------------------------

cdef int engine_open(Engine* e, bint portable) noexcept:
    """Create the Unicorn instance around e.ram, e.mmu, e.ledger, e.world, e.style.  0, or a uc_err."""
    cdef uc_hook h
    cdef int err = uc_open(UC_ARCH_X86, UC_MODE_64, &e.uc)
    if err:
        return err
    e.portable = portable
    e.block_rest = block_rest
    records_reset(e)
    err = uc_ctl_set_cpu_model(e.uc, UC_CPU_X86_HASWELL)
    err = err or uc_mem_map_ptr(e.uc, 0, e.ram.size + SPARE_BYTES, UC_PROT_ALL, e.ram.base)
    err = err or uc_mmio_map(e.uc, MMIO_BASE, <size_t>MMIO_BASE, on_mmio_read, e, on_mmio_write, e)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INTR, <void*>on_interrupt, e, 1, 0)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INSN_INVALID, <void*>on_invalid, e, 1, 0)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INSN, <void*>on_in, e, 1, 0, UC_X86_INS_IN)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INSN, <void*>on_out, e, 1, 0, UC_X86_INS_OUT)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INSN, <void*>on_syscall, e, 1, 0, UC_X86_INS_SYSCALL)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_INSN, <void*>on_sysenter, e, 1, 0, UC_X86_INS_SYSENTER)
    err = err or uc_hook_add(e.uc, &h, UC_HOOK_BLOCK, <void*>on_block, e, 1, 0)
    if e.ram.caches is not NULL and e.ram.caches.mode == CACHES_FULL:
        err = err or uc_hook_add(e.uc, &h, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, <void*>on_data, e, 1, 0)
    if portable:
        err = err or uc_hook_add(e.uc, &h, UC_HOOK_EDGE_GENERATED, <void*>on_edge, e, 1, 0)
    err = err or uc_ctl_exits_enable(e.uc)
    err = err or (uc_ctl_set_exits(e.uc, NULL, 0) if portable else parts_attach(e))     # one of several worlds may be translated
    if err:
        return err
    engine_attach(e)
    return 0

cdef void engine_attach(Engine* e) noexcept:
    """Put our functions where the private tier expects them."""
    cdef void** cls
    e.cpu = uc_cpu(e.uc)
    e.env = cpu_env(e.cpu)
    e.budget = &e.own_budget if e.portable else <int64_t*>(e.env + ENV_BUDGET)
    e.current = &e.own_current if e.portable else <BlockRecord**>(e.env + ENV_CURRENT)
    (<Engine**>(e.env + ENV_ENGINE))[0] = e
    cls = (<void***>(e.cpu + CPU_CLASS))[0]
    cls[CLASS_TLB_FILL] = <void*>fill
    cls[CLASS_DEBUG] = <void*>on_debug
    cls[CLASS_EXEC_INTERRUPT] = <void*>on_request
    if not e.portable:
        (<void**>(<char*>e.uc + UC_ADD_INLINE_HOOK))[0] = <void*>emit_hook
        remove_exit_checks(e.uc, &EXIT_CHECK)
    e.lookup_slow = <void*>lookup_slow
    e.translator = &TRANSLATOR
    bt_translator_init(&TRANSLATOR)
    ops_init(&e.ops, e.cpu)
    e.open_end.flags = REC_TRANSFER
    e.open_end.frame = e.open_end.frame2 = NO_FRAME
    e.closed_end.frame = e.closed_end.frame2 = NO_FRAME
    e.guest.cpu = &e.ops
    e.guest.ledger = e.ledger
    e.guest.mmu = e.mmu
    e.guest.ram = &e.ram
    e.guest.platform = &e.world.platform
    e.guest.vcpu = e.vcpu
    e.guest.style_state = e.world.style_state
    e.guest.shadow = &e.world.shadow if e.style.shadow else NULL
    e.guest.owner = e
    e.guest.port_in = device_in
    e.guest.port_out = device_out
    e.guest.mmio = device_mmio
    e.guest.cpuid = cpuid_of_engine
    e.guest.read_linear = style_read_linear
    e.guest.switch_task = style_switch_task
    engine_reset(e)

cdef void engine_reset(Engine* e) noexcept:
    """The engine's side of a processor reset: real mode at F000:FFF0 (SDM 3A table 9-1)."""
    cdef int i
    cdef EnvSegment* s
    e.current[0] = &e.open_end
    env_u32(e.env, ENV_HFLAGS)[0] = HF_ADDSEG
    env_u32(e.env, ENV_HFLAGS2)[0] = HF2_GIF
    env_u64(e.env, ENV_EFER)[0] = 0
    ops_set(&e.ops, REG_CR0, 0x60000010)
    ops_set(&e.ops, REG_CR4, 0)
    ops_set(&e.ops, REG_CR3, 0)
    env_set_rflags(e.env, FL_FIXED)
    for i in range(6):
        s = env_segment(e.env, i)
        s.selector = 0xf000 if i == SEG_CS else 0
        s.base = 0xffff0000ULL if i == SEG_CS else 0
        s.limit = 0xffff
        s.flags = 0x9b00 if i == SEG_CS else 0x9300
    s = env_segment(e.env, SEG_TR)
    s.selector = 0
    s.base = 0
    s.limit = 0xffff
    s.flags = 0x8900                         # "available": the engine aborts on a busy or absent TSS
    s = env_segment(e.env, SEG_LDTR)
    s.selector = 0
    s.base = 0
    s.limit = 0xffff
    s.flags = 0x8200
    env_segment(e.env, 8).base = 0
    env_segment(e.env, 8).limit = 0xffff
    env_segment(e.env, 9).base = 0
    env_segment(e.env, 9).limit = 0x3ff
    env_u32(e.env, ENV_OLD_EXCEPTION)[0] = 0xffffffffU
    env_u32(e.env, ENV_FEATURES_1_ECX)[0] &= ~<uint32_t>(1 << 30)     # RDRAND is #UD: it would read the host's entropy
    env_u32(e.env, ENV_FEATURES_7_EBX)[0] &= ~<uint32_t>(1 << 18)     # RDSEED too
    env_u64(e.env, ENV_EIP)[0] = 0xfff0
    env_update_hflags(e.env)
    intercepts_on(e)

cdef int engine_run(Engine* e, bint step) noexcept nogil:
    """Run until something stops the guest, or one instruction.  Returns the uc_err of the engine (0 in all ordinary cases).

    When the last run stopped at a breakpoint, its instruction is run alone first, the breakpoint lifted.
    """
    cdef uint64_t limit = e.max_instructions, pc = linear_rip(e, env_u64(e.env, ENV_EIP)[0])
    cdef int err
    if e.rearm:
        breakpoints_arm(e, NEVER)
    if not at_breakpoint(e, pc) or not (step or e.vcpu.stop_reason == STOP_BREAKPOINT):
        return run_until_stop(e, step)
    if limit > e.ledger.instructions:
        e.max_instructions = e.ledger.instructions + 1
    breakpoints_arm(e, pc)
    err = run_until_stop(e, True)
    breakpoints_arm(e, NEVER)
    e.max_instructions = limit
    if step or err or e.vcpu.stop_reason != STOP_LIMIT:
        return err
    return run_until_stop(e, False)

cdef int run_until_stop(Engine* e, bint step) noexcept nogil:
    """Run until something sets `stopping`.  The uc_err of the engine."""
    cdef int err = 0, turns = 0
    cdef uint64_t seen = e.slow_paths
    e.stopping = False
    e.vcpu.stop_reason = STOP_NONE
    e.fresh = e.portable
    e.context = NULL
    e.resuming = RESUME_NOT
    if e.style.translates:
        bt_of(e).recheck = 1                 # somebody may have written tables or registers meanwhile
    refresh_due(e)
    if e.vcpu.halted:
        wait_for_interrupt(e)
    while not e.stopping and err == 0:
        if e.slow_paths != seen:
            turns = 0
        seen = e.slow_paths
        turns += 1
        if turns > IDLE_TURNS:
            stop(e, STOP_ERROR, 0)
            break
        grant(e, 0)
        e.stepping = e.step_next = step
        if step:
            env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 1
        ring_start(e)
        err = uc_emu_start(e.uc, env_u64(e.env, ENV_EIP)[0], 0, 0, 0)
    e.vcpu.ring.kept = env_u64(e.env, ENV_EIP)[0] if in_cache(e) else 0
    to_virtual(e)
    e.vcpu.ring.kept_eip = env_u64(e.env, ENV_EIP)[0]
    settle(e)
    return err

cdef void engine_close(Engine* e) noexcept:
    if e.uc is not NULL:
        uc_close(e.uc)
        e.uc = NULL

cdef void engine_changed_memory(Engine* e, uint64_t hpa, uint64_t n) noexcept nogil:
    """The host wrote [hpa, hpa + n): drop translated code of every frame in it."""
    cdef uint64_t frame
    for frame in range(hpa >> PAGE_SHIFT, ((hpa + n - 1) >> PAGE_SHIFT) + 1):
        if frame < e.frames and e.page_state[frame] != PAGE_DATA:
            tb_invalidate_phys_range_x86_64(e.uc, frame << PAGE_SHIFT, (frame + 1) << PAGE_SHIFT)
    shadow_written(&e.guest, hpa, n)
    if e.style.translates and e.world.shadow.code_writes:
        cache_written(e)

cdef void engine_flush(Engine* e) noexcept nogil:
    soft_flush(e.cpu)

cdef void engine_settle(Engine* e) noexcept nogil:
    settle(e)

cdef bint engine_step_boundary(Engine* e) noexcept nogil:
    """Did the last block end in a control transfer (part of a snapshot: --clock instructions)?"""
    return e.current[0].flags & REC_TRANSFER != 0

