# SPDX-License-Identifier: GPL-2.0-or-later
"""The instruction at RIP and its operands, for those that are ours to carry out."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from pyx86v.arch.decode cimport Insn, insn_decode, insn_offset
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport *
from pyx86v.engine.fill cimport read_quiet
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits, env_cpl
from pyx86v.engine.state cimport *
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.mmu.mmu cimport Translation, XLAT_OK, entry_hpa, mmu_lookup, mmu_translate_quiet
from pyx86v.mmu.tlb cimport TlbEntry
from pyx86v.vmm.guest cimport Event, walked

cdef inline uint64_t linear_rip(Engine* e, uint64_t rip) noexcept nogil:
    return rip if env_bits(e.env) == 64 else (env_segment(e.env, SEG_CS).base + rip) & 0xffffffffULL

cdef inline bint fetch_insn(Engine* e, uint64_t rip, Insn* d) noexcept nogil:
    """Decode the instruction at `rip`, whose bytes the processor has already fetched and paid for.

    The running block's record knows its host page; only an instruction near a page's end needs a translation.
    """
    cdef uint8_t code[32]
    cdef uint64_t at = linear_rip(e, rip)
    cdef const BlockRecord* r = e.current[0]
    cdef const uint8_t* p
    if not r.translated and r.pc <= at < r.pc + r.size and (at ^ r.pc) >> PAGE_SHIFT == 0 and at & PAGE_MASK <= PAGE_SIZE - 32 and r.frame != NO_FRAME:
        p = ram_pointer(&e.ram, (<hpa_t>r.frame << PAGE_SHIFT) + (at & PAGE_MASK), 32)
        if p is not NULL:
            return insn_decode(p, env_bits(e.env), d)
    memset(code, 0, sizeof(code))
    read_quiet(e, at, code, 15)
    return insn_decode(code, env_bits(e.env), d)

cdef inline uint64_t operand_address(Engine* e, const Insn* d, uint64_t rip) noexcept nogil:
    """Linear address of a memory operand."""
    cdef uint64_t off = insn_offset(d, e.ops.gpr, rip)
    cdef EnvSegment* s = env_segment(e.env, d.segment)
    if env_bits(e.env) == 64:
        return off + (s.base if d.segment >= SEG_FS else 0)
    return (off + s.base) & 0xffffffffULL

cdef inline void string_operand(Engine* e, const Insn* d, Event* ev) noexcept nogil:
    """INS (ES:rDI) and OUTS (DS:rSI, or another segment): address and instruction information (SDM 3C table 27-8)."""
    cdef int segment = SEG_ES if d.opcode < 0x6e else d.segment
    cdef uint64_t at = e.ops.gpr[RDI if d.opcode < 0x6e else RSI]
    at &= 0xffff if d.address_bits == 16 else 0xffffffffULL if d.address_bits == 32 else ~<uint64_t>0
    ev.string = True
    ev.insn_info = <uint32_t>(segment << 15 | (0 if d.address_bits == 16 else 1 if d.address_bits == 32 else 2) << 7)
    if env_bits(e.env) == 64:
        ev.address = at + (env_segment(e.env, segment).base if segment >= SEG_FS else 0)
    else:
        ev.address = (at + env_segment(e.env, segment).base) & 0xffffffffULL

cdef inline int data_privilege(Engine* e) noexcept nogil:
    """Privilege of the guest's own explicit data accesses now."""
    if env_cpl(e.env) == 3:
        return USER
    if e.vcpu.paging.cr4 & CR4_SMAP and not env_u64(e.env, ENV_EFLAGS)[0] & FL_AC:
        return SUPERVISOR_SMAP
    return SUPERVISOR

cdef inline bint read_data_quiet(Engine* e, gva_t gva, void* out, uint64_t n, int privilege) noexcept nogil:
    """Read what the guest would read, without charging, counting or filling.  False: it would fault."""
    cdef Translation t
    cdef const TlbEntry* held
    cdef uint64_t piece
    cdef uint8_t* to = <uint8_t*>out
    cdef uint8_t* p
    cdef hpa_t at
    while n:
        piece = PAGE_SIZE - (gva & PAGE_MASK)
        if piece > n:
            piece = n
        held = mmu_lookup(e.mmu, walked(e.vcpu), gva, ACCESS_READ, privilege)
        if held is not NULL:
            at = entry_hpa(held, gva)
        elif mmu_translate_quiet(e.mmu, &e.ram, &e.vcpu.paging, gva, ACCESS_READ, privilege, True, &t) == XLAT_OK:
            at = t.hpa + (gva & PAGE_MASK)
        else:
            return False
        p = ram_pointer(&e.ram, at, piece)
        if p is NULL:
            return False
        memcpy(to, p, piece)
        to += piece
        gva += piece
        n -= piece
    return True
