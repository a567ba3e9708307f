# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model for the engine (pricer.pxd), and what a model of one processor is made of."""
from libc.stdlib cimport calloc, free

from pyx86v.cost.model.decode cimport capstone_close, capstone_open, model_decode
from pyx86v.cost.model.simulate cimport *
from pyx86v.cost.model.types cimport *

cdef enum:
    SMALL_UOPS = 160            # simulated of a small block


cdef Arena* arena_new(dict table) except NULL:
    """The model of a processor, `table` as load_model gives it.  MemoryError if there is none or capstone does not open."""
    cdef Arena* a = <Arena*>calloc(1, sizeof(Arena))
    if a == NULL or not capstone_open(&a.capstone):
        arena_free(a)
        raise MemoryError("capstone does not open")
    cdef int32_t* line = <int32_t*>&a.uarch.pipe
    for k, value in enumerate(table["pipeline"]):
        line[k] = value
    (a.uarch.ports.load, a.uarch.ports.address, a.uarch.ports.address_indexed, a.uarch.ports.data, a.uarch.ports.sync) = table["ports"]
    for k, row in enumerate(table["groups"]):
        fill_group(&a.uarch.groups[<int>k], row)
    return a


cdef void arena_free(Arena* a) noexcept:
    if a != NULL:
        capstone_close(&a.capstone)
        free(a)


cdef int fill_group(Group* g, tuple row) except -1:
    uops, latency, fused, loaded, rmw, first, busy, serial = row
    g.kinds = len(uops)
    for j, (mask, count) in enumerate(uops):
        g.ports[<int>j], g.counts[<int>j] = mask, count
    g.latency, g.fused, g.loaded, g.rmw, g.first, g.busy, g.serial = latency, fused, loaded, rmw, first, busy, serial
    return 0


cdef uint32_t code_units(Arena* a, const uint8_t* code, uint32_t size, int bits, bint loop) noexcept nogil:
    """Units (1/64 cycle) of one repetition of the code, from the decoded cache, with a taken branch at its end.

    loop   what one repetition leaves the next one waits for; otherwise each finds its operands ready

    0 if these are no whole instructions.  About 10 microseconds: fewer repetitions than a `BlockModel` makes.
    """
    cdef int iterations, turn, slots = 0, k
    cdef int64_t units
    if <uint32_t>model_decode(&a.capstone, &a.uarch, code, size, bits, &a.block) != size or a.block.n == 0:
        return 0
    for k in range(a.block.n):
        slots += a.block.insns[k].slots
    if slots >= 40:
        turn, iterations = 1, 6
    elif slots >= 12:
        turn, iterations = 2, 8
    else:                                               # alike after four: a width of four shows in no more
        turn, iterations = 4, 16 if slots > 10 else SMALL_UOPS // (slots if slots else 1) // 8 * 8
    sim_start(&a.sim, WITH_ALL | WITH_LOOP | (0 if loop else WITH_APART), False)
    units = simulate(&a.sim, &a.uarch, &a.block, iterations if iterations < MAX_ITERATIONS else MAX_ITERATIONS, turn, NULL, 0)
    return <uint32_t>units if 0 < units < 1 << 30 else 1
