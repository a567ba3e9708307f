# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O APIC (82093AA data sheet), ACPI's fixed hardware, and what of the platform they are wired to."""
import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

BASE, LAPIC = 0xFEC00000, 0xFEE00000
MASKED, LEVEL, REMOTE, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11
EOI, TMR = 0xB0, 0x180
LINES = (3, 5, 6, 7, 10, 11)        # nothing of the platform drives these


class Bench(PlatformBench):
    def get(self, register):
        self.store(BASE, register)
        return self.load(BASE + 0x10)

    def set(self, register, value):
        self.store(BASE, register)
        self.store(BASE + 0x10, value)

    def entry(self, pin, low, destination=0):
        self.set(0x11 + 2 * pin, destination << 24)
        self.set(0x10 + 2 * pin, low)

    def take(self):
        """Acknowledge everything there is, with its end; the vectors in order."""
        taken = []
        while self.irq():
            taken.append(self.ack())
            self.store(LAPIC + EOI, 0)
        return taken


def test_registers():
    b = Bench()
    assert (b.get(0), b.get(1), b.get(2)) == (1 << 24, 0x170011, 1 << 24)
    b.set(0, 0xFFFFFFFF)
    b.set(1, 0)
    assert (b.get(0), b.get(1)) == (0x0F000000, 0x170011)
    assert all(b.get(0x10 + 2 * pin) == MASKED and b.get(0x11 + 2 * pin) == 0 for pin in range(24))
    b.entry(5, 0xFFFFFFFF, 0xFF)
    assert (b.get(0x1A), b.get(0x1B)) == (0x1AFFF, 0xFF000000), "status and remote IRR are read-only"
    assert b.get(0x40) == b.get(0xFF) == 0
    b.store(BASE, 0x123)
    assert b.load(BASE) == 0x23 and b.load(BASE + 0x20) == 0


def test_an_edge_while_masked_is_lost():
    b = Bench()
    b.entry(5, MASKED | 0x45)
    b.set_irq(5, True)
    b.entry(5, 0x45)
    assert not b.irq()
    b.set_irq(5, False)
    b.set_irq(5, True)
    assert b.take() == [0x45]
    assert b.take() == [], "a high line is no edge"


def test_a_level_comes_again_after_its_end():
    b = Bench()
    b.entry(5, LEVEL | 0x45)
    b.set_irq(5, True)
    assert b.get(0x1A) == LEVEL | REMOTE | 0x45
    assert b.irq() and b.ack() == 0x45 and not b.irq()
    assert b.load(LAPIC + TMR + 0x20) == 1 << 5
    b.set_irq(5, False)
    b.set_irq(5, True)
    assert not b.irq(), "not before its end"
    b.store(LAPIC + EOI, 0)
    assert b.irq() and b.ack() == 0x45
    b.set_irq(5, False)
    b.store(LAPIC + EOI, 0)
    assert not b.irq() and b.get(0x1A) == LEVEL | 0x45


def test_a_level_waits_behind_its_mask():
    b = Bench()
    b.entry(5, LEVEL | MASKED | 0x45)
    b.set_irq(5, True)
    assert not b.irq()
    b.entry(5, LEVEL | 0x45)
    assert b.irq() and b.ack() == 0x45
    b.entry(5, MASKED | 0x45)
    assert not b.get(0x1A) & REMOTE, "an edge-triggered entry has no remote IRR"


def test_the_timer_is_at_input_2_and_nothing_at_0():
    b = Bench()
    b.entry(0, 0x50)
    b.entry(2, 0x52)
    b.outb(0x43, 0x30)
    b.outb(0x40, 100, 0)
    assert b.next_event() == 101
    b.run(101)
    assert b.take() == [0x52]
    b.entry(2, MASKED)
    b.outb(0x40, 100, 0)
    assert b.next_event() is None


