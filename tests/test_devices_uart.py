# SPDX-License-Identifier: GPL-2.0-or-later
"""16550A on COM1: National Semiconductor PC16550D data sheet, register by register."""
import pytest

from pyx86v.devices.testing import PlatformBench

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(0x3F8, 0x400)
OUT2 = 0x08


def uart(ier=0, fcr=0, mcr=OUT2):
    """COM1 with IRQ 4 unmasked at vector 24h."""
    b = PlatformBench()
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xEF)
    b.outb(IIR, fcr)
    b.outb(MCR, mcr)
    b.outb(IER, ier)
    return b


def taken(b):
    """The vector, ended; None without a request."""
    if not b.irq():
        return None
    vector = b.ack()
    b.outb(0x20, 0x20)
    return vector


def test_transmits_without_any_set_up():
    b = PlatformBench()
    assert b.inb(LSR) == 0x60, "THRE and TEMT"
    for byte in b"ok\n":
        b.outb(DATA, byte)
    assert b.console == b"ok\n"


def test_divisor_latch_hides_data_and_ier():
    b = uart()
    b.outb(LCR, 0x83)
    b.outb(DATA, 0x0C)
    b.outb(IER, 0x01)
    assert (b.inb(DATA), b.inb(IER)) == (0x0C, 0x01)
    b.outb(LCR, 0x03)
    assert b.inb(IER) == 0 and b.console == b""


def test_register_masks():
    b = uart()
    for port, mask in ((IER, 0x0F), (LCR, 0xFF), (MCR, 0x1F), (SCR, 0xFF)):
        b.outb(port, 0xFF)
        assert b.inb(port) == mask
        b.outb(port, 0)


def test_fifo_shows_in_iir():
    b = uart()
    assert b.inb(IIR) == 0x01
    b.outb(IIR, 0x01)
    assert b.inb(IIR) == 0xC1
    b.outb(IIR, 0x00)
    assert b.inb(IIR) == 0x01


def test_transmitter_empty_interrupt():
    b = uart(ier=2)
    assert taken(b) == 0x24, "enabling it raises it: the holding register is empty"
    assert b.inb(IIR) == 0x02
    assert b.inb(IIR) == 0x01, "reading IIR ends it"
    b.outb(IER, 2)
    assert b.inb(IIR) == 0x01, "it was enabled already"
    b.outb(DATA, 0x41)
    assert taken(b) == 0x24
    b.outb(DATA, 0x42)
    assert taken(b) is None, "still pending: the line has not fallen"
    assert b.inb(IIR) == 0x02
    b.outb(DATA, 0x43)
    assert taken(b) == 0x24


def test_receive_interrupt_without_fifo():
    b = uart(ier=1)
    b.feed(b"xy")
    b.run(1)
    assert taken(b) == 0x24 and b.inb(IIR) == 0x04
    assert b.inb(LSR) == 0x61
    assert b.inb(DATA) == ord("x")
    assert b.inb(LSR) == 0x61 and b.inb(DATA) == ord("y")
    assert b.inb(LSR) == 0x60 and b.inb(IIR) == 0x01


@pytest.mark.parametrize("fcr, trigger", [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_level_and_character_timeout(fcr, trigger):
    b = uart(ier=1, fcr=fcr)
    b.feed(bytes(range(20)))
    b.run(1)
    got = []
    for left in range(20, 0, -1):
        held = min(left, 16)
        assert b.inb(IIR) == (0xC4 if held >= trigger else 0xCC)
        got.append(b.inb(DATA))
    assert got == list(range(20)), "16 in the FIFO, the rest behind it, none lost"
    assert b.inb(IIR) == 0xC1


def test_fifo_reset_drops_what_it_held():
    b = uart(fcr=1)
    b.feed(bytes(range(18)))
    b.run(1)
    b.outb(IIR, 0x03)
    assert b.inb(LSR) & 1 and b.inb(DATA) == 16


def test_out2_gates_the_interrupt():
    b = uart(ier=2, mcr=0)
    assert taken(b) is None
    b.outb(MCR, OUT2)
    assert taken(b) == 0x24


def test_loopback_data_and_overrun():
    b = uart(mcr=0x10)
    b.outb(DATA, 0x55)
    assert b.console == b"" and b.inb(LSR) == 0x61
    b.outb(DATA, 0x66)
    assert b.inb(LSR) == 0x63, "OE"
    assert b.inb(LSR) == 0x61, "reading LSR clears it"
    assert b.inb(DATA) == 0x66, "a full holding register loses the older byte"
    b.outb(IIR, 0x01)
    for byte in range(17):
        b.outb(DATA, byte)
    assert b.inb(LSR) == 0x63
    assert [b.inb(DATA) for _ in range(16)] == list(range(16)), "a full FIFO loses the newer one"


def test_loopback_input_waits():
    b = uart(mcr=0x10)
    b.feed(b"z")
    b.run(1)
    assert b.inb(LSR) == 0x60
    b.outb(MCR, 0)
    assert b.inb(LSR) == 0x61 and b.inb(DATA) == ord("z")


@pytest.mark.parametrize("mcr, msr", [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_loopback_modem_lines(mcr, msr):
    """DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD."""
    b = uart(mcr=0x10)
    b.inb(MSR)
    b.outb(MCR, 0x10 | mcr)
    assert b.inb(MSR) & 0xF0 == msr
    b.outb(MCR, 0x10)
    assert b.inb(MSR) == msr >> 4, "the delta bit (TERI when RI ends)"
    assert b.inb(MSR) == 0


def test_modem_status_interrupt():
    b = uart(ier=8)
    assert b.inb(MSR) == 0xB0, "DCD, DSR, CTS of the peer"
    b.outb(MCR, 0x10)
    b.outb(MCR, OUT2)
    assert taken(b) == 0x24 and b.inb(IIR) == 0x00
    b.inb(MSR)
    assert b.inb(IIR) == 0x01


def test_interrupt_priorities():
    b = uart(ier=0x0F, mcr=0x10)
    b.outb(DATA, 1)
    b.outb(DATA, 2)
    assert b.inb(IIR) == 0x06, "line status first"
    b.inb(LSR)
    assert b.inb(IIR) == 0x04
    b.inb(DATA)
    assert b.inb(IIR) == 0x02
    assert b.inb(IIR) == 0x00, "modem status last"
    b.inb(MSR)
    assert b.inb(IIR) == 0x01


def test_console_limit_counts_what_it_drops():
    b = uart()
    b.limit_console(5000)
    for i in range(5010):
        b.outb(DATA, i & 255)
    assert len(b.console) == 5000 and b.console_dropped == 10


def test_input_position_is_part_of_the_state():
    b = uart(fcr=1)
    b.feed(bytes(range(40)))
    b.run(1)
    first = [b.inb(DATA) for _ in range(5)]
    state = b.save()
    rest = [b.inb(DATA) for _ in range(35)]
    again = PlatformBench()
    again.feed(bytes(range(40)))
    again.restore(state)
    assert first + rest == list(range(40))
    assert [again.inb(DATA) for _ in range(35)] == rest
