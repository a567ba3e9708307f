# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's start: VMXON, a VMCS with KVM-like controls, host state and the guest's first state.

The monitor's memory, in order: VMXON region, VMCS region, MSR bitmap, I/O bitmaps A and B, virtual-APIC page, EPT.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport EPTP_AD
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport PAGE_SIZE, hpa_t
from pyx86v.mmu.invalidate cimport INVEPT_ALL, INVVPID_ALL, mmu_invept, mmu_invvpid
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.guest cimport Guest, MAX_EXIT_KINDS
from pyx86v.vmm.msr cimport *
from pyx86v.vmm.vmx.ept_map cimport *
from pyx86v.vmm.vmx.entry cimport *

cdef enum:
    FIXED_PAGES = 6
    GUEST_VPID = 1
    # CR0.TS belongs to the guest; of CR4 what neither paging nor VMX depends on
    CR4_GUEST_OWNED = CR4_PVI | CR4_TSD | CR4_DE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE
    INTERCEPTED_EXCEPTIONS = 1 << VEC_DB | 1 << VEC_UD | 1 << VEC_AC | 1 << VEC_MC
    HOST_CODE = 0x10
    HOST_DATA = 0x18
    HOST_TSS = 0x40

cdef extern from *:
    """
    #define PYX_HOST_KERNEL 0xffff888000000000ULL
    #define PYX_HOST_PAT 0x0407050600070106ULL
    """
    const uint64_t HOST_KERNEL "PYX_HOST_KERNEL"     # where the monitor's own structures would be; only checked
    const uint64_t HOST_PAT_VALUE "PYX_HOST_PAT"

cdef inline uint64_t monitor_bytes_ept(uint64_t guest_bytes) noexcept nogil:
    return (FIXED_PAGES + ept_pages(guest_bytes)) * PAGE_SIZE

cdef inline void bitmap_pass(Guest* g, hpa_t bitmap, uint32_t msr, bint reads, bint writes) noexcept nogil:
    """Let the guest read or write an MSR without an exit (24.6.9)."""
    cdef uint8_t* b = ram_pointer(g.ram, bitmap, PAGE_SIZE)
    cdef uint32_t n = msr & 0x1fff
    if msr >= 0xc0000000U:
        b += 1024
    if reads:
        b[n >> 3] &= <uint8_t>~(1 << (n & 7))
    if writes:
        b[2048 + (n >> 3)] &= <uint8_t>~(1 << (n & 7))

cdef inline void fill_msr_bitmap(Guest* g, hpa_t bitmap) noexcept nogil:
    """Everything exits but what the processor switches by itself or the monitor may leave to the guest."""
    cdef uint32_t msr
    memset(ram_pointer(g.ram, bitmap, PAGE_SIZE), 0xff, PAGE_SIZE)
    for msr in range(MSR_FS_BASE, MSR_KERNEL_GS_BASE + 1):
        bitmap_pass(g, bitmap, msr, True, True)
    for msr in range(MSR_STAR, MSR_FMASK + 1):
        bitmap_pass(g, bitmap, msr, True, True)
    for msr in range(MSR_SYSENTER_CS, MSR_SYSENTER_EIP + 1):
        bitmap_pass(g, bitmap, msr, True, True)
    bitmap_pass(g, bitmap, MSR_PAT, True, True)
    bitmap_pass(g, bitmap, MSR_TSC, True, False)         # the offset applies (25.3); writes change the offset

