# SPDX-License-Identifier: GPL-2.0-or-later
"""The ports of the PCI side of the board: configuration space, IDE with its bus master, fw_cfg.  Widths matter to these."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from pyx86v.devices.fwcfg cimport fwcfg_in, fwcfg_out
from pyx86v.devices.ide cimport data_in, data_out, ide_control, ide_line, ide_read, ide_status, ide_write, master_read, master_write
from pyx86v.devices.ide_state cimport Channel
from pyx86v.devices.pci cimport bus_master_ports, pci_data_read, pci_data_write
from pyx86v.devices.platform cimport Platform, platform_set_irq
from pyx86v.devices.sinks cimport Sinks
from pyx86v.devices.storage cimport Disk

cdef enum:
    IDE_IRQ = 14             # of the first channel

cdef inline bint bridge_claims(const Platform* p, uint16_t port, int size_bytes) noexcept nogil:
    """Does this port belong here?  CF9h by itself, the reset port, does not."""
    return port & 0xFF78 == 0x170 or port & 0xFF7F == 0x376 or 0x510 <= port < 0x51C or 0xCFC <= port < 0xD00 or \
        (port == 0xCF8 and size_bytes == 4) or (port >> 4 == bus_master_ports(&p.pci) >> 4 and port >> 4 != 0)

cdef inline int channel_of(uint16_t port) noexcept nogil:
    """1F0h to 1F7h and 3F6h are the first channel's, 170h to 177h and 376h the second's."""
    return 0 if port & 0x80 else 1

cdef inline void ide_lines(Platform* p) noexcept nogil:
    cdef int i
    for i in range(2):
        platform_set_irq(p, IDE_IRQ + i, ide_line(&p.ide.channel[i]))

cdef inline uint32_t ide_in(Platform* p, Sinks* s, uint16_t port, int size_bytes) noexcept nogil:
    """The data port takes any width, the registers a byte at a time."""
    cdef int channel = channel_of(port), i
    cdef Channel* c = &p.ide.channel[channel]
    cdef const Disk* disks = &s.disk[2 * channel]
    cdef uint32_t value = 0
    if port & 0xFF7F == 0x170:
        return data_in(c, disks, size_bytes)
    if port & 0xFF7F == 0x376:
        return ide_status(c, False) | 0xFFFFFF00U
    for i in range(size_bytes):
        value |= <uint32_t>(ide_read(c, (port & 7) + i) if (port & 7) + i < 8 else 0xFF) << (8 * i)
    return value

cdef inline void ide_out(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint32_t value) noexcept nogil:
    cdef int channel = channel_of(port), i
    cdef Channel* c = &p.ide.channel[channel]
    cdef Disk* disks = &s.disk[2 * channel]
    if port & 0xFF7F == 0x170:
        data_out(c, disks, size_bytes, value)
    elif port & 0xFF7F == 0x376:
        ide_control(c, <uint8_t>value)
    else:
        for i in range(size_bytes):
            if (port & 7) + i < 8:
                ide_write(c, disks, &s.bus, (port & 7) + i, <uint8_t>(value >> (8 * i)))

cdef inline uint32_t bridge_in(Platform* p, Sinks* s, uint16_t port, int size_bytes) noexcept nogil:
    """Read a port that bridge_claims()."""
    cdef uint32_t value = 0
    cdef int i
    if port & 0xFF78 == 0x170 or port & 0xFF7F == 0x376:
        value = ide_in(p, s, port, size_bytes)
        ide_lines(p)
        return value
    if port == 0xCF8:
        return p.pci.address
    if port >> 2 == 0xCFC >> 2:
        return pci_data_read(&p.pci, port & 3, size_bytes)
    if port >> 8 == 5:
        return fwcfg_in(&p.fw_cfg, &s.firmware, port, size_bytes)
    for i in range(size_bytes):
        value |= <uint32_t>master_read(&p.ide.channel[port >> 3 & 1], (port + i) & 7) << (8 * i)
    return value

cdef inline void bridge_out(Platform* p, Sinks* s, uint16_t port, int size_bytes, uint32_t value) noexcept nogil:
    """Write a port that bridge_claims()."""
    cdef int channel = port >> 3 & 1, i
    if port & 0xFF78 == 0x170 or port & 0xFF7F == 0x376:
        ide_out(p, s, port, size_bytes, value)
        ide_lines(p)
    elif port == 0xCF8:
        p.pci.address = value & 0x80FFFFFCU
    elif port >> 2 == 0xCFC >> 2:
        pci_data_write(&p.pci, port & 3, size_bytes, value)
    elif port >> 8 == 5:
        fwcfg_out(&p.fw_cfg, &s.firmware, &s.bus, port, size_bytes, value)
    else:
        for i in range(size_bytes):
            master_write(&p.ide.channel[channel], &s.disk[2 * channel], &s.bus, (port + i) & 7, <uint8_t>(value >> (8 * i)))
        ide_lines(p)
