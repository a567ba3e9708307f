# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest state between the processor and the VMCB: what #VMEXIT, VMRUN, VMSAVE and VMLOAD move (APM 2 15.5, 15.6).

Between VMRUN and #VMEXIT guest state lives in the processor (`Cpu`); at #VMEXIT it is saved, and the monitor finds
it in the VMCB.  The functions of emulate.pxd work on `Cpu`; handlers put what they changed into the VMCB too.

Invariants
1. `Cpu` holds the registers as the guest sees them.  Those in the VMCB differ in bits that the monitor keeps from the
   guest: CR0.CD and NW are 0, EFER.SVME is 1.  Over shadow tables the MMU's registers are the monitor's own: CR3 is
   the root, CR0.PG and WP, CR4.PAE and EFER.NXE are 1, CR4.PCIDE is 0, and so is EFER.LME outside long mode.  None
   of it changes what an instruction computes (the walk is the hardware context's).
2. VMRUN loads what differs from the processor's state, so a group that nobody wrote costs nothing.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.ptes cimport PAGING_PAE
from pyx86v.arch.regs cimport *
from pyx86v.mmu.memory cimport ram_write64
from pyx86v.vmm.guest cimport Guest
from pyx86v.vmm.svm.vmcb cimport *

cdef enum:
    CR0_KEPT_CLEAR = CR0_CD | CR0_NW
    ATTRIBUTE_L = 1 << 9
    ATTRIBUTE_DB = 1 << 10
    LOW_32 = 0xffffffff

cdef inline uint64_t real_cr0(const Guest* g, uint64_t view) noexcept nogil:
    view &= ~<uint64_t>CR0_KEPT_CLEAR
    return view | CR0_PG | CR0_WP if g.vcpu.shadowing else view

cdef inline uint64_t real_cr3(const Guest* g) noexcept nogil:
    """The root: of the guest's tables, or of the shadow's; in PAE format the four entries that write_pdpt keeps."""
    if not g.vcpu.shadowing:
        return g.vcpu.cr3
    return (<Svm*>g.style_state).monitor + PDPT_AT if g.vcpu.hardware.mode == PAGING_PAE else g.vcpu.hardware.cr3

cdef inline void write_pdpt(Guest* g) noexcept nogil:
    """VMRUN loads the PDPTE registers from memory (APM 2 15.5.1)."""
    cdef int i
    if g.vcpu.shadowing and g.vcpu.hardware.mode == PAGING_PAE:
        for i in range(4):
            ram_write64(g.ram, svm_of(g).monitor + PDPT_AT + 8 * i, g.vcpu.hardware.pdpte[i])

cdef inline uint64_t real_cr4(const Guest* g, uint64_t view) noexcept nogil:
    return (view | CR4_PAE) & ~<uint64_t>CR4_PCIDE if g.vcpu.shadowing else view

cdef inline uint64_t real_efer(const Guest* g, uint64_t view) noexcept nogil:
    if g.vcpu.shadowing:
        view |= EFER_NXE
        if not view & EFER_LMA:
            view &= ~<uint64_t>EFER_LME
    return view | EFER_SVME

cdef inline int segment_place(int seg) noexcept nogil:
    """Where the segment register lies in Vmcb.segment."""
    return VMCB_LDTR if seg == SEG_LDTR else VMCB_TR if seg == SEG_TR else seg

cdef inline void segment_pack(VmcbSegment* out, uint32_t selector, uint32_t flags, uint32_t limit, uint64_t base) noexcept nogil:
    out.selector = <uint16_t>selector
    out.attributes = <uint16_t>((flags >> 8 & 0xff) | (flags >> 12 & 0xf00))
    out.limit = limit
    out.base = base

cdef inline void segment_read(Guest* g, int seg, VmcbSegment* out) noexcept nogil:
    """A segment register as the VMCB holds it.  The engine keeps the TSS in TR as available; in the processor it is
    busy.  It also takes a 64-bit code segment that is a 32-bit one too, which no processor loads."""
    cdef Segment s
    if g.cpu.segments is not NULL:
        segment_pack(out, g.cpu.segments[seg].selector, g.cpu.segments[seg].flags, g.cpu.segments[seg].limit, g.cpu.segments[seg].base)
    else:
        g.cpu.get_segment(g.cpu, seg, &s)
        segment_pack(out, s.selector, s.flags, s.limit, s.base)
    if seg == SEG_TR:
        out.attributes |= 2
    if seg == SEG_CS and out.attributes & ATTRIBUTE_L:
        out.attributes &= ~<uint16_t>ATTRIBUTE_DB

cdef inline void segment_save(Guest* g, Vmcb* v, int seg) noexcept nogil:
    segment_read(g, seg, &v.segment[segment_place(seg)])

cdef inline void segment_load(Guest* g, const Vmcb* v, int seg) noexcept nogil:
    """Load what the VMCB has, if it is not what the processor has."""
    cdef const VmcbSegment* to = &v.segment[segment_place(seg)]
    cdef VmcbSegment now
    cdef Segment s
    segment_read(g, seg, &now)
    if now.selector == to.selector and now.attributes == to.attributes and now.limit == to.limit and now.base == to.base:
        return
    g.cpu.get_segment(g.cpu, seg, &s)
    s.selector = to.selector
    s.base = to.base
    s.limit = to.limit
    s.flags = (to.attributes & <uint32_t>0xff) << 8 | (to.attributes & <uint32_t>0xf00) << 12
    if seg == SEG_TR:
        s.flags &= ~<uint32_t>(2 << 8)
    g.cpu.set_segment(g.cpu, seg, &s)

cdef inline void register_load(Guest* g, int reg, uint64_t value) noexcept nogil:
    if cpu_get(g.cpu, reg) != value:
        g.cpu.set(g.cpu, reg, value)

# #VMEXIT and VMRUN -----------------------------------------------------------------------------

cdef inline void save_guest(Guest* g, Vmcb* v) noexcept nogil:
    """What #VMEXIT writes into the save area (APM 2 15.6)."""
    cdef Cpu* c = g.cpu
    cdef int seg
    for seg in range(SEG_FS):                # ES CS SS DS
        segment_save(g, v, seg)
    v.segment[VMCB_GDTR].base = cpu_get(c, REG_GDTR_BASE)
    v.segment[VMCB_GDTR].limit = <uint32_t>cpu_get(c, REG_GDTR_LIMIT)
    v.segment[VMCB_IDTR].base = cpu_get(c, REG_IDTR_BASE)
    v.segment[VMCB_IDTR].limit = <uint32_t>cpu_get(c, REG_IDTR_LIMIT)
    v.cpl = <uint8_t>cpu_get(c, REG_CPL)
    v.efer = real_efer(g, cpu_get(c, REG_EFER))
    v.cr4 = real_cr4(g, cpu_get(c, REG_CR4))
    v.cr3 = real_cr3(g)
    v.cr0 = real_cr0(g, cpu_get(c, REG_CR0))
    v.cr2 = cpu_get(c, REG_CR2)
    v.dr6 = cpu_get(c, REG_DR6) & <uint64_t>LOW_32
    v.dr7 = cpu_get(c, REG_DR7) & <uint64_t>LOW_32
    v.rflags = cpu_get(c, REG_RFLAGS)
    v.rip = cpu_get(c, REG_RIP)
    v.rsp = c.gpr[RSP]
    v.rax = c.gpr[RAX]
    v.g_pat = cpu_get(c, REG_PAT)
    v.interrupt_shadow = INTERRUPT_SHADOW if cpu_get(c, REG_SHADOW) else 0
    v.vintr = v.vintr & ~<uint64_t>V_TPR | (cpu_get(c, REG_CR8) & 0xf)

cdef inline void load_debug_and_tables(Guest* g, const Vmcb* v) noexcept nogil:
    """The groups DR, DT and CR2."""
    cdef Cpu* c = g.cpu
    if not v.clean & CLEAN_DR:
        if cpu_get(c, REG_DR6) & <uint64_t>LOW_32 != v.dr6:
            c.set(c, REG_DR6, v.dr6)
        if cpu_get(c, REG_DR7) & <uint64_t>LOW_32 != v.dr7:
            c.set(c, REG_DR7, v.dr7)
    if not v.clean & CLEAN_DT:
        register_load(g, REG_GDTR_BASE, v.segment[VMCB_GDTR].base)
        register_load(g, REG_GDTR_LIMIT, v.segment[VMCB_GDTR].limit)
        register_load(g, REG_IDTR_BASE, v.segment[VMCB_IDTR].base)
        register_load(g, REG_IDTR_LIMIT, v.segment[VMCB_IDTR].limit)
    if not v.clean & CLEAN_CR2:
        register_load(g, REG_CR2, v.cr2)

cdef inline bint load_control(Guest* g, const Vmcb* v) noexcept nogil:
    """The group CR, where it is the guest's own (invariant 1).  True: one of them changed, and paging may be another."""
    cdef Cpu* c = g.cpu
    cdef uint64_t cr0 = cpu_get(c, REG_CR0), efer = cpu_get(c, REG_EFER)
    cdef bint changed = v.cr0 != real_cr0(g, cr0) or v.efer != real_efer(g, efer) or v.cr4 != real_cr4(g, cpu_get(c, REG_CR4))
    if g.vcpu.shadowing:
        return False
    if v.cr3 != real_cr3(g):
        changed = True
        g.vcpu.cr3 = v.cr3
        c.set(c, REG_CR3, v.cr3)
    if changed:
        c.set(c, REG_CR4, v.cr4)
        c.set(c, REG_EFER, v.efer & ~<uint64_t>EFER_SVME)
        c.set(c, REG_CR0, v.cr0 | (cr0 & CR0_KEPT_CLEAR))
    return changed

cdef inline bint load_guest(Guest* g, const Vmcb* v) noexcept nogil:
    """What VMRUN loads from the save area (APM 2 15.5.1), but for RIP, which the engine moves when it retires the
    instruction.  True: paging may be another than before."""
    cdef int seg
    if not v.clean & CLEAN_SEGMENTS:
        for seg in range(SEG_FS):
            segment_load(g, v, seg)
    load_debug_and_tables(g, v)
    register_load(g, REG_RFLAGS, v.rflags)
    register_load(g, REG_SHADOW, v.interrupt_shadow & INTERRUPT_SHADOW)
    g.cpu.gpr[RAX] = v.rax
    g.cpu.gpr[RSP] = v.rsp
    if not v.clean & CLEAN_NP and v.np_control & NP_ENABLE:
        register_load(g, REG_PAT, v.g_pat)
    return not v.clean & CLEAN_CR and load_control(g, v)

# VMSAVE and VMLOAD -----------------------------------------------------------------------------

cdef inline void vmsave(Guest* g, Vmcb* v) noexcept nogil:
    """FS GS LDTR TR and the registers of system calls (APM 2 15.5.2)."""
    cdef Cpu* c = g.cpu
    cdef int seg
    for seg in range(SEG_FS, N_SEGS):
        segment_save(g, v, seg)
    v.star = cpu_get(c, REG_STAR)
    v.lstar = cpu_get(c, REG_LSTAR)
    v.cstar = cpu_get(c, REG_CSTAR)
    v.fmask = cpu_get(c, REG_FMASK)
    v.kernel_gs_base = cpu_get(c, REG_KERNEL_GS_BASE)
    v.sysenter_cs = cpu_get(c, REG_SYSENTER_CS)
    v.sysenter_esp = cpu_get(c, REG_SYSENTER_ESP)
    v.sysenter_eip = cpu_get(c, REG_SYSENTER_EIP)

cdef inline void vmload(Guest* g, const Vmcb* v) noexcept nogil:
    cdef int seg
    for seg in range(SEG_FS, N_SEGS):
        segment_load(g, v, seg)
    register_load(g, REG_STAR, v.star)
    register_load(g, REG_LSTAR, v.lstar)
    register_load(g, REG_CSTAR, v.cstar)
    register_load(g, REG_FMASK, v.fmask)
    register_load(g, REG_KERNEL_GS_BASE, v.kernel_gs_base)
    register_load(g, REG_SYSENTER_CS, v.sysenter_cs)
    register_load(g, REG_SYSENTER_ESP, v.sysenter_esp)
    register_load(g, REG_SYSENTER_EIP, v.sysenter_eip)
