# SPDX-License-Identifier: GPL-2.0-or-later
# pages.S -- the page allocator's two words, shared by 32-bit and 64-bit C (paging.h).
        .bss
        .balign 8
        .global page_next, page_limit
page_next:  .skip 8
page_limit: .skip 8
