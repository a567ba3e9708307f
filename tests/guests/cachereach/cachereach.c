/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     cachereach
 * bits     64
 * proves   reads of each line of 16 KiB, 128 KiB, 2 MiB and 16 MiB, in order, four times over after once.
 *          Each phase lies between report words 0xB0000nnn and 0xE0000nnn: nnn = KiB / 16.
 * ends     0
 * mission  10
 * qemu     yes
 * time     no
 * kind     mmu
 */
#include "wx.h"

#define AREA 0x1000000ull

static void read_lines(u32 bytes, u32 times)
{
    while (times--)
        for (u32 at = 0; at < bytes; at += 64)
            (void)*(volatile u32 *)(AREA + at);
}

int main64(void)
{
    protect_memory();
    for (u32 kib = 16; kib <= 16384; kib = kib == 128 ? 2048 : kib * 8) {
        read_lines(kib << 10, 1);
        report(0xb0000000 | kib / 16);
        read_lines(kib << 10, 4);
        report(0xe0000000 | kib / 16);
    }
    return 0;
}
