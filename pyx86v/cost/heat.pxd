# SPDX-License-Identifier: GPL-2.0-or-later
"""Which code has run how often, and what the block model said of it when it had run often enough.

The key is the code's bytes: identical code anywhere, under any translation of the engine's, is one entry.  All of this is saved
with a machine, and it changes only when the guest executes code that has no price of the model's yet; so when code gets its
price, and which, depends on what the guest did and not on how the engine cut and kept it.

A loop over several blocks keeps its dependency chain: the last executions of such code are remembered (`Path`), and code that
comes round to itself within them is priced by its part in that loop, repeated as a whole.  Code that does not is priced as if each execution
found its operands ready.  What has a price already is in no path.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.cost.model.pricer cimport Arena, code_units

cdef enum:
    HEAT_SLOTS = 1 << 17     # a power of two; a Linux boot fills half
    HEAT_PROBES = 16         # how far from where its hash points an entry may lie; entries stay for ever
    HEAT_MOST = 255          # executions that can be asked for
    PLAIN_INSNS = 64         # of a block, that one analysis takes
    PLAIN_BYTES = 240
    PATH_STEPS = 16          # a power of two
    LOOP_INSNS = 128         # the longest loop that is analysed as one
    LOOP_BYTES = 1024

ctypedef struct HeatSlot:
    uint64_t key             # 0: free
    uint32_t units           # of one execution by the block model, 0: none yet
    uint32_t count           # executions until then

ctypedef struct Step:        # one execution of code without a price
    uint64_t key
    uint32_t base            # units by the classes' prices
    uint8_t insns
    uint8_t bits
    uint8_t bytes            # 0: there is no such step
    uint8_t code[PLAIN_BYTES + 1]

ctypedef struct Path:
    uint64_t steps           # so far; number n in step[n % PATH_STEPS]
    Step step[PATH_STEPS]

ctypedef struct Heat:
    Arena* model             # the block model of the profile's processor
    uint32_t after           # executions at which it is asked
    uint64_t used            # slots,
    uint64_t priced          # and of these with a price
    Path path                # saved
    HeatSlot slot[HEAT_SLOTS]   # saved

cdef inline uint64_t code_key(const uint8_t* code, uint32_t size, int bits) noexcept nogil:
    """A hash of the bytes, never 0 (the mixing steps are those of splitmix64)."""
    cdef uint64_t h = <uint64_t>size << 8 | <uint64_t>bits, word
    cdef uint32_t at = 0, piece
    while at < size:
        piece = size - at if size - at < 8 else 8
        word = 0
        memcpy(&word, code + at, piece)
        h = (h ^ word) * 0xBF58476D1CE4E5B9ULL
        h ^= h >> 29
        at += piece
    h *= 0x94D049BB133111EBULL
    h ^= h >> 31
    return h if h else 1

cdef inline HeatSlot* heat_find(Heat* h, uint64_t key, bint make) noexcept nogil:
    """The entry of a key; NULL: there is none, or when it is to be made, no room for it (and never will be)."""
    cdef HeatSlot* s
    cdef uint64_t i
    for i in range(HEAT_PROBES):
        s = &h.slot[(key + i) & (HEAT_SLOTS - 1)]
        if s.key == key:
            return s
        if s.key == 0:
            if not make:
                return NULL
            s.key = key
            h.used += 1
            return s
    return NULL

cdef inline void path_note(Path* p, uint64_t key, const uint8_t* code, uint32_t size, int bits, uint32_t insns, uint32_t base) noexcept nogil:
    cdef Step* s = &p.step[p.steps & (PATH_STEPS - 1)]
    s.key = key
    s.base = base
    s.insns = <uint8_t>insns
    s.bits = <uint8_t>bits
    s.bytes = <uint8_t>size
    memcpy(s.code, code, size)
    p.steps += 1

cdef inline uint32_t path_loop(const Path* p, uint8_t* code, uint32_t* base) noexcept nogil:
    """The loop that the last step closes: the steps since the same code ran before, up to the last.

    Returns its bytes, 0 if there is none, and in base[0] the sum of its steps' prices by class.
    """
    cdef const Step* last = &p.step[(p.steps - 1) & (PATH_STEPS - 1)]
    cdef const Step* s
    cdef uint64_t back = 1
    cdef uint32_t insns = last.insns, size = last.bytes, at = 0
    base[0] = last.base
    while True:
        if back >= PATH_STEPS or back >= p.steps:
            return 0
        s = &p.step[(p.steps - 1 - back) & (PATH_STEPS - 1)]
        if s.key == last.key:
            break
        insns += s.insns
        size += s.bytes
        base[0] += s.base
        if s.bits != last.bits or insns > LOOP_INSNS or size > LOOP_BYTES:
            return 0
        back += 1
    while back > 0:
        back -= 1
        s = &p.step[(p.steps - 1 - back) & (PATH_STEPS - 1)]
        memcpy(code + at, s.code, s.bytes)
        at += s.bytes
    return size

cdef inline uint32_t path_price(Heat* h) noexcept nogil:
    """Units of the last step by the block model: its part, by the classes' prices, of the loop that it closes, or alone."""
    cdef uint8_t code[LOOP_BYTES]
    cdef const Step* last = &h.path.step[(h.path.steps - 1) & (PATH_STEPS - 1)]
    cdef uint32_t base, units = 0, size = path_loop(&h.path, code, &base)
    if size:
        units = <uint32_t>(<uint64_t>code_units(h.model, code, size, last.bits, True) * last.base // base)
    if units == 0:
        units = code_units(h.model, last.code, last.bytes, last.bits, False)
    return units if units else last.base

cdef inline uint32_t heat_execute(Heat* h, HeatSlot* s, const uint8_t* code, uint32_t size, int bits, uint32_t insns, uint32_t base) noexcept nogil:
    """The code of `s` is about to be executed: count it.  Returns its price by the block model, 0 while it has none."""
    if s.units == 0:
        path_note(&h.path, s.key, code, size, bits, insns, base)
        s.count += 1
        if s.count >= h.after:
            s.units = path_price(h)
            h.priced += 1
    return s.units

cdef Heat* heat_new(dict table, uint32_t after) except NULL
cdef void heat_free(Heat* h) noexcept
cdef bytes heat_image(const Heat* h)
cdef bint heat_load(Heat* h, const uint8_t[::1] image) noexcept
