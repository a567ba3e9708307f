# SPDX-License-Identifier: GPL-2.0-or-later
"""The local APIC: registers, modes, priorities and the timer, against models that know sets and single ticks.

What is expected comes from SDM 3A chapter 10; register numbers are offset / 16, or MSR - 800h.
"""
import random

import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

BASE, MSR_BASE, MSR_DEADLINE, MSR_X2 = 0xFEE00000, 0x1B, 0x6E0, 0x800
ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR, ESR = 2, 3, 8, 0xA, 0xB, 0xD, 0xE, 0xF, 0x10, 0x18, 0x20, 0x28
ICR, ICR_HIGH, TIMER, THERMAL, LINT0, LINT1, ERROR = 0x30, 0x31, 0x32, 0x33, 0x35, 0x36, 0x37
INITIAL, CURRENT, DIVIDE, SELF_IPI = 0x38, 0x39, 0x3E, 0x3F
MASKED, PERIODIC, DEADLINE = 1 << 16, 1 << 17, 1 << 18
ENABLED, X2APIC = 0x800, 0x400
SELF = 1 << 18
FIRMWARE = BASE | ENABLED | 0x100


class Bench(PlatformBench):
    """A platform whose 8259 pair is masked; get and set know registers by number."""

    def __init__(self, **kwargs):
        super().__init__(**{"cycles_per_second": 1 << 30, **kwargs})

    def get(self, register):
        return self.load(BASE + 16 * register)

    def set(self, register, value):
        assert self.store(BASE + 16 * register, value)

    def vectors(self, first):
        """The vectors whose bits are set in ISR, TMR or IRR."""
        return {32 * i + bit for i in range(8) for bit in range(32) if self.get(first + i) >> bit & 1}

    def x2(self):
        assert self.wrmsr(MSR_BASE, FIRMWARE | X2APIC)
        return self


# Registers --------------------------------------------------------------------------------------

def test_firmware_leaves_it_enabled_with_the_8259_pair_wired_through():
    b = Bench()
    assert b.rdmsr(MSR_BASE) == FIRMWARE
    assert (b.get(ID), b.get(VERSION), b.get(SVR), b.get(LINT0), b.get(LINT1)) == (0, 0x50014, 0x1FF, 0x700, 0x400)
    assert all(b.get(TIMER + i) == MASKED for i in (0, 1, 2, 5)) and b.get(DFR) == 0xFFFFFFFF
    b.outb(0x21, 0xEF)
    b.set_irq(4, True)
    assert b.irq() and b.ack() == 0x0C
    b.set(LINT0, 0x10700)
    b.set_irq(4, False)
    b.outb(0x20, 0x20)
    b.set_irq(4, True)
    assert not b.irq()
    b.set(LINT0, 0x700)
    assert b.irq()


@pytest.mark.parametrize("register, written, kept", [
    (TPR, 0xFFFFFFFF, 0xFF), (LDR, 0xFFFFFFFF, 0xFF000000), (DFR, 0, 0x0FFFFFFF), (SVR, 0xFFFFFFFF, 0x1FF),
    (TIMER, 0xFFFFFFFF, 0x700FF), (THERMAL, 0xFFFFFFFF, 0x107FF), (LINT0, 0xFFFFFFFF, 0x1A7FF), (ERROR, 0xFFFFFFFF, 0x100FF),
    (ICR_HIGH, 0xFFFFFFFF, 0xFF000000), (INITIAL, 0xFFFFFFFF, 0xFFFFFFFF), (DIVIDE, 0xFFFFFFFF, 0xB),
    (ID, 0xFFFFFFFF, 0), (VERSION, 0, 0x50014), (PPR, 0xFF, 0), (ISR, 1, 0), (IRR, 1, 0), (CURRENT, 5, 0)])
def test_a_register_keeps_the_bits_that_it_has(register, written, kept):
    b = Bench()
    b.set(register, written)
    assert b.get(register) == kept


def test_only_every_fourth_doubleword_is_a_register_and_parts_are_not_written():
    b = Bench()
    b.store(BASE + 0x84, 0x40)
    b.store(BASE + 0x80, 0x40, 1)
    b.store(BASE + 0x81, 0x40, 4)
    assert b.get(TPR) == 0
    b.store(BASE + 0x80, 0x4142, 8)
    assert b.get(TPR) == 0x42
    assert (b.load(BASE + 0x30, 8), b.load(BASE + 0x32, 2), b.load(BASE + 0x34)) == (0x50014, 5, 0)
    assert b.load(BASE + 0x1000) is None and b.load(BASE - 4) is None and not b.store(BASE + 0x1000, 0)


def test_disabling_it_by_software_masks_the_table_and_refuses_requests():
    b = Bench()
    b.set(ICR, SELF | 0x61)
    b.set(SVR, 0xFF)
    assert b.get(LINT0) == 0x10700 and b.irq() and b.ack() == 0x61, "what was requested before is kept (10.4.7.2)"
    b.set(TIMER, 0x40)
    assert b.get(TIMER) == MASKED | 0x40
    b.set(ICR, SELF | 0x71)
    assert b.vectors(IRR) == set()


def test_errors_are_latched_by_a_write_and_signalled_once():
    b = Bench()
    b.set(ERROR, 0xEE)
    b.set(ICR, SELF | 0x0F)
    assert b.get(ESR) == 0 and b.ack() == 0xEE
    b.set(EOI, 0)
    b.set(ICR, SELF | 3)
    assert not b.irq(), "the bit was set already"
    b.set(ESR, 0)
    assert b.get(ESR) == 1 << 5
    b.get(0x3A)
    assert b.irq() and b.ack() == 0xEE, "an illegal register"
    b.set(TIMER, 0x0E)
    b.set(INITIAL, 10)
    b.run(20)
    b.set(ESR, 0)
    assert b.get(ESR) == 1 << 7 | 1 << 6, "and a received illegal vector"
    b.set(ESR, 0)
    assert b.get(ESR) == 0


def test_spurious_vector_when_nothing_is_left():
    b = Bench()
    b.set(SVR, 0x1EF)
    b.set(LINT0, MASKED)
    assert b.ack() == 0xEF and b.vectors(ISR) == set()


@pytest.mark.parametrize("dfr, ldr, command, to, taken", [
    (0xFFFFFFFF, 1, 0, 0, True), (0xFFFFFFFF, 1, 0, 1, False), (0xFFFFFFFF, 1, 0, 0xFF, True), (0xFFFFFFFF, 0x81, 0x800, 0x80, True),
    (0xFFFFFFFF, 0x81, 0x800, 0x7E, False), (0x0FFFFFFF, 0x34, 0x800, 0x36, True), (0x0FFFFFFF, 0x34, 0x800, 0x44, False),
    (0x0FFFFFFF, 0x34, 0x800, 0xF4, True), (0x0FFFFFFF, 0x34, 0x800, 0x33, False), (0xFFFFFFFF, 1, 1 << 19, 9, True),
    (0xFFFFFFFF, 1, 3 << 18, 0, False), (0xFFFFFFFF, 1, 0x100, 0, True), (0xFFFFFFFF, 1, 0x400, 0, False), (0xFFFFFFFF, 1, 0x500, 0, False)])
def test_destinations(dfr, ldr, command, to, taken):
    b = Bench()
    b.set(DFR, dfr)
    b.set(LDR, ldr << 24)
    b.set(ICR_HIGH, to << 24)
    b.set(ICR, command | 0x4000 | 0x55)
    assert b.vectors(IRR) == ({0x55} if taken else set())


# Modes ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("old, new, legal", [(old, new, legal) for old, row in {
    0: (True, False, True, False), ENABLED: (True, False, True, True), ENABLED | X2APIC: (True, False, False, True)}.items()
    for new, legal in zip((0, X2APIC, ENABLED, ENABLED | X2APIC), row)])
def test_every_way_between_the_modes(old, new, legal):
    """SDM 3A figure 10-27."""
    b = Bench()
    for step in {0: [0], ENABLED: [], ENABLED | X2APIC: [ENABLED | X2APIC]}[old]:
        assert b.wrmsr(MSR_BASE, BASE | 0x100 | step)
    assert b.rdmsr(MSR_BASE) == BASE | 0x100 | old
    assert b.wrmsr(MSR_BASE, BASE | 0x100 | new) == legal
    assert b.rdmsr(MSR_BASE) == BASE | 0x100 | (new if legal else old)


