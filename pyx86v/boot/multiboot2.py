# SPDX-License-Identifier: GPL-2.0-or-later
"""Multiboot 2 (Multiboot2 Specification 2.0): ELF kernels of either width and kernels with an address tag.

Header and information are lists of tags.  There is no EFI and no graphics here: what asks for them is refused where the
header says that it cannot do without.
"""
import struct

from pyx86v.boot import acpi, elf, state
from pyx86v.boot.image import KIB, LOW_END, MIB, PAGE, BootImage, Layout, memory_map
from pyx86v.boot.multiboot import place_by_addresses, put_modules

HEADER_MAGIC, LOADER_MAGIC = 0xE85250D6, 0x36D76289
SEARCH = 32768                  # the header lies in the first 32 KiB, 64-bit aligned (3.1)
I386, OPTIONAL, MAX_TAGS = 0, 1, 64
# tags of the header (3.1.3)
END, REQUEST, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, ALIGN, _, EFI32_ENTRY, EFI64_ENTRY, RELOCATABLE = range(11)
IGNORED = {CONSOLE, FRAMEBUFFER, ALIGN, EFI32_ENTRY, EFI64_ENTRY, RELOCATABLE}
SIZES = {ADDRESS: 24, ENTRY: 12}
# tags of the information (3.6)
CMDLINE, LOADER, MODULE, MEMORY, MMAP, SECTIONS, OLD_ACPI, NEW_ACPI, BASE = 1, 2, 3, 4, 6, 9, 14, 15, 21
OFFERED = {END, CMDLINE, LOADER, MODULE, MEMORY, MMAP, SECTIONS, OLD_ACPI, NEW_ACPI, BASE}
LOW = {"low": 0x9000, "high": LOW_END}


def find_header(data):
    """Offset of the header in `data`, or None."""
    for at in range(0, min(SEARCH, len(data)) - 15, 8):
        magic, architecture, length, checksum = struct.unpack_from("<4I", data, at)
        if magic == HEADER_MAGIC and (magic + architecture + length + checksum) & 0xFFFFFFFF == 0:
            return at
    return None


def load(path, memory_bytes, data, kernel_args=b"", modules=()):
    """BootImage of a file in which find_header() found a header."""
    layout, at = Layout(path, memory_bytes), find_header(data)
    tags = header_tags(layout, data, at)
    entry = struct.unpack_from("<I", tags[ENTRY], 8)[0] if ENTRY in tags else None
    tables = b""
    if ADDRESS in tags:
        if entry is None:
            raise layout.error("multiboot2 header", "an address tag without an entry tag")
        header, start, *rest = struct.unpack_from("<4I", tags[ADDRESS], 8)
        low, end = place_by_addresses(layout, data, at, "multiboot2", header, header - at if start == 0xFFFFFFFF else start, *rest)
    else:
        kernel = elf.parse(path, data)
        entry = kernel.entry if entry is None else entry
        low, end = min(gpa for gpa, *_ in kernel.loads), elf.place(kernel, layout)
        tables = section_tag(layout, data, end)
    if not low <= entry < end:
        raise layout.error("multiboot2 entry", f"{entry:#x}, expected within {low:#x}..{end:#x}")
    parts = [tables] + ([tag(BASE, struct.pack("<I", low))] if RELOCATABLE in tags else [])
    info = information(layout, end, kernel_args, modules, parts)
    return BootImage("multiboot2", layout.segments, state.protected(entry, {"rax": LOADER_MAGIC, "rbx": info}),
                     f"multiboot2 kernel, entry {entry:#x}")


def header_tags(layout, data, at):
    """{type: bytes} of the header's tags.  BootError for one that cannot be met."""
    _, architecture, length, _ = struct.unpack_from("<4I", data, at)
    if architecture != I386:
        raise layout.error("multiboot2 architecture", f"{architecture}, expected 0 (i386)")
    found, end = {}, min(at + length, len(data))
    at += 16
    for _ in range(MAX_TAGS):
        if at + 8 > end:
            raise layout.error("multiboot2 header", f"no end tag in its {length} bytes")
        kind, flags, size = struct.unpack_from("<HHI", data, at)
        if kind == END:
            return found
        if size < SIZES.get(kind, 8) or at + size > end:
            raise layout.error("multiboot2 header", f"tag {kind} has {size} bytes, expected at least {SIZES.get(kind, 8)} and within the header")
        wanted = set(struct.unpack_from(f"<{(size - 8) // 4}I", data, at + 8)) - OFFERED if kind == REQUEST else set()
        if not flags & OPTIONAL and (wanted or kind not in IGNORED | {REQUEST, ADDRESS, ENTRY}):
            what = f"information {min(wanted)}" if wanted else f"tag {kind}"
            raise layout.error("multiboot2 header", f"{what} is required, expected only what a PC without EFI and graphics has")
        found[kind] = data[at:at + size]
        at += -(-size // 8) * 8
    raise layout.error("multiboot2 header", f"more than {MAX_TAGS} tags")


def tag(kind, data):
    """A tag of the information: type, size, contents, and padding to 8 bytes that does not count."""
    size = 8 + len(data)
    return struct.pack("<II", kind, size) + data + bytes(-size % 8)


def information(layout, end, kernel_args, modules, parts):
    """Write the information and the modules; returns its address."""
    parts = [tag(CMDLINE, kernel_args + b"\0"), tag(LOADER, b"pyx86v\0"), *parts]
    for module, span in zip(modules, put_modules(layout, modules, end)):
        parts.append(tag(MODULE, struct.pack("<II", *span) + (module.args or module.name) + b"\0"))
    parts.append(tag(MEMORY, struct.pack("<II", LOW_END // KIB, (layout.memory_bytes - MIB) // KIB)))
    areas = b"".join(struct.pack("<QQII", *area, 0) for area in memory_map(layout.memory_bytes))
    parts.append(tag(MMAP, struct.pack("<II", 24, 0) + areas))
    root = acpi.tables()[0][1]
    parts += [tag(OLD_ACPI, root[:20]), tag(NEW_ACPI, root)]
    body = b"".join(parts) + tag(END, b"")
    return layout.put("multiboot2 information", struct.pack("<II", 8 + len(body), 0) + body, **LOW)


def section_tag(layout, data, end):
    """The section headers (3.6.7).  Symbols and strings, which are not part of the image, lie above it."""
    names, headers = elf.section_headers(data)
    for fields in headers:
        start, size = fields[elf.SH_OFFSET], fields[elf.SH_SIZE]
        if fields[elf.SH_TYPE] in (elf.SYMBOLS, elf.STRINGS) and fields[elf.SH_ADDR] == 0 and 0 < size <= len(data) - start:
            fields[elf.SH_ADDR] = layout.put("ELF section", data[start:start + size], low=max(end, MIB), align=PAGE)
    if not headers:
        return b""
    form = elf.SECTION_FORMS[data[4] == 2]
    head = struct.pack("<III", len(headers), struct.calcsize(form), names)
    return tag(SECTIONS, head + b"".join(struct.pack(form, *fields) for fields in headers))
