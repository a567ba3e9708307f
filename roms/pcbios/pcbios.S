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

BDA   = 0x40                    # segment of the BIOS data area,
EBDA  = 0x9fc0                  # of the extended one,
VIDEO = 0xb800                  # and of the screen
COM1  = 0x3f8

equipment = 0x10                # offsets in the data area
base_kib  = 0x13
kb_flags  = 0x17
kb_head   = 0x1a
kb_tail   = 0x1c
kb_buffer = 0x1e
kb_end    = 0x3e
video_mode = 0x49
columns   = 0x4a
page_size = 0x4c
cursor    = 0x50                # column, row
shape     = 0x60                # last line, first line
crtc_port = 0x63
ticks     = 0x6c
midnight  = 0x70
kb_start  = 0x80
last_row  = 0x84
points    = 0x85

map_count = 0x20                # in the extended data area: entries of the memory map,
map       = 0x24                # and the entries of 20 bytes
high_kib  = 0x1c0               # memory from 1 MiB on, below 16 MiB
high_64k  = 0x1c2               # and above

r_es = 0                        # what `service` has pushed, from BP on
r_ds = 2
r_di = 4
r_bx = 20
r_dx = 24
r_cx = 28
r_ax = 32
r_flags = 40
CARRY = 1
ZERO = 0x40

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

# ---- from the reset vector: the image tests itself ----
selftest:
        cli
        xor %ax, %ax
        mov %ax, %ss
        mov $0x7c00, %sp
        call init
        mov $text_hello, %si
        call print

        .macro check condition, text    # FAIL text unless the condition of a jump holds
        j\condition 9f
        mov $\text, %si
        call fail
9:
        .endm

        int $0x12
        cmp $639, %ax
        check e, text_base
        mov $0xe801, %ax                # memory above 1 MiB, as two sizes and as one entry of the map
        int $0x15
        check nc, text_e801
        movzx %ax, %esi
        movzx %bx, %ecx
        shl $10, %esi
        shl $16, %ecx
        add %ecx, %esi
        mov $0x88, %ah
        int $0x15
        cmp $0x3c00, %ax
        check ae, text_88
        xor %ax, %ax
        mov %ax, %es
        xor %ebx, %ebx
        xor %bp, %bp                    # entries
1:      mov $0xe820, %eax
        mov $0x534d4150, %edx
        mov $20, %ecx
        mov $0x600, %di
        int $0x15
        check nc, text_e820
        cmp $0x534d4150, %eax
        check e, text_e820
        inc %bp
        cmpl $0x100000, %es:0x600
        jne 2f
        cmp %esi, %es:0x608
        check e, text_e820
        xor %esi, %esi                  # found
2:      test %ebx, %ebx
        jnz 1b
        test %esi, %esi
        check z, text_e820
        cmp $3, %bp
        check ae, text_e820
        mov $2, %cx                     # two words of this image to 2 MiB, and from there to 2000h
        movl $0x930fe000, %es:0x1012    # source: base and access byte, as of a descriptor
        movl $0x93200000, %es:0x101a
        movw $0, %es:0x1016
        movw $0, %es:0x101e
        mov $0x1000, %si
        mov $0x87, %ah
        int $0x15
        check nc, text_move
        movl $0x93200000, %es:0x1012
        movl $0x93002000, %es:0x101a
        mov $0x87, %ah
        int $0x15
        mov %es:0x2000, %eax
        cmp %cs:boot, %eax
        check e, text_move
        mov $text_memory, %si
        call print

        mov $3, %ax
        int $0x10
        mov $0x0e48, %ax                # "H"
        int $0x10
        mov $0x0e69, %ax                # "i"
        int $0x10
        mov $3, %ah
        xor %bh, %bh
        int $0x10
        cmp $2, %dx
        check e, text_cursor
        mov $VIDEO, %ax
        mov %ax, %es
        cmpl $0x07690748, %es:0
        check e, text_cell
        mov $24, %cx
1:      mov $0x0e0a, %ax
        int $0x10
        loop 1b
        mov $0x0e0d, %ax
        int $0x10
        cmpl $0x07690748, %es:0         # the last row, and nothing has moved
        check e, text_cell
        mov $0x0e0a, %ax
        int $0x10
        cmpl $0x07200720, %es:0         # now it has
        check e, text_scroll
        mov $2, %ah
        mov $0x0102, %dx
        int $0x10
        mov $0x0941, %ax                # three "A" in 1Eh
        mov $0x1e, %bx
        mov $3, %cx
        int $0x10
        mov $0x08, %ah
        int $0x10
        cmp $0x1e41, %ax
        check e, text_cell
        cmpl $0x1e411e41, %es:160 + 6
        check e, text_cell
        mov $0x0f, %ah
        int $0x10
        cmp $0x5003, %ax
        check e, text_mode
        mov $text_screen, %si
        call print

        mov $1, %ah
        int $0x16
        check z, text_key
        mov $5, %ah
        mov $0x1e61, %cx
        int $0x16
        mov $1, %ah
        int $0x16
        check nz, text_key
        xor %ah, %ah
        int $0x16
        cmp $0x1e61, %ax
        check e, text_key
        mov $1, %ah
        int $0x16
        check z, text_key

        sti
        xor %ah, %ah
        int $0x1a
        mov %dx, %bx
1:      hlt                             # a tick of the timer, 18.2 a second
        xor %ah, %ah
        int $0x1a
        cmp %dx, %bx
        je 1b
        mov $0x86, %ah
        xor %cx, %cx
        mov $100, %dx
        int $0x15
        check nc, text_wait
        mov $0x2402, %ax
        int $0x15
        cmp $1, %al
        check e, text_a20
        mov $0x08, %ah
        mov $0x80, %dl
        int $0x13
        check c, text_disk
        cli
        mov $text_clock, %si
        call print

        mov $BDA, %ax
        mov %ax, %ds
        mov $text_ok, %si
        xor %ax, %ax
        cmpb $0, 0xf0                   # failures (of the space for applications)
        je 1f
        mov $text_fail, %si
        inc %ax
1:      push %ax
        call print
        pop %ax
        out %al, $0xf4
1:      hlt
        jmp 1b

fail:   push %ds
        push $BDA
        pop %ds
        movb $1, 0xf0
        pop %ds
        push %si
        mov $text_fail, %si
        call print
        pop %si
print:  lodsb %cs:(%si), %al            # CS:SI to COM1, ends with 0
        test %al, %al
        jz 2f
        push %ax
        mov $COM1 + 5, %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        pop %ax
        mov $COM1, %dx
        out %al, %dx
        jmp print
2:      ret

text_hello:  .asciz "services of the firmware\n"
text_memory: .asciz "memory sizes and map agree\n"
text_screen: .asciz "screen, cursor and scrolling\n"
text_clock:  .asciz "keyboard buffer, ticks, waiting\n"
text_fail:   .asciz "FAIL "
text_ok:     .asciz "OK\n"
text_base:   .asciz "INT 12h\n"
text_e801:   .asciz "INT 15h E801h\n"
text_88:     .asciz "INT 15h 88h\n"
text_e820:   .asciz "INT 15h E820h\n"
text_move:   .asciz "INT 15h 87h\n"
text_cursor: .asciz "cursor\n"
text_cell:   .asciz "character on the screen\n"
text_scroll: .asciz "scrolling\n"
text_mode:   .asciz "video mode\n"
text_key:    .asciz "keyboard buffer\n"
text_wait:   .asciz "INT 15h 86h\n"
text_a20:    .asciz "address line 20\n"
text_disk:   .asciz "a disk that is not there\n"

# ---- power on ----
init:   cld
        xor %ax, %ax
        mov %ax, %es
        xor %di, %di
        mov $256, %cx                   # interrupt vectors
1:      mov $ignore, %ax
        stosw
        mov $0xf000, %ax
        stosw
        loop 1b
        xor %ax, %ax
        mov $0x80, %cx                  # data area
        rep stosw
        mov $vectors, %si
