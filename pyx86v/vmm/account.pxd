# SPDX-License-Identifier: GPL-2.0-or-later
"""The account of a style's exits: how many of each kind, and everything that was booked from exit to entry.

Time that HLT skipped is not part of the exit that began it.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport DEVICE, IDLE, Ledger, PORT_IN, PORT_OUT, UNITS_PER_CYCLE, charge
from pyx86v.vmm.guest cimport EV_PORT_IN, Event, ExitCount, Guest

cdef inline uint64_t busy_units(const Ledger* l) noexcept nogil:
    """The ledger's clock without the time that HLT skipped: what exits are measured with."""
    return l.total - l.by[<int>IDLE]

cdef inline void exit_begins(Guest* g, int kind) noexcept nogil:
    g.vcpu.exit_started = busy_units(g.ledger)
    g.vcpu.exits[kind].count += 1
    g.vcpu.exit_total += 1

cdef inline void exit_ends(Guest* g, int kind) noexcept nogil:
    """Book everything since the exit began to its kind."""
    cdef ExitCount* c = &g.vcpu.exits[kind]
    cdef uint64_t units = busy_units(g.ledger) - g.vcpu.exit_started
    cdef uint64_t cycles = units // <uint64_t>UNITS_PER_CYCLE
    c.units += units
    c.squares += cycles * cycles
    if c.least == 0 or units < c.least:
        c.least = units
    if units > c.most:
        c.most = units

cdef inline int access_port(Guest* g, Event* e) noexcept nogil:
    """The access itself, booked to the device."""
    charge(g.ledger, DEVICE, PORT_IN if e.kind == EV_PORT_IN else PORT_OUT)
    return g.port_in(g, e) if e.kind == EV_PORT_IN else g.port_out(g, e)
