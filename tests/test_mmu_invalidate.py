# SPDX-License-Identifier: GPL-2.0-or-later
"""Which instruction drops what: SDM 3A 4.10.4.1 (INVLPG, INVPCID, MOV CR, page faults), SDM 3C 28.4.3 (VPID, EPT)."""
import random

import pytest
from hypothesis import given, settings, strategies as st

import walker
from mmu_help import *
from pyx86v.mmu.testing import MmuBench

CACHES = {"D_4K": (32, 8, "fifo"), "I_4K": (32, 8, "fifo"), "D_2M": (8, 8, "fifo"), "L2": (64, 8, "lru"), "l2_2m": 1,
          "PDE": (8, 0, "lru"), "PDPTE": (4, 0, "lru"), "PML4E": (4, 0, "lru"), "NESTED": (16, 0, "lru")}
LOCAL, GLOBAL = 0x1000, 0x2000          # two pages of every space
BASE_CR4 = PAE | PGE | PCIDE
RWX, WB = 7, 0x30


class Spaces:
    """One bench with a page LOCAL and a global page GLOBAL, loaded into the TLB under several (asid, pcid, eptp)."""

    def __init__(self, spaces, cr4=BASE_CR4):
        self.bench = MmuBench(1 << 18, CACHES)
        self.tables = Tables(self.bench, 0x1000, flags=P | W | A | D)
        self.tables.map(LOCAL, 0x8000)
        self.tables.map(GLOBAL, 0x9000, 12, P | W | A | D | G)
        self.eptp = []
        for at in (0x20000, 0x30000):
            ept = Tables(self.bench, at, flags=RWX)
            for page in range(16):
                ept.map(page << 12, page << 12, 12, RWX | WB)
            self.eptp.append(ept.root | 0x1e)
        self.bench.set(cr3=self.tables.root, **MODES["long"] | {"cr4": cr4})
        self.spaces = [self.space(*s) for s in spaces]
        for s in self.spaces:
            self.bench.set(**s)
            assert self.bench.translate(LOCAL)["status"] == self.bench.translate(GLOBAL)["status"] == "ok"
        self.bench.set(**self.spaces[0])

    def space(self, asid, pcid, root=None):
        return dict(asid=asid, pcid=pcid, eptp=0 if root is None else self.eptp[root])

    def cached(self):
        """For each space "l" and "g": is LOCAL, is GLOBAL in the TLB?"""
        out = []
        for s in self.spaces:
            self.bench.set(**s)
            out.append("".join(c for c, va in (("l", LOCAL), ("g", GLOBAL)) if self.bench.lookup(va)))
        self.bench.set(**self.spaces[0])
        self.bench.check()
        return out


PCIDS = [(1, 1), (1, 2), (2, 1)]        # (asid, pcid); the first is current


def test_global_pages_serve_every_pcid_of_their_asid():
    s = Spaces([(1, 1)])
    assert s.cached() == ["lg"]
    s.bench.set(asid=1, pcid=9)
    assert not s.bench.lookup(LOCAL) and s.bench.lookup(GLOBAL)
    s.bench.set(asid=2, pcid=1)
    assert not s.bench.lookup(LOCAL) and not s.bench.lookup(GLOBAL)


def test_without_pge_no_page_is_global():
    s = Spaces([(1, 1)], cr4=PAE | PCIDE)
    s.bench.set(pcid=9)
    assert not s.bench.lookup(GLOBAL)


@pytest.mark.parametrize("pcide, noflush, pcid, left", [
    (True, False, 1, ["g", "lg", "lg"]), (True, True, 1, ["lg", "lg", "lg"]),
    (True, False, 2, ["lg", "g", "lg"]), (False, False, 0, ["lg", "lg", "lg"])])
def test_mov_cr3(pcide, noflush, pcid, left):
    s = Spaces(PCIDS)
    drop = s.bench.mov_cr3(s.tables.root | pcid, pcide, noflush)
    assert s.cached() == left
    assert drop == (2 if left != ["lg"] * 3 else 0)


def test_mov_cr3_without_pcide_drops_pcid_zero_but_global():
    s = Spaces([(1, 0), (2, 0)], cr4=PAE | PGE)
    s.bench.mov_cr3(s.tables.root)
    assert s.cached() == ["g", "lg"]
    assert s.bench.counts()["entries_flushed"] == 2, "first and second level"
    assert s.bench.counts()["live"]["PDE"] == 1, "the other asid's"


