# SPDX-License-Identifier: GPL-2.0-or-later
"""Into translated code, after a look at the tables that it relies on (vmm/bt/cache.pxd)."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.engine.cache_kill cimport unit_kill
from pyx86v.engine.cache_map cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits
from pyx86v.engine.state cimport *
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.cells cimport *
from pyx86v.vmm.bt.state cimport *
from pyx86v.vmm.ring cimport Ring

cdef inline void space_check(Engine* e) noexcept nogil:
    """The guest's tables may have changed: choose the space anew, and kill the units behind entries that did."""
    cdef Bt* b = bt_of(e)
    cdef uint64_t regions[MOST_STALE]
    cdef int i, n = space_choose(b, &e.ram, &e.vcpu.paging, regions)
    cdef uint32_t number
    cdef Unit* u
    if n == 0:
        return
    for number in range(1, b.n_units + 1):
        u = unit_of(b, &e.ram, number)
        if u is NULL or u.space != b.space or u.flags & UNIT_DEAD:
            continue
        for i in range(n):
            if region_holds(regions[i], u.pc) or region_holds(regions[i], unit_last(u)):
                unit_kill(e, u)
                break

cdef inline bint goes_on(Engine* e, uint64_t eip, uint32_t key) noexcept nogil:
    """A run begins where the last one stopped, in the middle of a unit perhaps: go on there, as if it had not."""
    cdef Ring* r = &e.vcpu.ring
    cdef uint64_t kept = r.kept
    cdef Place p
    r.kept = 0
    if r.kept_eip != eip or kept - (BT_BASE_64 if key & 7 == 4 else BT_BASE_32) >= BT_CACHE_BYTES:
        return False
    place_find(e, kept, &p)
    if p.unit is NULL or p.unit.flags or p.unit.mode != key or p.unit.space != bt_of(e).space or p.eip != eip or \
            not (p.defined or p.exit >= 0):
        return False
    env_u64(e.env, ENV_EIP)[0] = kept
    return True

cdef inline void cache_enter(Engine* e) noexcept nogil:
    """RIP becomes that of the guest code's translation, or of the dispatch stub, which has it made.  Virtual state."""
    cdef Bt* b = bt_of(e)
    cdef BtMode mode
    cdef uint32_t key = cache_mode(e, &mode)
    cdef uint64_t eip = env_u64(e.env, ENV_EIP)[0]
    cdef Unit* u
    cells_fill(e, key)
    if b.recheck:
        space_check(e)
    e.vcpu.ring.target = eip
    e.vcpu.ring.open = e.current[0].flags & REC_TRANSFER != 0
    if e.vcpu.ring.kept and goes_on(e, eip, key):
        return
    u = unit_find(b, &e.ram, cache_pc(e, eip), eip, key)
    env_u64(e.env, ENV_EIP)[0] = (BT_BASE_64 if mode.bits == 64 else BT_BASE_32) + \
        (u.code if u is not NULL and unit_is_current(e, u) else 0)
