# SPDX-License-Identifier: GPL-2.0-or-later
# users.S -- the user programs (copied to USER_AT), and the kernels' SYSENTER and SYSCALL entries.
#include "selectors.h"
#include "usermode.h"
#define AT(label) (USER_AT + label - user_start)

        .data
        .balign 16
        .global user_start, user_end, user32_at, user64_at
user32_at: .long AT(user32)              # where a program starts once it is copied
user64_at: .long AT(user64)
user_start:
        .code32
# The word at USER_STACK is 1: a second round through SYSENTER.  A call: eax = number, ebx and esi = arguments, result in eax.
user32: xor %edi, %edi
        mov $CALLS, %ebp
1:      mov %ebp, %eax
        and $7, %eax
        mov %ebp, %ebx
        mov %edi, %esi
        int $0x80
        rol $5, %edi
        xor %eax, %edi
        dec %ebp
        jnz 1b
        mov $SYS_UNKNOWN, %eax
        int $0x80
        xor %eax, %edi
        cmpl $0, USER_STACK
        je 3f
        mov $CALLS, %ebp
2:      mov %ebp, %eax
        and $7, %eax
        mov %ebp, %ebx
        mov %edi, %esi
        call do_sysenter
        rol $5, %edi
        xor %eax, %edi
        dec %ebp
        jnz 2b
        mov $SYS_UNKNOWN, %eax
        call do_sysenter
        xor %eax, %edi
3:      mov $AT(4f), %ebx               # faults: the kernel goes on at ebx
        mov 0x100000, %eax
        ud2
4:      mov $AT(5f), %ebx
        cli
        ud2
5:      cmp $USER_STACK, %esp
        jne 6f
        mov $SYS_EXIT, %eax
        mov %edi, %ebx
        int $0x80
6:      ud2
do_sysenter:
        mov %esp, %ecx
        mov $AT(after_sysenter), %edx
        sysenter
after_sysenter:
        ret

        .code64
# The same by SYSCALL, then by int 80; rax = number, rbx and rsi = arguments.
user64: xor %edi, %edi
        mov $CALLS, %ebp
1:      mov %ebp, %eax
        and $7, %eax
        mov %ebp, %ebx
        mov %rdi, %rsi
        syscall
        rol $5, %rdi
        xor %rax, %rdi
        dec %ebp
        jnz 1b
        mov $SYS_UNKNOWN, %eax
        syscall
        xor %rax, %rdi
        mov $CALLS, %ebp
2:      mov %ebp, %eax
        and $7, %eax
        mov %ebp, %ebx
        mov %rdi, %rsi
        int $0x80
        rol $5, %rdi
        xor %rax, %rdi
        dec %ebp
        jnz 2b
        mov $SYS_UNKNOWN, %eax
        int $0x80
        xor %rax, %rdi
        mov $AT(4f), %ebx
        mov 0x100000, %eax
        ud2
4:      mov $AT(5f), %ebx
        cli
        ud2
5:      cmp $USER_STACK, %rsp
        jne 6f
        mov $SYS_EXIT, %eax
        mov %rdi, %rbx
        syscall
6:      ud2
user_end:

        .text
        .code32
        .global sysenter_entry, syscall_entry
# IA32_SYSENTER_ESP is the stack; ecx = user esp, edx = user eip.
sysenter_entry:
        push %ecx
        push %edx
        push %esi
        push %ebx
        push %eax
        call kernel_sysenter
        add $12, %esp
        pop %edx
        pop %ecx
        sysexit

        .code64
# gs:0 = kernel stack, gs:8 = place for the user's.
syscall_entry:
        swapgs
        mov %rsp, %gs:8
        mov %gs:0, %rsp
        push %rcx
        push %r11
        push %rdi
        push %rsi
        mov %rsi, %rdx
        mov %rbx, %rsi
        mov %rax, %rdi
        sub $8, %rsp
        cld
        call kernel_syscall
        add $8, %rsp
        pop %rsi
        pop %rdi
        pop %r11
        pop %rcx
        mov %gs:8, %rsp
        swapgs
        sysretq

        .bss
        .balign 16
        .global kernel_stack, sysenter_stack, syscall_stack
        .skip 4096
kernel_stack:
        .skip 4096
sysenter_stack:
        .skip 4096
syscall_stack:
        .skip 16
