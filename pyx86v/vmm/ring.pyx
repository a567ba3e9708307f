# SPDX-License-Identifier: GPL-2.0-or-later
"""Holes as Python reads them."""
from pyx86v.arch.sensitive import NAMES


cdef dict hole_counts(const Ring* r):
    """{mnemonic: executions}."""
    return {NAMES[i]: r.count[i] for i in range(N_HOLES) if r.count[i]}


cdef list hole_sites(const Ring* r):
    """[{address, mnemonic, count, effective}] by address."""
    sites = [(r.sites[i].address, NAMES[r.sites[i].hole], r.sites[i].count, r.sites[i].effective) for i in range(r.site_count)]
    return [dict(zip(("address", "mnemonic", "count", "effective"), site)) for site in sorted(sites)]


cdef str hole_text(const Ring* r):
    """The hole that ended the run."""
    return (f"{NAMES[r.last_hole]} at {r.hole_address:#x}: {r.hole_seen:#x} on the processor, "
            f"{r.hole_wanted:#x} in the guest's own ring {r.cpl}")
