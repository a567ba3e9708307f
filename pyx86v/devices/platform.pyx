# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports to chips, chips to interrupt lines.

Timers are lazy: a chip is run to the present when a guest touches it, or when the cycle kept in
pit_rise, pit_fall or rtc_rise has come.  Those three are absolute, so they stay right until the
chip's registers or edges change.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.devices.acpi_pm cimport PM_HERTZ, pm_edge, pm_read, pm_run, pm_sci, pm_write
from pyx86v.devices.bridge cimport bridge_claims, bridge_in, bridge_out
from pyx86v.devices.clock cimport NEVER, PIT_HERTZ, RTC_HERTZ, cycle_of, pulses_at
from pyx86v.devices.debug cimport debug_print, debug_report
from pyx86v.devices.ioapic cimport IOAPIC_BASE, ioapic_end, ioapic_init, ioapic_load, ioapic_store
from pyx86v.devices.kbc cimport kbc_command, kbc_data, kbc_due, kbc_init, kbc_irq, kbc_run, kbc_status, kbc_write
from pyx86v.devices.lapic cimport (deadline_schedule, lapic_answers, lapic_init, lapic_load, lapic_msr_read, lapic_msr_write,
                                   lapic_run, lapic_store)
from pyx86v.devices.pic cimport ELCR_MASTER, ELCR_SLAVE, pic_cascade, pic_init, pic_read, pic_write
from pyx86v.devices.parallel cimport PARALLEL_PORT, parallel_read, parallel_write
from pyx86v.devices.pci cimport pci_init
from pyx86v.devices.pit cimport (channel_edge, channel_gate, channel_read, channel_run, channel_write, pit_control,
                                 pit_init)
from pyx86v.devices.rtc cimport rtc_edge, rtc_init, rtc_irq, rtc_read, rtc_run, rtc_write
from pyx86v.devices.sinks cimport Sinks
from pyx86v.devices.sysctl cimport port61_value, reset_control_write
from pyx86v.devices.uart cimport uart_init, uart_irq, uart_read, uart_receive, uart_write
from pyx86v.devices.vga cimport vga_init, vga_read, vga_write


cdef inline uint64_t pit_pulses(const Platform* p, uint64_t now) noexcept nogil:
    return pulses_at(now, PIT_HERTZ, p.cycles_per_second)


cdef void pit_schedule(Platform* p) noexcept nogil:
    """IRQ 0 follows channel 0's output; find its next edges."""
    platform_set_irq(p, 0, p.pit.channel[0].out)
    p.pit_rise = cycle_of(channel_edge(&p.pit.channel[0], True), PIT_HERTZ, p.cycles_per_second)
    p.pit_fall = cycle_of(channel_edge(&p.pit.channel[0], False), PIT_HERTZ, p.cycles_per_second)


cdef void pit_run(Platform* p, int channel, uint64_t now) noexcept nogil:
    """Bring a channel to the present; edges of channel 0 reach IRQ 0."""
    cdef bint rose = channel_run(&p.pit.channel[channel], pit_pulses(p, now))
    if channel == 0 and (now >= p.pit_rise or now >= p.pit_fall):
        if rose:                                 # also when the line was high before: it fell in between
            platform_set_irq(p, 0, False)
            platform_set_irq(p, 0, True)
        pit_schedule(p)


cdef void pit_write(Platform* p, uint16_t port, uint8_t value, uint64_t now) noexcept nogil:
    cdef int channel = port & 3
    if channel < 3:
        pit_run(p, channel, now)
        channel_write(&p.pit.channel[channel], value)
    else:
        for channel in range(3):
            pit_run(p, channel, now)
        pit_control(&p.pit, value)
    if port == 0x40 or port == 0x43:
        pit_schedule(p)


cdef uint8_t pit_read(Platform* p, uint16_t port, uint64_t now) noexcept nogil:
    """Ports 40h to 42h; 43h cannot be read."""
    cdef int channel = port & 3
    if channel == 3:
        return 0xFF
    pit_run(p, channel, now)
    return channel_read(&p.pit.channel[channel])


cdef void rtc_update(Platform* p, uint64_t now) noexcept nogil:
    rtc_run(&p.rtc, pulses_at(now, RTC_HERTZ, p.cycles_per_second))


cdef void rtc_schedule(Platform* p) noexcept nogil:
    platform_set_irq(p, 8, rtc_irq(&p.rtc))
    p.rtc_rise = cycle_of(rtc_edge(&p.rtc), RTC_HERTZ, p.cycles_per_second)


cdef uint8_t cmos_read(Platform* p, uint64_t now) noexcept nogil:
    cdef uint8_t value
    if p.rtc.index > 13:
        return rtc_read(&p.rtc)
    rtc_update(p, now)
    value = rtc_read(&p.rtc)
    rtc_schedule(p)
    return value


cdef void cmos_write(Platform* p, uint8_t value, uint64_t now) noexcept nogil:
    if p.rtc.index <= 13:
        rtc_update(p, now)
    rtc_write(&p.rtc, value)
    if p.rtc.index <= 13:
        rtc_schedule(p)


cdef void pm_schedule(Platform* p) noexcept nogil:
    platform_set_irq(p, 9, pm_sci(&p.pm))
    p.pm_rise = cycle_of(pm_edge(&p.pm), PM_HERTZ, p.cycles_per_second)


cdef void pm_update(Platform* p, uint64_t now) noexcept nogil:
    pm_run(&p.pm, pulses_at(now, PM_HERTZ, p.cycles_per_second))
    pm_schedule(p)


cdef void platform_timers(Platform* p, uint64_t now) noexcept nogil:
    """Bring the interrupt lines of the timers, and the local APIC's, to the present."""
    if now >= p.pit_rise or now >= p.pit_fall:
        pit_run(p, 0, now)
    if now >= p.rtc_rise:
        rtc_update(p, now)
        rtc_schedule(p)
    if now >= p.pm_rise:
        pm_update(p, now)
    lapic_run(&p.lapic, now)


cdef void request_stop(Platform* p, uint32_t reason, uint32_t status) noexcept nogil:
    if p.stop == PLATFORM_RUNS:
        p.stop = reason
        p.stop_status = status


cdef void port61_write(Platform* p, uint8_t value, uint64_t now) noexcept nogil:
    p.sysctl.port61 = value & 15
    pit_run(p, 2, now)
    channel_gate(&p.pit.channel[2], value & 1)


cdef uint8_t port61_read(Platform* p, uint64_t now) noexcept nogil:
    pit_run(p, 2, now)
    return port61_value(&p.sysctl, p.pit.channel[2].out, pit_pulses(p, now))


cdef void port92_write(Platform* p, uint8_t value) noexcept nogil:
    p.kbc.a20 = value >> 1 & 1
    if value & 1:
        request_stop(p, PLATFORM_RESET, 0)


cdef void kbc_changed(Platform* p, Sinks* s, uint64_t now) noexcept nogil:
    """The controller was touched, or the keyboard may have something to say.  Each byte is an edge of IRQ 1."""
    kbc_run(&p.kbc, s, now, p.cycles_per_second)
    if p.kbc.filled:
        p.kbc.filled = 0
        platform_set_irq(p, 1, False)
    platform_set_irq(p, 1, kbc_irq(&p.kbc))
    p.key_due = kbc_due(&p.kbc, s)
    if p.kbc.reset:
        request_stop(p, PLATFORM_RESET, 0)


cdef uint8_t pm_port_read(Platform* p, uint16_t port, uint64_t now) noexcept nogil:
    pm_update(p, now)
    return pm_read(&p.pm, port & 15, pulses_at(now, PM_HERTZ, p.cycles_per_second))


cdef void pm_port_write(Platform* p, uint16_t port, uint8_t value, uint64_t now) noexcept nogil:
    pm_update(p, now)
    if pm_write(&p.pm, port & 15, value):
        request_stop(p, PLATFORM_OFF, 0)
    pm_schedule(p)


cdef uint8_t byte_in(Platform* p, Sinks* s, uint16_t port, uint64_t now) noexcept nogil:
    """One byte from a port; FFh where nothing answers."""
    cdef int group = port >> 3
    cdef uint8_t value
    if group == 0x7F:                            # 3F8h
        value = uart_read(&p.uart, s, port & 7)
        platform_set_irq(p, 4, uart_irq(&p.uart))
        return value
    elif group == 0x04 or group == 0x14:         # 20h, A0h
        if port & 7 > 1:
            return 0xFF
        platform_timers(p, now)
        return pic_read(&p.pic, port >= 0xA0, port & 1)
    elif group == 0x08:                          # 40h
        return pit_read(p, port, now) if port < 0x44 else 0xFF
    elif group == 0x0C:                          # 60h
        if port == 0x60:
            value = kbc_data(&p.kbc)
            kbc_changed(p, s, now)
            return value
        if port == 0x61:
            return port61_read(p, now)
        if port == 0x64:
            kbc_changed(p, s, now)
            return kbc_status(&p.kbc)
        return 0xFF
    elif group == 0x0E:                          # 70h
        return cmos_read(p, now) if port == 0x71 else 0xFF
    elif group == 0x10:                          # 80h
        return p.sysctl.post if port == 0x80 else 0xFF
    elif group == 0x12:                          # 90h
        return p.kbc.a20 << 1 if port == 0x92 else 0xFF
    elif group == 0x1D:                          # E8h
        return 0xE9 if port == 0xE9 else 0xFF
    elif group == 0x6F:                          # 378h
        return parallel_read(&p.parallel, port) if port <= PARALLEL_PORT + 2 else 0xFF
    elif group == 0x78 or group == 0x79 or group == 0x7A or group == 0x7B:
        return vga_read(&p.vga, port, pit_pulses(p, now))
    elif group == 0x9A:                          # 4D0h
        return p.pic.master.elcr if port == 0x4D0 else p.pic.slave.elcr if port == 0x4D1 else 0xFF
    elif group == 0xC0 or group == 0xC1:         # 600h
        return pm_port_read(p, port, now)
    elif group == 0x19F:                         # CF8h
        return p.sysctl.reset_control if port == 0xCF9 else 0xFF
    return 0xFF


cdef void byte_out(Platform* p, Sinks* s, uint16_t port, uint8_t value, uint64_t now) noexcept nogil:
    """One byte to a port; ignored where nothing listens."""
    cdef int group = port >> 3
    if group == 0x7F:                            # 3F8h
        uart_write(&p.uart, s, port & 7, value)
        platform_set_irq(p, 4, uart_irq(&p.uart))
    elif group == 0x04 or group == 0x14:         # 20h, A0h
        if port & 7 <= 1:
            platform_timers(p, now)
            pic_write(&p.pic, port >= 0xA0, port & 1, value)
    elif group == 0x08:                          # 40h
        if port < 0x44:
            pit_write(p, port, value, now)
    elif group == 0x0C:                          # 60h
        if port == 0x61:
            port61_write(p, value, now)
        elif port == 0x60:
            kbc_write(&p.kbc, value)
            kbc_changed(p, s, now)
        elif port == 0x64:
            kbc_command(&p.kbc, value)
            kbc_changed(p, s, now)
    elif group == 0x0E:                          # 70h
        if port == 0x70:
            p.rtc.index = value & 0x7F
        elif port == 0x71:
            cmos_write(p, value, now)
    elif group == 0x10:                          # 80h
        if port == 0x80:
            p.sysctl.post = value
    elif group == 0x12:                          # 90h
        if port == 0x92:
            port92_write(p, value)
    elif group == 0x1D:                          # E8h
        if port == 0xE9:
            debug_print(&p.debug, s, value)
    elif group == 0x6F:                          # 378h
        parallel_write(&p.parallel, port, value)
    elif group == 0x78 or group == 0x79 or group == 0x7A or group == 0x7B:
        vga_write(&p.vga, port, value)
    elif group == 0x9A:                          # 4D0h
        platform_timers(p, now)
        if port == 0x4D0:
            p.pic.master.elcr = value & ELCR_MASTER
        elif port == 0x4D1:
            p.pic.slave.elcr = value & ELCR_SLAVE
            pic_cascade(&p.pic)
    elif group == 0xC0 or group == 0xC1:         # 600h
        pm_port_write(p, port, value, now)
    elif group == 0x19F:                         # CF8h
        if port == 0xCF9 and reset_control_write(&p.sysctl, value):
            request_stop(p, PLATFORM_RESET, 0)


cdef uint32_t platform_in(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint64_t now) noexcept nogil:
    """Read 1, 2 or 4 bytes at guest time `now`.  Wider reads take consecutive ports, low byte first."""
    cdef uint32_t value
    cdef int i
    if bridge_claims(p, port, size_bytes):
        value = bridge_in(p, s, port, size_bytes)
        return value if size_bytes == 4 else value & ((<uint32_t>1 << (8 * size_bytes)) - 1)
    if size_bytes == 1:
        return byte_in(p, s, port, now)
    value = 0
    for i in range(size_bytes):
        value |= <uint32_t>byte_in(p, s, <uint16_t>(port + i), now) << (8 * i)
    return value


cdef void platform_out(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint32_t value, uint64_t now) noexcept nogil:
    """Write 1, 2 or 4 bytes at guest time `now`.  Wider writes go to consecutive ports, low byte first.

    Afterwards look at p.stop.
    """
    cdef int i
    if size_bytes < 4:
        value &= (<uint32_t>1 << (8 * size_bytes)) - 1
    if port == 0xF4:
        request_stop(p, PLATFORM_EXIT, value)
        return
    if port == 0xE8:
        debug_report(&p.debug, s, value)
        return
    if bridge_claims(p, port, size_bytes):
        bridge_out(p, s, port, size_bytes, value)
        return
    if size_bytes == 1:
        byte_out(p, s, port, <uint8_t>value, now)
        return
    for i in range(size_bytes):
        byte_out(p, s, <uint16_t>(port + i), <uint8_t>(value >> (8 * i)), now)


# The APICs: memory and MSRs ----------------------------------------------------------------------

