# SPDX-License-Identifier: GPL-2.0-or-later
"""How a device reaches the guest's memory: two functions of the engine, which drop stale translations.

    read(owner, address, data, bytes)     bytes that are not RAM read as all ones
    write(owner, address, data, bytes)    and are dropped when written
"""
from libc.stdint cimport uint64_t

ctypedef struct Bus:
    void* owner
    void (*read)(void* owner, uint64_t gpa, void* data, uint64_t n) noexcept nogil
    void (*write)(void* owner, uint64_t gpa, const void* data, uint64_t n) noexcept nogil
