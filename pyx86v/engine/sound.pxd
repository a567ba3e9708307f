# SPDX-License-Identifier: GPL-2.0-or-later
"""May registers, world and ledger out of a snapshot be used?

A file can hold anything, with a checksum that fits.  Refused is what would lead the engine out of its own memory, into an
assertion or into a loop; a state that no guest can reach, but does no harm, is the file's own affair.
"""
from libc.stdint cimport int8_t, uint32_t, uint64_t
from libc.string cimport memcmp
from pyx86v.arch.ptes cimport PAGING_LONG
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport PAGE_MASK
from pyx86v.cost.ledger cimport Ledger
from pyx86v.cost.predictor cimport N_BRANCH_KINDS, Predictor
from pyx86v.devices.sound cimport platform_is_sound
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport TSS_AVAILABLE, TSS_KIND
from pyx86v.engine.state cimport CENSUS_MODES, World
from pyx86v.engine.worlds cimport MAX_WORLDS, Schedule, Standing
from pyx86v.mmu.cache cimport CACHE_LEVELS, Caches
from pyx86v.mmu.memory cimport Window
from pyx86v.mmu.state cimport PagingContext, paging_mode
from pyx86v.vmm.guest cimport Guest, Style, Vcpu
from pyx86v.vmm.ring cimport MAX_HOLE_SITES, N_HOLES, Ring

cdef enum:
    TIME_BITS = 60           # of units and instructions: sums of two such times do not overflow
    ROM_LIMIT = 16 << 20
    HF_ALLOWED = 0x1e0ceff   # without SMM, SVME, MPX and what the engine keeps in EFLAGS

cdef extern from *:
    """
    #define PYX_CR0_ALLOWED 0xe005003fULL
    #define PYX_CR4_ALLOWED 0x3307ffULL
    """
    const uint64_t CR0_ALLOWED "PYX_CR0_ALLOWED"
    const uint64_t CR4_ALLOWED "PYX_CR4_ALLOWED"

cdef inline bint rounding_is_sound(char* env, int status) noexcept nogil:
    """The engine aborts on a rounding mode that there is not."""
    return (<int8_t*>(env + status + ROUNDING_MODE))[0] in (0, 1, 2, 3)

cdef inline bint registers_are_sound(char* env) noexcept nogil:
    cdef uint64_t cr0 = env_u64(env, ENV_CR)[0], cr4 = env_u64(env, ENV_CR + 32)[0], efer = env_u64(env, ENV_EFER)[0]
    cdef uint32_t hflags = env_u32(env, ENV_HFLAGS)[0]
    if cr0 & ~CR0_ALLOWED or cr4 & ~CR4_ALLOWED or efer & ~<uint64_t>(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE):
        return False
    if hflags & ~<uint32_t>HF_ALLOWED or env_u32(env, ENV_HFLAGS2)[0] & ~<uint32_t>HF2_GIF or \
            (hflags & HF_PE != 0) != (cr0 & CR0_PE != 0) or (hflags & HF_LMA != 0) != (efer & EFER_LMA != 0) or \
            (hflags & HF_CS64 and not hflags & HF_LMA):
        return False
    return env_segment(env, SEG_TR).flags & TSS_KIND == TSS_AVAILABLE and env_u32(env, ENV_FPU)[0] < 8 and \
        rounding_is_sound(env, ENV_FP_STATUS) and rounding_is_sound(env, ENV_MMX_STATUS) and \
        rounding_is_sound(env, ENV_SSE_STATUS)

cdef inline bint window_is_sound(const Window* w, const Window* fresh) noexcept nogil:
    return w.base == fresh.base and w.size == fresh.size and w.rom_base == fresh.rom_base and w.rom_size <= ROM_LIMIT and \
        not (w.rom_size | w.rom_gpa) & PAGE_MASK and w.a20_mask | 0x100000 == fresh.a20_mask

