# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI tables for firmware that places them itself: files of fw_cfg and the script of what to do with them.

Source: QEMU docs/specs/fw_cfg and hw/acpi/bios-linker-loader.c.  The script allocates two files, adds the address of one to
pointers in the other, which hold offsets until then, and then makes the checksums right.
"""
import struct

from pyx86v.boot import acpi

TABLES, RSDP, LOADER = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"
ENTRY_BYTES, NAME_BYTES = 128, 56
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
HIGH, FSEG = 1, 2               # zones: anywhere below 4 GiB, or where a BIOS's tables are looked for
HEADER_BYTES, CHECKSUM_AT = 36, 9
FADT_POINTERS = ((36, 4), (40, 4), (132, 8), (140, 8))          # FACS and DSDT, each twice


def entry(command, *files, rest):
    names = b"".join(name.encode("ascii").ljust(NAME_BYTES, b"\0") for name in files)
    return (struct.pack("<I", command) + names + rest).ljust(ENTRY_BYTES, b"\0")


def pointers(data):
    """[(offset, bytes)] of the addresses that a table holds."""
    if data[:4] == b"FACP":
        return FADT_POINTERS
    size = {b"RSDT": 4, b"XSDT": 8}.get(data[:4])
    return [(at, size) for at in range(HEADER_BYTES, len(data), size)] if size else []


def relocated(at, data, places, base):
    """The bytes with offsets from `base` where addresses were, and a checksum of zero."""
    data = bytearray(data)
    for place, size in places:
        value = int.from_bytes(data[place:place + size], "little") - base
        data[place:place + size] = value.to_bytes(size, "little")
    for place in at:
        data[place] = 0
    return bytes(data)


def files():
    """{name: bytes} for fw_cfg."""
    (_, rsdp), *tables = acpi.tables()
    base = tables[0][0]
    blob = bytearray(tables[-1][0] - base + len(tables[-1][1]))
    script = [entry(ALLOCATE, TABLES, rest=struct.pack("<IB", 64, HIGH)), entry(ALLOCATE, RSDP, rest=struct.pack("<IB", 16, FSEG))]
    sums = []
    for gpa, data in tables:
        at, places = gpa - base, pointers(data)
        blob[at:at + len(data)] = relocated([CHECKSUM_AT] if places else [], data, places, base)
        script += [entry(ADD_POINTER, TABLES, TABLES, rest=struct.pack("<IB", at + place, size)) for place, size in places]
        if places:
            sums.append(entry(ADD_CHECKSUM, TABLES, rest=struct.pack("<III", at + CHECKSUM_AT, at, len(data))))
    rsdp_places = ((16, 4), (24, 8))
    rsdp = relocated([8, 32], rsdp, rsdp_places, base)
    script += [entry(ADD_POINTER, RSDP, TABLES, rest=struct.pack("<IB", place, size)) for place, size in rsdp_places]
    sums += [entry(ADD_CHECKSUM, RSDP, rest=struct.pack("<III", place, 0, size)) for place, size in ((8, 20), (32, 36))]
    return {TABLES: bytes(blob), RSDP: rsdp, LOADER: b"".join(script + sums)}
