# SPDX-License-Identifier: GPL-2.0-or-later
# stubs.S -- one access to the page under test and out: for both widths, and for the kernel and the user.
#include "demand.h"

        .macro STUBS width, reg, test, kind
read\kind\width:
        mov $\test, \reg
        mov (\reg), %al
        int $DONE
write\kind\width:
        mov $\test, \reg
        mov %al, (\reg)
        int $DONE
execute\kind\width:
        mov $\test + EXEC_OFFSET, \reg
        jmp *\reg
        .endm

        .text
        .code32
        STUBS 32, %ebx, TEST_VA32, k
        .code64
        STUBS 64, %rbx, TEST_VA64, k

        .data
        .global users_start, users_end, stubs32, stubs64
users_start:                            # copied to USER_AT
        .code32
        STUBS 32, %ebx, TEST_VA32, u
        .code64
        STUBS 64, %rbx, TEST_VA64, u
users_end:

        .section .rodata
        .balign 4
#define AT(label) USER_AT + label - users_start
stubs32: .long readk32, writek32, executek32, AT(readu32), AT(writeu32), AT(executeu32)
stubs64: .long readk64, writek64, executek64, AT(readu64), AT(writeu64), AT(executeu64)

        .bss
        .balign 16
        .global kernel_stack, probe_stack
        .skip 4096
probe_stack:
        .skip 8192
kernel_stack:
