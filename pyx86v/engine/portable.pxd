# SPDX-License-Identifier: GPL-2.0-or-later
"""Block records of the portable engine, which has Unicorn's public BLOCK hook and nothing else to go by.

A record is found by (address, size) in a hash, and forgotten when Unicorn says that it translated something new at
its address.  The hook looks at the first record of a chain and nothing else; whatever else must be looked at makes a
record's cost, or the budget, such that the budget does not cover it: a record that is new, two of one block under
different code segments or RF, the first block after a start.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.arch.types cimport PAGE_MASK
from pyx86v.cost.block cimport MARK_REP
from pyx86v.engine.blocks cimport env_eip_of, record_decode, record_new
from pyx86v.engine.breakpoints cimport at_breakpoint, debug_registers_hit, resume_flag
from pyx86v.engine.budget cimport mark_at
from pyx86v.engine.fill cimport code_frame
from pyx86v.engine.ops cimport code_mode
from pyx86v.engine.state cimport *

cdef inline uint32_t record_slot(uint64_t pc) noexcept nogil:
    return <uint32_t>pc & (RECORD_HASH - 1)

cdef inline void portable_forget(Engine* e, uint64_t pc) noexcept nogil:
    """A new block was translated at this address."""
    cdef BlockRecord* r = e.hash[record_slot(pc)]
    while r is not &e.records[0]:
        if r.pc == pc:
            r.flags = REC_NEW
            r.cost = SLOW_COST
        r = &e.records[r.next]

cdef inline bint is_restart(Engine* e, uint64_t pc, uint32_t size, const BlockRecord* r) noexcept nogil:
    """One instruction inside the block that ran last, not ending in a transfer: the engine
    runs it again because it changed its own block.  A breakpoint is such a block too."""
    cdef BlockRecord* prev = e.current[0]
    if at_breakpoint(e, pc) or (debug_registers_hit(e, pc) and not resume_flag(e)):
        return False
    if r.count != 1 or r.flags & REC_TRANSFER or prev.size == 0 or r.mode != prev.mode:     # another width came by a far jump
        return False
    if e.marks[r.first_mark].flags & MARK_REP:           # each turn is a block, the last instruction of the one before
        return False
    return prev.pc <= pc < prev.pc + prev.size and pc + size <= prev.pc + prev.size and \
        mark_at(e, prev, r.eip) >= 0

cdef inline void portable_decode(Engine* e, BlockRecord* r, uint64_t pc, uint32_t size) noexcept nogil:
    cdef uint32_t chain = r.next
    cdef BlockRecord* other = e.hash[record_slot(pc)]
    record_decode(e, r, pc, size, False)
    r.next = chain
    if e.step_next:
        r.flags |= REC_STEPPED | REC_SLOW
        r.cost = SLOW_COST
    elif is_restart(e, pc, size, r):
        r.flags |= REC_RESTART | REC_SLOW
        r.cost = SLOW_COST
    while other is not &e.records[0]:
        if other is not r and other.pc == pc and other.size == size:
            other.flags |= REC_TWIN
            r.flags |= REC_TWIN
            other.cost = r.cost = SLOW_COST
        other = &e.records[other.next]

cdef inline BlockRecord* portable_find(Engine* e, uint64_t pc, uint32_t size) noexcept nogil:
    """The record of the block at (pc, size) as it runs now, made when there is none and decoded when it is new."""
    cdef BlockRecord** head = &e.hash[record_slot(pc)]
    cdef BlockRecord* r = head[0]
    cdef uint64_t eip = env_eip_of(e, pc)
    cdef uint16_t mode = code_mode(e.env)
    while r is not &e.records[0] and not (r.pc == pc and r.size == size and r.mode == mode and r.eip == eip):
        r = &e.records[r.next]
    if r is &e.records[0]:
        r = record_new(e)
        if r is not &e.lost:
            r.next = <uint32_t>(head[0] - e.records)
            head[0] = r
    if e.fresh or r.flags & (REC_NEW | REC_STEPPED) or \
            (r.flags & REC_STRADDLE and r.frame2 != code_frame(e, pc + size - 1)):       # another frame lies there now (remap.pxd)
        e.fresh = False
        portable_decode(e, r, pc, size)
    return r
