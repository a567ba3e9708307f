# SPDX-License-Identifier: GPL-2.0-or-later
# probes.S -- error codes that name an IDT entry: index * 8 + 2 (IDT), + 1 (EXT) when no `int n` asked for it.
# And which exception a non-canonical address is.  Source: SDM 3A 6.13 (error code), 6.12.1.3 (EXT).  probe.inc says how to read the table.
#include "selectors.h"
#include "probe.inc"
        .set STRAY_ADDRESS, 0x0000900000000000

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
# ---- non-canonical addresses: #SS(0) when SS is the segment, else #GP(0) (SDM 3A 6.15, interrupts 12 and 13) ----
        .macro STRAY text, ring, vector, insn:vararg
        PROBE "\text", \ring, \vector, 0
        mov $STRAY_ADDRESS, %rbx
        mov %rbx, %rbp
        mov %rbx, %r12
        mov %rbx, %rsi
        mov %rbx, %rdi
7:      \insn
        .endm
        .macro STRAY_STACK text, vector, insn:vararg
        PROBE "\text", 3, \vector, 0
        mov $STRAY_ADDRESS, %rsp
        mov $0x100000, %ebx
        mov %rsp, %rbp
7:      \insn
        .endm
        .irp ring, 0, 3
        STRAY "load through rbx", \ring, V_GP, mov (%rbx), %al
        STRAY "load through rbp", \ring, V_SS, mov (%rbp), %al
        STRAY "store through rbp", \ring, V_SS, movq $1, 8(%rbp)
        STRAY "alu through rbp, indexed", \ring, V_SS, add %rcx, (%rbp,%rax,1)
        STRAY "rbp as the index", \ring, V_GP, mov (%rax,%rbp,1), %al
        STRAY "r12 is not the stack pointer", \ring, V_GP, mov (%r12), %al
        STRAY "rbp, DS override ignored", \ring, V_SS, .byte 0x3e, 0x8a, 0x45, 0x00
        STRAY "rbx, SS override ignored", \ring, V_GP, .byte 0x36, 0x8a, 0x03
        STRAY "rbp, FS override", \ring, V_GP, mov %fs:(%rbp), %al
        STRAY "sse through rbp", \ring, V_SS, movups (%rbp), %xmm0
        STRAY "x87 through rbp", \ring, V_SS, fldl (%rbp)
        STRAY "movzx through rbp", \ring, V_SS, movzbl (%rbp), %eax
        STRAY "string source", \ring, V_GP, lodsb
        STRAY "string destination", \ring, V_GP, stosb
        STRAY "push of memory", \ring, V_GP, pushq (%rbx)
        STRAY "push of memory through rbp", \ring, V_SS, pushq (%rbp)
        STRAY "pop to memory", \ring, V_GP, popq (%rbx)
        STRAY "call through memory", \ring, V_GP, call *(%rbx)
        STRAY "leave", \ring, V_SS, leave
        PROBE "across the end of the lower half, rbp", \ring, V_SS, 0
        mov $0x00007ffffffffffc, %rbp
7:      mov (%rbp), %rax
        PROBE "across the end of the lower half, rbx", \ring, V_GP, 0
        mov $0x00007ffffffffffc, %rbx
7:      mov (%rbx), %rax
        .endr
        STRAY_STACK "load through rsp", V_SS, mov 8(%rsp), %rax
        STRAY_STACK "push", V_SS, push %rax
        STRAY_STACK "push immediate", V_SS, push $5
        STRAY_STACK "push from memory", V_SS, pushq (%rbx)
        STRAY_STACK "push fs", V_SS, push %fs
        STRAY_STACK "pushf", V_SS, pushfq
        STRAY_STACK "pop", V_SS, pop %rax
        STRAY_STACK "pop to memory", V_SS, popq (%rbx)
        STRAY_STACK "pop gs", V_SS, pop %gs
        STRAY_STACK "popf", V_SS, popfq
        STRAY_STACK "call", V_SS, call 1f
        STRAY_STACK "call through a register", V_SS, call *%rbx
1:      STRAY_STACK "ret", V_SS, ret
        STRAY_STACK "ret n", V_SS, ret $8
        STRAY_STACK "lret", V_SS, lretq
        STRAY_STACK "enter", V_SS, enter $0, $0
        STRAY_STACK "iret", V_SS, iretq
        STRAY_STACK "a load that is not of the stack", V_GP, mov %fs:(%rbp), %rax
        PROBE_WITH "int n on a non-canonical stack", 0, V_SS, 0
        movb $1, idt64 + 12 * 16 + 4
        START
        mov $STRAY_ADDRESS, %rsp
7:      int $0x50
        PROBE_WITH "#UD on a non-canonical stack", 0, V_SS, 1
        movb $1, idt64 + 12 * 16 + 4
        START
        mov $STRAY_ADDRESS, %rsp
7:      ud2
        PROBE_WITH "#UD on a stack that ends outside", 0, V_SS, 1
        movb $1, idt64 + 12 * 16 + 4
        START
        mov $0x0000800000000010, %rsp
7:      ud2
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
