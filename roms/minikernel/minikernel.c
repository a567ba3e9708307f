/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     minikernel
 * bits     32, 64
 * proves   a bit of everything at once: the PIT preempts four kernel threads and four user processes with address spaces of
 *          their own, which make system calls, fault pages in, copy on write, trap and yield; CPUID, RDTSC, MSRs and
 *          ports between; every result is what the same work gives without threads
 * ends     0: all results as foreseen; the checksum does not depend on when the timer ticks
 * mission  4, 10, 26, 43, 63
 * qemu     yes
 * time     yes: timer interrupts preempt, so instruction counts depend on when they come; what is printed does not
 * styles   all
 * memory   64M
 * kind     kernel
 */
#include "minikernel.h"
#include "pc.h"

#define MIN_TICKS 20
#define STACK_BYTES 8192

static u8 stacks[THREADS][STACK_BYTES] __attribute__((aligned(16)));
static u64 (*const work[THREADS])(u64) = {thread_crc, thread_sort, thread_produce, thread_consume};
static const char *const work_name[THREADS] = {"crc", "sort", "produce", "consume"};

/* A thread ends by its return value. */
static u64 thread_main(u64 id)
{
    u64 result = work[id - 1](id);
    asm volatile("int %0" : : "i"(INT_EXIT), "a"(result));
    return 0;
}

static u32 process_check(int id, u32 h)
{
    struct task *t = &tasks[id];
    print("process %u: %016llx, pages on demand %u, copied %u, calls %u, traps %u\n", id, t->result, t->faults, t->copies,
          t->calls, t->traps);
    check_eq(t->result, foresee_process(id), "process");
    check_eq(t->copies, 1, "pages copied");
    check_eq(t->traps, 12, "two #GP and one #BP");
    return mix(mix(mix(h, (u32)t->result), (u32)(t->result >> 32)), t->faults * 65536 + t->calls);
}

int main64(void)
{
    u64 foreseen[2];
    u32 h = MIX_START;
    kernel_init();
    for (int i = 0; i < 2; i++)         /* the ring's two threads foresee each other */
        foreseen[i] = work[i](0);
    for (int i = 0; i < THREADS; i++)
        thread_start(1 + i, thread_main, stacks[i] + STACK_BYTES);
    for (int i = 0; i < PROCESSES; i++)
        process_start(1 + THREADS + i);
    while (tasks_left() || ticks < MIN_TICKS)
        asm volatile("sti; hlt; cli" : : : "memory");
    outb(PIC1 + 1, 0xff);
    for (int i = 0; i < THREADS; i++) {
        print("thread %s: %08x\n", work_name[i], (u32)tasks[1 + i].result);
        check_eq(tasks[1 + i].result, i < 2 ? foreseen[i] : tasks[3].result, work_name[i]);
        h = mix(h, (u32)tasks[1 + i].result);
    }
    for (int i = 0; i < PROCESSES; i++)
        h = process_check(1 + THREADS + i, h);
    check(switches > TASKS, "tasks were switched");
    print("checksum %08x\n", h);
    report(h);
    return 0;
}
