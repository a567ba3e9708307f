/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     btticks
 * bits     64
 * proves   where interrupts are taken: the local APIC's timer fires at each moment of a stretch of kernel code with call-outs at the head
 *          of a loop, returns in the shadow of STI whose targets compete for one place of the table, single steps, code that is
 *          rewritten, and code far from its translation; each handler notes where it came from
 * ends     debug-exit 0: the timer fired; 1: a FAIL line
 * mission  28
 * qemu     no: the places depend on the clock
 * time     yes
 * kind     mmu
 */
#include "apic.h"
#include "paging.h"
#include "traps.h"

#define TIMER  0x40
#define FIRST  1000                     /* cycles: the write to the timer takes 700 of them, then one goes by an instruction */
#define LAST   1400
#define FAR_AT (1ull << 39)             /* out of reach of 32 bits */

void stretch(u64 n, void *far);         /* body.S */
extern u8 far_code[], far_code_end[];
static u32 seen, ticks;

void trap64(struct frame64 *f)
{
    seen = mix(seen, f->rip);
    seen = mix(seen, f->rflags);
    if (f->vector == TIMER) {
        ticks++;
        apic_write(APIC_EOI, 0);
    } else if (f->vector != 1) {
        trap_unexpected(f);
    }
}

int main64(void)
{
    idt_init();
    pages_init(0x400000, 0x500000);
    page_map(identity_pml4, 4, FAR_AT, 0x600000, 1, P_WRITE);
    memcpy((void *)FAR_AT, far_code, far_code_end - far_code);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_ENABLED);
    apic_write(APIC_SVR, SVR_ENABLED | SPURIOUS);
    apic_write(APIC_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_TIMER, TIMER);
    for (u32 n = FIRST; n < LAST; n++) {
        seen = MIX_START;
        apic_write(APIC_INITIAL, n);
        stretch(n, (void *)FAR_AT);
        apic_write(APIC_INITIAL, 0);
        report(seen);
    }
    check(ticks > 100, "the timer fired");
    return 0;
}
