/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     straddle
 * bits     64
 * proves   blocks and loops that straddle pages, reads and writes across pages of all kinds (4K and 2M, global or not,
 *          clean or dirty), with INVLPG, CR3 and CR4.PGE writes between, miss the TLB as a per-access model says
 * ends     0
 * mission  10
 * qemu     yes
 * time     no
 * kind     mmu
 */
#include "wx.h"

#define AREA     (1ull << 39)           /* 4 KiB pages, every third global */
#define AREA_2M  (2ull << 39)           /* 2 MiB pages, every second global */
#define FRAMES   0x1000000ull
#define PAGES    48
#define LARGE    6
#define STEPS    1500

extern u8 straddle_code[];
static u32 seed = 1;

static u32 next(u32 n)
{
    seed = seed * 1664525 + 1013904223;
    return (u64)seed * n >> 32;
}

static u64 run(u32 i, u64 x, u64 turns)
{
    void *entry = straddle_code + i * 4096 + 4096 - i % 10;

    asm volatile("call *%2" : "+a"(x), "+D"(turns) : "r"(entry) : "rcx", "cc", "memory");
    return x;
}

static u64 place(void)
{
    if (next(4))
        return AREA + next(PAGES * 4096 - 8);
    return AREA_2M + ((u64)next(LARGE) << 21) + next(0x200000 - 8);
}

static u64 touch(u64 x)
{
    volatile u64 *at = (u64 *)place();

    switch (next(3)) {
    case 0:
        return x + *at;
    case 1:
        *at = x;
        return x;
    default:
        *at += x;
        return x ^ *(volatile u8 *)place();
    }
}

static void disturb(void)
{
    u64 at = place();

    switch (next(24)) {
    case 0:
        write_cr3(read_cr3());
        break;
    case 1:
        write_cr4(read_cr4() ^ CR4_PGE);
        break;
    case 2: case 3: case 4:
        if (at < AREA_2M)
            *pte_at(identity_pml4, 4, at, 1) &= ~P_DIRTY;
        /* fall through */
    default:
        invlpg((void *)at);
    }
}

int main64(void)
{
    u64 x = 1;

    protect_memory();
    pages_init(0x400000, 0x500000);
    for (u64 p = 0; p < PAGES; p++)
        page_map(identity_pml4, 4, AREA + (p << 12), FRAMES + (p % 20 << 12), 1, P_WRITE | P_NX | (p % 3 ? 0 : P_GLOBAL));
    for (u64 p = 0; p < LARGE; p++)
        page_map(identity_pml4, 4, AREA_2M + (p << 21), 0x1200000 + (p % 2 << 21), 2, P_WRITE | P_NX | (p & 1 ? P_GLOBAL : 0));
    write_cr4(read_cr4() | CR4_PGE);
    for (u32 step = 0; step < STEPS; step++) {
        x = run(next(24), x, 1 + next(4));
        for (u32 n = next(4); n; n--)
            x = touch(x);
        if (next(8) == 0)
            disturb();
        if (step % 1000 == 999)
            report(x);
    }
    print("%016llx\n", x);
    return 0;
}
