# SPDX-License-Identifier: GPL-2.0-or-later
# probes.S -- one small program a rule of 64-bit mode (probe.inc says how to read them).
# Sources: SDM volume 2 (the instructions' pages), 3A chapters 2, 5, 6.
#include "gates64.h"
#include "probe.inc"

        .text
        .code64
# ---- privileged instructions at CPL 3 ----
        .macro PRIVILEGED text, insn:vararg
        PROBE "\text", 3, V_GP, 0
7:      \insn
        .endm
        PRIVILEGED "hlt", hlt
        PRIVILEGED "cli", cli
        PRIVILEGED "sti", sti
        PRIVILEGED "clts", clts
        PRIVILEGED "lgdt", lgdt gdtr
        PRIVILEGED "lldt", lldt %ax
        PRIVILEGED "ltr", ltr %ax
        PRIVILEGED "lmsw", lmsw %ax
        PRIVILEGED "mov from cr3", mov %cr3, %rax
        PRIVILEGED "mov to cr4", mov %rax, %cr4
        PRIVILEGED "mov from cr8", mov %cr8, %rax
        PRIVILEGED "mov dr6", mov %dr6, %rax
        PRIVILEGED "invlpg", invlpg 0
        PRIVILEGED "wbinvd", wbinvd
        PRIVILEGED "swapgs", swapgs
        PRIVILEGED "sysretq", sysretq
        PROBE "rdmsr", 3, V_GP, 0
        mov $0xc0000080, %ecx
7:      rdmsr
        PROBE "wrmsr", 3, V_GP, 0
        mov $0xc0000080, %ecx
7:      wrmsr
        .irp ring, 0, 3
        PASS "str sldt smsw sgdt sidt", \ring, TSS_SEL + 0x1ff + 0x8ff
        str %ecx
        sldt %edx
        add %edx, %ecx
        sub $16, %rsp
        sgdt (%rsp)
        movzwl (%rsp), %eax
        add %eax, %ecx
        sidt (%rsp)
        movzwl (%rsp), %eax
        add %eax, %ecx
        smsw %eax
        and $1, %eax
        lea -1(%rax, %rcx), %eax
        FINISH
        .endr

# ---- IOPL and the TSS's I/O bitmap (ports 21, 80 and 81 are allowed; 21 reads ff, the 8259's mask) ----
        PROBE "in, denied by the bitmap", 3, V_GP, 0
        mov $0x3f8, %dx
7:      in %dx, %al
        PROBE "out, denied by the bitmap", 3, V_GP, 0
        mov $0x3f9, %dx
7:      out %al, %dx
        PASS "in, allowed", 3, 0xff
        in $0x21, %al
        FINISH
        PROBE "in of a word, second port denied", 3, V_GP, 0
7:      in $0x21, %ax
        PASS "out of a word, both allowed", 3, 0
        mov $0x80, %dx
        out %ax, %dx
        FINISH
        PROBE "out of 4 bytes, two allowed", 3, V_GP, 0
        mov $0x80, %dx
7:      out %eax, %dx
        PROBE "insb, denied", 3, V_GP, 0
        mov $0x60, %dx
        lea -64(%rsp), %rdi
7:      insb
        PROBE "outsb, denied", 3, V_GP, 0
        mov $0x60, %dx
        lea -64(%rsp), %rsi
7:      outsb
        PASS "outsb, allowed", 3, 1
        mov $0x80, %dx
        lea -64(%rsp), %rsi
        mov %rsi, %rax
        neg %rax
        outsb
        add %rsi, %rax
        FINISH
        PROBE "in beyond the bitmap", 3, V_GP, 0
        mov $0x8000, %dx
7:      in %dx, %al
        PROBE_WITH "in, TSS without a bitmap", 3, V_GP, 0
        movw $0xffff, tss + 102
        START
7:      in $0x21, %al
        PASS "in of a denied port with IOPL 3", 3, 0xff, 0x3002
        in $0xa1, %al
        FINISH
        PASS "popf IOPL 0 keeps IF and IOPL", 3, 0x200, 0x202
        pushq $0x3002
        popfq
        pushfq
        pop %rax
        and $0x3200, %eax
        FINISH

# ---- segment loads ----
        .macro LOAD text, ring, vector, error, reg, selector
        PROBE "\text", \ring, \vector, \error
        mov $\selector, %eax
7:      mov %eax, %\reg
        .endm
        PASS "ss null", 0, 0
        xor %eax, %eax
        mov %eax, %ss
        mov %ss, %eax
        FINISH
        LOAD "ss null", 3, V_GP, 0, ss, 0
        LOAD "ds DPL 0", 3, V_GP, KDATA, ds, KDATA
        LOAD "ds not present", 3, V_NP, NP_DATA3, ds, NP_DATA3 | 3
        LOAD "fs execute-only", 3, V_GP, EXEC3, fs, EXEC3
        LOAD "gs beyond the GDT", 0, V_GP, BEYOND, gs, BEYOND
        LOAD "ss not present", 3, V_SS, NP_DATA3, ss, NP_DATA3 | 3
        LOAD "ss read-only", 3, V_GP, RO3, ss, RO3 | 3
        LOAD "ss DPL differs", 3, V_GP, KDATA, ss, KDATA | 3
        LOAD "ds a TSS", 0, V_GP, TSS_SEL, ds, TSS_SEL
        LOAD "ds TI without LDT", 3, V_GP, 0xc, ds, 0xf
        PASS_WITH "LDT of 16 bytes: ds DPL 3", 3, 7
        mov $LDT_SEL, %eax
        lldt %ax
        START
        mov $7, %eax
        mov %eax, %ds
        mov %ds, %eax
        FINISH
        PROBE "ltr busy", 0, V_GP, TSS_BUSY
        mov $TSS_BUSY, %eax
7:      ltr %ax
        PROBE "lldt of data", 0, V_GP, KDATA
        mov $KDATA, %eax
7:      lldt %ax

# ---- far jumps by memory, call gates ----
        .macro FAR text, ring, vector, error, insn, selector
        PROBE "\text", \ring, \vector, \error
        movl $1f, -16(%rsp)
        movl $\selector, -12(%rsp)
7:      \insn *-16(%rsp)
1:
        .endm
        FAR "jmp null", 3, V_GP, 0, ljmp, 0
        FAR "jmp code DPL 0", 3, V_GP, KCODE64, ljmp, KCODE64
        FAR "jmp data", 0, V_GP, KDATA, ljmp, KDATA
        FAR "jmp not present", 3, V_NP, NP_CODE3, ljmp, NP_CODE3 | 3
        FAR "jmp beyond the GDT", 0, V_GP, BEYOND, ljmp, BEYOND
        FAR "call code DPL 0", 3, V_GP, KCODE64, lcall, KCODE64
        .irp ring, 0, 3
        PASS "jmp conforming", \ring, CONF0 | \ring
        movl $1f, -16(%rsp)
        movl $CONF0, -12(%rsp)
        ljmp *-16(%rsp)
1:      mov %cs, %eax
        FINISH
        .endr
        .macro CALL_GATE text, ring, selector, want
        PASS "\text", \ring, \want
        movl $\selector, -12(%rsp)
        mov %rsp, %rbx
        lcall *-16(%rsp)
        cmp %rsp, %rbx
        je 1f
        mov $0xbad, %eax
1:      FINISH
        .endm
        CALL_GATE "call gate 3 to 0: SS null", 3, GATE_R0 | 3, KCODE64 << 24 | UCS << 8 | USS
        CALL_GATE "call gate within ring 3", 3, GATE_SAME | 3, UCS << 24 | USS << 16 | UCS << 8
        CALL_GATE "call gate within ring 0", 0, GATE_DPL0, KCODE64 << 24 | KDATA << 16 | KCODE64 << 8
        FAR "call gate DPL 0", 3, V_GP, GATE_DPL0, lcall, GATE_DPL0 | 3
        FAR "call gate not present", 3, V_NP, GATE_NP, lcall, GATE_NP | 3
        FAR "call gate to 32-bit code", 3, V_GP, KCODE32, lcall, GATE_TO_32 | 3
        FAR "call gate to data", 3, V_GP, KDATA, lcall, GATE_TO_DATA | 3
        FAR "call gate to null", 3, V_GP, 0, lcall, GATE_TO_NULL | 3
        FAR "call gate outward", 0, V_GP, UCODE64, lcall, GATE_SAME
        FAR "call gate to not present code", 3, V_NP, NP_CODE0, lcall, GATE_TO_NP | 3
        FAR "call gate with a typed second half", 3, V_GP, GATE_TAIL, lcall, GATE_TAIL | 3
        FAR "jmp call gate inward", 3, V_GP, KCODE64, ljmp, GATE_R0 | 3
        PROBE "retf inward", 3, V_GP, KCODE64
        pushq $KCODE64
        pushq $0
7:      lretq
        PASS "retf outward 0 to 3", 0, UCS << 8 | USS
        pushq $USS
        pushq $probe_stack
        pushq $UCS
        pushq $1f
        lretq
1:      mov %cs, %eax
        shl $8, %eax
        mov %ss, %ecx
        or %ecx, %eax
        FINISH

# ---- iretq ----
        .macro IRET text, ring, vector, error, cs, ss
        PROBE "\text", \ring, \vector, \error
        pushq $\ss
        pushq $probe_stack
        pushq $2
        pushq $\cs
        pushq $1f
7:      iretq
1:
        .endm
        IRET "iretq inward", 3, V_GP, KCODE64, KCODE64, KDATA
        IRET "iretq to null cs", 0, V_GP, 0, 0, KDATA
        IRET "iretq to data", 0, V_GP, KDATA, KDATA, KDATA
        IRET "iretq outward, ss RPL differs", 0, V_GP, UDATA, UCS, UDATA
        IRET "iretq outward, ss null", 0, V_GP, 0, UCS32, 0
        IRET "iretq to not present", 3, V_NP, NP_CODE3, NP_CODE3 | 3, USS
        IRET "iretq beyond the GDT", 3, V_GP, BEYOND, BEYOND | 3, USS
        PROBE "iretq with NT", 0, V_GP, 0
        pushq $0x4002
        popfq
7:      iretq
        PASS "iretq to ring 0 takes ss null and rsp", 0, 0x10
        pushq $0
        pushq $probe_stack0
        pushq $2
        pushq $KCODE64
        pushq $1f
        iretq
1:      mov %ss, %eax
        mov %rsp, %rcx
        sub $probe_stack0 - 16, %rcx
        or %ecx, %eax
        mov $KDATA, %ecx
        mov %ecx, %ss
        FINISH
        PASS "iretq to compatibility mode and back", 0, UCS32 << 8 | UCS
        pushq $USS
        pushq $probe_stack
        pushq $2
        pushq $UCS32
        pushq $1f
        iretq
        .code32
1:      mov %cs, %eax
        shl $8, %eax
        inc %eax                        # inc and dec: prefixes in 64-bit mode
        dec %eax
        ljmp $UCS, $2f
        .code64
2:      mov %cs, %ecx
        or %ecx, %eax
        FINISH

# ---- interrupt gates, stacks, IST ----
        PASS "int from ring 3: frame, SS null", 3, KCODE64 << 24 | UCS << 8 | USS
        int $0x50
        FINISH
        PASS "int from ring 0: SS kept, frame complete", 0, KCODE64 << 24 | KDATA << 16 | KCODE64 << 8 | KDATA
        int $0x50
        FINISH
        .irp ring, 0, 3
        PASS "interrupt gate clears IF, NT", \ring, 0, 0x4202
        int $0x51
        FINISH
        PASS "trap gate keeps IF", \ring, 0x200, 0x4202
        int $0x52
        FINISH
        PASS "IST stack", \ring, 40 << 8 | 0xff
        int $0x53
        FINISH
        .endr
        PASS "no IST: same stack, aligned to 16", 0, 0xff00 | 45
        mov $probe_stack0 - 0x100 + 5, %esp
        int $0x54
        mov $probe_stack0, %esp
        FINISH
        PASS "int 80 from compatibility mode", 3, 0x40
        movl $1f, -16(%rsp)
        movl $UCS32, -12(%rsp)
        ljmp *-16(%rsp)
        .code32
