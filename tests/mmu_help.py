# SPDX-License-Identifier: GPL-2.0-or-later
"""Builders shared by the MMU tests: control-register values and page tables in a MmuBench."""
import struct

import walker

PG, PE, WP = 1 << 31, 1, 1 << 16
PSE, PAE, PGE, PCIDE, SMEP, SMAP = 1 << 4, 1 << 5, 1 << 7, 1 << 17, 1 << 20, 1 << 21
LME, LMA, NXE = 1 << 8, 1 << 10, 1 << 11
P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
READ, WRITE, FETCH = 0, 1, 2
KERNEL_SMAP, USER, KERNEL = 0, 1, 2
STATUS = ("ok", "page-fault", "no-ram", "ept-violation", "ept-misconfig", "gp")

MODES = {"32": dict(cr0=PG | PE, cr4=0, efer=0), "pse": dict(cr0=PG | PE, cr4=PSE, efer=0),
         "pae": dict(cr0=PG | PE, cr4=PAE, efer=0), "long": dict(cr0=PG | PE, cr4=PAE, efer=LME | LMA)}


def pack(*entries):
    return struct.pack(f"<{len(entries)}Q", *entries)


class Tables:
    """Builds 4-level tables (guest or EPT: same shape) in machine memory from page `at` upwards.

    `base` is subtracted from machine addresses to get what the entries hold (a guest's window).
    """

    def __init__(self, bench, at, flags=P | W | U | A | D, base=0):
        self.bench, self.next, self.flags, self.base = bench, at, flags, base
        self.tables = {}
        self.root = self.new_table()

    def new_table(self):
        at, self.next = self.next, self.next + 4096
        return at

    def map(self, va, pa, shift=12, flags=None):
        """Map one page of 1 << shift; tables are made as needed.  Returns the entry's machine address."""
        table, level = self.root, 4
        while 12 + 9 * (level - 1) > shift:
            key = (level, va >> 12 + 9 * (level - 1))
            at = table + 8 * (va >> 12 + 9 * (level - 1) & 511)
            if key not in self.tables:
                self.tables[key] = self.new_table()
                self.bench.write(at, pack(self.tables[key] - self.base | self.flags & ~0x40))
            table = self.tables[key]
            level -= 1
        at = table + 8 * (va >> shift & 511)
        flags = self.flags if flags is None else flags
        self.bench.write(at, pack(pa | flags | (PS if shift > 12 else 0)))
        return at


def context_of(fields, **more):
    """walker.Context from the fields that MmuBench.set takes."""
    names = {"window_base": "base", "window_size": "size"}
    known = walker.Context.__dataclass_fields__
    merged = {names.get(k, k): v for k, v in (fields | more).items()}
    return walker.Context(**{k: v for k, v in merged.items() if k in known})
