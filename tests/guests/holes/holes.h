/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest-physical addresses without memory behind them, and what every mode must find there: all ones. */
#ifndef HOLES_H
#define HOLES_H

#include "paging.h"
#include "traps.h"

#define RAM_END   0x4000000u            /* of 64 MiB */
#define NOWHERE   0x20000000u           /* no memory, no device */
#define WINDOW    0x40000000u           /* where the probes map what they look at */
#define UD_CODE   6
#define PF_VECTOR 14
#define TURNS     300                   /* of each access, so that TLBs are filled, missed and hit */

#define AT(type, at) (*(volatile type *)(word)(at))

/* How the guest ends itself: the digit at the end of its command line (Multiboot 0.6.96, 3.3), or 0. */
INLINE u32 die(void)
{
    const char *at = (const char *)(word)AT(u32, multiboot_info + 16);

    while (at[1])
        at++;
    return *at >= '1' && *at <= '9' ? *at - '0' : 0;
}

/* Read and write a page that is mapped to a hole. */
INLINE void probe_hole(word at, const char *what)
{
    u32 good = 0;

    for (u32 i = 0; i < TURNS; i++) {
        AT(u32, at + 4 * (i & 1023)) = i;
        good += AT(u32, at + 4 * (i & 1023)) == 0xffffffff && AT(u8, at + i) == 0xff;
    }
    check(good == TURNS, what);
    TRY("jmp *%0", : : "r"(at + 8));
    check(caught.vector == UD_CODE && caught.cr2 != at + 8, what);        /* FF FF is no instruction */
}

/* Every access through it faults in the same way. */
INLINE void probe_fault(word at, u32 error, u32 fetch_error, const char *what)
{
    for (u32 i = 0; i < 3; i++) {
        TRY("testb %%al, (%0)", : : "r"(at));
        check_fault(PF_VECTOR, error, what);
        check(caught.cr2 == at, what);
        TRY("movb %%al, (%0)", : : "r"(at));
        check_fault(PF_VECTOR, error | PF_W, what);
        TRY("jmp *%0", : : "r"(at));
        check(caught.vector == PF_VECTOR && caught.error == fetch_error, what);
    }
}

/* Pages 0 and 1 of the window are the last page of memory and what lies behind it; 2 is memory, 3 a hole. */
INLINE void probe_edges(void)
{
    u32 value = 0;

    AT(u32, RAM_END - 4) = 0x12345678;
    check(AT(u32, WINDOW + 0xffe) == 0xffff1234, "a read over the end of memory");
    AT(u32, WINDOW + 0xffe) = 0xaabbccdd;
    check(AT(u32, RAM_END - 4) == 0xccdd5678, "a write over the end of memory");
    for (u32 i = 0; i < TURNS; i++) {
        AT(u8, WINDOW + 0x2fff) = 0xb8;                 /* mov $imm32, %eax: the immediate lies in the hole */
        TRY("jmp *%1", : "+a"(value) : "r"((word)WINDOW + 0x2fff));
        check(caught.vector == UD_CODE, "code that runs into a hole");
    }
}
#endif
