/* SPDX-License-Identifier: GPL-2.0-or-later */
/* work.h -- what a small 64-bit kernel does all day, for two kernels that differ in one thing: how they save flags and look at
 * themselves.  The includer defines lock(), unlock() and look().
 *
 * After work_begin() nothing here but those three uses an instruction that is sensitive and does not trap. */
#ifndef WORK_H
#define WORK_H

#include "paging.h"
#include "pc.h"
#include "ring.h"
#include "traps.h"

#define AREA    (1ull << 39)            /* demand-paged */
#define PAGES   256
#define FRAMES  0x1000000ull
#define USER_AT 0x2000000ull
#define ROUNDS  300

static word lock(void);                 /* begin a critical section; what unlock() needs to know */
static void unlock(word was);
static void look(void);                 /* the kernel looks at itself */
static struct tss64 work_tss;
static u32 work_sum = MIX_START, work_calls, work_faults;
static volatile u32 work_ticks;
static u8 work_stack[8192] __attribute__((aligned(16)));

/* The user's program: calls until the kernel says no more.  Position-independent, copied to USER_AT. */
extern u8 work_user[], work_user_end[];
asm(".pushsection .text\n"
    "work_user: xor %eax, %eax\n"
    "1: inc %eax\n\t"
    "imul $0x9e3779b1, %eax, %ebx\n\t"
    "int $0x80\n\t"
    "test %eax, %eax\n\t"
    "jnz 1b\n\t"
    "2: jmp 2b\n"
    "work_user_end:\n"
    ".popsection");

static void work_call(struct frame64 *f)
{
    work_sum = mix(work_sum, f->rbx);
    if (++work_calls >= ROUNDS)
        ring_leave64();
}

void trap64(struct frame64 *f)
{
    if (f->vector == 0x80) {
        work_call(f);
    } else if (f->vector == 14 && read_cr2() - AREA < PAGES << 12) {
        u64 page = (read_cr2() - AREA) >> 12;
        page_map(identity_pml4, 4, AREA + (page << 12), FRAMES + (page % 64 << 12), 1, P_WRITE);
        work_faults++;
    } else if (f->vector == IRQ_BASE) {
        work_ticks++;
        pic_end(0);
    } else {
        trap_unexpected(f);
    }
}

static void work_begin(void)
{
    idt_init();
    idt_set(0x80, (void *)(word)trap_stubs64[0x80], GATE_INT | 0x60, 0);
    work_tss.rsp[0] = (word)work_stack + sizeof work_stack;
    work_tss.io_map = sizeof work_tss;
    load_tss(&work_tss, sizeof work_tss - 1);
    pages_init(0x400000, 0x600000);
    memcpy((void *)USER_AT, work_user, work_user_end - work_user);
    write_cr3(read_cr3());
}

/* Touch pages as they come, change their frames and rights, forget them. */
static void work_memory(void)
{
    for (u32 round = 0; round < 3; round++) {
        for (u32 i = 0; i < PAGES; i++) {
            volatile u32 *at = (u32 *)(AREA + ((u64)i * 37 % PAGES << 12));
            word was = lock();

            at[i & 7] = i ^ round;
            work_sum = mix(work_sum, at[i & 7]);
            unlock(was);
        }
        for (u32 i = 0; i < PAGES; i += 1 + round) {
            u64 *e = pte_at(identity_pml4, 4, AREA + ((u64)i << 12), 1);
            *e = i & 1 ? 0 : *e ^ P_NX;
            invlpg((void *)(AREA + ((u64)i << 12)));
        }
        look();
    }
}

/* Wait for the timer three times, once in HLT. */
static void work_time(void)
{
    pic_init(0xfe, 0xff);
    pit_program(0, 2, 11932);
    for (u32 n = 1; n <= 3; n++) {
        asm volatile("sti" : : : "memory");
        while (work_ticks < n)
            asm volatile("hlt" : : : "memory");
        asm volatile("cli" : : : "memory");
        look();
    }
    pic_init(0xff, 0xff);
}

static int work(void)
{
    work_begin();
    work_memory();
    ring_run64(UCODE64 | 3, UDATA | 3, USER_AT, USER_AT + 0x10000, 2);
    look();
    work_time();
    work_memory();
    print("calls %u, faults %u, sum %08x\n", work_calls, work_faults, work_sum);
    check_eq(work_calls, ROUNDS, "system calls");
    check(work_ticks >= 3, "ticks");
    return 0;
}
#endif
