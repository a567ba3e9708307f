# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's nested tables: guest-physical memory at its place in the machine, readable, writable and executable.

EPT and NPT entries have the same shape: a frame, three rights in bits 2:0 (all clear: not present), bit 7 for a large
page.  They differ in the memory type, which EPT keeps in the leaf.  All of the guest's memory is mapped before the
guest runs, in pages as large as the option allows; everything else is not present, so that an access to a device's
page exits.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport EPT_PS, EPT_RWX, FRAME_MASK
from pyx86v.arch.types cimport PAGE_SIZE, gpa_t, hpa_t
from pyx86v.mmu.memory cimport Ram, Window, ram_pointer, ram_read64, ram_write64

cdef enum:
    NESTED_READ_EXEC = 5     # EPT: R and X.  NPT: P and U, without W
    FIRMWARE_TABLES = 9      # a PD and eight PTs: 16 MiB below 4 GiB

ctypedef struct NestedMap:
    hpa_t root
    hpa_t next               # first free page of the monitor's memory
    hpa_t end
    uint64_t kind            # what a leaf has besides its frame and rights

cdef inline hpa_t map_page(NestedMap* m, const Ram* ram) noexcept nogil:
    """A zeroed page of the monitor's memory, or 0 when it is used up."""
    cdef hpa_t at = m.next
    if at + PAGE_SIZE > m.end or ram_pointer(ram, at, PAGE_SIZE) == NULL:
        return 0
    memset(ram_pointer(ram, at, PAGE_SIZE), 0, PAGE_SIZE)
    m.next = at + PAGE_SIZE
    return at

cdef inline hpa_t map_entry(NestedMap* m, const Ram* ram, gpa_t gpa, int leaf_level) noexcept nogil:
    """The place of the entry that maps `gpa` at `leaf_level`, its tables made as needed; 0: no memory, or a
    larger page is in the way."""
    cdef hpa_t table = m.root, at = 0
    cdef uint64_t e = 0
    cdef int level
    for level in range(4, leaf_level, -1):
        at = table + 8 * (gpa >> (3 + 9 * level) & 511)
        ram_read64(ram, at, &e)
        if e & EPT_PS and level < 4:
            return 0
        if not e & EPT_RWX:
            e = map_page(m, ram)
            if e == 0:
                return 0
            ram_write64(ram, at, e | EPT_RWX)
        table = e & FRAME_MASK
    return table + 8 * (gpa >> (3 + 9 * leaf_level) & 511)

cdef inline int largest_leaf(const Window* w, gpa_t gpa, int limit) noexcept nogil:
    """The largest page that starts at `gpa`, aligned in both address spaces and whole inside the window."""
    cdef int level
    cdef uint64_t size
    for level in range(limit, 1, -1):
        size = <uint64_t>1 << (3 + 9 * level)
        if (gpa | w.base) & (size - 1) == 0 and gpa + size <= w.size:
            return level
    return 1

cdef inline int map_leaf(NestedMap* m, const Ram* ram, gpa_t gpa, hpa_t to, int level, uint64_t rights) noexcept nogil:
    """Map one page.  0, or -1: no room for tables."""
    cdef hpa_t at = map_entry(m, ram, gpa, level)
    if at == 0:
        return -1
    ram_write64(ram, at, to | rights | m.kind | (EPT_PS if level > 1 else 0))
    return 0

cdef inline int map_build(NestedMap* m, const Ram* ram, const Window* w, int limit) noexcept nogil:
    """Map all of the guest's memory in pages of at most `limit` (1 4K, 2 2M, 3 1G), and its firmware below 4 GiB, without
    the right to write, in 4 KB pages.  0, or -1: no room."""
    cdef gpa_t gpa = 0
    cdef uint64_t off = 0
    cdef int level
    while gpa < w.size:
        level = largest_leaf(w, gpa, limit)
        if map_leaf(m, ram, gpa, w.base + gpa, level, EPT_RWX) != 0:
            return -1
        gpa += <uint64_t>1 << (3 + 9 * level)
    while off < w.rom_size:
        if map_leaf(m, ram, w.rom_gpa + off, w.rom_base + off, 1, NESTED_READ_EXEC) != 0:
            return -1
        off += PAGE_SIZE
    return 0

cdef inline int map_fill(NestedMap* m, const Ram* ram, const Window* w, gpa_t gpa) noexcept nogil:
    """Map the page that an access lacked, if the guest has memory there.  0, or -1: there is none, or it was mapped."""
    cdef hpa_t at
    cdef uint64_t e = 0
    gpa &= ~<uint64_t>(PAGE_SIZE - 1)
    if gpa >= w.size:
        return -1
    at = map_entry(m, ram, gpa, 1)
    if at == 0 or not ram_read64(ram, at, &e) or e & EPT_RWX:
        return -1
    return map_leaf(m, ram, gpa, w.base + gpa, 1, EPT_RWX)

cdef inline uint64_t map_pages(uint64_t guest_bytes) noexcept nogil:
    """Pages of tables that 4 KB leaves need: one page for each level's span, and what firmware needs."""
    cdef uint64_t n = 1 + FIRMWARE_TABLES
    cdef int level
    for level in range(3, 0, -1):
        n += (guest_bytes + (<uint64_t>1 << (12 + 9 * level)) - 1) >> (12 + 9 * level)
    return n
