# SPDX-License-Identifier: GPL-2.0-or-later
"""May a `Platform` out of a file be used?  Checked is what the chips use as an index, divide by or wait for."""
from libc.stdint cimport uint64_t
from pyx86v.devices.pit cimport PitChannel, half_left
from pyx86v.devices.platform cimport Platform
from pyx86v.devices.rtc cimport Rtc

cdef enum:
    TICK_BITS = 56           # of a chip's clock: two thousand years

cdef inline bint channel_is_sound(const PitChannel* c) noexcept nogil:
    """A running count has an end: an output that is due for ever would be waited for, for ever."""
    if c.initial == 0 or c.initial > 65536 or c.count > 65536 or c.mode > 5 or c.gate > 1 or c.out > 1 or c.odd > 1 or \
            c.tick >> TICK_BITS:
        return False
    if not c.counting or c.load:
        return True
    return half_left(c) > 0 if c.mode == 3 else c.count > 0 or c.mode != 2

cdef inline bint rtc_is_sound(const Rtc* r) noexcept nogil:
    return r.index < 128 and r.tick >> TICK_BITS == 0 and (r.tick - r.origin) >> TICK_BITS == 0

cdef inline bint platform_is_sound(const Platform* p, uint64_t cycles_per_second) noexcept nogil:
    cdef int i
    for i in range(3):
        if not channel_is_sound(&p.pit.channel[i]):
            return False
    return p.cycles_per_second == cycles_per_second and rtc_is_sound(&p.rtc) and p.uart.head < 16 and \
        p.uart.count <= 16 and p.vga.dac_at < 768 and p.kbc.a20 <= 1
