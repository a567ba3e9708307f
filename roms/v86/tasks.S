# SPDX-License-Identifier: GPL-2.0-or-later
# tasks.S -- two real-mode programs and the little BIOS that both carry.  Loaded at TASK_SEG:0 of each task.
#include "v86.h"
#define AT(label) (label - tasks_start)

        .data
        .code16
        .balign 16
        .global tasks_start, tasks_end, task_a, task_b
tasks_start:

# A: the sum of the first ROUNDS Fibonacci numbers, mod 65536; a division by zero and an int3 on the way.
task_a: call set_up
        mov $1, %ax
        mov $1, %bx
        mov $ROUNDS, %cx
1:      push %ax
        int $INT_SERVICE                # total += ax
        pop %ax
        xchg %ax, %bx
        add %ax, %bx
        hlt                             # yield
        loop 1b
        mov $AT(text_a), %si
        call print
        mov AT(total), %ax
        call print_number
        xor %dx, %dx                    # #DE: the handler counts and skips the two bytes
        mov $1, %ax
        xor %bx, %bx
        div %bx
        int3
        mov AT(events), %ax
        mov $AT(text_events), %si
        call print_with_number
        mov %es:0x500, %ax              # still our own: B wrote there too
        cmp $0xaaaa, %ax
        jne fail
        call far_memory
        mov AT(total), %ax
        int $INT_EXIT

# B: the sum of the squares of 1..ROUNDS; its interrupt flag is virtual.
task_b: call set_up
        movw $0xbbbb, %es:0x500
        mov $ROUNDS, %cx
1:      mov %cx, %ax
        mul %cx
        int $INT_SERVICE
        hlt
        loop 1b
        mov $AT(text_b), %si
        call print
        mov AT(total), %ax
        call print_number
        cli
        call if_bit                     # 0
        mov %ax, %dx
        sti
        call if_bit                     # 1
        shl $1, %dx
        or %ax, %dx
        pushf
        cli
        popf                            # sets IF again
        call if_bit
        shl $1, %dx
        or %ax, %dx
        mov %dx, %ax
        mov $AT(text_if), %si
        call print_with_number
        cmp $3, %dx
        jne fail
        out %al, $FREE_PORT             # allowed: no trap
        mov $AT(above), %si             # FFFF:0010 is not ours: the monitor goes on at si
        mov $0xffff, %ax
        mov %ax, %es
        mov %es:0x10, %al
        jmp fail
above:  smsw %ax                        # sensitive but unprivileged: shows the real CR0
        test $1, %al
        jz fail
        call far_memory
        mov AT(total), %ax
        int $INT_EXIT

fail:   xor %ax, %ax
        int $INT_EXIT

# Segments, and the vectors that this task serves itself.  es = 0.
set_up: mov %cs, %ax
        mov %ax, %ds
        xor %ax, %ax
        mov %ax, %es
        movw $AT(divide_error), %es:0
        mov %cs, %es:2
        movw $AT(breakpoint), %es:3 * 4
        mov %cs, %es:3 * 4 + 2
        movw $AT(service), %es:INT_SERVICE * 4
        mov %cs, %es:INT_SERVICE * 4 + 2
        movw $0xaaaa, %es:0x500
        ret

service:
        add %ax, %cs:AT(total)
        iret

divide_error:
        push %bp
        mov %sp, %bp
        addw $2, 2(%bp)
        pop %bp
        incw %cs:AT(events)
        iret

breakpoint:
        addw $10, %cs:AT(events)
        iret

# ax = the interrupt flag.
if_bit: pushf
        pop %ax
        shr $9, %ax
        and $1, %ax
        ret

# Write and read four pages at FAR_SEG.
far_memory:
        push %es
        mov $FAR_SEG, %ax
        mov %ax, %es
        mov $4, %cx
        xor %di, %di
1:      mov %cx, %es:(%di)
        cmp %cx, %es:(%di)
        jne fail
        add $4096, %di
        loop 1b
        pop %es
        ret

# Text at ds:si, then ax in decimal and a new line.
print_with_number:
        push %ax
        call print
        pop %ax
print_number:
        push %dx
        push %cx
        mov $10, %bx
        xor %cx, %cx
1:      xor %dx, %dx
        div %bx
        push %dx
        inc %cx
        test %ax, %ax
        jnz 1b
2:      pop %ax
        add $'0', %al
        call put_char
        loop 2b
        mov $'\n', %al
        call put_char
        pop %cx
        pop %dx
        ret

print:  lodsb
        test %al, %al
        jz 1f
        call put_char
        jmp print
1:      ret

put_char:
        push %dx
        push %ax
        mov $COM1_LINE_STATUS, %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        pop %ax
        mov $COM1_DATA, %dx
        out %al, %dx
        pop %dx
        ret

total:  .word 0
events: .word 0
text_a: .asciz "sum of Fibonacci numbers "
text_b: .asciz "sum of squares "
text_events: .asciz "own exceptions "
text_if: .asciz "interrupt flag seen as "
tasks_end:
