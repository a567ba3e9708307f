/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ring.h -- ring_run goes to cs:ip with ss:sp and the flags (data segments = ss); it returns when a trap
 * handler, which has to run in ring 0 on another stack, calls ring_leave.  In ring 0 interrupts use the stack
 * that runs, so sp must not be the caller's.  Not nested. */
#ifndef RING_H
#define RING_H
#include "rom.h"

#ifdef __x86_64__
void ring_run64(u64 cs, u64 ss, u64 rip, u64 rsp, u64 rflags);
void __attribute__((noreturn)) ring_leave64(void);
#else
void ring_run32(u32 cs, u32 ss, u32 eip, u32 esp, u32 eflags);
void __attribute__((noreturn)) ring_leave32(void);
#endif
#endif
