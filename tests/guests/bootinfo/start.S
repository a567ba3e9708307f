# SPDX-License-Identifier: GPL-2.0-or-later
# A kernel with a multiboot 2 header and a PVH note, entered by either: kernel_main(EAX, EBX) ends the run with its result.
        .section .multiboot, "a"
        .balign 8
header: .long 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
        .word 1, 0                      # wanted: command line, modules, memory, map, sections
        .long 28, 1, 3, 4, 6, 9, 0
        .word 0, 0
        .long 8
header_end:

        .section .note.Xen, "a", @note
        .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long _start

        .text
        .global _start
_start: cld
        mov $stack, %esp
        push %ebx
        push %eax
        call kernel_main
        out %eax, $0xf4
1:      hlt
        jmp 1b

        .bss
        .skip 16384
stack:
