# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a machine goes into a snapshot, and how it comes back (snapshot.pyx)."""
from pyx86v.devices.sinks cimport Sinks
from pyx86v.engine.state cimport Engine

cdef list snapshot_sections(Engine* e, Sinks* sinks)
cdef str snapshot_apply(Engine* e, Sinks* sinks, dict sections)
