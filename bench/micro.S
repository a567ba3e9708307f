/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One event over and over: a multiboot guest in flat 32-bit mode, for bench/test_speed.py.
 * -DEVENT=0 nothing  1 CPUID  2 INT 80h and its IRET  3 a byte to port 80h  4 MOV CR3, paging off
 */
#define ROUNDS 200000

        .text
        .code32
        .global _start
_start: .balign 4
        jmp 1f
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
1:      mov $stack, %esp
        lgdt gdtr
        ljmp $8, $1f
1:      mov $16, %eax
        mov %eax, %ds
        mov %eax, %ss
        mov $handler, %eax
        mov %ax, gate
        shr $16, %eax
        mov %ax, gate + 6
        lidt idtr
        mov $ROUNDS, %esi
2:
#if EVENT == 1
        xor %eax, %eax
        cpuid
#elif EVENT == 2
        int $0x80
#elif EVENT == 3
        out %al, $0x80
#elif EVENT == 4
        mov %edi, %cr3
#endif
        dec %esi
        jnz 2b
        xor %eax, %eax
        out %al, $0xf4
        hlt

handler: iret

        .data
        .balign 8
gdt:    .quad 0, 0xcf9b000000ffff, 0xcf93000000ffff
gdtr:   .word 23
        .long gdt
gate:   .word 0, 8, 0x8e00, 0
idtr:   .word 0x80 * 8 + 7
        .long gate - 0x80 * 8
        .skip 256
stack:
