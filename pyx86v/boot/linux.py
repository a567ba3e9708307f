# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on x86: bzImage by the 32-bit boot protocol, vmlinux by the 64-bit (or 32-bit) one.

Source: the kernel's Documentation/arch/x86/boot.rst and zero-page.rst; offsets are those of struct boot_params.
A vmlinux has no setup header, so its boot_params is made from nothing.
"""
import struct

from pyx86v.boot import elf, state
from pyx86v.boot.image import GIB, KIB, LOW_END, MIB, PAGE, BootImage, Layout, memory_map

ZERO_PAGE, GDT, TABLES = 0x10000, 0x8000, 0x9000        # where we put boot_params, the GDT and the page tables
SIGNATURE, HEADER_AT = b"HdrS", 0x1F1
OLDEST = 0x0202                 # 2.02: a command-line pointer
LOADED_HIGH = 1                 # loadflags: the kernel belongs at 1 MiB
UNKNOWN_LOADER = 0xFF
BOOT_CS, BOOT_DS = 0x10, 0x18
PRESENT_WRITE, LARGE = 0x3, 0x80
OLD_INITRD_MAX = 0x37FFFFFF     # before protocol 2.03
E820_MAX = 128


class BootParams:
    """struct boot_params under construction."""

    def __init__(self, setup_header=b""):
        self.page = bytearray(PAGE)
        self.page[HEADER_AT:HEADER_AT + len(setup_header)] = setup_header

    def set(self, at, form, *values):
        struct.pack_into("<" + form, self.page, at, *values)

    def get(self, at, form):
        return struct.unpack_from("<" + form, self.page, at)[0]

    def finish(self, layout, cmdline, initrd):
        """Fill in what every loader must and put the page into memory; `initrd` is (address, size)."""
        entries = memory_map(layout.memory_bytes)
        self.set(0x1E0, "I", (layout.memory_bytes - MIB) // KIB)                 # alt_mem_k
        self.set(0x1E8, "B", len(entries))
        for index, entry in enumerate(entries):
            self.set(0x2D0 + 20 * index, "QQI", *entry)
        self.set(0x1FA, "H", 0xFFFF)                                            # vid_mode: normal
        self.set(0x210, "B", UNKNOWN_LOADER)
        self.set(0x211, "B", self.get(0x211, "B") | LOADED_HIGH)
        self.set(0x218, "II", *initrd)
        self.set(0x228, "I", cmdline)
        layout.add("boot_params", ZERO_PAGE, self.page)


def is_bzimage(data):
    return data[0x1FE:0x200] == b"\x55\xAA" and data[0x202:0x206] == SIGNATURE


def put_cmdline(layout, kernel_args, limit):
    if len(kernel_args) > limit:
        raise layout.error("command line", f"{len(kernel_args)} bytes, expected at most {limit}")
    return layout.put("command line", kernel_args + b"\0", low=ZERO_PAGE + PAGE, high=LOW_END)


def put_initrd(layout, initrd, low, highest):
    """As high as memory and `highest` (the last usable byte) allow; returns (address, size), (0, 0) without one."""
    if initrd is None:
        return 0, 0
    return layout.put("initrd", initrd, low=low, high=highest + 1, align=PAGE, top=True), len(initrd)


def load_bzimage(path, data, memory_bytes, kernel_args=b"", initrd=None):
    """BootImage by the 32-bit boot protocol."""
    layout = Layout(path, memory_bytes)
    if len(data) < 0x268:
        raise layout.error("setup header", f"the file has {len(data)} bytes, expected at least {0x268}: truncated")
    version, loadflags = struct.unpack_from("<H", data, 0x206)[0], data[0x211]
    if version < OLDEST:
        raise layout.error("setup header", f"protocol {version >> 8}.{version & 255:02}, expected 2.02 or later")
    if not loadflags & LOADED_HIGH:
        raise layout.error("setup header", "a zImage (loadflags bit 0 is 0), expected a bzImage")
    setup_size = ((data[HEADER_AT] or 4) + 1) * 512
    size = struct.unpack_from("<I", data, 0x1F4)[0] * 16 or 1
    # the last unit of 16 bytes may be partial, and a signature may follow
    if len(data) <= setup_size + size - 16:
        raise layout.error("syssize", f"the file has {len(data)} bytes, expected {setup_size + size}: truncated")
    params = BootParams(data[HEADER_AT:min(0x202 + data[0x201], setup_size, 0x290)])
    start = layout.add("kernel", MIB, data[setup_size:])
    working_end = reserve_working_area(layout, params, version, len(data) - setup_size)
    cmdline = put_cmdline(layout, kernel_args, params.get(0x238, "I") if version >= 0x206 else 255)
    highest = params.get(0x22C, "I") if version >= 0x203 else OLD_INITRD_MAX
    params.finish(layout, cmdline, put_initrd(layout, initrd, working_end, highest))
    gdt = put_gdt(layout, state.CODE32)
    entry = state.protected(start, {"rsi": ZERO_PAGE}, BOOT_CS, BOOT_DS, gdt)
    return BootImage("bzimage", layout.segments, entry, f"Linux bzImage, protocol {version >> 8}.{version & 255:02}")


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


def load_vmlinux(path, kernel, memory_bytes, kernel_args=b"", initrd=None):
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
    params.finish(layout, cmdline, put_initrd(layout, initrd, end, 0x7FFFFFFF))
    registers = {"rsi": ZERO_PAGE}
    if kernel.bits == 32:
        entry = state.protected(kernel.entry, registers, BOOT_CS, BOOT_DS, put_gdt(layout, state.CODE32))
    else:
        gdt = put_gdt(layout, state.CODE64)
        entry = state.long_mode(kernel.entry, registers, put_identity_map(layout), BOOT_CS, BOOT_DS, gdt)
    return BootImage(f"linux{kernel.bits}", layout.segments, entry, f"Linux ELF{kernel.bits}, entry {kernel.entry:#x}")
