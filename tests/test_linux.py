# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel, unmodified, from its first instruction to a shell script and a reset, under every style.

What the console must show comes from the host (linux_guest.Linux.expected); the styles judge each other.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import linux_guest
from pyx86v import Machine, StopReason
from pyx86v._core import styles

ROOT = Path(__file__).resolve().parents[1]
STYLES = ["native", *(style for style in styles() if style.startswith(("vmx+", "svm+")))]
CLOCKS = ("cycles", "instructions")
MONITOR = {"exit", "entry", "vmcs", "emulation"}        # causes that only a monitor books
LIMIT = "20000000000"                                   # instructions; a boot takes 1.5e9

pytestmark = pytest.mark.linux


def boot(guest, style, clock):
    """The JSON text of one boot in a process of its own, without its wall time."""
    done = subprocess.run([sys.executable, "-m", "pyx86v", "run", str(guest.kernel), "--style", style, "--clock", clock, "--json", "-",
                           "--max-instructions", LIMIT, *guest.options], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr or done.stdout[-2000:]
    return re.sub(r'("wall_s": )[0-9.]+', r"\g<1>0", done.stdout)


@pytest.fixture(scope="module")
def texts(linux):
    """{(style, clock): boot()}, each made once."""
    class Texts(dict):
        def __missing__(self, key):
            self[key] = boot(linux, *key)
            return self[key]
    return Texts()


def lines(console):
    return console.replace("\r", "").split("\n")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("clock", CLOCKS)
def test_boots_to_its_script_and_resets_the_machine(linux, texts, style, clock):
    result = json.loads(texts[style, clock])
    console = lines(result["console"])
    assert [line for line in console if line in linux.expected] == linux.expected, result["console"][-2000:]
    assert result["end"] == {"reason": "shutdown", "status": 0, "detail": "reset"}
    assert not [line for line in console if "BUG:" in line or "WARNING:" in line or "Call Trace" in line or "segfault" in line]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("clock", CLOCKS)
def test_every_cycle_is_booked(texts, style, clock):
    result = json.loads(texts[style, clock])
    assert sum(result["ledger"].values()) == result["cycles"]
    assert sum(result["walks"]["by_level"].values()) == result["walks"]["references"]
    # the script's `sleep 0.1` halts; at this profile's clock rate that is as many cycles
    assert 0.09 < result["ledger"]["idle"] / 3.4e9 < 0.11
    booked = {cause for cause, cycles in result["ledger"].items() if cycles} & MONITOR
    assert booked == (set() if style == "native" else MONITOR if style.startswith("vmx") else MONITOR - {"vmcs"})


def test_exits_are_those_that_the_controls_ask_for(texts):
    """Under EPT the guest owns its page tables: no exit for MOV CR3, INVLPG or a page fault."""
    result = json.loads(texts["vmx+ept", "instructions"])
    count = {name: row["count"] for name, row in result["exits"].items()}
    assert not json.loads(texts["native", "instructions"])["exits"]
    assert set(count) == {"EXTERNAL_INTERRUPT", "INTERRUPT_WINDOW", "CPUID", "HLT", "CR_ACCESS", "IO_INSTRUCTION", "MSR_READ", "MSR_WRITE"}
    assert 0 < count["CR_ACCESS"] < 20                  # CR0 and CR4, a few at boot
    # each character of the console is a port access, and the driver looks at the line status before
    assert count["IO_INSTRUCTION"] > 2 * len(result["console"])


def test_every_style_computes_the_same(texts):
    """The strongest oracle: guest time is retired instructions, so nothing may depend on the style."""
    first, *others = (json.loads(texts[style, "instructions"]) for style in STYLES)
    for other in others:
        for key in ("end", "instructions", "console", "report", "digest"):
            assert other[key] == first[key], f"{key} under {other['style']}"


@pytest.mark.parametrize("style", STYLES[1:])
def test_prints_the_same_whatever_time_costs(texts, style):
    """Guest time is machine cycles and differs; what the script prints does not."""
    def script(style):
        console = lines(json.loads(texts[style, "cycles"])["console"])
        return [re.sub(r"^\[ *[0-9.]+\]", "[]", line) for line in console[console.index("INIT-OK"):]]
    assert script(style) == script("native")


@pytest.mark.parametrize("style, clock", [("native", "cycles"), ("vmx+ept", "instructions")])
def test_the_same_command_twice_gives_the_same_bytes(linux, texts, style, clock):
    assert boot(linux, style, clock) == texts[style, clock]


def test_the_kernel_without_its_wrapping(linux):
    """The ELF file inside the bzImage, entered in 64-bit mode on the loader's page tables."""
    try:
        unwrapped = linux_guest.vmlinux()
    except linux_guest.Unavailable as reason:
        pytest.skip(str(reason))
    ends = set()
    for style in ("native", "vmx+ept"):
        machine = linux.load(Machine(memory=linux.memory, style=style, clock="instructions"), unwrapped)
        stop = machine.run(max_instructions=int(LIMIT))
        assert (stop.reason, stop.detail) == (StopReason.SHUTDOWN, "reset")
        assert [line for line in lines(machine.console.decode()) if line in linux.expected] == linux.expected
        ends.add((machine.instructions, machine.console, machine.digest()))
    assert len(ends) == 1


def test_trap_and_emulate_meets_a_hole(linux):
    """In ring 1 the kernel's first PUSHF behind its own tables shows the processor's IF, not its own: theory's reason, and where."""
    path = linux_guest.vmlinux()
    machine = linux.load(Machine(memory=linux.memory, style="trap+shadow", clock="instructions"), path)
    stop = machine.run(max_instructions=1_000_000)
    assert stop.reason is StopReason.HOLE and re.match(r"pushf at 0x[0-9a-f]+: 0x2\d\d on the processor, 0x\d\d? in the guest's own ring 0", stop.detail)
    address = int(stop.detail.split()[2].rstrip(":"), 16)
    with open(path, "rb") as file:                       # the kernel runs at its physical addresses here
        loads = [s for s in ELFFile(file).iter_segments("PT_LOAD") if s["p_paddr"] <= address < s["p_paddr"] + s["p_filesz"]]
        assert loads[0].data()[address - loads[0]["p_paddr"]] == 0x9C
    goes_on = linux.load(Machine(memory=linux.memory, style="trap+shadow", clock="instructions", holes="continue"), path)
    goes_on.run(max_instructions=10_000_000)
    assert goes_on.instructions > machine.instructions and goes_on.holes["popf"] and goes_on.holes["pushf"] > 1
