# SPDX-License-Identifier: GPL-2.0-or-later
"""The translator against the processor: each form that is not copied, and a sweep over every opcode.

An instruction runs twice from the same random state: itself in ring 0, and its translation in ring 1, in another plain Unicorn with the
monitor's memory (bt_machine.py).  Registers, flags, memory, where the guest goes on, and faults with their error code and address are
equal.  A call-out leaves everything as it was.  `PYX86V_BT_STATES=50` multiplies the states of every form, for a campaign by hand.
"""
import ctypes
import os
import random
import struct

import capstone
import pytest
from unicorn import x86_const as x86

from bt_forms import LANDING, Program, encoding, flags, memory, modrm, pointer, registers, vex
from bt_machine import ALIASES, CACHE, CODE, CODE_BYTES, DATA, HLT, Guest, Monitor, Outcome, Translated
from pyx86v.arch.sensitive import BY_MNEMONIC, SEVENTEEN
from pyx86v.arch.sensitive import NAMES as NAMES_OF
from pyx86v.vmm.bt.translate import translate

MORE = int(os.environ.get("PYX86V_BT_STATES", "1"))
SLOT = 512
OTHER, PRIORITY = 0xffff888000123000, 5
CONFIGURATIONS = {"64": (64, False), "32": (32, False), "32 with a 16-bit stack": (32, True), "16": (16, True), "16 with a flat stack": (16, False)}
DISASSEMBLERS = {32: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32), 64: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)}
for disassembler in DISASSEMBLERS.values():
    disassembler.detail = True
SCRATCH = (capstone.x86.X86_REG_RCX, capstone.x86.X86_REG_ECX, capstone.x86.X86_REG_RDX, capstone.x86.X86_REG_EDX)


class Pair:
    """Both machines, and where the next code goes."""
    def __init__(self, bits, stack16):
        self.bits, self.stack16 = bits, stack16
        self.guest, self.translated = Guest(bits, stack16), Translated(bits, stack16)
        self.slots = 1 if bits == 16 else LANDING // SLOT                                 # 16-bit jumps may lead anywhere in the segment
        self.slot = 0
        self.at = 0
        self.kinds = {}

    def place(self, rng, code, **mode):
        """Put one instruction at a new place in both; returns (instruction pointer, unit, offset in the cache)."""
        if self.slot == self.slots:
            self.guest.clear()
            self.translated.clear()
            self.slot = self.at = 0
        offset = self.slot * SLOT + (0x2b00 if self.bits == 16 else 200) + rng.randrange(80)
        self.slot += 1
        ip = offset if self.bits == 16 else rng.choice(ALIASES[self.bits]) + offset
        mode = {"ss32": not self.stack16, "ss_flat": not self.stack16, "cs_flat": self.bits != 16, "cs": 0x40, **mode}
        self.at += SLOT + rng.randrange(64)
        tc = self.translated.base + self.at
        padded = code + bytes([HLT]) * 16
        length = translate(padded, ip, self.bits, tc=tc, **mode)["insns"][0]["length"]
        unit = translate(padded, ip, self.bits, tc=tc, stop_before=[ip + length & (-1 if self.bits == 64 else 0xffffffff)], **mode)
        self.guest.put(CODE + offset, padded[:length])
        self.translated.put(CODE + offset, padded[:length])
        self.translated.put(CACHE + self.at, unit["code"])
        check_map(unit, self.bits, tc)
        return ip, unit, self.at

    def compare(self, rng, ip, unit, at, gpr, flags_, data, vectors=False):
        """One state.  Returns the translation's outcome."""
        say = lambda: (self.bits, unit["insns"][0]["kind"], self.guest.get(CODE + (ip & CODE_BYTES - 1 if self.bits != 16 else ip), 16).hex(), unit["code"].hex())
        gpr = (ctypes.c_uint64 * 16)(*gpr)
        if unit["insns"][0]["kind"] == "callout":
            mine = self.translated.outcome(unit, at, gpr, flags_, data)
            assert mine.what == ("callout",) and unchanged(mine, gpr, flags_, data), say()
            return mine
        theirs = self.guest.outcome(ip, gpr, flags_, data)
        way = rng.randrange(3)
        if theirs.what[0] == "next" and way:             # hit, or another target's key in its place
            self.translated.set_target(theirs.what[1], None if way == 1 else -theirs.what[1] ^ 0x10000)
        mine = self.translated.outcome(unit, at, gpr, flags_, data)
        if mine.what == ("hit",):
            assert way == 1
            mine.what = theirs.what
        elif mine.what in (("callout",), ("rdtsc",)):
            assert unchanged(mine, gpr, flags_, data), say()
            return mine
        if vectors:
            mine.vectors, theirs.vectors = self.translated.vectors(), self.guest.vectors()
        assert not mine.differs(theirs), (mine.differs(theirs), say(), list(map(hex, gpr)), hex(flags_))
        if theirs.what[0] == "next" and way:
            self.translated.set_target(theirs.what[1], (theirs.what[1] & 0xffff) ^ 1)
        return mine


