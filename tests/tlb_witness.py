# SPDX-License-Identifier: GPL-2.0-or-later
"""A ROM on Unicorn as it comes from its makers, every access shown to per-access models of the TLB (tlb_model.py).

Unicorn's own page walker translates and sets accessed and dirty bits.  A CODE hook sees each instruction before it runs, MEM
hooks each data access, but by its physical address: the linear one is found among what the instruction's operands name.
What a TLB would do is the models' business alone: they look each access up by its linear address, and walk the guest's
tables in memory when they find nothing.
"""
import ctypes
import struct

import capstone
import unicorn
from capstone import x86_const as insn_const
from unicorn import x86_const as x86

from pyx86v import boot
from tlb_model import SUFFIX, Page, TlbModel

COM1, COM1_STATUS, REPORT, END = 0x3F8, 0x3FD, 0xE8, 0xF4
READY = 0x60                     # transmitter empty
PG, PGE, PCIDE, PSE, PAE, SMEP = 1 << 31, 1 << 7, 1 << 17, 1 << 4, 1 << 5, 1 << 20
ADDRESS = 0x000FFFFFFFFFF000
UNPAGED = "unpaged"              # tag of what is cached while CR0.PG = 0 under nested paging (SDM 3C 28.4.1)
GPR = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
SYSTEM = ("jmp", "ljmp", "mov", "retfq")     # far pointers and the GDT: in these ROMs they lie where linear = physical


class Tables:
    """The guest's 4-level tables, read in memory."""

    def __init__(self, uc):
        self.uc, self.cr3, self.globals = uc, 0, False

    def walk(self, va):
        """(physical address, shift, global, dirty, physical addresses of the entries on the way)."""
        table, read = self.cr3 & ADDRESS, []
        for shift in (39, 30, 21, 12):
            read.append(table + 8 * (va >> shift & 511))
            entry = int.from_bytes(self.uc.mem_read(read[-1], 8), "little")
            assert entry & 1, f"{va:#x} is not mapped"
            if shift == 12 or (shift < 39 and entry & 0x80):
                break
            table = entry & ADDRESS
        size = 1 << shift
        return (entry & ADDRESS & -size) | va & (size - 1), shift, self.globals and bool(entry & 0x100), bool(entry & 0x40), read


class Lookups(TlbModel):
    """The model with the one question that a processor asks: what do the TLBs hold for this linear address?

    nested   None, or the shift of every page of the EPT, whose entries have dirty flags of their own (SDM 3C 28.2.5)
    """

    def __init__(self, config, tables, nested):
        super().__init__(config)
        self.tables, self.nested = tables, nested
        self.tag = UNPAGED
        self.nested_dirty = set()
        whole = config.get("large_whole")
        self.places = {side: [(self.array[f"{side}_4K" if whole else f"{side}_{size}"].flags, shift) for shift, size in SUFFIX.items()]
                       for side in "ID"}             # where a translation of either size can be

    def touch(self, va, side, write):
        """One access to one page."""
        tag = self.tag
        if tag == UNPAGED and not self.nested:
            return
        for flags, shift in self.places[side]:
            dirty = flags.get((tag, va >> shift, shift))
            if dirty is None:
                dirty = flags.get(("global", va >> shift, shift))
            if dirty or dirty is not None and not write:
                return
        self.access(va, side, self.page(va), write)

    def page(self, va):
        """The Page as the TLB takes it."""
        if self.tag == UNPAGED:
            physical, shift, is_global, dirty, self.entries = va, 30, False, True, []
        else:
            physical, shift, is_global, dirty, self.entries = self.tables.walk(va)
        if not self.nested:
            return Page(va, shift, is_global, dirty)
        self.frame = physical >> self.nested
        kept = min(shift, self.nested)
        self.guest_dirty = dirty
        return Page(va, kept, is_global, dirty and self.frame in self.nested_dirty, shift if self.tag != UNPAGED else kept)

    def walk(self, va, page, write):
        """Under nested paging entries of the guest's tables are read as if written."""
        if self.tag != UNPAGED:
            before = self.refs
            super().walk(va, page, write)
            for entry in self.entries[len(self.entries) - (self.refs - before):]:
                self.nested_dirty.add(entry >> (self.nested or 12))
        if self.nested:
            if write:
                self.nested_dirty.add(self.frame)
            page.dirty = (self.guest_dirty or write) and self.frame in self.nested_dirty

    def mode_change(self, cr0, cr4, old_cr0, old_cr4):
        """SDM 3A 4.10.4.1, MOV to CR0 and CR4; the manual does not list PSE, which is treated like PAE."""
        changed = cr4 ^ old_cr4
        if old_cr0 & PG and not cr0 & PG or changed & PGE or old_cr4 & PCIDE and not cr4 & PCIDE:
            self.drop(lambda key: True, self.array)
        elif changed & (PAE | PSE) or cr4 & SMEP and not old_cr4 & SMEP:
            self.drop(lambda key: key[0] in (0, "global"), self.array)
        self.tag = self.pcid = 0 if cr0 & PG else UNPAGED

    def write_cr3(self):
        self.drop(lambda key: key[0] == 0, self.array)

    def write_invlpg(self, va):
        """The page, global or not, of whatever size the TLBs hold it in, all pieces of a larger page with it."""
        page = Page(va, self.tables.walk(va)[1])
        self.invlpg(va, page)


