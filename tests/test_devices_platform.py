# SPDX-License-Identifier: GPL-2.0-or-later
"""The platform: 8042, system control, debug ports, widths, absent ports, and a hostile guest."""
import random
import time

import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

OUTPUT_FULL, SYSTEM, COMMAND, TIMEOUT = 0x01, 0x04, 0x08, 0x40


def kbc(b, command, *data):
    """Send an 8042 command with its bytes; the answer, or None."""
    b.outb(0x64, command)
    b.outb(0x60, *data)
    return b.inb(0x60) if b.inb(0x64) & OUTPUT_FULL else None


def test_8042_self_tests_and_command_byte():
    b = PlatformBench()
    assert b.inb(0x64) & (OUTPUT_FULL | 2) == 0
    assert kbc(b, 0xAA) == 0x55 and b.inb(0x64) & SYSTEM
    assert kbc(b, 0xAB) == 0
    assert kbc(b, 0xA9) != 0, "no auxiliary port"
    assert kbc(b, 0x60, 0x54) is None
    assert kbc(b, 0x20) == 0x54
    b.outb(0x64, 0xAE)
    assert kbc(b, 0x20) == 0x44 and b.inb(0x64) & COMMAND


def test_absent_mouse_times_out():
    b = PlatformBench()
    b.outb(0x64, 0xD4)
    b.outb(0x60, 0xF2)
    assert b.inb(0x64) & (OUTPUT_FULL | TIMEOUT) == OUTPUT_FULL | TIMEOUT
    assert b.inb(0x60) == 0xFE
    assert b.inb(0x64) & (OUTPUT_FULL | TIMEOUT) == 0


def test_a_new_8042_command_forgets_the_one_that_awaits_a_byte():
    b = PlatformBench()
    b.outb(0x64, 0xD1, 0xAA)
    b.inb(0x60)
    b.outb(0x60, 0x00)
    assert b.stop == (0, 0) and b.inb(0x60) == 0xFE, "the byte went to the keyboard"
    assert kbc(b, 0x60, 0x45) is None
    b.outb(0x60, 0x00)
    assert b.inb(0x60) == 0xFE and kbc(b, 0x20) == 0x45, "a command takes one byte"


def test_8042_interrupt_follows_the_output_buffer():
    b = PlatformBench()
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFD)
    b.outb(0x64, 0x60)
    b.outb(0x60, 0x45)
    b.outb(0x64, 0xD2)
    b.outb(0x60, 0x1E)
    assert b.irq() and b.ack() == 0x21 and b.lines & 2
    assert b.inb(0x60) == 0x1E and not b.lines & 2


def test_a20_by_each_way():
    b = PlatformBench()
    assert b.a20 == 1 and b.inb(0x92) == 2
    b.outb(0x92, 0)
    assert b.a20 == 0 and kbc(b, 0xD0) & 2 == 0
    b.outb(0x64, 0xD1)
    b.outb(0x60, 0xDF)
    assert b.a20 == 1 and b.inb(0x92) == 2
    b.outb(0x64, 0xDD)
    assert b.a20 == 0
    b.outb(0x64, 0xDF)
    assert b.a20 == 1


@pytest.mark.parametrize("writes", [[(0x64, 0xFE)], [(0x64, 0xD1), (0x60, 0xDE)], [(0x92, 0x03)], [(0xCF9, 0x02), (0xCF9, 0x06)]])
def test_resets(writes):
    b = PlatformBench()
    for port, value in writes:
        assert b.stop == (0, 0)
        b.outb(port, value)
    assert b.stop == (2, 0)


@pytest.mark.parametrize("size, value", [(1, 0x2A), (2, 0x1234), (4, 0x12345678)])
def test_debug_exit_takes_the_whole_value(size, value):
    b = PlatformBench()
    b.write(0xF4, size, value)
    b.write(0xF4, 1, 9)
    b.outb(0x64, 0xFE)
    assert b.stop == (1, value), "the first request stands"


def test_report_words_and_debug_console():
    b = PlatformBench()
    b.write(0xE8, 4, 0xDEADBEEF)
    b.write(0xE8, 2, 0x1234)
    b.outb(0xE8, 7)
    for byte in b"hello":
        b.outb(0xE9, byte)
    assert b.report == [0xDEADBEEF, 0x1234, 7] and b.debug == b"hello" and b.inb(0xE9) == 0xE9


def test_absent_ports_read_ones_of_their_size():
    b = PlatformBench()
    for port in (0x0, 0x2F8, 0x402, 0xB000, 0xFFFF, 0x3B4, 0xCFC, 0x510, 0x511, 0x514):
        assert [b.read(port, n) for n in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]


def test_neighbours_of_a_chip_are_not_its_aliases():
    b, untouched = PlatformBench(), PlatformBench()
    for port in (*range(0x22, 0x28), *range(0xA2, 0xA8), *range(0x44, 0x48), 0x62, 0x63, *range(0x65, 0x68), 0x90, 0x93, 0x4D2, 0xCFA):
        b.outb(port, 0x11, 0x06)
        assert b.inb(port) == 0xFF
    assert b.save() == untouched.save()


def test_wide_accesses_are_bytes_low_first():
    b = PlatformBench()
    b.write(0x3D4, 2, 0x5A0F)
    assert b.inb(0x3D5) == 0x5A and b.read(0x3D4, 2) == 0x5A0F
    b.write(0x3F8, 2, 0x0141)
    assert b.console == b"A" and b.inb(0x3F9) == 1
    assert b.read(0x3FD, 4) == 0x60 | 0xB0 << 8 | 0x00 << 16 | 0xFF << 24, "LSR, MSR, scratch, nothing"


