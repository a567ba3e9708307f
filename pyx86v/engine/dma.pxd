# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory as devices see it: the guest's RAM.  The A20 gate, TLBs and page tables lie on the processor's side."""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from pyx86v.arch.types cimport hpa_t
from pyx86v.devices.bus cimport Bus
from pyx86v.engine.engine cimport engine_changed_memory
from pyx86v.engine.state cimport Engine
from pyx86v.mmu.memory cimport Window, ram_read_bytes, ram_write_bytes

cdef inline uint64_t ram_part(const Window* w, uint64_t gpa, uint64_t n, hpa_t* at) noexcept nogil:
    """How many of the `n` bytes from `gpa` on are RAM, and where in the machine."""
    at[0] = w.base + gpa
    return 0 if gpa >= w.size else min(n, w.size - gpa)

cdef inline void dma_read(void* owner, uint64_t gpa, void* data, uint64_t n) noexcept nogil:
    cdef Engine* e = <Engine*>owner
    cdef hpa_t at
    cdef uint64_t part = ram_part(&e.world.window, gpa, n, &at)
    ram_read_bytes(&e.ram, at, data, part)
    memset(<char*>data + part, 0xFF, <size_t>(n - part))

cdef inline void dma_write(void* owner, uint64_t gpa, const void* data, uint64_t n) noexcept nogil:
    """Translated code and shadow tables there are brought up to date."""
    cdef Engine* e = <Engine*>owner
    cdef hpa_t at
    cdef uint64_t part = ram_part(&e.world.window, gpa, n, &at)
    if part and ram_write_bytes(&e.ram, at, data, part):
        engine_changed_memory(e, at, part)

cdef inline void bus_connect(Engine* e, Bus* bus) noexcept nogil:
    """Devices work for the world in front, which is the one whose ports are used."""
    bus.owner = e
    bus.read = dma_read
    bus.write = dma_write
