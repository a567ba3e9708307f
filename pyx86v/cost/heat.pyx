# SPDX-License-Identifier: GPL-2.0-or-later
"""Making, saving and restoring what heat.pxd describes."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.cost.model.pricer cimport arena_free, arena_new

cdef enum:
    MOST_UNITS = 1 << 24     # far above PLAIN_INSNS of the dearest instructions


cdef Heat* heat_new(dict table, uint32_t after) except NULL:
    """For the processor that `table` (load_model) describes; code is priced at its execution number `after`."""
    cdef Heat* h = <Heat*>calloc(1, sizeof(Heat))
    if h is NULL:
        raise MemoryError("block prices")
    h.after = after
    try:
        h.model = arena_new(table)
    except MemoryError:
        free(h)
        raise
    return h


cdef void heat_free(Heat* h) noexcept:
    if h is not NULL:
        arena_free(h.model)
        free(h)


cdef bytes heat_image(const Heat* h):
    """The path, and the slots that are used."""
    return (<const char*>&h.path)[:sizeof(Path)] + (<const char*>h.slot)[:h.used * sizeof(HeatSlot)]


cdef bint step_is_sound(const Step* s) noexcept nogil:
    return s.bytes == 0 or (s.bytes <= PLAIN_BYTES and s.insns <= PLAIN_INSNS and 0 < s.base < MOST_UNITS and
                            (s.bits == 16 or s.bits == 32 or s.bits == 64))


cdef bint heat_load(Heat* h, const uint8_t[::1] image) noexcept:
    """The reverse of heat_image.  False: this cannot be one, of a machine with this profile."""
    cdef uint64_t i, n = (<uint64_t>image.shape[0] - sizeof(Path)) // sizeof(HeatSlot)
    cdef HeatSlot one
    cdef HeatSlot* s
    if <uint64_t>image.shape[0] < sizeof(Path) or (image.shape[0] - sizeof(Path)) % sizeof(HeatSlot):
        return False
    memcpy(&h.path, &image[0], sizeof(Path))
    if h.path.steps >> 62:
        return False
    for i in range(PATH_STEPS):
        if not step_is_sound(&h.path.step[i]) or (i < h.path.steps) != (h.path.step[i].bytes != 0):
            return False
    memset(h.slot, 0, sizeof(h.slot))
    memset(h.index, 0, sizeof(h.index))
    h.used = h.priced = 0
    for i in range(n):
        memcpy(&one, &image[sizeof(Path) + i * sizeof(HeatSlot)], sizeof(HeatSlot))
        if one.key == 0 or one.units >= MOST_UNITS or one.count > h.after or (one.units == 0) != (one.count < h.after):
            return False
        s = heat_find(h, one.key, True)
        if s is NULL or s is not &h.slot[i]:                # no room, or the key came before
            return False
        s[0] = one
        h.priced += one.units != 0
    return True


cdef class CodeHeat:
    """The same for Python: executions one after the other, as a machine has them.

    table  of a profile of the block model, as load_model gives it
    after  executions at which code is priced
    """
    cdef Heat* h

    def __cinit__(self, table, after):
        self.h = heat_new(table, after)

    def __dealloc__(self):
        heat_free(self.h)

    def execute(self, bytes code not None, int bits, int insns, int base):
        """Count one execution of code of `insns` instructions that costs `base` units by class; its price by the model, 0: none yet."""
        cdef HeatSlot* s
        cdef const uint8_t* start = code
        if not (1 <= len(code) <= PLAIN_BYTES and 1 <= insns <= PLAIN_INSNS and 0 < base < MOST_UNITS and (bits == 16 or bits == 32 or bits == 64)):
            raise ValueError(f"code: expected 1 to {PLAIN_BYTES} bytes and {PLAIN_INSNS} instructions")
        s = heat_find(self.h, code_key(start, <uint32_t>len(code), bits), True)
        return heat_execute(self.h, s, start, <uint32_t>len(code), bits, <uint32_t>insns, <uint32_t>base) if s is not NULL else 0

    def image(self):
        return heat_image(self.h)

    def load(self, const uint8_t[::1] image):
        return heat_load(self.h, image)
