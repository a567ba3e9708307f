# SPDX-License-Identifier: GPL-2.0-or-later
"""Which event exits, with which reason and qualification (SDM 3C chapter 25 and tables 27-1 to 27-7).

Privilege, #UD and I/O-permission faults come before exits (25.1.1): `intercept` lets such an event through,
and the native behaviour raises the fault.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.mmu.memory cimport ram_read8
from pyx86v.mmu.nested cimport QUAL_FETCH, QUAL_FINAL, QUAL_GVA_VALID, QUAL_READ, QUAL_WRITE
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.vmx.exit cimport *

cdef inline bint proc(Guest* g, uint32_t control) noexcept nogil:
    return proc_controls(&vmx_of(g).vmcs) & control != 0

cdef inline bint secondary(Guest* g, uint32_t control) noexcept nogil:
    return secondary_controls(&vmx_of(g).vmcs) & control != 0

cdef inline uint64_t field(Guest* g, uint32_t name) noexcept nogil:
    """What the processor itself reads of the current VMCS: free."""
    return field_get(&vmx_of(g).vmcs, name)

cdef inline int exits_if(bint condition, int reason) noexcept nogil:
    return reason if condition else NO_EXIT

# Exceptions (25.2) and interrupts --------------------------------------------------------------

cdef inline int exception_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """The exception bitmap; for #PF inverted when the error code does not match.

    INT n never exits; INT3 and INTO do with their vector.  Qualification: CR2's value for #PF, DR6's for #DB.
    """
    cdef bint bit = e.vector < 32 and field(g, EXCEPTION_BITMAP) >> e.vector & 1
    if e.kind == EV_SOFTWARE_INT:
        return exits_if(bit and e.length == 1 and (e.vector == VEC_BP or e.vector == VEC_OF), REASON_EXCEPTION)
    if e.vector == VEC_PF and g.vcpu.shadowing:
        return NO_EXIT                       # it has exited as EV_SHADOW_FAULT, and this is its injection
    if e.vector == VEC_PF:
        q[0] = e.address
        if e.error & field(g, PF_ERROR_MASK) != field(g, PF_ERROR_MATCH):
            bit = not bit
    elif e.vector == VEC_DB:
        q[0] = g.cpu.get(g.cpu, REG_DR6) & 0x600f
    return exits_if(bit, REASON_EXCEPTION)

cdef inline int interrupt_exits(Guest* g, Event* e) noexcept nogil:
    """An interrupt of the machine exits once; after it the window exits as soon as the guest is open (25.2, 26.6.5)."""
    if not field(g, PIN_BASED_CONTROLS) & PIN_EXTERNAL_INTERRUPT:
        return NO_EXIT
    if not g.vcpu.line_seen:
        return REASON_EXTERNAL_INTERRUPT
    return exits_if(e.open and proc(g, PROC_INTERRUPT_WINDOW), REASON_INTERRUPT_WINDOW)

# Control and debug registers (25.1.3) ----------------------------------------------------------

cdef inline uint64_t cr_qualification(int cr, int access, int gpr) noexcept nogil:
    """Table 27-3: number 3:0, access 5:4 (0 to, 1 from, 2 CLTS, 3 LMSW), register 11:8."""
    return <uint64_t>(cr | access << 4 | gpr << 8)

cdef inline int cr_write_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    cdef uint64_t n
    q[0] = cr_qualification(e.reg, 0, e.gpr)
    if e.reg == 0:
        return exits_if((e.value ^ field(g, CR0_READ_SHADOW)) & field(g, CR0_MASK) != 0, REASON_CR)
    if e.reg == 4:
        return exits_if((e.value ^ field(g, CR4_READ_SHADOW)) & field(g, CR4_MASK) != 0, REASON_CR)
    if e.reg == 8:
        return exits_if(proc(g, PROC_CR8_LOAD), REASON_CR)
    if e.reg != 3 or not proc(g, PROC_CR3_LOAD):
        return NO_EXIT
    for n in range(field(g, CR3_TARGET_COUNT)):
        if e.value == field(g, <uint32_t>(CR3_TARGET_VALUE0 + 2 * n)):
            return NO_EXIT
    return REASON_CR

cdef inline int cr_read_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    q[0] = cr_qualification(e.reg, 1, e.gpr)
    return exits_if((e.reg == 3 and proc(g, PROC_CR3_STORE)) or (e.reg == 8 and proc(g, PROC_CR8_STORE)), REASON_CR)

cdef inline int clts_exits(Guest* g, uint64_t* q) noexcept nogil:
    q[0] = cr_qualification(0, 2, 0)
    return exits_if(field(g, CR0_MASK) & field(g, CR0_READ_SHADOW) & CR0_TS != 0, REASON_CR)

cdef inline int lmsw_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """MP, EM and TS as for MOV to CR0; PE only when it would be set.  Qualification: operand in 31:16, bit 6 memory."""
    cdef uint64_t owned = field(g, CR0_MASK), shadow = field(g, CR0_READ_SHADOW)
    q[0] = cr_qualification(0, 3, 0) | <uint64_t>(1 << 6 if e.detail else 0) | (e.value & 0xffff) << 16
    return exits_if((e.value ^ shadow) & owned & 0xe != 0 or e.value & owned & ~shadow & CR0_PE != 0, REASON_CR)

cdef inline int dr_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """Table 27-4: number 2:0, direction 4 (1 = from), register 11:8."""
    q[0] = <uint64_t>(e.reg | (1 << 4 if e.kind == EV_DR_READ else 0) | e.gpr << 8)
    return exits_if(proc(g, PROC_MOV_DR), REASON_DR)

# MSRs, ports, memory ---------------------------------------------------------------------------

cdef inline bint bitmap_bit(Guest* g, uint32_t name, uint64_t bit) noexcept nogil:
    """Bit `bit` of a bitmap page in the monitor's memory; outside memory all ones."""
    cdef uint8_t b = 0
    ram_read8(g.ram, field(g, name) + (bit >> 3), &b)
    return b >> (bit & 7) & 1

cdef inline bint msr_exits(Guest* g, uint32_t msr, bint write) noexcept nogil:
    """MSR bitmaps (24.6.9): reads of 0-1FFFh, of C0000000h-C0001FFFh, then writes of both; others always exit."""
    cdef uint64_t bit = msr & 0x1fff
    if not proc(g, PROC_MSR_BITMAPS) or (msr > 0x1fff and msr & 0xffffe000U != 0xc0000000U):
        return True
    if msr > 0x1fff:
        bit += 1024 * 8
    return bitmap_bit(g, MSR_BITMAP, bit + (2048 * 8 if write else 0))

cdef inline bint port_exits(Guest* g, Event* e) noexcept nogil:
    """I/O bitmaps (24.6.4) when used, otherwise unconditional.  An access that wraps past FFFFh exits."""
    cdef int i
    cdef uint32_t port
    if not proc(g, PROC_IO_BITMAPS):
        return proc(g, PROC_IO)
    if e.port + e.size > 0x10000:
        return True
    for i in range(e.size):
        port = e.port + <uint32_t>i
        if bitmap_bit(g, IO_BITMAP_B if port & 0x8000 else IO_BITMAP_A, port & 0x7fff):
            return True
    return False

cdef inline uint64_t port_qualification(Guest* g, Event* e) noexcept nogil:
    """Table 27-5: size - 1 in 2:0, IN 3, string 4, REP 5, immediate operand 6, port 31:16.

    An immediate port makes the instruction one byte longer;
    redundant prefixes would be taken for it.
    """
    cdef bint wide_code = g.cpu.get(g.cpu, REG_BITS) != 16
    cdef int plain = 1 + (1 if (e.size == 2 and wide_code) or (e.size == 4 and not wide_code) else 0)
    cdef uint64_t q = <uint64_t>(e.size - 1) | <uint64_t>e.port << 16
    if e.kind == EV_PORT_IN:
        q |= 1 << 3
    if e.string:
        q |= 3 << 4 if e.rep else 1 << 4
    elif e.length == plain + 1:
        q |= 1 << 6
    return q

cdef inline uint64_t mmio_qualification(Event* e) noexcept nogil:
    """Table 27-7 for a page that is not mapped: the access, and a valid guest-linear address of the page itself."""
    return (QUAL_WRITE if e.kind == EV_MMIO_WRITE else QUAL_READ) | QUAL_GVA_VALID | QUAL_FINAL

cdef inline int mmio_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """A page that the EPT does not map, or the page fault on one that the shadow tables do not."""
    if not g.vcpu.shadowing:
        q[0] = mmio_qualification(e)
        return REASON_EPT_VIOLATION
    q[0] = e.address
    e.vector = VEC_PF
    e.has_error = True
    e.error = (PFEC_W if e.kind == EV_MMIO_WRITE else 0) | (PFEC_U if g.cpu.get(g.cpu, REG_CPL) == 3 else 0)
    return REASON_EXCEPTION

# Other instructions ----------------------------------------------------------------------------

cdef inline bint vmx_mode_bad(Guest* g, int reason) noexcept nogil:
    """VMX instructions but VMCALL are #UD in real-address, virtual-8086 and compatibility mode, before any exit."""
    if reason == REASON_VMCALL:
        return False
    if not g.cpu.get(g.cpu, REG_CR0) & CR0_PE or g.cpu.get(g.cpu, REG_RFLAGS) & FL_VM:
        return True
    return g.cpu.get(g.cpu, REG_EFER) & EFER_LMA != 0 and g.cpu.get(g.cpu, REG_BITS) != 64

cdef inline int rdpmc_exits(Guest* g) noexcept nogil:
    """Outside CPL 0 only with CR4.PCE; otherwise the #GP comes first."""
    cdef bint privileged = g.cpu.get(g.cpu, REG_CPL) == 0 or g.cpu.get(g.cpu, REG_CR4) & CR4_PCE != 0
    return exits_if(proc(g, PROC_RDPMC) and privileged, REASON_RDPMC)

cdef inline int monitor_exits(Guest* g, Event* e) noexcept nogil:
    if e.detail:
        return exits_if(proc(g, PROC_MWAIT), REASON_MWAIT)
    return exits_if(proc(g, PROC_MONITOR), REASON_MONITOR)

cdef inline int descriptor_exits(Guest* g, Event* e) noexcept nogil:
    return exits_if(secondary(g, SEC_DESCRIPTOR_TABLE), REASON_GDTR_IDTR if e.detail < 2 else REASON_LDTR_TR)

cdef inline int kernel_instruction_exits(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """Instructions of CPL 0 (25.1.2, 25.1.3); the caller has checked the privilege."""
    cdef int k = e.kind
    if k == EV_HLT: return exits_if(proc(g, PROC_HLT), REASON_HLT)
    if k == EV_CR_WRITE: return cr_write_exits(g, e, q)
    if k == EV_CR_READ: return cr_read_exits(g, e, q)
    if k == EV_CLTS: return clts_exits(g, q)
    if k == EV_LMSW: return lmsw_exits(g, e, q)
    if k == EV_DR_WRITE or k == EV_DR_READ: return dr_exits(g, e, q)
    if k == EV_INVLPG:
        q[0] = e.address
        return exits_if(proc(g, PROC_INVLPG), REASON_INVLPG)
    if k == EV_INVPCID or k == EV_DESCRIPTOR_LOAD:
        q[0] = e.qualification
    if k == EV_INVPCID: return exits_if(secondary(g, SEC_INVPCID) and proc(g, PROC_INVLPG), REASON_INVPCID)
    if k == EV_RDMSR: return exits_if(msr_exits(g, <uint32_t>e.reg, False), REASON_RDMSR)
    if k == EV_WRMSR: return exits_if(msr_exits(g, <uint32_t>e.reg, True), REASON_WRMSR)
    if k == EV_WBINVD: return exits_if(secondary(g, SEC_WBINVD), REASON_WBINVD)
    if k == EV_INVD: return REASON_INVD
    if k == EV_XSETBV: return exits_if(g.cpu.get(g.cpu, REG_CR4) & CR4_OSXSAVE != 0, REASON_XSETBV)
    if k == EV_MONITOR: return monitor_exits(g, e)
    if k == EV_DESCRIPTOR_LOAD: return descriptor_exits(g, e)
    return NO_EXIT

cdef inline int intercept(Guest* g, Event* e, uint64_t* q) noexcept nogil:
    """The basic exit reason of an event and its qualification, or NO_EXIT."""
    cdef int k = e.kind
    if k == EV_EXCEPTION or k == EV_SOFTWARE_INT: return exception_exits(g, e, q)
    if k == EV_INTERRUPT: return interrupt_exits(g, e)
    if k == EV_TRIPLE_FAULT: return REASON_TRIPLE_FAULT
    if k == EV_CPUID: return REASON_CPUID
    if k == EV_RDTSC and e.detail: return exits_if(secondary(g, SEC_RDTSCP) and proc(g, PROC_RDTSC), REASON_RDTSCP)
    if k == EV_RDTSC: return exits_if(proc(g, PROC_RDTSC), REASON_RDTSC)
    if k == EV_PORT_IN or k == EV_PORT_OUT:
        q[0] = port_qualification(g, e)
        return exits_if(port_exits(g, e), REASON_IO)
    if k == EV_MMIO_READ or k == EV_MMIO_WRITE:
        return mmio_exits(g, e, q)
    if k == EV_EPT_VIOLATION:
        q[0] = e.qualification
        return REASON_EPT_VIOLATION
    if k == EV_TASK_SWITCH:
        q[0] = e.value & 0xffff | <uint64_t>e.detail << 30       # table 27-2
        return REASON_TASK_SWITCH
    if k == EV_EPT_MISCONFIG: return REASON_EPT_MISCONFIG
    if k == EV_RDPMC: return rdpmc_exits(g)
    if k == EV_VMX_INSN:
        q[0] = e.qualification
        return exits_if(0 <= e.detail < N_REASONS and not vmx_mode_bad(g, e.detail), e.detail)
    return kernel_instruction_exits(g, e, q) if not g.cpu.get(g.cpu, REG_CPL) else NO_EXIT
