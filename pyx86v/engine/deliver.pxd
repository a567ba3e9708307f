# SPDX-License-Identifier: GPL-2.0-or-later
"""Delivery of exceptions and interrupts through the guest's own tables (SDM 3A chapter 6).

Nothing is changed before everything has been read and checked, so that a fault on the way leaves the
interrupted state intact; the double-fault rules are in `deliver`.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.cost.ledger cimport (DELIVER_FAULT, DELIVER_INTERRUPT, DELIVER_PAGE_FAULT, DELIVER_SOFTWARE, INTERRUPT, TRAP,
                                 charge)
from pyx86v.engine.access cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_cpl, env_rflags, env_set_rflags, env_update_hflags
from pyx86v.engine.breakpoints cimport RESUME_NOT
from pyx86v.engine.descriptors cimport *
from pyx86v.engine.state cimport *
from pyx86v.engine.task cimport task_gate
from pyx86v.vmm.guest cimport DELIVER_EXCEPTION, DELIVER_EXTERNAL, DELIVER_INT_N

cdef enum:
    GATE_TASK = 5
    GATE_INT16 = 6
    GATE_TRAP16 = 7
    GATE_INT32 = 14
    GATE_TRAP32 = 15

ctypedef struct Attempt:         # one try to deliver
    int vector
    uint32_t error
    bint has_error
    int kind                     # Delivery of vmm/guest.pxd
    uint64_t rip                 # to push

# Real mode -----------------------------------------------------------------------------------

cdef inline bint deliver_real(Engine* e, const Attempt* d, Fault* f) noexcept nogil:
    """Through the interrupt vector table (SDM 3B 20.1.4)."""
    cdef EnvSegment* idt = env_segment(e.env, 9)
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    cdef EnvSegment* cs = env_segment(e.env, SEG_CS)
    cdef uint32_t entry
    cdef uint16_t frame[3]
    cdef uint64_t flags = env_rflags(e.env)
    cdef uint64_t* rsp = env_u64(e.env, ENV_REGS) + RSP
    cdef uint64_t sp = rsp[0]
    cdef int i
    if <uint32_t>d.vector * 4 + 3 > idt.limit:
        return fail(f, VEC_GP, <uint32_t>d.vector * 8 + 2)
    if not read_system(e, idt.base + <uint64_t>d.vector * 4, &entry, 4, f):
        return False
    frame[0] = <uint16_t>flags
    frame[1] = <uint16_t>cs.selector
    frame[2] = <uint16_t>d.rip
    for i in range(3):
        sp = (sp & ~<uint64_t>0xffff) | ((sp - 2) & 0xffff)
        if not write_system(e, ss.base + (sp & 0xffff), &frame[i], 2, f):
            return False
    rsp[0] = sp
    env_set_rflags(e.env, flags & ~<uint64_t>(FL_IF | FL_TF | FL_AC | FL_RF))
    cs.selector = entry >> 16
    cs.base = <uint64_t>(entry >> 16) << 4
    env_u64(e.env, ENV_EIP)[0] = entry & 0xffff
    env_update_hflags(e.env)
    return True

# Protected mode ------------------------------------------------------------------------------

cdef inline bint code_target(Engine* e, uint32_t selector, uint32_t ext, bint long_mode, Descriptor* code, int* new_cpl, Fault* f) noexcept nogil:
    """Check the gate's code segment (SDM 3A 6.12.1.1, INT n pseudocode)."""
    cdef int cpl = env_cpl(e.env), dpl
    if selector & 0xfffc == 0:
        return fail(f, VEC_GP, ext)
    if not desc_read(e, selector, code, VEC_GP, ext, f):
        return False
    dpl = <int>((code.hi >> 13) & 3)
    if not code.hi & SEG_S or not code.hi & SEG_CODE or dpl > cpl:
        return fail(f, VEC_GP, (selector & 0xfffc) | ext)
    if long_mode and (not code.hi & SEG_LONG or code.hi & SEG_BIG):
        return fail(f, VEC_GP, (selector & 0xfffc) | ext)
    if not code.hi & SEG_PRESENT:
        return fail(f, VEC_NP, (selector & 0xfffc) | ext)
    new_cpl[0] = cpl if code.hi & SEG_CONFORMING else dpl
    return mark_accessed(e, selector, code, f)

