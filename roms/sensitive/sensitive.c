/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     sensitive
 * bits     64
 * proves   the same work as `avoider`, as usual kernels write it: flags are saved by PUSHF and restored by POPF, and the kernel looks at
 *          its own ring, tables and segments.  On the processor the same sum; deprivileged the first of these that says
 *          something else ends the run as a hole
 * ends     0: the work is done, its sum is avoider's, every look saw ring 0
 * mission  4, 41, 42, 43
 * qemu     yes
 * time     yes: waits for the timer; nothing printed depends on it
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "work.h"

static word lock(void)
{
    word flags;

    asm volatile("pushf; pop %0; cli" : "=r"(flags) : : "memory");
    return flags;
}

static void unlock(word flags) { asm volatile("push %0; popf" : : "r"(flags) : "memory", "cc"); }

static void look(void)
{
    struct __attribute__((packed)) { u16 limit; u64 base; } table;
    u64 v = 0;
    u8 zf;

    asm volatile("sgdt %0" : "=m"(table));
    check_eq(table.base, (word)gdt, "sgdt");
    asm volatile("sidt %0" : "=m"(table));
    check_eq(table.base, (word)idt64, "sidt");
    asm volatile("str %0" : "=r"(v));
    check_eq(v & 0xffff, TSS_SEL, "str");
    asm volatile("sldt %0" : "=r"(v));
    check_eq(v & 0xffff, 0, "sldt");
    asm volatile("smsw %0" : "=r"(v));
    check_eq(v & 1, 1, "smsw");
    asm volatile("mov %%cs, %0" : "=r"(v));
    check_eq(v & 3, 0, "ring");
    asm volatile("lar %w1, %0" : "+r"(v) : "r"(KDATA) : "cc");
    check_eq(v >> 8 & 0xfe, 0x92, "lar");
    asm volatile("lsl %w1, %0" : "+r"(v) : "r"(KDATA) : "cc");
    check_eq(v & 0xffffffff, 0xffffffff, "lsl");
    asm volatile("verr %w1; setz %0" : "=qm"(zf) : "r"(KDATA) : "cc");
    check_eq(zf, 1, "verr");
    asm volatile("verw %w1; setz %0" : "=qm"(zf) : "r"(KDATA) : "cc");
    check_eq(zf, 1, "verw");
}

int main64(void)
{
    return work();
}
