# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of disks: an image file and, over it in memory, what the guest wrote.

The host's side, with pointers: not part of a chip's state.  The file is read with pread(), so that one which shrinks while the
machine runs is a read error for the guest and no signal for the process.  Written chunks lie in memory that is reserved
for the whole disk and used by the chunk; a bitmap says which are there.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from "unistd.h" nogil:
    ssize_t pread(int fd, void* data, size_t n, int64_t at)
    ssize_t pwrite(int fd, const void* data, size_t n, int64_t at)
    int fdatasync(int fd)

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    enum:
        PROT_READ
        PROT_WRITE
        MAP_PRIVATE
        MAP_ANONYMOUS
        MAP_NORESERVE

cdef enum:
    MAX_DISKS = 4            # two channels with two drives
    CHUNK = 4096             # bytes that become the overlay's at once

ctypedef struct Disk:
    int fd                   # of the image, which Python keeps open
    bint present
    bint cdrom
    bint writes_through      # to the file; else into the overlay
    uint64_t bytes
    uint8_t* overlay         # as large as the disk; NULL when it is read-only or writes through
    uint8_t* written         # a bit for each chunk of the overlay
    uint64_t chunks          # of the overlay in use,
    uint64_t limit           # and how many there may be

cdef inline bint chunk_written(const Disk* d, uint64_t chunk) noexcept nogil:
    return d.written is not NULL and d.written[chunk >> 3] >> (chunk & 7) & 1

cdef inline bint file_read(const Disk* d, uint64_t at, void* data, uint64_t n) noexcept nogil:
    return pread(d.fd, data, <size_t>n, <int64_t>at) == <int64_t>n

cdef inline uint64_t chunk_rest(const Disk* d, uint64_t at, uint64_t n) noexcept nogil:
    """How many of the `n` bytes from `at` on lie in at's chunk."""
    cdef uint64_t rest = CHUNK - at % CHUNK
    return n if n < rest else rest

cdef inline bint disk_read(const Disk* d, uint64_t at, uint8_t* data, uint64_t n) noexcept nogil:
    """`n` bytes from byte `at` on.  False: beyond the end, or the host cannot read them."""
    cdef uint64_t part
    if n > d.bytes or at > d.bytes - n:
        return False
    if d.chunks == 0:
        return file_read(d, at, data, n)
    while n:
        part = chunk_rest(d, at, n)
        if chunk_written(d, at // CHUNK):
            memcpy(data, d.overlay + at, <size_t>part)
        elif not file_read(d, at, data, part):
            return False
        at += part
        data += part
        n -= part
    return True

cdef inline bint chunk_open(Disk* d, uint64_t chunk, bint whole) noexcept nogil:
    """Make a chunk the overlay's, with what the file has unless it will be written whole.  False: full, or unreadable."""
    cdef uint64_t at = chunk * CHUNK, n = d.bytes - at
    if chunk_written(d, chunk):
        return True
    if d.chunks >= d.limit or (not whole and not file_read(d, at, d.overlay + at, n if n < CHUNK else CHUNK)):
        return False
    d.written[chunk >> 3] |= 1 << (chunk & 7)
    d.chunks += 1
    return True

cdef inline bint disk_write(Disk* d, uint64_t at, const uint8_t* data, uint64_t n) noexcept nogil:
    """False: beyond the end, a CD-ROM, the overlay is full, or the host cannot write."""
    cdef uint64_t part
    if n > d.bytes or at > d.bytes - n or d.cdrom:
        return False
    if d.writes_through:
        return pwrite(d.fd, data, <size_t>n, <int64_t>at) == <int64_t>n
    while n:
        part = chunk_rest(d, at, n)
        if not chunk_open(d, at // CHUNK, part == CHUNK):
            return False
        memcpy(d.overlay + at, data, <size_t>part)
        at += part
        data += part
        n -= part
    return True

cdef inline bint disk_flush(const Disk* d) noexcept nogil:
    return not d.writes_through or fdatasync(d.fd) == 0

# Opening and closing ---------------------------------------------------------------------------

cdef inline bint disk_open(Disk* d, int fd, uint64_t bytes, bint cdrom, bint writes_through, uint64_t limit) noexcept nogil:
    """Use the open file `fd` of `bytes`, an image in whole sectors.  False: no memory for the overlay's tables.

    limit  bytes that the overlay may hold
    """
    memset(d, 0, sizeof(Disk))
    d.fd = fd
    d.present = True
    d.cdrom = cdrom
    d.writes_through = writes_through
    d.bytes = bytes
    d.limit = limit // CHUNK
    if cdrom or writes_through:
        return True
    d.overlay = <uint8_t*>mmap(NULL, <size_t>bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if d.overlay == <uint8_t*>-1:
        d.overlay = NULL
    d.written = <uint8_t*>calloc(<size_t>(bytes // CHUNK // 8 + 1), 1)
    return d.overlay is not NULL and d.written is not NULL

cdef inline void disk_close(Disk* d) noexcept nogil:
    if not d.present:
        return
    if d.overlay is not NULL:
        munmap(d.overlay, <size_t>d.bytes)
    free(d.written)
    memset(d, 0, sizeof(Disk))
