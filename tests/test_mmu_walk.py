# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest walks against the independent walker: small table states exhaustively, random tables by hypothesis."""
import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

import walker
from mmu_help import *
from pyx86v.mmu.testing import MmuBench

RAM = 1 << 16
ALL = (1 << 64) - 1
GVA = 0x123              # index 0 at every level


def expected(memory, ctx, gva, where, width, states):
    """What MmuBench.sweep should return, from the Python walker."""
    walk = walker.Walker(memory, ctx)
    out = []
    for state in states:
        for access in range(3):
            for who in range(3):
                for at, value in zip(where, state):
                    memory[at:at + width] = value.to_bytes(width, "little")
                r = walk.translate(gva, access, who)
                after = tuple([int.from_bytes(memory[at:at + width], "little") for at in where])
                gpa = r.gpa & ~0xfff if r.kind == "ok" else r.gpa
                out.append((STATUS.index(r.kind), r.pfec, gpa, r.qualification, after))
    return out


def check_sweep(where, width, states, fields, gva=GVA, setup=(), options=None):
    """Compare one sweep; every difference is a failure that names state, access and privilege."""
    bench = MmuBench(RAM, options)
    bench.set(maxphyaddr=36, **fields)
    memory = bytearray(RAM)
    for at, data in setup:
        bench.write(at, data)
        memory[at:at + len(data)] = data
    got = bench.sweep(gva, list(where), width, states)
    ctx = context_of(fields, maxphyaddr=36, size=RAM, **(options or {}))
    want = expected(memory, ctx, gva, where, width, states)
    got = [(status, pfec, gpa, qual, after) for status, pfec, gpa, qual, prot, after in got]
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        state, access, who = states[i // 9], i // 3 % 3, i % 3
        assert g == w, f"entries {[hex(e) for e in state]} access {access} privilege {who}: {g} != {w}"
    return got


def controls(*names):
    """Every on/off combination of the named bits, as context fields."""
    registers = {"WP": ("cr0", WP), "SMEP": ("cr4", SMEP), "SMAP": ("cr4", SMAP), "NXE": ("efer", NXE),
                 "PSE": ("cr4", PSE)}
    for on in itertools.product((0, 1), repeat=len(names)):
        more = {"cr0": 0, "cr4": 0, "efer": 0}
        for name, bit in zip(names, on):
            register, value = registers[name]
            more[register] |= value * bit
        yield more


def merged(mode, more, **fields):
    return {k: v | more[k] for k, v in MODES[mode].items()} | fields


LONG_AT = (0x1000, 0x2000, 0x3000, 0x4000)
LONG_TO = (0x2000, 0x3000, 0x4000, 0x5000)


def rights_states(most):
    """W, U, NX of four levels: every combination in which at most `most` levels lack a right."""
    full = W | U
    rights = [w | u | nx for w in (0, W) for u in (0, U) for nx in (0, NX)]
    return [tuple(to | P | r for to, r in zip(LONG_TO, combo)) for combo in itertools.product(rights, repeat=4)
            if sum(r != full for r in combo) <= most]


@pytest.mark.slow
def test_long_mode_rights_at_every_level():
    """All 4,096 states x access x privilege."""
    got = check_sweep(LONG_AT, 8, rights_states(4), merged("long", {"cr0": WP, "cr4": SMEP | SMAP, "efer": NXE}, cr3=0x1000))
    assert {g[0] for g in got} == {0, 1}


@pytest.mark.slow
def test_long_mode_rights_under_every_control():
    """Up to two levels without a right x WP, SMEP, SMAP."""
    for more in controls("WP", "SMEP", "SMAP"):
        check_sweep(LONG_AT, 8, rights_states(2), merged("long", more | {"efer": NXE}, cr3=0x1000))


def test_long_mode_without_nxe():
    """Bit 63 is reserved without NXE: at no level or at one of them."""
    states = []
    for which in (None, 0, 1, 2, 3):
        for combo in itertools.product((0, W, U, W | U), repeat=4):
            states.append(tuple(to | P | r | (NX if i == which else 0)
                                for i, (to, r) in enumerate(zip(LONG_TO, combo))))
    for more in controls("WP"):
        check_sweep(LONG_AT, 8, states, merged("long", more, cr3=0x1000))


@pytest.mark.parametrize("page1g", (0, 1))
def test_long_mode_shapes(page1g):
    """Not present, accessed, dirty, large, reserved and ignored bits at every level in all combinations."""
    kinds = (0, P | W | U, P | W | U | A, P | U | A | D, P | W | U | PS, P | W | U | PS | 1 << 13,
             P | W | 0x7ff0 << 48 | 0xe00, W | U | PS)
    states = [tuple(to | k if not k & PS else k for to, k in zip(LONG_TO, combo))
              for combo in itertools.product(kinds, repeat=4)]
    check_sweep(LONG_AT, 8, states, merged("long", {"cr0": WP, "cr4": 0, "efer": 0}, cr3=0x1000), options={"page1g": page1g})


def test_pae_rights_and_shapes():
    """Both levels: rights, A, D, PS, reserved bits (20:13 of a large page, 36, 52, 62), with every control."""
    common = [w | u | nx | p for w in (0, W) for u in (0, U) for nx in (0, NX) for p in (0, P)]
    shapes = (0, A, A | D, PS, PS | 1 << 13, PS | 1 << 12, 1 << 36, 1 << 52, 1 << 62)
    states = [((0x3000 if not s & PS else 0) | c | s, 0x4000 | c2 | s2) for c in common for s in shapes
              for c2 in common[1::2] for s2 in (0, A | D, 1 << 36, PS)]
    states = states[::7]
    for more in controls("WP", "SMEP", "SMAP", "NXE"):
        check_sweep((0x2000, 0x3000), 8, states[:300] if more["cr0"] else states[300:600],
              merged("pae", more, pdpte=[0x2001, 0, 0, 0]))


def test_pae_all_rights():
    rights = [w | u | nx for w in (0, W) for u in (0, U) for nx in (0, NX)]
    states = [(0x3000 | P | a, 0x4000 | P | b) for a in rights for b in rights]
    for more in controls("WP", "SMEP", "SMAP", "NXE"):
        check_sweep((0x2000, 0x3000), 8, states, merged("pae", more, pdpte=[0x2001, 0, 0, 0]))


def test_pae_pdpte_not_present():
    check_sweep((0x2000,), 8, [(P,)], merged("pae", {"cr0": 0, "cr4": SMEP, "efer": 0}, pdpte=[0x2001, 0x2000, 0, 0]),
          gva=0x40000123)


@pytest.mark.slow
@pytest.mark.parametrize("maxphyaddr", (32, 36, 40, 46))
def test_32_bit_everything(maxphyaddr):
    """All combinations of P, W, U, A, D, PS of PDE and PTE, and address bits 39:32 of a 4 MB page."""
    flags = [sum(c) for c in itertools.product((0, P), (0, W), (0, U), (0, A), (0, D), (0, PS))]
    states = [(0x2000 | a, 0x4000 | b) for a in flags for b in flags[1::2]]
    states += [(P | W | PS | hi << 13, 0) for hi in range(512)]
    memory_states = states if maxphyaddr == 36 else states[-512:]
    for more in controls("WP", "PSE") if maxphyaddr == 36 else controls("PSE"):
        more["cr4"] |= SMEP | SMAP if more["cr0"] else 0
        bench = MmuBench(RAM)
        fields = merged("32", more, cr3=0x1000, maxphyaddr=maxphyaddr)
        bench.set(**fields)
        got = bench.sweep(GVA, [0x1000, 0x2000], 4, memory_states)
        want = expected(bytearray(RAM), context_of(fields, size=RAM), GVA, (0x1000, 0x2000), 4, memory_states)
        assert [g[:4] + g[5:] for g in got] == want


@pytest.mark.parametrize("mode", ("long", "pae", "pse"))
@pytest.mark.parametrize("maxphyaddr", (32, 36, 39, 46, 52))
def test_every_single_bit(mode, maxphyaddr):
    """Each bit alone flipped in an entry of each level, as table and as page, with and without NXE: reserved or not."""
    where = {"long": LONG_AT, "pae": (0x2000, 0x3000), "pse": (0x1000, 0x2000)}[mode]
    width = 4 if mode == "pse" else 8
    plain = [at + 0x1000 | P | W | U | A | D for at in where]
    states = []
    for level in range(len(where)):
        page = [*plain[:level], P | W | U | A | D | PS, *plain[level + 1:]]
        for start in (plain, page):
            states += [tuple(e ^ (i == level) << bit for i, e in enumerate(start)) for bit in range(8 * width)]
    for more in controls("NXE"):
        bench = MmuBench(RAM, {"page1g": more["efer"] != 0})
        fields = merged(mode, more, cr3=0x1000, maxphyaddr=maxphyaddr, pdpte=[0x2001, 0, 0, 0])
        bench.set(**fields)
        got = bench.sweep(GVA, list(where), width, states)
        ctx = context_of(fields, size=RAM, page1g=more["efer"] != 0)
        assert [g[:4] + g[5:] for g in got] == expected(bytearray(RAM), ctx, GVA, where, width, states)


def test_prot_is_what_the_next_access_may_do():
    """prot of an answer = the accesses that the walker allows and that need no dirty flag."""
    rights = [w | u | nx | d for w in (0, W) for u in (0, U) for nx in (0, NX) for d in (0, D)]
    states = [(0x2007, 0x3007, 0x4007, 0x5000 | P | A | r) for r in rights]
    for more in controls("WP", "SMEP", "SMAP"):
        fields = merged("long", more | {"efer": NXE}, cr3=0x1000)
        bench = MmuBench(RAM)
        bench.set(**fields)
        walk = walker.Walker(bytearray(RAM), context_of(fields))
        for i, (status, _, _, _, prot, after) in enumerate(bench.sweep(GVA, list(LONG_AT), 8, states)):
            if status == 0:
                may = [walk.permitted(after, access, i % 3) for access in range(3)]
                assert prot == may[READ] | (may[WRITE] and after[3] & D != 0) << 1 | may[FETCH] << 2


def test_paging_off_is_identity():
    bench = MmuBench(RAM)
    assert bench.translate(0x2345, WRITE)["hpa"] == 0x2000
    assert bench.translate(RAM)["status"] == "no-ram"
    assert bench.lookup(0x2345) is None
    bench.set(window_base=0x4000, window_size=0x4000)
    assert bench.translate(0x2345)["hpa"] == 0x6000
    assert bench.translate(0x4000)["status"] == "no-ram", "inside RAM, outside the window"
    assert bench.counts()["l1d_misses"] == 0


def test_a20_off_wraps():
    bench = MmuBench(2 << 20)
    bench.set(a20_mask=ALL ^ 1 << 20)
    assert bench.translate(0x100234)["hpa"] == 0
    tables = Tables(bench, 0x1000)
    tables.map(0x200000, 0, shift=21)
    bench.set(cr3=tables.root, **MODES["long"])
    r = bench.translate(0x302000)
    assert (r["hpa"], r["shift"]) == (0x2000, 12), "bit 20 is lost, and the page is no longer 2 MB in one piece"


def test_table_outside_ram_reads_as_all_ones():
    """Reserved bits in PAE and 4-level; in 32-bit paging a page at the top of 4 GB, which is no RAM either."""
    bench = MmuBench(RAM)
    bench.set(cr3=0x100000, **MODES["long"])
    assert bench.translate(0, WRITE, USER)["pfec"] == 0xf
    bench.set(pdpte=[0x100001, 0, 0, 0], **MODES["pae"])
    assert bench.translate(0)["pfec"] == 0x9
    bench.set(cr3=0x100000, **MODES["32"])
    r = bench.translate(0x123)
    assert (r["status"], r["gpa"]) == ("no-ram", 0xfffff123)


def test_tables_in_firmware_are_walked_and_not_written():
    bench = MmuBench(RAM)
    tables = Tables(bench, 0xc000, flags=P | W, base=0xc000 - 0xff000000)
    tables.map(0, 0xff000000)
    before = bench.read(0xc000, 0x4000)
    bench.set(cr3=0xff000000, window_size=0xc000, rom_gpa=0xff000000, rom_size=0x4000, rom_base=0xc000, **MODES["long"])
    r = bench.translate(0x10, WRITE)
    assert (r["status"], r["hpa"], r["gpa"]) == ("ok", 0xc000, 0xff000000)
    assert bench.read(0xc000, 0x4000) == before and bench.counts()["table_writes"] == 0


def test_each_reference_is_charged_by_level():
    prices = {1: 1000, 2: 1, 3: 10, 4: 100, 5: 7}
    bench = MmuBench(RAM, prices=prices)
    tables = Tables(bench, 0x1000)
    tables.map(0, 0x5000)
    bench.set(cr3=tables.root, **MODES["long"])
    bench.translate(0)
    total, by = bench.ledger_units()
    assert by[2:7] == [1000, 1, 10, 100, 7] and total == sum(by) == 1118
    assert bench.counts()["guest_refs"] == [0, 1, 1, 1, 1]


def test_quiet_changes_nothing():
    bench = MmuBench(RAM, {"L2": (64, 4, "lru"), "PDE": (4, 0, "lru")})
    tables = Tables(bench, 0x1000, flags=P | W)
    tables.map(0, 0x8000)
    bench.set(cr3=tables.root, **MODES["long"])
    before = bench.state(), bench.read(0, RAM), bench.ledger_units()
    assert bench.quiet(0x123, WRITE)["hpa"] == 0x8000
    assert bench.quiet(0x1000)["status"] == "page-fault"
    assert (bench.state(), bench.read(0, RAM), bench.ledger_units()) == before


@pytest.mark.parametrize("values, ok", [((0x2001, 0x3001, 0, 0x4001), True), ((0x2003, 0, 0, 0), False),
                                        ((0, 0, 0x21, 0), False), ((2, 4, 0x1e6, 1 << 60), True),
                                        ((0, 0, 0, 1 | 1 << 36), False), ((1 << 35 | 0xe19, 0, 0, 0), True)])
def test_pdpte_load(values, ok):
    bench = MmuBench(RAM)
    bench.set(maxphyaddr=36, pdpte=[9, 9, 9, 9])
    bench.write(0x1020, pack(*values))
    r = bench.load_pdptes(0x103f)
    want = walker.pdptes(bytearray(bench.read(0, RAM)), walker.Context(maxphyaddr=36), 0x103f)
    assert (want is not None) == ok, "the case itself"
    assert (r["status"], r["pdpte"]) == (("ok", list(values)) if ok else ("gp", [9, 9, 9, 9]))


def random_entry(rng, pages, odd):
    """Mostly plausible entries: present, pointing into RAM; `odd` is the chance of each strange bit."""
    e = rng.randrange(pages) << 12 | (P | W | U | A if rng.random() > odd else rng.randrange(256))
    for bit in (1, 2, 5, 6, 7, 8, 63, 36, 13, 52, 35, 21, 30):
        if rng.random() < odd / 2:
            e ^= 1 << bit
    return e


def random_case(seed, mode):
    """(memory, context fields) with every page a table of that mode."""
    rng = random.Random(seed)
    pages = RAM >> 12
    width = 4 if mode in ("32", "pse") else 8
    odd = rng.choice((0.02, 0.1, 0.3))
    memory = bytearray(RAM)
    for page in range(pages):
        for slot in range(4):
            entry = random_entry(rng, pages, odd) & (1 << 8 * width) - 1
            memory[page * 4096 + slot * width:page * 4096 + slot * width + width] = entry.to_bytes(width, "little")
    fields = dict(MODES[mode], cr3=rng.randrange(pages) << 12, maxphyaddr=36)
    fields["cr0"] |= rng.choice((0, WP))
    fields["cr4"] |= rng.choice((0, SMEP)) | rng.choice((0, SMAP))
    fields["efer"] |= rng.choice((0, NXE))
    if mode == "pae":
        fields["pdpte"] = [rng.randrange(pages) << 12 | 1 for _ in range(4)]
    return memory, fields, rng


def random_gva(rng, mode):
    if mode in ("32", "pse"):
        return rng.randrange(4) << 22 | rng.randrange(4) << 12 | rng.randrange(4096)
    top = 0 if mode == "pae" else rng.randrange(4) << 39
    return top | rng.randrange(4) << 30 | rng.randrange(4) << 21 | rng.randrange(4) << 12 | rng.randrange(4096)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(sorted(MODES)))
