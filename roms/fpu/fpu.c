/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     fpu
 * bits     64
 * proves   x87 and SSE give the bits that IEEE 754 and the manual demand; FXSAVE and FXRSTOR carry them; CR0.TS, MP, EM and
 *          CR4.OSFXSR raise #NM and #UD as tabulated; an unmasked x87 error comes as #MF at the next WAIT; two tasks that
 *          share the registers by lazy switching in the #NM handler end as they do alone
 * ends     0: all bits and counts are right; 1: a FAIL line
 * mission  2 63
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "traps.h"
#include "wx.h"

#define CR4_OSFXSR 0x200u
#define MXCSR_DEFAULT 0x1f80u           /* all errors masked, round to nearest */
#define FCW_DEFAULT 0x37fu              /* all errors masked, 64-bit precision, round to nearest */
#define TASKS   2
#define SWITCHES 20000

/* SDM 1, table 10-2. */
struct __attribute__((aligned(16))) fx_area {
    u16 control, status;
    u8 tags, reserved;
    u16 opcode;
    u64 instruction, operand;
    u32 mxcsr, mxcsr_mask;
    struct { u64 mantissa; u16 exponent, unused[3]; } st[8];
    u64 xmm[16][2];
    u8 free[96];
};

/* ---- lazy switching: the registers belong to `owner`, TS is set while that is not the running task ---- */
static struct fx_area areas[TASKS];
static volatile u32 owner, running, lazy, switches_made;

static void fx_save(struct fx_area *a) { asm volatile("fxsave64 %0" : "=m"(*a)); }
static void fx_restore(const struct fx_area *a) { asm volatile("fxrstor64 %0" : : "m"(*a)); }

void trap64(struct frame64 *f)
{
    if (trap_catch(f))
        return;
    if (f->vector != 7 || !lazy)
        trap_unexpected(f);
    asm volatile("clts");
    switches_made++;
    if (owner != running) {
        fx_save(&areas[owner]);
        fx_restore(&areas[running]);
        owner = running;
    }
}

/* ---- known bits ---- */
#define CHECK_X87(instructions, want_exponent, want_mantissa)                              \
    do {                                                                                   \
        struct __attribute__((packed)) { u64 mantissa; u16 exponent; } r;                  \
        asm volatile(instructions "; fstpt %0" : "=m"(r));                                 \
        check_eq(r.exponent, want_exponent, instructions ": sign and exponent");           \
        check_eq(r.mantissa, want_mantissa, instructions ": mantissa");                    \
        h = mix(mix(mix(h, r.exponent), r.mantissa), r.mantissa >> 32);                    \
    } while (0)

static void x87_constants(void)
{
    u32 h = MIX_START;

    asm volatile("fninit");
    CHECK_X87("fldpi", 0x4000, 0xc90fdaa22168c235);
    CHECK_X87("fldl2t", 0x4000, 0xd49a784bcd1b8afe);
    CHECK_X87("fldl2e", 0x3fff, 0xb8aa3b295c17f0bc);
    CHECK_X87("fldlg2", 0x3ffd, 0x9a209a84fbcff799);
    CHECK_X87("fldln2", 0x3ffe, 0xb17217f7d1cf79ac);
    CHECK_X87("fld1; fadd %%st(0), %%st(0); fsqrt", 0x3fff, 0xb504f333f9de6484);
    CHECK_X87("fld1; fld1; fadd %%st(1), %%st(0); fadd %%st(1), %%st(0); fdivrp", 0x3ffd, 0xaaaaaaaaaaaaaaab);
    CHECK_X87("fldz; fchs", 0x8000, 0);
    CHECK_X87("fld1; fldz; fdivrp", 0x7fff, 0x8000000000000000);
    print("x87 %08x\n", h);
}

