/* SPDX-License-Identifier: GPL-2.0-or-later */
/* user.c -- the user program, copied from the section user_text to USER_CODE of every process. */
#include "program.h"

#define USER __attribute__((section("user_text"), used, noinline))

static inline __attribute__((always_inline)) u64 user_call(u64 number, u64 a, u64 b)
{
    asm volatile("syscall" : "+a"(number) : "D"(a), "S"(b) : "rcx", "r8", "r9", "r10", "r11", "memory");
    return number;
}

USER static u64 user_recurse(u64 depth, u64 h) { RECURSE_BODY(user_recurse) }

/* Two things a process may not do (the kernel skips CLI) and one that it may. */
static inline __attribute__((always_inline)) void user_misbehave(void) { asm volatile("cli; int3; cli"); }

USER void user_main(u64 pid)
{
    u64 own;
    asm volatile("mov %%fs:0, %0" : "=r"(own));
    u64 h = program(pid, (struct world){(u64 *)USER_HEAP, (u64 *)USER_COW, user_call, user_recurse, user_misbehave});
    user_call(SYS_EXIT, own == pid ? h : 0, 0);
}
