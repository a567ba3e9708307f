/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     intruder
 * bits     64
 * proves   nothing by itself: it loads the page tables that somebody wrote to 0x800000 and does to 4,000 addresses what a
 *          list at 0x700000 says, whatever faults that raises; what it reached is for the machine's owner to look at
 * ends     debug-exit 0: it came to the end of its list
 * mission  28
 * qemu     yes
 * time     no
 * kind     mmu
 */
#include "traps.h"

struct order { u64 address, kind; };
#define ORDERS  ((const struct order *)0x700000)
#define COUNT   4000
#define TABLES  0x800000ull

CATCH_ONLY

int main64(void)
{
    idt_init();
    write_cr3(TABLES);
    for (int i = 0; i < COUNT; i++) {
        u64 at = ORDERS[i].address, found;
        if (ORDERS[i].kind == 0)
            TRY("movq (%1), %0", : "=&r"(found) : "r"(at) : "memory");
        else if (ORDERS[i].kind == 1)
            TRY("movq %0, (%0)", : : "r"(at) : "memory");
        else if (ORDERS[i].kind == 2)
            TRY("call *%0", : : "r"(at) : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
        else if (ORDERS[i].kind == 3)
            TRY("invlpg (%0)", : : "r"(at) : "memory");
        else
            write_cr3(TABLES);
    }
    return 0;
}
