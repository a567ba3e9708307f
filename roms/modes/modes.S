# SPDX-License-Identifier: GPL-2.0-or-later
# modes.S -- the ways between 32-bit protected, 16-bit protected and real mode, and the 16-bit code itself.
# The 16-bit code is copied to REAL_BASE: real mode reaches it as 0800:0000, protected mode by MODE_CODE16.
#include "selectors.h"
#include "modes.h"

#define CR0_PE 1
#define OFFSET(label) (label - low_start)
#define CS_DATA %cs:                    /* the blob's own words, while DS is 0 */
#define REC(n) RECORD_AT + 4 * n
#define R_CR0 REC(0)
#define R_CS REC(1)
#define R_LFSR REC(2)
#define R_WRAPPED REC(3)
#define R_SI REC(4)
#define R_SP REC(5)
#define R_HIGH REC(6)
#define R_INTS REC(7)
#define R_INT_IF REC(8)
#define R_DE_AT REC(9)
#define R_BASE REC(10)
#define R_ESP_HIGH REC(11)
#define R_PUSH2 REC(12)
#define R_PUSH4 REC(13)

        .text
        .code32
        .global real_run, protected16_run, real_end
# Copy the 16-bit code, point MODE_CODE16 at it.  Keeps all registers but esi, edi, ecx.
low_copy:
        mov $low_start, %esi
        mov $REAL_BASE, %edi
        mov $(low_end - low_start), %ecx
        rep movsb
        movl $(REAL_BASE << 16 | 0xffff), gdt + MODE_CODE16
        movl $0x00009b00, gdt + MODE_CODE16 + 4
        ret

real_run:
        push %ebp
        push %ebx
        push %esi
        push %edi
        call low_copy
        mov $OFFSET(real_tests), %ebx
        jmp to_real

protected16_run:
        push %ebp
        push %ebx
        push %esi
        push %edi
        call low_copy
        mov $OFFSET(protected16_tests), %ebx
        jmp to_16

# void real_end(failures): the last line and the end, from real mode.
real_end:
        mov 4(%esp), %edx
        call low_copy
        mov $OFFSET(real_finish), %ebx
        jmp to_real

# Leave for 16-bit code at MODE_CODE16:bx, first protected; to_real goes on to real mode.  esp is kept.
to_real: mov $OFFSET(drop_pe), %eax
        jmp 1f
to_16:  mov %ebx, %eax
1:      mov %esp, saved_esp
        sidt saved_idt
        mov $KDATA16, %ecx
        mov %ecx, %ds
        mov %ecx, %es
        mov %ecx, %ss
        pushl $MODE_CODE16
        push %eax
        lret

# Back in 32-bit code.
back32: mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov saved_esp, %esp
        lidt saved_idt
        pop %edi
        pop %esi
        pop %ebx
        pop %ebp
        ret

        .code64
        .global compat_call
# u32 compat_call(fn, argument): fn(argument) in compatibility mode on the same stack (below 4 GiB).
compat_call:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, %r12                  # r8-r15 survive compatibility mode unless something interrupts
        mov %esp, saved_esp
        lea compat_in(%rip), %rax
        pushq $KCODE32
        push %rax
        lretq
        .code32
compat_in:
        mov $KDATA, %eax
        mov %eax, %ss
        mov %eax, %ds
        mov %eax, %es
        and $-16, %esp
        sub $12, %esp
        push %esi
        call *%edi
        ljmp $KCODE64, $compat_out
        .code64
compat_out:
        mov saved_esp, %esp
        cmp %r12, %rsp
        je 1f
        ud2
1:      pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

        .code16
        .balign 16
low_start:
drop_pe:
        mov %cr0, %eax
        and $~CR0_PE, %al
        mov %eax, %cr0
        ljmp $(REAL_BASE >> 4), $OFFSET(in_real)
in_real:
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7000, %esp
        lidtl CS_DATA OFFSET(real_idt)
        jmp *%bx

# From real mode to 32-bit protected mode.
leave_real:
        cli
        mov %cr0, %eax
        or $CR0_PE, %al
        mov %eax, %cr0
leave_16:
        ljmpl $KCODE32, $back32