1:      mov $0x40, %eax
        FINISH
        .code64
        .macro SOFT_INT text, ring, vector, error, n
        PROBE "\text", \ring, \vector, \error
7:      int $\n
        .endm
        SOFT_INT "int, to null", 3, V_GP, 0, 0x65
        SOFT_INT "int, to data", 3, V_GP, KDATA, 0x66
        SOFT_INT "int, to not present code", 3, V_NP, NP_CODE0, 0x67
        SOFT_INT "int, outward", 0, V_GP, UCODE64, 0x68
        SOFT_INT "int, to 32-bit code", 3, V_GP, KCODE32, 0x69

# ---- exceptions ----
        .irp ring, 0, 3
        PROBE "div by 0", \ring, V_DE, 0
        xor %ecx, %ecx
7:      div %rcx
        PROBE "idiv overflows", \ring, V_DE, 0
        mov $1, %rax
        ror $1, %rax
        cqo
        mov $-1, %rcx
7:      idiv %rcx
        PROBE "int3", \ring, V_BP, 0, 1
7:      int3
        PROBE "ud2", \ring, V_UD, 0
7:      ud2
        PROBE "push es: no such instruction", \ring, V_UD, 0
7:      .byte 0x06
        PROBE "aam: no such instruction", \ring, V_UD, 0
7:      .byte 0xd4, 0x0a
        PROBE "into: no such instruction", \ring, V_UD, 0
7:      .byte 0xce
        PROBE "far call by immediate: no such instruction", \ring, V_UD, 0
7:      .byte 0x9a, 0, 0, 0, 0, 0, 0
        PROBE "single step", \ring, V_DB, 0, 1
        pushfq
        orl $0x100, (%rsp)
        popfq
7:      nop
        PROBE_WITH "SSE with TS", \ring, V_NM, 0
        mov %cr0, %rax
        or $8, %rax
        mov %rax, %cr0
        START
7:      xorps %xmm0, %xmm0
        PROBE "read from a non-canonical address", \ring, V_GP, 0
        mov $NONCANONICAL, %rbx
7:      mov (%rbx), %al
        PROBE "write to a non-canonical address", \ring, V_GP, 0
        mov $0x0000800000000000, %rbx
7:      mov %al, (%rbx)
        PROBE_WITH "double fault: #GP, then #NP", \ring, V_DF, 0
        andb $0x7f, idt64 + 13 * 16 + 5
        START
        mov $BEYOND, %eax
7:      mov %eax, %ds
        PROBE_WITH "double fault: #PF, then #PF on its stack", \ring, V_DF, 0
        movb $IST_ABSENT, idt64 + 14 * 16 + 4
        START
7:      mov ABSENT_PAGE, %al
        PROBE_WITH "double fault: #PF, then #NP", \ring, V_DF, 0
        andb $0x7f, idt64 + 14 * 16 + 5
        START
7:      mov ABSENT_PAGE, %al
        PROBE_WITH "#PF on the stack of a #GP is handled", \ring, V_PF, 2, 0, ABSENT_PAGE + 0xff8
        movb $IST_ABSENT, idt64 + 13 * 16 + 4
        START
        mov $BEYOND, %eax
7:      mov %eax, %ds
        .endr

# ---- page faults; want = CR2 ----
        PROBE "read an absent page", 0, V_PF, 0, 0, ABSENT_PAGE + 8
