/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     holes
 * bits     32, 64
 * proves   page tables, pages and code where there is no memory: everything reads as all ones and keeps nothing, which makes
 *          a table an identity of the last page in 32-bit paging and reserved bits in the other formats (SDM 3A 4.3 to 4.5)
 * ends     0, unless the command line ends in 1, 2 or 3: then a triple fault, through tables of all ones
 * mission  10
 * qemu     no: its TCG (7.2) reads zeros there; the witness is the manual
 * time     no
 * kind     mmu
 */
#include "holes.h"

CATCH_ONLY
u32 main_long(void), long_call(u32 (*f)(void));

static void paging_on(word root, u32 cr4_bits)
{
    write_cr4(read_cr4() | cr4_bits);
    write_cr3(root);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

static void paging_off(u32 cr4_bits)
{
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    write_cr4(read_cr4() & ~cr4_bits);
}

static void table_of_ones(void)
{
    /* A PTE of all ones: page FFFFF000h, user, writable, dirty; no bit of it is reserved. */
    probe_hole(WINDOW + 0x800000, "a page table in a hole");
}

static void plain(u32 cr4_bits)
{
    u32 *directory = page_alloc();

    for (u32 at = 0; at < 0x800000; at += 0x1000)
        *pte32_at(directory, at) = at | 3;
    *pte32_at(directory, RAM_END - 1) = (RAM_END - 0x1000) | 3;
    *pte32_at(directory, WINDOW) = (RAM_END - 0x1000) | 3;
    *pte32_at(directory, WINDOW + 0x1000) = RAM_END | 3;
    *pte32_at(directory, WINDOW + 0x2000) = (u32)page_alloc() | 3;
    *pte32_at(directory, WINDOW + 0x3000) = NOWHERE | 3;
    directory[(WINDOW >> 22) + 2] = NOWHERE | 7;
    directory[(WINDOW >> 22) + 3] = NOWHERE | 0x83;     /* 4 MiB, or a table, by CR4.PSE */
    paging_on((u32)directory, cr4_bits);
    probe_edges();
    probe_hole(WINDOW + 0x3000, "a page in a hole");
    table_of_ones();
    probe_hole(WINDOW + 0xc00000, "a large page in a hole");
    check(*pte32_at(directory, WINDOW + 0x3000) == (NOWHERE | 0x63), "accessed and dirty of a page in a hole");
    check(directory[(WINDOW >> 22) + 2] == (NOWHERE | 0x27), "accessed of a table in a hole");
    if (die() == 1)
        load_idt((void *)(WINDOW + 0x3000), 0x7ff);
    if (die() == 2)
        write_cr3(NOWHERE);
    if (die() && die() < 3)
        asm volatile("int3");
    paging_off(cr4_bits);
}

static void pae(void)
{
    u64 *root = page_alloc();

    for (u32 at = 0; at < 0x800000; at += 0x1000)
        page_map(root, 3, at, at, 1, P_WRITE);
    page_map(root, 3, RAM_END - 0x1000, RAM_END - 0x1000, 1, P_WRITE);
    page_map(root, 3, WINDOW, RAM_END - 0x1000, 1, P_WRITE);
    page_map(root, 3, WINDOW + 0x1000, RAM_END, 1, P_WRITE);
    page_map(root, 3, WINDOW + 0x2000, (u32)page_alloc(), 1, P_WRITE);
    page_map(root, 3, WINDOW + 0x3000, NOWHERE, 1, P_WRITE);
    *pte_at(root, 3, WINDOW + 0x200000, 2) = NOWHERE | 7;
    page_map(root, 3, WINDOW + 0x400000, NOWHERE, 2, P_WRITE);
    root[2] = NOWHERE | P_PRESENT;
    paging_on((u32)root, CR4_PAE);
    probe_edges();
    probe_hole(WINDOW + 0x3000, "PAE: a page in a hole");
    probe_hole(WINDOW + 0x400000, "PAE: a large page in a hole");
    probe_fault(WINDOW + 0x200000, PF_P | PF_RSVD, PF_P | PF_RSVD, "PAE: a page table in a hole");
    probe_fault(0x80000000u, PF_P | PF_RSVD, PF_P | PF_RSVD, "PAE: a page directory in a hole");
    for (u32 i = 0; i < 3; i++) {
        TRY("mov %0, %%cr3", : : "r"(NOWHERE) : "memory");
        check_fault(13, 0, "PAE: CR3 in a hole");
    }
    paging_off(CR4_PAE);
}

int main32(void)
{
    pages_init(0x400000, 0x800000);
    idt_init();
    plain(0);
    print("32-bit\n");
    plain(CR4_PSE);
    print("with PSE\n");
    pae();
    print("PAE\n");
    return long_call(main_long);
}
