/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     lapic
 * bits     64
 * proves   the local APIC by memory: requests to itself are taken by priority, held back by the task priority (CR8 too), by
 *          IF and by what is in service, ended by EOI; physical, logical (flat and cluster) destinations and shorthands; the
 *          timer one-shot, periodic, masked and stopped; the 8259 pair through LINT0 whatever the task priority, not when
 *          that is masked, and directly when the local APIC is off
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

#define TIMER 0x40
#define LONG 1400                       /* clocks of the 8254: 1.2 ms */

static volatile u32 counts[256], order, depth, deepest;
static volatile u32 nested_vector;      /* the handler of this one lets interrupts in and asks for two */

static void send(u32 command, u32 to)
{
    apic_write(APIC_ICR_HIGH, to << 24);
    apic_write(APIC_ICR, command | ICR_ASSERT);
}

static void inside(void)
{
    send(ICR_SELF | 0x52, 0);           /* of the same class: waits */
    send(ICR_SELF | 0x71, 0);           /* of a higher one: comes at once */
    open_window();
    check_eq(counts[0x52], 0, "a request of the class in service");
    check_eq(counts[0x71], 1, "a request of a higher class");
    check_eq(apic_bit(APIC_ISR, 0x51), 1, "in service");
    check_eq(apic_bit(APIC_IRR, 0x52), 1, "requested");
    check_eq(apic_read(APIC_PPR), 0x50, "processor priority in service");
}

void trap64(struct frame64 *f)
{
    if (f->vector < 0x20)
        trap_unexpected(f);
    counts[f->vector]++;
    order = order << 8 | f->vector;
    if (++depth > deepest)
        deepest = depth;
    if (f->vector == nested_vector)
        inside();
    depth--;
    if (f->vector < IRQ_BASE + 16)
        pic_end(f->vector - IRQ_BASE);
    else if (f->vector != SPURIOUS)
        apic_write(APIC_EOI, 0);
}

static void clear(void)
{
    for (u32 i = 0; i < 256; i++)
        counts[i] = 0;
    order = deepest = 0;
}

static void halt_until(volatile u32 *count, u32 wanted)
{
    while (*count < wanted)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static void identity(void)
{
    u64 base = rdmsr(MSR_APIC_BASE);

    check_eq(cpuid(1, 0).d >> 9 & 1, 1, "CPUID.1:EDX.APIC");
    check_eq(base & ~0x400ull, 0xfee00000 | BASE_BSP | BASE_ENABLED, "IA32_APIC_BASE");
    print("version %x, id %u, initial id %u\n", apic_read(APIC_VERSION), apic_read(APIC_ID) >> 24, cpuid(1, 0).b >> 24);
}

static void by_priority(void)
{
    clear();
    send(ICR_SELF | 0x41, 0);
    send(ICR_SELF | 0x52, 0);
    send(ICR_SELF | 0x51, 0);
    send(ICR_SELF | 0x51, 0);           /* requested already: one request */
    check_eq(apic_bit(APIC_IRR, 0x41) + apic_bit(APIC_IRR, 0x51) + apic_bit(APIC_IRR, 0x52), 3, "requested");
    check_eq(order, 0, "taken while IF is clear");
    open_window();
    print("order %x\n", order);
    check_eq(order, 0x525141, "order of three requests");
    check_eq(apic_bit(APIC_IRR, 0x51), 0, "requested after delivery");
}

static void by_task_priority(void)
{
    u64 cr8 = 4;

    clear();
    apic_write(APIC_TPR, 0x50);
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    check_eq(cr8, 5, "CR8");
    check_eq(apic_read(APIC_PPR), 0x50, "processor priority");
    send(ICR_SELF | 0x52, 0);
    send(ICR_SELF | 0x61, 0);
    open_window();
    check_eq(order, 0x61, "taken at task priority 50h");
    cr8 = 4;
    asm volatile("mov %0, %%cr8" : : "r"(cr8) : "memory");
    check_eq(apic_read(APIC_TPR), 0x40, "task priority after a write to CR8");
    open_window();
    print("task priority: order %x\n", order);
    check_eq(order, 0x6152, "taken at task priority 40h");
    apic_write(APIC_TPR, 0);
}

static void in_service(void)
{
    clear();
    nested_vector = 0x51;
    send(ICR_SELF | 0x51, 0);
    open_window();
    nested_vector = 0;
    print("in service: order %x, depth %u\n", order, deepest);
    check_eq(order, 0x517152, "order around a service");
    check_eq(deepest, 2, "depth");
    check_eq(apic_read(APIC_ISR + 2), 0, "in service at the end");
}

static void destinations(void)
{
    static const struct { u32 dfr, ldr, command, to, taken; const char *name; } tries[] = {
        {0xffffffff, 0x01, 0, 0x00, 1, "physical"},
        {0xffffffff, 0x01, 0, 0x05, 0, "physical, absent"},
        {0xffffffff, 0x01, 0, 0xff, 1, "physical, everybody"},
        {0xffffffff, 0x82, ICR_LOGICAL, 0x06, 1, "flat"},
        {0xffffffff, 0x82, ICR_LOGICAL, 0x7d, 0, "flat, others"},
        {0x0fffffff, 0x21, ICR_LOGICAL, 0x23, 1, "cluster"},
        {0x0fffffff, 0x21, ICR_LOGICAL, 0x22, 0, "cluster, others"},
        {0x0fffffff, 0x21, ICR_LOGICAL, 0x31, 0, "another cluster"},
        {0xffffffff, 0x01, ICR_ALL, 0x00, 1, "all"},
        {0xffffffff, 0x01, ICR_OTHERS, 0x00, 0, "all others"},
    };

    for (u32 i = 0; i < sizeof tries / sizeof *tries; i++) {
        clear();
        apic_write(APIC_DFR, tries[i].dfr);
        apic_write(APIC_LDR, tries[i].ldr << 24);
        send(tries[i].command | 0x61, tries[i].to);
        open_window();
        check_eq(counts[0x61], tries[i].taken, tries[i].name);
    }
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 1 << 24);
    print("destinations: %u\n", (u32)(sizeof tries / sizeof *tries));
}

