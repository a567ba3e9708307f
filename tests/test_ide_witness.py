# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest tests/guests/ide drives a disk and a CD-ROM as no driver would; QEMU's PIIX3 says what must come out."""
import random
import subprocess

import pytest

from pyx86v import Machine
from pyx86v._core import styles
from qemu_guest import QEMU, need_qemu
from rom_runs import build_guests


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ide")
    (folder / "disk.raw").write_bytes(random.Random("disk").randbytes(1 << 20))
    (folder / "cd.iso").write_bytes(random.Random("cd").randbytes(100 * 2048))
    return {"rom": build_guests(folder, {"ide": []})["ide"], "disk": folder / "disk.raw", "cd": folder / "cd.iso"}


def run(files, **options):
    machine = Machine(memory=64 << 20, disks=[files["disk"]], cdroms=[files["cd"]], **options)
    machine.load(str(files["rom"]))
    stop = machine.run(max_instructions=50_000_000)
    assert (stop.reason.value, stop.status) == ("exit", 0), machine.console
    return machine.console.decode(), machine.instructions, machine.digest()


def test_prints_what_qemu_prints(files):
    need_qemu()
    drives = [f"file={files['disk']},format=raw,if=ide,index=0,snapshot=on", f"file={files['cd']},format=raw,if=ide,index=2,media=cdrom"]
    done = subprocess.run([QEMU, "-accel", "tcg", "-cpu", "max", "-m", "64M", "-kernel", files["rom"], "-display", "none", "-serial", "stdio", "-no-reboot",
                           "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive", drives[0], "-drive", drives[1]],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert run(files)[0].splitlines() == done.stdout.splitlines()


@pytest.mark.parametrize("style", [style for style in styles() if style != "native"])
def test_every_style_computes_the_same(files, style):
    assert run(files, style=style, clock="instructions") == run(files, clock="instructions")
