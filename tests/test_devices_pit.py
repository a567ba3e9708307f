# SPDX-License-Identifier: GPL-2.0-or-later
"""8254: the data sheet's (Intel 231164) mode definitions, and a model that makes one clock pulse at a time."""
import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

HERTZ = 1_193_182


class Counter:
    """One counter as the data sheet tells it, pulse by pulse; nothing is computed ahead."""

    def __init__(self, gate):
        self.gate, self.trigger, self.pending, self.loaded = gate, False, False, False
        self.ce = self.n = 0
        self.strobe = self.odd = False
        self.control(0x36)
        self.write_whole(0)

    def control(self, word):
        self.word = word & 0x3F
        self.rw, self.bcd = word >> 4 & 3, word & 1
        self.mode = (0, 1, 2, 3, 4, 5, 2, 3)[word >> 1 & 7]
        self.out = int(self.mode != 0)
        self.null, self.has_count, self.pending, self.trigger, self.loaded = 1, False, False, False, False
        self.first = self.low = None
        self.ol, self.status_latch = [], None
        self.high_next = False
        self.top = 10_000 if self.bcd else 65_536
        self.ce %= self.top

    def write(self, byte):
        if self.rw == 1:
            self.write_whole(byte)
        elif self.rw == 2:
            self.write_whole(byte << 8)
        elif self.low is None:
            self.low = byte
            if self.mode == 0:
                self.out, self.loaded, self.pending = 0, False, False
        else:
            low, self.low = self.low, None
            self.write_whole(byte << 8 | low)

    def write_whole(self, raw):
        self.n = (int(f"{raw:04x}") if self.bcd else raw) or self.top
        self.null = 1
        if self.mode == 0:
            self.out = 0
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.loaded):
            self.pending = True
        self.has_count = True

    def set_gate(self, level):
        if level and not self.gate and self.mode in (1, 2, 3, 5) and self.has_count:
            self.trigger = True
        if not level and self.gate and self.mode in (2, 3):
            self.out = 1
        self.gate = level

    def load(self):
        self.pending = self.trigger = False
        self.loaded, self.null, self.strobe = True, 0, True
        self.ce = self.n
        if self.mode == 3:
            self.odd = self.n % 2 == 1
            self.ce -= self.odd

    def pulse(self):
        if self.mode in (4, 5):
            self.out = 1
        if self.pending or self.trigger:
            self.load()
            if self.mode:
                self.out = int(self.mode != 1)
        elif not self.loaded or (not self.gate and self.mode in (0, 2, 3, 4)):
            return
        elif self.mode == 2:
            self.pulse_rate()
        elif self.mode == 3:
            self.pulse_square()
        else:
            self.ce = (self.ce - 1) % self.top
            if self.ce == 0 and self.mode < 2:
                self.out = 1
            elif self.ce == 0 and self.strobe:
                self.out, self.strobe = 0, False

    def pulse_rate(self):
        if self.ce == 1:
            self.load()
            self.out = 1
        else:
            self.ce -= 1
            if self.ce == 1:
                self.out = 0

    def pulse_square(self):
        last = 0 if self.odd and self.out else 2
        if self.ce != last:
            self.ce -= 2
            return
        self.load()
        self.out = 1 if self.n == 1 else 1 - self.out

    def value(self):
        n = self.ce % self.top
        return int(str(n), 16) if self.bcd else n

    def halves(self):
        return {1: [0], 2: [8], 3: [0, 8]}[self.rw]

    def latch(self):
        if not self.ol:
            value = self.value()
            self.ol = [value >> shift & 255 for shift in self.halves()]
            if self.high_next and len(self.ol) == 2:
                self.ol.reverse()

    def latch_status(self):
        if self.status_latch is None:
            self.status_latch = self.out << 7 | self.null << 6 | self.word

    def read(self):
        if self.status_latch is not None:
            value, self.status_latch = self.status_latch, None
            return value
        high = self.high_next if self.rw == 3 else self.rw == 2
        self.high_next = not self.high_next if self.rw == 3 else False
        return self.ol.pop(0) if self.ol else self.value() >> (8 * high) & 255