cdef inline bint gate_read(Engine* e, const Attempt* d, int width, uint32_t* gate, uint32_t ext, Fault* f) noexcept nogil:
    """Read and check the IDT entry: limit, type, DPL for INT n, present."""
    cdef EnvSegment* idt = env_segment(e.env, 9)
    cdef uint32_t index = <uint32_t>d.vector * 8 + 2 + ext
    cdef uint32_t kind
    if <uint32_t>(d.vector * width + width - 1) > idt.limit:
        return fail(f, VEC_GP, index)
    if not read_system(e, idt.base + <uint64_t>(d.vector * width), gate, width, f):
        return False
    kind = (gate[1] >> 8) & 0x1f
    if width == 16:
        if kind != GATE_INT32 and kind != GATE_TRAP32:
            return fail(f, VEC_GP, index)
    elif kind != GATE_TASK and kind != GATE_INT16 and kind != GATE_TRAP16 and kind != GATE_INT32 and kind != GATE_TRAP32:
        return fail(f, VEC_GP, index)
    if d.kind == DELIVER_INT_N and <int>((gate[1] >> 13) & 3) < env_cpl(e.env):
        return fail(f, VEC_GP, index)
    if not gate[1] & SEG_PRESENT:
        return fail(f, VEC_NP, index)
    return True

cdef inline bint tss_stack(Engine* e, int cpl, uint32_t ext, uint32_t* ss, uint32_t* esp, Fault* f) noexcept nogil:
    """The inner stack from a 32-bit or 16-bit TSS (SDM 3A 7.2.1, 7.6)."""
    cdef EnvSegment* tr = env_segment(e.env, SEG_TR)
    cdef uint32_t at = <uint32_t>(8 * cpl + 4 if tr.flags & 0x800 else 4 * cpl + 2)
    cdef uint32_t width = 8 if tr.flags & 0x800 else 4
    cdef uint16_t half[4]
    if at + width - 1 > tr.limit:
        return fail(f, VEC_TS, (tr.selector & 0xfffc) | ext)
    half[3] = 0
    if not read_system(e, tr.base + at, half, width, f):
        return False
    if width == 8:
        esp[0] = half[0] | <uint32_t>half[1] << 16
        ss[0] = half[2]
    else:
        esp[0] = half[0]
        ss[0] = half[1]
    return True

cdef inline bint stack_target(Engine* e, uint32_t selector, int cpl, uint32_t ext, Descriptor* stack, Fault* f) noexcept nogil:
    """Check the inner stack segment."""
    if selector & 0xfffc == 0:
        return fail(f, VEC_TS, ext)
    if not desc_read(e, selector, stack, VEC_TS, ext, f):
        return False
    if <int>(selector & 3) != cpl or <int>((stack.hi >> 13) & 3) != cpl or not stack.hi & SEG_S or \
            stack.hi & SEG_CODE or not stack.hi & SEG_WRITABLE:
        return fail(f, VEC_TS, (selector & 0xfffc) | ext)
    if not stack.hi & SEG_PRESENT:
        return fail(f, VEC_SS, (selector & 0xfffc) | ext)
    return mark_accessed(e, selector, stack, f)

