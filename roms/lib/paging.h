/* SPDX-License-Identifier: GPL-2.0-or-later */
/* paging.h -- build page tables of the three formats (SDM 3A chapter 4) from a page allocator.
 *
 * Tables are reached by their physical address, so they must lie where linear = physical.  pages_init()
 * says which memory the allocator hands out. */
#ifndef PAGING_H
#define PAGING_H

#include "rom.h"

#define P_PRESENT 0x1ull
#define P_WRITE 0x2ull
#define P_USER 0x4ull
#define P_PWT 0x8ull
#define P_PCD 0x10ull
#define P_ACCESSED 0x20ull
#define P_DIRTY 0x40ull
#define P_LARGE 0x80ull                 /* PS, in a PDE or PDPTE */
#define P_GLOBAL 0x100ull
#define P_NX 0x8000000000000000ull
#define P_ADDRESS 0x000ffffffffff000ull

#define PF_P 1u                         /* bits of a #PF error code */
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

extern word page_next, page_limit;      /* pages.S */

INLINE void pages_init(word from, word to)
{
    page_next = from;
    page_limit = to;
}

/* One zeroed 4 KiB page; ends the ROM when there is none left. */
static __attribute__((unused, noinline)) void *page_alloc(void)
{
    word p = page_next;
    if (p + 4096 > page_limit) {
        check(0, "page allocator is empty");
        rom_end();
    }
    page_next = p + 4096;
    return memset((void *)p, 0, 4096);
}

/* The entry for va at `level` (1 = PTE .. 4 = PML4E) of 64-bit-wide tables with `levels` levels (3 = PAE, 4),
 * creating missing tables on the way with present, writable, user. */
static __attribute__((unused, noinline)) u64 *pte_at(u64 *table, int levels, u64 va, int level)
{
    for (int l = levels;; l--) {
        u64 *e = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (l == level)
            return e;
        if (!(*e & P_PRESENT))          /* a PAE PDPTE has no R/W and U/S bits: they are reserved */
            *e = (word)page_alloc() | (levels == 3 && l == 3 ? P_PRESENT : P_PRESENT | P_WRITE | P_USER);
        table = (u64 *)(word)(*e & P_ADDRESS);
    }
}

/* Map one page of 4 KiB (level 1), 2 MiB (2) or 1 GiB (3) at va to pa. */
INLINE void page_map(u64 *table, int levels, u64 va, u64 pa, int level, u64 bits)
{
    *pte_at(table, levels, va, level) = pa | bits | P_PRESENT | (level > 1 ? P_LARGE : 0);
}

/* The PTE for va in 32-bit tables, creating the page table if missing. */
static __attribute__((unused, noinline)) u32 *pte32_at(u32 *directory, u32 va)
{
    u32 *e = &directory[va >> 22];
    if (!(*e & P_PRESENT))
        *e = (u32)(word)page_alloc() | 7;
    return &((u32 *)(word)(*e & 0xfffff000))[va >> 12 & 1023];
}
#endif