class Timer:
    """Three counters, port 61h's gate, and time in clock pulses."""

    def __init__(self):
        self.counter = [Counter(1), Counter(1), Counter(0)]

    def run(self, pulses):
        for _ in range(pulses):
            for c in self.counter:
                c.pulse()

    def outb(self, port, value):
        if port == 0x61:
            self.counter[2].set_gate(value & 1)
        elif port < 0x43:
            self.counter[port & 3].write(value)
        elif value >> 6 == 3:
            for i in range(3):
                if value >> (i + 1) & 1:
                    if not value & 0x20:
                        self.counter[i].latch()
                    if not value & 0x10:
                        self.counter[i].latch_status()
        elif value & 0x30:
            self.counter[value >> 6].control(value)
        else:
            self.counter[value >> 6].latch()

    def inb(self, port):
        if port == 0x61:
            return self.counter[2].out << 5
        return self.counter[port & 3].read()


def count_of(b, channel=0):
    b.outb(0x43, channel << 6)
    low = b.inb(0x40 + channel)
    return low | b.inb(0x40 + channel) << 8


def program(b, mode, count, channel=0, bcd=0):
    b.outb(0x43, channel << 6 | 0x30 | mode << 1 | bcd)
    b.outb(0x40 + channel, count & 255, count >> 8)


def out_of(b, channel=0):
    b.outb(0x43, 0xE0 | 2 << channel)
    return b.inb(0x40 + channel) >> 7


def wave(b, pulses, channel=0):
    levels = []
    for _ in range(pulses):
        b.run(1)
        levels.append(out_of(b, channel))
    return levels


def test_mode_0_rises_n_plus_1_pulses_after_the_write():
    b = PlatformBench(HERTZ)
    program(b, 0, 4)
    assert wave(b, 8) == [0, 0, 0, 0, 1, 1, 1, 1], "N = 4: OUT rises with pulse N + 1"
    assert count_of(b) == 0xFFFD, "counting wraps and goes on: pulses 6, 7, 8 after 0"


def test_mode_0_first_byte_stops_the_counter():
    b = PlatformBench(HERTZ)
    program(b, 0, 100)
    b.run(10)
    assert count_of(b) == 91
    b.outb(0x40, 50)
    b.run(20)
    assert count_of(b) == 91, "'writing the first byte disables counting'"
    b.outb(0x40, 0)
    b.run(1)
    assert count_of(b) == 50


def test_mode_0_first_byte_also_stops_a_count_that_waits_for_its_pulse():
    b = PlatformBench(HERTZ)
    program(b, 0, 5)
    b.outb(0x40, 9)
    assert wave(b, 10) == [0] * 10, "half a count is written: nothing is loaded"
    b.outb(0x40, 0)
    b.run(1)
    assert count_of(b) == 9


def test_mode_1_is_triggered_by_the_gate():
    b = PlatformBench(HERTZ)
    program(b, 1, 3, channel=2)
    assert wave(b, 3, 2) == [1, 1, 1]
    b.outb(0x61, 1)
    assert wave(b, 5, 2) == [0, 0, 0, 1, 1], "low for N = 3 pulses from the one after the trigger"
    b.outb(0x61, 0)
    b.outb(0x61, 1)
    assert wave(b, 2, 2) == [0, 0]
    b.outb(0x61, 0)
    b.outb(0x61, 1)
    assert wave(b, 4, 2) == [0, 0, 0, 1], "retriggerable: N pulses from the last trigger"


def test_mode_2_is_low_for_one_pulse_in_n():
    b = PlatformBench(HERTZ)
    program(b, 2, 3)
    assert wave(b, 9) == [1, 1, 0, 1, 1, 0, 1, 1, 0], "data sheet figure: low N pulses after the write"