def test_random_tables(seed, mode):
    """Random tables, cold caches: the same answer, the same references, the same memory afterwards."""
    memory, fields, rng = random_case(seed, mode)
    bench = MmuBench(RAM)
    bench.write(0, bytes(memory))
    bench.set(**fields)
    walk = walker.Walker(memory, context_of(fields, size=RAM))
    for _ in range(20):
        gva, access, who = random_gva(rng, mode), rng.randrange(3), rng.randrange(3)
        refs = sum(bench.counts()["guest_refs"])
        bench.flush_all()
        quiet = bench.quiet(gva, access, who)
        got, want = bench.translate(gva, access, who), walk.translate(gva, access, who)
        assert (got["status"], got["pfec"]) == (want.kind, want.pfec)
        assert (quiet["status"], quiet["pfec"], quiet["hpa"]) == (got["status"], got["pfec"], got["hpa"])
        assert sum(bench.counts()["guest_refs"]) - refs == want.guest_refs
        if want.kind == "ok":
            assert (got["hpa"], got["gpa"]) == (want.hpa & ~0xfff, want.gpa & ~0xfff)
        if want.kind == "no-ram":
            assert got["gpa"] == want.gpa
    assert bench.read(0, RAM) == memory


WARM = {"D_4K": (4, 2, "fifo"), "I_4K": (4, 4, "random"), "D_2M": (2, 2, "fifo"), "L2": (16, 4, "lru"), "l2_2m": 1,
        "PDE": (4, 0, "lru"), "PDPTE": (2, 0, "lru"), "PML4E": (2, 0, "lru")}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(sorted(MODES)))
