# SPDX-License-Identifier: GPL-2.0-or-later
"""Two plain Unicorns for the translator's test: one runs guest instructions in ring 0, the other their translation in ring 1.

Neither is pyx86v's engine: page tables, segments and the way into ring 1 are made here, and the monitor is a few lines of Python that
answer the three interrupts of translated code.  Both map the guest's code and data at the same addresses; only the second maps the
monitor's memory.
"""
import ctypes
import mmap
import struct
from array import array

from unicorn import UC_ARCH_X86, UC_ERR_INSN_INVALID, UC_HOOK_INTR, UC_MODE_32, UC_MODE_64, UC_PROT_ALL, Uc, UcError
from unicorn import x86_const as x86

from pyx86v.vmm.bt.translate import CELLS, LAYOUT, cells_page, empty_key, translate

# Physical memory
RAM = 0x2200000
TABLES, MONITOR_TABLES, CODE, DATA, CACHE, CELL, TARGETS = 0x10000, 0x80000, 0x400000, 0x800000, 0x1000000, 0x2000000, 0x2010000
CODE_BYTES, DATA_PAGES, CACHE_BYTES = 0x100000, 8, 0x400000
WRITABLE, READ_ONLY = (1, 2, 3, 5), (6,)             # pages of DATA; 0, 4 and 7 are not there
# Where the guest has them
DATA_BIAS = 0x400000             # data lies at code + this, in each alias
ALIASES = {64: (0x400000, 0xffffffff81000000, 0x7f1234400000, 0xffff888000400000), 32: (0x400000, 0xc0400000), 16: (0x400000,)}
FLAGS = 0xcd5                    # CF PF AF ZF SF DF OF
FL_IF, FL_IOPL = 0x200, 0x3000
HLT = 0xf4
UD, GP, PF = 6, 13, 14
NX = 1 << 63

DATA16_BASE = 0x7fc000           # base of the 16-bit segments: their offset 0x4000 is DATA
EXTRA_BASE = DATA + 0x1000       # base of FS and, in 64-bit mode and for the guest, of GS
ENV_HFLAGS, ENV_SEGS = 0xb0, 0xb8
HF_CS32, HF_SS32, HF_ADDSEG, HF_LMA, HF_CS64 = 1 << 4, 1 << 5, 1 << 6, 1 << 14, 1 << 15
SELECTORS = (0x53, 0x40, 0x48, 0x53, 0x63, 0x6b)         # ES CS SS DS FS GS of the guest; nothing loads them


class Paging:
    """Page tables of 4 KiB pages, long mode's or PAE's, in physical memory from `at` on."""
    def __init__(self, machine, levels, at):
        self.machine, self.levels, self.next = machine, levels, at
        self.root = self.table()

    def table(self):
        self.next += 0x1000
        return self.next - 0x1000

    def map(self, linear, physical, rights=3):
        """rights: 1 present, 2 writable, 1 << 63 not executable."""
        table = self.root
        for level in range(self.levels - 1, 0, -1):
            at = table + (linear >> 12 + 9 * level & 511) * 8
            entry = int.from_bytes(self.machine.get(at, 8), "little")
            if not entry:
                entry = self.table() | (1 if level == 2 and self.levels == 3 else 3)      # PAE's first level has no rights
                self.machine.put(at, entry.to_bytes(8, "little"))
            table = entry & ~0xfff
        self.machine.put(table + (linear >> 12 & 511) * 8, (physical | rights).to_bytes(8, "little"))

    def map_range(self, linear, physical, size, rights=3):
        for offset in range(0, size, 0x1000):
            self.map(linear + offset, physical + offset, rights)


