# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's soft TLB for each world: it stays as it is while another world is in front.

A world has tables of its own; a switch exchanges the engine's descriptors of them (2 KB), so a world that comes back
needs no refill of what the modelled TLB has kept for it.  The jump cache, from virtual address to translated code, is one for
all: each entry and each translation carries the number of its world (CPUState.cluster_index), and no other finds it.

Invariants
1. Without paging there is no model, and nothing to lose.  What the model takes from a world that is not in front, its tables lose before it runs (`kept_catch_up`).  Evictions
   by other worlds are in a log (`drop_evicted`, fill.pxd), and so is what a world loses that hands tag 0 over
   (`kept_note_space`); after more of them than it holds, or after a flush that is not of one tag, the tables are
   emptied.  A world that gets another tag empties them itself (world_tag, worlds.pyx).
2. Code and data of a world lie in frames that no other has, so page states and stores concern the tables in front alone.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from pyx86v.arch.ptes cimport VA_MASK
from pyx86v.engine.layout cimport *
from pyx86v.engine.softtlb cimport SoftEntry, evict_page, soft_flush, soft_victims
from pyx86v.engine.state cimport EVICT_LOG, Engine
from pyx86v.mmu.state cimport Evicted, FLUSH_ALL, FLUSH_INVEPT, FLUSH_INVVPID, Mmu, SIDE_D, SIDE_I
from pyx86v.mmu.tlb cimport ARRAY_D_4K, ARRAY_L2, TAG_NESTED, TLB_NIL, Tlb
from pyx86v.vmm.guest cimport walked

ctypedef struct Kept:        # the soft TLB of a world that is not in front
    uint64_t tables[SOFT_WORDS]
    uint64_t evictions       # Engine.evictions when it sat,
    uint64_t flushes         # and wide_flushes

cdef inline uint64_t wide_flushes(const Mmu* m) noexcept nogil:
    """Flushes that may be of more than the tag in front."""
    return m.count.flushes[<int>FLUSH_ALL] + m.count.flushes[<int>FLUSH_INVEPT] + m.count.flushes[<int>FLUSH_INVVPID]

cdef inline void kept_front(Engine* e, Kept* k) noexcept nogil:
    """Room for the tables that the engine holds."""
    memcpy(k.tables, e.env + ENV_SOFT, SOFT_BYTES)

cdef inline void kept_make(Engine* e, Kept* k) noexcept nogil:
    """Empty tables for a world that has never run."""
    cdef uint64_t own[SOFT_WORDS]
    memcpy(own, e.env + ENV_SOFT, SOFT_BYTES)
    tlb_init_x86_64(e.cpu)
    memcpy(k.tables, e.env + ENV_SOFT, SOFT_BYTES)
    memcpy(e.env + ENV_SOFT, own, SOFT_BYTES)

cdef inline char* kept_env(Kept* k) noexcept nogil:
    """Where the processor's state would lie if these tables were the engine's."""
    return <char*>k.tables - ENV_SOFT

cdef inline void kept_free(Kept* k) noexcept nogil:
    """Of a world whose tables the engine does not hold: it frees those itself."""
    cdef char* env = kept_env(k)
    cdef int i
    for i in range(SOFT_MODES):
        free(<void*>env_u64(env, ENV_SOFT_TABLE + SOFT_TABLE_SIZE * i)[1])
        free((<void**>(env + ENV_SOFT_DESC + SOFT_DESC_SIZE * i + SOFT_IOTLB))[0])

cdef inline void victims_copy(char* to, const char* desc, uint64_t n) noexcept nogil:
    memcpy(to + SOFT_VICTIMS, desc + SOFT_VICTIMS, n * sizeof(SoftEntry))
    memcpy(to + SOFT_VICTIM_IOTLB, desc + SOFT_VICTIM_IOTLB, n * SOFT_IOTLB_SIZE)

cdef inline void tables_copy(char* to, char* env) noexcept nogil:
    """Copy the descriptors, of the victims those that either side uses: all others are empty on both.

    `to` and `env`: the processor's state that the tables are, or could be, before (ENV_SOFT)
    """
    cdef int i
    cdef uint64_t n, theirs
    cdef char* desc
    cdef char* old
    memcpy(to + ENV_SOFT, env + ENV_SOFT, ENV_SOFT_DESC - ENV_SOFT)
    for i in range(SOFT_MODES):
        desc = env + ENV_SOFT_DESC + SOFT_DESC_SIZE * i
        old = to + ENV_SOFT_DESC + SOFT_DESC_SIZE * i
        n = soft_victims(desc)
        theirs = soft_victims(old)
        memcpy(old, desc, SOFT_VICTIMS)
        if n or theirs:
            victims_copy(old, desc, n if n > theirs else theirs)
        (<void**>(old + SOFT_IOTLB))[0] = (<void**>(desc + SOFT_IOTLB))[0]
    memcpy(to + ENV_SOFT_TABLE, env + ENV_SOFT_TABLE, SOFT_MODES * SOFT_TABLE_SIZE)

cdef inline void kept_exchange(Engine* e, Kept* leaves, Kept* comes, uint32_t number) noexcept nogil:
    """Give the engine the tables of world `number`."""
    tables_copy(kept_env(leaves), e.env)
    leaves.evictions = e.evictions
    leaves.flushes = wide_flushes(e.mmu)
    tables_copy(e.env, kept_env(comes))
    env_u32(e.cpu, CPU_CLUSTER)[0] = number

cdef inline void kept_note_space(Engine* e, int asid) noexcept nogil:
    """A tag is about to be flushed whose world is not in front: put what the first level holds of it into the log."""
    cdef Tlb* t = &e.mmu.tlb
    cdef Evicted* v
    cdef int i
    cdef uint16_t index
    for i in range(t.n_tags):
        if t.tag[i].asid != asid or t.tag[i].pcid == TAG_NESTED or t.tag[i].live == 0:
            continue
        index = t.tag[i].head[0]
        while index != TLB_NIL:
            if t.entry[index].array < ARRAY_L2:
                v = &e.evicted[e.evictions % EVICT_LOG]
                v.gva = (t.key[index] & VA_MASK) << t.entry[index].shift
                v.asid = <uint16_t>asid
                v.shift = t.entry[index].shift
                v.side = <uint8_t>(SIDE_I if t.entry[index].array < ARRAY_D_4K else SIDE_D)
                e.evictions += 1
            index = t.tag_next[index]

cdef inline void kept_catch_up(Engine* e, const Kept* k) noexcept nogil:
    """The world has come to the front: drop what the model has taken from it meanwhile (invariant 1)."""
    cdef const Evicted* v
    cdef uint64_t i
    cdef uint16_t asid = walked(e.vcpu).asid
    if e.evictions - k.evictions > EVICT_LOG or k.flushes != wide_flushes(e.mmu):
        soft_flush(e.cpu)
        return
    for i in range(k.evictions, e.evictions):
        v = &e.evicted[i % EVICT_LOG]
        if v.asid == asid or e.style.translates:
            evict_page(e.cpu, v, e.portable)
