# SPDX-License-Identifier: GPL-2.0-or-later
# probes.S -- one small program a rule (probe.inc says how to read them).
# Sources: SDM volume 2 (the instructions' pages), 3A chapters 5 (protection), 6 (exceptions).
#include "rings.h"
#include "probe.inc"

        .macro PRIVILEGED text, insn:vararg
        .irp ring, 1, 2, 3
        PROBE "\text", \ring, V_GP, 0
7:      \insn
        .endr
        PASS "\text", 0
        \insn
        xor %eax, %eax
        FINISH
        .endm

        .text
        .code32
# ---- privileged instructions ----
        PRIVILEGED "clts", clts
        PRIVILEGED "lgdt", lgdt gdtr
        PRIVILEGED "lidt", lidt idtr_copy
        PRIVILEGED "mov cr0", mov %cr0, %eax
        PRIVILEGED "mov cr3", mov %cr3, %eax
        PRIVILEGED "mov dr7", mov %dr7, %eax
        PRIVILEGED "invlpg", invlpg 0
        PRIVILEGED "wbinvd", wbinvd
        .irp ring, 1, 3
        PROBE "hlt", \ring, V_GP, 0
7:      hlt
        PROBE "lldt", \ring, V_GP, 0
7:      lldt %ax
        PROBE "ltr", \ring, V_GP, 0
7:      ltr %ax
        PROBE "lmsw", \ring, V_GP, 0
7:      lmsw %ax
        PROBE "rdmsr", \ring, V_GP, 0
        mov $0x174, %ecx
7:      rdmsr
        PROBE "wrmsr", \ring, V_GP, 0
        mov $0x174, %ecx
7:      wrmsr
        PROBE "cli IOPL 0", \ring, V_GP, 0
7:      cli
        PROBE "sti IOPL 0", \ring, V_GP, 0
7:      sti
        PROBE "in IOPL 0", \ring, V_GP, 0
7:      in $0x80, %al
        PROBE_WITH "rdtsc with TSD", \ring, V_GP, 0
        mov %cr4, %eax
        or $4, %eax
        mov %eax, %cr4
        START
7:      rdtsc
        .endr
        PASS "rdtsc", 3
        rdtsc
        xor %eax, %eax
        FINISH

# ---- IOPL and flags ----
        PASS "cli IOPL 1", 1, 0, 0x1202
        cli
        pushf
        pop %eax
        and $0x200, %eax
        FINISH
        PROBE "cli IOPL 1", 2, V_GP, 0, 0, 0, 0x1002
7:      cli
        PASS "sti IOPL 3", 3, 0x3200, 0x3002
        sti
        pushf
        pop %eax
        and $0x3200, %eax
        cli
        FINISH
        PASS "in IOPL 3", 3, 0xff, 0x3002
        in $0x21, %al                   # the 8259's mask, as start.S left it
        FINISH
        PASS "popf IOPL 0 keeps IF and IOPL", 3, 0x200, 0x202
        pushl $0x3002
        popf
        pushf
        pop %eax
        and $0x3200, %eax
        FINISH
        PASS "popf IOPL 3 changes IF, not IOPL", 3, 0x3000, 0x3202
        pushl $0x0002
        popf
        pushf
        pop %eax
        and $0x3200, %eax
        FINISH
        PASS "iret in ring 3 keeps IF and IOPL", 3, 0x200, 0x202
        pushl $0x3002
        push %cs
        pushl $1f
        iret
1:      pushf
        pop %eax
        and $0x3200, %eax
        FINISH
        PASS "popf sets AC, ID and NT", 3, 0x244000
        pushl $0x244002
        popf
        pushf
        pop %eax
        and $0x244000, %eax
        pushl $2
        popf
        FINISH