class Registers:
    """All 16 general registers at once, from a saved context; where they lie in it is found out, not known."""

    def __init__(self, uc):
        marks = [0x5A00A500 + 0x01010101 * i for i in range(4)]         # EAX, ECX, EDX, EBX: first in the register file
        names = [getattr(x86, f"UC_X86_REG_E{n}X") for n in "ACDB"]
        self.uc = uc
        for name, mark in zip(names, marks):
            uc.reg_write(name, mark)
        self.context = uc.context_save()
        self.address = ctypes.cast(self.context.context, ctypes.c_void_p).value
        self.address += ctypes.string_at(self.address, 4096).index(struct.pack("<4Q", *marks))
        for name in names:
            uc.reg_write(name, 0)

    def read(self):
        self.uc.context_update(self.context)
        return struct.unpack("<16Q", ctypes.string_at(self.address, 128))


class Witness:
    """Runs the ROM at `path` to its end, in front of a model for each (config of TlbModel, nested) of `views`."""

    def __init__(self, path, views, memory=64 << 20):
        uc = self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        image = boot.load(path, memory)
        uc.mem_map(0, memory)
        for gpa, data in image.segments:
            uc.mem_write(gpa, data)
        self.registers = Registers(uc)
        self.enter(image.entry)
        self.tables = Tables(uc)
        self.models = [Lookups(config, self.tables, nested) for config, nested in views]
        self.decoders = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode)
                         for bits, mode in ((32, capstone.CS_MODE_32), (64, capstone.CS_MODE_64))}
        for decoder in self.decoders.values():
            decoder.detail = True
        self.seen = {}           # address -> instruction and what it changes; no code is modified
        self.instructions, self.ended, self.code_page, self.control = 0, False, None, True
        self.console, self.status = bytearray(), None
        self.cr0 = self.cr4 = 0
        uc.hook_add(unicorn.UC_HOOK_CODE, self.on_instruction)
        uc.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, self.on_access)
        uc.hook_add(unicorn.UC_HOOK_INSN, self.on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        uc.hook_add(unicorn.UC_HOOK_INSN, lambda uc, port, size, _: READY if port == COM1_STATUS else 0, None, 1, 0, x86.UC_X86_INS_IN)
        uc.emu_start(image.entry["rip"], 0xFFFFFFFF)

    def enter(self, entry):
        """The state that Multiboot defines; Unicorn can load a selector only from a table."""
        at = 0x7000
        self.uc.mem_write(at, struct.pack("<8xQQ", 0xCF9B000000FFFF, 0xCF93000000FFFF))
        self.uc.reg_write(x86.UC_X86_REG_GDTR, (0, at, 23, 0))
        self.uc.reg_write(x86.UC_X86_REG_CR0, entry["cr0"])
        for name, segment in entry["segments"].items():
            if name not in ("ldtr", "tr"):
                self.uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), segment[0])
        for name, value in entry["gpr"].items():
            self.uc.reg_write(getattr(x86, f"UC_X86_REG_E{name[1:].upper()}"), value)
        self.uc.mem_write(at, bytes(24))

    # ---- instructions

    def on_instruction(self, uc, at, size, _):
        if self.ended:
            uc.emu_stop()
            return
        self.instructions += 1
        if self.control:
            self.look_at_control()
        self.insn, changes, last = self.seen.get(at) or self.first_time(at, size)
        self.crossed = False
        if at >> 12 != self.code_page or last != self.code_page:        # the page just used is held
            for self.code_page in range(at >> 12, last + 1):
                self.touch(self.code_page << 12, "I", False)
        if changes:
            self.change(changes)

    def first_time(self, at, size):
        """Decode: the instruction, the register it writes or INVLPG (else None), the page of its last byte."""
        bits = 64 if self.in_64_bit_mode() else 32
        insn = next(self.decoders[bits].disasm(self.bytes_at(at, size), at))
        assert insn.size == size
        changes = None
        if insn.mnemonic == "invlpg" or insn.mnemonic == "mov" and insn.op_str.startswith("cr"):
            changes = insn.op_str.split(",")[0] if insn.mnemonic == "mov" else "invlpg"
        self.seen[at] = insn, changes, at + size - 1 >> 12
        return self.seen[at]

    def bytes_at(self, at, size):
        physical = self.tables.walk(at)[0] if self.cr0 & PG else at
        first = min(size, 4096 - (physical & 4095))
        data = bytes(self.uc.mem_read(physical, first))
        return data if first == size else data + self.bytes_at(at + first, size - first)

    def in_64_bit_mode(self):
        """Has the descriptor of CS its L bit?  The GDT lies where linear = physical."""
        selector, base = self.uc.reg_read(x86.UC_X86_REG_CS), self.uc.reg_read(x86.UC_X86_REG_GDTR)[1]
        return bool(self.cr0 & PG and self.uc.mem_read(base + selector + 6, 1)[0] & 0x20)

    def change(self, what):
        """The instruction that comes invalidates, or changes what decides on that."""
        if what == "invlpg":
            va = self.address(self.insn.operands[0].mem, self.registers.read())
            for model in self.models:
                model.write_invlpg(va)
        elif what == "cr3" and self.cr0 & PG:
            for model in self.models:
                model.write_cr3()
        self.control, self.code_page = True, None

    def look_at_control(self):
        """Behind a write to a control register."""
        cr0, cr4 = self.uc.reg_read(x86.UC_X86_REG_CR0), self.uc.reg_read(x86.UC_X86_REG_CR4)
        for model in self.models:
            model.mode_change(cr0, cr4, self.cr0, self.cr4)
        self.tables.cr3, self.tables.globals = self.uc.reg_read(x86.UC_X86_REG_CR3), bool(cr4 & PGE)
        self.cr0, self.cr4, self.control = cr0, cr4, False

    # ---- data

    def touch(self, va, side, write):
        for model in self.models:
            model.touch(va, side, write)

    def on_access(self, uc, access, physical, size, value, _):
        if self.ended:
            return
        at = self.linear(physical) if self.cr0 & PG else physical
        if at is None:
            return
        write = access == unicorn.UC_MEM_WRITE
        self.touch(at, "D", write)
        if (at & 4095) + size > 4096:
            self.crossed = True
            self.touch((at | 4095) + 1, "D", write)

    def linear(self, physical):
        """Which address of those that the instruction names lies there?  None: a piece of an access across pages."""
        for at in self.candidates(self.registers.read()):
            if at & 4095 == physical & 4095 and self.tables.walk(at)[0] == physical:
                return at
        if self.crossed:
            return None
        assert self.insn.mnemonic in SYSTEM and self.tables.walk(physical)[0] == physical, f"{self.insn} reached {physical:#x}"
        return physical

    def candidates(self, registers):
        """Linear addresses: the operands' (16 bytes are moved in halves), the stack's, the frame's, the strings'."""
        for operand in self.insn.operands:
            if operand.type == insn_const.X86_OP_MEM:
                yield self.address(operand.mem, registers)
                yield self.address(operand.mem, registers) + 8
        yield from (registers[4], registers[4] - 8, registers[4] - 4, *registers[5:8])

    def address(self, operand, registers):
        insn, value = self.insn, operand.disp
        for number, scale in ((operand.base, 1), (operand.index, operand.scale)):
            name = insn.reg_name(number) if number else "riz"
            if name == "rip":
                value += insn.address + insn.size
            elif name[0] == "e" and name != "eiz":
                value += scale * (registers[GPR.index("r" + name[1:])] & 0xFFFFFFFF)
            elif name != "riz" and name != "eiz":
                value += scale * registers[GPR.index(name)]
        return value & ((1 << 64) - 1 if insn.addr_size == 8 else 0xFFFFFFFF)

    # ---- ports

    def on_out(self, uc, port, size, value, _):
        if port == END and not self.ended:
            self.ended, self.status = True, value
            uc.emu_stop()
        elif port == COM1 and not self.ended:
            self.console.append(value & 0xFF)
