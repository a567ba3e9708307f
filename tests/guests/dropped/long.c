/* SPDX-License-Identifier: GPL-2.0-or-later */
/* long.c -- the 64-bit half of dropped. */
#include "traps.h"

CATCH_ONLY

static struct tss64 tss;
extern u64 gdt[];

u32 main_long(void)
{
    idt_init();
    idt_set(0x80, (void *)(word)trap_stubs64[0x80], GATE_INT | 0x60, 0);
    tss.rsp[0] = 0x3f0000, tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    gdt[GDT_FREE / 8 + 2] = 0x0000820000000000ull | (u64)(u32)(word)gdt << 16 | 0x1ff;
    gdt[GDT_FREE / 8 + 3] = 0;
    asm volatile("lldt %w0" : : "r"(GDT_FREE + 16));
    for (;;)
        asm volatile("");
}
