/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kernel.c -- scheduler, address spaces, system calls and exceptions of the small kernel.  Never preempted itself. */
#include "program.h"
#include "pc.h"
#include "wx.h"

#define PIT_COUNT 119                   /* 10 kHz */

struct task tasks[TASKS];
volatile u32 ticks, switches;

extern char __start_user_text[], __stop_user_text[], trap_stack[], syscall_stack[];
void syscall_entry(void);
void user_main(u64 pid);

static struct tss64 tss;
static struct { word kernel, user; } stacks;            /* gs:0 and gs:8 while a system call starts */
static int current;
static u64 *cow_page;

/* ---- scheduler: a switch exchanges the frame that the handler will resume ---- */
int tasks_left(void)
{
    int n = 0;
    for (int i = 1; i < TASKS; i++)
        n += tasks[i].state != DONE;
    return n;
}

static int next_task(void)
{
    for (int i = 1; i <= TASKS; i++) {
        int next = (current + i) % TASKS;
        if (next && tasks[next].state == READY)
            return next;
    }
    return 0;
}

static int task_switch(struct frame64 *f)
{
    int next = next_task();
    if (next == current)
        return 0;
    check_eq(rdmsr(MSR_FS_BASE), tasks[current].fs_base, "FS base of the task that ran");
    tasks[current].frame = *f;
    *f = tasks[next].frame;
    if (tasks[next].cr3 != tasks[current].cr3)
        write_cr3(tasks[next].cr3);
    wrmsr(MSR_FS_BASE, tasks[next].fs_base);
    current = next;
    switches++;
    return 1;
}

static int task_exit(struct frame64 *f, u64 result)
{
    tasks[current].result = result;
    tasks[current].state = DONE;
    return task_switch(f);
}

void thread_start(int id, u64 (*function)(u64 id), void *stack_top)
{
    struct task *t = &tasks[id];
    u64 *stack = stack_top;
    *--stack = 0;                       /* the ABI's alignment at a function's entry */
    memset(t, 0, sizeof *t);
    t->cr3 = read_cr3();
    t->tls = id;
    t->fs_base = (word)&t->tls;
    t->frame.rip = (word)function;
    t->frame.rdi = id;
    t->frame.cs = KCODE64;
    t->frame.ss = KDATA;
    t->frame.rflags = FLAG_IF | 2;
    t->frame.rsp = (word)stack;
}

/* ---- processes ---- */
static u64 *user_pte(u64 cr3, u64 va) { return pte_at((u64 *)cr3, 4, va, 1); }

void process_start(int id)
{
    struct task *t = &tasks[id];
    u64 *pml4 = page_alloc(), *tls = page_alloc();
    u64 bytes = __stop_user_text - __start_user_text;
    pml4[0] = identity_pml4[0];
    for (u64 at = 0; at < bytes; at += 4096) {
        void *page = page_alloc();
        memcpy(page, __start_user_text + at, bytes - at < 4096 ? bytes - at : 4096);
        *user_pte((word)pml4, USER_CODE + at) = (word)page | P_PRESENT | P_USER;
    }
    *user_pte((word)pml4, USER_COW) = (word)cow_page | P_PRESENT | P_USER | P_NX;
    *user_pte((word)pml4, USER_TLS) = (word)tls | P_PRESENT | P_WRITE | P_USER | P_NX;
    *tls = id;
    memset(t, 0, sizeof *t);
    t->cr3 = (word)pml4;
    t->fs_base = USER_TLS;
    t->frame.rip = USER_CODE + ((word)user_main - (word)__start_user_text);
    t->frame.rdi = id;
    t->frame.cs = UCODE64 | 3;
    t->frame.ss = UDATA | 3;
    t->frame.rflags = FLAG_IF | 2;
    t->frame.rsp = USER_STACK - 8;
}

/* Demand-zero heap and stack, copy-on-write of the shared page.  0: not a page this process may have. */
static int page_fault(u64 error, u64 at)
{
    struct task *t = &tasks[current];
    u64 page = at & ~4095ull;
    if (page == USER_COW && error == (PF_P | PF_W | PF_U)) {
        void *copy = memcpy(page_alloc(), cow_page, 4096);
        *user_pte(t->cr3, page) = (word)copy | P_PRESENT | P_WRITE | P_USER | P_NX;
        invlpg((void *)page);
        t->copies++;
        return 1;
    }
    int heap = page >= USER_HEAP && page < USER_HEAP + HEAP_PAGES * 4096ull;
    int stack = page < USER_STACK && page >= USER_STACK - STACK_PAGES * 4096ull;
    if ((error & (PF_P | PF_RSVD | PF_I)) || !(heap || stack))
        return 0;
    *user_pte(t->cr3, page) = (word)page_alloc() | P_PRESENT | P_WRITE | P_USER | P_NX;
    t->faults++;
    return 1;
}