/* 2.5 and -2.5 to integer under the four rounding modes: nearest even, down, up, towards zero. */
static void rounding(void)
{
    static const int want[4][2] = {{2, -2}, {2, -3}, {3, -2}, {2, -2}};
    static const double numbers[2] = {2.5, -2.5};

    for (u32 mode = 0; mode < 4; mode++)
        for (u32 i = 0; i < 2; i++) {
            u16 control = FCW_DEFAULT | mode << 10;
            u32 mxcsr = MXCSR_DEFAULT | mode << 13;
            int x87, sse;

            asm volatile("fldcw %1; fldl %2; fistpl %0" : "=m"(x87) : "m"(control), "m"(numbers[i]));
            asm volatile("ldmxcsr %1; cvtsd2si %2, %0" : "=r"(sse) : "m"(mxcsr), "m"(numbers[i]));
            check_eq(x87, want[mode][i], "x87 rounding");
            check_eq(sse, want[mode][i], "SSE rounding");
        }
    asm volatile("fninit; ldmxcsr %0" : : "m"((u32){MXCSR_DEFAULT}));
    print("rounding: 4 modes\n");
}

static void sse_bits(void)
{
    static const u64 two[2] __attribute__((aligned(16))) = {0x4000000000000000, 0x4008000000000000};    /* 2, 3 */
    static const u64 nan = 0x7ff8000000000000;
    u64 r[2] __attribute__((aligned(16)));
    u64 flags;

    asm volatile("movapd %1, %%xmm3; sqrtpd %%xmm3, %%xmm4; movapd %%xmm4, %0" : "=m"(r) : "m"(two));
    check_eq(r[0], 0x3ff6a09e667f3bcd, "square root of 2");
    check_eq(r[1], 0x3ffbb67ae8584caa, "square root of 3");
    asm volatile("movapd %1, %%xmm3; divpd %1, %%xmm3; cvtpd2ps %%xmm3, %%xmm5; movapd %%xmm5, %0" : "=m"(r) : "m"(two));
    check_eq(r[0], 0x3f8000003f800000, "two times 1 in single precision");
    check_eq(r[1], 0, "upper half after CVTPD2PS");
    asm volatile("movsd %1, %%xmm3; ucomisd %2, %%xmm3; pushfq; pop %0" : "=r"(flags) : "m"(two), "m"(nan) : "cc");
    check_eq(flags & 0x8d5, 0x45, "flags of an unordered comparison: ZF, PF, CF");
    print("sse %016llx\n", r[0]);
}

/* TOP and the abridged tags after three pushes; registers and control words survive a round trip. */
static void saved_area(void)
{
    static struct fx_area first, second;
    u64 pattern[2] __attribute__((aligned(16))) = {0x0123456789abcdef, 0xfedcba9876543210};

    asm volatile("fninit; fld1; fldpi; fldz; movdqa %0, %%xmm15" : : "m"(pattern));
    fx_save(&first);
    check_eq(first.status >> 11 & 7, 5, "TOP after three pushes");
    check_eq(first.tags, 0xe0, "tags after three pushes");
    check_eq(first.control, FCW_DEFAULT, "FCW after FNINIT");
    check_eq(first.mxcsr & ~0x3fu, MXCSR_DEFAULT, "MXCSR but for its error flags");
    check_eq(first.st[1].mantissa, 0xc90fdaa22168c235, "ST(1) in the area");
    check_eq(first.xmm[15][1], pattern[1], "XMM15 in the area");
    asm volatile("fninit; pxor %xmm15, %xmm15");
    fx_restore(&first);
    fx_save(&second);
    check_eq(second.status, first.status, "FSW restored");
    check_eq(second.tags, first.tags, "tags restored");
    check_eq(second.st[1].mantissa, first.st[1].mantissa, "ST(1) restored");
    check_eq(second.xmm[15][0], pattern[0], "XMM15 restored");
    asm volatile("fninit");
    print("fxsave: top %u tags %02x\n", first.status >> 11 & 7, first.tags);
}