@pytest.mark.parametrize("va, left", [(LOCAL, ["g", "lg", "lg"]), (GLOBAL, ["l", "l", "lg"])])
def test_invlpg(va, left):
    s = Spaces(PCIDS)
    pde = s.bench.counts()["live"]["PDE"]
    assert s.bench.invlpg(va + 0x123) == 1
    assert s.cached() == left
    assert s.bench.counts()["live"]["PDE"] == pde - 1, "the current PCID's paging-structure caches are empty"


@pytest.mark.parametrize("kind, pcid, va, left", [
    (0, 2, LOCAL, ["lg", "g", "lg"]), (0, 2, GLOBAL, ["lg", "lg", "lg"]), (1, 2, 0, ["lg", "g", "lg"]),
    (2, 0, 0, ["", "", "lg"]), (3, 0, 0, ["g", "g", "lg"])])
def test_invpcid(kind, pcid, va, left):
    s = Spaces(PCIDS)
    s.bench.invpcid(kind, pcid, va)
    assert s.cached() == left


@pytest.mark.parametrize("before, after, left", [
    ({}, {"cr4": BASE_CR4 ^ PGE}, ["", "", "lg"]), ({}, {"cr4": BASE_CR4 ^ PCIDE}, ["", "", "lg"]),
    ({}, {"cr0": PE}, ["", "", "lg"]), ({}, {"cr0": PE | PG | WP}, ["lg", "lg", "lg"]),
    ({}, {"cr4": BASE_CR4 | SMEP}, ["", "l", "lg"]), ({}, {"cr4": BASE_CR4 | SMAP}, ["lg", "lg", "lg"]),
    ({"cr4": BASE_CR4 | SMEP}, {"cr4": BASE_CR4}, ["lg", "lg", "lg"]),
    ({}, {"cr4": BASE_CR4 | PSE}, ["", "l", "lg"]), ({"cr4": PAE | PGE}, {"cr4": BASE_CR4}, ["lg", "lg", "lg"])])
def test_control_register_changes(before, after, left):
    s = Spaces(PCIDS)
    s.bench.set(**before)
    s.bench.mode_change(**after)
    s.bench.set(cr0=PG | PE, cr4=BASE_CR4)
    assert s.cached() == left


VMX = [(1, 1, 0), (1, 1, 1), (2, 1, 0), (1, 1, None)]    # (VPID, PCID, EPT root)


def test_vpids_and_roots_are_told_apart():
    s = Spaces(VMX)
    assert s.cached() == ["lg"] * 4
    assert s.bench.counts()["walks_d"] == 8
    assert s.bench.counts()["live"]["NESTED"] > 0


def test_invlpg_acts_on_the_current_vpid_under_every_root():
    s = Spaces(VMX)
    s.bench.invlpg(LOCAL)
    assert s.cached() == ["g", "g", "lg", "g"]


@pytest.mark.parametrize("kind, root, left", [(1, 0, ["", "lg", "", "lg"]), (2, 0, ["", "", "", "lg"])])
def test_invept(kind, root, left):
    s = Spaces(VMX)
    s.bench.invept(kind, s.eptp[root])
    assert s.cached() == left
    assert (s.bench.counts()["live"]["NESTED"] == 0) == (kind == 2)


@pytest.mark.parametrize("kind, left", [(0, ["g", "g", "lg", "g"]), (1, ["", "", "lg", ""]), (2, ["", "", "", ""]),
                                        (3, ["g", "g", "lg", "g"])])
def test_invvpid(kind, left):
    s = Spaces(VMX)
    nested = s.bench.counts()["live"]["NESTED"]
    s.bench.invvpid(kind, 1, LOCAL)
    assert s.cached() == left
    assert s.bench.counts()["live"]["NESTED"] == nested, "guest-physical mappings have no VPID"


def test_invvpid_all_contexts_leaves_vpid_zero():
    s = Spaces([(0, 1), (1, 1), (7, 1)])
    s.bench.invvpid(2)
    assert s.cached() == ["lg", "", ""]


def test_flush_asid_and_all():
    s = Spaces(VMX)
    s.bench.flush_asid(1)
    assert s.cached() == ["", "", "lg", ""]
    s = Spaces(VMX)
    s.bench.flush_all()
    assert s.cached() == [""] * 4 and sum(s.bench.counts()["live"].values()) == 0


