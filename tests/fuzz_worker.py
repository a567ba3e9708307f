# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile guests, one a seed: python fuzz_worker.py FOLDER SEED...   (or FIRST:END:STEP)

Prints one JSON line before each guest ({"seed": n}) and one after it; a process that dies or stays silent
names the guest by its last line.  FOLDER holds the frame that `build_frame` made.
Everything about a guest follows from its seed: `python fuzz_worker.py FOLDER 1234` runs the guest again.
"""
import functools
import hashlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyx86v import Machine, _core
from pyx86v.cost.profile import load_profile

HERE = Path(__file__).resolve().parent
ROMS = Path(_core.__file__).resolve().parent / "_roms"
MEMORY = 4 << 20
CYCLES = 300_000              # limit of a guest
SAME = {"max_instructions": 20_000, "max_cycles": 1000 * CYCLES}     # what ends under every style at the same place
# A guest that changes its tables without INVLPG sees what its TLB has kept: styles agree when they tag it and keep pages whole.
WITNESS = {"clock": "instructions", "profile": "skylake", "ept_page": "1G", "engine": "inline"}
SILENT_READS = {"lar", "lsl", "verr", "verw"}       # natively they read a descriptor
CPU_SECONDS = 5                 # processor time of a guest: beyond it the run counts as hung
FILLERS = (b"\x0f\x0b", b"\xf4\xf4", b"\xcc\xcc", b"\0\0", b"\xff\xff")   # of memory that the image leaves: UD2, HLT, INT3 ...
PROFILES = ("skylake", "p4-672", "core2", "nehalem", "zen")

# Where the frame's parts lie (fuzz_guest.S); the payload is reached with 16-bit addresses and segment 0x2000.
BASE, GDT, IDT, IVT, TSS, TSS_2, LDT = 0x10000, 0x12000, 0x13000, 0x14000, 0x15000, 0x16000, 0x17000
TABLES = 0x18000                # ten pages of paging structures
PAYLOAD, LOAD_END, SCRATCH = 0x30000, 0x38000, 0x40000
(LOAD_TABLES, LOAD_SEGMENTS, LOAD_LDT, LOAD_TR, LOAD_CR4, LOAD_EFER, LOAD_CR0, REAL_MODE, LONG_MODE, LONG_TR) = (1 << i for i in range(10))
ESSENTIAL = (*range(BASE >> 12, PAYLOAD + 0x1000 >> 12), *range(SCRATCH >> 12, SCRATCH + 0x8000 >> 12))   # pages always mapped
CODE32, DATA32, CODE64, DATA64, CODE16, DATA16 = 0x08, 0x10, 0x18, 0x20, 0x28, 0x30
USER_CODE32, USER_DATA32, USER_CODE64, TSS_SELECTOR, LDT_SELECTOR = 0x3b, 0x43, 0x4b, 0x50, 0x60
INTERESTING = (0, 1, 2, 8, 0x10, 0xfff, 0x1000, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x10000, 0xa0000, 0xb8000, 0xb8fff, 0xfffff, 0x100000,
               MEMORY - 1, MEMORY - 2, MEMORY, MEMORY + 0x1000, 0x7fffffff, 0x80000000, 0xfee00000, 0xfec00000, 0xfffff000,
               0xfffffffc, 0xffffffff, GDT, IDT, TSS, TABLES, TABLES + 0x1000, PAYLOAD, PAYLOAD + 0xffe, SCRATCH,
               0x7fffffffffff, 0x800000000000, 0xffff800000000000, 0xffffffffffffffff, 0x8000000000000000, 1 << 40, 1 << 52)
MSRS = (0x10, 0x17, 0x1b, 0x3a, 0x8b, 0xfe, 0x174, 0x175, 0x176, 0x1a0, 0x200, 0x20f, 0x250, 0x26f, 0x277, 0x2ff, 0x480, 0x808,
        0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010117)
PORTS = (0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x92, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd,
         0xe8, 0xe9, 0xf4, 0xcf8, 0xcfc, 0xfffc, 0xfffd, 0xfffe, 0xffff)


def build_frame(folder):
    """Assemble fuzz_guest.S into FOLDER/frame.bin, its symbols into FOLDER/frame.json; and the profile of `forgetful`."""
    folder = Path(folder)
    run = functools.partial(subprocess.run, check=True, cwd=folder, capture_output=True, text=True)
    run(["gcc", "-c", "-m64", "-o", "frame.o", str(HERE / "fuzz_guest.S")])
    run(["ld", f"-Ttext={BASE:#x}", "-e", "start", "-o", "frame.elf", "frame.o"])
    run(["objcopy", "-O", "binary", "frame.elf", "frame.bin"])
    symbols = {name: int(at, 16) for at, _, name in (line.split() for line in run(["nm", "frame.elf"]).stdout.splitlines())}
    (folder / "frame.json").write_text(json.dumps(symbols))
    build_forgetful(folder)


def build_forgetful(folder):
    """Write FOLDER/forgetful.toml: the witness's processor with one entry in each array of its TLB, and no walk cache."""
    one = 'status = "estimated"\nsource = "model"\n'
    text = f'base = "{WITNESS["profile"]}"\n'
    for tlb in load_profile(WITNESS["profile"]).tlbs:
        text += f'[tlb.{tlb.name}]\nside = "{tlb.side}"\nlevel = {tlb.level}\npages = {json.dumps(tlb.pages)}\n'
        text += f'entries = 1\nways = 1\nreplacement = "fifo"\n{one}'
    for name in ("pde", "pdpte", "pml4e"):
        text += f"[walk_cache.{name}]\nentries = 0\n{one}"
    Path(folder, "forgetful.toml").write_text(text)


# Data structures of the manual ----------------------------------------------------------------

def descriptor(base, limit, flags):
    """A segment descriptor; flags are bits 8-15 and 20-23 of its second word."""
    return struct.pack("<HHBBBB", limit & 0xffff, base & 0xffff, base >> 16 & 0xff, flags >> 8 & 0xff,
                       (limit >> 16 & 0xf) | (flags >> 16 & 0xf0), base >> 24 & 0xff)


def gate(selector, offset, flags):
    """An interrupt, trap, task or call gate of 8 bytes; flags are bits 0-15 of its second word."""
    return struct.pack("<HHHH", offset & 0xffff, selector, flags, offset >> 16 & 0xffff)


def gdt_of(rng):
    flat = 0xfffff
    table = [bytes(8), descriptor(0, flat, 0xc09b00), descriptor(0, flat, 0xc09300), descriptor(0, flat, 0xa09b00),
             descriptor(0, flat, 0xc09300), descriptor(BASE, 0xffff, 0x009b00), descriptor(BASE, 0xffff, 0x009300),
             descriptor(0, flat, 0xc0fb00), descriptor(0, flat, 0xc0f300), descriptor(0, flat, 0xa0fb00),
             descriptor(TSS, 0x67 + rng.choice((0, 0, 33, 0x2000)), 0x8900), bytes(8),
             descriptor(LDT, 0xff, 0x8200), bytes(8),
             gate(CODE32, PAYLOAD, 0xec00 | rng.randrange(32)), gate(TSS_SELECTOR, 0, 0xe500),          # 0x70 call, 0x78 task gate
             descriptor(TSS_2, 0x2b, 0x8100), descriptor(TSS_2, 0x67, 0x8b00), descriptor(TSS_2, 0x67, 0xe900),  # 16-bit, busy, other
             descriptor(0, flat, 0xc0bb00), descriptor(0, flat, 0xc0b300),                              # ring 1
             descriptor(0, flat, 0xc09f00), descriptor(0, 0xf, 0xc09700), descriptor(0, flat, 0xc01b00),  # conforming, expand-down, absent
             gate(CODE64, PAYLOAD, 0xec00), bytes(8), descriptor(TSS, 0x67, 0x8900), struct.pack("<II", 0x8000, 0x1f00),
             gate(USER_CODE32, PAYLOAD, 0xe400), gate(CODE16, 0, 0xe400)]
    return b"".join(table) + bytes(rng.randrange(256) for _ in range(rng.choice((0, 256))))


def idt_of(rng, frame, width):
    """Skipping handlers in each gate; in a hostile one some gates are nonsense."""
    wide = width == 64
    code, suffix = (CODE64, "64") if wide else (CODE32, "32")
    table = b""
    for vector in range(256):
        name = "finish" if vector == 0x81 else f"ignore{suffix}" if vector > 31 else f"skip{suffix}"
        if vector in (8, 10, 11, 12, 13, 14, 17):
            name = f"skip{suffix}_error"
        flags = 0x8e00 | (0x6000 if vector == 0x81 else rng.choice((0, 0x6000))) | rng.choice((0, 0, 0, 0x100))
        if wide and not rng.randrange(8):
            flags |= rng.randrange(8)
        table += gate(code, frame[name], flags) + (bytes(8) if wide else b"")
    return table


def ivt_of(frame):
    gate = lambda name: struct.pack("<HH", frame[name] - BASE, BASE >> 4)
    return gate("skip16") * 0x81 + gate("finish") + gate("skip16") * 0x7e


def tss_of(rng, width):
    tss = bytearray(104)
    if width == 64:
        struct.pack_into("<QQQ", tss, 4, *(SCRATCH + 0x1000 * n for n in (1, 2, 3)))
        for n in range(7):
            struct.pack_into("<Q", tss, 36 + 8 * n, rng.choice((SCRATCH + 0x4000 + 0x200 * n, 0, 0x800000000000)))
    else:
        for n, stack in enumerate((DATA32, 0xa1, 0xb2)):
            struct.pack_into("<II", tss, 4 + 8 * n, SCRATCH + 0x1000 * (n + 1), stack)
    struct.pack_into("<H", tss, 102, rng.choice((104, 104, 0, 0xffff, 0x67)))
    return bytes(tss) + bytes(33) + b"\xff"


def task_of(rng):
    """A 32-bit task that could run (SDM 3A 7.2.1), or nonsense."""
    if not rng.randrange(3):
        return rng.randbytes(0x68)
    words = [0, SCRATCH + 0x1000, DATA32, SCRATCH + 0x2000, 0xa1, 0, 0, rng.choice((TABLES, TABLES, 0)), PAYLOAD + 32 * rng.randrange(40),
             2 | rng.choice((0, 0x4000, 0x100, 0x20000))] + [rng.choice(INTERESTING) & 0xffffffff for _ in range(4)]
    words += [SCRATCH + 0x5000, 0, 0, 0, DATA32, CODE32, DATA32, DATA32, rng.choice((0, DATA32, 0xb8)), 0, rng.choice((0, LDT_SELECTOR)), 104 << 16]
    return struct.pack("<26I", *words)


def paging_of(rng, mode):
    """(bytes at TABLES, cr3, cr4, efer) that map the first 2 MiB (4 MiB in 32-bit mode) to themselves."""
    rights = lambda: rng.choice((7, 7, 7, 7, 7, 7, 3, 5, 1, 0x107))
    page = lambda n: [TABLES + 0x1000 * (n + 1)]
    if mode == "32":
        directory = [page(0)[0] | 7] + [0x400083 + (i << 22) for i in range(1, 4)] + [0] * 1020
        leaf = [i << 12 | (7 if i in ESSENTIAL else rights()) for i in range(1024)]
        return struct.pack("<2048I", *directory, *leaf), TABLES, rng.choice((0, 0x10)), 0
    leaf = [i << 12 | (7 if i in ESSENTIAL else rights() | (rng.choice((0, 0, 0, 1)) << 63 if mode != "pae" else 0)) for i in range(512)]
    upper = ([page(0)[0] | 1] + [0] * 511,) if mode == "pae" else ([page(0)[0] | 7] + [0] * 511, [page(1)[0] | 7] + [0] * 511)
    level = len(upper)
    directory = [page(level)[0] | 7, 0x2000e7] + [0x83 + (i << 21) for i in range(2, 10)] + [0] * 502
    table = [*sum(upper, []), *directory, *leaf]
    return (struct.pack(f"<{len(table)}Q", *table), TABLES, 0x20 | rng.choice((0, 0x80, 0x10)),
            0 if mode == "pae" else rng.choice((0x100, 0x900, 0x901)))


# Pieces of hostile programs -------------------------------------------------------------------

DEADLY = ("on_stack", "on_device", "on_timer", "on_known_control_register", "on_toggle_control_register", "on_control_register",
          "on_table_load", "on_system_table", "on_table_entry", "on_unusual", "on_nested_task", "on_interrupt_frame", "on_return")


