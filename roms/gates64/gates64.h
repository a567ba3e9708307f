/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Selectors and numbers that the probes (probes.S), the entries (entry.S) and the driver (gates64.c) share. */
#ifndef GATES64_H
#define GATES64_H
#include "selectors.h"

#define UCS (UCODE64 | 3)
#define USS (UDATA | 3)
#define UCS32 (UCODE32 | 3)
#define NP_DATA3 0x68
#define NP_CODE3 0x70
#define NP_CODE0 0x78
#define RO3 0x80
#define EXEC3 0x88
#define CONF0 0x90                      /* conforming 64-bit code, DPL 0 */
#define LDT_SEL 0xa0                    /* 16 bytes */
#define TSS_BUSY 0xb0                   /* 16 bytes */
#define GATE_R0 0xc0                    /* call gates of 16 bytes: DPL 3, to ring 0 */
#define GATE_DPL0 0xd0
#define GATE_NP 0xe0
#define GATE_TO_32 0xf0                 /* to 32-bit code: no use in long mode */
#define GATE_TO_DATA 0x100
#define GATE_TO_NULL 0x110
#define GATE_SAME 0x120                 /* to ring 3 */
#define GATE_TAIL 0x130                 /* its second half has a type: not a gate */
#define GATE_TO_NP 0x140
#define BEYOND 0x200                    /* the first selector beyond the GDT's limit */

#define IST_TEST 1
#define IST_DF 2
#define IST_ABSENT 3                    /* a stack on an absent page */
#define ABSENT_PAGE 0x1800000           /* 2 MiB each */
#define KERNEL_PAGE 0x1a00000
#define RO_PAGE 0x1c00000
#define NX_PAGE 0x1e00000
#define NONCANONICAL 0x8000000000000000
#define GS_USER 0x11220000
#define GS_KERNEL 0x33440000
#endif
