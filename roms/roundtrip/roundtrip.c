/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     roundtrip
 * bits     64
 * proves   what a hypervisor's hardware costs an exit: 256 times CPUID, which exits under every style with exits by the
 *          cheapest way, and 256 page faults, which exit only where the guest's page tables are shadowed.  Each lot lies between
 *          two report words, 0xB000000n and 0xE000000n: n = 1 CPUID, 2 page faults.
 * ends     0: CPUID gave the same each time and each fault came; 1: a FAIL line
 * mission  7 13
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     cost
 */
#include "traps.h"

#define ROUNDS 256
#define ABSENT (1ull << 40)             /* canonical, and not mapped */

CATCH_ONLY

static u32 cpuid_all(void)
{
    u32 different = 0, first = 0;

    for (u32 i = 0; i < ROUNDS; i++) {
        u32 a = 0, b, c = 0, d;
        asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        if (i && (b ^ c ^ d) != first)
            different++;
        first = b ^ c ^ d;
    }
    return different;
}

static u32 fault_all(void)
{
    u32 came = 0;

    for (u32 i = 0; i < ROUNDS; i++) {
        TRY("movb (%0), %%al", : : "r"(ABSENT) : "rax", "memory");
        came += caught.vector == 14;
    }
    return came;
}

static u32 between_words(u32 n, u32 (*run)(void))
{
    u32 result;

    run();                              /* once before, so that code and tables are where they will be */
    report(0xb0000000 | n);
    result = run();
    report(0xe0000000 | n);
    return result;
}

int main64(void)
{
    idt_init();
    check_eq(between_words(1, cpuid_all), 0, "CPUID leaf 0 that differs");
    check_eq(between_words(2, fault_all), ROUNDS, "page faults");
    print("%u CPUID, %u page faults\n", ROUNDS, ROUNDS);
    return 0;
}
