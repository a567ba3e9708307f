/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     tasks
 * bits     32
 * proves   hardware task switches: far JMP and CALL to a TSS and through a task gate, INT n and exceptions through task gates in the
 *          IDT, IRET with NT; busy bits, back link, NT and TS (SDM 3A table 7-2); error codes on the new task's stack, the
 *          double fault among them; a 16-bit TSS; a task with its own CR3; and each refusal, in the old task or in the new
 * ends     0: every task found what the manual says; 1: a FAIL line
 * mission  2
 * qemu     no: Bochs: TCG reports a fault in the new task at the old one's address, an absent stack segment there as #NP, and a
 *          task gate to the LDT as #TS
 * time     no
 * kind     mode
 */
#include "traps.h"
#include "paging.h"

enum { MAIN = TSS_SEL, TASK = GDT_FREE, GATE = GDT_FREE + 8, TASK16 = GDT_FREE + 16, CODE16 = GDT_FREE + 24, STACK16 = GDT_FREE + 32,
       TS_TASK = GDT_FREE + 40, NP_TASK = GDT_FREE + 48, SS_TASK = GDT_FREE + 56, GP_TASK = GDT_FREE + 64, DF_TASK = GDT_FREE + 72,
       NP_DATA = GDT_FREE + 88, PAGED = GDT_FREE + 96 };