/* SDM 3A tables 2-2 and 2-3: who faults with which vector under EM, MP and TS.  With EM and TS both set the manual
 * gives #UD to SSE, QEMU #NM: either will do. */
#define ANY 0
static void availability(void)
{
    static const struct { u32 em, mp, ts, x87, wait, sse; } rows[] = {
        {0, 0, 0, NO_FAULT, NO_FAULT, NO_FAULT}, {0, 0, 1, 7, NO_FAULT, 7}, {0, 1, 0, NO_FAULT, NO_FAULT, NO_FAULT},
        {0, 1, 1, 7, 7, 7}, {1, 0, 0, 7, NO_FAULT, 6},
        {1, 0, 1, 7, NO_FAULT, ANY}, {1, 1, 0, 7, NO_FAULT, 6}, {1, 1, 1, 7, 7, ANY},
    };
    word cr0 = read_cr0();
    u32 h = MIX_START;

    for (u32 i = 0; i < sizeof rows / sizeof *rows; i++) {
        u32 got[3];

        write_cr0((cr0 & ~(word)(CR0_EM | CR0_MP | CR0_TS)) | rows[i].em * CR0_EM | rows[i].mp * CR0_MP | rows[i].ts * CR0_TS);
        TRY("fnop");
        got[0] = caught.vector;
        TRY("fwait");
        got[1] = caught.vector;
        TRY("addps %%xmm0, %%xmm0", : : : "cc");
        got[2] = caught.vector;
        check_eq(got[0], rows[i].x87, "x87 under EM, MP, TS");
        check_eq(got[1], rows[i].wait, "WAIT under EM, MP, TS");
        if (rows[i].sse != ANY)
            check_eq(got[2], rows[i].sse, "SSE under EM, MP, TS");
        else
            got[2] = check(got[2] == 6 || got[2] == 7, "SSE under EM and TS");
        h = mix(h, got[0] | got[1] << 8 | got[2] << 16);
    }
    write_cr0(cr0);
    write_cr4(read_cr4() & ~(word)CR4_OSFXSR);
    TRY("addps %%xmm0, %%xmm0", : : : "cc");
    check_fault(6, 0, "SSE without OSFXSR");
    write_cr4(read_cr4() | CR4_OSFXSR);
    print("availability %08x\n", h);
}

/* 1 / 0 with the error unmasked: nothing at the division, #MF at the next waiting instruction. */
static void pending_error(void)
{
    word cr0 = read_cr0();
    u16 control = FCW_DEFAULT & ~4, status;

    write_cr0(cr0 | CR0_NE);
    asm volatile("fninit; fldcw %0" : : "m"(control));
    TRY("fld1; fldz; fdivrp");
    check_no_fault("division by zero itself");
    asm volatile("fnstsw %0" : "=m"(status));
    check_eq(status & 0x80ff, 0x8084, "FSW: B, ES and ZE");
    TRY("fwait");
    check_fault(16, 0, "WAIT after an unmasked error");
    asm volatile("fnclex");
    TRY("fwait");
    check_no_fault("WAIT after FNCLEX");
    asm volatile("fninit");
    write_cr0(cr0);
    print("division by zero: vector 16 at WAIT\n");
}

/* ---- two tasks whose only state is in the registers: x -> r x (1 - x), which amplifies every wrong bit ---- */
static void task_start(u32 task)
{
    static const double x[TASKS] = {0.3, 0.7}, r[TASKS] = {3.9375, 3.875};
    static const double one = 1;
    static const float one_single = 1;

    asm volatile("fninit; fldl %1; fldl %0\n"                   /* ST(0) = x, ST(1) = r */
                 "ldmxcsr %4\n"
                 "movsd %0, %%xmm0; unpcklpd %%xmm0, %%xmm0\n"  /* doubles: XMM0 = x, XMM1 = r, XMM2 = 1 */
                 "movsd %1, %%xmm1; unpcklpd %%xmm1, %%xmm1\n"
                 "movsd %2, %%xmm2; unpcklpd %%xmm2, %%xmm2\n"
                 "cvtpd2ps %%xmm0, %%xmm8; cvtpd2ps %%xmm1, %%xmm9\n"   /* singles: XMM8 = x, XMM9 = r, XMM10 = 1 */
                 "movss %3, %%xmm10; shufps $0, %%xmm10, %%xmm10\n"
                 : : "m"(x[task]), "m"(r[task]), "m"(one), "m"(one_single), "m"((u32){MXCSR_DEFAULT}));
}

