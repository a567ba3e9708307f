/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     v86
 * bits     16, 32
 * proves   two real-mode programs run at once in virtual-8086 mode, each in its own megabyte mapped on demand, IOPL 0:
 *          INT n, IN, OUT, CLI, STI, PUSHF, POPF, IRET and HLT trap to a monitor that reflects interrupts through the
 *          task's own IVT, keeps a virtual IF and switches tasks on HLT
 * ends     0: both results are right, nothing leaked between the tasks, and each trap was counted as expected
 * mission  3, 41, 53
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "traps.h"
#include "paging.h"
#include "v86.h"

#define TASKS 2
#define TASK_BYTES 0xa0000u             /* conventional memory */
#define TASK_FRAME(n) (0x1000000u + (n) * 0x100000u)
#define IOPL_MASK 0x3000u

extern char tasks_start[], tasks_end[], task_a[], task_b[];
void __attribute__((noreturn)) v86_enter(struct frame32 *f);    /* enter.S */
void monitor_end(void);

enum { N_INT, N_IN, N_OUT, N_CLI, N_STI, N_PUSHF, N_POPF, N_IRET, N_HLT, N_REFLECTED, N_MAPPED, N_REFUSED, N_KINDS };
static const char *const kind_name[N_KINDS] = {"int", "in", "out", "cli", "sti", "pushf", "popf", "iret", "hlt",
                                               "exception reflected", "page mapped", "access refused"};
struct task { struct frame32 frame; u32 *directory; u32 virtual_if, done, result, length, count[N_KINDS]; char line[80]; };
static struct task tasks[TASKS];
static u32 current, switches;
static struct { struct tss32 tss; u8 io_map[0x400 / 8 + 1]; } tss;
extern char monitor_stack[];

/* ---- the task's memory and stack, as real mode sees them ---- */
static u8 *task_memory(u32 segment, u32 offset)
{
    return (u8 *)TASK_FRAME(current) + segment * 16 + (offset & 0xffff);
}

static void push16(struct frame32 *f, u32 value)
{
    f->esp = (f->esp - 2) & 0xffff;
    *(u16 *)task_memory(f->ss, f->esp) = value;
}

static u32 pop16(struct frame32 *f)
{
    u32 value = *(u16 *)task_memory(f->ss, f->esp);
    f->esp = (f->esp + 2) & 0xffff;
    return value;
}

static u32 flags_shown(const struct frame32 *f)
{
    return (f->eflags & 0xffff & ~(IOPL_MASK | FLAG_IF)) | (tasks[current].virtual_if ? FLAG_IF : 0);
}

static void flags_set(struct frame32 *f, u32 value)
{
    f->eflags = (value & 0x4fd5) | 2 | FLAG_VM;
    tasks[current].virtual_if = value >> 9 & 1;
}

/* Deliver vector n as real mode does: flags, cs, ip on the stack, IF clear, cs:ip from the IVT. */
static void reflect(struct frame32 *f, u32 n)
{
    const u16 *vector = (u16 *)task_memory(0, 4 * n);
    push16(f, flags_shown(f));
    push16(f, f->cs);
    push16(f, f->eip);
    tasks[current].virtual_if = 0;
    f->eip = vector[0];
    f->cs = vector[1];
}

/* ---- what a task may ask for ---- */
static void line_put(struct task *t, char c)
{
    if (c != '\n' && t->length < sizeof t->line - 1) {
        t->line[t->length++] = c;
        return;
    }
    t->line[t->length] = 0;
    print("task %c: %s\n", 'A' + current, t->line);
    t->length = 0;
}

static u32 port_in(u32 port) { return port == COM1_LINE_STATUS ? 0x60 : 0xff; }

static void port_out(u32 port, u32 value)
{
    if (port == COM1_DATA)
        line_put(&tasks[current], value);
}

/* Go on with the next task that is not done; the last one to finish ends the monitor. */
static void task_switch(struct frame32 *f)
{
    tasks[current].frame = *f;
    for (u32 i = 1; i <= TASKS; i++) {
        u32 next = (current + i) % TASKS;
        if (!tasks[next].done) {
            switches += next != current;
            current = next;
            *f = tasks[next].frame;
            write_cr3((u32)tasks[next].directory);
            return;
        }
    }
    monitor_end();
}

static void task_exit(struct frame32 *f)
{
    tasks[current].done = 1;
    tasks[current].result = f->eax & 0xffff;
    task_switch(f);
}

/* A #GP in V86 mode: emulate the instruction.  Only those that IOPL 0 and the I/O bitmap make trap. */
static void emulate(struct frame32 *f)
{
    struct task *t = &tasks[current];
    const u8 *code = task_memory(f->cs, f->eip);
    switch (code[0]) {
    case 0xcd:
        t->count[N_INT]++;
        f->eip += 2;
        if (code[1] == INT_EXIT)
            task_exit(f);
        else
            reflect(f, code[1]);
        return;
    case 0xec:
        t->count[N_IN]++;
        f->eax = (f->eax & ~0xffu) | port_in(f->edx & 0xffff);
        break;
    case 0xee:
        t->count[N_OUT]++;
        port_out(f->edx & 0xffff, f->eax & 0xff);
        break;
    case 0xfa:
        t->count[N_CLI]++;
        t->virtual_if = 0;
        break;
    case 0xfb:
        t->count[N_STI]++;
        t->virtual_if = 1;
        break;
    case 0x9c:
        t->count[N_PUSHF]++;
        push16(f, flags_shown(f));
        break;
    case 0x9d:
        t->count[N_POPF]++;
        flags_set(f, pop16(f));
        break;
    case 0xcf:
        t->count[N_IRET]++;
        f->eip = pop16(f);
        f->cs = pop16(f);
        flags_set(f, pop16(f));
        return;
    case 0xf4:
        t->count[N_HLT]++;
        f->eip++;
        task_switch(f);
        return;
    default:
        trap_unexpected(f);
    }
    f->eip++;
}

static void page_fault(struct frame32 *f)
{
    u32 address = read_cr2();
    struct task *t = &tasks[current];
    if (address < TASK_BYTES) {
        check_eq(f->error & ~PF_W, PF_U, "#PF code of a page not mapped yet");
        *pte32_at(t->directory, address) = (TASK_FRAME(current) + (address & ~0xfffu)) | 7;
        t->count[N_MAPPED]++;
    } else {
        check_eq(address, 0x100000, "address above the task's memory");
        check_eq(f->error, PF_U | PF_P, "#PF code of the monitor's memory");
        t->count[N_REFUSED]++;
        f->eip = f->esi & 0xffff;
    }
}

void trap32(struct frame32 *f)
{
    if (!(f->eflags & FLAG_VM))
        trap_unexpected(f);
    switch (f->vector) {
    case 0:
    case 3:
        tasks[current].count[N_REFLECTED]++;
        reflect(f, f->vector);
        return;
    case 13:
        check_eq(f->error, 0, "#GP code of a sensitive instruction");
        emulate(f);
        return;
    case 14:
        page_fault(f);
        return;
    }
    trap_unexpected(f);
}

/* ---- start and end ---- */
static void task_start(u32 n, const char *entry)
{
    struct task *t = &tasks[n];
    memcpy((u8 *)TASK_FRAME(n) + TASK_SEG * 16, tasks_start, tasks_end - tasks_start);
    t->directory = page_alloc();
    t->directory[0] = (u32)page_alloc() | 7;
    for (u32 page = 0x100000; page < 0x400000; page += 4096)
        *pte32_at(t->directory, page) = page | 3;               /* the monitor's, hidden from the task */
    for (u32 i = 1; i < 16; i++)
        t->directory[i] = i << 22 | P_LARGE | 3;
    t->virtual_if = 1;
    t->frame.eflags = FLAG_VM | 2;
    t->frame.cs = t->frame.ss = TASK_SEG;
    t->frame.eip = entry - tasks_start;
    t->frame.esp = TASK_STACK;
}

static void tss_init(void)
{
    tss.tss.ss0 = KDATA;
    tss.tss.esp0 = (u32)monitor_stack;
    memset(tss.io_map, 0xff, sizeof tss.io_map);
    tss.io_map[FREE_PORT / 8] &= ~(1 << (FREE_PORT & 7));
    tss.tss.io_map = sizeof tss.tss;
    load_tss(&tss, sizeof tss - 1);
}

/* What each task is expected to have done, from its source. */
static void counts_check(void)
{
    static const u32 expected[TASKS][N_KINDS] = {
        {ROUNDS + 1, 0, 0, 0, 0, 0, 0, ROUNDS + 2, ROUNDS, 2, 7, 0},
        {ROUNDS + 1, 0, 0, 2, 1, 4, 1, ROUNDS, ROUNDS, 0, 7, 1}};
    for (u32 n = 0; n < TASKS; n++) {
        print("task %c:", 'A' + n);
        for (u32 k = 0; k < N_KINDS; k++) {
            u32 count = tasks[n].count[k];
            if (count)
                print(" %s %u", kind_name[k], count);
            if (k == N_IN)
                check(count && count == tasks[n].count[N_OUT], "one IN for each OUT");
            else if (k != N_OUT)
                check_eq(count, expected[n][k], kind_name[k]);
        }
        print("\n");
    }
}

void monitor_end(void)
{
    u32 fibonacci = 0, squares = 0, a = 1, b = 1;
    for (u32 i = 1; i <= ROUNDS; i++) {
        u32 c = a + b;
        fibonacci += a;
        a = b, b = c;
        squares += i * i;
    }
    counts_check();
    print("results %u %u, switches %u\n", tasks[0].result, tasks[1].result, switches);
    check_eq(tasks[0].result, fibonacci & 0xffff, "task A");
    check_eq(tasks[1].result, squares & 0xffff, "task B");
    check_eq(*(u16 *)(TASK_FRAME(0) + 0x500), 0xaaaa, "word 500 of task A");
    check_eq(*(u16 *)(TASK_FRAME(1) + 0x500), 0xbbbb, "word 500 of task B");
    rom_end();
}

int main32(void)
{
    pages_init(0x400000, 0x500000);
    idt_init();
    idt_set(3, (void *)trap_stubs32[3], GATE_INT | 0x60, 0);     /* int3 is not IOPL-sensitive: gate DPL 3 */
    tss_init();
    task_start(0, task_a);
    task_start(1, task_b);
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)tasks[0].directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    v86_enter(&tasks[0].frame);
}
