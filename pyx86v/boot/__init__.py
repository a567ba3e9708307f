# SPDX-License-Identifier: GPL-2.0-or-later
"""From a file to a guest that is ready to start: which kind it is, what lies where, and the processor's state.

    image = boot.load("kernel.elf", 64 << 20, kernel_args="console=ttyS0", initrd="initrd.cpio")
    image.kind, image.segments, image.entry
"""
from dataclasses import replace
from functools import partial

from pyx86v.boot import acpi, elf, firmware, linux, mptable, multiboot, multiboot2, pvh, realmode
from pyx86v.boot.image import BootError, BootImage, read_file, read_modules

__all__ = ["ENTRIES", "BootError", "BootImage", "load"]

LARGEST_MEMORY = 3 << 30        # above it a PC has its devices
EXPECTED = "expected a multiboot kernel, a Linux bzImage or vmlinux, a PVH kernel, or firmware (whole 64 KiB units)"
ENTRIES = ("auto", "16", "32", "64", "pvh", "multiboot", "multiboot2")      # "auto": the first that the file offers


def load(path, memory_bytes, kernel_args="", initrd=None, entry="auto"):
    """The BootImage of the file `path` for a machine with `memory_bytes` of RAM from address 0 on.

    kernel_args  command line, a str without NUL
    initrd       path of an initial RAM disk or first module, or a list of paths: modules, or parts of one RAM disk;
                 "FILE ARGUMENTS" gives a module a command line of its own
    entry        one of ENTRIES: which of its entries a kernel with several is started by

    Raises BootError, one line that names the file, the field and what was expected.
    """
    path = str(path)
    if memory_bytes > LARGEST_MEMORY:
        raise BootError(f"{path}: memory: {memory_bytes} bytes, expected at most {LARGEST_MEMORY}")
    if entry not in ENTRIES:
        raise BootError(f"{path}: entry: {entry!r}, expected one of {', '.join(ENTRIES)}")
    if not isinstance(kernel_args, str):
        raise BootError(f"{path}: kernel-args: {kernel_args!r}, expected text")
    if "\0" in kernel_args:
        raise BootError(f"{path}: kernel-args: contains a NUL")
    data, modules = read_file(path), read_modules(initrd)
    offered = offers(path, data)
    if entry == "auto":
        entry = next(iter(offered))
    if entry not in offered:
        raise BootError(f"{path}: entry: a kernel without the needed entry {entry}, expected one of its own: {', '.join(offered)}")
    image = offered[entry](path, memory_bytes=memory_bytes, modules=modules, kernel_args=kernel_args.encode("utf-8", "surrogateescape"))
    if image.kind == "firmware":
        return image
    return replace(image, segments=[*image.segments, *acpi.tables(), *mptable.tables()])     # what a PC's firmware would have left


def offers(path, data):
    """{entry: how to load the file for it}, the preferred one first.  BootError when there is none."""
    if linux.is_bzimage(data):
        return {**linux.bzimage_entries(data), **realmode.entries(data)}
    found = {name: partial(kind.load, data=data) for name, kind in (("multiboot", multiboot), ("multiboot2", multiboot2))
             if kind.find_header(data) is not None}
    if data[:4] == b"\x7FELF":
        try:
            found.update(elf_entries(elf.parse(path, data)))
        except BootError:
            if not found:                       # a multiboot header with address fields needs no sound ELF headers
                raise
        if not found:
            raise BootError(f"{path}: format: an ELF file without multiboot header, PVH note or Linux note, {EXPECTED}")
    elif not found and firmware.is_firmware(data):
        return {"firmware": partial(firmware.load, data=data)}
    if not found:
        raise BootError(f"{path}: format: not recognized, {EXPECTED}")
    return found


def elf_entries(kernel):
    """Linux by its own protocol first, other kernels by their PVH note."""
    found = {}
    if linux.is_vmlinux(kernel):
        found[str(kernel.bits)] = partial(linux.load_vmlinux, kernel=kernel)
    if pvh.entry_of(kernel) is not None:
        found["pvh"] = partial(pvh.load, kernel=kernel)
    return found
