# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow paging: random page-table programs against the independent walker, bounded memory, and what is counted and charged."""
import struct

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mmu_help import *
from pyx86v.cost.ledger import Cause, Price
from pyx86v.mmu.shadow_testing import ShadowBench
from shadow_program import Program

ALL_MODES = ("32", "pse", "pae", "long", "off")
ONE_RUN = settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))      # hypothesis begins with seed 0:
TWO_RUNS = settings(ONE_RUN, max_examples=2)                                                     # always that one, and another
BASE = 2 << 20                    # where the guest lies in machine memory
ANSWERS = {"ok", "once", "page-fault", "no-ram"}
OPEN = P | W | U | A | D
PT, DATA = 0x4000, 0x10000        # of guest(): the leaf table, and where its entry 16 leads


def guest(mode="long", leaves=64, **options):
    """A guest with one leaf table at PT, which maps the first `leaves` pages on themselves, the table included."""
    bench = ShadowBench(guest=8 << 20, base=options.pop("base", BASE), rom=1 << 14, **options)
    width, form = (4, "I") if mode in ("32", "pse") else (8, "Q")
    upper = {"long": (0x1000, 0x2000, 0x3000), "pae": (0x3000,)}.get(mode, (0x3000,))
    for table, below in zip(upper, (*upper[1:], PT)):
        bench.poke(table, struct.pack(f"<{form}", below | OPEN & ~D))
    bench.poke(PT, b"".join(struct.pack(f"<{form}", i << 12 | OPEN) for i in range(leaves)))
    more = {"pdpte": [0x3001, 0, 0, 0]} if mode == "pae" else {}
    fields = {k: v | {"cr0": WP, "cr4": 0, "efer": NXE if width == 8 else 0}[k] for k, v in MODES[mode].items()}
    bench.enter(cr3=upper[0], **fields, **more)
    return bench, width


def entry(bench, index, value, width=8):
    """The guest changes an entry of its leaf table.  Was it seen?"""
    kind, at = bench.access(PT + index * width, WRITE, KERNEL, width)
    assert at == bench.base + PT + index * width
    bench.poke(PT + index * width, value.to_bytes(width, "little"))
    return kind == "once"


def entry_at(bench, gpa, value, width):
    """Somebody else changes an entry of some table."""
    bench.host_wrote(gpa, width)
    bench.poke(gpa, value.to_bytes(width, "little"))


def counted(bench, name, what):
    """How much a counter grows over what()."""
    before = bench.counts()[name]
    what()
    return bench.counts()[name] - before


# ---------------------------------------------------------------- random programs

@pytest.mark.parametrize("modes", [("32",), ("pse", "off"), ("pae",), ("long",), ALL_MODES], ids="-".join)
@TWO_RUNS
@given(seed=st.integers(0, 1 << 32))
def test_random_programs(modes, seed):
    """10,000 steps, each followed by accesses that the judge's own walk has to allow (shadow_program.py)."""
    program = Program(seed, modes)
    count = program.run(10_000)
    assert program.steps == 10_000 and program.compared.total() >= 20_000
    for mode in modes:
        assert all(program.compared[mode, answer] for answer in ANSWERS if (mode, answer) != ("off", "page-fault")), mode
    for name in ("traced_writes", "unsynced", "resynced", "true_faults", "single_writes", "protected", "zaps", "flushes"):
        assert count[name], name
    assert program.stale and count["evictions"] == 0


@pytest.mark.parametrize("modes", [("32", "off"), ("long", "pae")], ids="-".join)
@ONE_RUN
@given(seed=st.integers(0, 1 << 32), pool=st.integers(8, 12))
def test_random_programs_in_a_tiny_pool(modes, seed, pool):
    """Too few pages for what the guest does: evictions, and nothing else that the guest could tell."""
    count = Program(seed, modes, pool=pool, base=0x5000).run(10_000)
    assert count["pool"] - pool in (0, 1) and count["used"] <= count["pool"] and count["evictions"] > 100


