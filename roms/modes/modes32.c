/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     modes
 * bits     16, 32, 64
 * proves   one processor goes 32-bit protected -> real -> 16-bit protected -> 32-bit paging (4 MiB pages) -> PAE ->
 *          long -> compatibility -> protected -> real mode, with the state of each mode visible and its arithmetic right;
 *          real mode wraps its offsets and its stack at 64 KiB, FFFF:0010 lies at 1 MiB, the IVT delivers int and #DE
 * ends     0: every mode was what it claims to be; the end is written in real mode
 * mission  1, 2, 37, 60
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "paging.h"
#include "modes.h"

#define ALIAS32 0xc0000000u             /* where the paged modes see ALIAS_AT */
#define ALIAS_AT 0x1800000u

u32 long_call(u32 (*fn)(void));
u32 main_long(void);
void real_run(void);                    /* modes.S: each fills *RECORD */
void protected16_run(void);
void __attribute__((noreturn)) real_end(u32 failures);

static u32 fold;                        /* over everything the modes computed */

/* What a mode looks like from 32-bit code. */
void facts32(const char *mode, u32 cs)
{
    print("%s: cs %x cpl %u PE %u PG %u PSE %u PAE %u LMA %u\n", mode, read_cs(), read_cs() & 3, (u32)read_cr0() & 1,
          (u32)read_cr0() >> 31, (u32)read_cr4() >> 4 & 1, (u32)read_cr4() >> 5 & 1, (u32)rdmsr(MSR_EFER) >> 10 & 1);
    check_eq(read_cs(), cs, "cs");
    check_eq(lfsr32(), LFSR32, "32-bit shift register");
    fold = mix(fold, lfsr32());
}

static void real_mode(const char *when)
{
    volatile struct record *r = RECORD;
    memset(RECORD, 0, sizeof *RECORD);
    real_run();
    print("real, %s: cs %x PE %u lfsr %x, [ffff+2] reads offset 1: %x, lodsb leaves si %x, push at sp 0 leaves sp %x\n",
          when, r->cs, r->cr0 & 1, r->lfsr, r->wrapped, r->si, r->sp);
    print("real, %s: ffff:0010 holds %x, int 60 counted %u, #DE at div + %u, segment 1234 has base %x, esp high kept %x\n",
          when, r->high, r->ints, r->de_at, r->base, r->esp_high);
    check_eq(r->cr0 & 1, 0, "PE in real mode");
    check_eq(r->cs, 0x800, "cs in real mode");
    check_eq(r->lfsr, LFSR16, "16-bit shift register");
    check_eq(r->wrapped, 0x5a, "bx + si wraps at 64 KiB");
    check_eq(r->si, 0, "si wraps");
    check_eq(r->sp, 0xfffe, "sp wraps");
    check_eq(r->high, 0x1badb002, "1 MiB + 0 through ffff:0010");
    check_eq(r->ints, 3, "int 60 through the IVT");
    check_eq(r->int_if, 0, "IF in the handler");
    check_eq(r->de_at, 0, "#DE reports the div");
    check_eq(r->base, 0xc3, "segment base is selector * 16");
    check_eq(r->esp_high, 0x00050000, "a 16-bit push keeps the high half of ESP");
    fold = mix(fold, r->lfsr);
}

static void protected16_mode(void)
{
    volatile struct record *r = RECORD;
    memset(RECORD, 0, sizeof *RECORD);
    protected16_run();
    print("protected 16: cs %x PE %u lfsr %x, push pushed %u bytes, with 66 %u\n", r->cs, r->cr0 & 1, r->lfsr, r->push2,
          r->push4);
    check_eq(r->cs, MODE_CODE16, "cs in 16-bit protected mode");
    check_eq(r->cr0 & 1, 1, "PE in 16-bit protected mode");
    check_eq(r->lfsr, LFSR16, "16-bit shift register");
    check_eq(r->push2 * 10 + r->push4, 24, "operand size of push");
    fold = mix(fold, r->lfsr);
}

/* 4 MiB pages: identity for the first 64 MiB, and one page again at ALIAS32. */
static void pse_mode(void)
{
    u32 *directory = page_alloc();
    for (u32 i = 0; i < 16; i++)
        directory[i] = i << 22 | P_LARGE | P_WRITE | P_PRESENT;
    directory[ALIAS32 >> 22] = ALIAS_AT >> 22 << 22 | P_LARGE | P_WRITE | P_PRESENT;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((word)directory);
    write_cr0(read_cr0() | CR0_PG);
    facts32("paging, 4M pages", KCODE32);
    *(volatile u32 *)(ALIAS32 + 0x10) = 0x32323232;
    check_eq(*(volatile u32 *)((ALIAS_AT & ~0x3fffff) + 0x10), 0x32323232, "4M alias");
    check_eq(directory[ALIAS32 >> 22] & 0x60, 0x60, "A and D of the 4M page");
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~CR4_PSE);
}

/* 2 MiB pages, and one 4 KiB page above them whose frame is ALIAS_AT. */
static void pae_mode(void)
{
    u64 *pdpt = page_alloc();
    for (u32 i = 0; i < 32; i++)
        page_map(pdpt, 3, i << 21, i << 21, 2, P_WRITE);
    page_map(pdpt, 3, ALIAS32, ALIAS_AT, 1, P_WRITE | P_NX);
    write_cr4(read_cr4() | CR4_PAE);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    write_cr3((word)pdpt);
    write_cr0(read_cr0() | CR0_PG);
    facts32("paging, PAE", KCODE32);
    *(volatile u32 *)(ALIAS32 + 0x20) = 0x36363636;
    check_eq(*(volatile u32 *)(ALIAS_AT + 0x20), 0x36363636, "PAE alias");
    check_eq(*pte_at(pdpt, 3, ALIAS32, 1) & 0x60, 0x60, "A and D of the PAE page");
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~CR4_PAE);
}

int main32(void)
{
    fold = MIX_START;
    pages_init(0x400000, 0x600000);
    facts32("protected", KCODE32);
    real_mode("first");
    protected16_mode();
    pse_mode();
    pae_mode();
    fold = mix(fold, long_call(main_long));
    facts32("protected again", KCODE32);
    real_mode("again");
    print("fold %08x\n", fold);
    real_end(rom_failures);
}

/* Called in compatibility mode by main_long. */
u32 compat_facts(u32 argument)
{
    u32 depth;
    facts32("compatibility", KCODE32);
    asm("mov %%esp, %0; push %%eax; sub %%esp, %0; add $4, %%esp" : "=&r"(depth));
    check_eq(depth, 4, "push in compatibility mode");
    return argument * 3;
}