static void task_step(u32 kind)
{
    if (kind == 0)
        asm volatile("fld1; fsub %st(1), %st(0); fmulp %st(0), %st(1); fmul %st(1), %st(0)");
    else if (kind == 1)
        asm volatile("movapd %xmm2, %xmm3; subpd %xmm0, %xmm3; mulpd %xmm3, %xmm0; mulpd %xmm1, %xmm0");
    else
        asm volatile("movaps %xmm10, %xmm11; subps %xmm8, %xmm11; mulps %xmm11, %xmm8; mulps %xmm9, %xmm8");
}

static u32 area_hash(const struct fx_area *a)
{
    u32 h = mix(mix(MIX_START, a->control), a->mxcsr & ~0x3fu);         /* without error flags */

    for (u32 i = 0; i < 2; i++)
        h = mix(mix(mix(h, a->st[i].mantissa), a->st[i].mantissa >> 32), a->st[i].exponent);
    for (u32 i = 0; i < 12; i++)
        for (u32 half = 0; half < 2; half++)
            h = mix(mix(h, a->xmm[i][half]), a->xmm[i][half] >> 32);
    return h;
}

static u32 seed;
static u32 random_below(u32 n)
{
    seed = seed * 1664525 + 1013904223;
    return (u64)seed * n >> 32;
}

/* The same random schedule each time; `only` < TASKS leaves out the other tasks' steps and all switching. */
static u32 schedule(u32 only)
{
    u32 expected = 0;

    seed = 99;
    for (u32 n = 0; n < SWITCHES; n++) {
        u32 task = random_below(TASKS), kind = random_below(4), steps = random_below(3);

        if (only < TASKS && task != only)
            continue;
        if (only >= TASKS) {
            running = task;
            write_cr0(read_cr0() | CR0_TS);
            expected += kind < 3 && steps > 0;  /* kind 3 leaves the registers alone: no #NM */
        }
        while (kind < 3 && steps-- > 0)
            task_step(kind);
    }
    return expected;
}

static void lazy_switching(void)
{
    u32 alone[TASKS], expected;
    static struct fx_area area;

    asm volatile("pxor %xmm3, %xmm3; pxor %xmm4, %xmm4; pxor %xmm5, %xmm5; pxor %xmm11, %xmm11");
    for (u32 task = 0; task < TASKS; task++) {
        task_start(task);
        fx_save(&areas[task]);
    }
    for (u32 task = 0; task < TASKS; task++) {
        fx_restore(&areas[task]);
        schedule(task);
        fx_save(&area);
        alone[task] = area_hash(&area);
    }
    fx_restore(&areas[0]);
    owner = 0;
    lazy = 1;
    expected = schedule(TASKS);
    lazy = 0;
    asm volatile("clts" : : : "memory");
    fx_save(&areas[owner]);
    for (u32 task = 0; task < TASKS; task++) {
        print("task %u %08x\n", task, area_hash(&areas[task]));
        check_eq(area_hash(&areas[task]), alone[task], "task together and alone");
    }
    print("#NM %u of %u switches\n", switches_made, SWITCHES);
    check_eq(switches_made, expected, "#NM only for tasks that use the registers");
}

int main64(void)
{
    protect_memory();
    idt_init();
    x87_constants();
    rounding();
    sse_bits();
    saved_area();
    availability();
    pending_error();
    lazy_switching();
    return 0;
}
