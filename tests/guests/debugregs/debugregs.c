/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     debugregs
 * bits     64
 * proves   an execution breakpoint in DR0 raises #DB at its instruction, with bit 0 of DR6 (SDM 3B 17.2)
 * ends     0: four calls of the function, four #DB
 * mission  10
 * qemu     yes
 * time     no
 * kind     faults
 */
#include "traps.h"

#define RESUME_FLAG (1 << 16)
#define CALLS 4

static volatile u32 hits, calls;

static __attribute__((noinline, noclone)) void target(void)
{
    calls++;
}

void trap64(struct frame64 *f)
{
    u64 dr6;
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    if (f->vector != 1 || f->rip != (word)target || !(dr6 & 1))
        trap_unexpected(f);
    asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
    hits++;
    f->rflags |= RESUME_FLAG;
}

int main64(void)
{
    idt_init();
    asm volatile("mov %0, %%dr0" : : "r"((word)target));
    asm volatile("mov %0, %%dr7" : : "r"(0x401ull));
    print("armed\n");
    for (int n = 0; n < CALLS; n++)
        target();
    asm volatile("mov %0, %%dr7" : : "r"(0x400ull));
    target();
    check_eq(hits, CALLS, "#DB");
    check_eq(calls, CALLS + 1, "calls");
    report(hits);
    return 0;
}
