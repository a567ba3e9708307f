/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit kernel of usermode: one program in compatibility mode, one in 64-bit mode. */
#include "paging.h"
#include "ring.h"
#include "traps.h"
#include "usermode.h"

void syscall_entry(void);

extern char kernel_stack[], syscall_stack[];
extern const u32 user32_at, user64_at;
static struct counts counts;
static struct tss64 tss;
static struct { word kernel, user; } stacks;    /* gs:0 and gs:8 in the kernel */
static u64 result;

u64 kernel_syscall(u64 number, u64 a, u64 b)
{
    if (number == SYS_EXIT) {
        result = a;
        asm volatile("swapgs");
        ring_leave64();
    }
    counts.syscall++;
    return sys_call(&counts, number, a, b);
}

/* int 80 from compatibility mode takes 32-bit arguments and gives a 32-bit result. */
static void int80(struct frame64 *f)
{
    int compat = f->cs == (UCODE32 | 3);
    if (f->rax == SYS_EXIT) {
        result = f->rbx;
        ring_leave64();
    }
    counts.int80++;
    if (!compat) {
        f->rax = sys_call(&counts, f->rax, f->rbx, f->rsi);
    } else {
        u64 r = sys_call(&counts, f->rax, (u32)f->rbx, (u32)f->rsi);
        f->rax = (u32)r;
    }
}

void trap64(struct frame64 *f)
{
    if (f->vector == 0x80) {
        int80(f);
    } else if ((f->vector == 13 || f->vector == 14) && (f->cs & 3) == 3) {
        counts.faults++;
        if (f->vector == 14)
            check_eq(f->error, PF_P | PF_U, "#PF code of the kernel's memory");
        f->rip = f->rbx;
    } else {
        trap_unexpected(f);
    }
}

/* The 32-bit program's result, with 32-bit arithmetic on 64-bit words. */
static u32 foresee_compat(void)
{
    struct counts ignored;
    u32 h = 0;
    for (u32 i = CALLS; i; i--) {
        u32 r = (u32)sys_call(&ignored, i & 7, i, h);
        h = (h << 5 | h >> 27) ^ r;
    }
    return h ^ (u32)-38;
}

u32 main_long(void)
{
    for (int i = 0; i < 2048; i++)
        identity_pd[i] &= ~P_USER;
    identity_pd[USER_AT >> 21] |= P_USER;
    write_cr3(read_cr3());
    idt_init();
    idt_set(0x80, (void *)(word)trap_stubs64[0x80], GATE_INT | 0x60, 0);
    tss.rsp[0] = (word)kernel_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    stacks.kernel = (word)syscall_stack;
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE64 << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_TF | FLAG_DF);
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, (word)&stacks);

    *(u32 *)USER_STACK = 0;             /* no SYSENTER round: AMD's processors refuse it in long mode */
    ring_run64(UCODE32 | 3, UDATA | 3, user32_at, USER_STACK, 2);
    print("64-bit kernel, 32-bit program: %08x, int 80 %u, faults %u\n", (u32)result, counts.int80, counts.faults);
    check_eq(result, foresee_compat(), "32-bit program in compatibility mode");
    check_eq(counts.int80, CALLS + 1, "int 80 from compatibility mode");
    check_eq(counts.faults, 2, "faults in compatibility mode");

    counts = (struct counts){0};
    ring_run64(UCODE64 | 3, UDATA | 3, user64_at, USER_STACK, 2);
    print("64-bit kernel, 64-bit program: %016llx, syscall %u, int 80 %u, unknown %u, faults %u\n", result, counts.syscall,
          counts.int80, counts.unknown, counts.faults);
    check_eq(result, foresee(foresee(0, 64), 64), "64-bit program");
    check_eq(counts.syscall, CALLS + 1, "syscall");
    check_eq(counts.int80, CALLS + 1, "int 80");
    check_eq(counts.unknown * 10 + counts.faults, 22, "unknown calls and faults");
    return 0;
}
