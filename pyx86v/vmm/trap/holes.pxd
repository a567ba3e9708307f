# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sensitive instructions are holes: silent in ring 1 and 3 with the monitor's tables, which are empty.

Of Robin and Irvine's list those that load a segment or go through a gate trap there, and a move from or a push of a data
segment shows nothing, since only CS and SS hold the real ring.
"""
from libc.stdint cimport uint8_t
from pyx86v.arch.decode cimport Insn, insn_decode
from pyx86v.arch.regs cimport SEG_CS, SEG_SS
from pyx86v.arch.sensitive cimport *

cdef inline bint is_hole(int sensitive, const uint8_t* code, int bits) noexcept nogil:
    """`sensitive`: its number; `code`: its bytes, of which 32 can be read.

    A load of SS in 64-bit mode and IRETD count too: see engine/hole.pxd.
    """
    cdef Insn d
    if sensitive <= SENSITIVE_VERW:
        return sensitive != SENSITIVE_NONE
    if sensitive == SENSITIVE_LSS:
        return bits == 64
    if sensitive == SENSITIVE_POP_SEGMENT:
        return False
    insn_decode(code, bits, &d)
    if sensitive == SENSITIVE_IRET:
        return not d.rex_w and d.op16 == (bits == 16)
    if sensitive == SENSITIVE_PUSH_SEGMENT:
        return d.map == 0 and (d.opcode == 0x0e or d.opcode == 0x16)
    if sensitive == SENSITIVE_MOV_TO_SEGMENT:
        return bits == 64 and d.reg & 7 == SEG_SS
    return sensitive == SENSITIVE_MOV_FROM_SEGMENT and (d.reg & 7 == SEG_CS or d.reg & 7 == SEG_SS)
