# SPDX-License-Identifier: GPL-2.0-or-later
"""ATA commands (ATA/ATAPI-6, chapter 8): what a drive does when the command register is written."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.devices.ide_state cimport *
from pyx86v.devices.storage cimport Disk, disk_flush

cdef enum AtaWay:            # what an opcode says about a transfer
    WAY_NONE = 0
    WAY_IN = 1
    WAY_OUT = 2
    WAY_EXT = 4              # 48-bit address and 16-bit count
    WAY_MULTIPLE = 8
    WAY_DMA = 16

cdef inline int ata_way(int op) noexcept nogil:
    """AtaWay bits of the read and write commands."""
    if op == 0x20 or op == 0x21:
        return WAY_IN
    elif op == 0x24:
        return WAY_IN | WAY_EXT
    elif op == 0xC4:
        return WAY_IN | WAY_MULTIPLE
    elif op == 0x29:
        return WAY_IN | WAY_MULTIPLE | WAY_EXT
    elif op == 0xC8 or op == 0xC9:
        return WAY_IN | WAY_DMA
    elif op == 0x25:
        return WAY_IN | WAY_DMA | WAY_EXT
    elif op == 0x30 or op == 0x31:
        return WAY_OUT
    elif op == 0x34:
        return WAY_OUT | WAY_EXT
    elif op == 0xC5:
        return WAY_OUT | WAY_MULTIPLE
    elif op == 0x39 or op == 0xCE:
        return WAY_OUT | WAY_MULTIPLE | WAY_EXT
    elif op == 0xCA or op == 0xCB:
        return WAY_OUT | WAY_DMA
    elif op == 0x35 or op == 0x3D:
        return WAY_OUT | WAY_DMA | WAY_EXT
    return WAY_NONE

cdef inline uint32_t ata_count(const Drive* d, bint ext) noexcept nogil:
    """Sectors; 0 stands for all ones and one."""
    cdef uint32_t n = d.reg[0][REG_COUNT]
    if ext:
        n |= <uint32_t>d.reg[1][REG_COUNT] << 8
        return n if n else 65536
    return n if n else 256

cdef inline uint64_t ata_sector(const Channel* c, const Drive* d, bint ext) noexcept nogil:
    """The first sector: 48 bits, 28 bits, or cylinder, head and sector; beyond any disk for sector 0 of a track."""
    cdef uint64_t low = d.reg[0][REG_LOW] | <uint64_t>d.reg[0][REG_MID] << 8 | <uint64_t>d.reg[0][REG_HIGH] << 16
    if ext:
        return low | <uint64_t>d.reg[1][REG_LOW] << 24 | <uint64_t>d.reg[1][REG_MID] << 32 | <uint64_t>d.reg[1][REG_HIGH] << 40
    if c.device & DEVICE_LBA:
        return low | <uint64_t>(c.device & 15) << 24
    if low & 0xFF == 0:
        return <uint64_t>1 << 48
    return ((low >> 8) * d.heads + (c.device & 15)) * d.track_sectors + (low & 0xFF) - 1

cdef inline bint ata_range(Channel* c, bint ext) noexcept nogil:
    """Point `at` and `left` at the sectors that the registers name.  False: not all of them exist, and the command has failed."""
    cdef Drive* d = &c.drive[c.unit]
    cdef uint64_t first = ata_sector(c, d, ext), count = ata_count(d, ext)
    if first > d.sectors or count > d.sectors - first:
        command_end(c, ATA_READY, ERROR_IDNF)
        return False
    c.at = first * SECTOR
    c.left = count * SECTOR
    return True

cdef inline void ata_block(Channel* c) noexcept nogil:
    """Ask the host for the next DRQ block, of a whole block's sectors or what is left."""
    cdef uint64_t rest = c.left + c.filled - c.pos
    c.drq = c.block if rest > c.block else <uint32_t>rest
    c.drive[c.unit].status = ATA_READY | ATA_DRQ

cdef inline void ata_transfer(Channel* c, int way) noexcept nogil:
    cdef Drive* d = &c.drive[c.unit]
    if way & WAY_MULTIPLE and d.multiple == 0:
        command_abort(c)
        return
    if not ata_range(c, way & WAY_EXT):
        return
    if way & WAY_DMA:
        c.phase = IDE_DMA_IN if way & WAY_IN else IDE_DMA_OUT
        d.status = ATA_READY | ATA_DRQ
        return
    c.phase = IDE_DATA_IN if way & WAY_IN else IDE_DATA_OUT
    c.block = SECTOR * (d.multiple if way & WAY_MULTIPLE else 1)
    ata_block(c)
    if way & WAY_IN:                             # the first block of a write is asked for without an interrupt
        interrupt(c)

cdef inline void ata_identify(Channel* c) noexcept nogil:
    identify(&c.drive[c.unit], c.data)
    c.filled = c.block = SECTOR
    c.phase = IDE_DATA_IN
    ata_block(c)
    interrupt(c)