# ---- what every ring may read ----
        .irp ring, 0, 1, 2, 3
        PASS "cs shows the ring", \ring, \ring
        mov %cs, %eax
        and $3, %eax
        FINISH
        PASS "str sldt smsw sgdt sidt", \ring, TSS_SEL + 0x1ff + 0x47f
        str %ecx
        sldt %edx
        add %edx, %ecx
        sub $16, %esp
        sgdt (%esp)
        movzwl (%esp), %eax
        add %eax, %ecx
        sidt (%esp)
        movzwl (%esp), %eax
        add %eax, %ecx
        smsw %eax
        and $1, %eax
        lea -1(%eax, %ecx), %eax
        FINISH
        .endr
        PASS "lar of data DPL 3", 3, 0xc0f300
        mov $UDATA | 3, %ecx
        lar %ecx, %eax
        jz 1f
        xor %eax, %eax
1:      and $0xf0ff00, %eax             # the limit's bits are undefined
        FINISH
        PASS "lar of data DPL 0 fails", 3, 7
        mov $7, %eax
        mov $KDATA, %ecx
        lar %ecx, %eax
        jnz 1f
        xor %eax, %eax
1:      FINISH
        PASS "lar of a call gate", 3, 0xec00
        mov $GATE_R0, %ecx
        lar %ecx, %eax
        jz 1f
        xor %eax, %eax
1:      and $0xff00, %eax
        FINISH
        PASS "lsl of a byte limit", 3, 0x123
        mov $SHORT_DATA3, %ecx
        lsl %ecx, %eax
        FINISH
        PASS "lsl of a page limit", 3, 0xffffffff
        mov $UDATA, %ecx
        lsl %ecx, %eax
        FINISH
        PASS "lsl of a call gate fails", 3, 7
        mov $7, %eax
        mov $GATE_R0, %ecx
        lsl %ecx, %eax
        jnz 1f
        xor %eax, %eax
1:      FINISH
        PASS "verr and verw", 3, 0x2a
        xor %eax, %eax
        .irp sel, UDATA, KDATA, CONF0, EXEC3, RO3
        mov $\sel, %ecx
        verr %cx
        setz %dl
        or %dl, %al
        shl $1, %al
        .endr
        mov $RO3, %ecx
        verw %cx
        setz %dl
        or %dl, %al
        FINISH
        PASS "arpl raises RPL", 3, 0x13
        mov $0x10, %eax
        mov $3, %ecx
        arpl %cx, %ax
        jz 1f
        xor %eax, %eax
1:      FINISH

# ---- segment loads ----
        .macro LOAD text, ring, vector, error, reg, selector
        PROBE "\text", \ring, \vector, \error
        mov $\selector, %eax
7:      mov %eax, %\reg
        .endm
        .macro LOAD_PASS text, ring, reg, selector
        PASS "\text", \ring, \selector
        mov $\selector, %eax
        mov %eax, %\reg
        mov %\reg, %eax
        FINISH
        .endm
        LOAD_PASS "ds null", 3, ds, 0
        LOAD_PASS "ds null RPL 3", 3, ds, 3
        LOAD "ss null", 3, V_GP, 0, ss, 0
        LOAD "ss null", 0, V_GP, 0, ss, 0
        LOAD "ds DPL 0", 3, V_GP, KDATA, ds, KDATA
        LOAD "ds DPL 0", 1, V_GP, KDATA, es, KDATA
        LOAD "ds DPL 2 RPL 3", 0, V_GP, DATA2, fs, DATA2 | 3
        LOAD "ds DPL 1", 2, V_GP, DATA1, gs, DATA1
        LOAD_PASS "ds DPL 3", 0, ds, UDATA
        LOAD_PASS "ds DPL 2", 1, ds, DATA2
        LOAD_PASS "ds conforming DPL 0", 3, ds, CONF0
        LOAD "ds execute-only", 3, V_GP, EXEC3, ds, EXEC3
        LOAD "ds code DPL 0", 3, V_GP, KCODE32, ds, KCODE32
        LOAD "ds a TSS", 0, V_GP, TSS_FREE, ds, TSS_FREE
        LOAD "ds a gate", 3, V_GP, GATE_R0, ds, GATE_R0
        LOAD "ds not present", 3, V_NP, NP_DATA3, ds, NP_DATA3 | 3
        LOAD "ds beyond the GDT", 0, V_GP, BEYOND, ds, BEYOND
        LOAD "ds TI without LDT", 3, V_GP, 0xc, ds, 0xf
        LOAD "ss RPL differs", 0, V_GP, UDATA, ss, UDATA | 3
        LOAD "ss DPL differs", 0, V_GP, UDATA, ss, UDATA
        LOAD "ss read-only", 3, V_GP, RO3, ss, RO3 | 3
        LOAD "ss code", 3, V_GP, UCODE32, ss, UCODE32 | 3
        LOAD "ss not present", 3, V_SS, NP_DATA3, ss, NP_DATA3 | 3
        LOAD "ss beyond the GDT", 3, V_GP, BEYOND, ss, BEYOND | 3
        PROBE "pop ds DPL 0", 3, V_GP, KDATA
        pushl $KDATA
