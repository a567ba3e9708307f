# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI configuration space by mechanism 1, and fw_cfg, against the tables of their specifications."""
import struct

import pytest

from pyx86v.boot import fwcfg
from pyx86v.devices.testing import PlatformBench

ADDRESS, DATA, RESET = 0xCF8, 0xCFC, 0xCF9
HOST, ISA, IDE = 0x0000, 0x0800, 0x0900         # device and function in bits 15 to 8


def config(b, function, register, size=4):
    b.write(ADDRESS, 4, 1 << 31 | function | register & 0xFC)
    return b.read(DATA + (register & 3), size)


def set_config(b, function, register, size, value):
    b.write(ADDRESS, 4, 1 << 31 | function | register & 0xFC)
    b.write(DATA + (register & 3), size, value)


@pytest.mark.parametrize("function, identity, class_code", [(HOST, 0x12378086, 0x060000), (ISA, 0x70008086, 0x060100),
                                                           (IDE, 0x70108086, 0x010180)])
def test_identity_of_each_function(function, identity, class_code):
    b = PlatformBench()
    assert config(b, function, 0) == identity
    assert config(b, function, 8) >> 8 == class_code
    assert (config(b, function, 0, 2), config(b, function, 2, 2), config(b, function, 1, 1)) == \
        (identity & 0xFFFF, identity >> 16, identity >> 8 & 0xFF)
    set_config(b, function, 0, 4, 0)
    assert config(b, function, 0) == identity, "identifiers are read-only"


def test_what_is_not_there_reads_ones():
    b = PlatformBench()
    for function in (0x0100, 0x0A00, 0x1000, 0xF800, 0x10000, 0xFF0000):
        assert config(b, function, 0) == 0xFFFFFFFF and config(b, function, 2, 2) == 0xFFFF
    b.write(ADDRESS, 4, HOST)
    assert b.read(DATA, 4) == 0xFFFFFFFF, "without the enable bit"


def test_only_double_words_reach_the_address_register():
    b = PlatformBench()
    b.write(ADDRESS, 4, 0xFFFFFFFF)
    assert b.read(ADDRESS, 4) == 0x80FFFFFC, "bits 30 to 24, 1 and 0 are reserved"
    b.outb(ADDRESS, 0)
    b.write(ADDRESS + 2, 2, 0)
    assert b.read(ADDRESS, 4) == 0x80FFFFFC
    b.write(ADDRESS, 4, 0x80000600)
    assert b.stop == (0, 0), "CF9h inside the double word is not the reset port"
    b.outb(RESET, 6)
    assert b.stop[0] == 2


def test_bar_of_the_bus_master_is_sized_and_moved():
    b = PlatformBench()
    assert config(b, IDE, 0x20) == 0xC001
    set_config(b, IDE, 0x20, 4, 0xFFFFFFFF)
    assert config(b, IDE, 0x20) == 0xFFFFFFF1, "16 ports"
    set_config(b, IDE, 0x20, 4, 0xD000)
    b.write(0xD004, 4, 0x12345678)
    assert b.read(0xD004, 4) == 0x12345678 and b.read(0xC004, 4) == 0xFFFFFFFF
    set_config(b, IDE, 4, 2, 0)
    assert b.read(0xD004, 4) == 0xFFFFFFFF, "I/O is off in the command register"
    for register in (0x10, 0x14, 0x18, 0x1C, 0x24, 0x30):
        set_config(b, IDE, register, 4, 0xFFFFFFFF)
        assert config(b, IDE, register) == 0


def test_routing_and_shadow_registers_keep_bytes():
    b = PlatformBench()
    set_config(b, ISA, 0x61, 1, 0x80)
    set_config(b, HOST, 0x5A, 2, 0x1133)
    assert config(b, ISA, 0x60) == 0x0B0B800A and config(b, HOST, 0x58) == 0x11333000


def test_fw_cfg_by_port():
    b = PlatformBench()
    b.set_items(fwcfg.items(64 << 20, ("rom.bin", b"video"), {"etc/more": b"m"}))

    def item(key, size):
        b.write(0x510, 2, key)
        return bytes(b.inb(0x511) for _ in range(size))
    assert item(fwcfg.SIGNATURE, 4) == b"QEMU" and item(fwcfg.ID, 4) == b"\3\0\0\0"
    assert item(fwcfg.RAM_SIZE, 10) == struct.pack("<Q", 64 << 20) + b"\0\0", "zeros behind the end"
    assert item(0x7777, 2) == b"\0\0"
    files = {}
    (count,) = struct.unpack(">I", item(fwcfg.FILE_DIR, 4))
    for entry in struct.iter_unpack(">IHH56s", item(fwcfg.FILE_DIR, 4 + 64 * count)[4:]):
        files[entry[3].rstrip(b"\0").decode()] = entry[1], entry[0]
    assert list(files) == sorted(files)
    assert item(*files["vgaroms/rom.bin"]) == b"video" and item(*files["etc/more"]) == b"m"
    assert item(*files["etc/e820"]) == struct.pack("<QQI", 0, 64 << 20, 1)


def test_fw_cfg_by_dma():
    b = PlatformBench()
    b.set_items({0: b"QEMU", 9: bytes(range(200))})
    assert (b.read(0x514, 4), b.read(0x518, 4)) == (int.from_bytes(b"QEMU", "little"), int.from_bytes(b" CFG", "little"))

    def dma(control, size, address, at=0x1000):
        b.set_memory(at, struct.pack(">IIQ", control, size, address))
        b.write(0x514, 4, 0)
        b.write(0x518, 4, int.from_bytes(struct.pack(">I", at), "little"))
        return struct.unpack(">I", b.memory(at, 4))[0]
    assert dma(9 << 16 | 8 | 2, 100, 0x2000) == 0 and b.memory(0x2000, 100) == bytes(range(100))
    assert dma(4, 50, 0) == 0, "skip"
    assert dma(2, 60, 0x3000) == 0 and b.memory(0x3000, 60) == bytes(range(150, 200)) + bytes(10)
    assert dma(16, 4, 0x3000) == 1, "items are read-only"
    assert dma(2, 0xFFFFFFFF, 0x2000) == 1, "an endless transfer is refused"
    assert dma(9 << 16 | 8 | 2, 4096, (1 << 64) - 8) == 0, "memory that is not there"
