/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     rdrand
 * bits     32, 64
 * proves   RDRAND and RDSEED agree with CPUID: where it offers them they give numbers (CF 1, all operand sizes), where it does
 *          not they raise #UD; a deterministic machine gives the same numbers in every run
 * ends     0: instructions and CPUID agree
 * mission  30
 * qemu     no: QEMU takes the host's entropy; the witness is that two runs are byte-identical
 * time     no
 * styles   all
 * memory   64M
 * kind     compute
 */
#include "traps.h"

CATCH_ONLY

#define DRAWS 8

static u64 last[DRAWS];
static u32 carries;

/* One draw of 64 bits into *to; its carry flag is counted.  May raise #UD. */
#define DRAW(instruction, to)                                                                     \
    do {                                                                                          \
        u64 value_ = 0;                                                                           \
        u8 carry_ = 0;                                                                            \
        TRY(instruction " %0; setc %1", : "+r"(value_), "+q"(carry_) : : "cc");                   \
        *(to) = value_;                                                                           \
        carries += carry_;                                                                        \
    } while (0)

static void numbers(const char *name, int seed)
{
    u32 same = 0;
    carries = 0;
    for (int i = 0; i < DRAWS; i++) {
        if (seed)
            DRAW("rdseed", &last[i]);
        else
            DRAW("rdrand", &last[i]);
        check_no_fault(name);
        for (int j = 0; j < i; j++)
            same += last[i] == last[j];
    }
    print("%s: %016llx %016llx ..., carry %u of %u, repeated %u\n", name, last[0], last[1], carries, DRAWS, same);
    check_eq(carries, DRAWS, "carry flag of each draw");
    check_eq(same, 0, "equal draws");
}

static void absent(const char *name, int seed)
{
    if (seed)
        TRY("rdseed %%rax", : : : "rax", "cc");
    else
        TRY("rdrand %%rax", : : : "rax", "cc");
    check_fault(6, 0, name);
    print("%s: not offered, #UD\n", name);
}

int main64(void)
{
    idt_init();
    u32 max = cpuid(0, 0).a;
    int has_rdrand = cpuid(1, 0).c >> 30 & 1, has_rdseed = max >= 7 && cpuid(7, 0).b >> 18 & 1;
    (has_rdrand ? numbers : absent)("rdrand", 0);
    (has_rdseed ? numbers : absent)("rdseed", 1);
    if (has_rdrand) {
        u64 narrow = -1ull;
        asm volatile("rdrand %k0" : "+r"(narrow) : : "cc");
        check_eq(narrow >> 32, 0, "a 32-bit draw clears the upper half");
        narrow = -1ull;
        asm volatile("rdrand %w0" : "+r"(narrow) : : "cc");
        check_eq(narrow >> 16, 0xffffffffffff, "a 16-bit draw keeps the rest");
    }
    return 0;
}
