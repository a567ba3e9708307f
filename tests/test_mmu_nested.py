# SPDX-License-Identifier: GPL-2.0-or-later
"""EPT and 2-D walks: reference counts, exit qualifications, misconfigurations, against the independent walker."""
import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

import walker
from mmu_help import *
from pyx86v.mmu.testing import MmuBench

R_, W_, X_, RWX, WB = 1, 2, 4, 7, 0x30
EPT_A, EPT_D, AD = 0x100, 0x200, 0x40
RAM = 1 << 16
SIZES = (12, 21, 30)
EPT_ENDS = {"ok", "ept-violation", "ept-misconfig"}


# ---------------------------------------------------------------- reference counts

def ept_tables(bench, at, pages, shift=12, eptp_flags=0x1e):
    """EPT that maps the given (gpa, hpa, flags) pages.  Returns the EPT pointer."""
    ept = Tables(bench, at, flags=RWX)
    for gpa, hpa, flags in pages:
        ept.map(gpa, hpa, shift, flags | WB)
    return ept.root | eptp_flags


def identity(bench, at, n_pages, shift=12):
    size = 1 << shift
    return ept_tables(bench, at, [(g, g, RWX) for g in range(0, n_pages << 12, size)], shift)


@pytest.mark.parametrize("guest_shift", SIZES)
@pytest.mark.parametrize("nested_shift", SIZES)
def test_cold_two_dimensional_walk(guest_shift, nested_shift):
    """(g + 1)(n + 1) - 1 references; the entry is the smaller of both pages."""
    g, n = 4 - (guest_shift - 12) // 9, 4 - (nested_shift - 12) // 9
    bench = MmuBench(1 << 17)
    guest = Tables(bench, 0x10000)
    guest.map(0x5000 >> guest_shift << guest_shift, 0x5000 >> guest_shift << guest_shift, guest_shift)
    bench.set(cr3=guest.root, eptp=identity(bench, 0x1000, 0x20, nested_shift), **MODES["long"])
    assert bench.translate(0x5123)["hpa"] == 0x5000
    c = bench.counts()
    assert sum(c["guest_refs"]) == g
    assert sum(c["table_refs"]) == g * n and sum(c["page_refs"]) == n
    assert sum(c["guest_refs"]) + sum(c["table_refs"]) + sum(c["page_refs"]) == (g + 1) * (n + 1) - 1


@pytest.mark.parametrize("mode, large, g", [("32", False, 2), ("pse", True, 1), ("pae", False, 2), ("pae", True, 1)])
@pytest.mark.parametrize("nested_shift", SIZES)
def test_cold_two_dimensional_walk_of_older_modes(mode, large, g, nested_shift):
    """PAE has its PDPTEs in registers: 2 x 4 levels make 14 references."""
    n = 4 - (nested_shift - 12) // 9
    bench = MmuBench(1 << 17)
    entry = (lambda e: e.to_bytes(4, "little")) if mode != "pae" else pack
    bench.write(0x11000, entry(0x12007 if not large else 0x87))
    bench.write(0x12000, entry(0x7) + entry(0x1007))
    bench.set(cr3=0x11000, pdpte=[0x11001, 0, 0, 0], eptp=identity(bench, 0x1000, 0x20, nested_shift), **MODES[mode])
    assert bench.translate(0x1234)["hpa"] == 0x1000
    c = bench.counts()
    assert sum(c["guest_refs"]) + sum(c["table_refs"]) + sum(c["page_refs"]) == (g + 1) * (n + 1) - 1


@pytest.mark.parametrize("nested_shift", SIZES)
def test_paging_off_under_ept(nested_shift):
    """n references, and the translation is cached with the nested page's size."""
    bench = MmuBench(4 << 20, {"D_2M": (4, 4, "fifo"), "D_1G": (4, 4, "fifo")})
    bench.set(eptp=identity(bench, 0x1000, 0x20, nested_shift))
    r = bench.translate(0x5123)
    shift = min(nested_shift, 21) if nested_shift < 30 else 12   # 1 GB does not fit in this RAM
    assert (r["hpa"], r["shift"]) == (0x5000, shift)
    assert sum(bench.counts()["page_refs"]) == 4 - (nested_shift - 12) // 9
    assert bench.lookup(0x5123)[0] == 0x5123


