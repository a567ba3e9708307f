# SPDX-License-Identifier: GPL-2.0-or-later
"""What each sensitive instruction does, once for all styles.

Every function takes the guest and the decoded event, changes the guest's state as the manual
says, and returns RESUME, or REFLECT with the fault to raise in the event.  Nothing here is priced:
native books the instruction itself, a monitor books its exit and its own work.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.ptes cimport PAGING_PAE
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.devices.lapic cimport Lapic, is_enabled
from pyx86v.mmu.mmu cimport Translation, XLAT_EPT_VIOLATION, XLAT_OK, mmu_load_pdptes, pdptes_due
from pyx86v.vmm.clock cimport TSC_CYCLES, time_passes, tsc_time
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.paging cimport cr3_loaded, mode_changed, page_invalidated, pcid_invalidated, shadow_follow
from pyx86v.vmm.msr cimport efer_write, is_canonical, msr_read, msr_write

cdef inline int fault(Event* e, int vector, uint32_t error) noexcept nogil:
    """Turn the event into a fault of the instruction."""
    e.vector = vector
    e.error = error
    e.has_error = vector == VEC_GP or vector == VEC_PF or vector == VEC_NP or vector == VEC_SS or vector == VEC_TS
    e.delivery = DELIVER_EXCEPTION
    return REFLECT

cdef inline int general_protection(Event* e) noexcept nogil:
    return fault(e, VEC_GP, 0)

cdef inline int undefined(Event* e) noexcept nogil:
    return fault(e, VEC_UD, 0)

cdef inline uint64_t operand(Guest* g, Event* e) noexcept nogil:
    """The value of the event's general register at the operand size of a control-register move."""
    cdef uint64_t v = g.cpu.gpr[e.gpr]
    return v if g.cpu.get(g.cpu, REG_BITS) == 64 else v & 0xffffffffULL

cdef inline void set_register(Guest* g, int gpr, uint64_t value) noexcept nogil:
    g.cpu.gpr[gpr] = value if g.cpu.get(g.cpu, REG_BITS) == 64 else value & 0xffffffffULL

# CPUID ---------------------------------------------------------------------------------------

cdef inline void cpuid_leaf1(Guest* g, uint32_t* r) noexcept nogil:
    """Only features that engine and model really have (SDM 2A CPUID)."""
    cdef const Lapic* l = &g.platform.lapic
    r[0] = g.cpu_signature
    r[1] &= 0x0000ffffU                                  # one logical processor, APIC id 0
    r[2] &= ~<uint32_t>(1 << 3 | 1 << 5 | 1 << 6 | 1 << 12 | 1 << 15 | 1 << 17 | 1 << 21 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 30)
    r[2] &= 0x7fffffffU                                  # no MONITOR VMX SMX FMA PDCM XSAVE AVX F16C RDRAND hypervisor
    if l.has_x2apic:
        r[2] |= 1 << 21
    if l.has_deadline:
        r[2] |= 1 << 24
    if g.cpu_pcid:
        r[2] |= 1 << 17
    if g.cpu.get(g.cpu, REG_CR4) & CR4_OSXSAVE:
        r[2] |= 1 << 27
    r[3] &= ~<uint32_t>(1 << 7 | 1 << 9 | 1 << 14 | 1 << 28)  # no MCE MCA HTT: machine check is not modelled
    if is_enabled(l):
        r[3] |= 1 << 9

cdef inline uint32_t cpuid_highest(const Guest* g) noexcept nogil:
    """Highest basic leaf: 16H from Skylake (06_4EH) on, 0BH where there is x2APIC mode, 7 before."""
    cdef uint32_t model = (g.cpu_signature >> 4 & 0xf) | (g.cpu_signature >> 12 & 0xf0)
    if g.cpu_signature >> 8 & 0xf == 6 and model >= 0x4e:
        return 0x16
    return 0xb if g.platform.lapic.has_x2apic else 7

cdef inline void cpuid_topology(uint32_t sub, uint32_t* r) noexcept nogil:
    """0BH: one thread in one core; the x2APIC identity is 0.  Level type 1 thread, 2 core, 0 no such level."""
    r[0] = r[3] = 0
    r[1] = 1 if sub < 2 else 0
    r[2] = (sub & 0xff) | (sub + 1 << 8 if sub < 2 else 0)