@pytest.mark.parametrize("bit", [*range(8), 9, *range(40, 64)])
def test_reserved_bits_of_the_base(bit):
    b = Bench()
    assert not b.wrmsr(MSR_BASE, FIRMWARE | 1 << bit) and b.rdmsr(MSR_BASE) == FIRMWARE


def test_off_is_as_without_and_forgets():
    b = Bench()
    b.set(TPR, 0x20)
    b.set(ICR, SELF | 0x61)
    b.set(LINT0, MASKED)
    assert b.wrmsr(MSR_BASE, BASE)
    assert b.load(BASE + 0x20) is None and not b.irq()
    b.outb(0x21, 0xEF)
    b.set_irq(4, True)
    assert b.irq() and b.ack() == 0x0C
    assert b.wrmsr(MSR_BASE, FIRMWARE)
    assert (b.get(SVR), b.get(TPR), b.get(LINT0), b.vectors(IRR)) == (0xFF, 0, MASKED, set())


def test_the_registers_move_with_the_base():
    b = Bench()
    assert b.wrmsr(MSR_BASE, 0xD0000000 | ENABLED)
    assert b.load(BASE + 0x30) is None and b.load(0xD0000030) == 0x50014


def test_x2apic_registers():
    b = Bench()
    assert b.rdmsr(MSR_X2 + ID) is None and not b.wrmsr(MSR_X2 + TPR, 0)
    b.set(TPR, 0x30)
    b.x2()
    assert b.load(BASE + 0x20) is None
    exist = {ID, VERSION, TPR, PPR, LDR, SVR, ESR, ICR, INITIAL, CURRENT, DIVIDE, *range(ISR, ISR + 24), *range(TIMER, TIMER + 6)}
    assert {n for n in range(0x40) if b.rdmsr(MSR_X2 + n) is not None} == exist
    assert (b.rdmsr(MSR_X2 + TPR), b.rdmsr(MSR_X2 + LDR), b.rdmsr(MSR_X2 + SVR)) == (0x30, 1, 0x1FF)
    writable = {TPR: 0xFF, EOI: 0, SVR: 0x1FF, ESR: 0, ICR: 0xFFFFFFFF000CCFFF, TIMER: 0x710FF & ~0x1000 | 0x1000, 0x33: 0x117FF | 0x5000,
                0x34: 0x117FF | 0x5000, LINT0: 0x1F7FF, LINT1: 0x1F7FF, ERROR: 0x100FF | 0x5000, INITIAL: 0xFFFFFFFF, DIVIDE: 0xB, SELF_IPI: 0xFF}
    for n in range(0x40):
        legal = {bit for bit in range(64) if b.wrmsr(MSR_X2 + n, 1 << bit)}
        expected = {bit for bit in range(64) if n in writable and writable[n] >> bit & 1}
        assert legal - {12, 14} == expected - {12, 14}, f"register {n:#x}"
        assert b.wrmsr(MSR_X2 + n, 0) == (n in writable)


def test_x2apic_sends():
    b = Bench().x2()
    for destination, vector in ((0, 0x31), (0xFFFFFFFF, 0x32), (0xFF, 0x33), (1, 0x34)):
        assert b.wrmsr(MSR_X2 + ICR, destination << 32 | 0x4000 | vector)
    for destination, vector in ((1, 0x41), (3, 0x42), (2, 0x43), (1 << 16 | 1, 0x44)):
        assert b.wrmsr(MSR_X2 + ICR, destination << 32 | 0x4800 | vector)
    assert b.wrmsr(MSR_X2 + SELF_IPI, 0x51) and b.wrmsr(MSR_X2 + SELF_IPI, 5)
    taken = []
    while b.irq():
        taken.append(b.ack())
    assert taken == [0x51]
    b.wrmsr(MSR_X2 + EOI, 0)
    assert {32 * i + bit for i in range(8) for bit in range(32) if b.rdmsr(MSR_X2 + IRR + i) >> bit & 1} == {0x31, 0x32, 0x41, 0x42}
    b.wrmsr(MSR_X2 + ESR, 0)
    assert b.rdmsr(MSR_X2 + ESR) == 1 << 5


# Priorities -------------------------------------------------------------------------------------

