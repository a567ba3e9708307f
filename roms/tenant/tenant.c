/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     tenant
 * bits     64
 * proves   registers and memory hold what was put into them, whoever else has the processor meanwhile: general, x87, MMX
 *          and SSE registers and their control words, segment bases, MSRs, debug addresses, CR2, and a word in each of 96 pages.
 *          Tenants of one machine use the same addresses; the first word of the command line makes their values differ.
 * ends     debug-exit 0: nothing was changed, and a checksum; 1: a FAIL line names what was
 * mission  28
 * qemu     yes
 * time     no
 * styles   all
 * memory   16M
 * kind     mmu
 */
#include "wx.h"

#define ROUNDS    400
#define SPINS     150
#define PAGES     96
#define ROOM      ((volatile u64 *)0x600000)
#define WORDS     512                   /* of a page */
#define HAS_COMMAND (1 << 2)

static u64 state, expected_sum;
static u8 before[512] __attribute__((aligned(16))), after[512] __attribute__((aligned(16)));

static u64 next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

/* A number from the command line: tenants that are told nothing are all tenant 1. */
static u64 tenant_number(void)
{
    const u32 *information = (const u32 *)(word)multiboot_info;
    const char *line = information[0] & HAS_COMMAND ? (const char *)(word)information[4] : "";
    u64 n = 0;

    for (const char *c = line; *c; c++)                 /* the last word: QEMU puts the image's name first */
        n = *c >= '0' && *c <= '9' ? n * 10 + *c - '0' : 0;
    return n ? n : 1;
}

/* Count down with values in eight registers: the bits that changed on the way, 0 as it should be. */
static u64 hold_general(const u64 *v, u64 spins)
{
    u64 changed = 0;
    asm volatile("mov (%2), %%r8\n\t mov 8(%2), %%r9\n\t mov 16(%2), %%r10\n\t mov 24(%2), %%r11\n\t"
                 "mov 32(%2), %%r12\n\t mov 40(%2), %%r13\n\t mov 48(%2), %%r14\n\t mov 56(%2), %%r15\n"
                 "1: dec %1\n\t jz 2f\n\t jmp 1b\n"
                 "2: xor (%2), %%r8\n\t xor 8(%2), %%r9\n\t xor 16(%2), %%r10\n\t xor 24(%2), %%r11\n\t"
                 "xor 32(%2), %%r12\n\t xor 40(%2), %%r13\n\t xor 48(%2), %%r14\n\t xor 56(%2), %%r15\n\t"
                 "or %%r8, %0\n\t or %%r9, %0\n\t or %%r10, %0\n\t or %%r11, %0\n\t"
                 "or %%r12, %0\n\t or %%r13, %0\n\t or %%r14, %0\n\t or %%r15, %0"
                 : "+a"(changed), "+c"(spins) : "S"(v)
                 : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    return changed;
}

/* An FXSAVE image (SDM 1 table 10-2): eight full x87 or MMX registers, all exceptions masked, 16 XMM registers. */
static void make_image(int mmx)
{
    u16 *half = (u16 *)before;
    u64 *wide = (u64 *)before;

    memset(before, 0, sizeof before);
    half[0] = 0x037f | (next() & 3) << 10;              /* FCW: rounding */
    half[1] = mmx ? 0 : (next() & 7) << 11;             /* FSW: the stack's top */
    before[4] = 0xff;                                   /* all registers in use */
    *(u32 *)(before + 24) = 0x1f80 | (next() & 3) << 13;        /* MXCSR: rounding */
    for (int i = 0; i < 8; i++) {
        wide[4 + 2 * i] = next() | 1ull << 63;
        half[20 + 8 * i] = mmx ? 0xffff : 0x3fff + (next() & 0x3ff);
    }
    for (int i = 0; i < 16; i++) {
        wide[20 + 2 * i] = next();
        wide[21 + 2 * i] = next();
    }
}

static int equal_bytes(const u8 *a, const u8 *b, u32 n)
{
    while (n && *a == *b)
        a++, b++, n--;
    return n == 0;
}

static int same_registers(void)
{
    int same = equal_bytes(before, after, 5) && equal_bytes(before + 24, after + 24, 4);

    for (int i = 0; i < 8; i++)
        same &= equal_bytes(before + 32 + 16 * i, after + 32 + 16 * i, 10);
    return same && equal_bytes(before + 160, after + 160, 256);
}

static void write_pages(void)
{
    for (u64 page = 0; page < PAGES; page++) {
        volatile u64 *at = &ROOM[page * WORDS + next() % WORDS];
        u64 value = next();
        expected_sum += value - *at;
        *at = value;
    }
}

static u64 sum_pages(void)
{
    u64 sum = 0;

    for (u64 i = 0; i < PAGES * WORDS; i++)
        sum += ROOM[i];
    return sum;
}

static const u32 msrs[] = {MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_CSTAR, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};
#define MSRS (sizeof msrs / sizeof *msrs)

static void round_of(u64 n)
{
    u64 general[8], values[MSRS], star = next(), address = next() & 0x7fffffffffff, mask = next() & 0x3f7fd5;
    u64 debug;

    for (u32 i = 0; i < 8; i++)
        general[i] = next();
    for (u32 i = 0; i < MSRS; i++) {
        values[i] = next() & 0x7fffffffffff;
        wrmsr(msrs[i], values[i]);
    }
    wrmsr(MSR_STAR, star);
    wrmsr(MSR_FMASK, mask);
    write_cr2(address);
    asm volatile("mov %0, %%dr0\n\t mov %0, %%dr3" : : "r"(address));
    make_image(n & 1);
    asm volatile("fxrstor64 %0" : : "m"(before) : "memory");
    check(hold_general(general, SPINS) == 0, "general registers");
    asm volatile("fxsave64 %0" : "=m"(after) : : "memory");
    check(same_registers(), n & 1 ? "MMX and SSE registers" : "x87 and SSE registers");
    for (u32 i = 0; i < MSRS; i++)
        check_eq(rdmsr(msrs[i]), values[i], "address in an MSR");
    check_eq(rdmsr(MSR_STAR), star, "STAR");
    check_eq(rdmsr(MSR_FMASK), mask, "FMASK");
    check_eq(read_cr2(), address, "CR2");
    asm volatile("mov %%dr3, %0" : "=r"(debug));
    check_eq(debug, address, "DR3");
    write_pages();
    if (n % 16 == 0)
        check_eq(sum_pages(), expected_sum, "memory");
}

int main64(void)
{
    u64 number = tenant_number();

    protect_memory();
    state = number * 0x9e3779b97f4a7c15ull;
    write_cr4(read_cr4() | 0x600);                      /* OSFXSR, OSXMMEXCPT */
    write_cr0((read_cr0() | CR0_MP) & ~(word)(CR0_EM | CR0_TS));
    for (u64 n = 0; n < ROUNDS && !rom_failures; n++)
        round_of(n);
    check_eq(sum_pages(), expected_sum, "memory at the end");
    print("tenant %llu: %016llx\n", number, expected_sum);
    report((u32)expected_sum);
    return 0;
}
