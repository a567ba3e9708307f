/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit part of strict: first the error codes, by probes; then the registers. */
#include "probe.h"
#include "paging.h"
#include "strict.h"

extern char ring0_stack[], probe_stack0[], probe_stack[];
static struct tss64 tss;

void trap64(struct frame64 *f)
{
    if (trap_catch(f))
        return;
    seen_note(f, f->rax);
    ring_leave64();
}

static void idt_raw(int n, u32 access)
{
    idt64[2 * n] = gate(trap_stubs64[0x60], KCODE64, access, 0);
    idt64[2 * n + 1] = 0;
}

static void probe_reset(void)
{
    for (int n = 0; n < 256; n++)
        idt_set(n, (void *)(word)trap_stubs64[n], GATE_INT | 0x60, 0);
    idt_raw(0x60, GATE_INT);
    idt_raw(0x61, 0x6e);
    idt_raw(0x62, 0x0e);
    idt_raw(0x63, GATE_CALL | 0x60);
    idt_raw(0x64, GATE_TASK | 0x60);
    load_idt(idt64, 0x8ff);
    tss.rsp[0] = (word)ring0_stack;
    tss.ist[1] = (word)ring0_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
}

static void probe_enter(const struct probe *p)
{
    if (p->ring)
        ring_run64(UCODE64 | 3, UDATA | 3, p->code, (word)probe_stack, p->flags);
    else
        ring_run64(KCODE64, KDATA, p->code, (word)probe_stack0, p->flags);
}

static void msrs(void)
{
    static const u32 unknown[] = {0x12345, 0x40000fff, 0xc0001fff, 0xffffffff};
    for (int i = 0; i < 4; i++) {
        REFUSED("read of an unknown MSR", "rdmsr", "c"(unknown[i]), "a"(0), "d"(0));
        REFUSED("write of an unknown MSR", "wrmsr", "c"(unknown[i]), "a"(0), "d"(0));
    }
    static const u32 address[] = {MSR_LSTAR, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE};
    for (int i = 0; i < 4; i++) {
        u64 was = rdmsr(address[i]);
        REFUSED("MSR with a non-canonical address", "wrmsr", "c"(address[i]), "a"(0), "d"(0x8000));
        check_eq(rdmsr(address[i]), was, "MSR afterwards");
        ACCEPTED("MSR with a canonical address", "wrmsr", "c"(address[i]), "a"(0), "d"(0xffff8000));
        wrmsr(address[i], was);
    }
}

static void pcid(word cr0, word cr3, word cr4)
{
    if (!(cpuid(1, 0).c >> 17 & 1))
        return;
    write_cr3(cr3 | 8);
    REFUSED("CR4.PCIDE set while CR3 bits 11:0 are not 0", "mov %0, %%cr4", "r"(cr4 | CR4_PCIDE));
    write_cr3(cr3);
    ACCEPTED("CR4.PCIDE in long mode", "mov %0, %%cr4", "r"(cr4 | CR4_PCIDE));
    REFUSED("CR0.PG cleared with PCIDE", "mov %0, %%cr0", "r"(cr0 & ~(word)CR0_PG));
    write_cr4(cr4);
}

/* Delivery sets the accessed bit of the code segment that it loads (SDM 3A 3.4.5.1). */
static void accessed_bit(void)
{
    gdt[KCODE64 / 8] &= ~(1ull << 40);
    TRY("ud2");
    check_fault(6, 0, "ud2");
    check(gdt[KCODE64 / 8] >> 40 & 1, "accessed bit of CS");
}

u32 main_long(void)
{
    u32 n = probes_run();
    print("probes: %u\n", n);
    word cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
    u64 efer = rdmsr(MSR_EFER);
    msrs();
    pcid(cr0, cr3, cr4);
    accessed_bit();
    REFUSED("CR0 bit 32", "mov %0, %%cr0", "r"(cr0 | 1ull << 32));
    REFUSED("CR0.PG without PE", "mov %0, %%cr0", "r"(cr0 & ~(word)CR0_PE));
    REFUSED("CR4 bit 31", "mov %0, %%cr4", "r"(cr4 | 1ull << 31));
    REFUSED("CR4 bit 63", "mov %0, %%cr4", "r"(cr4 | 1ull << 63));
    REFUSED("CR3 bit 62", "mov %0, %%cr3", "r"(cr3 | 1ull << 62));
    REFUSED("EFER.LME cleared with paging", "wrmsr", "c"(MSR_EFER), "a"((u32)efer & ~EFER_LME), "d"(0));
    REFUSED("CR4.PAE cleared in long mode", "mov %0, %%cr4", "r"(cr4 & ~(word)CR4_PAE));
    REFUSED("CR0.PG cleared in 64-bit code", "mov %0, %%cr0", "r"(cr0 & ~(word)CR0_PG));
    check_eq(read_cr0(), cr0, "CR0 afterwards");
    check_eq(read_cr3(), cr3, "CR3 afterwards");
    check_eq(read_cr4(), cr4, "CR4 afterwards");
    check_eq(rdmsr(MSR_EFER), efer, "EFER afterwards");
    return 0;
}
