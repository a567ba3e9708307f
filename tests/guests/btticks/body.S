# SPDX-License-Identifier: GPL-2.0-or-later
# body.S -- void stretch(n, far): see btticks.c.  Interrupts are on in it, and off again at its end.
        .text
        .code64
        .global stretch, far_code, far_code_end
stretch:
        sti
        mov $4, %ecx
1:      invlpg (%rsp)                   # a call-out is all that lies at the head of the loop
        dec %ecx
        jnz 1b
        mov $3, %ecx
2:      jmp 3f
3:      mov %cr4, %rax
        mov %rax, %cr4
        jmp 4f
4:      cli
        call opens
ret1:   nop
        cli
        jmp there
back:   mov %edi, patched + 1           # the unit there dies, and its call finds that out
        call patched
        call *%rsi
        dec %ecx
        jnz 2b
        pushfq
        orl $0x100, (%rsp)              # TF
        popfq
        nop
        push %rax
        pop %rax
        call opens
        pushfq
        andl $~0x100, (%rsp)
        popfq
        nop
        cli
        ret

opens:  sti
        ret

        .balign 64
patched:
        mov $0, %eax
        ret

far_code:
        jmp 1f
1:      lea far_code(%rip), %rdx
        jmp 2f
2:      lea far_code(%rip), %rdx
        ret
far_code_end:

        .skip 0x4000 - (. - ret1) - 5, 0x90              # so that its return address is 16 KiB behind ret1: the same place
there:  call opens
        nop
        jmp back
