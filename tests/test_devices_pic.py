# SPDX-License-Identifier: GPL-2.0-or-later
"""8259A pair: the data sheet's (Intel 231468) commands, and a model that walks the levels one by one."""
import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.devices.testing import PlatformBench

LINES = [3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]


def pair(icw4=1, imr=0, slave_icw4=None):
    b = PlatformBench()
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, icw4, imr)
    b.outb(0xA0, 0x11)
    b.outb(0xA1, 0x28, 2, icw4 if slave_icw4 is None else slave_icw4, 0)
    return b


def pulse(b, *irqs):
    for irq in irqs:
        b.set_irq(irq, False)
        b.set_irq(irq, True)


def irr(b, base=0x20):
    b.outb(base, 0x0A)
    return b.inb(base)


def isr(b, base=0x20):
    b.outb(base, 0x0B)
    return b.inb(base)


def test_fixed_priority_and_non_specific_eoi():
    b = pair()
    pulse(b, 5, 3, 7)
    assert b.ack() == 0x23
    assert not b.irq(), "5 and 7 are below the level in service"
    assert (irr(b), isr(b)) == (0xA0, 0x08)
    b.outb(0x20, 0x20)
    assert b.irq() and b.ack() == 0x25
    pulse(b, 3)
    assert b.irq() and b.ack() == 0x23, "nested: a higher level interrupts"
    b.outb(0x20, 0x20)
    assert isr(b) == 0x20, "the highest level in service ended"


def test_edge_needs_a_new_rise_and_level_does_not():
    b = pair()
    pulse(b, 5)
    b.ack()
    b.outb(0x20, 0x20)
    assert not b.irq(), "the line is still high, but it has been acknowledged"
    b.outb(0x4D0, 0x20)
    assert b.inb(0x4D0) == 0x20
    assert b.irq() and b.ack() == 0x25
    b.outb(0x20, 0x20)
    assert b.irq(), "level-triggered: requested as long as it is high"
    b.set_irq(5, False)
    assert not b.irq()


def test_elcr_cannot_select_the_timer_keyboard_cascade_clock_and_coprocessor():
    b = pair()
    b.outb(0x4D0, 0xFF)
    b.outb(0x4D1, 0xFF)
    assert (b.inb(0x4D0), b.inb(0x4D1)) == (0xF8, 0xDE)


@pytest.mark.parametrize("irq, spurious", [(5, 0x27), (12, 0x27)])
def test_withdrawn_request_is_spurious_ir7(irq, spurious):
    b = pair()
    pulse(b, irq)
    b.set_irq(irq, False)
    assert not b.irq()
    assert b.ack() == spurious
    assert isr(b) == 0, "'the ISR bit is not set by a default IR7'"


def test_spurious_interrupt_of_the_slave():
    b = pair()
    b.outb(0xA1, 0xFF)
    pulse(b, 12)
    b.outb(0xA1, 0)
    assert b.irq() and b.ack() == 0x2C
    b.outb(0xA0, 0x20)
    b.outb(0x20, 0x20)
    assert (isr(b), isr(b, 0xA0)) == (0, 0)


def test_cascade_holds_both_in_service_bits():
    b = pair()
    pulse(b, 14)
    assert b.ack() == 0x2E
    assert (isr(b), isr(b, 0xA0)) == (0x04, 0x40)
    pulse(b, 9)
    assert not b.irq(), "fully nested: the master's IR2 is in service"
    b.outb(0xA0, 0x20)
    assert not b.irq()
    b.outb(0x20, 0x20)
    assert b.irq() and b.ack() == 0x29


def test_special_fully_nested_lets_a_slave_interrupt_itself():
    b = pair(icw4=0x11, slave_icw4=1)
    pulse(b, 14)
    b.ack()
    pulse(b, 9)
    assert b.irq() and b.ack() == 0x29
    pulse(b, 3)
    assert not b.irq(), "lower levels of the master still wait"


def test_automatic_eoi_and_rotation():
    b = pair(icw4=3)
    pulse(b, 3, 5)
    assert b.ack() == 0x23 and isr(b) == 0
    assert b.ack() == 0x25
    b.outb(0x20, 0x80)
    pulse(b, 3, 5)
    assert b.ack() == 0x23
    pulse(b, 3)
    assert b.ack() == 0x25, "3 has become the lowest priority"


def test_rotate_on_eoi_and_set_priority():
    b = pair()
    b.outb(0x20, 0xC4)
    pulse(b, 3, 5)
    assert b.ack() == 0x25, "lowest is 4, so 5 is highest"
    b.outb(0x20, 0xA0)
    pulse(b, 5, 6)
    assert b.ack() == 0x26, "rotate on non-specific EOI: 5 is lowest now"
    b.outb(0x20, 0xE0 | 6)
    assert isr(b) == 0
    assert b.ack() == 0x23, "lowest 6: order 7, 0 to 5"


def test_special_mask_mode():
    b = pair()
    pulse(b, 3)
    b.ack()
    pulse(b, 5)
    assert not b.irq()
    b.outb(0x21, 0x08)
    b.outb(0x20, 0x68)
    assert b.irq() and b.ack() == 0x25, "the masked level in service no longer holds lower ones back"
    b.outb(0x20, 0x20)
    assert isr(b) == 0x08, "a non-specific EOI passes over masked bits in special mask mode"
    b.outb(0x20, 0x48)
    b.outb(0x20, 0x63)
    assert isr(b) == 0