def unchanged(mine, gpr, flags_, data):
    return mine.gpr == list(gpr[:len(mine.gpr)]) and mine.flags == flags_ and mine.data == data


def check_map(unit, bits, tc):
    """Parts are in order; all that a part of the monitor's touches is the monitor's, and a branch is the last in its part."""
    starts = [p["start"] for p in unit["parts"]] + [len(unit["code"])]
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert [n["code"] for n in unit["insns"]] == sorted(n["code"] for n in unit["insns"])
    for part, end in zip(unit["parts"], starts[1:]):
        if part["kind"] == "copied":
            continue
        code = list(DISASSEMBLERS[64 if bits == 64 else 32].disasm(unit["code"][part["start"]:end], tc + part["start"]))
        assert sum(i.size for i in code) == end - part["start"]
        own_stack = False
        for i in code:
            assert i is code[-1] or not i.group(capstone.CS_GRP_JUMP)
            if not part["monitor"]:
                continue
            own_stack |= i.mnemonic == "mov" and i.op_str.startswith(("rsp, 0x", "esp, 0x", "rsp, -", "esp, -"))
            assert own_stack or not i.mnemonic.startswith(("push", "pop"))
            for o in i.operands:
                if o.type == capstone.CS_OP_MEM and i.id != capstone.x86.X86_INS_LEA:
                    assert o.mem.disp & 0xffffffff >= 0xfe000000 and {o.mem.base, o.mem.index} <= {0, *SCRATCH}, i.op_str
                    assert bits == 64 or o.mem.segment == capstone.x86.X86_REG_GS


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def pair(request):
    return Pair(*CONFIGURATIONS[request.param])


def rex(rng, bits, w=0, r=0, b=0):
    """REX with random X, or nothing outside 64-bit mode."""
    return bytes([0x40 | w << 3 | r << 2 | rng.randrange(2) << 1 | b]) if bits == 64 else b""


