# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables, pages and code where a guest has no memory: the same under every style and in both engines.

What they find there follows from the manual, all ones being what a bus without a device gives, and the guests check it
themselves (tests/guests/holes).
"""
import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import walker
from mmu_help import FETCH, MODES, context_of
from pyx86v import Machine
from pyx86v.mmu.testing import MmuBench
from rom_runs import SAME, build_guests
from test_mmu_nested import identity
from test_mmu_walk import RAM, WARM, random_case, random_gva

FINAL = 0x100                    # exit qualification: the page itself (SDM 3C table 27-7)
GUESTS = Path(__file__).parent / "guests"
WAYS = list(itertools.product(("native", "vmx+ept", "vmx+shadow", "svm+npt", "svm+shadow"), ("inline", "portable")))
DEATHS = {1: "an IDT in a hole", 2: "CR3 in a hole, 32-bit paging", 3: "CR3 in a hole, long mode"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The guests of this file by name."""
    found = build_guests(tmp_path_factory.mktemp("holes"), {"holes": []})
    folder = tmp_path_factory.mktemp("firmware")
    for command in (["gcc", "-m32", "-c", GUESTS / "holes_firmware.S", "-o", "f.o"],
                    ["ld", "-m", "elf_i386", "-Ttext", "0", "-e", "start", "--oformat", "binary", "f.o", "-o", "firmware.bin"]):
        subprocess.run(command, cwd=folder, check=True)
    found["firmware"] = folder / "firmware.bin"
    return found


def run(image, style, engine, kernel_args="", **options):
    machine = Machine(memory=64 << 20, style=style, engine=engine, clock="instructions", **options)
    machine.load(image, kernel_args=kernel_args)
    stop = machine.run(max_instructions=5_000_000)
    return {"end": (stop.reason.value, stop.status), "instructions": machine.instructions, "console": machine.console,
            "report": list(machine.report), "digest": machine.digest(), "units": machine.units, "ledger": machine.ledger_units,
            "tlb": dict(machine.tlb), "walks": dict(machine.walks), "exits": {k: v["count"] for k, v in machine.exits.items()}}


def run_all_ways(image, **options):
    """The run under every style and engine, equal where it has to be; natively."""
    runs = {way: run(image, *way, **options) for way in WAYS}
    native = runs["native", "inline"]
    for (style, engine), result in runs.items():
        for key in SAME:
            assert result[key] == native[key], (style, engine, key)
        assert result == runs[style, "inline"], f"{style}: the engines differ"
        assert sum(result["ledger"].values()) == result["units"]
    return native, runs["vmx+ept", "inline"]


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["skylake", "p4-672", "zen"])
def test_everything_reads_as_all_ones(images, profile):
    """Tagged and untagged TLBs, EPT with accessed and dirty flags and without."""
    native, nested = run_all_ways(images["holes"], profile=profile)
    assert native["end"] == ("exit", 0) and native["console"].endswith(b"64-bit\nOK\n"), native["console"].decode()
    assert nested["exits"]["EPT_VIOLATION"] > 10_000, "each access to a page in a hole exits"


@pytest.mark.slow
@pytest.mark.parametrize("number", DEATHS, ids=DEATHS.values())
def test_tables_that_nobody_survives(images, number):
    native, nested = run_all_ways(images["holes"], kernel_args=str(number))
    assert native["end"] == ("shutdown", 0)
    assert nested["exits"]["EPT_VIOLATION"] and nested["exits"]["TRIPLE_FAULT"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["skylake", "nehalem", "zen"])
def test_tables_in_firmware(images, profile):
    native, nested = run_all_ways(images["firmware"], profile=profile)
    assert native["end"] == ("exit", 0)
    start, total = 0x80000011, sum(range(1, 41))         # CR0 is what %eax held when the sums began
    assert native["report"] == [start + total, 500, 0x83, 0xffc00083, start + 2 * total, 1000, 0x83, 0xffe00083]
    assert nested["exits"]["EPT_VIOLATION"] > 80, "each walk through them exits"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(sorted(MODES)), flags=st.booleans())
def test_the_monitors_walk_is_that_of_a_machine_without_one(seed, mode, flags):
    """Random tables, many of them outside memory, under an EPT: what the processor cannot do the monitor finishes, and the
    outcome, the accessed and the dirty flags are those of the walker that knows no EPT."""
    memory, fields, rng = random_case(seed, mode)
    bench = MmuBench(2 * RAM, WARM)
    bench.write(0, bytes(memory))
    bench.set(eptp=identity(bench, RAM, RAM >> 12) & ~0x40 | flags << 6, window_size=RAM, **fields)
    walk = walker.Walker(memory, context_of(fields, size=RAM))
    for _ in range(30):
        gva, access, who = random_gva(rng, mode), rng.randrange(3), rng.randrange(3)
        want = walk.translate(gva, access, who)
        for _ in range(2):                               # the second time from the TLB, if it was kept
            got = bench.translate(gva, access, who)
            if got["status"] == "ept-violation" and (access == FETCH or not got["qualification"] & FINAL):
                got = bench.translate_absent(gva, access, who)
            status = "no-ram" if got["status"] == "ept-violation" else got["status"]
            assert (status, got["pfec"]) == (want.kind, want.pfec)
            assert want.kind != "ok" or got["hpa"] == want.hpa & ~0xfff
            assert want.kind != "no-ram" or got["gpa"] == want.gpa
        held = bench.lookup(gva, access, who) is not None
        assert held == (want.kind == "ok" or want.kind == "no-ram" and access == FETCH)
        bench.check()
    assert bench.read(0, RAM) == memory
