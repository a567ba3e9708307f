/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     resume
 * bits     64
 * proves   RFLAGS.RF hides an execution breakpoint for exactly one instruction: at the head of a loop, on two
 *          instructions in a row, on a branch to itself, once for a repeated string instruction; a fault's frame has RF set,
 *          a trap's and an interrupt's not; #DB's not, so that the handler has to set it (SDM 3B 17.3.1.1)
 * ends     0: every count is right; 1: a FAIL line
 * mission  10
 * qemu     no: Bochs: TCG pushes no RF for faults, and takes a breakpoint on a string instruction at each element
 * time     no
 * kind     faults
 */
#include "traps.h"

#define RF 0x10000u
#define TURNS 5

extern char loop_head[], second_insn[], self_branch[], string_move[], around[];

static volatile u32 hits, dr6_bits;
static u32 pushed_rf;                   /* of the last event */
static u8 from[64], to[64];

void trap64(struct frame64 *f)
{
    u64 dr6;

    pushed_rf = f->rflags & RF;
    if (trap_catch(f))
        return;
    if (f->vector == 3 || f->vector == 0x50)
        return;
    if (f->vector != 1)
        trap_unexpected(f);
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
    dr6_bits |= dr6 & 15;
    hits++;
    f->rflags |= RF;
}

static void arm(const char *first, const char *second)
{
    hits = dr6_bits = 0;
    asm volatile("mov %0, %%dr0" : : "r"(first));
    asm volatile("mov %0, %%dr1" : : "r"(second));
    asm volatile("mov %0, %%dr7" : : "r"(second ? 0x405ull : 0x401ull));
}

static void disarm(const char *what, u32 want_hits, u32 want_bits)
{
    asm volatile("mov %0, %%dr7" : : "r"(0x400ull));
    print("%s: %u #DB, breakpoints %x\n", what, hits, dr6_bits);
    check_eq(hits, want_hits, what);
    check_eq(dr6_bits, want_bits, what);
}

static __attribute__((noinline, noclone)) u32 turns(u32 n)
{
    u32 sum = 0;
    asm volatile("loop_head: add %1, %0\n"
                 "second_insn: dec %1\n"
                 "    jnz loop_head" : "+r"(sum), "+r"(n) : : "cc");
    return sum;
}

static void loops(void)
{
    arm(loop_head, 0);
    check_eq(turns(TURNS), 15, "sum");
    disarm("a loop's head", TURNS, 1);
    arm(second_insn, 0);
    check_eq(turns(TURNS), 15, "sum");
    disarm("inside a loop", TURNS, 1);
    arm(loop_head, second_insn);
    check_eq(turns(TURNS), 15, "sum");
    disarm("two in a row", 2 * TURNS, 3);
    check_eq(turns(TURNS), 15, "sum");
    disarm("none", 2 * TURNS, 3);
}

static void one_instruction(void)
{
    u64 n = TURNS;
    u8 *s = from, *d = to;

    arm(self_branch, 0);
    asm volatile("self_branch: loop self_branch" : "+c"(n));
    disarm("a branch to itself", TURNS, 1);
    for (u32 i = 0; i < sizeof from; i++)
        from[i] = i;
    n = sizeof from;
    arm(string_move, 0);
    asm volatile("string_move: rep movsb" : "+c"(n), "+S"(s), "+D"(d) : : "memory");
    disarm("a repeated string instruction", 1, 1);
    check_eq(to[63], 63, "moved");
    arm(around, 0);
    asm volatile("mov %1, %%esi\n"
                 "1:  xor %%eax, %%eax\n"
                 "around: cpuid\n"
                 "    dec %%esi\n"
                 "    jnz 1b" : "=a"(n) : "i"(TURNS) : "rbx", "rcx", "rdx", "rsi", "cc");
    disarm("a sensitive instruction", TURNS, 1);
}

static void frames(void)
{
    TRY("ud2");
    check_fault(6, 0, "ud2");
    check_eq(pushed_rf, RF, "RF in the frame of #UD");
    TRY("mov %0, %%cr8", : : "r"(~0ull));
    check_fault(13, 0, "mov cr8");
    check_eq(pushed_rf, RF, "RF in the frame of #GP");
    asm volatile("int3");
    check_eq(pushed_rf, 0, "RF in the frame of INT3");
    asm volatile("int $0x50");
    check_eq(pushed_rf, 0, "RF in the frame of INT n");
    arm(loop_head, 0);
    turns(1);
    check_eq(pushed_rf, 0, "RF in the frame of #DB");
    disarm("the last one", 1, 1);
    check_eq(read_flags() & RF, 0, "PUSHF stores no RF");
}

int main64(void)
{
    idt_init();
    loops();
    one_instruction();
    frames();
    return 0;
}
