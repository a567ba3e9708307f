/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     sieve
 * bits     64
 * proves   Eratosthenes' sieve over one byte a number finds the known number of primes and of prime twins
 *          below 5,000,000 and the known largest one: strided stores over 1,221 pages, compute without events.
 * ends     debug-exit 0: all three numbers are the known ones; 1: a FAIL line names the wrong one
 * mission  18
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define LIMIT    5000000u       /* numbers below this one are sieved */
#define PRIMES   348513u        /* pi(5,000,000) */
#define TWINS    32463u         /* pairs p, p + 2 both below LIMIT, counted by a Python sieve */
#define LARGEST  4999999u

static u8 composite[LIMIT];

static void strike_multiples(void)
{
    for (u32 p = 2; p * p < LIMIT; p++) {
        if (composite[p])
            continue;
        for (u32 m = p * p; m < LIMIT; m += p)
            composite[m] = 1;
    }
}

int main64(void)
{
    u32 primes = 0, twins = 0, last = 0;

    protect_memory();
    strike_multiples();
    for (u32 n = 2; n < LIMIT; n++) {
        if (composite[n])
            continue;
        primes++;
        twins += n - last == 2 && last != 0;
        last = n;
    }
    print("primes %u\n", primes);
    print("twins %u\n", twins);
    print("largest %u\n", last);
    check(primes == PRIMES, "number of primes");
    check(twins == TWINS, "number of twins");
    check(last == LARGEST, "largest prime");
    return 0;
}