class Priorities:
    """Section 10.8 in sets."""

    def __init__(self):
        self.requested, self.serving, self.tpr = set(), set(), 0

    @property
    def ppr(self):
        highest = max(self.serving, default=0)
        return self.tpr if self.tpr >> 4 >= highest >> 4 else highest & 0xF0

    @property
    def pending(self):
        highest = max(self.requested, default=0)
        return highest if highest >> 4 > self.ppr >> 4 else None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("send", "send", "ack", "eoi", "tpr", "cr8")), st.integers(0, 255)), max_size=60))
def test_priorities(steps):
    b, model = Bench(), Priorities()
    for action, value in steps:
        if action == "send":
            b.set(ICR, SELF | value)
            if value >= 16:
                model.requested.add(value)
        elif action == "tpr":
            b.set(TPR, value)
            model.tpr = value
        elif action == "cr8":
            b.cr8 = value & 15
            model.tpr = (value & 15) << 4
        elif action == "eoi":
            b.set(EOI, value)
            model.serving.discard(max(model.serving, default=0))
        elif model.pending:
            vector = model.pending
            assert b.ack() == vector
            model.requested.remove(vector)
            model.serving.add(vector)
        assert b.irq() == (model.pending is not None)
        assert (b.get(PPR), b.get(TPR), b.cr8) == (model.ppr, model.tpr, model.tpr >> 4)
    assert (b.vectors(IRR), b.vectors(ISR)) == (model.requested, model.serving)


# The timer --------------------------------------------------------------------------------------

class Ticks:
    """The timer of 10.5.4, cycle by cycle."""
    DIVISORS = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}

    def __init__(self):
        self.entry, self.divide, self.initial, self.count, self.prescaler, self.fired = MASKED, 0, 0, 0, 0, 0

    def cycle(self):
        if not self.count:
            return
        self.prescaler += 1
        if self.prescaler < self.DIVISORS[self.divide]:
            return
        self.prescaler = 0
        self.count -= 1
        if self.count == 0:
            self.fired += not self.entry & MASKED
            if self.entry & PERIODIC:
                self.count = self.initial


def take(b):
    """Take the timer's request, with its end: how many there were."""
    if not b.irq():
        return 0
    assert b.ack() == 0x40
    b.set(EOI, 0)
    return 1


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.just("run"), st.integers(1, 300)), st.tuples(st.just("initial"), st.integers(0, 40)),
    st.tuples(st.just("entry"), st.sampled_from((0x40, 0x40 | PERIODIC, 0x40 | MASKED, 0x40 | PERIODIC | MASKED))),
    st.tuples(st.just("divide"), st.sampled_from(sorted(Ticks.DIVISORS)))), max_size=30), st.booleans())
def test_timer_counts_as_one_that_ticks(steps, patient):
    """Requests are taken as soon as they come (or, patiently, only at the end of a step: then several are one)."""
    b, model, taken = Bench(), Ticks(), 0
    b.set(DIVIDE, 0)
    for action, value in steps:
        if action == "run":
            before = model.fired
            for _ in range(value):
                model.cycle()
                if not patient:
                    assert b.next_event() in (None, *range(b.now + 1, b.now + 6000))
                    b.run(1)
                    taken += take(b)
            if patient:
                b.run(value)
                taken += take(b)
                model.fired = min(model.fired, before + 1)
        elif action == "initial":
            b.set(INITIAL, value)
            model.initial = model.count = value
            model.prescaler = 0
        elif action == "entry":
            b.set(TIMER, value)
            model.entry = value
        else:
            b.set(DIVIDE, value)
            model.divide, model.prescaler = value, 0
        assert b.get(CURRENT) == model.count
        assert taken == model.fired


def test_an_end_that_comes_while_its_vector_is_requested_is_lost():
    b = Bench()
    b.set(DIVIDE, 0xB)
    b.set(TIMER, 0x40 | PERIODIC)
    b.set(INITIAL, 100)
    b.run(100)
    assert b.irq() and b.next_event() is None, "nothing changes before it is taken"
    b.now += 250
    assert b.ack() == 0x40
    b.set(EOI, 0)
    assert not b.irq() and b.next_event() == 400
    b.run_to(400)
    assert b.irq()