7:      pop %ds
        PROBE "lds DPL 0", 3, V_GP, KDATA
        pushl $KDATA
        pushl $0
7:      lds (%esp), %eax
        PASS_WITH "LDT: ds DPL 3", 3, 7
        mov $LDT_SEL, %eax
        lldt %ax
        START
        mov $7, %eax
        mov %eax, %ds
        mov %ds, %eax
        FINISH
        PROBE_WITH "LDT: ds DPL 0", 3, V_GP, 0x14
        mov $LDT_SEL, %eax
        lldt %ax
        START
        mov $0x17, %eax
7:      mov %eax, %ds
        PROBE_WITH "LDT: beyond its limit", 3, V_GP, 0x1c
        mov $LDT_SEL, %eax
        lldt %ax
        START
        mov $0x1f, %eax
7:      mov %eax, %ds
        PASS_WITH "LDT: far jump to its code", 3, 0xf
        mov $LDT_SEL, %eax
        lldt %ax
        START
        ljmp $0xf, $1f
1:      mov %cs, %eax
        FINISH

# ---- system segments ----
        PASS "lldt null", 0
        xor %eax, %eax
        lldt %ax
        FINISH
        .macro SYSTEM text, insn, vector, error, selector
        PROBE "\text", 0, \vector, \error
        mov $\selector, %eax
7:      \insn %ax
        .endm
        SYSTEM "lldt of data", lldt, V_GP, KDATA, KDATA
        SYSTEM "lldt not present", lldt, V_NP, NP_LDT, NP_LDT
        SYSTEM "lldt TI", lldt, V_GP, 0xc, 0xc
        SYSTEM "ltr busy", ltr, V_GP, TSS_BUSY, TSS_BUSY
        SYSTEM "ltr not present", ltr, V_NP, NP_TSS, NP_TSS
        SYSTEM "ltr of an LDT", ltr, V_GP, LDT_SEL, LDT_SEL
        PASS "ltr sets busy", 0, 0x8b00
        mov $TSS_FREE, %eax
        ltr %ax
        mov gdt + TSS_FREE + 4, %eax
        and $0xff00, %eax
        FINISH

# ---- far jumps and calls without a gate ----
        .macro JUMP text, ring, vector, error, selector
        PROBE "\text", \ring, \vector, \error