cdef inline uint32_t apic_load(Platform* p, uint64_t gpa, bint local, uint64_t now) noexcept nogil:
    """One doubleword of either page."""
    return lapic_load(&p.lapic, gpa & 0xFFC, now) if local else ioapic_load(&p.ioapic, gpa & 0xFFC)


cdef inline void apics_agree(Platform* p) noexcept nogil:
    """What the local APIC has to tell the I/O APIC."""
    cdef uint32_t vector = p.lapic.ended
    if vector:
        p.lapic.ended = 0
        ioapic_end(&p.ioapic, &p.lapic, vector)


cdef bint platform_mmio_read(Platform* p, uint64_t gpa, int size_bytes, uint64_t* out, uint64_t now) noexcept nogil:
    """Read 1, 2, 4 or 8 bytes inside 8 aligned ones.  False: nothing of the platform is there.

    The manuals define only aligned doublewords; others get the bytes that the doublewords have there.
    """
    cdef bint local = lapic_answers(&p.lapic, gpa)
    if not local and gpa >> 12 != IOAPIC_BASE >> 12:
        return False
    platform_timers(p, now)
    out[0] = apic_load(p, gpa, local, now)
    if size_bytes == 8:
        out[0] |= <uint64_t>apic_load(p, gpa + 4, local, now) << 32
    else:
        out[0] = out[0] >> 8 * (gpa & 3) & ((<uint64_t>1 << 8 * size_bytes) - 1)
    return True


cdef bint platform_mmio_write(Platform* p, uint64_t gpa, int size_bytes, uint64_t value, uint64_t now) noexcept nogil:
    """Write aligned doublewords; parts of one are ignored.  False: nothing of the platform is there."""
    cdef bint local = lapic_answers(&p.lapic, gpa)
    if not local and gpa >> 12 != IOAPIC_BASE >> 12:
        return False
    if size_bytes < 4 or gpa & 3:
        return True
    platform_timers(p, now)
    if local:
        lapic_store(&p.lapic, gpa & 0xFFC, <uint32_t>value, now)
    else:
        ioapic_store(&p.ioapic, &p.lapic, gpa & 0xFFC, <uint32_t>value)
    apics_agree(p)
    return True


cdef bint platform_msr_read(Platform* p, uint32_t msr, uint64_t* out, uint64_t now) noexcept nogil:
    """An MSR of the local APIC.  False: there is none, or not in its mode (#GP)."""
    platform_timers(p, now)
    return lapic_msr_read(&p.lapic, msr, now, out)


cdef bint platform_msr_write(Platform* p, uint32_t msr, uint64_t value, uint64_t now) noexcept nogil:
    """False: #GP.  Afterwards platform_next_event() may be another."""
    cdef bint legal
    platform_timers(p, now)
    legal = lapic_msr_write(&p.lapic, msr, value, now)
    apics_agree(p)
    return legal


cdef void platform_tsc_set(Platform* p, uint64_t offset, uint64_t now) noexcept nogil:
    """The processor's time stamp counter is guest time plus `offset` from now on: deadlines move."""
    platform_timers(p, now)
    p.lapic.tsc_offset = offset
    deadline_schedule(&p.lapic, now)


cdef void platform_advance(Platform* p, Sinks* s, uint64_t now) noexcept nogil:
    """Bring timers and the host's input to the present; raise and lower the interrupt lines."""
    platform_timers(p, now)
    if p.kbc.keyboard.typed < s.keys.size:
        kbc_changed(p, s, now)
    if p.uart.received < s.input.size:
        uart_receive(&p.uart, s)
        platform_set_irq(p, 4, uart_irq(&p.uart))


cdef void platform_init(Platform* p, uint64_t cycles_per_second, uint64_t ram_bytes, int features, int maxphyaddr) noexcept nogil:
    """Power on at guest time 0, in the state that PC firmware leaves.

    cycles_per_second  of the processor; raised to the timer's 1,193,182 when below
    ram_bytes          told to firmware through the CMOS memory
    features           PlatformFeatures of the processor
    """
    memset(p, 0, sizeof(Platform))
    p.key_due = NEVER
    p.cycles_per_second = cycles_per_second if cycles_per_second > PIT_HERTZ else PIT_HERTZ
    lapic_init(&p.lapic, features & FEATURE_X2APIC, features & FEATURE_DEADLINE, maxphyaddr)
    ioapic_init(&p.ioapic)
    pic_init(&p.pic)
    uart_init(&p.uart)
    kbc_init(&p.kbc)
    pit_init(&p.pit)
    rtc_init(&p.rtc, ram_bytes)
    vga_init(&p.vga)
    pci_init(&p.pci)
    pit_schedule(p)
    rtc_schedule(p)
    pm_schedule(p)
