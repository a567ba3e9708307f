/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the user programs (users.S) and the two kernels share. */
#ifndef USERMODE_H
#define USERMODE_H

#define CALLS 20000                     /* system calls a way and a program */
#define USER_AT 0x800000                /* the only memory a user program may touch: 2 MiB */
#define USER_STACK 0x880000
#define SYS_EXIT 8
#define SYS_UNKNOWN 99

#ifndef __ASSEMBLER__
#include "rom.h"

/* Counts of what reached a kernel; both kernels start from zero. */
struct counts { u32 int80, sysenter, syscall, faults, unknown; };

/* The system call table, for either width.  Pure functions, so that the kernel can foresee the result. */
typedef word (*sys_fn)(word a, word b);
static word sys_add(word a, word b) { return a + b; }
static word sys_sub(word a, word b) { return a - b; }
static word sys_xor(word a, word b) { return a ^ b; }
static word sys_mul(word a, word b) { return a * (b | 1); }
static word sys_shift(word a, word b) { return b << (a & 7); }
static word sys_mix(word a, word b) { return mix((u32)a, (u32)b); }
static word sys_not(word a, word b) { (void)b; return ~a; }
static word sys_larger(word a, word b) { return a > b ? a : b; }
static const sys_fn sys_table[SYS_EXIT] = {sys_add, sys_sub, sys_xor, sys_mul, sys_shift, sys_mix, sys_not, sys_larger};

INLINE word sys_call(struct counts *c, word number, word a, word b)
{
    if (number < SYS_EXIT)
        return sys_table[number](a, b);
    c->unknown++;
    return (word)-38;                   /* ENOSYS */
}

/* One round of calls as the user programs make it: h starts as given. */
INLINE word foresee(word h, int bits)
{
    struct counts ignored;
    for (word i = CALLS; i; i--) {
        word r = sys_call(&ignored, i & 7, i, h);
        h = (h << 5 | h >> (bits - 5)) ^ r;
    }
    return h ^ (word)-38;
}
#endif
#endif