1:      lodsb %cs:(%si), %al
        movzx %al, %di
        shl $2, %di
        lodsw %cs:(%si), %ax
        mov %ax, %es:(%di)
        cmp $vectors_end, %si
        jb 1b
        mov $BDA, %ax
        mov %ax, %ds
        movw $EBDA, 0x0e
        movw $0x3f8, 0                  # COM1
        movw $0x0226, equipment         # a serial port, a mouse port, 80 columns in colour, a coprocessor
        movw $639, base_kib
        movw $kb_buffer, kb_head
        movw $kb_buffer, kb_tail
        movw $kb_buffer, kb_start
        movw $kb_end, kb_start + 2
        mov $devices, %si               # port, value
1:      lodsb %cs:(%si), %al
        movzx %al, %dx
        lodsb %cs:(%si), %al
        out %al, %dx
        cmp $devices_end, %si
        jb 1b
        in $0x92, %al
        or $2, %al
        and $~1, %al
        out %al, $0x92                  # address line 20
        call apic_init
        call memory_init
        mov $3, %ax
        int $0x10
        ret

devices:
        .byte 0x20, 0x11, 0xa0, 0x11, 0x21, 0x08, 0xa1, 0x70, 0x21, 4, 0xa1, 2, 0x21, 1, 0xa1, 1      # 8259 pair: vectors 08h and 70h
        .byte 0x21, 0xf8, 0xa1, 0xff                                    # timer, keyboard and cascade only
        .byte 0x43, 0x36, 0x40, 0, 0x40, 0                              # 8254 channel 0: 18.2 Hz
        .byte 0x64, 0x60, 0x60, 0x65                                    # 8042: translated scan codes, IRQ 1
devices_end:

apic_init:                              # a local APIC passes the 8259's line and NMI on (MultiProcessor Specification 1.4, 3.6.2.1)
        mov $1, %eax
        cpuid
        test $1 << 9, %edx
        jz 1f
        push %ds
        lgdtl %cs:gdtr
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        mov $8, %bx
        mov %bx, %ds                    # data up to 4 GiB, also in real mode
        and $~1, %al
        mov %eax, %cr0
        mov $0xfee00000, %ebx
        orl $0x1ff, 0xf0(%ebx)          # enabled; spurious interrupts at 255
        movl $0x700, 0x350(%ebx)        # LINT0: ExtINT
        movl $0x400, 0x360(%ebx)        # LINT1: NMI
        pop %ds
1:      ret
        .balign 8
gdt:    .quad 0
        .quad 0x00cf93000000ffff
gdtr:   .word . - gdt - 1
        .long 0xf0000 + gdt

cmos:   out %al, $0x70                  # AL: register, and its value
        in $0x71, %al
        ret

cmos_word:                              # AX of registers AL and AL + 1
        push %bx
        mov %al, %bl
        inc %al
        call cmos
        mov %al, %bh
        mov %bl, %al
        call cmos
        mov %bh, %ah
        pop %bx
        ret

memory_init:                            # the map: the boot loader's, or one from the clock chip's memory
        push $EBDA
        pop %es
        movb $1, %es:0                  # KiB
        mov $0x34, %al
        call cmos_word
        mov %ax, %es:high_64k
        mov $0x30, %al
        call cmos_word
        cmpw $0, %es:high_64k
        je 1f
        mov $0x3c00, %ax                # 15 MiB
1:      mov %ax, %es:high_kib
        mov $given_map, %si
        cmpw $0, %cs:(%si)
        jne copy_map
        movzx %ax, %eax                 # the third entry's length
        shl $10, %eax
        movzwl %es:high_64k, %ebx
        shl $16, %ebx
        add %ebx, %eax
        mov $own_map, %si
        call copy_map
        mov %eax, %es:map + 2 * 20 + 8
        ret
copy_map:
        imul $20, %cs:(%si), %cx
        mov %cs:(%si), %bx
        mov %bx, %es:map_count
        add $4, %si
        mov $map, %di
        rep movsb %cs:(%si), %es:(%di)
        ret

        .balign 4
own_map:
        .word 3, 0
        .quad 0, 0x9fc00
        .long 1
        .quad 0x9fc00, 0x60400
        .long 2
        .quad 0x100000, 0
        .long 1