struct __attribute__((packed)) tss16 {
    u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

static struct tss32 main_tss, task, fault_task[5], paged;
static struct tss16 task16;
static u8 stacks[8][1024];
u32 by_jump;                            /* the worker leaves by JMP, not IRET */
u32 fault_error, fault_vector;
static struct { u32 tr, link, flags, ts, main_busy, own_busy, eax, runs; } seen;
static u32 want_resume, fault_link, fault_eip, faults;

extern char worker[], worker16[], worker16_end[], fault_worker[], paged_worker[];
asm(".pushsection .text\n"
    "worker:  mov %eax, worker_eax\n"
    "1:  call worker_note\n"
    "    cmpl $0, by_jump\n"
    "    jne 2f\n"
    "    iret\n"
    "    jmp 1b\n"
    "2:  ljmp $0x58, $0\n"
    "    jmp 1b\n"
    /* a handler that is a task: its ebx says of which vector */
    "fault_worker:\n"
    "    pop fault_error\n"
    "    mov %ebx, fault_vector\n"
    "    call fault_note\n"
    "    test %eax, %eax\n"
    "    jnz 3f\n"
    "    iret\n"
    "    jmp fault_worker\n"
    "3:  ljmp $0x58, $0\n"
    "    jmp fault_worker\n"
    /* 32-bit code at offset 0 of its own segment; the stack is a 16-bit one */
    "worker16: mov %ax, %es:worker_eax\n"
    "    mov %sp, %es:worker_eax + 2\n"
    "    iret\n"
    "worker16_end:\n"
    "paged_worker:\n"
    "    mov 0x40000000, %eax\n"
    "    mov %eax, worker_eax\n"
    "    iret\n"
    "    jmp paged_worker\n"
    ".popsection");
u32 worker_eax;

static u32 busy(u32 selector) { return gdt[selector / 8] >> 41 & 1; }
static u16 task_register(void) { u16 v; asm volatile("str %0" : "=r"(v)); return v; }

void worker_note(void)
{
    seen.tr = task_register();
    seen.link = task.link & 0xffff;
    seen.flags = read_flags();
    seen.ts = read_cr0() & CR0_TS;
    seen.main_busy = busy(MAIN);
    seen.own_busy = busy(TASK);
    seen.eax = worker_eax;
    seen.runs++;
}

/* In the handler's task: note what happened; 1 = the interrupted task cannot go on, jump to main. */
u32 fault_note(void)
{
    struct tss32 *own = &fault_task[(task_register() - TS_TASK) / 8];
    fault_link = own->link & 0xffff;
    fault_eip = fault_link == MAIN ? main_tss.eip : task.eip;
    faults++;
    if (fault_link != MAIN)
        return 1;
    main_tss.eip = want_resume;
    return 0;
}

static void task_set(struct tss32 *t, u32 selector, const void *entry, u8 *stack, u32 ebx)
{
    memset(t, 0, sizeof *t);
    t->eip = (u32)entry, t->eflags = 2, t->esp = (u32)(stack + 1024), t->eax = 0x1234567, t->ebx = ebx, t->cr3 = read_cr3();
    t->cs = KCODE32, t->ss = t->ds = t->es = t->fs = t->gs = KDATA, t->io_map = sizeof *t;
    gdt[selector / 8] = descriptor((u32)t, sizeof *t - 1, 0x89, 0);
}

static void reset(void)
{
    static const u8 vectors[5] = {10, 11, 12, 13, 8};
    main_tss.cr3 = read_cr3();
    gdt[MAIN / 8] |= 1ull << 41;
    task_set(&task, TASK, worker, stacks[0], 0);
    for (u32 i = 0; i < 5; i++) {
        task_set(&fault_task[i], TS_TASK + 8 * i, fault_worker, stacks[1 + i], vectors[i]);
        idt32[vectors[i]] = gate(0, TS_TASK + 8 * i, GATE_TASK, 0);
    }
    gdt[GATE / 8] = gate(0, TASK, GATE_TASK | 0x60, 0);
    idt32[0x50] = gate(0, TASK, GATE_TASK, 0);
    memset(&seen, 0, sizeof seen);
    by_jump = faults = fault_vector = fault_error = 0;
    asm volatile("clts");
}

static void found(const char *what, u32 runs, u32 link, u32 main_busy, u32 nt)
{
    print("%s: tr %x link %x NT %u main busy %u own busy %u\n", what, seen.tr, seen.link, seen.flags >> 14 & 1, seen.main_busy,
          seen.own_busy);
    check_eq(seen.runs, runs, "runs");
    check_eq(seen.tr, TASK, "tr");
    check_eq(seen.link, link, "link");
    check_eq(seen.main_busy, main_busy, "main is busy");
    check_eq(seen.own_busy, 1, "the new task is busy");
    check_eq(seen.flags >> 14 & 1, nt, "NT");
    check_eq(seen.ts != 0, 1, "TS");
    check_eq(seen.eax, 0x1234567, "eax from the TSS");
    check_eq(task_register(), MAIN, "tr afterwards");
    check_eq(busy(MAIN), 1, "main is busy afterwards");
    check_eq(busy(TASK), 0, "the other is not");
    check_eq(read_flags() & FLAG_NT, 0, "NT afterwards");
}

static void switches(void)
{
    u32 kept = 0x55aa55aa;
    reset();
    by_jump = 1;
    asm volatile("ljmp %1, $0" : "+S"(kept) : "i"(TASK) : "memory", "cc");
    found("jmp to a TSS", 1, 0, 0, 0);
    check_eq(kept, 0x55aa55aa, "registers come back");
    check_eq(task.eflags & FLAG_NT, 0, "NT in the TSS after jmp");
    reset();
    asm volatile("lcall %0, $0" : : "i"(TASK) : "memory", "cc");
    found("call to a TSS", 1, MAIN, 1, 1);
    check_eq(task.eflags & FLAG_NT, 0, "NT in the TSS after iret");
    asm volatile("clts");
    asm volatile("lcall %0, $0" : : "i"(TASK) : "memory", "cc");
    found("again, behind its iret", 2, MAIN, 1, 1);
    reset();
    asm volatile("lcall %0, $0" : : "i"(GATE | 3) : "memory", "cc");
    found("call through a task gate", 1, MAIN, 1, 1);
    reset();
    by_jump = 1;
    static const struct __attribute__((packed)) { u32 offset; u16 selector; } far = {0, GATE};
    asm volatile("ljmp *%0" : : "m"(far) : "memory", "cc");
    found("jmp through a task gate, from memory", 1, 0, 0, 0);
    reset();
    asm volatile("int $0x50" : : : "memory", "cc");
    found("int n through a task gate", 1, MAIN, 1, 1);
}

/* Run main's `instruction`, label 7 in it, and come back behind it from the handler's task. */
#define FAULTING(instruction, what, vector, error)                                                \
    do {                                                                                          \
        asm volatile("movl $2f, %0\n"                                                             \
                     instruction "\n"                                                             \
                     "2: mov $7b, %1" : "=m"(want_resume), "=r"(at) : : "memory", "cc", "eax");   \
        print("%s: vector %u error %x link %x\n", what, fault_vector, fault_error, fault_link);   \
        check_eq(faults, 1, what);                                                                \
        check_eq(fault_vector, vector, "vector");                                                 \
        check_eq(fault_error, error, "error code");                                               \
        check_eq(fault_eip, at, "eip in the old TSS");                                            \
        check_eq(fault_link, MAIN, "link");                                                       \
        reset();                                                                                  \
    } while (0)

static void handlers(void)
{
    u32 at;
    reset();
    FAULTING("mov $0x1fc, %%eax; 7: mov %%eax, %%ds", "#GP", 13, 0x1fc);
    FAULTING("7: ljmp $0x58, $0", "jmp to a busy TSS", 13, MAIN);
    FAULTING("7: ljmp $0x6b, $0", "jmp to a TSS, RPL above its DPL", 13, TASK);
    gdt[TASK / 8] &= ~(1ull << 47);
    FAULTING("7: ljmp $0x68, $0", "jmp to an absent TSS", 11, TASK);
    gdt[GATE / 8] &= ~(1ull << 47);
    FAULTING("7: lcall $0x70, $0", "call through an absent gate", 11, GATE);
    gdt[GATE / 8] = gate(0, 0, GATE_TASK, 0);
    FAULTING("7: lcall $0x70, $0", "call through a gate to null", 13, 0);
    gdt[GATE / 8] = gate(0, TASK | 4, GATE_TASK, 0);
    FAULTING("7: lcall $0x70, $0", "call through a gate to the LDT", 13, TASK | 4);
    gdt[GATE / 8] = gate(0, KDATA, GATE_TASK, 0);
    FAULTING("7: lcall $0x70, $0", "call through a gate to data", 13, KDATA);
    gdt[TASK / 8] = descriptor((u32)&task, 0x66, 0x89, 0);
    FAULTING("7: lcall $0x68, $0", "call to a short TSS", 10, TASK);
    main_tss.link = TASK;
    FAULTING("pushl $0x4002; popf; 7: iret", "iret with NT to a task that is not busy", 10, TASK);
    idt32[0x51] = gate(0, MAIN, GATE_TASK, 0);
    FAULTING("7: int $0x51", "int n through a gate to a busy TSS", 13, MAIN);
    idt32[6] = gate(0, KCODE32, 0, 0);
    idt32[13] = 0;
    FAULTING("7: ud2", "double fault", 8, 0);
}

/* The new task's own segments are at fault: the handler's task finds the new task as the interrupted one. */
static void in_the_new_task(const char *what, u32 offset, u32 value, u32 vector, u32 error)
{
    reset();
    by_jump = 1;
    *(u32 *)((u8 *)&task + offset) = value;
    asm volatile("ljmp %0, $0" : : "i"(TASK) : "memory", "cc");
    print("%s: vector %u error %x link %x\n", what, fault_vector, fault_error, fault_link);
    check_eq(fault_vector, vector, what);
    check_eq(fault_error, error, "error code");
    check_eq(fault_link, TASK, "link");
    check_eq(fault_eip, (u32)worker, "eip in the new task's TSS");
    check_eq(seen.runs, 0, "it never ran");
    gdt[TASK / 8] &= ~(1ull << 41);
}
#define FIELD(f) __builtin_offsetof(struct tss32, f)

static void new_tasks(void)
{
    gdt[NP_DATA / 8] = descriptor(0, 0xfffff, 0x13, 0xc);
    in_the_new_task("cs null", FIELD(cs), 0, 10, 0);
    in_the_new_task("cs data", FIELD(cs), KDATA, 10, KDATA);
    in_the_new_task("cs beyond the GDT", FIELD(cs), 0x208, 10, 0x208);
    in_the_new_task("ss null", FIELD(ss), 0, 10, 0);
    in_the_new_task("ss code", FIELD(ss), KCODE32, 10, KCODE32);
    in_the_new_task("ss RPL 3", FIELD(ss), KDATA | 3, 10, KDATA);
    in_the_new_task("ss absent", FIELD(ss), NP_DATA, 12, NP_DATA);
    in_the_new_task("ds a TSS", FIELD(ds), MAIN, 10, MAIN);
    in_the_new_task("fs absent", FIELD(fs), NP_DATA, 11, NP_DATA);
    in_the_new_task("ldt data", FIELD(ldt), KDATA, 10, KDATA);
    in_the_new_task("ldt in the LDT", FIELD(ldt), 4, 10, 4);
}

static void sixteen_bits(void)
{
    reset();
    memset(&task16, 0, sizeof task16);
    gdt[CODE16 / 8] = descriptor((u32)worker16, worker16_end - worker16 - 1, 0x9b, 4);
    gdt[STACK16 / 8] = descriptor((u32)stacks[6], 0xffff, 0x93, 0);
    gdt[TASK16 / 8] = descriptor((u32)&task16, sizeof task16 - 1, 0x81, 0);
    task16.flags = 2, task16.ax = 0xabcd, task16.sp = 1024;
    task16.es = task16.ds = KDATA, task16.cs = CODE16, task16.ss = STACK16;
    asm volatile("lcall %0, $0" : : "i"(TASK16) : "memory", "cc");
    print("16-bit TSS: ax and sp %x\n", worker_eax);
    check_eq(worker_eax, 1024u << 16 | 0xabcd, "ax, sp");
    check_eq(task16.ip, worker16_end - worker16, "ip in its TSS");
    check_eq(task16.link, MAIN, "link");
    check_eq(gdt[TASK16 / 8] >> 41 & 1, 0, "busy afterwards");
}

static void own_tables(void)
{
    u32 *mine = page_alloc(), *its = page_alloc();
    volatile u32 *window = (u32 *)0x40000000;

    for (u32 i = 0; i < 4; i++)
        mine[i] = its[i] = i << 22 | P_LARGE | P_WRITE | P_PRESENT;
    mine[0x100] = 8 << 22 | P_LARGE | P_WRITE | P_PRESENT;
    its[0x100] = 9 << 22 | P_LARGE | P_WRITE | P_PRESENT;
    *(u32 *)(8 << 22) = 0x11111111;
    *(u32 *)(9 << 22) = 0x22222222;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)mine);
    write_cr0(read_cr0() | CR0_PG);
    reset();
    task_set(&paged, PAGED, paged_worker, stacks[7], 0);
    paged.cr3 = (u32)its;
    for (u32 turn = 0; turn < 3; turn++) {
        asm volatile("lcall %0, $0" : : "i"(PAGED) : "memory", "cc");
        print("its own tables: %x, here %x\n", worker_eax, *window);
        check_eq(worker_eax, 0x22222222, "the task's page");
        check_eq(*window, 0x11111111, "main's page");
        check_eq(read_cr3(), (u32)mine, "cr3 afterwards");
    }
    write_cr0(read_cr0() & ~CR0_PG);
}

int main32(void)
{
    idt_init();
    pages_init(0x400000, 0x500000);
    load_tss(&main_tss, sizeof main_tss - 1);
    switches();
    handlers();
    new_tasks();
    sixteen_bits();
    own_tables();
    return 0;
}

CATCH_ONLY
