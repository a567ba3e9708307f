/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One event over and over: a multiboot guest in flat 32-bit mode, for bench/test_speed.py.
 * -DEVENT=0 nothing  1 CPUID  2 INT 80h and its IRET  3 a byte to port 80h  4 MOV CR3, paging off
 * and with paging, 4 KB pages (what a monitor without nested paging exits for):
 *  5 nothing  6 CPUID  7 a store to a page-table entry, INVLPG and a load through the entry
 *  8 CLI, which traps outside ring 0
 */
#define ROUNDS 200000
#define TABLES 0x300000                 /* a directory and a table that map the first 4 MB to themselves */
#define PAGE 0x200000
#define ENTRY (TABLES + 0x1000 + (PAGE >> 12) * 4)

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
#if EVENT >= 5
        mov $TABLES + 0x1000, %edi
        movl $TABLES + 0x1003, TABLES
        mov $3, %eax
1:      stosl
        add $0x1000, %eax
        cmp $0x400003, %eax
        jne 1b
        mov $TABLES, %eax
        mov %eax, %cr3
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        jmp 1f
1:
#endif
        mov $ROUNDS, %esi
2:
#if EVENT == 1 || EVENT == 6
        xor %eax, %eax
        cpuid
#elif EVENT == 2
        int $0x80
#elif EVENT == 3
        out %al, $0x80
#elif EVENT == 4
        mov %edi, %cr3
#elif EVENT == 7
        xorl $0x1000, ENTRY
        invlpg PAGE
        mov PAGE, %eax
#elif EVENT == 8
        cli
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
