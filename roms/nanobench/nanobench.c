/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     nanobench
 * bits     64
 * proves   what one operation costs: the nine of Adams & Agesen (ASPLOS 2006, nanobenchmarks) and RDTSC, each in a loop around
 *          which the TSC is read, less the loop itself.  Report words: operation number, then cycles of all rounds and rounds.
 * ends     0: all loops ran; 1: a FAIL line
 * mission  13, 42, 44, 77
 * qemu     no: prints times; the witness is the paper's table
 * time     yes: prints times
 * styles   all
 * memory   64M
 * kind     cost
 */
#include "paging.h"
#include "traps.h"

#define ROUNDS  512ull                  /* as many as entries in a table: each entry is written once */
#define AREA    (1ull << 39)            /* 2 MiB of its own, mapped by one table */
#define ABSENT  (2ull << 39)
#define FRAMES  0x1000000ull
#define USER_AT 0x2000000ull

typedef void loop(u64 rounds, u64 a, u64 b);
loop op_empty, op_rdtsc, op_in80, op_callret, op_cr8, op_divide, op_fault, op_syscall, op_pte_loop, op_pte_same, op_pte_hide, op_pte_show;
void divide_handler(void), fault_handler(void), syscall_entry(void);
extern u8 caller[], caller_end[];
static struct tss64 tss;
static u64 *table;

CATCH_ONLY

static u64 cycles_of(loop *run, u64 a, u64 b)
{
    u64 before = rdtsc();

    run(ROUNDS, a, b);
    return rdtsc() - before;
}

static void touch_all(void)
{
    for (u64 i = 0; i < ROUNDS; i++)
        *(volatile u32 *)(AREA + (i << 12)) = i;
}

static void measure(u32 number, const char *name, loop *run, u64 a, u64 b, loop *without)
{
    u64 base, all;

    cycles_of(without, a, b);           /* once before: what code and data cost at first sight is not the operation's */
    base = cycles_of(without, a, b);
    if (run != op_pte_hide && run != op_pte_show)
        cycles_of(run, a, b);
    all = cycles_of(run, a, b);
    all = all > base ? all - base : 0;
    report(number);
    report(all);
    report(ROUNDS);
    print("%s %llu\n", name, all / ROUNDS);
}

int main64(void)
{
    static const char *const names[] = {"syscall", "in", "cr8wr", "call/ret", "pgfault", "divzero", "pte-unchanged", "pte-to-not-present",
                                        "pte-to-present", "rdtsc"};

    idt_init();
    idt_set(0, divide_handler, GATE_INT, 0);
    load_tss(&tss, sizeof tss - 1);
    tss.rsp[0] = (word)stack_top;
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE64 << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_TF | FLAG_DF);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    pages_init(0x400000, 0x500000);
    for (u64 i = 0; i < ROUNDS; i++)
        page_map(identity_pml4, 4, AREA + (i << 12), FRAMES, 1, P_WRITE | P_ACCESSED | P_DIRTY);
    table = pte_at(identity_pml4, 4, AREA, 1);
    memcpy((void *)USER_AT, caller, caller_end - caller);

    measure(0, names[0], op_syscall, USER_AT + 0x10000, USER_AT, op_empty);
    measure(1, names[1], op_in80, 0, 0, op_empty);
    measure(2, names[2], op_cr8, 0, 0, op_empty);
    measure(3, names[3], op_callret, 0, 0, op_empty);
    idt_set(14, fault_handler, GATE_INT, 0);
    measure(4, names[4], op_fault, ABSENT, 0, op_empty);
    idt_set(14, (void *)(word)trap_stubs64[14], GATE_INT, 0);
    measure(5, names[5], op_divide, 0, 0, op_empty);
    touch_all();
    measure(6, names[6], op_pte_same, (word)table, table[0], op_pte_loop);
    op_pte_hide(ROUNDS, (word)table, 0);       /* once before, as above */
    op_pte_show(ROUNDS, (word)table, 0);
    write_cr3(read_cr3());
    touch_all();
    measure(7, names[7], op_pte_hide, (word)table, 0, op_pte_loop);
    write_cr3(read_cr3());
    measure(8, names[8], op_pte_show, (word)table, 0, op_pte_loop);
    write_cr3(read_cr3());
    touch_all();
    measure(9, names[9], op_rdtsc, 0, 0, op_empty);
    return 0;
}
