# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine memory: the only code that turns an address into a pointer.

An access outside RAM reads all ones and writes nothing, as on a bus where no device answers.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy
from pyx86v.arch.types cimport gpa_t, hpa_t
from pyx86v.mmu.cache cimport Caches

cdef extern from *:
    """
    #define PYX_HPA_NONE 0xffffffffffffffffULL
    """
    const hpa_t HPA_NONE "PYX_HPA_NONE"   # no such machine address; every access to it is out of range

ctypedef struct Ram:     # holds a pointer: never part of saved state
    uint8_t* base
    uint64_t size        # bytes, a multiple of PAGE_SIZE
    Caches* caches       # data caches before it; NULL: not modelled

ctypedef struct Window:  # a world's guest-physical memory inside the machine's RAM
    hpa_t base           # bytes
    uint64_t size        # bytes, a multiple of PAGE_SIZE
    uint64_t a20_mask    # ANDed to every guest-physical address: all ones, or without bit 20 (A20 off)
    gpa_t rom_gpa        # firmware below 4 GiB: read-only
    uint64_t rom_size    # bytes, a multiple of PAGE_SIZE; 0 = none
    hpa_t rom_base

cdef inline bint ram_holds(const Ram* ram, hpa_t at, uint64_t n) noexcept nogil:
    return n <= ram.size and at <= ram.size - n

cdef inline uint8_t* ram_pointer(const Ram* ram, hpa_t at, uint64_t n) noexcept nogil:
    """Pointer to `n` bytes at `at`, or NULL when they do not all lie in RAM."""
    return ram.base + at if ram_holds(ram, at, n) else NULL

cdef inline bint ram_read_bytes(const Ram* ram, hpa_t at, void* out, uint64_t n) noexcept nogil:
    """Copy out of RAM; False and nothing copied when out of range."""
    if not ram_holds(ram, at, n):
        return False
    memcpy(out, ram.base + at, n)
    return True

cdef inline bint ram_write_bytes(const Ram* ram, hpa_t at, const void* data, uint64_t n) noexcept nogil:
    """Copy into RAM; False and nothing copied when out of range."""
    if not ram_holds(ram, at, n):
        return False
    memcpy(ram.base + at, data, n)
    return True

cdef inline bint ram_read8(const Ram* ram, hpa_t at, uint8_t* out) noexcept nogil:
    out[0] = 0xff
    return ram_read_bytes(ram, at, out, 1)

cdef inline bint ram_read16(const Ram* ram, hpa_t at, uint16_t* out) noexcept nogil:
    out[0] = 0xffff
    return ram_read_bytes(ram, at, out, 2)

cdef inline bint ram_read32(const Ram* ram, hpa_t at, uint32_t* out) noexcept nogil:
    out[0] = 0xffffffffU
    return ram_read_bytes(ram, at, out, 4)

cdef inline bint ram_read64(const Ram* ram, hpa_t at, uint64_t* out) noexcept nogil:
    out[0] = ~<uint64_t>0
    return ram_read_bytes(ram, at, out, 8)

cdef inline bint ram_write8(const Ram* ram, hpa_t at, uint8_t value) noexcept nogil:
    return ram_write_bytes(ram, at, &value, 1)

cdef inline bint ram_write16(const Ram* ram, hpa_t at, uint16_t value) noexcept nogil:
    return ram_write_bytes(ram, at, &value, 2)

cdef inline bint ram_write32(const Ram* ram, hpa_t at, uint32_t value) noexcept nogil:
    return ram_write_bytes(ram, at, &value, 4)

cdef inline bint ram_write64(const Ram* ram, hpa_t at, uint64_t value) noexcept nogil:
    return ram_write_bytes(ram, at, &value, 8)

cdef inline hpa_t window_hpa(const Window* w, gpa_t gpa) noexcept nogil:
    """Machine address of a guest-physical address, or HPA_NONE where the world has no RAM."""
    gpa &= w.a20_mask
    if gpa < w.size:
        return w.base + gpa
    if gpa - w.rom_gpa < w.rom_size:
        return w.rom_base + (gpa - w.rom_gpa)
    return HPA_NONE

cdef inline bint window_is_rom(const Window* w, hpa_t at) noexcept nogil:
    """Is this machine address part of the world's firmware, which stores do not change?"""
    return at - w.rom_base < w.rom_size
