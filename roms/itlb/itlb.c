/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     itlb
 * bits     64
 * proves   600 pages of code, more than an instruction TLB has entries, with blocks and instructions that
 *          straddle each page boundary after 0 to 9 bytes, called in order and at random, their bytes read as
 *          data and data written beside them, compute what a C model computes.
 *          Each phase lies between the report words 0xB000000n and 0xE000000n.
 * ends     0: each call gave the model's value, each read the code's bytes; 1: a FAIL line
 * mission  10 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "itlb.h"
#include "wx.h"

extern u8 code_pages[];

static u64 call_page(u32 i, u64 x)
{
    void *entry = code_pages + ENTRY(i);

    asm volatile("call *%1" : "+a"(x) : "r"(entry) : "rcx", "cc", "memory");
    return x;
}

static u64 model(u32 i, u64 x)
{
    return 3 * ((x << 7 | x >> 57) ^ KEY((u64)i)) + ADDEND(PARTNER(i));
}

static u32 next_page(u32 *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return (u64)*seed * PAGES >> 32;
}

static u64 chain;               /* goes through every call, so that one wrong value spoils all later ones */
static u32 wrong;

static void call_and_compare(u32 i)
{
    u64 want = model(i, chain);

    chain = call_page(i, chain);
    wrong += chain != want;
}

static void in_order(u32 calls)
{
    for (u32 n = 0; n < calls; n++)
        call_and_compare(n % PAGES);
}

static void at_random(u32 calls)
{
    u32 seed = 1;

    while (calls--)
        call_and_compare(next_page(&seed));
}

/* The key inside MOVABS is read as data, for most pages across the boundary, before and after the call. */
static void code_as_data(u32 calls)
{
    u32 seed = 2;

    while (calls--) {
        u32 i = next_page(&seed), j = next_page(&seed);
        volatile u64 *key = (u64 *)(code_pages + MOVABS(i) + 2), *other = (u64 *)(code_pages + MOVABS(j) + 2);

        wrong += *key != KEY((u64)i);
        call_and_compare(i);
        wrong += *other != KEY((u64)j);
        chain += *other;
    }
}

/* Data written into pages of code, which become writable for it.  The code does not change. */
static void data_beside_code(u32 calls)
{
    u32 seed = 3;

    for (u32 i = 0; i < PAGES; i++)
        *pte_at(identity_pml4, 4, (word)code_pages + i * 4096, 1) |= P_WRITE;
    write_cr3(read_cr3());
    while (calls--) {
        u32 i = next_page(&seed);
        volatile u64 *spare = (u64 *)(code_pages + i * 4096 + SPARE);

        *spare = chain;
        call_and_compare(i);
        chain ^= *spare;
    }
}

static const struct { const char *name; void (*run)(u32); u32 calls; } phases[] = {
    {"in order", in_order, 20 * PAGES}, {"at random", at_random, 100000},
    {"code as data", code_as_data, 30000}, {"data beside code", data_beside_code, 2000},
};

int main64(void)
{
    protect_memory();
    for (u32 n = 0; n < sizeof phases / sizeof *phases; n++) {
        report(0xb0000000 | n);
        phases[n].run(phases[n].calls);
        report(0xe0000000 | n);
        print("%s %016llx\n", phases[n].name, chain);
        check_eq(wrong, 0, phases[n].name);
    }
    return 0;
}
