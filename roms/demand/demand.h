/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole of demand, for any paging format: levels 2 (32-bit entries), 3 (PAE) or 4.  Included by the 32-bit and
 * the 64-bit half; the assembly stubs (stubs.S) exist for both widths.  The ROM `reserved` is made of it too. */
#ifndef DEMAND_H
#define DEMAND_H

#define USER_AT 0x800000                /* the users' stubs and stack: one large page */
#define USER_STACK 0xa00000
#define TEST_PA 0x1800000               /* frame of the page under test */
#define TEST_VA32 0x40000000
#define TEST_VA64 0xffff900000000000
#define EXEC_OFFSET 0x80                /* where the page under test holds int 40 */
#define DONE 0x40

#ifndef __ASSEMBLER__
#include "paging.h"
#include "ring.h"
#include "traps.h"

#define LAZY_OFFSET 0x200000u           /* the lazy region lies this far above the page under test */
#define LAZY_PAGES 64u
#define LAZY_STEPS 4000u

#ifdef __x86_64__
#define TEST_VA TEST_VA64
#define STUB_SUFFIX(name) name##64
#define RING_RUN ring_run64
#define KCODE KCODE64
#define UCODE UCODE64
#else
#define TEST_VA TEST_VA32
#define STUB_SUFFIX(name) name##32
#define RING_RUN ring_run32
#define KCODE KCODE32
#define UCODE UCODE32
#endif

#ifndef RESERVED_BITS                   /* 1: only entries with reserved bits (the ROM `reserved`) */
#define RESERVED_BITS 0
#endif

enum access { READ, WRITE, EXECUTE };
extern const u32 STUB_SUFFIX(stubs)[2][3];      /* [user][access]: where to start */
extern char kernel_stack[], probe_stack[], users_start[], users_end[];

static int levels;
static void *root, *zero_page;
static struct { u32 vector, error; word cr2; } seen;
static struct { u32 mapped, copied; } lazy_seen;
static int lazy_on;

/* ---- entries of either width ---- */
static void *entry_of(word va, int level)
{
    if (levels > 2)
        return pte_at(root, levels, va, level);
    return level == 2 ? &((u32 *)root)[(u32)va >> 22] : pte32_at(root, va);
}
static u64 entry_get(const volatile void *e) { return levels > 2 ? *(const volatile u64 *)e : *(const volatile u32 *)e; }
static void entry_set(volatile void *e, u64 value)
{
    if (levels > 2)
        *(volatile u64 *)e = value;
    else
        *(volatile u32 *)e = value;
}

/* Kernel memory is the supervisor's, USER_AT the user's; 64 MiB in large pages. */
static void tables_build(int n)
{
    u32 large = n == 2 ? 1u << 22 : 1u << 21;
    levels = n;
    root = page_alloc();
    for (u32 at = 0; at < 64u << 20; at += large)
        entry_set(entry_of(at, 2), at | P_LARGE | P_WRITE | P_PRESENT | (at <= USER_AT && USER_AT < at + large ? P_USER : 0));
    u8 *frame = (u8 *)TEST_PA;
    frame[EXEC_OFFSET] = 0xcd;          /* int 40 */
    frame[EXEC_OFFSET + 1] = DONE;
}

/* ---- the rules of SDM 3A 4.6 and 4.7 ---- */
struct rights { int present, write, user, nx, reserved; };
struct mode { int wp, smep, smap, nxe, ac; };

/* The #PF code that the access must cause, or -1 for none. */
static int rule(struct rights r, struct mode m, int user, enum access a)
{
    int code = (a == WRITE ? PF_W : 0) | (user ? PF_U : 0) | (a == EXECUTE && (m.nxe || m.smep) ? PF_I : 0);
    if (!r.present)
        return code;
    if (r.reserved || (r.nx && !m.nxe))
        return code | PF_P | PF_RSVD;
    int good;
    if (user)
        good = r.user && (a != WRITE || r.write) && (a != EXECUTE || !r.nx);
    else if (a == EXECUTE)
        good = !r.nx && !(m.smep && r.user);
    else
        good = (a != WRITE || r.write || !m.wp) && !(m.smap && r.user && !m.ac);
    return good ? -1 : (int)(code | PF_P);
}

static void access_run(int user, enum access a, int ac)
{
    u32 flags = 2 | (ac ? FLAG_AC : 0);
    if (user)
        RING_RUN(UCODE | 3, UDATA | 3, STUB_SUFFIX(stubs)[1][a], USER_STACK, flags);
    else
        RING_RUN(KCODE, KDATA, STUB_SUFFIX(stubs)[0][a], (word)probe_stack, flags);
}

