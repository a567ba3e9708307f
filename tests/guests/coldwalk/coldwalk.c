/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     coldwalk
 * bits     64
 * proves   one read of a page never touched before costs the walk that the page sizes make it.
 *          Each read lies between report words 0xB000000n and 0xE000000n: n = 1 4K, 2 2M, 3 1G page.
 * ends     0
 * mission  10
 * qemu     yes
 * time     no
 * kind     mmu
 */
#include "wx.h"

#define AREA(level) ((u64)(level) << 39)         /* a PML4 entry each */

int main64(void)
{
    protect_memory();
    pages_init(0x400000, 0x500000);
    for (u32 level = 1; level <= 3; level++)
        for (u64 page = 0; page < 2; page++)
            page_map(identity_pml4, 4, AREA(level) + (page << (3 + 9 * level)), level == 1 ? 0x800000 : 0, level, P_NX);
    for (u64 page = 0; page < 2; page++)         /* the first time brings code and stack into the TLB */
        for (u32 level = 1; level <= 3; level++) {
            volatile u32 *at = (u32 *)(AREA(level) + (page << (3 + 9 * level)) + 0x800000 % (1ull << (3 + 9 * level)));
            report(0xb0000000 | page << 8 | level);
            (void)*at;
            report(0xe0000000 | page << 8 | level);
        }
    return 0;
}
