# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundled ROMs on the machine: each combination runs once a session, and what it left is kept.  Guests of the tests' own."""
import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyx86v import Machine
from pyx86v.cli import guests
from test_roms_qemu import ROMS, build

HEADS = {rom["name"]: rom for rom in guests.manifest()}
RESULTS = ("instructions", "cycles", "units", "ledger", "ledger_units", "exits", "tlb", "walks", "events", "console", "report")
SAME = ("end", "instructions", "console", "report", "digest")        # what must not depend on the style
LIMIT = 2_000_000_000            # instructions or instruction cycles; no ROM comes near


def machine_for(name, path=None, kernel_args="", **options):
    """A machine with a bundled ROM, or the guest at `path`, in place."""
    memory = HEADS[name]["memory"] if name in HEADS else "64M"
    machine = Machine(**{"memory": int(memory.rstrip("M")) << 20, **options})
    machine.load(path or guests.image(name), kernel_args=kernel_args)
    return machine


def build_guests(folder, changes):
    """{name: image} of guests of tests/guests or roms/, changed: {name: [(file, text, its replacement)]}."""
    roms, out = folder / "roms", folder / "images"
    shutil.copytree(ROMS / "lib", roms / "lib")
    for name, edits in changes.items():
        own = Path(__file__).parent / "guests" / name
        shutil.copytree(own if own.exists() else ROMS / name, roms / name)
        for file, old, new in edits:
            text = (roms / name / file).read_text()
            assert text.count(old) == 1, (name, old)
            (roms / name / file).write_text(text.replace(old, new))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "HERE", roms)
        build.build_all(out, changes)
    return {name: out / f"{name}.elf" for name in changes}


@functools.cache
def rom_run(name, style="native", clock="instructions", engine="inline"):
    """Everything a run left behind, as plain values."""
    machine = machine_for(name, style=style, clock=clock, engine=engine)
    stop = machine.run(max_instructions=LIMIT)
    return SimpleNamespace(end=(stop.reason.value, stop.status, stop.detail), digest=machine.digest(),
                           **{key: getattr(machine, key) for key in RESULTS})


class Phases:
    """A device on the report port that notes what the machine has counted at each word."""

    def __init__(self, machine):
        self.machine, self.notes = machine, []
        machine.add_port_device(0xE8, 4, self)

    def port_in(self, port, size):
        return 0

    def port_out(self, port, size, word):
        m = self.machine
        flat = {"instructions": m.instructions, "exits": sum(row["count"] for row in m.exits.values()),
                "refs": m.walks["references"], **{f"{k} exits": row["count"] for k, row in m.exits.items()},
                **{k: m.walks["by_level"][k] for k in m.walks["by_level"]}, **m.tlb,
                **{f"{cause} cycles": units / 64 for cause, units in m.ledger_units.items()}}
        self.notes.append((word, flat))

    def differences(self):
        """{key of a phase: counts between its two words}, for phases between 0xBkkkkkkk and 0xEkkkkkkk."""
        found = {}
        for (word, before), (end, after) in zip(self.notes[::2], self.notes[1::2], strict=True):
            assert word >> 28 == 0xB and end == word ^ 0x50000000
            found[word & 0xFFFFFFF] = {key: value - before.get(key, 0) for key, value in after.items()}
        return found


def phases_of(name, path=None, **options):
    """({phase: counts}, machine) of a whole run."""
    machine = machine_for(name, path, **options)
    phases = Phases(machine)
    stop = machine.run(max_instructions=LIMIT)
    assert (stop.reason.value, stop.status) == ("exit", 0), (stop, machine.console)
    return phases.differences(), machine
