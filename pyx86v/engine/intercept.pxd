# SPDX-License-Identifier: GPL-2.0-or-later
"""From the engine's intercepts to events.

With HF_GUEST set the engine checks AMD's intercept bits before a sensitive instruction and, without
any VMCB, ends in the INTR hook with 0x100 + exit code (APM 2 appendix C) and RIP at the instruction.
The same set is intercepted under every hardware style, so that blocks end at the same places; what an
event then means is the style's business.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.arch.decode cimport Insn, insn_displacement, insn_info
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.engine.access cimport *
from pyx86v.engine.descriptors cimport Descriptor, desc_base, desc_limit, desc_read, fail
from pyx86v.engine.layout cimport *
from pyx86v.engine.operands cimport *
from pyx86v.engine.ops cimport env_bits, env_cpl
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.guest cimport *

cdef enum:                   # AMD exit codes (APM 2 appendix C)
    SVM_CR_READ = 0x00
    SVM_CR_WRITE = 0x10
    SVM_DR_READ = 0x20
    SVM_DR_WRITE = 0x30
    SVM_IDTR_WRITE = 0x6a
    SVM_GDTR_WRITE = 0x6b
    SVM_TR_WRITE = 0x6d
    SVM_RDTSC = 0x6e
    SVM_RDPMC = 0x6f
    SVM_CPUID = 0x72
    SVM_INVD = 0x76
    SVM_HLT = 0x78
    SVM_INVLPG = 0x79
    SVM_MSR = 0x7c
    SVM_SHUTDOWN = 0x7f
    SVM_RDTSCP = 0x87
    SVM_WBINVD = 0x89
    SVM_XSETBV = 0x8d

cdef inline uint64_t intercept_bit(int code) noexcept nogil:
    return <uint64_t>1 << (code - 0x60)

cdef inline void tables_intercepted(Engine* e) noexcept nogil:
    """LGDT and LIDT are intercepted in the boot part of a guest that is to be deprivileged: they may end it."""
    cdef uint64_t bits = intercept_bit(SVM_IDTR_WRITE) | intercept_bit(SVM_GDTR_WRITE)
    if e.style.deprivileged and not e.vcpu.ring.dropped and not e.vcpu.ring.step:
        env_u64(e.env, ENV_INTERCEPT)[0] |= bits
    else:
        env_u64(e.env, ENV_INTERCEPT)[0] &= ~bits

cdef inline void intercepts_on(Engine* e) noexcept nogil:
    """Arm the intercepts.  The MSR bitmap pointer is read through the address the engine takes for its VMCB."""
    env_u64(e.env, ENV_INTERCEPT)[0] = (
        intercept_bit(SVM_TR_WRITE) | intercept_bit(SVM_RDTSC) | intercept_bit(SVM_RDTSCP) | intercept_bit(SVM_CPUID) |
        intercept_bit(SVM_INVD) | intercept_bit(SVM_HLT) | intercept_bit(SVM_INVLPG) | intercept_bit(SVM_MSR) |
        intercept_bit(SVM_SHUTDOWN) | intercept_bit(SVM_WBINVD) | intercept_bit(SVM_XSETBV))
    tables_intercepted(e)
    env_u16(e.env, ENV_INTERCEPT_CR_READ)[0] = 1 << 3 | 1 << 4 | 1 << 8   # CR3 may carry a PCID; CR8 reads 0 in the engine
    env_u16(e.env, ENV_INTERCEPT_CR_WRITE)[0] = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 8
    env_u16(e.env, ENV_INTERCEPT_DR_READ)[0] = 0
    env_u16(e.env, ENV_INTERCEPT_DR_WRITE)[0] = 0
    env_u32(e.env, ENV_INTERCEPT_EXCEPTIONS)[0] = 0
    env_u64(e.env, ENV_VM_VMCB)[0] = e.vmcb_page
    env_u32(e.env, ENV_HFLAGS)[0] |= HF_GUEST
    env_u32(e.env, ENV_HFLAGS2)[0] |= HF2_GIF

cdef inline bint event_of_cr(Engine* e, int code, const Insn* d, Event* ev, Fault* f) noexcept nogil:
    """MOV CR, CLTS, LMSW: one intercept for all writers of CR0."""
    cdef uint16_t half = 0
    ev.gpr = d.rm
    ev.reg = d.reg
    if code < SVM_CR_WRITE:
        ev.kind = EV_CR_READ
        if d.lock and d.reg == 0:
            ev.reg = 8                       # AMD's LOCK MOV CR0 names CR8 in 32-bit mode (APM 3)
    elif d.opcode == 0x06:
        ev.kind = EV_CLTS
    elif d.opcode == 0x01:
        ev.kind = EV_LMSW
        if d.is_register:
            ev.value = e.ops.gpr[d.rm] & 0xffff
            return True
        if not linear_access(e, operand_address(e, d, ev.rip), &half, 2, ACCESS_READ, data_privilege(e), f):
            return False
        ev.value = half
    else:
        ev.kind = EV_CR_WRITE
        if d.lock and d.reg == 0:
            ev.reg = 8
        ev.value = e.ops.gpr[d.rm] if env_bits(e.env) == 64 else e.ops.gpr[d.rm] & 0xffffffffULL
    return True

cdef inline bint event_of_msr(Engine* e, const Insn* d, Event* ev) noexcept nogil:
    ev.reg = <int>(e.ops.gpr[RCX] & 0xffffffffULL)
    ev.kind = EV_RDMSR if d.opcode == 0x32 else EV_WRMSR
    ev.value = (e.ops.gpr[RDX] & 0xffffffffULL) << 32 | (e.ops.gpr[RAX] & 0xffffffffULL)
    return True

cdef inline bint event_of_intercept(Engine* e, int code, uint64_t rip, Event* ev, Fault* f) noexcept nogil:
    """Fill the event of an intercepted instruction in.  False: reading its operand faulted (`f`)."""
    cdef Insn d
    event_init(ev, EV_CPUID)
    ev.rip = rip
    fetch_insn(e, rip, &d)
    ev.length = d.length
    if code < SVM_DR_READ:
        return event_of_cr(e, code, &d, ev, f)
    if code == SVM_CPUID:
        return True
    if code == SVM_RDTSC or code == SVM_RDTSCP:
        ev.kind = EV_RDTSC
        ev.detail = 1 if d.modrm == 0xf9 else 0
    elif code == SVM_MSR:
        return event_of_msr(e, &d, ev)
    elif code == SVM_HLT:
        ev.kind = EV_HLT
    elif code == SVM_INVLPG:
        ev.kind = EV_INVLPG
        ev.address = operand_address(e, &d, rip)
    elif code == SVM_INVD:
        ev.kind = EV_INVD
    elif code == SVM_WBINVD:
        ev.kind = EV_WBINVD
    elif code == SVM_XSETBV:
        ev.kind = EV_XSETBV
        event_of_msr(e, &d, ev)
        ev.kind = EV_XSETBV
    elif code == SVM_TR_WRITE:
        ev.kind = EV_DESCRIPTOR_LOAD
        ev.detail = 3
        ev.insn_info = insn_info(&d) | 3 << 28
        ev.qualification = insn_displacement(&d, rip)
        return read_selector(e, &d, ev, f)
    elif code == SVM_SHUTDOWN:
        ev.kind = EV_TRIPLE_FAULT
    return True

cdef inline bint read_selector(Engine* e, const Insn* d, Event* ev, Fault* f) noexcept nogil:
    cdef uint16_t half = 0
    if d.is_register:
        ev.value = e.ops.gpr[d.rm] & 0xffff
        return True
    if not linear_access(e, operand_address(e, d, ev.rip), &half, 2, ACCESS_READ, data_privilege(e), f):
        return False
    ev.value = half
    return True

cdef inline bint load_task_register(Engine* e, uint32_t selector, Fault* f) noexcept nogil:
    """LTR (SDM 2A LTR).  Ours, because the engine takes a null selector and then aborts at the next use of the TSS."""
    cdef Descriptor d[2]
    cdef EnvSegment* tr = env_segment(e.env, SEG_TR)
    cdef EnvSegment* gdt = env_segment(e.env, 8)
    cdef bint wide = env_u32(e.env, ENV_HFLAGS)[0] & HF_LMA != 0
    cdef uint32_t kind, busy
    if env_cpl(e.env) or selector & 0xfffc == 0:
        return fail(f, VEC_GP, 0)
    if selector & 4 or (selector & 0xfff8) + (15 if wide else 7) > gdt.limit:
        return fail(f, VEC_GP, selector & 0xfffc)
    d[1].lo = 0
    if not read_system(e, gdt.base + (selector & 0xfff8), d, 16 if wide else 8, f):
        return False
    kind = (d[0].hi >> 8) & 0x1f
    if kind != 9 and (kind != 1 or wide):
        return fail(f, VEC_GP, selector & 0xfffc)
    if not d[0].hi & (1 << 15):
        return fail(f, VEC_NP, selector & 0xfffc)
    if wide and d[1].hi & 0x1f00:            # the type field of the upper half must be zero
        return fail(f, VEC_GP, selector & 0xfffc)
    busy = d[0].hi | (1 << 9)
    if not write_system(e, gdt.base + (selector & 0xfff8) + 4, &busy, 4, f):
        return False
    tr.selector = selector
    tr.base = desc_base(d) | (<uint64_t>d[1].lo << 32 if wide else 0)
    tr.limit = desc_limit(d)
    tr.flags = d[0].hi & 0x00f0ff00U         # kept "available": the engine aborts on a busy TSS when it uses it itself
    return True

# Instructions the engine does not know -------------------------------------------------------

cdef inline int vmx_exit_reason(const Insn* d) noexcept nogil:
    """Basic exit reason of a VMX instruction (SDM 3C appendix C), or -1."""
    if d.map == 1 and d.opcode == 0x01 and d.modrm >= 0xc0:
        if d.modrm == 0xc1:
            return 18                        # VMCALL
        if d.modrm == 0xc2:
            return 20
        if d.modrm == 0xc3:
            return 24
        if d.modrm == 0xc4:
            return 26                        # VMXOFF
        if d.modrm == 0xd4:
            return 59                        # VMFUNC
    if d.map == 1 and d.opcode == 0x78:
        return 23
    if d.map == 1 and d.opcode == 0x79:
        return 25
    if d.map == 1 and d.opcode == 0xc7 and not d.is_register:
        if d.reg & 7 == 6:
            return 19 if d.op16 else (27 if d.rep else 21)
        if d.reg & 7 == 7:
            return 22
    if d.map == 2 and d.op16 and (d.opcode == 0x80 or d.opcode == 0x81):
        return 50 if d.opcode == 0x80 else 53
    return -1

cdef inline int svm_exit_code(const Insn* d) noexcept nogil:
    """Exit code of VMRUN VMMCALL VMLOAD VMSAVE STGI CLGI SKINIT INVLPGA (APM 2 appendix C), or 0."""
    if d.map != 1 or d.opcode != 0x01 or not 0xd8 <= d.modrm <= 0xdf:
        return 0
    return 0x7a if d.modrm == 0xdf else 0x80 + d.modrm - 0xd8

cdef inline bint event_of_invalid(Engine* e, uint64_t rip, Event* ev, Fault* f) noexcept nogil:
    """An instruction that the engine refuses: ours to emulate, or #UD (an EV_EXCEPTION)."""
    cdef Insn d
    cdef uint64_t words[2]
    event_init(ev, EV_EXCEPTION)
    ev.rip = rip
    ev.vector = VEC_UD
    fetch_insn(e, rip, &d)
    ev.length = d.length
    if d.map == 2 and d.opcode == 0x82 and d.op16 and not d.is_register and e.guest.cpu_invpcid and \
            not env_u64(e.env, ENV_EFLAGS)[0] & FL_VM:
        ev.kind = EV_INVPCID
        ev.insn_info = insn_info(&d) | <uint32_t>d.reg << 28
        ev.qualification = insn_displacement(&d, rip)
        ev.value = e.ops.gpr[d.reg] if env_bits(e.env) == 64 else e.ops.gpr[d.reg] & 0xffffffffULL
        ev.address = operand_address(e, &d, rip)
        if env_cpl(e.env) == 0:
            if not linear_access(e, ev.address, words, 16, ACCESS_READ, data_privilege(e), f):
                return False
            ev.pcid = <uint16_t>(words[0] & 0xfff)
            ev.detail = words[0] >> 12 != 0
            ev.target = words[1]
    elif d.map == 1 and d.opcode == 0x33:
        ev.kind = EV_RDPMC
    elif d.map == 1 and d.opcode == 0x01 and (d.modrm == 0xc8 or d.modrm == 0xc9):
        ev.kind = EV_MONITOR
        ev.detail = d.modrm - 0xc8
    elif vmx_exit_reason(&d) >= 0:
        ev.kind = EV_VMX_INSN
        ev.detail = vmx_exit_reason(&d)
        if d.map != 1 or d.opcode != 0x01:           # it has an operand; in VMREAD, VMWRITE, INVEPT and INVVPID a second
            ev.insn_info = insn_info(&d) | (<uint32_t>d.reg << 28 if d.map == 2 or d.opcode != 0xc7 else 0)
            ev.qualification = insn_displacement(&d, rip)
    else:
        ev.detail = svm_exit_code(&d)
    return True

# I/O privilege -------------------------------------------------------------------------------

cdef inline bint io_allowed(Engine* e, uint16_t port, int size, Fault* f) noexcept nogil:
    """IOPL and the TSS's permission bitmap (SDM 1 19.5; virtual-8086 mode ignores IOPL)."""
    cdef uint64_t flags = env_u64(e.env, ENV_EFLAGS)[0]
    cdef EnvSegment* tr = env_segment(e.env, SEG_TR)
    cdef uint16_t base = 0, bits = 0
    cdef uint32_t at
    if not env_u32(e.env, ENV_HFLAGS)[0] & HF_PE:
        return True
    if not flags & FL_VM and env_cpl(e.env) <= <int>((flags >> 12) & 3):
        return True
    if not tr.flags & 0x8000 or (tr.flags >> 8) & 0xf not in (9, 11) or tr.limit < 103:
        return fail(f, VEC_GP, 0)
    if not read_system(e, tr.base + 102, &base, 2, f):
        return False
    at = <uint32_t>base + (port >> 3)
    if at + 1 > tr.limit:                    # two bytes are read, so the byte behind must exist too
        return fail(f, VEC_GP, 0)
    if not read_system(e, tr.base + at, &bits, 2, f):
        return False
    if (bits >> (port & 7)) & ((1 << size) - 1):
        return fail(f, VEC_GP, 0)
    return True
