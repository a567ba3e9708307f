/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     btwild
 * bits     64
 * proves   nothing that a translating monitor does for itself is seen: the addresses where it lies are the guest's, unmapped (every
 *          access faults) or mapped (data, stack and code of the guest); code entered in the middle of its instructions; a
 *          code page that unmaps itself, one that changes its frame, one that writes what runs next; returns to odd places;
 *          selectors and GS bases as loaded, and RDGSBASE only where CR4 has it
 * ends     debug-exit 0: each access and call did what the manual says; 1: a FAIL line
 * mission  28
 * qemu     yes
 * time     no
 * kind     mmu
 */
#include "traps.h"
#include "wx.h"

#define MONITOR  0xfffffffffc000000ull  /* vmm/bt/cells.pxd: translations, 32 MiB on the cells, then the tables */
#define CELLS    (MONITOR + 0x2000000)
#define OWN      0x1000000ull           /* frames of the guest's for these addresses */
#define CODE     (1ull << 39)
#define CODE_AT  0x1100000ull           /* its frames */
#define ROUNDS   300

typedef u32 function(u64 a);
static u32 seen = MIX_START, unmapped;
static u64 *code_pte;

void trap64(struct frame64 *f)
{
    if (f->vector == 14 && f->rip >> 12 == CODE >> 12 && !(f->error & PF_P)) {
        unmapped++;                     /* the code page that unmapped itself */
        *code_pte = CODE_AT | P_PRESENT | P_WRITE;
        return;
    }
    if (!trap_catch(f))
        trap_unexpected(f);
}

static void note(void)
{
    seen = mix(seen, caught.vector);
    seen = mix(seen, caught.error);
    seen = mix(seen, (u32)caught.cr2);
    seen = mix(seen, caught.at);
}

/* Every kind of access to addresses of the region, while nothing is mapped there. */
static void knock(void)
{
    for (u32 i = 0; i < 400; i++) {
        u64 at = MONITOR + (i < 40 ? i * 8 : i < 80 ? 0x2000000 + (i - 40) * 8 : (u64)i * 104729 % 0x4000000 & ~7ull), value;

        TRY("movq (%1), %0", : "=&r"(value) : "r"(at) : "memory");
        check_fault(14, 0, "read");
        note();
        TRY("movq %0, (%0)", : : "r"(at) : "memory");
        check_fault(14, PF_W, "write");
        note();
        TRY("pushq (%0)", : : "r"(at) : "memory");
        check_fault(14, 0, "push");
        TRY("lock incq (%0)", : : "r"(at) : "memory");
        note();
        TRY("jmp *(%0)", : : "r"(at) : "memory");
        check_fault(14, 0, "jump through memory");
        asm volatile("movq $771f, catch_at; movq $772f, catch_resume; mov %%rsp, %%r8; mov %0, %%rsp; 771: pushfq; "
                     "772: mov %%r8, %%rsp; movq $0, catch_resume" : : "r"(at + 8) : "r8", "memory");
        check_fault(14, PF_W, "flags to a stack");
        note();
    }
}

/* After a fault above the stack pointer is in the region: the handler runs on a stack of its own (IST 1). */
static u8 trap_stack[8192] __attribute__((aligned(16)));
static struct tss64 tss;

static void own_pages(void)
{
    static const u64 at[] = {MONITOR, MONITOR + 0x1000, CELLS, CELLS + 0x10000, CELLS + 0x90000, MONITOR + 0x3fff000};

    for (u32 i = 0; i < sizeof at / sizeof *at; i++) {
        page_map(identity_pml4, 4, at[i], OWN + i * 4096, 1, P_WRITE);
        for (u32 n = 0; n < 512; n++)
            ((volatile u64 *)at[i])[n] = at[i] * n;
    }
    for (u32 i = 0; i < sizeof at / sizeof *at; i++)
        for (u32 n = 0; n < 512; n++) {
            check_eq(((volatile u64 *)at[i])[n], at[i] * n, "own page");
            check_eq(((volatile u64 *)(OWN + i * 4096))[n], at[i] * n, "own frame");
        }
}

