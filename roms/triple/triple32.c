/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     triple
 * bits     32
 * proves   a fault that cannot be delivered, then a double fault that cannot either, shut the processor down
 * ends     shutdown (QEMU with -no-reboot exits 0); debug-exit 1: execution went on
 * mission  2 7
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "rom.h"

int main32(void)
{
    print("triple fault\nOK\n");
    while (!(inb(PORT_COM1 + 5) & 0x40))
        ;
    load_idt(0, 0);             /* no gate is within the limit: SDM 3A 6.15, vectors 13 and 8 */
    asm volatile("ud2");
    check(0, "execution goes on after a triple fault");
    return 0;
}
