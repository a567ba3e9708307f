/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     pispigot
 * bits     64
 * proves   the Rabinowitz-Wagon spigot gives the first 1,500 decimal places of pi: their sum, the six nines from
 *          place 762 on and the last ten places are the known ones.  Long divisions, one dependent chain.
 * ends     debug-exit 0: the digits are right; 1: a FAIL line names what is wrong
 * mission  18 24
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define PLACES     1500
#define GUARD      10                           /* places computed beyond those printed */
#define LENGTH     ((PLACES + GUARD) * 10 / 3)  /* base-(i/(2i+1)) places that the spigot needs */
#define DIGIT_SUM  6777                         /* of the first 1,500 decimal places, by Machin's formula */

static u32 rest[LENGTH + 1];
static char digit[PLACES + GUARD + 2];          /* digit[0] is the 3 */
static int digits;

static void emit(int d)
{
    if (digits < (int)sizeof digit)
        digit[digits++] = '0' + d;
}

/* One decimal place: ten times the number, carried from the right. */
static u32 next_place(void)
{
    u64 carry = 0;

    for (u32 i = LENGTH; i > 0; i--) {
        u64 x = 10ull * rest[i] + carry * (i + 1);

        rest[i] = x % (2 * i + 1);
        carry = x / (2 * i + 1);
    }
    carry += 10ull * rest[0];
    rest[0] = carry % 10;
    return carry / 10;
}

/* A 10 makes the held digit one larger and turns held nines into noughts. */
static void spigot(void)
{
    int held = -1, nines = 0;

    for (int place = 0; place < PLACES + GUARD; place++) {
        u32 q = next_place();

        if (q == 9) {
            nines++;
            continue;
        }
        if (held >= 0)
            emit(held + q / 10);
        for (; nines > 0; nines--)
            emit(q >= 10 ? 0 : 9);
        held = q % 10;
    }
    emit(held);
}

static int same(const char *a, const char *b, int n)
{
    while (n-- > 0)
        if (*a++ != *b++)
            return 0;
    return 1;
}

int main64(void)
{
    u32 sum = 0;

    protect_memory();
    for (u32 i = 0; i <= LENGTH; i++)
        rest[i] = 2;
    spigot();
    print("pi ");
    for (int i = 0; i <= 50; i++) {
        put_char(digit[i]);
        if (i == 0)
            put_char('.');
    }
    print("\n");
    for (int i = 1; i <= PLACES; i++)
        sum += digit[i] - '0';
    print("digit sum %u\n", sum);
    check(same(digit, "31415926535897932384", 20), "first twenty digits");
    check(same(digit + 762, "999999", 6), "six nines");
    check(same(digit + PLACES - 9, "7509302955", 10), "last ten places");
    check(sum == DIGIT_SUM, "digit sum");
    return 0;
}