# ---- interrupts ----
vectors:
        .macro vector number, handler
        .byte \number
        .word \handler
        .endm
        vector 0x08, timer
        vector 0x09, keyboard
        vector 0x0a, end_master
        vector 0x0b, end_master
        vector 0x0c, end_master
        vector 0x0d, end_master
        vector 0x0e, end_master
        vector 0x0f, end_master
        vector 0x10, video
        vector 0x11, get_equipment
        vector 0x12, get_base
        vector 0x13, disk
        vector 0x15, system
        vector 0x16, keys
        vector 0x18, nothing_to_boot
        vector 0x19, nothing_to_boot
        vector 0x1a, clock
        .irp number, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77
        vector \number, end_slave
        .endr
vectors_end:

end_slave:
        push %ax
        mov $0x20, %al
        out %al, $0xa0
        out %al, $0x20
        pop %ax
        iret
end_master:
        push %ax
        mov $0x20, %al
        out %al, $0x20
        pop %ax
ignore: iret

nothing_to_boot:
        sti
        hlt
        jmp nothing_to_boot

timer:  push %ds
        push %eax
        push $BDA
        pop %ds
        mov ticks, %eax
        inc %eax
        cmp $0x1800b0, %eax             # a day
        jb 1f
        xor %eax, %eax
        incb midnight
1:      mov %eax, ticks
        int $0x1c
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        pop %ds
        iret

get_equipment:
        push %ds
        push $BDA
        pop %ds
        mov equipment, %ax
        pop %ds
        iret
get_base:
        push %ds
        push $BDA
        pop %ds
        mov base_kib, %ax
        pop %ds
        iret

# A service: registers in the frame at BP, DS = the data area; `functions` finds the one of AH, or `other`.
        .macro service functions
        pushal
        push %ds
        push %es
        mov %sp, %bp
        cld
        push $BDA
        pop %ds
        mov $\functions, %si
        jmp dispatch
        .endm
        .macro function number, handler
        .byte \number
        .word \handler
        .endm

dispatch:                               # the functions of a service end with 0FFh, which stands for all others
        lodsb %cs:(%si), %al
        cmp %al, r_ax + 1(%bp)
        je 1f
        cmp $0xff, %al
        je 1f
        add $2, %si
        jmp dispatch
1:      call *%cs:(%si)
        pop %es
        pop %ds
        popal
        iret

good:   andb $~CARRY, r_flags(%bp)
        ret
absent: movb $0x86, r_ax + 1(%bp)       # no such function
bad:    orb $CARRY, r_flags(%bp)
        ret

# ---- INT 13h: there is no disk ----
disk:   service disk_functions
disk_functions:
        function 0x15, disk_type
        function 0xff, disk_none
disk_type:
        movb $0, r_ax + 1(%bp)
        jmp good
disk_none:
        movb $1, r_ax + 1(%bp)
        jmp bad

# ---- INT 15h: system services ----
system: service system_functions
system_functions:
        function 0x24, line20
        function 0x86, delay
        function 0x87, move_block
        function 0x88, extended
        function 0xc1, extended_area
        function 0xe8, big_memory
        function 0xff, absent

line20: mov r_ax(%bp), %al
        cmp $3, %al
        ja absent
        je 3f
        cmp $2, %al
        je 2f
        shl %al                         # 0: off, 1: on
        mov %al, %ah
        in $0x92, %al
        and $~3, %al
        or %ah, %al
        out %al, $0x92
        jmp 4f
2:      in $0x92, %al
        shr %al
        and $1, %al
        mov %al, r_ax(%bp)
        jmp 4f
3:      movw $2, r_bx(%bp)              # port 92h does it
4:      movb $0, r_ax + 1(%bp)
        jmp good

delay:  mov r_cx(%bp), %ax              # CX:DX microseconds; bit 4 of port 61h changes every 15.085
        shl $16, %eax
        mov r_dx(%bp), %ax
        xor %edx, %edx
        mov $15, %ecx
        div %ecx
        mov %eax, %ecx
        in $0x61, %al
        and $0x10, %al
        mov %al, %ah
1:      in $0x61, %al
        and $0x10, %al
        cmp %al, %ah
        je 1b
        mov %al, %ah
        sub $1, %ecx
        jnc 1b
        jmp good

