# SPDX-License-Identifier: GPL-2.0-or-later
# rings.S -- the targets of the call and interrupt gates.
#include "rings.h"

        .text
        .code32
# Behind GATE_R0..GATE_R2: eax = cs << 16 | (parameter 0 + parameter 1) << 8 | outer ss.
        .global gate_entry, gate_same, gate_nulling, int_flags, int_inner
gate_entry:
        mov 8(%esp), %eax
        add 12(%esp), %eax
        shl $8, %eax
        mov 20(%esp), %al
        mov %cs, %ecx
        shl $16, %ecx
        or %ecx, %eax
        lret $8

# Behind gates that stay in their ring (parameters are not copied): eax = cs << 16 | sum << 8.
gate_same:
        mov 8(%esp), %eax
        add 12(%esp), %eax
        shl $8, %eax
        mov %cs, %ecx
        shl $16, %ecx
        or %ecx, %eax
        lret $8

# Leaves ring 0 data in ds and es, the outer ring's in fs, conforming code in gs.
gate_nulling:
        mov $KDATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov $SS3, %eax
        mov %eax, %fs
        mov $CONF0, %eax
        mov %eax, %gs
        lret $8

# Behind int 50 (interrupt gate) and 51 (trap gate): eax = IF and NT as the handler finds them.
int_flags:
        pushf
        pop %eax
        and $0x4200, %eax
        iret

# Behind int 52 (to ring 1) and 53 (to conforming code): eax = cs << 16 | ss << 8 | bytes pushed on the new stack.
int_inner:
        mov $ring1_stack, %eax
        sub %esp, %eax
        and $0xff, %eax
        mov %ss, %ecx
        mov %cl, %ah
        mov %cs, %ecx
        shl $16, %ecx
        or %ecx, %eax
        iret

        .bss
        .balign 16
        .global ring0_stack, ring1_stack, ring2_stack, probe_stack
        .skip 4096
ring0_stack:
        .skip 4096
ring1_stack:
        .skip 4096
ring2_stack:
        .skip 4096
probe_stack:
        .skip 64
