# SPDX-License-Identifier: GPL-2.0-or-later
"""The outside probe: the ledger's time, and beside it the guest's own clocks, at each edge of the probed line."""
from pyx86v.devices.parallel cimport PROBE_LINE, ProbeEdge
from pyx86v.devices.sinks cimport buffer_append
from pyx86v.vmm.clock cimport guest_time, tsc_time
from pyx86v.vmm.guest cimport Guest

cdef inline void probe_look(Guest* g, int before) noexcept nogil:
    """A port was written; `before` is what the data lines were."""
    cdef ProbeEdge edge
    if (g.platform.parallel.data ^ before) & PROBE_LINE == 0:
        return
    edge.high = g.platform.parallel.data & PROBE_LINE
    edge.units = g.ledger.total
    edge.instructions = g.ledger.instructions
    edge.tsc = tsc_time(g)
    edge.timers = guest_time(g)
    buffer_append(&g.sinks.probe, &edge, sizeof(ProbeEdge))
