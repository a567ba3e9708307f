/* SPDX-License-Identifier: GPL-2.0-or-later */
/* threads.c -- the work of the four kernel threads.  Called as plain functions too, to foresee the results. */
#include "minikernel.h"
#include "pc.h"

#define CRC_BYTES 65536
#define CRC_ROUNDS 3
#define SORT_WORDS 8192
#define RING 16
#define ITEMS 5000

static u8 crc_buffer[CRC_BYTES];
static u32 sort_words[SORT_WORDS];
static volatile u32 ring[RING], ring_in, ring_out;

/* In a thread fs:0 holds its number, whoever ran in between (0 in main). */
static void own_check(u64 id)
{
    u64 own;
    asm volatile("mov %%fs:0, %0" : "=r"(own));
    check_eq(own, id, "thread-local word");
}

/* CRC-32 (polynomial edb88320) bit by bit. */
static u32 crc32(const u8 *p, u32 n)
{
    u32 crc = ~0u;
    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

u64 thread_crc(u64 id)
{
    u32 h = MIX_START, x = 1;
    check_eq(crc32((const u8 *)"123456789", 9), 0xcbf43926, "CRC-32 of the digits");
    for (int round = 0; round < CRC_ROUNDS; round++) {
        for (u32 i = 0; i < CRC_BYTES; i++)
            crc_buffer[i] = (x = x * 1664525 + 1013904223) >> 24;
        h = mix(h, crc32(crc_buffer, CRC_BYTES));
        own_check(id);
    }
    return h;
}

static void sift(u32 *a, u32 root, u32 n)
{
    for (u32 child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && a[child + 1] > a[child])
            child++;
        if (a[root] >= a[child])
            return;
        u32 t = a[root];
        a[root] = a[child];
        a[child] = t;
    }
}

/* Heap sort; then CPUID, RDTSC, an MSR and a port, whose answers do not depend on the machine. */
u64 thread_sort(u64 id)
{
    u32 x = 7, h = MIX_START;
    for (u32 i = 0; i < SORT_WORDS; i++)
        sort_words[i] = x = x * 1664525 + 1013904223;
    for (u32 i = SORT_WORDS / 2; i--;)
        sift(sort_words, i, SORT_WORDS);
    for (u32 n = SORT_WORDS; --n;) {
        u32 t = sort_words[0];
        sort_words[0] = sort_words[n];
        sort_words[n] = t;
        sift(sort_words, 0, n);
    }
    for (u32 i = 0; i < SORT_WORDS; i++) {
        h = mix(h, sort_words[i]);
        if (i && sort_words[i - 1] > sort_words[i])
            check(0, "sorted");
    }
    for (u32 i = 0; i < 50; i++) {
        u64 before = rdtsc();
        check(cpuid(0x80000001, 0).d >> 29 & 1, "CPUID shows long mode");
        check((rdmsr(MSR_EFER) & EFER_LMA) != 0, "EFER.LMA");
        check(rdtsc() >= before, "RDTSC does not run backwards");
        wrmsr(MSR_CSTAR, i);
        h = mix(h, (u32)rdmsr(MSR_CSTAR));
        outb(PIC2 + 1, 0xff - (i & 1));
        h = mix(h, inb(PIC2 + 1));
    }
    outb(PIC2 + 1, 0xff);
    own_check(id);
    return h;
}

/* Items through a ring of 16: consumed in the order produced, whenever the threads are switched. */
u64 thread_produce(u64 id)
{
    u32 h = MIX_START;
    for (u32 i = 0; i < ITEMS; i++) {
        while (ring_in - ring_out == RING)
            yield();
        u32 item = i * i ^ (i << 7);
        ring[ring_in % RING] = item;
        ring_in++;
        h = mix(h, item);
    }
    own_check(id);
    return h;
}

u64 thread_consume(u64 id)
{
    u32 h = MIX_START;
    for (u32 i = 0; i < ITEMS; i++) {
        while (ring_in == ring_out)
            yield();
        u32 item = ring[ring_out % RING];
        ring_out++;
        h = mix(h, item);
    }
    own_check(id);
    return h;
}