move_block:                             # CX words between the segments of descriptors 10h and 18h of the table at ES:SI
        movzwl r_cx(%bp), %ecx
        mov r_es(%bp), %es
        mov 8(%bp), %si                 # SI, as pushal left it
        mov %es:0x12(%si), %eax
        and $0xffffff, %eax
        mov %es:0x17(%si), %bl
        movzx %bl, %ebx
        shl $24, %ebx
        or %eax, %ebx                   # source
        mov %es:0x1a(%si), %eax
        and $0xffffff, %eax
        mov %es:0x1f(%si), %dl
        movzx %dl, %edi
        shl $24, %edi
        or %eax, %edi
        mov %ebx, %esi
        lgdtl %cs:gdtr
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        mov $8, %bx
        mov %bx, %ds
        mov %bx, %es
        rep movsw %ds:(%esi), %es:(%edi)
        and $~1, %al
        mov %eax, %cr0
        movb $0, r_ax + 1(%bp)
        orb $ZERO, r_flags(%bp)
        jmp good

extended:                               # KiB above 1 MiB, as far as 16 bits go
        push $EBDA
        pop %es
        movzwl %es:high_64k, %eax
        shl $6, %eax
        movzwl %es:high_kib, %ecx
        add %ecx, %eax
        cmp $0xfc00, %eax
        jbe 1f
        mov $0xfc00, %ax
1:      mov %ax, r_ax(%bp)
        jmp good

extended_area:
        movw $EBDA, r_es(%bp)
        jmp good

big_memory:
        push $EBDA
        pop %es
        cmpb $0x20, r_ax(%bp)
        je memory_map
        cmpb $0x01, r_ax(%bp)
        jne absent
        mov %es:high_kib, %ax
        mov %ax, r_ax(%bp)
        mov %ax, r_cx(%bp)
        mov %es:high_64k, %ax
        mov %ax, r_bx(%bp)
        mov %ax, r_dx(%bp)
        jmp good

memory_map:                             # entry EBX to ES:DI, EBX = the next one or 0
        cmpl $0x534d4150, r_dx(%bp)
        jne absent
        mov r_bx(%bp), %ebx
        movzwl %es:map_count, %ecx
        cmp %ecx, %ebx
        jae absent
        cmpl $20, r_cx(%bp)
        jb absent
        imul $20, %bx, %si
        add $map, %si
        inc %ebx
        cmp %ecx, %ebx
        jb 1f
        xor %ebx, %ebx
1:      mov %ebx, r_bx(%bp)
        mov $20, %ecx
        mov %ecx, r_cx(%bp)
        movl $0x534d4150, r_ax(%bp)
        push %es
        pop %ds
        mov r_es(%bp), %es
        mov r_di(%bp), %di
        rep movsb
        jmp good

# ---- INT 1Ah: time of day ----
clock:  service clock_functions
clock_functions:
        function 0x00, get_ticks
        function 0x01, set_ticks
        function 0x02, get_time
        function 0x04, get_date
        function 0xff, absent
get_ticks:
        mov ticks, %ax
        mov %ax, r_dx(%bp)
        mov ticks + 2, %ax
        mov %ax, r_cx(%bp)
        xor %al, %al
        xchg %al, midnight
        mov %al, r_ax(%bp)
        jmp good
set_ticks:
        mov r_dx(%bp), %ax
        mov %ax, ticks
        mov r_cx(%bp), %ax
        mov %ax, ticks + 2
        jmp good
get_time:                               # BCD: CH hours, CL minutes, DH seconds
        mov $2, %al
        call cmos
        mov %al, r_cx(%bp)
        mov $4, %al
        call cmos
        mov %al, r_cx + 1(%bp)
        xor %al, %al
        call cmos
        mov %al, r_dx + 1(%bp)
        movb $0, r_dx(%bp)
        jmp good
get_date:                               # BCD: CH century, CL year, DH month, DL day
        mov $9, %al
        call cmos
        mov %al, r_cx(%bp)
        movb $0x20, r_cx + 1(%bp)
        mov $8, %al
        call cmos
        mov %al, r_dx + 1(%bp)
        mov $7, %al
        call cmos
        mov %al, r_dx(%bp)
        jmp good

