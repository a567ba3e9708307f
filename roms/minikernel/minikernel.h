/* SPDX-License-Identifier: GPL-2.0-or-later */
/* minikernel.h -- tasks, memory layout and system calls of the small kernel. */
#ifndef MINIKERNEL_H
#define MINIKERNEL_H

#include "selectors.h"

#define THREADS 4
#define PROCESSES 4
#define TASKS (1 + THREADS + PROCESSES)         /* task 0 is main, which idles */

#define INT_YIELD 0x30                          /* threads only: gates of DPL 0 */
#define INT_EXIT 0x31

#define USER_BASE 0x8000000000                  /* PML4 entry 1: all a process has */
#define USER_CODE USER_BASE
#define USER_HEAP (USER_BASE + 0x10000000)
#define USER_COW (USER_BASE + 0x20000000)
#define USER_TLS (USER_BASE + 0x30000000)
#define USER_STACK (USER_BASE + 0x40000000)     /* its top */
#define HEAP_PAGES 32
#define STACK_PAGES 16
#define COW_VALUE 0x5eed

#ifndef __ASSEMBLER__
#include "paging.h"
#include "traps.h"

enum { SYS_MIX, SYS_YIELD, SYS_GETPID, SYS_SUM, SYS_EXIT };
enum state { READY, DONE };
struct task {
    struct frame64 frame;
    u64 cr3, fs_base, result, tls;              /* tls: what fs:0 of a thread holds */
    enum state state;
    u32 faults, copies, calls, traps;           /* counts that depend on the program alone */
};

extern struct task tasks[TASKS];
extern volatile u32 ticks, switches;

void kernel_init(void);
void thread_start(int id, u64 (*function)(u64 id), void *stack_top);
void process_start(int id);
int tasks_left(void);
u64 sys_mix(u64 a, u64 b);
u64 foresee_process(u64 id);
u64 thread_crc(u64 id), thread_sort(u64 id), thread_produce(u64 id), thread_consume(u64 id);

static inline void yield(void) { asm volatile("int %0" : : "i"(INT_YIELD) : "memory"); }
#endif
#endif
