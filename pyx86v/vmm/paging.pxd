# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of the guest's paging registers, or of what its TLB may hold, does to the processor's.

Without shadow tables the processor walks the guest's own tables and drops what the manual says.  With them the
monitor brings its tables up to date and drops what it must (shadow_enter, shadow_invlpg).

Invariant: the engine's soft TLB holds only what the model holds for the current context.  Dropping all of it is
always safe; the refill is then a modelled hit.
"""
from libc.stdint cimport uint16_t, uint64_t, uint8_t
from pyx86v.arch.cpu cimport REG_CR0, REG_CR4, REG_EFER
from pyx86v.arch.regs cimport CR4_PCIDE
from pyx86v.mmu.invalidate cimport mmu_invlpg, mmu_invpcid, mmu_mode_change, mmu_mov_cr3
from pyx86v.mmu.mmu cimport DROP_PAGE, PagingContext, paging_mode
from pyx86v.mmu.shadow cimport shadow_enter, shadow_invlpg
from pyx86v.vmm.guest cimport Guest

cdef inline void shadow_follow(Guest* g) noexcept nogil:
    """The guest's view changed: the right shadow tables, in step with the guest's."""
    shadow_enter(g.shadow, g.mmu, g.ram, g.ledger, &g.vcpu.paging, &g.vcpu.hardware, g.vcpu.paging.asid)
    g.cpu.flush(g.cpu)

cdef inline void paging_refresh(Guest* g) noexcept nogil:
    """Copy the paging registers into the walker's context and drop the engine's translations."""
    cdef PagingContext* p = &g.vcpu.paging
    cdef uint64_t cr4 = g.cpu.get(g.cpu, REG_CR4)
    p.cr0 = g.cpu.get(g.cpu, REG_CR0)
    p.cr4 = cr4
    p.efer = g.cpu.get(g.cpu, REG_EFER)
    p.cr3 = g.vcpu.cr3
    p.pcid = <uint16_t>(g.vcpu.cr3 & 0xfff) if cr4 & CR4_PCIDE else 0
    p.mode = <uint8_t>paging_mode(p.cr0, p.cr4, p.efer)
    if g.vcpu.shadowing:
        shadow_follow(g)
    else:
        g.cpu.flush(g.cpu)

cdef inline void mode_changed(Guest* g, uint64_t cr0, uint64_t cr4) noexcept nogil:
    """CR0 or CR4 was written and is (cr0, cr4) now; the walker's context still has the old ones (SDM 3A 4.10.4.1)."""
    cdef PagingContext* p = &g.vcpu.paging
    if not g.vcpu.shadowing:
        mmu_mode_change(g.mmu, p.asid, p.pcid, cr0, cr4, p.cr0, p.cr4)
    paging_refresh(g)

cdef inline void cr3_loaded(Guest* g, bint keep) noexcept nogil:
    """CR3 was loaded (g.vcpu.cr3); `keep`: with bit 63 set, so that no translation of the new PCID is dropped."""
    cdef bint pcide = g.vcpu.paging.cr4 & CR4_PCIDE != 0
    if not g.vcpu.shadowing:
        mmu_mov_cr3(g.mmu, g.vcpu.paging.asid, <int>(g.vcpu.cr3 & 0xfff) if pcide else 0, pcide, keep)
    paging_refresh(g)

cdef inline void nxe_changed(Guest* g) noexcept nogil:
    """EFER.NXE flipped: the engine's cached permissions, not the model's entries; and the shadow's reserved bits."""
    if g.vcpu.shadowing:
        shadow_follow(g)
    else:
        g.cpu.flush(g.cpu)

cdef inline void page_invalidated(Guest* g, uint64_t gva) noexcept nogil:
    """INVLPG.  A large page that goes was in the engine in 4 KB pieces."""
    cdef int drop
    if g.vcpu.shadowing:
        drop = shadow_invlpg(g.shadow, g.mmu, g.ram, g.ledger, &g.vcpu.paging, &g.vcpu.hardware, gva)
    else:
        drop = mmu_invlpg(g.mmu, g.vcpu.paging.asid, g.vcpu.paging.pcid, gva)
    if drop > DROP_PAGE:
        g.cpu.flush(g.cpu)
    else:
        g.cpu.flush_page(g.cpu, gva & ~<uint64_t>0xfff)

cdef inline void pcid_invalidated(Guest* g, int kind, int pcid, uint64_t gva) noexcept nogil:
    """INVPCID, its operands checked.  A shadow drops everything."""
    if g.vcpu.shadowing:
        shadow_follow(g)
        return
    mmu_invpcid(g.mmu, g.vcpu.paging.asid, kind, pcid, gva)
    g.cpu.flush(g.cpu)