def test_poll_command():
    b = pair()
    pulse(b, 5)
    b.outb(0x20, 0x0C)
    assert b.inb(0x20) == 0x85
    assert isr(b) == 0x20 and irr(b) == 0
    b.outb(0x20, 0x0C)
    assert b.inb(0x20) & 0x80 == 0


def test_icw1_clears_masks_requests_and_service():
    b = pair(imr=0x55)
    pulse(b, 5, 3)
    b.ack()
    b.outb(0x20, 0x11)
    assert b.inb(0x21) == 0 and irr(b) == 0 and isr(b) == 0


def test_single_mode_takes_no_icw3():
    b = PlatformBench()
    b.outb(0x20, 0x13)
    b.outb(0x21, 0x40, 1, 0xF7)
    assert b.inb(0x21) == 0xF7
    pulse(b, 3)
    assert b.ack() == 0x43


class Chip:
    """An 8259A by its levels, in priority order, one at a time."""

    def __init__(self, base):
        self.base, self.high, self.edge, self.isr = base, set(), set(), set()
        self.imr, self.lowest = set(), 7
        self.aeoi = self.rotate = self.sfnm = self.smm = self.ris = self.polled = False

    def order(self):
        return [(self.lowest + 1 + i) % 8 for i in range(8)]

    def line(self, ir, level):
        if level and ir not in self.high:
            self.edge.add(ir)
        if not level:
            self.edge.discard(ir)
        (self.high.add if level else self.high.discard)(ir)

    def int(self):
        for ir in self.order():
            asks = ir in self.edge and ir not in self.imr
            serving = ir in self.isr and not (self.smm and ir in self.imr)
            if asks and (not serving or (self.sfnm and ir == 2)):
                return ir
            if serving:
                return None
        return None

    def take(self):
        ir = self.int()
        if ir is None:
            return None
        self.edge.discard(ir)
        if not self.aeoi:
            self.isr.add(ir)
        elif self.rotate:
            self.lowest = ir
        return ir

    def ocw2(self, value):
        kind, level = value >> 5, value & 7
        if kind in (1, 5):
            for ir in self.order():
                if ir in self.isr and not (self.smm and ir in self.imr):
                    self.isr.discard(ir)
                    if kind == 5:
                        self.lowest = ir
                    break
        elif kind in (3, 7):
            self.isr.discard(level)
        if kind in (6, 7):
            self.lowest = level
        if kind in (0, 4):
            self.rotate = kind == 4

    def ocw3(self, value):
        if value & 0x40:
            self.smm = bool(value & 0x20)
        if value & 4:
            self.polled = True
        elif value & 2:
            self.ris = bool(value & 1)

    def read(self):
        if self.polled:
            self.polled = False
            ir = self.take()
            return 0 if ir is None else 0x80 | ir
        return sum(1 << ir for ir in (self.isr if self.ris else self.edge))


class Pair:
    def __init__(self, master_icw4, slave_icw4):
        self.m, self.s = Chip(0x20), Chip(0x28)
        for chip, icw4 in ((self.m, master_icw4), (self.s, slave_icw4)):
            chip.aeoi, chip.sfnm = bool(icw4 & 2), bool(icw4 & 16) and chip is self.m

    def settle(self):
        self.m.line(2, self.s.int() is not None)

    def set_irq(self, irq, level):
        (self.m if irq < 8 else self.s).line(irq % 8, level)
        self.settle()

    def ack(self):
        ir = self.m.take()
        if ir != 2:
            return self.m.base + (7 if ir is None else ir)
        self.m.line(2, False)
        ir = self.s.take()
        self.settle()
        return self.s.base + (7 if ir is None else ir)


STEPS = st.one_of(
    st.tuples(st.just("line"), st.sampled_from(LINES), st.booleans()),
    st.tuples(st.just("line"), st.sampled_from(LINES), st.just(True)),
    st.tuples(st.just("ack")), st.tuples(st.just("ack")),
    st.tuples(st.just("mask"), st.booleans(), st.integers(0, 255)),
    st.tuples(st.just("ocw2"), st.booleans(), st.integers(0, 7), st.integers(0, 7)),
    st.tuples(st.just("ocw2"), st.booleans(), st.just(1), st.just(0)),
    st.tuples(st.just("ocw3"), st.booleans(), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("read"), st.booleans()))


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.sampled_from([1, 3, 0x11, 0x13]), st.sampled_from([1, 3]), st.lists(STEPS, max_size=60))
def test_agrees_with_the_level_by_level_model(master_icw4, slave_icw4, steps):
    b, model = pair(icw4=master_icw4, slave_icw4=slave_icw4), Pair(master_icw4, slave_icw4)
    for name, *args in steps:
        if name == "line":
            b.set_irq(*args)
            model.set_irq(*args)
        elif name == "ack":
            assert b.ack() == model.ack()
        else:
            base, chip = (0xA0, model.s) if args[0] else (0x20, model.m)
            if name == "mask":
                b.outb(base + 1, args[1])
                chip.imr = {i for i in range(8) if args[1] >> i & 1}
            elif name == "ocw2":
                b.outb(base, args[1] << 5 | args[2])
                chip.ocw2(args[1] << 5 | args[2])
            elif name == "ocw3":
                value = 8 | (0x60 if args[2] else 0x40) * (args[1] >> 2) | args[1] & 7
                b.outb(base, value & 0x6F)
                chip.ocw3(value & 0x6F)
            else:
                assert b.inb(base) == chip.read()
            model.settle()
        assert b.irq() == (model.m.int() is not None)
