/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     shadowtorture
 * bits     64
 * proves   what is hard for a monitor with shadow tables: aliases, tables that map themselves, tables shared between address spaces,
 *          tables changed from another address space, table pages that become data and tables again, rights raised without INVLPG and
 *          lowered with it, accessed and dirty bits, large pages split and joined, writes with CR0.WP = 0, NX, tables in the last page
 *          of memory
 * ends     0: every access found what the tables say, every fault was the expected one
 * mission  10, 11, 13, 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "paging.h"
#include "traps.h"

#define PAGES   512
#define AREA    (1ull << 39)            /* PML4 entry 1 */
#define SELF    510                     /* the PML4 entry that is the PML4 */
#define BIG     (2ull << 39)            /* 2 MiB pages */
#define FRAMES  0x1000000ull            /* frame n holds n in its first word */
#define FRAME(n) (FRAMES + ((u64)(n) << 12))
#define CODE_AT 0x2000000ull            /* a frame whose first byte is RET */
#define LAST_PAGE (0x4000000ull - 4096)
#define OPEN    (P_PRESENT | P_WRITE)

static u32 sum = MIX_START;
static volatile u32 faults;
static volatile u64 wanted_address, wanted_repair;
static u64 *volatile wanted_entry;
static volatile u32 wanted_error;

/* A fault is the one that is wanted, and repaired; or it is spurious: rights were raised, and the entry allows it now (SDM 3A
 * 4.10.4.3).  How many of those come is the processor's business. */
void trap64(struct frame64 *f)
{
    u64 at = read_cr2();

    if (trap_catch(f))
        return;
    if (f->vector == 14 && wanted_entry && at == wanted_address && f->error == wanted_error) {
        faults++;
        *wanted_entry = wanted_repair;
        wanted_entry = NULL;
        invlpg((void *)at);
    } else if (f->vector == 14 && f->error == (PF_P | PF_W) && *pte_at((u64 *)(read_cr3() & P_ADDRESS), 4, at, 1) & P_WRITE) {
        invlpg((void *)at);
    } else {
        trap_unexpected(f);
    }
}

static void want(u64 address, u32 error, u64 *entry, u64 repair)
{
    wanted_address = address;
    wanted_error = error;
    wanted_repair = repair;
    wanted_entry = entry;
}

static volatile u32 *word_at(u64 va) { return (volatile u32 *)va; }

static void expect(u64 va, u32 value, const char *what)
{
    u32 got = *word_at(va);

    if (got != value)
        check_eq(got, value, what);
    sum = mix(sum, got);
}

static u64 *entry_of(u32 page) { return pte_at(identity_pml4, 4, AREA + ((u64)page << 12), 1); }

static void fill(void)
{
    for (u32 n = 0; n < PAGES; n++)
        *(volatile u32 *)FRAME(n) = n;
    for (u32 n = 0; n < PAGES; n++)
        page_map(identity_pml4, 4, AREA + ((u64)n << 12), FRAME(n), 1, P_WRITE);
}

static void aliases(void)
{
    for (u32 n = 0; n < 64; n++) {
        page_map(identity_pml4, 4, AREA + (1 << 21) + ((u64)n << 12), FRAME(7), 1, n & 1 ? P_WRITE : 0);
        page_map(identity_pml4, 4, AREA + (5ull << 30) + ((u64)n << 21), FRAMES, 2, P_WRITE);
    }
    for (u32 n = 1; n < 64; n += 2) {
        word_at(AREA + (1 << 21) + ((u64)n << 12))[1] = n * 3;
        sum = mix(sum, word_at(AREA + (1 << 21) + ((u64)(n - 1) << 12))[1]);
        sum = mix(sum, word_at(AREA + (5ull << 30) + ((u64)n << 21) + (7 << 12))[1]);
    }
    check_eq(word_at(FRAME(7))[1], 63 * 3, "alias");
}

/* The entry of a page, as the page of tables that the PML4 maps through itself. */
static volatile u64 *own_entry(u64 va)
{
    return (volatile u64 *)(0xffff000000000000ull | (u64)SELF << 39 | (va >> 9 & 0x7ffffffff8ull));
}

