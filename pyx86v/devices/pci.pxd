# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI configuration mechanism 1, and the three functions behind it: host bridge, ISA bridge, IDE.

Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism 1) and 6 (configuration space); Intel 82441FX (host bridge) and 82371SB
(PIIX3) data sheets; the subsystem identifiers, by which SeaBIOS knows its board, as QEMU has them (docs/specs/pci-ids).
Everything else reads all ones.  Not modelled: what PAM, SMRAM and the decode enables switch (C0000h to FFFFFh is RAM
at all times, the IDE ports always answer), INTA# to INTD# (no function drives them), the status register's error bits.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

cdef enum:
    PCI_HOST = 0             # 00:00.0
    PCI_ISA = 1              # 00:01.0
    PCI_IDE = 2              # 00:01.1
    PCI_FUNCTIONS = 3

    PCI_COMMAND = 0x04
    PCI_BAR4 = 0x20
    PCI_LINE = 0x3C          # interrupt line: software's own note
    PCI_OWN = 0x40           # from here on a function's own registers: they keep what is written
    PAM0 = 0x59              # of the host bridge, to 5Fh: attributes of C0000h to FFFFFh
    PIRQ = 0x60              # of the ISA bridge, to 63h: where INTA# to INTD# go; 80h is nowhere

    COMMAND_IO = 1
    COMMAND_MASTER = 4
    BUS_MASTER_PORTS = 0xC000    # where firmware puts the IDE's bus master

ctypedef struct Pci:
    uint32_t address         # CF8h
    uint8_t config[PCI_FUNCTIONS][256]

cdef inline void pci_identify(uint8_t* c, uint16_t device, uint32_t class_code, uint8_t revision) noexcept nogil:
    """Vendor Intel, class as base, subclass, interface in 24 bits."""
    c[0] = c[1] = 0x86
    c[1] = 0x80
    c[2] = device & 0xFF
    c[3] = device >> 8
    c[8] = revision
    c[9] = class_code & 0xFF
    c[10] = class_code >> 8 & 0xFF
    c[11] = class_code >> 16 & 0xFF
    c[0x2C] = 0xF4
    c[0x2D] = 0x1A
    c[0x2F] = 0x11

cdef inline void pci_init(Pci* p) noexcept nogil:
    """As firmware leaves the board: shadow RAM open, interrupts routed to IRQ 10 and 11, the bus master on."""
    cdef int i
    memset(p, 0, sizeof(Pci))
    pci_identify(p.config[<int>PCI_HOST], 0x1237, 0x060000, 2)
    pci_identify(p.config[<int>PCI_ISA], 0x7000, 0x060100, 0)
    pci_identify(p.config[<int>PCI_IDE], 0x7010, 0x010180, 0)
    for i in range(PCI_FUNCTIONS):
        p.config[i][PCI_COMMAND] = COMMAND_MASTER | 3
        p.config[i][7] = 0x02                    # status: DEVSEL# of medium speed
    p.config[<int>PCI_ISA][0x0E] = 0x80          # several functions
    p.config[<int>PCI_HOST][PAM0] = 0x30
    for i in range(1, 7):
        p.config[<int>PCI_HOST][PAM0 + i] = 0x33
    for i in range(4):
        p.config[<int>PCI_ISA][PIRQ + i] = 10 + (i >> 1)
    p.config[<int>PCI_IDE][PCI_COMMAND] = COMMAND_MASTER | COMMAND_IO
    p.config[<int>PCI_IDE][PCI_BAR4] = BUS_MASTER_PORTS & 0xFF | 1
    p.config[<int>PCI_IDE][PCI_BAR4 + 1] = BUS_MASTER_PORTS >> 8
    p.config[<int>PCI_IDE][0x41] = p.config[<int>PCI_IDE][0x43] = 0x80      # IDETIM: both channels decode their ports

cdef inline int pci_selected(const Pci* p) noexcept nogil:
    """The function that CF8h addresses, or -1: enable bit, bus 0, device and function in bits 15 to 8."""
    cdef uint32_t at = p.address >> 8 & 0x7FFFFF
    if p.address >> 31 == 0:
        return -1
    return PCI_HOST if at == 0 else PCI_ISA if at == 0x08 else PCI_IDE if at == 0x09 else -1

cdef inline uint8_t pci_writable(int function, int at) noexcept nogil:
    """Which bits of a byte of configuration space keep what is written."""
    if at >= PCI_OWN or at == PCI_LINE or at == 0x0D:            # 0Dh: latency timer
        return 0xFF
    if at == PCI_COMMAND:
        return 0x05 if function == PCI_IDE else 0x47
    if function == PCI_IDE and at == PCI_BAR4:
        return 0xF0
    return 0xFF if function == PCI_IDE and PCI_BAR4 < at < PCI_BAR4 + 4 else 0x00

cdef inline uint32_t pci_data_read(const Pci* p, int lane, int size_bytes) noexcept nogil:
    """`size_bytes` from CFCh + lane; beyond the double word all ones."""
    cdef int function = pci_selected(p), i
    cdef uint32_t value = 0xFFFFFFFFU
    if function < 0:
        return value
    for i in range(min(size_bytes, 4 - lane)):
        value &= ~(<uint32_t>0xFF << (8 * i))
        value |= <uint32_t>p.config[function][(p.address & 0xFC) + lane + i] << (8 * i)
    return value

cdef inline void pci_data_write(Pci* p, int lane, int size_bytes, uint32_t value) noexcept nogil:
    cdef int function = pci_selected(p), i, at
    cdef uint8_t mask
    if function < 0:
        return
    for i in range(min(size_bytes, 4 - lane)):
        at = (p.address & 0xFC) + lane + i
        mask = pci_writable(function, at)
        p.config[function][at] = (p.config[function][at] & ~mask) | (value >> (8 * i) & mask)

cdef inline uint16_t bus_master_ports(const Pci* p) noexcept nogil:
    """The first of the IDE's 16 bus-master ports, or 0 when they do not answer."""
    cdef const uint8_t* c = p.config[<int>PCI_IDE]
    if not c[PCI_COMMAND] & COMMAND_IO or c[PCI_BAR4 + 2] | c[PCI_BAR4 + 3]:
        return 0
    return (c[PCI_BAR4] & 0xF0) | <uint16_t>c[PCI_BAR4 + 1] << 8