/* A stack where the cells are: pushes, pops, calls and flags go to the guest's page. */
static void own_stack(void)
{
    u64 got, flags;

    asm volatile("mov %%rsp, %%r8; mov %2, %%rsp; pushfq; popfq; pushfq; pop %1; call 1f; jmp 2f; 1: mov (%%rsp), %0; sub %0, %0; ret; "
                 "2: cli; push $0x1234; pop %0; mov %%r8, %%rsp"
                 : "=&r"(got), "=&r"(flags) : "r"(CELLS + 0x200) : "r8", "memory");
    check_eq(got, 0x1234, "a word through the stack");
    check_eq(flags & 0x3202, 2, "flags through the stack");
    check_eq(((volatile u64 *)(OWN + 2 * 4096))[0x1f8 / 8], 0x1234, "the word in the guest's frame");
}

static void place(u64 at, const void *bytes, u32 n)
{
    memcpy((void *)at, bytes, n);
    cpuid(0, 0);
}

/* mov $n, %eax; pushfq; pop %rcx; ret -- at the very addresses of the translation cache */
static void own_code(void)
{
    for (u32 i = 0; i < ROUNDS; i++) {
        u64 at = MONITOR + (i % 3 ? i * 12 : 0x40);
        u8 bytes[] = {0xb8, i, i >> 8, 0, 0, 0x9c, 0x59, 0xc3};

        place(at, bytes, sizeof bytes);
        check_eq(((function *)at)(0), i, "code in the region");
    }
}

/* mov $0xc0ffc031, %eax; ret  is  xor %eax, %eax; inc %eax; ret  from its second byte on, and a jump over itself from inside. */
static void overlap(void)
{
    static const u8 bytes[] = {0xb8, 0x31, 0xc0, 0xff, 0xc0, 0xc3, 0xeb, 0xff, 0xc0, 0xc3};
    u32 a = 0, b = 0, c = 0;

    place(CODE, bytes, sizeof bytes);
    for (u32 i = 0; i < ROUNDS; i++) {
        a += ((function *)CODE)(0) == 0xc0ffc031;
        b += ((function *)(CODE + 1))(0) == 1;
        asm volatile("xor %%eax, %%eax; call *%1; add %%eax, %0" : "+r"(c) : "r"(CODE + 6) : "rax", "memory");     /* jmp .+1: inc %eax */
    }
    check_eq(a, ROUNDS, "from the first byte");
    check_eq(b, ROUNDS, "from the second byte");
    check_eq(c, ROUNDS, "a jump into itself");
}

/* movq $0, (%rdi); invlpg (%rsi); mov $7, %eax; ret: it is gone after the INVLPG, and comes back by the fault. */
static void vanish(void)
{
    static const u8 bytes[] = {0x48, 0xc7, 0x07, 0, 0, 0, 0, 0x0f, 0x01, 0x3e, 0xb8, 7, 0, 0, 0, 0xc3};
    u32 good = 0, result;

    place(CODE, bytes, sizeof bytes);
    unmapped = 0;
    for (u32 i = 0; i < ROUNDS; i++) {
        asm volatile("call *%3" : "=a"(result) : "D"(code_pte), "S"(CODE), "r"(CODE) : "memory");
        good += result == 7;
    }
    check_eq(good, ROUNDS, "code that was unmapped under itself");
    check_eq(unmapped, ROUNDS, "faults of it");
}

/* Two frames take turns behind one address. */
static void two_frames(void)
{
    u32 good = 0;

    for (u32 k = 0; k < 2; k++) {
        u8 bytes[] = {0xb8, 10 + k, 0, 0, 0, 0xc3};
        memcpy((void *)(CODE_AT + k * 4096), bytes, sizeof bytes);
    }
    for (u32 i = 0; i < ROUNDS; i++) {
        *code_pte = (CODE_AT + (i & 1) * 4096) | P_PRESENT | P_WRITE;
        invlpg((void *)CODE);
        good += ((function *)CODE)(0) == 10 + (i & 1);
    }
    *code_pte = CODE_AT | P_PRESENT | P_WRITE;
    invlpg((void *)CODE);
    check_eq(good, ROUNDS, "frames that take turns");
}

/* mov %edi, 1f+1(%rip); 1: mov $0, %eax; ret: the store changes what runs next. */
static void rewrite_ahead(void)
{
    static const u8 bytes[] = {0x89, 0x3d, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3};
    u32 good = 0;

    place(CODE + 64, bytes, sizeof bytes);
    for (u32 i = 0; i < ROUNDS; i++)
        good += ((function *)(CODE + 64))(i * 3) == i * 3;
    check_eq(good, ROUNDS, "stores ahead");
}

