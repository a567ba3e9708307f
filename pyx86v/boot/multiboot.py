# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot 1 (Multiboot Specification 0.6.96): ELF32 kernels and kernels with address fields.

The information structure lies in low memory: memory sizes, command line, modules, memory map, loader name.
"""
import os
import struct

from pyx86v.boot import elf, state
from pyx86v.boot.image import KIB, LOW_END, PAGE, BootImage, Layout, memory_map

HEADER_MAGIC, LOADER_MAGIC = 0x1BADB002, 0x2BADB002
SEARCH = 8192                   # the header lies in the first 8 KiB, 32-bit aligned (3.1)
PAGE_ALIGN, MEMORY_INFO, ADDRESSES = 1 << 0, 1 << 1, 1 << 16
REQUIRED = 0xFFFF               # a loader must refuse what it does not know of these (3.1.2)
INFO_MEMORY, INFO_CMDLINE, INFO_MODULES, INFO_MMAP, INFO_LOADER = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
INFO_SIZE = 88


def find_header(data):
    """Offset of the header in `data`, or None."""
    for at in range(0, min(SEARCH, len(data)) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, at)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return at
    return None


def load(path, memory_bytes, data, kernel_args=b"", modules=()):
    """BootImage of a file in which find_header() found a header."""
    layout, at = Layout(path, memory_bytes), find_header(data)
    flags = struct.unpack_from("<I", data, at + 4)[0]
    unknown = flags & REQUIRED & ~(PAGE_ALIGN | MEMORY_INFO)
    if unknown:
        raise layout.error("multiboot flags", f"{flags:#x} asks for {unknown:#x}, expected only bits 0 and 1 of the low 16")
    if flags & ADDRESSES:
        entry, end = place_by_header(layout, data, at)
    else:
        entry, end = place_elf(layout, path, data)
    info = information(layout, end, kernel_args, modules)
    return BootImage("multiboot", layout.segments, state.protected(entry, {"rax": LOADER_MAGIC, "rbx": info}),
                     f"multiboot kernel, entry {entry:#x}")


def place_elf(layout, path, data):
    kernel = elf.parse(path, data)
    if kernel.bits != 32:
        raise layout.error("ELF class", "64-bit, expected a 32-bit ELF file (objcopy -O elf32-i386)")
    end = elf.place(kernel, layout)
    return kernel.entry, end


def place_by_header(layout, data, at):
    """Load as the header's address fields say (3.1.3); returns (entry, end)."""
    if at + 32 > len(data):
        raise layout.error("multiboot address fields", f"{len(data) - at - 12} bytes, expected 20: truncated")
    *addresses, entry = struct.unpack_from("<5I", data, at + 12)
    low, end = place_by_addresses(layout, data, at, "multiboot", *addresses)
    if not low <= entry < end:
        raise layout.error("multiboot entry_addr", f"{entry:#x}, expected within {low:#x}..{end:#x}")
    return entry, end


def place_by_addresses(layout, data, at, kind, header_addr, load_addr, load_end, bss_end):
    """Load a file whose header, at offset `at`, belongs at header_addr; returns (first address, end)."""
    start = at - (header_addr - load_addr)
    if load_addr > header_addr or start < 0:
        raise layout.error(f"{kind} load_addr", f"{load_addr:#x}, expected at most header_addr {header_addr:#x} and within the file")
    size = load_end - load_addr if load_end else len(data) - start
    if size <= 0 or start + size > len(data):
        raise layout.error(f"{kind} load_end_addr", f"{load_end:#x} asks for {size} bytes, the file has {len(data) - start}")
    end = max(load_addr + size, bss_end)
    layout.add("kernel", load_addr, data[start:start + size], end - load_addr)
    return load_addr, end


def image_name(layout, kernel_args):
    """The command line with the image's name first, as QEMU and GRUB Legacy do it; without its folder, so that memory
    does not depend on that."""
    return os.path.basename(layout.path).encode("utf-8", "surrogateescape") + (b" " + kernel_args if kernel_args else b"")


def put_modules(layout, modules, end):
    """Put the modules above the kernel, page-aligned; returns [(start, end)]."""
    starts = [layout.put("initrd", module.data, low=max(end, 0x100000), align=PAGE) for module in modules]
    return [(start, start + len(module.data)) for start, module in zip(starts, modules)]


def information(layout, end, kernel_args, modules):
    """Write the information structure (3.3) and what it points to; returns its address."""
    low = {"low": 0x9000, "high": LOW_END}
    cmdline = layout.put("command line", image_name(layout, kernel_args) + b"\0", **low)
    name = layout.put("loader name", b"pyx86v\0", **low)
    entries = b"".join(struct.pack("<IQQI", 20, *entry) for entry in memory_map(layout.memory_bytes))
    mmap = layout.put("memory map", entries, **low)
    listed = 0
    if modules:
        words = [layout.put("module's words", module.words + b"\0", **low) for module in modules]
        spans = put_modules(layout, modules, end)
        listed = layout.put("module list", b"".join(struct.pack("<4I", *span, at, 0) for span, at in zip(spans, words)), **low)
    flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP | INFO_LOADER
    upper = (layout.memory_bytes - 0x100000) // KIB
    info = struct.pack("<7I16x2I12xI", flags, LOW_END // KIB, upper, 0, cmdline, len(modules), listed, len(entries), mmap, name)
    return layout.put("information structure", info.ljust(INFO_SIZE, b"\0"), **low)
