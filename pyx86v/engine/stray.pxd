# SPDX-License-Identifier: GPL-2.0-or-later
"""A data access to a non-canonical address: which exception it is (SDM 3A 6.15, interrupts 12 and 13; SDM 1 3.3.7.1)."""
from libc.stdint cimport uint64_t
from pyx86v.arch.decode cimport Insn, uses_stack
from pyx86v.arch.regs cimport SEG_SS, VEC_GP, VEC_SS
from pyx86v.arch.types cimport gva_t
from pyx86v.engine.operands cimport fetch_insn, operand_address
from pyx86v.engine.state cimport *

cdef enum:
    WIDEST_OPERAND = 512     # bytes, of FXSAVE

cdef inline int stray_vector(Engine* e, gva_t va, uint64_t rip) noexcept nogil:
    """#SS when the instruction at `rip` reached `va` through SS: it pushes or pops, or RSP or RBP is the base.

    One that does both (PUSH, POP and CALL with a memory operand) is judged by which of its addresses this is.
    """
    cdef Insn d
    cdef bint stack
    fetch_insn(e, rip, &d)
    stack = uses_stack(&d)
    if d.modrm >= 0 and not d.is_register and (not stack or va - operand_address(e, &d, rip) < WIDEST_OPERAND):
        stack = d.segment == SEG_SS
    return VEC_SS if stack else VEC_GP