@pytest.mark.parametrize("guest_shift, nested_shift", list(itertools.product((12, 21), repeat=2)))
def test_entry_is_the_smaller_page(guest_shift, nested_shift):
    bench = MmuBench(8 << 20, {"D_2M": (4, 4, "fifo")})
    guest = Tables(bench, 0x10000)
    guest.map(0x600000, 0x200000, guest_shift)
    size = 1 << nested_shift
    pages = [(gpa, gpa, RWX) for gpa in range(0, 0x20000, size)] + [(0x200000, 0x400000, RWX)]
    bench.set(cr3=guest.root, eptp=ept_tables(bench, 0x40000, pages, nested_shift), **MODES["long"])
    r = bench.translate(0x600000)
    assert (r["hpa"], r["gpa"], r["shift"]) == (0x400000, 0x200000, min(guest_shift, nested_shift))


def test_nested_tlb_skips_the_walk_to_a_table():
    prices = {10: 5}
    bench = MmuBench(1 << 17, {"NESTED": (8, 0, "lru"), "D_4K": (1, 1, "fifo")}, prices)
    guest = Tables(bench, 0x10000)
    guest.map(0, 0x1000)
    guest.map(0x1000, 0x2000)
    bench.set(cr3=guest.root, eptp=identity(bench, 0x1000, 0x20), **MODES["long"])
    bench.translate(0)
    first = bench.counts()
    bench.translate(0x1000)
    c = bench.counts()
    assert c["hits"]["NESTED"] == 4 and c["table_refs"] == first["table_refs"]
    assert sum(c["page_refs"]) == 8 and sum(c["guest_refs"]) == 8
    assert bench.ledger_units()[1][1] == 4 * 5


def test_combined_walk_cache_leaves_one_guest_reference():
    bench = MmuBench(1 << 17, {"PDE": (8, 0, "lru"), "D_4K": (1, 1, "fifo")})
    guest = Tables(bench, 0x10000)
    guest.map(0, 0x1000)
    guest.map(0x1000, 0x2000)
    bench.set(cr3=guest.root, eptp=identity(bench, 0x1000, 0x20), **MODES["long"])
    bench.translate(0)
    before = bench.counts()
    assert bench.translate(0x1000)["hpa"] == 0x2000
    c = bench.counts()
    assert sum(c["guest_refs"]) - sum(before["guest_refs"]) == 1
    assert c["table_refs"] == before["table_refs"] and sum(c["page_refs"]) - sum(before["page_refs"]) == 4


# ---------------------------------------------------------------- exhaustive small states

def compare(bench, memory, ctx, gva, where, states):
    """Every access and privilege with each state of the entries at `where`.  Returns the kinds of outcome that there were."""
    kinds = set()
    got = bench.sweep(gva, list(where), 8, states)
    walk = walker.Walker(memory, ctx)
    i = 0
    for state in states:
        for access, who in itertools.product(range(3), range(3)):
            for at, value in zip(where, state):
                memory[at:at + 8] = value.to_bytes(8, "little")
            want = walk.translate(gva, access, who)
            kinds.add(want.kind)
            after = tuple([int.from_bytes(memory[at:at + 8], "little") for at in where])
            status, pfec, gpa, qual, _, got_after = got[i]
            i += 1
            gpa_want = want.gpa & ~0xfff if want.kind == "ok" else 0 if want.kind == "page-fault" else want.gpa
            assert (STATUS[status], pfec, gpa, hex(qual), got_after) == (
                want.kind, want.pfec, gpa_want, hex(want.qualification), after), (
                [hex(e) for e in state], access, who)
    assert i == len(got) > 0
    return kinds


