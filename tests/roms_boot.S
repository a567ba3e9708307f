# SPDX-License-Identifier: GPL-2.0-or-later
# roms_boot.S -- a boot sector that loads a multiboot ROM under Bochs, which has no -kernel: sectors 1 to SECTORS of the
# first IDE disk (ATA PIO, LBA28) go to 1 MiB, then ENTRY is entered as Multiboot says (EAX magic, protected mode).
# SECTORS and ENTRY come from the command line.  COM1 is set to 8 bits: Bochs starts it with 5.
        .code16
        .global _start
_start: cli
        xor %ax, %ax
        mov %ax, %ds
        in $0x92, %al                   # A20 on
        or $2, %al
        and $0xfe, %al
        out %al, $0x92
        lgdt gdtr
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmp $8, $protected
        .code32
protected:
        mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0x7000, %esp
        mov $0x3fb, %edx
        mov $3, %al
        out %al, %dx
        mov $0x100000, %edi
        mov $1, %ebx                    # sector
        mov $SECTORS, %ebp
read:   call wait_ready
        mov $0x1f6, %edx
        mov $0xe0, %al
        out %al, %dx
        mov $0x1f2, %edx
        mov $1, %al
        out %al, %dx
        mov %ebx, %eax
        mov $3, %ecx
1:      inc %edx
        out %al, %dx
        shr $8, %eax
        loop 1b
        mov $0x1f7, %edx
        mov $0x20, %al
        out %al, %dx
        call wait_ready
2:      in %dx, %al
        test $8, %al
        jz 2b
        mov $256, %ecx
        mov $0x1f0, %edx
        rep insw
        inc %ebx
        dec %ebp
        jnz read
        mov $0x2badb002, %eax
        mov $0x9000, %ebx
        mov $ENTRY, %ecx
        jmp *%ecx
wait_ready:
        mov $0x1f7, %edx
3:      in %dx, %al
        test $0x80, %al
        jnz 3b
        ret
        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long gdt
        .org 510
        .word 0xaa55
