# SPDX-License-Identifier: GPL-2.0-or-later
# code.S -- 600 pages of code.  Function i starts at the end of page i and goes on in page i + 1; for SPLIT = 0
# the boundary lies between two instructions of the block, otherwise inside MOVABS.  RAX is argument and result:
# function i gives 3 * (rol(rax, 7) ^ KEY(i)) + ADDEND(PARTNER(i)) and destroys RCX.
#include "itlb.h"

        .text
        .code64
        .balign 4096
        .global code_pages
code_pages:
        .set i, 0
        .rept PAGES
        .org code_pages + LEAF(i)
        lea ADDEND(i)(%rax, %rax, 2), %rax
        ret
        .org code_pages + ENTRY(i)
        rol $7, %rax
        movabs $KEY(i), %rcx
        xor %rcx, %rax
        call code_pages + LEAF(PARTNER(i))
        ret
        .set i, i + 1
        .endr
        .balign 4096