def test_page_fault_drops_its_page():
    """Of the current PCID and of global pages, and the walk-cache entries on the way."""
    s = Spaces(PCIDS)
    s.bench.write(s.tables.map(LOCAL, 0x8000), pack(0))
    assert s.bench.translate(LOCAL, WRITE)["status"] == "ok", "not invalidated: the stale entry serves"
    r = s.bench.translate(LOCAL, READ, USER)
    assert (r["status"], r["pfec"], r["drop"]) == ("page-fault", 4, 1)
    assert s.cached() == ["g", "lg", "lg"]
    assert s.bench.counts()["flushes"]["fault"] == 1


def test_page_fault_drops_the_walk_cache_on_its_way():
    """And nothing else of it: not another PCID's, not another region's."""
    bench = MmuBench(1 << 16, CACHES)
    tables = Tables(bench, 0x1000)
    tables.map(0x1000, 0x8000)
    tables.map(0x200000, 0x8000)
    bench.set(cr3=tables.root, **MODES["long"] | {"cr4": PAE | PCIDE})
    bench.touch([0x1000, 0x200000])
    bench.set(pcid=1)
    bench.touch([0x1000])
    live = bench.counts()["live"]
    assert (live["PDE"], live["PDPTE"], live["PML4E"]) == (3, 2, 2)
    bench.set(pcid=0)
    assert bench.translate(0x3000)["status"] == "page-fault"
    live = bench.counts()["live"]
    assert (live["PDE"], live["PDPTE"], live["PML4E"]) == (2, 1, 1)


def test_rights_lost_without_invalidation_still_serve_and_rights_gained_never_fault():
    bench = MmuBench(1 << 16, CACHES)
    tables = Tables(bench, 0x1000, flags=P | W | U | A | D)
    pte = tables.map(0x5000, 0x8000)
    bench.set(cr3=tables.root, **MODES["long"])
    assert bench.translate(0x5000, WRITE, USER)["status"] == "ok"
    bench.write(pte, pack(0x8000 | P | A | D))
    assert bench.lookup(0x5000, WRITE, USER), "stale"
    bench.invlpg(0x5000)
    assert bench.translate(0x5000, READ, KERNEL)["prot"] == 7, "CR0.WP is off"
    assert bench.translate(0x5000, WRITE, USER)["pfec"] == 7
    bench.translate(0x5000, READ, KERNEL)
    bench.write(pte, pack(0x8000 | P | W | U | A | D))
    before = bench.counts()
    assert bench.translate(0x5000, WRITE, USER)["status"] == "ok"
    after = bench.counts()
    assert after["rewalks"] == before["rewalks"] + 1 and after["l1d_misses"] == before["l1d_misses"]


def test_write_through_a_clean_entry_walks_again_and_sets_dirty():
    bench = MmuBench(1 << 16, CACHES)
    tables = Tables(bench, 0x1000, flags=P | W | A)
    pte = tables.map(0x5000, 0x8000)
    bench.set(cr3=tables.root, **MODES["long"])
    assert bench.translate(0x5000, READ)["prot"] == 5
    assert bench.lookup(0x5000, WRITE) is None
    assert bench.translate(0x5000, WRITE)["prot"] == 7
    assert bench.read(pte, 8) == pack(0x8000 | P | W | A | D)
    c = bench.counts()
    assert (c["rewalks"], c["walks_d"], c["fills"]["D_4K"], c["l2_hits"]) == (1, 1, 1, 0)
    assert bench.lookup(0x5000, WRITE)


def test_invlpg_of_a_fractured_page_drops_all_parts():
    bench = MmuBench(4 << 20, {"D_4K": (8, 0, "fifo"), "I_4K": (8, 0, "fifo"), "L2": (64, 4, "lru")})
    tables = Tables(bench, 0x1000)
    tables.map(0x400000, 0x200000, shift=21)
    tables.map(0x600000, 0x3000)
    bench.set(cr3=tables.root, **MODES["long"])
    bench.touch([0x400000, 0x401000, 0x5ff000, 0x600000])
    assert bench.lookup(0x5ff123)[:3] == (0x3ff123, 0x3ff123, 12)
    assert bench.counts()["fills"]["L2"] == 1, "a second level without 2M pages leaves them out"
    assert bench.invlpg(0x444000) == 2, "no part of it is for this 4K page"
    assert [bool(bench.lookup(va)) for va in (0x400000, 0x401000, 0x5ff000, 0x600000)] == [0, 0, 0, 1]


