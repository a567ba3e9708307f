# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the devices: what the guest said and what it will be told, its disks' content, the way to its memory.

This is the only part of the devices with pointers, so it is not part of a saved state.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from pyx86v.devices.bus cimport Bus
from pyx86v.devices.fwcfg cimport FwItems
from pyx86v.devices.storage cimport MAX_DISKS, Disk, disk_close

cdef enum:
    PROBE_LIMIT = 1 << 20    # bytes of edges: 26,214
    SINK_LIMIT = 67108864    # bytes a buffer holds; what comes later is counted and dropped

ctypedef struct Buffer:
    uint8_t* data
    uint64_t size            # bytes held
    uint64_t room            # bytes allocated
    uint64_t limit           # bytes it may hold
    uint64_t dropped         # bytes that came beyond the limit, or without memory

ctypedef struct Sinks:
    Buffer console           # COM1, transmitted
    Buffer debug             # port 0xe9
    Buffer report            # port 0xe8: 4 bytes a word, little-endian
    Buffer input             # COM1, to be received; Uart.received says how far the guest has read
    Buffer probe             # ProbeEdge of each edge of the probed line (parallel.pxd)
    Buffer keys              # scan codes of set 1 to be typed; Keyboard.typed says how far they are
    Disk disk[MAX_DISKS]     # by place: master and slave of the first channel, of the second
    FwItems firmware         # what fw_cfg has
    Bus bus

cdef inline bint buffer_grow(Buffer* b, uint64_t size) noexcept nogil:
    """Make room for `size` bytes in all, at least doubling.  False: over the limit or no memory."""
    cdef uint64_t room = b.room * 2 if b.room else 4096
    cdef void* data
    if size > b.limit:
        return False
    if room < size:
        room = size
    if room > b.limit:
        room = b.limit
    data = realloc(b.data, <size_t>room)
    if data == NULL:
        return False
    b.data = <uint8_t*>data
    b.room = room
    return True

cdef inline bint buffer_append(Buffer* b, const void* data, uint64_t size) noexcept nogil:
    """All of `data` or nothing of it: False when it was dropped."""
    if size == 0:
        return True
    if size > b.room - b.size and (size > b.limit - b.size or not buffer_grow(b, b.size + size)):
        b.dropped += size
        return False
    memcpy(b.data + b.size, data, <size_t>size)
    b.size += size
    return True

cdef inline void buffer_put(Buffer* b, uint8_t byte) noexcept nogil:
    if b.size == b.room and not buffer_grow(b, b.size + 1):
        b.dropped += 1
        return
    b.data[b.size] = byte
    b.size += 1

cdef inline void sinks_init(Sinks* s) noexcept nogil:
    memset(s, 0, sizeof(Sinks))
    s.console.limit = s.debug.limit = s.report.limit = s.input.limit = s.keys.limit = SINK_LIMIT
    s.probe.limit = PROBE_LIMIT

cdef inline void sinks_free(Sinks* s) noexcept nogil:
    cdef int i
    free(s.console.data)
    free(s.debug.data)
    free(s.report.data)
    free(s.input.data)
    free(s.keys.data)
    free(s.probe.data)
    free(s.firmware.data)
    for i in range(MAX_DISKS):
        disk_close(&s.disk[i])
    sinks_init(s)
