# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels, unmodified, from the first instruction of the file that is distributed to a shell script and power-off.

Their command line is `console=ttyS0` and nothing else.  What the console must show comes from the host (linux_guest.Linux.expected);
the styles judge each other.
"""
import functools
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import debian
import linux_guest
from guest_list import ALL, EQUAL, HOLES, grouped, pairs
from pyx86v import Machine, StopReason
from pyx86v import boot as boot_image
from pyx86v.report import symbols
from qemu_guest import need_qemu, qemu_instructions

ROOT = Path(__file__).resolve().parents[1]
ARGS = "console=ttyS0"
KERNELS = tuple(linux_guest.KERNELS)
PAIRS = pairs(KERNELS)
VIRTUALIZED = [pair for pair in PAIRS if pair[1] != "native"]
ONE_STYLE = dict(VIRTUALIZED)           # of each kernel
BOTH_CLOCKS = KERNELS if ALL else KERNELS[:1]                           # under `instructions` are all
# Causes that only a monitor books, by the style's first half.
MONITOR = {"native": set(), "vmx": {"exit", "entry", "vmcs", "emulation"}, "svm": {"exit", "entry", "emulation"},
           "bt": {"exit", "entry", "emulation", "translation"}}
LIMIT = "20000000000"                                   # instructions; the longest boot takes 8e9
TROUBLE = ("BUG:", "WARNING: CPU", "Call Trace", "segfault", "unchecked MSR", "ACPI Error", "ACPI BIOS Error", "nobody cared")
# What ends trap and emulate: PUSHF shows IF set, where 64-bit kernels look at the processor, 32-bit ones in the first printk.
FIRST_HOLE = {64: r"pushf at 0x1000160 <verify_cpu \(physical\)>: ", 32: r"pushf at 0xc1[0-9a-f]{6} <vprintk_store\+0x[0-9a-f]+>: "}

pytestmark = pytest.mark.linux


@functools.cache
def guest(kernel, args=ARGS):
    try:
        return linux_guest.linux(kernel, linux_guest.POWER_OFF, args)
    except debian.Unavailable as reason:
        debian.skip(f"no Debian kernel to boot: {reason}")


def command(kernel, path, style, clock, *options):
    """The JSON text of one run in a process of its own, without its wall time, and the exit status."""
    done = subprocess.run([sys.executable, "-m", "pyx86v", "run", str(path), "--style", style, "--clock", clock, "--json", "-",
                           "--max-instructions", LIMIT, *guest(kernel).options, *options], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    return re.sub(r'("wall_s": )[0-9.]+', r"\g<1>0", done.stdout), done.returncode


def once_more(kernel, style, clock):
    text, status = command(kernel, guest(kernel).kernel, style, clock)
    assert status == 0, text[-3000:]
    return text


boot = functools.cache(once_more)


def result(kernel, style, clock="instructions"):
    return json.loads(boot(kernel, style, clock))


def lines(console):
    return console.replace("\r", "").split("\n")


def check(run, kernel):
    console = lines(run["console"])
    expected = guest(kernel).expected
    assert [line for line in console if line in expected] == expected, run["console"][-2000:]
    assert not [line for line in console for trouble in TROUBLE if trouble in line]
    assert run["end"] == {"reason": "exit", "status": 0, "detail": "power off"}
    assert sum(run["ledger"].values()) == run["cycles"]
    assert sum(run["walks"]["by_level"].values()) == run["walks"]["references"]
    booked = {cause for cause, cycles in run["ledger"].items() if cycles} & set().union(*MONITOR.values())
    assert booked == MONITOR[run["style"].partition("+")[0]]


@pytest.mark.parametrize("kernel, style", grouped(PAIRS))
def test_boots_to_its_script_and_switches_the_machine_off(kernel, style):
    check(result(kernel, style), kernel)


@pytest.mark.parametrize("kernel, style", grouped(VIRTUALIZED))
def test_every_style_computes_the_same(kernel, style):
    """The strongest oracle: guest time is retired instructions, so nothing may depend on the style."""
    first, other = result(kernel, "native"), result(kernel, style)
    for key in ("end", "instructions", "console", "report", "digest"):
        assert other[key] == first[key], f"{key} under {style}"


@pytest.mark.parametrize("kernel, style", grouped(pair for pair in VIRTUALIZED if pair[0] in BOTH_CLOCKS))
def test_prints_the_same_whatever_time_costs(kernel, style):
    """Guest time is machine cycles and differs; what the script prints does not."""
    def script(style):
        run = result(kernel, style, "cycles")
        check(run, kernel)
        console = lines(run["console"])
        return [re.sub(r"^\[ *[0-9.]+\]", "[]", line) for line in console[console.index("INIT-OK"):] if not line.startswith("symbol ")]
    assert script(style) == script("native")


@pytest.mark.parametrize("kernel", grouped(BOTH_CLOCKS))
def test_the_same_command_twice_gives_the_same_bytes(kernel):
    assert once_more(kernel, "native", "cycles") == boot(kernel, "native", "cycles")
    if ALL:
        assert once_more(kernel, ONE_STYLE[kernel], "cycles") == boot(kernel, ONE_STYLE[kernel], "cycles")


def unwrapped(kernel):
    try:
        return linux_guest.vmlinux(kernel)
    except debian.Unavailable as reason:
        debian.skip(reason)


def test_the_kernel_without_its_wrapping():
    """The ELF file inside the bzImage.  It stays where it was linked, so /proc/kallsyms judges our reading of its symbols."""
    ends, linux = set(), guest("cloud")
    for style in ("native", "vmx+ept"):
        machine = linux.load(Machine(memory=linux.memory, style=style, clock="instructions"), unwrapped("cloud"))
        stop = machine.run(max_instructions=int(LIMIT))
        assert (stop.reason, stop.detail) == (StopReason.EXIT, "power off")
        assert [line for line in lines(machine.console.decode()) if line in linux.expected] == linux.expected
        ends.add((machine.instructions, machine.console, machine.digest()))
    assert len(ends) == 1
    address, _, name = re.search(rb"^symbol ([0-9a-f]{16}) (.) (\S+)", machine.console, re.M).groups()
    assert symbols.load(unwrapped("cloud")).name(int(address, 16)) == name.decode()
    check_exits_under_ept({name: row["count"] for name, row in machine.exits.items()}, len(machine.console))


def check_exits_under_ept(count, characters):
    """They are those that the controls ask for: the guest owns its page tables, so no exit for MOV CR3, INVLPG or a page fault."""
    assert not {"EXCEPTION_NMI", "INVLPG"} & set(count) and {"EXTERNAL_INTERRUPT", "CPUID", "HLT", "IO_INSTRUCTION", "MSR_WRITE"} <= set(count)
    assert 0 < count["CR_ACCESS"] < 20                  # CR0 and CR4, a few at boot
    # each character of the console is a port access, and the driver looks at the line status before
    assert count["IO_INSTRUCTION"] > 2 * characters


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_corrupt_kernel_is_refused(kernel, tmp_path):
    """Debian signs its kernels, which changes what the CRC-32 does not cover."""
    data = bytearray(guest(kernel).kernel.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "corrupt").write_bytes(data)
    with pytest.raises(boot_image.BootError, match="corrupt: checksum: "):
        boot_image.load(tmp_path / "corrupt", 256 << 20)


@pytest.mark.parametrize("style", HOLES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_trap_and_emulate_ends_at_a_hole_with_a_name(kernel, style):
    text, status = command(kernel, unwrapped(kernel), style, "instructions", "--symbols", str(unwrapped(kernel)))
    run = json.loads(text)
    assert status == 1 and run["end"]["reason"] == "hole"
    assert re.match(FIRST_HOLE[64 if "64" in guest(kernel).kernel.name else 32], run["end"]["detail"]), run["end"]["detail"]


@pytest.mark.qemu
@pytest.mark.skipif(not ALL, reason="make test-guests")
def test_qemu_counts_as_many_instructions():
    """Within 2 %, on a command line that measures nothing against a timer: guest time passes at other rates.  QEMU's BIOS is in its count."""
    need_qemu()
    linux = linux_guest.linux()
    machine = linux.load(Machine(memory=linux.memory, clock="instructions"))
    machine.run(max_instructions=int(LIMIT))
    count, console = qemu_instructions(linux)
    assert linux.expected[-1] in console and abs(machine.instructions / count - 1) < 0.02, (machine.instructions, count)


def resident():
    """Bytes of this process in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_boots_in_a_row_leak_nothing():
    """After many as after two, within 5 %.  The suite's boots end early."""
    linux, sizes = guest("cloud"), []
    for _ in range(10 if ALL else 5):
        machine = linux.load(Machine(memory=linux.memory, style=EQUAL[0]), unwrapped("cloud"))
        machine.run(max_instructions=int(LIMIT) if ALL else 200_000_000)
        del machine
        sizes.append(resident())
    assert sizes[-1] <= 1.05 * sizes[1], sizes
