# SPDX-License-Identifier: GPL-2.0-or-later
"""Modelled data caches: against a model in Python, as steps of the price, and the same on both engines and after a snapshot."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyx86v import Machine
from pyx86v.cost.profile import ProfileError, load_profile
from pyx86v.mmu.testing import FakeCaches
from rom_runs import LIMIT, Phases, build_guests, machine_for

LINE = 64
READS = {phase: 4 * phase * 256 for phase in (1, 8, 128, 1024)}       # of lines, in a phase of the guest: KiB / 16


class Model:
    """Lists of lines in order of use, most recent last; (bytes, ways) a level."""

    def __init__(self, geometry):
        self.levels = [(ways, [[] for _ in range(size // LINE // ways)]) for size, ways in geometry]

    def access(self, at):
        line = at // LINE
        for number, (ways, sets) in enumerate(self.levels):
            lines = sets[line % len(sets)]
            held = line in lines
            if held:
                lines.remove(line)
            elif len(lines) == ways:
                lines.pop(0)
            lines.append(line)
            if held:
                return number
        return 3


@pytest.mark.parametrize("geometry", [[(1024, 2), (2048, 4), (8192, 8)], [(64, 1), (128, 2), (192, 3)], [(512, 8), (4096, 64)], [(768, 4)]])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_access_finds_the_line_where_the_model_does(geometry, data):
    caches, model = FakeCaches(geometry), Model(geometry)
    span = data.draw(st.sampled_from([256, 2048, 20000]))
    for at in data.draw(st.lists(st.integers(0, span - 1), min_size=1, max_size=400)):
        assert caches.access(at) == model.access(at)


def test_what_is_not_memory_is_held_nowhere():
    caches = FakeCaches([(1024, 2)])
    assert [caches.access(2**64 - 8), caches.access(2**64 - 8), caches.access(1 << 37)] == [3, 3, 3]
    assert [caches.access((1 << 37) - 1), caches.access((1 << 37) - 64)] == [3, 0]


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("guests"), {"cachereach": []})["cachereach"]


def reach(guest, **options):
    """({phase: counts}, machine) of the guest that reads more and more lines."""
    machine = machine_for("cachereach", guest, **options)
    phases = Phases(machine)
    stop = machine.run(max_instructions=LIMIT)
    assert (stop.reason.value, stop.status) == ("exit", 0)
    return phases.differences(), machine


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["skylake", "nehalem", "merom"])
@pytest.mark.parametrize("style", ["native", "vmx+ept"])
def test_sizes_are_steps_of_the_price(guest, profile, style):
    """16 KiB fit the first level, 128 KiB the second, 2 MiB the third or a second of 4; 16 MiB nothing."""
    phases, _ = reach(guest, profile=profile, style=style, caches="full")
    price, sizes = load_profile(profile).cycles, load_profile(profile).cache
    for phase, lines in READS.items():
        level = next((name for name, (size, _) in sizes.items() if phase * 16384 <= size), "memory")
        each = price(f"cache_{level}") - price("cache_l1")
        assert phases[phase]["cache cycles"] / lines == pytest.approx(each, rel=0.02, abs=0.1), (phase, level)


def test_without_full_no_data_access_costs_anything(guest):
    off, walks = reach(guest)[0], reach(guest, caches="walks")[0]
    for phase in READS:
        assert off[phase]["cache cycles"] == walks[phase]["cache cycles"] == 0
        assert off[phase]["instruction cycles"] == walks[phase]["instruction cycles"]
        assert {key: off[phase][key] for key in ("refs", "misses", "l1d_misses")} == {key: walks[phase][key] for key in ("refs", "misses", "l1d_misses")}


def everything(name, **options):
    machine = machine_for(name, **options)
    stop = machine.run(max_instructions=LIMIT)
    assert (stop.reason.value, stop.status) == ("exit", 0)
    return machine


@pytest.mark.parametrize("style", ["native", "vmx+ept", "vmx+shadow"])
def test_walks_count_what_they_say(style):
    """Each reference, and the data access that missed the first-level TLB (or needed a walk for its right)."""
    machine = everything("qsort", style=style, caches="walks")
    seen, tlb, walks = sum(machine.caches.values()), machine.tlb, machine.walks
    assert walks["references"] + tlb["l1d_misses"] <= seen <= walks["references"] + tlb["l1d_misses"] + walks["rewalks"]
    price, ledger = load_profile("skylake").cycles, machine.ledger
    booked = sum(cycles for cause, cycles in ledger.items() if cause.startswith(("walk_guest", "walk_nested")))
    assert walks["references"] * price("cache_l1") <= booked <= walks["references"] * price("cache_memory")
    assert sum(ledger.values()) == machine.cycles


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["walks", "full"])
@pytest.mark.parametrize("style", ["native", "vmx+ept"])
def test_both_engines_find_the_same(mode, style):
    inline, portable = (everything("demand", style=style, caches=mode, engine=engine, clock="instructions") for engine in ("inline", "portable"))
    assert inline.caches == portable.caches and inline.ledger_units == portable.ledger_units
    assert inline.digest() == portable.digest() == everything("demand", style=style, clock="instructions").digest()


def test_off_is_free_of_it():
    machine = everything("demand")
    assert machine.caches == {} and machine.ledger["cache"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["walks", "full"])
def test_a_snapshot_keeps_the_lines(tmp_path, mode):
    whole = everything("demand", style="vmx+ept", caches=mode)
    machine = machine_for("demand", style="vmx+ept", caches=mode)
    machine.run(max_cycles=whole.cycles // 2)
    machine.save(tmp_path / "half.snap")
    other = Machine.restore(tmp_path / "half.snap")
    other.run(max_instructions=LIMIT)
    assert (other.caches, other.ledger_units, other.digest()) == (whole.caches, whole.ledger_units, whole.digest())


def profile_with(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "zen"\n{text}\n')
    return path


@pytest.mark.parametrize("text, says", [
    ("cache = 3", "profile.cache: expected a table"),
    ('[cache]\nl4 = { bytes = 64, ways = 1, status = "read", source = "model" }', "cache.l4: expected no such line"),
    ('[cache]\nl1 = { bytes = 100, ways = 1, status = "read", source = "model" }', "cache.l1.bytes: expected a multiple of 1 ways"),
    ('[cache]\nl1 = { bytes = 6400, ways = 0, status = "read", source = "model" }', "cache.l1.ways: expected a whole number from 1"),
    ('[cache]\nl1 = { bytes = 6400, ways = 1, status = "read" }', "cache.l1.source: expected a key of"),
    ("[cache]\nl1 = 4", "cache.l1: expected a line"),
    ('[predictor]\ncounters = { entries = 3, status = "read", source = "model" }', "predictor.counters.entries: expected a power of two"),
    ("[predictor]\nreturns = 3", "predictor.returns: expected a line"),
])
def test_a_broken_table_gives_one_line(tmp_path, text, says):
    with pytest.raises(ProfileError) as caught:
        load_profile(profile_with(tmp_path, text))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("options, says", [({"caches": "on"}, "caches: 'on', expected one of off"), ({"branches": True}, "branches: True, expected one of")])
def test_a_wrong_mode_is_one_line(options, says):
    with pytest.raises(ValueError, match=says):
        Machine(**options)
