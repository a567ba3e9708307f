# SPDX-License-Identifier: GPL-2.0-or-later
"""May a `Platform` out of a file be used?  Checked is what the chips use as an index, divide by or wait for."""
from libc.stdint cimport uint64_t
from pyx86v.devices.atapi cimport PACKET_BYTES
from pyx86v.devices.clock cimport NEVER
from pyx86v.devices.ide_state cimport *
from pyx86v.devices.lapic cimport Lapic
from pyx86v.devices.pit cimport PitChannel, half_left
from pyx86v.devices.platform cimport Platform
from pyx86v.devices.rtc cimport Rtc

cdef enum:
    TICK_BITS = 56           # of a chip's clock: two thousand years
    TIME_BITS = 61           # of a moment in guest time

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

cdef inline bint lapic_is_sound(const Lapic* l, const Lapic* fresh) noexcept nogil:
    """A count that runs ends, within the time that there is."""
    return (l.due == NEVER or l.due >> TIME_BITS == 0) and l.since >> TIME_BITS == 0 and l.divide <= 0xB and l.vector <= 0xFF and \
        l.ended <= 0xFF and l.has_x2apic == fresh.has_x2apic and l.has_deadline == fresh.has_deadline and \
        l.maxphyaddr == fresh.maxphyaddr

cdef inline bint transfer_is_sound(const Channel* c) noexcept nogil:
    """A command's data: the buffer's bytes lie in the buffer, and what the host is promised is there to come."""
    cdef bint to_host = c.phase == IDE_DATA_IN or c.phase == IDE_DMA_IN
    if c.phase > IDE_DMA_OUT or c.unit > 1 or c.filled > IDE_BUFFER or c.left >> TICK_BITS:
        return False
    if c.phase == IDE_IDLE:
        return True
    if c.phase == IDE_PACKET:
        return c.pos < PACKET_BYTES and c.filled == 0
    if to_host and (c.pos > c.filled or c.left + c.filled == c.pos):
        return False
    if not to_host and (c.pos >= SECTOR or c.filled or c.left == 0 or (c.left + c.pos) % SECTOR):
        return False
    if c.phase == IDE_DMA_IN or c.phase == IDE_DMA_OUT:
        return True
    return c.block >= 2 and 0 < c.drq <= c.left + c.filled - (c.pos if to_host else 0) and \
        (to_host or (c.drq + c.pos) % SECTOR == 0 and c.block % SECTOR == 0)

cdef inline bint ide_is_sound(const Ide* ide, const Ide* fresh) noexcept nogil:
    """Transfers that end, on the drives that the machine has."""
    cdef const Drive* d
    cdef const Drive* own
    cdef int i
    for i in range(4):
        d = &ide.channel[i >> 1].drive[i & 1]
        own = &fresh.channel[i >> 1].drive[i & 1]
        if d.kind != own.kind or d.sectors != own.sectors or d.multiple > MULTIPLE_LIMIT:
            return False
    return transfer_is_sound(&ide.channel[0]) and transfer_is_sound(&ide.channel[1])

cdef inline bint platform_is_sound(const Platform* p, const Platform* fresh) noexcept nogil:
    cdef int i
    for i in range(3):
        if not channel_is_sound(&p.pit.channel[i]):
            return False
    return lapic_is_sound(&p.lapic, &fresh.lapic) and p.ioapic.index <= 0xFF and \
        p.cycles_per_second == fresh.cycles_per_second and ide_is_sound(&p.ide, &fresh.ide) and rtc_is_sound(&p.rtc) and p.uart.head < 16 and \
        p.uart.count <= 16 and p.vga.dac_at < 768 and p.kbc.a20 <= 1 and p.kbc.keyboard.count <= 8
