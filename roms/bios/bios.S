# SPDX-License-Identifier: GPL-2.0-or-later
# name     bios
# bits     16, 32
# proves   firmware runs from the reset vector: real mode with stack, interrupt vector table, INT n, INTO, INT3, #DE, #BR
#          and #UD at the right address, a way to 32-bit protected mode with gates and error codes and back, and
#          real mode that keeps a 4 GiB limit
# ends     0: every count and address is right; 1: a FAIL line or a stray interrupt
# mission  1 2 62
# qemu     yes
# time     no
# styles   all
# memory   64M
# kind     firmware
#
# A flat image of 64 KiB that ends at the top of the first megabyte and of the first 4 GiB; addresses here are offsets in
# segment F000.  RAM: vectors at 0, variables at 600h, stack below 7C00h.

LINEAR   = 0xf0000              # of offset 0
COM1     = 0x3f8
END_PORT = 0xf4

caught_vector = 0x600           # of the last interrupt handled
caught_ip     = 0x602           # what it saved: the instruction for a fault, the next one for a trap
caught_flags  = 0x604           # FLAGS in the handler
caught_count  = 0x606
caught_error  = 0x608           # error code, in protected mode
failed        = 0x60a
MAGIC         = 0xcafe1234
HIGH          = 0x200000        # an address that only 32-bit segments reach

        .text
        .code16
start:  cli
        cld
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        movw %ax, failed
        movw %ax, caught_count
        mov $0xff, %al
        out %al, $0x21                  # no line of the interrupt controllers: they are not initialised
        out %al, $0xa1
        call uart_init
        call vectors_init
        mov $hello, %si
        call print

# ---- what real mode can raise; each `expect` compares with what the handler noted ----
        .macro expect where, value, text
        cmpw $\value, \where
        je 8f
        mov $\text, %si
        call fail
8:
        .endm

        sti
        mov $0x1234, %ax
        int $0x80
1:      push %ax
        expect caught_vector, 0x80, text_int
        expect caught_ip, 1b, text_int
        pushf
        pop caught_ip                   # IRET brought IF back, the handler ran without
        testw $0x200, caught_ip
        jz 2f
        testw $0x300, caught_flags
        jz 3f
2:      mov $text_flags, %si
        call fail
3:      mov $text_int, %si
        call print
        pop %ax
        call print_hex
        cmp $0x1235, %ax
        je 1f
        mov $text_int, %si
        call fail
1:
        int3
1:      expect caught_vector, 3, text_int3
        expect caught_ip, 1b, text_int3

        mov $0x7fff, %ax
        inc %ax                         # OF = 1
        into
1:      expect caught_vector, 4, text_into
        expect caught_ip, 1b, text_into

        xor %cx, %cx
1:      div %cx
        expect caught_vector, 0, text_de
        expect caught_ip, 1b, text_de

        movw $10, 0x610
        movw $20, 0x612
        mov $21, %ax
1:      bound %ax, 0x610
        expect caught_vector, 5, text_br
        expect caught_ip, 1b, text_br

1:      ud2
        expect caught_vector, 6, text_ud
        expect caught_ip, 1b, text_ud

        mov $text_count, %si
        call print
        mov caught_count, %ax
        call print_hex
        expect caught_count, 6, text_count

# ---- to protected mode and back (SDM 3A 9.9) ----
        cli
        lgdtl %cs:gdtr
        lidtl %cs:idtr
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $0x08, $LINEAR + protected

        .code32
protected:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %ss
        mov $0x7c00, %esp
        movl $MAGIC, HIGH
        movw $0, caught_count
        int $0x30
        cmpw $0x30, caught_vector
        jne wrong32
1:      ud2
        cmpw $6, caught_vector
        jne wrong32
        cmpw $1b, caught_ip
        jne wrong32
        mov $0x40, %eax                 # a selector beyond the GDT's limit
2:      mov %eax, %gs
        cmpw $13, caught_vector
        jne wrong32
        cmpw $2b, caught_ip
        jne wrong32
        cmpw $0x40, caught_error
        jne wrong32
        cmpw $3, caught_count
        je back
wrong32:
        movw $1, failed
back:   ljmp $0x18, $protected16

        .code16
protected16:                            # 16-bit segments first: their limits stay in real mode, FS keeps 4 GiB
        mov $0x20, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %gs
        mov %ax, %ss
        mov %cr0, %eax
        and $~1, %eax
        mov %eax, %cr0
        ljmp $0xf000, $real
real:   xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %gs
        mov %ax, %ss
        mov $0x7c00, %sp
        lidtl %cs:idtr_real
        mov $text_back, %si
        call print
        mov caught_error, %ax
        call print_hex
        mov $0x1000, %ax
        int $0x80                       # the vector table works again
1:      expect caught_ip, 1b, text_back
        mov $HIGH, %ebx
        cmpl $MAGIC, %fs:(%ebx)
        je 1f
        mov $text_high, %si
        call fail
1:
        mov $text_ok, %si
        mov failed, %ax
        test %ax, %ax
        jz 1f
        mov $text_fail, %si
        mov $1, %ax
