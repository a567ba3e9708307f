# SPDX-License-Identifier: GPL-2.0-or-later
"""What the ROMs about paging cost: page-table writes without exits, and the TLBs' sizes as steps of the price."""
import functools

import pytest

from pyx86v.cost.profile import load_profile
from rom_runs import phases_of

ACCESSES = 16384                 # of a phase of tlbreach
IN_ORDER_4K, RANDOM_4K, IN_ORDER_2M, RANDOM_2M = range(4)
PROFILES = ("skylake", "nehalem", "core2", "p4-672", "zen")


# ---------------------------------------------------------------- PTE storm

PTE_WRITES = {0: 16 * 4096, 1: 6 * 2 * 4096, 2: 2 * 2 * 4096, 3: 2 * 2 * 4096, 4: 4 * 2 * 4096, 5: 4 * 4096, 6: 4096, 7: 3 * 1024}


@pytest.mark.quick
def test_pte_storm_takes_no_exit():
    """203,776 page-table writes, with INVLPG and page faults: the only exit of a phase is that of its first report word."""
    native, _ = phases_of("ptestorm")
    vmx, machine = phases_of("ptestorm", style="vmx+ept")
    assert sum(PTE_WRITES.values()) == 203776 and set(vmx) == set(PTE_WRITES)
    for phase, counts in vmx.items():
        assert (counts["exits"], counts["IO_INSTRUCTION exits"]) == (1, 1), (phase, counts)
        assert counts["instructions"] == native[phase]["instructions"]
    assert not {"EPT_VIOLATION", "EPT_MISCONFIG", "EXCEPTION_NMI", "INVLPG"} & set(machine.exits), machine.exits


def test_pte_storm_costs_walks_instead():
    """What the storm costs more under nested paging is 2-D walks, apart from the report's one exit."""
    native, _ = phases_of("ptestorm")
    vmx, _ = phases_of("ptestorm", style="vmx+ept")
    for phase in PTE_WRITES:
        assert vmx[phase]["exit cycles"] + vmx[phase]["entry cycles"] < 10_000
        assert vmx[phase]["refs"] > 2 * native[phase]["refs"] > PTE_WRITES[phase]


# ---------------------------------------------------------------- TLB reach

@functools.cache
def reach(profile, style="native", ept_page="4K"):
    """{(kind, pages): counts of the phase} of the TLB-reach ROM."""
    phases, _ = phases_of("tlbreach", profile=profile, style=style, ept_page=ept_page)
    return {(phase >> 16, phase & 0xFFFF): counts for phase, counts in phases.items()}


def capacity(profile, level, page):
    """Entries that the profile has for data of this page size at a level of the TLB; 0: none."""
    return sum(tlb.entries for tlb in load_profile(profile).tlbs
               if tlb.level == level and tlb.side in ("data", "both") and page in tlb.pages)


def sizes(kind):
    return sorted(pages for k, pages in reach("skylake") if k == kind)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind, page", [(IN_ORDER_4K, "4K"), (IN_ORDER_2M, "2M")])
def test_in_order_each_level_is_a_step(profile, kind, page):
    """Going round in order: all hit while the pages fit (with room for stack and code's data), none does at twice the size."""
    first, second = capacity(profile, 1, page), capacity(profile, 2, page)
    for pages in sizes(kind):
        counts = reach(profile)[kind, pages]
        if pages <= first // 2:
            assert counts["l1d_misses"] == 0, pages
        elif pages >= 2 * first:
            assert ACCESSES <= counts["l1d_misses"] <= 1.01 * ACCESSES, pages
        if pages <= max(first, second) // 2:
            assert counts["misses"] == 0, pages
        elif pages >= 2 * max(first, second):
            assert ACCESSES <= counts["misses"] <= 1.01 * ACCESSES, pages
        assert counts["l1i_misses"] == 0, "the loop stays on its page"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind, page", [(RANDOM_4K, "4K"), (RANDOM_2M, "2M")])
def test_at_random_the_hit_rate_is_the_share_that_fits(profile, kind, page):
    """Whatever the replacement: of uniform accesses to n pages, entries / n hit."""
    for level, key in ((1, "l1d_misses"), (2, "misses")):
        entries = capacity(profile, level, page)
        if level == 2:
            entries = max(entries, capacity(profile, 1, page))
        for pages in sizes(kind):
            hits = 1 - reach(profile)[kind, pages][key] / ACCESSES
            if pages >= 2 * entries:
                assert hits == pytest.approx(entries / pages, abs=0.02), (level, pages)
            elif pages <= entries // 2:
                assert hits == 1, (level, pages)


@pytest.mark.parametrize("profile", PROFILES)
def test_steps_of_the_price_are_the_profiles_prices(profile):
    """Cycles of an access beyond its instructions' own, over those with one page: nothing, a second-level hit, a walk whose PDE is cached or not."""
    price = load_profile(profile).cycles
    first, second = capacity(profile, 1, "4K"), capacity(profile, 2, "4K")
    cost = {pages: sum(value for key, value in reach(profile)[IN_ORDER_4K, pages].items() if key.endswith(" cycles") and not key.startswith("instruction")) / ACCESSES
            for pages in sizes(IN_ORDER_4K)}
    walk = price("walk_start") + price("walk_ref_1")
    for pages, cycles in cost.items():
        more = cycles - cost[1]
        if pages <= first // 2:
            assert more == 0, pages
        elif 2 * first <= pages <= second // 2:
            assert more == pytest.approx(price("tlb_l2_hit"), rel=0.01), pages
        elif pages >= 2 * max(first, second):
            assert 0.99 * walk <= more <= 1.01 * (walk + price("walk_ref_2")), pages


@pytest.mark.parametrize("profile", ["skylake", "nehalem", "zen"])
def test_price_of_two_dimensional_walks(profile):
    """With the PDE cached a walk reads one entry natively, and that and four of the EPT for the final page under VT-x;
    its price grows by as many references."""
    native, nested = reach(profile)[IN_ORDER_4K, 16384], reach(profile, "vmx+ept")[IN_ORDER_4K, 16384]
    price = load_profile(profile).cycles
    assert native["misses"] == nested["misses"] > 0.99 * ACCESSES
    assert native["refs"] == pytest.approx(native["misses"], rel=0.01)
    assert nested["refs"] == pytest.approx(5 * native["refs"], rel=0.01)
    walks = {key: sum(value for name, value in run.items() if name.startswith("walk_") and name.endswith(" cycles"))
             for key, run in (("native", native), ("nested", nested))}
    one = price("walk_start") + price("walk_ref_1")
    two = one + sum(price(f"walk_ref_{level}") for level in (1, 2, 3, 4))
    assert walks["nested"] / walks["native"] == pytest.approx(two / one, rel=0.02) and two > 1.4 * one


def test_small_ept_pages_shrink_the_reach_of_large_ones():
    """A 2 MB page over 4 KB pages of the EPT fills the TLB in 4 KB pieces; over 2 MB pages it is one entry."""
    whole, pieces = reach("skylake", "vmx+ept", "2M"), reach("skylake", "vmx+ept", "4K")
    for kind in (IN_ORDER_2M, RANDOM_2M):
        for pages in sizes(kind):
            assert whole[kind, pages]["l1d_misses"] == reach("skylake")[kind, pages]["l1d_misses"]
            assert pieces[kind, pages]["l1d_misses"] > 0.99 * ACCESSES