static void recursion(void)
{
    identity_pml4[SELF] = (word)identity_pml4 | OPEN;
    for (u32 n = 0; n < PAGES; n += 3) {
        u64 va = AREA + ((u64)n << 12);
        volatile u64 *e = own_entry(va);

        check_eq(*e & P_ADDRESS, FRAME(n), "own entry");
        *e = FRAME(PAGES - 1 - n) | OPEN;
        invlpg((void *)va);
        expect(va, PAGES - 1 - n, "through the own entry");
        *e = FRAME(n) | OPEN;
        invlpg((void *)va);
        expect(va, n, "and back");
    }
    check_eq(*own_entry((u64)own_entry((u64)own_entry((u64)own_entry(0)))) & P_ADDRESS, *identity_pml4 & P_ADDRESS, "all levels");
    identity_pml4[SELF] = 0;
    write_cr3(read_cr3());
}

/* A second address space: the first one's tables but for AREA's PT, which is its own. */
static void two_spaces(void)
{
    u64 *other = page_alloc(), *pdpt = page_alloc(), *pd = page_alloc(), *pt = page_alloc();
    u64 first = read_cr3();

    memcpy(other, identity_pml4, 4096);
    for (u32 n = 0; n < PAGES; n++)
        pt[n] = FRAME(n ^ 1) | OPEN;
    pd[0] = (word)pt | OPEN;
    pd[1] = *pte_at(identity_pml4, 4, AREA + (1 << 21), 2);       /* this table is shared */
    pdpt[0] = (word)pd | OPEN;
    other[AREA >> 39] = (word)pdpt | OPEN;
    for (u32 n = 0; n < PAGES; n += 5) {
        u64 va = AREA + ((u64)n << 12);

        write_cr3((word)other);
        expect(va, n ^ 1, "second space");
        *entry_of(n) = FRAME((n * 7) % PAGES) | OPEN;               /* the first one's table, changed from here */
        *pte_at(other, 4, AREA + (1 << 21) + ((n % 64) << 12), 1) = FRAME(n) | OPEN;
        write_cr3(first);
        expect(va, (n * 7) % PAGES, "first space");
        expect(AREA + (1 << 21) + ((n % 64) << 12), n, "shared table");
        *entry_of(n) = FRAME(n) | OPEN;
        pt[n] = FRAME(n) | OPEN;
        write_cr3((word)other);
        expect(va, n, "second space, changed from the first");
        pt[n] = FRAME(n ^ 1) | OPEN;
        write_cr3(first);
        expect(va, n, "first space again");
    }
}

/* AREA's PT is taken out, used as data, and put back. */
static void table_as_data(void)
{
    u64 *pde = pte_at(identity_pml4, 4, AREA, 2), old = *pde;
    u64 *page = (u64 *)(word)(old & P_ADDRESS);

    for (u32 round = 0; round < 4; round++) {
        *pde = 0;
        write_cr3(read_cr3());
        for (u32 n = 0; n < PAGES; n++)
            page[n] = n * 0x9e3779b97f4a7c15ull;
        for (u32 n = 0; n < PAGES; n++)
            sum = mix(sum, page[n] >> 32);
        for (u32 n = 0; n < PAGES; n++)
            page[n] = FRAME((n + round) % PAGES) | OPEN;
        *pde = old;
        write_cr3(read_cr3());
        for (u32 n = 0; n < PAGES; n++)
            expect(AREA + ((u64)n << 12), (n + round) % PAGES, "table again");
    }
    for (u32 n = 0; n < PAGES; n++)
        page[n] = FRAME(n) | OPEN;
    write_cr3(read_cr3());
}

static void rights(void)
{
    for (u32 n = 0; n < PAGES; n += 2) {
        u64 va = AREA + ((u64)n << 12);

        *entry_of(n) = FRAME(n) | P_PRESENT;
        invlpg((void *)va);
        expect(va, n, "read-only");
        *entry_of(n) = FRAME(n) | OPEN;                             /* raised: no INVLPG */
        word_at(va)[2] = n;
        sum = mix(sum, word_at(FRAME(n))[2]);
        *entry_of(n) = FRAME(n) | P_PRESENT;                        /* lowered: INVLPG */
        invlpg((void *)va);
        want(va + 12, PF_P | PF_W, entry_of(n), FRAME(n) | OPEN);
        word_at(va)[3] = n + 1;
        sum = mix(sum, word_at(FRAME(n))[3]);
    }
    check_eq(faults, PAGES / 2, "write faults");
}