cdef inline bint paging_is_sound(const PagingContext* p, const PagingContext* fresh) noexcept nogil:
    return p.mode == paging_mode(p.cr0, p.cr4, p.efer) and p.pcid < 4096 and p.maxphyaddr == fresh.maxphyaddr

cdef inline bint ring_is_sound(const Ring* r, bint deprivileged) noexcept nogil:
    """A stopped machine is in the virtual state, and what names an entry of a table is in it."""
    cdef uint32_t i
    if r.real or r.site_count > MAX_HOLE_SITES or r.last_hole >= N_HOLES or r.cpl > 3 or \
            not deprivileged and (r.dropped or r.step):
        return False
    for i in range(r.site_count):
        if r.sites[i].hole >= N_HOLES:
            return False
    return True

cdef inline bint vcpu_is_sound(const Vcpu* v, const Vcpu* fresh, const Style* style) noexcept nogil:
    """What the style does not do is not under way."""
    return paging_is_sound(&v.paging, &fresh.paging) and v.hardware.mode <= PAGING_LONG and v.hardware.pcid < 4096 and \
        ring_is_sound(&v.ring, style.deprivileged) and (style.shadow or not v.shadowing) and \
        (style.interpret is not NULL or not v.interpreting)

cdef inline bint world_is_sound(const World* w, const World* fresh, const Style* style, const Guest* g) noexcept nogil:
    """A world that replaces `fresh`, of a machine made with the same options."""
    return w.census.mode < CENSUS_MODES and w.vcpu_count == fresh.vcpu_count and w.running < w.vcpu_count and w.skipped >> TIME_BITS == 0 and \
        window_is_sound(&w.window, &fresh.window) and \
        memcmp(&w.window, &w.vcpu[0].paging.window, sizeof(Window)) == 0 and \
        vcpu_is_sound(&w.vcpu[0], &fresh.vcpu[0], style) and \
        platform_is_sound(&w.platform, &fresh.platform) and \
        (style.is_sound is NULL or style.is_sound(g))

cdef inline bint ledger_is_sound(const Ledger* l, const Ledger* fresh) noexcept nogil:
    """Times that leave room for more, causes that add up, and the prices of the profile."""
    cdef uint64_t sum = 0
    cdef int i
    for i in range(32):
        if l.by[i] >> TIME_BITS:
            return False
        sum += l.by[i]
    return sum == l.total and l.total >> TIME_BITS == 0 and l.instructions >> TIME_BITS == 0 and \
        memcmp(&l.price, &fresh.price, sizeof(l.price)) == 0

cdef inline bint caches_are_sound(const Caches* c, const Caches* fresh) noexcept nogil:
    """Where the lines are and how many.  What they name is only compared."""
    cdef int i
    for i in range(CACHE_LEVELS):
        if c.level[i].sets != fresh.level[i].sets or c.level[i].ways != fresh.level[i].ways or c.level[i].first != fresh.level[i].first:
            return False
    return c.bytes == fresh.bytes and c.mode == fresh.mode

cdef inline bint predictor_is_sound(const Predictor* p, const Predictor* fresh) noexcept nogil:
    """The tables' sizes; every index is taken modulo them."""
    return p.last.kind < N_BRANCH_KINDS and p.counters == fresh.counters and p.targets == fresh.targets and p.returns == fresh.returns

cdef inline bint schedule_is_sound(const Schedule* p, const Schedule* fresh) noexcept nogil:
    return p.count == fresh.count and p.front < p.count and p.quantum == fresh.quantum and p.last_asid == fresh.last_asid and \
        p.next_asid <= p.last_asid + 1 and p.zero_owner <= MAX_WORLDS

cdef inline bint standing_is_sound(const Standing* s) noexcept nogil:
    """The machine's time jumps to where a world wakes."""
    return s.wake >> TIME_BITS == 0 and s.left >> TIME_BITS == 0
