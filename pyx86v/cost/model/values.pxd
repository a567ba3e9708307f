# SPDX-License-Identifier: GPL-2.0-or-later
"""What the general registers and the memory hold while a block repeats, as far as addresses depend on it.

Which load reads what which store wrote decides the dependencies through memory, and those need addresses.  So the integer
instructions are carried out on made-up first values.  Two ways of making them up: every register another value and memory
full of others (nothing overlaps unless the code says so), or, as the harness of BHive does (Chen et al., IISWC 2019), every
register and all memory the same value and every page the same frame.  Vector and other results are a fixed made-up value.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pyx86v.cost.model.types cimport *

cdef enum:
    STORES = 1024              # slots of eight bytes, a power of two
    RECENT = 4                 # stores remembered in each
    START_SAME = 0x2324000     # the harness's constant

ctypedef struct Store:
    uint64_t address
    uint32_t size              # bytes
    int64_t ready              # when its data can be forwarded
    int64_t committed          # when it is in the cache
    int32_t by                 # the instruction that stored
    uint8_t vector             # from a vector register

ctypedef struct Stored:        # eight bytes of memory that the block wrote
    uint64_t tag               # address / 8
    uint64_t value
    uint32_t run               # Values.run when it was written
    uint32_t count             # stores there
    Store last[RECENT]         # the most recent, number n in last[n % RECENT]

ctypedef struct Values:
    bint same                  # the harness's start
    uint32_t run               # counts the starts, so that nothing needs to be cleared
    uint64_t reg[16]
    Stored stores[STORES]


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    """A well-spread function of x, for values that nobody knows; multiples of 64 far apart."""
    x = (x + 1) * 0x9E3779B97F4A7C15ULL
    x ^= x >> 29
    return (x * 0xBF58476D1CE4E5B9ULL >> 20) & 0x7FFFFFFFFC0ULL


cdef inline void values_start(Values* v, bint same) noexcept nogil:
    cdef int i
    v.same = same
    for i in range(16):
        v.reg[i] = START_SAME if same else scramble(i)
    v.reg[CELL_RSP] += 2048                             # the middle of a page; RBP a little below, where that harness aligns it
    if same:
        v.reg[CELL_RBP] += 2032
    v.run += 1


cdef inline uint64_t cell_number(const Values* v, uint64_t address) noexcept nogil:
    return (address & 0xFFF if v.same else address) >> 3


cdef inline Stored* stored_at(Values* v, uint64_t number) noexcept nogil:
    return &v.stores[number & (STORES - 1)]


cdef inline uint64_t cell_value(Values* v, uint64_t number) noexcept nogil:
    cdef Stored* s = stored_at(v, number)
    if s.run == v.run and s.tag == number:
        return s.value
    return START_SAME if v.same else scramble(number ^ 0x5555555555ULL)


cdef inline uint64_t memory_load(Values* v, uint64_t address, int size) noexcept nogil:
    """Up to eight bytes."""
    cdef uint64_t number = cell_number(v, address)
    cdef int shift = <int>(address & 7) * 8
    cdef uint64_t x = cell_value(v, number) >> shift
    if shift and shift + size * 8 > 64:
        x |= cell_value(v, number + 1) << (64 - shift)
    return x if size >= 8 else x & ((1ULL << size * 8) - 1)


cdef inline uint64_t merge(uint64_t old, uint64_t new, int width) noexcept nogil:
    """`new` of `width` bytes written into a register that held `old` (SDM 1, 3.4.1.1)."""
    if width >= 8:
        return new
    if width == 4:
        return new & 0xFFFFFFFFULL
    cdef uint64_t mask = (1ULL << width * 8) - 1
    return (old & ~mask) | (new & mask)


cdef inline uint64_t sign_extend(uint64_t x, int width) noexcept nogil:
    cdef int shift = 64 - width * 8
    return <uint64_t>(<int64_t>(x << shift) >> shift) if 0 < shift < 64 else x


cdef inline uint64_t truncated(uint64_t x, int width) noexcept nogil:
    return x if width >= 8 or width == 0 else x & ((1ULL << width * 8) - 1)


cdef inline uint64_t address_of(const Values* v, const Insn* i, uint64_t rip) noexcept nogil:
    """The address of the memory operand; `rip` is that of the next instruction."""
    cdef uint64_t a = <uint64_t>i.disp
    if i.base == CELL_RIP:
        a += rip
    elif i.base < 16:
        a += v.reg[i.base]
    if i.index < 16:
        a += v.reg[i.index] * i.scale
    return a + <uint64_t><int64_t>i.stack if i.stack < 0 and i.base == CELL_RSP else a


cdef inline uint64_t evaluate(const Values* v, const Insn* i, uint64_t old, uint64_t by, uint64_t address, int number) noexcept nogil:
    """The result of the instruction before it is cut to its width."""
    cdef int count = <int>(by & (63 if i.width == 8 else 31))
    if i.eval == EVAL_MOVE: return by
    if i.eval == EVAL_ADD: return old + by
    if i.eval == EVAL_SUB: return old - by
    if i.eval == EVAL_AND: return old & by
    if i.eval == EVAL_OR: return old | by
    if i.eval == EVAL_XOR: return old ^ by
    if i.eval == EVAL_SHL: return old << count
    if i.eval == EVAL_SHR: return truncated(old, i.width) >> count
    if i.eval == EVAL_SAR: return <uint64_t>(<int64_t>sign_extend(old, i.width) >> count)
    if i.eval == EVAL_LEA: return address
    if i.eval == EVAL_INC: return old + 1
    if i.eval == EVAL_DEC: return old - 1
    if i.eval == EVAL_NEG: return <uint64_t>0 - old
    if i.eval == EVAL_NOT: return ~old
    if i.eval == EVAL_SIGN: return sign_extend(by, i.scale if not i.by_memory else i.size)
    if i.eval == EVAL_MULTIPLY: return old * by
    if i.eval == EVAL_POP: return by
    if i.eval == EVAL_KEEP: return old
    return scramble(<uint64_t>number + 1000)


cdef inline uint64_t values_step(Values* v, const Insn* i, int number, uint64_t address) noexcept nogil:
    """Carry out the instruction on the registers; returns the value that it stores, if it does.  `address` is of its memory operand."""
    cdef uint64_t by, old = 0, result
    cdef int k
    if i.by_memory or i.eval == EVAL_POP:
        by = memory_load(v, address, i.size if i.size < 8 else 8)
    elif i.by < 16:
        by = truncated(v.reg[i.by], i.scale if i.eval == EVAL_MOVE and i.scale and i.size == 0 else i.width)
    else:
        by = <uint64_t>i.immediate
    if i.stack:
        v.reg[CELL_RSP] += <uint64_t><int64_t>i.stack
    if i.eval == EVAL_PUSH:
        return by
    if i.to < 16:
        old = v.reg[i.to]
    elif i.to_memory and i.loads:
        old = memory_load(v, address, i.size if i.size < 8 else 8)
    result = evaluate(v, i, old, by, address, number)
    if i.to < 16 and i.eval != EVAL_KEEP:
        for k in range(i.n_result):
            if i.result[k] == i.to:
                v.reg[i.to] = merge(old, result, i.width)
    for k in range(i.n_result):                     # what else it writes, nobody knows
        if i.result[k] < 16 and i.result[k] != i.to:
            v.reg[i.result[k]] = scramble(<uint64_t>number * 16 + i.result[k])
    return result


cdef inline void memory_store(Values* v, uint64_t address, int size, uint64_t value, int64_t ready, int64_t committed, int by, uint8_t vector) noexcept nogil:
    """Write the bytes; `value` is what they become, of up to eight, of a vector nobody knows."""
    cdef uint64_t number = cell_number(v, address), mask, part, old, address_now = address
    cdef int shift, left = size if size else 1, here
    cdef Stored* s
    cdef Store* st
    while left > 0:
        shift = <int>(address_now & 7) * 8
        here = 8 - <int>(address_now & 7)
        if here > left:
            here = left
        mask = (~<uint64_t>0 if here == 8 else (1ULL << here * 8) - 1) << shift
        part = value if size <= 8 else scramble(number)
        s = stored_at(v, number)
        old = cell_value(v, number)
        if s.tag != number or s.run != v.run:
            s.count = 0
        s.run = v.run
        s.tag = number
        s.value = (old & ~mask) | (part << shift & mask)
        st = &s.last[s.count & (RECENT - 1)]
        st.address = address
        st.size = size
        st.ready = ready
        st.committed = committed
        st.by = by
        st.vector = vector
        s.count += 1
        if size <= 8 and here < 8:
            value >>= here * 8
        left -= here
        address_now += here
        number = cell_number(v, address_now)


cdef inline bint overlaps(const Values* v, const Store* s, uint64_t address, int size) noexcept nogil:
    """By the address that the caches go by."""
    cdef uint64_t a = address, b = s.address
    if v.same:
        a &= 0xFFF
        b &= 0xFFF
    return b < a + size and a < b + s.size


cdef inline bint covers(const Values* v, const Store* s, uint64_t address, int size) noexcept nogil:
    """Can the store give the load all its bytes?  Under the harness's start two pages of one frame cannot."""
    return s.address <= address and s.address + s.size >= address + size


cdef inline const Store* newest_store(Values* v, uint64_t number, uint64_t address, int size) noexcept nogil:
    """The last store to this slot that overlaps the bytes, NULL if none is remembered."""
    cdef Stored* s = stored_at(v, number)
    cdef uint32_t k = s.count
    if s.tag != number or s.run != v.run:
        return NULL
    while k > 0 and s.count - k < RECENT:
        k -= 1
        if overlaps(v, &s.last[k & (RECENT - 1)], address, size):
            return &s.last[k & (RECENT - 1)]
    return NULL
