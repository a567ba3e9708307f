/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     plateau
 * bits     64
 * proves   what `time` says of a load at ring 3, and what a probe outside of the machine says.  The kernel holds bit 0 of the
 *          parallel port up during the load, counts the timer's ticks that found the program and those that found itself, and
 *          reads the TSC, which it has calibrated by the timer: `user` and `real`.  Report words: ticks that found the program,
 *          all ticks, `real` in thousandths of a tick.
 * ends     0: the program's result is the expected one and ticks came; 1: a FAIL line
 * mission  23 24 25 27
 * qemu     no: prints times; the witness is the probe (tests/test_clocks.py)
 * time     yes: prints times
 * styles   all
 * memory   64M
 * kind     cost
 */
#include "pc.h"
#include "plateau.h"
#include "ring.h"
#include "traps.h"

#define PARALLEL   0x378
#define TICK       239                  /* clocks of the 8254: 0.2 ms */
#define TICK_US    200
#define CALIBRATED 16                   /* ticks */

extern char program[];
static struct tss64 tss;
static u8 kernel_stack[8192], user_stack[4096];
static volatile u32 ticks, user_ticks;
static u64 result;

void trap64(struct frame64 *f)
{
    if (f->vector == END) {
        result = f->rax;
        ring_leave64();
    }
    if (f->vector != IRQ_BASE + IRQ_PIT)
        trap_unexpected(f);
    ticks++;
    user_ticks += (f->cs & 3) == 3;
    pic_end(IRQ_PIT);
}

static void wait_ticks(u32 n)
{
    for (u32 from = ticks; ticks - from < n;)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static u64 tsc_of_ticks(u32 n)
{
    u64 before;

    wait_ticks(1);
    before = rdtsc();
    wait_ticks(n);
    return rdtsc() - before;
}

static u32 expected(void)
{
    u32 x = 0;

    for (u32 i = 0; i < ROUNDS * INNER; i++)
        x = x * 0x19660d + 0x3c6ef35f;
    return x;
}

static void say(const char *name, u64 thousandths)
{
    print("%s %llu us, ", name, thousandths * TICK_US / 1000);
}

int main64(void)
{
    u64 tick, before, real;
    u32 all;

    idt_init();
    idt_set(END, (void *)(word)trap_stubs64[END], GATE_INT | 3 << 5, 0);
    load_tss(&tss, sizeof tss - 1);
    tss.rsp[0] = (word)kernel_stack + sizeof kernel_stack;
    pic_init(0xff & ~(1 << IRQ_PIT), 0xff);
    pit_program(0, 2, TICK);
    tick = tsc_of_ticks(CALIBRATED) / CALIBRATED;
    wait_ticks(1);
    ticks = user_ticks = 0;
    outb(PARALLEL, 1);
    before = rdtsc();
    ring_run64(UCODE64 | 3, UDATA | 3, (word)program, (word)user_stack + sizeof user_stack, FLAG_IF | 2);
    real = rdtsc() - before;
    outb(PARALLEL, 0);
    all = ticks;
    real = real * 1000 / tick;
    report(user_ticks);
    report(all);
    report(real);
    check_eq(result, expected(), "the program's result");
    check(all && user_ticks && user_ticks <= all, "the timer ticked");
    say("user", user_ticks * 1000ull);
    say("sys", (all - user_ticks) * 1000ull);
    say("real", real);
    print("%s\n", user_ticks * 1000ull > real + 1000 ? "more than real" : "as it should be");
    return 0;
}