cdef inline void write_controls(Guest* g) noexcept nogil:
    """Execution, exit and entry controls, made legal by the capability MSRs."""
    cdef Vmx* x = vmx_of(g)
    cdef uint32_t secondary = SEC_RDTSCP | SEC_WBINVD
    cdef uint32_t entry = ENTRY_LOAD_PAT | ENTRY_LOAD_EFER | ENTRY_LOAD_DEBUG
    if x.caps.secondary >> 32 & SEC_VPID:
        secondary |= SEC_VPID
    if x.caps.secondary >> 32 & SEC_INVPCID:
        secondary |= SEC_INVPCID
    if g.cpu.get(g.cpu, REG_EFER) & EFER_LMA:
        entry |= ENTRY_IA32E
    vmwrite(g, PIN_BASED_CONTROLS, controls_adjust(PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMIS, x.caps.pin))
    vmwrite(g, PROC_BASED_CONTROLS, controls_adjust(
        PROC_HLT | PROC_RDPMC | PROC_IO | PROC_TSC_OFFSETTING | PROC_MWAIT | PROC_MONITOR | PROC_MSR_BITMAPS |
        PROC_TPR_SHADOW | PROC_SECONDARY, x.caps.proc))
    vmwrite(g, SECONDARY_CONTROLS, controls_adjust(secondary, x.caps.secondary))
    vmwrite(g, EXIT_CONTROLS, controls_adjust(
        EXIT_HOST_64 | EXIT_SAVE_DEBUG | EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER, x.caps.exit))
    vmwrite(g, ENTRY_CONTROLS, controls_adjust(entry, x.caps.entry))
    vmwrite(g, EXCEPTION_BITMAP, INTERCEPTED_EXCEPTIONS)
    vmwrite(g, CR0_MASK, ~<uint64_t>CR0_TS)
    vmwrite(g, CR4_MASK, ~<uint64_t>CR4_GUEST_OWNED)
    vmwrite(g, CR0_READ_SHADOW, g.cpu.get(g.cpu, REG_CR0))
    vmwrite(g, CR4_READ_SHADOW, g.cpu.get(g.cpu, REG_CR4))
    vmwrite(g, TSC_OFFSET, g.vcpu.tsc_offset)

cdef inline void write_addresses(Guest* g) noexcept nogil:
    """The pages that controls point at."""
    cdef Vmx* x = vmx_of(g)
    cdef hpa_t at = x.monitor + 2 * PAGE_SIZE
    fill_msr_bitmap(g, at)
    vmwrite(g, MSR_BITMAP, at)
    memset(ram_pointer(g.ram, at + PAGE_SIZE, PAGE_SIZE), 0xff, 2 * PAGE_SIZE)
    vmwrite(g, IO_BITMAP_A, at + PAGE_SIZE)
    vmwrite(g, IO_BITMAP_B, at + 2 * PAGE_SIZE)
    vmwrite(g, VIRTUAL_APIC_ADDR, at + 3 * PAGE_SIZE)
    vmwrite(g, VMCS_LINK_POINTER, NO_VMCS)

