# SPDX-License-Identifier: GPL-2.0-or-later
"""No guest of a machine reaches another's memory, or a monitor's, whatever is in its page tables.

A hostile guest walks random tables, whose frames lie in its memory, behind it, in firmware and in devices, while tenants
run beside it.  At every stop each page that the modelled TLBs and the engine's soft TLB hold has to lie in the window or the
firmware of the world that holds it; in the end each tenant has seen nothing, and left what it leaves alone.
"""
import random
import struct

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pyx86v import Machine, StopReason
from pyx86v._core import styles
from pyx86v.cli import guests
from rom_runs import build_guests
from test_worlds import alone, left_by

TABLES, TABLE_PAGES, LIST, ORDERS = 0x800000, 64, 0x700000, 4000
MEMORY = 16 << 20
IDENTITY_SPACE = 0              # of the intruder's PML4: its own code stays where it is
PRESENT, WRITE, LARGE = 1, 2, 0x80


@pytest.fixture(scope="module")
def intruder(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("intruder"), {"intruder": []})["intruder"]


def random_frame(chance):
    """Anywhere: tables, own memory, the monitor's and the neighbours' memory if it were reached unchecked, firmware, nothing."""
    area = chance.randrange(8)
    if area < 3:
        return TABLES + 4096 * chance.randrange(TABLE_PAGES)
    if area < 5:
        return chance.randrange(MEMORY >> 12) << 12
    if area < 7:                        # just behind it, or anywhere behind it
        return MEMORY + (chance.randrange(16) if area < 6 else chance.randrange(7 * MEMORY >> 12)) * 4096
    return chance.choice((0xFFF00000, 0xFFFFF000, 0xA0000, 1 << 38, (1 << 39) - 4096, 1 << 40))


def random_tables(chance):
    """The bytes of TABLE_PAGES tables; the first is the PML4, whose first entry leads to the code."""
    def entry(page):
        flags = chance.choice((3, 3, 3, 3, 7, 0x67, 1, 5, 0x103, 0)) | (chance.randrange(60) == 0) << 63
        if page and chance.randrange(12) == 0:
            flags |= LARGE
        upper = page < TABLE_PAGES // 2 and chance.randrange(10)
        return (TABLES + 4096 * chance.randrange(TABLE_PAGES) if upper else random_frame(chance)) | flags

    pages = [[entry(page) for _ in range(512)] for page in range(TABLE_PAGES)]
    pages[0][IDENTITY_SPACE] = (TABLES + 4096) | PRESENT | WRITE
    pages[1] = [(n << 30) | PRESENT | WRITE | LARGE for n in range(4)] + pages[1][4:]
    pages[1][0] = (TABLES + 8192) | PRESENT | WRITE
    pages[2] = [(n << 21) | PRESENT | WRITE | LARGE for n in range(512)]
    return b"".join(struct.pack("<512Q", *page) for page in pages)


def random_orders(chance):
    """4,000 addresses through the random part of the tables, some near the one before; the last ones may be anywhere, code too."""
    text, at = [], 1 << 39
    for n in range(ORDERS):
        at = at + 8 if chance.randrange(3) == 0 else chance.randrange(1 << 39, 1 << 47) & ~7
        if n > ORDERS * 3 // 4 and chance.randrange(9) == 0:
            at = chance.randrange(1 << 32)
        text.append(struct.pack("<QQ", at, chance.choices((0, 1, 2, 3, 4), (50, 40, n > ORDERS * 3 // 4, 3, 0.2))[0]))
    return b"".join(text)


def cached(machine, found):
    """[(number, (first, end))] of the monitor's memory of each world that is translated."""
    return [(i, (memory[1], memory[2])) for i, memory in enumerate(found["memory"]) if machine.guests[i].style == "bt+shadow"]


def escapes(machine):
    """What is held of RAM that is not the holder's: [(kind, world, address, bytes)]; and what of the engine's the model does not hold."""
    found = machine._worlds()
    caches = cached(machine, found)
    bad = []
    for kind in ("pages", "tables"):
        for world, at, size in found[kind]:
            if at == found["ones"] or at >= found["end"]:           # the page of ones; devices
                continue
            first, end, rom, rom_end = found["memory"][world] if world >= 0 else (0, 0, 0, 0)
            if any(low <= at < high and world in (-1, index) for index, (low, high) in caches):
                continue                                             # translated code and its cells, in the monitor's memory of that world
            own = first <= at and at + size <= end or rom <= at and at + size <= rom_end
            if not (own or kind == "tables" and end <= at < rom):    # shadow tables lie in the monitor's memory
                bad.append((kind, world, hex(at), size))
    return bad + [("beyond the model", hex(at), side) for at, side in found["beyond"]
                  if not (caches and (at & 0xFFFFFFFF) >> 26 == 0x3F)]     # under a tag of its own


@pytest.mark.slow
@settings(max_examples=8, deadline=None, phases=[Phase.generate])       # a smaller seed is no smaller case
@given(seed=st.integers(0, 1 << 32), style=st.sampled_from(sorted(styles())), neighbour=st.sampled_from(sorted(styles())),
       profile=st.sampled_from(("skylake", "p4-672", "zen")), asids=st.sampled_from((None, 1, 2)), ept_page=st.sampled_from(("4K", "2M")))
def test_no_page_of_another_world(intruder, seed, style, neighbour, profile, asids, ept_page):
    chance = random.Random(seed)
    machine = Machine(guests=[{"style": neighbour, "memory": MEMORY}, {"style": style, "memory": MEMORY}, {"style": "native", "memory": MEMORY}],
                      clock="instructions", quantum=2000, profile=profile, asids=asids, ept_page=ept_page)
    for i in (0, 2):
        machine.guests[i].load(guests.image("tenant"), kernel_args=str(i + 1))
    machine.guests[1].load(intruder)
    machine.guests[1].write_memory(TABLES, random_tables(chance))
    machine.guests[1].write_memory(LIST, random_orders(chance))
    held = set()
    for _ in range(300):
        machine.run(max_instructions=chance.choice((1, 300, 1500, 2500, 9000)))
        assert escapes(machine) == []
        held |= {page for page in machine._worlds()["pages"] if page[0] == 1}
        if machine.guests[1].end:
            break
    assert len(held) > 8                                         # it reached what is its own
    while None in (machine.guests[0].end, machine.guests[2].end):
        assert machine.run(max_instructions=5_000_000).reason is not StopReason.ERROR
        assert escapes(machine) == []
    for i, name in ((0, neighbour), (2, "native")):
        assert (machine.guests[i].end, left_by(machine.guests[i])) == alone("tenant", name, profile, i + 1)
