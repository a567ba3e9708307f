/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     tlbreach
 * bits     64
 * proves   reads over 1 to 16,384 pages of 4 KiB and 1 to 64 pages of 2 MiB, in order and at random, find the
 *          right word each time; per working set the ledger shows the TLBs' sizes as steps.
 *          Each phase lies between two report words, 0xB0kknnnn before and 0xE0kknnnn after it: kk = 0 4K in
 *          order, 1 4K at random, 2 2M in order, 3 2M at random; nnnn = pages of the working set.  Each page
 *          has been read once before the phase, so that a phase counts what does not fit and no first misses.
 * ends     0: each phase's sum of the words read is the expected one; 1: a FAIL line
 * mission  10 14
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define ACCESSES  16384         /* reads a phase */
#define FRAMES    64            /* 4 KiB frames that the 4K pages share, page p on frame p % FRAMES */
#define LARGE     2             /* 2 MiB frames that the 2M pages share */
#define AREA_4K   (1ull << 39)  /* 16,384 pages; its own PML4 entry */
#define AREA_2M   (2ull << 39)  /* 64 pages */
#define FRAMES_AT 0x1000000ull  /* 16 MiB: FRAMES frames of 4 KiB */
#define LARGE_AT  0x1800000ull  /* 24 MiB: LARGE frames of 2 MiB */

static const u16 sizes_4k[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384};
static const u16 sizes_2m[] = {1, 2, 4, 8, 16, 32, 64};

enum { IN_ORDER_4K, RANDOM_4K, IN_ORDER_2M, RANDOM_2M };

/* The word that lies at `offset` of frame number `frame` of either kind. */
static u32 word_at(u32 frame, u32 offset)
{
    return (frame + 1) * 0x9e3779b1u ^ offset * 0x85ebca6bu;
}

/* Where access number i of a phase goes: page of the working set and offset in it.  The offset moves by cache
 * lines in 4K pages and by small pages in 2M pages, in order to meet the large translation in many places. */
struct place { u32 page, offset; };
static struct place place_of(u32 kind, u32 pages, u32 i, u32 random)
{
    struct place p;

    p.page = kind & 1 ? (u32)((u64)random * pages >> 32) : i % pages;
    p.offset = kind < IN_ORDER_2M ? (p.page * 64 + i * 4) & 0xffc : (i * 4096 + p.page * 64) & 0x1ffffc;
    return p;
}

static u32 next_random(u32 *seed)
{
    u64 x = *seed = *seed * 747796405u + 2891336453u;

    return x * 0x9e3779b97f4a7c15ull >> 32;
}

static u32 read_place(u32 kind, struct place p)
{
    u64 at = kind < IN_ORDER_2M ? AREA_4K + ((u64)p.page << 12) : AREA_2M + ((u64)p.page << 21);

    return *(volatile u32 *)(at + p.offset);
}

static u32 expected(u32 kind, u32 pages)
{
    u32 sum = 0, seed = pages;

    for (u32 i = 0; i < ACCESSES; i++) {
        struct place p = place_of(kind, pages, i, next_random(&seed));
        sum = (sum << 1 | sum >> 31) + word_at(p.page % (kind < IN_ORDER_2M ? FRAMES : LARGE), p.offset);
    }
    return sum;
}

static u32 phase(u32 kind, u32 pages)
{
    u32 sum = 0, seed = pages, want = expected(kind, pages);

    for (u32 page = 0; page < pages; page++)
        read_place(kind, (struct place){page, 0});
    report(0xb0000000 | kind << 16 | pages);
    for (u32 i = 0; i < ACCESSES; i++) {
        u32 got = read_place(kind, place_of(kind, pages, i, next_random(&seed)));
        sum = (sum << 1 | sum >> 31) + got;
    }
    report(0xe0000000 | kind << 16 | pages);
    check_eq(sum, want, "sum of a phase");
    return sum;
}

static void sweep(u32 kind, const char *name, const u16 *sizes, u32 n)
{
    u32 h = MIX_START;

    for (u32 i = 0; i < n; i++)
        h = mix(h, phase(kind, sizes[i]));
    print("%s %08x\n", name, h);
}

static void map_areas(void)
{
    pages_init(0x400000, FRAMES_AT);
    for (u64 p = 0; p < 16384; p++)
        page_map(identity_pml4, 4, AREA_4K + (p << 12), FRAMES_AT + (p % FRAMES << 12), 1, P_NX);
    for (u64 p = 0; p < 64; p++)
        page_map(identity_pml4, 4, AREA_2M + (p << 21), LARGE_AT + (p % LARGE << 21), 2, P_NX);
    for (u32 frame = 0; frame < FRAMES; frame++)
        for (u32 offset = 0; offset < 4096; offset += 4)
            *(u32 *)(FRAMES_AT + frame * 4096 + offset) = word_at(frame, offset);
    for (u32 frame = 0; frame < LARGE; frame++)
        for (u32 offset = 0; offset < 0x200000; offset += 4)
            *(u32 *)(LARGE_AT + frame * 0x200000 + offset) = word_at(frame, offset);
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

int main64(void)
{
    protect_memory();
    map_areas();
    sweep(IN_ORDER_4K, "4K in order", sizes_4k, COUNT(sizes_4k));
    sweep(RANDOM_4K, "4K at random", sizes_4k, COUNT(sizes_4k));
    sweep(IN_ORDER_2M, "2M in order", sizes_2m, COUNT(sizes_2m));
    sweep(RANDOM_2M, "2M at random", sizes_2m, COUNT(sizes_2m));
    return 0;
}
