# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet commands of a CD-ROM drive with a disc in it that is never taken out.

Sources: ATA/ATAPI-6 9.8 (packet protocol), MMC-3 (commands), SPC-2 (INQUIRY, REQUEST SENSE, MODE SENSE).
The disc has one data track.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.devices.ide_state cimport *

cdef enum:
    PACKET_BYTES = 12
    NOT_READY = 2            # sense keys
    MEDIUM_ERROR = 3
    ILLEGAL_REQUEST = 5
    LEAD_OUT = 0xAA

cdef inline uint32_t be16(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 8 | p[1]

cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return be16(p) << 16 | be16(p + 2)

cdef inline void put_be32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = value >> 24
    p[1] = value >> 16 & 0xFF
    p[2] = value >> 8 & 0xFF
    p[3] = value & 0xFF

cdef inline void packet_fail(Channel* c, uint8_t key, uint8_t asc) noexcept nogil:
    """CHECK CONDITION: the sense key also stands in the error register."""
    cdef Drive* d = &c.drive[c.unit]
    d.sense[0] = key
    d.sense[1] = asc
    d.sense[2] = 0
    command_end(c, ATA_DRDY, key << 4 | ERROR_ABRT)

cdef inline void packet_good(Channel* c) noexcept nogil:
    command_end(c, ATA_DRDY, 0)

cdef inline void packet_block(Channel* c) noexcept nogil:
    """The next DRQ block: its size in the byte count registers, "data to the host" as reason."""
    cdef Drive* d = &c.drive[c.unit]
    cdef uint64_t rest = c.left + c.filled - c.pos
    c.drq = c.block if rest > c.block else <uint32_t>rest
    d.reg[0][REG_COUNT] = 2
    d.reg[0][REG_MID] = c.drq & 0xFF
    d.reg[0][REG_HIGH] = c.drq >> 8
    d.status = ATA_DRDY | ATA_DRQ
    interrupt(c)

cdef inline void packet_data(Channel* c) noexcept nogil:
    """There is data for the host, in the buffer or (`left`) on the disc: by DMA if the command said so."""
    cdef Drive* d = &c.drive[c.unit]
    cdef uint32_t limit = d.reg[0][REG_MID] | <uint32_t>d.reg[0][REG_HIGH] << 8
    if c.left == 0 and c.filled == 0:
        packet_good(c)
    elif d.reg[0][REG_FEATURES] & 1:
        c.phase = IDE_DMA_IN
        d.status = ATA_DRDY | ATA_DRQ
    else:
        c.phase = IDE_DATA_IN
        c.block = 0xFFFE if limit == 0 or limit == 0xFFFF else limit & 0xFFFE if limit > 1 else 2
        packet_block(c)

cdef inline void packet_reply(Channel* c, uint32_t size, uint32_t allocated) noexcept nogil:
    """`size` bytes in the buffer are the answer, of which the host wants at most `allocated`."""
    c.pos = 0
    c.left = 0
    c.filled = min(size, allocated)
    packet_data(c)

cdef inline void packet_read(Channel* c, uint32_t first, uint32_t count) noexcept nogil:
    cdef uint64_t sectors = c.drive[c.unit].sectors
    if first > sectors or count > sectors - first:
        packet_fail(c, ILLEGAL_REQUEST, 0x21)    # LBA out of range
        return
    c.at = <uint64_t>first * CD_SECTOR
    c.left = <uint64_t>count * CD_SECTOR
    c.pos = c.filled = 0
    packet_data(c)

cdef inline void packet_inquiry(Channel* c, uint32_t allocated) noexcept nogil:
    memset(c.data, 0, 36)
    c.data[0] = 5                                # CD-ROM
    c.data[1] = 0x80                             # removable
    c.data[3] = 0x21                             # MMC's ATAPI response format
    c.data[4] = 31
    memcpy(c.data + 8, <const char*>b"PYX86V  PYX86V CD-ROM   1.0 ", 28)
    packet_reply(c, 36, allocated)

cdef inline void packet_sense(Channel* c, uint32_t allocated) noexcept nogil:
    cdef Drive* d = &c.drive[c.unit]
    memset(c.data, 0, 18)
    c.data[0] = 0x70
    c.data[2] = d.sense[0]
    c.data[7] = 10
    c.data[12] = d.sense[1]
    c.data[13] = d.sense[2]
    memset(d.sense, 0, sizeof(d.sense))
    packet_reply(c, 18, allocated)

cdef inline void packet_capacity(Channel* c) noexcept nogil:
    put_be32(c.data, <uint32_t>(c.drive[c.unit].sectors - 1))
    put_be32(c.data + 4, CD_SECTOR)
    packet_reply(c, 8, 8)

cdef inline void disc_address(uint8_t* p, uint32_t sector, bint msf) noexcept nogil:
    """Four bytes: the sector, or minute, second and frame (75 a second, two seconds of pregap)."""
    put_be32(p, sector)
    if msf:
        sector += 150
        p[1] = sector // (75 * 60) & 0xFF
        p[2] = sector // 75 % 60
        p[3] = sector % 75

cdef inline void packet_toc(Channel* c, const uint8_t* cdb, uint32_t allocated) noexcept nogil:
    """READ TOC: format 0, the track and the lead-out; format 1, the one session."""
    cdef int form = cdb[2] & 15 if cdb[2] & 15 else cdb[9] >> 6, n = 4
    cdef bint msf = cdb[1] & 2
    if form > 1 or (form == 0 and cdb[6] > 1 and cdb[6] != LEAD_OUT):
        packet_fail(c, ILLEGAL_REQUEST, 0x24)    # invalid field
        return
    memset(c.data, 0, 20)
    if form == 1 or cdb[6] <= 1:
        c.data[n + 1] = 0x14                     # a data track
        c.data[n + 2] = 1
        disc_address(c.data + n + 4, 0, msf)
        n += 8
    if form == 0:
        c.data[n + 1] = 0x14
        c.data[n + 2] = LEAD_OUT
        disc_address(c.data + n + 4, <uint32_t>c.drive[c.unit].sectors, msf)
        n += 8
    c.data[1] = n - 2
    c.data[2] = c.data[3] = 1                    # first and last track, or session
    packet_reply(c, n, allocated)

cdef inline void packet_mode_sense(Channel* c, int page, uint32_t allocated) noexcept nogil:
    """MODE SENSE(10): page 01 (error recovery) and 2A (capabilities: it reads discs), current values."""
    cdef uint8_t* p = c.data + 8
    cdef int n = 0
    memset(c.data, 0, 64)
    if page == 0x01 or page == 0x3F:
        p[0] = 0x01
        p[1] = 6
        p[3] = 5                                 # retries
        n = 8
    if page == 0x2A or page == 0x3F:
        p[n] = 0x2A
        p[n + 1] = 18
        p[n + 2] = 0x3B                          # reads CD-R, CD-RW, DVD-ROM, DVD-R
        p[n + 4] = 0x70                          # mode 2 forms 1 and 2, multisession
        p[n + 6] = 0x29                          # tray, can be locked and opened
        p[n + 8] = p[n + 14] = 0x02              # 4x, in kB/s
        p[n + 9] = p[n + 15] = 0xC2
        p[n + 13] = 0x80                         # KiB of buffer
        n += 20
    if n == 0:
        packet_fail(c, ILLEGAL_REQUEST, 0x24)
        return
    c.data[1] = 6 + n
    c.data[2] = 0x01                             # a data disc
    packet_reply(c, 8 + n, allocated)

cdef inline void packet_configuration(Channel* c, uint32_t allocated) noexcept nogil:
    """GET CONFIGURATION: the profile list with CD-ROM, and the core feature."""
    memset(c.data, 0, 24)
    c.data[3] = 20
    c.data[7] = 0x08                             # current profile
    c.data[10] = 0x03                            # feature 0, persistent and current
    c.data[11] = 4
    c.data[13] = 0x08
    c.data[14] = 1
    c.data[17] = 0x01                            # feature 1, on ATAPI
    c.data[18] = 0x03
    c.data[19] = 4
    c.data[23] = 2
    packet_reply(c, 24, allocated)

cdef inline void packet_event(Channel* c, const uint8_t* cdb) noexcept nogil:
    """GET EVENT STATUS NOTIFICATION, polled: the disc is there, as before."""
    if not cdb[1] & 1:
        packet_fail(c, ILLEGAL_REQUEST, 0x24)
        return
    memset(c.data, 0, 8)
    c.data[3] = 0x10                             # classes that there are: media
    if cdb[4] & 0x10:
        c.data[1] = 6
        c.data[2] = 4
        c.data[5] = 2
        packet_reply(c, 8, be16(cdb + 7))
        return
    c.data[1] = 2
    c.data[2] = 0x80                             # none of the classes asked for
    packet_reply(c, 4, be16(cdb + 7))

cdef inline void packet_command(Channel* c) noexcept nogil:
    """The 12 bytes are in the buffer."""
    cdef uint8_t cdb[PACKET_BYTES]
    cdef int op
    memcpy(cdb, c.data, PACKET_BYTES)
    channel_idle(c)
    c.packet = 1
    op = cdb[0]
    if op == 0x03:
        packet_sense(c, cdb[4])
        return
    if op == 0x12:
        packet_inquiry(c, be16(cdb + 3))
        return
    memset(c.drive[c.unit].sense, 0, 3)
    if op == 0x28:
        packet_read(c, be32(cdb + 2), be16(cdb + 7))
    elif op == 0xA8:
        packet_read(c, be32(cdb + 2), be32(cdb + 6))
    elif op == 0x25:
        packet_capacity(c)
    elif op == 0x43:
        packet_toc(c, cdb, be16(cdb + 7))
    elif op == 0x5A:
        packet_mode_sense(c, cdb[2] & 0x3F, be16(cdb + 7))
    elif op == 0x46:
        packet_configuration(c, be16(cdb + 7))
    elif op == 0x4A:
        packet_event(c, cdb)
    elif op == 0x00 or op == 0x1B or op == 0x1E or op == 0x2B:   # ready; start, stop, tray; lock; seek
        packet_good(c)
    else:
        packet_fail(c, ILLEGAL_REQUEST, 0x20)    # no such command
