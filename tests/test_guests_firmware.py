# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's SeaBIOS from the reset vector to its boot menu and a boot sector of ours, and from there GRUB to its prompt, at which
somebody types, and to a multiboot 2 kernel of ours, which must be told what our own loader tells it.
"""
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import boot_info
import debian
from guest_list import HOLES, grouped, pairs, stop_alike
from pyx86v import Machine, SnapshotError, StopReason
from qemu_guest import QEMU, need_qemu

# mov $msg,%si; lodsb; test %al,%al; jz; mov $0x0e,%ah; mov $7,%bx; int $0x10; jmp; mov $0,%al; mov $0xf4,%dx; out; hlt
CODE = bytes.fromhex("31c08ed8be207cac84c07409b40ebb0700cd10ebf2b000baf400eef4").ljust(32, b"\x90")
TEXT = b"BOOT-SECTOR-OK"
STEP, LIMIT = 2_000_000, 1_000_000_000          # instructions between two looks at the console, and at most
ARGS = "one two=3"

pytestmark = pytest.mark.linux


def package(name, pattern):
    try:
        return debian.find(name, pattern)
    except debian.Unavailable as reason:
        debian.skip(reason)


def seabios():
    return package("seabios:all", "usr/share/seabios/bios.bin")


@functools.cache
def folder():
    """Where the images lie until the process ends."""
    made = tempfile.TemporaryDirectory()
    folder.keep = made
    return Path(made.name)


@functools.cache
def boot_disk():
    path = folder() / "boot.raw"
    path.write_bytes((CODE + TEXT + b"\r\n\0").ljust(510, b"\0") + b"\x55\xAA" + bytes(2047 * 512))
    return str(path)


@functools.cache
def grub_cd(name, commands=None):
    """A rescue image with the modules of Debian's package; with commands, it carries them out, and has a kernel of ours."""
    tools = ("grub-mkrescue", "xorriso", "mformat")
    if not all(map(shutil.which, tools)):
        debian.skip("packages grub-common, xorriso, mtools missing")
    modules = package("grub-pc-bin:amd64", "usr/lib/grub/i386-pc/modinfo.sh").parent
    root = folder() / name
    (root / "boot" / "grub").mkdir(parents=True)
    if commands:
        boot_info.build(root)
        (root / "boot" / "grub" / "grub.cfg").write_text(commands)
    subprocess.run(["grub-mkrescue", "-d", modules, "-o", root.with_suffix(".iso"), root], check=True, capture_output=True)
    return str(root.with_suffix(".iso"))


def booted(style="native", clock="instructions", **options):
    machine = Machine(style=style, clock=clock, **options)
    machine.load(seabios())
    return machine


def screen(machine):
    """The lines of text on the VGA screen, without those that are empty."""
    return [line.rstrip() for line in machine.screen.lines if line.strip()]


def run_until(machine, seen, step=STEP):
    """Look after each `step` instructions: the guest stands at the same place each time."""
    while not seen():
        stop = machine.run(max_instructions=step)
        assert stop.reason is StopReason.LIMIT and machine.instructions < LIMIT, (stop, screen(machine))


def result(machine, instructions=LIMIT):
    """How a run ends, and what must not depend on the style."""
    stop = machine.run(max_instructions=instructions)
    return {"stop": stop, "instructions": machine.instructions, "console": machine.console, "screen": screen(machine), "digest": machine.digest()}


@functools.cache
def sector_run(style):
    """SeaBIOS by itself."""
    return result(booted(style, disks=[boot_disk()]))


@functools.cache
def menu_run(style):
    """The escape key on the keyboard, and the menu's first entry."""
    machine = booted(style, disks=[boot_disk()])
    run_until(machine, lambda: b"Press ESC for boot menu." in machine.console, 10_000)          # it waits in HLT
    machine.press_keys("esc")
    run_until(machine, lambda: "Select boot device:" in screen(machine), 10_000)
    machine.type_keys("1")
    return result(machine)


@functools.cache
def grub_run(style):
    """GRUB from a CD-ROM to its prompt."""
    machine = booted(style, cdroms=[grub_cd("rescue")])
    run_until(machine, lambda: screen(machine)[-1:] == ["grub>"])
    stop_alike(machine)
    return result(machine, 0)


@functools.cache
def kernel_run(style):
    """A multiboot 2 kernel by GRUB from a disk."""
    return result(booted(style, disks=[grub_cd("kernel", f"multiboot2 /bootinfo.elf {ARGS}\nmodule2 /first first\nboot\n")]))


RUNS = {"sector": sector_run, "menu": menu_run, "grub": grub_run, "kernel": kernel_run}