7:      mov ABSENT_PAGE + 8, %rax
        PROBE "write an absent page", 0, V_PF, 2, 0, ABSENT_PAGE + 8
7:      mov %rax, ABSENT_PAGE + 8
        PROBE "read an absent page", 3, V_PF, 4, 0, ABSENT_PAGE + 8
7:      mov ABSENT_PAGE + 8, %rax
        PROBE "write an absent page", 3, V_PF, 6, 0, ABSENT_PAGE + 8
7:      mov %rax, ABSENT_PAGE + 8
        PROBE "read a supervisor page", 3, V_PF, 5, 0, KERNEL_PAGE
7:      mov KERNEL_PAGE, %al
        PROBE "write a supervisor page", 3, V_PF, 7, 0, KERNEL_PAGE
7:      mov %al, KERNEL_PAGE
        PROBE "write a read-only page", 3, V_PF, 7, 0, RO_PAGE
7:      mov %al, RO_PAGE
        PROBE "write a read-only page, WP 1", 0, V_PF, 3, 0, RO_PAGE
7:      mov %al, RO_PAGE
        PROBE "access over two pages: the second is absent", 3, V_PF, 4, 0, ABSENT_PAGE
7:      mov ABSENT_PAGE - 4, %rax
        PROBE "push on an absent page", 3, V_PF, 6, 0, ABSENT_PAGE + 0x7f8
        mov $ABSENT_PAGE + 0x800, %esp
7:      push %rax
        .macro EXECUTE ring, code
        PASS "execute a page with NX: #PF code", \ring, \code
        mov $1f, %ebx
        mov $NX_PAGE, %ecx
        jmp *%rcx
1:      FINISH
        .endm
        EXECUTE 0, 0x11
        EXECUTE 3, 0x15

# ---- SYSCALL, SWAPGS ----
        PASS "syscall: cs ss and masked flags", 3, KCODE64 << 24 | KDATA << 16, 0x203
        syscall
        FINISH
        PASS "sysret restores flags, cs and ss", 3, 0x201 << 16 | UCS << 8 | USS, 0x203
        syscall
        pushfq
        pop %rax
        and $0x201, %eax
        shl $8, %eax
        mov %cs, %edx
        or %edx, %eax
        shl $8, %eax
        mov %ss, %edx
        or %edx, %eax
        FINISH
        PASS "syscall leaves rip in rcx, flags in r11", 3, 0x246, 0x202
        xor %eax, %eax
        syscall
1:      cmp $1b, %rcx
        mov %r11d, %eax
        je 2f
        xor %eax, %eax
2:      and $0xfff, %eax
        FINISH
        PROBE_WITH "syscall without SCE", 3, V_UD, 0
        call sce_off
        START
7:      syscall
        PROBE_WITH "sysret without SCE", 0, V_UD, 0
        call sce_off
        START
7:      sysretq
        PASS "sysretl goes to compatibility mode", 0, UCS32 << 8 | USS
        mov $1f, %ecx
        mov $2, %r11d
        mov $probe_stack, %esp
        sysretl
        .code32
1:      mov %cs, %eax
        shl $8, %eax
        mov %ss, %ecx
        or %ecx, %eax
        FINISH
        .code64
        PASS "swapgs", 0, 1
        mov $0xc0000101, %ecx           # GS_BASE, then what swapgs put into it
        rdmsr
        mov %eax, %ebx
        swapgs
        rdmsr
        mov %eax, %esi
        swapgs
        rdmsr
        xor %edi, %edi
        cmp %eax, %ebx
        jne 1f
        cmp $GS_USER, %ebx
        jne 1f
        cmp $GS_KERNEL, %esi
        jne 1f
        inc %edi
1:      mov %edi, %eax
        FINISH
        PASS "loading gs in ring 3 sets its base from the descriptor", 3, 0x5a
        mov $USS, %eax
        mov %eax, %gs
        movb $0x5a, -32(%rsp)
        lea -32(%rsp), %rcx
        movzbl %gs:(%rcx), %eax
        FINISH
        PROBES_END
