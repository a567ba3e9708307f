# SPDX-License-Identifier: GPL-2.0-or-later
"""AMD's nested tables (APM 2 15.25): reference counts, error codes, accessed and dirty flags, against the independent walker."""
import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

import walker
from mmu_help import *
from pyx86v.mmu.testing import MmuBench

AD = 0x40                       # the context's eptp for NPT carries it: NPT always sets accessed and dirty flags
RAM = 1 << 16
SIZES = (12, 21, 30)
FINAL, TABLE = 1 << 32, 1 << 33


def npt_tables(bench, at, pages, shift=12):
    """Nested tables that map the given (gpa, hpa, flags) pages.  Returns (root with AD, the tables)."""
    npt = Tables(bench, at, flags=P | W | U)
    for gpa, hpa, flags in pages:
        npt.map(gpa, hpa, shift, flags)
    return npt.root | AD, npt


def identity(bench, at, n_pages, shift=12):
    return npt_tables(bench, at, [(g, g, P | W | U) for g in range(0, n_pages << 12, 1 << shift)], shift)[0]


def fields_of(**more):
    return dict(nested_kind=1, nested_nxe=1, maxphyaddr=36) | more


# ---------------------------------------------------------------- reference counts

@pytest.mark.parametrize("guest_shift", SIZES)
@pytest.mark.parametrize("nested_shift", SIZES)
def test_cold_two_dimensional_walk(guest_shift, nested_shift):
    """(g + 1)(n + 1) - 1 references (Bhargava et al. 2008); the entry is the smaller of both pages."""
    g, n = 4 - (guest_shift - 12) // 9, 4 - (nested_shift - 12) // 9
    bench = MmuBench(1 << 17)
    guest = Tables(bench, 0x10000)
    guest.map(0x5000 >> guest_shift << guest_shift, 0x5000 >> guest_shift << guest_shift, guest_shift)
    bench.set(**fields_of(cr3=guest.root, eptp=identity(bench, 0x1000, 0x20, nested_shift), **MODES["long"]))
    assert bench.translate(0x5123)["hpa"] == 0x5000
    c = bench.counts()
    assert sum(c["guest_refs"]) == g
    assert sum(c["table_refs"]) == g * n and sum(c["page_refs"]) == n
    assert sum(c["guest_refs"]) + sum(c["table_refs"]) + sum(c["page_refs"]) == (g + 1) * (n + 1) - 1


@pytest.mark.parametrize("mode, large, g", [("32", False, 2), ("pse", True, 1), ("pae", False, 2), ("pae", True, 1)])
@pytest.mark.parametrize("nested_shift", SIZES)
def test_cold_two_dimensional_walk_of_older_modes(mode, large, g, nested_shift):
    n = 4 - (nested_shift - 12) // 9
    bench = MmuBench(1 << 17)
    entry = (lambda e: e.to_bytes(4, "little")) if mode != "pae" else pack
    bench.write(0x11000, entry(0x12007 if not large else 0x87))
    bench.write(0x12000, entry(0x7) + entry(0x1007))
    bench.set(**fields_of(cr3=0x11000, pdpte=[0x11001, 0, 0, 0], eptp=identity(bench, 0x1000, 0x20, nested_shift), **MODES[mode]))
    assert bench.translate(0x1234)["hpa"] == 0x1000
    c = bench.counts()
    assert sum(c["guest_refs"]) + sum(c["table_refs"]) + sum(c["page_refs"]) == (g + 1) * (n + 1) - 1


# ---------------------------------------------------------------- exhaustive small states

def compare(bench, memory, ctx, gva, where, states):
    """Every access and privilege with each state of the entries at `where`: outcome, error code, memory afterwards.
    Returns the kinds of outcome that there were."""
    kinds = set()
    got = iter(bench.sweep(gva, list(where), 8, states))
    walk = walker.Walker(memory, ctx)
    for state in states:
        for access, who in itertools.product(range(3), range(3)):
            for at, value in zip(where, state):
                memory[at:at + 8] = value.to_bytes(8, "little")
            want = walk.translate(gva, access, who)
            kinds.add(want.kind)
            after = tuple([int.from_bytes(memory[at:at + 8], "little") for at in where])
            status, pfec, gpa, info, _, got_after = next(got)
            gpa_want = want.gpa & ~0xfff if want.kind == "ok" else 0 if want.kind == "page-fault" else want.gpa
            assert (STATUS[status], pfec, gpa, hex(info), got_after) == (
                want.kind, want.pfec, gpa_want, hex(want.qualification), after), ([hex(e) for e in state], access, who)
    assert states and not list(got)
    return kinds


@pytest.mark.parametrize("nxe", (0, 1))
def test_rights_and_flags_at_every_level(nxe):
    """P, W, U, NX, A, D of four nested levels under an unpaged guest: at most two levels deviate, then all with one."""
    kinds = (0, P, P | W, P | U, P | W | U, P | W | U | A, P | W | U | A | D, P | W | U | NX, P | U | NX | A)
    usual = P | W | U
    states = [tuple(to | k for to, k in zip((0x2000, 0x3000, 0x4000, 0x5000), combo))
              for combo in itertools.product(kinds, repeat=4) if sum(c != usual for c in combo) <= 2]
    states += [tuple(to | k for to in (0x2000, 0x3000, 0x4000, 0x5000)) for k in kinds]
    bench = MmuBench(RAM)
    fields = fields_of(eptp=0x1000 | AD, nested_nxe=nxe)
    bench.set(**fields)
    assert compare(bench, bytearray(RAM), context_of(fields, size=RAM), 0x123, (0x1000, 0x2000, 0x3000, 0x4000), states) == {"ok", "ept-violation"}


@pytest.mark.parametrize("maxphyaddr", (32, 36, 46, 52))
@pytest.mark.parametrize("nxe, page1g", list(itertools.product((0, 1), repeat=2)))
def test_every_single_bit(nxe, page1g, maxphyaddr):
    """Each bit alone flipped in a nested entry of each level, as table and as page: no misconfiguration, but RSVD."""
    where = (0x1000, 0x2000, 0x3000, 0x4000)
    plain = [at + 0x1000 | P | W | U for at in where]
    states = []
    for level in range(4):
        page = [*plain[:level], P | W | U | PS, *plain[level + 1:]]
        for start in (plain, page):
            states += [tuple(e ^ (i == level) << bit for i, e in enumerate(start)) for bit in range(64)]
    bench = MmuBench(RAM, {"page1g": page1g})
    fields = fields_of(eptp=0x1000 | AD, nested_nxe=nxe, maxphyaddr=maxphyaddr)
    bench.set(**fields)
    assert compare(bench, bytearray(RAM), context_of(fields, size=RAM, page1g=bool(page1g)), 0x123, where, states) == {"ok", "ept-violation", "no-ram"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ("32", "long"))
def test_guest_tables_and_pages_with_every_nested_right(mode):
    """Nested rights of a guest's tables and of its page x A and D of the guest's entries.  A table that the nested
    entries let only be read faults at the read, which counts as a user's write (15.25.6)."""
    bench = MmuBench(1 << 17)
    npt = Tables(bench, 0x10000, flags=P | W | U)
    pages = (0x1000, 0x2000, 0x3000) if mode == "32" else (0x1000, 0x2000, 0x3000, 0x4000, 0x5000)
    leaves = [npt.map(gpa, gpa, 12, P | W | U) for gpa in pages]
    memory = bytearray(bench.read(0, 1 << 17))
    fields = fields_of(**MODES[mode], cr3=0x1000, eptp=npt.root | AD)
    bench.set(**fields)
    kinds = (0, P, P | W, P | U, P | W | U, P | W | U | NX, P | W | U | A | D)
    usual = P | W | U
    tables = [tuple(gpa + 0x1000 | P | W | U | A for gpa in pages[:-2]) + (pages[-1] | P | W | U | leaf,) for leaf in (0, A, A | D)]
    states = [guest + tuple(gpa | k for gpa, k in zip(pages, nested))
              for guest in tables for nested in itertools.product(kinds, repeat=len(pages)) if sum(k != usual for k in nested) <= 2]
    assert compare(bench, memory, context_of(fields, size=1 << 17), 0x123, (*pages[:-1], *leaves), states) == {"ok", "ept-violation"}


# ---------------------------------------------------------------- random

def random_case(seed):
    """Guest tables in guest pages, nested tables with holes and odd entries over a scrambled machine."""
    rng = random.Random(seed)
    ram = 1 << 17
    bench = MmuBench(ram, {"NESTED": (4, 0, "lru"), "PDE": (2, 0, "lru"), "L2": (8, 4, "lru")} if rng.random() < .5 else {})
    frames = list(range(0x40000 >> 14, 0x20))
    rng.shuffle(frames)
    npt = Tables(bench, 0x1000, flags=P | W | U)
    for gfn, mfn in enumerate(frames):
        odd = rng.random() < .15
        npt.map(gfn << 12, mfn << 12, 12, rng.choice((0, P, P | W, P | U, P | W | U | NX, P | W | U | 1 << 40, U)) if odd else P | W | U)
    n = len(frames)
    for gfn, slot in itertools.product(range(n), range(2)):
        entry = rng.randrange(n) << 12 | P | W | U
        if rng.random() < .2:
            entry ^= rng.choice((P, W, U, A, A | D, NX, PS, 1 << 36))
        bench.write((frames[gfn] << 12) + 8 * slot, pack(entry))
    fields = fields_of(**MODES["long"], cr3=rng.randrange(n) << 12, eptp=npt.root | AD, nested_nxe=rng.randrange(2))
    fields["efer"] |= rng.choice((0, NXE))
    bench.set(**fields)
    return bench, context_of(fields, size=ram), rng


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_two_dimensional_walks(seed):
    """Cold: same outcome, EXITINFO1, number of references and memory.  Then warm: same outcome."""
    bench, ctx, rng = random_case(seed)
    memory = bytearray(bench.read(0, 1 << 17))
    walk = walker.Walker(memory, ctx)
    for i in range(30):
        gva = sum(rng.randrange(2) << s for s in (39, 30, 21, 12)) | rng.randrange(4096)
        access, who = rng.randrange(3), rng.randrange(3)
        if cold := i < 20:
            bench.flush_all()
        before = bench.counts()
        want, got = walk.translate(gva, access, who), bench.translate(gva, access, who)
        assert (got["status"], got["pfec"], got["qualification"]) == (want.kind, want.pfec, want.qualification)
        if want.kind == "ok":
            assert (got["hpa"], got["gpa"]) == (want.hpa & ~0xfff, want.gpa & ~0xfff)
        elif want.kind.startswith("ept"):
            assert got["gpa"] == want.gpa
        after = bench.counts()
        if cold and not after["hits"]["NESTED"]:
            assert sum(after["guest_refs"]) - sum(before["guest_refs"]) == want.guest_refs
            assert sum(after["table_refs"] + after["page_refs"]) - sum(before["table_refs"] + before["page_refs"]) == want.nested_refs
    bench.check()
    assert bench.read(0, 1 << 17) == memory


