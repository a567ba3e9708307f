/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     manytables
 * bits     64
 * proves   half of memory is 8,192 tables, of every level at once: each is full of entries that lead to others, one to itself.
 *          3,000 of them serve as root.  What is read follows from the entries alone.
 * ends     0: it ran
 * mission  11, 13
 * qemu     yes
 * time     no
 * memory   64M
 * kind     mmu
 */
#include "paging.h"

#define TABLES   8192u
#define AT       0x1000000ull
#define TABLE(n) (AT + ((u64)(n) << 12))
#define SPACES   3000u
#define READS    6u
#define ODD      (1ull << 39 | 1ull << 30 | 1ull << 21 | 1ull << 12)     /* no entry 0 on the way, which leads to the kernel's tables */
#define OPEN     (P_PRESENT | P_WRITE | P_USER | P_ACCESSED | P_DIRTY)

int main64(void)
{
    u64 kernel = identity_pml4[0], home = read_cr3(), seed = 1;
    u32 sum = MIX_START;

    for (u32 table = 0; table < TABLES; table++) {
        u64 *entry = (u64 *)TABLE(table);

        for (u32 n = 1; n < 512; n++)
            entry[n] = TABLE(n == table % 512 ? table : (table * 7 + n * 13) % TABLES) | OPEN;
        entry[0] = kernel;
    }
    for (u32 space = 0; space < SPACES; space++) {
        write_cr3(TABLE(space * 2731u % TABLES));
        for (u32 n = 0; n < READS; n++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            sum = mix(sum, *(volatile u32 *)((seed >> 16 & 0x7ffffffffff8) | ODD));
        }
    }
    write_cr3(home);
    report(sum);
    return 0;
}
