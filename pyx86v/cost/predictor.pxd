# SPDX-License-Identifier: GPL-2.0-or-later
"""Branch prediction, by a scheme that is documented because no vendor's is.

    conditional   gshare (McFarling 1993): two-bit counters, by the address XOR the outcomes of the last conditional branches
    indirect      the target of the last time, by the address
    return        a stack of return addresses that wraps around: the deepest calls survive
    direct jumps and calls are always right; far transfers, interrupts and returns from them are not predicted

A counter begins at "weakly not taken".  `Predictor` has no pointers: it can be saved and restored as bytes.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef enum:
    MAX_COUNTERS = 65536
    MAX_TARGETS = 8192
    MAX_RETURNS = 64

cdef enum BranchKind:
    BRANCH_NONE = 0          # nothing that is predicted
    BRANCH_CONDITIONAL = 1
    BRANCH_INDIRECT = 2
    BRANCH_RETURN = 3
    BRANCH_CALL = 4          # direct
    BRANCH_CALL_INDIRECT = 5
    N_BRANCH_KINDS = 6

ctypedef struct Branch:
    uint64_t pc              # linear
    uint64_t next            # what lies behind it
    uint32_t kind            # BranchKind
    uint32_t pending         # in a snapshot: it was the last instruction that ran

ctypedef struct Predictor:
    Branch last              # whose target is not known yet
    uint32_t counters        # how many of each, powers of two
    uint32_t targets
    uint32_t returns
    uint32_t top             # of the stack: the next free place
    uint64_t history         # outcomes, the last in bit 0
    uint64_t seen[N_BRANCH_KINDS]
    uint64_t missed[N_BRANCH_KINDS]
    uint64_t target[MAX_TARGETS]
    uint64_t back[MAX_RETURNS]
    uint8_t counter[MAX_COUNTERS]

cdef inline uint32_t branch_hash(uint64_t pc) noexcept nogil:
    return <uint32_t>(pc ^ pc >> 16)

cdef inline bint conditional_right(Predictor* p, uint64_t pc, bint taken) noexcept nogil:
    cdef uint8_t* counter = &p.counter[(branch_hash(pc) ^ <uint32_t>p.history) & (p.counters - 1)]
    cdef bint foreseen = counter[0] >= 2
    if taken and counter[0] < 3:
        counter[0] += 1
    elif not taken and counter[0]:
        counter[0] -= 1
    p.history = p.history << 1 | taken
    return foreseen == taken

cdef inline bint target_right(Predictor* p, uint64_t pc, uint64_t went) noexcept nogil:
    cdef uint64_t* target = &p.target[branch_hash(pc) & (p.targets - 1)]
    cdef bint right = target[0] == went
    target[0] = went
    return right

cdef inline bint branch_right(Predictor* p, uint64_t went) noexcept nogil:
    """The last branch went to `went`: was that foreseen?  Counts, and learns."""
    cdef uint32_t kind = p.last.kind
    cdef uint64_t pc = p.last.pc, next = p.last.next
    cdef bint right = True
    if kind == BRANCH_CONDITIONAL:
        right = conditional_right(p, pc, went != next)
    elif kind == BRANCH_INDIRECT or kind == BRANCH_CALL_INDIRECT:
        right = target_right(p, pc, went)
    elif kind == BRANCH_RETURN:
        p.top -= 1
        right = p.back[p.top & (p.returns - 1)] == went
    if kind == BRANCH_CALL or kind == BRANCH_CALL_INDIRECT:
        p.back[p.top & (p.returns - 1)] = next
        p.top += 1
    p.seen[kind] += 1
    p.missed[kind] += not right
    return right
