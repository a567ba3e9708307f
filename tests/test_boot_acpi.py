# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI and MP tables, found and read as an operating system does, from the memory of a machine.

Sources: ACPI specification 6.4 chapter 5; Intel MultiProcessor Specification 1.4 chapter 4.  iasl (Debian: acpica-tools) is the
second reader; a Linux that boots with them is the third (test_guests_default.py).
"""
import shutil
import struct
import subprocess

import pytest

import images
from pyx86v import Machine

AREA = 0xE0000


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    """Memory from E0000h to 1 MiB of a machine with a multiboot guest."""
    path = tmp_path_factory.mktemp("acpi") / "kernel.elf"
    path.write_bytes(images.multiboot_elf())
    machine = Machine(memory=4 << 20)
    machine.load(str(path))
    return machine.read_memory(AREA, 0x20000)


def table_at(area, gpa):
    """A table whose sum is 0."""
    at = gpa - AREA
    length = struct.unpack_from("<I", area, at + 4)[0]
    data = area[at:at + length]
    assert sum(data) & 255 == 0, data[:4]
    return data


@pytest.fixture(scope="module")
def tables(area):
    """{signature: bytes} of everything that the root pointer leads to (5.2.5.1: on a 16-byte boundary, its sums 0)."""
    at, = [at for at in range(0, len(area), 16) if area[at:at + 8] == b"RSD PTR "]
    root = area[at:at + 36]
    assert sum(root[:20]) & 255 == 0 and sum(root) & 255 == 0 and root[15] == 2
    rsdt, xsdt = table_at(area, struct.unpack_from("<I", root, 16)[0]), table_at(area, struct.unpack_from("<Q", root, 24)[0])
    listed = [pointer for pointer, in struct.iter_unpack("<I", rsdt[36:])]
    assert listed == [pointer for pointer, in struct.iter_unpack("<Q", xsdt[36:])]
    found = {data[:4]: data for data in (rsdt, xsdt, *[table_at(area, pointer) for pointer in listed])}
    facs, dsdt = struct.unpack_from("<II", found[b"FACP"], 36)
    assert struct.unpack_from("<QQ", found[b"FACP"], 132) == (facs, dsdt) and facs % 64 == 0
    found[b"DSDT"], found[b"FACS"] = table_at(area, dsdt), area[facs - AREA:facs - AREA + 64]
    return found


def test_the_tables_that_a_pc_has(tables):
    assert set(tables) == {b"RSDT", b"XSDT", b"FACP", b"DSDT", b"FACS", b"APIC"}
    assert tables[b"FACS"][:8] == b"FACS" + struct.pack("<I", 64)


def test_fixed_hardware_is_where_the_table_says(tables):
    """What the FADT (5.2.9) names answers: SCI_EN is set, the timer counts, the reset register resets."""
    fadt = tables[b"FACP"]
    event, control, timer = (struct.unpack_from("<I", fadt, at)[0] for at in (56, 64, 76))
    assert (len(fadt), fadt[88], fadt[89], fadt[91]) == (244, 4, 2, 4)
    assert [struct.unpack_from("<BBBBQ", fadt, at)[::4] for at in (148, 172, 208)] == [(1, event), (1, control), (1, timer)]
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags >> 8 & 1 and flags >> 10 & 1, "32-bit timer, reset register"
    assert (struct.unpack_from("<I", fadt, 48)[0], struct.unpack_from("<H", fadt, 46)[0]) == (0, 9), "no SMI command, SCI"
    from pyx86v.devices.testing import PlatformBench
    b = PlatformBench(cycles_per_second=3579545 * 2)
    assert b.read(control, 2) & 1 == 1 and b.read(event, 2) == 0
    b.run_to(20)
    assert b.read(timer, 4) == 10
    space, width, _, _, port = struct.unpack_from("<BBBBQ", fadt, 116)
    assert (space, width) == (1, 8)
    b.outb(port, fadt[128])
    assert b.stop == (2, 0)


def test_sleep_type_of_power_off(tables):
    """\\_S5 is a package whose first integer the fixed hardware understands."""
    aml = tables[b"DSDT"][36:]
    at = aml.index(b"\x08_S5_\x12")
    assert aml[at + 7] == 4 and aml[at + 8] == 0x0A
    from pyx86v.devices.testing import PlatformBench
    b = PlatformBench()
    b.write(struct.unpack_from("<I", tables[b"FACP"], 64)[0], 2, aml[at + 9] << 10 | 1 << 13)
    assert b.stop == (3, 0)


def test_interrupt_controllers(tables):
    madt = tables[b"APIC"]
    address, flags = struct.unpack_from("<II", madt, 36)
    assert (address, flags) == (0xFEE00000, 1)
    at, found = 44, []
    while at < len(madt):
        kind, size = madt[at], madt[at + 1]
        found.append((kind, madt[at + 2:at + size]))
        at += size
    assert at == len(madt)
    assert [kind for kind, _ in found] == [0, 1, 2, 2, 4]
    assert struct.unpack("<BBI", found[0][1]) == (0, 0, 1)
    assert struct.unpack("<BBII", found[1][1]) == (1, 0, 0xFEC00000, 0)
    assert [struct.unpack("<BBIH", data) for kind, data in found if kind == 2] == [(0, 0, 2, 0), (0, 9, 9, 0xD)]


def test_mp_table(area):
    """Floating pointer (4.1), header (4.2), entries in the order of their types (4.3)."""
    at, = [at for at in range(0x10000, len(area), 16) if area[at:at + 4] == b"_MP_"]
    pointer = area[at:at + 16]
    address, length, revision = struct.unpack_from("<IBB", pointer, 4)
    assert sum(pointer) & 255 == 0 and (length, revision, pointer[11], pointer[12]) == (1, 4, 0, 0)
    start = address - AREA
    size, revision = struct.unpack_from("<HB", area, start + 4)
    table = area[start:start + size]
    assert table[:4] == b"PCMP" and revision == 4 and sum(table) & 255 == 0
    count, local = struct.unpack_from("<HI", table, 34)
    assert local == 0xFEE00000
    at, kinds, inputs = 44, [], {}
    for _ in range(count):
        kinds.append(table[at])
        if table[at] == 3:
            inputs[table[at + 5]] = table[at + 7]
        at += 20 if table[at] == 0 else 8
    assert at == len(table) and kinds == sorted(kinds) and set(kinds) == {0, 1, 2, 3, 4}
    assert inputs == {irq: irq or 2 for irq in range(16) if irq != 2}


def test_firmware_writes_its_own(tmp_path):
    path = tmp_path / "firmware.bin"
    path.write_bytes(bytes(0xFFF0) + b"\xf4" * 16)
    machine = Machine(memory=4 << 20)
    machine.load(str(path))
    assert machine.read_memory(AREA, 0x10000) == bytes(0x10000)


def test_iasl_reads_them_without_a_word(tables, tmp_path):
    iasl = shutil.which("iasl")
    if not iasl:
        pytest.skip("iasl missing: apt install acpica-tools")
    for signature, data in tables.items():
        path = tmp_path / f"{signature.decode()}.dat"
        path.write_bytes(data)
        done = subprocess.run([iasl, "-d", path], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "rror" not in said and "arning" not in said, said
    assert "EisaId (\"PNP0501\")" in (tmp_path / "DSDT.dsl").read_text()
