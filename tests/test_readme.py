# SPDX-License-Identifier: GPL-2.0-or-later
"""What the README shows has to work."""
import re
import subprocess
import sys
from pathlib import Path

from pyx86v.cli import guests
from pyx86v.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_python_example_runs():
    [example] = re.findall(r"```python\n(.*?)```", README, re.S)
    code = example.replace('"kernel.elf"', repr(guests.image("ptestorm"))).replace("100_000_000", "10_000_000")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("EXIT 0") == 2 and "walk_nested_1" in done.stdout


def test_commands_and_guests_exist():
    names = {command.name for command in COMMANDS}
    roms = {rom["name"] for rom in guests.manifest()}
    for command, guest in re.findall(r"^    pyx86v ([a-z]+) ([a-z0-9]+)", README, re.M):
        assert command in names and (guest in roms or guest == "vmlinuz"), (command, guest)
    for file in re.findall(r"((?:bench/|roms/)?[A-Z]+\.md|LICENSE)", README):
        assert (ROOT / file).exists(), file
