# SPDX-License-Identifier: GPL-2.0-or-later
"""The block decoder against capstone's own Python binding, with details on, and against the engine."""
import ctypes
import random
import sys
from pathlib import Path

import capstone
import capstone.x86_const
import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import x86_const

from pyx86v.cost.block import BlockDecoder, decode_block
from pyx86v.cost.classes import CLASSES, INDEX, TRANSFERS, WHOLE
from pyx86v.cost.profile import MAX_CYCLES, load_profile

CT, IO, REP, PLAIN = 1, 2, 4, 16
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
GROUPS = (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET, capstone.CS_GRP_INT, capstone.CS_GRP_IRET,
          capstone.CS_GRP_BRANCH_RELATIVE)
# Control goes elsewhere, but capstone has no group for it.
NO_GROUP = {"rsm", "vmlaunch", "vmresume", "vmrun", "vmcall", "vmmcall", "vmfunc"}
# Always #UD: whether a ModRM belongs to them is a matter of taste.
UNDEFINED = {"ud0", "ud1", "ud2"}
EACH = [2 + number * 3 for number in range(len(CLASSES))]       # a different price for each class

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")


def opened(bits):
    cs = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    cs.detail = True
    return cs


def price(name):
    return EACH[INDEX[name]]


@pytest.fixture(scope="module")
def decoder():
    return BlockDecoder(EACH)


