# SPDX-License-Identifier: GPL-2.0-or-later
# code.S -- functions that change themselves, copied by smc.c to a page that is writable and executable.
# All addresses are relative to RIP.  Arguments in EDI and ESI, result in EAX.

        .macro template name
        .global \name, \name\()_end
\name:
        .endm

        .text
        .code64
        template patch_ahead            # store EDI into an immediate a few bytes ahead in the same block
        mov %edi, 1f + 1(%rip)
        nop
1:      mov $0x7fffffff, %eax
        ret
patch_ahead_end:

        template patch_next             # store DIL into the ModRM byte of the very next instruction
        mov %esi, %eax
        mov %dil, 1f + 1(%rip)
1:      inc %eax                        # FF C0; FF C8 is DEC, FF D0 would be CALL
        ret
patch_next_end:

        template patch_loop             # sum of 1 to EDI: each round patches the addend of this round
        xor %eax, %eax
        mov %edi, %ecx
1:      mov %ecx, 2f + 1(%rip)
2:      add $0x7fffffff, %eax
        dec %ecx
        jnz 1b
        ret
patch_loop_end:

        template patch_far              # the same with the patched body 4,096 bytes on, in the next page
        xor %edx, %edx
        mov %edi, %ecx
1:      mov %ecx, patch_far + 4096 + 1(%rip)
        call patch_far + 4096
        add %eax, %edx
        dec %ecx
        jnz 1b
        mov %edx, %eax
        ret
patch_far_end:
