/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     aspace
 * bits     64
 * proves   six address spaces with the same virtual addresses and different contents never see each other:
 *          switched by MOV CR3 without and with global pages and, where CPUID says so, with PCID, no-flush bit and
 *          INVPCID, while pages are remapped in the running, another and all spaces.  The checksum of a run must
 *          not depend on the way.  Report words: 0xB000000n before and 0xE000000n after run n, and before run 2
 *          0xC1D00000 | CPUID's PCID bit << 4 | its INVPCID bit: without PCID run 2 is like run 1.
 * ends     0: every word read was the space's own and the runs agree; 1: a FAIL line
 * mission  10 15 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define SPACES     6
#define PAGES      32                   /* private pages of a space */
#define SHARED     16                   /* pages that all spaces see alike; global when CR4.PGE is set */
#define SWITCHES   8000                 /* a run */
#define AREA       (1ull << 39)         /* private pages: PML4 entry 1 of each space */
#define SHARED_AT  (2ull << 39)         /* shared pages: PML4 entry 2, one table for all */
#define FRAMES_AT  0x1000000ull
#define NO_FLUSH   0x8000000000000000ull        /* CR3 bit 63: keep the new PCID's entries, SDM 3A 4.10.4.1 */
#define CPUID_PCID (1u << 17)           /* leaf 1 ECX */
#define CPUID_INVPCID (1u << 10)        /* leaf 7 EBX */

enum { RUN_PLAIN, RUN_GLOBAL, RUN_PCID, RUNS };

static struct space {
    u64 *pml4;
    volatile u64 *pte[PAGES];
    u32 frame[PAGES], content[SPACES * PAGES + SHARED];     /* content by frame number, where the space owns it */
    int stale;                          /* its cached translations may be wrong: flush at the next switch */
} spaces[SPACES];
static volatile u64 *shared_pte[SHARED];
static u32 shared_frame[SHARED], shared_content[SHARED];
static u32 current, seed, sum, use_pcid, use_invpcid;

static u32 random_below(u32 n)
{
    seed = seed * 1664525 + 1013904223;
    return (u64)seed * n >> 32;
}

static u64 frame_at(u32 frame) { return FRAMES_AT + ((u64)frame << 12); }
static volatile u32 *private_word(u32 page) { return (u32 *)(AREA + ((u64)page << 12)); }
static volatile u32 *shared_word(u32 page) { return (u32 *)(SHARED_AT + ((u64)page << 12)); }

static void invpcid(u64 type, u64 pcid, const volatile void *address)
{
    struct { u64 pcid, address; } what = {pcid, (word)address};

    asm volatile("invpcid %1, %0" : : "r"(type), "m"(what) : "memory");
}

/* Without PCID every MOV CR3 drops all that is not global.  With it only a stale space pays for a flush. */
static void switch_to(u32 n)
{
    u64 cr3 = (word)spaces[n].pml4;

    if (use_pcid)
        cr3 |= (n + 1) | (spaces[n].stale ? 0 : NO_FLUSH);
    spaces[n].stale = 0;
    current = n;
    write_cr3(cr3);
}

/* ---- what a step may do; each keeps the model in step with the tables ---- */
static void read_private(void)
{
    struct space *s = &spaces[current];
    u32 page = random_below(PAGES), got = *private_word(page);

    if (got != s->content[s->frame[page]])
        check_eq(got, s->content[s->frame[page]], "private word");
    sum = mix(sum, got);
}

static void write_private(void)
{
    struct space *s = &spaces[current];
    u32 page = random_below(PAGES);

    s->content[s->frame[page]] = seed ^ current;
    *private_word(page) = seed ^ current;
}

static void read_shared(void)
{
    u32 page = random_below(SHARED), got = *shared_word(page);

    if (got != shared_content[shared_frame[page]])
        check_eq(got, shared_content[shared_frame[page]], "shared word");
    sum = mix(sum, got);
}

static void write_shared(void)
{
    u32 page = random_below(SHARED);

    shared_content[shared_frame[page]] = seed;
    *shared_word(page) = seed;
}

static void swap_frames(struct space *s, u32 a, u32 b)
{
    u32 frame = s->frame[a];
    u64 pte = *s->pte[a];

    s->frame[a] = s->frame[b];
    s->frame[b] = frame;
    *s->pte[a] = *s->pte[b];
    *s->pte[b] = pte;
}

static void remap_current(void)
{
    u32 a = random_below(PAGES), b = random_below(PAGES);

    swap_frames(&spaces[current], a, b);
    invlpg(private_word(a));
    invlpg(private_word(b));
}

/* Another space's entries are out of INVLPG's reach: INVPCID takes them by number, otherwise the switch flushes. */
static void remap_other(void)
{
    u32 n = random_below(SPACES), a = random_below(PAGES), b = random_below(PAGES);

    if (n == current)
        return;
    swap_frames(&spaces[n], a, b);
    if (use_invpcid && a & 1) {
        invpcid(0, n + 1, private_word(a));
        invpcid(0, n + 1, private_word(b));
    } else if (use_invpcid && b & 1) {
        invpcid(1, n + 1, 0);
    } else {
        spaces[n].stale = 1;
    }
}

