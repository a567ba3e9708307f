# SPDX-License-Identifier: GPL-2.0-or-later
"""What fw_cfg tells firmware, as QEMU tells SeaBIOS (docs/specs/fw_cfg; the keys: hw/nvram/fw_cfg_keys.h).

Numbers are little-endian but for the file directory.  Serial console: with `etc/sercon-port` SeaBIOS shows on COM1 what it
shows on the screen, and reads keys from there.
"""
import struct

SIGNATURE, ID, RAM_SIZE, NB_CPUS, BOOT_MENU, MAX_CPUS, FILE_DIR = 0x00, 0x01, 0x03, 0x05, 0x0E, 0x0F, 0x19
FILE_FIRST = 0x20
NAME_BYTES = 56
VERSION_DMA = 3                 # the plain interface, and DMA
RAM = 1                         # of an e820 entry
COM1 = 0x3F8
MENU_MS = 2500                  # how long the boot menu is offered


def e820(memory_bytes):
    """etc/e820: RAM as one range; the firmware knows what a PC reserves of it."""
    return struct.pack("<QQI", 0, memory_bytes, RAM)


def directory(files):
    """The file directory: count, then size, key, reserved, name of each; in order of name."""
    entries = [struct.pack(">IHH", len(data), FILE_FIRST + i, 0) + name.encode("ascii").ljust(NAME_BYTES, b"\0")
               for i, (name, data) in enumerate(files)]
    return struct.pack(">I", len(files)) + b"".join(entries)


def items(memory_bytes, vga_rom=None, more_files=None):
    """{key: bytes}, everything that fw_cfg has.

    vga_rom     (name, bytes) of the video BIOS, an option ROM
    more_files  {name: bytes}
    """
    files = {"etc/e820": e820(memory_bytes), "etc/sercon-port": struct.pack("<Q", COM1),
             "etc/boot-menu-wait": struct.pack("<Q", MENU_MS), **(more_files or {})}
    if vga_rom is not None:
        files[f"vgaroms/{vga_rom[0]}"] = vga_rom[1]
    files = sorted(files.items())
    fixed = {SIGNATURE: b"QEMU", ID: struct.pack("<I", VERSION_DMA), RAM_SIZE: struct.pack("<Q", memory_bytes),
             NB_CPUS: struct.pack("<H", 1), BOOT_MENU: struct.pack("<H", 1), MAX_CPUS: struct.pack("<H", 1),
             FILE_DIR: directory(files)}
    return fixed | {FILE_FIRST + i: data for i, (_, data) in enumerate(files)}
