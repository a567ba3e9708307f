# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of an audit: which sensitive instructions the guest executed, how often, in which ring, where first.

Blocks with a sensitive instruction take the slow path and are counted when they are booked.  Whatever books or unbooks
a part of a block (budget.pxd) does the same here, so that the census counts what the ledger counts: retired instructions.
Without an audit (Engine.audit) no block is slower for it, and nothing here runs.
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.regs cimport CR0_PG, FL_VM
from pyx86v.cost.block cimport InsnMark, MARK_SENSITIVE
from pyx86v.engine.cache_map cimport guest_linear
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_cpl
from pyx86v.engine.state cimport *

cdef list census_rows(const Census* c)
cdef list census_sites(const Census* c)

cdef inline bint census_wants(Engine* e, const BlockRecord* r) noexcept nogil:
    """Does the block contain a sensitive instruction (and is there an audit)?  With a predictor every block takes the slow path."""
    cdef int i
    if not e.audit:
        return e.predictor is not NULL
    for i in range(r.count):
        if e.marks[r.first_mark + i].flags >> MARK_SENSITIVE:
            return True
    return e.predictor is not NULL

cdef inline uint64_t* site_count(Census* c, uint64_t address, uint64_t number) noexcept nogil:
    """The count of the instruction at an address: open addressing, and no place is ever given up, so each is found again."""
    cdef uint64_t hash = (address + number) * 0x9E3779B97F4A7C15ULL >> 32        # Knuth's multiplicative hashing
    cdef CensusSite* s
    cdef int i
    for i in range(CENSUS_PROBES):
        s = &c.site[(hash + <uint64_t>i) & (CENSUS_SITES - 1)]
        if s.number == 0:
            s.address = address
            s.number = number
        if s.address == address and s.number == number:
            return &s.count
    return &c.unplaced

cdef inline void census_count(Engine* e, const BlockRecord* r, int first, int end, int sign) noexcept nogil:
    """Count (sign 1) or uncount (-1) the instructions first..end-1 of the block that was counted last.

    What is uncounted was counted last, so the address of the first one is right again when its count is 0.
    """
    cdef const InsnMark* m = &e.marks[r.first_mark]
    cdef uint64_t address
    cdef int i, number
    for i in range(first, end):
        number = m[i].flags >> MARK_SENSITIVE
        if not number:
            continue
        address = r.pc + (m[i - 1].end if i else 0)
        if r.translated:
            address = guest_linear(e, address)
        census_one(&e.world.census, number, address, sign)

cdef inline void census_one(Census* census, int number, uint64_t address, int sign) noexcept nogil:
    cdef uint64_t* count = &census.count[number][census.mode]
    if count[0] == 0:
        census.first[number][census.mode] = address
    count[0] += <uint64_t>sign
    site_count(census, address, <uint64_t>number)[0] += <uint64_t>sign

cdef inline void census_block(Engine* e, const BlockRecord* r) noexcept nogil:
    """A block was booked and is about to run.  No instruction but the last of a block changes mode or ring."""
    census_look(e)
    census_count(e, r, 0, r.count, 1)

cdef inline void census_called(Engine* e, int number, uint64_t address) noexcept nogil:
    """Retired: the monitor carried out a call-out of translated code, and it was in no block (number 0: not sensitive)."""
    if number:
        census_one(&e.world.census, number, address, 1)

cdef inline void census_look(Engine* e) noexcept nogil:
    """In which mode and ring is the guest?"""
    cdef Census* census = &e.world.census
    if env_u64(e.env, ENV_EFLAGS)[0] & FL_VM:
        census.mode = CENSUS_V86
    elif not env_u32(e.env, ENV_HFLAGS)[0] & HF_PE:
        census.mode = CENSUS_REAL
    else:
        census.mode = CENSUS_PAGING if env_u64(e.env, ENV_CR)[0] & CR0_PG else CENSUS_PROTECTED
        census.mode += e.vcpu.ring.cpl if e.vcpu.ring.real else <uint64_t>env_cpl(e.env)     # the guest's own ring
