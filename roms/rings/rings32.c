/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     rings
 * bits     32
 * proves   rings 0 to 3 in 32-bit protected mode: privileged instructions, CPL/RPL/DPL checks of segment loads, far jumps,
 *          call gates with parameters and stacks per ring, far returns, interrupt and trap gates; every exception
 *          with its error code and the address it reports, double faults included
 * ends     0: every probe ended as the manual says
 * mission  2, 41, 43, 53
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "probe.h"
#include "paging.h"
#include "rings.h"

#define IDT_LIMIT 0x47f                 /* vectors 0 to 8f */

extern char ring0_stack[], ring1_stack[], ring2_stack[], probe_stack[];
void gate_entry(void), gate_same(void), gate_nulling(void), int_flags(void), int_inner(void);

struct tss32 tss;
static u64 ldt[3];
static u32 *directory;

static const u16 ring_cs[4] = {KCODE32, CS1, CS2, CS3}, ring_ds[4] = {KDATA, SS1, SS2, SS3};

void trap32(struct frame32 *f)
{
    seen_note(f, f->eax);
    ring_leave32();
}

/* ---- what a probe finds ---- */
static void segments_reset(void)
{
    static const struct { u16 selector; u8 access; } flat[] = {
        {CODE1, 0xbb}, {DATA1, 0xb3}, {CODE2, 0xdb}, {DATA2, 0xd3}, {CONF0, 0x9f}, {CONF2, 0xdf}, {RO3, 0xf1},
        {EXEC3, 0xf9}, {NP_DATA3, 0x73}, {NP_CODE3, 0x7b}, {NP_CODE0, 0x1b}};
    for (u32 i = 0; i < sizeof flat / sizeof *flat; i++)
        gdt[flat[i].selector / 8] = descriptor(0, 0xfffff, flat[i].access, 0xc);
    ldt[0] = descriptor(0, 0xfffff, 0xf3, 0xc);
    ldt[1] = descriptor(0, 0xfffff, 0xfb, 0xc);
    ldt[2] = descriptor(0, 0xfffff, 0x93, 0xc);
    gdt[LDT_SEL / 8] = descriptor((u32)ldt, sizeof ldt - 1, 0x82, 0);
    gdt[NP_LDT / 8] = descriptor((u32)ldt, sizeof ldt - 1, 0x02, 0);
    gdt[TSS_FREE / 8] = descriptor((u32)&tss, sizeof tss - 1, 0x89, 0);
    gdt[TSS_BUSY / 8] = descriptor((u32)&tss, sizeof tss - 1, 0x8b, 0);
    gdt[NP_TSS / 8] = descriptor((u32)&tss, sizeof tss - 1, 0x09, 0);
    gdt[SHORT_CODE3 / 8] = descriptor(0, 0xfff, 0xfb, 4);
    gdt[SHORT_DATA3 / 8] = descriptor(0, 0x123, 0xf3, 4);
}

static void call_gates_reset(void)
{
    u32 to = (u32)gate_entry;
    gdt[GATE_R0 / 8] = gate(to, KCODE32, GATE_CALL | 0x60, 2);
    gdt[GATE_R1 / 8] = gate(to, CODE1, GATE_CALL | 0x60, 2);
    gdt[GATE_R2 / 8] = gate(to, CODE2, GATE_CALL | 0x60, 2);
    gdt[GATE_DPL0 / 8] = gate(to, KCODE32, GATE_CALL, 2);
    gdt[GATE_DPL2 / 8] = gate(to, KCODE32, GATE_CALL | 0x40, 2);
    gdt[GATE_NP / 8] = gate(to, KCODE32, 0x6c, 2);
    gdt[GATE_TO_NP / 8] = gate(to, NP_CODE0, GATE_CALL | 0x60, 2);
    gdt[GATE_TO_DATA / 8] = gate(to, KDATA, GATE_CALL | 0x60, 2);
    gdt[GATE_TO_NULL / 8] = gate(to, 0, GATE_CALL | 0x60, 2);
    gdt[GATE_TO_RING3 / 8] = gate((u32)gate_same, UCODE32, GATE_CALL | 0x60, 2);
    gdt[GATE_BEYOND / 8] = gate(to, BEYOND, GATE_CALL | 0x60, 2);
    gdt[GATE_NULLING / 8] = gate((u32)gate_nulling, KCODE32, GATE_CALL | 0x60, 2);
}

