# SPDX-License-Identifier: GPL-2.0-or-later
# program.S -- the process: it forks a child, waits for it, and again; the child writes some of its data and exits.
#include "forkwait.h"

        .code64
        .text
        .global program, program_end
# ebp: children to make; rbx: data, word 0 of each page.
program:
        mov $CHILDREN, %ebp
        movabs $(AREA + 4096), %rbx
1:      push %rbp
        mov $SYS_FORK, %eax
        int $0x80
        test %eax, %eax
        jz 4f
        pop %rbp
        mov $SYS_WAIT, %eax
        int $0x80
        dec %ebp
        jnz 1b
        xor %ecx, %ecx                  # what the children did to their copies is not seen here
        xor %edi, %edi
2:      add (%rbx, %rcx), %edi
        add $4096, %ecx
        cmp $DATA_PAGES * 4096, %ecx
        jb 2b
        mov $SYS_DONE, %eax
        int $0x80
4:      xor %ecx, %ecx
        xor %edi, %edi
5:      addl $1, (%rbx, %rcx)           # a copy of its own
        add $8192, %ecx
        cmp $WRITTEN_PAGES * 8192, %ecx
        jb 5b
        xor %ecx, %ecx
6:      add (%rbx, %rcx), %edi
        add $4096, %ecx
        cmp $DATA_PAGES * 4096, %ecx
        jb 6b
        mov $SYS_EXIT, %eax
        int $0x80
program_end:
