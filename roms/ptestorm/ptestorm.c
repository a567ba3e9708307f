/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     ptestorm
 * bits     64
 * proves   about 200,000 writes to 4,096 page-table entries act as the manual says: unchanged rewrites, not
 *          present and back, demand faults, read-only and back, other frames, A/D bits cleared, NX; each
 *          followed by INVLPG where the manual asks for it.  Each phase lies between the report words
 *          0xB000000n and 0xE000000n.  The price of a page-table write shows here: an exit or nothing.
 * ends     0: all words read, faults and error codes are the expected ones; 1: a FAIL line
 * mission  10 11 13 14 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "traps.h"
#include "wx.h"

#define PAGES     4096
#define FRAMES    64                    /* page p lies on frame p % FRAMES at first */
#define AREA      (1ull << 39)          /* its own PML4 entry */
#define FRAMES_AT 0x1000000ull
#define CODE_AT   (FRAMES_AT + FRAMES * 4096)   /* a frame whose first byte is RET */
#define OPEN      (P_PRESENT | P_WRITE | P_NX)

static volatile u64 *pte[PAGES];
static u32 writes, sum;
static struct { u64 address; u32 error, page; u64 repair; } wanted;     /* the one fault allowed now */
static u32 faults[32];                  /* by error code */

static void pte_write(u32 page, u64 value)
{
    *pte[page] = value;
    writes++;
}

static volatile u32 *word_of(u32 page) { return (u32 *)(AREA + ((u64)page << 12)); }
static u64 frame_at(u32 frame) { return FRAMES_AT + (frame % FRAMES << 12); }
static u32 tag_of(u32 frame) { return (frame % FRAMES + 1) * 0x9e3779b1u; }

/* A page fault repairs its page-table entry.  No INVLPG: the fault itself has dropped what the TLB held
 * for the address (SDM 3A 4.10.4.1), and entries that are not present were never held. */
void trap64(struct frame64 *f)
{
    if (f->vector != 14 || f->error != wanted.error || read_cr2() != wanted.address)
        trap_unexpected(f);
    faults[f->error & 31]++;
    pte_write(wanted.page, wanted.repair);
}

static void want_fault(u32 page, u32 error, u64 repair)
{
    wanted.address = (word)word_of(page);
    wanted.error = error;
    wanted.page = page;
    wanted.repair = repair;
}

static void read_tag(u32 page, u32 frame)
{
    u32 got = *word_of(page);

    if (got != tag_of(frame))
        check_eq(got, tag_of(frame), "tag");
    sum = mix(sum, got);
}

static void rewrite_unchanged(void)
{
    for (u32 p = 0; p < PAGES; p++) {
        pte_write(p, *pte[p]);
        read_tag(p, p);
    }
}

static void hide_and_show(void)
{
    for (u32 p = 0; p < PAGES; p++) {
        u64 old = *pte[p];
        pte_write(p, old & ~P_PRESENT);
        invlpg(word_of(p));
        pte_write(p, old);
        read_tag(p, p);
    }
}

static void fault_in(void)
{
    for (u32 p = 0; p < PAGES; p++) {
        pte_write(p, 0);
        invlpg(word_of(p));
        want_fault(p, 0, frame_at(p * 7) | OPEN);
        read_tag(p, p * 7);
    }
}

static void write_to_read_only(void)
{
    for (u32 p = 0; p < PAGES; p++) {
        u64 old = *pte[p];
        pte_write(p, old & ~P_WRITE);
        invlpg(word_of(p));
        want_fault(p, PF_P | PF_W, old);
        wanted.address += 4;
        word_of(p)[1] = p;
        sum = mix(sum, word_of(p)[1]);
    }
}

static void flip_writable(void)
{
    for (u32 p = 0; p < PAGES; p++) {
        u64 old = *pte[p];
        pte_write(p, old & ~P_WRITE);
        invlpg(word_of(p));
        sum = mix(sum, word_of(p)[1]);
        pte_write(p, old);
        invlpg(word_of(p));
        word_of(p)[1]++;
    }
}

static void move_frames(void)
{
    static u32 shift;

    shift += 13;
    for (u32 p = 0; p < PAGES; p++) {
        pte_write(p, frame_at(p + shift) | OPEN);
        invlpg(word_of(p));
        read_tag(p, p + shift);
    }
}

/* Pages with equal frames have their own bits: a read sets A only, a write D as well. */
static void clear_accessed(void)
{
    u32 wrong = 0;

    for (u32 p = 0; p < PAGES; p++) {
        pte_write(p, *pte[p] & ~(P_ACCESSED | P_DIRTY));
        invlpg(word_of(p));
        sum = mix(sum, word_of(p)[1]);
        wrong += (*pte[p] & (P_ACCESSED | P_DIRTY)) != P_ACCESSED;
        word_of(p)[1]++;
        wrong += (*pte[p] & (P_ACCESSED | P_DIRTY)) != (P_ACCESSED | P_DIRTY);
    }
    check_eq(wrong, 0, "accessed and dirty bits");
}

static void call_no_execute(void)
{
    for (u32 p = 0; p < PAGES; p += 4) {
        u64 old = *pte[p];
        pte_write(p, CODE_AT | P_PRESENT | P_NX);
        invlpg(word_of(p));
        want_fault(p, PF_P | PF_I, CODE_AT | P_PRESENT);
        ((void (*)(void))word_of(p))();
        pte_write(p, old);
        invlpg(word_of(p));
        sum = mix(sum, word_of(p)[1]);
    }
}

static const struct { const char *name; void (*run)(void); u32 rounds; } phases[] = {
    {"rewrite unchanged", rewrite_unchanged, 16}, {"hide and show", hide_and_show, 6}, {"fault in", fault_in, 2},
    {"write to read-only", write_to_read_only, 2}, {"flip writable", flip_writable, 4}, {"move frames", move_frames, 4},
    {"clear accessed", clear_accessed, 1}, {"call no-execute", call_no_execute, 1},
};

static void map_area(void)
{
    pages_init(0x400000, FRAMES_AT);
    for (u32 p = 0; p < PAGES; p++) {
        pte[p] = pte_at(identity_pml4, 4, (word)word_of(p), 1);
        *pte[p] = frame_at(p) | OPEN;
    }
    for (u32 frame = 0; frame < FRAMES; frame++)
        *(u32 *)frame_at(frame) = tag_of(frame);
    *(u8 *)CODE_AT = 0xc3;
}

int main64(void)
{
    protect_memory();
    idt_init();
    map_area();
    for (u32 i = 0; i < sizeof phases / sizeof *phases; i++) {
        sum = MIX_START;
        report(0xb0000000 | i);
        for (u32 round = 0; round < phases[i].rounds; round++)
            phases[i].run();
        report(0xe0000000 | i);
        print("%s %08x\n", phases[i].name, sum);
    }
    print("writes %u, faults: read %u, write %u, fetch %u\n", writes, faults[0], faults[PF_P | PF_W], faults[PF_P | PF_I]);
    check_eq(writes, 203776, "page-table writes");
    check_eq(faults[0], 2 * PAGES, "faults by reading");
    check_eq(faults[PF_P | PF_W], 2 * PAGES, "faults by writing");
    check_eq(faults[PF_P | PF_I], PAGES / 4, "faults by fetching");
    return 0;
}