cdef inline void write_host(Guest* g) noexcept nogil:
    """A 64-bit monitor.  Nothing is loaded from here at an exit: it has to pass the checks."""
    cdef Vmx* x = vmx_of(g)
    cdef uint32_t i
    vmwrite(g, HOST_CR0, CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE)
    vmwrite(g, HOST_CR3, x.monitor)
    vmwrite(g, HOST_CR4, CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_VMXE)
    vmwrite(g, HOST_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
    vmwrite(g, HOST_PAT, HOST_PAT_VALUE)
    vmwrite(g, HOST_CS_SELECTOR, HOST_CODE)
    vmwrite(g, HOST_SS_SELECTOR, HOST_DATA)
    vmwrite(g, HOST_TR_SELECTOR, HOST_TSS)
    for i in range(5):       # FS GS TR GDTR IDTR
        vmwrite(g, HOST_FS_BASE + 2 * i, HOST_KERNEL + PAGE_SIZE * i)
    vmwrite(g, HOST_SYSENTER_CS, HOST_CODE)
    vmwrite(g, HOST_SYSENTER_ESP, HOST_KERNEL)
    vmwrite(g, HOST_SYSENTER_EIP, HOST_KERNEL)
    vmwrite(g, HOST_RSP, HOST_KERNEL)
    vmwrite(g, HOST_RIP, HOST_KERNEL)

cdef inline int vmx_on(Guest* g, uint64_t guest_bytes, uint64_t monitor_bytes) noexcept nogil:
    """VMXON, VMCLEAR, VMPTRLD on the first pages of the monitor's memory, behind the guest's.  0, or -1."""
    cdef Vmx* x = vmx_of(g)
    memset(x, 0, sizeof(Vmx))
    caps_fill(&x.caps, g.cpu_vpid, g.cpu_invpcid, g.cpu_pcid, g.cpu_maxphyaddr)
    if not g.mmu.config.ept_1g:
        x.caps.ept_vpid &= ~<uint64_t>EPT_CAP_1G
    if not g.mmu.config.ept_exec_only:
        x.caps.ept_vpid &= ~<uint64_t>EPT_CAP_EXEC_ONLY
    x.vmxon = x.current = NO_VMCS
    x.monitor = g.vcpu.paging.window.base + guest_bytes
    x.ept.end = x.monitor + monitor_bytes
    x.ept.next = x.monitor + FIXED_PAGES * PAGE_SIZE
    if ram_pointer(g.ram, x.monitor, x.ept.end - x.monitor) == NULL:
        return -1
    memset(ram_pointer(g.ram, x.monitor, FIXED_PAGES * PAGE_SIZE), 0, FIXED_PAGES * PAGE_SIZE)
    x.vmcs.revision = VMCS_REVISION
    if vmxon(x, x.monitor) or vmclear(x, x.monitor + PAGE_SIZE) or vmptrld(x, x.monitor + PAGE_SIZE):
        return -1
    return 0

cdef inline int use_ept(Guest* g) noexcept nogil:
    """Build the EPT and turn on what depends on it.  0, or -1."""
    cdef Vmx* x = vmx_of(g)
    cdef hpa_t root = ept_root(g)
    cdef int leaf = g.ept_leaf if g.ept_leaf else 1
    if leaf == 3 and not x.caps.ept_vpid & EPT_CAP_1G:
        leaf = 2
    if root == 0:
        return -1
    vmwrite(g, EPT_POINTER, root | EPT_WALK_4 | EPT_WRITE_BACK | (EPTP_AD if x.caps.ept_vpid & EPT_CAP_AD else 0))
    vmwrite(g, SECONDARY_CONTROLS, field_get(&x.vmcs, SECONDARY_CONTROLS) | SEC_EPT | SEC_UNRESTRICTED)
    if ept_build(g, leaf) != 0:
        return -1
    g.vcpu.paging.eptp = field_get(&x.vmcs, EPT_POINTER)
    mmu_invept(g.mmu, INVEPT_ALL, 0)
    return 0

cdef inline void use_shadow(Guest* g) noexcept nogil:
    """Turn on what keeps shadow tables in step: exits for page faults, MOV to and from CR3 and INVLPG."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    vmwrite(g, EXCEPTION_BITMAP, field_get(v, EXCEPTION_BITMAP) | 1 << VEC_PF)
    vmwrite(g, PROC_BASED_CONTROLS, field_get(v, PROC_BASED_CONTROLS) | PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG)
    vmwrite(g, CR4_MASK, ~<uint64_t>(CR4_GUEST_OWNED & ~CR4_PGE))

cdef inline bint vmx_is_sound(const Guest* g) noexcept nogil:
    """May a style_state out of a file be used?  What handlers index with and loop over."""
    cdef const Vmx* x = <const Vmx*>g.style_state
    return 0 <= x.reason < MAX_EXIT_KINDS and field_get(&x.vmcs, CR3_TARGET_COUNT) <= 4

cdef inline void use_vpid(Guest* g) noexcept nogil:
    """Tag the guest's translations; without VPID they carry tag 0 and every transition drops them."""
    if secondary_controls(&vmx_of(g).vmcs) & SEC_VPID:
        vmwrite(g, VPID, GUEST_VPID)
        g.vcpu.paging.asid = GUEST_VPID
        mmu_invvpid(g.mmu, INVVPID_ALL, 0, 0)
    g.cpu.flush(g.cpu)

cdef inline void vmx_retag(Guest* g, int asid) noexcept nogil:
    """Another VPID: the machine has several guests, and has seen to it that nothing carries this one.

    The entry is part of the switch of worlds, where there is nothing else to check.  The next one may come in the middle
    of a block (a shadow fault), where the engine has flags and RIP only in the block's translation: not a time for checks.
    """
    cdef Vmx* x = vmx_of(g)
    cdef bint dirty = x.dirty
    vmwrite(g, VPID, <uint64_t>asid)
    x.dirty = dirty
    g.vcpu.paging.asid = g.vcpu.hardware.asid = <uint16_t>asid
    g.cpu.flush(g.cpu)