@pytest.mark.parametrize("exec_only, ad", list(itertools.product((0, 1), (0, AD))))
def test_ept_rights_at_every_level(exec_only, ad):
    """R, W, X of four EPT levels under an unpaged guest: at most two levels deviate, then all with one."""
    states = [tuple(to | rwx for to, rwx in zip((0x2000, 0x3000, 0x4000, 0x5030), combo))
              for combo in itertools.product(range(8), repeat=4) if sum(c != RWX for c in combo) <= 2]
    bench = MmuBench(RAM, {"ept_exec_only": exec_only})
    fields = dict(eptp=0x101e | ad, maxphyaddr=36)
    bench.set(**fields)
    ctx = context_of(fields, size=RAM, exec_only=bool(exec_only))
    assert compare(bench, bytearray(RAM), ctx, 0x123, (0x1000, 0x2000, 0x3000, 0x4000), states) == EPT_ENDS


@pytest.mark.parametrize("ept_1g", (0, 1))
def test_ept_shapes_and_misconfigurations(ept_1g):
    """Reserved bits, large pages, memory types, A, D and ignored bits at every level in all combinations."""
    kinds = (0, RWX, RWX | EPT_A, RWX | PS, RWX | PS | 1 << 12, RWX | 1 << 36, RWX | 2 << 3, RWX | 6 << 3 | PS | EPT_D)
    states = [tuple((to if not k & PS or to == 0x5000 else 0) | k for to, k in zip((0x2000, 0x3000, 0x4000, 0x5000), combo))
              for combo in itertools.product(kinds, repeat=4) if sum(k in (RWX, RWX | EPT_A) for k in combo) >= 1]
    states += [(0x2007, 0x3007, 0x4007, 0x5000 | rwx | kind << 3 | extra)
               for rwx in range(8) for kind in range(8) for extra in (0, PS, EPT_A, EPT_A | EPT_D, 1 << 63, 1 << 35)]
    bench = MmuBench(RAM, {"ept_1g": ept_1g})
    fields = dict(eptp=0x105e, maxphyaddr=36)
    bench.set(**fields)
    assert compare(bench, bytearray(RAM), context_of(fields, size=RAM, ept_1g=bool(ept_1g)), 0x123,
            (0x1000, 0x2000, 0x3000, 0x4000), states) == EPT_ENDS | {"no-ram"}


@pytest.mark.parametrize("maxphyaddr", (32, 36, 46, 52))
@pytest.mark.parametrize("ept_1g", (0, 1))
def test_every_single_ept_bit(ept_1g, maxphyaddr):
    """Each bit alone flipped in an EPT entry of each level, as table and as page."""
    where = (0x1000, 0x2000, 0x3000, 0x4000)
    plain = [at + 0x1000 | RWX for at in where]
    states = []
    for level in range(4):
        page = [*plain[:level], RWX | PS | WB, *plain[level + 1:]]
        for start in (plain, page):
            states += [tuple(e ^ (i == level) << bit for i, e in enumerate(start)) for bit in range(64)]
    bench = MmuBench(RAM, {"ept_1g": ept_1g})
    fields = dict(eptp=0x101e, maxphyaddr=maxphyaddr)
    bench.set(**fields)
    assert compare(bench, bytearray(RAM), context_of(fields, size=RAM, ept_1g=bool(ept_1g)), 0x123, where, states) == EPT_ENDS | {"no-ram"}


