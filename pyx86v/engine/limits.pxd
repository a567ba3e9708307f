# SPDX-License-Identifier: GPL-2.0-or-later
"""Stopping the guest, leaving a block, and how far it may run until somebody must look: time, device events, limits, signals."""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport UNITS_PER_CYCLE
from pyx86v.devices.platform cimport PLATFORM_EXIT, PLATFORM_OFF, PLATFORM_RESET
from pyx86v.engine.budget cimport MAX_INSN_UNITS, grant, settle
from pyx86v.engine.layout cimport *
from pyx86v.engine.ring cimport ring_poll, ring_start
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport *
from pyx86v.mmu.invalidate cimport mmu_flush_guest
from pyx86v.vmm.clock cimport guest_time, next_event, units_until
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.paging cimport paging_refresh

cdef extern from *:
    """
    #define PYX_NEVER 0xffffffffffffffffULL
    """
    const uint64_t NEVER "PYX_NEVER"

cdef enum:
    POLL_SLOW_PATHS = 4095   # and how many slow paths: a guest that makes the engine slow must give way to Ctrl-C too
    POLL_UNITS = 1 << 26     # how much machine time passes between looks at signals: about 1 M cycles

# Stopping and leaving -------------------------------------------------------------------------

cdef inline void stop(Engine* e, int reason, int status) noexcept nogil:
    if e.vcpu.stop_reason == STOP_NONE:
        e.vcpu.stop_reason = reason
        e.vcpu.stop_status = status
    e.stopping = True

cdef inline void leave_block(Engine* e, uint64_t eip) noexcept nogil:
    """From a block's start: do not run it, go on at `eip`.  Never returns (longjmp)."""
    env_u64(e.env, ENV_EIP)[0] = eip
    ring_start(e)
    if e.stopping:
        uc_emu_stop(e.uc)
    cpu_loop_exit_noexc_x86_64(e.cpu)

# Time, events, limits -------------------------------------------------------------------------

cdef inline void refresh_due(Engine* e) noexcept nogil:
    e.due = next_event(&e.guest)

cdef inline void sync_a20(Engine* e) noexcept nogil:
    """The A20 line may have moved: addresses wrap at 1 MiB without it."""
    cdef uint64_t mask = NEVER if e.world.platform.kbc.a20 else ~<uint64_t>0x100000
    if e.world.window.a20_mask != mask:
        e.world.window.a20_mask = mask
        e.vcpu.paging.window.a20_mask = mask
        mmu_flush_guest(e.mmu, walked(e.vcpu).asid, e.vcpu.paging.eptp)
        paging_refresh(&e.guest)

cdef inline void after_device(Engine* e) noexcept nogil:
    """A device register was touched: look for stop requests, and let the next block look at lines and timers."""
    if e.world.platform.stop == PLATFORM_EXIT:
        stop(e, STOP_EXIT, <int>e.world.platform.stop_status)
    elif e.world.platform.stop == PLATFORM_RESET:
        stop(e, STOP_SHUTDOWN, 0)
    elif e.world.platform.stop == PLATFORM_OFF:
        stop(e, STOP_EXIT, 0)
    sync_a20(e)
    refresh_due(e)
    settle(e)
    grant(e, 0)

cdef inline bint over_limit(Engine* e) noexcept nogil:
    if e.ledger.total >= e.max_units or e.ledger.instructions >= e.max_instructions or \
            e.vcpu.exit_total >= e.max_exits:
        stop(e, STOP_LIMIT, 0)
        return True
    if e.ledger.total >= e.poll_units or e.slow_paths & POLL_SLOW_PATHS == 0:
        e.poll_units = e.ledger.total + POLL_UNITS
        if e.poll is not NULL and ring_poll(e) != 0:
            stop(e, STOP_SIGNAL, 0)
            return True
    return False

cdef inline uint64_t grant_until(Engine* e, bint pending) noexcept nogil:
    """How much of the clock's quantity may pass before somebody must look."""
    cdef uint64_t due, left = e.max_units - e.ledger.total, insns = e.max_instructions - e.ledger.instructions
    if pending or e.fresh or e.vcpu.interpreting or e.ledger.total >= e.max_units or e.ledger.instructions >= e.max_instructions or \
            e.ledger.total >= e.poll_units:              # passed while an event was handled
        return 0
    if e.guest.clock_instructions:
        left = left // MAX_INSN_UNITS        # the grant's cap alone polls often enough
    elif e.poll_units - e.ledger.total < left:
        left = e.poll_units - e.ledger.total
    if insns < left:
        left = insns
    if e.due != NEVER:
        if e.due <= guest_time(&e.guest):
            return 0
        due = units_until(&e.guest, e.due)
        if e.guest.clock_instructions:
            due = due // UNITS_PER_CYCLE
        if due < left:
            left = due
    return left