7:      ljmp $\selector, $0x1000
        .endm
        JUMP "jmp null", 3, V_GP, 0, 0
        JUMP "jmp code DPL 0", 3, V_GP, KCODE32, KCODE32
        JUMP "jmp code DPL 3", 0, V_GP, UCODE32, UCODE32
        JUMP "jmp code RPL 3", 0, V_GP, KCODE32, KCODE32 | 3
        JUMP "jmp data", 3, V_GP, UDATA, UDATA | 3
        JUMP "jmp not present", 3, V_NP, NP_CODE3, NP_CODE3 | 3
        JUMP "jmp not present DPL 0", 3, V_GP, NP_CODE0, NP_CODE0
        JUMP "jmp beyond the GDT", 3, V_GP, BEYOND, BEYOND | 3
        JUMP "jmp conforming DPL 2", 1, V_GP, CONF2, CONF2
        JUMP "jmp beyond the limit", 3, V_GP, 0, SHORT_CODE3 | 3
        .irp ring, 0, 1, 2, 3
        PASS "jmp conforming DPL 0", \ring, CONF0 | \ring
        ljmp $CONF0, $1f
1:      mov %cs, %eax
        FINISH
        .endr
        PASS "call conforming and return", 3, CONF0 + 3 + CS3
        lcall $CONF0, $1f
        mov %cs, %eax
        add %ecx, %eax
        jmp 2f
1:      mov %cs, %ecx
        lret
2:      FINISH
        PROBE "call code DPL 0", 3, V_GP, KCODE32
7:      lcall $KCODE32, $0x1000

# ---- call gates ----
        .macro CALL_GATE text, ring, selector, want
        PASS "\text", \ring, \want
        mov %esp, %ebx
        pushl $0x11
        pushl $0x22
        lcall $\selector, $0xdead0000   # the offset is ignored
        cmp %esp, %ebx
        je 1f
        mov $0xbad, %eax
1:      FINISH
        .endm
        CALL_GATE "call gate 3 to 0", 3, GATE_R0 | 3, KCODE32 << 16 | 0x3300 | SS3
        CALL_GATE "call gate 3 to 1", 3, GATE_R1 | 3, CS1 << 16 | 0x3300 | SS3
        CALL_GATE "call gate 3 to 2", 3, GATE_R2 | 3, CS2 << 16 | 0x3300 | SS3
        CALL_GATE "call gate 2 to 0", 2, GATE_R0, KCODE32 << 16 | 0x3300 | SS2
        CALL_GATE "call gate 2 to 1", 2, GATE_R1, CS1 << 16 | 0x3300 | SS2
        CALL_GATE "call gate 1 to 0", 1, GATE_R0, KCODE32 << 16 | 0x3300 | SS1
        CALL_GATE "call gate 2 to 0, DPL 2", 2, GATE_DPL2, KCODE32 << 16 | 0x3300 | SS2
        CALL_GATE "call gate within ring 3", 3, GATE_TO_RING3, CS3 << 16 | 0x3300
        .macro BAD_GATE text, ring, vector, error, selector
        PROBE "\text", \ring, \vector, \error
7:      lcall $\selector, $0
        .endm
        BAD_GATE "call gate DPL 0", 3, V_GP, GATE_DPL0, GATE_DPL0
        BAD_GATE "call gate DPL 0", 1, V_GP, GATE_DPL0, GATE_DPL0
        BAD_GATE "call gate DPL 2 RPL 3", 2, V_GP, GATE_DPL2, GATE_DPL2 | 3
        BAD_GATE "call gate not present", 3, V_NP, GATE_NP, GATE_NP
        BAD_GATE "call gate to not present code", 3, V_NP, NP_CODE0, GATE_TO_NP
        BAD_GATE "call gate to data", 3, V_GP, KDATA, GATE_TO_DATA
        BAD_GATE "call gate to null", 3, V_GP, 0, GATE_TO_NULL
        BAD_GATE "call gate outward", 0, V_GP, UCODE32, GATE_TO_RING3
        BAD_GATE "call gate outward", 2, V_GP, UCODE32, GATE_TO_RING3
        BAD_GATE "call gate beyond the GDT", 3, V_GP, BEYOND, GATE_BEYOND
        PROBE "jmp call gate inward", 3, V_GP, KCODE32
7:      ljmp $GATE_R0, $0
        PROBE_WITH "call gate: SS1 null", 3, V_TS, 0
        movl $0, tss + 16
        START
7:      lcall $GATE_R1, $0
        PROBE_WITH "call gate: SS1 RPL differs", 3, V_TS, DATA1
        movl $DATA1, tss + 16
        START
7:      lcall $GATE_R1, $0
        PROBE_WITH "call gate: SS1 DPL differs", 3, V_TS, DATA2
        movl $DATA2 | 1, tss + 16
        START
7:      lcall $GATE_R1, $0
        PROBE_WITH "call gate: SS1 code", 3, V_TS, CODE1
        movl $CS1, tss + 16
        START
7:      lcall $GATE_R1, $0
        PROBE_WITH "call gate: SS1 beyond the GDT", 3, V_TS, BEYOND
        movl $BEYOND | 1, tss + 16
        START
7:      lcall $GATE_R1, $0
        PROBE_WITH "call gate: TSS ends before ESP1", 3, V_TS, TSS_SEL
        call short_tss
        START
7:      lcall $GATE_R1, $0
        PASS "retf outward nulls ds and es", 3, SS3 << 8 | CONF0
        pushl $0
        pushl $0
        lcall $GATE_NULLING, $0
        mov %ds, %eax
        mov %es, %ecx
        or %ecx, %eax
        shl $8, %eax
        mov %fs, %ecx
        or %ecx, %eax
        shl $8, %eax
        mov %gs, %ecx
        or %ecx, %eax
        FINISH

# ---- far returns and iret ----
        PASS "retf outward 0 to 3", 0, CS3 << 8 | SS3
        pushl $SS3
        pushl $probe_stack
        pushl $CS3
        pushl $1f
        lret
1:      mov %cs, %eax
        shl $8, %eax
        mov %ss, %ecx
        or %ecx, %eax
        FINISH
        PROBE "retf inward", 3, V_GP, KCODE32
        pushl $KCODE32
        pushl $0
7:      lret
        PROBE "retf to null", 3, V_GP, 0
        pushl $0
        pushl $0
7:      lret
        PROBE "retf to not present", 3, V_NP, NP_CODE3
        pushl $NP_CODE3 | 3
        pushl $0
7:      lret
        PROBE "retf outward, ss null", 0, V_GP, 0
        pushl $0
        pushl $probe_stack
        pushl $CS3
        pushl $0
7:      lret
        PROBE "retf outward, ss DPL 0", 0, V_GP, KDATA
        pushl $KDATA | 3
        pushl $probe_stack
        pushl $CS3
        pushl $0
7:      lret
        PROBE "iret inward", 3, V_GP, CODE1
        pushl $2
        pushl $CODE1
        pushl $0
7:      iret
        PROBE "iret outward, ss RPL differs", 0, V_GP, UDATA
        pushl $UDATA
        pushl $probe_stack
        pushl $2
        pushl $CS3
        pushl $0
7:      iret
        PROBE "iret to data", 0, V_GP, KDATA
        pushl $2
        pushl $KDATA
        pushl $0
7:      iret
        PROBE "iret with NT, back link null", 0, V_TS, 0
        pushl $0x4002
        popf
7:      iret

# ---- int n ----
        PASS "int through an interrupt gate clears IF, NT", 3, 0, 0x4202
        int $0x50
        FINISH
        PASS "int through a trap gate keeps IF", 3, 0x200, 0x4202
        int $0x51
        FINISH
        PASS "int to ring 1 uses SS1:ESP1", 3, CS1 << 16 | SS1 << 8 | 20
        int $0x52
        FINISH
        PASS "int to ring 1 from ring 1 stays on its stack", 1, CS1 << 16 | SS1 << 8
        int $0x52
        mov $0, %al
        FINISH
        PASS "int to conforming code keeps the ring", 3, CONF3 << 16 | SS3 << 8
        int $0x53
        mov $0, %al
        FINISH
        .macro SOFT_INT text, ring, vector, error, n
        PROBE "\text", \ring, \vector, \error
7:      int $\n
        .endm
        SOFT_INT "int, gate DPL 0", 3, V_GP, 0x60*8+2, 0x60
        SOFT_INT "int, gate DPL 0", 1, V_GP, 0x60*8+2, 0x60
        SOFT_INT "int, gate not present", 3, V_NP, 0x61*8+2, 0x61
        SOFT_INT "int, not present and DPL 0", 3, V_GP, 0x62*8+2, 0x62
        SOFT_INT "int, call gate in the IDT", 0, V_GP, 0x63*8+2, 0x63
        SOFT_INT "int, empty entry", 0, V_GP, 0x64*8+2, 0x64
        SOFT_INT "int, to null", 3, V_GP, 0, 0x65
        SOFT_INT "int, to data", 3, V_GP, KDATA, 0x66
        SOFT_INT "int, to not present code", 3, V_NP, NP_CODE0, 0x67
        SOFT_INT "int, outward", 0, V_GP, UCODE32, 0x68
        SOFT_INT "int, beyond the GDT", 3, V_GP, BEYOND, 0x69
        SOFT_INT "int, beyond the IDT", 3, V_GP, 0x90*8+2, 0x90
        SOFT_INT "int, beyond the IDT", 0, V_GP, 0xff*8+2, 0xff
        PROBE_WITH "int, SS1 null", 3, V_TS, 0
        movl $0, tss + 16
        START
7:      int $0x52
        PROBE_WITH "int, SS1 RPL differs", 3, V_TS, DATA1
        movl $DATA1, tss + 16
        START
7:      int $0x52
        PROBE_WITH "int, SS1 code", 3, V_TS, CODE1
        movl $CS1, tss + 16
        START
7:      int $0x52
        PROBE_WITH "int, TSS ends before ESP1", 3, V_TS, TSS_SEL
        call short_tss
        START
7:      int $0x52

# ---- exceptions ----
        .irp ring, 0, 3
        PROBE "div by 0", \ring, V_DE, 0
        xor %ecx, %ecx
7:      div %ecx
        PROBE "div overflows", \ring, V_DE, 0
        mov $2, %edx
        mov $2, %ecx
7:      div %ecx
        PROBE "idiv overflows", \ring, V_DE, 0
        mov $0x80000000, %eax
        cdq
        mov $-1, %ecx
7:      idiv %ecx
        PROBE "aam 0", \ring, V_DE, 0
7:      aam $0
        PROBE "int3", \ring, V_BP, 0, 1
7:      int3
        PROBE "into", \ring, V_OF, 0, 1
        mov $0x7f, %al
        add $1, %al
7:      into
        PASS "into without OF", \ring, 0
        xor %eax, %eax
        into
        FINISH
        PROBE "bound", \ring, V_BR, 0
        pushl $9
        pushl $5
        mov $10, %eax
7:      bound %eax, (%esp)
        PASS "bound within", \ring, 9
        pushl $9
        pushl $5
        mov $9, %eax
        bound %eax, (%esp)
        FINISH
        PROBE "ud2", \ring, V_UD, 0
7:      ud2
        PROBE "mov to cs", \ring, V_UD, 0
7:      .byte 0x8e, 0xc8
        PROBE "lea of a register", \ring, V_UD, 0
7:      .byte 0x8d, 0xc0
        PROBE "single step", \ring, V_DB, 0, 1
        pushf
        orl $0x100, (%esp)
        popf
7:      nop
        PROBE_WITH "x87 with TS", \ring, V_NM, 0
        call set_ts
        START
7:      fld1
        PROBE_WITH "wait with TS and MP", \ring, V_NM, 0
        call set_ts
        START
7:      fwait
        PROBE_WITH "x87 with EM", \ring, V_NM, 0
        call set_em
        START
7:      fld1
        PROBE_WITH "SSE with TS", \ring, V_NM, 0
        call set_ts
        START
7:      xorps %xmm0, %xmm0
        PROBE_WITH "SSE with EM", \ring, V_UD, 0
        call set_em
        START
