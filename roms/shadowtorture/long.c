/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit half of shadowtorture: four levels. */
#include "shadowtorture.h"

void trap64(struct frame64 *f) { torture_trap(f); }

u32 main_long(void)
{
    word cr3 = read_cr3();

    idt_init();
    tables_build(4);
    write_cr3((word)root);
    write_cr0(read_cr0() | CR0_WP);
    torture("4-level");
    write_cr0(read_cr0() & ~(word)CR0_WP);
    write_cr3(cr3);
    return 0;
}
