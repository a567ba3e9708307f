# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest tests/guests/bootinfo: a kernel that prints what its loader told it."""
import subprocess
from pathlib import Path

from pyx86v import Machine

GUEST = Path(__file__).parent / "guests" / "bootinfo"
FLAGS = "-m32 -march=i686 -Os -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fcf-protection=none -mgeneral-regs-only -nostdlib -static"
MEMORY = 64 << 20


def build(folder):
    """The kernel bootinfo.elf and two modules, first and second, in the folder."""
    done = subprocess.run(["gcc", *FLAGS.split(), "-Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments", "-T", GUEST / "link.lds",
                           GUEST / "start.S", GUEST / "bootinfo.c", "-o", folder / "bootinfo.elf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "first").write_text("first module")
    (folder / "second").write_text("2")
    return folder / "bootinfo.elf"


def told(kernel, entry, modules=(), args="", style="native"):
    """The lines that it prints."""
    machine = Machine(memory=MEMORY, style=style)
    machine.load(kernel, initrd=[str(module) for module in modules], kernel_args=args, entry=entry)
    stop = machine.run(max_instructions=10_000_000)
    assert (stop.reason.value, stop.status) == ("exit", 0), (stop, machine.console)
    return machine.console.decode().splitlines()


def usable(lines):
    """[(start, end)] of the usable areas."""
    return [(int(start, 16), int(end, 16)) for word, start, end, kind in map(str.split, filter(lambda line: line.startswith("area"), lines))
            if kind == "usable"]
