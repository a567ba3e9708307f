# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's start: a VMCB with KVM's intercepts, its permission maps, and the guest's first state.

The monitor's memory begins with what `Layout` (vmcb.pxd) names; nested or shadow tables follow.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from pyx86v.arch.ptes cimport EPTP_AD
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport PAGE_SIZE, hpa_t
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.mmu.state cimport NESTED_NPT
from pyx86v.vmm.guest cimport Guest, MAX_EXIT_KINDS
from pyx86v.vmm.msr cimport *
from pyx86v.vmm.nested_map cimport map_build, map_page, map_pages
from pyx86v.vmm.svm.codes cimport *
from pyx86v.vmm.svm.entry cimport *

cdef enum:
    GUEST_ASID = 1
    INTERCEPTED_EXCEPTIONS = 1 << VEC_DB | 1 << VEC_UD | 1 << VEC_AC | 1 << VEC_MC

cdef inline uint64_t svm_monitor_bytes(uint64_t guest_bytes) noexcept nogil:
    return FIXED_BYTES + map_pages(guest_bytes) * PAGE_SIZE

cdef inline void intercept_on(Vmcb* v, int code) noexcept nogil:
    """Set the bit of an exit code from 60h to BFh."""
    if code < 0x80:
        v.instructions_1 |= <uint32_t>1 << (code & 31)
    elif code < 0xa0:
        v.instructions_2 |= <uint32_t>1 << (code & 31)
    else:
        v.instructions_3 |= <uint32_t>1 << (code & 31)

cdef inline void msr_pass(uint8_t* map, uint32_t msr) noexcept nogil:
    """Let the guest read and write an MSR of the first two ranges without an exit (15.11)."""
    cdef uint32_t n = 2 * (msr & 0x1fff) + (0x4000 if msr >= 0xc0000000U else 0)
    map[n >> 3] &= <uint8_t>~(3 << (n & 7))

cdef inline void fill_maps(Guest* g) noexcept nogil:
    """Every port exits, and every MSR but those that VMLOAD and VMSAVE switch."""
    cdef Svm* x = svm_of(g)
    cdef uint8_t* map = ram_pointer(g.ram, x.monitor + MSRPM_AT, FIXED_BYTES - MSRPM_AT)
    cdef uint32_t msr
    memset(map, 0xff, FIXED_BYTES - MSRPM_AT)
    for msr in range(MSR_FS_BASE, MSR_KERNEL_GS_BASE + 1):
        msr_pass(map, msr)
    for msr in range(MSR_STAR, MSR_FMASK + 1):
        msr_pass(map, msr)
    for msr in range(MSR_SYSENTER_CS, MSR_SYSENTER_EIP + 1):
        msr_pass(map, msr)

cdef inline void write_intercepts(Vmcb* v) noexcept nogil:
    """What KVM intercepts whatever the paging: the one list, in the order of the exit codes."""
    v.cr_reads = 1 << 0 | 1 << 4             # of CR0 while the guest shall not see the real one: handlers.pxd
    v.cr_writes = 1 << 0 | 1 << 4
    v.exceptions = INTERCEPTED_EXCEPTIONS
    intercept_on(v, EXIT_INTR)
    intercept_on(v, EXIT_NMI)
    intercept_on(v, EXIT_SMI)
    intercept_on(v, EXIT_INIT)
    intercept_on(v, EXIT_CR0_SEL_WRITE)
    intercept_on(v, EXIT_RDPMC)
    intercept_on(v, EXIT_CPUID)
    intercept_on(v, EXIT_RSM)
    intercept_on(v, EXIT_INVD)
    intercept_on(v, EXIT_HLT)
    intercept_on(v, EXIT_INVLPGA)
    intercept_on(v, EXIT_IOIO)
    intercept_on(v, EXIT_MSR)
    intercept_on(v, EXIT_TASK_SWITCH)
    intercept_on(v, EXIT_SHUTDOWN)
    intercept_on(v, EXIT_VMRUN)
    intercept_on(v, EXIT_VMMCALL)
    intercept_on(v, EXIT_VMLOAD)
    intercept_on(v, EXIT_VMSAVE)
    intercept_on(v, EXIT_STGI)
    intercept_on(v, EXIT_CLGI)
    intercept_on(v, EXIT_SKINIT)
    intercept_on(v, EXIT_WBINVD)
    intercept_on(v, EXIT_MONITOR)
    intercept_on(v, EXIT_MWAIT)
    intercept_on(v, EXIT_XSETBV)

cdef inline int svm_on(Guest* g, uint64_t monitor_bytes) noexcept nogil:
    """Lay the monitor's memory out behind the guest's and fill the VMCB in.  0, or -1: there is not so much memory."""
    cdef Svm* x = svm_of(g)
    cdef Vmcb* v
    memset(x, 0, sizeof(Svm))
    x.monitor = g.vcpu.paging.window.base + g.vcpu.paging.window.size
    x.monitor_end = x.monitor + monitor_bytes
    x.maxphyaddr = g.cpu_maxphyaddr
    if ram_pointer(g.ram, x.monitor, monitor_bytes) == NULL:
        return -1
    memset(ram_pointer(g.ram, x.monitor, MSRPM_AT), 0, MSRPM_AT)
    x.vmcb = x.monitor
    x.host_save = x.monitor + HOST_SAVE_AT
    fill_maps(g)
    v = vmcb_of(g)
    write_intercepts(v)
    v.msrpm_base = x.monitor + MSRPM_AT
    v.iopm_base = x.monitor + IOPM_AT
    v.tsc_offset = g.vcpu.tsc_offset
    v.asid = GUEST_ASID
    v.vintr = V_INTR_MASKING
    ask_flush(g, v)
    g.vcpu.paging.asid = GUEST_ASID if g.cpu_vpid else 0     # without tags each VMRUN drops everything
    mmu_flush_asid(g.mmu, g.vcpu.paging.asid)
    save_guest(g, v)
    vmsave(g, v)
    g.cpu.flush(g.cpu)
    return 0

cdef inline bint svm_is_sound(const Guest* g) noexcept nogil:
    """May a style_state out of a file be used?  The VMCB is where svm_on puts it, and handlers find the exit's kind."""
    cdef const Svm* x = <const Svm*>g.style_state
    return x.monitor == g.vcpu.paging.window.base + g.vcpu.paging.window.size and x.vmcb == x.monitor and \
        ram_pointer(g.ram, x.monitor, FIXED_BYTES) != NULL and 0 <= x.kind < MAX_EXIT_KINDS

cdef inline int use_npt(Guest* g) noexcept nogil:
    """Build the nested tables and turn them on.  A host in long mode with EFER.NXE.  0, or -1: no room."""
    cdef Svm* x = svm_of(g)
    cdef Vmcb* v = vmcb_of(g)
    cdef int leaf = g.ept_leaf if g.ept_leaf else 1
    x.npt.next = x.monitor + FIXED_BYTES
    x.npt.end = x.monitor_end
    x.npt.root = map_page(&x.npt, g.ram)
    if leaf == 3 and not g.mmu.config.page1g:
        leaf = 2
    if x.npt.root == 0 or map_build(&x.npt, g.ram, &g.vcpu.paging.window, leaf) != 0:
        return -1
    v.np_control = NP_ENABLE
    v.n_cr3 = x.npt.root
    g.vcpu.paging.eptp = x.npt.root | EPTP_AD
    g.vcpu.paging.nested_kind = NESTED_NPT
    g.vcpu.paging.nested_nxe = True
    mmu_invept(g.mmu, INVEPT_CONTEXT, x.npt.root)
    return 0

cdef inline void svm_retag(Guest* g, int asid) noexcept nogil:
    """Another ASID: the machine has several guests, and has seen to it that nothing carries this one."""
    cdef Vmcb* v = vmcb_of(g)
    v.asid = <uint32_t>asid
    modified(v, CLEAN_ASID)
    g.vcpu.paging.asid = g.vcpu.hardware.asid = <uint16_t>asid
    g.cpu.flush(g.cpu)