static void timer_one_shot(void)
{
    clear();
    apic_write(APIC_DIVIDE, DIVIDE_BY_16);
    apic_write(APIC_TIMER, TIMER);
    apic_write(APIC_INITIAL, 10000);
    halt_until(&counts[TIMER], 1);
    check_eq(apic_read(APIC_CURRENT), 0, "count after its end");
    check_eq(apic_read(APIC_INITIAL), 10000, "initial count");
    check(pit_wait(LONG), "channel 2 ends");
    open_window();
    print("one-shot: %u\n", counts[TIMER]);
    check_eq(counts[TIMER], 1, "a one-shot ends once");

    apic_write(APIC_INITIAL, 0xffffffff);
    check(pit_wait(LONG), "channel 2 ends");
    check(apic_read(APIC_CURRENT) < 0xffffffff && apic_read(APIC_CURRENT) != 0, "it counts");
    apic_write(APIC_INITIAL, 0);
    check_eq(apic_read(APIC_CURRENT), 0, "count after it was stopped");
}

static void timer_periodic(void)
{
    clear();
    apic_write(APIC_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_TIMER, LVT_PERIODIC | TIMER);
    apic_write(APIC_INITIAL, 1000000);
    halt_until(&counts[TIMER], 5);
    apic_write(APIC_TIMER, LVT_PERIODIC | LVT_MASKED | TIMER);
    open_window();
    clear();
    check(pit_wait(LONG), "channel 2 ends");
    open_window();
    check_eq(counts[TIMER], 0, "while masked");
    apic_write(APIC_TIMER, LVT_PERIODIC | TIMER);
    halt_until(&counts[TIMER], 2);
    apic_write(APIC_INITIAL, 0);
    open_window();
    clear();
    check(pit_wait(LONG), "channel 2 ends");
    open_window();
    print("periodic: 5, masked 0, then 2, stopped %u\n", counts[TIMER]);
    check_eq(counts[TIMER], 0, "after it was stopped");
    apic_write(APIC_TIMER, LVT_MASKED);
}

/* The 8254 through the 8259 pair and LINT0. */
static void virtual_wire(void)
{
    clear();
    pic_init(0xff & ~(1 << IRQ_PIT), 0xff);
    apic_write(APIC_LINT0, LVT_EXTINT | LVT_MASKED);
    pit_program(0, 0, 300);
    check(pit_wait(LONG), "channel 2 ends");
    for (u32 tries = 0; tries < 10000000 && !(pic_requested(PIC1) & 1); tries++)
        ;                               /* a machine under load may be late with it */
    check_eq(pic_requested(PIC1) & 1, 1, "requested while LINT0 is masked");
    open_window();
    check_eq(counts[IRQ_BASE], 0, "while LINT0 is masked");
    apic_write(APIC_TPR, 0xf0);         /* an external interrupt has no priority in the local APIC */
    apic_write(APIC_LINT0, LVT_EXTINT);
    open_window();
    check_eq(counts[IRQ_BASE], 1, "through LINT0");
    send(ICR_SELF | 0x61, 0);
    pit_program(0, 0, 300);
    halt_until(&counts[IRQ_BASE], 2);
    apic_write(APIC_TPR, 0);
    open_window();
    print("virtual wire: order %x\n", order);
    check_eq(order, 0x202061, "order through LINT0");
    check_eq(apic_read(APIC_ISR + 1), 0, "an external interrupt is not in service here");
}

static void switched_off(void)
{
    clear();
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~(u64)BASE_ENABLED);
    check_eq(cpuid(1, 0).d >> 9 & 1, 0, "CPUID.1:EDX.APIC when it is off");
    pit_program(0, 0, 300);
    halt_until(&counts[IRQ_BASE], 1);
    print("off: %u\n", counts[IRQ_BASE]);
}

int main64(void)
{
    protect_memory();
    idt_init();
    outb(PIC1 + 1, 0xff);
    outb(PIC2 + 1, 0xff);
    apic_write(APIC_SVR, SVR_ENABLED | SPURIOUS);
    apic_write(APIC_TPR, 0);
    identity();
    by_priority();
    by_task_priority();
    in_service();
    destinations();
    timer_one_shot();
    timer_periodic();
    virtual_wire();
    switched_off();
    return 0;
}
