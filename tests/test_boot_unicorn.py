# SPDX-License-Identifier: GPL-2.0-or-later
"""Loaded images on Unicorn as it comes from its makers: the first instructions of real guests find what they need."""
import struct

import pytest
import unicorn
from unicorn import x86_const as x86

from pyx86v import boot
from pyx86v.cli import guests

COM1, LINE_STATUS, END = 0x3F8, 0x3FD, 0xF4
OWN_GDT = 0x7000


def run_flat32(image, memory, until=b"\0", seconds=20):
    """Run an image that starts in flat 32-bit mode; returns (console, status); ends at `until` on the console."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(0, memory)
    for gpa, data in image.segments:
        uc.mem_write(gpa, data)
    entry, console, status = image.entry, bytearray(), []
    base, limit = entry["gdt"]
    if not limit:                                       # Unicorn can only load a selector from a table
        base, limit = OWN_GDT, 31
        uc.mem_write(base, struct.pack("<8xQQQ", 0xCF9B000000FFFF, 0xCF93000000FFFF, 0))
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, base, limit, 0))
    uc.reg_write(x86.UC_X86_REG_CR0, entry["cr0"])
    for name, segment in entry["segments"].items():
        if name not in ("ldtr", "tr"):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), segment[0])
    for name, value in entry["gpr"].items():
        uc.reg_write(getattr(x86, f"UC_X86_REG_E{name[1:].upper()}"), value)

    def port_out(uc, port, size, value, _):
        if port == COM1:
            console.append(value & 0xFF)
        if port == END:
            status.append(value & 0xFF)
        if port == END or console.endswith(until):
            uc.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INSN, port_out, None, 1, 0, x86.UC_X86_INS_OUT)
    uc.hook_add(unicorn.UC_HOOK_INSN, lambda uc, port, size, _: 0x60 if port == LINE_STATUS else 0, None, 1, 0, x86.UC_X86_INS_IN)
    uc.emu_start(entry["rip"], 0xFFFFFFFF, timeout=seconds * 1_000_000)
    return bytes(console), status


@pytest.mark.parametrize("name", ["hello", "mbinfo"])
def test_bundled_guests(name):
    console, status = run_flat32(boot.load(guests.image(name), 64 << 20, kernel_args="one two"), 64 << 20)
    assert status == [0] and console.endswith(b"OK\n"), console.decode()
    if name == "mbinfo":
        assert b"arguments: 'one two'" in console


@pytest.mark.linux
def test_debian_kernel_finds_its_command_line(linux):
    image = boot.load(linux.kernel, 256 << 20, "earlyprintk=serial,ttyS0,115200 nokaslr")
    expected = b"KASLR disabled: 'nokaslr' on cmdline."
    console, _ = run_flat32(image, 256 << 20, until=expected)
    assert console.endswith(expected)