@ONE_RUN
@given(seed=st.integers(0, 1 << 32))
def test_random_programs_that_write_in_floods(seed):
    """Tables go out of sync at the first write, few at a time."""
    count = Program(seed, ("32", "pae", "long"), unsync_after=1, most_unsynced=2).run(10_000)
    assert count["entries_stale"] and count["out_of_sync"] <= 2


# ---------------------------------------------------------------- bounded memory

def test_hostile_tables_cost_evictions_not_memory():
    """Every entry of every level leads to another frame full of tables."""
    bench, _ = guest(pool=16)
    for frame in range(16, 1040):
        bench.poke(frame << 12, pack(*((16 + (frame * 7 + i * 13) % 1024) << 12 | OPEN for i in range(512))))
    bench.enter(cr3=0x10000)
    for i in range(4000):
        gva = (i * 0x9e3779b97f4a7c15) & (1 << 48) - 1
        assert bench.access(gva, i % 2)[0] in ("ok", "once")
    count = bench.counts()
    assert count["used"] <= count["pool"] <= 17 and count["evictions"] > 4000
    bench.check()


def test_recursion_is_no_loop():
    """A table that is its own root, table, leaf table and page."""
    bench = ShadowBench(guest=1 << 20, base=BASE)
    bench.poke(0x1000, pack(*[0x1000 | P | W | U] * 512))
    bench.enter(cr3=0x1000, **MODES["long"])
    assert bench.access(0x123456789abc) == ("ok", BASE + 0x1abc)
    assert bench.access(0xabc, WRITE) == ("once", BASE + 0x1abc)
    assert bench.counts()["used"] == 4
    bench.check()


def test_a_pool_too_small_for_a_walk_is_refused():
    with pytest.raises(ValueError):
        ShadowBench(guest=1 << 20, pool=6)


# ---------------------------------------------------------------- walks

@pytest.mark.parametrize("mode, references", [("long", 4), ("pae", 2), ("32", 2), ("off", 1)])
def test_references_of_a_cold_walk(mode, references):
    """As many as a native walk of the shadow's own format; 2 MB entries one less."""
    if mode == "off":
        bench = ShadowBench(guest=8 << 20, base=BASE, walks=0)
    else:
        bench, _ = guest(mode, walks=0)
    bench.access(DATA)
    for page in range(16, 24):                     # other entries of the same leaf table: made first, counted in the second walk
        address = page << 12 if mode != "off" else page - 15 << 21
        bench.access(address) if mode != "off" or address < 8 << 20 else None
    before = sum(bench.counts()["guest_refs"])
    bench.invlpg(DATA)
    assert bench.access(DATA)[0] == "ok"
    assert sum(bench.counts()["guest_refs"]) - before == references


def test_large_pages_map_whole_where_they_can():
    bench = ShadowBench(guest=8 << 20, base=BASE)
    bench.poke(0x1000, pack(0x2000 | OPEN))
    bench.poke(0x2000, pack(0x3000 | OPEN, P | W | U | PS))                  # 1 GB at 0
    bench.poke(0x3000, pack(0, 0x200000 | OPEN | PS, 0x800000 | OPEN | PS, 0 | OPEN | PS))
    bench.enter(cr3=0x1000, **MODES["long"])
    assert bench.access(0x234567) == ("ok", BASE + 0x234567)
    count = bench.counts()
    assert (count["large_fills"], count["splits"]) == (1, 0)
    assert bench.access(0x600123) == ("ok", BASE + 0x123), "tables lie in these 2 MB: split"
    count = bench.counts()
    assert (count["large_fills"], count["splits"]) == (1, 1)
    assert bench.access(0x601000, WRITE) == ("once", BASE + 0x1000), "and the table is traced there too"
    assert bench.access(0x605000, WRITE) == ("ok", BASE + 0x5000)
    assert bench.access(0x400000) == ("no-ram", 0x800000)
    assert bench.access(0x40200000, WRITE) == ("ok", BASE + 0x200000), "the 1 GB page goes by 2 MB"
    assert bench.counts()["large_fills"] == 2
    assert bench.peek(0x2008, 8) == pack(P | W | U | PS | A | D)
    bench.check()


