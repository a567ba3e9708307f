# SPDX-License-Identifier: GPL-2.0-or-later
"""Styles with shadow tables on whole guests: what exits, what the tables count, tables out of sync and back.

That results equal native's is in test_roms.py; that translations are right, in test_mmu_shadow.py.
"""
import pytest

from pyx86v._core import styles
from rom_runs import Phases, SAME, machine_for, rom_run
from test_roms import assert_same

SHADOWED = [style for style in styles() if style in ("vmx+shadow", "svm+shadow")]
PAPER = ("native", "vmx+shadow")
# Adams & Agesen, ASPLOS 2006, nanobenchmarks: cycles on a Pentium 4 672, natively and under VT-x with shadow tables.
# The operations in the order of the ROM `nanobench`.
TABLE = {"native": (242, 3209, 150, 11, 1093, 889, 1, 4, 5), "vmx+shadow": (246, 15826, 177, 11, 11242, 1014, 12733, 9154, 17020)}
NAMES = ("syscall", "in", "cr8wr", "call/ret", "pgfault", "divzero", "pte unchanged", "pte to not present", "pte to present")
# What the profile's prices were derived from: of these cells the number proves nothing, of the others it does.
CALIBRATED = {"native": {"in", "pgfault", "divzero"}, "vmx+shadow": {"in", "pgfault", "pte unchanged", "pte to not present", "pte to present"}}


@pytest.mark.slow
@pytest.mark.parametrize("style", SHADOWED)
def test_exits_follow_the_writes_to_tables(style):
    """Natively and under nested paging a write to a table is a store; here each one exits."""
    machine = machine_for("ptestorm", style=style)
    phases = Phases(machine)
    machine.run()
    writes = 200_000
    assert phases.notes and machine.shadow["traced_writes"] > 0.9 * writes
    assert machine.shadow["unsynced"] == 0
    assert sum(row["count"] for row in rom_run("ptestorm", "vmx+ept").exits.values()) < writes / 100
    faults = machine.shadow
    exits = machine.exits["EXCEPTION_NMI"]["count"] if style == "vmx+shadow" else machine.exits["PF excp"]["count"]
    devices = sum(faults[key] for key in ("traced_writes", "single_writes", "true_faults", "hidden_faults"))
    assert exits >= devices * 0.99


@pytest.mark.slow
@pytest.mark.parametrize("style", SHADOWED)
@pytest.mark.parametrize("name", ["ptestorm", "aspace", "demand", "minikernel"])
def test_tables_out_of_sync_and_back(name, style):
    """Nothing a guest sees depends on when the monitor follows its tables, and it exits less."""
    machine = machine_for(name, style=style, clock="instructions", shadow_unsync=1)
    stop = machine.run()
    native = rom_run(name)
    assert (stop.reason.value, stop.status, stop.detail) == native.end
    assert (machine.instructions, machine.console, machine.report, machine.digest()) == \
        (native.instructions, native.console, native.report, native.digest)
    if name == "ptestorm":
        assert machine.shadow["unsynced"] and machine.shadow["traced_writes"] < rom_shadow(name, style)["traced_writes"]


def rom_shadow(name, style):
    machine = machine_for(name, style=style, clock="instructions")
    machine.run()
    return machine.shadow


@pytest.fixture(scope="module")
def nanobench():
    """{style: cycles of each operation} on the paper's processor."""
    costs = {}
    for style in PAPER:
        machine = machine_for("nanobench", style=style, profile="p4-672")
        machine.run()
        words = machine.report
        costs[style] = [words[3 * n + 1] / words[3 * n + 2] for n in range(len(NAMES) + 1)]
    return costs


@pytest.mark.parametrize("style", PAPER)
def test_every_ordering_of_the_paper_holds(nanobench, style):
    paper, ours = TABLE[style], nanobench[style]
    wrong = [(NAMES[i], NAMES[j], ours[i], ours[j]) for i in range(len(NAMES)) for j in range(len(NAMES))
             if paper[i] < paper[j] and not ours[i] < ours[j]]
    assert not wrong


@pytest.mark.parametrize("style", PAPER)
def test_costs_that_no_price_was_derived_from_are_near_the_papers(nanobench, style):
    for name, paper, ours in zip(NAMES, TABLE[style], nanobench[style]):
        if name not in CALIBRATED[style] and paper > 50:
            assert 0.7 < ours / paper < 1.4, (name, ours, paper)
