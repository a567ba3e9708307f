# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model in the engine: code is counted by its bytes, priced once it has run often enough, and a loop keeps its
dependency chain over the edges of its blocks; and no cut of the engine's changes a price."""
import random
import struct

import pytest

from pyx86v import Machine, StopReason
from pyx86v.cost.heat import CodeHeat
from pyx86v.cost.model.model import BlockModel
from pyx86v.cost.model.profile import load_model
from pyx86v.cost.profile import load_profile
from rom_runs import machine_for

AFTER = 16
ENTRY = 0x100020
HEADER = struct.pack("<8I", 0x1BADB002, 0x10000, -(0x1BADB002 + 0x10000) & 0xFFFFFFFF, 0x100000, 0x100000, 0, 0, ENTRY)
EXIT = bytes.fromhex("b007e6f4")
# (machine code of a 64-bit block, instructions, units by class): two multiplications in a chain over two blocks, and their counter
FIRST, SECOND = (bytes.fromhex("480fafc1eb00"), 2, 200), (bytes.fromhex("480fafc148ffca75f2"), 3, 112)
OTHER = (bytes.fromhex("4801d8"), 1, 16)


def heat():
    return CodeHeat(load_model("skylake"), AFTER)


def turns(h, blocks, count):
    """The prices of the last of `count` turns."""
    for _ in range(count):
        prices = [h.execute(code, 64, insns, base) for code, insns, base in blocks]
    return prices


def test_priced_at_the_nth_execution():
    h = heat()
    code, insns, base = OTHER
    assert [h.execute(code, 64, insns, base) for _ in range(AFTER - 1)] == [0] * (AFTER - 1)
    assert h.execute(code, 64, insns, base) == h.execute(code, 64, insns, base) > 0
    assert h.execute(code, 32, insns, base) == 0, "other code in another mode"


def test_a_loop_over_two_blocks_keeps_its_chain():
    """Two multiplications of 3 cycles each that wait for one another: 6 cycles a turn, though neither block alone takes as much."""
    together = sum(turns(heat(), [FIRST, SECOND], AFTER))
    assert abs(together - 64 * BlockModel("skylake").cycles(FIRST[0] + SECOND[0], loop=True)) <= 4
    assert 6 * 64 - 4 <= together <= 6 * 64
    apart = 0
    for block in (FIRST, SECOND):
        h = heat()                                            # another block of its own each time: it never comes round
        for n in range(AFTER):
            for k in range(20):
                h.execute(struct.pack("<BI", 0xB8, n * 20 + k), 64, 1, 16)
            price = h.execute(block[0], 64, block[1], block[2])
        apart += price
    assert apart < 4 * 64


@pytest.mark.parametrize("blocks", [[FIRST, OTHER, SECOND], [SECOND, OTHER], [OTHER, FIRST, SECOND, (bytes.fromhex("488b00eb00"), 2, 168)]])
def test_every_rotation_of_a_loop_has_the_same_sum(blocks):
    sums = {sum(turns(heat(), blocks[k:] + blocks[:k], AFTER + 1)) for k in range(len(blocks))}
    assert max(sums) - min(sums) <= len(blocks)               # each part is rounded down
    whole = 64 * BlockModel("skylake").cycles(b"".join(code for code, _, _ in blocks), loop=True)
    assert abs(max(sums) - whole) <= 0.02 * whole + len(blocks)


@pytest.mark.parametrize("after", range(13, 22))
def test_an_inner_loop_keeps_its_own_chain(after):
    """Seven turns of an inner loop for each of the outer one: whichever turn is the one that is analysed, most come right behind another."""
    inner, outer = (FIRST[0][:-2] + bytes.fromhex("480fafc175f6"), 3, 272), (bytes.fromhex("88114883c10175e6"), 3, 100)
    h = CodeHeat(load_model("skylake"), after)
    prices = turns(h, [inner] * 7 + [outer], after)
    assert prices[0] == pytest.approx(64 * BlockModel("skylake").cycles(inner[0], loop=True), abs=4) and prices[0] >= 6 * 64 - 4


