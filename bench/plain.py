# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn as it comes from its makers, to measure against.

Its own page walker, no BLOCK, CODE or MEM hook; only the hooks on IN and OUT that a ROM needs to print and to end.
The ROMs map their data no-execute themselves, which is what makes plain Unicorn fast: it watches every store to
a page that may execute.
"""
import struct
import time

import unicorn
from unicorn import x86_const as x86

from pyx86v import boot

COM1, LINE_STATUS, END = 0x3F8, 0x3FD, 0xF4
OWN_GDT = 0x7000
FLAT = struct.pack("<8xQQQ", 0xCF9B000000FFFF, 0xCF93000000FFFF, 0)     # null, 32-bit code, data


class Plain:
    """A multiboot ROM in a fresh Unicorn, ready to run; `console` and `status` are what it then gave."""

    def __init__(self, path, memory=64 << 20):
        self.console, self.status, self.instructions = bytearray(), None, 0
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)            # the model that engine/ uses
        uc.mem_map(0, memory)
        image = boot.load(path, memory)
        for gpa, data in image.segments:
            uc.mem_write(gpa, data)
        self._enter(image.entry)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._in, None, 1, 0, x86.UC_X86_INS_IN)

    def _enter(self, entry):
        """The state that Multiboot defines; Unicorn can load a selector only from a table in memory."""
        uc, self.start = self.uc, entry["rip"]
        uc.mem_write(OWN_GDT, FLAT)
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, OWN_GDT, len(FLAT) - 1, 0))
        uc.reg_write(x86.UC_X86_REG_CR0, entry["cr0"])
        uc.reg_write(x86.UC_X86_REG_CS, 8)
        for name in ("DS", "ES", "FS", "GS", "SS"):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 16)
        for name, value in entry["gpr"].items():
            uc.reg_write(getattr(x86, f"UC_X86_REG_E{name[1:].upper()}"), value)

    def _out(self, uc, port, size, value, _):
        if port == COM1:
            self.console.append(value & 0xFF)
        elif port == END:
            self.status = value & 0xFF
            uc.emu_stop()

    def _in(self, uc, port, size, _):
        return 0x60 if port == LINE_STATUS else 0

    def count_in_python(self, limit):
        """What tools built on Unicorn do first: a Python hook on every instruction that counts; ends at `limit`."""
        def count(uc, address, size, _):
            self.instructions += 1
            if self.instructions >= limit:
                uc.emu_stop()
        self.uc.hook_add(unicorn.UC_HOOK_CODE, count, None, 1, 0)

    def run(self):
        """Run to the end; the seconds of this thread that it took, translation included."""
        start = time.thread_time()
        self.uc.emu_start(self.start, 0xFFFFFFFF)
        return time.thread_time() - start
