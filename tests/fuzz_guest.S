# SPDX-License-Identifier: GPL-2.0-or-later
# The frame of a hostile guest: fuzz_worker.py patches the tables below and appends the payload.
#
# Loaded at 0x10000 in 32-bit protected mode.  `steps` says what is done before `frame` is popped by IRET.
# Every fault handler goes on at the next multiple of 32: the payload's pieces start there, so that one
# piece's fault does not keep the next from running.

        .set BASE, 0x10000
        .set LOAD_TABLES, 1 << 0
        .set LOAD_SEGMENTS, 1 << 1
        .set LOAD_LDT, 1 << 2
        .set LOAD_TR, 1 << 3
        .set LOAD_CR4, 1 << 4
        .set LOAD_EFER, 1 << 5
        .set LOAD_CR0, 1 << 6
        .set REAL_MODE, 1 << 7
        .set LONG_MODE, 1 << 8
        .set LONG_TR, 1 << 9

        .code32
        .text
        .globl start, config
header: .long 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16))
        .long header, BASE, 0, BASE + 0x38000, start

start:  mov $stack, %esp
        mov steps, %ebp
        test $LOAD_TABLES, %ebp
        jz 1f
        lgdt gdtr
        lidt idtr
        ljmp $0x08, $1f
1:      test $REAL_MODE, %ebp
        jnz real
        test $LOAD_LDT, %ebp
        jz 1f
        lldt %cs:ldt_selector
1:      mov %cs:cr3, %eax
        mov %eax, %cr3
        test $LOAD_CR4, %ebp
        jz 1f
        mov %cs:cr4, %eax
        mov %eax, %cr4
1:      test $LOAD_EFER, %ebp
        jz 1f
        mov $0xc0000080, %ecx
        mov %cs:efer, %eax
        xor %edx, %edx
        wrmsr
1:      test $LOAD_TR, %ebp
        jz 1f
        ltr %cs:tr_selector
1:      test $LOAD_CR0, %ebp
        jz 1f
        mov %cs:cr0, %eax
        mov %eax, %cr0
        jmp 1f
1:      test $LONG_MODE, %ebp
        jnz long
        test $LOAD_SEGMENTS, %ebp
        jz 1f
        mov %cs:segments, %ss
        mov %cs:segments + 2, %ds
        mov %cs:segments + 4, %es
        mov %cs:segments + 6, %fs
        mov %cs:segments + 8, %gs
1:      mov $gpr, %esp
        popal
        mov $frame, %esp
        iretl

long:   ljmp $0x18, $1f
        .code64
1:      test $LONG_TR, %ebp
        jz 1f
        ltr tr_selector
1:      mov $gpr, %esp
        .irp r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        pop %\r
        .endr
        mov $frame, %esp
        iretq

        .code32
real:   mov $0x30, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        ljmp $0x28, $1f - BASE
        .code16
1:      mov %cr0, %eax
        and $~1, %al
        mov %eax, %cr0
        ljmp $BASE >> 4, $1f - BASE
1:      mov %cs:(segments - BASE), %ds
        mov %cs:(segments - BASE + 2), %es
        mov %cs:(segments - BASE + 4), %ss
        lidtl %cs:(real_idtr - BASE)
        mov $(gpr - BASE), %esp
        popal
        mov $(frame - BASE), %esp
        iretw

# Fault handlers: the pieces' own, one for each width, without and with an error code.
        .code32
        .p2align 4
        .globl skip16, skip32, skip32_error, skip64, skip64_error, ignore32, ignore64, finish
finish: mov $0x55, %al                  # INT 81h: the program is over; the same bytes in every mode
        out %al, $0xf4
        .code16
skip16: push %bp
        mov %sp, %bp
        andw $~31, 2(%bp)
        addw $32, 2(%bp)
        pop %bp
        iretw
        .code32
skip32_error:
        add $4, %esp
skip32: andl $~31, (%esp)
        addl $32, (%esp)
        iretl
ignore32:
        push %eax
        mov $0x20, %al
        out %al, $0x20
        out %al, $0xa0
        pop %eax
        iretl
        .code64
skip64_error:
        add $8, %rsp
skip64: andq $~31, (%rsp)
        addq $32, (%rsp)
        iretq
ignore64:
        push %rax
        mov $0x20, %al
        out %al, $0x20
        out %al, $0xa0
        pop %rax
        iretq

        .org 0x1000
        .globl steps, cr0, cr3, cr4, efer, segments, ldt_selector, tr_selector, gdtr, idtr, real_idtr, gpr, frame
steps:  .long 0
cr0:    .long 0
cr3:    .long 0
cr4:    .long 0
efer:   .long 0
segments:
        .fill 5, 2
ldt_selector:
        .word 0
tr_selector:
        .word 0
gdtr:   .fill 6, 1
idtr:   .fill 6, 1
real_idtr:
        .fill 6, 1
        .org 0x1e00
stack:
gpr:    .fill 15, 8
        .org 0x1f00
frame:  .fill 10, 8
