# SPDX-License-Identifier: GPL-2.0-or-later
"""The platform: every chip of the PC behind its ports, its interrupt lines and its clock.

`now` is guest time in processor cycles and must not go back.  Order at an event or an exit:
platform_advance(), then platform_irq(), then platform_ack().  INTR may fall again by itself (a
request withdrawn before INTA is gone), so ask platform_irq() at the moment of delivery.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.devices.debug cimport Debug
from pyx86v.devices.kbc cimport Kbc
from pyx86v.devices.pic cimport Pic, chip_highest, chip_irr, pic_ack, pic_irq
from pyx86v.devices.pit cimport Pit
from pyx86v.devices.rtc cimport Rtc
from pyx86v.devices.sinks cimport Sinks
from pyx86v.devices.sysctl cimport Sysctl
from pyx86v.devices.uart cimport Uart
from pyx86v.devices.vga cimport Vga

cdef enum PlatformStop:
    PLATFORM_RUNS = 0
    PLATFORM_EXIT = 1        # debug-exit; stop_status is the value written
    PLATFORM_RESET = 2       # reset by the 8042, port 92h or port CF9h

ctypedef struct Platform:
    uint64_t cycles_per_second
    uint64_t pit_rise        # cycle at which timer channel 0's output next rises (NEVER: it does not)
    uint64_t pit_fall        # and falls
    uint64_t rtc_rise        # cycle at which IRQ 8 next rises
    uint32_t stop            # PlatformStop: the first request stands
    uint32_t stop_status
    Pic pic
    Uart uart
    Kbc kbc                  # kbc.a20 is the machine's A20 line
    Sysctl sysctl
    Pit pit
    Rtc rtc
    Debug debug
    Vga vga

cdef void platform_init(Platform* p, uint64_t cycles_per_second, uint64_t ram_bytes) noexcept nogil
cdef uint32_t platform_in(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint64_t now) noexcept nogil
cdef void platform_out(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint32_t value, uint64_t now) noexcept nogil
cdef void platform_advance(Platform* p, Sinks* s, uint64_t now) noexcept nogil

cdef inline uint64_t platform_next_event(const Platform* p, uint64_t now) noexcept nogil:
    """The next cycle at which an interrupt line may change by itself; UINT64_MAX: never.

    `now` itself means that platform_advance() is due.  Timers that are masked, or held back by an interrupt in
    service, are left out: their state is brought up to date when somebody looks.  A high output whose request has been acknowledged falls
    unseen, so then only the next rise counts.
    """
    cdef uint64_t next = <uint64_t>-1
    if chip_highest(&p.pic.master, 1) == 0:
        next = p.pit_fall if chip_irr(&p.pic.master) & 1 else p.pit_rise
    if p.rtc_rise < next and chip_highest(&p.pic.slave, 1) == 0 and chip_highest(&p.pic.master, 4) == 2:
        next = p.rtc_rise
    return next if next > now else now

cdef inline bint platform_irq(const Platform* p) noexcept nogil:
    """INTR is asserted."""
    return pic_irq(&p.pic)

cdef inline int platform_ack(Platform* p) noexcept nogil:
    """The processor's INTA cycle: the vector, 0 to 255."""
    return pic_ack(&p.pic)
