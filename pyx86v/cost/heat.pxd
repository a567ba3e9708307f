# SPDX-License-Identifier: GPL-2.0-or-later
"""Which code has run how often, and what the block model said of it when it had run often enough.

The key is the code's bytes: identical code anywhere, under any translation of the engine's, is one entry.  All of this is saved
with a machine, and it changes only when the guest executes code that has no price of the model's yet; so when code gets its
price, and which, depends on what the guest did and not on how the engine cut and kept it.

A loop over several blocks keeps its dependency chain: the last executions of such code are remembered (`Path`), and code that
comes round to itself within them is priced by its part in the loop that it is most often in, repeated as a whole.  Code that does not is priced as if each execution
found its operands ready.  What has a price already is in no path.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.cost.model.pricer cimport Arena, code_units

cdef enum:
    HEAT_SLOTS = 1 << 17     # a Linux boot fills half
    HEAT_INDEX = 1 << 18     # a power of two
    HEAT_PROBES = 16         # how far from where its hash points an entry of the index may lie; entries stay for ever
    HEAT_MOST = 255          # executions that can be asked for
    PLAIN_INSNS = 64         # of a block, that one analysis takes
    PLAIN_BYTES = 240
    PATH_STEPS = 16          # a power of two
    LOOP_INSNS = 96          # the longest loop that is analysed as one
    KNOWN_LOOPS = 64         # a power of two
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
    HeatSlot loops[KNOWN_LOOPS]  # what was found last, by the code: only saves time
    Path path                # saved
    uint32_t index[HEAT_INDEX]  # by key: number of the slot, and 1; 0: free
    HeatSlot slot[HEAT_SLOTS]   # saved; in the order in which code was seen, since what comes together runs together

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
    cdef uint32_t* number
    cdef uint64_t i
    for i in range(HEAT_PROBES):
        number = &h.index[(key + i) & (HEAT_INDEX - 1)]
        if number[0] == 0:
            if not make or h.used == HEAT_SLOTS:
                return NULL
            h.slot[h.used].key = key
            h.used += 1
            number[0] = <uint32_t>h.used
        if h.slot[number[0] - 1].key == key:
            return &h.slot[number[0] - 1]
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

cdef inline const Step* step_back(const Path* p, uint64_t back) noexcept nogil:
    return &p.step[(p.steps - 1 - back) & (PATH_STEPS - 1)]

cdef inline bint loop_fits(const Path* p, uint64_t back, uint64_t steps, uint32_t* size, uint32_t* base) noexcept nogil:
    """May the steps up to the one `back` steps ago be analysed as one loop?

    size, base   bytes, and the sum of the prices by class
    """
    cdef const Step* s
    cdef uint64_t i
    cdef uint32_t insns = 0
    size[0] = base[0] = 0
    for i in range(steps):
        s = step_back(p, back + i)
        insns += s.insns
        size[0] += s.bytes
        base[0] += s.base
        if s.bits != step_back(p, 0).bits or insns > LOOP_INSNS or size[0] > LOOP_BYTES:
            return False
    return True

cdef inline uint64_t path_loop(const Path* p, uint64_t* back, uint32_t* size, uint32_t* base) noexcept nogil:
    """How many steps make the loop that the last step is most often in: those between two executions of the same code; 0: none.

    Most often, since an inner loop is entered, too, and then what lies between is the outer one.  Of two alike, the shorter.

    back   how many steps ago it was closed last
    """
    cdef uint64_t closed[PATH_STEPS]
    cdef int times[PATH_STEPS]
    cdef uint64_t held = p.steps if p.steps < PATH_STEPS else PATH_STEPS, last = 0, best = 0, i
    memset(times, 0, sizeof(times))
    for i in range(1, held):
        if step_back(p, i).key == step_back(p, 0).key:
            if times[i - last] == 0:
                closed[i - last] = last
            times[i - last] += 1
            last = i
    for i in range(1, held):
        if times[i] > (times[best] if best else 0) and loop_fits(p, closed[i], i, size, base):
            best = i
    if best:
        back[0] = closed[best]
        loop_fits(p, back[0], best, size, base)
    return best

cdef inline uint32_t loop_code(const Path* p, uint64_t back, uint64_t steps, uint8_t* code) noexcept nogil:
    """The loop's bytes, from its step with the least key on: the same wherever it was closed."""
    cdef const Step* s
    cdef uint64_t first = 0, i
    cdef uint32_t at = 0
    for i in range(1, steps):
        if step_back(p, back + i).key < step_back(p, back + first).key:
            first = i
    for i in range(steps):
        s = step_back(p, back + (first - i if i <= first else first + steps - i))
        memcpy(code + at, s.code, s.bytes)
        at += s.bytes
    return at

cdef inline uint32_t loop_units(Heat* h, const uint8_t* code, uint32_t size, int bits) noexcept nogil:
    """Units of one turn of a loop; remembered, since each of its steps asks."""
    cdef uint64_t key = code_key(code, size, bits)
    cdef HeatSlot* known = &h.loops[key & (KNOWN_LOOPS - 1)]
    if known.key != key:
        known.key = key
        known.units = code_units(h.model, code, size, bits, True)
    return known.units

cdef inline uint32_t path_price(Heat* h) noexcept nogil:
    """Units of the last step by the block model: its part, by the classes' prices, of the loop that it is in, or alone."""
    cdef uint8_t code[LOOP_BYTES]
    cdef const Step* last = step_back(&h.path, 0)
    cdef uint32_t size, base, units = 0
    cdef uint64_t back, steps = path_loop(&h.path, &back, &size, &base)
    if steps:
        size = loop_code(&h.path, back, steps, code)
        units = <uint32_t>(<uint64_t>loop_units(h, code, size, last.bits) * last.base // base)
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
