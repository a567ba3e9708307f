# SPDX-License-Identifier: GPL-2.0-or-later
"""What an instruction that trapped in ring 1 to 3 is, and why the style `trap` takes an exit at all.

The processor reports every privileged instruction as #GP(0) and every use of a segment that its (the monitor's) tables do
not have as #GP, #NP, #SS or #TS; so the monitor decodes.
"""
from pyx86v.arch.decode cimport Insn

cdef enum:               # TrapKind
    TRAP_OTHER = 0       # nothing that the monitor knows: the guest's own fault
    TRAP_CR_READ
    TRAP_CR_WRITE        # CLTS and LMSW too
    TRAP_DR
    TRAP_TABLES          # LGDT, LIDT, LLDT, LTR
    TRAP_MSR
    TRAP_INVLPG          # INVPCID too
    TRAP_HLT
    TRAP_CACHE           # INVD, WBINVD
    TRAP_INTERRUPT_FLAG  # CLI, STI
    TRAP_SEGMENT         # MOV, POP, LDS and its like
    TRAP_FAR             # far JMP, CALL, RET
    TRAP_IRET
    TRAP_RETURN_TO_USER  # SYSRET, SYSEXIT
    TRAP_SWAPGS
    TRAP_AC              # CLAC, STAC: #UD and not #GP
    TRAP_RDTSC
    TRAP_V86             # PUSHF, POPF, INT n of a virtual-8086 task (IRET and CLI as outside)
    TRAP_PORT_IN         # from here on not decoded but events of their own
    TRAP_PORT_OUT
    TRAP_MMIO
    TRAP_SYSCALL         # SYSENTER too
    TRAP_SOFTWARE_INT
    TRAP_EXCEPTION
    TRAP_PAGE_FAULT      # the guest's own
    TRAP_HIDDEN_FAULT    # of shadow tables
    TRAP_EXTERNAL
    TRAP_UNDEFINED       # instructions that the guest is not offered
    TRAP_TRIPLE_FAULT
    TRAP_TABLE_WRITE     # bt: of an instruction that was retranslated because it writes page tables
    N_TRAP_KINDS

cdef inline int kind_of_0f(const Insn* d) noexcept nogil:
    """Two-byte opcodes (SDM 2D table A-3)."""
    cdef int op = d.opcode
    if op == 0x20:
        return TRAP_CR_READ
    if op == 0x22 or op == 0x06:
        return TRAP_CR_WRITE
    if op == 0x21 or op == 0x23:
        return TRAP_DR
    if op == 0x00:
        return TRAP_TABLES if d.reg & 6 == 2 else TRAP_OTHER
    if op == 0x01:
        return kind_of_group7(d)
    if op == 0x30 or op == 0x32:
        return TRAP_MSR
    if op == 0x31:
        return TRAP_RDTSC
    if op == 0x08 or op == 0x09:
        return TRAP_CACHE
    if op == 0x07 or op == 0x35:
        return TRAP_RETURN_TO_USER
    if op == 0xa1 or op == 0xa9 or op == 0xb2 or op == 0xb4 or op == 0xb5:
        return TRAP_SEGMENT
    return TRAP_OTHER

cdef inline int kind_of_group7(const Insn* d) noexcept nogil:
    """0F 01 (SDM 2D table A-6)."""
    if d.is_register:
        if d.modrm == 0xf8:
            return TRAP_SWAPGS
        if d.modrm == 0xf9:
            return TRAP_RDTSC
        if d.modrm == 0xca or d.modrm == 0xcb:
            return TRAP_AC
        return TRAP_CR_WRITE if d.reg & 7 == 6 else TRAP_OTHER
    if d.reg & 7 == 2 or d.reg & 7 == 3:
        return TRAP_TABLES
    if d.reg & 7 == 6:
        return TRAP_CR_WRITE
    return TRAP_INVLPG if d.reg & 7 == 7 else TRAP_OTHER

cdef inline int trap_kind(const Insn* d) noexcept nogil:
    """TrapKind of a decoded instruction that faulted."""
    cdef int op = d.opcode
    if d.map == 1:
        return kind_of_0f(d)
    if d.map != 0:
        return TRAP_OTHER
    if op == 0xfa or op == 0xfb:
        return TRAP_INTERRUPT_FLAG
    if op == 0xcf:
        return TRAP_IRET
    if op == 0x8e or op == 0x07 or op == 0x17 or op == 0x1f or op == 0xc4 or op == 0xc5:
        return TRAP_SEGMENT
    if op == 0x9a or op == 0xea or op == 0xca or op == 0xcb or (op == 0xff and (d.reg & 7 == 3 or d.reg & 7 == 5)):
        return TRAP_FAR
    if op == 0xf4:
        return TRAP_HLT
    if op == 0x9c or op == 0x9d or op == 0xcd:
        return TRAP_V86
    return TRAP_OTHER

cdef inline int callout_kind(const Insn* d) noexcept nogil:
    """TrapKind of a decoded instruction that the monitor carries out for translated code."""
    if d.map == 0 and d.opcode & 0xf4 == 0xe4:           # IN and OUT but for their string forms
        return TRAP_PORT_OUT if d.opcode & 2 else TRAP_PORT_IN
    return trap_kind(d)

cdef inline void fill_kind_names(const char** n) noexcept:
    """Names of the exits, by TrapKind."""
    n[TRAP_OTHER] = b"FAULT"
    n[TRAP_CR_READ] = b"CR_READ"
    n[TRAP_CR_WRITE] = b"CR_WRITE"
    n[TRAP_DR] = b"DR_ACCESS"
    n[TRAP_TABLES] = b"DESCRIPTOR_TABLE"
    n[TRAP_MSR] = b"MSR"
    n[TRAP_INVLPG] = b"INVLPG"
    n[TRAP_HLT] = b"HLT"
    n[TRAP_CACHE] = b"CACHE"
    n[TRAP_INTERRUPT_FLAG] = b"INTERRUPT_FLAG"
    n[TRAP_SEGMENT] = b"SEGMENT_LOAD"
    n[TRAP_FAR] = b"FAR_TRANSFER"
    n[TRAP_IRET] = b"IRET"
    n[TRAP_RETURN_TO_USER] = b"SYSRET"
    n[TRAP_SWAPGS] = b"SWAPGS"
    n[TRAP_AC] = b"AC_FLAG"
    n[TRAP_RDTSC] = b"RDTSC"
    n[TRAP_V86] = b"V86"
    n[TRAP_PORT_IN] = b"PORT_IN"
    n[TRAP_PORT_OUT] = b"PORT_OUT"
    n[TRAP_MMIO] = b"MMIO"
    n[TRAP_SYSCALL] = b"SYSCALL"
    n[TRAP_SOFTWARE_INT] = b"SOFTWARE_INT"
    n[TRAP_EXCEPTION] = b"EXCEPTION"
    n[TRAP_PAGE_FAULT] = b"PAGE_FAULT"
    n[TRAP_HIDDEN_FAULT] = b"HIDDEN_FAULT"
    n[TRAP_EXTERNAL] = b"EXTERNAL_INTERRUPT"
    n[TRAP_UNDEFINED] = b"UNDEFINED"
    n[TRAP_TRIPLE_FAULT] = b"TRIPLE_FAULT"
    n[TRAP_TABLE_WRITE] = b"TABLE_WRITE"
