# SPDX-License-Identifier: GPL-2.0-or-later
# 24 functions, each a loop across a page boundary.  Function i starts at the end of page i; its first instruction lies in
# page i by i % 10 bytes or ends there (i % 10 = 0).  RDI turns of the loop, each of which jumps back across the boundary,
# calls a leaf in page i + 1 every second time and adds to RAX.
        .text
        .code64
        .balign 4096
        .global straddle_code
straddle_code:
        .set i, 0
        .rept 24
        .org straddle_code + i * 4096 + 1024 + 64 * i
        lea 7(%rax, %rax, 2), %rax
        ret
        .org straddle_code + i * 4096 + 4096 - i % 10
1:      movabs $(i + 1) * 0x123456789, %rcx
        add %rcx, %rax
        test $1, %dil
        jz 2f
        .if i % 3 == 0
        call straddle_code + ((i + 5) % 24) * 4096 + 1024 + 64 * ((i + 5) % 24)
        .endif
        rol $3, %rax
2:      dec %rdi
        jnz 1b
        ret
        .set i, i + 1
        .endr
        .balign 4096
