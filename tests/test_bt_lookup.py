# SPDX-License-Identifier: GPL-2.0-or-later
"""Indirect transfers of translated code: what the engine does for them against the code in the translation cache itself.

PYX86V_LOOKUPS=code has Unicorn run that code, instruction by instruction; otherwise the engine reads the same table of targets by
operations of its own (engine/lookup.pxd), and charges what the code would have cost.
"""
import pytest

import pyx86v
from rom_runs import machine_for

MISS = 64        # cycles, more than a look that fails can differ by: the engine charges it as one that succeeds
LOOPS = 0.001    # of all cycles, with a block model: what ran just before, a look that fails too, decides what loop code is priced in


def run(name, profile, monkeypatch, lookups):
    monkeypatch.setenv("PYX86V_LOOKUPS", lookups)
    machine = machine_for(name, style="bt+shadow", clock="instructions", profile=profile)
    end = machine.run()
    return machine, (end.reason, end.status, machine.instructions, bytes(machine.console), machine.digest())


@pytest.mark.parametrize("name, profile", [("branchy", "p4-672"), ("branchy", "skylake"), ("smc", "skylake"), ("rings", "p4-672"),
                                           ("nanobench", "p4-672")])
def test_the_engine_does_what_the_code_does(monkeypatch, name, profile):
    short, result = run(name, profile, monkeypatch, "engine")
    long, expected = run(name, profile, monkeypatch, "code")
    assert result == expected
    counts, others = short.translation_counts, long.translation_counts
    assert counts["lookups"] and {k: counts[k] for k in ("units", "insns", "callouts")} == {k: others[k] for k in ("units", "insns", "callouts")}
    apart = abs(short.ledger["instruction"] - long.ledger["instruction"])
    assert apart <= MISS * counts["lookups"] + (LOOPS * long.ledger["instruction"] if profile == "skylake" else 0), (apart, counts["lookups"])


def test_a_wrong_choice_is_refused(monkeypatch):
    monkeypatch.setenv("PYX86V_LOOKUPS", "both")
    with pytest.raises(ValueError, match="expected engine or code"):
        pyx86v.Machine(style="bt+shadow")


@pytest.mark.parametrize("name", ["usermode", "rings", "smc"])
@pytest.mark.parametrize("after", [2_000, 60_000, 300_000])
def test_a_restored_machine_goes_on_with_its_translations(name, after, tmp_path):
    through = machine_for(name, style="bt+shadow", clock="instructions")
    through.run()
    saved = machine_for(name, style="bt+shadow", clock="instructions")
    saved.run(max_instructions=after)
    saved.save(tmp_path / "snapshot")
    restored = pyx86v.Machine.restore(tmp_path / "snapshot")
    assert restored.translation_counts == saved.translation_counts and restored.instructions == saved.instructions
    for machine in (saved, restored):
        machine.run()
        assert (machine.instructions, bytes(machine.console), machine.digest()) == (through.instructions, bytes(through.console), through.digest())
    assert restored.ledger_units == saved.ledger_units
