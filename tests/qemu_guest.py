# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's TCG as a witness: one run for each image and session, whoever asks."""
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

QEMU = shutil.which("qemu-system-x86_64")
_paths = {}                      # digest of an image -> where it was last seen


def need_qemu():
    """Without QEMU a test is skipped, on a build machine it fails."""
    if not QEMU:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("qemu-system-x86_64 missing: apt install qemu-system-x86")


def qemu_run(image, memory, attempt=0):
    """(exit status, console) of one image under QEMU with the command of roms/README.md; firmware goes to -bios.  Run once an attempt."""
    image = Path(image)
    key = hashlib.sha256(image.read_bytes()).hexdigest()
    _paths[key] = image
    return _run(key, memory, attempt)


@functools.cache
def _run(key, memory, attempt):
    image = _paths[key]
    done = subprocess.run(
        [QEMU, "-accel", "tcg", "-cpu", "max", "-m", memory, "-bios" if image.suffix == ".bin" else "-kernel", image,
         "-display", "none", "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode("latin-1") + done.stderr.decode("latin-1")


def qemu_instructions(linux):
    """How many instructions a Linux of linux_guest.py executes under QEMU from reset to its end: (count, console).

    Counted by a plugin; time is a nanosecond an instruction (-icount shift=0), the command line linux.args.
    """
    source = Path(__file__).with_name("qemu_count.c")
    with tempfile.TemporaryDirectory() as folder:
        plugin, log = Path(folder) / "count.so", Path(folder) / "log"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", plugin, source], check=True)
        done = subprocess.run(
            [QEMU, "-accel", "tcg", "-cpu", "max", "-m", str(linux.memory >> 20), "-kernel", linux.kernel, "-initrd", linux.initrd,
             "-append", linux.args, "-display", "none", "-serial", "stdio", "-no-reboot", "-icount", "shift=0",
             "-plugin", plugin, "-d", "plugin", "-D", log], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=600)
        return int(log.read_text().split("instructions:")[1]), done.stdout.decode("latin-1")