/* Global entries survive MOV CR3 and have no PCID: INVLPG drops them whatever space is current. */
static void remap_shared(void)
{
    u32 a = random_below(SHARED), b = random_below(SHARED), frame = shared_frame[a];
    u64 pte = *shared_pte[a];

    shared_frame[a] = shared_frame[b];
    shared_frame[b] = frame;
    *shared_pte[a] = *shared_pte[b];
    *shared_pte[b] = pte;
    invlpg(shared_word(a));
    invlpg(shared_word(b));
}

/* Two shared pages change places and everything goes: INVPCID type 2 where there is one, otherwise CR4.PGE is toggled,
 * and for processors without PGE in use CR3 is reloaded. */
static void remap_and_flush_all(void)
{
    u32 a = random_below(SHARED), b = random_below(SHARED), frame = shared_frame[a];
    u64 pte = *shared_pte[a];
    word cr4 = read_cr4();

    shared_frame[a] = shared_frame[b];
    shared_frame[b] = frame;
    *shared_pte[a] = *shared_pte[b];
    *shared_pte[b] = pte;
    if (use_invpcid) {
        invpcid(2, 0, 0);
    } else {
        write_cr4(cr4 ^ CR4_PGE);
        write_cr4(cr4);
    }
}

static void flush_not_global(void)
{
    if (use_invpcid)
        invpcid(3, 0, 0);
    else
        spaces[current].stale = 1, switch_to(current);
}

static void step(void)
{
    u32 what = random_below(100);

    if (what < 45)
        read_private();
    else if (what < 65)
        write_private();
    else if (what < 80)
        read_shared();
    else if (what < 88)
        write_shared();
    else if (what < 92)
        remap_current();
    else if (what < 96)
        remap_other();
    else if (what < 98)
        remap_shared();
    else if (what < 99)
        remap_and_flush_all();
    else
        flush_not_global();
}

/* ---- a run: the same start and the same random sequence each time ---- */
static void reset_spaces(void)
{
    for (u32 n = 0; n < SPACES; n++)
        for (u32 page = 0; page < PAGES; page++) {
            u32 frame = n * PAGES + page;
            spaces[n].frame[page] = frame;
            *spaces[n].pte[page] = frame_at(frame) | P_PRESENT | P_WRITE | P_NX;
            *(u32 *)frame_at(frame) = spaces[n].content[frame] = (frame + 1) * 0x9e3779b1u;
            spaces[n].stale = 1;
        }
    for (u32 page = 0; page < SHARED; page++) {
        u32 frame = SPACES * PAGES + page;
        shared_frame[page] = page;
        *shared_pte[page] = frame_at(frame) | P_PRESENT | P_WRITE | P_NX | P_GLOBAL;
        *(u32 *)frame_at(frame) = shared_content[page] = frame * 0x85ebca6bu;
    }
}

static u32 run(u32 number)
{
    write_cr3((word)identity_pml4);
    reset_spaces();
    if (number != RUN_PLAIN)
        write_cr4(read_cr4() | CR4_PGE);
    if (number == RUN_PCID && cpuid(1, 0).c & CPUID_PCID) {
        use_pcid = 1;
        use_invpcid = cpuid(7, 0).b & CPUID_INVPCID;
        write_cr4(read_cr4() | CR4_PCIDE);
    }
    seed = 4711;
    sum = MIX_START;
    report(0xb0000000 | number);
    for (u32 n = 0; n < SWITCHES; n++) {
        switch_to(random_below(SPACES));
        for (u32 steps = random_below(16); steps > 0; steps--)
            step();
    }
    report(0xe0000000 | number);
    use_pcid = use_invpcid = 0;
    write_cr3((word)identity_pml4);     /* PCID 0 again */
    write_cr4(read_cr4() & ~(word)(CR4_PCIDE | CR4_PGE));
    return sum;
}

static void build_spaces(void)
{
    pages_init(0x400000, FRAMES_AT);
    for (u32 page = 0; page < SHARED; page++)
        shared_pte[page] = pte_at(identity_pml4, 4, (word)shared_word(page), 1);
    for (u32 n = 0; n < SPACES; n++) {
        spaces[n].pml4 = page_alloc();
        spaces[n].pml4[0] = identity_pml4[0];
        spaces[n].pml4[2] = identity_pml4[2];
        for (u32 page = 0; page < PAGES; page++)
            spaces[n].pte[page] = pte_at(spaces[n].pml4, 4, (word)private_word(page), 1);
    }
    for (u32 i = 2; i < 2048; i++)      /* the kernel's large pages are global too */
        identity_pd[i] |= P_GLOBAL;
}

int main64(void)
{
    static const char *const names[RUNS] = {"plain", "global pages", "best of this processor"};
    u32 result[RUNS];

    protect_memory();
    build_spaces();
    for (u32 n = 0; n < RUNS; n++) {
        if (n == RUN_PCID)
            report(0xc1d00000 | !!(cpuid(1, 0).c & CPUID_PCID) << 4 | !!(cpuid(7, 0).b & CPUID_INVPCID));
        result[n] = run(n);
        print("%s %08x\n", names[n], result[n]);
        check_eq(result[n], result[0], "runs agree");
    }
    return 0;
}
