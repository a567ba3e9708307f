# SPDX-License-Identifier: GPL-2.0-or-later
from libc.stdint cimport uint32_t
from pyx86v.devices.sinks cimport Sinks
from pyx86v.engine.worlds cimport Seat, Worlds

cdef int media_attach(Seat* s, object images) except -1
cdef int media_firmware(Sinks* s, dict items) except -1
cdef list media_sections(Sinks* s, str end)
cdef str media_load(Seat* s, dict sections, str end)
