# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw firmware: an image that ends at 4 GiB, entered at the reset vector 16 bytes below (SDM 3A 10.1.4).

Its last 128 KiB are also RAM below 1 MiB, where the F000 segment of a PC's firmware lies.  fw_cfg tells it about the machine.
"""
import os

from pyx86v.boot import acpi_loader, fwcfg, state
from pyx86v.boot.image import GIB, KIB, MIB, BootError, BootImage, Layout, read_file

UNIT, LARGEST, SHADOW = 64 * KIB, 16 * MIB, 128 * KIB
SEABIOS = "/usr/share/seabios/bios.bin"
VGA_ROM = "vgabios-isavga.bin"  # SeaVGABIOS for a VGA that is not on PCI


def find():
    """The firmware of a machine that is given none; BootError when the host has not got it."""
    if not os.path.exists(SEABIOS):
        raise BootError(f"{SEABIOS}: firmware: not there, expected the package seabios (apt-get install seabios) or --bios FILE")
    return SEABIOS


def named(path):
    """The firmware that a user names; BootError when the file is none."""
    if not is_firmware(read_file(path, "firmware")):
        raise BootError(f"{path}: firmware: expected whole 64 KiB units, at most 16 MiB, with code at the reset vector")
    return path


def vga_rom(path):
    """(name, bytes) of the video BIOS beside the firmware, or where the package has it; None without."""
    for folder in (os.path.dirname(path), os.path.dirname(SEABIOS)):
        rom = os.path.join(folder, VGA_ROM)
        if os.path.isfile(rom):
            return VGA_ROM, read_file(rom, "video BIOS")
    return None


def is_firmware(data):
    """Whole 64 KiB units with something else than filler at the reset vector."""
    vector = data[-16:-8]
    return len(data) % UNIT == 0 and 0 < len(data) <= LARGEST and vector not in (bytes(8), b"\xFF" * 8)


def load(path, memory_bytes, data, kernel_args=b"", modules=()):
    layout = Layout(path, memory_bytes)
    for name, given in (("initrd", bool(modules)), ("kernel-args", bool(kernel_args))):
        if given:
            raise layout.error(name, "firmware takes none")
    low = data[-SHADOW:]
    return BootImage("firmware", [(MIB - len(low), low)], state.reset(), f"firmware of {len(data) // KIB} KiB",
                     roms=[(4 * GIB - len(data), data)], fw_cfg=fwcfg.items(memory_bytes, vga_rom(path), acpi_loader.files()))