def special(rng, bits):
    """{name: function of nothing that makes an encoding}: every form that has a translation of its own."""
    def size():                                          # 66, for forms that know it
        return rng.choice((b"", b"\x66")) if bits != 64 else b""

    def rel(n):
        while True:
            if n == 1:
                d = rng.randrange(-128, 128)
                if not -12 <= d < 0:                     # not into itself
                    return struct.pack("<b", d)
            elif n == 2:
                return struct.pack("<H", 0x8000 + rng.randrange(-150, 100))
            else:
                return struct.pack("<i", LANDING + rng.randrange(0x1000, 0x60000))

    def near(opcode, short=None):
        prefix = size()
        if short is not None and rng.random() < 0.5:
            return prefix + short + rel(1)
        return prefix + opcode + rel(2 if (bits == 16) != (prefix == b"\x66") else 4)

    def indirect(reg, memory_):
        prefix = size() + rng.choice((b"", b"", b"\x67")) + (rng.choice((b"", b"\x64", b"\x36", b"\x26")) if memory_ else b"")
        r = rex(rng, bits, rng.randrange(2), 0, rng.randrange(2)) if rng.random() < 0.5 else b""
        return prefix + r + b"\xff" + modrm(rng, bits, reg, prefix, register=None if memory_ else rng.choice((0, 1, 2, 3, 5, 6, 7)))

    cr = lambda op, n: rex(rng, bits, 0, n >> 3, rng.randrange(2)) + bytes([0x0f, op, rng.choice((0xc0, 0x00, 0x40)) | (n & 7) << 3 | rng.randrange(8)])
    forms = {
        "jmp": lambda: near(b"\xe9", b"\xeb"),
        "jcc": lambda: near(bytes([0x0f, 0x80 + (c := rng.randrange(16))]), bytes([0x70 + c])),
        "loop": lambda: size() + rng.choice((b"", b"\x67")) + bytes([0xe0 + rng.randrange(4)]) + rel(1),
        "call": lambda: near(b"\xe8"),
        "ret": lambda: size() + rng.choice((b"", b"\xf3", b"\xf2")) + b"\xc3",
        "ret n": lambda: size() + b"\xc2" + struct.pack("<H", rng.choice((0, 2, 4, 8, 0x10, 0x7ffc, 0xfff0, rng.getrandbits(16)))),
        "jmp register": lambda: indirect(4, False),
        "jmp memory": lambda: indirect(4, True),
        "call register": lambda: indirect(2, False),
        "call memory": lambda: indirect(2, True),
        "cli": lambda: b"\xfa", "sti": lambda: b"\xfb",
        "pushf": lambda: rng.choice((b"", b"\x66")) + b"\x9c",
        "popf": lambda: rng.choice((b"", b"\x66")) + b"\x9d",
        "rdtsc": lambda: b"\x0f\x31",
        "mov from cr": lambda: cr(0x20, rng.choice((0, 2, 3, 4))),
        "mov from cs": lambda: size() + rng.choice((b"", rex(rng, bits, rng.randrange(2), 0, rng.randrange(2)))) + b"\x8c"
        + modrm(rng, bits, 1, b"", register=rng.choice((None, rng.randrange(8)))),
        "mov from ss": lambda: rng.choice((b"", b"\x66")) + rng.choice((b"", rex(rng, bits, rng.randrange(2), 0, rng.randrange(2)))) + b"\x8c"
        + modrm(rng, bits, 2, b"", register=rng.randrange(8)),
    }
    if bits == 64:
        forms |= {"mov from cr8": lambda: cr(0x20, 8), "mov to cr8": lambda: cr(0x22, 8), "swapgs": lambda: b"\x0f\x01\xf8"}
    else:
        forms |= {"push cs": lambda: size() + b"\x0e"}
    return forms


