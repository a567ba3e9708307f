/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     seventeen
 * bits     32
 * proves   the instructions of Robin & Irvine (USENIX Security 2000), one by one, in ring 0 of a kernel with its own GDT, IDT, task
 *          state and paging: what each stores, pushes, loads or reports there.  In another ring eleven of them would say something else
 *          without a trap; a monitor that runs this kernel deprivileged sees them fail one by one
 * ends     0: each gave what ring 0 gets
 * mission  2, 41, 42, 53
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "paging.h"
#include "traps.h"

#define IF_BIT  0x200u
#define SEEN_BY_INT 0x5a

static u32 __attribute__((aligned(4096))) directory[1024];
static struct tss32 tss;
static u32 seen_cs, seen_vector;

void trap32(struct frame32 *f)
{
    if (f->vector != 0x80)
        trap_unexpected(f);
    seen_vector = f->vector;
    seen_cs = f->cs;
    f->eax = SEEN_BY_INT;
}

static void expect(const char *name, u32 got, u32 want)
{
    print("%s %x\n", name, got);
    check_eq(got, want, name);
}

static u32 flags(void)
{
    u32 v;

    asm volatile("pushf; pop %0" : "=r"(v) : : "memory");
    return v;
}

static void registers(void)
{
    struct __attribute__((packed)) { u16 limit; u32 base; } table;
    u32 v;

    asm volatile("sgdt %0" : "=m"(table));
    expect("sgdt", table.limit == sizeof gdt - 1 && table.base == (u32)gdt, 1);
    asm volatile("sidt %0" : "=m"(table));
    expect("sidt", table.limit == sizeof idt32 - 1 && table.base == (u32)idt32, 1);
    asm volatile("sldt %0" : "=r"(v));
    expect("sldt", v & 0xffff, 0);
    asm volatile("str %0" : "=r"(v));
    expect("str", v & 0xffff, TSS_SEL);
    asm volatile("smsw %0" : "=r"(v));
    expect("smsw", v & 0xf, read_cr0() & 0xf);
}

static void the_flags(void)
{
    u32 before, after;

    asm volatile("cli" : : : "memory");
    before = flags();
    expect("pushf after cli", before & (IF_BIT | 0x3000), 0);
    asm volatile("push %0; popf" : : "r"(before | IF_BIT | 0x3000) : "memory", "cc");
    after = flags();
    asm volatile("push %0; popf" : : "r"(before) : "memory", "cc");
    expect("popf", after & (IF_BIT | 0x3000), IF_BIT | 0x3000);
}

static void descriptors(void)
{
    u32 v = 0;
    u8 zf;

    asm volatile("lar %w2, %0; setz %1" : "+r"(v), "=qm"(zf) : "r"(KCODE32) : "cc");
    expect("lar", zf << 16 | (v >> 8 & 0xfe), 0x1009a);       /* present, DPL 0, code, readable; accessed or not */
    asm volatile("lsl %w2, %0; setz %1" : "+r"(v), "=qm"(zf) : "r"(KDATA) : "cc");
    expect("lsl", v, 0xffffffff);
    asm volatile("verr %w1; setz %0" : "=qm"(zf) : "r"(KDATA) : "cc");
    expect("verr", zf, 1);
    asm volatile("verw %w1; setz %0" : "=qm"(zf) : "r"(KDATA) : "cc");
    expect("verw", zf, 1);
}

static void segments(void)
{
    u32 v;

    asm volatile("mov %%cs, %0" : "=r"(v));
    expect("mov from cs", v & 0xffff, KCODE32);
    asm volatile("push %%cs; pop %0" : "=r"(v));
    expect("push cs", v & 0xffff, KCODE32);
    asm volatile("mov %1, %%es; mov %%es, %0" : "=r"(v) : "r"(KDATA));
    expect("mov to es", v & 0xffff, KDATA);
    asm volatile("push %1; pop %%es; mov %%es, %0" : "=r"(v) : "r"(KDATA));
    expect("pop es", v & 0xffff, KDATA);
}

static void transfers(void)
{
    u32 v = 0;

    asm volatile("lcall %1, $1f\n\t"
                 "jmp 2f\n"
                 "1: mov 4(%%esp), %0\n\t"
                 "lret\n"
                 "2:" : "=&r"(v) : "i"(KCODE32) : "memory");
    expect("call far, ret far", v & 0xffff, KCODE32);
    asm volatile("ljmp %1, $1f\n1: mov $1, %0" : "=r"(v) : "i"(KCODE32));
    expect("jmp far", v, 1);
    asm volatile("int $0x80" : "=a"(v) : "0"(0) : "memory");
    expect("int", v << 16 | (seen_cs & 0xffff), SEEN_BY_INT << 16 | KCODE32);
}

int main32(void)
{
    idt_init();
    tss.ss0 = KDATA;
    tss.esp0 = (u32)stack_top;
    load_tss(&tss, sizeof tss - 1);
    for (u32 i = 0; i < 1024; i++)
        directory[i] = i << 22 | P_PRESENT | P_WRITE | P_LARGE;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)directory);
    write_cr0(read_cr0() | CR0_PG);
    transfers();
    segments();
    descriptors();
    registers();
    the_flags();
    return 0;
}
