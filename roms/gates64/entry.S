# SPDX-License-Identifier: GPL-2.0-or-later
# entry.S -- the targets of gates and of SYSCALL.
#include "gates64.h"

        .text
        .code64
        .global gate_entry, int_frame, int_flags, int_ist, syscall_entry, syscall_flags
# Behind call gates: eax = cs << 24 | ss << 16 | outer cs << 8 | outer ss (0 in the same ring: nothing pushed).
gate_entry:
        mov %cs, %eax
        shl $8, %eax
        mov %ss, %ecx
        or %ecx, %eax
        shl $8, %eax
        or 8(%rsp), %eax
        shl $8, %eax
        testb $3, 8(%rsp)
        jz 1f
        mov %cs, %ecx
        test $3, %ecx
        jnz 1f
        or 24(%rsp), %eax
1:      lretq

# Behind int 50: eax = cs << 24 | ss << 16 | pushed cs << 8 | pushed ss, all checked against rsp's alignment.
int_frame:
        test $7, %spl
        jnz 1f
        mov %cs, %eax
        shl $8, %eax
        mov %ss, %ecx
        or %ecx, %eax
        shl $8, %eax
        or 8(%rsp), %eax
        shl $8, %eax
        or 32(%rsp), %eax
1:      iretq

# Behind int 51 (interrupt gate) and 52 (trap gate): eax = IF, TF, NT as the handler finds them.
int_flags:
        pushfq
        pop %rax
        and $0x4300, %eax
        iretq

# Behind int 53 and 54 (IST 1 and none): eax = distance of the frame from the IST stack's top, and of the
# interrupted rsp from the frame, each capped.
int_ist:
        mov $ist_stack, %eax
        sub %rsp, %rax
        cmp $0xff, %rax
        jbe 1f
        mov $0xff, %eax
1:      mov 24(%rsp), %rcx
        sub %rsp, %rcx
        cmp $0xff, %rcx
        jbe 2f
        mov $0xff, %ecx
2:      shl $8, %eax
        or %ecx, %eax
        iretq

# SYSCALL: eax = cs << 24 | ss << 16 | flags left of (IF, TF, DF, CF) >> 0; returns by sysretq.
syscall_entry:
        mov %cs, %eax
        shl $8, %eax
        mov %ss, %edx
        or %edx, %eax
        shl $16, %eax
        mov %rsp, %r10
        mov $probe_stack0, %esp
        pushfq
        pop %rdx
        mov %r10, %rsp
        and $0x701, %edx
        or %edx, %eax
        sysretq

        .bss
        .balign 16
        .global ring0_stack, probe_stack0, probe_stack, ist_stack, df_stack
        .skip 4096
ring0_stack:
        .skip 4096
probe_stack0:
        .skip 4096
ist_stack:
        .skip 4096
df_stack:
        .skip 4096
probe_stack:
        .skip 64
