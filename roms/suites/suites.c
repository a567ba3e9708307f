/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     suites
 * bits     64
 * proves   a guest that misses the TLB as often as a server suite: it loads CR3 as if it changed processes, reads 16 pages in parts
 *          of 2 MiB chosen at random, in each part one page after the other, and so on, with so many instructions between that there are per=227 misses in 100,000 instructions, unless the command line says otherwise.
 *          Bhargava et al. (ASPLOS 2008, table 1) counted 294 for MiscServer, 257 for JavaServer, 129 for WebServer; 227 is their
 *          mean.  The reads lie between the report words 0xB0000000 and 0xE0000000.
 * ends     0: all words read are the expected ones; 1: a FAIL line
 * mission  10 14
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define PARTS     12                    /* each under its own page directory entry */
#define PAGES     512                   /* of a part */
#define READS     16384
#define SWITCH    16                    /* reads between two loads of CR3 */
#define OTHERS    3                     /* pages that also have to be found again: code, stack, data */
#define FRAMES    (PARTS * PAGES)       /* each page has its own, as a server's data have: no nested TLB holds them */
#define AREA      (1ull << 39)
#define FRAMES_AT 0x1000000ull
#define OWN       30                    /* instructions of a read and of the loop around it */
#define FILLER    6                     /* and of one turn of the filler */
#define HAS_COMMAND 4u                  /* flags of Multiboot 0.6.96, 3.3 */

struct multiboot { u32 flags, lower_kib, upper_kib, boot_device, command; };
extern u32 multiboot_info;

static u32 misses_wanted(void)
{
    const struct multiboot *m = (void *)(word)multiboot_info;
    const char *line = m->flags & HAS_COMMAND ? (const char *)(word)m->command : "";
    u32 value = 0;

    for (; *line; line++)
        if (line[0] == 'p' && line[1] == 'e' && line[2] == 'r' && line[3] == '=')
            for (line += 4; *line >= '0' && *line <= '9' && value < 10000; line++)
                value = value * 10 + *line - '0';
    return value ? value : 227;
}

static u32 tag_of(u32 frame) { return (frame + 1) * 0x9e3779b1u; }

/* Operations that do not wait for each other, so that nothing but their number matters. */
static __attribute__((noinline)) void filler(u32 turns)
{
    asm volatile("1: imul $3, %%r8d, %%r8d; imul $5, %%r9d, %%r9d; imul $7, %%r10d, %%r10d; add $11, %%r11d; dec %0; jnz 1b"
                 : "+r"(turns) : : "r8", "r9", "r10", "r11", "cc");
}

static u32 read_all(u32 turns)
{
    static u32 next[PARTS];
    u32 wrong = 0, seed = 1;

    for (u32 i = 0; i < READS; i++) {
        u32 part = (u64)(seed = seed * 747796405u + 2891336453u) * PARTS >> 32, page = next[part]++ % PAGES;
        if (i % SWITCH == 0)
            write_cr3(read_cr3());
        wrong += *(volatile u32 *)(AREA + ((u64)part << 21) + (page << 12)) != tag_of(part * PAGES + page);
        filler(turns);
    }
    return wrong;
}

int main64(void)
{
    u32 per = misses_wanted(), turns = (100000 * (SWITCH + OTHERS) / SWITCH / per - OWN) / FILLER;

    check(per >= 10 && per <= 2000, "per=10 to per=2000");
    protect_memory();
    pages_init(0x400000, FRAMES_AT);
    for (u32 frame = 0; frame < FRAMES; frame++)
        *(u32 *)(FRAMES_AT + (frame << 12)) = tag_of(frame);
    for (u32 part = 0; part < PARTS; part++)
        for (u32 page = 0; page < PAGES; page++)
            page_map(identity_pml4, 4, AREA + ((u64)part << 21) + (page << 12), FRAMES_AT + ((part * PAGES + page) << 12), 1, P_NX);
    check_eq(read_all(turns), 0, "words that differ, first round");          /* after it everything has its price */
    report(0xb0000000);
    check_eq(read_all(turns), 0, "words that differ");
    report(0xe0000000);
    print("%u misses in 100,000 instructions\n", per);
    return 0;
}
