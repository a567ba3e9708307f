# SPDX-License-Identifier: GPL-2.0-or-later
"""What the translator is given and what it returns.

A *unit* is a run of guest instructions and its translation: x86 code for the translation cache.  The code is a sequence of
*parts*.  The engine gives memory rights by part: what the guest's own instructions touch is the guest's, what an expansion does
between them may touch the monitor's cells.

Rules that both sides rely on
1. Parts lie in order and without gaps: part k ends where k+1 starts, the last one at `length`.
2. Instruction i of the unit is the code [code, code_end); it has retired when control passes code_end.  So a run of copied instructions
   retires one by one, an expansion with its last part; what leaves elsewhere leaves by one of the three interrupts below.
3. A part other than a run of the guest's own instructions is entered at its start only, and its only transfer of control is its last
   instruction.  The engine may still cut it (at a page's end): nothing is to happen to the guest there.
4. A guest address is *defined* at each instruction's `code`: all registers are the guest's.  Faults of a GUEST part at i are the guest's, at
   instruction i: all registers are as before it, but those in `saved`, which lie in their cells.  A MONITOR part faults only for the
   monitor's own reasons.
5. Nothing is written below the guest's stack pointer, and only cells beside what the guest's instruction writes.
6. What the real EFLAGS lack, IF and IOPL, are the cells CELL_IF and CELL_IOPL.

The code leaves by INT n, of which the engine sees RIP behind its two bytes:
  BT_INT_EXIT     the stub of a direct exit that is not chained yet: exits[].stub is where the INT stands
  BT_INT_CALLOUT  the monitor runs the guest instruction `insn` of the part that the INT stands in (all registers are the guest's, the
                  instruction has not begun) and continues wherever that leads
  BT_INT_LOOKUP   the instruction has retired; the guest goes on at CELL_TARGET, which is not in the table of targets (cells.pxd)
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.cost.form cimport FormTables

cdef enum:
    BT_MAX_INSNS = 12        # guest instructions of a unit
    BT_INSNS = 13            # and one more where the twelfth is STI
    BT_MAX_PARTS = 64
    BT_MAX_EXITS = 4
    BT_MAX_CODE = 2048       # bytes: `room` that always suffices
    BT_MAX_LIST = 16         # addresses in BtMode's lists

cdef enum:
    BT_INT_EXIT = 0xf0
    BT_INT_CALLOUT = 0xf1
    BT_INT_LOOKUP = 0xf2

cdef enum:                   # results of bt_translate
    BT_NEED_MORE = 0
    BT_NO_ROOM = -1

cdef enum:                   # BtPart.flags
    PART_MONITOR = 1         # may touch the monitor's memory; without it every access is the guest's
    PART_FIRST = 2           # a guest address is defined at its start
    PART_EXIT = 8            # no guest instruction: a jump behind the last one, or stubs

cdef enum:                   # BtPart.saved
    SAVED_RCX = 1            # CELL_RCX
    SAVED_RDX = 2            # CELL_RDX
    SAVED_RSP = 4            # CELL_RSP

cdef enum:                   # BtPart.kind, BtInsn.kind
    BT_COPIED                # verbatim, or with another encoding of the same operation
    BT_BRANCH                # JMP, Jcc, LOOP, JCXZ
    BT_CALL
    BT_RETURN
    BT_INDIRECT              # JMP, CALL with an operand
    BT_CLI
    BT_STI
    BT_PUSHF
    BT_POPF
    BT_RDTSC                 # and RDTSCP; the part is the instruction itself, alone: the engine answers it
    BT_CR_READ
    BT_CR8_READ
    BT_CR8_WRITE
    BT_SWAPGS
    BT_SS_READ               # MOV from SS to a register
    BT_CONSTANT              # MOV from CS, PUSH CS
    BT_CALLOUT
    BT_EXIT_STUB
    N_BT_KINDS

cdef enum:                   # BtInsn.callout
    CALLOUT_NONE
    CALLOUT_SENSITIVE        # BtInsn.sensitive says which
    CALLOUT_UNKNOWN          # the bytes are no instruction, or one with an invalid LOCK
    CALLOUT_ENCODING         # no encoding from the translation cache: an operand out of reach, too long
    CALLOUT_SEGMENT          # uses GS outside 64-bit mode, or CS where it is not flat
    CALLOUT_STACK            # PUSHF, POPF on a stack segment that is not flat
    CALLOUT_ADAPTIVE         # asked for by BtMode.no_inline
    CALLOUT_RARE             # could be translated, is not worth it
    CALLOUT_EVENT            # CPUID, RDRAND: the monitor answers them under every style
    N_CALLOUTS

cdef enum:                   # BtUnit.ends_with
    BT_END_PLAIN             # the limit of instructions, of bytes at hand, or a breakpoint
    BT_END_TRANSFER          # the guest's own control transfer
    BT_END_CALLOUT
    BT_END_WINDOW            # interrupts may have been enabled: POPF, or the instruction behind STI
    BT_END_SHADOW            # STI was last: interrupts wait for one more instruction

cdef enum:                   # BtExit.transfer
    EXIT_PLAIN = 0           # as BT_END_PLAIN
    EXIT_TRANSFER = 1        # the guest's control transfer or what lies behind one not taken
    EXIT_WINDOW = 2
    EXIT_SHADOW = 3

ctypedef struct BtPart:
    uint16_t start           # offset in the unit's code
    uint8_t insn             # guest instruction that it belongs to; of a run, the first
    uint8_t flags            # PART_*
    uint8_t saved            # SAVED_*
    uint8_t kind             # BT_*; a run has BT_COPIED, although a branch, a call's push or a constant may be in it
    uint16_t pad

ctypedef struct BtInsn:
    uint16_t offset          # in the guest's bytes, from the unit's start
    uint16_t code            # offset of its first byte in the unit's code
    uint16_t code_end        # behind its last byte
    uint8_t length           # guest bytes
    uint8_t kind             # BT_*
    uint8_t sensitive        # SENSITIVE_* (arch/sensitive.pxd), 0: innocuous
    uint8_t callout          # CALLOUT_*

ctypedef struct BtExit:
    uint64_t target          # guest instruction pointer, cut to its size
    uint16_t at              # offset of the rel32 field, which leads to the stub at first
    uint16_t stub            # offset of the INT BT_INT_EXIT
    uint8_t transfer         # EXIT_*
    uint8_t pad[3]

ctypedef struct BtMode:      # what of the guest's state a translation depends on
    uint8_t bits             # 16, 32, 64: of the guest's code segment
    uint8_t ss32             # SS.B (32-bit stack); ignored in 64-bit mode
    uint8_t ss_flat          # SS: base 0 and B set; ignored in 64-bit mode
    uint8_t cs_flat          # guest's CS: base 0; ignored in 64-bit mode
    uint8_t smap             # CR4.SMAP
    uint8_t fsgsbase         # the guest's CR4.FSGSBASE: RDGSBASE and its like exist for it
    uint8_t swapgs           # they exist for translations: the real CR4.FSGSBASE is set
    uint16_t cs              # guest's CS selector
    uint8_t n_no_inline
    uint8_t n_stop_before
    uint8_t compatibility    # 16- or 32-bit code in long mode: upper halves of registers live, and no 32-bit code can keep them
    uint64_t no_inline[BT_MAX_LIST]       # guest instruction pointers whose instructions become call-outs
    uint64_t stop_before[BT_MAX_LIST]     # a unit ends before these, unless it starts there

ctypedef struct BtUnit:
    uint16_t length          # bytes of code
    uint16_t guest_length    # bytes of guest code that were translated
    uint8_t n_insns
    uint8_t n_parts
    uint8_t n_exits
    uint8_t ends_with        # BT_END_*
    uint64_t next            # guest instruction pointer behind the last instruction
    BtInsn insns[BT_INSNS]
    BtPart parts[BT_MAX_PARTS]
    BtExit exits[BT_MAX_EXITS]

ctypedef struct BtTranslator:             # tables only; one serves any number of machines
    FormTables forms
