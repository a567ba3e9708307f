/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     ioapic
 * bits     64
 * proves   the I/O APIC: an edge of the 8254 at input 2 and of the clock at input 8, masked ones are lost, by priority of their
 *          vectors; a level of the 16550 at input 4 comes again until its cause is gone, and not before its end (remote IRR);
 *          physical and logical destinations
 * ends     0: each count and each order is the expected one; 1: a FAIL line
 * mission  26
 * qemu     yes
 * time     yes: waits for timers; what it prints does not depend on how long they take
 * styles   all
 * memory   64M
 * kind     io
 */
#include "apic.h"
#include "pc.h"
#include "traps.h"
#include "wx.h"

#define TICK 0x60
#define ALARM 0x80
#define SERIAL 0x70
#define SHORT 300                       /* clocks of the 8254: 0.25 ms */
#define LONG 1400
#define UART_IER (PORT_COM1 + 1)
#define UART_MCR (PORT_COM1 + 4)

static volatile u32 counts[256], order, remote, serial_wanted;

void trap64(struct frame64 *f)
{
    if (f->vector < 0x20)
        trap_unexpected(f);
    counts[f->vector]++;
    order = order << 8 | f->vector;
    if (f->vector == ALARM)
        cmos_read(RTC_C);
    if (f->vector == SERIAL) {
        remote += ioapic_read(IOAPIC_ENTRY(4)) >> 14 & 1;
        if (counts[SERIAL] == serial_wanted)
            outb(UART_IER, 0);
    }
    if (f->vector != SPURIOUS)
        apic_write(APIC_EOI, 0);
}

static void halt_until(volatile u32 *count, u32 wanted)
{
    while (*count < wanted)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static void clear(void)
{
    for (u32 i = 0; i < 256; i++)
        counts[i] = 0;
    order = remote = 0;
}

static void edges(void)
{
    clear();
    ioapic_entry(2, TICK, 0);
    pit_program(0, 2, 5966);
    halt_until(&counts[TICK], 5);
    ioapic_entry(2, TICK | ENTRY_MASKED, 0);
    pit_program(0, 0, SHORT);
    open_window();
    clear();
    check(pit_wait(LONG), "channel 2 ends");
    ioapic_entry(2, TICK, 0);           /* the edge came while it was masked: lost */
    open_window();
    check_eq(counts[TICK], 0, "an edge while masked");
    pit_program(0, 0, SHORT);
    halt_until(&counts[TICK], 1);
    print("edges: 5, masked 0, then %u\n", counts[TICK]);
}

static void destinations(void)
{
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x04u << 24);
    clear();
    ioapic_entry(2, TICK | ENTRY_LOGICAL, 0x0c);
    pit_program(0, 0, SHORT);
    halt_until(&counts[TICK], 1);
    ioapic_entry(2, TICK | ENTRY_LOGICAL, 0xf3);
    pit_program(0, 0, SHORT);
    check(pit_wait(LONG), "channel 2 ends");
    open_window();
    print("destinations: %u\n", counts[TICK]);
    check_eq(counts[TICK], 1, "to others");
    ioapic_entry(2, TICK, 0);
}

static void by_priority(void)
{
    u8 a = cmos_read(RTC_A), b = cmos_read(RTC_B);

    clear();
    ioapic_entry(8, ALARM, 0);
    cmos_write(RTC_A, (a & 0xf0) | 6);
    cmos_write(RTC_B, b | 0x40);
    cmos_read(RTC_C);
    halt_until(&counts[ALARM], 3);
    clear();
    pit_program(0, 0, SHORT);
    check(pit_wait(LONG), "channel 2 ends");
    for (u32 tries = 0; tries < 10000000 && !(apic_bit(APIC_IRR, TICK) && apic_bit(APIC_IRR, ALARM)); tries++)
        ;
    cmos_write(RTC_B, b & ~0x40);
    open_window();
    print("both: order %x\n", order);
    check_eq(order, ALARM << 8 | TICK, "order of two interrupts");
    cmos_read(RTC_C);
}

/* The transmitter is empty: its request stays until it is disabled. */
static void levels(void)
{
    clear();
    serial_wanted = 3;
    ioapic_entry(4, SERIAL | ENTRY_LEVEL, 0);
    outb(UART_MCR, 0x08);               /* OUT2 lets the interrupt through */
    outb(UART_IER, 2);
    for (u32 i = 0; i < 10; i++)
        open_window();
    u32 taken = counts[SERIAL];
    u32 left = ioapic_read(IOAPIC_ENTRY(4)) & ENTRY_REMOTE;

    outb(UART_MCR, 0);
    ioapic_entry(4, ENTRY_MASKED, 0);
    print("level: %u, remote IRR in %u\n", taken, remote);
    check_eq(taken, 3, "a level comes until its cause is gone");
    check_eq(remote, 3, "remote IRR in service");
    check_eq(left, 0, "remote IRR at the end");
    check_eq(apic_bit(APIC_TMR, SERIAL), 1, "level-triggered");
    check_eq(apic_bit(APIC_TMR, TICK), 0, "edge-triggered");
}

int main64(void)
{
    protect_memory();
    idt_init();
    outb(PIC1 + 1, 0xff);
    outb(PIC2 + 1, 0xff);
    apic_write(APIC_SVR, SVR_ENABLED | SPURIOUS);
    apic_write(APIC_TPR, 0);
    print("inputs: %u\n", (ioapic_read(IOAPIC_VERSION) >> 16 & 255) + 1);
    edges();
    destinations();
    by_priority();
    levels();
    return 0;
}