static void idt_reset(void)
{
    for (int n = 0; n < 256; n++)
        idt32[n] = gate(trap_stubs32[n], KCODE32, GATE_INT | 0x60, 0);
    u32 to = trap_stubs32[0x60];
    idt32[0x50] = gate((u32)int_flags, KCODE32, GATE_INT | 0x60, 0);
    idt32[0x51] = gate((u32)int_flags, KCODE32, GATE_TRAP | 0x60, 0);
    idt32[0x52] = gate((u32)int_inner, CODE1, GATE_INT | 0x60, 0);
    idt32[0x53] = gate((u32)int_inner, CONF0, GATE_INT | 0x60, 0);
    idt32[0x60] = gate(to, KCODE32, GATE_INT, 0);
    idt32[0x61] = gate(to, KCODE32, 0x6e, 0);
    idt32[0x62] = gate(to, KCODE32, 0x0e, 0);
    idt32[0x63] = gate(to, KCODE32, GATE_CALL | 0x60, 0);
    idt32[0x64] = 0;
    idt32[0x65] = gate(to, 0, GATE_INT | 0x60, 0);
    idt32[0x66] = gate(to, KDATA, GATE_INT | 0x60, 0);
    idt32[0x67] = gate(to, NP_CODE0, GATE_INT | 0x60, 0);
    idt32[0x68] = gate(to, UCODE32, GATE_INT | 0x60, 0);
    idt32[0x69] = gate(to, BEYOND, GATE_INT | 0x60, 0);
    load_idt(idt32, IDT_LIMIT);
}

static void probe_reset(void)
{
    write_cr0((read_cr0() & ~(CR0_PG | CR0_TS | CR0_EM | CR0_WP | CR0_NE)) | CR0_MP);
    write_cr4((read_cr4() & ~(CR4_TSD | CR4_PSE)) | 0x200);
    asm volatile("fninit; lldt %w0" : : "r"(0));
    segments_reset();
    call_gates_reset();
    idt_reset();
    memset(&tss, 0, sizeof tss);
    tss.ss0 = KDATA, tss.esp0 = (u32)ring0_stack;
    tss.ss1 = SS1, tss.esp1 = (u32)ring1_stack;
    tss.ss2 = SS2, tss.esp2 = (u32)ring2_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
}

/* ---- set-up that probes.S calls ---- */
void short_tss(void) { load_tss(&tss, TSS_RING1_OUT); }

void paging_on(void)
{
    for (u32 i = 0; i < 4; i++)
        directory[i] = i << 22 | P_LARGE | P_USER | P_WRITE | P_PRESENT;
    directory[KERNEL_PAGE >> 22] = KERNEL_PAGE | P_LARGE | P_WRITE | P_PRESENT;
    directory[RO_PAGE >> 22] = RO_PAGE | P_LARGE | P_USER | P_PRESENT;
    directory[ABSENT_PAGE >> 22] = 0;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)directory);
    write_cr0(read_cr0() | CR0_PG);
}

void paging_on_wp(void)
{
    write_cr0(read_cr0() | CR0_WP);
    paging_on();
}

/* ---- the run ---- */
static u32 by_ring[4];

static void probe_enter(const struct probe *p)
{
    by_ring[p->ring]++;
    ring_run32(ring_cs[p->ring], ring_ds[p->ring], p->code, (u32)probe_stack, p->flags);
}

int main32(void)
{
    pages_init(0x400000, 0x410000);
    directory = page_alloc();
    u32 n = probes_run();
    print("probes in ring 0: %u, 1: %u, 2: %u, 3: %u; in all %u\n", by_ring[0], by_ring[1], by_ring[2], by_ring[3], n);
    return 0;
}
