# SPDX-License-Identifier: GPL-2.0-or-later
"""MC146818: the data sheet's registers and periods; Python's datetime is the calendar's judge."""
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

HERTZ = 32768
CPS = 32768 * 64                         # 64 cycles a pulse
SECOND = CPS
START = datetime(2024, 1, 1)


def get(b, index):
    b.outb(0x70, index)
    return b.inb(0x71)


def put(b, index, value):
    b.outb(0x70, index)
    b.outb(0x71, value)


def bcd(n):
    return n // 10 << 4 | n % 10


def unbcd(n):
    return int(f"{n:x}")


def clock(**kw):
    """A platform whose IRQ 8 is unmasked at vector 28h."""
    b = PlatformBench(CPS, **kw)
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFB)
    b.outb(0xA0, 0x11)
    b.outb(0xA1, 0x28, 2, 1, 0xFE)
    return b


def moment(b, read=unbcd):
    return datetime(2000 + read(get(b, 9)), *(read(get(b, i)) for i in (8, 7, 4, 2, 0)))


def set_moment(b, t, code=bcd):
    put(b, 0x0B, get(b, 0x0B) | 0x80)
    for index, value in zip((0, 2, 4, 6, 7, 8, 9), (t.second, t.minute, t.hour, t.isoweekday() % 7 + 1, t.day, t.month, t.year % 100)):
        put(b, index, code(value))
    put(b, 0x0B, get(b, 0x0B) & 0x7F)


def test_starts_at_a_fixed_date():
    b = clock()
    assert moment(b) == START and get(b, 6) == 2 and get(b, 0x32) == 0x20, "a Monday; Sunday is 1"
    assert (get(b, 0x0A), get(b, 0x0B), get(b, 0x0D)) == (0x26, 0x02, 0x80)


@settings(max_examples=200, deadline=None)
@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)), st.integers(0, 36_000 * 86_400), st.booleans())
def test_calendar(start, seconds, binary):
    """Any date of the century plus any time, in both number formats; years wrap in two digits."""
    start = start.replace(microsecond=0)
    end = start + timedelta(seconds=seconds)
    if end.year > 2099:
        return
    b = clock()
    code, read = ((int, int) if binary else (bcd, unbcd))
    put(b, 0x0B, 0x06 if binary else 0x02)
    set_moment(b, start, code)
    b.run(seconds * SECOND)
    assert moment(b, read) == end
    assert read(get(b, 6)) == end.isoweekday() % 7 + 1


def test_the_year_wraps_in_two_digits():
    b = clock()
    set_moment(b, datetime(2000, 1, 1))
    b.run(36_524 * 86_400 * SECOND)
    assert moment(b) == datetime(2099, 12, 31)
    b.run(86_400 * SECOND)
    assert moment(b) == datetime(2000, 1, 1), "the century byte is memory, not part of the clock"


def test_twelve_hour_format():
    b = clock()
    put(b, 0x0B, 0x80)
    put(b, 4, 0x91)
    put(b, 2, 0x59)
    put(b, 0, 0x59)
    put(b, 0x0B, 0x00)
    b.run(SECOND)
    assert [get(b, i) for i in (4, 2, 0, 7)] == [0x12, 0, 0, 2], "11:59:59 PM is followed by 12:00:00 AM of the next day"
    b.run(12 * 3600 * SECOND)
    assert get(b, 4) == 0x92, "12 PM is noon"


def test_illegal_bytes_read_back_and_do_no_harm():
    b = clock()
    for index in (0, 2, 4, 6, 7, 8, 9):
        put(b, index, 0xFF)
    assert get(b, 8) == 0xFF
    b.run(10**9 * SECOND)
    assert 1 <= unbcd(get(b, 8)) <= 12 and 1 <= unbcd(get(b, 7)) <= 31


def test_uip_covers_244_us_and_the_update():
    b = clock()
    pulse = CPS // HERTZ
    up = []
    for i in range(HERTZ):
        b.run_to(i * pulse)
        if i > HERTZ - 90 and get(b, 0x0A) & 0x80:
            up.append(i)
    assert up == list(range(HERTZ - 73, HERTZ)), "8 pulses (244 us) and 65 (1,984 us)"
    assert get(b, 0) == 0
    b.run_to(HERTZ * pulse)
    assert get(b, 0) == 1 and get(b, 0x0A) & 0x80 == 0


def test_set_stops_updates_and_clears_uie():
    b = clock()
    put(b, 0x0B, 0x12)
    put(b, 0x0B, 0x92)
    assert get(b, 0x0B) == 0x82
    b.run(5 * SECOND)
    assert get(b, 0) == 0 and get(b, 0x0C) & 0x10 == 0
    put(b, 0x0B, 0x02)
    b.run(SECOND)
    assert get(b, 0) == 1