cdef inline void ata_set_features(Channel* c) noexcept nogil:
    """SET FEATURES: transfer mode, write cache; others that change nothing here are taken, unknown ones refused."""
    cdef Drive* d = &c.drive[c.unit]
    cdef int what = d.reg[0][REG_FEATURES], mode = d.reg[0][REG_COUNT]
    if what == 0x03 and (mode >> 3 <= 1 or (mode >> 3 == 4 and mode & 7 <= 2) or (mode >> 3 == 8 and mode & 7 <= 5)):
        d.mode = mode
    elif what == 0x02 or what == 0x82:
        d.cache = what == 0x02
    elif what != 0x55 and what != 0xAA and what != 0x66 and what != 0xCC:     # read look-ahead, power-on defaults
        command_abort(c)
        return
    command_done(c)

cdef inline void ata_set_multiple(Channel* c) noexcept nogil:
    """SET MULTIPLE MODE: a power of two up to the limit; 0 turns it off."""
    cdef Drive* d = &c.drive[c.unit]
    cdef int n = d.reg[0][REG_COUNT]
    if n > MULTIPLE_LIMIT or n & (n - 1):
        d.multiple = 0
        command_abort(c)
        return
    d.multiple = n
    command_done(c)

cdef inline void ata_geometry(Channel* c) noexcept nogil:
    """INITIALIZE DEVICE PARAMETERS."""
    cdef Drive* d = &c.drive[c.unit]
    if d.reg[0][REG_COUNT] == 0:
        command_abort(c)
        return
    d.track_sectors = d.reg[0][REG_COUNT]
    d.heads = (c.device & 15) + 1
    command_done(c)

cdef inline void ata_native_max(Channel* c, bint ext) noexcept nogil:
    """READ NATIVE MAX ADDRESS (EXT): the last sector, in the address registers."""
    cdef Drive* d = &c.drive[c.unit]
    cdef uint64_t last = d.sectors - 1
    cdef int i
    if not ext and last > 0x0FFFFFFE:
        last = 0x0FFFFFFE
    for i in range(3):
        d.reg[0][REG_LOW + i] = last >> (8 * i) & 0xFF
        d.reg[1][REG_LOW + i] = last >> (24 + 8 * i) & 0xFF if ext else 0
    if not ext:
        c.device = (c.device & 0xF0) | (last >> 24 & 15)
    command_done(c)

cdef inline void ata_diagnostic(Channel* c) noexcept nogil:
    """EXECUTE DEVICE DIAGNOSTIC is for both drives."""
    channel_reset(c)
    interrupt(c)

cdef inline void ata_disk_command(Channel* c, Disk* disk, int op) noexcept nogil:
    cdef int way = ata_way(op)
    if way:
        ata_transfer(c, way)
    elif op == 0xEC:
        ata_identify(c)
    elif op == 0x40 or op == 0x41 or op == 0x42:                 # READ VERIFY SECTORS (EXT)
        if ata_range(c, op == 0x42):
            command_done(c)
    elif op == 0xC6:
        ata_set_multiple(c)
    elif op == 0x91:
        ata_geometry(c)
    elif op == 0xF8 or op == 0x27:
        ata_native_max(c, op == 0x27)
    elif op == 0xE7 or op == 0xEA:                               # FLUSH CACHE (EXT)
        if disk_flush(disk):
            command_done(c)
        else:
            command_end(c, ATA_READY | ATA_DF, ERROR_ABRT)
    elif op & 0xF0 == 0x10 or op == 0x70:                        # RECALIBRATE, SEEK
        command_done(c)
    else:
        command_abort(c)

cdef inline void ata_cdrom_command(Channel* c, int op) noexcept nogil:
    if op == 0xA0:
        c.phase = IDE_PACKET
        c.drive[c.unit].reg[0][REG_COUNT] = 1                    # the interrupt reason: a command, to the drive
        c.drive[c.unit].status = ATA_DRDY | ATA_DRQ
    elif op == 0xA1:
        ata_identify(c)
    elif op == 0xEC or op == 0x20:                               # a packet device says so (9.12)
        signature(&c.drive[c.unit])
        c.drive[c.unit].status = ATA_DRDY | ATA_ERR
        c.drive[c.unit].error = ERROR_ABRT
        interrupt(c)
    else:
        command_abort(c)

cdef inline void ata_command(Channel* c, Disk* disks, int op) noexcept nogil:
    """Port 1F7h or 177h.  While a command is under way only DEVICE RESET is heard; absent drives hear nothing."""
    cdef Drive* d = selected(c)
    cdef bint busy = c.phase != IDE_IDLE or c.control & CONTROL_SRST
    c.irq = 0
    if d.kind == DRIVE_CDROM and op == 0x08 and not c.control & CONTROL_SRST:     # DEVICE RESET
        channel_idle(c)
        drive_reset(d)
        return
    if op == 0x90 and not busy:
        ata_diagnostic(c)
        return
    if busy or d.kind == DRIVE_NONE:
        return
    c.unit = 1 if c.device & DEVICE_1 else 0
    channel_idle(c)
    if op == 0xEF:
        ata_set_features(c)
    elif op == 0xE5:                                             # CHECK POWER MODE: active
        command_done(c)
        d.reg[0][REG_COUNT] = 0xFF
    elif op == 0xE0 or op == 0xE1 or op == 0xE2 or op == 0xE3 or op == 0xE6:      # STANDBY, IDLE, SLEEP
        command_done(c)
    elif d.kind == DRIVE_DISK:
        ata_disk_command(c, &disks[c.unit], op)
    else:
        ata_cdrom_command(c, op)