@pytest.fixture(scope="module")
def real_code():
    """384 KiB of 64-bit code out of the largest executable mapping of a file in this process."""
    best = (0, 0)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *file = line.split()
        first, last = (int(end, 16) for end in span.split("-"))
        if "x" in rights and file and file[0].startswith("/") and last - first > best[1] - best[0]:
            best = (first, last)
    size = best[1] - best[0]
    assert size > 384 << 10
    return ctypes.string_at(best[0] + size // 4, 384 << 10)


def random_insn(rng):
    """Bytes that often are an instruction, with the prefixes and opcode maps that matter."""
    prefixes = bytes(rng.choice((0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x64, 0x48, 0x41, 0x4C)) for _ in range(rng.choice((0, 0, 0, 1, 1, 2))))
    escape = rng.choice((b"", b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\xc5"))
    return prefixes + escape + bytes(rng.randrange(256) for _ in range(16))


def test_blocks_of_real_code_are_cut_where_capstone_cuts(decoder, real_code):
    cs = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    rng = random.Random(1)
    at = compared = 0
    while at < len(real_code) - 512:
        ends = []
        for _, size, _, _ in cs.disasm_lite(real_code[at:at + 256], at, rng.randrange(1, 40)):
            ends.append((ends[-1] if ends else 0) + size)
        if not ends:
            at += 1
            continue
        assert [mark[0] for mark in decoder.block(real_code[at:at + ends[-1]], at)] == ends
        at += ends[-1]
        compared += len(ends)
    assert compared > 50_000


@pytest.mark.parametrize("bits", MODES)
def test_lengths_of_random_instructions(decoder, bits):
    cs, rng = opened(bits), random.Random(bits)
    compared = 0
    for _ in range(12_000):
        code = random_insn(rng)
        theirs = next(cs.disasm_lite(code, 0x1000, 1), None)
        if theirs is None or theirs[2] in UNDEFINED:
            continue
        ours = decoder.insn(code, 0x1000, bits)
        name = theirs[2].split()[-1]
        near = bits == 64 and 0x66 in code[:4] and (name[0] == "j" or name in ("call", "ret"))
        if not near:         # an operand-size prefix on a near branch in 64-bit mode: the next test
            assert ours is not None and ours[0] == theirs[1], (code.hex(), theirs)
        compared += 1
    assert compared > 5_000


@pytest.mark.parametrize("code", ["66e89a11", "66e99a11", "660f84bb9f", "66480f84bb9f4845", "6648e89a11fdce", "6690", "66f20f78c10203", "c9", "c8100000"])
def test_lengths_where_vendors_differ_are_the_engines(decoder, code):
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.mem_map(0, 0x10000)
    engine.mem_write(0x1000, bytes.fromhex(code) + bytes(8))
    sizes = []
    engine.hook_add(unicorn.UC_HOOK_CODE, lambda uc, address, size, user: (sizes.append(size), uc.emu_stop()))
    engine.emu_start(0x1000, 0, count=1)
    assert decoder.insn(bytes.fromhex(code) + bytes(8), 0x1000, 64)[0] == sizes[0] == len(code) // 2


@pytest.mark.parametrize("bits", MODES)
def test_transfers_are_what_capstone_groups_so(decoder, bits):
    cs, rng = opened(bits), random.Random(bits + 1)
    seen = set()
    for _ in range(12_000):
        code = random_insn(rng)
        theirs = next(cs.disasm(code, 0x1000, 1), None)
        if theirs is None:
            continue
        expected = any(theirs.group(group) for group in GROUPS) or theirs.mnemonic in NO_GROUP
        ours = decoder.insn(code, 0x1000, bits)
        assert bool(ours[2] & CT) == expected, (code.hex(), theirs.mnemonic)
        if expected:
            seen.add(theirs.mnemonic)
    assert len(seen) > 25


# bytes, bits, class, flags: one of each that matters to the core
CLASSIFIED = [
    ("7400", 64, "branch", CT), ("0f8400000000", 64, "branch", CT), ("eb00", 64, "jump", CT), ("ffe0", 64, "jump_indirect", CT),
    ("e800000000", 64, "call", CT), ("ffd0", 64, "call_indirect", CT), ("c3", 64, "return", CT), ("c20800", 64, "return", CT),
    ("cb", 64, "far", CT), ("9a000000000000", 32, "far", CT), ("ea00000000", 16, "far", CT), ("ff28", 32, "far", CT),
    ("cf", 64, "interrupt_return", CT), ("48cf", 64, "interrupt_return", CT), ("66cf", 16, "interrupt_return", CT),
    ("cd80", 64, "interrupt", CT), ("cc", 64, "interrupt", CT), ("ce", 32, "interrupt", CT), ("f1", 64, "interrupt", CT),
    ("0f05", 64, "syscall", CT), ("0f07", 64, "sysret", CT), ("480f07", 64, "sysret", CT), ("0f34", 64, "sysenter", CT),
    ("0f35", 64, "sysexit", CT), ("e2fe", 64, "loop", CT), ("e3fe", 64, "loop", CT), ("0f01c1", 64, "vm_transfer", CT),
    ("0f01c2", 64, "vm_transfer", CT), ("0f01d9", 64, "vm_transfer", CT), ("0faa", 32, "far", CT),
    ("e460", 64, "port", IO), ("ec", 64, "port", IO), ("66ef", 32, "port", IO), ("6c", 64, "port_string", IO),
    ("f36e", 64, "port_string", IO | REP), ("f3a4", 64, "rep_move", REP), ("f348a5", 64, "rep_move", REP), ("a5", 64, "string_move", 0),
    ("f3aa", 64, "rep_store", REP), ("ab", 64, "string_store", 0), ("f2ae", 64, "string_scan", REP), ("f3a7", 64, "string_compare", REP),
    ("ac", 64, "string_load", 0), ("f20f10c1", 64, "simd_move", 0), ("f20fc2c101", 64, "simd_add", 0), ("f390", 64, "pause", 0),
    ("f3c3", 64, "return", CT), ("f4", 64, "halt", 0), ("fa", 64, "cli", 0), ("fb", 64, "sti", 0), ("9c", 64, "push_flags", 0),
    ("9d", 64, "pop_flags", 0), ("0fa2", 64, "cpuid", 0), ("0f31", 64, "read_tsc", 0), ("0f01f9", 64, "read_tsc", 0),
    ("0f32", 64, "read_msr", 0), ("0f30", 64, "write_msr", 0), ("0f20d8", 64, "read_cr", 0), ("0f22d8", 64, "write_cr", 0),
    ("440f20c0", 64, "read_cr", 0), ("0f23f8", 64, "debug_register", 0), ("0f01e0", 64, "read_cr", 0), ("0f01f0", 64, "write_cr", 0),
    ("0f06", 64, "clear_ts", 0), ("0f0138", 64, "invlpg", 0), ("660f388200", 64, "invpcid", 0), ("0f09", 64, "wbinvd", 0),
    ("0f0110", 32, "load_table", 0), ("0f00d8", 32, "load_table", 0), ("0f0100", 32, "store_table", 0), ("0f01f8", 64, "swapgs", 0),
    ("8ed8", 32, "load_segment", 0), ("1f", 32, "load_segment", 0), ("0fa1", 64, "load_segment", 0), ("c500", 32, "load_segment", 0),
    ("8cd8", 32, "move", 0), ("0f02c0", 32, "query_segment", 0), ("0f01d0", 64, "read_xcr", 0), ("0f01d1", 64, "write_xcr", 0),
    ("f6f1", 64, "divide_8", 0), ("66f7f1", 64, "divide_16", 0), ("f7f9", 64, "divide_32", 0), ("48f7f1", 64, "divide_64", 0),
    ("f7f1", 16, "divide_16", 0), ("f7e1", 64, "multiply", 0), ("0fafc1", 64, "multiply", 0), ("90", 64, "nop", 0),
    ("4190", 64, "exchange", 0), ("0f1f00", 64, "nop", 0), ("f30f1efa", 64, "nop", 0), ("d9fe", 64, "x87_function", 0), ("d9c1", 64, "x87_move", 0),
    ("d8c1", 64, "x87_add", 0), ("9b", 64, "nop", 0), ("0fae00", 64, "state_save", 0), ("0fae08", 64, "state_restore", 0),
    ("0faee8", 64, "fence_load", 0), ("0faef0", 64, "fence", 0), ("0f0b", 64, "default", 0), ("62", 64, None, None),
]


@pytest.mark.parametrize("code, bits, name, flags", CLASSIFIED)
def test_class_and_flags(decoder, code, bits, name, flags):
    insn = decoder.insn(bytes.fromhex(code), 0x1000, bits)
    assert (insn and (insn[1], insn[2] & 7)) == (name and (name, flags))     # above: tests/test_sensitive.py


def test_flags_agree_with_the_list_of_transfers():
    assert TRANSFERS == {name for _, _, name, flags in CLASSIFIED if name and flags & CT}


# bytes, the classes whose prices add up (64-bit mode); what is read and written is SDM volume 2's
PRICED = [
    ("01c8", ["alu"]), ("0308", ["alu", "load"]), ("0108", ["alu", "load", "store"]), ("3908", ["alu", "load"]), ("8b00", ["move", "load"]),
    ("8900", ["move", "store"]), ("c60001", ["move", "store"]), ("8d00", ["lea"]), ("f00108", ["alu", "load", "store", "lock"]),
    ("8708", ["exchange", "load", "store", "lock"]), ("87c8", ["exchange"]), ("f00fb10a", ["compare_exchange", "load", "store", "lock"]),
    ("ff30", ["push", "load"]), ("8f00", ["pop", "store"]), ("ff10", ["call_indirect", "load"]), ("ff20", ["jump_indirect", "load"]),
    ("50", ["push"]), ("a4", ["string_move"]), ("f3a4", ["rep_move"]), ("0f9400", ["setcc", "store"]), ("0f4400", ["cmov", "load"]),
    ("0fb600", ["move", "load"]), ("d900", ["x87_move", "load"]), ("d918", ["x87_move", "store"]), ("dc00", ["x87_add", "load"]),
    ("0f2800", ["simd_move", "load"]), ("0f2900", ["simd_move", "store"]), ("0f5800", ["simd_add", "load"]), ("c5f05800", ["simd_add", "load"]),
    ("0f1f00", ["nop"]), ("0f0138", ["invlpg"]), ("0f0110", ["load_table"]), ("0fae00", ["state_save"]), ("0fa300", ["bit", "load"]),
    ("0fab00", ["bit", "load", "store"]), ("c1e003", ["shift"]), ("d120", ["shift", "load", "store"]), ("f7f1", ["divide_32"]),
    ("f731", ["divide_32", "load"]), ("48a10000000000000000", ["move", "load"]), ("48a30000000000000000", ["move", "store"]),
]


@pytest.mark.parametrize("code, classes", PRICED)
def test_price_is_class_and_surcharges(decoder, code, classes):
    code = bytes.fromhex(code)
    assert decoder.block(code) == [(len(code), sum(map(price, classes)), decoder.block(code)[0][2])]


# Not run: they change the machine's state, or need one, or touch memory that is no explicit operand.
NOT_RUN = WHOLE | TRANSFERS | {"default", "halt", "wbinvd", "load_segment", "query_segment", "push_flags", "pop_flags", "write_msr", "read_msr",
                               "read_cr", "write_cr", "debug_register", "port", "read_pmc"}


def memory_forms(bits):
    """Every one-byte, 0F, 0F 38 and 0F 3A opcode with each ModRM.reg, operand [rbx], immediates 0; in 64-bit mode some with prefixes."""
    for escape in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"):
        for prefix in (b"", b"\x66", b"\xf2", b"\xf3") if bits == 64 else (b"",):
            for opcode in range(256):
                escaped = not escape and (opcode in (0x0F, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0xD7)
                                          or (bits == 64 and opcode & 0xF0 == 0x40))
                if not escaped and not (escape == b"\x0f" and opcode in (0x38, 0x3A)):
                    for reg in range(2 if prefix else 8):
                        yield prefix + escape + bytes([opcode, reg << 3 | 3]) + bytes(8)


@pytest.mark.slow
@pytest.mark.parametrize("bits, mode", [(32, unicorn.UC_MODE_32), (64, unicorn.UC_MODE_64)])
def test_reads_and_writes_are_those_the_engine_makes(bits, mode):
    """Each form is run once; its surcharges have to name the accesses that the engine reports."""
    decoder = BlockDecoder([{"load": 1, "store": 2}.get(name, 0) for name in CLASSES])
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
    engine.mem_map(0, 0x400000)
    seen = set()
    engine.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE,
                    lambda uc, access, *rest: seen.add(1 if access == unicorn.UC_MEM_READ else 2), begin=0, end=0xFFFFF)
    compared, wrong = 0, []
    for number, code in enumerate(memory_forms(bits)):
        insn = decoder.insn(code, 0x1000, bits)
        if insn is None or insn[1] in NOT_RUN:
            continue
        at = 0x200000 + number * 16                     # fresh code each time: the engine keeps what it translated
        engine.mem_write(at, code)
        engine.mem_write(0x20000, b"\x01" * 256)
        for register, value in (("EAX", 1), ("EBX", 0x20040), ("ECX", 0), ("EDX", 0), ("ESI", 0), ("EDI", 0), ("EBP", 0x180000), ("ESP", 0x180000)):
            engine.reg_write(getattr(x86_const, "UC_X86_REG_" + register), value)
        seen.clear()
        try:
            engine.emu_start(at, 0, count=1)
        except unicorn.UcError:
            continue                                    # #UD here
        compared += 1
        if sum(seen) != insn[4]:
            wrong.append((code.hex(), insn, seen))
    assert not wrong
    assert compared > (3_000 if bits == 64 else 1_500)


def test_every_mnemonic_in_the_table_is_one_of_capstones():
    known = {name[8:].lower() for name in vars(capstone.x86_const) if name.startswith("X86_INS_")}
    listed = {mnemonic for mnemonics in CLASSES.values() for mnemonic in mnemonics.split()}
    assert {mnemonic for mnemonic in listed if mnemonic not in known and "v" + mnemonic not in known} == set()


def test_hardly_anything_real_falls_to_default(real_code):
    decoder = BlockDecoder([1 if name == "default" else 0 for name in CLASSES])
    cs = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    total = unknown = 0
    for _, size, _, _ in cs.disasm_lite(real_code[:64 << 10], 0):
        unknown += decoder.block(real_code[total:total + size])[0][1]
        total += size
    assert total > 1000 and unknown < total / 10_000


@settings(max_examples=400, deadline=None)
@given(code=st.binary(min_size=1, max_size=200), bits=st.sampled_from([16, 32, 64]), pc=st.integers(0, 2**64 - 1))
def test_random_bytes_are_cut_completely(code, bits, pc):
    marks = BlockDecoder(EACH).block(code, pc, bits)
    ends = [0] + [end for end, _, _ in marks]
    assert ends[-1] == len(code)
    assert all(1 <= last - first for first, last in zip(ends, ends[1:]))
    assert all(last - first <= 15 for first, last in zip(ends[:-2], ends[1:]))
    units = [0] + [units for _, units, _ in marks]
    assert all(last - first >= min(EACH) for first, last in zip(units, units[1:]))


WARM = {}


@settings(max_examples=400, deadline=None)
@given(code=st.binary(min_size=1, max_size=60), bits=st.sampled_from([16, 32, 64]))
def test_what_was_seen_before_changes_nothing(code, bits):
    warm = WARM.setdefault("decoder", BlockDecoder(EACH))
    assert warm.block(code, 0, bits) == BlockDecoder(EACH).block(code, 0, bits) == warm.block(code, 0x1234, bits)


@settings(max_examples=200, deadline=None)
@given(code=st.binary(min_size=2, max_size=80), at=st.integers(0, 30))
def test_cost_does_not_depend_on_where_a_block_is_cut(code, at):
    decoder = BlockDecoder(EACH)
    marks = decoder.block(code)
    end, units, _ = marks[at % len(marks)]
    rest = decoder.block(code[end:])
    assert units + (rest[-1][1] if rest else 0) == marks[-1][1]
    assert len(marks) == at % len(marks) + 1 + len(rest)


def test_limits(decoder):
    assert decoder.block(b"") == []
    assert len(decoder.block(b"\x90" * 512)) == 512
    assert decoder.block(b"\x90" * 10, max_marks=3) == [(1, price("nop"), PLAIN), (2, 2 * price("nop"), PLAIN), (10, 3 * price("nop"), PLAIN)]
    assert decoder.block(b"\x90\x48\xb8\x00") == [(1, price("nop"), PLAIN), (4, price("nop") + price("default"), 0)], "a truncated instruction"
    assert decoder.block(b"\x66" * 20)[-1][0] == 20, "no instruction has more than 15 bytes"
    assert decoder.block(b"\x48\xb8" + bytes(8), bits=64)[0][0] == 10
    assert decoder.insn(b"\x48\xb8\x00") is None
    for wrong in ({"code": b"\x90", "bits": 33}, {"code": b"\x90" * 8193}, {"code": b"\x90", "max_marks": 0}):
        with pytest.raises(ValueError, match="expected"):
            decoder.block(**wrong)
    with pytest.raises(ValueError, match="expected"):
        BlockDecoder([1, 2, 3])


def test_the_dearest_block_fits():
    """512 times LOCK ADD [mem] at the most a profile may say for each line (profile.MAX_CYCLES)."""
    dearest = BlockDecoder([MAX_CYCLES["instructions"] * 64] * len(CLASSES))
    units = [units for _, units, _ in dearest.block(b"\xf0\x01\x08" * 512)]
    assert units[-1] == 512 * 4 * MAX_CYCLES["instructions"] * 64 < 2**32
    assert units == sorted(units)


def test_decode_block_names_classes_under_a_profile():
    """push rbp; mov rbp,rsp; add [rdi],eax; ret on Skylake: 1.00, 0.25, 0.25 with load 0.25 and store 0.75, 2.00 cycles (recalled)."""
    assert decode_block(bytes.fromhex("554889e50107c3"), 0, 64, load_profile("skylake")) == [
        (1, 64, PLAIN, "push"), (4, 80, PLAIN, "move"), (6, 160, PLAIN, "alu"), (7, 288, CT | PLAIN, "return")]
