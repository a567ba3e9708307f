/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     demand
 * bits     32, 64
 * proves   paging rights in 32-bit, PAE and 4-level tables, small and large pages: every leaf (P, R/W, U/S, NX)
 *          under every upper entry by every access from kernel and user, with WP, NXE, SMEP and SMAP (as CPUID offers) on
 *          and off, faults with the right code and CR2 or not, and sets A and D; then demand-zero and copy-on-write paging
 * ends     0: every access did what the rules say, the lazy region held what was written
 * mission  10, 11
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "demand.h"

u32 long_call(u32 (*fn)(void));
u32 main_long(void);

static struct tss32 tss;

void trap32(struct frame32 *f) { demand_trap(f); }

static void paging_run(const char *name, int n, u32 cr4_bits)
{
    tables_build(n);
    zero_page = page_alloc();
    write_cr4(read_cr4() | cr4_bits);
    write_cr3((u32)root);
    write_cr0(read_cr0() | CR0_PG);
    demand_run(name);
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    write_cr4(read_cr4() & ~cr4_bits);
}

int main32(void)
{
    pages_init(0x1000000, TEST_PA);
    memcpy((void *)USER_AT, users_start, users_end - users_start);
    idt_init();
    idt_set(DONE, (void *)trap_stubs32[DONE], GATE_INT | 0x60, 0);
    tss.ss0 = KDATA, tss.esp0 = (u32)kernel_stack, tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    paging_run("32-bit", 2, CR4_PSE);
    paging_run("PAE", 3, CR4_PAE);
    return long_call(main_long);
}