# ---- INT 16h: keyboard ----
keys:   service keys_functions
keys_functions:
        function 0x00, key_get
        function 0x10, key_get
        function 0x01, key_look
        function 0x11, key_look
        function 0x02, key_flags
        function 0x12, key_flags
        function 0x05, key_put
        function 0xff, good

key_get:
        sti
1:      mov kb_head, %bx
        cmp kb_tail, %bx
        jne 2f
        hlt
        jmp 1b
2:      cli
        mov (%bx), %ax
        mov %ax, r_ax(%bp)
        call key_next
        mov %bx, kb_head
        ret
key_next:
        add $2, %bx
        cmp $kb_end, %bx
        jb 1f
        mov $kb_buffer, %bx
1:      ret
key_look:
        orb $ZERO, r_flags(%bp)
        mov kb_head, %bx
        cmp kb_tail, %bx
        je 1f
        andb $~ZERO, r_flags(%bp)
        mov (%bx), %ax
        mov %ax, r_ax(%bp)
1:      ret
key_flags:
        mov kb_flags, %al
        mov %al, r_ax(%bp)
        ret
key_put:
        mov r_cx(%bp), %ax
        call key_store
        setc r_ax(%bp)
        ret
key_store:                              # AX to the buffer; carry: it is full
        mov kb_tail, %bx
        mov %bx, %si
        call key_next
        cmp kb_head, %bx
        stc
        je 1f
        mov %ax, (%si)
        mov %bx, kb_tail
        clc
1:      ret

keyboard:                               # IRQ 1: a scan code of set 1
        pushal
        push %ds
        cld
        push $BDA
        pop %ds
        in $0x60, %al
        mov %al, %ah
        and $0x7f, %al
        mov $2, %bl                     # left Shift, right Shift, Ctrl, Alt: their bits in the flags
        cmp $0x2a, %al
        je 4f
        mov $1, %bl
        cmp $0x36, %al
        je 4f
        mov $4, %bl
        cmp $0x1d, %al
        je 4f
        mov $8, %bl
        cmp $0x38, %al
        je 4f
        test $0x80, %ah
        jnz 9f
        xor %bh, %bh
        mov %al, %bl
        cmp $keys_plain_end - keys_plain, %al
        jae 2f
        mov %cs:keys_plain(%bx), %al
        testb $3, kb_flags
        jz 1f
        mov %cs:keys_shifted(%bx), %al
1:      testb $4, kb_flags
        jz 3f
        and $0x1f, %al
        jmp 3f
2:      xor %al, %al
3:      call key_store
        jmp 9f
4:      test $0x80, %ah
        jnz 5f
        or %bl, kb_flags
        jmp 9f
5:      not %bl
        and %bl, kb_flags
9:      mov $0x20, %al
        out %al, $0x20
        pop %ds
        popal
        iret

keys_plain:                             # US layout, by scan code from 0
        .ascii "\0\0331234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 "
keys_plain_end:
keys_shifted:
        .ascii "\0\033!@#$%^&*()_+\b\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 "

# ---- INT 10h: the text screen of 80 by 25, page 0 ----
video:  service video_functions
video_functions:
        function 0x00, set_mode
        function 0x01, set_shape
        function 0x02, set_cursor
        function 0x03, get_cursor
        function 0x06, scroll_up
        function 0x07, scroll_down
        function 0x08, read_cell
        function 0x09, write_cells
        function 0x0a, write_cells
        function 0x0e, teletype
        function 0x0f, get_mode
        function 0x11, font
        function 0x12, alternate
        function 0x13, write_string
        function 0x1a, display
        function 0xff, nothing
nothing:
        ret

set_mode:                               # whatever is asked for, 80 by 25 in colour
        mov $mode_registers, %si
        mov $0x3c2, %dx
        lodsb %cs:(%si), %al
        out %al, %dx
        mov $0x3d4, %dx                 # unlock registers 0 to 7
        mov $0x11, %ax
        out %ax, %dx
        mov $0x3c4, %dx
        mov $5, %cx
        call indexed
        mov $0x3d4, %dx
        mov $25, %cx
        call indexed
        mov $0x3ce, %dx
        mov $9, %cx
        call indexed
        mov $0x3da, %dx
        in %dx, %al                     # 3C0h takes an index next
        mov $0x3c0, %dx
        xor %bl, %bl
