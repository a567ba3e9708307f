# SPDX-License-Identifier: GPL-2.0-or-later
"""Binary translation beside VT-x, as Adams & Agesen measured both on a Pentium 4 672 (ASPLOS 2006): ROMs `nanobench` and `forkwait`."""
import pytest

from rom_runs import build_guests, machine_for, phases_of

NAMES = ("syscall", "in", "cr8wr", "call/ret", "pgfault", "divzero", "pte unchanged", "pte to not present", "pte to present", "rdtsc")
STYLES = ("native", "bt+shadow", "vmx+shadow")
TABLE = {"native": (242, 3209, 150, 11, 1093, 889, 1, 4, 5), "bt+shadow": (2308, 216, 35, 51, 3927, 3223, 391, 17, 2121),
         "vmx+shadow": (246, 15826, 177, 11, 11242, 1014, 12733, 9154, 17020)}
# Cells that a line of profile p4-672 was derived from: the number proves nothing.
INPUTS = {"native": {"syscall", "in", "cr8wr", "call/ret", "pgfault", "divzero"},
          "bt+shadow": {"in", "divzero", "pte unchanged", "pte to not present", "pte to present"},
          "vmx+shadow": {"in", "pgfault", "pte unchanged", "pte to not present", "pte to present"}}
# Cells that are not, and are further off than FACTOR.  ARCHITECTURE.md ("The paper's table") has the account of each.
FACTOR = 1.5
OFF = {("native", "pte unchanged"), ("bt+shadow", "call/ret")}
TRAP, CALL_OUT, IN_PLACE = 2030, 1254, 216               # rdtsc, section 3.3
CHILDREN = 400


def costs_of(style):
    machine = machine_for("nanobench", style=style, profile="p4-672")
    machine.run()
    words = machine.report
    return [words[3 * n + 1] / words[3 * n + 2] for n in range(len(NAMES))]


@pytest.fixture(scope="module")
def nanobench():
    """{style: cycles of each operation}."""
    return {style: costs_of(style) for style in STYLES}


@pytest.mark.parametrize("row", range(9), ids=lambda n: NAMES[n].replace("/", " "))
def test_every_row_is_ordered_as_published(nanobench, row):
    """Where two figures of the paper differ by less than a tenth (syscall natively and under VT-x), ours may be equal."""
    for one in STYLES:
        for other in STYLES:
            if 1.1 * TABLE[one][row] < TABLE[other][row] or "bt+shadow" in (one, other) and TABLE[one][row] < TABLE[other][row]:
                slack = 1 if TABLE[other][row] > 1.2 * TABLE[one][row] else 1.001
                assert nanobench[one][row] < slack * nanobench[other][row], (one, other, nanobench[one][row], nanobench[other][row])


def test_cells_that_are_no_inputs_are_near_the_papers(nanobench):
    judged = {(style, name): ours / paper for style in STYLES for name, paper, ours in zip(NAMES, TABLE[style], nanobench[style])
              if name not in INPUTS[style]}
    off = {cell for cell, ratio in judged.items() if not 1 / FACTOR <= ratio <= FACTOR}
    assert off == OFF, {cell: judged[cell] for cell in off ^ OFF}
    assert len(off) <= len(judged) / 3
    translated = {cell for cell in judged if cell[0] == "bt+shadow"}
    assert len(off & translated) <= len(translated) / 3


def test_inputs_come_out_again(nanobench):
    for style in STYLES:
        for name, paper, ours in zip(NAMES, TABLE[style], nanobench[style]):
            assert name not in INPUTS[style] or abs(ours - paper) <= max(0.1 * paper, 60), (style, name, ours)


def test_rdtsc_by_trap_by_call_out_and_in_place(nanobench, tmp_path):
    """Behind MOV SS the monitor carries an instruction out by itself: so the RDTSC of the same loop becomes a call-out."""
    edit = ("loops.S", "        LOOP rdtsc, rdtsc", ".macro BODY\n mov %ss, %eax\n mov %eax, %ss\n rdtsc\n.endm\n LOOP rdtsc, BODY")
    machine = machine_for("nanobench", build_guests(tmp_path, {"nanobench": [edit]})["nanobench"], style="bt+shadow", profile="p4-672")
    machine.run()
    called, trapped = machine.exits["RDTSC"], costs_of("trap+shadow")[9]
    assert called["count"] >= 512 and called["min"] == called["max"] == CALL_OUT
    assert trapped > called["max"] > nanobench["bt+shadow"][9]
    assert trapped == pytest.approx(TRAP, abs=10) and nanobench["bt+shadow"][9] == pytest.approx(IN_PLACE, abs=10)


@pytest.mark.slow
def test_a_fork_costs_more_translated_and_most_under_vt_x():
    """Per child, by the ledger.  The paper: 40,000 of Linux in 6.0, 37.0 and 106 seconds."""
    costs = {}
    for style in STYLES:
        phases, _ = phases_of("forkwait", style=style, profile="p4-672")
        costs[style] = sum(value for key, value in phases[0].items() if key.endswith(" cycles")) / CHILDREN
    assert 1.5 * costs["native"] < costs["bt+shadow"] and 1.5 * costs["bt+shadow"] < costs["vmx+shadow"], costs


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["p4-672", "skylake"])
def test_adaptive_translation_halves_a_storm_of_page_table_writes(profile):
    costs = {}
    for adaptive in (True, False):
        machine = machine_for("ptestorm", style="bt+shadow", profile=profile, adaptive=adaptive)
        machine.run()
        costs[adaptive] = machine.cycles
    assert 2 * costs[True] < costs[False], costs
