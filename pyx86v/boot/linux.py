# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on x86: bzImage by the 32-bit or 64-bit boot protocol, vmlinux by the one of its width.

Source: the kernel's Documentation/arch/x86/boot.rst and zero-page.rst; offsets are those of struct boot_params.
A vmlinux has no setup header, so its boot_params is made from nothing.
"""
import re
import struct
import zlib
from functools import partial

from pyx86v.boot import elf, state
from pyx86v.boot.image import GIB, KIB, LOW_END, MIB, PAGE, BootImage, Layout, memory_map, one_initrd

ZERO_PAGE, GDT, TABLES = 0x10000, 0x8000, 0x9000        # where we put boot_params, the GDT and the page tables
SIGNATURE, HEADER_AT = b"HdrS", 0x1F1
OLDEST = 0x0202                 # 2.02: a command-line pointer
LOADED_HIGH = 1                 # loadflags: the kernel belongs at 1 MiB
KERNEL_64, ENTRY_64 = 1, 0x200  # xloadflags: there is a 64-bit entry, this far behind the 32-bit one
UNKNOWN_LOADER = 0xFF
BOOT_CS, BOOT_DS = 0x10, 0x18
PRESENT_WRITE, LARGE = 0x3, 0x80
OLD_INITRD_MAX = 0x37FFFFFF     # before protocol 2.03
CRC_SINCE, CRC_UNTIL = 0x208, (6, 15)                   # protocol with a CRC-32 at the end; release that wrote none any more
PE_CHECKSUM, PE_SIGNATURES = 88, (152, 168)             # from the PE header on: the field; directory entry 4 of PE32, of PE32+
E820_MAX = 128


class BootParams:
    """struct boot_params under construction."""

    def __init__(self, setup_header=b"", page=bytes(PAGE)):
        self.page = bytearray(page)
        self.page[HEADER_AT:HEADER_AT + len(setup_header)] = setup_header

    def set(self, at, form, *values):
        struct.pack_into("<" + form, self.page, at, *values)

    def get(self, at, form):
        return struct.unpack_from("<" + form, self.page, at)[0]

    def describe(self, cmdline, initrd):
        """The fields of the setup header that every loader fills in; `initrd` is (address, size)."""
        self.set(0x1FA, "H", 0xFFFF)                                            # vid_mode: normal
        self.set(0x210, "B", UNKNOWN_LOADER)
        self.set(0x211, "B", self.get(0x211, "B") | LOADED_HIGH)
        self.set(0x218, "II", *initrd)
        self.set(0x228, "I", cmdline)

    def finish(self, layout):
        """What the kernel's real-mode code would have found out; puts the page into memory."""
        entries = memory_map(layout.memory_bytes)
        self.set(0x06, "BB", 3, 80)                                             # screen_info: mode 3, columns,
        self.set(0x0E, "BBH", 25, 1, 16)                                        # lines, it is a VGA, points of a character
        self.set(0x70, "Q", layout.rsdp)                                        # acpi_rsdp_addr
        self.set(0x1E0, "I", (layout.memory_bytes - MIB) // KIB)                 # alt_mem_k
        self.set(0x1E8, "B", len(entries))
        for index, entry in enumerate(entries):
            self.set(0x2D0 + 20 * index, "QQI", *entry)
        layout.add("boot_params", ZERO_PAGE, self.page)


def is_vmlinux(kernel):
    """Whether a parsed ELF file is Linux, by its notes."""
    return any(name == b"Linux" for name, _ in kernel.notes) or kernel.notes.get((b"Xen", 6), b"").rstrip(b"\0") == b"linux"


def is_bzimage(data):
    return data[0x1FE:0x200] == b"\x55\xAA" and data[0x202:0x206] == SIGNATURE


def put_cmdline(layout, kernel_args, limit):
    if len(kernel_args) > limit:
        raise layout.error("command line", f"{len(kernel_args)} bytes, expected at most {limit}")
    return layout.put("command line", kernel_args + b"\0", low=ZERO_PAGE + PAGE, high=LOW_END)


def put_initrd(layout, modules, low, highest):
    """As high as memory and `highest` (the last usable byte) allow; returns (address, size), (0, 0) without one."""
    initrd = one_initrd(modules)
    if initrd is None:
        return 0, 0
    return layout.put("initrd", initrd, low=low, high=highest + 1, align=PAGE, top=True), len(initrd)


def bzimage_entries(data):
    """{entry: how to load the file for it}, as boot.offers() gives it."""
    found = {"32": partial(load_bzimage, data=data)}
    if len(data) >= 0x238 and struct.unpack_from("<H", data, 0x206)[0] >= 0x20C and data[0x236] & KERNEL_64:
        found["64"] = partial(load_bzimage, data=data, wide=True)
    return found


def load_bzimage(path, memory_bytes, data, kernel_args=b"", modules=(), wide=False):
    """BootImage by the 32-bit boot protocol, or the 64-bit one."""
    layout = Layout(path, memory_bytes)
    version, params = place_bzimage(layout, data, kernel_args, modules)
    params.finish(layout)
    return BootImage("bzimage64" if wide else "bzimage", layout.segments, start_at(layout, MIB + ENTRY_64 if wide else MIB, wide),
                     f"Linux bzImage, protocol {version >> 8}.{version & 255:02}")


def setup_bytes(data):
    """The size of a bzImage's real-mode part: the boot sector and setup_sects more."""
    return ((data[HEADER_AT] or 4) + 1) * 512


def place_bzimage(layout, data, kernel_args, modules):
    """Put the protected-mode kernel, its command line and RAM disk into memory; (protocol version, BootParams)."""
    if len(data) < 0x268:
        raise layout.error("setup header", f"the file has {len(data)} bytes, expected at least {0x268}: truncated")
    version, loadflags = struct.unpack_from("<H", data, 0x206)[0], data[0x211]
    if version < OLDEST:
        raise layout.error("setup header", f"protocol {version >> 8}.{version & 255:02}, expected 2.02 or later")
    if not loadflags & LOADED_HIGH:
        raise layout.error("setup header", "a zImage (loadflags bit 0 is 0), expected a bzImage")
    setup_size = setup_bytes(data)
    size = struct.unpack_from("<I", data, 0x1F4)[0] * 16 or 1
    # the last unit of 16 bytes may be partial, and a signature may follow
    if len(data) <= setup_size + size - 16:
        raise layout.error("syssize", f"the file has {len(data)} bytes, expected {setup_size + size}: truncated")
    if version >= CRC_SINCE:
        check_crc(layout, data, setup_size + size)
    params = BootParams(data[HEADER_AT:min(0x202 + data[0x201], setup_size, 0x290)])
    layout.add("kernel", MIB, data[setup_size:])
    working_end = reserve_working_area(layout, params, version, len(data) - setup_size)
    cmdline = put_cmdline(layout, kernel_args, params.get(0x238, "I") if version >= 0x206 else 255)
    highest = params.get(0x22C, "I") if version >= 0x203 else OLD_INITRD_MAX
    params.describe(cmdline, put_initrd(layout, modules, working_end, highest))
    return version, params


def check_crc(layout, data, end):
    """Refuse a kernel whose CRC-32 does not fit, which covers the file up to `end` (boot.rst, "The image checksum").

    Whoever signs the file for UEFI changes two fields of its PE header afterwards, which were 0.
    """
    release = re.match(rb"(\d+)\.(\d+)", data[0x200 + struct.unpack_from("<H", data, 0x20E)[0]:][:16])
    if not release or tuple(map(int, release.groups())) >= CRC_UNTIL or len(data) < end:
        return
    image, pe = bytearray(data[:end]), struct.unpack_from("<I", data, 0x3C)[0]
    if image[pe:pe + 4] == b"PE\0\0" and pe + PE_SIGNATURES[1] + 8 <= end:
        signatures = pe + PE_SIGNATURES[struct.unpack_from("<H", image, pe + 24)[0] == 0x20B]
        image[pe + PE_CHECKSUM:pe + PE_CHECKSUM + 4] = bytes(4)
        image[signatures:signatures + 8] = bytes(8)
    if zlib.crc32(image) != 0xFFFFFFFF:
        raise layout.error("checksum", f"{zlib.crc32(image) ^ 0xFFFFFFFF:#x} over the kernel and its CRC-32, expected 0: corrupt")


def start_at(layout, entry, wide):
    """The processor's state at an entry of the 32-bit or 64-bit protocol, RSI at boot_params."""
    registers = {"rsi": ZERO_PAGE}
    if not wide:
        return state.protected(entry, registers, BOOT_CS, BOOT_DS, put_gdt(layout, state.CODE32))
    gdt = put_gdt(layout, state.CODE64)
    return state.long_mode(entry, registers, put_identity_map(layout), BOOT_CS, BOOT_DS, gdt)


def reserve_working_area(layout, params, version, loaded):
    """End of the memory that the kernel unpacks itself into (init_size, 2.10), checked against RAM."""
    end = MIB + loaded
    if version >= 0x20A:
        relocatable, preferred, init_size = params.get(0x234, "B"), params.get(0x258, "Q"), params.get(0x260, "I")
        alignment = max(params.get(0x230, "I"), 1)
        base = max(preferred, -(-MIB // alignment) * alignment) if relocatable else preferred
        end = max(end, base + init_size)
    if end > layout.memory_bytes:
        raise layout.error("memory", f"{layout.memory_bytes // MIB} MiB, this kernel needs {-(-end // MIB)} MiB to unpack itself")
    return end


def put_gdt(layout, code):
    """The boot protocol's GDT: code at 0x10, data at 0x18; returns (base, limit)."""
    table = bytes(16) + state.descriptor(code) + state.descriptor(state.DATA32)
    return layout.add("GDT", GDT, table), len(table) - 1


def put_identity_map(layout):
    """2 MiB pages that map all of memory (at least 1 GiB, at most 4) to itself; returns CR3."""
    gibs = min(max(-(-layout.memory_bytes // GIB), 1), 4)
    pdpt, directories = TABLES + PAGE, TABLES + 2 * PAGE
    top = struct.pack("<Q", pdpt | PRESENT_WRITE).ljust(PAGE, b"\0")
    second = b"".join(struct.pack("<Q", directories + i * PAGE | PRESENT_WRITE) for i in range(gibs)).ljust(PAGE, b"\0")
    third = b"".join(struct.pack("<Q", i * 2 * MIB | LARGE | PRESENT_WRITE) for i in range(gibs * 512))
    return layout.add("page tables", TABLES, top + second + third)


def load_vmlinux(path, memory_bytes, kernel, kernel_args=b"", modules=()):
    """BootImage of a parsed ELF kernel: the 64-bit protocol for ELF64, the 32-bit one for ELF32."""
    layout = Layout(path, memory_bytes)
    end = elf.place(kernel, layout)
    params = BootParams()
    params.set(0x1FE, "H", 0xAA55)
    params.set(0x202, "4sH", SIGNATURE, 0x020F)
    params.set(0x22C, "I", 0x7FFFFFFF)                                          # initrd_addr_max
    params.set(0x230, "I", 2 * MIB)                                             # kernel_alignment
    params.set(0x238, "I", 2047)                                                # cmdline_size
    cmdline = put_cmdline(layout, kernel_args, 2047)
    params.describe(cmdline, put_initrd(layout, modules, end, 0x7FFFFFFF))
    params.finish(layout)
    return BootImage(f"linux{kernel.bits}", layout.segments, start_at(layout, kernel.entry, kernel.bits == 64),
                     f"Linux ELF{kernel.bits}, entry {kernel.entry:#x}")
