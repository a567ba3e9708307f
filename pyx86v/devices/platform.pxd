# SPDX-License-Identifier: GPL-2.0-or-later
"""The platform: every chip of the PC behind its ports, its interrupt lines and its clock.

`now` is guest time in processor cycles and must not go back.  Order at an event or an exit:
platform_advance(), then platform_irq(), then platform_ack().  INTR may fall again by itself (a
request withdrawn before INTA is gone), so ask platform_irq() at the moment of delivery.

The 8259 pair reaches the processor through LINT0 of its local APIC, or directly when that is off; the I/O APIC through
the local APIC.  A request of the local APIC goes before one of the pair.
Invariant: whoever takes a request (platform_ack) or looks at an APIC brings the timers to the present first, so that an
end of a count which came while its vector was requested already is lost, as it is on a processor.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.devices.acpi_pm cimport AcpiPm
from pyx86v.devices.debug cimport Debug
from pyx86v.devices.fwcfg cimport FwCfg
from pyx86v.devices.ide_state cimport Ide
from pyx86v.devices.ioapic cimport Ioapic, ioapic_set_line, ioapic_wakes
from pyx86v.devices.kbc cimport Kbc
from pyx86v.devices.lapic cimport LVT_MASKED, LVT_TIMER, Lapic, lapic_ack, lapic_update, lapic_would_interrupt
from pyx86v.devices.parallel cimport Parallel
from pyx86v.devices.pci cimport Pci
from pyx86v.devices.pic cimport Pic, chip_highest, chip_irr, pic_ack, pic_irq, pic_set_irq
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
    PLATFORM_OFF = 3         # switched off by ACPI

cdef enum PlatformFeatures:  # what the processor's local APIC has
    FEATURE_X2APIC = 1
    FEATURE_DEADLINE = 2

ctypedef struct Platform:
    uint64_t cycles_per_second
    uint64_t pit_rise        # cycle at which timer channel 0's output next rises (NEVER: it does not)
    uint64_t pit_fall        # and falls
    uint64_t rtc_rise        # cycle at which IRQ 8 next rises
    uint64_t pm_rise         # cycle at which the SCI, IRQ 9, next rises
    uint64_t key_due         # cycle at which the keyboard's next byte comes
    uint32_t stop            # PlatformStop: the first request stands
    uint32_t stop_status
    Lapic lapic              # of the one processor
    Ioapic ioapic
    Pic pic
    Uart uart
    AcpiPm pm
    Kbc kbc                  # kbc.a20 is the machine's A20 line
    Sysctl sysctl
    Pit pit
    Rtc rtc
    Debug debug
    Parallel parallel
    Vga vga
    Pci pci
    Ide ide
    FwCfg fw_cfg

cdef void platform_init(Platform* p, uint64_t cycles_per_second, uint64_t ram_bytes, int features, int maxphyaddr) noexcept nogil
cdef uint32_t platform_in(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint64_t now) noexcept nogil
cdef void platform_out(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint32_t value, uint64_t now) noexcept nogil
cdef bint platform_mmio_read(Platform* p, uint64_t gpa, int size_bytes, uint64_t* out, uint64_t now) noexcept nogil
cdef bint platform_mmio_write(Platform* p, uint64_t gpa, int size_bytes, uint64_t value, uint64_t now) noexcept nogil
cdef bint platform_msr_read(Platform* p, uint32_t msr, uint64_t* out, uint64_t now) noexcept nogil
cdef bint platform_msr_write(Platform* p, uint32_t msr, uint64_t value, uint64_t now) noexcept nogil
cdef void platform_tsc_set(Platform* p, uint64_t offset, uint64_t now) noexcept nogil
cdef void platform_advance(Platform* p, Sinks* s, uint64_t now) noexcept nogil
cdef void platform_timers(Platform* p, uint64_t now) noexcept nogil

cdef inline void platform_set_irq(Platform* p, int irq, bint level) noexcept nogil:
    """Drive an ISA request line (0 to 15, never 2), which both controllers see: IRQ 0 at input 2 of the I/O APIC."""
    pic_set_irq(&p.pic, irq, level)
    ioapic_set_line(&p.ioapic, &p.lapic, irq if irq else 2, level)

cdef inline uint64_t pic_next_event(const Platform* p) noexcept nogil:
    """Timers that are masked, or held back by an interrupt in service, are left out: their state is brought up to date
    when somebody looks.  A high output whose request has been acknowledged falls unseen, so then only the next rise counts."""
    cdef uint64_t next = <uint64_t>-1
    if chip_highest(&p.pic.master, 1) == 0:
        next = p.pit_fall if chip_irr(&p.pic.master) & 1 else p.pit_rise
    if p.rtc_rise < next and chip_highest(&p.pic.slave, 1) == 0 and chip_highest(&p.pic.master, 4) == 2:
        next = p.rtc_rise
    return next

cdef inline uint64_t platform_next_event(const Platform* p, uint64_t now) noexcept nogil:
    """The next cycle at which an interrupt may reach the processor by itself, or be withdrawn; UINT64_MAX: never.

    `now` itself means that platform_advance() is due.
    """
    cdef uint64_t next = pic_next_event(p) if p.lapic.extint else <uint64_t>-1
    cdef uint32_t timer = p.lapic.lvt[<int>LVT_TIMER]
    if p.lapic.due < next and not timer & LVT_MASKED and lapic_would_interrupt(&p.lapic, timer & 0xFF):
        next = p.lapic.due
    if p.pit_rise < next and ioapic_wakes(&p.ioapic, &p.lapic, 2):
        next = p.pit_rise
    if p.rtc_rise < next and ioapic_wakes(&p.ioapic, &p.lapic, 8):
        next = p.rtc_rise
    if p.pm_rise < next:
        next = p.pm_rise
    if p.key_due < next:
        next = p.key_due
    return next if next > now else now

cdef inline bint platform_irq(const Platform* p) noexcept nogil:
    """An interrupt asks for the processor."""
    return p.lapic.vector != 0 or (p.lapic.extint and pic_irq(&p.pic))

cdef inline int platform_ack(Platform* p, uint64_t now) noexcept nogil:
    """The processor takes the interrupt: the vector, 0 to 255."""
    if p.lapic.vector == 0 and p.lapic.extint:
        return pic_ack(&p.pic)
    platform_timers(p, now)
    return <int>lapic_ack(&p.lapic)

cdef inline uint32_t platform_cr8(const Platform* p) noexcept nogil:
    """The task priority that CR8 shows: bits 7..4 of the local APIC's (SDM 3A 10.8.6)."""
    return p.lapic.tpr >> 4

cdef inline void platform_set_cr8(Platform* p, uint32_t value) noexcept nogil:
    p.lapic.tpr = (value & 15) << 4
    lapic_update(&p.lapic)