7:      xorps %xmm0, %xmm0
        PROBE_WITH "SSE without OSFXSR", \ring, V_UD, 0
        mov %cr4, %eax
        and $~0x200, %eax
        mov %eax, %cr4
        START
7:      xorps %xmm0, %xmm0
        PROBE_WITH "x87 division by zero at the next wait", \ring, V_MF, 0
        mov %cr0, %eax
        or $0x20, %eax
        mov %eax, %cr0
        START
        fninit
        pushl $0x37b
        fldcw (%esp)
        fld1
        fldz
        fdivrp %st, %st(1)
7:      fwait
        .endr
        PROBE_WITH "int3, gate DPL 0", 3, V_GP, 3*8+2
        andb $~0x60, idt32 + 3 * 8 + 5
        START
7:      int3
        PROBE_WITH "into, gate DPL 0", 3, V_GP, 4*8+2
        andb $~0x60, idt32 + 4 * 8 + 5
        START
        mov $0x7f, %al
        add $1, %al
7:      into
        PROBE_WITH "int3, gate not present", 3, V_NP, 3*8+2
        andb $0x7f, idt32 + 3 * 8 + 5
        START
7:      int3
        PROBE_WITH "div by 0, gate DPL 0", 3, V_DE, 0
        andb $~0x60, idt32 + 5
        START
        xor %ecx, %ecx
7:      div %ecx
        .irp ring, 0, 3
        PROBE_WITH "double fault: #GP, then #NP", \ring, V_DF, 0
        andb $0x7f, idt32 + 13 * 8 + 5
        START
        mov $BEYOND, %eax
7:      mov %eax, %ds
        PROBE_WITH "double fault: #DE, then #GP", \ring, V_DF, 0
        movl $0, idt32 + 4
        START
        xor %ecx, %ecx
7:      div %ecx
        .endr

# ---- page faults by ring; want = CR2 ----
        .macro TOUCH ring, absent, user
        PROBE_WITH "read absent page", \ring, V_PF, \absent, 0, ABSENT_PAGE + 0x123
        call paging_on
        START
7:      mov ABSENT_PAGE + 0x123, %al
        PROBE_WITH "write absent page", \ring, V_PF, \absent + 2, 0, ABSENT_PAGE + 0x123
        call paging_on
        START
7:      mov %al, ABSENT_PAGE + 0x123
        .if \user
        PROBE_WITH "read supervisor page", \ring, V_PF, 5, 0, KERNEL_PAGE
        call paging_on
        START
7:      mov KERNEL_PAGE, %al
        PROBE_WITH "write supervisor page", \ring, V_PF, 7, 0, KERNEL_PAGE
        call paging_on
        START
7:      mov %al, KERNEL_PAGE
        PROBE_WITH "write read-only page", \ring, V_PF, 7, 0, RO_PAGE + 4
        call paging_on
        START
7:      mov %al, RO_PAGE + 4
        .else
        PASS_WITH "write supervisor page", \ring, 0
        call paging_on
        START
        mov %eax, KERNEL_PAGE
        FINISH
        PASS_WITH "write read-only page, WP 0", \ring, 0
        call paging_on
        START
        mov %eax, RO_PAGE + 4
        FINISH
        PROBE_WITH "write read-only page, WP 1", \ring, V_PF, 3, 0, RO_PAGE + 4
        call paging_on_wp
        START
7:      mov %al, RO_PAGE + 4
        .endif
        .endm
        TOUCH 0, 0, 0
        TOUCH 1, 0, 0
        TOUCH 2, 0, 0
        TOUCH 3, 4, 1

set_ts: mov %cr0, %eax
        or $0xa, %eax
        mov %eax, %cr0
        ret
set_em: mov %cr0, %eax
        or $4, %eax
        mov %eax, %cr0
        ret

        PROBES_END
        .data
idtr_copy: .word 0x47f
        .long idt32