class Machine:
    """A processor with a guest's code and data, in ring `ring`.

    bits    16, 32 or 64: the guest's code; in ring 1 16-bit guest code runs as 32-bit code
    stack16 SS is a 16-bit segment that is not flat
    """
    def __init__(self, bits, ring, stack16=False, ram=None):
        self.bits, self.ring, self.stack16 = bits, ring, stack16
        self.wide = bits == 64
        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64 if self.wide else UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)
        self.ram = ram or mmap.mmap(-1, RAM)
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        uc.mem_map_ptr(0, RAM, UC_PROT_ALL, self.host)
        cpu = ctypes.c_uint64.from_address(uc._uch.value + 0x1b8).value
        self.env = ctypes.c_uint64.from_address(cpu + 0x128).value
        self.gpr = (ctypes.c_uint64 * 16).from_address(self.env)
        uc.hook_add(UC_HOOK_INTR, self.on_interrupt)
        self.event = None
        self.paging()
        self.segments()
        for number in range(8):
            uc.reg_write(x86.UC_X86_REG_XMM0 + number, 0x0123456789abcdef0fedcba987654321 * (number + 3) & (1 << 128) - 1)
        self.n_gpr = 16 if self.wide else 8
        self.state = uc.context_save()
        self.put(CODE, bytes([HLT]) * CODE_BYTES)

    def paging(self):
        uc = self.uc
        p = Paging(self, 4 if self.wide else 3, MONITOR_TABLES if self.ring else TABLES)
        for code in ALIASES[self.bits]:
            p.map_range(code, CODE, CODE_BYTES, 1)
            for page in WRITABLE + READ_ONLY:
                p.map(code + DATA_BIAS + page * 0x1000, DATA + page * 0x1000, NX | (3 if page in WRITABLE else 1))
        if self.ring:
            self.base = LAYOUT["base64" if self.wide else "base32"]
            p.map_range(self.base, CACHE, CACHE_BYTES)
            p.map(self.base + LAYOUT["data"], CELL)
            p.map_range(self.base + LAYOUT["table"], TARGETS, 0x40000)
        uc.reg_write(x86.UC_X86_REG_CR3, p.root)
        uc.reg_write(x86.UC_X86_REG_CR4, 0x10620 | (4 if self.ring else 8))      # FSGSBASE, SSE, PAE; TSD or DE
        uc.msr_write(0xc0000080, 0xd00 if self.wide else 0x800)
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80010031 | (0 if self.ring else 2))                       # PG WP NE ET PE; MP

    def segments(self):
        """Put the segments and, with them, the ring into the processor's state."""
        wide, ring = self.wide, self.ring
        flat = (0, 0xffffffff, 1 << 22 | 1 << 23)
        small = (DATA16_BASE, 0xffff, 0)
        data = small if self.bits == 16 else flat
        code = (0, 0xffffffff, 1 << 21 | 1 << 23) if wide else (CODE, 0xffff, 0) if self.bits == 16 and not ring else flat
        stack = small if self.stack16 else flat
        extra = (EXTRA_BASE, 0xffffffff, 1 << 22 | 1 << 23)
        monitor = extra if wide or not ring else flat
        for number, (base, limit, bits) in enumerate((data, code, stack, data, extra, monitor)):
            kind = 0x9b00 if number == 1 else 0x9300
            dpl = ring if number in (1, 2) else 3
            selector = SELECTORS[number] | (ring if number in (1, 2) else 0)
            ctypes.memmove(self.env + ENV_SEGS + 24 * number, struct.pack("<QQII", selector, base, limit, kind | dpl << 13 | bits), 24)
        hflags = ctypes.c_uint32.from_address(self.env + ENV_HFLAGS)
        hflags.value &= ~(3 | HF_CS32 | HF_SS32 | HF_ADDSEG | HF_CS64)
        hflags.value |= ring | (HF_CS32 if self.bits != 16 or ring else 0) | (HF_SS32 if not self.stack16 else 0) | \
            (HF_CS64 if wide else HF_ADDSEG)

    def on_interrupt(self, uc, number, _):
        self.event = number
        uc.emu_stop()

    def run(self, ip, gpr, flags, count=0):
        """From a fresh state; returns (event, instruction pointer).  Event: None for HLT, or the vector."""
        uc = self.uc
        uc.context_restore(self.state)
        ctypes.memmove(self.env, gpr, 8 * self.n_gpr)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
        return self.resume(ip, count)

    def resume(self, ip, count=0):
        self.event = None
        try:
            self.uc.emu_start(ip, 0, count=count)
        except UcError as error:
            self.event = UD if error.errno == UC_ERR_INSN_INVALID else -error.errno
        return self.event, self.uc.reg_read(x86.UC_X86_REG_RIP if self.wide else x86.UC_X86_REG_EIP)

    def clear(self):
        """All code is HLT."""
        self.put(CODE, bytes([HLT]) * (CODE_BYTES if self.bits != 16 else 0x10000))
        self.uc.ctl_flush_tb()

    def put(self, physical, data):
        """Write to memory; what the processor has translated of it stays."""
        ctypes.memmove(self.host + physical, data, len(data))

    def get(self, physical, n):
        return ctypes.string_at(self.host + physical, n)

    def registers(self):
        return list(self.gpr[:self.n_gpr])

    def flags(self):
        return self.uc.reg_read(x86.UC_X86_REG_EFLAGS)

    def error_code(self):
        return ctypes.c_uint32.from_address(self.env + 0x1508).value

    def fault_address(self):
        return self.uc.reg_read(x86.UC_X86_REG_CR2)

    def vectors(self):
        return [self.uc.reg_read(x86.UC_X86_REG_XMM0 + number) for number in range(8)]


