/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     dropped
 * bits     32, 64
 * proves   a kernel with GDT, IDT, LDT, TSS and paging that waits in a loop: what a test puts into memory runs there, in any ring
 * ends     never
 * mission  20
 * qemu     yes
 * time     no
 * kind     mode
 */
#include "paging.h"
#include "traps.h"

#define WIDE 0                          /* 1: the kernel has 64 bits */

CATCH_ONLY

u32 long_call(u32 (*fn)(void));
u32 main_long(void);
static struct tss32 tss;
extern u64 gdt[];

int main32(void)
{
    pages_init(0x400000, 0x500000);
    if (WIDE)
        return long_call(main_long);
    u32 *directory = page_alloc();
    for (u32 i = 0; i < 16; i++)
        directory[i] = i << 22 | P_LARGE | P_USER | P_WRITE | P_PRESENT;
    idt_init();
    idt_set(0x80, (void *)trap_stubs32[0x80], GATE_INT | 0x60, 0);
    tss.ss0 = KDATA, tss.esp0 = 0x3f0000, tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    gdt[GDT_FREE / 8] = 0x0000820000000000ull | (u64)(u32)gdt << 16 | 0x1ff;     /* the GDT as LDT */
    asm volatile("lldt %w0" : : "r"(GDT_FREE));
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)directory);
    write_cr0(read_cr0() | CR0_PG);
    for (;;)
        asm volatile("");
}
