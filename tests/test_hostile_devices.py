# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that programs devices wrongly, 100,000 times in a run, ends by itself, and the same under every style and run."""
import random
import subprocess
from pathlib import Path

import pytest

from pyx86v import Machine, StopReason

SOURCE = Path(__file__).with_name("hostile_guest.S")
ACCESSES = 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "disk.raw").write_bytes(random.Random(1).randbytes(1 << 20))
    (folder / "cd.iso").write_bytes(random.Random(2).randbytes(1 << 18))
    return folder


def guest(folder, seed):
    path = folder / f"{seed}.elf"
    subprocess.run(["gcc", "-c", "-m32", f"-DSEED={seed}", f"-DACCESSES={ACCESSES}", "-o", folder / "guest.o", SOURCE], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-n", "-Ttext=0x100000", "-o", path, folder / "guest.o"], check=True)
    return path


@pytest.mark.parametrize("seed, styles", [(1, ("native", "vmx+ept")), (0x5EED, ("native", "svm+shadow")), (77777, ("native",))])
def test_random_device_accesses_never_end_the_process(files, seed, styles):
    before, ends = (files / "disk.raw").read_bytes(), set()
    for style in styles:
        m = Machine(memory=16 << 20, style=style, clock="instructions", disks=[files / "disk.raw"] * 2, cdroms=[files / "cd.iso"])
        m.load(guest(files, seed))
        stop = m.run(max_instructions=20_000_000)
        assert stop.reason is StopReason.EXIT and stop.status == 0
        ends.add((m.instructions, m.console, m.digest()))
    assert len(ends) == 1 and (files / "disk.raw").read_bytes() == before
