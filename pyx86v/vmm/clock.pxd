# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clock.  `--clock cycles`: machine cycles of the ledger.  `--clock instructions`:
the guest's retired instructions times INSTRUCTION_CYCLES, plus a constant for each access to a device and each RDTSC
and what HLT skipped, the same under every style.  Without the constants a loop that polls a timer until some moment
would run up to a thousand times as often as on a PC.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport UNITS_PER_CYCLE
from pyx86v.vmm.guest cimport Guest

cdef enum:
    INSTRUCTION_CYCLES = 1     # guest cycles an instruction stands for under --clock instructions,
    PORT_CYCLES = 2800         # an access to a port: 0.8 us at 3.4 GHz (skylake.toml, port_in),
    MMIO_CYCLES = 700          # one to a memory-mapped device: 0.2 us (mmio_read),
    TSC_CYCLES = 25            # RDTSC and RDTSCP (uops.info, Skylake)

cdef inline uint64_t guest_time(const Guest* g) noexcept nogil:
    """Guest time in cycles at `frequency_hz`; never goes back."""
    if g.clock_instructions:
        return (g.ledger.instructions - g.elsewhere) * <uint64_t>INSTRUCTION_CYCLES + g.skipped
    return g.ledger.total // <uint64_t>UNITS_PER_CYCLE

cdef inline void time_passes(Guest* g, uint64_t cycles) noexcept nogil:
    """Something takes so long under --clock instructions; under the other clock it has been charged.

    Whoever calls it lets the engine look at the next event anew (after_device, after_event)."""
    if g.clock_instructions:
        g.skipped += cycles
