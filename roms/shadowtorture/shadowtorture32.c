/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     shadowtorture
 * bits     32, 64
 * proves   what is hard for a monitor with shadow tables, in 32-bit tables with large pages, PAE and 4-level ones: aliases, tables
 *          that map themselves, tables shared between address spaces, tables changed from another address space, table pages that
 *          become data and tables again, rights raised without INVLPG and lowered with it, accessed and dirty bits, large pages split
 *          and joined, writes with CR0.WP = 0, NX, tables in the last page of memory
 * ends     0: every access found what the tables say, every fault was the expected one
 * mission  10, 11, 13, 16
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "shadowtorture.h"

u32 long_call(u32 (*fn)(void));
u32 main_long(void);

void trap32(struct frame32 *f) { torture_trap(f); }

static void paging_run(const char *name, int n, u32 cr4_bits)
{
    tables_build(n);
    write_cr4(read_cr4() | cr4_bits);
    write_cr3((u32)root);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    torture(name);
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    write_cr4(read_cr4() & ~cr4_bits);
}

int main32(void)
{
    idt_init();
    paging_run("32-bit", 2, CR4_PSE);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    paging_run("PAE", 3, CR4_PAE);
    return long_call(main_long);
}
