# SPDX-License-Identifier: GPL-2.0-or-later
"""The text screen: read as the CRT controller reads it, shown in a terminal, written as text and picture; and what is typed.

Judges: ROM pcbios, which compares its screen with memory; Linux's VGA console, whose kernel prints what the serial one does too.
"""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyx86v import Machine
from pyx86v.cli import guests
from pyx86v.devices import screen
from pyx86v.devices.testing import PlatformBench
from pyx86v.report import screen as shown

ROOT = Path(__file__).resolve().parents[1]
MODE3 = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff").ljust(32, b"\0")
GRAPHICS = bytes.fromhex("0000000000100e00ff").ljust(16, b"\0")


def window(*cells):
    """The 32 KiB with (offset in characters, text, attribute) put there."""
    memory = bytearray(b" \x07" * 0x4000)
    for at, text, attribute in cells:
        for i, byte in enumerate(text.encode("cp437")):
            where = 2 * (at + i) % 0x8000
            memory[where:where + 2] = bytes([byte, attribute])
    return bytes(memory)


def crtc(**changes):
    """The registers of mode 3, changed: {"r12": value}."""
    registers = bytearray(MODE3)
    for name, value in changes.items():
        registers[int(name[1:])] = value
    return bytes(registers)


def test_cells_attributes_and_cursor():
    seen = screen.read(window((0, "Hello", 0x1E), (2 * 80 + 79, "║", 0x70)), crtc(r14=0, r15=85), GRAPHICS)
    assert len(seen.lines) == 25 and {len(line) for line in seen.lines} == {80} == {len(row) for row in seen.attributes}
    assert seen.lines[0].rstrip() == "Hello" and seen.lines[2][79] == "║"
    assert seen.attributes[0][:6] == b"\x1E\x1E\x1E\x1E\x1E\x07" and seen.attributes[2][79] == 0x70
    assert seen.cursor == (1, 5) and str(seen).splitlines()[0] == "Hello"


def test_start_address_scrolls_and_wraps():
    """Characters, not bytes; the memory is a ring of 32 KiB."""
    memory = window((80, "second", 7), (0x4000 - 80, "last of memory", 7))
    assert screen.read(memory, crtc(r12=0, r13=80, r15=80), GRAPHICS).lines[0].rstrip() == "second"
    seen = screen.read(memory, crtc(r12=0x3F, r13=0xB0), GRAPHICS)
    assert seen.lines[0].rstrip() == "last of memory" and seen.lines[2].rstrip() == "second" and seen.cursor is None


@pytest.mark.parametrize("changes, size", [({"r1": 39, "r19": 20}, (25, 40)), ({"r9": 0x47}, (50, 80)), ({"r9": 7, "r18": 0xDF, "r7": 0x1F}, (60, 80))])
def test_other_geometries(changes, size):
    seen = screen.read(window(), crtc(**changes), GRAPHICS)
    assert (len(seen.lines), len(seen.lines[0])) == size


@pytest.mark.parametrize("changes", [{"r10": 0x2D}, {"r10": 0x0F, "r11": 0x0E}, {"r14": 0x10}])
def test_a_hidden_cursor(changes):
    assert screen.read(window(), crtc(**changes), GRAPHICS).cursor is None


def test_graphics_have_no_lines():
    seen = screen.read(window(), MODE3, b"\0" * 6 + b"\x05" + b"\0" * 9)
    assert seen.lines == [] and shown.panel(seen)


def test_hostile_registers_give_a_screen():
    for value in range(256):
        seen = screen.read(window(), bytes([value]) * 32, GRAPHICS)
        assert 1 <= len(seen.lines) <= 100 and 1 <= len(seen.lines[0]) <= 160


def indexed(b, port, count):
    found = []
    for index in range(count):
        b.outb(port, index)
        found.append(b.inb(port + 1))
    return bytes(found)


