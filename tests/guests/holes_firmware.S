# SPDX-License-Identifier: GPL-2.0-or-later
# Firmware of 64 KiB with page tables in itself: of 4 MiB pages in 32-bit paging, of 2 MiB pages in PAE.  No entry has its
# accessed or dirty flag set, and none gets it, since nobody can write there; the pages work all the same (SDM 3A 4.8).
#
# Each access to memory through them is reported, then the entries.  Ends with status 0.

BASE = 0xffff0000                       # of offset 0
REPORT = 0xe8
END = 0xf4

        .macro report_eax
        out %eax, $REPORT
        .endm

        # Count in 40 words of memory, one a page, and once more by code that was copied there.
        .macro use_memory
        mov $40, %ecx
        mov $0x200000, %ebx
1:      add %ecx, (%ebx)
        add (%ebx), %eax
        add $0x1000, %ebx
        loop 1b
        report_eax
        movl $0xc3c30342, 0x300000      # inc %edx; add %ebx, %eax; ret
        mov $0x300000, %ecx
        mov $500, %edi
2:      call *%ecx
        dec %edi
        jnz 2b
        mov %edx, %eax
        report_eax
        .endm

        .text
        .code16
start:  cli
        lgdtl %cs:gdtr
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $8, $BASE + protected
        .code32
protected:
        mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0x10000, %esp
        xor %edx, %edx
        mov $0x10, %eax                 # PSE
        mov %eax, %cr4
        mov $BASE + directory, %eax
        mov %eax, %cr3
        mov $0x80000011, %eax
        mov %eax, %cr0
        use_memory
        movl $1, BASE + directory       # a store to firmware goes nowhere
        mov BASE + directory, %eax
        report_eax
        mov BASE + directory + 4 * 1023, %eax
        report_eax
        mov $0x11, %eax
        mov %eax, %cr0
        mov $0x20, %eax                 # PAE
        mov %eax, %cr4
        mov $BASE + pointers, %eax
        mov %eax, %cr3
        mov $0x80000011, %eax
        mov %eax, %cr0
        use_memory
        mov BASE + pae_low, %eax
        report_eax
        mov BASE + pae_high + 8 * 511, %eax
        report_eax
        xor %eax, %eax
        out %al, $END
        hlt

        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long BASE + gdt
        .balign 32
pointers:
        .long BASE + pae_low + 1, 0, 0, 0, 0, 0, BASE + pae_high + 1, 0
        .org 0x1000
directory:
        .long 0x83
        .zero 4 * 1022
        .long 0xffc00083
pae_low:
        .quad 0x83, 0x200083
        .zero 8 * 510
pae_high:
        .zero 8 * 511
        .quad 0xffe00083
        .org 0xfff0
        .code16
        ljmp $0xf000, $start
        .org 0x10000
