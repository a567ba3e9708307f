# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor's state at a guest's first instruction, as a dict.

    mode            "real", "prot32" or "long64"
    rip, eflags     rip is an offset from CS's base
    gpr             {"rax": value ...}; a register that is not named is 0
    cr0 cr3 cr4 efer
    gdt, idt        (base, limit)
    segments        {"es" "cs" "ss" "ds" "fs" "gs" "ldtr" "tr": (selector, base, limit, flags)}

limit is in bytes; flags are bits 8..15 and 20..23 of the descriptor's second word in their places.
"""
import struct

CODE32, DATA32, CODE64 = 0xC09B00, 0xC09300, 0xA09B00       # flat, present, DPL 0, accessed, granularity 4 KiB
CODE16, DATA16 = 0x9B00, 0x9300
LDT, TSS32 = 0x8200, 0x8B00
FLAT = 0xFFFFFFFF
CR0_PE, CR0_ET, CR0_PG = 1, 0x10, 0x80000000
CR4_PAE = 0x20
EFER_LME, EFER_LMA = 0x100, 0x400
DATA_SEGMENTS = ("es", "ss", "ds", "fs", "gs")


def _state(mode, rip, cs, data, gpr, cr0, **more):
    segments = {name: data for name in DATA_SEGMENTS}
    segments.update(cs=cs, ldtr=(0, 0, 0xFFFF, LDT), tr=(0, 0, 0xFFFF, TSS32))
    return {"mode": mode, "rip": rip, "eflags": 2, "gpr": gpr, "cr0": cr0, "cr3": 0, "cr4": 0, "efer": 0,
            "gdt": (0, 0), "idt": (0, 0), "segments": segments, **more}


def reset():
    """After RESET: real mode, first fetch 16 bytes below 4 GiB (SDM 3A 10.1.1, table 10-1)."""
    return _state("real", 0xFFF0, (0xF000, 0xFFFF0000, 0xFFFF, CODE16), (0, 0, 0xFFFF, DATA16), {}, 0x60000010,
                  gdt=(0, 0xFFFF), idt=(0, 0xFFFF))


def protected(rip, gpr, code=8, data=16, gdt=(0, 0)):
    """32-bit protected mode with flat segments, no paging."""
    return _state("prot32", rip, (code, 0, FLAT, CODE32), (data, 0, FLAT, DATA32), gpr, CR0_PE | CR0_ET, gdt=gdt)


def long_mode(rip, gpr, cr3, code, data, gdt):
    """64-bit mode on the page tables at cr3."""
    return _state("long64", rip, (code, 0, FLAT, CODE64), (data, 0, FLAT, DATA32), gpr, CR0_PE | CR0_ET | CR0_PG,
                  cr3=cr3, cr4=CR4_PAE, efer=EFER_LME | EFER_LMA, gdt=gdt)


def descriptor(flags):
    """A flat descriptor (base 0, limit 4 GiB) as the 8 bytes in a GDT."""
    return struct.pack("<II", 0x0000FFFF, flags | 0xF0000)
