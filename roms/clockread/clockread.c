/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     clockread
 * bits     64
 * proves   the machine's clocks agree: around a load the TSC goes forwards, the PIT counts down, the clock chip's
 *          second and date are valid; over 16 periods of the clock chip TSC and PIT keep their ratio.
 *          The readings go to report words: TSC low and high half, PIT count, second, before and after the load.
 * ends     0: all relations hold; 1: a FAIL line
 * mission  23 26
 * qemu     yes
 * time     yes: reads clocks; it prints only which relations hold
 * styles   all
 * memory   64M
 * kind     io
 */
#include "pc.h"
#include "traps.h"
#include "wx.h"

#define LOAD     200000                 /* rounds of the load */
#define PERIODS  16                     /* of 1/1024 s: 18,644 PIT clocks */
#define TRIALS   5                      /* of which one must be undisturbed by the host */

struct reading { u64 tsc; u16 pit; u8 second; };
static volatile u32 alarms;

void trap64(struct frame64 *f)
{
    if (f->vector != IRQ_BASE + IRQ_RTC)
        trap_unexpected(f);
    alarms++;
    cmos_read(RTC_C);
    pic_end(IRQ_RTC);
}

static u32 from_bcd(u8 v) { return (v >> 4) * 10 + (v & 15); }

/* The registers hold still while the update bit is clear (MC146818 data sheet). */
static u8 clock_read(u8 at)
{
    u8 v;

    do {
        while (cmos_read(RTC_A) & 0x80)
            ;
        v = cmos_read(at);
    } while (v != cmos_read(at));
    return v;
}

static struct reading read_clocks(void)
{
    struct reading r = {.pit = pit_read(2), .second = from_bcd(clock_read(0))};

    r.tsc = rdtsc();
    report(r.tsc);
    report(r.tsc >> 32);
    report(r.pit);
    report(r.second);
    return r;
}

static void tsc_goes_forwards(void)
{
    u64 first = rdtsc(), last = first;
    u32 backwards = 0;

    for (u32 i = 0; i < 1000; i++) {
        u64 now = rdtsc();
        backwards += now < last;
        last = now;
    }
    check_eq(backwards, 0, "TSC steps backwards");
    check(last > first, "TSC advances");
    print("tsc goes forwards\n");
}

static void around_a_load(void)
{
    struct reading before, after;
    u32 h = MIX_START;

    pit_program(2, 2, 0);               /* 65,536 clocks a round: 55 ms */
    before = read_clocks();
    for (u32 i = 0; i < LOAD; i++)
        h = mix(h, i);
    after = read_clocks();
    print("load %08x\n", h);
    check(after.tsc > before.tsc, "TSC advances during a load");
    check(after.pit != before.pit, "PIT counts during a load");
    check(before.second < 60 && after.second < 60, "seconds are valid");
    check((after.second + 60 - before.second) % 60 < 30, "seconds go forwards");
}

static void date_is_valid(void)
{
    u32 hour = from_bcd(clock_read(4)), day = from_bcd(clock_read(7)), month = from_bcd(clock_read(8));

    check(hour < 24 && from_bcd(clock_read(2)) < 60, "time of day");
    check(day >= 1 && day <= 31 && month >= 1 && month <= 12, "date");
    print("date is valid\n");
}

/* TSC and PIT clocks that pass during PERIODS alarms. */
static void measure(u64 *tsc, u32 *pit)
{
    u16 count;

    alarms = 0;
    while (alarms < 1)
        asm volatile("sti; hlt; cli" : : : "memory");
    *tsc = rdtsc();
    count = pit_read(2);
    while (alarms < 1 + PERIODS)
        asm volatile("sti; hlt; cli" : : : "memory");
    *tsc = rdtsc() - *tsc;
    *pit = (u16)(count - pit_read(2));
}

static int within(u64 a, u64 b, u32 percent) { return a * 100 <= b * (100 + percent) && b * 100 <= a * (100 + percent); }

static void clocks_agree(void)
{
    const u32 expected = (u32)((u64)PIT_HZ * PERIODS / 1024);
    int pit_agrees = 0, tsc_agrees = 0;

    cmos_write(RTC_A, (cmos_read(RTC_A) & 0xf0) | 6);
    cmos_write(RTC_B, cmos_read(RTC_B) | 0x40);
    cmos_read(RTC_C);
    for (u32 trial = 0; trial < TRIALS; trial++) {
        u64 tsc[2];
        u32 pit[2];

        for (u32 i = 0; i < 2; i++)
            measure(&tsc[i], &pit[i]);
        pit_agrees |= within(pit[0], expected, 25);
        tsc_agrees |= within(tsc[0] * pit[1], tsc[1] * pit[0], 25);
    }
    cmos_write(RTC_B, cmos_read(RTC_B) & ~0x40);
    cmos_read(RTC_C);
    check(pit_agrees, "PIT and clock chip within 25 %");
    check(tsc_agrees, "two ratios of TSC and PIT within 25 %");
    print("clocks agree\n");
}

int main64(void)
{
    protect_memory();
    idt_init();
    pic_init(0xff & ~(1 << IRQ_CASCADE), 0xff & ~(1 << (IRQ_RTC - 8)));
    outb(PORT_61, (inb(PORT_61) & ~2) | 1);
    check(!(cmos_read(RTC_B) & 4) && cmos_read(RTC_B) & 2, "clock chip in BCD and 24 hours");
    tsc_goes_forwards();
    around_a_load();
    date_is_valid();
    clocks_agree();
    return 0;
}
