# SPDX-License-Identifier: GPL-2.0-or-later
"""The IDE controller of the PIIX3: two channels' registers, their data port, and bus-master DMA.

Sources: ATA/ATAPI-6 (registers, protocols); Intel 82371SB data sheet, 2.7, and Programming Interface for Bus Master IDE
Controller 1.0 (bus master).  An absent drive's registers read as 0, as in QEMU.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from pyx86v.devices.ata cimport ata_block, ata_command
from pyx86v.devices.atapi cimport ILLEGAL_REQUEST, MEDIUM_ERROR, PACKET_BYTES, packet_block, packet_command, packet_fail
from pyx86v.devices.bus cimport Bus
from pyx86v.devices.ide_state cimport *
from pyx86v.devices.storage cimport Disk, disk_read, disk_write

cdef enum:
    MAX_REGIONS = 8192       # physical region descriptors: what fits in the 64 KiB that a table may not cross
    REGION_LAST = 0x80000000

cdef inline bint ide_line(const Channel* c) noexcept nogil:
    """INTRQ as the interrupt controller sees it."""
    return c.irq and not c.control & CONTROL_NIEN

# The buffer ------------------------------------------------------------------------------------

cdef inline void medium_failed(Channel* c) noexcept nogil:
    if c.drive[c.unit].kind == DRIVE_CDROM:
        packet_fail(c, MEDIUM_ERROR, 0x11)       # unrecovered read error
    elif c.phase == IDE_DATA_IN or c.phase == IDE_DMA_IN:
        command_end(c, ATA_READY, ERROR_UNC)
    else:
        command_end(c, ATA_READY | ATA_DF, ERROR_ABRT)

cdef inline void command_finished(Channel* c) noexcept nogil:
    command_end(c, ATA_DRDY if c.packet else ATA_READY, 0)

cdef inline bint buffer_fill(Channel* c, const Disk* disks) noexcept nogil:
    """The next bytes of the disk into the empty buffer.  False: the command has failed."""
    cdef uint32_t n = IDE_BUFFER if c.left > IDE_BUFFER else <uint32_t>c.left
    if not disk_read(&disks[c.unit], c.at, c.data, n):
        medium_failed(c)
        return False
    c.at += n
    c.left -= n
    c.pos = 0
    c.filled = n
    return True

cdef inline bint buffer_store(Channel* c, Disk* disks) noexcept nogil:
    """The buffer to the disk."""
    if not disk_write(&disks[c.unit], c.at, c.data, c.pos):
        medium_failed(c)
        return False
    c.at += c.pos
    c.pos = 0
    return True

# The data port ---------------------------------------------------------------------------------

cdef inline void block_ended(Channel* c) noexcept nogil:
    """The host has taken, or given, a DRQ block."""
    if c.left or c.pos != c.filled:
        if c.packet:
            packet_block(c)
        else:
            ata_block(c)
            interrupt(c)
    elif c.packet or c.phase == IDE_DATA_OUT:
        command_finished(c)
    else:                                        # a read ends with its last block's interrupt
        channel_idle(c)
        c.drive[c.unit].status = ATA_READY

cdef inline uint8_t data_byte_in(Channel* c, const Disk* disks) noexcept nogil:
    cdef uint8_t value
    if c.phase != IDE_DATA_IN or (c.pos == c.filled and not buffer_fill(c, disks)):
        return 0
    value = c.data[c.pos]
    c.pos += 1
    c.drq -= 1
    if c.drq == 0:
        block_ended(c)
    return value

cdef inline uint32_t data_in(Channel* c, const Disk* disks, int size_bytes) noexcept nogil:
    """Read the data port.  What is read beyond the data is 0."""
    cdef uint32_t value = 0
    cdef int i
    if c.phase == IDE_DATA_IN and c.pos + size_bytes <= c.filled and <uint32_t>size_bytes < c.drq:
        memcpy(&value, c.data + c.pos, size_bytes)
        c.pos += size_bytes
        c.drq -= size_bytes
        return value
    for i in range(size_bytes):
        value |= <uint32_t>data_byte_in(c, disks) << (8 * i)
    return value

cdef inline void data_byte_out(Channel* c, Disk* disks, uint8_t value) noexcept nogil:
    if c.phase == IDE_PACKET:
        c.data[c.pos] = value
        c.pos += 1
        if c.pos == PACKET_BYTES:
            packet_command(c)
        return
    if c.phase != IDE_DATA_OUT:
        return
    c.data[c.pos] = value
    c.pos += 1
    c.drq -= 1
    c.left -= 1
    if c.pos % SECTOR == 0 and not buffer_store(c, disks):
        return
    if c.drq == 0:
        block_ended(c)

cdef inline void data_out(Channel* c, Disk* disks, int size_bytes, uint32_t value) noexcept nogil:
    """Write the data port.  What is written beyond the data is lost."""
    cdef int i
    for i in range(size_bytes):
        data_byte_out(c, disks, <uint8_t>(value >> (8 * i)))

# Bus master ------------------------------------------------------------------------------------

cdef inline bint region_move(Channel* c, Disk* disks, const Bus* bus, uint32_t at, uint32_t size) noexcept nogil:
    """Up to `size` bytes between the drive and memory from `at` on.  False: the command has ended."""
    cdef uint32_t n
    while size:
        if c.phase == IDE_DMA_IN:
            if c.pos == c.filled and not buffer_fill(c, disks):
                return False
            n = min(size, <uint32_t>(c.filled - c.pos))
            bus.write(bus.owner, at, c.data + c.pos, n)
            c.pos += n
        else:
            n = min(size, <uint32_t>(SECTOR - c.pos))
            bus.read(bus.owner, at, c.data + c.pos, n)
            c.pos += n
            c.left -= n
            if c.pos == SECTOR and not buffer_store(c, disks):
                return False
        if c.left == 0 and c.pos == c.filled:
            command_finished(c)
            return False
        at += n
        size -= n
    return True

cdef inline void master_run(Channel* c, Disk* disks, const Bus* bus) noexcept nogil:
    """The command and the bus master's start bit are both there: move everything at once.

    A table that ends before the command leaves it waiting, with the bus master off; one that does not end is an error.
    """
    cdef uint32_t region[2]
    cdef uint32_t table = c.master_table, size, i
    if not c.master_command & BM_START or (c.phase != IDE_DMA_IN and c.phase != IDE_DMA_OUT):
        return
    c.master_status |= BM_ACTIVE
    for i in range(MAX_REGIONS):
        bus.read(bus.owner, table, region, 8)
        table = (table & 0xFFFF0000U) | ((table + 8) & 0xFFFF)
        size = region[1] & 0xFFFE
        if not region_move(c, disks, bus, region[0] & ~<uint32_t>1, size if size else 65536) or region[1] & REGION_LAST:
            c.master_status &= ~BM_ACTIVE
            return
    c.master_status = (c.master_status & ~BM_ACTIVE) | BM_ERROR

cdef inline uint8_t master_read(const Channel* c, int at) noexcept nogil:
    """Bus-master register `at`, 0 to 7, of a channel."""
    if at == 0:
        return c.master_command
    if at == 2:
        return c.master_status
    return c.master_table >> (8 * (at - 4)) & 0xFF if at >= 4 else 0

cdef inline void master_write(Channel* c, Disk* disks, const Bus* bus, int at, uint8_t value) noexcept nogil:
    cdef bint started
    if at == 0:
        started = value & ~c.master_command & BM_START
        c.master_command = value & 0x09
        if started:
            master_run(c, disks, bus)
        elif not value & BM_START:
            c.master_status &= ~BM_ACTIVE
    elif at == 2:
        c.master_status = (value & BM_CAPABLE) | (c.master_status & (BM_ACTIVE | ((BM_ERROR | BM_INTERRUPT) & ~value)))
    elif at >= 4:
        c.master_table = (c.master_table & ~(<uint32_t>0xFF << (8 * (at - 4)))) | <uint32_t>value << (8 * (at - 4))
        c.master_table &= ~<uint32_t>3

# Registers -------------------------------------------------------------------------------------

cdef inline uint8_t ide_status(Channel* c, bint acknowledge) noexcept nogil:
    """The status register, which ends the interrupt, or the alternate status, which does not."""
    cdef Drive* d = selected(c)
    if acknowledge:
        c.irq = 0
    if d.kind == DRIVE_NONE:
        return 0
    return ATA_BSY if c.control & CONTROL_SRST else d.status

cdef inline uint8_t ide_read(Channel* c, int at) noexcept nogil:
    """Ports 1F1h to 1F7h, or 171h to 177h."""
    cdef Drive* d = selected(c)
    if at == 7:
        return ide_status(c, True)
    if c.drive[0].kind == DRIVE_NONE and c.drive[1].kind == DRIVE_NONE:
        return 0
    if at == 6:
        return c.device | 0xA0
    if d.kind == DRIVE_NONE:
        return 0
    if at == 1:
        return d.error
    return d.reg[1 if c.control & CONTROL_HOB else 0][at]

cdef inline void ide_write(Channel* c, Disk* disks, const Bus* bus, int at, uint8_t value) noexcept nogil:
    """Ports 1F1h to 1F7h, or 171h to 177h: both drives keep the registers, the selected one takes the command."""
    cdef int i
    c.control &= ~CONTROL_HOB
    if at == 7:
        ata_command(c, disks, value)
        master_run(c, disks, bus)
    elif at == 6:
        c.device = value
    elif c.phase == IDE_IDLE:
        for i in range(2):
            c.drive[i].reg[1][at] = c.drive[i].reg[0][at]
            c.drive[i].reg[0][at] = value

cdef inline void ide_control(Channel* c, uint8_t value) noexcept nogil:
    """Port 3F6h or 376h: nIEN, software reset, and which byte of a 48-bit register is read."""
    cdef bint was = c.control & CONTROL_SRST
    c.control = value
    if value & CONTROL_SRST and not was:
        channel_idle(c)
        c.irq = 0
    elif was and not value & CONTROL_SRST:
        channel_reset(c)