def test_mode_2_new_count_waits_for_the_period():
    b = PlatformBench(HERTZ)
    program(b, 2, 4)
    b.run(2)
    b.outb(0x40, 5, 0)
    assert wave(b, 8) == [1, 0, 1, 1, 1, 1, 0, 1], "old period ends, then N = 5"


@pytest.mark.parametrize("n, levels", [(4, [1, 1, 0, 0, 1, 1, 0, 0]), (5, [1, 1, 1, 0, 0, 1, 1, 1, 0, 0])])
def test_mode_3_square_wave(n, levels):
    b = PlatformBench(HERTZ)
    program(b, 3, n)
    assert wave(b, len(levels)) == levels, "(N + 1) / 2 high and (N - 1) / 2 low for odd N"


def test_mode_3_counts_by_two():
    b = PlatformBench(HERTZ)
    program(b, 3, 5)
    counts = []
    for _ in range(8):
        b.run(1)
        counts.append(count_of(b))
    assert counts == [4, 2, 0, 4, 2, 4, 2, 0], "data sheet figure for mode 3, odd count"


def test_mode_4_strobes_once():
    b = PlatformBench(HERTZ)
    program(b, 4, 3)
    assert wave(b, 8) == [1, 1, 1, 0, 1, 1, 1, 1], "low for one pulse, N + 1 after the write"


def test_mode_5_strobes_after_a_trigger():
    b = PlatformBench(HERTZ)
    program(b, 5, 2, channel=2)
    assert wave(b, 4, 2) == [1, 1, 1, 1]
    b.outb(0x61, 1)
    assert wave(b, 5, 2) == [1, 1, 0, 1, 1]


def test_bcd_counts_decimal():
    b = PlatformBench(HERTZ)
    program(b, 2, 0x1000, bcd=1)
    b.run(2)
    assert count_of(b) == 0x0999
    program(b, 0, 0, bcd=1)
    b.run(2)
    assert count_of(b) == 0x9999, "0 stands for 10,000"


def test_read_back_gives_status_first_and_keeps_the_first_latch():
    b = PlatformBench(HERTZ)
    program(b, 2, 1000)
    b.outb(0x43, 0xE2)
    assert b.inb(0x40) == 0xF4, "OUT high, NULL COUNT, both bytes, mode 2"
    b.run(11)
    b.outb(0x43, 0xC2)
    b.run(11)
    b.outb(0x43, 0xC2, 0x00)
    assert [b.inb(0x40) for _ in range(3)] == [0xB4, 990 & 255, 990 >> 8], "status, then the count latched first"
    assert b.inb(0x40) | b.inb(0x40) << 8 == 979, "then the running count"


def test_port_61_shows_out2_and_refresh():
    b = PlatformBench(HERTZ)
    b.outb(0x61, 1)
    program(b, 0, 100, channel=2)
    b.run(100)
    assert b.inb(0x61) & 0x21 == 0x01
    b.run(1)
    assert b.inb(0x61) & 0x21 == 0x21
    toggles = set()
    for _ in range(40):
        b.run(1)
        toggles.add(b.inb(0x61) & 0x10)
    assert toggles == {0, 0x10}


def test_port_43_reads_all_ones():
    assert PlatformBench().inb(0x43) == 0xFF


WRITES = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 90)),
    st.tuples(st.just("run"), st.integers(1, 3)),
    st.tuples(st.just("run"), st.integers(2_000, 24_000)),
    st.tuples(st.just("gate"), st.integers(0, 1)),
    st.tuples(st.just("latch"), st.integers(0, 2)),
    st.tuples(st.just("readback"), st.integers(0, 31)),
    st.tuples(st.just("read"), st.integers(0, 2)),
    st.tuples(st.just("control"), st.integers(0, 2), st.integers(1, 3), st.integers(0, 7), st.integers(0, 1)),
    st.tuples(st.just("count"), st.integers(0, 2), st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 0x10, 0x21, 0x99, 0x50])))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(WRITES, max_size=40))
