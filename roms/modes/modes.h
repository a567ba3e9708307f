/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What modes.S leaves in low memory, and the constants it shares with the C side. */
#ifndef MODES_H
#define MODES_H

#define MODE_CODE16 0x68                /* 16-bit code, base REAL_BASE */
#define REAL_BASE 0x8000                /* where the 16-bit code is copied, segment 0800 */
#define RECORD_AT 0x600
#define LFSR_STEPS 1000
#define TAPS16 0xb400                   /* x^16 + x^14 + x^13 + x^11 + 1 */
#define TAPS32 0xa3000000
#define TAPS64 0xd800000000000000

/* An independent program computed these (1000 steps of a right-shifting Galois register from 0xace1). */
#define LFSR16 0x7c8c
#define LFSR32 0x46514ec3
#define LFSR64 0xe5c3f9221ce100

#ifndef __ASSEMBLER__
#include "rom.h"

struct record { u32 cr0, cs, lfsr, wrapped, si, sp, high, ints, int_if, de_at, base, esp_high, push2, push4; };
#define RECORD ((struct record *)RECORD_AT)

#define LFSR(width, taps)                                                                         \
    INLINE u##width lfsr##width(void)                                                             \
    {                                                                                             \
        u##width v = 0xace1;                                                                      \
        for (int i = 0; i < LFSR_STEPS; i++)                                                      \
            v = v >> 1 ^ (v & 1 ? taps : 0);                                                      \
        return v;                                                                                 \
    }
LFSR(32, TAPS32)
LFSR(64, TAPS64)
#endif
#endif