@pytest.mark.slow
@pytest.mark.parametrize("exec_only, ad", list(itertools.product((0, 1), (0, AD))))
def test_guest_tables_and_pages_with_every_nested_right(exec_only, ad):
    """32-bit guest: nested rights of both tables and of the page x W, A, D of the guest's entries.
    Accessed and dirty updates of a guest entry in a page that EPT does not let be written exit as writes."""
    bench = MmuBench(RAM, {"ept_exec_only": exec_only})
    memory = bytearray(RAM)
    ept = Tables(bench, 0x8000, flags=RWX)
    leaves = [ept.map(gpa, gpa, 12, RWX | WB) for gpa in (0x1000, 0x2000, 0x3000)]
    memory[:] = bench.read(0, RAM)
    fields = dict(MODES["32"], cr3=0x1000, eptp=ept.root | 0x1e | ad, maxphyaddr=36)
    bench.set(**fields)
    guest = [(a, b) for a in (0, A) for b in (0, A, A | D)]
    states = [(0x2000 | P | W | U | a, 0x3000 | P | W | U | b, 0x1000 | WB | d | ra, 0x2000 | WB | d | rb, 0x3000 | WB | d | rc)
              for (a, b), ra, rb, rc, d in itertools.product(guest, (RWX, R_, W_ | X_), (RWX, R_, R_ | W_, X_, 0), range(8), (0, EPT_D))]
    # the two guest entries share their quadwords with nothing else: index 0 of each table
    assert compare(bench, memory, context_of(fields, size=RAM, exec_only=bool(exec_only)), 0x123, (0x1000, 0x2000, *leaves), states) == EPT_ENDS


# ---------------------------------------------------------------- random

def random_nested_case(seed):
    """Guest tables in guest pages, an EPT with holes and odd entries over a scrambled window."""
    rng = random.Random(seed)
    ram = 1 << 17
    bench = MmuBench(ram, {"NESTED": (4, 0, "lru"), "PDE": (2, 0, "lru"), "L2": (8, 4, "lru"), "ept_exec_only": 1}
                     if rng.random() < .5 else {"ept_exec_only": 1})
    frames = list(range(0x40000 >> 14, 0x20))
    rng.shuffle(frames)
    ept = Tables(bench, 0x1000, flags=RWX)
    for gfn, mfn in enumerate(frames):
        odd = rng.random() < .15
        flags = rng.choice((R_, R_ | W_, X_, 0, R_ | X_, W_, RWX | 1 << 40)) if odd else RWX
        ept.map(gfn << 12, mfn << 12, 12, flags | WB)
    n = len(frames)
    for gfn in range(n):
        for slot in range(2):
            entry = rng.randrange(n) << 12 | P | W | U
            if rng.random() < .2:
                entry ^= rng.choice((P, W, U, A, A | D, NX, PS, 1 << 36))
            bench.write((frames[gfn] << 12) + 8 * slot, pack(entry))
    fields = dict(MODES["long"], cr3=rng.randrange(n) << 12, eptp=ept.root | 0x1e | rng.choice((0, AD)), maxphyaddr=36)
    fields["efer"] |= rng.choice((0, NXE))
    bench.set(**fields)
    return bench, context_of(fields, size=ram, exec_only=True), rng


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_two_dimensional_walks(seed):
    """Cold: same outcome, qualification, number of references and memory.  Then warm: same outcome."""
    bench, ctx, rng = random_nested_case(seed)
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

def test_hole_exits_and_is_not_cached():
    bench = MmuBench(RAM)
    bench.set(eptp=ept_tables(bench, 0x8000, [(0, 0, RWX)]))
    for _ in range(2):
        r = bench.translate(0x1234, WRITE)
        assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", 0x1234, 0x182)
    assert bench.counts()["ept_violations"] == 2 and bench.counts()["walks_d"] == 2


def test_ept_page_outside_ram():
    bench = MmuBench(RAM)
    bench.set(eptp=ept_tables(bench, 0x8000, [(0, 1 << 30, RWX)]))
    assert (bench.translate(0x123)["status"], bench.translate(0x123)["gpa"]) == ("no-ram", 0x123)
    bench.set(eptp=1 << 30 | 0x1e)
    assert bench.translate(0x123)["status"] == "ept-misconfig", "all ones"


def test_gpa_beyond_48_bits():
    bench = MmuBench(RAM)
    guest = Tables(bench, 0x1000)
    guest.map(0, 1 << 48)
    bench.set(cr3=guest.root, eptp=identity(bench, 0x8000, 8), maxphyaddr=52, **MODES["long"])
    r = bench.translate(0x10)
    assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", (1 << 48) + 0x10, 0x181)


