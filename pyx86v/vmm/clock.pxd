# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clocks, which all derive from machine time.

`--clock cycles`: machine time is the ledger's cycles.  `--clock instructions`: the guest's retired instructions times
INSTRUCTION_CYCLES, plus a constant for each access to a device and each RDTSC, plus what HLT skipped, the same under every
style.  Without the constants a loop that polls a timer until some moment would run up to a thousand times as often as on a PC.

What a clock of the guest shows of it is a policy of the monitor's (ClockPolicy): machine time as it is, at another rate, or without
what the monitor took.  There is one policy for the timers (8254, MC146818, ACPI and local APIC timer), whose time is "guest time",
and one for the time stamp counter, which also has an offset.  Under `--clock instructions` the monitor takes no time, so that
hiding changes nothing.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport EMULATION, ENTRY, EXIT, SHADOW, UNITS_PER_CYCLE, VMCS, WORLD_SWITCH, Ledger
from pyx86v.devices.clock cimport NEVER, scale_down, scale_up
from pyx86v.devices.platform cimport platform_next_event
from pyx86v.vmm.guest cimport ClockPolicy, Guest

cdef enum:
    INSTRUCTION_CYCLES = 1     # guest cycles an instruction stands for under --clock instructions,
    PORT_CYCLES = 2800         # an access to a port: 0.8 us at 3.4 GHz (skylake.toml, port_in),
    MMIO_CYCLES = 700          # one to a memory-mapped device: 0.2 us (mmio_read),
    TSC_CYCLES = 25            # RDTSC and RDTSCP (uops.info, Skylake)
    FARTHEST_BITS = 54         # of a moment in cycles: two months at 3 GHz; in units it stays below what a snapshot may hold

cdef inline uint64_t monitor_units(const Ledger* l) noexcept nogil:
    """Time that went to the monitor and to the ways to it and back, for whichever guest: what `hidden` hides."""
    return (l.by[<int>EXIT] + l.by[<int>ENTRY] + l.by[<int>VMCS] + l.by[<int>EMULATION] + l.by[<int>SHADOW] +
            l.by[<int>WORLD_SWITCH])

cdef inline uint64_t clock_units(const Guest* g, const ClockPolicy* p) noexcept nogil:
    """Units of 1/64 cycle that have passed for a clock, before its rate."""
    if g.clock_instructions:
        return ((g.ledger.instructions - g.elsewhere) * <uint64_t>INSTRUCTION_CYCLES + g.skipped) * <uint64_t>UNITS_PER_CYCLE
    return g.ledger.total - monitor_units(g.ledger) if p.hidden else g.ledger.total

cdef inline uint64_t clock_time(const Guest* g, const ClockPolicy* p) noexcept nogil:
    """What a clock shows, in its own cycles; never goes back."""
    cdef uint64_t cycles = clock_units(g, p) // <uint64_t>UNITS_PER_CYCLE
    return cycles if p.numerator == p.denominator else scale_down(cycles, p.numerator, p.denominator)

cdef inline uint64_t guest_time(const Guest* g) noexcept nogil:
    """Guest time, which the timers follow, in cycles at `frequency_hz`."""
    return clock_time(g, &g.timers)

cdef inline uint64_t tsc_time(const Guest* g) noexcept nogil:
    """The guest's time stamp counter."""
    return clock_time(g, &g.tsc) + g.vcpu.tsc_offset

cdef inline uint64_t cycles_at(const Guest* g, uint64_t due) noexcept nogil:
    """The first cycle, before the timers' rate, at which guest time is `due`; NEVER beyond 2**FARTHEST_BITS (centuries are not reached)."""
    cdef uint64_t cycles = due
    if g.timers.numerator != g.timers.denominator:
        cycles = scale_up(due, g.timers.denominator, g.timers.numerator)
    return cycles if cycles >> FARTHEST_BITS == 0 else NEVER

cdef inline uint64_t next_event(const Guest* g) noexcept nogil:
    """Guest time of the platform's next event; NEVER."""
    cdef uint64_t due = platform_next_event(g.platform, guest_time(g))
    return due if cycles_at(g, due) != NEVER else NEVER

cdef inline uint64_t units_until(const Guest* g, uint64_t due) noexcept nogil:
    """Units of machine time from now until guest time comes to `due`, if the monitor takes nothing meanwhile; 0 when it has come.
    `due` is one that next_event() gave, or earlier."""
    cdef uint64_t at = cycles_at(g, due) * <uint64_t>UNITS_PER_CYCLE, now = clock_units(g, &g.timers)
    return at - now if at > now else 0

cdef inline void time_passes(Guest* g, uint64_t cycles) noexcept nogil:
    """Something takes so long under --clock instructions; under the other clock it has been charged.

    Whoever calls it lets the engine look at the next event anew (after_device, after_event)."""
    if g.clock_instructions:
        g.skipped += cycles