/* ---- system calls ---- */
u64 sys_mix(u64 a, u64 b) { return mix(mix((u32)a, (u32)(a >> 32)), (u32)b); }

static u64 sum_words(const volatile u64 *p, u64 n)
{
    u64 sum = 0;
    for (u64 i = 0; i < n; i++)
        sum += p[i] ^ i;
    return sum;
}

/* Returns 1 when the frame was exchanged for another task's. */
int syscall64(struct frame64 *f)
{
    u64 a = f->rdi, b = f->rsi;
    tasks[current].calls++;
    switch (f->rax) {
    case SYS_MIX:
        f->rax = sys_mix(a, b);
        return 0;
    case SYS_YIELD:
        f->rax = 0;
        return task_switch(f);
    case SYS_GETPID:
        f->rax = current;
        return 0;
    case SYS_SUM:
        f->rax = a >= USER_HEAP && a + b * 8 <= USER_HEAP + HEAP_PAGES * 4096ull ? sum_words((u64 *)a, b) : 0;
        return 0;
    case SYS_EXIT:
        return task_exit(f, a);
    }
    f->rax = -38;
    return 0;
}

/* ---- exceptions and interrupts ---- */
void trap64(struct frame64 *f)
{
    int user = (f->cs & 3) == 3;
    switch (f->vector) {
    case IRQ_BASE + IRQ_PIT:
        ticks++;
        pic_end(IRQ_PIT);
        task_switch(f);
        return;
    case INT_YIELD:
        task_switch(f);
        return;
    case INT_EXIT:
        task_exit(f, f->rax);
        return;
    case 3:
        tasks[current].traps += 10;
        return;
    case 13:
        if (user && f->error == 0) {    /* CLI: one byte */
            tasks[current].traps++;
            f->rip++;
            return;
        }
        break;
    case 14:
        if (page_fault(f->error, read_cr2()))
            return;
        break;
    }
    trap_unexpected(f);
}

void kernel_init(void)
{
    pages_init(0x400000, 0x2000000);
    protect_memory();
    for (int i = 2; i < 2048; i++)
        identity_pd[i] &= ~P_USER;
    write_cr3(read_cr3());
    idt_init();
    idt_set(3, (void *)(word)trap_stubs64[3], GATE_INT | 0x60, 0);
    tss.rsp[0] = (word)trap_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    stacks.kernel = (word)syscall_stack;
    asm volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));     /* IRET to ring 3 would null ring 0 selectors, bases too */
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE64 << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_TF | FLAG_DF);
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, (word)&stacks);
    tasks[0].cr3 = read_cr3();
    tasks[0].fs_base = (word)&tasks[0].tls;
    tasks[0].state = DONE;              /* main runs only when nobody else can */
    wrmsr(MSR_FS_BASE, tasks[0].fs_base);
    cow_page = page_alloc();
    cow_page[0] = COW_VALUE;
    pic_init(0xff & ~(1 << IRQ_PIT), 0xff);
    pit_program(0, 2, PIT_COUNT);
}

/* ---- the same program without a process ---- */
static u64 heap_words[HEAP_PAGES * 512], foreseen_pid;

static u64 direct_call(u64 number, u64 a, u64 b)
{
    switch (number) {
    case SYS_MIX: return sys_mix(a, b);
    case SYS_GETPID: return foreseen_pid;
    case SYS_SUM: return sum_words((u64 *)a, b);
    }
    return 0;
}
static u64 direct_recurse(u64 depth, u64 h) { RECURSE_BODY(direct_recurse) }
static void nothing(void) {}

u64 foresee_process(u64 id)
{
    u64 cow[2] = {COW_VALUE, 0};
    memset(heap_words, 0, sizeof heap_words);
    foreseen_pid = id;
    return program(id, (struct world){heap_words, cow, direct_call, direct_recurse, nothing});
}
