# SPDX-License-Identifier: GPL-2.0-or-later
# program.S -- the load, at ring 3: ROUNDS of some arithmetic and one CPUID, which is not privileged and exits under VT-x.
#include "plateau.h"
        .code64
        .text
        .global program
program:
        mov $ROUNDS, %ebx
        xor %esi, %esi
1:      mov $INNER, %ecx
2:      imul $0x19660d, %esi, %esi
        add $0x3c6ef35f, %esi
        dec %ecx
        jnz 2b
        mov %ebx, %edi
        xor %eax, %eax
        xor %ecx, %ecx
        cpuid
        mov %edi, %ebx
        dec %ebx
        jnz 1b
        mov %esi, %eax
        int $END                        # with eax