# Every real-mode fact into the record.
real_tests:
        mov %cr0, %eax
        mov %eax, R_CR0
        mov %cs, R_CS
        call lfsr16
        mov %ax, R_LFSR
        call wrap_tests
        call vector_tests
        mov $0x1234, %ax                # segment 1234: 1234:0f0 = 12430 = 0:12430
        mov %ax, %fs
        mov $0x1000, %ax
        mov %ax, %gs
        movb $0xc3, %fs:0xf0
        mov %gs:0x2430, %al
        mov %al, R_BASE
        jmp leave_real

wrap_tests:
        mov $0x2000, %ax                # a segment of its own, so that only the wrap hits its offset 1
        mov %ax, %es
        movb $0x5a, %es:1
        mov $0xffff, %bx
        mov $2, %si
        mov %es:(%bx, %si), %al
        mov %al, R_WRAPPED
        push %ds
        mov $0xffff, %si
        mov %ax, %cx
        mov $0x2000, %ax
        mov %ax, %ds
        lodsb
        pop %ds
        mov %si, R_SI
        mov %sp, %bp                    # push with sp = 0 in stack segment 3000
        mov $0x3000, %ax
        mov %ax, %ss
        mov $0x50000, %esp
        push %bx
        mov %esp, %ecx
        xor %ax, %ax
        mov %ax, %ss
        movzwl %bp, %esp
        mov %cx, R_SP
        xor %cx, %cx
        mov %ecx, R_ESP_HIGH
        mov $0xffff, %ax
        mov %ax, %es
        mov %es:0x10, %eax
        mov %eax, R_HIGH
        ret

vector_tests:
        movw $OFFSET(int60), 4 * 0x60
        mov %cs, 4 * 0x60 + 2
        movw $OFFSET(divide_error), 0
        mov %cs, 2
        sti
        int $0x60
        int $0x60
        int $0x60
        cli
        xor %cx, %cx
        mov $7, %ax
        cwd
        mov $OFFSET(divide), %si
divide: div %cx                         # #DE: the handler goes on at divide_done
divide_done:
        ret

int60:  incw R_INTS
        pushf
        pop %ax
        and $0x200, %ax
        or %ax, R_INT_IF
        iret

divide_error:
        mov %sp, %bp
        mov (%bp), %ax
        sub %si, %ax
        mov %ax, R_DE_AT
        movw $OFFSET(divide_done), (%bp)
        iret

protected16_tests:
        mov $0x7000, %esp
        mov %cr0, %eax
        mov %eax, R_CR0
        mov %cs, R_CS
        call lfsr16
        mov %ax, R_LFSR
        mov %sp, %bx
        push %ax
        mov %sp, %cx
        pushl %eax
        mov %sp, %dx
        mov %bx, %sp
        sub %cx, %bx
        mov %bx, R_PUSH2
        sub %dx, %cx
        mov %cx, R_PUSH4
        jmp leave_16

# ax = the 16-bit register after LFSR_STEPS steps.
lfsr16: mov $0xace1, %ax
        mov $LFSR_STEPS, %cx
1:      shr $1, %ax
        jnc 2f
        xor $TAPS16, %ax
2:      loop 1b
        ret

# Print the verdict (edx = failures) and end.
real_finish:
        mov $OFFSET(text_ok), %si
        test %edx, %edx
        jz 1f
        mov $OFFSET(text_fail), %si
1:      mov %edx, %ebx
2:      cs lodsb
        test %al, %al
        jz 4f
        mov %al, %ah
        mov $0x3fd, %dx
3:      in %dx, %al
        test $0x20, %al
        jz 3b
        mov $0x3f8, %dx
        mov %ah, %al
        out %al, %dx
        jmp 2b
4:      cmp $1, %ebx
        sbb %al, %al
        inc %al                         # 0 for no failure, else 1
        out %al, $0xf4
5:      cli
        hlt
        jmp 5b

text_ok:   .asciz "OK\n"
text_fail: .asciz "FAIL\n"
real_idt:  .word 0x3ff
           .long 0
low_end:

        .bss
        .balign 8
saved_esp: .skip 4
saved_idt: .skip 8
