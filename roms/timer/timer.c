/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     timer
 * bits     64
 * proves   timer interrupts come through the 8259 pair when and only when they may: PIT periodic, square wave and
 *          one-shot with HLT between, masked, with IF clear, in the shadow of STI, while one is in service; the RTC
 *          behind the cascade, again only after its register C was read; both at once by priority
 * ends     0: each count and each order is the expected one; 1: a FAIL line
 * mission  26
 * qemu     yes
 * time     yes: waits for timers; what it prints does not depend on how long they take
 * styles   all
 * memory   64M
 * kind     io
 */
#include "pc.h"
#include "traps.h"
#include "wx.h"

#define SHORT  300              /* PIT clocks: 0.25 ms */
#define LONG   1400             /* longer than SHORT and than a period of the RTC, 1,165 */

static volatile u32 ticks, alarms, halts, order, isr_seen;
static volatile int keep_in_service, keep_flags;

void trap64(struct frame64 *f)
{
    u32 irq = f->vector - IRQ_BASE;

    if (irq != IRQ_PIT && irq != IRQ_RTC)
        trap_unexpected(f);
    order = order << 8 | f->vector;
    isr_seen = pic_in_service(PIC1) | pic_in_service(PIC2) << 8;
    if (irq == IRQ_PIT)
        ticks++;
    else
        alarms++;
    if (irq == IRQ_RTC && !keep_flags)
        cmos_read(RTC_C);
    if (!keep_in_service)
        pic_end(irq);
}

static void halt_until(volatile u32 *count, u32 wanted)
{
    while (*count < wanted) {
        asm volatile("sti; hlt; cli" : : : "memory");
        halts++;
    }
}

/* Let what is pending come in.  Some control transfers, because an engine may look for interrupts only there. */
static void open_window(void)
{
    asm volatile("sti");
    for (volatile u32 i = 0; i < 1000; i++)
        asm volatile("pause");
    asm volatile("cli" : : : "memory");
}

/* End a periodic run: its last tick is taken, and that of a one-shot which replaces it. */
static void settle(void)
{
    pit_program(0, 0, 0);
    open_window();
    ticks = 0;
    pit_program(0, 0, SHORT);
    halt_until(&ticks, 1);
}

/* Some time without halting, in which a one-shot of SHORT ends and the clock asks for an interrupt. */
static void pass_time(void) { check(pit_wait(LONG), "channel 2 ends"); }

/* The interrupt controller has the request; a machine under load may be late with it. */
static void check_requested(u16 pic, u8 lines, const char *what)
{
    u32 tries = 10000000;

    while ((pic_requested(pic) & lines) != lines && --tries)
        ;
    check(tries != 0, what);
}

static void pit_periodic(void)
{
    static const struct { u32 mode; u16 count; u32 ticks; } runs[] = {{2, 11932, 20}, {3, 5966, 20}};

    for (u32 i = 0; i < 2; i++) {
        ticks = halts = isr_seen = 0;
        pit_program(0, runs[i].mode, runs[i].count);
        halt_until(&ticks, runs[i].ticks);
        print("mode %u: %u ticks\n", runs[i].mode, runs[i].ticks);
        check(halts <= ticks, "a halt ends with a tick");
        check_eq(isr_seen, 1 << IRQ_PIT, "in service during a tick");
        settle();
    }
}

static void pit_one_shot(void)
{
    ticks = 0;
    pit_program(0, 0, SHORT);
    halt_until(&ticks, 1);
    asm volatile("sti");
    pass_time();
    open_window();
    check_eq(ticks, 1, "ticks of one one-shot");
    pit_program(0, 0, SHORT);
    halt_until(&ticks, 2);
    print("one-shot: %u ticks of 2 counts\n", ticks);
}

static void not_while_masked(void)
{
    ticks = 0;
    outb(PIC1 + 1, 0xff);
    pit_program(0, 0, SHORT);
    asm volatile("sti");
    pass_time();
    open_window();
    check_eq(ticks, 0, "ticks while masked");
    check_requested(PIC1, 1, "requested while masked");
    outb(PIC1 + 1, 0xff & ~(1 << IRQ_PIT | 1 << IRQ_CASCADE));
    open_window();
    print("masked: 0 ticks, then %u\n", ticks);
    check_eq(ticks, 1, "ticks after unmasking");
}

static void not_while_disabled(void)
{
    ticks = 0;
    pit_program(0, 0, SHORT);
    pass_time();
    check_requested(PIC1, 1, "requested while IF is clear");
    asm volatile("sti; cli" : : : "memory");    /* STI takes effect after the next instruction: SDM 2B */
    check_eq(ticks, 0, "ticks in the shadow of STI");
    asm volatile("sti; hlt; cli" : : : "memory");       /* pending: HLT must not wait for another one */
    print("disabled: 0 ticks, then %u\n", ticks);
    check_eq(ticks, 1, "ticks after STI and HLT");
    check_eq(pic_requested(PIC1) & 1, 0, "requested after delivery");
}

static void not_while_in_service(void)
{
    ticks = 0;
    keep_in_service = 1;
    pit_program(0, 0, SHORT);
    halt_until(&ticks, 1);
    keep_in_service = 0;
    pit_program(0, 0, SHORT);
    pass_time();
    check_requested(PIC1, 1, "requested while in service");
    open_window();
    check_eq(ticks, 1, "ticks before the end of interrupt");
    check_eq(pic_in_service(PIC1), 1, "in service before the end of interrupt");
    outb(PIC1, PIC_EOI_OF(IRQ_PIT));
    open_window();
    print("in service: 1 tick, then %u\n", ticks);
    check_eq(ticks, 2, "ticks after the end of interrupt");
}

/* 1,024 Hz from the clock, behind the second controller. */
static void rtc_periodic(void)
{
    u8 a = cmos_read(RTC_A), b = cmos_read(RTC_B);

    cmos_write(RTC_A, (a & 0xf0) | 6);
    cmos_write(RTC_B, b | 0x40);
    cmos_read(RTC_C);
    outb(PIC2 + 1, 0xff & ~(1 << (IRQ_RTC - 8)));
    alarms = 0;
    halt_until(&alarms, 10);
    print("clock: 10 alarms\n");
    check_eq(isr_seen, 0x0100 | 1 << IRQ_CASCADE, "in service during an alarm");

    keep_flags = 1;             /* its line stays high: no new edge, no further alarm */
    alarms = 0;
    halt_until(&alarms, 1);
    asm volatile("sti");
    pass_time();
    open_window();
    print("clock not read: %u alarm\n", alarms);
    check_eq(alarms, 1, "alarms without reading register C");
    check_eq(cmos_read(RTC_C) & 0xc0, 0xc0, "flags of the alarm");
    keep_flags = 0;
}

/* Both wait while IF is clear; line 0 goes before line 2 with the cascade behind it. */
static void by_priority(void)
{
    ticks = alarms = order = 0;
    pit_program(0, 0, SHORT);
    pass_time();
    check_requested(PIC1, 5, "requested of the first controller");
    check_requested(PIC2, 1, "requested of the second controller");
    keep_flags = 1;             /* one alarm only */
    open_window();
    open_window();
    keep_flags = 0;
    print("both: order %x\n", order);
    check_eq(order, 0x2028, "order of two interrupts");
    cmos_write(RTC_B, cmos_read(RTC_B) & ~0x40);
    cmos_read(RTC_C);
}

int main64(void)
{
    protect_memory();
    idt_init();
    pic_init(0xff & ~(1 << IRQ_PIT | 1 << IRQ_CASCADE), 0xff);
    pit_periodic();
    pit_one_shot();
    not_while_masked();
    not_while_disabled();
    not_while_in_service();
    rtc_periodic();
    by_priority();
    return 0;
}
