/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     crossover
 * bits     64
 * proves   rounds that each change some page-table entries, with INVLPG, and read 4,096 pages, more than a TLB holds: each read finds
 *          the frame that the tables name.  With shadow tables the price follows the writes, with nested paging the reads: what is
 *          cheaper changes at some number of writes.  rounds=16 writes=32 unless the command line says otherwise.  The rounds lie
 *          between the report words 0xB0000000 and 0xE0000000.
 * ends     0: all words read are the expected ones; 1: a FAIL line
 * mission  10 13 14 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define PAGES     4096
#define FRAMES    64                    /* page p lies on frame p % FRAMES at first */
#define AREA      (1ull << 39)          /* its own PML4 entry */
#define FRAMES_AT 0x1000000ull
#define OPEN      (P_PRESENT | P_WRITE | P_NX | P_ACCESSED)
#define HAS_COMMAND 4u                  /* flags of Multiboot 0.6.96, 3.3 */

struct multiboot { u32 flags, lower_kib, upper_kib, boot_device, command; };
extern u32 multiboot_info;

static volatile u64 *pte[PAGES];
static u8 frame_of[PAGES];

static volatile u32 *word_of(u32 page) { return (u32 *)(AREA + ((u64)page << 12)); }
static u32 tag_of(u32 frame) { return (frame + 1) * 0x9e3779b1u; }

/* The number behind `name` in the command line, or `otherwise`. */
static u32 argument(const char *name, u32 otherwise)
{
    const struct multiboot *m = (void *)(word)multiboot_info;
    const char *line = m->flags & HAS_COMMAND ? (const char *)(word)m->command : "";

    for (; *line; line++) {
        size_t n = 0;
        u32 value = 0;

        while (name[n] && line[n] == name[n])
            n++;
        if (name[n])
            continue;
        for (line += n; *line >= '0' && *line <= '9'; line++)
            value = value * 10 + *line - '0';
        return value;
    }
    return otherwise;
}

static void put_page(u32 page, u32 frame)
{
    frame_of[page] = frame;
    *pte[page] = (FRAMES_AT + ((u64)frame << 12)) | OPEN;
}

int main64(void)
{
    u32 rounds = argument("rounds=", 16), writes = argument("writes=", 32), sum = MIX_START, page = 0;

    check(writes <= PAGES, "at most 4,096 writes");
    pages_init(0x400000, FRAMES_AT);
    protect_memory();
    for (u32 frame = 0; frame < FRAMES; frame++)
        *(u32 *)(FRAMES_AT + ((u64)frame << 12)) = tag_of(frame);
    for (u32 p = 0; p < PAGES; p++) {
        pte[p] = pte_at(identity_pml4, 4, (word)word_of(p), 1);
        put_page(p, p % FRAMES);
    }
    for (u32 p = 0; p < PAGES; p++)
        sum = mix(sum, *word_of(p));
    report(0xb0000000);
    for (u32 round = 0; round < rounds; round++) {
        for (u32 n = 0; n < writes; n++, page = (page + 1021) % PAGES) {
            put_page(page, (frame_of[page] + 1) % FRAMES);
            invlpg(word_of(page));
        }
        for (u32 p = 0; p < PAGES; p++) {
            u32 got = *word_of(p);

            if (got != tag_of(frame_of[p]))
                check_eq(got, tag_of(frame_of[p]), "word");
            sum += got;
        }
    }
    report(0xe0000000);
    print("%u rounds, %u writes each, sum %08x\n", rounds, writes, sum);
    return 0;
}