def test_every_output_of_the_timer_is_an_edge_even_when_nobody_looked():
    b = Bench()
    b.entry(2, 0x52)
    b.outb(0x43, 0x36)
    b.outb(0x40, 10, 0)
    b.run(1)
    b.take()
    b.now += 8                                   # a rise and a fall, unseen
    b.store(LAPIC + 0x80, 0)
    b.run(5)
    assert b.take() == [0x52]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.just("line"), st.sampled_from(LINES), st.booleans()),
    st.tuples(st.just("entry"), st.sampled_from(LINES), st.tuples(st.sampled_from((0x41, 0x52, 0x63, 0x64)), st.sampled_from((0, LEVEL)),
                                                                  st.sampled_from((0, 0, MASKED)), st.sampled_from((0, 0, 9)))),
    st.tuples(st.just("take"), st.just(0), st.just(0))), max_size=50))
def test_entries(steps):
    """Lines, remote IRR and requests by a model of dictionaries."""
    b = Bench()
    line, entry, remote, wanted = dict.fromkeys(LINES, False), {}, set(), {}

    def send(pin, level):
        vector, _, _, destination = entry[pin]
        if destination:
            return
        wanted[vector] = level
        if level:
            remote.add(pin)

    def look(pin):
        if pin in entry and entry[pin][1] and not entry[pin][2] and line[pin] and pin not in remote:
            send(pin, True)
    for action, pin, value in steps:
        if action == "line":
            rose = value and not line[pin]
            line[pin] = value
            b.set_irq(pin, value)
            if rose and pin in entry and not entry[pin][1] and not entry[pin][2]:
                send(pin, False)
            look(pin)
        elif action == "entry":
            vector, level, mask, destination = value
            b.entry(pin, vector | level | mask, destination)
            entry[pin] = value
            if not level:
                remote.discard(pin)
            look(pin)
        elif wanted:
            vector = max(wanted)
            level = wanted.pop(vector)
            assert b.ack() == vector
            b.store(LAPIC + EOI, 0)
            if level:
                for other in LINES:
                    if other in entry and entry[other][:2] == (vector, LEVEL):
                        remote.discard(other)
                for other in LINES:
                    look(other)
        assert b.irq() == bool(wanted)
    for pin in entry:
        assert b.get(0x10 + 2 * pin) & REMOTE == (REMOTE if pin in remote else 0)


# ACPI's fixed hardware --------------------------------------------------------------------------

def test_power_management_timer_keeps_its_rate():
    b = Bench(cycles_per_second=1 << 30)
    for now in (0, 1 << 20, 1 << 30, 5 << 30, (1 << 45) + 12345):
        b.run_to(now)
        assert b.read(0x608, 4) == now * 3579545 // (1 << 30) % (1 << 32)
        assert b.read(0x608, 2) == b.read(0x608, 4) & 0xFFFF


def test_carry_of_the_timer_raises_the_sci():
    b = Bench(cycles_per_second=3579545)
    b.entry(9, LEVEL | 0x49)
    assert b.read(0x600, 2) == 0 and b.next_event() is None
    b.write(0x602, 2, 1)
    assert b.next_event() == 1 << 31
    b.run_to((1 << 31) - 1)
    assert b.read(0x600, 2) == 0 and not b.irq()
    b.run_to(1 << 31)
    assert b.irq() and b.read(0x600, 2) == 1
    b.write(0x600, 2, 1)
    assert b.read(0x600, 2) == 0 and b.lines >> 9 & 1 == 0 and b.next_event() == 2 << 31


@pytest.mark.parametrize("size", [1, 2])
def test_switched_off_by_the_sleep_type_that_the_tables_name(size):
    b = Bench()
    assert b.read(0x604, 2) == 1, "SCI_EN: there is no other mode"
    for kind in (0, 1, 4, 7):
        b.write(0x604, 2, kind << 10 | 1 << 13)
        assert b.stop == (0, 0)
    b.write(0x604, 2, 5 << 10)
    assert b.stop == (0, 0) and b.read(0x604, 2) == 5 << 10 | 1
    if size == 1:
        b.write(0x605, 1, (5 << 10 | 1 << 13) >> 8)
    else:
        b.write(0x604, 2, 5 << 10 | 1 << 13)
    assert b.stop == (3, 0)