def test_registers_come_up_as_mode_3_and_read_back():
    """IBM's table of mode 3; register 17 protects registers 0 to 7 of the CRT controller."""
    b = PlatformBench()
    assert b.inb(0x3CC) == 0x67 and indexed(b, 0x3D4, 25) == MODE3[:25]
    assert indexed(b, 0x3CE, 9) == GRAPHICS[:9] and indexed(b, 0x3C4, 5) == bytes([3, 0, 3, 0, 2])
    for index in range(21):
        b.inb(0x3DA)
        b.outb(0x3C0, index)
        assert b.inb(0x3C1) == ([*range(6), 0x14, 7, *range(0x38, 0x40)] + [0x0C, 0, 0x0F, 8, 0])[index]
    b.write(0x3D4, 2, 0x5500)
    b.write(0x3D4, 2, 0xFF07)
    assert indexed(b, 0x3D4, 8) == MODE3[:7] + b"\x1F", "protected, but for bit 4 of register 7, which is set anyway"
    b.write(0x3D4, 2, 0x0E11)
    b.write(0x3D4, 2, 0x5500)
    assert indexed(b, 0x3D4, 1) == b"\x55"


def test_palette_of_a_fresh_machine():
    b = PlatformBench()
    b.outb(0x3C7, 0x14)                  # brown: red two thirds, green one third
    assert [b.inb(0x3C9) for _ in range(3)] == [42, 21, 0]


def pcbios():
    machine = Machine()
    machine.load(guests.image("pcbios"))
    assert machine.run(max_instructions=10_000_000).status == 0
    return machine


def test_firmware_shows_what_it_has_written():
    seen = pcbios().screen
    assert seen.lines[1][:6].strip() == "AAA" and seen.attributes[1][2] == 0x1E and seen.cursor == (1, 2)


def test_picture_and_text(tmp_path):
    image = pytest.importorskip("PIL.Image")
    seen = pcbios().screen
    shown.write(seen, str(tmp_path / "s.txt"))
    shown.write(seen, str(tmp_path / "s.png"))
    assert (tmp_path / "s.txt").read_text().splitlines()[1] == "  AAA"
    with image.open(tmp_path / "s.png") as picture:
        assert picture.size == (640, 400)
        cell = picture.crop((2 * 8, 16, 3 * 8, 32)).convert("RGB")
        assert {colour for _, colour in cell.getcolors()} == {(0, 0, 170), (255, 255, 85)}, "yellow on blue"
        assert picture.convert("RGB").crop((400, 200, 640, 400)).getcolors() == [(240 * 200, (0, 0, 0))]


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "pyx86v", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_command_line(tmp_path):
    done = command("run", "pcbios", "--screen", "--quiet", "--screen-to", str(tmp_path / "end.txt"))
    assert done.returncode == 0 and "│  AAA  " in done.stdout and "services of the firmware" not in done.stdout
    assert (tmp_path / "end.txt").read_text().startswith("\n  AAA\n")


@pytest.mark.parametrize("arguments, text", [(["--screen-to", "x.gif"], "x.gif: screen file, expected a name that ends in .png or .txt"),
                                             (["--screen", "--json", "-"], "--screen: expected no --interactive and no --json -")])
def test_what_cannot_be(arguments, text):
    done = command("run", "hello", *arguments)
    assert done.returncode == 2 and done.stderr.splitlines() == [f"pyx86v: {text}"]


@pytest.mark.slow
@pytest.mark.linux
def test_linux_console_on_the_screen_and_the_keyboard(linux):
    """The kernel's VGA console, and a login at its keyboard: the shell on tty1 reads what is typed."""
    import linux_guest
    init = """#!/bin/sh
mount -t devtmpfs dev /dev
exec < /dev/tty1 > /dev/tty1 2>&1
echo "What is your name?"
read name
echo "Hello, $name!"
echo done > /dev/ttyS0
reboot -f
"""
    guest = linux_guest.linux(init=init, args=f"{linux.args.replace('console=ttyS0', 'console=tty0')}")
    machine = guest.load(Machine(memory=guest.memory, clock="instructions"))
    while "What is your name?" not in str(machine.screen):
        assert machine.run(max_instructions=100_000_000).reason.value == "limit", str(machine.screen)
    assert re.search(r"\[ +[0-9.]+\] ", str(machine.screen)), "the kernel's messages above"
    machine.type_keys("Ada {L}\n")
    stop = machine.run(max_instructions=2_000_000_000)
    assert (stop.reason.value, stop.detail) == ("shutdown", "reset")
    assert "Ada {L}" in str(machine.screen) and "Hello, Ada {L}!" in str(machine.screen) and b"done" in machine.console
