/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Selectors and numbers that the probes (probes.S) and the driver (rings32.c) share. */
#ifndef RINGS_H
#define RINGS_H
#include "selectors.h"

#define CODE1 0x68
#define DATA1 0x70
#define CODE2 0x78
#define DATA2 0x80
#define CONF0 0x88                      /* conforming code, DPL 0 */
#define CONF2 0x90                      /* conforming code, DPL 2 */
#define RO3 0x98                        /* read-only data, DPL 3 */
#define EXEC3 0xa0                      /* execute-only code, DPL 3 */
#define NP_DATA3 0xa8
#define NP_CODE3 0xb0
#define NP_CODE0 0xb8
#define LDT_SEL 0xc0                    /* entry 0: data DPL 3, entry 1: code DPL 3, entry 2: data DPL 0 */
#define NP_LDT 0xc8
#define TSS_FREE 0xd0
#define SHORT_CODE3 0xd8                /* limit fff */
#define SHORT_DATA3 0xe0                /* limit 123 */
#define GATE_R0 0xe8                    /* call gates: DPL 3, two parameters, to ring 0, 1, 2 */
#define GATE_R1 0xf0
#define GATE_R2 0xf8
#define GATE_DPL0 0x100                 /* DPL 0 */
#define GATE_DPL2 0x108                 /* DPL 2 */
#define GATE_NP 0x110
#define GATE_TO_NP 0x118                /* to code that is not present */
#define GATE_TO_DATA 0x120
#define GATE_TO_NULL 0x128
#define GATE_TO_RING3 0x130
#define GATE_BEYOND 0x140               /* to a selector beyond the GDT */
#define GATE_NULLING 0x148              /* to ring 0 code that loads ds with ring 0 data and returns */
#define TSS_BUSY 0x150
#define NP_TSS 0x158
#define BEYOND 0x200                    /* the first selector beyond the GDT's limit */

#define CS1 0x69
#define CS2 0x7a
#define CS3 0x2b
#define CONF3 0x8b                      /* CONF0 in ring 3 */
#define SS1 0x71
#define SS2 0x82
#define SS3 0x33

#define TSS_RING1_OUT 11                /* limit of a TSS that ends before ESP1 */
#define KERNEL_PAGE 0x1000000           /* 4 MiB pages of the #PF probes */
#define RO_PAGE 0x1400000
#define ABSENT_PAGE 0x1800000
#endif
