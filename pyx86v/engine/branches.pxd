# SPDX-License-Identifier: GPL-2.0-or-later
"""Branches as a predictor sees them: where each block's last instruction went.

Only with a predictor (Engine.predictor): then every block takes the slow path, which knows the block before.  A branch is judged
when the block that it led to is booked; one that an interrupt, fault or exit cut off from its target is not.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.arch.decode cimport Insn, insn_decode
from pyx86v.cost.block cimport MARK_CT
from pyx86v.cost.ledger cimport BRANCH, BRANCH_MISS, charge
from pyx86v.cost.predictor cimport *
from pyx86v.engine.fill cimport read_quiet
from pyx86v.engine.ops cimport env_bits
from pyx86v.engine.state cimport *

cdef inline int kind_of(const Insn* d) noexcept nogil:
    """What of an instruction is predicted (SDM 2, opcode maps)."""
    if d.map == 1:
        return BRANCH_CONDITIONAL if d.opcode & 0xf0 == 0x80 else BRANCH_NONE
    if d.map != 0:
        return BRANCH_NONE
    if d.opcode & 0xf0 == 0x70 or 0xe0 <= d.opcode <= 0xe3:
        return BRANCH_CONDITIONAL
    if d.opcode == 0xe8:
        return BRANCH_CALL
    if d.opcode == 0xc2 or d.opcode == 0xc3:
        return BRANCH_RETURN
    if d.opcode == 0xff and d.reg & 7 == 2:
        return BRANCH_CALL_INDIRECT
    return BRANCH_INDIRECT if d.opcode == 0xff and d.reg & 7 == 4 else BRANCH_NONE

cdef inline void branch_comes(Engine* e, BlockRecord* r) noexcept nogil:
    """The block is about to run: know the branch at its end."""
    cdef uint8_t code[16]
    cdef Insn d
    cdef uint32_t start = e.marks[r.first_mark + r.count - 2].end if r.count > 1 else 0
    e.branch_block = NULL
    if not e.marks[r.first_mark + r.count - 1].flags & MARK_CT:
        return
    memset(code, 0, sizeof(code))
    read_quiet(e, r.pc + start, code, min(15, <int>(r.size - start)))
    insn_decode(code, env_bits(e.env), &d)
    e.predictor.last.kind = kind_of(&d)
    e.predictor.last.pc = r.pc + start
    e.predictor.last.next = r.pc + r.size
    e.branch_block = r if e.predictor.last.kind != BRANCH_NONE else NULL

cdef inline void branch_seen(Engine* e, BlockRecord* r) noexcept nogil:
    """A block is about to be booked: judge the branch that led to it, if one did."""
    if e.branch_block is not NULL and e.branch_block is e.current[0] and \
            not branch_right(e.predictor, r.pc):
        charge(e.ledger, BRANCH, BRANCH_MISS)
    branch_comes(e, r)
