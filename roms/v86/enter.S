# SPDX-License-Identifier: GPL-2.0-or-later
# enter.S -- the first entry to virtual-8086 mode: resume a copy of a trap frame on the monitor's stack.
        .text
        .code32
        .global v86_enter
v86_enter:
        mov 4(%esp), %esi
        mov $monitor_stack - FRAME_BYTES, %edi
        mov %edi, %esp
        mov $FRAME_BYTES, %ecx
        rep movsb
        jmp trap_return32

        .set FRAME_BYTES, 23 * 4
        .bss
        .balign 16
        .global monitor_stack
        .skip 8192
monitor_stack:
