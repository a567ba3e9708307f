# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory accesses of the processor itself and of the monitor: descriptor tables, task state, stacks.

They go through the modelled MMU like the guest's own, are charged, and may fault.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.arch.regs cimport CR4_SMAP, VEC_GP, VEC_PF
from pyx86v.arch.types cimport *
from pyx86v.engine.cache_kill cimport cache_written
from pyx86v.engine.fill cimport XLAT_STOP, ept_exit, host_wrote, read_quiet, translate
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.mmu.mmu cimport XLAT_EPT_VIOLATION, XLAT_NO_RAM, XLAT_OK, XLAT_PAGE_FAULT, Translation
from pyx86v.vmm.guest cimport Event

ctypedef struct Fault:   # an exception met on the way
    int vector           # -1: none
    uint32_t error
    bint stop            # the style ended the run

cdef inline int system_privilege(Engine* e) noexcept nogil:
    """Implicit supervisor accesses: SMAP applies whatever EFLAGS.AC says (SDM 3A 4.6.1)."""
    return SUPERVISOR_SMAP if e.vcpu.paging.cr4 & CR4_SMAP else SUPERVISOR

cdef inline bint linear_piece(Engine* e, gva_t gva, void* data, uint64_t n, int access, int privilege, Fault* f) noexcept nogil:
    """One access inside a page.  False: `f` holds the #PF."""
    cdef Translation t
    cdef Event ev
    cdef uint8_t* p
    cdef int status = translate(e, gva, <int>n, access, privilege, &t)
    if e.style.translates and e.world.shadow.code_writes:
        cache_written(e)
    if status == XLAT_OK:
        p = ram_pointer(&e.ram, t.hpa + (gva & PAGE_MASK), n)
        if p is NULL:
            memset(data, 0xff, n)
        elif access == ACCESS_WRITE:
            memcpy(p, data, n)
            host_wrote(e, t.hpa + (gva & PAGE_MASK), n)
        else:
            memcpy(data, p, n)
        return True
    if status == XLAT_NO_RAM:
        if access != ACCESS_WRITE:
            memset(data, 0xff, n)
        f.stop = e.vcpu.paging.eptp != 0 and ept_exit(e, gva, XLAT_EPT_VIOLATION, &t, &ev) == STOP
        return not f.stop
    if status == XLAT_PAGE_FAULT:
        env_u64(e.env, ENV_CR + 16)[0] = gva
        f.vector = VEC_PF
        f.error = t.pfec
    else:
        f.vector = VEC_GP
        f.error = 0
        f.stop = status == XLAT_STOP
    return False

cdef inline bint linear_access(Engine* e, gva_t gva, void* data, uint64_t n, int access, int privilege, Fault* f) noexcept nogil:
    """Read or write up to a page of linear memory, page crossings included."""
    cdef uint64_t first = PAGE_SIZE - (gva & PAGE_MASK)
    if not e.vcpu.paging.efer & 0x400:                 # outside long mode addresses have 32 bits
        gva &= 0xffffffffULL
    if n <= first:
        return linear_piece(e, gva, data, n, access, privilege, f)
    return linear_piece(e, gva, data, first, access, privilege, f) and \
        linear_piece(e, gva + first, <uint8_t*>data + first, n - first, access, privilege, f)

cdef inline bint read_system(Engine* e, gva_t gva, void* out, uint64_t n, Fault* f) noexcept nogil:
    return linear_access(e, gva, out, n, ACCESS_READ, system_privilege(e), f)

cdef inline bint write_system(Engine* e, gva_t gva, void* data, uint64_t n, Fault* f) noexcept nogil:
    return linear_access(e, gva, data, n, ACCESS_WRITE, system_privilege(e), f)
