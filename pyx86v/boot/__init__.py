# SPDX-License-Identifier: GPL-2.0-or-later
"""From a file to a guest that is ready to start: which kind it is, what lies where, and the processor's state.

    image = boot.load("kernel.elf", 64 << 20, kernel_args="console=ttyS0", initrd="initrd.cpio")
    image.kind, image.segments, image.entry
"""
from pyx86v.boot import elf, firmware, linux, multiboot, pvh
from pyx86v.boot.image import BootError, BootImage, read_file

__all__ = ["BootError", "BootImage", "load"]

LARGEST_MEMORY = 3 << 30        # above it a PC has its devices
EXPECTED = "expected a multiboot kernel, a Linux bzImage or vmlinux, a PVH kernel, or firmware (whole 64 KiB units)"


def load(path, memory_bytes, kernel_args="", initrd=None):
    """The BootImage of the file `path` for a machine with `memory_bytes` of RAM from address 0 on.

    kernel_args  command line, a str without NUL
    initrd       path of a file handed over as initial RAM disk or first module

    Raises BootError, one line that names the file, the field and what was expected.
    """
    path = str(path)
    if memory_bytes > LARGEST_MEMORY:
        raise BootError(f"{path}: memory: {memory_bytes} bytes, expected at most {LARGEST_MEMORY}")
    if "\0" in kernel_args:
        raise BootError(f"{path}: kernel-args: contains a NUL")
    data = read_file(path)
    rest = (memory_bytes, kernel_args.encode("utf-8", "surrogateescape"),
            None if initrd is None else read_file(str(initrd), "initrd"))
    if linux.is_bzimage(data):
        return linux.load_bzimage(path, data, *rest)
    if multiboot.find_header(data) is not None:
        return multiboot.load(path, data, *rest)
    if data[:4] == b"\x7FELF":
        return load_elf(path, data, *rest)
    if firmware.is_firmware(data):
        return firmware.load(path, data, *rest)
    raise BootError(f"{path}: format: not recognized, {EXPECTED}")


def load_elf(path, data, *rest):
    """Linux by its own protocol, other kernels with a PVH note by that."""
    kernel = elf.parse(path, data)
    is_linux = any(name == b"Linux" for name, _ in kernel.notes) or kernel.notes.get((b"Xen", 6), b"").rstrip(b"\0") == b"linux"
    if pvh.entry_of(kernel) is not None and not is_linux:
        return pvh.load(path, kernel, *rest)
    if is_linux:
        return linux.load_vmlinux(path, kernel, *rest)
    raise BootError(f"{path}: format: an ELF file without multiboot header, PVH note or Linux note, {EXPECTED}")
