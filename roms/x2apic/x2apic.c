/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     x2apic
 * bits     64
 * proves   x2APIC mode: ways between the modes and others that raise #GP, registers by MSR with their reserved bits, a
 *          self-IPI, the ICR in one piece; the TSC-deadline timer: in the future, in the past, disarmed, in the other modes
 * ends     0: each fault and each count is the expected one, or the processor has neither; 1: a FAIL line
 * mission  26
 * qemu     no: Bochs
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

static volatile u32 counts[256];
static u64 base;

void trap64(struct frame64 *f)
{
    if (f->vector < 0x20) {
        if (!trap_catch(f))
            trap_unexpected(f);
        return;
    }
    counts[f->vector]++;
    wrmsr(MSR_X2APIC + APIC_EOI, 0);
}

static void set(u32 reg, u64 v) { wrmsr(MSR_X2APIC + reg, v); }
static u64 get(u32 reg) { return rdmsr(MSR_X2APIC + reg); }

static void faults_read(u32 msr, const char *what)
{
    TRY("rdmsr", : : "c"(msr) : "eax", "edx");
    check_fault(13, 0, what);
}

static void faults_write(u32 msr, u64 v, const char *what)
{
    TRY("wrmsr", : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)));
    check_fault(13, 0, what);
}

static void modes(void)
{
    base = rdmsr(MSR_APIC_BASE) & ~(u64)(BASE_ENABLED | BASE_X2APIC);
    faults_read(MSR_X2APIC + APIC_ID, "a register of x2APIC mode, in xAPIC mode");
    faults_write(MSR_X2APIC + APIC_TPR, 0, "a write to one, in xAPIC mode");
    faults_write(MSR_APIC_BASE, base | BASE_X2APIC, "x2APIC mode without being enabled");
    faults_write(MSR_APIC_BASE, base | BASE_ENABLED | 1, "a reserved bit of the base");
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLED | BASE_X2APIC);
    check_eq(get(APIC_ID), 0, "id");
    faults_write(MSR_APIC_BASE, base | BASE_ENABLED, "x2APIC to xAPIC mode");
    print("modes: base %llx\n", rdmsr(MSR_APIC_BASE));
}

static void registers(void)
{
    static const u32 none[] = {0x00, 0x04, APIC_DFR, 0x29, APIC_ICR_HIGH, 0x3a};
    static const u32 read_only[] = {APIC_ID, APIC_VERSION, APIC_PPR, APIC_LDR, APIC_ISR, APIC_TMR + 7, APIC_IRR + 3, APIC_CURRENT};

    for (u32 i = 0; i < sizeof none / sizeof *none; i++) {
        faults_read(MSR_X2APIC + none[i], "a register that does not exist");
        faults_write(MSR_X2APIC + none[i], 0, "a write to one");
    }
    for (u32 i = 0; i < sizeof read_only / sizeof *read_only; i++)
        faults_write(MSR_X2APIC + read_only[i], 0, "a write to a read-only register");
    faults_read(MSR_X2APIC + APIC_EOI, "a write-only register");
    faults_read(MSR_X2APIC + APIC_SELF_IPI, "another");
    faults_write(MSR_X2APIC + APIC_EOI, 1, "EOI of 1");
    faults_write(MSR_X2APIC + APIC_TPR, 0x100, "a reserved bit of the task priority");
    faults_write(MSR_X2APIC + APIC_TPR, 1ull << 32, "a high half");
    faults_write(MSR_X2APIC + APIC_ESR, 1, "error status of 1");
    set(APIC_SVR, SVR_ENABLED | SPURIOUS);
    print("registers: version %llx\n", get(APIC_VERSION) & 0xff);
}

static void to_itself(void)
{
    set(APIC_SELF_IPI, 0x51);
    set(APIC_ICR, 0x52 | ICR_ASSERT);                           /* physical, id 0 */
    set(APIC_ICR, 0xffffffffull << 32 | 0x54 | ICR_ASSERT);     /* everybody */
    set(APIC_ICR, 7ull << 32 | 0x55 | ICR_ASSERT);              /* nobody */
    check_eq(get(APIC_IRR + 2), 0x160000, "requested");
    open_window();
    print("to itself: %u %u %u %u\n", counts[0x51], counts[0x52], counts[0x54], counts[0x55]);
    check_eq(counts[0x51] + counts[0x52] + counts[0x54] + 10 * counts[0x55], 3, "taken");
}

static void halt_until(volatile u32 *count, u32 wanted)
{
    while (*count < wanted)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static void one_shot(void)
{
    counts[TIMER] = 0;
    set(APIC_DIVIDE, DIVIDE_BY_1);
    set(APIC_TIMER, TIMER);
    set(APIC_INITIAL, 100000);
    halt_until(&counts[TIMER], 1);
    check_eq(get(APIC_CURRENT), 0, "count after its end");
    print("one-shot: %u\n", counts[TIMER]);
}

static void deadline(void)
{
    u64 when;

    if (!(cpuid(1, 0).c >> 24 & 1)) {
        print("no deadline\n");
        faults_read(MSR_TSC_DEADLINE, "the deadline of a processor without");
        return;
    }
    counts[TIMER] = 0;
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000);                    /* ignored in the other modes */
    check_eq(rdmsr(MSR_TSC_DEADLINE), 0, "deadline in one-shot mode");
    set(APIC_TIMER, LVT_DEADLINE | TIMER);
    when = rdtsc() + 200000;
    wrmsr(MSR_TSC_DEADLINE, when);
    check_eq(rdmsr(MSR_TSC_DEADLINE), when, "armed deadline");
    halt_until(&counts[TIMER], 1);
    check(rdtsc() >= when, "it does not come too early");
    set(APIC_INITIAL, 1000);                                    /* ignored in this mode */
    check_eq(get(APIC_CURRENT), 0, "count in deadline mode");
    wrmsr(MSR_TSC_DEADLINE, 1);                                 /* past */
    halt_until(&counts[TIMER], 2);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000000);
    wrmsr(MSR_TSC_DEADLINE, 0);
    when = rdtsc() + 2000000;
    while (rdtsc() < when)
        ;
    open_window();
    print("deadline: %u\n", counts[TIMER]);
    check_eq(counts[TIMER], 2, "a disarmed deadline");
}

static void switched_off(void)
{
    wrmsr(MSR_APIC_BASE, base);
    faults_read(MSR_X2APIC + APIC_ID, "a register when it is off");
    print("off: %u\n", cpuid(1, 0).d >> 9 & 1);
    check_eq(cpuid(1, 0).d >> 9 & 1, 0, "CPUID.1:EDX.APIC when it is off");
}

int main64(void)
{
    protect_memory();
    idt_init();
    outb(PIC1 + 1, 0xff);
    outb(PIC2 + 1, 0xff);
    if (!(cpuid(1, 0).c >> 21 & 1)) {
        print("no x2APIC mode\n");
        return 0;
    }
    modes();
    registers();
    to_itself();
    one_shot();
    deadline();
    switched_off();
    return 0;
}
