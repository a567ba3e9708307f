# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's soft TLB by hand: what tlb_set_page and tlb_flush_page do, for the two cases that make up a fill.

A fill puts one page of RAM in and takes one page of data out.  The engine's own functions look the page up in
the memory map, search all three privileges and clear the jump cache each time, about 1,000 of a fill's 2,400
host instructions; and they catch the first store to every page that they put in (invariant 2 in fill.pxd is why
ours need not be caught).  All other cases go through the engine's functions, as everything does in the portable engine.

A privilege's table holds at most one entry with rights to a page's data, in its slot or among eight victims.

At each flush the engine doubles a table that is more than 70 % used.  It counts an entry out twice that first moved to
the victims and was dropped there; such a count falls below zero, which it takes for a huge one, up to tables of 4 million
entries.  Here, and after each of its functions that drop (page_set, page_drop), the count stays at zero instead.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from pyx86v.arch.types cimport PAGE_MASK, PAGE_SHIFT, gva_t, hpa_t
from pyx86v.engine.layout cimport *
from pyx86v.mmu.state cimport Evicted, PROT_R, PROT_W, PROT_X, SIDE_D
from pyx86v.mmu.tlb cimport lowest_bit
from pyx86v.vmm.bt.cells cimport BT_BASE_32

cdef extern from *:
    """
    #define PYX_EMPTY (~0ULL)
    """
    const uint64_t EMPTY "PYX_EMPTY"     # an address that an entry does not serve

ctypedef struct SoftEntry:               # CPUTLBEntry
    uint64_t read
    uint64_t write
    uint64_t code
    uint64_t paddr
    uint64_t addend      # to the guest's address: gives the host's
    uint64_t unused[3]

