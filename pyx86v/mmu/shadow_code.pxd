# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames from which a monitor has translated code are traced as guest tables are: a write to one arrives at the monitor.

The writes are only noted here, as one range, for whoever translated: it looks after each fault and each write of a device.
"""
from libc.stdint cimport uint64_t
from pyx86v.mmu.memory cimport Ram
from pyx86v.mmu.invalidate cimport mmu_flush_asid
from pyx86v.mmu.shadow_pool cimport frame_protect
from pyx86v.mmu.shadow_state cimport *
from pyx86v.mmu.state cimport DROP_NOTHING, Mmu, PagingContext

cdef inline void code_written(Shadower* w, uint64_t first, uint64_t last) noexcept nogil:
    """Guest-physical bytes first..last are written, and code was translated from there."""
    if w.s.code_writes == 0 or first < w.s.code_first:
        w.s.code_first = first
    if w.s.code_writes == 0 or last > w.s.code_last:
        w.s.code_last = last
    w.s.code_writes += 1

cdef inline int shadow_trace_code(Shadow* s, Mmu* m, const Ram* ram, Ledger* ledger, PagingContext* hardware, uint64_t gfn,
                                  bint trace) noexcept nogil:
    """From here on writes to the frame are noted, or no longer.  Returns Drop: what the engine must drop of its translations."""
    cdef Shadower w
    w.s = s
    w.m = m
    w.ram = ram
    w.ledger = ledger
    w.hardware = hardware
    if gfn >= s.frames or not arrays_find(&w) or (w.frame[gfn].code != 0) == trace:
        return DROP_NOTHING
    w.frame[gfn].code = trace
    if w.frame[gfn].tables:
        if not trace or not w.frame[gfn].unsynced:
            return DROP_NOTHING
    elif trace:
        w.large[gfn >> 9].tables += 1
    else:
        w.large[gfn >> 9].tables -= 1
    if not trace:
        return DROP_NOTHING
    frame_protect(&w, gfn)
    if not s.flush_due:
        return DROP_NOTHING
    s.flush_due = s.stale_writable = s.stale_split = 0
    s.count.flushes += 1
    return mmu_flush_asid(m, hardware.asid)
