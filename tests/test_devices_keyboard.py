# SPDX-License-Identifier: GPL-2.0-or-later
"""The keyboard behind the 8042: its commands by the manual's table, typing with interrupts and without, and whole guests.

What text means as scan codes is judged by SeaBIOS and Linux, which print it.
"""
import pytest

from pyx86v import Machine
from pyx86v.devices import keys
from pyx86v.devices.testing import PlatformBench

OUTPUT_FULL, TIMEOUT = 0x01, 0x40
ACK, RESEND = 0xFA, 0xFE
HERTZ = 1_193_182                # cycles a second of a PlatformBench
BYTE = HERTZ // 200


def answers(b, *data):
    """What the keyboard answers to each byte, all of it."""
    found = []
    for byte in data:
        b.outb(0x60, byte)
        while b.inb(0x64) & OUTPUT_FULL:
            assert not b.inb(0x64) & TIMEOUT
            found.append(b.inb(0x60))
    return found


def untranslated():
    b = PlatformBench()
    b.outb(0x64, 0x60)
    b.outb(0x60, 0x05)
    return b


@pytest.mark.parametrize("sent, expected", [
    ([0xFF], [ACK, 0xAA]), ([0xEE], [0xEE]), ([0xF2], [ACK, 0xAB, 0x83]), ([0xED, 7], [ACK, ACK]), ([0xF3, 0x20], [ACK, ACK]),
    ([0xF0, 0], [ACK, ACK, 2]), ([0xF0, 1, 0xF0, 0], [ACK, ACK, ACK, ACK, 1]), ([0xF0, 3], [ACK, RESEND]), ([0xF4], [ACK]), ([0xF5], [ACK]),
    ([0xF6], [ACK]), ([0x12], [RESEND]), ([0xEE, 0xFE], [0xEE, 0xEE]), ([0xF0, 1, 0xF6, 0xF0, 0], [ACK] * 5 + [2]),
])
def test_commands(sent, expected):
    assert answers(untranslated(), *sent) == expected


def test_translation_changes_answers_too():
    """The controller translates whatever the keyboard sends: 83h becomes 41h, and 2 becomes 41h as well."""
    b = PlatformBench()
    assert answers(b, 0xF2) == [ACK, 0xAB, 0x41]
    assert answers(b, 0xF0, 0) == [ACK, ACK, 0x41]


def typed(b, count):
    """The next bytes that a guest which polls gets, and the time of each."""
    found = []
    while len(found) < count:
        assert b.now < 100 * BYTE
        if b.inb(0x64) & OUTPUT_FULL:
            found.append((b.inb(0x60), b.now))
        else:
            b.run(BYTE // 50)
    return found


def test_typing_in_both_sets():
    codes = keys.of_text("aB") + keys.of_names(["up"])
    one, two = PlatformBench(), untranslated()
    one.type(codes)
    two.type(codes)
    assert [byte for byte, _ in typed(one, len(codes))] == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0xE0, 0x48, 0xE0, 0xC8]
    assert [byte for byte, _ in typed(two, 14)] == [0x1C, 0xF0, 0x1C, 0x12, 0x32, 0xF0, 0x32, 0xF0, 0x12, 0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_bytes_come_one_at_a_time():
    b = PlatformBench()
    b.type(keys.of_text("abc"))
    times = [at for _, at in typed(b, 6)]
    assert all(BYTE <= later - earlier <= BYTE + BYTE // 10 for earlier, later in zip(times, times[1:]))


@pytest.mark.parametrize("wait", [0, BYTE // 2, 10 * BYTE])
def test_interrupts(wait):
    """Each byte is an edge of IRQ 1 at a moment that the platform announces; none comes before the last one was read."""
    b = PlatformBench()
    b.outb(0x20, 0x11)
    b.outb(0x21, 0x20, 4, 1, 0xFD)
    b.type(keys.of_text("a"))
    for expected in (0x1E, 0x9E):
        if not b.irq():
            b.run_to(b.next_event())
        assert b.irq() and b.ack() == 0x21
        b.run(wait)
        assert not b.irq(), "one byte, one interrupt"
        assert b.inb(0x60) == expected
        b.outb(0x20, 0x20)
    b.run(2 * BYTE)
    assert not b.irq() and not b.inb(0x64) & OUTPUT_FULL


@pytest.mark.parametrize("off, on", [((0x64, 0xAD), (0x64, 0xAE)), ((0x60, 0xF5), (0x60, 0xF4))])
def test_a_disabled_keyboard_keeps_what_is_typed(off, on):
    b = PlatformBench()
    b.outb(*off)
    while b.inb(0x64) & OUTPUT_FULL:
        b.inb(0x60)
    b.type(b"\x1E\x9E")
    b.run(BYTE)
    assert not b.inb(0x64) & OUTPUT_FULL
    b.outb(*on)
    found = [b.inb(0x60) for _ in range(3) if b.inb(0x64) & OUTPUT_FULL]
    assert found[-1] == 0x1E


def test_a_saved_platform_types_on():
    b, c = PlatformBench(), PlatformBench()
    for each in (b, c):
        each.type(keys.of_text("xyz"))
    typed(b, 2)
    c.restore(b.save())
    c.now = b.now
    assert typed(b, 4) == typed(c, 4)


def test_text_that_there_is_no_key_for():
    with pytest.raises(ValueError, match="keys: 'ä'"):
        Machine().type_keys("ä")
    with pytest.raises(ValueError, match="keys: 'any', expected"):
        Machine().press_keys("any")