def test_a_new_table_splits_the_large_page_around_it():
    bench = ShadowBench(guest=8 << 20, base=BASE)
    bench.poke(0x1000, pack(0x2000 | OPEN))
    bench.poke(0x2000, pack(0x3000 | OPEN))
    bench.poke(0x3000, pack(0, 0x200000 | OPEN | PS, 0x210000 | OPEN))
    bench.poke(0x210000, pack(0x300000 | OPEN))
    bench.enter(cr3=0x1000, **MODES["long"])
    assert bench.access(0x210000, WRITE)[0] == "ok" and bench.counts()["large_fills"] == 1
    assert bench.access(0x400000) == ("ok", BASE + 0x300000), "now 0x210000 is a table"
    assert bench.access(0x210000, WRITE)[0] == "once"
    assert bench.counts()["protected"] == 1
    bench.check()


@pytest.mark.parametrize("mode, base, parts", [("pse", BASE, (0x400000, 0x600000)), ("long", BASE + 0x1000, (0x600000, 0x601000)),
                                               ("pae", BASE + 0x1000, (0x600000, 0x601000))])
def test_invlpg_forgets_the_whole_of_a_large_page(mode, base, parts):
    """Also where the TLB holds it in parts: 4 MB as 2 MB twice, and 2 MB that lie unaligned in machine memory (SDM 3A 4.10.4.1)."""
    bench, width = guest(mode, base=base)
    pde = 0x3000 + (1 if mode == "pse" else 3) * width
    put = lambda gpa: entry_at(bench, pde, gpa | OPEN | PS, width)
    put(parts[0])
    assert [bench.access(gva) for gva in parts] == [("ok", base + gva) for gva in parts]
    put(0)
    assert bench.access(parts[1]) == ("ok", base + parts[1]), "the TLB has it until INVLPG"
    bench.invlpg(parts[0])
    assert [bench.access(gva) for gva in parts] == [("ok", base + gva - parts[0]) for gva in parts]
    flushes = bench.counts()["flushes"]
    bench.invlpg(parts[0])
    assert bench.counts()["flushes"] == flushes, "nothing changed since"


@pytest.mark.parametrize("base", (BASE, BASE + 0x1000))
def test_alignment_in_machine_memory_decides(base):
    bench = ShadowBench(guest=8 << 20, base=base)
    assert bench.access(0x200000) == ("ok", base + 0x200000)
    assert bench.counts()["large_fills"] == (base == BASE)


# ---------------------------------------------------------------- writes

def test_a_traced_write_drops_what_it_changes_and_no_more():
    bench, _ = guest()
    for page in range(16, 20):
        bench.access(page << 12)
    assert entry(bench, 17, 0x12000 | OPEN) and entry(bench, 17, 0x13000 | OPEN)
    assert counted(bench, "hidden_faults", lambda: [bench.access(p << 12) for p in (16, 18, 19)]) == 0
    assert bench.access(0x11000) == ("ok", BASE + 0x11000), "the TLB has it until INVLPG"
    bench.invlpg(0x11000)
    assert bench.access(0x11000) == ("ok", BASE + 0x13000)
    assert bench.counts()["traced_writes"] == 2


def test_an_unaligned_write_drops_both_entries():
    bench, _ = guest()
    bench.access(0x10000), bench.access(0x11000), bench.access(0x12000)
    bench.access(PT + 16 * 8 + 7, WRITE, KERNEL, 2)
    for page in (16, 17, 18):
        bench.invlpg(page << 12)
    assert counted(bench, "hidden_faults", lambda: [bench.access(p << 12) for p in (16, 17, 18)]) == 2


@pytest.mark.parametrize("mode", ("32", "pae", "long"))
def test_a_flooded_leaf_table_goes_out_of_sync_and_back(mode):
    bench, width = guest(mode, unsync_after=4)
    for page in range(16, 48):
        bench.access(page << 12)
    seen = [entry(bench, i, (i ^ 1) << 12 | OPEN, width) for i in range(16, 48)]
    assert seen == [True] * 4 + [False] * 28 and bench.counts()["out_of_sync"] == 1
    old, new = ("ok", BASE + 0x18000), ("ok", BASE + 0x19000)
    assert bench.access(0x18000) == old, "stale, as a TLB may be"
    bench.invlpg(0x18000)
    assert bench.access(0x18000) == new and bench.access(0x20000) == ("ok", BASE + 0x20000)
    bench.enter()
    assert bench.access(0x20000) == ("ok", BASE + 0x21000), "MOV to CR3 syncs all"
    count = bench.counts()
    assert count["out_of_sync"] == 0 and (count["unsynced"], count["resynced"]) == (1, 1)
    assert entry(bench, 16, 0x10000 | OPEN, width), "traced again"
    bench.check()