def test_vga_registers_keep_what_is_written():
    b = PlatformBench()
    b.outb(0x3C8, 5)
    b.outb(0x3C9, 1, 2, 3)
    b.outb(0x3C7, 5)
    assert [b.inb(0x3C9) for _ in range(3)] == [1, 2, 3]
    b.inb(0x3DA)
    b.outb(0x3C0, 0x11, 0x2B)
    b.outb(0x3C0, 0x11)
    assert b.inb(0x3C1) == 0x2B
    seen = set()
    for _ in range(200):
        b.run(100)
        seen.add(b.inb(0x3DA) & 8)
    assert seen == {0, 8}, "retrace comes and goes"


def test_post_port_remembers():
    b = PlatformBench()
    b.outb(0x80, 0x99)
    assert b.inb(0x80) == 0x99


def test_save_and_restore_give_the_same_future():
    rng = random.Random(7)
    steps = [(rng.choice(PORTS), rng.randrange(256), rng.randrange(5000)) for _ in range(400)]
    a = PlatformBench(10_000_000)
    for step in steps[:200]:
        play(a, *step)
    c = PlatformBench(10_000_000)
    c.restore(a.save())
    c.now = a.now
    assert [play(a, *step) for step in steps[200:]] == [play(c, *step) for step in steps[200:]]
    assert a.save() == c.save()


PORTS = [*range(0x20, 0x22), *range(0xA0, 0xA2), *range(0x40, 0x44), 0x43, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x71, 0x80, 0x92,
         0xE8, 0xE9, *range(0x3C0, 0x3E0), *range(0x3F8, 0x400), 0x4D0, 0x4D1, 0xCF8, 0xCF9, 0xCFC,
         *range(0x1F0, 0x1F8), *range(0x170, 0x178), 0x3F6, 0x376, 0x510, 0x511, 0xC000, 0xC002, 0xC008]


def play(b, port, value, wait):
    b.outb(port, value)
    b.run(wait)
    return b.inb(port), b.irq(), b.next_event()


def observed(b):
    """Everything a guest can read of timers and controllers; reading also brings the lazy chips to the present."""
    seen = []
    for base in (0x20, 0xA0):
        b.outb(base, 0x0A)
        seen.append(b.inb(base))
    b.outb(0x43, 0x00, 0x40, 0x80, 0xEE)
    seen += [b.inb(port) for port in (0x40, 0x41, 0x42) for _ in range(3)]
    for index in (0, 2, 4, 7, 0x0A, 0x0C):
        b.outb(0x70, index)
        seen.append(b.inb(0x71))
    return seen


WAIT = st.sampled_from([0, 1, 3, 17, 90, 700])
OPERATION = st.one_of(
    st.tuples(st.sampled_from([0x20, 0x21, 0xA1, 0x40, 0x42, 0x43, 0x61, 0x70, 0x71, 0x71]), st.integers(0, 255), WAIT),
    st.tuples(st.just(0x43), st.sampled_from([0x10, 0x14, 0x14, 0x16, 0x18]), WAIT),   # channel 0, low byte only: short periods
    st.tuples(st.just(0x40), st.integers(0, 5), WAIT),
    st.tuples(st.just(0x20), st.sampled_from([0x0C, 0x20]), WAIT))


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATION, max_size=12), st.integers(1, 4000))
def test_jumping_equals_stepping(operations, last):
    """Advancing at next_event() only, at every cycle, or in one leap gives one state."""
    state, seen = [], []
    for how in ("events", "cycles", "leap"):
        b = PlatformBench(2_000_000)
        b.outb(0x20, 0x11)
        b.outb(0x21, 0x20, 4, 1, 0x00)
        b.outb(0xA0, 0x11)
        b.outb(0xA1, 0x28, 2, 1, 0x00)
        changes = []
        for port, value, wait in [*operations, (0x80, 0, last)]:
            b.outb(port, value)
            end = b.now + wait
            while b.now < end:
                event, was = b.next_event(), b.irq()
                event = end if event is None else min(max(event, b.now + 1), end)
                b.run_to({"events": event, "cycles": b.now + 1, "leap": end}[how])
                if b.irq() != was:
                    changes.append(b.now)
        seen.append(changes)
        state.append((observed(b), b.irq(), b.save()))
    assert state[0] == state[1] == state[2]
    assert seen[0] == seen[1], "INTR changed at a cycle that next_event did not name"


def test_hostile_guest_is_bounded_in_time():
    """Random bytes on random ports with leaps up to centuries: no access takes long."""
    rng = random.Random(1)
    b = PlatformBench(3_000_000_000)
    slowest, total = 0.0, time.perf_counter()
    for _ in range(60_000):
        port, value, size = rng.choice(PORTS), rng.getrandbits(32), rng.choice((1, 1, 2, 4))
        leap = rng.choice((0, 1, 1000, 10**6, 10**10, 10**13))
        begin = time.thread_time()
        b.write(port, size, value)
        b.run(leap)
        b.read(port, size)
        b.next_event()
        if b.irq():
            b.ack()
        slowest = max(slowest, time.thread_time() - begin)
    assert slowest < 0.02, "an access looped"
    assert time.perf_counter() - total < 30


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("mode", range(6))
def test_tiny_counts_survive_the_end_of_time(mode, count):
    b = PlatformBench(1_193_182)
    b.outb(0x21, 0)
    b.outb(0x43, 0x30 | mode << 1)
    b.outb(0x40, count, 0)
    begin = time.thread_time()
    b.run_to(2**64 - 2)
    for port in (0x40, 0x71, 0x61, 0x20):
        b.inb(port)
    assert b.next_event() is None or b.next_event() >= b.now
    assert time.thread_time() - begin < 0.02
