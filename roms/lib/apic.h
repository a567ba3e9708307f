/* SPDX-License-Identifier: GPL-2.0-or-later */
/* apic.h -- the local APIC by memory (SDM 3A chapter 10) and the I/O APIC (82093AA data sheet).
 *
 * Registers are named by number: offset / 16 in memory, MSR - 800h in x2APIC mode. */
#ifndef APIC_H
#define APIC_H

#include "rom.h"

#define MSR_APIC_BASE 0x1bu
#define BASE_BSP 0x100u
#define BASE_X2APIC 0x400u
#define BASE_ENABLED 0x800u
#define MSR_X2APIC 0x800u               /* + register */
#define MSR_TSC_DEADLINE 0x6e0u

#define APIC_ID 0x02
#define APIC_VERSION 0x03
#define APIC_TPR 0x08
#define APIC_PPR 0x0a
#define APIC_EOI 0x0b
#define APIC_LDR 0x0d
#define APIC_DFR 0x0e
#define APIC_SVR 0x0f
#define APIC_ISR 0x10
#define APIC_TMR 0x18
#define APIC_IRR 0x20
#define APIC_ESR 0x28
#define APIC_ICR 0x30
#define APIC_ICR_HIGH 0x31
#define APIC_TIMER 0x32
#define APIC_LINT0 0x35
#define APIC_INITIAL 0x38
#define APIC_CURRENT 0x39
#define APIC_DIVIDE 0x3e
#define APIC_SELF_IPI 0x3f

#define SVR_ENABLED 0x100u
#define LVT_MASKED 0x10000u
#define LVT_PERIODIC 0x20000u
#define LVT_DEADLINE 0x40000u
#define LVT_EXTINT 0x700u
#define ICR_LOGICAL 0x800u
#define ICR_ASSERT 0x4000u
#define ICR_SELF 0x40000u               /* shorthands */
#define ICR_ALL 0x80000u
#define ICR_OTHERS 0xc0000u
#define DIVIDE_BY_1 0xb
#define DIVIDE_BY_16 0x3
#define SPURIOUS 0xff

INLINE u32 apic_read(u32 reg) { return ((volatile u32 *)0xfee00000)[4 * reg]; }
INLINE void apic_write(u32 reg, u32 v) { ((volatile u32 *)0xfee00000)[4 * reg] = v; }
INLINE u32 apic_bit(u32 reg, u32 vector) { return apic_read(reg + vector / 32) >> vector % 32 & 1; }

#define IOAPIC_VERSION 1
#define IOAPIC_ENTRY(pin) (0x10 + 2 * (pin))
#define ENTRY_LOGICAL 0x800u
#define ENTRY_REMOTE 0x4000u
#define ENTRY_LEVEL 0x8000u
#define ENTRY_MASKED 0x10000u

INLINE u32 ioapic_read(u32 reg)
{
    *(volatile u32 *)0xfec00000 = reg;
    return *(volatile u32 *)0xfec00010;
}
INLINE void ioapic_write(u32 reg, u32 v)
{
    *(volatile u32 *)0xfec00000 = reg;
    *(volatile u32 *)0xfec00010 = v;
}
INLINE void ioapic_entry(u32 pin, u32 low, u32 destination)
{
    ioapic_write(IOAPIC_ENTRY(pin) + 1, destination << 24);
    ioapic_write(IOAPIC_ENTRY(pin), low);
}

/* Let what is pending come in.  Some control transfers, because an engine may look for interrupts only there. */
INLINE void open_window(void)
{
    asm volatile("sti");
    for (volatile u32 i = 0; i < 100; i++)
        asm volatile("pause");
    asm volatile("cli" : : : "memory");
}
#endif