def test_saved_and_restored():
    one, other = heat(), heat()
    turns(one, [FIRST, SECOND], AFTER - 3)
    assert other.load(one.image()) and other.image() == one.image()
    assert turns(one, [FIRST, SECOND], 3) == turns(other, [FIRST, SECOND], 3) and all(turns(other, [FIRST, SECOND], 1))
    assert other.image() == one.image()


@pytest.mark.parametrize("at, value", [
    pytest.param(-8, struct.pack("<I", 5), id="price too early"), pytest.param(-4, struct.pack("<I", AFTER + 1), id="count"),
    pytest.param(-16, bytes(8), id="key"),
    pytest.param(0, struct.pack("<Q", 1 << 63), id="steps"), pytest.param(16, bytes(4), id="base"), pytest.param(20, b"\x41", id="instructions"),
    pytest.param(21, b"\x21", id="bits"), pytest.param(22, b"\xf1", id="bytes")])
def test_an_image_that_cannot_be(at, value):
    h = heat()
    turns(h, [FIRST, OTHER], 2)
    image = h.image()
    at %= len(image)
    assert heat().load(image) and not heat().load(image[:at] + value + image[at + len(value):])
    assert not heat().load(image + image[-16:])                     # one key twice
    assert not heat().load(image[:-1]) and not heat().load(b"")


def machine(tmp_path, code, **options):
    path = tmp_path / "guest.elf"
    path.write_bytes(HEADER + code)
    made = Machine(memory=4 << 20, **options)
    made.load(path)
    assert made.run().reason is StopReason.EXIT
    return made


def chain(count):
    """mov ecx, count; 1: imul eax, edx; jmp 2f; 2: imul eax, edx; dec ecx; jnz 1b"""
    return b"\xb9" + struct.pack("<I", count) + bytes.fromhex("0fafc2eb000fafc24975f5") + EXIT


@pytest.mark.parametrize("engine", ["inline", "portable"])
def test_a_turn_of_a_guests_loop(tmp_path, engine):
    """Long after its blocks have their price, a turn costs what the model says of the whole loop."""
    units = [machine(tmp_path, chain(count), engine=engine).ledger_units["instruction"] for count in (1000, 5000)]
    turn = (units[1] - units[0]) / 4000
    assert abs(turn - 64 * BlockModel("skylake").cycles(bytes.fromhex("0fafc2eb000fafc24975f5"), 32, loop=True)) <= 4 and turn >= 380


def long_chain(count):
    """mov ecx, count; 1: thirty times imul eax, edx; dec ecx; jnz 1b"""
    return b"\xb9" + struct.pack("<I", count) + bytes.fromhex("0fafc2") * 30 + b"\x49\x75" + bytes([256 - 93]) + EXIT


# what the translator makes of the loops: jumps with a distance of 32 bits, and one more wherever twelve instructions are over
@pytest.mark.parametrize("guest, translated, cycles", [
    (chain, ["0fafc2e900000000", "0fafc2490f8500000000"], 6),
    (long_chain, ["0fafc2" * 12 + "e900000000", "0fafc2" * 12 + "e900000000", "0fafc2" * 6 + "490f8500000000"], 90)])
def test_a_turn_of_a_translated_loop(tmp_path, guest, translated, cycles):
    """Translated code is charged as what it is, by the model, and keeps the guest's chain over the edges of its units."""
    units = [machine(tmp_path, guest(count), style="bt+shadow").ledger_units["instruction"] for count in (1000, 5000)]
    turn = (units[1] - units[0]) / 4000
    assert abs(turn - 64 * BlockModel("skylake").cycles(bytes.fromhex("".join(translated)), 32, loop=True)) <= 4 * len(translated)
    assert abs(turn - 64 * cycles) <= 4 * len(translated)


