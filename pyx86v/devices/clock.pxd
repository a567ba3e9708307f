# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest time to chip clocks and back, exactly.

Guest time is a uint64_t count of processor cycles.  A chip clock of `hertz` has made
floor(now * hertz / cycles_per_second) pulses at `now`: 128-bit products, no drift, no floats.
"""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #define PYX86V_NEVER UINT64_MAX
    static inline uint64_t pyx86v_scale_down(uint64_t a, uint64_t b, uint64_t c) {
        return (uint64_t)((unsigned __int128)a * b / c);
    }
    static inline uint64_t pyx86v_scale_up(uint64_t a, uint64_t b, uint64_t c) {
        unsigned __int128 q = ((unsigned __int128)a * b + (c - 1)) / c;
        return q > UINT64_MAX ? UINT64_MAX : (uint64_t)q;
    }
    """
    const uint64_t NEVER "PYX86V_NEVER"       # a moment that does not come
    uint64_t scale_down "pyx86v_scale_down"(uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    uint64_t scale_up "pyx86v_scale_up"(uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    int lowest_bit "__builtin_ctz"(unsigned int nonzero) noexcept nogil

cdef enum:
    PIT_HERTZ = 1193182      # 14.31818 MHz / 12
    RTC_HERTZ = 32768

cdef inline uint64_t pulses_at(uint64_t now, uint64_t hertz, uint64_t cycles_per_second) noexcept nogil:
    """Pulses made up to and including the cycle `now`.  Needs hertz <= cycles_per_second."""
    return scale_down(now, hertz, cycles_per_second)

cdef inline uint64_t cycle_of(uint64_t pulse, uint64_t hertz, uint64_t cycles_per_second) noexcept nogil:
    """The first cycle at which `pulse` pulses have been made; NEVER beyond 2**64."""
    if pulse == NEVER:
        return NEVER
    return scale_up(pulse, cycles_per_second, hertz)
