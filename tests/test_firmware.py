# SPDX-License-Identifier: GPL-2.0-or-later
"""What firmware is told, the images that can be disks, and what is said when one is not there (test_guests_firmware.py runs SeaBIOS)."""
import struct

import pytest

from pyx86v import Machine, SnapshotError, StopReason
from pyx86v.boot import BootError, acpi, acpi_loader
from pyx86v.disks import DiskError, kind_of, plug


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
