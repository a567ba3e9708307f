# SPDX-License-Identifier: GPL-2.0-or-later
"""Task switches (SDM 3A chapter 7): far CALL and JMP to a TSS or a task gate, IRET with NT, task gates in the IDT.

    task_far, task_gate    who asks: check gate and new TSS in the old task
    task_event             -> style (VT-x exits here, SDM 3C 25.4.2) -> Guest.switch_task
    task_switch            the switch itself: save, mark, load

The engine could switch too, but not exit; a block that ends in a far transfer therefore runs that alone, and `task_source`
looks at it first.  A fault after `switched` belongs to the new task.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.arch.cpu cimport REG_CR0, REG_CR3
from pyx86v.arch.decode cimport Insn
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.cost.ledger cimport charge_block
from pyx86v.engine.access cimport *
from pyx86v.engine.breakpoints cimport RESUME_NOT
from pyx86v.engine.descriptors cimport *
from pyx86v.engine.fill cimport fetch_privilege, read_quiet
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits, env_cpl, env_rflags, env_set_rflags, env_update_hflags, ops_set
from pyx86v.engine.operands cimport data_privilege, fetch_insn, operand_address, read_data_quiet
from pyx86v.engine.ring cimport ring_resume
from pyx86v.engine.state cimport *
from pyx86v.mmu.mmu cimport PAGING_PAE, Translation, XLAT_OK, mmu_load_pdptes
from pyx86v.vmm.guest cimport EV_TASK_SWITCH, Event, Guest, event_init
from pyx86v.vmm.paging cimport cr3_loaded

cdef enum:                   # TaskSwitch.source, as table 27-2 of SDM 3C numbers it
    TASK_CALL = 0
    TASK_IRET = 1
    TASK_JMP = 2
    TASK_GATE_IDT = 3

cdef enum:
    KIND_LDT = 2
    KIND_TASK_GATE = 5
    KIND_TSS = 1             # 1, 3, 9, 11: bit 1 busy, bit 3 32-bit
    KIND_BUSY = 2
    KIND_32 = 8
    TSS_BYTES = 104          # of a 32-bit TSS; a 16-bit one has 44
    DR7_LOCAL = 0x155        # L0-L3 and LE

cdef enum:                   # what is to be done with a block that ends in a far transfer
    FAR_RUN
    FAR_LEAVE
    FAR_FAULT

ctypedef struct TssLayout:   # byte offsets (SDM 3A figures 7-2 and 7-10)
    int step                 # bytes of a register's slot
    int segs                 # segment registers in it
    int size
    int eip
    int flags
    int gpr
    int seg
    int ldt

cdef inline TssLayout tss_layout(bint wide) noexcept nogil:
    cdef TssLayout t
    t.step, t.segs, t.size, t.eip, t.flags, t.gpr, t.seg, t.ldt = 4, 6, 104, 0x20, 0x24, 0x28, 0x48, 0x60
    if not wide:
        t.step, t.segs, t.size, t.eip, t.flags, t.gpr, t.seg, t.ldt = 2, 4, 44, 0x0e, 0x10, 0x12, 0x22, 0x2a
    return t

cdef inline uint32_t descriptor_kind(const Descriptor* d) noexcept nogil:
    return (d.hi >> 8) & 0x1f

cdef inline bint is_tss(uint32_t kind) noexcept nogil:
    return kind & ~<uint32_t>(KIND_BUSY | KIND_32) == KIND_TSS

# Who asks ------------------------------------------------------------------------------------

cdef inline bint task_target(Engine* e, uint32_t selector, int source, uint32_t ext, Fault* f) noexcept nogil:
    """Check the new TSS's selector and descriptor: available, but busy for IRET (SDM 3A 7.3; INT n and IRET pseudocode)."""
    cdef Descriptor* d = <Descriptor*>e.task.descriptor
    cdef int vector = VEC_TS if source == TASK_IRET else VEC_GP
    if selector & 4 or not selector & 0xfff8:
        return fail(f, vector, (selector & 0xfffc) | ext)
    if not desc_read(e, selector, d, vector, ext, f):
        return False
    if not is_tss(descriptor_kind(d)) or (descriptor_kind(d) & KIND_BUSY != 0) != (source == TASK_IRET):
        return fail(f, vector, (selector & 0xfffc) | ext)
    if not d.hi & SEG_PRESENT:
        return fail(f, VEC_NP, (selector & 0xfffc) | ext)
    e.task.source = source
    e.task.selector = selector
    e.task.ext = ext
    e.task.has_error = False
    e.task.switched = False
    return True

cdef inline bint task_gate(Engine* e, uint32_t selector, uint32_t ext, uint64_t rip, uint64_t flags, bint has_error, uint32_t error,
                           Fault* f) noexcept nogil:
    """An event through a task gate in the IDT; rip and flags are what the old task goes on with."""
    if not task_target(e, selector, TASK_GATE_IDT, ext, f):
        return False
    e.task.has_error = has_error
    e.task.error = error
    return task_event(e, rip, flags, 0, f) >= 0

cdef inline int task_event(Engine* e, uint64_t rip, uint64_t flags, int length, Fault* f) noexcept nogil:
    """Ask the style, which calls back.  1: switched; 0: and not by the guest's processor; -1: a fault, or the end."""
    cdef Event ev
    cdef int verdict
    e.task.rip = rip
    e.task.flags = flags
    event_init(&ev, EV_TASK_SWITCH)
    ev.value = e.task.selector
    ev.detail = e.task.source
    ev.length = length
    ev.address = flags
    ev.has_error = e.task.has_error
    ev.error = e.task.error
    ev.rip = env_u64(e.env, ENV_EIP)[0]
    verdict = e.style.handlers[EV_TASK_SWITCH](&e.guest, &ev)
    if e.task.switched:
        e.fault_rip = env_u64(e.env, ENV_EIP)[0]
    if verdict == RESUME:
        return 1 if ev.charge_insn else 0
    f.stop = verdict == STOP
    fail(f, ev.vector, ev.error)
    return -1

cdef inline int style_switch_task(Guest* g, Event* ev) noexcept nogil:
    """Guest.switch_task: RESUME, REFLECT (the fault is in the event), or STOP."""
    cdef Fault f
    f.vector = -1
    f.error = 0
    f.stop = False
    if task_switch(<Engine*>g.owner, &f):
        return RESUME
    ev.vector = f.vector
    ev.error = f.error
    ev.has_error = has_error_code(f.vector)
    return STOP if f.stop else REFLECT

cdef inline bint far_pointer(Engine* e, const BlockRecord* r, const Insn* d, bint quiet, uint16_t* selector, Fault* f) noexcept nogil:
    """The selector of a far CALL or JMP: the instruction's last two bytes, or behind the offset in memory."""
    cdef gva_t at = r.pc + r.size - 2
    if d.opcode != 0xff:
        return read_quiet(e, at, selector, 2)
    at = operand_address(e, d, r.eip) + (4 if (env_bits(e.env) == 32) != d.op16 else 2)
    if quiet:
        return read_data_quiet(e, at & 0xffffffffULL, selector, 2, fetch_privilege(e))
    return linear_access(e, at, selector, 2, ACCESS_READ, data_privilege(e), f)

cdef inline bint task_possible(Engine* e) noexcept nogil:
    """Protected mode with 32-bit tables: tasks exist.  A deprivileged guest's transfer traps first."""
    return not e.vcpu.ring.real and env_u32(e.env, ENV_HFLAGS)[0] & (HF_PE | HF_LMA) == HF_PE and not env_u64(e.env, ENV_EFLAGS)[0] & FL_VM

cdef inline int task_source(Engine* e, const BlockRecord* r) noexcept nogil:
    """Does the one instruction of `r` switch tasks?  TASK_*, or -1.  Books nothing, faults nowhere."""
    cdef Insn d
    cdef Descriptor desc
    cdef uint16_t selector = 0
    cdef EnvSegment* t
    fetch_insn(e, r.eip, &d)
    if d.opcode == 0xcf:
        return TASK_IRET if env_u64(e.env, ENV_EFLAGS)[0] & FL_NT else -1
    if not far_pointer(e, r, &d, True, &selector, NULL):
        return -1
    t = env_segment(e.env, SEG_LDTR) if selector & 4 else env_segment(e.env, 8)
    if (selector & 0xfff8) + 7 > t.limit or not selector & 0xfffc or \
            not read_data_quiet(e, (t.base + (selector & 0xfff8)) & 0xffffffffULL, &desc, 8, SUPERVISOR):
        return -1
    if not is_tss(descriptor_kind(&desc)) and descriptor_kind(&desc) != KIND_TASK_GATE:
        return -1
    return TASK_CALL if d.opcode == 0x9a or (d.opcode == 0xff and d.reg & 7 == 3) else TASK_JMP

cdef inline int task_far(Engine* e, const BlockRecord* r, int source, Fault* f) noexcept nogil:
    """The far transfer in `r` switches tasks.  As task_event."""
    cdef Insn d
    cdef Descriptor gate
    cdef uint16_t selector = 0
    cdef int cpl = env_cpl(e.env), dpl
    fetch_insn(e, r.eip, &d)
    if source == TASK_IRET:
        if not read_system(e, env_segment(e.env, SEG_TR).base, &selector, 2, f):
            return -1
    else:
        if not far_pointer(e, r, &d, False, &selector, f) or not desc_read(e, selector, &gate, VEC_GP, 0, f):
            return -1
        dpl = <int>((gate.hi >> 13) & 3)
        if dpl < cpl or dpl < <int>(selector & 3):
            fail(f, VEC_GP, selector & 0xfffc)
            return -1
        if descriptor_kind(&gate) == KIND_TASK_GATE:
            if not gate.hi & SEG_PRESENT:
                fail(f, VEC_NP, selector & 0xfffc)
                return -1
            selector = <uint16_t>(gate.lo >> 16)
    if not task_target(e, selector, source, 0, f):
        return -1
    return task_event(e, (r.eip + r.size) & 0xffffffffULL, env_rflags(e.env), r.size, f)

cdef inline void far_done(Engine* e) noexcept nogil:
    """The far transfer has run or faulted; for a deprivileged guest it was a step in the virtual state (ring.pxd)."""
    e.step_next = False
    e.vcpu.ring.step = False
    ring_resume(e)

cdef inline int far_step(Engine* e, const BlockRecord* r, Fault* f) noexcept nogil:
    """`r`, which ends in a far transfer, is about to run.  FAR_RUN; FAR_LEAVE: at RIP, cut or in the new task; FAR_FAULT."""
    cdef int source = -1, done
    e.fault_rip = r.eip
    f.stop = False
    if r.count > 1 and not e.step_next:
        env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = <uint32_t>r.count - 1
        e.step_next = True
        env_u64(e.env, ENV_EIP)[0] = r.eip
        return FAR_LEAVE
    if r.count == 1:
        source = task_source(e, r)
    if source < 0:
        return FAR_RUN
    env_u64(e.env, ENV_EIP)[0] = r.eip
    done = task_far(e, r, source, f)
    if done < 0:
        return FAR_FAULT
    charge_block(e.ledger, e.marks[r.first_mark].units if done else 0, 1)
    e.current[0] = &e.open_end
    e.resuming = RESUME_NOT
    far_done(e)
    return FAR_LEAVE

# The switch ----------------------------------------------------------------------------------

cdef inline bint set_busy(Engine* e, uint32_t selector, bint busy, Fault* f) noexcept nogil:
    cdef gva_t at = env_segment(e.env, 8).base + (selector & 0xfff8) + 5
    cdef uint8_t access = 0
    if not read_system(e, at, &access, 1, f):
        return False
    access = access | KIND_BUSY if busy else access & ~KIND_BUSY
    return write_system(e, at, &access, 1, f)

cdef inline bint save_task(Engine* e, const TssLayout* t, uint64_t flags, Fault* f) noexcept nogil:
    """The old task's registers go to its TSS; the segment registers' upper halves there stay."""
    cdef uint8_t image[TSS_BYTES]
    cdef EnvSegment* tr = env_segment(e.env, SEG_TR)
    cdef int i, end = t.seg + t.step * t.segs
    if not read_system(e, tr.base + t.eip, image + t.eip, end - t.eip, f):
        return False
    memcpy(image + t.eip, &e.task.rip, t.step)
    memcpy(image + t.flags, &flags, t.step)
    for i in range(8):
        memcpy(image + t.gpr + t.step * i, env_u64(e.env, ENV_REGS) + i, t.step)
    for i in range(t.segs):
        memcpy(image + t.seg + t.step * i, &env_segment(e.env, i).selector, 2)
    return write_system(e, tr.base + t.eip, image + t.eip, end - t.eip, f)

cdef inline bint mark_tasks(Engine* e, gva_t base, Fault* f) noexcept nogil:
    """Back link and busy bits (SDM 3A table 7-2)."""
    cdef uint16_t old = <uint16_t>env_segment(e.env, SEG_TR).selector
    cdef int source = e.task.source
    if (source == TASK_CALL or source == TASK_GATE_IDT) and not write_system(e, base, &old, 2, f):
        return False
    if source != TASK_IRET and not set_busy(e, e.task.selector, True, f):
        return False
    return (source != TASK_IRET and source != TASK_JMP) or set_busy(e, old, False, f)

cdef inline uint32_t tss_word(const uint8_t* image, int at, int n) noexcept nogil:
    cdef uint32_t v = 0
    memcpy(&v, image + at, n)
    return v

cdef inline void load_registers(Engine* e, const TssLayout* t, const uint8_t* image) noexcept nogil:
    """The point of no return: general registers, flags, EIP, CR3, TR.  Segments get selectors and, until each is loaded,
    flat code and data of the new privilege: a handler of a fault on the way has to run somewhere."""
    cdef uint64_t flags = tss_word(image, t.flags, t.step) & 0x277fd7       # what EFLAGS has
    cdef Translation pdptes
    cdef uint32_t selector
    cdef int i, cpl
    env_u64(e.env, ENV_DR + 56)[0] &= ~<uint64_t>DR7_LOCAL
    ops_set(&e.ops, REG_CR0, env_u64(e.env, ENV_CR)[0] | CR0_TS)
    for i in range(8):
        env_u64(e.env, ENV_REGS)[i] = tss_word(image, t.gpr + t.step * i, t.step)
    if e.task.source == TASK_CALL or e.task.source == TASK_GATE_IDT:
        flags |= FL_NT
    env_set_rflags(e.env, flags)
    env_u64(e.env, ENV_EIP)[0] = tss_word(image, t.eip, t.step)
    load_segment(e, SEG_TR, e.task.selector, <Descriptor*>e.task.descriptor)
    env_segment(e.env, SEG_TR).flags &= ~<uint32_t>(KIND_BUSY << 8)         # the engine aborts on a busy one
    cpl = 3 if flags & FL_VM else <int>(tss_word(image, t.seg + t.step * SEG_CS, 2) & 3)
    for i in range(6):
        selector = tss_word(image, t.seg + t.step * i, 2) if i < t.segs else 0
        if flags & FL_VM:
            load_flat(e, i, selector, <uint64_t>selector << 4, 0xffff, 0xf300)
        else:
            load_flat(e, i, selector, 0, 0xffffffffU, <uint32_t>((0xc09b00 if i == SEG_CS else 0xc09300) | cpl << 13))
    load_flat(e, SEG_LDTR, tss_word(image, t.ldt, 2), 0, 0, 0)
    env_update_hflags(e.env)
    if t.step == 4 and env_u64(e.env, ENV_CR)[0] & CR0_PG:
        e.vcpu.cr3 = tss_word(image, 0x1c, 4)
        ops_set(&e.ops, REG_CR3, e.vcpu.cr3)
        if e.vcpu.paging.mode == PAGING_PAE:
            mmu_load_pdptes(e.mmu, &e.ram, e.ledger, &e.vcpu.paging, e.vcpu.cr3, True, &pdptes)
        cr3_loaded(&e.guest, False)

cdef inline bint load_ldt(Engine* e, uint32_t selector, uint32_t ext, Fault* f) noexcept nogil:
    cdef Descriptor d
    if not selector & 0xfffc:
        return True
    if selector & 4:
        return fail(f, VEC_TS, (selector & 0xfffc) | ext)
    if not desc_read(e, selector, &d, VEC_TS, ext, f):
        return False
    if descriptor_kind(&d) != KIND_LDT or not d.hi & SEG_PRESENT:
        return fail(f, VEC_TS, (selector & 0xfffc) | ext)
    load_segment(e, SEG_LDTR, selector, &d)
    return True

cdef inline bint segment_fits(int seg, uint32_t selector, uint32_t hi, int cpl) noexcept nogil:
    """Type and privilege of a segment of the new task (SDM 3A 7.3, table 7-1)."""
    cdef int rpl = <int>(selector & 3), dpl = <int>((hi >> 13) & 3)
    cdef bint conforming = hi & (SEG_CODE | SEG_CONFORMING) == SEG_CODE | SEG_CONFORMING
    if not hi & SEG_S:
        return False
    if seg == SEG_CS:
        return hi & SEG_CODE and (dpl <= rpl if conforming else dpl == rpl)
    if seg == SEG_SS:
        return hi & (SEG_CODE | SEG_WRITABLE) == SEG_WRITABLE and rpl == cpl and dpl == cpl
    if hi & SEG_CODE and not hi & SEG_WRITABLE:              # bit 9 of code: readable
        return False
    return conforming or (dpl >= cpl and dpl >= rpl)

cdef inline bint load_task_segment(Engine* e, int seg, int cpl, uint32_t ext, Fault* f) noexcept nogil:
    cdef uint32_t selector = env_segment(e.env, seg).selector
    cdef Descriptor d
    if env_u64(e.env, ENV_EFLAGS)[0] & FL_VM:
        load_flat(e, seg, selector, <uint64_t>selector << 4, 0xffff, 0xf300)
        return True
    if not selector & 0xfffc and seg != SEG_CS and seg != SEG_SS:
        load_flat(e, seg, selector, 0, 0, 0)
        return True
    if not selector & 0xfffc:
        return fail(f, VEC_TS, ext)
    if not desc_read(e, selector, &d, VEC_TS, ext, f):
        return False
    if not segment_fits(seg, selector, d.hi, cpl):
        return fail(f, VEC_TS, (selector & 0xfffc) | ext)
    if not d.hi & SEG_PRESENT:
        return fail(f, VEC_SS if seg == SEG_SS else VEC_NP, (selector & 0xfffc) | ext)
    if not mark_accessed(e, selector, &d, f):
        return False
    load_segment(e, seg, selector, &d)
    return True

cdef inline bint load_task_segments(Engine* e, Fault* f) noexcept nogil:
    cdef int cpl = env_cpl(e.env), i
    cdef uint32_t ext = e.task.ext
    cdef bint good = load_ldt(e, env_segment(e.env, SEG_LDTR).selector, ext, f) and \
        load_task_segment(e, SEG_CS, cpl, ext, f) and load_task_segment(e, SEG_SS, cpl, ext, f)
    for i in range(6):
        if good and i != SEG_CS and i != SEG_SS:
            good = load_task_segment(e, i, cpl, ext, f)
    env_update_hflags(e.env)
    return good

cdef inline bint push_error(Engine* e, int step, Fault* f) noexcept nogil:
    """An exception's error code goes on the new task's stack, as wide as its TSS."""
    cdef EnvSegment* ss = env_segment(e.env, SEG_SS)
    cdef uint64_t* rsp = env_u64(e.env, ENV_REGS) + RSP
    cdef uint64_t mask = 0xffffffffULL if ss.flags & SEG_BIG else 0xffff
    cdef uint64_t sp = (rsp[0] - <uint64_t>step) & mask
    if not linear_access(e, ss.base + sp, &e.task.error, <uint64_t>step, ACCESS_WRITE,
                         USER if env_cpl(e.env) == 3 else system_privilege(e), f):
        return False
    rsp[0] = (rsp[0] & ~mask) | sp
    return True

cdef inline bint task_switch(Engine* e, Fault* f) noexcept nogil:
    """Carry out what e.task asks for (SDM 3A 7.3).  False: `f`, in the old task or, after `switched`, in the new one."""
    cdef uint8_t image[TSS_BYTES]
    cdef Descriptor* d = <Descriptor*>e.task.descriptor
    cdef gva_t base = desc_base(d)
    cdef TssLayout old = tss_layout(env_segment(e.env, SEG_TR).flags >> 8 & KIND_32)
    cdef TssLayout new = tss_layout(descriptor_kind(d) & KIND_32)
    cdef uint64_t flags = e.task.flags & ~<uint64_t>(FL_NT if e.task.source == TASK_IRET else 0)
    memset(image, 0, sizeof(image))
    if desc_limit(d) < <uint32_t>(new.size - 1):
        return fail(f, VEC_TS, (e.task.selector & 0xfffc) | e.task.ext)
    if not save_task(e, &old, flags, f) or not read_system(e, base, image, <uint64_t>new.size, f) or not mark_tasks(e, base, f):
        return False
    load_registers(e, &new, image)
    e.task.switched = True
    if not load_task_segments(e, f) or (e.task.has_error and not push_error(e, new.step, f)):
        return False
    if env_u64(e.env, ENV_EIP)[0] > env_segment(e.env, SEG_CS).limit:
        return fail(f, VEC_GP, e.task.ext)
    return True
