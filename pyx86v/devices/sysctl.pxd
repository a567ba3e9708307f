# SPDX-License-Identifier: GPL-2.0-or-later
"""System control: port 61h (speaker and timer gate), 92h (fast A20 and reset), CF9h (reset), 80h (POST).

Source: Intel 82371SB data sheet, NMI status and control, port 92h, reset control.
"""
from libc.stdint cimport uint8_t, uint64_t

ctypedef struct Sysctl:
    uint8_t port61           # bits 3..0
    uint8_t post             # the last byte written to port 80h
    uint8_t reset_control    # CF9h

cdef enum:
    REFRESH = 18             # pulses of the timer clock between DRAM refreshes: 15.09 us

cdef inline uint8_t port61_value(const Sysctl* c, bint out2, uint64_t pulse) noexcept nogil:
    """Bit 4 toggles at each refresh, bit 5 is the output of timer channel 2."""
    return c.port61 | (pulse // REFRESH & 1) << 4 | out2 << 5

cdef inline bint reset_control_write(Sysctl* c, uint8_t value) noexcept nogil:
    """CF9h.  True: bit 2 rose, which resets the processor."""
    cdef bint rose = value & ~c.reset_control & 4 != 0
    c.reset_control = value
    return rose
