/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit half of demand: four levels. */
#include "demand.h"

static struct tss64 tss;

void trap64(struct frame64 *f) { demand_trap(f); }

u32 main_long(void)
{
    word cr3 = read_cr3();
    idt_init();
    idt_set(DONE, (void *)(word)trap_stubs64[DONE], GATE_INT | 0x60, 0);
    tss.rsp[0] = (word)kernel_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    tables_build(4);
    zero_page = page_alloc();
    write_cr3((word)root);
    demand_run("4-level");
    write_cr0(read_cr0() & ~(word)CR0_WP);
    write_cr3(cr3);
    return 0;
}
