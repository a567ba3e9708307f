# SPDX-License-Identifier: GPL-2.0-or-later
# hostile_guest.S -- ACCESSES random reads and writes of ports, half of them of the devices' own, and of device memory, from SEED on,
# with values that are often small or commands.  Left out is what ends the run: F4h, 64h, 92h, CF9h, 604h and what overlaps them.
        .code32
        .long 0x1BADB002, 0, -0x1BADB002
        .global _start
_start: mov $0x180000, %esp
        mov $SEED, %ebx
        mov $ACCESSES, %ebp
next:   call random
        test $0x30000, %eax             # a PCI configuration address, now and then
        jnz 0f
        and $0x00000bfc, %eax
        or $0x80000000, %eax
        mov $0xcf8, %edx
        out %eax, %dx
0:      call random
        mov %eax, %edx
        shr $16, %edx                   # any port,
        test $1, %eax
        jz 1f
        movzx %ah, %ecx                 # or one of a device
        movzwl ports(,%ecx,2), %edx
1:      call allowed
        jc next
        call random
        mov %eax, %edi                  # what to do
        call random                     # with which value
        test $0x100, %edi
        jz 2f
        and $0x3f, %eax
2:      shr $29, %edi
        jmp *kinds(,%edi,4)
inb:    in %dx, %al
        jmp done
inw:    in %dx, %ax
        jmp done
inl:    in %dx, %eax
        jmp done
outb:   out %al, %dx
        jmp done
outw:   out %ax, %dx
        jmp done
outl:   out %eax, %dx
        jmp done
load:   call place
        mov (%esi), %eax
        jmp done
store:  call place
        mov %eax, (%esi)
done:   dec %ebp
        jnz next
        xor %eax, %eax
        out %al, $0xf4
        hlt

random: mov %ebx, %eax                  # xorshift32
        shl $13, %eax
        xor %eax, %ebx
        mov %ebx, %eax
        shr $17, %eax
        xor %eax, %ebx
        mov %ebx, %eax
        shl $5, %eax
        xor %eax, %ebx
        mov %ebx, %eax
        ret

place:  mov %ebx, %esi                  # a register of the local APIC, of the I/O APIC, or nothing
        and $0xff0, %esi
        add $0xfee00000, %esi
        test $0x10000, %ebx
        jz 1f
        and $0xfec000f0, %esi
1:      ret

allowed:                                # carry: port DX and the three behind it touch one that ends the run
        mov $forbidden, %esi
1:      movzwl (%esi), %ecx
        jecxz 2f
        sub %edx, %ecx
        cmp $4, %ecx
        jb 3f
        add $2, %esi
        jmp 1b
3:      stc
        ret
2:      clc
        ret

kinds:  .long inb, inw, inl, outb, outw, outl, load, store
forbidden:
        .word 0xf4, 0x64, 0x92, 0x604, 0x605, 0xcf9, 0
ports:  .rept 4
        .word 0x1f0, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7, 0x170, 0x171, 0x172, 0x173, 0x174, 0x175, 0x176, 0x177
        .word 0x3f6, 0x376, 0xc000, 0xc002, 0xc004, 0xc008, 0xc00a, 0xc00c, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0x510, 0x511, 0x514, 0x518
        .word 0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x70, 0x71, 0x60, 0x608, 0x600, 0x602, 0x4d0, 0x4d1
        .word 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3c0, 0x3c4, 0x3c5, 0x3ce, 0x3d4, 0x3d5, 0x3da, 0xe9, 0x80, 0x1f7, 0x177, 0xc000
        .endr
