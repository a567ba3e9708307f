/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     branchy
 * bits     64
 * proves   calls, returns, conditional and indirect branches in blocks of about three instructions:
 *          Fibonacci and Takeuchi recursion, Collatz chains and a switch-driven interpreter give the known results.
 * ends     debug-exit 0: all results are the known ones; 1: a FAIL line names the wrong one
 * mission  18
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define FIB_OF         24
#define FIB_IS         46368u           /* OEIS A000045 */
#define TAK_OF         16, 10, 4
#define TAK_IS         5u               /* by a memoised function elsewhere */
#define COLLATZ_BELOW  60000u
#define COLLATZ_START  52527u           /* longest chain that starts below 60,000, OEIS A006877 */
#define COLLATZ_STEPS  339u             /* OEIS A006878 */
#define GCD_PAIRS      20000
#define COPRIME_PAIRS  12215u           /* by Python's math.gcd on the same pairs */

static __attribute__((noinline)) u32 fib(u32 n)
{
    __asm__ volatile("");                   /* keep the recursion: no inlining, no loop */
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline)) int tak(int x, int y, int z)
{
    __asm__ volatile("");
    return y >= x ? z : tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

static u32 collatz_longest(u32 *steps)
{
    u32 best = 0, start = 0;

    for (u32 n = 1; n < COLLATZ_BELOW; n++) {
        u32 length = 0;
        for (u64 x = n; x != 1; length++) {
            if (x & 1)
                x = 3 * x + 1;
            else
                x >>= 1;
            __asm__ volatile("" : "+r"(x));         /* keep the branch: no conditional move */
        }
        if (length > best) {
            best = length;
            start = n;
        }
    }
    *steps = best;
    return start;
}

/* A stack machine with two registers, one operation a byte. */
enum { LOAD_A, LOAD_B, SWAP, MOD, JUMP_IF_B, HALT };
static const u8 gcd_program[] = { LOAD_A, LOAD_B, MOD, SWAP, JUMP_IF_B, 2, HALT };

static u32 interpret(const u8 *code, u32 first, u32 second)
{
    u32 a = 0, b = 0, t, pc = 0;

    for (;;) {
        switch (code[pc++]) {
        case LOAD_A: a = first; break;
        case LOAD_B: b = second; break;
        case MOD: a %= b; break;
        case SWAP: t = a; a = b; b = t; break;
        case JUMP_IF_B: pc = b ? code[pc] : pc + 1; break;
        case HALT: return a;
        }
    }
}

/* Random numbers are coprime with probability 6/pi^2: about 12,159 of 20,000 pairs. */
static u32 coprime_pairs(void)
{
    u64 seed = 1;
    u32 found = 0;

    for (int i = 0; i < GCD_PAIRS; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        found += interpret(gcd_program, (seed >> 44) + 1, (seed >> 20 & 0xfffff) + 1) == 1;
    }
    return found;
}

int main64(void)
{
    u32 start, steps, f, t, coprime;

    protect_memory();
    f = fib(FIB_OF);
    t = tak(TAK_OF);
    start = collatz_longest(&steps);
    coprime = coprime_pairs();
    print("fibonacci %u\n", f);
    print("takeuchi %u\n", t);
    print("collatz start %u\n", start);
    print("collatz steps %u\n", steps);
    print("coprime pairs %u\n", coprime);
    check(f == FIB_IS, "fibonacci");
    check(t == TAK_IS, "takeuchi");
    check(start == COLLATZ_START, "collatz start");
    check(steps == COLLATZ_STEPS, "collatz steps");
    check(coprime == COPRIME_PAIRS, "coprime pairs");
    return 0;
}
