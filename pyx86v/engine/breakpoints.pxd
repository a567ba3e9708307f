# SPDX-License-Identifier: GPL-2.0-or-later
"""Execution breakpoints, the user's and the guest's (DR0-DR3), and RFLAGS.RF, which hides the guest's.

RF does so for the one instruction that runs with it set (SDM 3B 17.3.1.1).  The engine translates a block that starts with
RF without any breakpoint in it, and forgets to clear RF where it chains such blocks.  So a block that starts with RF is cut
to one instruction, and the block after it takes the slow path and finds RF cleared: `block_enter` asks `resumed` first and
`resume_one` last.  While DR7 enables none RF is just cleared.

The engine drops all translations when a breakpoint is set.  A callback runs in the middle of one, which must not go away
below it: there only the list of the user's changes, and the next block that takes the slow path arms it (`rearm`).
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport FL_RF
from pyx86v.cost.block cimport MARK_REP
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *

cdef inline int breakpoint_index(const Engine* e, uint64_t pc) noexcept nogil:
    cdef int i
    for i in range(e.breakpoint_count):
        if e.breakpoints[i] == pc:
            return i
    return -1

cdef inline bint at_breakpoint(const Engine* e, uint64_t pc) noexcept nogil:
    """One of the user's?"""
    return breakpoint_index(e, pc) >= 0

cdef inline void breakpoints_arm(Engine* e, uint64_t lifted) noexcept nogil:
    """Make the engine end blocks before each breakpoint but the one at `lifted`.  Never inside a translation."""
    cdef int i
    e.rearm = False
    cpu_breakpoint_remove_all_x86_64(e.cpu, BP_GDB)
    for i in range(e.breakpoint_count):
        if e.breakpoints[i] != lifted:
            cpu_breakpoint_insert_x86_64(e.cpu, e.breakpoints[i], BP_GDB, NULL)

cdef inline bint breakpoint_change(Engine* e, uint64_t pc, bint add) noexcept nogil:
    """Add or remove a breakpoint.  False: no room, or none there."""
    cdef int i = breakpoint_index(e, pc)
    if add == (i >= 0):
        return add
    if add:
        if e.breakpoint_count == MAX_BREAKPOINTS:
            return False
        e.breakpoints[e.breakpoint_count] = pc
        e.breakpoint_count += 1
    else:
        e.breakpoint_count -= 1
        e.breakpoints[i] = e.breakpoints[e.breakpoint_count]
    e.rearm = True
    return True

cdef inline uint64_t debug_registers_hit(Engine* e, uint64_t pc) noexcept nogil:
    """DR6's bits of the enabled execution breakpoints at `pc` (SDM 3B 17.2)."""
    cdef uint64_t* dr = env_u64(e.env, ENV_DR)
    cdef uint64_t hit = 0
    cdef int i
    for i in range(4):
        if dr[7] >> (2 * i) & 3 and dr[7] >> (16 + 4 * i) & 3 == 0 and dr[i] == pc:
            hit |= <uint64_t>1 << i
    return hit

cdef enum:                   # Engine.resuming
    RESUME_NOT = 0
    RESUME_CUT = 1           # a block of one instruction has been asked for
    RESUME_RUNS = 2          # and runs

cdef inline bint resume_flag(Engine* e) noexcept nogil:
    return env_u64(e.env, ENV_EFLAGS)[0] & FL_RF != 0

cdef inline void resume_clear(Engine* e) noexcept nogil:
    env_u64(e.env, ENV_EFLAGS)[0] &= ~<uint64_t>FL_RF
    e.resuming = RESUME_NOT

cdef inline bint resumed(Engine* e, const BlockRecord* r) noexcept nogil:
    """The instruction that ran with RF set is done.  True: RF is still set, and `r` was translated for that: leave it.

    A repeated string instruction is one instruction, though each element is a block to the engine.
    """
    cdef bint stale = resume_flag(e)
    if r.eip == e.current[0].eip and e.marks[r.first_mark].flags & MARK_REP:
        return False
    resume_clear(e)
    return stale

cdef inline void stay_cut(Engine* e, const BlockRecord* r) noexcept nogil:
    """`r` is left, to be looked up again: if it was cut short on purpose, it is to come back with as many instructions."""
    if e.step_next:
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = r.count

cdef inline bint resume_one(Engine* e, const BlockRecord* r) noexcept nogil:
    """`r` is about to run with RF set.  False: leave it, to be looked up again, without RF or as one instruction."""
    if not env_u64(e.env, ENV_DR + 56)[0] & 0xff:        # DR7 enables no breakpoint
        resume_clear(e)
        stay_cut(e, r)
        return False
    if r.count > 1 and e.resuming != RESUME_CUT:         # bytes that are no instruction may count for two
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 1
        e.step_next = True
        e.resuming = RESUME_CUT
        return False
    e.resuming = RESUME_RUNS
    return True