def test_invlpg_drops_both_halves_of_a_4m_page():
    bench = MmuBench(16 << 20, {"D_2M": (4, 4, "fifo")})
    bench.write(0x1000, (0x400000 | P | W | A | D | PS).to_bytes(4, "little"))
    bench.set(cr3=0x1000, **MODES["pse"])
    bench.touch([0x1000, 0x201000, 0x3ff000])
    assert bench.counts()["fills"]["D_2M"] == 2 and bench.lookup(0x201234)[:3] == (0x601234, 0x601234, 21)
    assert bench.invlpg(0x0) == 2 and bench.counts()["live"]["D_2M"] == 0


def test_large_page_over_the_end_of_ram_is_fractured():
    bench = MmuBench(3 << 20, {"D_2M": (4, 4, "fifo")})
    tables = Tables(bench, 0x1000)
    tables.map(0, 0x200000, shift=21)
    bench.set(cr3=tables.root, **MODES["long"])
    assert bench.translate(0xff000)["shift"] == 12
    assert bench.translate(0x100000)["status"] == "no-ram" and bench.lookup(0x100000) is not None
    assert bench.lookup(0x101000) is None, "what lies outside memory is fractured too"


def test_tags_do_not_run_out():
    """4,096 PCIDs, each with a live entry at some time: entries of one never serve another."""
    bench = MmuBench(1 << 16, {"D_4K": (16, 4, "fifo"), "L2": (512, 4, "lru")})
    tables = Tables(bench, 0x1000)
    pte = tables.map(0x5000, 0x8000)
    bench.set(**MODES["long"] | {"cr4": PAE | PCIDE})
    for pcid in range(4096):
        bench.write(pte, pack((8 + pcid % 4) << 12 | P | A | D))
        bench.mov_cr3(tables.root | pcid, True)
        bench.touch([0x5000])
    bench.check()
    for pcid in range(4096):
        bench.mov_cr3(tables.root | pcid, True, True)
        found = bench.lookup(0x5000)
        assert found is None or found[0] == (8 + pcid % 4) << 12


def test_geometries_that_cannot_be():
    for config in ({"D_4K": (48, 4, "fifo")}, {"D_4K": (64, 4, "lru")}, {"L2": (8192, 8, "lru")}, {"D_4K": (0, 0, "fifo")},
                   {"I_4K": (512, 0, "fifo")}, {"L2": (6, 4, "lru")}):
        with pytest.raises(ValueError):
            MmuBench(4096, config)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), nested=st.booleans())
def test_invalidated_edits_are_always_seen(seed, nested):
    """Random edits of PTEs, each followed by INVLPG, and of whole page tables, followed by toggling CR4.PGE:
    every translation is what the walker says."""
    rng = random.Random(seed)
    bench = MmuBench(1 << 18, CACHES)
    tables = Tables(bench, 0x1000, flags=P | W | U)
    vas = [va << 12 | up << 21 for up in range(3) for va in range(6)]
    leaf = {va: tables.map(va, rng.randrange(16, 32) << 12) for va in vas}
    fields = MODES["long"] | {"cr3": tables.root, "cr4": PAE | PGE}
    if nested:
        ept = Tables(bench, 0x20000, flags=RWX)
        for page in range(32):
            ept.map(page << 12, page << 12, 12, RWX | WB)
        fields["eptp"] = ept.root | rng.choice((0x1e, 0x5e))
    bench.set(**fields)
    for _ in range(80):
        va, how = rng.choice(vas), rng.random()
        if how < .2:
            bench.write(leaf[va], pack(rng.randrange(16, 32) << 12 | rng.choice((0, P, P | W, P | W | U, P | W | U | G))))
            bench.invlpg(va)
        elif how < .25:
            bench.write(leaf[va] & ~0xfff, bench.read(leaf[rng.choice(vas)] & ~0xfff, 4096))
            bench.mode_change(cr4=fields["cr4"] ^ PGE)
            bench.mode_change(cr4=fields["cr4"])
        access, who = rng.randrange(3), rng.randrange(3)
        walk = walker.Walker(bytearray(bench.read(0, 1 << 18)), context_of(fields, size=1 << 18))
        want, got = walk.translate(va, access, who), bench.translate(va, access, who)
        assert (got["status"], got["pfec"]) == (want.kind, want.pfec)
        assert want.kind != "ok" or got["hpa"] == want.hpa & ~0xfff
    bench.check()