class Outcome:
    """What an instruction did, as the guest sees it."""
    def __init__(self, machine, what, flags=None):
        self.what = what                                 # ("next", ip), ("fault", vector, error code, address), ("callout",)
        self.gpr = machine.registers()
        self.flags = machine.flags() if flags is None else flags
        self.data = machine.get(DATA, DATA_PAGES * 0x1000)
        self.vectors = None

    def differs(self, other):
        """What is not equal, for a message; empty if nothing."""
        bad = [f"{name}: {mine!r} {theirs!r}" for name, mine, theirs in
               (("outcome", self.what, other.what), ("flags", hex(self.flags), hex(other.flags)), ("vectors", self.vectors, other.vectors))
               if mine != theirs]
        bad += [f"register {n}: {a:#x} {b:#x}" for n, (a, b) in enumerate(zip(self.gpr, other.gpr)) if a != b]
        if self.data != other.data:
            bad += [f"data at {n:#x}" for n in range(len(self.data)) if self.data[n] != other.data[n]][:4]
        return ", ".join(bad)


class Guest(Machine):
    """Ring 0: the guest's instructions themselves."""
    def __init__(self, bits, stack16=False, ram=None):
        super().__init__(bits, 0, stack16, ram)

    def outcome(self, ip, gpr, flags, data):
        """Run from ip until a HLT, or a fault, which is the instruction's if it lies at ip and else that of fetching at its target."""
        self.put(DATA, data)
        event, at = self.run(ip, gpr, flags)
        mask = (1 << 64) - 1 if self.wide else 0xffffffff
        if event is None or at & mask != ip:
            return Outcome(self, ("next", (at - 1 if event is None else at) & mask))
        return Outcome(self, ("fault", event, self.error_code() if event in (GP, PF) else 0, self.fault_address() if event == PF else 0))


class Translated(Machine):
    """Ring 1: translations, with the monitor's memory and a monitor of few words."""
    def __init__(self, bits, stack16=False):
        super().__init__(bits, 1, stack16)
        self.size = 8 if self.wide else 4
        self.put(CELL, cells_page())
        self.set_cell("ss", SELECTORS[2])
        empty = (word for n in range(LAYOUT["targets"]) for word in (empty_key(n) & (1 << 8 * self.size) - 1, 0))
        self.put(TARGETS, array("Q" if self.wide else "I", empty).tobytes())
        self.landing = CACHE_BYTES - 0x10
        self.put(CACHE + self.landing, b"\xcd\xf5")

    def cell(self, name):
        return int.from_bytes(self.get(CELL + CELLS[name], self.size), "little")

    def set_cell(self, name, value):
        self.put(CELL + CELLS[name], value.to_bytes(self.size, "little"))

    def set_target(self, ip, key=None, value=None):
        """Fill the place of `ip` in the table of targets: with its own key or another one; `value`: offset in the cache."""
        at = TARGETS + ip % LAYOUT["targets"] * 2 * self.size
        mask = (1 << 8 * self.size) - 1
        self.put(at, ((-ip if key is None else key) & mask).to_bytes(self.size, "little"))
        self.put(at + self.size, (self.base + (self.landing if value is None else value)).to_bytes(self.size, "little"))

    def outcome(self, unit, at, gpr, flags, data):
        """Run the unit that lies at offset `at` of the cache; `flags` are the guest's."""
        self.put(DATA, data)
        self.set_cell("if", flags & FL_IF)
        self.set_cell("iopl", flags & FL_IOPL)
        event, ip = self.run(self.base + at, gpr, flags & ~FL_IOPL | FL_IF)
        return self.judge(unit, at, event, ip)

    def judge(self, unit, at, event, ip):
        offset = ip - self.base - at
        if event in (0xf0, 0xf1, 0xf2):
            offset -= 2
        if event == 0xf5 and ip == self.base + self.landing + 2:
            what = ("hit",)
        elif event == 0xf2:
            what = ("next", self.cell("target"))
        elif event == 0xf0:
            what = ("next", next(x["target"] for x in unit["exits"] if x["stub"] == offset))
        else:
            what = self.inside(unit, offset, event)
        real = self.flags()
        assert real & (FL_IF | FL_IOPL) == FL_IF
        return Outcome(self, what, real & ~FL_IF | self.cell("if") | self.cell("iopl"))

    def inside(self, unit, offset, event):
        """A call-out, or a fault in a part: the guest's registers come back from their cells."""
        part = [p for p in unit["parts"] if p["start"] <= offset][-1]
        insn = unit["insns"][part["insn"]]
        if part["kind"] == "copied":                     # a run: the instruction whose code it is
            insn = [n for n in unit["insns"] if n["code"] <= offset < n["code_end"]][0]
        self.insn = unit["insns"].index(insn)
        if event == 0xf1:
            assert part["kind"] == "callout"
            return ("callout",)
        for bit, name, number in ((1, "rcx", 1), (2, "rdx", 2), (4, "rsp", 4)):
            if part["saved"] & bit:
                self.gpr[number] = self.cell(name)
        assert not part["monitor"], f"fault {event} in a part of the monitor's"
        if part["kind"] == "rdtsc":
            assert event == GP and offset == insn["code"]
            return ("rdtsc",)
        return ("fault", event, self.error_code() if event in (GP, PF) else 0, self.fault_address() if event == PF else 0)


