# SPDX-License-Identifier: GPL-2.0-or-later
# loops.S -- one operation each, rdi times; the handlers of the two faults do nothing but go on behind the instruction.
#include "selectors.h"

        .code64
        .text
        .macro LOOP name, body:vararg
        .global op_\name
        .balign 16
op_\name:
1:      \body
        dec %rdi
        jnz 1b
        ret
        .endm

        LOOP empty
        LOOP rdtsc, rdtsc
        LOOP in80, in $0x80, %al
        LOOP callret, call nothing
        .balign 16
nothing: ret

        .global op_cr8
op_cr8: xor %eax, %eax
1:      mov %rax, %cr8
        dec %rdi
        jnz 1b
        ret

        .global op_divide, divide_handler
op_divide:
        xor %ecx, %ecx
1:      div %ecx
        dec %rdi
        jnz 1b
        ret
divide_handler:
        addq $2, (%rsp)                 # f7 f1
        iretq

        .global op_fault, fault_handler
op_fault:                               # rsi: an address that is not mapped
1:      mov (%rsi), %al
        dec %rdi
        jnz 1b
        ret
fault_handler:
        add $8, %rsp                    # the error code
        addq $2, (%rsp)                 # 8a 06
        iretq

# A program at ring 3 that calls rdi times.  ebx counts, eax = -1 is the last call.
        .global op_syscall, syscall_entry
op_syscall:
        push %rbx
        mov %rsp, kernel_rsp(%rip)
        mov %edi, %ebx
        push $UDATA | 3
        push %rsi                       # its stack
        push $2                         # its flags
        push $UCODE64 | 3
        push %rdx                       # its code: a copy of `caller` in its memory
        iretq
syscall_entry:
        cmp $-1, %eax
        je 1f
        sysretq
1:      mov kernel_rsp(%rip), %rsp
        pop %rbx
        ret
        .global caller, caller_end
caller: xor %eax, %eax
1:      syscall
        dec %ebx
        jnz 1b
        mov $-1, %eax
        syscall
caller_end:

# rsi: a table of 512 entries, walked over and over; rdx: an entry's value.
        .macro BEGIN name
        .global op_\name
        .balign 16
op_\name:
        xor %ecx, %ecx
1:      lea (%rsi, %rcx, 8), %r8
        .endm
        .macro END
        inc %ecx
        and $511, %ecx
        dec %rdi
        jnz 1b
        ret
        .endm

        BEGIN pte_loop
        END
        BEGIN pte_same
        mov %rdx, (%r8)
        END
        BEGIN pte_hide
        mov (%r8), %rax
        and $-2, %rax
        mov %rax, (%r8)
        END
        BEGIN pte_show                  # made anew from the frame
        mov (%r8), %rax
        shr $12, %rax
        shl $12, %rax
        or $0x63, %rax
        mov %rax, (%r8)
        END

        .bss
        .balign 8
kernel_rsp: .skip 8
