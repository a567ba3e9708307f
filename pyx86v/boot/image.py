# SPDX-License-Identifier: GPL-2.0-or-later
"""What a boot loader hands over: bytes at guest-physical addresses and the processor's state.

Addresses and sizes are in bytes.  Everything that is wrong with a file raises BootError, whose text is one line:
the file, the field, what it is and what was expected.
"""
import os
import stat
from bisect import insort
from dataclasses import dataclass, field

from pyx86v.boot import acpi

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4096
LARGEST_FILE = GIB
LOW_END = 0x9FC00               # conventional memory ends below the extended BIOS data area
HOLE = (0xA0000, 0x100000)      # video memory and firmware
RAM, RESERVED = 1, 2            # types of an e820 entry


class BootError(ValueError):
    """An image cannot be booted; the text is one line."""


@dataclass(frozen=True)
class BootImage:
    """A guest ready to start.

    kind         multiboot, multiboot2, bzimage, bzimage64, bzimage16,
                  linux64, linux32, pvh or firmware
    segments     [(guest-physical address, bytes)] in RAM, disjoint
    entry        the processor's state, see boot.state
    description  one line for people
    roms         [(guest-physical address, bytes)] above RAM: read-only memory that the machine has to add
    fw_cfg       {key: bytes}: what the machine tells firmware
    """
    kind: str
    segments: list
    entry: dict
    description: str
    roms: list = field(default_factory=list)
    fw_cfg: dict = field(default_factory=dict)


def read_file(path, what="image"):
    """The bytes of a regular file, or BootError."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BootError(f"{path}: {what}: not a regular file")
        if status.st_size > LARGEST_FILE:
            raise BootError(f"{path}: {what}: {status.st_size} bytes, expected at most {LARGEST_FILE}")
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BootError(f"{path}: {what}: {error.strerror or error}") from None
    except ValueError as error:                 # a NUL in the name
        raise error if isinstance(error, BootError) else BootError(f"{path!r}: {what}: {error}") from None
    if not data:
        raise BootError(f"{path}: {what}: the file is empty")
    return data


@dataclass(frozen=True)
class Module:
    """A file handed to the kernel, and the command line it comes with."""
    data: bytes
    name: bytes
    args: bytes = b""

    @property
    def words(self):
        """Its name and arguments, as a multiboot loader hands them over."""
        return b" ".join(filter(None, (self.name, self.args)))


def read_modules(initrd):
    """[Module] of None, a path, or a list of paths, each of which may be "PATH ARGUMENTS"."""
    found = []
    if not isinstance(initrd, (str, os.PathLike, list, tuple, type(None))):
        raise BootError(f"initrd: {initrd!r}, expected a path or a list of paths")
    for text in [] if initrd is None else [initrd] if isinstance(initrd, (str, os.PathLike)) else initrd:
        path, args = str(text), ""
        if " " in path and not os.path.lexists(path):
            path, _, args = path.partition(" ")
        name = os.path.basename(path)           # without its folder, so that memory does not depend on it
        found.append(Module(read_file(path, "initrd"), *(part.encode("utf-8", "surrogateescape") for part in (name, args))))
    return found


def one_initrd(modules):
    """The modules as parts of one RAM disk, each on a multiple of 4 bytes as the cpio format has it; None without any."""
    *first, last = [module.data for module in modules] or [None]
    return b"".join([part + bytes(-len(part) % 4) for part in first] + [last]) if first else last


def memory_map(memory_bytes):
    """The e820 map [(start, size, type)] of a machine with `memory_bytes` of RAM from 0 on."""
    return [(0, LOW_END, RAM), (LOW_END, HOLE[1] - LOW_END, RESERVED), (HOLE[1], memory_bytes - HOLE[1], RAM)]


class Layout:
    """Which part of guest memory holds what, while an image is put together."""

    def __init__(self, path, memory_bytes):
        if memory_bytes < 2 * MIB:
            raise BootError(f"{path}: memory: {memory_bytes} bytes, expected at least {2 * MIB}")
        self.path = path
        self.memory_bytes = memory_bytes
        self.segments = []
        self.rsdp = acpi.AT                                 # address of the ACPI tables' root pointer
        self._used = [(*HOLE, "the hole below 1 MiB")]      # (start, end, name), sorted

    def error(self, where, text):
        return BootError(f"{self.path}: {where}: {text}")

    def add(self, name, gpa, data, size=None):
        """Put `data` at gpa and keep `size` bytes there (the rest reads as 0); returns gpa."""
        end = gpa + max(len(data), size or 0)
        if end > self.memory_bytes:
            raise self.error(name, f"ends at {end:#x}, expected within the memory of {self.memory_bytes:#x} bytes")
        for start, stop, other in self._used:
            if gpa < stop and start < end:
                raise self.error(name, f"{gpa:#x}..{end:#x} overlaps {other} at {start:#x}..{stop:#x}")
        insort(self._used, (gpa, end, name))
        if data:
            self.segments.append((gpa, bytes(data)))
        return gpa

    def gaps(self, low, high):
        """The free ranges (start, end) between low and high, lowest first."""
        for start, end, _ in self._used:
            if low < min(start, high):
                yield low, min(start, high)
            low = max(low, end)
        if low < high:
            yield low, high

    def put(self, name, data, low=0x1000, high=None, align=16, top=False):
        """Put `data` into the lowest (or highest) free place between low and high; returns its address."""
        high = min(high or self.memory_bytes, self.memory_bytes)
        places = []
        for start, end in self.gaps(low, high):
            gpa = (end - len(data)) // align * align if top else -(-start // align) * align
            if start <= gpa and gpa + len(data) <= end:
                places.append(gpa)
        if not places:
            raise self.error(name, f"{len(data)} bytes do not fit between {low:#x} and {high:#x}")
        return self.add(name, places[-1] if top else places[0], data)
