# SPDX-License-Identifier: GPL-2.0-or-later
"""TLB counts against an independent per-access model on random streams, and the invalidation instructions."""
import random

import pytest
from hypothesis import given, settings, strategies as st

from mmu_help import *
from pyx86v.mmu.testing import MmuBench
from tlb_model import Page, TlbModel

GEOMETRIES = {
    "skylake-like": {"D_4K": (16, 4, "fifo"), "I_4K": (16, 8, "fifo"), "D_2M": (4, 4, "fifo"), "I_2M": (2, 2, "fifo"),
                     "D_1G": (2, 2, "fifo"), "L2": (48, 12, "lru"), "l2_2m": 1, "L2_1G": (2, 2, "lru"),
                     "PML4E": (2, 0, "lru"), "PDPTE": (2, 0, "lru"), "PDE": (4, 0, "lru")},
    "wide fifo, whole large pages": {"D_4K": (32, 0, "fifo"), "I_4K": (24, 0, "fifo"), "large_whole": 1, "L2": (64, 0, "lru"),
                                     "PDE": (20, 0, "lru")},
    "wide random, whole": {"D_4K": (32, 0, "random"), "I_4K": (24, 0, "random"), "large_whole": 1, "seed": 7},
    "no second level, fractured": {"D_4K": (16, 0, "fifo"), "I_4K": (16, 4, "round-robin")},
    "random": {"D_4K": (16, 4, "random"), "I_4K": (8, 8, "random"), "D_2M": (4, 4, "random"), "L2": (32, 4, "random"),
               "seed": 12345, "PDE": (4, 4, "fifo")},
    "round-robin": {"D_4K": (8, 2, "round-robin"), "I_4K": (8, 1, "fifo"), "D_2M": (8, 4, "round-robin"),
                    "L2": (32, 4, "round-robin"), "PDPTE": (2, 0, "round-robin")},
    "second level split": {"D_4K": (16, 4, "fifo"), "I_4K": (16, 4, "fifo"), "D_2M": (4, 4, "fifo"), "I_2M": (2, 2, "fifo"), "l2_split": 1,
                           "L2": (32, 4, "lru"), "L2_2M": (4, 4, "lru"), "L2_CODE": (16, 4, "lru"), "l2_code_2m": 1},
    "second level of data": {"D_4K": (8, 4, "fifo"), "I_4K": (8, 4, "fifo"), "L2": (32, 4, "lru"), "l2_split": 1, "l2_2m": 1,
                             "large_whole": 1, "PDE": (4, 4, "lru")},
    "two by two": {"D_4K": (4, 2, "fifo"), "I_4K": (4, 2, "fifo"), "L2": (16, 4, "fifo"), "l2_2m": 1, "D_1G": (1, 0, "fifo")},
}
RAM = 1 << 30           # never touched beyond the tables: holds a 1 GB page


def guest(config, rng):
    """(bench, model, pages): 96 pages of 4K, 8 of 2M, 2 of 1G, some global, some clean."""
    bench = MmuBench(RAM, config)
    tables = Tables(bench, 0x1000, flags=P | W | U | A | D)
    pages = []
    for shift, count, start in ((12, 48, 0x40000000), (12, 48, 0x5fe10000), (21, 8, 0x80000000), (30, 2, 0x140000000)):
        for i in range(count):
            page = Page(start + (i << shift), shift, rng.random() < .2, rng.random() < .6)
            tables.map(page.va, (0x80000 + (i << 12)) if shift == 12 else 0, shift,
                       P | W | U | A | page.dirty * D | page.is_global * G)
            pages.append(page)
    bench.set(cr3=tables.root, **MODES["long"])
    bench.mode_change(cr4=MODES["long"]["cr4"] | PGE | PCIDE)
    return bench, pages


def same(bench, model):
    c = bench.counts()
    arrays = [(n, a.fills, a.evictions, len(a.flags)) for n, a in model.array.items()]
    assert [(n, c["fills"][n], c["evictions"][n], c["live"][n]) for n in model.array] == arrays
    assert (c["l1i_misses"], c["l1d_misses"]) == (model.misses["I"], model.misses["D"])
    assert (c["l2_hits"], c["walks_i"], c["walks_d"], c["rewalks"]) == (
        model.l2_hits, model.walks["I"], model.walks["D"], model.rewalks)
    assert sum(c["guest_refs"]) == model.refs
    counted = ("L2", "L2_2M", "L2_CODE", "PDE", "PDPTE", "PML4E")
    assert {n: c["hits"][n] for n in counted} == {n: model.array[n].hits for n in counted}
    assert c["entries_flushed"] == model.flushed


def one_access(bench, model, rng, pages):
    page = rng.choice(pages)
    va = page.va + rng.randrange(1 << page.shift)
    access = rng.choice((READ, READ, WRITE, FETCH))
    want = model.access(va, "I" if access == FETCH else "D", page, access == WRITE)
    if bench.lookup(va, access) is not None:
        assert want is None
        return
    got = bench.translate(va, access)
    assert got["status"] == "ok"
    tags = {0xffff: "global"}
    assert [(e["gva"], e["shift"], tags.get(e["pcid"], e["pcid"])) for e in got["evicted"]] == ([want] if want else [])


def one_invalidation(bench, model, rng, pages):
    page = rng.choice(pages)
    va = page.va + rng.randrange(1 << page.shift)
    pcid, kind = rng.randrange(4), rng.randrange(8)
    if kind < 3:
        noflush = rng.random() < .6
        model.mov_cr3(pcid, not noflush)
        bench.mov_cr3(0x1000 | pcid, True, noflush)
    elif kind < 6:
        model.invlpg(va, page)
        bench.invlpg(va)
    else:
        how = rng.randrange(4)
        model.invpcid(how, pcid, va, page)
        bench.invpcid(how, pcid, va)


@pytest.mark.parametrize("name", GEOMETRIES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_counts_equal_the_model(name, seed):
    """Accesses, writes to clean pages, address-space switches and invalidations: every count after every step."""
    rng = random.Random(seed)
    config = GEOMETRIES[name]
    bench, pages = guest(config, rng)
    model = TlbModel(config)
    hot = rng.sample(pages, 30)
    quiet = rng.choice((0, 0.02, 0.2))
    for step in range(600):
        if rng.random() < quiet:
            one_invalidation(bench, model, rng, pages)
        else:
            one_access(bench, model, rng, hot if rng.random() < .7 else pages)
        if step % 50 == 0:
            bench.check()
    same(bench, model)
    bench.check()