def test_agrees_with_the_pulse_by_pulse_model(operations):
    b, model = PlatformBench(HERTZ), Timer()

    def out(port, value):
        b.outb(port, value)
        model.outb(port, value)

    for name, *args in operations:
        if name == "run":
            model.run(args[0])
            b.run(args[0])
        elif name == "gate":
            out(0x61, args[0])
        elif name == "latch":
            out(0x43, args[0] << 6)
        elif name == "readback":
            out(0x43, 0xC0 | args[0] << 1)
        elif name == "read":
            assert b.inb(0x40 + args[0]) == model.inb(0x40 + args[0])
        elif name == "control":
            channel, rw, mode, bcd = args
            out(0x43, channel << 6 | rw << 4 | mode << 1 | bcd)
        else:
            out(0x40 + args[0], args[1])
        assert b.inb(0x61) & 0x20 == model.inb(0x61)
    for port in (0x40, 0x41, 0x42):
        assert [b.inb(port) for _ in range(4)] == [model.inb(port) for _ in range(4)]


@settings(max_examples=200, deadline=None)
@given(st.integers(HERTZ, 6 * 10**9), st.integers(2, 65536), st.integers(0, 2**62))
def test_rate_count_is_exact_at_any_distance(cycles_per_second, n, now):
    """Mode 2 from time 0, as an integer formula: the load takes the first pulse."""
    b = PlatformBench(cycles_per_second)
    program(b, 2, n & 0xFFFF)
    b.run_to(now)
    pulses = now * HERTZ // cycles_per_second
    if pulses:
        assert count_of(b) == (n - (pulses - 1) % n) & 0xFFFF


@settings(max_examples=150, deadline=None)
@given(st.integers(HERTZ, 20 * HERTZ), st.sampled_from([0, 2, 3, 4]), st.integers(1, 12), st.integers(0, 100))
def test_next_event_is_the_cycle_of_the_edge(cycles_per_second, mode, n, start):
    """Stepped by one cycle, the request appears at next_event() and not before."""
    b = PlatformBench(cycles_per_second)
    b.run_to(start)
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFE)
    program(b, mode, n)
    for _ in range(6):
        event, was = b.next_event(), b.irq()
        if event is None:
            b.run(3000)
            assert b.irq() == was
            return
        while b.now < event - 1:
            b.run(1)
            assert b.irq() == was, "INTR changed before next_event"
        b.run_to(event)
        assert b.irq() != was, "nothing happened at next_event"
        if b.irq() and n % 3:
            assert b.ack() == 0x20
            b.outb(0x20, 0x20)


def test_edges_within_one_jump_leave_one_request():
    b = PlatformBench(HERTZ)
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFE)
    program(b, 2, 100)
    b.run(1_000_050)
    assert b.irq() and b.ack() == 0x20
    b.outb(0x20, 0x20)
    assert not b.irq()
    assert b.next_event() == 1_000_101, "the next period's start: pulse 1 loads, then every 100"


def test_leap_from_the_illegal_count_1_to_a_real_period():
    b = PlatformBench(HERTZ)
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFE)
    program(b, 2, 1)
    b.run(50)
    b.outb(0x20, 0x0C)
    assert b.inb(0x20) in (0, 0x80)
    b.outb(0x20, 0x20)
    assert not b.irq() and b.next_event() is None, "OUT stays high"
    b.outb(0x40, 4, 0)
    b.run(62)
    assert b.irq()


def test_masked_timer_has_no_events_and_catches_up():
    b = PlatformBench(HERTZ)
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFF)
    program(b, 2, 100)
    assert b.next_event() is None
    b.now = 1_000_050
    b.outb(0x21, 0xFE)
    assert b.irq(), "IRR was kept up although nobody advanced"
