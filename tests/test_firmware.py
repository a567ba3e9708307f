# SPDX-License-Identifier: GPL-2.0-or-later
"""SeaBIOS from disk and CD-ROM: its screen and boot menu, a boot sector of ours, GRUB's prompt, the same text as under QEMU."""
import os
import re
import shutil
import struct
import subprocess

import pytest
from guest_list import EQUAL
from qemu_guest import QEMU, need_qemu

from pyx86v import Machine, SnapshotError, StopReason
from pyx86v.boot import BootError, acpi, acpi_loader
from pyx86v.disks import DiskError, kind_of, plug

SEABIOS = "/usr/share/seabios/bios.bin"
needs_seabios = pytest.mark.skipif(not os.path.exists(SEABIOS) and not os.environ.get("CI"), reason="package seabios missing")
# mov $msg,%si; lodsb; test %al,%al; jz; mov $0x0e,%ah; mov $7,%bx; int $0x10; jmp; mov $0,%al; mov $0xf4,%dx; out; hlt
CODE = bytes.fromhex("31c08ed8be207cac84c07409b40ebb0700cd10ebf2b000baf400eef4").ljust(32, b"\x90")
TEXT = b"BOOT-SECTOR-OK"


@pytest.fixture(scope="module")
def boot_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "boot.raw"
    path.write_bytes((CODE + TEXT + b"\r\n\0").ljust(510, b"\0") + b"\x55\xAA" + bytes(2047 * 512))
    return str(path)


