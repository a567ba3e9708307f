# SPDX-License-Identifier: GPL-2.0-or-later
# probes.S -- error codes that name an IDT entry: index * 8 + 2 (IDT), + 1 (EXT) when no `int n` asked for it.
# Source: SDM 3A 6.13 (error code), 6.12.1.3 (EXT).  probe.inc says how to read the table.
#include "selectors.h"
#include "probe.inc"

        .text
        .code64
        .macro SOFT_INT text, ring, vector, error, n
        PROBE "\text", \ring, \vector, \error
7:      int $\n
        .endm
        SOFT_INT "int, gate DPL 0", 3, V_GP, 0x60*8+2, 0x60
        SOFT_INT "int, gate not present", 3, V_NP, 0x61*8+2, 0x61
        SOFT_INT "int, not present and DPL 0", 3, V_GP, 0x62*8+2, 0x62
        .irp ring, 0, 3
        SOFT_INT "int, call gate in the IDT", \ring, V_GP, 0x63*8+2, 0x63
        SOFT_INT "int, task gate in the IDT", \ring, V_GP, 0x64*8+2, 0x64
        SOFT_INT "int, beyond the IDT", \ring, V_GP, 0x90*8+2, 0x90
        SOFT_INT "int, beyond the IDT", \ring, V_GP, 0xff*8+2, 0xff
        PROBE_WITH "int3, gate not present", \ring, V_NP, 3*8+2
        andb $0x7f, idt64 + 3 * 16 + 5
        START
7:      int3
        PROBE_WITH "#UD, gate not present", \ring, V_NP, 6*8+3
        andb $0x7f, idt64 + 6 * 16 + 5
        START
7:      ud2
        PROBE_WITH "#DB, gate not present", \ring, V_NP, 1*8+3, 1
        andb $0x7f, idt64 + 1 * 16 + 5
        START
        pushfq
        orl $0x100, (%rsp)
        popfq
7:      nop
        PROBE_WITH "#UD, gate to null", \ring, V_GP, 1
        movw $0, idt64 + 6 * 16 + 2
        START
7:      ud2
        PROBE_WITH "#UD, gate to data", \ring, V_GP, KDATA + 1
        movw $KDATA, idt64 + 6 * 16 + 2
        START
7:      ud2
        .endr
        PROBE_WITH "int3, gate DPL 0", 3, V_GP, 3*8+2
        andb $~0x60, idt64 + 3 * 16 + 5
        START
7:      int3
        PROBES_END

        .bss
        .balign 16
        .global ring0_stack, probe_stack0, probe_stack
        .skip 4096
ring0_stack:
        .skip 4096
probe_stack0:
        .skip 4096
probe_stack:
        .skip 64
