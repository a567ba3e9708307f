# SPDX-License-Identifier: GPL-2.0-or-later
"""The MP configuration table, for systems that know no ACPI: one processor, the ISA bus, one I/O APIC, its inputs.

Source: Intel MultiProcessor Specification 1.4, chapter 4.  Virtual-wire mode: there is no IMCR.
"""
import struct

from pyx86v.boot.acpi import IOAPIC, IOAPIC_ID, LAPIC, LEVEL_HIGH, SCI, checksum

AT = 0xF0000                    # the floating pointer, with the table behind it
ENABLED, BOOTSTRAP = 1, 2
INT, NMI, EXTINT = 0, 1, 3      # interrupt types
ALL = 0xFF
ISA = 0                         # the bus's number
LAPIC_VERSION, IOAPIC_VERSION = 0x14, 0x11


def entries():
    """The base table's entries (4.3)."""
    yield struct.pack("<BBBBII8x", 0, 0, LAPIC_VERSION, ENABLED | BOOTSTRAP, 0x600, 0x201)      # signature and features: family 6, FPU and APIC
    yield struct.pack("<BB6s", 1, ISA, b"ISA   ")
    yield struct.pack("<BBBBI", 2, IOAPIC_ID, IOAPIC_VERSION, ENABLED, IOAPIC)
    for irq in range(16):
        if irq != 2:            # the slave's, which is no input; the timer's comes there
            yield struct.pack("<BBHBBBB", 3, INT, LEVEL_HIGH if irq == SCI else 0, ISA, irq, IOAPIC_ID, irq or 2)
    yield struct.pack("<BBHBBBB", 4, EXTINT, 0, ISA, 0, ALL, 0)
    yield struct.pack("<BBHBBBB", 4, NMI, 0, ISA, 0, ALL, 1)


def tables():
    """[(guest-physical address, bytes)]: floating pointer (4.1) and configuration table (4.2)."""
    parts = list(entries())
    body = b"".join(parts)
    table = bytearray(struct.pack("<4sHBB8s12sIHHIHBx", b"PCMP", 44 + len(body), 4, 0, b"PYX86V  ", b"PC          ", 0, 0, len(parts),
                                  LAPIC, 0, 0) + body)
    table[7] = checksum(table)
    pointer = bytearray(struct.pack("<4sIBBBBBBBB", b"_MP_", AT + 16, 1, 4, 0, 0, 0, 0, 0, 0))
    pointer[10] = checksum(pointer)
    return [(AT, bytes(pointer)), (AT + 16, bytes(table))]
