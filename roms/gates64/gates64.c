/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     gates64
 * bits     32, 64
 * proves   long mode's gates: 16-byte call and interrupt gates, IST, null SS, error codes, double faults, iretq between rings and
 *          to compatibility mode, SYSCALL/SYSRET, SWAPGS, IOPL and the TSS's I/O bitmap, non-canonical addresses,
 *          #PF codes
 * ends     0: every probe ended as the manual says
 * mission  2, 41, 43, 53, 60, 61
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "probe.h"
#include "paging.h"
#include "gates64.h"

#define IDT_LIMIT 0x8ff                 /* vectors 0 to 8f */

extern char ring0_stack[], probe_stack0[], probe_stack[], ist_stack[], df_stack[];
void gate_entry(void), int_frame(void), int_flags(void), int_ist(void), syscall_entry(void);

struct __attribute__((packed)) { struct tss64 tss; u8 io_map[0x401 / 8 + 2]; } tss;
static u64 ldt[2];

void trap64(struct frame64 *f)
{
    if (f->vector == V_PF && f->rip == NX_PAGE) {   /* the only probe whose fault lies elsewhere: see probes.S */
        f->rax = f->error;
        f->rip = f->rbx;
        return;
    }
    seen_note(f, f->rax);
    ring_leave64();
}

static void wide(u32 selector, u64 low, u64 high)
{
    gdt[selector / 8] = low;
    gdt[selector / 8 + 1] = high;
}

static void gdt_reset(void)
{
    u32 to = (u32)(word)gate_entry;
    gdt[NP_DATA3 / 8] = descriptor(0, 0xfffff, 0x73, 0xc);
    gdt[NP_CODE3 / 8] = descriptor(0, 0xfffff, 0x7b, 0xa);
    gdt[NP_CODE0 / 8] = descriptor(0, 0xfffff, 0x1b, 0xa);
    gdt[RO3 / 8] = descriptor(0, 0xfffff, 0xf1, 0xc);
    gdt[EXEC3 / 8] = descriptor(0, 0xfffff, 0xf9, 0xa);
    gdt[CONF0 / 8] = descriptor(0, 0xfffff, 0x9f, 0xa);
    ldt[0] = descriptor(0, 0xfffff, 0xf3, 0xc);
    wide(LDT_SEL, descriptor((u32)(word)ldt, sizeof ldt - 1, 0x82, 0), 0);
    wide(TSS_BUSY, descriptor((u32)(word)&tss, sizeof tss - 1, 0x8b, 0), 0);
    wide(GATE_R0, gate(to, KCODE64, GATE_CALL | 0x60, 0), 0);
    wide(GATE_DPL0, gate(to, KCODE64, GATE_CALL, 0), 0);
    wide(GATE_NP, gate(to, KCODE64, 0x6c, 0), 0);
    wide(GATE_TO_32, gate(to, KCODE32, GATE_CALL | 0x60, 0), 0);
    wide(GATE_TO_DATA, gate(to, KDATA, GATE_CALL | 0x60, 0), 0);
    wide(GATE_TO_NULL, gate(to, 0, GATE_CALL | 0x60, 0), 0);
    wide(GATE_SAME, gate(to, UCODE64, GATE_CALL | 0x60, 0), 0);
    wide(GATE_TAIL, gate(to, KCODE64, GATE_CALL | 0x60, 0), (u64)0x0c00 << 32);
    wide(GATE_TO_NP, gate(to, NP_CODE0, GATE_CALL | 0x60, 0), 0);
}

static void idt_raw(int n, const void *to, u32 selector, u32 access)
{
    idt64[2 * n] = gate((u32)(word)to, selector, access, 0);
    idt64[2 * n + 1] = 0;
}

static void idt_reset(void)
{
    for (int n = 0; n < 256; n++)
        idt_set(n, (void *)(word)trap_stubs64[n], GATE_INT | 0x60, n == V_DF ? IST_DF : 0);
    void *to = (void *)(word)trap_stubs64[0x60];
    idt_set(0x50, int_frame, GATE_INT | 0x60, 0);
    idt_set(0x51, int_flags, GATE_INT | 0x60, 0);
    idt_set(0x52, int_flags, GATE_TRAP | 0x60, 0);
    idt_set(0x53, int_ist, GATE_INT | 0x60, IST_TEST);
    idt_set(0x54, int_ist, GATE_INT | 0x60, 0);
    idt_raw(0x65, to, 0, GATE_INT | 0x60);
    idt_raw(0x66, to, KDATA, GATE_INT | 0x60);
    idt_raw(0x67, to, NP_CODE0, GATE_INT | 0x60);
    idt_raw(0x68, to, UCODE64, GATE_INT | 0x60);
    idt_raw(0x69, to, KCODE32, GATE_INT | 0x60);
    load_idt(idt64, IDT_LIMIT);
}

static void tss_reset(void)
{
    memset(&tss, 0, sizeof tss);
    memset(tss.io_map, 0xff, sizeof tss.io_map);
    tss.io_map[0x21 / 8] &= ~(1 << (0x21 & 7));
    tss.io_map[0x80 / 8] &= ~3;
    tss.tss.rsp[0] = (word)ring0_stack;
    tss.tss.ist[IST_TEST] = (word)ist_stack;
    tss.tss.ist[IST_DF] = (word)df_stack;
    tss.tss.ist[IST_ABSENT] = ABSENT_PAGE + 0x1000;
    tss.tss.io_map = sizeof tss.tss;
    load_tss(&tss, sizeof tss - 1);
}

static void probe_reset(void)
{
    write_cr0((read_cr0() & ~(word)CR0_TS) | CR0_WP);
    asm volatile("lldt %w0" : : "r"(0));
    gdt_reset();
    idt_reset();
    tss_reset();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (u64)UCS32 << 48 | (u64)KCODE64 << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_TF | FLAG_DF | FLAG_CF);
    wrmsr(MSR_GS_BASE, GS_USER);
    wrmsr(MSR_KERNEL_GS_BASE, GS_KERNEL);
}

void sce_off(void) { wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE); }

static u32 by_ring[4];

static void probe_enter(const struct probe *p)
{
    by_ring[p->ring]++;
    ring_run64(p->ring ? UCS : KCODE64, p->ring ? USS : KDATA, p->code, (word)(p->ring ? probe_stack : probe_stack0), p->flags);
}

int main64(void)
{
    pages_init(0x400000, 0x410000);
    *pte_at(identity_pml4, 4, ABSENT_PAGE, 2) = 0;
    page_map(identity_pml4, 4, KERNEL_PAGE, KERNEL_PAGE, 2, P_WRITE);
    page_map(identity_pml4, 4, RO_PAGE, RO_PAGE, 2, P_USER);
    page_map(identity_pml4, 4, NX_PAGE, NX_PAGE, 2, P_USER | P_WRITE | P_NX);
    write_cr3(read_cr3());
    u32 n = probes_run();
    print("probes in ring 0: %u, 3: %u; in all %u\n", by_ring[0], by_ring[3], n);
    return 0;
}
