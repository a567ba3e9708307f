# SPDX-License-Identifier: GPL-2.0-or-later
"""PVH: an ELF kernel with a 32-bit entry point in a Xen note (Xen, docs/misc/pvh.pandoc and arch-x86/hvm/start_info.h)."""
import struct

from pyx86v.boot import elf, linux, state
from pyx86v.boot.image import LOW_END, PAGE, BootImage, Layout, Module, memory_map, one_initrd

NOTE = (b"Xen", 18)             # XEN_ELFNOTE_PHYS32_ENTRY
START_MAGIC, VERSION = 0x336EC578, 1
TSS_LIMIT = 0x67


def entry_of(kernel):
    """The physical entry point, or None if the kernel has no such note."""
    note = kernel.notes.get(NOTE, b"")
    return int.from_bytes(note[:8], "little") if len(note) in (4, 8) else None


def load(path, memory_bytes, kernel, kernel_args=b"", modules=()):
    """BootImage of a parsed ELF kernel with the note.  Linux takes one module: the parts of its RAM disk are joined."""
    layout, start = Layout(path, memory_bytes), entry_of(kernel)
    end = elf.place(kernel, layout)
    if not any(gpa <= start < gpa + size for gpa, _, size in kernel.loads):
        raise layout.error("PHYS32_ENTRY", f"{start:#x} lies in no loaded segment")
    low = {"low": 0x9000, "high": LOW_END}
    cmdline = layout.put("command line", kernel_args + b"\0", **low)
    areas = memory_map(memory_bytes)
    memmap = layout.put("memory map", b"".join(struct.pack("<QQII", *area, 0) for area in areas), **low)
    if linux.is_vmlinux(kernel) and modules:
        modules = [Module(one_initrd(modules), b"initrd")]
    entries = b"".join(put_module(layout, module, end, low) for module in modules)
    listed = layout.put("module list", entries, **low) if modules else 0
    info = struct.pack("<IIIIQQQQII", START_MAGIC, VERSION, 0, len(modules), listed, cmdline, layout.rsdp, memmap, len(areas), 0)
    cpu = state.protected(start, {"rbx": layout.put("start info", info, **low)})
    cpu["segments"]["tr"] = (0, 0, TSS_LIMIT, state.TSS32)
    return BootImage("pvh", layout.segments, cpu, f"PVH kernel, entry {start:#x}")


def put_module(layout, module, end, low):
    """Put a module above the kernel; returns its hvm_modlist_entry."""
    args = layout.put("module arguments", module.args + b"\0", **low) if module.args else 0
    return struct.pack("<QQQQ", layout.put("initrd", module.data, low=end, align=PAGE), len(module.data), args, 0)
