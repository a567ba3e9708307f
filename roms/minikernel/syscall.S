# SPDX-License-Identifier: GPL-2.0-or-later
# syscall.S -- SYSCALL: build a struct frame64, so that a system call can be left by another task's frame.
#include "minikernel.h"

        .text
        .code64
        .global syscall_entry
# gs:0 = kernel stack, gs:8 = place for the user's.  Back by SYSRET unless the frame was exchanged.
syscall_entry:
        swapgs
        mov %rsp, %gs:8
        mov %gs:0, %rsp
        pushq $UDATA | 3
        pushq %gs:8
        push %r11
        pushq $UCODE64 | 3
        push %rcx
        pushq $0
        pushq $0x100
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
        swapgs
        cld
        mov %rsp, %rdi
        call syscall64
        test %eax, %eax
        jnz trap_return64
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        add $32, %rsp                   # r11 to r8: not kept by a system call
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        add $8, %rsp
        pop %rax
        mov 16(%rsp), %rcx
        mov 32(%rsp), %r11
        mov 40(%rsp), %rsp
        sysretq

        .bss
        .balign 16
        .global trap_stack, syscall_stack
        .skip 8192
trap_stack:
        .skip 8192
syscall_stack:
