# SPDX-License-Identifier: GPL-2.0-or-later
# ring.S -- run code in a ring by iret; leave it from a trap handler, dropping the handler's frame (ring.h).
#include "selectors.h"

        .text
        .code64
        .global ring_run64, ring_leave64
# void ring_run64(cs, ss, rip, rsp, rflags): go there with data segments = ss.  Returns after ring_leave64.
ring_run64:
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, saved64
        mov %esi, %ds
        mov %esi, %es
        push %rsi
        push %rcx
        push %r8
        push %rdi
        push %rdx
        xor %eax, %eax
        iretq

ring_leave64:
        mov saved64, %rsp
        mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        ret

        .code32
        .global ring_run32, ring_leave32
# void ring_run32(cs, ds, eip, esp, eflags): go to cs:eip with all data segments = ds.  Returns after ring_leave32.
ring_run32:
        push %ebp
        push %ebx
        push %esi
        push %edi
        mov %esp, saved32
        mov 20(%esp), %eax
        mov 24(%esp), %ecx
        mov 28(%esp), %edx
        mov 32(%esp), %ebx
        mov 36(%esp), %esi
        test $3, %al
        jnz 1f
        mov %ebx, %esp                  # the same ring: iret does not load ss:esp
        jmp 2f
1:      push %ecx
        push %ebx
2:      push %esi
        push %eax
        push %edx
        mov %ecx, %ds
        mov %ecx, %es
        mov %ecx, %fs
        mov %ecx, %gs
        xor %eax, %eax
        iret

ring_leave32:
        mov saved32, %esp
        mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        pop %edi
        pop %esi
        pop %ebx
        pop %ebp
        ret

        .bss
        .balign 8
saved64: .skip 8
saved32: .skip 4
