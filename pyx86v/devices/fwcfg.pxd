# SPDX-License-Identifier: GPL-2.0-or-later
"""fw_cfg: what the machine tells its firmware.  Ports 510h (selector), 511h (data), 514h to 51Bh (DMA address).

Source: QEMU docs/specs/fw_cfg.  The items are the host's (boot/fwcfg.py makes them); without items nothing answers.
A DMA transfer is done when the low half of its address has been written.  Items are read-only.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.devices.bus cimport Bus

cdef enum:
    FWCFG_ITEMS = 64
    FWCFG_LONGEST = 16 << 20 # bytes of one transfer; a longer one is refused
    FWCFG_PIECE = 4096
    DMA_ERROR = 1            # bits of a transfer's control word
    DMA_READ = 2
    DMA_SKIP = 4
    DMA_SELECT = 8
    DMA_WRITE = 16

ctypedef struct FwCfg:       # the chip
    uint32_t key
    uint32_t offset          # in the item
    uint64_t dma_address

ctypedef struct FwItem:
    uint32_t key
    uint32_t offset          # in FwItems.data
    uint32_t size_bytes

ctypedef struct FwItems:     # the host's side
    uint8_t* data
    uint32_t count
    FwItem item[FWCFG_ITEMS]

cdef inline const FwItem* item_find(const FwItems* items, uint32_t key) noexcept nogil:
    cdef uint32_t i
    for i in range(items.count):
        if items.item[i].key == key:
            return &items.item[i]
    return NULL

cdef inline void item_read(FwCfg* f, const FwItems* items, uint8_t* out, uint32_t n) noexcept nogil:
    """The selected item's next `n` bytes; zeros behind its end."""
    cdef const FwItem* item = item_find(items, f.key)
    cdef uint32_t left = 0
    if item is not NULL and f.offset < item.size_bytes:
        left = min(n, item.size_bytes - f.offset)
        memcpy(out, items.data + item.offset + f.offset, left)
        f.offset += left
    memset(out + left, 0, n - left)

cdef inline uint64_t big_endian(const uint8_t* bytes, int n) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(n):
        value = value << 8 | bytes[i]
    return value

cdef inline void fwcfg_transfer(FwCfg* f, const FwItems* items, const Bus* bus) noexcept nogil:
    """One FWCfgDmaAccess: control, length, address, big-endian; the control word is written back, 0 or DMA_ERROR."""
    cdef uint8_t piece[FWCFG_PIECE]
    cdef uint64_t at = f.dma_address, target
    cdef uint32_t control, left, n
    cdef bint refused
    f.dma_address = 0
    bus.read(bus.owner, at, piece, 16)
    control = <uint32_t>big_endian(piece, 4)
    left = <uint32_t>big_endian(piece + 4, 4)
    target = big_endian(piece + 8, 8)
    if control & DMA_SELECT:
        f.key = control >> 16
        f.offset = 0
    refused = control & DMA_WRITE != 0 or left > FWCFG_LONGEST
    while left and not refused and control & (DMA_READ | DMA_SKIP):
        n = min(left, <uint32_t>FWCFG_PIECE)
        item_read(f, items, piece, n)
        if control & DMA_READ:
            bus.write(bus.owner, target, piece, n)
        target += n
        left -= n
    memset(piece, 0, 4)
    piece[3] = DMA_ERROR if refused else 0
    bus.write(bus.owner, at, piece, 4)

cdef inline uint32_t fwcfg_in(FwCfg* f, const FwItems* items, uint16_t port, int size_bytes) noexcept nogil:
    """Ports 510h to 51Bh.  The DMA register reads as its signature, "QEMU CFG"."""
    cdef uint8_t signature[8]
    cdef uint8_t byte
    cdef uint32_t value = 0xFFFFFFFFU
    cdef int i
    if items.count == 0:
        return value
    if port == 0x511:
        item_read(f, items, &byte, 1)
        return byte | (value << 8)
    if port >= 0x514:
        memcpy(signature, <const char*>b"QEMU CFG", 8)
        for i in range(min(size_bytes, 0x51C - port)):
            value &= ~(<uint32_t>0xFF << (8 * i))
            value |= <uint32_t>signature[port - 0x514 + i] << (8 * i)
    return value

cdef inline void fwcfg_out(FwCfg* f, const FwItems* items, const Bus* bus, uint16_t port, int size_bytes, uint32_t value) noexcept nogil:
    cdef uint64_t swapped = value >> 24 | (value >> 8 & 0xFF00) | (value & 0xFF00) << 8 | (value & 0xFF) << 24
    if items.count == 0:
        return
    if port == 0x510 and size_bytes == 2:
        f.key = value
        f.offset = 0
    elif port == 0x514 and size_bytes == 4:
        f.dma_address = swapped << 32
    elif port == 0x518 and size_bytes == 4:
        f.dma_address |= swapped
        fwcfg_transfer(f, items, bus)