@pytest.fixture(scope="module")
def grub_cd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grub")
    tools = ("grub-mkrescue", "xorriso", "mformat")
    if not all(map(shutil.which, tools)) or not os.path.isdir("/usr/lib/grub/i386-pc"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("packages grub-common, grub-pc-bin, xorriso, mtools missing")
    (folder / "root").mkdir()
    subprocess.run(["grub-mkrescue", "-o", folder / "grub.iso", folder / "root"], check=True, capture_output=True)
    return str(folder / "grub.iso")


def screen(m):
    """The lines of text on the VGA screen, without those that are empty."""
    text = m.read_memory(0xB8000, 4000)[::2].decode("latin-1")
    return [line.rstrip() for line in re.findall(".{80}", text) if line.strip()]


def booted(**arguments):
    m = Machine(**arguments)
    m.load()
    return m


@needs_seabios
def test_seabios_starts_a_boot_sector_equally_under_every_style(boot_disk):
    seen = {}
    for style in ("native", *EQUAL):
        m = booted(style=style, clock="instructions", disks=[boot_disk])
        assert m.run(max_instructions=40_000_000).reason is StopReason.EXIT
        seen[style] = m.instructions, m.console, m.digest()
        lines = screen(m)
        assert lines[0].startswith("SeaBIOS (version") and "Press ESC for boot menu." in lines and lines[-1] == TEXT.decode()
        assert b"Booting from Hard Disk..." in m.console
    assert len(set(seen.values())) == 1, seen


@needs_seabios
def test_boot_menu_by_the_escape_key(boot_disk):
    m = booted(disks=[boot_disk], cdroms=[])
    m.send(b"\x1b\x1b")
    m.run(max_cycles=20_000_000_000)
    assert b"Select boot device:" in m.console and b"PYX86V DISK ATA-6 Hard-Disk (1 MiBytes)" in m.console
    m.send(b"1")
    assert m.run(max_cycles=20_000_000_000).reason is StopReason.EXIT and TEXT[:-1] in m.console


@needs_seabios
@pytest.mark.parametrize("how, style", [("cdroms", "native"), ("disks", "vmx+ept")])
def test_grub_reaches_its_prompt(grub_cd, how, style):
    m = booted(**{how: [grub_cd]}, style=style)
    for _ in range(200):
        assert m.run(max_cycles=100_000_000).reason is StopReason.LIMIT
        if b"grub> " in m.console:
            break
    assert any("GNU GRUB  version" in line for line in screen(m)) and screen(m)[-1] == "grub>"


@needs_seabios
def test_the_same_text_as_qemu(boot_disk):
    need_qemu()
    done = subprocess.run([QEMU, "-accel", "tcg", "-m", "64M", "-bios", SEABIOS, "-display", "none", "-device", "isa-vga",
                           "-vga", "none", "-nic", "none", "-boot", "menu=on", "-no-reboot", "-serial", "stdio", "-fw_cfg", "name=etc/sercon-port,string=\xf8\x03".encode("latin-1"),
                           "-drive", f"file={boot_disk},format=raw,snapshot=on", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    m = booted(disks=[boot_disk])
    m.run(max_cycles=20_000_000_000)

    def words(data):
        return re.sub(rb"\x1b(c|\[[0-9;?]*[a-zA-Z])", b" ", data).split()
    assert done.returncode == 1 and words(done.stdout) == words(m.console)


@needs_seabios
def test_a_snapshot_has_the_disk_and_knows_its_image(boot_disk, tmp_path):
    path = tmp_path / "own.raw"
    shutil.copy(boot_disk, path)
    m = booted(disks=[path], clock="instructions")
    m.run(max_instructions=10_000_000)
    m.save(tmp_path / "half.snap")
    ends = []
    for each in (m, Machine.restore(tmp_path / "half.snap")):
        assert each.run().reason is StopReason.EXIT
        ends.append((each.instructions, each.console, each.digest()))
    assert ends[0] == ends[1]
    with open(path, "r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    with pytest.raises(SnapshotError, match="own.raw: has changed"):
        Machine.restore(tmp_path / "half.snap")


def test_loader_script_rebuilds_the_tables():
    """An interpreter of the script, written from QEMU's description, gives the tables that direct boots get."""
    (where, rsdp), *tables = acpi.tables()
    base, files = tables[0][0], {name: bytearray(data) for name, data in acpi_loader.files().items()}
    at = {acpi_loader.TABLES: base, acpi_loader.RSDP: where}
    script = bytes(files[acpi_loader.LOADER])
    for i in range(0, len(script), 128):
        (command,), (one, two) = struct.unpack_from("<I", script, i), struct.unpack_from("56s56s", script, i + 4)
        one = one.rstrip(b"\0").decode()
        if command == 2:
            offset, size = struct.unpack_from("<IB", script, i + 116)
            value = int.from_bytes(files[one][offset:offset + size], "little") + at[two.rstrip(b"\0").decode()]
            files[one][offset:offset + size] = value.to_bytes(size, "little")
        elif command == 3:
            offset, start, length = struct.unpack_from("<III", script, i + 60)
            files[one][offset] = -sum(files[one][start:start + length]) & 255
    assert bytes(files[acpi_loader.RSDP]) == rsdp
    for gpa, data in tables:
        assert bytes(files[acpi_loader.TABLES][gpa - base:gpa - base + len(data)]) == data


@pytest.mark.parametrize("make, expected", [
    (lambda path: None, "No such file"), (lambda path: path.mkdir(), "not a regular file"), (lambda path: path.touch(), "is empty"),
    (lambda path: path.write_bytes(bytes(700)), "700 bytes, expected whole sectors of 512 bytes")])
def test_what_cannot_be_a_disk_is_one_line(tmp_path, make, expected):
    path = tmp_path / "bad.raw"
    make(path)
    with pytest.raises(DiskError, match=expected) as caught:
        Machine(disks=[path])
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_places_and_kinds(tmp_path):
    for name, size in (("a", 512), ("b", 512), ("c", 2048)):
        (tmp_path / name).write_bytes(bytes(size))
    images = plug([tmp_path / "a", tmp_path / "b"], [tmp_path / "c"])
    assert [(image.place, image.cdrom, image.size) for image in images] == [(0, False, 512), (1, False, 512), (2, True, 2048)]
    with pytest.raises(DiskError, match="at most 4"):
        plug([tmp_path / "a"] * 5, [])
    assert kind_of(tmp_path / "a") is None


def test_without_firmware_the_package_is_named(monkeypatch, tmp_path):
    from pyx86v.boot import firmware
    monkeypatch.setattr(firmware, "SEABIOS", str(tmp_path / "bios.bin"))
    with pytest.raises(BootError, match="apt-get install seabios"):
        firmware.find()
