/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     splitfault
 * bits     64
 * proves   a block whose instruction crosses into a page that is absent runs up to that instruction, and the #PF
 *          names it (RIP at the instruction, CR2 at the page), for each way the instruction can lie across.
 * ends     0: each fault was reported where it belongs; 1: a FAIL line
 * mission  2 10
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "traps.h"
#include "paging.h"

#define CODE 0x8000000000ull            /* two pages: the second comes when its fault does */

static u64 seen_rip, seen_cr2, seen_rbx, faults;
static word second;

void trap64(struct frame64 *f)
{
    if (f->vector != 14)
        trap_unexpected(f);
    seen_rip = f->rip;
    seen_cr2 = read_cr2();
    seen_rbx = f->rbx;
    faults++;
    page_map(identity_pml4, 4, CODE + 4096, second, 1, P_PRESENT | P_WRITE);
}

static void try_split(u8 *pages, u32 before)    /* before = bytes of the five-byte MOV in the first page */
{
    static const u8 code[] = {0xff, 0xc3, 0xff, 0xc3, 0xff, 0xc3, 0xb8, 1, 2, 3, 4, 0xc3};  /* inc ebx x 3; mov eax, imm32; ret */
    u64 start = 4096 - 6 - before, rbx = 0, rax = 0;

    for (u32 i = 0; i < sizeof code; i++)
        pages[start + i] = code[i];
    page_map(identity_pml4, 4, CODE, (word)pages, 1, P_PRESENT | P_WRITE);
    *pte_at(identity_pml4, 4, CODE + 4096, 1) = 0;
    invlpg((void *)CODE);
    invlpg((void *)(CODE + 4096));
    asm volatile("call *%2" : "+b"(rbx), "=a"(rax) : "r"(CODE + start) : "memory", "cc");
    check_eq(seen_rip - CODE, start + 6, "rip");
    check_eq(seen_cr2 - CODE, 4096, "cr2");
    check_eq(seen_rbx, 3, "instructions before it ran");
    check_eq(rbx, 3, "and ran once");
    check_eq(rax, 0x04030201, "the instruction itself");
}

int main64(void)
{
    u8 *pages;

    idt_init();
    pages_init(0x800000, 0xa00000);
    pages = page_alloc();
    second = (word)page_alloc();
    check_eq(second - (word)pages, 4096, "two pages in a row");
    for (u32 before = 0; before < 5; before++)
        try_split(pages, before);
    print("faults %llu, each at its own instruction\n", faults);
    return faults != 5;
}