static u32 rule_faults, rule_cases;

/* One access to the page under test, whose leaf and upper entry are given. */
static void rule_check(struct rights r, struct mode m, int user, enum access a, volatile void *leaf, u64 value)
{
    word at = TEST_VA + (a == EXECUTE ? EXEC_OFFSET : 0);
    entry_set(leaf, value);
    invlpg((void *)TEST_VA);
    access_run(user, a, m.ac);
    int expected = rule(r, m, user, a);
    u64 after = entry_get(leaf);
    int good;
    if (expected < 0)
        good = seen.vector == DONE && after == (value | P_ACCESSED | (a == WRITE ? P_DIRTY : 0));
    else
        good = seen.vector == 14 && (int)seen.error == expected && seen.cr2 == at && after == value;
    rom_checks++;
    if (!m.smep && !m.smap) {           /* what CPUID does not offer everywhere stays out of the printed numbers */
        rule_cases++;
        rule_faults += expected >= 0;
    }
    if (good)
        return;
    rom_failures++;
    if (rom_failures < 20)
        print("FAIL levels %u entry %llx wp %u smep %u smap %u nxe %u ac %u user %u access %u upper w %u u %u: vector %u code %x "
              "entry then %llx, expected code %d\n", levels, value, m.wp, m.smep, m.smap, m.nxe, m.ac, user, a, r.write,
              r.user, seen.vector, seen.error, after, expected);
}

/* All leaves under all upper entries by all accesses, in one mode.  level 1 = 4 KiB page, 2 = large page. */
static void mode_check(struct mode m, int level)
{
    volatile void *upper = level == 1 ? entry_of(TEST_VA, 2) : 0, *leaf = entry_of(TEST_VA, level);
    u64 upper_value = upper ? entry_get(upper) & ~(P_WRITE | P_USER) : 0;
    u64 reserved = level == 2 ? (levels == 2 ? 1ull << 21 : 1ull << 13) : levels == 2 ? 0 : 1ull << 51;
    for (int up = 0; up < (upper ? 4 : 1); up++) {
        int up_write = upper ? up & 1 : 1, up_user = upper ? up >> 1 : 1;
        if (upper)
            entry_set(upper, upper_value | (up_write ? P_WRITE : 0) | (up_user ? P_USER : 0));
        for (int bits = 0; bits < 32; bits++) {
            struct rights r = {bits & 1, bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1, bits >> 4 & 1};
            if ((r.nx && levels == 2) || (r.reserved && !reserved))
                continue;
            if (r.present && (r.reserved || (r.nx && !m.nxe)) != RESERVED_BITS)
                continue;
            u64 value = TEST_PA | (bits & 7) | (r.nx ? P_NX : 0) | (r.reserved ? reserved : 0) | (level == 2 ? P_LARGE : 0);
            r.write &= up_write;
            r.user &= up_user;
            for (int user = 0; user < 2; user++)
                for (int a = READ; a <= EXECUTE; a++)
                    rule_check(r, m, user, a, leaf, value);
        }
    }
}

static void rules_check(int level)
{
    u32 features = cpuid(0, 0).a >= 7 ? cpuid(7, 0).b : 0;
    int has_smep = features >> 7 & 1, has_smap = features >> 20 & 1;
    for (int wp = 0; wp < 2; wp++)
        for (int smep = 0; smep <= has_smep; smep++)
            for (int smap = 0; smap <= has_smap; smap++)
                for (int nxe = 0; nxe <= (levels > 2); nxe++)
                    for (int ac = 0; ac <= smap; ac++) {
                        write_cr0((read_cr0() & ~(word)CR0_WP) | (wp ? CR0_WP : 0));
                        write_cr4((read_cr4() & ~(word)(CR4_SMEP | CR4_SMAP)) | (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0));
                        wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_NXE) | (nxe ? EFER_NXE : 0));
                        mode_check((struct mode){wp, smep, smap, nxe, ac}, level);
                    }
    write_cr4(read_cr4() & ~(word)(CR4_SMEP | CR4_SMAP));
}

/* ---- demand-zero and copy-on-write ---- */
static void lazy_fault(u32 error, word at)
{
    void *e = entry_of(at, 1);
    if (!(error & PF_P)) {              /* first touch: everybody's zero page, read-only */
        lazy_seen.mapped++;
        entry_set(e, (word)zero_page | P_PRESENT);
    }
    if (error & PF_W) {                 /* write: a copy of one's own */
        void *copy = page_alloc();
        lazy_seen.copied++;
        memcpy(copy, (void *)(at & ~(word)4095), 4096);
        entry_set(e, (word)copy | P_WRITE | P_PRESENT);
    }
    invlpg((void *)at);
}