def test_a_table_of_two_levels_is_never_out_of_sync():
    """The guest uses its leaf table as a directory, too."""
    bench, _ = guest(unsync_after=1)
    bench.access(DATA)
    entry(bench, 20, 0x14000 | OPEN), entry(bench, 20, 0x14000 | OPEN)
    assert bench.counts()["out_of_sync"] == 1
    bench.poke(DATA, pack(0x20000 | OPEN))
    assert bench.access(0x2008, WRITE, KERNEL, 8)[0] == "once"
    bench.poke(0x2008, pack(PT | OPEN))
    assert bench.access(1 << 30 | 16 << 21) == ("ok", BASE + 0x20000)
    assert bench.counts()["out_of_sync"] == 0 and bench.counts()["resynced"] == 1
    assert [entry(bench, 20, 0x14000 | OPEN) for _ in range(4)] == [True] * 4
    bench.check()


def test_writes_with_uses_between_stay_traced():
    """The page-table storm: an exit for every write."""
    bench, _ = guest()
    for i in range(16, 48):
        assert entry(bench, i, (i ^ 1) << 12 | OPEN)
        bench.invlpg(i << 12)
        assert bench.access(i << 12) == ("ok", BASE + ((i ^ 1) << 12))
    assert bench.counts()["traced_writes"] == 32 and bench.counts()["unsynced"] == 0


def test_a_table_that_became_data_is_let_go():
    """The leaf table is unlinked and cleared: after a few traced writes its frame is writable."""
    bench, _ = guest(zap_after=4)
    bench.poke(0x5000, bench.peek(PT, 4096))
    bench.access(DATA)
    assert bench.access(0x3000, WRITE, KERNEL, 8)[0] == "once"
    bench.poke(0x3000, pack(0x5000 | OPEN))
    bench.enter()
    kinds = [bench.access(PT + 8 * i, WRITE, KERNEL, 8)[0] for i in range(16)]
    assert kinds == ["once"] * 4 + ["ok"] * 12 and bench.counts()["zaps"] == 1
    assert bench.access(0x5000, WRITE)[0] == "once"
    bench.check()


def test_a_tree_that_became_data_is_let_go():
    """Another CR3, and nobody has cleared the old upper tables: their leaf tables' frames do not stay traced for ever."""
    bench, _ = guest(zap_after=4, unsync_after=0)
    for table in range(0x1000, 0x5000, 0x1000):
        bench.poke(table + 0x8000, bench.peek(table, 4096))
    for table in range(0x9000, 0xc000, 0x1000):
        bench.poke(table, pack(table + 0x1000 | OPEN & ~D))
    bench.access(DATA)
    bench.enter(cr3=0x9000)
    assert [bench.access(PT + 8 * i, WRITE, KERNEL, 8)[0] for i in range(16)] == ["once"] * 4 + ["ok"] * 12
    assert [bench.access(0xc000 + 8 * i, WRITE, KERNEL, 8)[0] for i in range(16)] == ["once"] * 16, "this one is in use"
    bench.check()


def test_writes_by_others():
    bench, _ = guest()
    bench.access(DATA), bench.access(0x11000)
    bench.host_wrote(PT + 16 * 8, 8)
    bench.poke(PT + 16 * 8, pack(0x12000 | OPEN))
    bench.enter()
    assert bench.access(DATA) == ("ok", BASE + 0x12000)
    assert counted(bench, "hidden_faults", lambda: bench.access(0x11000)) == 0