@pytest.mark.parametrize("name, style", grouped(pair for pair in pairs(RUNS) if pair[0] in ("sector", "menu")))
def test_seabios_boots_from_disk(name, style):
    made = RUNS[name](style)
    assert made["stop"][:2] == (StopReason.EXIT, 0), made
    assert made["screen"][0].startswith("SeaBIOS (version 1.16") and made["screen"][-1] == TEXT.decode()
    assert ("1. ata0-0: PYX86V DISK ATA-6 Hard-Disk (1 MiBytes)" in made["screen"]) == (name == "menu")
    assert b"Press ESC for boot menu." in made["console"] and b"Booting from Hard Disk..." in made["console"]


@pytest.mark.parametrize("name, style", grouped(pair for pair in pairs(RUNS) if pair[0] == "grub"))
def test_grub_reaches_its_prompt(name, style):
    lines = grub_run(style)["screen"]
    assert any("GNU GRUB  version 2.06" in line for line in lines) and "Minimal BASH-like line editing is supported" in " ".join(lines)


def test_typing_at_grubs_prompt():
    """Under --clock cycles: what polls gets on faster."""
    machine = booted(clock="cycles", cdroms=[grub_cd("rescue")])
    run_until(machine, lambda: screen(machine)[-1:] == ["grub>"])
    machine.type_keys("ls\n")
    run_until(machine, lambda: any(line.startswith("(cd)") for line in screen(machine)))
    assert "grub> ls" in screen(machine)


@pytest.mark.parametrize("name, style", grouped(pair for pair in pairs(RUNS) if pair[0] == "kernel"))
def test_grub_tells_a_multiboot2_kernel_what_our_loader_does(name, style):
    made, root = kernel_run(style), folder() / "kernel"
    assert made["stop"][:2] == (StopReason.EXIT, 0), made

    def facts(lines):
        return sorted(line for line in lines if line.split()[0] in ("command", "module", "symbol"))
    told = made["console"].decode().replace("\r", "").partition("multiboot2\n")[2].splitlines()
    ours = boot_info.told(root / "bootinfo.elf", "multiboot2", [f"{root}/first first"], ARGS)
    assert facts(told) == facts(ours) and len(facts(ours)) == 3, made["console"]
    (low, high), (our_low, our_high) = boot_info.usable(told), boot_info.usable(ours)
    assert low == our_low and high[0] == our_high[0] and abs(high[1] - our_high[1]) < 1 << 18, "what SeaBIOS keeps for itself"


@pytest.mark.parametrize("name, style", grouped(pair for pair in [*pairs(RUNS), *((name, style) for name in RUNS for style in HOLES)] if pair[1] != "native"))
def test_every_style_computes_the_same(name, style):
    """Trap and emulate as well: what never pages is a boot part, and that runs in ring 0 under intercepts."""
    assert RUNS[name](style) == RUNS[name]("native")


def test_the_same_text_as_qemu():
    need_qemu()
    done = subprocess.run([QEMU, "-accel", "tcg", "-m", "64M", "-bios", seabios(), "-display", "none", "-device", "isa-vga", "-vga", "none",
                           "-nic", "none", "-boot", "menu=on", "-no-reboot", "-serial", "stdio",
                           "-fw_cfg", "name=etc/sercon-port,string=\xf8\x03".encode("latin-1"), "-drive", f"file={boot_disk()},format=raw,snapshot=on",
                           "-device", "isa-debug-exit,iobase=0xf4,iosize=4"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)

    def words(data):
        return re.sub(rb"\x1b(c|\[[0-9;?]*[a-zA-Z])", b" ", data).split()
    assert done.returncode == 1 and words(done.stdout) == words(sector_run("native")["console"])


def test_the_menu_on_the_serial_line():
    machine = booted(disks=[boot_disk()])
    machine.send(b"\x1b\x1b")
    run_until(machine, lambda: b"Select boot device:" in machine.console, 10_000)
    machine.send(b"1")
    assert machine.run(max_instructions=LIMIT).reason is StopReason.EXIT and TEXT[:-1] in machine.console


def test_a_snapshot_has_the_disk_and_knows_its_image(tmp_path):
    path = tmp_path / "own.raw"
    shutil.copy(boot_disk(), path)
    machine = booted(disks=[path])
    machine.run(max_instructions=3_000_000)
    machine.save(tmp_path / "half.snap")
    assert result(machine) == result(Machine.restore(tmp_path / "half.snap"))
    with open(path, "r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    with pytest.raises(SnapshotError, match="own.raw: has changed"):
        Machine.restore(tmp_path / "half.snap")
