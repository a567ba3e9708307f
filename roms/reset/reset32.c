/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     reset
 * bits     32
 * proves   command FEh of the keyboard controller pulses the processor's reset line, which ends the machine
 * ends     reset, seen as a regular end (QEMU with -no-reboot exits 0); debug-exit 1: no reset came
 * mission  72
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "rom.h"

#define KBC_STATUS  0x64        /* read: bit 1 = input buffer full; written: a command */
#define KBC_RESET   0xfe        /* pulse output line 0 */

int main32(void)
{
    for (u32 tries = 0; tries < 100000 && inb(KBC_STATUS) & 2; tries++)
        ;
    print("reset through the keyboard controller\nOK\n");
    outb(KBC_STATUS, KBC_RESET);
    for (u32 tries = 0; tries < 1000000; tries++)
        inb(KBC_STATUS);
    check(0, "the machine goes on after a reset");
    return 0;
}
