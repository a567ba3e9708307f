# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's words to the test bench: end at F4h, report at E8h, debug console at E9h.

Port F4h ends the run with the value written (QEMU's isa-debug-exit ends with value << 1 | 1).
Port E8h takes words of 32 bits; narrower writes are extended with zeros.  E9h reads as E9h, as in Bochs.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from pyx86v.devices.sinks cimport Sinks, buffer_append, buffer_put

ctypedef struct Debug:
    uint64_t reported        # words
    uint64_t printed         # bytes

cdef inline void debug_report(Debug* d, Sinks* s, uint32_t word) noexcept nogil:
    cdef uint8_t bytes[4]
    bytes[0] = word & 0xFF
    bytes[1] = word >> 8 & 0xFF
    bytes[2] = word >> 16 & 0xFF
    bytes[3] = word >> 24
    buffer_append(&s.report, bytes, 4)
    d.reported += 1

cdef inline void debug_print(Debug* d, Sinks* s, uint8_t byte) noexcept nogil:
    buffer_put(&s.debug, byte)
    d.printed += 1
