# SPDX-License-Identifier: GPL-2.0-or-later
"""Bochs (Debian: bochs bochsbios vgabios) as the second witness of the ROMs about modes, protection and paging.

It checks what QEMU's TCG leaves out, so it judges the ROMs whose header names it; and for the others its console has
to be QEMU's, byte for byte.  Without Bochs the tests are skipped, and say so.
"""
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from test_roms_qemu import HEADS, QEMU, build, qemu_run

BOCHS = shutil.which("bochs")
BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
BOOT = Path(__file__).with_name("roms_boot.S")
BY_BOCHS = [name for name, head in HEADS.items() if "Bochs" in head["qemu"]]
BY_BOTH = ["modes", "rings", "gates64", "v86", "usermode", "demand", "minikernel"]
DISK = 20 * 16 * 63 * 512  # bytes; cylinders, heads, sectors of the configuration below
CONFIG = """\
cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
megs: 128
romimage: file={bios}
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
boot: disk
ata0: enabled=1
ata0-master: type=disk, path={folder}/disk, mode=flat, cylinders=20, heads=16, spt=63
com1: enabled=1, mode=file, dev={folder}/com1
log: {folder}/log
panic: action=fatal
display_library: rfb, options="timeout=0"
sound: driver=dummy
speaker: enabled=0
"""


def flat_image(elf):
    """(entry, bytes from 1 MiB) of an ELF32 image, by its program headers."""
    entry, phoff = struct.unpack_from("<II", elf, 24)
    memory = bytearray()
    for i in range(struct.unpack_from("<H", elf, 44)[0]):
        kind, offset, _, where, size = struct.unpack_from("<IIIII", elf, phoff + 32 * i)
        if kind == 1:
            memory.extend(bytes(where - 0x100000 + size - len(memory)))
            memory[where - 0x100000:where - 0x100000 + size] = elf[offset:offset + size]
    return entry, bytes(memory)


def disk_write(image, folder):
    """A disk whose boot sector loads and enters the image."""
    entry, memory = flat_image(image.read_bytes())
    sectors = -(-len(memory) // 512)
    subprocess.run(["gcc", "-m32", "-c", f"-DSECTORS={sectors}", f"-DENTRY={entry}", BOOT, "-o", folder / "boot.o"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", folder / "boot.o", "-o", folder / "boot"],
                   check=True)
    (folder / "disk").write_bytes(((folder / "boot").read_bytes() + memory).ljust(DISK, b"\0"))


def bochs_run(image, folder, timeout=60):
    """The console of an image under Bochs, up to its verdict (Bochs has no debug-exit port: it is stopped then)."""
    disk_write(image, folder)
    (folder / "rc").write_text(CONFIG.format(folder=folder, bios=BIOS))
    (folder / "continue").write_text("c\n")
    console = folder / "com1"
    bochs = subprocess.Popen([BOCHS, "-q", "-f", folder / "rc", "-rc", folder / "continue"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + timeout
        while time.monotonic() < end and bochs.poll() is None:
            text = console.read_text("latin-1") if console.exists() else ""
            if text.endswith("\n") and text.split("\n")[-2].startswith(("OK", "FAIL")) and " expected" not in text.split("\n")[-2]:
                return text
            time.sleep(0.1)
    finally:
        bochs.kill()
        bochs.wait()
    return console.read_text("latin-1") if console.exists() else (folder / "log").read_text("latin-1")


@pytest.fixture
def bochs(tmp_path):
    """Runs a ROM by name; skips without Bochs."""
    if not (BOCHS and BIOS.exists()):
        pytest.skip("bochs missing: apt install bochs bochsbios vgabios")

    def run(name):
        build.build_all(tmp_path, [name])
        return bochs_run(tmp_path / f"{name}.elf", tmp_path)
    return run


@pytest.mark.parametrize("name", BY_BOCHS)
def test_rom_passes_under_its_witness(name, bochs):
    assert bochs(name).endswith("\nOK\n")


@pytest.mark.parametrize("name", BY_BOTH)
def test_both_witnesses_print_the_same(name, bochs, tmp_path):
    console = bochs(name)
    assert console.endswith("\nOK\n"), console
    if QEMU:
        assert qemu_run(tmp_path / f"{name}.elf", HEADS[name]["memory"])[1] == console