class Piece:
    """Bytes of a few instructions in code of `bits`, which need make no sense."""

    def __init__(self, rng, bits):
        self.rng, self.bits = rng, bits
        self.kinds = [getattr(self, name) for name in dir(self) if name.startswith("on_")]
        self.mild = [kind for kind in self.kinds if kind.__name__ not in DEADLY]

    def bytes(self, n):
        return bytes(self.rng.randrange(256) for _ in range(n))

    def value(self):
        r = self.rng
        return r.choice((r.choice(INTERESTING), r.choice(INTERESTING), r.getrandbits(64), r.getrandbits(32), r.randrange(256))) + r.choice((0, 0, 0, 1, -1))

    def load(self, register, value):
        """MOV register (0-7), value at the widest size."""
        value &= (1 << 64) - 1
        if self.bits == 64:
            return bytes((0x48, 0xb8 | register)) + struct.pack("<Q", value)
        return (b"\x66" if self.bits == 16 else b"") + bytes((0xb8 | register,)) + struct.pack("<I", value & 0xffffffff)

    def prefix32(self):
        return b"\x66" if self.bits == 16 else b""

    def near(self, span=0x800):
        """An absolute address in the payload."""
        return PAYLOAD + self.rng.randrange(span)

    def port(self):
        return self.rng.choice((self.rng.choice(PORTS), self.rng.choice(PORTS), self.rng.randrange(65536)))

    def on_random(self):
        return self.bytes(self.rng.randrange(1, 31))

    def on_two_byte_opcode(self):
        return self.rng.choice((b"", b"\x66", b"\xf3", b"\xf2")) + b"\x0f" + self.bytes(self.rng.randrange(3, 9))

    def on_three_byte_opcode(self):
        return self.rng.choice((b"", b"\x66", b"\xf3", b"\xf2")) + b"\x0f" + self.rng.choice((b"\x38", b"\x3a")) + self.bytes(8)

    def on_vex(self):
        return self.rng.choice((b"\xc4", b"\xc5", b"\x62", b"\x8f")) + self.bytes(9)

    def on_x87(self):
        return b"".join(bytes((0xd8 | self.rng.randrange(8),)) + self.bytes(1) for _ in range(8))

    def on_cpuid(self):
        leaf = self.rng.choice((self.rng.randrange(32), 0x80000000 + self.rng.randrange(32), 0x40000000, self.rng.getrandbits(32)))
        return self.load(0, leaf) + self.load(1, self.rng.randrange(4)) + b"\x0f\xa2"

    def on_msr(self):
        number = self.rng.choice((self.rng.choice(MSRS), self.rng.choice(MSRS), self.rng.getrandbits(32), self.rng.randrange(0x2000)))
        return self.load(1, number) + self.load(0, self.value()) + self.rng.choice((b"\x0f\x30", b"\x0f\x32"))

    def on_msr_edx(self):
        return self.load(1, self.rng.choice(MSRS)) + self.load(2, self.value()) + self.rng.choice((b"\x0f\x30", b"\x0f\x32"))

    def on_port(self):
        return (self.load(2, self.port()) + self.load(0, self.value()) + self.rng.choice((b"", b"\x66"))
                + self.rng.choice((b"\xec", b"\xed", b"\xee", b"\xef", b"\xe4" + self.bytes(1), b"\xe6" + self.bytes(1), b"\xe7" + self.bytes(1))))

    def on_string_port(self):
        return (self.load(2, self.port()) + self.load(1, self.rng.choice((0, 1, 7, 300))) + self.rng.choice((b"", b"\x66", b"\x67"))
                + self.rng.choice((b"", b"\xf3", b"\xf2")) + bytes((0x6c | self.rng.randrange(4),)))

    def on_device(self):
        """A few writes of one byte, an interrupt flag, and time to pass."""
        out = b"".join(b"\xb0" + self.bytes(1) + b"\xe6" + bytes((self.rng.choice(PORTS[:14]),)) for _ in range(5))
        return out + self.rng.choice((b"\xfb\xf4", b"\xfb", b"\xfb\x90\x90", b"\xfa\xf4"))

    def on_timer(self):
        channel = self.rng.randrange(3)
        out = bytes((0xb0, channel << 6 | 0x30 | self.rng.randrange(16), 0xe6, 0x43))
        out += b"".join(bytes((0xb0, self.rng.randrange(256), 0xe6, 0x40 | channel)) for _ in range(2))
        return out + bytes((0xb0, self.rng.choice((0, 0xfe, 0xff)), 0xe6, 0x21)) + b"\xfb" + self.rng.choice((b"\xf4", b"\x90", b"\xf4\xf4"))

    def on_control_register(self):
        return self.load(0, self.value()) + b"\x0f" + self.rng.choice((b"\x20", b"\x22")) + bytes((0xc0 | self.rng.randrange(64),))

    def on_known_control_register(self):
        """Values near legal ones: CR0, CR3, CR4 bit by bit."""
        r = self.rng
        which, base = r.choice(((0, 0x80000011), (0, 0x11), (3, TABLES), (3, TABLES), (4, 0x20), (4, 0xa0), (4, 0)))
        value = base ^ (1 << r.randrange(33)) ^ (1 << r.randrange(33) if r.randrange(2) else 0)
        return self.load(0, value) + bytes((0x0f, 0x22, 0xc0 | which << 3))

    def on_toggle_control_register(self):
        which = self.rng.choice((0, 3, 4))
        bit = 1 << self.rng.randrange(32)
        return (bytes((0x0f, 0x20, 0xc0 | which << 3)) + self.prefix32() + b"\x35" + struct.pack("<I", bit)
                + bytes((0x0f, 0x22, 0xc0 | which << 3)))

    def on_debug_register(self):
        return self.load(0, self.value()) + b"\x0f" + self.rng.choice((b"\x21", b"\x23")) + bytes((0xc0 | self.rng.randrange(64),))

    def on_execution_breakpoint(self):
        return self.load(0, self.near()) + b"\x0f\x23\xc0" + self.load(0, 0x400 | self.rng.getrandbits(8)) + b"\x0f\x23\xf8"

    def on_system_table(self):
        """SGDT SIDT LGDT LIDT SMSW LMSW INVLPG and their neighbours."""
        return self.load(0, self.value()) + b"\x0f\x01" + self.bytes(6)

    def on_table_load(self):
        """LGDT, LIDT of a pseudo-descriptor in scratch memory that was just written."""
        at = SCRATCH if self.bits != 16 else 0x8000
        base = self.rng.choice((GDT, IDT, self.value(), at)) & 0xffffffff
        limit = self.rng.choice((0, 7, 0xff, 0xffff))
        store = lambda off, value: self.store32(at + off, value)
        return store(0, limit | base << 16 & 0xffffffff) + store(4, base >> 16) + self.load(0, at) + b"\x0f\x01" + self.rng.choice((b"\x10", b"\x18"))

    def store32(self, at, value):
        """MOV dword [at], value through the accumulator, except in 16-bit code, where it goes through BX."""
        if self.bits == 16:
            return b"\xbb" + struct.pack("<H", at & 0xffff) + b"\x66\xc7\x07" + struct.pack("<I", value & 0xffffffff)
        return b"\xb8" + struct.pack("<I", at & 0xffffffff) + b"\xc7\x00" + struct.pack("<I", value & 0xffffffff)

    def on_system_selector(self):
        """SLDT STR LLDT LTR VERR VERW, LAR, LSL."""
        opcode = self.rng.choice((b"\x0f\x00", b"\x0f\x00", b"\x0f\x02", b"\x0f\x03"))
        return self.load(0, self.selector()) + opcode + bytes((self.rng.choice((0xc0, 0x00)) | self.rng.randrange(64),))

    def selector(self):
        return self.rng.choice((self.rng.randrange(0x100), self.rng.randrange(0x100) & ~7, self.rng.randrange(65536), TSS_SELECTOR, 0x78, 0x70))

    def on_task_register(self):
        return self.load(0, self.selector()) + b"\x0f\x00" + self.rng.choice((b"\xd8", b"\xd0"))

    def on_segment_load(self):
        return self.load(0, self.selector()) + b"\x8e" + bytes((0xc0 | self.rng.randrange(64),)) + self.bytes(2)

    def on_segment_pop(self):
        return self.rng.choice((b"\x07", b"\x17", b"\x1f", b"\x0f\xa1", b"\x0f\xa9", b"\xc4\x00", b"\xc5\x00", b"\x0f\xb2\x00", b"\x0f\xb5\x00"))

    def on_far_transfer(self):
        """Direct far jump or call, or an indirect one through scratch memory."""
        target = self.rng.choice((self.near(), self.value() & 0xffffffff, PAYLOAD))
        if self.bits != 64 and self.rng.randrange(2):
            wide = struct.pack("<I", target & 0xffffffff) if self.bits == 32 else struct.pack("<H", target & 0xffff)
            return self.rng.choice((b"\xea", b"\x9a")) + wide + struct.pack("<H", self.selector() & 0xffff)
        at = SCRATCH + 0x20 if self.bits != 16 else 0x8020
        return (self.store32(at, target) + self.store32(at + 4, self.selector()) + self.load(0, at)
                + self.rng.choice((b"\xff\x28", b"\xff\x18", b"\x48\xff\x28", b"\x48\xff\x18")))

    def on_task_switch(self):
        """Far transfer to a task, through a TSS selector or a task or call gate; in 64-bit code through memory."""
        selector = self.rng.choice((TSS_SELECTOR, 0x78, 0x80, 0x88, 0x90, 0x70, 0xc0, 0xe0, 0xe8))
        if self.bits == 64:
            return self.store32(SCRATCH + 0x24, selector) + self.load(0, SCRATCH + 0x20) + self.rng.choice((b"\xff\x28", b"\xff\x18"))
        return self.rng.choice((b"\xea", b"\x9a")) + bytes(4 if self.bits == 32 else 2) + struct.pack("<H", selector | self.rng.choice((0, 0, 3)))

    def on_far_return(self):
        """RETF to a code segment of any ring, with a stack behind it."""
        code = self.rng.choice((CODE32, CODE64, USER_CODE32, USER_CODE64, 0x99, 0xa8, 0xab, self.selector() & 0xffff))
        stack = self.rng.choice((DATA32, USER_DATA32, 0xa1, 0, self.selector() & 0xffff))
        push = b"".join(self.prefix32() + b"\x68" + struct.pack("<I", w) for w in (stack, SCRATCH + 0x6000, code, self.near()))
        return push + (self.rng.choice((b"\x48\xcb", b"\x48\xca\0\0")) if self.bits == 64 else self.prefix32() + self.rng.choice((b"\xcb", b"\xca\0\0")))

    def on_interrupt(self):
        return self.rng.choice((b"\xcd" + self.bytes(1), b"\xcd" + bytes((self.rng.randrange(32),)), b"\xcc", b"\xce", b"\xf1"))

    def on_return(self):
        return self.rng.choice((b"\xcf", b"\x48\xcf", b"\x66\xcf", b"\xcb", b"\x48\xcb", b"\x66\xcb", b"\xca\x08\x00", b"\xc3", b"\xc2\x04\x00"))

    def on_nested_task(self):
        """IRET with NT set."""
        return b"\x9c" + (b"\x81\x0c\x24\x00\x40\x00\x00" if self.bits != 16 else b"\x58\x80\xcc\x40\x50") + b"\x9d" + b"\xcf"

    def on_flags(self):
        """POPF of a random image: TF, NT, RF, VM, AC, IOPL and all."""
        size = b"\x66\x68" + self.bytes(4) + b"\x66\x9d" if self.bits == 16 else b"\x68" + self.bytes(4) + b"\x9d"
        return size

    def on_single_step(self):
        return b"\x9c" + (b"\x80\x4c\x24\x01\x01" if self.bits != 16 else b"\x58\x80\xcc\x01\x50") + b"\x9d"

    def on_interrupt_frame(self):
        """IRET of a frame made of random values."""
        words = [self.value(), self.rng.choice((0, 0x10, self.selector())), self.value(), self.rng.getrandbits(19), self.selector(), self.near()]
        push = b"".join(self.prefix32() + b"\x68" + struct.pack("<I", w & 0xffffffff) for w in words)
        return push + (b"\x48\xcf" if self.bits == 64 else self.prefix32() + b"\xcf")

    def on_system_call(self):
        return self.rng.choice((b"\x0f\x34", b"\x0f\x35", b"\x0f\x05", b"\x0f\x07", b"\x48\x0f\x07", b"\x48\x0f\x35", b"\x0f\x01\xf8"))

    def on_unusual(self):
        return self.rng.choice((b"\x0f\xaa", b"\x0f\x0b", b"\x0f\xb9\xc0", b"\x0f\xff\xc0", b"\x0f\x09", b"\x0f\x08", b"\x0f\x06", b"\x0f\x33",
                                b"\x0f\x31", b"\x0f\x37", b"\x0f\x01\xf9", b"\x0f\x01\xfa", b"\x0f\x01\xca", b"\x0f\x01\xcb", b"\x9b", b"\xf4",
                                b"\xd6", b"\x0f\x04", b"\x0f\x0d\x00", b"\x0f\x18\x00", b"\x0f\x1f\xc0"))

    def on_virtualization(self):
        """VMX and SVM instructions, XSETBV, MONITOR and what shares their opcodes."""
        return self.rng.choice((b"\x0f\x01" + bytes((0xc0 | self.rng.randrange(64),)), b"\x0f\x78" + self.bytes(2), b"\x0f\x79" + self.bytes(2),
                                self.rng.choice((b"", b"\x66", b"\xf3")) + b"\x0f\xc7" + bytes((self.rng.choice((0x30, 0x38, 0xf0, 0xf8)),)),
                                b"\x66\x0f\x38" + bytes((0x80 | self.rng.randrange(3), self.rng.randrange(192)))))

    def on_state_save(self):
        """FXSAVE, XSAVE, LDMXCSR, CLFLUSH, RDFSBASE and their neighbours; CMPXCHG8B, XSAVES, RDRAND."""
        return (self.load(0, self.value()) + self.load(2, self.value()) + self.rng.choice((b"", b"\xf3", b"\x66", b"\x48"))
                + self.rng.choice((b"\x0f\xae", b"\x0f\xc7")) + self.bytes(1) + self.bytes(5))

    def on_locked(self):
        return self.load(3, self.value()) + b"\xf0" + self.bytes(6)

    def on_many_prefixes(self):
        return bytes(self.rng.choice((0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0xf0)) for _ in range(self.rng.randrange(12, 18))) + self.rng.choice((b"\x90", b"\x0f\xa2", b"\x8b\x00", b"\xa5"))

    def on_string(self):
        """REP MOVS, CMPS, STOS, LODS, SCAS anywhere."""
        count = self.rng.choice((0, 1, 5, 0x1000, 0x3000))
        direction = self.rng.choice((b"\xfc", b"\xfc", b"\xfd"))
        if self.bits == 64:
            return (b"\x48\xbe" + struct.pack("<Q", self.value() & (1 << 64) - 1) + b"\xbf" + struct.pack("<I", self.value() & 0xffffffff)
                    + b"\xb9" + struct.pack("<I", count) + direction + self.rng.choice((b"\xf3", b"\xf2", b"\xf3\x48")) + bytes((0xa4 + self.rng.randrange(12),)))
        return (self.load(6, self.value()) + self.load(7, self.value()) + self.load(1, count) + direction + self.rng.choice((b"", b"\x66", b"\x67"))
                + self.rng.choice((b"\xf3", b"\xf2")) + bytes((0xa4 + self.rng.randrange(12),)))

    def on_own_code(self):
        """Stores to the payload, near and far, and to what is just about to run."""
        if self.bits == 64:
            return b"\xc6\x05" + struct.pack("<i", self.rng.randrange(-200, 200)) + self.bytes(1) + b"\x90" * self.rng.randrange(8)
        if self.bits == 32:
            return b"\xc6\x05" + struct.pack("<I", self.near()) + self.bytes(1) + b"\x90" * self.rng.randrange(8)
        return b"\x2e\xc6\x06" + struct.pack("<H", self.near() & 0xffff) + self.bytes(1)

    def on_memory(self):
        opcode = self.rng.choice((b"\x8b", b"\x89", b"\x01", b"\x87", b"\xff", b"\x8f"))
        return self.load(3, self.value()) + self.rng.choice((b"", b"\x66", b"\x48")) + opcode + self.rng.choice((b"\x03", b"\x33", b"\x43")) + self.bytes(1)

    def on_jump(self):
        target = self.rng.choice((self.value(), self.value(), self.near(), MEMORY - self.rng.randrange(20)))
        return self.load(0, target) + self.prefix32() + self.rng.choice((b"\xff\xe0", b"\xff\xd0"))

    def on_stack(self):
        return self.load(4, self.value()) + self.rng.choice((b"\x50", b"\x58", b"\x60", b"\x61", b"\xc9", b"\x9c", b"\xc8\x10\x00\x1f", b"\xe8\0\0\0\0", b"\xcd\x30"))

    def on_arithmetic_fault(self):
        return self.rng.choice((b"\x31\xc0\xf7\xf0", b"\xd4\x00", b"\x62\x00", b"\x63\xc0", b"\xf7\xf1", b"\xf6\xf1", b"\x0f\x05", b"\x27", b"\x37"))

    def on_table_entry(self):
        """Overwrite an entry of a descriptor table, the TSS or a paging structure, then maybe flush."""
        r = self.rng
        at = r.choice((GDT, IDT, TSS, LDT, TABLES, TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000)) + 4 * r.randrange(64)
        value = r.choice((0, r.getrandbits(32), TABLES | 7, 0x83, 0xfee00007, 0xe7, MEMORY | 7, at & ~0xfff | 0x87))
        flush = r.choice((b"", b"\x0f\x20\xd8\x0f\x22\xd8", self.load(0, self.near()) + b"\x0f\x01\x38"))
        return self.store32(at & 0xffff if self.bits == 16 else at, value) + flush

    def on_loop(self):
        return self.load(1, self.rng.choice((1, 30, 3000))) + self.rng.choice((b"\xe2\xfe", b"\x40\xe2\xfd", b"\x90\xe2\xfd"))

    def on_window(self):
        """Interrupt shadows."""
        return self.rng.choice((b"\xfb\xfb\xf4", b"\xfb\x8e\xd0\xf4", b"\x8e\xd0\x8e\xd0", b"\xfb\xcd\x80", b"\xfb\x0f\xa2", b"\xfb\xcf"))