# ---------------------------------------------------------------- single rules

def test_a_fault_names_what_was_translated():
    """A hole behind the guest's tables, then one where a table should be; the table's read is reported as a write."""
    bench = MmuBench(RAM)
    guest = Tables(bench, 0x1000)
    guest.map(0, 0x20000)
    root, npt = npt_tables(bench, 0x8000, [(g << 12, g << 12, P | W | U) for g in range(8)])
    bench.set(**fields_of(cr3=guest.root, eptp=root, **MODES["long"]))
    assert [(r["status"], r["gpa"], r["qualification"]) for r in (bench.translate(0x123, a, KERNEL) for a in range(3))] == [
        ("ept-violation", 0x20123, FINAL | 4), ("ept-violation", 0x20123, FINAL | 6), ("ept-violation", 0x20123, FINAL | 0x14)]
    npt.map(0x1000, 0x1000, 12, P | U)
    bench.flush_all()
    r = bench.translate(0x123)
    assert (r["gpa"], r["qualification"]) == (0x1000, TABLE | 7)


def test_dirty_flag_of_tables_and_pages():
    """Guest tables' pages become dirty by being walked, the page itself by being written."""
    bench = MmuBench(1 << 17)
    guest = Tables(bench, 0x1000)
    pte = guest.map(0, 0x5000)
    npt = Tables(bench, 0x10000, flags=P | W | U)
    leaves = [npt.map(page << 12, page << 12, 12, P | W | U) for page in range(8)]
    bench.set(**fields_of(cr3=guest.root, eptp=npt.root | AD, **MODES["long"]))
    flags = lambda page: bench.load(leaves[page], 64)[1] & (A | D)
    assert bench.translate(0)["prot"] == 5, "not writable before the nested dirty flag is set"
    assert flags(pte >> 12) == A | D and flags(5) == A
    assert bench.translate(0, WRITE)["prot"] == 7 and flags(5) == A | D


def test_a_repaired_entry_works_without_a_flush():
    """A nested page fault drops what was cached of its page; raising rights needs no invalidation."""
    bench = MmuBench(RAM, {"NESTED": (8, 0, "lru"), "L2": (8, 4, "lru"), "PDE": (4, 0, "lru")})
    guest = Tables(bench, 0x1000)
    guest.map(0, 0x5000)
    npt = Tables(bench, 0x8000, flags=P | W | U)
    leaves = [npt.map(page << 12, page << 12, 12, P | U if page == 5 else P | W | U) for page in range(8)]
    bench.set(**fields_of(cr3=guest.root, eptp=npt.root | AD, **MODES["long"]))
    assert bench.translate(0x10, READ)["prot"] == 5
    r = bench.translate(0x10, WRITE)
    assert (r["status"], r["qualification"], r["drop"]) == ("ept-violation", FINAL | 7, 1) and bench.lookup(0x10) is None
    bench.write(leaves[5], pack(0x5000 | P | W | U))
    assert bench.translate(0x10, WRITE)["prot"] == 7


def test_gpa_beyond_48_bits():
    bench = MmuBench(RAM)
    guest = Tables(bench, 0x1000)
    guest.map(0, 1 << 48)
    bench.set(**fields_of(cr3=guest.root, eptp=identity(bench, 0x8000, 8), maxphyaddr=52, **MODES["long"]))
    r = bench.translate(0x10)
    assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", (1 << 48) + 0x10, FINAL | 4)


def test_pdptes_load_through_nested_tables():
    bench = MmuBench(RAM, prices={4: 9})
    bench.set(**fields_of(eptp=npt_tables(bench, 0x8000, [(0, 0x2000, P | W | U)])[0]))
    bench.write(0x2020, pack(0x3001, 0, 0, 0x4001))
    assert bench.load_pdptes(0x20)["pdpte"] == [0x3001, 0, 0, 0x4001]
    r = bench.load_pdptes(0x1020)
    assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", 0x1020, TABLE | 6)
