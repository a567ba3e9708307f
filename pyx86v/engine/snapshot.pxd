# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a machine goes into a snapshot, and how it comes back (snapshot.pyx)."""
from pyx86v.engine.state cimport Engine
from pyx86v.engine.worlds cimport Worlds

cdef list snapshot_sections(Worlds* w)
cdef str snapshot_apply(Worlds* w, dict sections)
cdef bytes engine_fpu_image(Engine* e)
