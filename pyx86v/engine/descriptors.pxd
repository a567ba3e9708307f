# SPDX-License-Identifier: GPL-2.0-or-later
"""Segment descriptors: reading them, loading segment registers from them (SDM 3A 3.4.5)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.engine.access cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_update_hflags
from pyx86v.engine.state cimport *

cdef enum:                       # of a descriptor's second word
    SEG_PRESENT = 1 << 15
    SEG_S = 1 << 12
    SEG_CODE = 1 << 11
    SEG_CONFORMING = 1 << 10
    SEG_WRITABLE = 1 << 9
    SEG_ACCESSED = 1 << 8
    SEG_LONG = 1 << 21
    SEG_BIG = 1 << 22

ctypedef struct Descriptor:
    uint32_t lo
    uint32_t hi

cdef inline bint fail(Fault* f, int vector, uint32_t error) noexcept nogil:
    f.vector = vector
    f.error = error
    return False

cdef inline uint64_t desc_base(const Descriptor* d) noexcept nogil:
    return (d.lo >> 16) | (d.hi & 0xff) << 16 | (d.hi & 0xff000000U)

cdef inline uint32_t desc_limit(const Descriptor* d) noexcept nogil:
    cdef uint32_t limit = (d.lo & 0xffff) | (d.hi & 0xf0000)
    return limit << 12 | 0xfff if d.hi & (1 << 23) else limit

cdef inline bint desc_read(Engine* e, uint32_t selector, Descriptor* d, int vector, uint32_t ext, Fault* f) noexcept nogil:
    """Read a descriptor from GDT or LDT; outside the table is `vector`(selector + ext)."""
    cdef EnvSegment* t = env_segment(e.env, SEG_LDTR) if selector & 4 else env_segment(e.env, 8)
    if (selector & 0xfff8) + 7 > t.limit or (selector & 4 and not t.flags & SEG_PRESENT):
        return fail(f, vector, (selector & 0xfffc) | ext)
    return read_system(e, t.base + (selector & 0xfff8), d, 8, f)

cdef inline bint mark_accessed(Engine* e, uint32_t selector, Descriptor* d, Fault* f) noexcept nogil:
    """Loading a segment sets the accessed bit of its descriptor, in memory too, when it is clear (SDM 3A 3.4.5.1)."""
    cdef EnvSegment* t = env_segment(e.env, SEG_LDTR) if selector & 4 else env_segment(e.env, 8)
    cdef uint8_t access
    if d.hi & SEG_ACCESSED:
        return True
    d.hi |= SEG_ACCESSED
    access = <uint8_t>(d.hi >> 8)
    return write_system(e, t.base + (selector & 0xfff8) + 5, &access, 1, f)

cdef inline void load_segment(Engine* e, int seg, uint32_t selector, const Descriptor* d) noexcept nogil:
    cdef EnvSegment* s = env_segment(e.env, seg)
    s.selector = selector
    s.base = desc_base(d)
    s.limit = desc_limit(d)
    s.flags = d.hi & 0x00f0ff00U

cdef inline void load_flat(Engine* e, int seg, uint32_t selector, uint64_t base, uint32_t limit, uint32_t flags) noexcept nogil:
    cdef EnvSegment* s = env_segment(e.env, seg)
    s.selector = selector
    s.base = base
    s.limit = limit
    s.flags = flags

cdef inline void set_cpl(Engine* e, int cpl) noexcept nogil:
    """CPL lives in SS's DPL as the engine sees it."""
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    ss.flags = (ss.flags & ~<uint32_t>(3 << 13)) | <uint32_t>(cpl << 13)
    env_update_hflags(e.env)

cdef inline bint has_error_code(int vector) noexcept nogil:
    return vector == VEC_DF or (VEC_TS <= vector <= VEC_PF) or vector == VEC_AC
