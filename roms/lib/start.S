# SPDX-License-Identifier: GPL-2.0-or-later
# start.S -- multiboot header, first instructions, GDT, and the way into long mode.
#
# A ROM defines main32 (entered in 32-bit protected mode, paging off) or main64 (long mode, the first
# 4 GiB identity-mapped by 2 MiB pages, user and writable).  When both exist main32 is entered and may
# call long_call(main64).  main's result is added to the failures and ends the ROM.
#include "selectors.h"

#define CR0_PE 1
#define CR0_MP 2
#define CR0_EM 4
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define CR4_OSFX 0x600          /* OSFXSR | OSXMMEXCPT */
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define EFER_SCE_NXE 0x801

        .section .multiboot, "ax"
        .balign 4
        .long 0x1badb002, 3, -(0x1badb002 + 3)

        .text
        .weak main32, main64
        .code32
        .global _start
_start: cld
        mov $stack_top, %esp
        mov %eax, multiboot_magic
        mov %ebx, multiboot_info
        mov $0xff, %al                  # firmware may have left interrupts unmasked
        out %al, $0x21
        out %al, $0xa1
        pushl $0
        popf
        lgdt gdtr
        ljmp $KCODE32, $1f
1:      mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov %cr0, %eax
        and $~CR0_EM, %eax
        or $CR0_MP, %eax
        mov %eax, %cr0
        mov %cr4, %eax
        or $CR4_OSFX, %eax
        mov %eax, %cr4
        fninit
        mov $main32, %eax
        test %eax, %eax
        jz 2f
        call *%eax
        add %eax, rom_failures
        call rom_end32
2:      pushl $main64
        call long_call
        add %eax, rom_failures
        call rom_end32

# uint32_t long_call(fn): call the 64-bit function fn() from 32-bit protected mode without paging, with
# identity tables, and come back the same way.  Interrupts stay as they are.
        .global long_call
long_call:
        push %ebp
        push %ebx
        push %esi
        push %edi
        mov 20(%esp), %esi
        call identity_build
        mov %cr4, %eax
        or $CR4_PAE, %eax
        mov %eax, %cr4
        mov $identity_pml4, %eax
        mov %eax, %cr3
        mov $MSR_EFER, %ecx
        rdmsr
        or $(EFER_LME | EFER_SCE_NXE), %eax
        wrmsr
        mov %cr0, %eax
        or $CR0_PG, %eax
        mov %eax, %cr0
        ljmp $KCODE64, $1f
        .code64
1:      mov %esp, %ebp
        mov %esi, %esi
        and $-16, %rsp
        call *%rsi
        mov %ebp, %esp
        mov %eax, %esi
        ljmpl *far_code32(%rip)
        .code32
long_return:
        mov %cr0, %eax
        and $~CR0_PG, %eax
        mov %eax, %cr0
        mov $MSR_EFER, %ecx
        rdmsr
        and $~EFER_LME, %eax
        wrmsr
        mov %cr4, %eax
        and $~CR4_PAE, %eax
        mov %eax, %cr4
        mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %esi, %eax
        pop %edi
        pop %esi
        pop %ebx
        pop %ebp
        ret

# Fill the tables that map linear = physical for 4 GiB with 2 MiB pages (present, writable, user).
identity_build:
        movl $identity_pdpt + 7, identity_pml4
        mov $identity_pd + 7, %eax
        xor %ecx, %ecx
1:      mov %eax, identity_pdpt(, %ecx, 8)
        add $4096, %eax
        inc %ecx
        cmp $4, %ecx
        jb 1b
        xor %ecx, %ecx
        mov $0x87, %eax
2:      mov %eax, identity_pd(, %ecx, 8)
        add $0x200000, %eax
        inc %ecx
        cmp $2048, %ecx
        jb 2b
        ret

        .data
        .balign 8
        .global gdt, gdtr, far_code32
gdt:    .quad 0
        .quad 0x00af9b000000ffff        # 08 code64, DPL 0
        .quad 0x00cf93000000ffff        # 10 data
        .quad 0x00cf9b000000ffff        # 18 code32, DPL 0
        .quad 0x00cf93000000ffff        # 20 data
        .quad 0x00cffb000000ffff        # 28 code32, DPL 3
        .quad 0x00cff3000000ffff        # 30 data, DPL 3
        .quad 0x00affb000000ffff        # 38 code64, DPL 3
        .quad 0x00cff3000000ffff        # 40 data, DPL 3
        .quad 0x00009b000000ffff        # 48 code16, DPL 0
        .quad 0x000093000000ffff        # 50 data16
        .fill (GDT_LAST - 0x58) / 8 + 1, 8, 0
gdt_end:
gdtr:   .word gdt_end - gdt - 1
        .quad gdt
far_code32:
        .long long_return
        .word KCODE32

        .bss
        .global multiboot_magic, multiboot_info, rom_checks, rom_failures, stack_top
        .global identity_pml4, identity_pdpt, identity_pd
        .balign 4096
identity_pml4: .skip 4096
identity_pdpt: .skip 4096
identity_pd:   .skip 4 * 4096
        .skip 32768
stack_top:
multiboot_magic: .skip 4
multiboot_info:  .skip 4
rom_checks:      .skip 4
rom_failures:    .skip 4
