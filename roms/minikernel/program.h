/* SPDX-License-Identifier: GPL-2.0-or-later */
/* program.h -- what a user process computes.  user.c runs it in ring 3 on demand-zero memory; kernel.c runs it on
 * plain memory with direct calls, to foresee the result.  Everything is inlined: no data of its own. */
#ifndef PROGRAM_H
#define PROGRAM_H
#include "minikernel.h"

#define ROUNDS 2000
#define DEPTH 40

struct world {
    volatile u64 *heap, *cow;
    u64 (*call)(u64 number, u64 a, u64 b);
    u64 (*recurse)(u64 depth, u64 h);
    void (*misbehave)(void);
};

static inline __attribute__((always_inline)) u64 turn(u64 h, u64 v) { return (h << 7 | h >> 57) ^ v; }

/* Touch 512 bytes of stack a level. */
#define RECURSE_BODY(self)                                                                        \
    volatile u64 room[64];                                                                        \
    room[depth & 63] = h;                                                                         \
    h = depth ? self(depth - 1, turn(h, depth)) : h;                                              \
    return turn(h, room[depth & 63]);

static inline __attribute__((always_inline)) u64 program(u64 pid, struct world w)
{
    u64 h = pid * 0x9e3779b97f4a7c15;
    for (u64 i = 0; i < HEAP_PAGES; i++) {
        u64 page = (i * 7 + pid) % HEAP_PAGES;
        h = turn(h, w.heap[page * 512 + 1]);
        w.heap[page * 512] = h * (i + 1);
    }
    h = turn(h, w.cow[0]);
    w.cow[1] = pid;
    for (u64 i = 0; i < ROUNDS; i++) {
        h = turn(h, w.call(SYS_MIX, h, i));
        if (i % 100 == pid)
            w.call(SYS_YIELD, 0, 0);
    }
    h = turn(h, w.cow[1]);
    w.misbehave();
    h = turn(h, w.recurse(DEPTH, h));
    h = turn(h, w.call(SYS_SUM, (u64)w.heap, 64));
    for (u64 page = HEAP_PAGES; page--;)
        h = turn(h, w.heap[page * 512]);
    return turn(h, w.call(SYS_GETPID, 0, 0));
}
#endif