def test_divider_reset_delays_the_first_update_by_half_a_second():
    b = clock()
    put(b, 0x0A, 0x66)
    b.run(3 * SECOND + 12345)
    assert get(b, 0) == 0
    put(b, 0x0A, 0x26)
    b.run(SECOND // 2 - 64)
    assert get(b, 0) == 0
    b.run(64)
    assert get(b, 0) == 1


@pytest.mark.parametrize("rate, hertz", [(1, 256), (2, 128), (3, 8192), (6, 1024), (10, 64), (15, 2)])
def test_periodic_interrupt(rate, hertz):
    b = clock()
    put(b, 0x0A, 0x20 | rate)
    get(b, 0x0C)
    put(b, 0x0B, 0x42)
    period = CPS // hertz
    for i in range(1, 6):
        assert b.next_event() == i * period
        b.run_to(i * period - 1)
        assert not b.irq()
        b.run_to(i * period)
        assert b.irq() and b.ack() == 0x28
        assert b.next_event() is None, "IRQF stays until register C is read"
        assert get(b, 0x0C) & 0xE0 == 0xC0 and get(b, 0x0C) == 0
        b.outb(0xA0, 0x20)
        b.outb(0x20, 0x20)


def test_update_interrupt_and_flags_without_enables():
    b = clock()
    b.run(SECOND)
    assert get(b, 0x0C) == 0x50, "PF and UF are set although nothing is enabled; IRQF is not"
    put(b, 0x0B, 0x12)
    assert b.next_event() == 2 * SECOND
    b.run_to(2 * SECOND)
    assert b.irq() and get(b, 0x0C) & 0x90 == 0x90


def alarm_matches(t, alarm):
    return all(want >= 0xC0 or unbcd(want) == got for want, got in zip(alarm, (t.second, t.minute, t.hour)))


ALARM = st.tuples(*(st.one_of(st.just(0xC0), st.just(0xFF), st.integers(0, top).map(bcd)) for top in (59, 59, 23)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.datetimes(datetime(2001, 1, 1), datetime(2050, 1, 1)), ALARM)
def test_alarm_rises_at_the_first_matching_update(start, alarm):
    start = start.replace(microsecond=0)
    want = next(k for k in range(1, 86_401) if alarm_matches(start + timedelta(seconds=k), alarm))
    b = clock()
    set_moment(b, start)
    for index, value in zip((1, 3, 5), alarm):
        put(b, index, value)
    put(b, 0x0B, 0x22)
    assert b.next_event() == want * SECOND
    b.run_to(want * SECOND - 1)
    assert not b.irq()
    b.run_to(want * SECOND)
    assert b.irq() and get(b, 0x0C) & 0xA0 == 0xA0


def test_alarm_that_cannot_match():
    b = clock()
    put(b, 1, 0x77)
    put(b, 0x0B, 0x22)
    assert b.next_event() is None
    b.run(200_000 * SECOND)
    assert get(b, 0x0C) & 0x20 == 0


def test_masked_clock_has_no_events():
    b = clock()
    put(b, 0x0B, 0x42)
    assert b.next_event() is not None
    b.outb(0xA1, 0xFF)
    assert b.next_event() is None
    b.now = SECOND
    b.outb(0xA1, 0xFE)
    assert b.irq(), "caught up at the unmasking"


@pytest.mark.parametrize("cycles_per_second", [1_193_182, 2_999_999_999, 3_600_000_000])
def test_no_drift(cycles_per_second):
    b = PlatformBench(cycles_per_second)
    b.run_to(10**8 * cycles_per_second - 1)
    assert moment(b) == START + timedelta(seconds=10**8 - 1)
    b.run(1)
    assert moment(b) == START + timedelta(seconds=10**8)


@pytest.mark.parametrize("ram, base, above_1m, above_16m", [
    (64 << 20, 640, 63 << 10, 48 << 4), (1 << 20, 640, 0, 0), (512 << 10, 512, 0, 0), (2 << 30, 640, 0xFFFF, 2032 << 4)])
def test_memory_size_in_cmos(ram, base, above_1m, above_16m):
    b = PlatformBench(CPS, ram)
    word = lambda at: get(b, at) | get(b, at + 1) << 8
    assert [word(at) for at in (0x15, 0x17, 0x30, 0x34)] == [base, above_1m, above_1m, above_16m]
    assert get(b, 0x2E) << 8 | get(b, 0x2F) == sum(get(b, i) for i in range(0x10, 0x2E))


def test_cmos_memory_and_read_only_registers():
    b = clock()
    put(b, 0x40, 0x5A)
    put(b, 0xC0, 0xA5)
    assert get(b, 0x40) == 0xA5, "bit 7 of the index is the NMI mask"
    put(b, 0x0C, 0xFF)
    put(b, 0x0D, 0x00)
    assert get(b, 0x0D) == 0x80 and get(b, 0x0C) & 0x8F == 0