static void marks(void)
{
    for (u32 n = 0; n < PAGES; n += 4) {
        u64 va = AREA + ((u64)n << 12), *e = entry_of(n);

        *e &= ~(P_ACCESSED | P_DIRTY);
        invlpg((void *)va);
        expect(va, n, "frame");
        if ((*e & (P_ACCESSED | P_DIRTY)) != P_ACCESSED)
            check_eq(*e & 0xfff, P_ACCESSED | OPEN, "accessed after a read");
        *word_at(va) = n;
        if ((*e & (P_ACCESSED | P_DIRTY)) != (P_ACCESSED | P_DIRTY))
            check_eq(*e & 0xfff, P_ACCESSED | P_DIRTY | OPEN, "dirty after a write");
    }
}

static void split_and_join(void)
{
    u64 *pt = page_alloc(), *pde = pte_at(identity_pml4, 4, BIG, 2);

    for (u32 n = 0; n < PAGES; n++)
        pt[n] = FRAME(PAGES - 1 - n) | OPEN;
    for (u32 round = 0; round < 4; round++) {
        *pde = FRAMES | OPEN | P_LARGE;
        write_cr3(read_cr3());
        for (u32 n = 0; n < PAGES; n += 9)
            expect(BIG + ((u64)n << 12), n, "large");
        *pde = (word)pt | OPEN;
        write_cr3(read_cr3());
        for (u32 n = 0; n < PAGES; n += 9)
            expect(BIG + ((u64)n << 12), PAGES - 1 - n, "split");
    }
}

static void write_protect(void)
{
    for (u32 n = 0; n < 64; n++) {
        u64 va = AREA + ((u64)n << 12), *e = entry_of(n);

        *e = FRAME(n) | P_PRESENT | (n & 1 ? P_USER : 0);
        invlpg((void *)va);
        write_cr0(read_cr0() & ~CR0_WP);
        word_at(va)[4] = n + 100;
        check_eq(*e & P_DIRTY, P_DIRTY, "dirty by a write with WP = 0");
        write_cr0(read_cr0() | CR0_WP);
        want(va + 16, PF_P | PF_W, e, FRAME(n) | OPEN);
        word_at(va)[4] += 1;
        sum = mix(sum, word_at(FRAME(n))[4]);
    }
}

static void no_execute(void)
{
    u64 va = AREA + (3ull << 30);

    *(volatile u8 *)CODE_AT = 0xc3;
    for (u32 n = 0; n < 32; n++) {
        page_map(identity_pml4, 4, va, CODE_AT, 1, P_WRITE);
        invlpg((void *)va);
        asm volatile("call *%0" : : "r"(va) : "memory");
        page_map(identity_pml4, 4, va, CODE_AT, 1, P_WRITE | P_NX);
        invlpg((void *)va);
        want(va, PF_P | PF_I, pte_at(identity_pml4, 4, va, 1), CODE_AT | OPEN);
        asm volatile("call *%0" : : "r"(va) : "memory");
    }
}

static void last_page(void)
{
    u64 va = AREA + (4ull << 30), *pt = (u64 *)LAST_PAGE;

    for (u32 n = 0; n < PAGES; n++)
        pt[n] = FRAME(n) | OPEN;
    *pte_at(identity_pml4, 4, va, 2) = LAST_PAGE | OPEN;
    for (u32 n = 0; n < PAGES; n++)
        expect(va + ((u64)n << 12), n, "table in the last page");
}

int main64(void)
{
    static const struct { const char *name; void (*run)(void); } parts[] = {
        {"aliases", aliases}, {"recursion", recursion}, {"two spaces", two_spaces}, {"table as data", table_as_data}, {"rights", rights},
        {"marks", marks}, {"split and join", split_and_join}, {"write protect", write_protect}, {"no execute", no_execute},
        {"last page", last_page}};

    idt_init();
    write_cr0(read_cr0() | CR0_WP);
    pages_init(0x400000, 0x800000);
    fill();
    for (u32 n = 0; n < sizeof parts / sizeof *parts; n++) {
        parts[n].run();
        print("%s %08x\n", parts[n].name, sum);
    }
    print("faults %u\n", faults);
    return 0;
}