READ_ONLY = {"page": (PT + 16 * 8, 0x10000 | P | U | A), "table": (0x3000, PT | P | U | A), "large page": (0x3008, P | PS | U | A)}


@pytest.mark.parametrize("where", READ_ONLY)
def test_supervisor_writes_without_wp(where):
    """The page changes hands: writable for the supervisor, readable for the user, and each of them faults once for it."""
    bench, _ = guest()
    at, value = READ_ONLY[where]
    entry_at(bench, at, value, 8)
    gva, hpa = (0x205008, BASE + 0x5008) if where == "large page" else (DATA, BASE + DATA)
    assert bench.access(gva, WRITE) == ("page-fault", 3)
    bench.enter(cr0=PG | PE)
    assert counted(bench, "hidden_faults", lambda: [bench.access(gva, WRITE) for _ in range(9)]) == 1
    assert bench.access(gva, WRITE) == bench.access(gva, READ) == bench.access(gva, FETCH) == ("ok", hpa)
    assert bench.access(gva, WRITE, USER) == ("page-fault", 7), "the user has not been given it"
    marked = PT + 16 * 8 if where == "table" else at
    assert int.from_bytes(bench.peek(marked, 8), "little") & (A | D) == A | D
    assert counted(bench, "hidden_faults", lambda: [bench.access(gva, READ, USER) for _ in range(9)]) == 1
    assert bench.access(gva, READ, USER) == ("ok", hpa)
    assert counted(bench, "hidden_faults", lambda: bench.access(gva, WRITE)) == 1 and bench.counts()["single_writes"] == 0
    bench.check()
    bench.enter(cr0=PG | PE | WP)
    assert bench.access(gva, WRITE) == ("page-fault", 3) and bench.access(gva, READ, USER) == ("ok", hpa)
    bench.check()


def test_supervisors_own_pages_without_wp():
    """Nobody else loses a page that is the supervisor's anyway: reading it makes it writable, but not before it is dirty."""
    bench, _ = guest()
    entry(bench, 16, 0x10000 | P | A | D), entry(bench, 17, 0x11000 | P | A)
    bench.enter(cr0=PG | PE)
    assert counted(bench, "hidden_faults", lambda: [bench.access(DATA), bench.access(DATA, WRITE)]) == 1
    assert counted(bench, "hidden_faults", lambda: [bench.access(0x11000), bench.access(0x11000, WRITE)]) == 2
    assert int.from_bytes(bench.peek(PT + 17 * 8, 8), "little") & D


@pytest.mark.parametrize("control, access, code", [(SMEP, FETCH, 17), (SMAP, READ, 1)])
def test_pages_stay_the_users_with_smep_and_smap(control, access, code):
    """Both ask whether the page is a user's, so that each store is carried out by itself."""
    bench, _ = guest()
    entry(bench, 16, 0x10000 | P | U | A)
    bench.enter(cr0=PG | PE)
    assert bench.access(DATA, WRITE) == bench.access(DATA, access, KERNEL_SMAP) == ("ok", BASE + DATA)
    bench.enter(cr4=PAE | control)
    assert bench.access(DATA, access, KERNEL_SMAP) == ("page-fault", code)
    assert [bench.access(DATA, WRITE) for _ in range(2)] == [("once", BASE + DATA)] * 2
    assert bench.access(DATA, access, KERNEL_SMAP) == ("page-fault", code) and bench.counts()["single_writes"] == 2


def test_tables_are_traced_without_wp():
    bench, _ = guest(unsync_after=0)
    entry(bench, 4, PT | P | U | A)
    bench.enter(cr0=PG | PE)
    assert entry(bench, 16, 0x11000 | OPEN) and entry(bench, 17, 0x12000 | OPEN)
    assert bench.access(DATA) == ("ok", BASE + 0x11000) and bench.access(DATA + 0x1000) == ("ok", BASE + 0x12000)
    bench.check()


# ---------------------------------------------------------------- places

