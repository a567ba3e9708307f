# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clock.  `--clock cycles`: machine cycles of the ledger.  `--clock instructions`:
the guest's retired instructions times INSTRUCTION_CYCLES, plus what HLT skipped, the same under every style.
"""
from libc.stdint cimport uint64_t
from pyx86v.cost.ledger cimport UNITS_PER_CYCLE
from pyx86v.vmm.guest cimport Guest

cdef enum:
    INSTRUCTION_CYCLES = 1     # guest cycles an instruction stands for under --clock instructions

cdef inline uint64_t guest_time(const Guest* g) noexcept nogil:
    """Guest time in cycles at `frequency_hz`; never goes back."""
    if g.clock_instructions:
        return (g.ledger.instructions - g.elsewhere) * <uint64_t>INSTRUCTION_CYCLES + g.skipped
    return g.ledger.total // <uint64_t>UNITS_PER_CYCLE