@pytest.mark.parametrize("rom, apart", [("pispigot", 0.01), ("sieve", 0.02), ("matrix", 0.02), ("memcopy", 0.02), ("crc", 0.02)])
def test_code_that_is_copied_costs_what_it_costs_natively(rom, apart):
    """`apart`: the jumps that translation adds."""
    cycles = {}
    for style in ("native", "bt+shadow"):
        made = machine_for(rom, style=style, clock="instructions")
        made.run()
        cycles[style] = made.ledger["instruction"]
        assert made.blocks["modelled"] >= 10
    assert cycles["bt+shadow"] == pytest.approx(cycles["native"], rel=apart)


def test_a_profile_without_a_model_adds_up(tmp_path):
    """Every instruction costs what its class costs, however often it runs."""
    made = machine(tmp_path, chain(1000), profile="nehalem")
    profile = load_profile("nehalem")
    cost = {name: round(64 * profile.cycles(name)) for name in ("multiply", "alu", "jump", "branch", "move", "port")}
    turn = 2 * cost["multiply"] + cost["jump"] + cost["alu"] + cost["branch"]
    assert made.blocks == {"seen": 0, "modelled": 0}
    assert made.ledger_units["instruction"] in (1000 * turn + 2 * cost["move"] + cost["port"], 1000 * turn + 2 * cost["move"])


def test_two_copies_are_one_analysis(tmp_path):
    """The same loop twice: the second time it has its price from the first turn on."""
    once, twice = (machine(tmp_path, chain(100)[:-len(EXIT)] * copies + EXIT) for copies in (1, 2))
    assert twice.blocks["modelled"] == once.blocks["modelled"] == 2
    again = machine(tmp_path, chain(200))
    assert twice.ledger_units["instruction"] - once.ledger_units["instruction"] < again.ledger_units["instruction"] - once.ledger_units["instruction"] + 64


# What the model prices, what it says nothing of (CPUID, IN, REP MOVSB, CLI), and jumps to the next instruction.
PIECES = [bytes.fromhex(code) for code in ("01d8 0fafc2 8b06 8907 8d5c0301 d1e0 31d2 5058 83c305 0fb6c3 90 0fa2 e464 b903000000f3a4 fa eb00 7400 f8 8b4604".split())]


def loop_of_anything(seed):
    """A hundred turns of random instructions, a CPUID and two more after ECX was saved, and near a page's end."""
    choose = random.Random(seed)
    body = b"\x51" + b"".join(choose.choice(PIECES) for _ in range(choose.randrange(3, 40))) + b"\x59\x49"
    before = bytes.fromhex("bc00003000be00002000bf00002100") + b"\x90" * choose.choice((0, 3900 - len(body) // 2, 3970, 4000)) + b"\xb9\x64\0\0\0"
    return before + body + b"\x0f\x85" + struct.pack("<i", -len(body) - 6) + EXIT


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("engine", ["inline", "portable"])
def test_no_cut_changes_a_price(tmp_path, seed, engine):
    """Run to its end, and with steps, limits and breakpoints anywhere, before and after its code gets its prices."""
    code, choose = loop_of_anything(seed), random.Random(seed)
    whole = machine(tmp_path, code, engine=engine)
    cut = Machine(memory=4 << 20, engine=engine)
    cut.load(tmp_path / "guest.elf")
    reason = StopReason.LIMIT
    while reason is not StopReason.EXIT:
        assert reason in (StopReason.LIMIT, StopReason.BREAKPOINT)
        how = choose.randrange(4)
        if how == 0:
            at = ENTRY + choose.randrange(len(code))
            cut.add_breakpoint(at)
            reason = cut.run(max_instructions=choose.randrange(1, 300)).reason
            cut.remove_breakpoint(at)
        elif how == 1:
            reason = cut.step(choose.randrange(1, 9)).reason
        elif how == 2:
            reason = cut.run(max_instructions=choose.randrange(1, 9)).reason
        else:
            reason = cut.run(max_cycles=choose.randrange(1, 2000)).reason
    assert whole.blocks["modelled"] and cut.ledger_units == whole.ledger_units and cut.blocks == whole.blocks