cdef inline void cpuid_frequency(const Guest* g, uint32_t leaf, uint32_t* r) noexcept nogil:
    """15H: TSC = crystal * EBX / EAX, the crystal, which the timers share, given as the frequency itself.  16H: base and
    maximum in MHz."""
    r[0] = r[1] = 1
    if g.tsc.numerator * g.timers.denominator != g.tsc.denominator * g.timers.numerator:
        r[0] = <uint32_t>(g.tsc.denominator * g.timers.numerator)
        r[1] = <uint32_t>(g.tsc.numerator * g.timers.denominator)
    r[2] = <uint32_t>g.frequency_hz
    r[3] = 0
    if leaf == 0x16:
        r[0] = r[1] = <uint32_t>(g.frequency_hz * r[1] // r[0] // 1000000)
        r[2] = 100

cdef inline void emul_cpuid_values(Guest* g, uint32_t leaf, uint32_t sub, uint32_t* r) noexcept nogil:
    """Fill r[0..3] = EAX EBX ECX EDX of a CPUID leaf."""
    cdef uint32_t highest
    cdef const uint32_t* text
    g.cpuid(g.cpu, leaf, sub, r)
    if leaf == 0:
        r[0] = cpuid_highest(g)
        text = <const uint32_t*>g.cpu_vendor
        r[1] = text[0]
        r[3] = text[1]
        r[2] = text[2]
    elif leaf == 1:
        cpuid_leaf1(g, r)
    elif leaf == 7:
        if sub == 0:
            r[0] = 0
            # FSGSBASE, BMI1, SMEP, BMI2, ERMS, ADX as far as the engine has them; INVPCID is emulated by us
            r[1] &= (1 << 0 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 19)
            if g.cpu_invpcid:
                r[1] |= 1 << 10
        else:
            r[0] = r[1] = 0
        r[2] = r[3] = 0
    elif leaf == 0x80000008U:
        r[0] = g.cpu_maxphyaddr | 48 << 8
        r[1] = r[2] = r[3] = 0
    elif 0x80000002U <= leaf <= 0x80000004U:
        text = <const uint32_t*>g.cpu_brand + 4 * (leaf - 0x80000002U)
        r[0] = text[0]
        r[1] = text[1]
        r[2] = text[2]
        r[3] = text[3]
    elif leaf == 0x80000000U:
        r[0] = 0x80000008U
        r[1] = r[2] = r[3] = 0
    elif leaf == 0x80000001U:
        r[2] &= ~<uint32_t>(1 << 2 | 1 << 12)            # no SVM, SKINIT
        r[3] &= ~<uint32_t>(1 << 9)
    elif leaf == 6:
        r[0] = 1 << 2                                    # ARAT: the local APIC's timer never stops
        r[1] = r[2] = r[3] = 0
    elif leaf == 0xb:
        cpuid_topology(sub, r)
    elif leaf == 0x80000007U:
        r[0] = r[1] = r[2] = 0
        r[3] = 1 << 8                                    # the time stamp counter is invariant
    elif leaf == 0x15 or leaf == 0x16:
        cpuid_frequency(g, leaf, r)
    elif leaf not in (0, 1, 2, 4):
        r[0] = r[1] = r[2] = r[3] = 0

cdef inline int emul_cpuid(Guest* g, Event* e) noexcept nogil:
    cdef uint32_t r[4]
    cdef uint32_t leaf = <uint32_t>g.cpu.gpr[RAX]
    if (cpuid_highest(g) < leaf < 0x80000000U) or leaf > 0x80000008U:
        leaf = cpuid_highest(g)                          # out of range: data of the highest basic leaf (SDM 2A CPUID)
    emul_cpuid_values(g, leaf, <uint32_t>g.cpu.gpr[RCX], r)
    g.cpu.gpr[RAX] = r[0]
    g.cpu.gpr[RBX] = r[1]
    g.cpu.gpr[RCX] = r[2]
    g.cpu.gpr[RDX] = r[3]
    return RESUME

# Time stamp counter, MSRs --------------------------------------------------------------------

cdef inline int emul_rdtsc(Guest* g, Event* e) noexcept nogil:
    """RDTSC and (detail 1) RDTSCP.  The engine has checked CR4.TSD."""
    cdef uint64_t tsc
    time_passes(g, TSC_CYCLES)
    tsc = tsc_time(g)
    g.cpu.gpr[RAX] = tsc & 0xffffffffULL
    g.cpu.gpr[RDX] = tsc >> 32
    if e.detail:
        g.cpu.gpr[RCX] = g.vcpu.msr_value[0] & 0xffffffffULL
    return RESUME

cdef inline int emul_rdmsr(Guest* g, Event* e) noexcept nogil:
    cdef uint64_t value = 0
    if g.cpu.get(g.cpu, REG_CPL) or not msr_read(g, <uint32_t>e.reg, &value):
        return general_protection(e)
    g.cpu.gpr[RAX] = value & 0xffffffffULL
    g.cpu.gpr[RDX] = value >> 32
    return RESUME

cdef inline int emul_wrmsr(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL) or not msr_write(g, <uint32_t>e.reg, e.value):
        return general_protection(e)
    return RESUME

# Control registers ---------------------------------------------------------------------------

cdef inline bint cr0_legal(uint64_t v) noexcept nogil:
    """SDM 3A 2.5: PG needs PE, NW needs CD, bits 63:32 are zero."""
    if v >> 32 or (v & CR0_PG and not v & CR0_PE) or (v & CR0_NW and not v & CR0_CD):
        return False
    return True

cdef inline int switch_long_mode(Guest* g, Event* e, uint64_t old, uint64_t new) noexcept nogil:
    """EFER.LMA follows CR0.PG (SDM 3A 9.8.5)."""
    cdef uint64_t efer = g.cpu.get(g.cpu, REG_EFER), cr4 = g.cpu.get(g.cpu, REG_CR4)
    cdef Segment cs
    if new & CR0_PG and not old & CR0_PG and efer & EFER_LME:
        g.cpu.get_segment(g.cpu, SEG_CS, &cs)
        if not cr4 & CR4_PAE or cs.flags & (1 << 21):
            return general_protection(e)
    if old & CR0_PG and not new & CR0_PG:
        if g.cpu.get(g.cpu, REG_BITS) == 64 or cr4 & CR4_PCIDE:
            return general_protection(e)
    return RESUME

cdef inline bint pdptes_load(Guest* g, Event* e, uint64_t cr3) noexcept nogil:
    """PAE paging proper keeps its four PDPTEs in registers (SDM 3A 4.4.1).  False: #GP.

    When an EPT forbids it the event says where (`gpa`, `qualification`), for the style to charge the exit, and they
    are loaded as its monitor finds them."""
    cdef Translation t
    cdef int status = mmu_load_pdptes(g.mmu, g.ram, g.ledger, &g.vcpu.paging, cr3, False, &t)
    if status == XLAT_EPT_VIOLATION:
        e.gpa = t.gpa
        e.qualification = t.qualification
        status = mmu_load_pdptes(g.mmu, g.ram, g.ledger, &g.vcpu.paging, cr3, True, &t)
    return status == XLAT_OK

cdef inline int cr0_write(Guest* g, Event* e, uint64_t new) noexcept nogil:
    cdef uint64_t old = g.cpu.get(g.cpu, REG_CR0)
    cdef uint64_t known = CR0_PG | CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD
    if not cr0_legal(new) or switch_long_mode(g, e, old, new) != RESUME:
        return general_protection(e)
    new = (new & known) | CR0_ET                         # reserved bits are ignored, ET reads as one
    if pdptes_due(new, g.vcpu.paging.cr4, old, g.vcpu.paging.cr4, g.vcpu.paging.efer) and not pdptes_load(g, e, g.vcpu.cr3):
        return general_protection(e)
    g.cpu.set(g.cpu, REG_CR0, new)
    if (old ^ new) & (CR0_PG | CR0_WP | CR0_PE):
        mode_changed(g, new, g.vcpu.paging.cr4)
    elif g.vcpu.shadowing and g.vcpu.paging.mode == PAGING_PAE:
        shadow_follow(g)                                 # the PDPTE registers may have changed
    return RESUME

cdef inline int cr3_write(Guest* g, Event* e, uint64_t new) noexcept nogil:
    """MOV to CR3 (SDM 3A 4.10.4.1; 4.10.1 for PCIDs; 4.4.1 for PDPTEs)."""
    cdef uint64_t cr4 = g.cpu.get(g.cpu, REG_CR4)
    cdef bint pcide = cr4 & CR4_PCIDE != 0
    cdef bint keep = pcide and new >> 63 != 0
    if g.cpu.get(g.cpu, REG_EFER) & EFER_LMA:
        if pcide:
            new &= 0x7fffffffffffffffULL
        if new >> g.cpu_maxphyaddr:
            return general_protection(e)
    else:
        new &= 0xffffffffULL
    if g.vcpu.paging.mode == PAGING_PAE and not pdptes_load(g, e, new):
        return general_protection(e)
    g.vcpu.cr3 = new
    g.cpu.set(g.cpu, REG_CR3, new)
    cr3_loaded(g, keep)
    return RESUME

cdef inline int cr4_write(Guest* g, Event* e, uint64_t new) noexcept nogil:
    """SDM 3A 2.5: reserved bits, PAE in long mode, PCIDE rules (4.10.1)."""
    cdef uint64_t old = g.cpu.get(g.cpu, REG_CR4), efer = g.cpu.get(g.cpu, REG_EFER)
    cdef uint64_t legal = (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
                           CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_SMEP)
    cdef bint long_mode = efer & EFER_LMA != 0
    if g.cpu_pcid:
        legal |= CR4_PCIDE
    if new & ~legal or (long_mode and not new & CR4_PAE):
        return general_protection(e)
    if new & CR4_PCIDE and not old & CR4_PCIDE and (not long_mode or g.vcpu.cr3 & 0xfff):
        return general_protection(e)
    if pdptes_due(g.vcpu.paging.cr0, new, g.vcpu.paging.cr0, old, efer) and not pdptes_load(g, e, g.vcpu.cr3):
        return general_protection(e)
    g.cpu.set(g.cpu, REG_CR4, new)
    if (old ^ new) & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP):
        mode_changed(g, g.vcpu.paging.cr0, new)
    return RESUME

cdef inline int emul_cr_write(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    if e.reg == 0:
        return cr0_write(g, e, e.value)
    if e.reg == 3:
        return cr3_write(g, e, e.value)
    if e.reg == 4:
        return cr4_write(g, e, e.value)
    if e.reg == 8:
        if e.value >> 4:
            return general_protection(e)
        g.cpu.set(g.cpu, REG_CR8, e.value)
        return RESUME
    if e.reg == 2:
        g.cpu.set(g.cpu, REG_CR2, e.value)
        return RESUME
    return undefined(e)

cdef inline int emul_cr_read(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    if e.reg == 0:
        set_register(g, e.gpr, g.cpu.get(g.cpu, REG_CR0))
    elif e.reg == 2:
        set_register(g, e.gpr, g.cpu.get(g.cpu, REG_CR2))
    elif e.reg == 3:
        set_register(g, e.gpr, g.vcpu.cr3)
    elif e.reg == 4:
        set_register(g, e.gpr, g.cpu.get(g.cpu, REG_CR4))
    elif e.reg == 8:
        set_register(g, e.gpr, g.cpu.get(g.cpu, REG_CR8))
    else:
        return undefined(e)
    return RESUME

cdef inline int emul_clts(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    g.cpu.set(g.cpu, REG_CR0, g.cpu.get(g.cpu, REG_CR0) & ~<uint64_t>CR0_TS)
    return RESUME

cdef inline int emul_lmsw(Guest* g, Event* e) noexcept nogil:
    """LMSW sets PE MP EM TS and cannot clear PE (SDM 2A LMSW)."""
    cdef uint64_t old = g.cpu.get(g.cpu, REG_CR0)
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    return cr0_write(g, e, (old & ~<uint64_t>0xe) | (e.value & 0xf))

cdef inline int emul_dr(Guest* g, Event* e) noexcept nogil:
    """MOV to and from a debug register (SDM 2B MOV DR): DR4 and DR5 are DR6 and DR7, or #UD with CR4.DE."""
    cdef int n = e.reg | 2 if e.reg == 4 or e.reg == 5 else e.reg
    cdef int reg = REG_DR0 + n if n < 4 else REG_DR6 + n - 6
    if e.reg != n and g.cpu.get(g.cpu, REG_CR4) & CR4_DE:
        return undefined(e)
    if e.kind == EV_DR_READ:
        set_register(g, e.gpr, g.cpu.get(g.cpu, reg))
        return RESUME
    if n >= 6 and e.value >> 32:
        return general_protection(e)
    g.cpu.set(g.cpu, reg, e.value)
    return RESUME

# TLB -----------------------------------------------------------------------------------------

cdef inline int emul_invlpg(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    if g.cpu.get(g.cpu, REG_BITS) == 64 and not is_canonical(e.address):
        return RESUME                                    # no operation (SDM 2A INVLPG)
    page_invalidated(g, e.address)
    return RESUME

cdef inline int emul_invpcid(Guest* g, Event* e) noexcept nogil:
    """INVPCID: type in e.value, descriptor in e.pcid and e.target (SDM 2A INVPCID)."""
    if not g.cpu_invpcid:
        return undefined(e)
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    if e.value > 3 or e.detail or (e.value == 0 and not is_canonical(e.target)) or \
            (e.value < 2 and e.pcid and not g.cpu.get(g.cpu, REG_CR4) & CR4_PCIDE):
        return general_protection(e)
    pcid_invalidated(g, <int>e.value, e.pcid, e.target)
    return RESUME

# The rest ------------------------------------------------------------------------------------

cdef inline int emul_hlt(Guest* g, Event* e) noexcept nogil:
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    g.vcpu.halted = True
    return RESUME

cdef inline int emul_nothing(Guest* g, Event* e) noexcept nogil:
    """WBINVD, INVD: caches hold nothing that memory does not."""
    if g.cpu.get(g.cpu, REG_CPL):
        return general_protection(e)
    return RESUME

cdef inline int emul_undefined(Guest* g, Event* e) noexcept nogil:
    """An instruction that this processor does not offer: XSETBV without XSAVE, RDPMC, MONITOR, VMX."""
    return undefined(e)
