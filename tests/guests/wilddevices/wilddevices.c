/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     wilddevices
 * bits     64
 * proves   100,000 random writes to both APICs (memory and MSRs), timers, interrupt controllers and ACPI's registers, with
 *          interrupts taken whenever they come: nothing but #GP, and the guest goes on
 * ends     0, after the last write
 * mission  26
 * qemu     no: the styles judge each other
 * time     yes: timers run
 * kind     io
 */
#include "apic.h"
#include "pc.h"
#include "traps.h"
#include "wx.h"

#define WRITES 100000

static u32 state = 12345, taken, hash = MIX_START;
static volatile int in_msr;

static u32 random(u32 below)
{
    state = state * 1664525 + 1013904223;
    return (u64)(state >> 4) * below >> 28;
}

static void quiet(void)
{
    static const u8 pins = 24;

    outb(PORT_COM1 + 1, 0);
    outb(PIC1 + 1, 0xff);
    outb(PIC2 + 1, 0xff);
    for (u32 pin = 0; pin < pins; pin++)
        ioapic_write(IOAPIC_ENTRY(pin), ENTRY_MASKED);
    if (rdmsr(MSR_APIC_BASE) & BASE_X2APIC)
        wrmsr(MSR_X2APIC + APIC_TIMER, LVT_MASKED);
    else
        apic_write(APIC_TIMER, LVT_MASKED);
}

void trap64(struct frame64 *f)
{
    if (f->vector < 0x20) {
        if (!trap_catch(f))
            trap_unexpected(f);
        return;
    }
    hash = mix(hash, f->vector);
    if (++taken % 8 == 0)
        quiet();                        /* or one that comes at once again would leave no time for anything else */
    outb(PIC2, PIC_EOI);
    outb(PIC1, PIC_EOI);
    if (rdmsr(MSR_APIC_BASE) & BASE_X2APIC)
        wrmsr(MSR_X2APIC + APIC_EOI, 0);
    else
        apic_write(APIC_EOI, 0);
}

static u32 value(void)
{
    u32 v = random(2) ? random(1 << 28) << 4 | random(16) : random(1 << 20);

    return v | 0x20;                    /* no vector of an exception */
}

static void write_port(void)
{
    static const u16 ports[] = {0x21, 0xa1, 0x40, 0x42, 0x43, 0x61, 0x3f9, 0x3fc, 0x4d0, 0x600, 0x602, 0x608};
    u16 port = ports[random(sizeof ports / sizeof *ports)];

    if (port >= 0x600)
        outw(port, value());
    else
        outb(port, random(256));
}

static void write_msr(void)
{
    static const u32 modes[] = {BASE_ENABLED, BASE_ENABLED, BASE_ENABLED | BASE_X2APIC, 0};
    u32 which = random(16), high = random(4) ? 0 : value(), low = value();
    u32 msr = which < 12 ? MSR_X2APIC + random(0x40) : which < 15 ? MSR_TSC_DEADLINE : MSR_APIC_BASE;

    if (msr == MSR_APIC_BASE) {
        high = 0;
        low = 0xfee00100 | modes[random(4)];
    } else if (msr == MSR_TSC_DEADLINE) {
        u64 when = rdtsc() + random(100000);
        high = when >> 32;
        low = when;
    }
    asm volatile("cli");
    TRY("wrmsr", : : "c"(msr), "a"(low), "d"(high));
    hash = mix(hash, caught.vector);
    asm volatile("sti");
}

int main64(void)
{
    protect_memory();
    idt_init();
    pic_init(0xff, 0xff);
    asm volatile("sti");
    for (u32 i = 0; i < WRITES; i++) {
        u32 kind = random(8);

        if (kind < 3)
            apic_write(random(0x40), value());
        else if (kind < 5)
            ioapic_write(random(0x48), value());
        else if (kind < 6)
            write_port();
        else if (kind < 7)
            write_msr();
        else
            hash = mix(hash, random(2) ? apic_read(random(0x40)) : ioapic_read(random(0x48)));
        asm volatile("" : : : "memory");
    }
    asm volatile("cli");
    report(taken);
    report(hash);
    print("taken %u\n", taken);
    return 0;
}
