/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit half of holes: EFER.NXE is set, so that a fetch says so. */
#include "holes.h"

CATCH_ONLY

u32 main_long(void)
{
    u64 *root = (u64 *)read_cr3();

    idt_init();
    *pte_at(root, 4, WINDOW, 2) = 0;                    /* the identity map has 2 MiB pages there */
    *pte_at(root, 4, WINDOW + 0x200000, 2) = NOWHERE | 7;
    page_map(root, 4, WINDOW + 0x400000, NOWHERE, 2, P_WRITE);
    page_map(root, 4, WINDOW, RAM_END - 0x1000, 1, P_WRITE);
    page_map(root, 4, WINDOW + 0x1000, RAM_END, 1, P_WRITE);
    page_map(root, 4, WINDOW + 0x2000, (word)page_alloc(), 1, P_WRITE);
    page_map(root, 4, WINDOW + 0x3000, NOWHERE, 1, P_WRITE);
    page_map(root, 4, WINDOW + 0x4000, (1ull << (cpuid(0x80000008, 0).a & 0xff)) - 0x1000, 1, P_WRITE);
    *pte_at(root, 4, 5ull << 39, 4) = NOWHERE | 7;
    *pte_at(root, 4, 6ull << 39, 3) = NOWHERE | 7;
    write_cr3((word)root);
    probe_edges();
    probe_hole(WINDOW + 0x3000, "64-bit: a page in a hole");
    probe_hole(WINDOW + 0x4000, "64-bit: the last page that there could be");
    probe_hole(WINDOW + 0x400000, "64-bit: a large page in a hole");
    probe_fault(WINDOW + 0x200000, PF_P | PF_RSVD, PF_P | PF_RSVD | PF_I, "64-bit: a page table in a hole");
    probe_fault(6ull << 39, PF_P | PF_RSVD, PF_P | PF_RSVD | PF_I, "64-bit: a page directory in a hole");
    probe_fault(5ull << 39, PF_P | PF_RSVD, PF_P | PF_RSVD | PF_I, "64-bit: a page-directory-pointer table in a hole");
    check(*pte_at(root, 4, WINDOW + 0x3000, 1) == (NOWHERE | 0x63), "64-bit: accessed and dirty of a page in a hole");
    print("64-bit\n");
    if (die() == 3)
        write_cr3(NOWHERE);
    return 0;
}
