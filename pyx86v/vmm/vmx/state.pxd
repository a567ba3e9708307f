# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest state between the VMCS and the processor, and the monitor's VMREAD and VMWRITE.

While the guest runs, and until the monitor asks, guest state lives in the processor (`Cpu`).
Reading a guest-state field fetches it from there; writing one changes it there.

Invariants
1. `Cpu` holds CR0, CR4 and EFER as the guest sees them.  The real registers differ only in bits that VMX
   fixes or the monitor keeps from the guest: NE and VMXE are forced to 1, CD and NW to 0 (SDM 3C 23.8); over
   shadow tables also PG, WP, PAE and NXE to 1, PCIDE and LME without LMA to 0.  Those bits exist in GUEST_CR0, GUEST_CR4 and
   GUEST_EFER only; none of them changes what an instruction computes (the walk is the hardware context's).
   The read shadows hold the guest's view.
2. A field of a segment, CR0, CR4, EFER, CR3, RFLAGS, and every control, that the monitor writes sets
   `dirty`; the next entry then makes all checks.  RIP does not: behind an instruction that was fetched it is
   as legal as before.  Nor do the event-injection fields: an entry that injects always checks them.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.cost.ledger cimport VMCS, VMREAD, VMWRITE, charge
from pyx86v.vmm.guest cimport Guest
from pyx86v.vmm.vmx.fields cimport *
from pyx86v.vmm.vmx.vmcs cimport *

cdef enum:                   # access rights in a VMCS (24.4.1)
    AR_TYPE = 0xf
    AR_ACCESSED = 1 << 0
    AR_TSS_BUSY = 1 << 1
    AR_S = 1 << 4
    AR_DPL = 3 << 5
    AR_P = 1 << 7
    AR_L = 1 << 13
    AR_DB = 1 << 14
    AR_G = 1 << 15
    AR_UNUSABLE = 1 << 16
    CR0_KEPT_CLEAR = CR0_CD | CR0_NW
    SHADOW_STI = 1 << 0      # interruptibility state (24.4.2)
    SHADOW_MOV_SS = 1 << 1

cdef inline Vmx* vmx_of(Guest* g) noexcept nogil:
    return <Vmx*>g.style_state

cdef inline uint64_t real_cr0(const Guest* g, uint64_t view) noexcept nogil:
    view = (view | CR0_NE) & ~<uint64_t>CR0_KEPT_CLEAR
    return view | CR0_PG | CR0_WP if g.vcpu.shadowing else view

cdef inline uint64_t real_cr4(const Guest* g, uint64_t view) noexcept nogil:
    return (view | CR4_VMXE | CR4_PAE) & ~<uint64_t>CR4_PCIDE if g.vcpu.shadowing else view | CR4_VMXE

cdef inline uint64_t real_efer(const Guest* g, uint64_t view) noexcept nogil:
    """Over shadow tables paging is always on, so LME without LMA, which the guest sets before its own paging, is not legal."""
    if not g.vcpu.shadowing:
        return view
    return view | EFER_NXE if view & EFER_LMA else (view | EFER_NXE) & ~<uint64_t>EFER_LME

cdef inline uint64_t forced_bits(const Guest* g, uint32_t field) noexcept nogil:
    """Bits of GUEST_CR0, GUEST_CR4 or GUEST_EFER that are not the guest's (invariant 1)."""
    if field == GUEST_CR0:
        return CR0_NE | CR0_KEPT_CLEAR | (CR0_PG | CR0_WP if g.vcpu.shadowing else 0)
    if field == GUEST_CR4:
        return CR4_VMXE | (CR4_PAE | CR4_PCIDE if g.vcpu.shadowing else 0)
    return EFER_NXE | EFER_LME if field == GUEST_EFER and g.vcpu.shadowing else 0

cdef inline uint32_t segment_rights(const Segment* s, int seg) noexcept nogil:
    """Access rights of a segment register; one without P is unusable (a null selector was loaded).

    The engine keeps the TSS in TR as available; in the processor it is busy (SDM 2A LTR).  Nor do its far
    transfers set the accessed bit of CS, which loading sets (SDM 3A 3.4.5.1).
    """
    cdef uint32_t rights = (s.flags >> 8) & 0xf0ff
    if seg == SEG_TR:
        rights |= AR_TSS_BUSY
    if seg == SEG_CS and rights & AR_S:
        rights |= AR_ACCESSED
    if not rights & AR_P and seg != SEG_CS and seg != SEG_TR:
        rights |= AR_UNUSABLE
    return rights

# The index of a segment's field is the segment's number, after these first indexes (appendix B).
cdef enum:
    FIRST_RIGHTS = 10        # 4814h
    FIRST_BASE = 3           # 6806h
    FIRST_PDPTE = 5          # 280Ah

cdef inline bint read_segment(Guest* g, uint32_t field, uint64_t* out) noexcept nogil:
    """Selector, limit, access rights or base of a segment register; False: another field."""
    cdef int index = field_index(field), width = field_width(field), seg = index
    cdef Segment s
    if width == WIDTH_32 and index >= FIRST_RIGHTS:
        seg = index - FIRST_RIGHTS
    elif width == WIDTH_NATURAL:
        seg = index - FIRST_BASE
    if width == WIDTH_64 or seg < 0 or seg >= N_SEGS:
        return False
    g.cpu.get_segment(g.cpu, seg, &s)
    if width == WIDTH_16:
        out[0] = s.selector
    elif width == WIDTH_NATURAL:
        out[0] = s.base
    else:
        out[0] = segment_rights(&s, seg) if index >= FIRST_RIGHTS else s.limit
    return True

cdef inline bint write_segment(Guest* g, uint32_t field, uint64_t value) noexcept nogil:
    cdef int index = field_index(field), width = field_width(field), seg = index
    cdef Segment s
    if width == WIDTH_32 and index >= FIRST_RIGHTS:
        seg = index - FIRST_RIGHTS
    elif width == WIDTH_NATURAL:
        seg = index - FIRST_BASE
    if width == WIDTH_64 or seg < 0 or seg >= N_SEGS:
        return False
    g.cpu.get_segment(g.cpu, seg, &s)
    if width == WIDTH_16:
        s.selector = <uint16_t>value
    elif width == WIDTH_NATURAL:
        s.base = value
    elif index >= FIRST_RIGHTS:
        if seg == SEG_TR:
            value &= ~<uint64_t>AR_TSS_BUSY
        s.flags = 0 if value & AR_UNUSABLE else <uint32_t>(value & 0xf0ff) << 8
    else:
        s.limit = <uint32_t>value
    g.cpu.set_segment(g.cpu, seg, &s)
    return True

cdef inline int field_register(uint32_t field) noexcept nogil:
    """The processor register that is a guest-state field as it stands, or -1."""
    if field == GUEST_RIP: return REG_RIP
    if field == GUEST_RFLAGS: return REG_RFLAGS
    if field == GUEST_CR0: return REG_CR0
    if field == GUEST_CR3: return REG_CR3
    if field == GUEST_CR4: return REG_CR4
    if field == GUEST_DR7: return REG_DR7
    if field == GUEST_EFER: return REG_EFER
    if field == GUEST_PAT: return REG_PAT
    if field == GUEST_GDTR_BASE: return REG_GDTR_BASE
    if field == GUEST_GDTR_LIMIT: return REG_GDTR_LIMIT
    if field == GUEST_IDTR_BASE: return REG_IDTR_BASE
    if field == GUEST_IDTR_LIMIT: return REG_IDTR_LIMIT
    if field == GUEST_SYSENTER_CS: return REG_SYSENTER_CS
    if field == GUEST_SYSENTER_ESP: return REG_SYSENTER_ESP
    if field == GUEST_SYSENTER_EIP: return REG_SYSENTER_EIP
    return -1

cdef inline bint is_pdpte(uint32_t field) noexcept nogil:
    return field == GUEST_PDPTE0 or field == GUEST_PDPTE1 or field == GUEST_PDPTE2 or field == GUEST_PDPTE3

cdef inline uint64_t interruptibility(Guest* g) noexcept nogil:
    """Which of the two shadows is in force follows from IF: STI leaves it set, and MOV SS is told apart only without it."""
    if not g.cpu.get(g.cpu, REG_SHADOW):
        return 0
    return SHADOW_STI if g.cpu.get(g.cpu, REG_RFLAGS) & FL_IF else SHADOW_MOV_SS

cdef inline uint64_t guest_field(Guest* g, uint32_t field) noexcept nogil:
    """The value of a guest-state field now, from the processor where it holds it."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    cdef uint64_t value = 0
    cdef int reg = field_register(field)
    if field == GUEST_CR0:
        return real_cr0(g, g.cpu.get(g.cpu, REG_CR0))
    if field == GUEST_CR4:
        return real_cr4(g, g.cpu.get(g.cpu, REG_CR4))
    if field == GUEST_EFER:
        return real_efer(g, g.cpu.get(g.cpu, REG_EFER))
    if field == GUEST_CR3:
        return g.vcpu.hardware.cr3 if g.vcpu.shadowing else g.vcpu.cr3
    if reg >= 0:
        return g.cpu.get(g.cpu, reg)
    if field == GUEST_RSP:
        return g.cpu.gpr[RSP]
    if field == GUEST_INTERRUPTIBILITY:
        return interruptibility(g) | (field_get(v, field) & ~<uint64_t>3)
    if field == GUEST_PENDING_DEBUG and interruptibility(g) and g.cpu.get(g.cpu, REG_RFLAGS) & FL_TF:
        return field_get(v, field) | 1 << 14     # a single step waits behind the shadow (24.4.2)
    if is_pdpte(field):
        return g.vcpu.paging.pdpte[(field_index(field) - FIRST_PDPTE) & 3]
    if read_segment(g, field, &value):
        return value
    return field_get(v, field)

cdef inline void guest_field_write(Guest* g, uint32_t field, uint64_t value) noexcept nogil:
    """Put a guest-state field where it lives.  Forced bits of CR0 and CR4 do not reach the guest's view."""
    cdef int reg = field_register(field)
    cdef uint64_t old
    if reg >= 0:
        old = g.cpu.get(g.cpu, reg)
        value = (value & ~forced_bits(g, field)) | (old & forced_bits(g, field))
        if field == GUEST_CR3 and g.vcpu.shadowing:
            return                           # the root, which the hardware context holds
        if field == GUEST_CR3:
            g.vcpu.cr3 = value
        if value != old:
            g.cpu.set(g.cpu, reg, value)
    elif field == GUEST_RSP:
        g.cpu.gpr[RSP] = value
    elif field == GUEST_INTERRUPTIBILITY:
        g.cpu.set(g.cpu, REG_SHADOW, value & (SHADOW_STI | SHADOW_MOV_SS) != 0)
    elif is_pdpte(field):
        g.vcpu.paging.pdpte[(field_index(field) - FIRST_PDPTE) & 3] = value
    else:
        write_segment(g, field, value)

cdef inline void sync_guest(Guest* g) noexcept nogil:
    """Bring every guest-state field of the VMCS up to date, for the entry checks."""
    cdef Vmcs* v = &vmx_of(g).vmcs
    cdef uint32_t field
    cdef int width, index, group
    for width in range(4):
        group = width << 2 | TYPE_GUEST
        for index in range(N_FIELD_INDEXES):
            if group_indexes(group) >> index & 1:
                field = <uint32_t>(width << 13 | TYPE_GUEST << 10 | index << 1)
                v.field[group][index] = guest_field(g, field) & field_mask(field)

cdef inline int vmread_any(Guest* g, uint32_t field, uint64_t* out) noexcept nogil:
    """VMREAD by the monitor, charged: 0, or the VM-instruction error."""
    cdef Vmx* x = vmx_of(g)
    charge(g.ledger, VMCS, VMREAD)
    x.reads += 1
    if field_exists(field) and field_type(field) == TYPE_GUEST:
        field_set(&x.vmcs, field, guest_field(g, field & ~<uint32_t>1))
    return vmcs_read(&x.vmcs, field, out)

cdef inline uint64_t vmread(Guest* g, uint32_t field) noexcept nogil:
    """VMREAD of a field that exists."""
    cdef uint64_t value = 0
    vmread_any(g, field, &value)
    return value

cdef inline bint injection_field(uint32_t field) noexcept nogil:
    return field == ENTRY_INTR_INFO or field == ENTRY_ERROR_CODE or field == ENTRY_INSTR_LENGTH

cdef inline int vmwrite(Guest* g, uint32_t field, uint64_t value) noexcept nogil:
    """VMWRITE by the monitor, charged: 0, or the VM-instruction error."""
    cdef Vmx* x = vmx_of(g)
    cdef int error
    charge(g.ledger, VMCS, VMWRITE)
    x.writes += 1
    if field & 1 and field_exists(field) and field_type(field) == TYPE_GUEST:
        field_set(&x.vmcs, field, guest_field(g, field & ~<uint32_t>1))
    error = vmcs_write(&x.vmcs, &x.caps, field, value)
    if error:
        return error
    if field_type(field) == TYPE_GUEST:
        guest_field_write(g, field & ~<uint32_t>1, field_get(&x.vmcs, field))
    if field != GUEST_RIP and not injection_field(field):
        x.dirty = True
    return 0
