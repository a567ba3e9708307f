# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of the two IDE channels, and what every command does with it.

A channel moves one command's data at a time: between the disk (`at`, `left`) and its buffer (`pos` to `filled`), and between the
buffer and the host in blocks of `drq` bytes, one interrupt each.  Access time is zero: a command has happened when the write
that started it, or brought its last byte, is over.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    ATA_ERR = 0x01           # status
    ATA_DRQ = 0x08
    ATA_DSC = 0x10
    ATA_DF = 0x20
    ATA_DRDY = 0x40
    ATA_BSY = 0x80
    ATA_READY = 0x50         # DRDY and DSC
    ERROR_ABRT = 0x04
    ERROR_IDNF = 0x10
    ERROR_UNC = 0x40
    DEVICE_LBA = 0x40
    DEVICE_1 = 0x10
    CONTROL_NIEN = 0x02
    CONTROL_SRST = 0x04
    CONTROL_HOB = 0x80

    REG_FEATURES = 1         # command block registers by port
    REG_COUNT = 2
    REG_LOW = 3
    REG_MID = 4
    REG_HIGH = 5

    SECTOR = 512
    CD_SECTOR = 2048
    IDE_BUFFER = 2048        # bytes
    MULTIPLE_LIMIT = 16      # sectors of a READ MULTIPLE block

    BM_START = 0x01          # bus master: command
    BM_ACTIVE = 0x01         # and status
    BM_ERROR = 0x02
    BM_INTERRUPT = 0x04
    BM_CAPABLE = 0x60        # what software says that the drives can do

cdef enum DriveKind:
    DRIVE_NONE = 0
    DRIVE_DISK = 1
    DRIVE_CDROM = 2

cdef enum IdePhase:
    IDE_IDLE = 0
    IDE_DATA_IN = 1          # the host reads the data port,
    IDE_DATA_OUT = 2         # or writes it
    IDE_PACKET = 3           # or writes a packet command to it
    IDE_DMA_IN = 4           # the bus master is to move data to memory
    IDE_DMA_OUT = 5          # or from it

ctypedef struct Drive:
    uint8_t kind             # DriveKind
    uint8_t status
    uint8_t error
    uint8_t multiple         # sectors of a READ MULTIPLE block; 0: not set
    uint8_t mode             # of transfer, as SET FEATURES took it
    uint8_t cache            # the write cache is on
    uint8_t sense[3]         # of the last packet command: key, ASC, ASCQ
    uint8_t reg[2][6]        # command block registers; [1]: as they were before the last write (48-bit addresses)
    uint8_t heads            # of INITIALIZE DEVICE PARAMETERS
    uint8_t track_sectors
    uint64_t sectors         # of 512 bytes, a CD-ROM's of 2,048

ctypedef struct Channel:
    Drive drive[2]
    uint8_t device           # the device register
    uint8_t control
    uint8_t irq              # INTRQ, before nIEN
    uint8_t phase            # IdePhase
    uint8_t unit             # which drive has the command
    uint8_t packet           # its data belongs to a packet command
    uint8_t master_command   # of the bus master
    uint8_t master_status
    uint32_t master_table    # address of the physical region descriptors
    uint32_t drq             # bytes until the block ends
    uint32_t block           # bytes of a block
    uint64_t at              # next byte of the disk
    uint64_t left            # bytes of the command that have not passed the buffer
    uint16_t pos             # next byte of the buffer,
    uint16_t filled          # and how many are in it
    uint8_t data[IDE_BUFFER]

ctypedef struct Ide:
    Channel channel[2]

cdef inline Drive* selected(Channel* c) noexcept nogil:
    return &c.drive[1 if c.device & DEVICE_1 else 0]

cdef inline void interrupt(Channel* c) noexcept nogil:
    """INTRQ rises; the bus master notes it."""
    c.irq = 1
    c.master_status |= BM_INTERRUPT

cdef inline void channel_idle(Channel* c) noexcept nogil:
    """No command is under way."""
    c.phase = IDE_IDLE
    c.packet = 0
    c.drq = c.block = c.pos = c.filled = 0
    c.at = c.left = 0

cdef inline void command_end(Channel* c, uint8_t status, uint8_t error) noexcept nogil:
    cdef Drive* d = &c.drive[c.unit]
    channel_idle(c)
    d.status = status | (ATA_ERR if error else 0)
    d.error = error
    if d.kind == DRIVE_CDROM:
        d.reg[0][REG_COUNT] = 3                  # the interrupt reason: command done
    interrupt(c)

cdef inline void command_done(Channel* c) noexcept nogil:
    command_end(c, ATA_READY, 0)

cdef inline void command_abort(Channel* c) noexcept nogil:
    command_end(c, ATA_READY, ERROR_ABRT)

cdef inline void signature(Drive* d) noexcept nogil:
    """What a drive shows after a reset (ATA/ATAPI-6, 9.12)."""
    memset(d.reg, 0, sizeof(d.reg))
    d.reg[0][REG_COUNT] = d.reg[0][REG_LOW] = 1
    if d.kind == DRIVE_CDROM:
        d.reg[0][REG_MID] = 0x14
        d.reg[0][REG_HIGH] = 0xEB

