/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     tlbworst
 * bits     64
 * proves   the worst case for a TLB: a full-period LCG visits each word of 16 MiB in 4 KiB pages once, eleven
 *          instructions a read, of which a 64-entry TLB misses 98 %: over the run about 83 misses in 1,000 instructions.
 *          The 4,096 pages lie on 64 frames, so that the caches of the machine it runs on do not miss as well.
 *          The walk lies between report words 0xB0000000 and 0xE0000000; a speed benchmark.
 * ends     0: each of the 2,097,152 words was read once and right, by their sum and xor; 1: a FAIL line
 * mission  10
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define AREA      (1ull << 39)          /* its own PML4 entry */
#define SIZE      (16ull << 20)         /* bytes */
#define FRAMES_AT 0x1000000ull
#define FRAMES    (256ull << 10)        /* bytes: less than a second-level cache */
#define WORDS     (SIZE / 8)            /* a power of two: an LCG with odd addend and factor = 1 mod 4 has full period */
#define LINE      64                    /* bytes; the eight words of a line hold the number of the line of AREA last written there */

static void map_area(void)
{
    pages_init(0x400000, FRAMES_AT);
    for (u64 at = 0; at < SIZE; at += 4096)
        page_map(identity_pml4, 4, AREA + at, FRAMES_AT + at % FRAMES, 1, P_WRITE | P_NX);
}

/* By 16-byte stores, so that filling does not dilute the walk; what the last page of a frame gets stays. */
static void fill_lines(void)
{
    u64 at = AREA;

    asm volatile("   pxor %%xmm0, %%xmm0\n"
                 "   movq %[one], %%xmm1\n"
                 "   punpcklqdq %%xmm1, %%xmm1\n"
                 "1: movaps %%xmm0, (%[at])\n"
                 "   movaps %%xmm0, 16(%[at])\n"
                 "   movaps %%xmm0, 32(%[at])\n"
                 "   movaps %%xmm0, 48(%[at])\n"
                 "   paddq %%xmm1, %%xmm0\n"
                 "   add %[line], %[at]\n"
                 "   cmp %[end], %[at]\n"
                 "   jb 1b\n"
                 : [at] "+r"(at)
                 : [one] "r"(1ull), [line] "i"(LINE), [end] "r"(AREA + SIZE)
                 : "memory", "cc");
}

/* The loop in assembly, so that no compiler changes its eleven instructions. */
static u64 walk(u64 *xor)
{
    u64 x = 1, sum = 0, folded = 0, left = WORDS, at, v;

    asm volatile("1: imul %[factor], %[x]\n"
                 "   add %[addend], %[x]\n"
                 "   mov %[x], %[at]\n"
                 "   and %[mask], %[at]\n"
                 "   mov (%[area], %[at], 8), %[v]\n"
                 "   add %[v], %[sum]\n"
                 "   xor %[at], %[v]\n"
                 "   rol $1, %[v]\n"
                 "   xor %[v], %[folded]\n"
                 "   dec %[left]\n"
                 "   jnz 1b\n"
                 : [x] "+&r"(x), [sum] "+&r"(sum), [folded] "+&r"(folded), [left] "+&r"(left), [at] "=&r"(at), [v] "=&r"(v)
                 : [factor] "r"(0x5851f42d4c957f2dull), [addend] "r"(0x14057b7ef767814full), [mask] "r"(WORDS - 1),
                   [area] "r"(AREA)
                 : "memory", "cc");
    *xor = folded;
    return sum;
}

int main64(void)
{
    const u64 lines = FRAMES / LINE, first = SIZE / LINE - lines;
    u64 sum, folded;

    protect_memory();
    map_area();
    fill_lines();
    report(0xb0000000);
    sum = walk(&folded);
    report(0xe0000000);
    print("words %llu\nsum %llu\nxor %llu\n", (u64)WORDS, sum, folded);
    check_eq(sum, WORDS * first + SIZE / FRAMES * 8 * (lines * (lines - 1) / 2), "sum of the numbers of the lines read");
    check_eq(folded, 0, "xor of all places and words: each bit occurs an even number of times");
    return 0;
}