NAMES = sorted(special(random.Random(0), 64) | special(random.Random(0), 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_forms_with_a_translation_of_their_own(pair, name):
    rng = random.Random(f"{name} {pair.bits} {pair.stack16}")
    make = special(rng, pair.bits).get(name)
    if make is None:
        pytest.skip("not in this mode")
    system(pair, rng)
    seen = {}
    for _ in range(40):
        ip, unit, at = pair.place(rng, make(), smap=rng.random() < 0.5)
        data = memory(rng, pair.bits)
        for _ in range(8 * MORE):
            gpr = registers(rng, pair.bits, not pair.stack16)
            if name == "mov to cr8":
                gpr = [rng.choice((v, rng.randrange(16), rng.randrange(20), 1 << rng.randrange(64))) for v in gpr]
            mine = pair.compare(rng, ip, unit, at, gpr, flags(rng), data)
            seen[mine.what[0]] = seen.get(mine.what[0], 0) + 1
            check_system(pair, name, mine)
            if name == "mov to cr8":
                pair.translated.set_cell("cr8_hold", rng.choice((1, 0, 0, 0)))
    pair.translated.set_cell("cr8_hold", 0)
    odd_stack = name in ("pushf", "popf") and pair.stack16
    if not odd_stack and name != "rdtsc":
        assert seen.get("next", 0) > 15, seen
    if name in ("ret", "ret n", "jmp memory", "call", "call memory", "call register", "pushf", "popf", "push cs") and not odd_stack:
        assert seen.get("fault", 0) > 3, seen
    if name == "popf" and not odd_stack:
        assert seen["callout"] > 3


def system(pair, rng):
    """What the guest sees in control registers and SWAPGS's other base lies in cells; the real ones are the monitor's."""
    guest, translated = pair.guest, pair.translated
    guest.uc.context_restore(guest.state)
    guest.uc.reg_write(x86.UC_X86_REG_CR2, rng.getrandbits(32))
    for name, register in (("cr0", x86.UC_X86_REG_CR0), ("cr2", x86.UC_X86_REG_CR2), ("cr3", x86.UC_X86_REG_CR3), ("cr4", x86.UC_X86_REG_CR4)):
        translated.set_cell(name, guest.uc.reg_read(register))
    assert translated.cell("ss") == guest.uc.reg_read(x86.UC_X86_REG_SS) != translated.uc.reg_read(x86.UC_X86_REG_SS)
    assert translated.cell("cr3") != translated.uc.reg_read(x86.UC_X86_REG_CR3) and translated.cell("cr4") != translated.uc.reg_read(x86.UC_X86_REG_CR4)
    if pair.bits == 64:
        guest.uc.msr_write(0xc0000102, OTHER)
        ctypes.c_uint32.from_address(guest.env + 0xb4).value |= 8                         # without an APIC the engine reads CR8 as 0 but for this
        guest.gpr[0] = PRIORITY
        guest.put(CODE + CODE_BYTES - 0x100, bytes.fromhex("440f22c0 f4"))                # MOV CR8, RAX
        guest.resume(ALIASES[64][0] + CODE_BYTES - 0x100)
        guest.put(CODE + CODE_BYTES - 0x80, bytes.fromhex("440f20c0 f4"))                 # MOV RAX, CR8
        translated.set_cell("gs_other", OTHER)
        translated.set_cell("cr8", PRIORITY)
    guest.state = guest.uc.context_save()


def check_system(pair, name, mine):
    """CR8 and the GS bases, after an instruction; back to what they were."""
    guest, translated = pair.guest, pair.translated
    if mine.what[0] == "next" and name == "swapgs":
        assert guest.uc.msr_read(0xc0000102) == translated.cell("gs_other") != OTHER
        assert guest.uc.reg_read(x86.UC_X86_REG_GS_BASE) == translated.uc.reg_read(x86.UC_X86_REG_GS_BASE) == OTHER
        translated.set_cell("gs_other", OTHER)
    if mine.what[0] == "next" and name == "mov to cr8":
        guest.resume(ALIASES[64][0] + CODE_BYTES - 0x80)
        assert guest.gpr[0] == translated.cell("cr8")
        translated.set_cell("cr8", PRIORITY)


# Copies -------------------------------------------------------------------------------------------

def sweep(pair, rng, codes, states=2):
    """Compare what each encoding does, unless it has a translation of its own; returns how often each outcome was seen."""
    seen = {"copied": 0, "callout": 0, "next": 0, "fault": 0}
    data = memory(rng, pair.bits)
    for code in codes:
        ip, unit, at = pair.place(rng, code)
        kind = unit["insns"][0]["kind"]
        seen[kind] = seen.get(kind, 0) + 1
        if kind not in ("copied", "constant", "callout"):
            continue
        for _ in range(1 if kind == "callout" else states * MORE):
            gpr = registers(rng, pair.bits, not pair.stack16)
            if rng.random() < 0.7:
                gpr[1] &= 0xff                           # repeated string instructions
            mine = pair.compare(rng, ip, unit, at, gpr, flags(rng), data, vectors=code[:3].find(b"\x0f") >= 0)
            if kind == "copied":
                seen[mine.what[0]] += 1
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("map_, opcodes, variants", [(0, range(256), 3), (1, range(256), 2), (2, range(256), 3), (3, range(64), 8)], ids=["one", "0F", "0F38", "0F3A"])
def test_every_opcode(pair, map_, opcodes, variants):
    if map_ and pair.stack16 != (pair.bits == 16):
        pytest.skip("the stack segment matters to one-byte opcodes only")
    rng = random.Random(f"{map_} {pair.bits} {pair.stack16}")
    prefixes = {0x26, 0x2e, 0x36, 0x3e, *range(0x64, 0x68), 0xf0, 0xf2, 0xf3, 0x0f, *(range(0x40, 0x50) if pair.bits == 64 else ())}
    codes = [encoding(rng, pair.bits, map_, op, reg) for op in opcodes if map_ or op not in prefixes for reg in (range(8) if map_ < 2 else (3,))
             for _ in range(variants * MORE)]
    seen = sweep(pair, rng, codes)
    assert min(seen["copied"], seen["next"], seen["fault"]) > 10, seen


def test_vex(pair):
    rng = random.Random(f"vex {pair.bits} {pair.stack16}")
    seen = sweep(pair, rng, [vex(rng, pair.bits) for _ in range(300 * MORE)])
    assert (seen["callout"] if pair.bits == 16 else min(seen["copied"], seen["next"])) > 30, seen


# Units ----------------------------------------------------------------------------------------------

NOP = b"\x90"


def kinds(unit):
    return [n["kind"] for n in unit["insns"]]


def test_a_unit_ends_at_twelve_instructions():
    unit = translate(NOP * 30, 0x1000, 64)
    assert kinds(unit) == ["copied"] * 12 and unit["ends_with"] == "plain" and len(unit["parts"]) == 2
    assert [(x["target"], x["transfer"]) for x in unit["exits"]] == [(0x100c, 0)]


def test_the_instruction_behind_sti_belongs_to_its_unit():
    unit = translate(NOP * 11 + b"\xfb" + NOP * 9, 0x1000, 32)
    assert len(unit["insns"]) == 13 and unit["ends_with"] == "window" and unit["exits"][0]["transfer"] == 2
    assert kinds(translate(b"\xfb\xfb" + NOP * 9, 0x1000, 32)) == ["sti", "sti"]
    unit = translate(b"\xfb", 0x1000, 32)
    assert unit["ends_with"] == "shadow" and unit["exits"][0]["transfer"] == 3


@pytest.mark.parametrize("code, end", [(b"\xc3", "transfer"), (b"\xf4", "callout"), (b"\x9d", "window"), (b"\x74\x10", "transfer")])
def test_what_ends_a_unit(code, end):
    unit = translate(NOP + code + NOP * 20, 0x1000, 64)
    assert len(unit["insns"]) == 2 and unit["ends_with"] == end


def test_a_unit_ends_before_what_it_is_told_to_and_before_bytes_that_are_missing():
    assert len(translate(NOP * 20, 0x1000, 64, stop_before=[0x1000, 0x1005])["insns"]) == 5
    assert translate(b"\x48\xb8\x01\x02", 0x1000, 64) is None
    unit = translate(NOP + b"\x48\xb8\x01\x02", 0x1000, 64)
    assert len(unit["insns"]) == 1 and unit["exits"][0]["target"] == 0x1001


def test_the_longest_unit_fits_and_no_byte_is_written_beyond_the_room():
    code = b"\x44\x0f\x22\xc1" * 11 + b"\xff\x13"
    unit = translate(code, 0x1000, 64)
    assert kinds(unit) == ["cr8_write"] * 11 + ["indirect"] and len(unit["code"]) > 1400
    for room in (0, 1, 100, len(unit["code"]) - 1):
        assert translate(code, 0x1000, 64, room=room) is None
    assert translate(code, 0x1000, 64, room=len(unit["code"])) == unit


def test_adaptive_call_outs():
    unit = translate(b"\x89\x03" * 4, 0x1000, 64, no_inline=[0x1002])
    assert kinds(unit) == ["copied", "callout"] and unit["insns"][1]["callout"] == "adaptive"


@pytest.mark.parametrize("code", [b"\xc3", b"\xff\xe0", b"\xff\x13", b"\x9c", b"\x9d"])
def test_compatibility_mode_borrows_no_register(code):
    """Their upper halves are there, and 32-bit code cannot keep them (seen by a random guest's POPFD)."""
    assert kinds(translate(code + NOP * 9, 0x1000, 32, compatibility=True))[0] == "callout"


def test_mov_from_ss_to_memory_is_a_call_out():
    """It would need a register, and its operand may need any."""
    assert kinds(translate(b"\x8c\xd0\x8c\x10" + NOP * 9, 0x1000, 64)) == ["ss_read", "callout"]


@pytest.mark.parametrize("code", [bytes.fromhex(f"f3{wide}0fae{modrm:x}") for modrm in (0xc0, 0xca, 0xd3, 0xdd) for wide in ("", "48")])
def test_base_instructions_are_the_guests_only_when_its_cr4_says_so(code):
    """RDFSBASE and its like: the real CR4.FSGSBASE is set for SWAPGS."""
    assert kinds(translate(code + NOP * 9, 0x1000, 64, fsgsbase=True))[0] == "copied"
    assert kinds(translate(code + NOP * 9, 0x1000, 64, fsgsbase=False)) == ["callout"]


def test_swapgs_needs_them():
    assert kinds(translate(b"\x0f\x01\xf8" + NOP * 9, 0x1000, 64, fsgsbase=False))[0] == "swapgs"
    assert kinds(translate(b"\x0f\x01\xf8" + NOP * 9, 0x1000, 64, swapgs=False)) == ["callout"]


def test_too_long_an_instruction_is_a_call_out():
    unit = translate(b"\x66" * 15 + NOP * 10, 0x1000, 64)
    assert kinds(unit) == ["callout"] and unit["insns"][0]["callout"] == "unknown"


def test_instruction_pointers_wrap():
    assert translate(NOP * 14 + NOP, 0xfffffff8, 32)["exits"][0]["target"] == 4
    assert translate(b"\xeb\x10", 0xfff8, 16)["exits"][0]["target"] == 0xa
    assert translate(b"\xeb\x10", 0xfffffff8, 32)["exits"][0]["target"] == 0xa


SEVENTEEN_ENCODINGS = {
    "sgdt": "0f0103", "sidt": "0f010b", "sldt": "0f00c0", "str": "0f00c8", "smsw": "0f01e0", "pushf": "9c", "popf": "9d", "lar": "0f02c1",
    "lsl": "0f03c1", "verr": "0f00e0", "verw": "0f00e8", "mov_from_segment": "8c13", "push_segment": "16", "mov_to_segment": "8ed8",
    "pop_segment": "1f", "call_far": "ff1b", "jmp_far": "ff2b", "ret_far": "cb", "int": "cd80"}


def test_none_of_the_seventeen_is_copied():
    assert set(SEVENTEEN_ENCODINGS) == set(SEVENTEEN)
    for name, code in SEVENTEEN_ENCODINGS.items():
        insn = translate(bytes.fromhex(code) + NOP * 9, 0x1000, 32)["insns"][0]
        assert insn["sensitive"] == name and insn["kind"] == ("callout" if name not in ("pushf", "popf") else name)


@pytest.mark.parametrize("bits, mode", [(16, capstone.CS_MODE_16), (32, capstone.CS_MODE_32), (64, capstone.CS_MODE_64)])
def test_nothing_that_capstone_knows_as_sensitive_is_copied(bits, mode):
    rng, cs = random.Random(bits), capstone.Cs(capstone.CS_ARCH_X86, mode)
    seen = set()
    for map_ in (0, 1, 1):
        for op in range(256):
            for reg in range(8):
                code = encoding(rng, bits, map_, op, reg)
                for insn in cs.disasm(code + bytes(15), 0, count=1):
                    name = insn.mnemonic.split()[-1]
                    name = "wbinvd" if name == "wbnoinvd" else name
                    if name not in BY_MNEMONIC or 0xc4 in code[:3] or 0xc5 in code[:3]:
                        continue
                    ours = translate(code + bytes(15), 0, bits)["insns"][0]
                    assert ours["kind"] != "copied", (code.hex(), insn.mnemonic)
                    if ours["callout"] in ("", "sensitive"):
                        assert ours["sensitive"] == NAMES_OF[BY_MNEMONIC[name]], (code.hex(), insn.mnemonic)
                        seen.add(ours["sensitive"])
    assert len(seen) > 40


# Programs -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["64", "32", "32 with a 16-bit stack", "16", "16 with a flat stack"])
def test_programs(name):
    """Whole programs, twice each: the second time everything is chained and in the table."""
    bits, stack16 = CONFIGURATIONS[name]
    rng = random.Random(f"programs {name}")
    guest, monitor = Guest(bits, stack16), Monitor(bits, stack16)
    ended = 0
    for _ in range(25 * MORE):
        guest.clear()
        monitor.t.clear()
        monitor.forget()
        alias = 0 if bits == 16 else rng.choice([a for a in ALIASES[bits] if a < 1 << 31 or a >> 31 == 0x1ffffffff or bits == 32])
        offset = 0x1000 + rng.randrange(0x800)
        code = bytes(Program(rng, bits, alias + offset).code)
        guest.put(CODE + offset, code)
        monitor.t.put(CODE + offset, code)
        data = memory(rng, bits)
        for _ in range(2):
            state = registers(rng, bits, not stack16)
            state[3] = pointer(rng, bits, 0.1)
            state[4] = pointer(rng, bits if bits == 64 else 16 if stack16 else 32, 0.1)
            gpr, flags_ = (ctypes.c_uint64 * 16)(*state), flags(rng)
            guest.put(DATA, data)
            event, at = guest.run(alias + offset, gpr, flags_)
            at &= (1 << 64) - 1 if bits == 64 else 0xffffffff
            theirs = Outcome(guest, ("next", at - 1) if event is None else ("fault", event, guest.error_code(), guest.fault_address() if event == 14 else 0))
            mine, ip = monitor.run(alias + offset, gpr, flags_, data)
            assert not mine.differs(theirs) and ip == at - (event is None), (name, mine.differs(theirs), code.hex(), hex(ip), hex(at))
            ended += event is None
    assert ended > 15 * MORE and monitor.counts["callouts"] > 20 and monitor.counts["lookups"] > 20, (ended, monitor.counts)
