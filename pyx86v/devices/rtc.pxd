# SPDX-License-Identifier: GPL-2.0-or-later
"""The MC146818 clock and its CMOS memory, on a crystal of 32.768 kHz.

Source: Motorola MC146818 data sheet; the CMOS bytes: IBM PC/AT Technical Reference.
The clock starts at a fixed date, so that every run sees the same.  Register C's flags are brought
up to date when somebody looks, in constant time however long the pause.
Not modelled: daylight saving (DSE), the square-wave pin, time bases other than 32.768 kHz (they stop
the divider).  The century byte 32h is memory, as on the chip.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from pyx86v.devices.clock cimport NEVER

ctypedef struct Rtc:
    uint64_t tick            # pulses of 32.768 kHz seen so far
    uint64_t origin          # the divider was zero at this pulse; an update ends every 32,768 from here
    uint8_t index
    uint8_t ram[128]         # 0..9 time and alarm, Ah..Dh control, then memory

cdef enum:
    REG_SECONDS = 0
    REG_MINUTES = 2
    REG_HOURS = 4
    REG_WEEKDAY = 6
    REG_DAY = 7
    REG_MONTH = 8
    REG_YEAR = 9
    REG_A = 10
    REG_B = 11
    REG_C = 12
    REG_D = 13
    A_UIP = 0x80
    B_SET = 0x80
    B_PIE = 0x40
    B_AIE = 0x20
    B_UIE = 0x10
    B_BINARY = 0x04
    B_24_HOURS = 0x02
    C_PF = 0x40              # C's flags lie where B's enables do
    C_AF = 0x20
    C_UF = 0x10
    UIP_PULSES = 73          # 244 us of warning and 1,984 us of update
    HALF_SECOND = 16384
    DAY = 86400              # seconds
    CENTURY = 36525          # days in 100 years with every fourth one a leap year
    ANY = 0xC0               # an alarm byte of 11xxxxxx matches anything

cdef inline uint32_t field_value(const Rtc* r, uint8_t raw) noexcept nogil:
    return raw if r.ram[REG_B] & B_BINARY else (raw >> 4) * 10 + (raw & 15)

cdef inline uint8_t field_raw(const Rtc* r, uint32_t value) noexcept nogil:
    return <uint8_t>(value if r.ram[REG_B] & B_BINARY else value // 10 << 4 | value % 10)

cdef inline uint32_t hour_value(const Rtc* r, uint8_t raw) noexcept nogil:
    """0 to 23 for a legal byte in either format."""
    if r.ram[REG_B] & B_24_HOURS:
        return field_value(r, raw)
    return field_value(r, raw & 0x7F) % 12 + (12 if raw & 0x80 else 0)

cdef inline uint8_t hour_raw(const Rtc* r, uint32_t hour) noexcept nogil:
    cdef uint32_t half = hour % 12
    if r.ram[REG_B] & B_24_HOURS:
        return field_raw(r, hour)
    return field_raw(r, half if half else 12) | (0x80 if hour >= 12 else 0)

cdef inline uint32_t month_days(uint32_t month, uint32_t year) noexcept nogil:
    if month == 2:
        return 29 if year & 3 == 0 else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31

cdef inline uint32_t second_of_day(const Rtc* r) noexcept nogil:
    """Illegal bytes are taken modulo their range: the data sheet leaves their effect open."""
    return (hour_value(r, r.ram[REG_HOURS]) % 24 * 3600 + field_value(r, r.ram[REG_MINUTES]) % 60 * 60
            + field_value(r, r.ram[REG_SECONDS]) % 60)

cdef inline void add_days(Rtc* r, uint64_t days) noexcept nogil:
    cdef uint32_t year = field_value(r, r.ram[REG_YEAR]) % 100
    cdef uint32_t month = (field_value(r, r.ram[REG_MONTH]) + 11) % 12 + 1
    cdef uint32_t day = field_value(r, r.ram[REG_DAY])
    cdef uint32_t n, m
    r.ram[REG_WEEKDAY] = field_raw(r, <uint32_t>((field_value(r, r.ram[REG_WEEKDAY]) + 6 + days) % 7 + 1))
    day = 1 if day == 0 else min(day, month_days(month, year))
    n = year * 365 + (year + 3) // 4 + day - 1   # days since 1 January of year 00
    for m in range(1, month):
        n += month_days(m, year)
    n = <uint32_t>((n + days) % CENTURY)
    year = n // 1461 * 4
    n %= 1461
    if n >= 366:
        year += 1 + (n - 366) // 365
        n = (n - 366) % 365
    month = 1
    while n >= month_days(month, year):
        n -= month_days(month, year)
        month += 1
    r.ram[REG_YEAR] = field_raw(r, year)
    r.ram[REG_MONTH] = field_raw(r, month)
    r.ram[REG_DAY] = field_raw(r, n + 1)

cdef inline void add_seconds(Rtc* r, uint64_t seconds) noexcept nogil:
    cdef uint64_t total = second_of_day(r) + seconds
    cdef uint32_t second = <uint32_t>(total % DAY)
    r.ram[REG_SECONDS] = field_raw(r, second % 60)
    r.ram[REG_MINUTES] = field_raw(r, second // 60 % 60)
    r.ram[REG_HOURS] = hour_raw(r, second // 3600)
    if total >= DAY:
        add_days(r, total // DAY)

cdef inline uint64_t seconds_to_alarm(const Rtc* r) noexcept nogil:
    """Updates until the alarm matches, 1 to 86,400; NEVER if it cannot."""
    cdef uint32_t second = field_value(r, r.ram[1]), minute = field_value(r, r.ram[3]), hour = hour_value(r, r.ram[5])
    cdef bint any_second = r.ram[1] >= ANY, any_minute = r.ram[3] >= ANY, any_hour = r.ram[5] >= ANY
    cdef uint32_t now = (second_of_day(r) + 1) % DAY, h, m, s, i, first_minute, first_second
    if (second > 59 and not any_second) or (minute > 59 and not any_minute) or (hour > 23 and not any_hour):
        return NEVER
    for i in range(25):                          # the 25th is this hour, tomorrow
        h = (now // 3600 + i) % 24
        if not any_hour and h != hour:
            continue
        first_minute = now // 60 % 60 if i == 0 else 0
        for m in range(first_minute, 60):
            if not any_minute and m != minute:
                continue
            first_second = now % 60 if i == 0 and m == first_minute else 0
            s = first_second if any_second else second
            if s >= first_second:
                return (h * 3600 + m * 60 + s + DAY - now) % DAY + 1
    return NEVER

cdef inline bint rtc_running(const Rtc* r) noexcept nogil:
    return r.ram[REG_A] & 0x70 == 0x20

cdef inline int rtc_period_log2(const Rtc* r) noexcept nogil:
    """Pulses between periodic interrupts as a power of two; 0 when off (data sheet, table 5)."""
    cdef int rate = r.ram[REG_A] & 15
    return rate + 6 if rate == 1 or rate == 2 else rate - 1 if rate else 0

cdef inline bint rtc_irq(const Rtc* r) noexcept nogil:
    """IRQF: a flag and its enable are both set."""
    return r.ram[REG_C] & r.ram[REG_B] & 0x70 != 0

cdef inline void rtc_run(Rtc* r, uint64_t tick) noexcept nogil:
    """Let the crystal pulse up to `tick`."""
    cdef uint64_t before = r.tick - r.origin, after = tick - r.origin, updates
    cdef int log2 = rtc_period_log2(r)
    if tick <= r.tick:
        return
    r.tick = tick
    if not rtc_running(r):
        return
    if log2 and after >> log2 != before >> log2:
        r.ram[REG_C] |= C_PF
    updates = (after >> 15) - (before >> 15)
    if updates and not r.ram[REG_B] & B_SET:
        r.ram[REG_C] |= C_UF
        if seconds_to_alarm(r) <= updates:
            r.ram[REG_C] |= C_AF
        add_seconds(r, updates)

cdef inline uint64_t rtc_edge(const Rtc* r) noexcept nogil:
    """The tick at which IRQ 8 next rises by itself; NEVER if it does not."""
    cdef uint64_t since = r.tick - r.origin, next = NEVER, seconds
    cdef int log2 = rtc_period_log2(r)
    cdef uint8_t b = r.ram[REG_B]
    if not rtc_running(r) or rtc_irq(r):
        return NEVER
    if b & B_PIE and log2:
        next = r.origin + (((since >> log2) + 1) << log2)
    if b & B_SET:
        return next
    if b & B_UIE:
        next = min(next, r.origin + (((since >> 15) + 1) << 15))
    elif b & B_AIE:
        seconds = seconds_to_alarm(r)
        if seconds != NEVER:
            next = min(next, r.origin + (((since >> 15) + seconds) << 15))
    return next

cdef inline bint rtc_updating(const Rtc* r) noexcept nogil:
    """UIP: an update ends within the next 73 pulses."""
    return (rtc_running(r) and not r.ram[REG_B] & B_SET
            and 32768 - ((r.tick - r.origin) & 32767) <= UIP_PULSES)

cdef inline uint8_t rtc_read(Rtc* r) noexcept nogil:
    """Port 71h.  The clock must have been run to the present."""
    cdef uint8_t value = r.ram[r.index]
    if r.index == REG_A:
        return value | (A_UIP if rtc_updating(r) else 0)
    if r.index == REG_C:
        r.ram[REG_C] = 0
        if value & r.ram[REG_B] & 0x70:
            value |= 0x80
    return value

cdef inline void rtc_write(Rtc* r, uint8_t value) noexcept nogil:
    """Port 71h.  The clock must have been run to the present."""
    cdef bint ran = rtc_running(r)
    if r.index == REG_A:
        r.ram[REG_A] = value & 0x7F
        if rtc_running(r) and not ran:           # leaving reset: the first update is half a second away
            r.origin = r.tick - HALF_SECOND
    elif r.index == REG_B:
        r.ram[REG_B] = value & ~B_UIE if value & B_SET else value
    elif r.index != REG_C and r.index != REG_D:
        r.ram[r.index] = value

cdef inline void cmos_word(Rtc* r, int at, uint64_t value) noexcept nogil:
    """A 16-bit number, low byte first, at most 65,535."""
    value = min(value, <uint64_t>0xFFFF)
    r.ram[at] = value & 0xFF
    r.ram[at + 1] = value >> 8 & 0xFF

cdef inline void rtc_init(Rtc* r, uint64_t ram_bytes) noexcept nogil:
    """Monday, 1 January 2024, 00:00:00, and what firmware asks of the memory size."""
    cdef uint64_t high, sum = 0
    cdef int i
    r.ram[REG_WEEKDAY] = 2
    r.ram[REG_DAY] = r.ram[REG_MONTH] = 1
    r.ram[REG_YEAR] = 0x24
    r.ram[0x32] = 0x20
    r.ram[REG_A] = 0x26
    r.ram[REG_B] = B_24_HOURS
    r.ram[REG_D] = 0x80                          # VRT: the battery is good
    cmos_word(r, 0x15, min(ram_bytes >> 10, <uint64_t>640))
    high = (ram_bytes - 0x100000) >> 10 if ram_bytes > 0x100000 else 0
    cmos_word(r, 0x17, high)                     # KiB above 1 MiB
    cmos_word(r, 0x30, high)
    cmos_word(r, 0x34, (ram_bytes - 0x1000000) >> 16 if ram_bytes > 0x1000000 else 0)    # 64 KiB above 16 MiB
    for i in range(0x10, 0x2E):
        sum += r.ram[i]
    r.ram[0x2E] = sum >> 8 & 0xFF
    r.ram[0x2F] = sum & 0xFF
