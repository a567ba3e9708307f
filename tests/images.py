# SPDX-License-Identifier: GPL-2.0-or-later
"""Images for the boot loader's tests, put together from the formats' documents and not by the code under test."""
import struct
import zlib

CODE = b"\xF4" * 16                                 # hlt


def multiboot_header(flags=0, *addresses):
    return struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF) + struct.pack(f"<{len(addresses)}I", *addresses)


def multiboot2_header(*tags):
    """A tag is (type, contents) or with flags as third."""
    body = b""
    for kind, data, *flags in (*tags, (0, b"")):
        body += struct.pack("<HHI", kind, *(flags or [0]), 8 + len(data)) + data + bytes(-len(data) % 8)
    length = 16 + len(body)
    return struct.pack("<4I", 0xE85250D6, 0, length, -(0xE85250D6 + length) & 0xFFFFFFFF) + body


def elf(bits=32, segments=((0x100000, CODE, 0x1000),), entry=0x100000, kind=2, machine=None, notes=b""):
    """An ELF executable; a segment is (physical address, bytes, size in memory) or with a virtual address as fourth."""
    wide = bits == 64
    head, one = (64, 56) if wide else (52, 32)
    parts = [(1, *(s if len(s) == 4 else (*s, s[0]))) for s in segments] + ([(4, 0, notes, len(notes), 0)] if notes else [])
    offset = head + one * len(parts)
    headers, body = b"", b""
    for type_, paddr, data, size, vaddr in parts:
        at = offset + len(body)
        headers += (struct.pack("<IIQQQQQQ", type_, 7, at, vaddr, paddr, len(data), size, 4) if wide else
                    struct.pack("<8I", type_, at, vaddr, paddr, len(data), size, 7, 4))
        body += data
    ident = b"\x7FELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    machine = machine or (62 if wide else 3)
    form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    return ident + struct.pack(form, kind, machine, 1, entry, head, 0, 0, head, one, len(parts), 0, 0, 0) + headers + body


def note(name, kind, data):
    pad = lambda part: part + bytes(-len(part) % 4)
    return struct.pack("<III", len(name) + 1, len(data), kind) + pad(name + b"\0") + pad(data)


def multiboot_elf(flags=3, code=CODE, size=0x1000):
    return elf(segments=((0x100000, multiboot_header(flags) + code, size),), entry=0x10000C)


def bzimage(version=0x20F, loadflags=1, kernel=b"\x90" * 4096, setup_sects=2, init_size=0x10000, preferred=0x1000000,
            cmdline_size=100, initrd_addr_max=0x7FFFFFFF, release=None):
    """The fields by their offsets in boot.rst; a kernel that says its release has a CRC-32 at its end."""
    setup = bytearray((setup_sects + 1) * 512)
    setup[0x1F1] = setup_sects
    struct.pack_into("<I", setup, 0x1F4, (len(kernel) + 15) // 16)
    setup[0x1FE:0x206] = b"\x55\xAA\xEB\x66HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = loadflags
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<I", setup, 0x22C, initrd_addr_max)
    struct.pack_into("<IB", setup, 0x230, 0x200000, 1)
    struct.pack_into("<I", setup, 0x238, cmdline_size)
    struct.pack_into("<QI", setup, 0x258, preferred, init_size)
    if release:
        struct.pack_into("<H", setup, 0x20E, 0x70)                      # from 0x200 on
        setup[0x270:0x270 + len(release) + 1] = release.encode() + b"\0"
        kernel = kernel[:-4] + struct.pack("<I", zlib.crc32(bytes(setup) + kernel[:-4]) ^ 0xFFFFFFFF)
    return bytes(setup) + kernel


def memory(image, size):
    """Guest memory after loading, as one bytearray."""
    ram = bytearray(size)
    for gpa, data in image.segments:
        ram[gpa:gpa + len(data)] = data
    return ram
