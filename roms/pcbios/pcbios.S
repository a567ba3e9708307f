# SPDX-License-Identifier: GPL-2.0-or-later
# name     pcbios
# bits     16
# proves   the services of a PC's firmware that a boot loader or Linux's real-mode code asks for: memory maps, text screen,
#          keyboard buffer, clock, address line 20; from the reset vector it tests itself
# ends     0: every service answers as its definition says; 1: a FAIL line
# mission  1 37 62
# qemu     yes
# time     yes: waits for a tick of the timer
# styles   all
# memory   64M
# kind     firmware
#
# A flat image of 64 KiB that ends at 1 MiB; its code lies in the last 8 KiB.  Source: IBM PS/2 and PC BIOS Interface Technical
# Reference; INT 15h E801 and E820: Advanced Configuration and Power Interface Specification 6.4, chapter 15.
# The boot loader (pyx86v/boot/realmode.py) starts the processor at E000h instead of the reset vector, with EAX = where to go and
# EDX = segment and stack pointer to go with, and fills in the memory map at FE00h.
# RAM: vectors at 0, data at 400h, stack below 7C00h, the memory map in the extended data area at 9FC00h.

#include "layout.inc"

        .text
        .code16
        .org 0xe000
boot:   cli                             # from the boot loader
        xor %bx, %bx
        mov %bx, %ss
        mov $0x7c00, %sp
        push %eax
        push %edx
        call init
        pop %edx
        pop %ecx
        cli
        xor %eax, %eax
        xor %ebx, %ebx
        xor %esi, %esi
        xor %edi, %edi
        xor %ebp, %ebp
        movzx %dx, %esp
        shr $16, %edx
        mov %dx, %ss
        mov %dx, %ds
        mov %dx, %es
        mov %dx, %fs
        mov %dx, %gs
        push %ecx
        lretw

#include "selftest.inc"
#include "power.inc"
#include "interrupts.inc"
#include "system.inc"
#include "clock.inc"
#include "keyboard.inc"
#include "video.inc"

        .org 0xfe00
given_map:                              # count, a word of nothing, and entries of 20 bytes from the boot loader
        .word 0, 0

        .org 0xfff0
reset:  ljmp $0xf000, $selftest
        .org 0xfffe
        .byte 0xfc                      # a PC/AT
        .byte 0
