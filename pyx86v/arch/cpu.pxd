# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor as a style sees it: registers by function pointer, so that a style never
names the engine and can be tested against a plain struct.

The engine fills one `Cpu` in for each engine it owns.  All functions are callable from any
hook, take no lock, allocate nothing and cannot fail.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.regs cimport Segment

cdef enum CpuReg:
    REG_RIP
    REG_RFLAGS
    REG_CR0              # set: derived state of the engine follows; no checks, no TLB effect on the model
    REG_CR2
    REG_CR3
    REG_CR4
    REG_CR8
    REG_EFER
    REG_GDTR_BASE
    REG_GDTR_LIMIT
    REG_IDTR_BASE
    REG_IDTR_LIMIT
    REG_DR6
    REG_DR7
    REG_CPL              # get only
    REG_BITS             # get only: 16, 32 or 64, the code segment's operand size
    REG_SHADOW           # interrupt shadow of STI and MOV SS: 0 or 1
    REG_STAR
    REG_LSTAR
    REG_CSTAR
    REG_FMASK
    REG_KERNEL_GS_BASE
    REG_SYSENTER_CS
    REG_SYSENTER_ESP
    REG_SYSENTER_EIP
    REG_PAT
    REG_DR0
    REG_DR1
    REG_DR2
    REG_DR3
    N_CPU_REGS

ctypedef struct CpuSegment:  # a segment register as the engine keeps it
    uint32_t selector
    uint32_t pad
    uint64_t base
    uint32_t limit
    uint32_t flags

ctypedef struct Cpu:
    void* owner          # the engine's own structure
    uint64_t* gpr        # RAX RCX RDX RBX RSP RBP RSI RDI R8 .. R15
    uint64_t* at[N_CPU_REGS]     # where a register lies that is 64 plain bits to read, or NULL
    const CpuSegment* segments   # ES CS SS DS FS GS LDTR TR to read, or NULL
    uint64_t (*get)(Cpu* cpu, int reg) noexcept nogil
    void (*set)(Cpu* cpu, int reg, uint64_t value) noexcept nogil
    void (*get_segment)(Cpu* cpu, int seg, Segment* out) noexcept nogil
    void (*set_segment)(Cpu* cpu, int seg, const Segment* value) noexcept nogil
    void (*flush)(Cpu* cpu) noexcept nogil                      # drop every translation the engine caches
    void (*flush_page)(Cpu* cpu, uint64_t gva) noexcept nogil   # drop one page

cdef inline uint64_t cpu_get(Cpu* c, int reg) noexcept nogil:
    """`get`, without a call where there is nothing to compute: for an exit's worth of registers."""
    return c.at[reg][0] if c.at[reg] is not NULL else c.get(c, reg)