def test_tables_in_firmware_and_nowhere():
    """Firmware cannot be marked or written; where nothing answers, entries read as all ones."""
    bench, _ = guest("32")
    bench.firmware(0, struct.pack("<3I", 0x10000 | P | W, 0xffffc000 | P, 0x11000 | P | W))
    entry(bench, 5, 0, 4)
    bench.access(0x3004, WRITE, KERNEL, 4)
    bench.poke(0x3004, struct.pack("<I", 0xffffc000 | P | W))
    assert bench.access(0x400123, WRITE) == ("ok", BASE + 0x10123) and bench.access(0x400123) == ("ok", BASE + 0x10123)
    assert bench.access(0x401004) == ("ok", bench.rom_base + 4)
    assert bench.access(0x402000, WRITE) == ("ok", BASE + 0x11000)
    bench.firmware(0x3000, struct.pack("<I", 0xfffff000 | P | W))
    bench.enter(cr3=0x900000)
    assert bench.access(0x123) == ("ok", bench.rom_base + 0x3123), "all ones lead to the table in firmware's last page"
    assert bench.access(0x123, WRITE) == ("no-ram", 0xfffff123)
    bench.check()


def test_a20():
    bench = ShadowBench(guest=8 << 20, base=BASE)
    assert bench.access(0x300000) == ("ok", BASE + 0x300000)
    bench.enter(a20_mask=~(1 << 20) & (1 << 64) - 1)
    assert bench.access(0x300000) == ("ok", BASE + 0x200000) and bench.access(0x100005) == ("ok", BASE + 5)
    bench.enter(a20_mask=(1 << 64) - 1)
    assert bench.access(0x300000) == ("ok", BASE + 0x300000)


def test_another_role_forgets_what_was_derived():
    """NXE decides whether bit 63 is reserved: what was derived before must not serve."""
    bench, _ = guest()
    entry(bench, 16, 0x10000 | OPEN | NX)
    assert bench.access(DATA)[0] == "ok"
    bench.enter(efer=LME | LMA)
    assert bench.access(DATA) == ("page-fault", 9)


# ---------------------------------------------------------------- cycles

PRICES = {Price.SHADOW_WALK: 1, Price.SHADOW_FILL: 10, Price.SHADOW_REFLECT: 100, Price.SHADOW_TRACE: 1000,
          Price.SHADOW_UPDATE: 10_000, Price.SHADOW_NEW: 100_000, Price.SHADOW_SYNC: 1_000_000, Price.SHADOW_PAGE: 10_000_000,
          Price.SHADOW_ZAP: 10 ** 9}


def charged(bench, what):
    before = bench.charged()
    what()
    after = bench.charged()
    assert not {c for c in after if after[c] != before.get(c, 0)} - {Cause.SHADOW}
    return after.get(Cause.SHADOW, 0) - before.get(Cause.SHADOW, 0)


def test_what_each_thing_costs():
    bench, _ = guest(prices=PRICES, unsync_after=1)
    assert charged(bench, lambda: bench.access(DATA)) == 1 + 10 + 3 * 10_000_000, "three tables below the root"
    assert charged(bench, lambda: bench.access(0x11000)) == 11
    assert charged(bench, lambda: bench.access(0x12345678)) == 101, "the guest's own fault"
    assert charged(bench, lambda: entry(bench, 16, 0)) == 1001
    assert charged(bench, lambda: bench.access(0x12000)) == 11, "a write that made an entry not present costs no more"
    assert charged(bench, lambda: entry(bench, 16, 0x10000 | OPEN)) == 1001
    assert charged(bench, lambda: bench.invlpg(DATA)) == 110_000, "one that was not present before"
    assert charged(bench, lambda: bench.access(DATA)) == 11
    assert charged(bench, lambda: entry(bench, 16, 0x10000 | OPEN)) == 1001
    assert charged(bench, lambda: bench.invlpg(DATA)) == 10_000, "one that was"
    bench.access(DATA)
    assert charged(bench, lambda: [entry(bench, i, i << 12 | OPEN) for i in (16, 17)]) == 2 * 1001 + 10_000 + 10, "out of sync"
    assert charged(bench, bench.enter) == 10_000 + 2 * 1_000_000, "the two entries left"


def test_runs_are_identical():
    def one():
        program = Program(7, ALL_MODES)
        program.run(1000)
        return program.bench.state()
    assert one() == one()