def test_violation_drops_what_was_cached_and_a_fixed_entry_works_without_invept():
    bench = MmuBench(RAM, {"NESTED": (8, 0, "lru"), "L2": (8, 4, "lru"), "PDE": (4, 0, "lru")})
    guest = Tables(bench, 0x1000)
    guest.map(0, 0x5000)
    ept = Tables(bench, 0x8000, flags=RWX)
    for page in range(8):
        leaf = ept.map(page << 12, page << 12, 12, (R_ if page == 5 else RWX) | WB)
        leaf5 = leaf if page == 5 else None if page < 5 else leaf5
    bench.set(cr3=guest.root, eptp=ept.root | 0x1e, **MODES["long"])
    assert bench.translate(0x10, READ)["prot"] == 1
    r = bench.translate(0x10, WRITE)
    assert (r["status"], r["qualification"], r["drop"]) == ("ept-violation", 0x18a, 1)
    assert bench.lookup(0x10) is None
    bench.write(leaf5, pack(0x5000 | RWX | WB))
    assert bench.translate(0x10, WRITE)["prot"] == 7
    bench.write(leaf5, pack(0x6000 | RWX | WB))
    assert bench.translate(0x10)["hpa"] == 0x5000, "still cached: no INVEPT yet"
    bench.invept(1, ept.root | 0x1e)
    assert bench.translate(0x10)["hpa"] == 0x6000


def test_table_made_writable_after_an_accessed_flag_exit():
    """The walk cache and the nested TLB still say read-only; the repeated walk must not."""
    bench = MmuBench(RAM, {"NESTED": (8, 0, "lru"), "PDE": (4, 0, "lru"), "D_4K": (1, 1, "fifo")})
    guest = Tables(bench, 0x1000)
    guest.map(0, 0x5000)
    pte = guest.map(0x1000, 0x6000, 12, P | W)
    ept = Tables(bench, 0x8000, flags=RWX)
    leaves = [ept.map(page << 12, page << 12, 12, (R_ if page == pte >> 12 else RWX) | WB) for page in range(8)]
    bench.set(cr3=guest.root, eptp=ept.root | 0x1e, **MODES["long"])
    assert bench.translate(0)["status"] == "ok", "accessed already: only read"
    r = bench.translate(0x1000)
    assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", pte, 0x8a)
    bench.write(leaves[pte >> 12], pack(pte & ~0xfff | RWX | WB))
    assert bench.translate(0x1000)["hpa"] == 0x6000


def test_turning_accessed_and_dirty_flags_on_marks_cached_tables_too():
    bench = MmuBench(RAM, {"NESTED": (8, 0, "lru")})
    guest = Tables(bench, 0x1000)
    pte = guest.map(0, 0x5000)
    ept = Tables(bench, 0x8000, flags=RWX)
    leaves = [ept.map(page << 12, page << 12, 12, RWX | WB) for page in range(8)]
    bench.set(cr3=guest.root, eptp=ept.root | 0x1e, **MODES["long"])
    bench.translate(0)
    assert bench.load(leaves[pte >> 12], 64)[1] & (EPT_A | EPT_D) == 0
    bench.set(asid=1, eptp=ept.root | 0x5e)
    bench.translate(0)
    assert bench.load(leaves[pte >> 12], 64)[1] & (EPT_A | EPT_D) == EPT_A | EPT_D
    assert bench.load(leaves[5], 64)[1] & (EPT_A | EPT_D) == EPT_A, "the page itself was only read"


def test_pdptes_load_through_ept():
    bench = MmuBench(RAM, prices={4: 9})
    bench.set(eptp=ept_tables(bench, 0x8000, [(0, 0x2000, RWX)]))
    bench.write(0x2020, pack(0x3001, 0, 0, 0x4001))
    assert bench.load_pdptes(0x20)["pdpte"] == [0x3001, 0, 0, 0x4001]
    assert bench.ledger_units()[1][5] == 9 and bench.counts()["pdpte_loads"] == 1
    r = bench.load_pdptes(0x1020)
    assert (r["status"], r["gpa"], r["qualification"]) == ("ept-violation", 0x1020, 0x1), "bit 7: no linear address"