/* A walk of reads and writes over the region, with the same walk on plain memory as expectation. */
static u32 lazy_walk(volatile u32 *region)
{
    static u32 shadow[LAZY_PAGES];
    u32 x = 12345, sum = MIX_START, touched = 0, written = 0;
    static u8 state[LAZY_PAGES];
    memset(shadow, 0, sizeof shadow);
    memset(state, 0, sizeof state);
    for (u32 i = 0; i < LAZY_STEPS; i++) {
        x = x * 1103515245 + 12345;
        u32 page = x >> 16 & (LAZY_PAGES - 1);
        if (page & 1 || x >> 24 & 3) {  /* odd pages are only read */
            sum = mix(sum, region[page * 1024]);
            check(region[page * 1024] == shadow[page], "word of the lazy region");
        } else {
            region[page * 1024] = shadow[page] = x;
            state[page] |= 2;
        }
        state[page] |= 1;
    }
    for (u32 page = 0; page < LAZY_PAGES; page++) {
        u64 e = entry_get(entry_of((word)&region[page * 1024], 1));
        touched += state[page] & 1;
        written += state[page] >> 1;
        check_eq(e >> 5 & 3, state[page] ? 1 | (state[page] & 2) : 0, "A and D of a lazy page");
    }
    check_eq(lazy_seen.mapped, touched, "pages mapped");
    check_eq(lazy_seen.copied, written, "pages copied");
    return sum;
}

/* A and D again after they were cleared: only what was used since. */
static u32 accessed_again(volatile u32 *region)
{
    u32 a = 0, d = 0;
    for (u32 page = 0; page < LAZY_PAGES; page++) {
        void *e = entry_of((word)&region[page * 1024], 1);
        entry_set(e, entry_get(e) & ~(P_ACCESSED | P_DIRTY));
        invlpg((void *)&region[page * 1024]);
    }
    for (u32 page = 0; page < LAZY_PAGES; page += 3)
        (void)region[page * 1024];
    for (u32 page = 0; page < LAZY_PAGES; page += 4)
        region[page * 1024 + 1] = page;
    for (u32 page = 0; page < LAZY_PAGES; page++) {
        u64 e = entry_get(entry_of((word)&region[page * 1024], 1));
        a += e >> 5 & 1;
        d += e >> 6 & 1;
        check_eq(e >> 5 & 3, (page % 3 == 0 || page % 4 == 0) | (page % 4 == 0) << 1, "A and D after clearing");
    }
    return a * 1000 + d;
}

static void lazy_run(const char *name)
{
    volatile u32 *region = (u32 *)(TEST_VA + LAZY_OFFSET);
    write_cr0(read_cr0() | CR0_WP);
    lazy_seen.mapped = lazy_seen.copied = 0;
    lazy_on = 1;
    u32 sum = lazy_walk(region), again = accessed_again(region);
    lazy_on = 0;
    print("%s: walk %08x, mapped %u, copied %u, accessed and dirty again %u\n", name, sum, lazy_seen.mapped, lazy_seen.copied,
          again);
}

/* Everything, in the format that is now on. */
static void demand_run(const char *name)
{
    rule_cases = rule_faults = 0;
    entry_of(TEST_VA, 1);
    write_cr3(read_cr3());              /* a new PDPTE counts from the next MOV to CR3 on (SDM 3A 4.4.1) */
    rules_check(1);
    u64 table = entry_get(entry_of(TEST_VA, 2));
    rules_check(2);
    entry_set(entry_of(TEST_VA, 2), (table & P_ADDRESS) | 7);
    write_cr3(read_cr3());
    print("%s: %u accesses, %u faults as the rules say\n", name, rule_cases, rule_faults);
    if (!RESERVED_BITS)
        lazy_run(name);
}

static void demand_trap(trap_frame *f)
{
    word cr2 = read_cr2();
    if (f->vector == 14 && lazy_on && cr2 - TEST_VA - LAZY_OFFSET < LAZY_PAGES * 4096) {
        lazy_fault(f->error, cr2);
        return;
    }
    if (f->vector != 14 && f->vector != DONE)
        trap_unexpected(f);
    seen.vector = f->vector;
    seen.error = f->error;
    seen.cr2 = cr2;
#ifdef __x86_64__
    ring_leave64();
#else
    ring_leave32();
#endif
}
#endif
#endif