class Monitor:
    """Runs whole programs by translation: translates, chains, fills the table of targets, and has call-outs done in ring 0."""
    def __init__(self, bits, stack16=False):
        self.t = Translated(bits, stack16)
        self.ring0 = Guest(bits, stack16, self.t.ram)    # on the same memory
        self.bits, self.units, self.at = bits, {}, 0
        self.counts = {"units": 0, "dispatches": 0, "callouts": 0, "lookups": 0}

    def forget(self):
        for ip in self.units:
            self.t.set_target(ip, ip & 0xffff ^ 1)
        self.units, self.at = {}, 0
        self.t.uc.ctl_flush_tb()
        self.ring0.uc.ctl_flush_tb()

    def unit(self, ip):
        if ip not in self.units:
            self.counts["units"] += 1
            code = self.t.get(CODE + (ip if self.bits == 16 else ip & CODE_BYTES - 1), 400)
            unit = translate(code, ip, self.bits, tc=self.t.base + self.at, ss32=not self.t.stack16, ss_flat=not self.t.stack16,
                             cs_flat=self.bits != 16, cs=SELECTORS[1])
            self.t.put(CACHE + self.at, unit["code"])
            self.units[ip] = unit, self.at
            self.at += len(unit["code"])
        return self.units[ip]

    def find(self, offset):
        return next((unit, at) for unit, at in self.units.values() if at <= offset < at + len(unit["code"]))

    def chain(self, exit_, at):
        """Lead the exit of the unit at `at` to its target's translation."""
        target = self.unit(exit_["target"])[1]
        self.t.put(CACHE + at + exit_["at"], (target - at - exit_["at"] - 4 & 0xffffffff).to_bytes(4, "little"))
        self.t.uc.ctl_remove_cache(self.t.base + at, self.t.base + at + exit_["at"] + 4)

    def run(self, ip, gpr, flags, data):
        """Until a HLT or a fault.  Returns the outcome and the instruction pointer of its instruction."""
        t = self.t
        t.put(DATA, data)
        t.set_cell("if", flags & FL_IF)
        t.set_cell("iopl", flags & FL_IOPL)
        unit, at = self.unit(ip)
        event, where = t.run(t.base + at, gpr, flags & ~FL_IOPL | FL_IF)
        while True:
            self.counts["dispatches"] += 1
            unit, at = self.find(where - t.base - (2 if event >= 0xf0 else 0))
            outcome = t.judge(unit, at, event, where)
            if event == 0xf1:
                ip = unit["eip"] + unit["insns"][t.insn]["offset"]
                step = self.callout(ip, outcome.flags)
                if step:
                    return step, ip
                ip = self.next
            elif outcome.what[0] == "fault":
                return outcome, unit["eip"] + unit["insns"][t.insn]["offset"]
            else:
                ip = outcome.what[1]
                if event == 0xf0:
                    self.chain(next(x for x in unit["exits"] if x["stub"] == where - 2 - t.base - at), at)
                else:
                    self.counts["lookups"] += 1
                    t.set_target(ip, value=self.unit(ip)[1])
            event, where = t.resume(t.base + self.unit(ip)[1])

    def callout(self, ip, flags):
        """One instruction in ring 0.  The outcome if the program ends there, else None and self.next."""
        t, ring0 = self.t, self.ring0
        self.counts["callouts"] += 1
        event, at = ring0.run(ip, t.gpr, flags, count=1)
        if event is not None or t.get(CODE + (ip if self.bits == 16 else ip & CODE_BYTES - 1), 1)[0] == HLT:
            return Outcome(ring0, ("next", ip) if event is None else ("fault", event, ring0.error_code(), ring0.fault_address() if event == PF else 0))
        after = ring0.flags()
        t.gpr[:t.n_gpr] = ring0.gpr[:t.n_gpr]
        t.uc.reg_write(x86.UC_X86_REG_EFLAGS, after & ~FL_IOPL | FL_IF)
        t.set_cell("if", after & FL_IF)
        t.set_cell("iopl", after & FL_IOPL)
        self.next = at
        return None
