# SPDX-License-Identifier: GPL-2.0-or-later
"""RFLAGS.RF: a breakpoint in DR0-DR3 is not taken at the one instruction that runs with it set (SDM 3B 17.3.1.1).

The engine translates a block that starts with RF without any breakpoint in it, and forgets to clear RF where it chains
such blocks.  So a block that starts with RF is cut to one instruction, and the block after it takes the slow path and finds
RF cleared: `block_enter` asks `resumed` first and `resume_flag` last.  While DR7 enables none RF is just cleared.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport FL_RF
from pyx86v.cost.block cimport MARK_REP
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *

cdef inline bint resume_flag(Engine* e) noexcept nogil:
    return env_u64(e.env, ENV_EFLAGS)[0] & FL_RF != 0

cdef inline void resume_clear(Engine* e) noexcept nogil:
    env_u64(e.env, ENV_EFLAGS)[0] &= ~<uint64_t>FL_RF

cdef inline bint resumed(Engine* e, const BlockRecord* r) noexcept nogil:
    """The instruction that ran with RF set is done.  True: RF is still set, and `r` was translated for that: leave it.

    A repeated string instruction is one instruction, though each element is a block to the engine.
    """
    if r is e.current[0] and e.marks[r.first_mark].flags & MARK_REP:
        return False
    e.resuming = False
    if not resume_flag(e):
        return False
    resume_clear(e)
    return True

cdef inline bint resume_one(Engine* e, const BlockRecord* r) noexcept nogil:
    """`r` is about to run with RF set.  False: leave it, to be looked up again, without RF or as one instruction."""
    if not env_u64(e.env, ENV_DR + 56)[0] & 0xff:        # DR7 enables no breakpoint
        resume_clear(e)
        return False
    if r.count > 1:
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 1
        e.step_next = True
        return False
    e.resuming = True
    return True
