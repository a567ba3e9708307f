/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     memcopy
 * bits     64
 * proves   string instructions and loops copy alike: rep movs and stos of each width, forwards and backwards,
 *          overlapping, across page boundaries and unaligned, against word and byte loops
 * ends     0: each copy equals its source; 1: a FAIL line names the copy that does not
 * mission  18 21
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "wx.h"

#define SIZE    (1u << 20)      /* bytes of each buffer */
#define PASSES  3

static u8 __attribute__((aligned(4096))) from[SIZE + 64], to[SIZE + 64];

#define REP_MOVS(name, width)                                                                              \
    static void copy_##name(void *d, const void *s, u64 n)                                                 \
    {                                                                                                      \
        n /= width;                                                                                        \
        asm volatile("rep " #name : "+D"(d), "+S"(s), "+c"(n) : : "memory");                               \
    }
REP_MOVS(movsb, 1)
REP_MOVS(movsw, 2)
REP_MOVS(movsl, 4)
REP_MOVS(movsq, 8)

/* The same from the last quadword to the first: DF = 1. */
static void copy_backwards(void *d, const void *s, u64 n)
{
    d = (u8 *)d + n - 8;
    s = (const u8 *)s + n - 8;
    n /= 8;
    asm volatile("std; rep movsq; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}

static void copy_words(void *d, const void *s, u64 n)
{
    volatile u64 *to = d;
    const volatile u64 *from = s;

    for (u64 i = 0; i < n / 8; i++)
        to[i] = from[i];
}

static void copy_bytes(void *d, const void *s, u64 n)
{
    volatile u8 *to = d;
    const volatile u8 *from = s;

    for (u64 i = 0; i < n; i++)
        to[i] = from[i];
}

/* Four quadwords at a time, as a compiler would unroll it. */
static void copy_unrolled(void *d, const void *s, u64 n)
{
    volatile u64 *to = d;
    const volatile u64 *from = s;

    for (u64 i = 0; i < n / 8; i += 4) {
        u64 a = from[i], b = from[i + 1], c = from[i + 2], e = from[i + 3];
        to[i] = a;
        to[i + 1] = b;
        to[i + 2] = c;
        to[i + 3] = e;
    }
}

static const struct { const char *name; void (*copy)(void *, const void *, u64); u32 size; } copies[] = {
    {"movsb", copy_movsb, SIZE / 8}, {"movsw", copy_movsw, SIZE / 4}, {"movsl", copy_movsl, SIZE / 2},
    {"movsq", copy_movsq, SIZE}, {"backwards", copy_backwards, SIZE}, {"words", copy_words, SIZE},
    {"bytes", copy_bytes, SIZE / 4}, {"unrolled", copy_unrolled, SIZE},
};

/* Two sums after Fletcher, by quadwords: the second depends on the order. */
static u64 fletcher(const void *p, u64 n)
{
    const u64 *q = p;
    u64 a = 1, b = 0;

    for (u64 i = 0; i < n / 8; i++) {
        a += q[i];
        b += a;
    }
    return a ^ b << 1;
}

static void clear(u32 size)
{
    u64 n = (size + 64) / 8;
    void *d = to;

    asm volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0x5a5a5a5a5a5a5a5aull) : "memory");
}

/* Copy `size` bytes between starts that differ in alignment; nothing outside may change. */
static u64 try_copy(u32 which, u32 shift)
{
    u32 size = copies[which].size;
    u64 sum;

    clear(size);
    copies[which].copy(to + 32 - shift, from + shift, size);
    sum = fletcher(to + 32 - shift, size);
    check(sum == fletcher(from + shift, size), copies[which].name);
    check(to[31 - shift] == 0x5a && to[32 - shift + size] == 0x5a, "bytes beside the copy");
    return sum;
}

/* An overlapping forward rep movsb one byte on fills with the first byte: SDM's order is byte by byte. */
static void overlap(void)
{
    u32 wrong = 0;

    memcpy(to, from, 8192);
    copy_movsb(to + 1, to, 8191);
    for (u32 i = 0; i < 8192; i++)
        wrong += to[i] != from[0];
    check_eq(wrong, 0, "forward overlap");

    memcpy(to, from, 8192);
    copy_backwards(to + 8, to, 8184);       /* backwards is the right direction for this one */
    for (u32 i = 0; i < 8184; i++)
        wrong += to[i + 8] != from[i];
    check_eq(wrong, 0, "backward overlap");
}

int main64(void)
{
    u64 seed = 88172645463325252ull, all = 0;

    protect_memory();
    for (u64 *q = (u64 *)from; q < (u64 *)(from + sizeof from); q++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *q = seed;
    }
    for (u32 which = 0; which < sizeof copies / sizeof *copies; which++) {
        u64 sum = 0;
        for (u32 pass = 0; pass < PASSES; pass++)
            sum += try_copy(which, pass * 5);
        print("%s %016llx\n", copies[which].name, sum);
        all = all * 31 + sum;
    }
    overlap();
    print("sum %016llx\n", all);
    return 0;
}