def program(rng, bits, pieces):
    """Pieces at multiples of 32 bytes, most of them such that the next will run; INT 81h behind them ends the guest."""
    piece = Piece(rng, bits)
    favourites = rng.sample(piece.mild, 6)
    code = b""
    for _ in range(pieces):
        part = rng.choice(favourites if rng.randrange(3) else piece.mild if rng.randrange(8) else piece.kinds)()
        code += part + b"\x90" * (-len(part) % 32)
    return code


# Families of guests ---------------------------------------------------------------------------

def random_firmware(rng, frame):
    size = rng.choice((1, 2)) << 16
    data = bytearray(rng.randbytes(size))
    if rng.randrange(4):
        data[-16:-11] = b"\xea" + struct.pack("<HH", rng.randrange(65536), rng.choice((0xf000, 0xe000, rng.randrange(65536))))
    if rng.randrange(3) == 0:                        # mostly legal bytes: a program of pieces
        start = rng.randrange(0x8000) & ~31
        code = program(rng, 16, 100)
        data[-65536 + start:-65536 + start + len(code)] = code
        data[-16:-11] = b"\xea" + struct.pack("<HH", start, 0xf000)
    return bytes(data), None


def random_kernel(rng, frame):
    header = struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, 0x100000, 0x100000, 0, 0, 0x100020)
    return header + rng.randbytes(rng.choice((64, 4096, 20000))), None