cdef inline SoftEntry* soft_slot(char* env, int mmu_idx, gva_t page) noexcept nogil:
    """Where the direct-mapped table of this privilege keeps the page."""
    cdef uint64_t* fast = env_u64(env, ENV_SOFT_TABLE + SOFT_TABLE_SIZE * mmu_idx)     # mask in bytes, table
    return &(<SoftEntry*>fast[1])[(page >> PAGE_SHIFT) & (fast[0] // sizeof(SoftEntry))]

cdef inline bint soft_serves(const SoftEntry* s, gva_t page) noexcept nogil:
    """Is it an entry of this page?  The addresses that an entry serves are all of one page."""
    cdef uint64_t at = s.read & s.write & s.code
    return at != EMPTY and at & ~<uint64_t>PAGE_MASK == page

cdef inline void soft_used_less(char* desc) noexcept nogil:
    if env_u64(desc, SOFT_USED)[0]:
        env_u64(desc, SOFT_USED)[0] -= 1

cdef inline void soft_forget(SoftEntry* s, char* desc) noexcept nogil:
    memset(s, 0xff, sizeof(SoftEntry))
    soft_used_less(desc)

cdef inline uint64_t soft_victims(char* desc) noexcept nogil:
    """How many of the victims are in use: they are counted up to the next full flush."""
    cdef uint64_t n = env_u64(desc, SOFT_VICTIMS_USED)[0]
    return n if n < SOFT_VICTIM_ENTRIES else SOFT_VICTIM_ENTRIES

cdef inline void soft_drop_victim(char* desc, gva_t page) noexcept nogil:
    cdef SoftEntry* victim = <SoftEntry*>(desc + SOFT_VICTIMS)
    cdef uint64_t k
    for k in range(soft_victims(desc)):
        if soft_serves(&victim[k], page):
            soft_forget(&victim[k], desc)

cdef inline void soft_drop(char* env, gva_t page, bint code) noexcept nogil:
    """Take the rights to a page's data, or with `code` all rights to it, out of the tables of all privileges."""
    cdef uint32_t modes = env_u16(env, ENV_SOFT_DIRTY)[0]
    cdef int i
    cdef char* desc
    cdef SoftEntry* s
    while modes:
        i = lowest_bit(modes)
        modes &= modes - 1
        desc = env + ENV_SOFT_DESC + SOFT_DESC_SIZE * i
        s = soft_slot(env, i, page)
        if soft_serves(s, page):
            soft_forget(s, desc)
            if not code:
                continue
        soft_drop_victim(desc, page)

cdef inline void soft_displace(char* desc, const SoftEntry* s, const uint64_t* iotlb) noexcept nogil:
    """An entry of another page moves to the victim table."""
    cdef uint64_t k = env_u64(desc, SOFT_VICTIMS_USED)[0] % SOFT_VICTIM_ENTRIES
    env_u64(desc, SOFT_VICTIMS_USED)[0] += 1
    memcpy(desc + SOFT_VICTIMS + k * sizeof(SoftEntry), s, sizeof(SoftEntry))
    memcpy(desc + SOFT_VICTIM_IOTLB + k * SOFT_IOTLB_SIZE, iotlb, SOFT_IOTLB_SIZE)
    soft_used_less(desc)

cdef inline void soft_set(char* env, gva_t page, hpa_t hpa, char* ram, int prot, int mmu_idx, bint fresh) noexcept nogil:
    """Put a page of RAM in, at `ram` + hpa, for loads, stores without a watch on them, or fetches.

    fresh   the table has no rights to this page's data
    """
    cdef char* desc = env + ENV_SOFT_DESC + SOFT_DESC_SIZE * mmu_idx
    cdef SoftEntry* s = soft_slot(env, mmu_idx, page)
    cdef uint64_t slot = <uint64_t>(s - <SoftEntry*>env_u64(env, ENV_SOFT_TABLE + SOFT_TABLE_SIZE * mmu_idx)[1])
    cdef uint64_t* iotlb = <uint64_t*>((<char**>(desc + SOFT_IOTLB))[0] + slot * SOFT_IOTLB_SIZE)
    env_u16(env, ENV_SOFT_DIRTY)[0] |= 1 << mmu_idx
    if not fresh:
        soft_drop_victim(desc, page)
    if s.read & s.write & s.code != EMPTY and not soft_serves(s, page):
        soft_displace(desc, s, iotlb)
    s.read = page if prot & PROT_R else EMPTY
    s.write = page if prot & PROT_W else EMPTY
    s.code = page if prot & PROT_X else EMPTY
    s.paddr = hpa
    s.addend = <uint64_t><uintptr_t>ram + hpa - page
    iotlb[0] = hpa - page
    iotlb[1] = SOFT_NO_ATTRIBUTES
    env_u64(desc, SOFT_USED)[0] += 1

# The engine's own functions -------------------------------------------------------------------

cdef inline void soft_flush(void* cpu) noexcept nogil:
    """Empty all tables, and the jump cache.  What the model no longer holds is not run without a look (ENV_EPOCH)."""
    tlb_flush_x86_64(cpu)
    env_u64(cpu_env(<char*>cpu), ENV_EPOCH)[0] += 1

cdef inline void soft_bound_count(char* env) noexcept nogil:
    cdef int i
    cdef uint64_t* used
    for i in range(SOFT_MODES):
        used = env_u64(env, ENV_SOFT_DESC + SOFT_DESC_SIZE * i + SOFT_USED)
        if <int64_t>used[0] < 0:
            used[0] = 0

cdef inline void page_set(void* cpu, gva_t page, hpa_t hpa, int prot, int mmu_idx, uint64_t size) noexcept nogil:
    """Put a page of any kind in; `size` 1: for one access only."""
    tlb_set_page_x86_64(cpu, page, hpa, prot, mmu_idx, size)
    soft_bound_count(cpu_env(<char*>cpu))

cdef inline void page_drop(void* cpu, gva_t page) noexcept nogil:
    """Take a page out of all tables, and what the jump cache knows of it."""
    tlb_flush_page_x86_64(cpu, page)
    soft_bound_count(cpu_env(<char*>cpu))

cdef inline void evict_page(void* cpu, const Evicted* v, bint portable) noexcept nogil:
    """What the model evicted leaves the tables."""
    cdef gva_t gva = v.gva
    if v.shift != PAGE_SHIFT:
        soft_flush(cpu)                # up to 512 small pieces
        return
    if gva >> 47:
        gva |= 0xffff000000000000ULL
    if portable:
        page_drop(cpu, gva)
    else:
        soft_drop(cpu_env(<char*>cpu), gva, v.side != SIDE_D)
        if v.side != SIDE_D:
            if gva & BT_BASE_32 == BT_BASE_32:       # of the translation cache, perhaps
                env_u64(cpu_env(<char*>cpu), ENV_EPOCH)[0] += 1
            tb_flush_jmp_cache_x86_64(cpu, gva)