1:      push %ax
        call print
        pop %ax
end:    out %al, $END_PORT
        hlt
        jmp end

# ---- console ----
uart_init:                              # 115,200 baud, 8 bits, no parity, one stop bit
        mov $uart_values, %si
1:      lodsb %cs:(%si), %al
        mov $COM1, %dx
        add %al, %dl
        lodsb %cs:(%si), %al
        out %al, %dx
        cmp $uart_values_end, %si
        jb 1b
        ret
uart_values:                            # register, value
        .byte 3, 0x80, 0, 1, 1, 0, 3, 3, 4, 3
uart_values_end:

print_char:                             # AL; destroys DX
        push %ax
        mov $COM1 + 5, %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        pop %ax
        mov $COM1, %dx
        out %al, %dx
        ret

print:  lodsb %cs:(%si), %al            # CS:SI, ends with 0; destroys AL, DX, SI
        test %al, %al
        jz 1f
        call print_char
        jmp print
1:      ret

print_hex:                              # AX and a new line; destroys BX, CX, DX
        push %ax
        mov %ax, %bx
        mov $4, %cx
1:      rol $4, %bx
        mov %bx, %si
        and $15, %si
        mov %cs:digits(%si), %al
        call print_char
        loop 1b
        mov $'\n', %al
        call print_char
        pop %ax
        ret
digits: .ascii "0123456789abcdef"

fail:   push %si
        mov $text_fail, %si
        call print
        pop %si
        call print
        movw $1, failed
        ret

# ---- interrupts in real mode ----
vectors_init:
        xor %di, %di
        mov $256, %cx
1:      mov $stray, %ax
        stosw
        mov $0xf000, %ax
        stosw
        loop 1b
        movw $divide, 4 * 0
        movw $breakpoint, 4 * 3
        movw $overflow, 4 * 4
        movw $bound, 4 * 5
        movw $undefined, 4 * 6
        movw $software, 4 * 0x80
        ret

        .macro note vector, skip        # note what the processor pushed; a fault goes on behind the instruction
        push %bp
        mov %sp, %bp
        pushf
        pop caught_flags
        movw $\vector, caught_vector
        push 2(%bp)
        pop caught_ip
        addw $\skip, 2(%bp)
        incw caught_count
        pop %bp
        .endm

divide: note 0, 2
        iret
breakpoint:
        note 3, 0
        iret
overflow:
        note 4, 0
        iret
bound:  note 5, 4
        iret
undefined:
        note 6, 2
        iret
software:
        note 0x80, 0
        inc %ax
        iret
stray:  mov $text_stray, %si
        call print
        mov $1, %al
        jmp end

# ---- interrupts in protected mode ----
        .code32
gate_ud:
        movw $6, caught_vector
        mov (%esp), %eax
        addl $2, (%esp)
        jmp gate_note
gate_gp:
        movw $13, caught_vector
        pop %eax
        mov %ax, caught_error
        mov (%esp), %eax
        addl $2, (%esp)                 # MOV to a segment register has two bytes
        jmp gate_note
gate_software:
        movw $0x30, caught_vector
gate_note:
        mov %ax, caught_ip
        incw caught_count
        iret
gate_stray:
        mov $1, %al
        out %al, $END_PORT
        hlt
        jmp gate_stray

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # 08 code, 32 bits, base 0, 4 GiB; accessed already: ROM cannot be written
        .quad 0x00cf93000000ffff        # 10 data
        .quad 0x00009b0f0000ffff        # 18 code, 16 bits, base F0000h, 64 KiB
        .quad 0x000093000000ffff        # 20 data, 16 bits, base 0
gdt_end:
idt:    .set vector, 0
        .rept 0x31
        .if vector == 6
        .word gate_ud
        .elseif vector == 13
        .word gate_gp
        .elseif vector == 0x30
        .word gate_software
        .else
        .word gate_stray
        .endif
        .word 0x08, 0x8e00, LINEAR >> 16
        .set vector, vector + 1
        .endr
idt_end:
gdtr:   .word gdt_end - gdt - 1
        .long LINEAR + gdt
idtr:   .word idt_end - idt - 1
        .long LINEAR + idt
idtr_real:
        .word 0x3ff
        .long 0

hello:      .asciz "firmware in real mode\n"
text_int:   .asciz "INT 80h: AX "
text_flags: .asciz "flags of INT and IRET\n"
text_int3:  .asciz "INT3\n"
text_into:  .asciz "INTO\n"
text_de:    .asciz "#DE\n"
text_br:    .asciz "#BR\n"
text_ud:    .asciz "#UD\n"
text_count: .asciz "interrupts and faults "
text_back:  .asciz "back from protected mode, #GP error code "
text_high:  .asciz "word above 1 MiB\n"
text_stray: .asciz "FAIL stray interrupt\n"
text_fail:  .asciz "FAIL "
text_ok:    .asciz "OK\n"

        .org 0xfff0
        .code16
reset:  ljmp $0xf000, $start
        .org 0xffff
        .byte 0
