# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks run: bundled ROMs, the loops of micro.S, and QEMU beside them."""
import functools
import resource
import shutil
import subprocess
import time
from pathlib import Path

from pyx86v.cli import guests

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "build" / "bench"
EVENTS = ("nothing", "cpuid", "int80", "out", "movcr3")
PAGED = ("paged nothing", "paged cpuid", "PTE, INVLPG, load", "paged cli")       # with paging
ROUNDS = 200_000                # of micro.S


rom = guests.image


def compute_roms():
    """Names of the bundled ROMs that only compute."""
    return [head["name"] for head in guests.manifest() if head["kind"] == "compute" and head["qemu"] == "yes"]


@functools.cache
def micro(event):
    """The path of micro.S built for one of EVENTS or PAGED."""
    WORK.mkdir(parents=True, exist_ok=True)
    number = (EVENTS + PAGED).index(event)
    image = WORK / f"micro{number}.elf"
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-Wl,-Ttext=0x100000", "-Wl,--build-id=none", "-Wl,-z,noexecstack",
                    "-Wl,--no-warn-rwx-segments", "-Wl,-N", f"-DEVENT={number}", HERE / "micro.S", "-o", image], check=True)
    return str(image)


QEMU = shutil.which("qemu-system-x86_64")


def qemu_linux(linux, *options):
    """The Linux of tests/linux_guest.py under QEMU's TCG: (wall seconds, CPU seconds, console), QEMU's own start included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([QEMU, "-accel", "tcg", "-cpu", "max", "-m", str(linux.memory >> 20), "-kernel", linux.kernel, "-initrd", linux.initrd,
                           "-append", linux.args, "-display", "none", "-serial", "stdio", "-no-reboot", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=300)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout
