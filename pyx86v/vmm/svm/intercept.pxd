# SPDX-License-Identifier: GPL-2.0-or-later
"""Which event exits, with which code and information (APM 2 15.7 to 15.13).

The faults that an instruction raises by its privilege and its operands' form come before its intercept (tables 15-7,
15-8): `intercept` lets such an event through, and the native behaviour raises the fault.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.mmu.memory cimport ram_read8
from pyx86v.mmu.nested cimport NPF_FINAL
from pyx86v.vmm.emulate cimport cr0_legal
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.svm.exit cimport *

cdef enum:
    SOURCE_IRET = 1          # Event.detail of a task switch
    SOURCE_JMP = 2
    CR0_UNSELECTED = CR0_TS | CR0_MP     # a write that changes only these is none to the selective intercept

cdef extern from *:
    """
    #define PYX_MOV_CR (1ULL << 63)
    #define PYX_TASK_BY_IRET (1ULL << 36)
    #define PYX_TASK_BY_JMP (1ULL << 38)
    #define PYX_TASK_HAS_ERROR (1ULL << 44)
    #define PYX_TASK_KEEPS_RF (1ULL << 48)
    """
    const uint64_t MOV_CR "PYX_MOV_CR"   # EXITINFO1: MOV, with the general register's number in bits 3:0 (15.8.1)
    const uint64_t TASK_BY_IRET "PYX_TASK_BY_IRET"       # bits of EXITINFO2 (15.14.1)
    const uint64_t TASK_BY_JMP "PYX_TASK_BY_JMP"
    const uint64_t TASK_HAS_ERROR "PYX_TASK_HAS_ERROR"
    const uint64_t TASK_KEEPS_RF "PYX_TASK_KEEPS_RF"

cdef inline int exits_if(bint condition, int code) noexcept nogil:
    return code if condition else NO_EXIT

cdef inline bint intercepted(const Vmcb* v, int code) noexcept nogil:
    """The bit of an exit code from 60h to BFh."""
    cdef uint32_t word = v.instructions_1
    if code >= 0xa0:
        word = v.instructions_3
    elif code >= 0x80:
        word = v.instructions_2
    return word >> (code & 31) & 1

cdef inline int instruction_exits(const Vmcb* v, int code) noexcept nogil:
    return exits_if(intercepted(v, code), code)

# Exceptions and interrupts (15.12, 15.13) ------------------------------------------------------

cdef inline int exception_exits(Guest* g, const Vmcb* v, const Event* e, ExitInfo* x) noexcept nogil:
    """A bit for each vector.  EXITINFO1: the error code; for #PF EXITINFO2 the address."""
    if e.vector == VEC_PF and g.vcpu.shadowing:
        return NO_EXIT                       # it has exited as EV_SHADOW_FAULT, and this is its injection
    if e.has_error:
        x.info1 = e.error
    if e.vector == VEC_PF:
        x.info2 = e.address
    return exits_if(e.vector < 32 and v.exceptions >> e.vector & 1, EXIT_EXCEPTION + e.vector)

cdef inline int software_exits(const Vmcb* v, const Event* e, ExitInfo* x) noexcept nogil:
    """INT3 and INTO belong to their vectors' bits, INT n has one of its own (EXITINFO1: the vector)."""
    if e.length == 1 and (e.vector == VEC_BP or e.vector == VEC_OF):
        return exits_if(v.exceptions >> e.vector & 1, EXIT_EXCEPTION + e.vector)
    x.info1 = <uint64_t>e.vector
    return instruction_exits(v, EXIT_SWINT)

cdef inline int interrupt_exits(Guest* g, const Vmcb* v, const Event* e) noexcept nogil:
    """An interrupt of the machine exits once, whatever the guest's IF says (V_INTR_MASKING); after it the virtual
    interrupt that stands for the window exits as soon as the guest is open (15.21.4)."""
    if not intercepted(v, EXIT_INTR):
        return NO_EXIT
    if not g.vcpu.line_seen:
        return EXIT_INTR
    return exits_if(e.open and v.vintr & V_IRQ and intercepted(v, EXIT_VINTR), EXIT_VINTR)

# Control and debug registers (15.8) ------------------------------------------------------------

cdef inline int cr0_exits(Guest* g, const Vmcb* v, uint64_t value) noexcept nogil:
    """The bit of writes to CR0, else the selective intercept (15.9): any change but of TS and MP."""
    if v.cr_writes & 1:
        return EXIT_WRITE_CR0
    value ^= real_cr0(g, g.cpu.get(g.cpu, REG_CR0))
    return exits_if(value & ~<uint64_t>CR0_UNSELECTED and intercepted(v, EXIT_CR0_SEL_WRITE), EXIT_CR0_SEL_WRITE)

cdef inline int cr_write_exits(Guest* g, const Vmcb* v, const Event* e, ExitInfo* x) noexcept nogil:
    x.info1 = MOV_CR | <uint64_t>e.gpr
    if e.reg == 0:
        return cr0_exits(g, v, e.value) if cr0_legal(e.value) else NO_EXIT
    if e.reg == 8 and e.value >> 4:
        return NO_EXIT
    return exits_if(v.cr_writes >> e.reg & 1, EXIT_WRITE_CR0 + e.reg)

cdef inline int cr_read_exits(const Vmcb* v, const Event* e, ExitInfo* x) noexcept nogil:
    x.info1 = MOV_CR | <uint64_t>e.gpr
    return exits_if(v.cr_reads >> e.reg & 1, EXIT_READ_CR0 + e.reg)

cdef inline int lmsw_exits(Guest* g, const Vmcb* v, const Event* e) noexcept nogil:
    """LMSW writes PE MP EM TS and cannot clear PE."""
    cdef uint64_t old = real_cr0(g, g.cpu.get(g.cpu, REG_CR0))
    return cr0_exits(g, v, (old & ~<uint64_t>0xe) | (e.value & 0xf))

cdef inline int dr_exits(const Vmcb* v, const Event* e, ExitInfo* x) noexcept nogil:
    x.info1 = <uint64_t>e.gpr
    if e.kind == EV_DR_READ:
        return exits_if(v.dr_reads >> e.reg & 1, EXIT_READ_DR0 + e.reg)
    return exits_if(v.dr_writes >> e.reg & 1, EXIT_WRITE_DR0 + e.reg)

# MSRs, ports, memory ---------------------------------------------------------------------------

cdef inline bint map_bit(Guest* g, hpa_t base, uint64_t bit) noexcept nogil:
    """Bit `bit` of a permission map in the monitor's memory; outside memory all ones."""
    cdef uint8_t b = 0
    ram_read8(g.ram, base + (bit >> 3), &b)
    return b >> (bit & 7) & 1

cdef inline bint msr_exits(Guest* g, const Vmcb* v, uint32_t msr, bint write) noexcept nogil:
    """MSRPM (15.11): two bits for each of three ranges of 8192, the lower for reads; others always exit."""
    cdef uint64_t n = msr & 0x1fff, high = msr & 0xffffe000U
    if not intercepted(v, EXIT_MSR):
        return False
    if high == 0xc0000000U:
        n += 0x2000
    elif high == 0xc0010000U:
        n += 0x4000
    elif high != 0:
        return True
    return map_bit(g, v.msrpm_base, 2 * n + (1 if write else 0))

cdef inline bint port_exits(Guest* g, const Vmcb* v, const Event* e) noexcept nogil:
    """IOPM (15.10.1): a bit for each port, of every byte of the access; three bits follow for accesses at the end."""
    cdef int i
    if not intercepted(v, EXIT_IOIO):
        return False
    for i in range(e.size):
        if map_bit(g, v.iopm_base, <uint64_t>e.port + <uint64_t>i):
            return True
    return False

cdef inline void port_info(Guest* g, const Event* e, ExitInfo* x) noexcept nogil:
    """EXITINFO1 (15.10.2): IN 0, string 2, REP 3, size 4 to 6, address size 7 to 9, port 31:16; EXITINFO2: the next RIP.
    The address size is the code segment's."""
    cdef int bits = <int>g.cpu.get(g.cpu, REG_BITS)
    x.info1 = <uint64_t>e.port << 16 | <uint64_t>e.size << 4 | (1 << 9 if bits == 64 else 1 << 8 if bits == 32 else 1 << 7)
    if e.kind == EV_PORT_IN:
        x.info1 |= 1
    if e.string:
        x.info1 |= 3 << 2 if e.rep else 1 << 2
    x.info2 = e.rip + <uint64_t>e.length

cdef inline int device_exits(Guest* g, const Event* e, ExitInfo* x) noexcept nogil:
    """A page that the nested tables do not map: the final access, a user's as all are (15.25.6).  Or the page fault on
    one that the shadow tables do not map."""
    x.info1 = PFEC_W if e.kind == EV_MMIO_WRITE else 0
    if g.vcpu.shadowing:
        x.info1 |= PFEC_U if g.cpu.get(g.cpu, REG_CPL) == 3 else 0
        x.info2 = e.address
        return EXIT_EXCEPTION + VEC_PF
    x.info1 |= NPF_FINAL | PFEC_U
    x.info2 = e.gpa
    return EXIT_NPF

# Other instructions ----------------------------------------------------------------------------

cdef inline void task_info(const Event* e, ExitInfo* x) noexcept nogil:
    """EXITINFO1: the new TSS; EXITINFO2: the error code for the new task, and who asks (15.14.1)."""
    x.info1 = e.value & 0xffff
    x.info2 = (e.error | TASK_HAS_ERROR) if e.has_error else 0
    if e.detail == SOURCE_IRET:
        x.info2 |= TASK_BY_IRET
    elif e.detail == SOURCE_JMP:
        x.info2 |= TASK_BY_JMP
    if e.address & FL_RF:
        x.info2 |= TASK_KEEPS_RF

cdef inline int monitor_exits(const Vmcb* v, const Event* e) noexcept nogil:
    return instruction_exits(v, EXIT_MWAIT if e.detail else EXIT_MONITOR)

cdef inline int descriptor_exits(const Vmcb* v, const Event* e) noexcept nogil:
    """LGDT LIDT LLDT LTR."""
    if e.detail == 0: return instruction_exits(v, EXIT_WRITE_GDTR)
    if e.detail == 1: return instruction_exits(v, EXIT_WRITE_IDTR)
    return instruction_exits(v, EXIT_WRITE_LDTR if e.detail == 2 else EXIT_WRITE_TR)

cdef inline int rdpmc_exits(Guest* g, const Vmcb* v) noexcept nogil:
    """Outside CPL 0 only with CR4.PCE; otherwise the fault comes first."""
    cdef bint privileged = g.cpu.get(g.cpu, REG_CPL) == 0 or g.cpu.get(g.cpu, REG_CR4) & CR4_PCE != 0
    return instruction_exits(v, EXIT_RDPMC) if privileged else NO_EXIT

cdef inline int svm_instruction_exits(Guest* g, const Vmcb* v, const Event* e) noexcept nogil:
    """VMRUN VMLOAD VMSAVE STGI CLGI SKINIT INVLPGA at CPL 0 in protected mode, VMMCALL anywhere.

    The monitor gives the guest no SVM: elsewhere they have to be #UD, as on a machine without it.
    """
    if e.detail == EXIT_VMMCALL:
        return instruction_exits(v, EXIT_VMMCALL)
    if g.cpu.get(g.cpu, REG_CPL) or not g.cpu.get(g.cpu, REG_CR0) & CR0_PE or g.cpu.get(g.cpu, REG_RFLAGS) & FL_VM:
        return NO_EXIT
    return instruction_exits(v, e.detail)

cdef inline int kernel_instruction_exits(Guest* g, const Vmcb* v, Event* e, ExitInfo* x) noexcept nogil:
    """Instructions of CPL 0; the caller has checked the privilege."""
    cdef int k = e.kind
    if k == EV_HLT: return instruction_exits(v, EXIT_HLT)
    if k == EV_CR_WRITE: return cr_write_exits(g, v, e, x)
    if k == EV_CR_READ: return cr_read_exits(v, e, x)
    if k == EV_CLTS: return exits_if(v.cr_writes & 1, EXIT_WRITE_CR0)
    if k == EV_LMSW: return lmsw_exits(g, v, e)
    if k == EV_DR_WRITE or k == EV_DR_READ: return dr_exits(v, e, x)
    if k == EV_INVLPG:
        x.info1 = e.address
        return instruction_exits(v, EXIT_INVLPG)
    if k == EV_INVPCID: return instruction_exits(v, EXIT_INVPCID) if g.cpu_invpcid else NO_EXIT
    if k == EV_RDMSR: return exits_if(msr_exits(g, v, <uint32_t>e.reg, False), EXIT_MSR)
    if k == EV_WRMSR:
        x.info1 = 1
        return exits_if(msr_exits(g, v, <uint32_t>e.reg, True), EXIT_MSR)
    if k == EV_WBINVD: return instruction_exits(v, EXIT_WBINVD)
    if k == EV_INVD: return instruction_exits(v, EXIT_INVD)
    if k == EV_XSETBV: return instruction_exits(v, EXIT_XSETBV) if g.cpu.get(g.cpu, REG_CR4) & CR4_OSXSAVE else NO_EXIT
    if k == EV_MONITOR: return monitor_exits(v, e)
    if k == EV_DESCRIPTOR_LOAD: return descriptor_exits(v, e)
    return NO_EXIT

cdef inline int intercept(Guest* g, Event* e, ExitInfo* x) noexcept nogil:
    """The exit code of an event and its information, or NO_EXIT."""
    cdef const Vmcb* v = vmcb_of(g)
    cdef int k = e.kind, code
    x.info1 = x.info2 = 0
    if k == EV_EXCEPTION:
        code = svm_instruction_exits(g, v, e) if e.detail else NO_EXIT
        return exception_exits(g, v, e, x) if code == NO_EXIT else code
    if k == EV_SOFTWARE_INT: return software_exits(v, e, x)
    if k == EV_INTERRUPT: return interrupt_exits(g, v, e)
    if k == EV_TRIPLE_FAULT: return instruction_exits(v, EXIT_SHUTDOWN)
    if k == EV_CPUID: return instruction_exits(v, EXIT_CPUID)
    if k == EV_RDTSC: return instruction_exits(v, EXIT_RDTSCP if e.detail else EXIT_RDTSC)
    if k == EV_PORT_IN or k == EV_PORT_OUT:
        port_info(g, e, x)
        return exits_if(port_exits(g, v, e), EXIT_IOIO)
    if k == EV_MMIO_READ or k == EV_MMIO_WRITE: return device_exits(g, e, x)
    if k == EV_EPT_VIOLATION:
        x.info1 = e.qualification
        x.info2 = e.gpa
        return EXIT_NPF
    if k == EV_RDPMC: return rdpmc_exits(g, v)
    if k == EV_TASK_SWITCH:
        task_info(e, x)
        return instruction_exits(v, EXIT_TASK_SWITCH)
    return kernel_instruction_exits(g, v, e, x) if not g.cpu.get(g.cpu, REG_CPL) else NO_EXIT