def test_caches_are_invisible_while_tables_stand_still(seed, mode):
    """Warm caches, tables unchanged but for A and D: the same answers and faults as the walker that has none."""
    memory, fields, rng = random_case(seed, mode)
    bench = MmuBench(RAM, WARM)
    bench.write(0, bytes(memory))
    bench.set(**fields)
    walk = walker.Walker(memory, context_of(fields, size=RAM))
    for _ in range(40):
        gva, access, who = random_gva(rng, mode), rng.randrange(3), rng.randrange(3)
        found = bench.lookup(gva, access, who)
        got, want = bench.translate(gva, access, who), walk.translate(gva, access, who)
        assert (got["status"], got["pfec"]) == (want.kind, want.pfec)
        if want.kind == "ok":
            assert (got["hpa"], got["gpa"]) == (want.hpa & ~0xfff, want.gpa & ~0xfff)
            assert found is None or found[0] == want.hpa
            assert bench.lookup(gva, access, who)[0] == want.hpa, "what was translated is found"
        elif want.kind == "no-ram":
            assert got["gpa"] == want.gpa and bench.lookup(gva, access, who) is not None, "a device's page is held like any"
        else:
            assert found is None
        bench.check()
    assert bench.read(0, RAM) == memory
    c = bench.counts()
    assert c["l1i_misses"] + c["l1d_misses"] == c["l2_hits"] + c["walks_i"] + c["walks_d"]
