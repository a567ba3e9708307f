# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit round trips as published, measured by a guest (ROM roundtrip) and read from the ledger; and on nehalem, what they decide."""
import functools

import pytest

from pyx86v.cost.profile import load_profile
from rom_runs import phases_of
from test_crossover import crossing, per_write, rounds

CPUID, PAGE_FAULT = 1, 2         # phases of the ROM
TIMES = 256                      # in each; the report words around it are one more exit
# Agesen, Mattson, Rugina, Sheldon, USENIX ATC 2012, Table 1: hardware round trip of exit and entry, cycles
ROUND_TRIP = {"prescott": 3963, "merom": 1579, "penryn": 1266, "nehalem": 1009, "westmere": 761, "sandybridge": 784}
# Bugnion, Nieh, Tsafrir 2017, Table 4.3: one way, for a page fault (nehalem is not in it)
PAGE_FAULT_EXIT = {"prescott": 1926, "merom": 1156, "penryn": 858, "westmere": 569, "sandybridge": 507}


@functools.cache
def measured(profile, style):
    return phases_of("roundtrip", profile=profile, style=style)[0]


@pytest.mark.parametrize("style", ["vmx+shadow", "vmx+ept"])
@pytest.mark.parametrize("profile", ROUND_TRIP)
def test_the_cheapest_exit_takes_what_was_published(profile, style):
    counts = measured(profile, style)[CPUID]
    assert (counts["CPUID exits"], counts["exits"]) == (TIMES, TIMES + 1)
    assert counts["exit cycles"] + counts["entry cycles"] == (TIMES + 1) * ROUND_TRIP[profile]


@pytest.mark.parametrize("profile", PAGE_FAULT_EXIT)
def test_the_page_fault_exit_is_another(profile):
    counts, cheapest = (measured(profile, "vmx+shadow")[phase] for phase in (PAGE_FAULT, CPUID))
    assert (counts["EXCEPTION_NMI exits"], counts["exits"]) == (TIMES, TIMES + 1)
    assert (counts["exit cycles"] - cheapest["exit cycles"] / (TIMES + 1)) / TIMES == PAGE_FAULT_EXIT[profile]
    assert counts["entry cycles"] == cheapest["entry cycles"]


@pytest.mark.parametrize("profile", ROUND_TRIP)
def test_a_page_fault_exits_only_from_shadow_tables(profile):
    assert measured(profile, "vmx+ept")[PAGE_FAULT]["exits"] == 1
    assert measured(profile, "native")[PAGE_FAULT]["exit cycles"] == 0


# ---------------------------------------------------------------- nehalem: shadow tables or nested paging

def test_on_nehalem_a_tlb_heavy_guest_is_better_off_on_shadow_tables():
    cycles = {style: rounds(style, 0, "nehalem")["cycles"] for style in ("native", "vmx+shadow", "vmx+ept")}
    assert cycles["native"] <= cycles["vmx+shadow"] < cycles["vmx+ept"]


def test_on_nehalem_a_pte_heavy_guest_is_better_off_on_nested_paging():
    cycles = {style: rounds(style, 256, "nehalem")["cycles"] for style in ("native", "vmx+shadow", "vmx+ept")}
    assert cycles["native"] < cycles["vmx+ept"] < cycles["vmx+shadow"]


def test_on_nehalem_they_cross_where_the_slopes_say():
    at = crossing("vmx+shadow", "vmx+ept", "nehalem")
    below, above = int(at * 0.8), round(at * 1.25)
    assert 1 < below < above < 128
    assert rounds("vmx+shadow", below, "nehalem")["cycles"] < rounds("vmx+ept", below, "nehalem")["cycles"]
    assert rounds("vmx+shadow", above, "nehalem")["cycles"] > rounds("vmx+ept", above, "nehalem")["cycles"]
    exits = 2 * load_profile("nehalem").cycles("vm_exit_page_fault") + load_profile("nehalem").cycles("vm_exit") + \
        3 * load_profile("nehalem").cycles("vm_entry")
    assert per_write("vmx+shadow", "cycles", "nehalem") > exits, "a write costs its three exits and the monitor's work"
