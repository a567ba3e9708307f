# SPDX-License-Identifier: GPL-2.0-or-later
"""Holes as the engine meets them: blocks are cut so that a hole begins one, whose record takes the slow path.

There the instruction is compared before it runs: what the processor is going to give from the real state, and what
virtual ring 0 (or the user, natively) requires.  The style counts it and says whether the run goes on (EV_HOLE).
Nothing here charges, counts in the TLB or changes the guest.

Two instructions are none, but the engine does not let them trap in ring 1 as the processor does: a load of a null SS in
64-bit mode (RPL 0 is not CPL 1, SDM 2B MOV), which brings CPL 0 with it, and IRETD to a frame with VM set (VM is ignored
outside ring 0, SDM 2A IRET), which enters virtual-8086 mode.  The monitor takes them before they run.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.decode cimport Insn, insn_decode
from pyx86v.arch.regs cimport *
from pyx86v.arch.sensitive cimport *
from pyx86v.arch.types cimport *
from pyx86v.engine.descriptors cimport Descriptor, desc_base, desc_limit, SEG_PRESENT
from pyx86v.cost.block cimport MARK_SENSITIVE
from pyx86v.engine.fill cimport fetch_privilege
from pyx86v.engine.operands cimport fetch_insn, operand_address, read_data_quiet
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits, env_rflags
from pyx86v.engine.ring cimport ring_step, to_virtual
from pyx86v.engine.state cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.ring cimport *
from pyx86v.vmm.trap.kinds cimport TRAP_IRET, TRAP_OTHER, TRAP_SEGMENT

# Quiet reads ------------------------------------------------------------------------------------

cdef inline uint64_t stack_top(Engine* e) noexcept nogil:
    """Linear address of the word that a POP would take."""
    cdef uint64_t sp = env_u64(e.env, ENV_REGS)[RSP]
    if env_bits(e.env) == 64:
        return sp
    sp &= 0xffffffffULL if env_segment(e.env, SEG_SS).flags & (1 << 22) else 0xffff
    return (env_segment(e.env, SEG_SS).base + sp) & 0xffffffffULL

cdef inline bint selector_operand(Engine* e, const Insn* d, uint64_t rip, uint16_t* selector) noexcept nogil:
    """The selector that LAR and its like ask about.  False: reading it faults."""
    if d.is_register:
        selector[0] = <uint16_t>env_u64(e.env, ENV_REGS)[d.rm]
        return True
    return read_data_quiet(e, operand_address(e, d, rip), selector, 2, fetch_privilege(e))

# What virtual ring 0 requires ----------------------------------------------------------------------

cdef inline bint system_type_known(int hole, uint32_t kind) noexcept nogil:
    """System descriptors that LAR and LSL accept (SDM 2A tables 3-53, 3-56; the types of 16-bit mode too, as the engine)."""
    if kind == 1 or kind == 2 or kind == 3 or kind == 9 or kind == 11:
        return True
    return hole == SENSITIVE_LAR and (kind == 4 or kind == 5 or kind == 12)

cdef inline bint descriptor_shows(int hole, uint32_t hi, int cpl, int rpl) noexcept nogil:
    """Does the instruction set ZF for a descriptor with this second word?"""
    cdef int dpl = <int>((hi >> 13) & 3)
    cdef bint reachable = dpl >= cpl and dpl >= rpl
    if not hi & (1 << 12):
        return (hole == SENSITIVE_LAR or hole == SENSITIVE_LSL) and system_type_known(hole, (hi >> 8) & 15) and reachable
    if hi & (1 << 11):                       # code
        if hole == SENSITIVE_VERW or (hole == SENSITIVE_VERR and not hi & (1 << 9)):
            return False
        return hi & (1 << 10) != 0 or reachable
    return reachable and (hole != SENSITIVE_VERW or hi & (1 << 9) != 0)

cdef inline bint selector_shows(Engine* e, int hole, uint16_t selector) noexcept nogil:
    """Does LAR, LSL, VERR or VERW succeed on the guest's own tables?  In the real state it never does.

    A descriptor that cannot be read would fault: that shows too.
    """
    cdef const Ring* r = &e.vcpu.ring
    cdef uint64_t base = r.ldtr.base if selector & 4 else r.gdtr_base
    cdef uint32_t limit = r.ldtr.limit if selector & 4 else r.gdtr_limit
    cdef Descriptor d
    if selector & 0xfffc == 0 or (selector & 0xfff8) + 7U > limit or (selector & 4 and not r.ldtr.flags & SEG_PRESENT):
        return False
    return not read_data_quiet(e, base + (selector & 0xfff8), &d, 8, fetch_privilege(e)) or \
        descriptor_shows(hole, d.hi, <int>r.cpl, selector & 3)

cdef inline uint64_t popped_flags(Engine* e, uint64_t image) noexcept nogil:
    """IF and IOPL after POPF of `image` in the guest's own ring (SDM 2B POPF)."""
    cdef const Ring* r = &e.vcpu.ring
    if r.cpl == 0:
        return image & (FL_IF | FL_IOPL)
    if r.cpl <= r.flags >> 12:
        return (r.flags & FL_IOPL) | (image & FL_IF)
    return r.flags

cdef inline uint64_t msw_mask(Engine* e, const Insn* d) noexcept nogil:
    """How much of CR0 SMSW stores: outside 64-bit code the engine gives 16 bits (the others are undefined, SDM 2B SMSW)."""
    if not d.is_register or d.op16 or env_bits(e.env) != 64:
        return 0xffff
    return ~<uint64_t>0 if d.rex_w else 0xffffffffULL

cdef inline void compare_flags(Engine* e, int hole, Event* ev) noexcept nogil:
    """PUSHF shows IF and IOPL of the real state; POPF drops those that it should set."""
    cdef const Ring* r = &e.vcpu.ring
    cdef uint64_t image = 0
    if hole == SENSITIVE_PUSHF:
        ev.value = env_rflags(e.env) & ~<uint64_t>(FL_VM | FL_RF)
        ev.target = (ev.value & ~<uint64_t>(FL_IF | FL_IOPL)) | r.flags
    else:
        ev.value = ev.target = r.flags
        if read_data_quiet(e, stack_top(e), &image, 2, fetch_privilege(e)):
            ev.target = popped_flags(e, image)

cdef inline void compare_tables(Engine* e, int hole, Event* ev) noexcept nogil:
    cdef const Ring* r = &e.vcpu.ring
    if hole == SENSITIVE_SGDT:
        ev.value = env_segment(e.env, 8).base
        ev.target = r.gdtr_base
        ev.qualification = r.gdtr_limit != 0
    elif hole == SENSITIVE_SIDT:
        ev.value = env_segment(e.env, 9).base
        ev.target = r.idtr_base
        ev.qualification = r.idtr_limit != 0
    elif hole == SENSITIVE_SLDT:
        ev.value = env_segment(e.env, SEG_LDTR).selector
        ev.target = r.ldtr.selector
    else:
        ev.value = env_segment(e.env, SEG_TR).selector
        ev.target = r.tr.selector

cdef inline bint compare(Engine* e, int hole, const Insn* d, uint64_t rip, Event* ev) noexcept nogil:
    """Fill ev.value (what the processor gives), ev.target (what it has to be) and ev.qualification (they differ) in.
    False: not a hole here and now."""
    cdef const Ring* r = &e.vcpu.ring
    cdef uint16_t selector = 0
    cdef int seg
    if env_u64(e.env, ENV_EFLAGS)[0] & FL_VM and hole != SENSITIVE_SGDT and hole != SENSITIVE_SIDT and hole != SENSITIVE_SMSW:
        return False                         # traps with IOPL 0, or is #UD
    if hole == SENSITIVE_PUSHF or hole == SENSITIVE_POPF:
        compare_flags(e, hole, ev)
    elif hole <= SENSITIVE_STR:
        compare_tables(e, hole, ev)
    elif hole == SENSITIVE_SMSW:
        ev.value = env_u64(e.env, ENV_CR)[0] & msw_mask(e, d)
        ev.target = r.cr0 & msw_mask(e, d)
    elif hole == SENSITIVE_MOV_FROM_SEGMENT or hole == SENSITIVE_PUSH_SEGMENT:
        seg = d.reg & 7 if hole == SENSITIVE_MOV_FROM_SEGMENT else (SEG_CS if d.opcode == 0x0e else SEG_SS)
        ev.value = env_segment(e.env, seg).selector
        ev.target = r.cs.selector if seg == SEG_CS else r.ss.selector
    else:
        if not selector_operand(e, d, rip, &selector):
            return False
        ev.value = 0
        ev.target = selector_shows(e, hole, selector)
    ev.qualification |= ev.value != ev.target
    return True

# The record's slow path ------------------------------------------------------------------------------

cdef inline bint ring_hole(Engine* e, const BlockRecord* r) noexcept nogil:
    """A block that begins with a hole is about to run.  True: leave it, since the run ends here or the monitor takes the
    instruction (REFLECT)."""
    cdef Event ev
    cdef Insn d
    cdef int hole, verdict
    if not e.vcpu.ring.real:
        return False
    event_init(&ev, EV_HOLE)
    fetch_insn(e, r.eip, &d)
    hole = e.marks[r.first_mark].flags >> MARK_SENSITIVE
    if hole > SENSITIVE_PUSH_SEGMENT:
        to_virtual(e)
        ring_step(e, TRAP_IRET if hole == SENSITIVE_IRET else TRAP_SEGMENT, r.eip, d.length)
        return True
    ev.rip = r.eip
    ev.length = d.length
    ev.detail = hole
    ev.address = r.pc
    if not compare(e, hole, &d, r.eip, &ev):
        return False
    verdict = e.style.handlers[EV_HOLE](&e.guest, &ev)
    if verdict == REFLECT:
        to_virtual(e)
        ring_step(e, TRAP_OTHER, r.eip, d.length)
    elif verdict == STOP:
        e.stopping = True
    return verdict != RESUME