def mutated_rom(rng, frame):
    """A bundled guest: bytes changed in its image, or in its live tables after it has run a while."""
    path = rng.choice(sorted(ROMS.glob("*.elf")) + [ROMS / "bios.bin"])
    data = bytearray(path.read_bytes())
    start = 0x1000 if path.suffix == ".elf" else 0
    after = rng.choice((None, 50, 500, 5000))
    if after is None:
        for _ in range(rng.choice((1, 4, 30, 300))):
            at = rng.randrange(min(start, len(data) - 1), len(data))
            data[at] = rng.choice((rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
        return bytes(data), None

    def mutate(machine):
        machine.run(max_instructions=after, max_cycles=1000 * CYCLES)      # the same place under every style
        registers = machine.registers
        for _ in range(rng.choice((1, 3, 10, 40))):
            base = rng.choice((registers["gdtr_base"], registers["idtr_base"], registers["tr"][1], registers["cr3"] & ~0xfff,
                               registers["cs"][1] + registers["rip"], registers["rsp"], rng.randrange(MEMORY)))
            at = (base + rng.randrange(rng.choice((64, 256, 4096)))) & 0xffffffff
            if base == registers["cr3"] & ~0xfff and rng.randrange(2) and at < MEMORY - 8:   # a level further down
                at = int.from_bytes(machine.read_memory(at & ~7, 8), "little") & 0xfffff000
            if at < machine.memory:
                machine.write_memory(at, rng.choice((rng.randbytes(1), rng.randbytes(4), bytes(4))))
    return bytes(data), mutate


MODES = ("real", "32", "32 paging", "pae", "long", "compatible", "user32", "user64", "v86", "ring1")


def structured(rng, frame, mode=None, code=None):
    """The frame of fuzz_guest.S with tables for `mode` and a program of pieces, some tables made hostile."""
    mode = mode or rng.choice(MODES)
    bits = 16 if mode in ("real", "v86") else 64 if mode in ("long", "user64") else 32
    wide = mode in ("long", "user64", "compatible")
    paging = {"32 paging": "32", "pae": "pae"}.get(mode) or ("long" if wide else rng.choice((None, "32", "pae")) if mode in ("user32", "v86", "ring1") else None)
    image = bytearray(frame["image"])
    steps = LOAD_TABLES | LOAD_SEGMENTS | rng.choice((0, LOAD_LDT))
    cr0, tables, cr3, cr4, efer = 0x11, b"", 0, 0, 0
    if mode == "real":
        steps |= REAL_MODE
    if paging:
        steps |= LOAD_CR4 | LOAD_CR0
        cr0 |= 0x80000000 | rng.choice((0, 0x10000))
        tables, cr3, cr4, efer = paging_of(rng, paging)
    if wide:
        steps |= LOAD_EFER | LONG_MODE | LONG_TR
    else:
        steps |= LOAD_TR if rng.randrange(8) else 0
    cs, data, flags = {"real": (0x3000, 0x4000, 0), "v86": (0x3000, 0x4000, 0x20000), "user32": (USER_CODE32, USER_DATA32, 0),
                       "long": (CODE64, DATA64, 0), "compatible": (CODE32, DATA32, 0), "user64": (USER_CODE64, USER_DATA32, 0),
                       "ring1": (0x99, 0xa1, 0)}.get(mode, (CODE32, DATA32, 0))
    flags |= 2 | rng.choice((0, 0, 0x3000)) | rng.choice((0, 0, 0, 0x100, 0x4000, 0x40000)) | rng.choice((0, 0x200))
    segments = [data if mode == "real" else DATA32] * 5
    stack = {"real": 0x2000}.get(mode, SCRATCH + 0x7000) & (0xffff if bits == 16 else ~0)
    target = 0 if bits == 16 else PAYLOAD
    word = "<9Q" if wide else "<9H" if mode == "real" else "<9I"
    entry = struct.pack(word, target, cs, flags & 0xffff if mode == "real" else flags, stack, data, *([0x4000, 0x4000, 0, 0]))
    if mode == "real":
        segments = [0x4000, 0x4000, BASE >> 4, 0, 0]

    def put(where, data):
        image[where - BASE:where - BASE + len(data)] = data + bytes(-len(data) % 32 if where == PAYLOAD else 0)
    for name, value in (("steps", steps), ("cr0", cr0), ("cr3", cr3), ("cr4", cr4), ("efer", efer)):
        put(frame[name], struct.pack("<I", value))
    put(frame["segments"], struct.pack("<5H", *segments))
    put(frame["ldt_selector"], struct.pack("<HH", LDT_SELECTOR, TSS_SELECTOR))
    put(frame["gdtr"], struct.pack("<HI", 0x1ff, GDT))
    put(frame["idtr"], struct.pack("<HI", 0xfff if wide else 0x7ff, IDT))
    put(frame["real_idtr"], struct.pack("<HI", 0x3ff, IVT))
    put(frame["gpr"], struct.pack("<15Q", *(rng.choice(INTERESTING) for _ in range(15))))
    put(frame["frame"], entry)
    put(GDT, gdt_of(rng))
    put(IDT, idt_of(rng, frame, 64 if wide else 32))
    put(IVT, ivt_of(frame))
    put(TSS, tss_of(rng, 64 if wide else 32))
    put(TSS_2, task_of(rng))
    put(LDT, gdt_of(rng)[:256])
    put(TABLES, tables)
    put(PAYLOAD, code(bits) if code else program(rng, bits, rng.randrange(10, 60)))
    image += (b"\xcd\x81".ljust(32, b"\x90")) * ((LOAD_END - BASE - len(image)) // 32)
    return image, put


def hostile_program(rng, frame):
    return bytes(structured(rng, frame)[0]), None


def random_program(rng, frame):
    """Random bytes in every mode, with fault handlers that go on."""
    return bytes(structured(rng, frame, code=lambda bits: rng.randbytes(3000))[0]), None


def hostile_tables(rng, frame):
    """Tables with wrong bytes: descriptors, gates, task state, paging structures, control registers, the first frame."""
    image, put = structured(rng, frame)
    for _ in range(rng.choice((1, 2, 5, 20))):
        where = rng.choice((GDT, IDT, TSS, LDT, IVT, TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000,
                            frame["cr0"], frame["cr3"], frame["cr4"], frame["efer"], frame["gdtr"], frame["idtr"], frame["real_idtr"],
                            frame["segments"], frame["ldt_selector"], frame["frame"], frame["frame"] + 8))
        if where < GDT:
            at = where + rng.randrange(4)
            put(at, bytes((image[at - BASE] ^ 1 << rng.randrange(8),)) if rng.randrange(2) else rng.randbytes(1))
        elif where >= TABLES:                        # tables that map themselves, reserved bits, holes, the end of memory
            value = rng.choice((rng.getrandbits(64), where | 7, where | 0x87, TABLES | 7, MEMORY | 7, 0xfee00007, (1 << 51) | 7, MEMORY - 0x1000 | 7))
            put(where + 8 * rng.choice((0, 0, 1, 0x10, 0x12, 0x13, 0x15, 0x30, rng.randrange(512))), struct.pack("<Q", value))
        else:
            at = where + 8 * rng.choice((rng.randrange(16), rng.randrange(32)))
            put(at, rng.choice((rng.randbytes(8), bytes(8), rng.randbytes(2), b"\0\0\x50\0\0\xe5\0\0", b"\0\0\x08\0\0\xec\0\0", b"\xff" * 8)))
    return bytes(image), None


def at_the_edge(rng, frame):
    """Code and data that run off the end of memory, into holes, and from page to page."""
    edge = rng.choice((MEMORY, MEMORY, 0x100000, 0xa0000, 0x31000))
    mode = rng.choice(("32", "32 paging"))

    def code(bits):
        piece = Piece(rng, bits)
        text = program(rng, bits, 6)
        start = edge - rng.randrange(1, len(text) + 1)
        # copy the program to just before the edge, then jump there
        return (piece.load(6, PAYLOAD + 0x100) + piece.load(7, start) + piece.load(1, edge - start) + b"\xfc\xf3\xa4"
                + piece.load(0, start) + b"\xff\xe0").ljust(0x100, b"\x90") + text
    return bytes(structured(rng, frame, mode, code)[0]), None


FAMILIES = (hostile_program, hostile_tables, mutated_rom, random_program, hostile_program, random_kernel, mutated_rom, hostile_tables,
            random_firmware, hostile_program, at_the_edge, hostile_tables)


STYLES = sorted(_core.styles())


# Running --------------------------------------------------------------------------------------

def load_frame(folder):
    folder = Path(folder)
    frame = json.loads((folder / "frame.json").read_text())
    frame["forgetful"] = str(folder / "forgetful.toml")
    frame["image"] = (folder / "frame.bin").read_bytes().ljust(PAYLOAD - BASE, b"\0")
    return frame


def options_of(seed):
    """Style, engine, clock and profile of a seed: all combinations come round."""
    rng = random.Random(seed * 7919 + 1)
    style = STYLES[seed // len(FAMILIES) % len(STYLES)]
    engine = rng.choice(("inline", "inline", "portable"))
    return {"style": style, "engine": "inline" if style == "bt+shadow" else engine,     # styles that translate need it
            "clock": rng.choice(("cycles", "instructions")), "profile": rng.choice(PROFILES),
            "ept_page": rng.choice(("4K", "4K", "2M", "1G"))}


def run(frame, seed, digest=True, limits={"max_cycles": CYCLES}, **changed):
    """Build and run the guest of a seed.  A dict that describes the end."""
    rng = random.Random(seed)
    family = FAMILIES[seed % len(FAMILIES)]
    data, mutate = family(rng, frame)
    options = {**options_of(seed), **changed}
    path = Path(frame["folder"], "guest")            # always the same name: a multiboot guest reads it in its memory
    path.write_bytes(data)
    machine = Machine(memory=MEMORY, seed=seed, **options)
    machine.write_memory(0, (rng.choice(FILLERS) * (MEMORY // 2))[:MEMORY])
    try:
        machine.load(path)
    except ValueError as error:                      # a mutated header: one line, and the guest never starts
        return {"reason": "refused", "lines": str(error).count("\n") + 1}
    if mutate:
        mutate(machine)
    stop = machine.run(**limits)
    units = machine.ledger_units
    result = {"reason": stop.reason.value, "status": stop.status, "detail": stop.detail, "instructions": machine.instructions,
              "cycles": machine.cycles, "adds_up": sum(units.values()) == machine.units and sum(machine.ledger.values()) == machine.cycles,
              "events": hashlib.sha256(repr(machine.events).encode()).hexdigest()[:8], "exits": sum(x["count"] for x in machine.exits.values())}
    if options.get("audit"):
        result["silent_reads"] = sum(row["count"] for row in machine.census if row["mnemonic"] in SILENT_READS)
    if digest:
        result["digest"] = machine.digest()
        result["console"] = hashlib.sha256(machine.console + machine.debug_console + repr(machine.report).encode()).hexdigest()[:16]
    return result


def main(folder, *words):
    """Run the seeds named by the words."""
    frame = load_frame(folder)
    with tempfile.TemporaryDirectory(dir=folder) as frame["folder"]:
        run_all(frame, words)


def run_all(frame, words):
    checks = os.environ.get("FUZZ_CHECKS", "")
    seeds = [n for word in words for n in (range(*map(int, word.split(":"))) if ":" in word else [int(word)])]
    for seed in seeds:
        limit_cpu(CPU_SECONDS * (1 + 3 * bool(checks)))
        print(json.dumps({"seed": seed, "family": FAMILIES[seed % len(FAMILIES)].__name__, **options_of(seed)}), flush=True)
        start = time.process_time()
        result = run(frame, seed, digest=bool(checks))
        result["seconds"] = round(time.process_time() - start, 3)
        if checks:
            result["again"] = run(frame, seed)
            for style in STYLES:
                result[style] = run(frame, seed, limits=SAME, style=style, **WITNESS)
            result["portable"] = run(frame, seed, limits=SAME, style="native", **{**WITNESS, "engine": "portable"})
            result["forgetful"] = run(frame, seed, limits=SAME, style="native", **{**WITNESS, "profile": frame["forgetful"]}, audit=True)
        print(json.dumps({"seed": seed, **result}), flush=True)


def limit_cpu(seconds):
    """The process dies by SIGXCPU when it uses more processor time than this from now on."""
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, resource.RLIM_INFINITY))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(*sys.argv[1:])