/* Returns to every byte of a row of one-byte instructions, and to addresses that are no code at all. */
static void odd_returns(void)
{
    u32 sum = 0;

    memset((void *)(CODE + 128), 0x90, 64);
    *(u8 *)(CODE + 192) = 0xc3;
    for (u32 i = 0; i < 64; i++) {
        asm volatile("call 1f; jmp 2f; 1: push %1; ret; 2: inc %0" : "+r"(sum) : "r"(CODE + 128 + i) : "memory");
        asm volatile("movq $772f, catch_resume; movq $0, catch_at; mov %%rsp, %%r8; push %0; ret; 772: mov %%r8, %%rsp"
                     : : "r"(i * 0x9e3779b97f4a7c15ull >> 16 | 1ull << 45) : "r8", "memory");
        note();
    }
    check_eq(sum, 64, "returns into a row");
}

#define OTHER_CODE 0x70                 /* a second descriptor of 64-bit code */

/* mov %cs, %eax; ret, called through a register from each of two code segments. */
static void selectors(void)
{
    static const u8 bytes[] = {0x8c, 0xc8, 0xc3};
    u32 cs, ss, null;

    gdt[OTHER_CODE / 8] = gdt[KCODE64 / 8];
    place(CODE + 256, bytes, sizeof bytes);
    for (u32 i = 0; i < ROUNDS; i++) {
        u64 sel = i & 1 ? OTHER_CODE : KCODE64;

        asm volatile("push %3; lea 1f(%%rip), %%rax; push %%rax; lretq; 1: call *%4; mov %%eax, %0; mov %%ss, %1; "
                     "push %5; lea 1f(%%rip), %%rax; push %%rax; lretq; 1: xor %%eax, %%eax; mov %%eax, %%ss; mov $-1, %%rax; mov %%ss, %%rax; "
                     "mov %%eax, %2; mov %6, %%eax; mov %%eax, %%ss"
                     : "=&r"(cs), "=&r"(ss), "=&r"(null) : "r"(sel), "r"(CODE + 256), "r"((u64)KCODE64), "i"(KDATA) : "rax", "memory");
        check_eq(cs, sel, "CS");
        check_eq(ss, KDATA, "SS");
        check_eq(null, 0, "a null SS");
    }
}

#define GS_BASE   0xc0000101u
#define GS_OTHER  0xc0000102u
#define FSGSBASE  (1u << 16)

static void gs_bases(void)
{
    u64 cr4 = read_cr4(), base = rdmsr(GS_BASE), got = 0;

    write_cr4(cr4 & ~(u64)FSGSBASE);
    for (u32 i = 0; i < ROUNDS; i++) {
        wrmsr(GS_OTHER, CODE + i);
        asm volatile("swapgs" : : : "memory");
        check_eq(rdmsr(GS_BASE), CODE + i, "GS base");
        check_eq(rdmsr(GS_OTHER), base, "the other base");
        asm volatile("swapgs" : : : "memory");
        TRY("rdgsbase %0", : "+r"(got));
        check_fault(6, 0, "RDGSBASE without CR4.FSGSBASE");
        TRY("wrgsbase %0", : : "r"(got));
        check_fault(6, 0, "WRGSBASE without CR4.FSGSBASE");
        if (i % 16 || !(cpuid(7, 0).b & 1))
            continue;
        write_cr4(cr4 | FSGSBASE);
        TRY("wrgsbase %1; swapgs; swapgs; rdgsbase %0", : "=&r"(got) : "r"(CODE - i));
        check_no_fault("RDGSBASE");
        check_eq(got, CODE - i, "RDGSBASE");
        write_cr4(cr4 & ~(u64)FSGSBASE);
        wrmsr(GS_BASE, base);
    }
    check_eq(rdmsr(GS_BASE), base, "GS base, at last");
    write_cr4(cr4);
}

int main64(void)
{
    protect_memory();
    idt_init();
    for (int n = 0; n < 32; n++)
        idt_set(n, (void *)(word)trap_stubs64[n], GATE_INT, 1);
    tss.ist[1] = (word)trap_stack + sizeof trap_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    pages_init(0x400000, OWN);
    page_map(identity_pml4, 4, CODE, CODE_AT, 1, P_WRITE);
    code_pte = pte_at(identity_pml4, 4, CODE, 1);
    knock();
    print("knocked\n");
    own_pages();
    own_stack();
    own_code();
    print("own pages\n");
    overlap();
    vanish();
    two_frames();
    rewrite_ahead();
    print("own code\n");
    odd_returns();
    selectors();
    gs_bases();
    print("selectors\n");
    print("%08x\n", seen);
    return 0;
}
