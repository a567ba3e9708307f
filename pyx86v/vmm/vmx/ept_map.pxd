# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's EPT: guest-physical memory at its place in the machine, write-back, readable, writable and executable.

The tables lie in the monitor's memory, behind the guest's window.  All of the guest's memory is mapped
before the guest runs, in pages as large as the option allows; everything else is not present, so that an
access to a device's page exits.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport EPT_PS, EPT_R, EPT_RWX, EPT_X, FRAME_MASK
from pyx86v.arch.types cimport PAGE_SIZE, gpa_t, hpa_t
from pyx86v.mmu.invalidate cimport INVEPT_CONTEXT, mmu_invept
from pyx86v.mmu.memory cimport Window, ram_pointer, ram_read64, ram_write64
from pyx86v.vmm.guest cimport Guest
from pyx86v.vmm.vmx.state cimport *

cdef enum:
    EPT_WRITE_BACK = 6       # memory type: bits 2:0 of the EPT pointer, 5:3 of a leaf (24.6.11, 28.3.2)
    EPT_WALK_4 = 3 << 3      # walk length - 1
    FIRMWARE_TABLES = 9      # a PD and eight PTs: 16 MiB below 4 GiB

cdef inline hpa_t monitor_page(Guest* g) noexcept nogil:
    """A zeroed page of the monitor's memory, or 0 when it is used up."""
    cdef Vmx* x = vmx_of(g)
    cdef hpa_t at = x.next_table
    if at + PAGE_SIZE > x.monitor_end or ram_pointer(g.ram, at, PAGE_SIZE) == NULL:
        return 0
    memset(ram_pointer(g.ram, at, PAGE_SIZE), 0, PAGE_SIZE)
    x.next_table = at + PAGE_SIZE
    return at

cdef inline hpa_t ept_entry(Guest* g, gpa_t gpa, int leaf_level) noexcept nogil:
    """The place of the entry that maps `gpa` at `leaf_level`, its tables made as needed; 0: no memory, or a
    larger page is in the way."""
    cdef hpa_t table = field_get(&vmx_of(g).vmcs, EPT_POINTER) & FRAME_MASK, at = 0
    cdef uint64_t e = 0
    cdef int level
    for level in range(4, leaf_level, -1):
        at = table + 8 * (gpa >> (3 + 9 * level) & 511)
        ram_read64(g.ram, at, &e)
        if e & EPT_PS and level < 4:
            return 0
        if not e & EPT_RWX:
            e = monitor_page(g)
            if e == 0:
                return 0
            ram_write64(g.ram, at, e | EPT_RWX)
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

cdef inline int ept_map(Guest* g, gpa_t gpa, int level) noexcept nogil:
    """Map one page of the guest's memory.  0, or -1: no room for tables."""
    cdef hpa_t at = ept_entry(g, gpa, level)
    if at == 0:
        return -1
    ram_write64(g.ram, at, (g.vcpu.paging.window.base + gpa) | EPT_RWX | EPT_WRITE_BACK << 3 | (EPT_PS if level > 1 else 0))
    return 0

cdef inline int ept_build(Guest* g, int limit) noexcept nogil:
    """Map all of the guest's memory in pages of at most `limit` (1 4K, 2 2M, 3 1G).  0, or -1: no room."""
    cdef const Window* w = &g.vcpu.paging.window
    cdef gpa_t gpa = 0
    cdef int level
    while gpa < w.size:
        level = largest_leaf(w, gpa, limit)
        if ept_map(g, gpa, level) != 0:
            return -1
        gpa += <uint64_t>1 << (3 + 9 * level)
    return ept_map_firmware(g, w)

cdef inline int ept_map_firmware(Guest* g, const Window* w) noexcept nogil:
    """Firmware below 4 GiB: readable and executable, in 4 KB pages.  0, or -1: no room."""
    cdef uint64_t off = 0
    cdef hpa_t at
    while off < w.rom_size:
        at = ept_entry(g, w.rom_gpa + off, 1)
        if at == 0:
            return -1
        ram_write64(g.ram, at, (w.rom_base + off) | EPT_R | EPT_X | EPT_WRITE_BACK << 3)
        off += PAGE_SIZE
    return 0

cdef inline int ept_fill(Guest* g, gpa_t gpa) noexcept nogil:
    """Map the page of an EPT violation, if the guest has memory there.  0, or -1: there is none, or it was mapped."""
    cdef hpa_t at
    cdef uint64_t e = 0
    gpa &= ~<uint64_t>(PAGE_SIZE - 1)
    if gpa >= g.vcpu.paging.window.size:
        return -1
    at = ept_entry(g, gpa, 1)
    if at == 0 or not ram_read64(g.ram, at, &e) or e & EPT_RWX:
        return -1
    if ept_map(g, gpa, 1) != 0:
        return -1
    mmu_invept(g.mmu, INVEPT_CONTEXT, field_get(&vmx_of(g).vmcs, EPT_POINTER))
    g.cpu.flush(g.cpu)
    return 0

cdef inline uint64_t ept_pages(uint64_t guest_bytes) noexcept nogil:
    """Pages of tables that 4 KB leaves need: one page for each level's span, and what firmware needs."""
    cdef uint64_t n = 1 + FIRMWARE_TABLES
    cdef int level
    for level in range(3, 0, -1):
        n += (guest_bytes + (<uint64_t>1 << (12 + 9 * level)) - 1) >> (12 + 9 * level)
    return n
