# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O APIC: 24 inputs, each with a redirection entry, behind an index and a window at FEC00000h.

Source: Intel 82093AA data sheet (290566).  An entry's message goes to the one local APIC; an edge that comes while its
entry is masked is lost.  As on later parts, an entry that becomes edge-triggered loses its remote IRR.
Not modelled: entries with another delivery mode than fixed and lowest priority (nothing is wired to need them).
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.devices.lapic cimport (ESR_RECEIVE_VECTOR, LOWEST_VECTOR, Lapic, destination, lapic_accept, lapic_error,
                                   lapic_is_addressed, lapic_would_interrupt)

cdef enum:
    IOAPIC_PINS = 24
    IOAPIC_VERSION = 0x11 | (IOAPIC_PINS - 1) << 16
    ENTRY_MODE = 0x700       # delivery mode: 0 fixed, 1 lowest priority
    ENTRY_LOGICAL = 1 << 11
    ENTRY_LOW = 1 << 13      # active low: only told, inputs are positive logic here
    ENTRY_REMOTE = 1 << 14   # remote IRR: a level-triggered message has not been ended yet
    ENTRY_LEVEL = 1 << 15
    ENTRY_MASKED = 1 << 16
    ENTRY_BITS = 0x1AFFF     # what software writes of the low half

cdef extern from *:
    """
    #define PYX_IOAPIC_BASE 0xFEC00000ULL
    """
    const uint64_t IOAPIC_BASE "PYX_IOAPIC_BASE"

ctypedef struct Ioapic:
    uint32_t index
    uint32_t id              # bits 27..24
    uint32_t lines           # levels of the inputs
    uint32_t low[24]         # redirection entries
    uint32_t high[24]        # destination in bits 31..24

cdef inline void ioapic_init(Ioapic* io) noexcept nogil:
    cdef int pin
    io.index = io.lines = 0
    io.id = 1 << 24                              # as firmware leaves it: the local APIC has 0
    for pin in range(IOAPIC_PINS):
        io.low[pin] = ENTRY_MASKED
        io.high[pin] = 0

cdef inline bint entry_is_for(const Ioapic* io, const Lapic* l, int pin) noexcept nogil:
    return io.low[pin] & ENTRY_MODE <= 0x100 and lapic_is_addressed(l, destination(io.high[pin] >> 24),
                                                                         io.low[pin] & ENTRY_LOGICAL)

cdef inline void entry_send(Ioapic* io, Lapic* l, int pin) noexcept nogil:
    cdef uint32_t entry = io.low[pin], vector = entry & 0xFF
    if not entry_is_for(io, l, pin):
        return
    if vector < LOWEST_VECTOR:
        lapic_error(l, ESR_RECEIVE_VECTOR)
        return
    if entry & ENTRY_LEVEL:
        io.low[pin] |= ENTRY_REMOTE
    lapic_accept(l, vector, entry & ENTRY_LEVEL)

cdef inline void entry_level(Ioapic* io, Lapic* l, int pin) noexcept nogil:
    """Send for a level-triggered input that is high, unless its last message has not been ended."""
    if io.low[pin] & (ENTRY_LEVEL | ENTRY_MASKED | ENTRY_REMOTE) == ENTRY_LEVEL and io.lines >> pin & 1:
        entry_send(io, l, pin)

cdef inline void ioapic_set_line(Ioapic* io, Lapic* l, int pin, bint level) noexcept nogil:
    """Drive an input."""
    if (io.lines >> pin & 1) == level:
        return
    io.lines ^= <uint32_t>1 << pin
    if not level:
        return
    if io.low[pin] & (ENTRY_LEVEL | ENTRY_MASKED) == 0:
        entry_send(io, l, pin)
    else:
        entry_level(io, l, pin)

cdef inline bint ioapic_wakes(const Ioapic* io, const Lapic* l, int pin) noexcept nogil:
    """Would a rise of this input interrupt the processor at once?"""
    return not io.low[pin] & ENTRY_MASKED and lapic_would_interrupt(l, io.low[pin] & 0xFF) and entry_is_for(io, l, pin)

cdef inline void ioapic_end(Ioapic* io, Lapic* l, uint32_t vector) noexcept nogil:
    """The end of a level-triggered interrupt is broadcast: every entry of that vector may send again."""
    cdef int pin
    for pin in range(IOAPIC_PINS):
        if io.low[pin] & (ENTRY_LEVEL | 0xFF) == ENTRY_LEVEL | vector:
            io.low[pin] &= ~<uint32_t>ENTRY_REMOTE
            entry_level(io, l, pin)

cdef inline uint32_t ioapic_register(const Ioapic* io) noexcept nogil:
    """The register that the index selects: 0 identification, 1 version, 2 arbitration, 10h and up the entries."""
    cdef uint32_t n = io.index - 0x10
    if io.index == 0 or io.index == 2:
        return io.id
    if io.index == 1:
        return IOAPIC_VERSION
    if n >= 2 * IOAPIC_PINS:
        return 0
    return io.high[n >> 1] if n & 1 else io.low[n >> 1]

cdef inline void entry_write(Ioapic* io, Lapic* l, int pin, uint32_t value) noexcept nogil:
    value = (value & ENTRY_BITS) | (io.low[pin] & ENTRY_REMOTE)
    if not value & ENTRY_LEVEL:
        value &= ~<uint32_t>ENTRY_REMOTE
    io.low[pin] = value
    entry_level(io, l, pin)

cdef inline uint32_t ioapic_load(const Ioapic* io, uint32_t offset) noexcept nogil:
    """The doubleword at an offset into the page."""
    return io.index if offset == 0 else ioapic_register(io) if offset == 0x10 else 0

cdef inline void ioapic_store(Ioapic* io, Lapic* l, uint32_t offset, uint32_t value) noexcept nogil:
    cdef uint32_t n = io.index - 0x10
    if offset == 0:
        io.index = value & 0xFF
    elif offset != 0x10:
        return
    elif io.index == 0:
        io.id = value & 0x0F000000
    elif n < 2 * IOAPIC_PINS:
        if n & 1:
            io.high[n >> 1] = value & 0xFF000000U
        else:
            entry_write(io, l, <int>(n >> 1), value)
