# SPDX-License-Identifier: GPL-2.0-or-later
"""The first parallel port, 378h to 37Ah, with nothing plugged in but a probe on bit 0 of the data lines.

Sources: IBM Personal Computer Technical Reference, printer adapter; Intel 82091AA data sheet, standard parallel port.
The probe is what a thesis of 2011 on the evaluation of hypervisors did with an oscilloscope: the guest raises the line before a
load and lowers it after, and somebody outside the machine measures the plateau.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PARALLEL_PORT = 0x378
    PROBE_LINE = 1           # bit 0 of the data lines, pin 2
    NOT_CONNECTED = 0x7F     # the status lines are pulled up, and BUSY is inverted

ctypedef struct Parallel:
    uint8_t data
    uint8_t control          # bits 4..0; bit 5, the direction, stays output

ctypedef struct ProbeEdge:   # the line has changed
    uint64_t high            # 1: it rose
    uint64_t units           # of the ledger, 1/64 cycle
    uint64_t instructions    # that the ledger had retired
    uint64_t tsc             # what the guest's clocks showed: its time stamp counter,
    uint64_t timers          # and guest time, which its timers follow

cdef inline uint8_t parallel_read(const Parallel* p, uint16_t port) noexcept nogil:
    if port == PARALLEL_PORT:
        return p.data
    return NOT_CONNECTED if port == PARALLEL_PORT + 1 else p.control | 0xE0

cdef inline void parallel_write(Parallel* p, uint16_t port, uint8_t value) noexcept nogil:
    if port == PARALLEL_PORT:
        p.data = value
    elif port == PARALLEL_PORT + 2:
        p.control = value & 0x1F
