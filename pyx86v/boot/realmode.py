# SPDX-License-Identifier: GPL-2.0-or-later
"""bzImage by the 16-bit entry: Linux's own real-mode code asks a firmware what the machine has, and switches modes itself.

The firmware is the bundled ROM pcbios (roms/pcbios/pcbios.S), entered at E000h; it serves as long as the guest is in real mode.
Source: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Running the kernel".
"""
import struct
from functools import partial
from pathlib import Path

from pyx86v.boot import linux, state
from pyx86v.boot.image import KIB, MIB, BootImage, Layout, memory_map, read_file

PCBIOS = Path(__file__).resolve().parents[1] / "_roms" / "pcbios.bin"
BIOS_BYTES = 8 * KIB            # of the image are in use: the last ones, from here on:
BIOS_ENTRY, GIVEN_MAP = 0xE000, 0xFE00
SEGMENT, STACK = 0x1000, 0xE000         # where the real-mode code goes, and the end of its heap and stack
LARGEST_SETUP = 0x8000
CAN_USE_HEAP = 0x80


def entries(data):
    """{"16": how to load the bzImage by that entry}."""
    return {"16": partial(load, data=data)}


def load(path, memory_bytes, data, kernel_args=b"", modules=()):
    """BootImage of a bzImage."""
    layout = Layout(path, memory_bytes)
    layout.add("firmware's data", 0, b"", 0x8000)
    layout.add("real-mode code", SEGMENT << 4, b"", STACK)
    version, params = linux.place_bzimage(layout, data, kernel_args, modules)
    setup = linux.BootParams(b"", data[:linux.setup_bytes(data)])
    if len(setup.page) > LARGEST_SETUP:
        raise layout.error("setup_sects", f"{len(setup.page)} bytes of real-mode code, expected at most {LARGEST_SETUP}")
    end = min(0x202 + data[0x201], 0x268)
    setup.page[linux.HEADER_AT:end] = params.page[linux.HEADER_AT:end]
    setup.set(0x211, "B", setup.get(0x211, "B") | CAN_USE_HEAP)
    setup.set(0x224, "H", STACK - 0x200)                                        # heap_end_ptr
    segments = [*layout.segments, (SEGMENT << 4, bytes(setup.page)), (MIB - BIOS_BYTES, bios(layout))]
    cpu = state.reset()
    cpu.update(rip=BIOS_ENTRY, gpr={"rax": (SEGMENT + 0x20) << 16, "rdx": SEGMENT << 16 | STACK})
    cpu["segments"]["cs"] = (0xF000, 0xF0000, 0xFFFF, state.CODE16)
    return BootImage("bzimage16", segments, cpu, f"Linux bzImage, protocol {version >> 8}.{version & 255:02}, real-mode entry")


def bios(layout):
    """The end of the firmware's image, the memory map filled in."""
    image = bytearray(read_file(PCBIOS, "bundled firmware (python roms/build.py writes it)")[-BIOS_BYTES:])
    areas = memory_map(layout.memory_bytes)
    struct.pack_into("<HH", image, GIVEN_MAP - BIOS_ENTRY, len(areas), 0)
    for index, area in enumerate(areas):
        struct.pack_into("<QQI", image, GIVEN_MAP - BIOS_ENTRY + 4 + 20 * index, *area)
    return bytes(image)
