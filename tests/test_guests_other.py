# SPDX-License-Identifier: GPL-2.0-or-later
"""Systems that are no Linux: memtest86+ (64 and 32 bits), GNU Mach.  Each says on its own screen or console how it fares."""
import functools
import gzip
import re

import pytest

import debian
import linux_guest
from guest_list import ALL, HOLES, grouped, pairs, stop_alike
from pyx86v import Machine

MEMTEST = {"memtest64": "boot/memtest86+x64.bin", "memtest32": "boot/memtest86+ia32.bin"}
MEMTEST_MIB = 64 if ALL else 16
PAIRS = pairs(MEMTEST)
MEMTEST_ARGS = "nosmp nobench nosm nopause keyboard=legacy"
STEP, FIRST_STEP = 20_000_000, 200_000        # instructions between two looks at the screen; the first test is short
LIMIT = 3_000_000_000
MACH_INSTRUCTIONS = 1_200_000_000               # most of them wait for the clock
SCREEN, COLUMNS, ROWS = 0xB8000, 80, 25         # text mode: a character and its colours

pytestmark = pytest.mark.linux


def file_of(package, pattern):
    try:
        return debian.find(package, pattern)
    except debian.Unavailable as reason:
        debian.skip(reason)


def screen(machine):
    """The text screen's lines."""
    text = machine.read_memory(SCREEN, 2 * COLUMNS * ROWS)[::2].decode("cp437")
    return [text[at:at + COLUMNS].rstrip() for at in range(0, len(text), COLUMNS)]


@functools.cache
def memtest(name, style):
    """[(test, what the screen says of it)] up to the start of test 4, its last screen, instructions and digest."""
    machine = Machine(memory=MEMTEST_MIB << 20, style=style, clock="instructions")
    machine.load(file_of("memtest86+:amd64", MEMTEST[name]), kernel_args=MEMTEST_ARGS)
    seen = []
    while machine.instructions < LIMIT and len(seen) < 4:
        assert machine.run(max_instructions=STEP if len(seen) > 1 else FIRST_STEP).reason.name == "LIMIT"
        found = re.search(r"Test #(\d+) +\[(.+?)\]", screen(machine)[3])
        if found and (not seen or seen[-1][0] != int(found[1])):
            seen.append((int(found[1]), found[2]))
    stop_alike(machine)
    return seen, screen(machine), machine.instructions, machine.digest()


@pytest.mark.parametrize("name, style", grouped(PAIRS))
def test_memtest_finds_nothing_in_its_first_four_tests(name, style):
    seen, lines, _, _ = memtest(name, style)
    assert [number for number, _ in seen] == [0, 2, 3, 4], lines     # test 1 is off unless its menu turns it on
    assert [text.partition(",")[0] for _, text in seen[:3]] == ["Address test"] * 2 + ["Moving inversions"]
    assert "Memtest86+ v6.10" in lines[0] and lines[5].split()[2] == f"{MEMTEST_MIB}MB"
    assert re.search(r"Pass:  0 +Errors: 0$", lines[8]), lines


@pytest.mark.parametrize("name, style", grouped(pair for pair in PAIRS if pair[1] != "native"))
def test_memtest_is_the_same_under_every_style(name, style):
    assert memtest(name, style) == memtest(name, "native")


def mach_kernel():
    packed = file_of("gnumach-image-1.8-486:i386", "boot/gnumach-*.gz")
    kernel = linux_guest.CACHE / packed.stem
    if not kernel.exists():
        linux_guest.save(kernel, gzip.decompress(packed.read_bytes()))          # as GRUB does it
    return kernel


@functools.cache
def mach(style):
    machine = Machine(memory=64 << 20, style=style, clock="instructions")
    machine.load(mach_kernel(), kernel_args="console=com0")
    machine.run(max_instructions=MACH_INSTRUCTIONS)
    stop_alike(machine)
    return machine.console.decode("latin-1"), machine.instructions, machine.digest()


@pytest.mark.parametrize("name, style", grouped(pairs(["gnumach"])))
def test_gnu_mach_sets_its_memory_up_and_looks_for_devices(name, style):
    """A multiboot kernel in 32 bits.  Without the Hurd's servers as modules it has no root."""
    console, _, _ = made = mach(style)
    assert console.startswith("GNU Mach 1.8+git20221224-486")
    assert "biosmem: 000000000000100000:000000000004000000, available" in console
    assert re.search(r"vm_page: DMA: pages: 4080 \(15M\)", console) and re.search(r"vm_page: DIRECTMAP: pages: 12288 \(48M\)", console)
    assert "pci" in console.partition("DIRECTMAP: min")[2], console
    assert made == mach("native")


@pytest.mark.parametrize("style", HOLES)
def test_trap_and_emulate_ends_mach_at_a_hole(style):
    """MOV from CS shows ring 1."""
    machine = Machine(memory=64 << 20, style=style, clock="instructions")
    machine.load(mach_kernel(), kernel_args="console=com0")
    stop = machine.run(max_instructions=MACH_INSTRUCTIONS)
    assert stop.reason.name == "HOLE" and re.match(r"mov_from_segment at 0xc1[0-9a-f]{6}: 0x11 on the processor, 0x10 in the guest's own", stop.detail), stop


@pytest.mark.parametrize("style", HOLES)
def test_trap_and_emulate_suffices_for_memtest(style):
    """It runs in ring 0 all the time and asks nothing that does not trap."""
    ends = set()
    for each in ("native", style):
        machine = Machine(memory=16 << 20, style=each, clock="instructions")
        machine.load(file_of("memtest86+:amd64", MEMTEST["memtest64"]), kernel_args=MEMTEST_ARGS)
        machine.run(max_instructions=100_000_000)
        ends.add((machine.instructions, machine.digest()))
        assert not machine.holes
    assert len(ends) == 1 and machine.exits
