# SPDX-License-Identifier: GPL-2.0-or-later
# traps.S -- 256 entry stubs for each width.  A stub pushes 0 where the processor pushes no error code
# (SDM 3A table 6-1: codes come with vectors 8, 10-14, 17, 21, 29, 30) and the vector, then the common part saves the rest.
#include "selectors.h"

        .weak trap64, trap32

        .macro stubs width
        .set v, 0
        .rept 256
        .balign 16
        .if (v == 8) || ((v >= 10) && (v <= 14)) || (v == 17) || (v == 21) || (v == 29) || (v == 30)
        .else
        push $0
        .endif
        .if v < 128
        push $v
        .else
        push $(v - 256)         # one size for all; the common part keeps the low byte
        .endif
        jmp trap_common\width
        .set v, v + 1
        .endr
        .endm

        .macro stub_table base
        .set v, 0
        .rept 256
        .long \base + 16 * v
        .set v, v + 1
        .endr
        .endm

        .text
        .code64
        .balign 16
stubs64: stubs 64

        .global trap_common64
trap_common64:
        andl $0xff, (%rsp)
        movl $0, 4(%rsp)
        push %rax
        push %rcx
        push %rdx
        push %rbx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        cld
        mov %rsp, %rdi
        mov %rsp, %rbp
        and $-16, %rsp
        call trap64
        mov %rbp, %rsp
        .global trap_return64           # rsp = a struct frame64 to resume
trap_return64:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        pop %rcx
        pop %rax
        add $16, %rsp
        iretq

        .code32
        .balign 16
stubs32: stubs 32

        .global trap_common32
trap_common32:
        andl $0xff, (%esp)
        push %gs
        push %fs
        push %es
        push %ds
        pusha
        mov $KDATA, %eax                # not "mov %ss": a deprivileged kernel would see its ring
        mov %eax, %ds
        mov %eax, %es
        cld
        mov %esp, %eax
        mov %esp, %ebp
        and $-16, %esp
        sub $12, %esp
        push %eax
        call trap32
        mov %ebp, %esp
        .global trap_return32           # esp = a struct frame32 to resume
trap_return32:
        popa
        pop %ds
        pop %es
        pop %fs
        pop %gs
        add $8, %esp
        iret

        .section .rodata
        .balign 4
        .global trap_stubs64, trap_stubs32
trap_stubs64: stub_table stubs64
trap_stubs32: stub_table stubs32

        .bss
        .balign 16
        .global idt64, idt32, caught, catch_resume, catch_at
idt64:  .skip 4096
idt32:  .skip 2048
catch_resume: .skip 8
catch_at:     .skip 8
caught:       .skip 24