cdef inline void drive_reset(Drive* d) noexcept nogil:
    signature(d)
    d.status = ATA_READY if d.kind == DRIVE_DISK else 0
    d.error = 1                                  # diagnostics: passed
    d.multiple = 0
    memset(d.sense, 0, sizeof(d.sense))

cdef inline void channel_reset(Channel* c) noexcept nogil:
    channel_idle(c)
    c.device = c.irq = c.unit = 0
    drive_reset(&c.drive[0])
    drive_reset(&c.drive[1])

cdef inline void drive_init(Drive* d, bint cdrom, uint64_t bytes) noexcept nogil:
    d.kind = DRIVE_CDROM if cdrom else DRIVE_DISK
    d.sectors = bytes // (CD_SECTOR if cdrom else SECTOR)
    d.heads = 16
    d.track_sectors = 63
    d.cache = 1
    drive_reset(d)

cdef inline uint32_t cylinders(const Drive* d) noexcept nogil:
    """Of the default geometry with 16 heads and 63 sectors (ATA/ATAPI-6, 6.2): at most 16,383."""
    cdef uint64_t n = d.sectors // (16 * 63)
    return 16383 if n > 16383 else <uint32_t>n if n else 1

cdef inline void ide_drive_attach(Ide* ide, int index, bint cdrom, uint64_t bytes) noexcept nogil:
    """Plug a drive in, before the machine starts: 0 and 1 are of the first channel, 2 and 3 of the second."""
    drive_init(&ide.channel[index >> 1].drive[index & 1], cdrom, bytes)

# Identification --------------------------------------------------------------------------------

cdef inline void put_word(uint8_t* data, int word, uint32_t value) noexcept nogil:
    data[2 * word] = value & 0xFF
    data[2 * word + 1] = value >> 8 & 0xFF

cdef inline void put_text(uint8_t* data, int word, int words, const char* text) noexcept nogil:
    """ASCII, padded with blanks, the first character of a pair in the high byte."""
    cdef int i
    cdef bint ended = False
    for i in range(2 * words):
        ended = ended or text[i] == 0
        data[2 * word + (i ^ 1)] = 0x20 if ended else <uint8_t>text[i]

cdef inline void identify(Drive* d, uint8_t* data) noexcept nogil:
    """The 512 bytes of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6, 8.15 and 8.16): what both have."""
    memset(data, 0, 512)
    put_text(data, 10, 10, b"PYX86V0000000001")
    put_text(data, 23, 4, b"1.0")
    put_text(data, 27, 20, b"PYX86V CD-ROM" if d.kind == DRIVE_CDROM else b"PYX86V DISK")
    put_word(data, 49, 0x0B00)                   # IORDY, LBA, DMA
    put_word(data, 53, 7)                        # words 54 to 58, 64 to 70 and 88 are valid
    put_word(data, 63, 7 | (1 << (8 + (d.mode & 7)) if d.mode >> 3 == 4 else 0))      # multiword DMA 0 to 2
    put_word(data, 64, 3)                        # PIO 3 and 4
    put_word(data, 65, 120)                      # ns of a cycle
    put_word(data, 66, 120)
    put_word(data, 67, 120)
    put_word(data, 68, 120)
    put_word(data, 80, 0x70)                     # ATA/ATAPI-4 to 6
    put_word(data, 88, 0x3F | (1 << (8 + (d.mode & 7)) if d.mode >> 3 == 8 else 0))   # Ultra DMA 0 to 5
    if d.kind == DRIVE_CDROM:
        put_word(data, 0, 0x85C0)                # packet device, CD-ROM, removable, DRQ within 50 us, 12 bytes
    else:
        identify_disk(d, data)

cdef inline void identify_disk(const Drive* d, uint8_t* data) noexcept nogil:
    cdef uint32_t lba28 = 0x0FFFFFFF if d.sectors > 0x0FFFFFFF else <uint32_t>d.sectors
    cdef uint32_t track = cylinders(d) * 16 * 63
    cdef int i
    put_word(data, 0, 0x0040)
    put_word(data, 1, cylinders(d))
    put_word(data, 3, 16)
    put_word(data, 6, 63)
    put_word(data, 47, 0x8000 | MULTIPLE_LIMIT)
    put_word(data, 50, 0x4000)
    put_word(data, 54, cylinders(d))
    put_word(data, 55, d.heads)
    put_word(data, 56, d.track_sectors)
    put_word(data, 57, track)
    put_word(data, 58, track >> 16)
    put_word(data, 59, 0x100 | d.multiple if d.multiple else 0)
    put_word(data, 60, lba28)
    put_word(data, 61, lba28 >> 16)
    put_word(data, 82, 0x0020)                   # write cache
    put_word(data, 83, 0x7400)                   # FLUSH CACHE (EXT), 48-bit addresses
    put_word(data, 84, 0x4000)
    put_word(data, 85, 0x0020 if d.cache else 0)
    put_word(data, 86, 0x3400)
    put_word(data, 87, 0x4000)
    put_word(data, 93, 0x6001)
    for i in range(4):
        put_word(data, 100 + i, <uint32_t>(d.sectors >> (16 * i)))