def test_a_timer_that_is_held_back_is_no_event_and_counts_all_the_same():
    b = Bench()
    b.set(DIVIDE, 0xB)
    b.set(TIMER, 0x40)
    b.set(INITIAL, 100)
    assert b.next_event() == 100
    b.set(TPR, 0x40)
    assert b.next_event() is None
    b.run_to(150)
    assert not b.irq()
    b.set(TPR, 0x30)
    assert b.irq() and b.ack() == 0x40


@pytest.mark.parametrize("offset", [0, 5000, -5000 % (1 << 64)])
def test_deadline(offset):
    b = Bench()
    b.run_to(10000)
    b.set_tsc_offset(offset)
    assert b.wrmsr(MSR_DEADLINE, 99999999) and b.rdmsr(MSR_DEADLINE) == 0, "ignored in the other modes"
    b.set(TIMER, DEADLINE | 0x40)
    tsc = (10000 + offset) % (1 << 64)
    b.wrmsr(MSR_DEADLINE, tsc + 500)
    b.set(INITIAL, 7)
    assert (b.rdmsr(MSR_DEADLINE), b.next_event(), b.get(INITIAL), b.get(CURRENT)) == (tsc + 500, 10500, 0, 0)
    b.run_to(10499)
    assert not b.irq()
    b.run_to(10500)
    assert b.irq() and b.ack() == 0x40 and b.rdmsr(MSR_DEADLINE) == 0
    b.set(EOI, 0)
    b.wrmsr(MSR_DEADLINE, tsc - 1 if tsc > 1 else 1)
    assert b.irq() and b.ack() == 0x40, "one that has passed"
    b.set(EOI, 0)
    b.wrmsr(MSR_DEADLINE, tsc + 10000)
    b.set_tsc_offset((offset + 5000) % (1 << 64))
    assert b.next_event() == 15000, "it follows a write to the time stamp counter"
    b.wrmsr(MSR_DEADLINE, 0)
    assert b.next_event() is None
    b.wrmsr(MSR_DEADLINE, (1 << 64) - 1)
    assert b.next_event() is None or b.next_event() > 1 << 63
    b.set(TIMER, 0x40)
    assert b.rdmsr(MSR_DEADLINE) == 0 and b.next_event() is None, "another mode disarms it"


# Hostile guests ---------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(4))
def test_random_writes_never_stop_the_machine(seed):
    """Time goes on, events lie ahead, and a saved state has the same future."""
    dice, b = random.Random(seed), Bench()
    for turn in range(20000):
        if turn == 10000:
            twin = Bench()
            twin.restore(b.save())
            twin.now = b.now
            state = dice.getstate()
            left = [play(b, dice) for _ in range(3000)]
            dice.setstate(state)
            assert [play(twin, dice) for _ in range(3000)] == left and twin.save() == b.save()
        play(b, dice)
        event = b.next_event()
        assert event is None or event >= b.now


def play(b, dice):
    """One random access; what it gave."""
    value = dice.choice((dice.getrandbits(64), dice.getrandbits(32), dice.getrandbits(8), 0, 1 << dice.randrange(64)))
    page = dice.choice((0xFEE00000, 0xFEE00000, 0xFEC00000))
    at = page + (dice.choice((0, 0x10)) if page == 0xFEC00000 else dice.choice((dice.randrange(0x1000), 16 * dice.randrange(0x40))))
    size = dice.choice((1, 2, 4, 4, 4, 8))
    kind = dice.randrange(9)
    if kind < 3:
        return b.store(at, value, size)
    if kind == 3:
        return b.load(at, size)
    if kind == 4:
        msr = dice.choice((MSR_BASE, MSR_DEADLINE, MSR_X2 + dice.randrange(0x40), dice.getrandbits(32)))
        return b.wrmsr(msr, dice.choice((value, FIRMWARE, FIRMWARE | X2APIC, BASE))), b.rdmsr(msr)
    if kind == 5:
        return b.irq() and b.ack()
    if kind == 6:
        b.run_to(b.next_event() if b.next_event() is not None and b.next_event() < 1 << 50 else b.now + dice.randrange(1000))
    elif kind == 7:
        b.set_irq(dice.choice((1, 3, 4, 5, 9, 15)), dice.randrange(2))
    else:
        b.write(dice.choice((0x600, 0x602, 0x608)), 2, value & 0xFFFF)
    return b.now