1:      mov %bl, %al
        out %al, %dx
        lodsb %cs:(%si), %al
        out %al, %dx
        inc %bl
        cmp $21, %bl
        jb 1b
        mov $0x20, %al                  # the palette is the display's
        out %al, %dx
        call palette
        movb $3, video_mode
        movw $80, columns
        movw $4096, page_size
        movw $0x3d4, crtc_port
        movb $24, last_row
        movw $16, points
        movw $0x0d0e, shape
        movw $0, cursor
        testb $0x80, r_ax(%bp)
        jnz 2f
        push $VIDEO
        pop %es
        xor %di, %di
        mov $0x0720, %ax
        mov $0x4000, %cx
        rep stosw
2:      jmp move_cursor

indexed:                                # CX registers behind port DX from CS:SI
        xor %ah, %ah
1:      lodsb %cs:(%si), %al
        xchg %al, %ah
        out %ax, %dx
        xchg %al, %ah
        inc %ah
        loop 1b
        ret

palette:                                # 64 colours: bits 2 to 0 two thirds of red, green, blue, bits 5 to 3 one third
        mov $0x3c8, %dx
        xor %ax, %ax
        out %al, %dx
        inc %dx
1:      mov %ah, %bl
        mov $3, %cx
2:      xor %al, %al
        test $4, %bl
        jz 3f
        mov $42, %al
3:      test $32, %bl
        jz 4f
        add $21, %al
4:      out %al, %dx
        shl %bl
        loop 2b
        inc %ah
        cmp $64, %ah
        jb 1b
        ret

mode_registers:                         # miscellaneous output, sequencer, CRTC, graphics, attributes
        .byte 0x67
        .byte 0x03, 0x00, 0x03, 0x00, 0x02
        .byte 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00
        .byte 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff
        .byte 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff
        .byte 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f
        .byte 0x0c, 0x00, 0x0f, 0x08, 0x00

set_shape:
        mov r_cx(%bp), %cx
        mov %cx, shape
        mov $0x3d4, %dx
        mov $0x0a, %al
        mov %ch, %ah
        out %ax, %dx
        mov $0x0b, %al
        mov %cl, %ah
        out %ax, %dx
        ret
set_cursor:
        mov r_dx(%bp), %ax
        mov %ax, cursor
move_cursor:                            # the picture's cursor to where `cursor` says
        call cell
        shr %di
        mov %di, %bx
        mov $0x3d4, %dx
        mov $0x0e, %al
        mov %bh, %ah
        out %ax, %dx
        mov $0x0f, %al
        mov %bl, %ah
        out %ax, %dx
        ret
get_cursor:
        mov cursor, %ax
        mov %ax, r_dx(%bp)
        mov shape, %ax
        mov %ax, r_cx(%bp)
        ret

cell:                                   # ES:DI of the cursor's cell
        push $VIDEO
        pop %es
        mov cursor, %cx
place:                                  # DI of column CL, row CH
        movzx %ch, %di
        imul $80, %di, %di
        movzx %cl, %ax
        add %ax, %di
        shl %di
        ret

read_cell:
        call cell
        mov %es:(%di), %ax
        mov %ax, r_ax(%bp)
        ret
write_cells:                            # AL, CX times; 09h also sets the attribute to BL
        call cell
        mov r_cx(%bp), %cx
        mov r_ax(%bp), %ax
        mov r_bx(%bp), %bl
        jcxz 2f
1:      mov %al, %es:(%di)
        cmp $9, %ah
        jne 3f
        mov %bl, %es:1(%di)
3:      add $2, %di
        and $0x7fff, %di
        loop 1b
2:      ret

get_mode:
        mov columns, %ah
        mov video_mode, %al
        mov %ax, r_ax(%bp)
        movb $0, r_bx + 1(%bp)
        ret
font:   cmpb $0x30, r_ax(%bp)           # 1130h: what is in use
        jne 1f
        mov points, %ax
        mov %ax, r_cx(%bp)
        mov last_row, %al
        mov %al, r_dx(%bp)
