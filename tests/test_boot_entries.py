# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels with several entries, started by each: a small kernel that prints what it was told, and Debian's.

The small one, started by its PVH note under QEMU, is told the same.
"""
import hashlib
import re
import struct
import subprocess

import pytest

import debian
import images
import linux_guest
from boot_info import MEMORY, build, told, usable
from pyx86v import Machine, boot
from qemu_guest import QEMU, need_qemu

MIB = 1 << 20
ARGS = "one two=3"
OTHER = b"another text\n"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bootinfo"))


@pytest.mark.parametrize("style", ["native", "vmx+ept", "svm+shadow", "trap+shadow"])
def test_multiboot2_information(kernel, style):
    first, second = kernel.parent / "first", kernel.parent / "second"
    lines = told(kernel, "multiboot2", [first, f"{second} with words"], ARGS, style)
    assert lines[0] == "multiboot2" and lines[-1] == "end"
    assert [line for line in lines if line.split()[0] in ("command", "module", "symbol")] == [
        f"command line {ARGS}", "symbol kernel_main", "module first module words first", "module 2 words with words"]
    assert f"memory {639:010x} {(MEMORY - MIB) // 1024:010x}" in lines
    low, high = usable(lines)
    assert low == (0, 0x9FC00) and high[0] == MIB and MEMORY - MIB <= high[1] <= MEMORY


def test_pvh_start_info_is_what_qemu_gives(kernel):
    need_qemu()
    first = kernel.parent / "first"
    done = subprocess.run([QEMU, "-accel", "tcg", "-m", "64", "-kernel", kernel, "-initrd", first, "-append", ARGS, "-display", "none",
                           "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    qemu, ours = done.stdout.splitlines(), told(kernel, "pvh", [first], ARGS)
    assert [line for line in ours if not line.startswith("area")] == [line for line in qemu if not line.startswith("area")]
    assert ours[0] == "pvh"
    (low, high), (qemu_low, qemu_high) = usable(ours), usable(qemu)
    assert low == qemu_low and high[0] == qemu_high[0]
    assert abs(high[1] - qemu_high[1]) <= MIB, "what firmware keeps for itself at the end of memory"


def test_pvh_takes_several_modules(kernel):
    lines = told(kernel, "pvh", [kernel.parent / "second", f"{kernel.parent / 'first'} word"])
    assert [line for line in lines if line.startswith("module")] == ["module 2 words ", "module first module words word"]


@pytest.mark.parametrize("entry, has", [("multiboot", "multiboot2, pvh"), ("64", "multiboot2, pvh")])
def test_an_entry_that_the_kernel_lacks(kernel, entry, has):
    with pytest.raises(boot.BootError, match=f"a kernel without the needed entry {entry}, expected one of its own: {has}"):
        boot.load(kernel, MEMORY, entry=entry)


def test_an_entry_that_there_is_not(kernel):
    with pytest.raises(boot.BootError, match="entry: 'uefi', expected one of auto, "):
        boot.load(kernel, MEMORY, entry="uefi")


def test_bzimage_offers_its_64_bit_entry_only_when_it_says_so(tmp_path):
    for xloadflags, expected in ((0, ["32", "16"]), (1, ["32", "64", "16"])):
        image = bytearray(images.bzimage())
        image[0x236] = xloadflags
        assert list(boot.offers("k", bytes(image))) == expected
    (tmp_path / "k").write_bytes(image)
    loaded = boot.load(tmp_path / "k", MEMORY, entry="64")
    assert (loaded.kind, loaded.entry["mode"], loaded.entry["rip"]) == ("bzimage64", "long64", MIB + 0x200)


@pytest.mark.linux
@pytest.mark.parametrize("unwrapped, entry, style", [(False, "16", "vmx+shadow"), (False, "64", "vmx+ept"), (True, "pvh", "svm+npt")])
def test_linux_by_its_other_entries(linux, tmp_path, unwrapped, entry, style):
    """Two RAM disks, of which the second replaces the first's text; by the 16-bit entry the kernel asks the firmware what there is."""
    extra = tmp_path / "extra.cpio"
    extra.write_bytes(linux_guest.entry(1, "text", linux_guest.FILE, OTHER) + linux_guest.entry(0, "TRAILER!!!", 0))
    try:
        kernel = linux_guest.vmlinux() if unwrapped else linux.kernel
    except debian.Unavailable as reason:
        pytest.skip(str(reason))
    machine = Machine(memory=linux.memory, style=style)
    machine.load(str(kernel), initrd=[str(linux.initrd), str(extra)], kernel_args=linux.args, entry=entry)
    stop = machine.run(max_instructions=4_000_000_000)
    lines = machine.console.decode().replace("\r", "").split("\n")
    assert (stop.reason.value, stop.detail) == ("shutdown", "reset"), lines[-20:]
    assert "INIT-OK" in lines and f"text {hashlib.sha256(OTHER).hexdigest()}  -" in lines
    found = [tuple(int(part, 16) for part in re.search("mem 0x(.*)-0x(.*)]", line).groups()) for line in lines
             if "BIOS-e820" in line and "usable" in line]
    assert found[0] == (0, 0x9FBFF) and found[1][0] == MIB and linux.memory - MIB <= found[1][1] < linux.memory
    if entry == "16":
        screen = machine.read_memory(0xB8000, 4000)[::2].decode("cp437")
        assert screen.startswith("Probing EDD (edd=off to disable)... ok")


def test_real_mode_code_gets_what_the_protocol_says(tmp_path):
    image = bytearray(images.bzimage(setup_sects=3))
    (tmp_path / "k").write_bytes(image)
    (tmp_path / "i").write_bytes(b"ramdisk")
    loaded = boot.load(tmp_path / "k", MEMORY, "quiet", tmp_path / "i", entry="16")
    ram, cpu = images.memory(loaded, MEMORY), loaded.entry
    assert (loaded.kind, cpu["mode"], cpu["cr0"] & 1) == ("bzimage16", "real", 0)
    code, stack = cpu["gpr"]["rax"], cpu["gpr"]["rdx"]
    base = (stack >> 16) << 4
    assert code >> 16 == (stack >> 16) + 0x20 and code & 0xFFFF == 0, "20h paragraphs behind the boot sector"
    assert base + 0x10000 <= 0x9A000 and ram[base:base + 0x1F1] == image[:0x1F1] and ram[base + 0x240:base + 0x800] == image[0x240:0x800]
    word = lambda at, form: struct.unpack_from("<" + form, ram, base + at)[0]
    assert word(0x210, "B") == 0xFF and word(0x211, "B") & 0x80, "an unknown loader that offers a heap"
    assert 0x800 <= word(0x224, "H") + 0x200 <= stack & 0xFFFF
    assert ram[word(0x228, "I"):][:6] == b"quiet\0" and not base <= word(0x228, "I") < base + (stack & 0xFFFF)
    assert ram[word(0x218, "I"):][:word(0x21C, "I")] == b"ramdisk"
