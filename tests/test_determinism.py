# SPDX-License-Identifier: GPL-2.0-or-later
"""The same command twice, in two processes with nothing in common but the machine they run on: byte for byte the same JSON
but for wall_s.  Hash seeds, environment and memory layout differ between the two."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


# Commands one after the other: starting Python takes longer than a ROM.
COMMANDS = """import json, sys
from pyx86v import cli
for arguments in json.loads(sys.argv[1]):
    try:
        cli.main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
"""
RUNS = (["--style", "native"], ["--style", "vmx+ept"], ["--style", "vmx+ept", "--clock", "instructions"])


def json_of(seed, *commands):
    """What the commands print, in a process of its own, without the wall times."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "COLUMNS": str(60 + 40 * seed), "PADDING": "x" * 4096 * seed}
    arguments = json.dumps([[*command, "--json", "-"] for command in commands])
    done = subprocess.run([sys.executable, "-c", COMMANDS, arguments], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"wall_s": ') >= len(commands)
    return re.sub(r'"wall_s": [\d.e-]+', '"wall_s": 0', done.stdout)


def results(text):
    """The JSON values in the text."""
    values = []
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


@pytest.mark.parametrize("guest", [
    pytest.param("rdrand", marks=pytest.mark.quick), "minikernel", "timer", "clockread", "smc", "itlb", "demand"])
def test_run_twice(guest):
    first, second = (json_of(seed, *(["run", guest, *options] for options in RUNS)) for seed in (1, 2))
    assert first == second
    made = results(first)
    assert len(made) == len(RUNS) and [run["style"] for run in made] == ["native", "vmx+ept", "vmx+ept"]
    for result in made:
        assert result["end"]["reason"] == "exit" and result["instructions"] > 1000


@pytest.mark.parametrize("guest", ["rdrand", "ptestorm", "v86"])
def test_compare_twice(guest):
    first, second = (json_of(seed, ["compare", guest]) for seed in (1, 2))
    assert first == second
    native, vmx = json.loads(first)["runs"]
    for key in ("end", "instructions", "console", "report", "digest"):
        assert native[key] == vmx[key]
    for run in (native, vmx):
        assert sum(run["ledger"].values()) == run["cycles"]


def test_random_replacement_is_seeded(tmp_path):
    """A profile with random replacement is as deterministic as the others."""
    line = 'side = "{0}"\nlevel = 1\npages = ["4K", "2M", "1G"]\nentries = 16\nways = 16\nreplacement = "random"\n' \
           'status = "estimated"\nsource = "model"\n'
    profile = tmp_path / "random.toml"
    profile.write_text('base = "zen"\n' + "".join(f"[tlb.{side}]\n{line.format(side)}" for side in ("data", "code")))
    first, second = (json_of(seed, ["run", "itlb", "--cpu", str(profile)]) for seed in (1, 2))
    assert first == second and json.loads(first)["tlb"]["l1i_misses"] > 10_000
