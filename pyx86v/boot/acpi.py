# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT and a DSDT, as a PC's firmware leaves them below 1 MiB.

Source: ACPI specification 6.4, chapters 5 (tables), 6 (resources) and 20 (AML).  Addresses and numbers are those of
devices/acpi_pm.pxd, lapic.pxd and ioapic.pxd.
"""
import struct

AT = 0xE0000                    # the RSDP, with the tables behind it, in memory that the e820 map reserves
LAPIC, IOAPIC, IOAPIC_ID = 0xFEE00000, 0xFEC00000, 1
SCI, PM1_EVENT, PM1_CONTROL, PM_TIMER = 9, 0x600, 0x604, 0x608
SLEEP_OFF = 5                   # SLP_TYP of \\_S5
RESET_PORT, RESET_VALUE = 0xCF9, 6
LEVEL_HIGH = 0xD                # MPS INTI flags: level-triggered, active high

# AML --------------------------------------------------------------------------------------------


def package_length(size):
    """The length of what follows it, itself included (20.2.4)."""
    if size + 1 < 64:
        return bytes([size + 1])
    size += 2
    return bytes([1 << 6 | size & 15, size >> 4])


def integer(value):
    if value < 2:
        return bytes([value])
    return b"\x0A" + bytes([value]) if value < 256 else b"\x0C" + struct.pack("<I", value)


def eisa_id(text):
    """An identifier such as PNP0501 as the compressed integer that _HID holds (19.3.4)."""
    vendor = sum((ord(letter) - 0x40) << shift for letter, shift in zip(text, (10, 5, 0)))
    return b"\x0C" + struct.pack(">HH", vendor, int(text[3:], 16))


def name(path, value):
    return b"\x08" + path.encode() + value


def package(*items):
    body = bytes([len(items)]) + b"".join(items)
    return b"\x12" + package_length(len(body)) + body


def buffer(data):
    body = integer(len(data)) + data
    return b"\x11" + package_length(len(body)) + body


def scope(path, *items):
    body = path.encode() + b"".join(items)
    return b"\x10" + package_length(len(body)) + body


def device(path, *items):
    body = path.encode() + b"".join(items)
    return b"\x5B\x82" + package_length(len(body)) + body


def ports(first, count):
    """I/O port descriptor, 16-bit decode (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def window(kind, first, last):
    """Word address space descriptor of what a bridge passes on (6.4.3.5.3): kind 1 is I/O, 2 bus numbers."""
    return struct.pack("<BHBBB5H", 0x88, 13, kind, 0x0C, 3 if kind == 1 else 0, 0, first, last, 0, last - first + 1)


def irq(number):
    """IRQ descriptor: edge-triggered, active high, exclusive (6.4.2.1)."""
    return struct.pack("<BH", 0x22, 1 << number)


def isa_device(path, identifier, *resources):
    return device(path, name("_HID", eisa_id(identifier)), name("_CRS", buffer(b"".join(resources) + b"\x79\0")))


def definition():
    """The DSDT's AML: what can sleep, the processor, and the devices that a PC's operating system asks ACPI for."""
    return name("_S5_", package(*[integer(value) for value in (SLEEP_OFF, 0, 0, 0)])) + scope(
        "_SB_",
        device("CPU0", name("_HID", b"\x0DACPI0007\0"), name("_UID", integer(0))),
        isa_device("PCI0", "PNP0A03", window(2, 0, 0xFF), ports(0xCF8, 8), window(1, 0, 0xCF7), window(1, 0xD00, 0xFFFF)),
        isa_device("TIMR", "PNP0100", ports(0x40, 4), irq(0)),
        isa_device("RTC_", "PNP0B00", ports(0x70, 2), irq(8)),
        isa_device("KBD_", "PNP0303", ports(0x60, 1), ports(0x64, 1), irq(1)),
        isa_device("COM1", "PNP0501", ports(0x3F8, 8), irq(4)))

# Tables -----------------------------------------------------------------------------------------


def checksum(data):
    return -sum(data) & 255


def table(signature, revision, body):
    """A system description table with its header (5.2.6)."""
    data = bytearray(struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, b"PYX86V", b"PYX86V  ", 1, b"PYXV", 1) + body)
    data[9] = checksum(data)
    return bytes(data)


def port_register(bits, port):
    """Generic address structure of a register in I/O space (5.2.3.2)."""
    return struct.pack("<BBBBQ", 1, bits, 0, {8: 1, 16: 2, 32: 3}[bits], port)


def fadt(facs, dsdt):
    """Fixed ACPI description table (5.2.9): no SMI command, so ACPI is on from the start; no GPEs, no C2, no C3."""
    flags = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10
    # WBINVD, C1 works, no fixed buttons, the clock's alarm is no fixed event, 32-bit timer, reset register
    body = struct.pack("<IIBBHIBBBB8I", facs, dsdt, 0, 1, SCI, 0, 0, 0, 0, 0,
                       PM1_EVENT, 0, PM1_CONTROL, 0, 0, PM_TIMER, 0, 0)
    body += struct.pack("<8B4H5BHBI", 4, 2, 0, 4, 0, 0, 0, 0, 0xFFF, 0xFFF, 0, 0, 0, 0, 0, 0, 0x32, 3, 0, flags)
    body += port_register(8, RESET_PORT) + struct.pack("<BHBQQ", RESET_VALUE, 0, 0, facs, dsdt)
    none = bytes(12)
    body += port_register(32, PM1_EVENT) + none + port_register(16, PM1_CONTROL) + none + none + port_register(32, PM_TIMER)
    return table(b"FACP", 3, body + none + none)


def madt():
    """Interrupt controllers (5.2.12): the timer's IRQ 0 comes at input 2, the SCI is level-triggered, LINT1 is NMI."""
    return table(b"APIC", 3, struct.pack("<II", LAPIC, 1)
                 + struct.pack("<BBBBI", 0, 8, 0, 0, 1)
                 + struct.pack("<BBBBII", 1, 12, IOAPIC_ID, 0, IOAPIC, 0)
                 + struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
                 + struct.pack("<BBBBIH", 2, 10, 0, SCI, SCI, LEVEL_HIGH)
                 + struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1))


def rsdp(rsdt, xsdt):
    """Root system description pointer, version 2 (5.2.5.3)."""
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"PYX86V", 2, rsdt, 36, xsdt, 0))
    data[8] = checksum(data[:20])
    data[32] = checksum(data)
    return bytes(data)


def tables():
    """[(guest-physical address, bytes)]: the RSDP at AT and everything that it leads to."""
    placed, at = [], AT + 64

    def put(data):
        nonlocal at
        placed.append((at, data))
        where, at = at, at + -(-len(data) // 64) * 64
        return where
    facs = put(struct.pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 1))
    dsdt = put(table(b"DSDT", 2, definition()))
    listed = [put(fadt(facs, dsdt)), put(madt())]
    rsdt = put(table(b"RSDT", 1, struct.pack(f"<{len(listed)}I", *listed)))
    xsdt = put(table(b"XSDT", 1, struct.pack(f"<{len(listed)}Q", *listed)))
    return [(AT, rsdp(rsdt, xsdt)), *placed]
