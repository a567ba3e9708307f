/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     strict
 * bits     32, 64
 * proves   what the manual demands and QEMU's TCG leaves out: #GP for illegal values of CR0, CR3, CR4 and EFER, for PDPTEs with
 *          reserved bits, for unknown MSRs and non-canonical values of known ones; error codes of the 64-bit IDT (index
 *          times 8, IDT bit, EXT bit); #SS, not #GP, for a non-canonical address of the stack; accessed bits of the
 *          segments that an exception loads
 * ends     0: every value was refused with #GP(0), every code was right
 * mission  2, 6, 59
 * qemu     no: TCG accepts these values and counts 64-bit vectors by 16; the witnesses are Bochs 2.7
 *          (ignore_bad_msrs=0) and the manual (SDM 3A 2.5, 4.4.1, 5.8.1, 6.13; volume 2, MOV CR and WRMSR)
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "traps.h"
#include "paging.h"
#include "ring.h"
#include "strict.h"

#define ACCESSED (1ull << 40)

extern const char in_ring3[];
asm(".pushsection .text; in_ring3: ud2; .popsection");

u32 long_call(u32 (*fn)(void));
u32 main_long(void);

void trap32(struct frame32 *f)
{
    if (!trap_catch(f))
        f->cs & 3 ? ring_leave32() : trap_unexpected(f);
}

/* Delivery sets the accessed bits of the code and stack descriptors that it loads (SDM 3A 3.4.5.1). */
static void accessed_bits(void)
{
    static struct tss32 tss;
    static u8 stacks[2][1024];
    tss.ss0 = KDATA, tss.esp0 = (u32)(stacks + 1);
    load_tss(&tss, sizeof tss - 1);
    gdt[KCODE32 / 8] &= ~ACCESSED;
    gdt[KDATA / 8] &= ~ACCESSED;
    ring_run32(UCODE32 | 3, UDATA | 3, (u32)in_ring3, (u32)(stacks + 2), 2);
    check((gdt[KCODE32 / 8] & ACCESSED) != 0, "accessed bit of CS");
    check((gdt[KDATA / 8] & ACCESSED) != 0, "accessed bit of SS");
    gdt[KCODE32 / 8] |= ACCESSED;
    gdt[KDATA / 8] |= ACCESSED;
}

/* A PAE load of CR3 with a reserved bit in a present PDPTE is refused; without the present bit it is not. */
static void pdptes(void)
{
    u64 *good = page_alloc(), *bad = page_alloc();
    for (u32 i = 0; i < 32; i++)
        page_map(good, 3, i << 21, i << 21, 2, P_WRITE);
    memcpy(bad, good, 4096);
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((u32)good);
    write_cr0(read_cr0() | CR0_PG);
    for (int bit = 1; bit <= 2; bit++) {
        bad[3] = 1 | 1 << bit;
        REFUSED(bit == 1 ? "PDPTE bit 1 at MOV CR3" : "PDPTE bit 2 at MOV CR3", "mov %0, %%cr3", "r"(bad));
    }
    check_eq(read_cr3(), (u32)good, "CR3 after the refusal");
    bad[3] = 6;
    ACCEPTED("absent PDPTE with reserved bits", "mov %0, %%cr3", "r"(bad));
    write_cr0(read_cr0() & ~CR0_PG);
    bad[3] = 7;
    REFUSED("PDPTE bits when paging starts", "mov %0, %%cr0", "r"(read_cr0() | CR0_PG));
    check_eq(read_cr0() >> 31, 0, "paging after the refusal");
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~CR4_PAE);
}

int main32(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    pages_init(0x400000, 0x420000);
    idt_init();
    REFUSED("CR0.PG without PE", "mov %0, %%cr0", "r"((cr0 & ~CR0_PE) | CR0_PG));
    REFUSED("CR0.NW without CD", "mov %0, %%cr0", "r"((cr0 & ~CR0_CD) | CR0_NW));
    ACCEPTED("CR0.NW with CD", "mov %0, %%cr0", "r"(cr0 | CR0_NW | CR0_CD));
    write_cr0(cr0);
    REFUSED("CR4 bit 31", "mov %0, %%cr4", "r"(cr4 | 1u << 31));
    if (cpuid(1, 0).c >> 17 & 1)
        REFUSED("CR4.PCIDE outside long mode", "mov %0, %%cr4", "r"(cr4 | CR4_PCIDE));
    REFUSED("EFER bit 1", "wrmsr", "c"(MSR_EFER), "a"(2), "d"(0));
    REFUSED("EFER bit 32", "wrmsr", "c"(MSR_EFER), "a"(0), "d"(1));
    wrmsr(MSR_EFER, EFER_LME);
    REFUSED("CR0.PG with LME, without PAE", "mov %0, %%cr0", "r"(cr0 | CR0_PG));
    wrmsr(MSR_EFER, 0);
    check_eq(read_cr0(), cr0, "CR0 afterwards");
    check_eq(read_cr4(), cr4, "CR4 afterwards");
    pdptes();
    accessed_bits();
    return long_call(main_long);
}
