# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyx86v bt`: what it says of the translation cache, against the guest's memory and a disassembler."""
import json

import capstone
import pytest

from pyx86v.cli import main
from rom_runs import machine_for

ROM = "forkwait"


def bt(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["bt", *arguments])
    return ended.value.code, capsys.readouterr().out


@pytest.fixture(scope="module")
def result():
    from click.testing import CliRunner
    from pyx86v.cli.translations import bt as command
    done = CliRunner().invoke(command, [ROM, "--json", "-", "--top", "3"])
    return json.loads(done.output)


@pytest.fixture(scope="module")
def machine():
    made = machine_for(ROM, style="bt+shadow")
    made.run()
    return made


def test_units_are_the_guests_code(machine):
    """The kernel of this ROM lies where linear is physical: each unit holds what is there, cut into instructions as capstone cuts it."""
    decoders = {32: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32), 64: capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)}
    units = machine.translations
    assert len(units) > 100
    for unit in units:
        assert machine.read_memory(unit["address"], len(unit["guest"])) == unit["guest"]
        ends = [insn["offset"] + insn["length"] for insn in unit["insns"]]
        assert ends == [at + size for at, size, _, _ in decoders[unit["bits"]].disasm_lite(unit["guest"], 0)] and ends[-1] == len(unit["guest"])
        assert 0 <= unit["chained"] <= unit["exits"]


def test_counts_agree(machine):
    counts, units = machine.translation_counts, machine.translations
    assert counts["units"] >= len(units) and counts["code_bytes"] >= sum(len(unit["code"]) for unit in units)
    assert counts["callouts"] == sum(machine.callouts.values())
    assert counts["chains"] >= sum(unit["chained"] for unit in units) > 50            # of units that died too


def test_a_changed_entry_costs_the_code_behind_it():
    """The guest changes an entry above its own code a thousand times; what lies elsewhere stays translated."""
    made = machine_for("ptestorm", style="bt+shadow")
    made.run()
    counts = made.translation_counts
    assert counts["dropped"] > 1000 and counts["units"] < 2 * counts["dropped"]


def test_branches_find_their_way_without_the_monitor():
    """Fewer than one entry from the monitor for 100 units that ran.  A unit has at most 13 instructions, so at least that many did."""
    made = machine_for("branchy", style="bt+shadow")
    made.run()
    assert 0 < made.translation_counts["dispatches"] * 100 < made.instructions / 13


def test_the_command_says_what_the_machine_says(result, machine):
    assert result["instructions"] == machine.instructions and result["cycles"] == machine.cycles
    assert result["counts"] == machine.translation_counts and result["callouts"] == machine.callouts
    cache = result["cache"]
    assert cache["expansion"] == cache["code_bytes"] / cache["guest_bytes"] and 1 < cache["expansion"] < 4


def test_the_hottest_is_the_copy_loop(result):
    """Most of the kernel's instructions are the elements of REP MOVSB, which copies pages that children write."""
    hottest = result["hottest"]
    assert len(hottest) == 3 and hottest[0]["samples"] > result["samples"] / 2
    copies = [row for row in hottest[0]["instructions"] if row["guest"][0].startswith("rep movsb")]
    assert copies and copies[0]["kind"] == "copied" and copies[0]["guest"] == copies[0]["translation"]


def test_the_page_for_people(capsys):
    code, out = bt(capsys, ROM, "--top", "1")
    assert code == 0 and "call-outs" in out and "rep movsb" in out and max(map(len, out.splitlines())) <= 100


def test_a_guest_that_cannot_be(capsys):
    assert bt(capsys, "no-such-guest")[0] == 2
    assert machine_for("hello").translations == [] and machine_for("hello").callouts == {}
