/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     hello
 * bits     32, 64
 * proves   a multiboot image is loaded, entered as Multiboot says, reaches long mode and prints
 * ends     0: the loader's magic and the mode are right
 * mission  37
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "rom.h"

int main64(void)
{
    print("hello from ring %u in long mode\n", read_cs() & 3);
    check_eq(multiboot_magic, 0x2badb002, "multiboot magic in EAX");
    check_eq(rdmsr(MSR_EFER) & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "EFER");
    report(0x1234);
    return 0;
}
