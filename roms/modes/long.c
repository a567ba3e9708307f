/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit part of modes. */
#include "paging.h"
#include "modes.h"

#define FAR_PAGE 0xffff800000400000ull  /* the upper half of the canonical addresses */
#define FAR_AT 0x1a00000u

u32 compat_facts(u32 argument);
u32 compat_call(u32 (*fn)(u32), u32 argument);  /* modes.S */

u32 main_long(void)
{
    u64 upper;
    print("long: cs %x cpl %u PG %u PAE %u LMA %u\n", read_cs(), read_cs() & 3, (u32)(read_cr0() >> 31),
          (u32)read_cr4() >> 5 & 1, (u32)rdmsr(MSR_EFER) >> 10 & 1);
    check_eq(read_cs(), KCODE64, "cs in long mode");
    check_eq(lfsr64(), LFSR64, "64-bit shift register");
    page_map(identity_pml4, 4, FAR_PAGE, FAR_AT, 1, P_WRITE);
    *(volatile u64 *)(FAR_PAGE + 8) = 0x6464646464646464;
    check_eq(*(volatile u64 *)(word)(FAR_AT + 8), 0x6464646464646464, "page at ffff8000...");
    asm volatile("mov $-1, %%rax; mov $1, %%eax; mov %%rax, %0" : "=r"(upper) : : "rax");
    check_eq(upper, 1, "a 32-bit result clears the upper half");
    asm volatile("mov $-1, %%rax; mov $1, %%ax; mov %%rax, %0" : "=r"(upper) : : "rax");
    check_eq(upper, 0xffffffffffff0001, "a 16-bit result keeps it");
    u32 r = compat_call(compat_facts, 14);
    check_eq(r, 42, "result of the compatibility-mode call");
    check_eq(read_cs(), KCODE64, "cs after compatibility mode");
    u64 v = lfsr64();
    return mix(mix(MIX_START, (u32)v), (u32)(v >> 32)) + r;
}
