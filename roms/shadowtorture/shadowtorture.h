/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole of shadowtorture, for any paging format: levels 2 (32-bit entries), 3 (PAE) or 4.  Included by the 32-bit and
 * the 64-bit half. */
#ifndef SHADOWTORTURE_H
#define SHADOWTORTURE_H

#include "paging.h"
#include "traps.h"

#ifdef __x86_64__
#define AREA    (1ull << 39)            /* PML4 entry 1 */
#else
#define AREA    0x40000000u             /* PDPTE 1 */
#endif
#define SECOND  (AREA + (1u << 22))     /* another table's pages, in every format */
#define LARGE   (AREA + 0x10000000u)    /* 64 large pages */
#define BIG     (AREA + 0x20000000u)    /* one that comes and goes */
#define CODE    (AREA + 0x28000000u)
#define LAST    (AREA + 0x30000000u)
#define FRAMES  0x1000000u              /* frame n holds n in its first word */
#define FRAME(n) (FRAMES + ((u32)(n) << 12))
#define CODE_AT 0x2000000u              /* a frame whose first byte is RET */
#define MEMORY  0x4000000u
#define LAST_PAGE (MEMORY - 4096)
#define OPEN    (P_PRESENT | P_WRITE)

static int levels;
static void *root;
static u32 pages;                       /* as many as a table has entries */
static u32 sum;
static volatile u32 faults;
static volatile word wanted_address;
static volatile u64 wanted_repair;
static volatile void *volatile wanted_entry;
static volatile u32 wanted_error;

/* ---- entries of either width ---- */
static volatile void *entry_in(void *table, word va, int level)
{
    if (levels > 2)
        return pte_at(table, levels, va, level);
    return level == 2 ? &((u32 *)table)[(u32)va >> 22] : pte32_at(table, va);
}
static volatile void *entry_at(word va, int level) { return entry_in(root, va, level); }
static u64 get(const volatile void *e) { return levels > 2 ? *(const volatile u64 *)e : *(const volatile u32 *)e; }
static void set(volatile void *e, u64 value)
{
    if (levels > 2)
        *(volatile u64 *)e = value;
    else
        *(volatile u32 *)e = value;
}
static volatile void *nth(const volatile void *table, u32 n) { return (u8 *)table + n * (levels > 2 ? 8 : 4); }
static void *table_of(const volatile void *e) { return (void *)(word)(get(e) & P_ADDRESS); }
static void map(word va, u64 pa, int level, u64 bits) { set(entry_at(va, level), pa | bits | P_PRESENT | (level > 1 ? P_LARGE : 0)); }
static word page_at(word area, u32 n) { return area + ((word)n << 12); }
static volatile void *entry_of(u32 n) { return entry_at(page_at(AREA, n), 1); }
static u32 large_size(void) { return levels == 2 ? 1u << 22 : 1u << 21; }
static void flush(void) { write_cr3(read_cr3()); }

/* All of memory where it is, in large pages, and the upper tables that PAE's PDPTEs must have before MOV to CR3. */
static void tables_build(int n)
{
    levels = n;
    pages = n == 2 ? 1024 : 512;
    pages_init(0x400000, 0x800000);
    root = page_alloc();
    for (u32 at = 0; at < MEMORY; at += large_size())
        map(at, at, 2, P_WRITE);
    if (n == 3)
        for (word gigabyte = 0; gigabyte < 4; gigabyte++)
            entry_at(gigabyte << 30, 2);
}

/* A fault is the one that is wanted, and repaired; or it is spurious: rights were raised, and the entry allows it now (SDM 3A
 * 4.10.4.3).  How many of those come is the processor's business. */
static void torture_trap(trap_frame *f)
{
    word at = read_cr2();

    if (f->vector == 14 && wanted_entry && at == wanted_address && f->error == wanted_error) {
        faults++;
        set(wanted_entry, wanted_repair);
        wanted_entry = NULL;
        invlpg((void *)at);
    } else if (f->vector == 14 && f->error == (PF_P | PF_W) && get(entry_at(at, 1)) & P_WRITE) {
        invlpg((void *)at);
    } else {
        trap_unexpected(f);
    }
}

static void want(word address, u32 error, volatile void *entry, u64 repair)
{
    wanted_address = address;
    wanted_error = error;
    wanted_repair = repair;
    wanted_entry = entry;
}

static volatile u32 *word_at(word va) { return (volatile u32 *)va; }

static void expect(word va, u32 value, const char *what)
{
    u32 got = *word_at(va);

    if (got != value)
        check_eq(got, value, what);
    sum = mix(sum, got);
}

static void fill(void)
{
    for (u32 n = 0; n < pages; n++)
        *word_at(FRAME(n)) = n;
    for (u32 n = 0; n < pages; n++)
        map(page_at(AREA, n), FRAME(n), 1, P_WRITE);
}

static void aliases(void)
{
    for (u32 n = 0; n < 64; n++) {
        map(page_at(SECOND, n), FRAME(7), 1, n & 1 ? P_WRITE : 0);
        map(LARGE + n * large_size(), FRAMES, 2, P_WRITE);
    }
    for (u32 n = 1; n < 64; n += 2) {
        word_at(page_at(SECOND, n))[1] = n * 3;
        sum = mix(sum, word_at(page_at(SECOND, n - 1))[1]);
        sum = mix(sum, word_at(LARGE + n * large_size() + (7 << 12))[1]);
    }
    check_eq(word_at(FRAME(7))[1], 63 * 3, "alias");
}

/* The entry of a page, in the tables that map themselves at the end of the address space (4 levels: near it). */
static volatile void *own_entry(word va)
{
    if (levels < 4)
        return (void *)(word)(levels == 2 ? 0xffc00000u | ((u32)va >> 10 & 0x3ffffc) : 0xff800000u | ((u32)va >> 9 & 0x7ffff8));
#ifdef __x86_64__
    return (void *)(0xffff000000000000 | 510ull << 39 | (va >> 9 & 0x7ffffffff8));
#else
    return NULL;
#endif
}

/* Let the tables map themselves: the top one through an entry of its own, PAE's directories through the last four of the last. */
static void own_map(u64 bits)
{
    if (levels == 3)
        for (word n = 0; n < 4; n++)
            set(entry_at(0xff800000u + (n << 21), 2), bits ? (word)table_of(nth(root, n)) | bits : 0);
    else
        set(nth(root, levels == 2 ? 1023 : 510), bits ? (word)root | bits : 0);
}

static void recursion(void)
{
    word top = 0;

    own_map(OPEN);
    for (u32 n = 0; n < pages; n += 3) {
        word va = page_at(AREA, n);
        volatile void *e = own_entry(va);

        check_eq(get(e) & P_ADDRESS, FRAME(n), "own entry");
        set(e, FRAME(pages - 1 - n) | OPEN);
        invlpg((void *)va);
        expect(va, pages - 1 - n, "through the own entry");
        set(e, FRAME(n) | OPEN);
        invlpg((void *)va);
        expect(va, n, "and back");
    }
    for (int n = 0; n < (levels == 4 ? 4 : 2); n++)
        top = (word)own_entry(top);
    check_eq(get((void *)top) & P_ADDRESS, get(levels == 4 ? root : entry_at(0, 2)) & P_ADDRESS, "all levels");
    own_map(0);
    flush();
}

/* Another root, and with it a way of its own to AREA's table, of which there are two now; all else is shared. */
static void *second_space(void *pt)
{
    void *other = page_alloc(), *table = other;

    memcpy(other, root, 4096);
    for (int level = levels; level > 2; level--) {
        volatile void *e = nth(table, AREA >> (12 + 9 * (level - 1)) & 511);
        void *copy = page_alloc();

        memcpy(copy, table_of(e), 4096);
        set(e, (word)copy | (get(e) & 7));
        table = copy;
    }
    set(entry_in(other, AREA, 2), (word)pt | OPEN);
    return other;
}

static void two_spaces(void)
{
    void *pt = page_alloc(), *other = second_space(pt);

    for (u32 n = 0; n < pages; n++)
        set(nth(pt, n), FRAME(n ^ 1) | OPEN);
    for (u32 n = 0; n < pages; n += 5) {
        word va = page_at(AREA, n), shared = page_at(SECOND, n % 64);

        write_cr3((word)other);
        expect(va, n ^ 1, "second space");
        set(entry_of(n), FRAME((n * 7) % pages) | OPEN);            /* the first one's table, changed from here */
        set(entry_in(other, shared, 1), FRAME(n) | OPEN);
        write_cr3((word)root);
        expect(va, (n * 7) % pages, "first space");
        expect(shared, n, "shared table");
        set(entry_of(n), FRAME(n) | OPEN);
        set(nth(pt, n), FRAME(n) | OPEN);
        write_cr3((word)other);
        expect(va, n, "second space, changed from the first");
        set(nth(pt, n), FRAME(n ^ 1) | OPEN);
        write_cr3((word)root);
        expect(va, n, "first space again");
    }
}

/* AREA's table is taken out, used as data, and put back. */
static void table_as_data(void)
{
    volatile void *pde = entry_at(AREA, 2);
    u64 old = get(pde);
    u32 *data = table_of(pde);

    for (u32 round = 0; round < 4; round++) {
        set(pde, 0);
        flush();
        for (u32 n = 0; n < 1024; n++)
            data[n] = n * 0x9e3779b1u;
        for (u32 n = 0; n < 1024; n++)
            sum = mix(sum, data[n]);
        for (u32 n = 0; n < pages; n++)
            set(nth(data, n), FRAME((n + round) % pages) | OPEN);
        set(pde, old);
        flush();
        for (u32 n = 0; n < pages; n++)
            expect(page_at(AREA, n), (n + round) % pages, "table again");
    }
    for (u32 n = 0; n < pages; n++)
        set(nth(data, n), FRAME(n) | OPEN);
    flush();
}