cdef inline bint push_frame(Engine* e, uint64_t ss_base, uint32_t* sp, uint32_t mask, bint wide, const uint32_t* words,
                            int n, int privilege, Fault* f) noexcept nogil:
    """Push n words of 4 (wide) or 2 bytes; the pointer moves only in the caller's copy."""
    cdef int i
    cdef uint32_t step = 4 if wide else 2
    cdef uint32_t word
    for i in range(n):
        sp[0] = (sp[0] & ~mask) | ((sp[0] - step) & mask)
        word = words[i]
        if not linear_access(e, (ss_base + (sp[0] & mask)) & 0xffffffffULL, &word, step, ACCESS_WRITE, privilege, f):
            return False
    return True

cdef inline int vm86_segment(int i) noexcept nogil:
    """GS FS DS ES: the order in which an interrupt out of virtual-8086 mode pushes them."""
    return SEG_GS - i if i < 3 else SEG_ES

cdef inline bint deliver_protected(Engine* e, const Attempt* d, uint32_t ext, Fault* f) noexcept nogil:
    """16- and 32-bit gates, from protected or virtual-8086 mode (SDM 3A 6.12.1, 3B 20.3.1)."""
    cdef uint32_t gate[4]
    cdef Descriptor code, stack
    cdef uint64_t flags = env_rflags(e.env)
    cdef bint vm = flags & FL_VM != 0
    cdef int cpl = env_cpl(e.env), new_cpl = 0, n = 0, i, kind, privilege
    cdef uint32_t words[10]
    cdef uint32_t ss_sel = 0, sp, mask
    cdef uint64_t ss_base
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    cdef uint64_t* rsp = env_u64(e.env, ENV_REGS) + RSP
    if not gate_read(e, d, 8, gate, ext, f):
        return False
    if (gate[1] >> 8) & 0xf == GATE_TASK:
        return task_gate(e, gate[0] >> 16, ext, d.rip, pushed_flags(e, d), d.has_error, d.error, f)
    if not code_target(e, gate[0] >> 16, ext, False, &code, &new_cpl, f):
        return False
    if vm and new_cpl != 0:
        return fail(f, VEC_GP, ((gate[0] >> 16) & 0xfffc) | ext)
    kind = <int>((gate[1] >> 8) & 0xf)
    if new_cpl < cpl:
        if not tss_stack(e, new_cpl, ext, &ss_sel, &sp, f) or not stack_target(e, ss_sel, new_cpl, ext, &stack, f):
            return False
        ss_base = desc_base(&stack)
        mask = 0xffffffffU if stack.hi & SEG_BIG else 0xffff
        if vm:
            for i in range(4):               # GS FS DS ES
                words[n] = env_segment(e.env, vm86_segment(i)).selector & 0xffff
                n += 1
        words[n] = ss.selector & 0xffff
        words[n + 1] = <uint32_t>rsp[0]
        n += 2
    else:
        sp = <uint32_t>rsp[0]
        ss_base = ss.base
        mask = 0xffffffffU if ss.flags & SEG_BIG else 0xffff
    words[n] = <uint32_t>pushed_flags(e, d)
    words[n + 1] = env_segment(e.env, SEG_CS).selector & 0xffff
    words[n + 2] = <uint32_t>d.rip
    n += 3
    if d.has_error:
        words[n] = d.error
        n += 1
    privilege = USER if new_cpl == 3 else system_privilege(e)
    if not push_frame(e, ss_base, &sp, mask, kind >= 8, words, n, privilege, f):
        return False
    if new_cpl < cpl:
        if vm:
            for i in range(4):
                load_flat(e, vm86_segment(i), 0, 0, 0, 0)
        load_segment(e, SEG_SS, (ss_sel & 0xfffc) | <uint32_t>new_cpl, &stack)
    rsp[0] = (rsp[0] & ~<uint64_t>mask) | (sp & mask) if mask == 0xffff else sp
    flags &= ~<uint64_t>(FL_TF | FL_VM | FL_RF | FL_NT)
    if kind == GATE_INT16 or kind == GATE_INT32:
        flags &= ~<uint64_t>FL_IF
    env_set_rflags(e.env, flags)
    load_segment(e, SEG_CS, ((gate[0] >> 16) & 0xfffc) | <uint32_t>new_cpl, &code)
    env_u64(e.env, ENV_EIP)[0] = (gate[0] & 0xffff) | (gate[1] & 0xffff0000U if kind >= 8 else 0)
    set_cpl(e, new_cpl)
    return True

# Long mode -----------------------------------------------------------------------------------

cdef inline bint canonical(uint64_t a) noexcept nogil:
    return <uint64_t>((<int64_t>(a << 16)) >> 16) == a

cdef inline bint tss64_stack(Engine* e, uint32_t at, uint32_t ext, uint64_t* rsp, Fault* f) noexcept nogil:
    """RSPn or ISTn of the 64-bit TSS (SDM 3A 7.7)."""
    cdef EnvSegment* tr = env_segment(e.env, SEG_TR)
    if at + 7 > tr.limit:
        return fail(f, VEC_TS, (tr.selector & 0xfffc) | ext)
    if not read_system(e, tr.base + at, rsp, 8, f):
        return False
    if not canonical(rsp[0]):
        return fail(f, VEC_SS, ext)
    return True

cdef inline bint deliver_long(Engine* e, const Attempt* d, uint32_t ext, Fault* f) noexcept nogil:
    """64-bit gates and the interrupt stack table (SDM 3A 6.14)."""
    cdef uint32_t gate[4]
    cdef Descriptor code
    cdef uint64_t flags = env_rflags(e.env)
    cdef int cpl = env_cpl(e.env), new_cpl = 0, n = 0, kind
    cdef uint32_t ist
    cdef uint64_t words[6]
    cdef uint64_t* rsp = env_u64(e.env, ENV_REGS) + RSP
    cdef uint64_t sp = rsp[0]
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    if not gate_read(e, d, 16, gate, ext, f) or not code_target(e, gate[0] >> 16, ext, True, &code, &new_cpl, f):
        return False
    kind = <int>((gate[1] >> 8) & 0xf)
    ist = gate[1] & 7
    if ist:
        if not tss64_stack(e, 28 + 8 * ist, ext, &sp, f):
            return False
    elif new_cpl < cpl:
        if not tss64_stack(e, <uint32_t>(4 + 8 * new_cpl), ext, &sp, f):
            return False
    sp &= ~<uint64_t>15
    if d.has_error:
        words[n] = d.error
        n += 1
    words[n] = d.rip
    words[n + 1] = env_segment(e.env, SEG_CS).selector & 0xffff
    words[n + 2] = pushed_flags(e, d)
    words[n + 3] = rsp[0]
    words[n + 4] = ss.selector & 0xffff
    n += 5
    sp -= 8 * <uint64_t>n
    if not canonical(sp) or not canonical(sp + 8 * <uint64_t>n - 1):
        return fail(f, VEC_SS, ext)
    while n:                                 # the first push, SS, lies highest: a fault names its address
        n -= 1
        if not linear_access(e, sp + 8 * <uint64_t>n, &words[n], 8, ACCESS_WRITE,
                             USER if new_cpl == 3 else system_privilege(e), f):
            return False
    rsp[0] = sp
    if new_cpl < cpl:                        # SS becomes null with RPL = CPL: without P, so that VMX has it unusable
        load_flat(e, SEG_SS, <uint32_t>new_cpl, 0, 0, 0)
    flags &= ~<uint64_t>(FL_TF | FL_RF | FL_NT)
    if kind == GATE_INT32:
        flags &= ~<uint64_t>FL_IF
    env_set_rflags(e.env, flags)
    load_segment(e, SEG_CS, ((gate[0] >> 16) & 0xfffc) | <uint32_t>new_cpl, &code)
    env_u64(e.env, ENV_EIP)[0] = (gate[0] & 0xffff) | (gate[1] & 0xffff0000U) | <uint64_t>gate[2] << 32
    set_cpl(e, new_cpl)
    return True

# The rules around it -------------------------------------------------------------------------

cdef inline bint contributory(int vector) noexcept nogil:
    """SDM 3A table 6-4."""
    return vector == VEC_DE or (VEC_TS <= vector <= VEC_GP)

cdef inline uint64_t pushed_flags(Engine* e, const Attempt* d) noexcept nogil:
    """RFLAGS as the frame gets it: a fault sets RF in it, but for #DB (SDM 3B 17.3.1.1).  #BP, #OF, #DF and #MC are no faults."""
    cdef uint64_t flags = env_rflags(e.env)
    if d.kind != DELIVER_EXCEPTION or d.vector == VEC_DB or d.vector == VEC_BP or d.vector == VEC_OF or \
            d.vector == VEC_DF or d.vector == VEC_MC:
        return flags
    return flags | FL_RF

cdef inline bint deliver_once(Engine* e, const Attempt* d, Fault* f) noexcept nogil:
    cdef uint32_t ext = 0 if d.kind == DELIVER_INT_N else 1
    cdef uint32_t h = env_u32(e.env, ENV_HFLAGS)[0]
    if h & HF_LMA:
        return deliver_long(e, d, ext, f)
    if h & HF_PE:
        return deliver_protected(e, d, ext, f)
    return deliver_real(e, d, f)

cdef inline void charge_delivery(Engine* e, const Attempt* d) noexcept nogil:
    """Count one delivery, and book it; the handler's IRET is an instruction of its own.

    The monitor of a deprivileged guest delivers by software: its price is the style's.
    """
    if d.kind == DELIVER_EXTERNAL:
        e.vcpu.interrupts += 1
    elif d.kind == DELIVER_INT_N:
        e.vcpu.software_ints += 1
    else:
        e.vcpu.exceptions[d.vector & 31] += 1
    if e.style.deprivileged:
        return
    if d.kind == DELIVER_EXTERNAL:
        charge(e.ledger, INTERRUPT, DELIVER_INTERRUPT)
    elif d.kind == DELIVER_INT_N:
        charge(e.ledger, TRAP, DELIVER_SOFTWARE)
    else:
        charge(e.ledger, TRAP, DELIVER_PAGE_FAULT if d.vector == VEC_PF else DELIVER_FAULT)

cdef inline bint deliver(Engine* e, Attempt* d) noexcept nogil:
    """Deliver, faults on the way included.  False: triple fault, or the style ended the run (e.stopping)."""
    cdef Fault f
    cdef int first = d.vector if d.kind == DELIVER_EXCEPTION else -1
    cdef bint done
    while True:
        f.vector = -1
        f.error = 0
        f.stop = False
        e.vcpu.depth = True
        e.vcpu.first_vector = d.vector
        e.vcpu.first_kind = d.kind
        e.vcpu.first_error = d.error
        e.vcpu.first_has_error = d.has_error
        done = deliver_once(e, d, &f)
        e.vcpu.depth = False
        if done:
            charge_delivery(e, d)
            env_u32(e.env, ENV_HFLAGS)[0] &= ~<uint32_t>HF_INHIBIT_IRQ
            env_u32(e.env, ENV_OLD_EXCEPTION)[0] = 0xffffffffU
            e.resuming = RESUME_NOT
            return True
        if f.stop:
            e.stopping = True
            return False
        if first == VEC_DF:
            return False
        if (contributory(first) and contributory(f.vector)) or \
                (first == VEC_PF and (f.vector == VEC_PF or contributory(f.vector))):
            d.vector = VEC_DF
            d.error = 0
        else:
            d.vector = f.vector
            d.error = f.error
        first = d.vector
        d.kind = DELIVER_EXCEPTION
        d.has_error = has_error_code(d.vector) and env_u32(e.env, ENV_HFLAGS)[0] & HF_PE != 0
        d.rip = e.fault_rip
