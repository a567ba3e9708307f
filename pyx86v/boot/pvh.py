# SPDX-License-Identifier: GPL-2.0-or-later
"""PVH: an ELF kernel with a 32-bit entry point in a Xen note (Xen, docs/misc/pvh.pandoc and arch-x86/hvm/start_info.h)."""
import struct

from pyx86v.boot import elf, state
from pyx86v.boot.image import LOW_END, PAGE, BootImage, Layout, memory_map

NOTE = (b"Xen", 18)             # XEN_ELFNOTE_PHYS32_ENTRY
START_MAGIC, VERSION = 0x336EC578, 1
TSS_LIMIT = 0x67


def entry_of(kernel):
    """The physical entry point, or None if the kernel has no such note."""
    note = kernel.notes.get(NOTE, b"")
    return int.from_bytes(note[:8], "little") if len(note) in (4, 8) else None


def load(path, kernel, memory_bytes, kernel_args=b"", initrd=None):
    """BootImage of a parsed ELF kernel with the note."""
    layout, start = Layout(path, memory_bytes), entry_of(kernel)
    end = elf.place(kernel, layout)
    if not any(gpa <= start < gpa + size for gpa, _, size in kernel.loads):
        raise layout.error("PHYS32_ENTRY", f"{start:#x} lies in no loaded segment")
    low = {"low": 0x9000, "high": LOW_END}
    cmdline = layout.put("command line", kernel_args + b"\0", **low)
    entries = memory_map(memory_bytes)
    memmap = layout.put("memory map", b"".join(struct.pack("<QQII", *entry, 0) for entry in entries), **low)
    modules = 0
    if initrd is not None:
        at = layout.put("initrd", initrd, low=end, align=PAGE)
        modules = layout.put("module list", struct.pack("<QQQQ", at, len(initrd), 0, 0), **low)
    info = struct.pack("<IIIIQQQQII", START_MAGIC, VERSION, 0, int(initrd is not None), modules, cmdline, 0, memmap, len(entries), 0)
    cpu = state.protected(start, {"rbx": layout.put("start info", info, **low)})
    cpu["segments"]["tr"] = (0, 0, TSS_LIMIT, state.TSS32)
    return BootImage("pvh", layout.segments, cpu, f"PVH kernel, entry {start:#x}")