static void rights(void)
{
    u32 before = faults;

    for (u32 n = 0; n < pages; n += 2) {
        word va = page_at(AREA, n);

        set(entry_of(n), FRAME(n) | P_PRESENT);
        invlpg((void *)va);
        expect(va, n, "read-only");
        set(entry_of(n), FRAME(n) | OPEN);                          /* raised: no INVLPG */
        word_at(va)[2] = n;
        sum = mix(sum, word_at(FRAME(n))[2]);
        set(entry_of(n), FRAME(n) | P_PRESENT);                     /* lowered: INVLPG */
        invlpg((void *)va);
        want(va + 12, PF_P | PF_W, entry_of(n), FRAME(n) | OPEN);
        word_at(va)[3] = n + 1;
        sum = mix(sum, word_at(FRAME(n))[3]);
    }
    check_eq(faults - before, pages / 2, "write faults");
}

static void marks(void)
{
    for (u32 n = 0; n < pages; n += 4) {
        word va = page_at(AREA, n);
        volatile void *e = entry_of(n);

        set(e, get(e) & ~(P_ACCESSED | P_DIRTY));
        invlpg((void *)va);
        expect(va, n, "frame");
        if ((get(e) & (P_ACCESSED | P_DIRTY)) != P_ACCESSED)
            check_eq(get(e) & 0xfff, P_ACCESSED | OPEN, "accessed after a read");
        *word_at(va) = n;
        if ((get(e) & (P_ACCESSED | P_DIRTY)) != (P_ACCESSED | P_DIRTY))
            check_eq(get(e) & 0xfff, P_ACCESSED | P_DIRTY | OPEN, "dirty after a write");
    }
}

static void split_and_join(void)
{
    void *pt = page_alloc();
    volatile void *pde = entry_at(BIG, 2);

    for (u32 n = 0; n < pages; n++)
        set(nth(pt, n), FRAME(pages - 1 - n) | OPEN);
    for (u32 round = 0; round < 4; round++) {
        set(pde, FRAMES | OPEN | P_LARGE);
        flush();
        for (u32 n = 0; n < pages; n += 9)
            expect(page_at(BIG, n), n, "large");
        set(pde, (word)pt | OPEN);
        flush();
        for (u32 n = 0; n < pages; n += 9)
            expect(page_at(BIG, n), pages - 1 - n, "split");
    }
}

static void write_protect(void)
{
    for (u32 n = 0; n < 64; n++) {
        word va = page_at(AREA, n);
        volatile void *e = entry_of(n);

        set(e, FRAME(n) | P_PRESENT | (n & 1 ? P_USER : 0));
        invlpg((void *)va);
        write_cr0(read_cr0() & ~(word)CR0_WP);
        word_at(va)[4] = n + 100;
        check_eq(get(e) & P_DIRTY, P_DIRTY, "dirty by a write with WP = 0");
        write_cr0(read_cr0() | CR0_WP);
        want(va + 16, PF_P | PF_W, e, FRAME(n) | OPEN);
        word_at(va)[4] += 1;
        sum = mix(sum, word_at(FRAME(n))[4]);
    }
}

static void no_execute(void)
{
    if (levels == 2)                    /* its entries have no such bit */
        return;
    *(volatile u8 *)CODE_AT = 0xc3;
    for (u32 n = 0; n < 32; n++) {
        map(CODE, CODE_AT, 1, P_WRITE);
        invlpg((void *)CODE);
        asm volatile("call *%0" : : "r"(CODE) : "memory");
        map(CODE, CODE_AT, 1, P_WRITE | P_NX);
        invlpg((void *)CODE);
        want(CODE, PF_P | PF_I, entry_at(CODE, 1), CODE_AT | OPEN);
        asm volatile("call *%0" : : "r"(CODE) : "memory");
    }
}

static void last_page(void)
{
    for (u32 n = 0; n < pages; n++)
        set(nth((void *)LAST_PAGE, n), FRAME(n) | OPEN);
    set(entry_at(LAST, 2), LAST_PAGE | OPEN);
    for (u32 n = 0; n < pages; n++)
        expect(page_at(LAST, n), n, "table in the last page");
}

static void torture(const char *format)
{
    static const struct { const char *name; void (*run)(void); } parts[] = {
        {"aliases", aliases}, {"recursion", recursion}, {"two spaces", two_spaces}, {"table as data", table_as_data}, {"rights", rights},
        {"marks", marks}, {"split and join", split_and_join}, {"write protect", write_protect}, {"no execute", no_execute},
        {"last page", last_page}};

    sum = MIX_START;
    faults = 0;
    fill();
    for (u32 n = 0; n < sizeof parts / sizeof *parts; n++) {
        parts[n].run();
        print("%s: %s %08x\n", format, parts[n].name, sum);
    }
    print("%s: faults %u\n", format, faults);
}
#endif
