# SPDX-License-Identifier: GPL-2.0-or-later
"""One way into the monitor and back: a fault through the monitor's own IDT, and its IRET.

A call-out of translated code (vmm/bt) is another way in, with one price for both directions.
Prices: TRAP_EXIT is the processor's delivery to ring 0, TRAP_RETURN the IRET; the monitor's work lies between.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport *
from pyx86v.vmm.guest cimport ExitCount, Guest

cdef inline void exit_opens(Guest* g, int kind) noexcept nogil:
    """Count an exit, without a price."""
    g.vcpu.exit_started = g.ledger.total
    g.vcpu.exits[kind].count += 1
    g.vcpu.exit_total += 1

cdef inline void trap_exit(Guest* g, int kind) noexcept nogil:
    """The guest leaves for the monitor."""
    exit_opens(g, kind)
    charge(g.ledger, EXIT, BT_CALLOUT if g.vcpu.ring.callout else TRAP_EXIT)

cdef inline void trap_return(Guest* g, int kind) noexcept nogil:
    """Back to the guest."""
    if not g.vcpu.ring.callout:
        charge(g.ledger, ENTRY, TRAP_RETURN)
    exit_closes(g, kind)

cdef inline void exit_closes(Guest* g, int kind) noexcept nogil:
    """Everything since exit_opens is the exit's."""
    cdef ExitCount* c = &g.vcpu.exits[kind]
    cdef uint64_t units, cycles
    units = g.ledger.total - g.vcpu.exit_started
    cycles = units // <uint64_t>UNITS_PER_CYCLE
    c.units += units
    c.squares += cycles * cycles
    if c.least == 0 or units < c.least:
        c.least = units
    if units > c.most:
        c.most = units

cdef inline void emulated(Guest* g, int price) noexcept nogil:
    """The monitor decodes the guest's instruction, unless the translator has, and carries it out."""
    if not g.vcpu.ring.callout:
        charge(g.ledger, EMULATION, EMUL_DECODE)
    charge(g.ledger, EMULATION, price)