1:      ret
alternate:
        cmpb $0x10, r_bx(%bp)           # in colour, 256 KiB
        jne 1f
        movw $0x0003, r_bx(%bp)
        movw $0, r_cx(%bp)
        ret
1:      movb $0x12, r_ax(%bp)
        ret
display:
        cmpb $0, r_ax(%bp)
        jne 1f
        movw $0x0008, r_bx(%bp)         # VGA with a colour display
        movb $0x1a, r_ax(%bp)
1:      ret

teletype:
        mov r_ax(%bp), %al
type:   cmp $7, %al                     # AL at the cursor
        je 9f
        cmp $8, %al
        je 3f
        cmp $10, %al
        je 2f
        cmp $13, %al
        je 4f
        push %ax
        call cell
        pop %ax
        mov %al, %es:(%di)
        incb cursor
        cmpb $80, cursor
        jb 1f
        movb $0, cursor
2:      incb cursor + 1
        cmpb $25, cursor + 1
        jb 1f
        movb $24, cursor + 1
        xor %cx, %cx
        mov $24 << 8 | 79, %dx
        mov $1, %al
        mov $7, %bh
        call up
1:      jmp move_cursor
3:      cmpb $0, cursor
        je 9f
        decb cursor
        jmp move_cursor
4:      movb $0, cursor
        jmp move_cursor
9:      ret

write_string:                           # ES:BP, CX characters at DX; AL bit 0: the cursor follows, bit 1: with attributes
        mov cursor, %ax
        push %ax
        mov r_dx(%bp), %ax
        mov %ax, cursor
        movzwl r_cx(%bp), %ecx
        movzwl 12(%bp), %esi            # BP
1:      jecxz 2f
        push %cx
        push %si
        call cell
        pop %si
        mov r_bx(%bp), %ah
        push %ds
        mov r_es(%bp), %ds
        lodsb
        testb $2, r_ax(%bp)
        jz 3f
        xchg %al, %ah
        lodsb
        xchg %al, %ah
3:      pop %ds
        cmp $32, %al
        jb 4f
        mov %ah, %es:1(%di)
4:      push %si
        call type
        pop %si
        pop %cx
        dec %cx
        jmp 1b
2:      pop %ax
        testb $1, r_ax(%bp)
        jnz 5f
        mov %ax, cursor
5:      jmp move_cursor

scroll_up:                              # AL rows, BH attribute, CX top left, DX bottom right
        call window
        jmp up
scroll_down:
        call window
        mov $-160, %si                  # from the last row upwards
        jmp scroll
window: mov r_cx(%bp), %cx
        mov r_dx(%bp), %dx
        mov r_bx(%bp), %bx
        mov r_ax(%bp), %al
        cmp $80, %dl
        jb 1f
        mov $79, %dl
1:      cmp $25, %dh
        jb 2f
        mov $24, %dh
2:      ret
up:     mov $160, %si
scroll: push $VIDEO
        pop %es
        sub %ch, %dh                    # rows - 1
        jb 4f
        sub %cl, %dl
        jb 4f
        add $0x0101, %dx                # DH rows, DL columns
        cmp %dh, %al
        ja 1f
        test %al, %al
        jnz 2f
1:      mov %dh, %al                    # 0: all of it
2:      test %si, %si
        jns 3f
        add %dh, %ch                    # SI < 0: begin with the last row
        dec %ch
3:      push %ax
        call place
        pop %ax
        push %bp
        movzx %al, %bp
        imul %si, %bp                   # from a row to the one that is moved there
1:      movzx %dl, %cx
        push %si
        push %di
        cmp %dh, %al
        jae 2f
        mov %di, %si
        add %bp, %si
        rep movsw %es:(%si), %es:(%di)
        jmp 3f
2:      push %ax
        mov %bh, %ah
        mov $' ', %al
        rep stosw
        pop %ax
3:      pop %di
        pop %si
        add %si, %di
        dec %dh
        jnz 1b
        pop %bp
4:      ret

        .org 0xfe00
given_map:                              # count, a word of nothing, and entries of 20 bytes from the boot loader
        .word 0, 0

        .org 0xfff0
reset:  ljmp $0xf000, $selftest
        .org 0xfffe
        .byte 0xfc                      # a PC/AT
        .byte 0
