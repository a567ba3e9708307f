/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Selectors of the GDT in start.S, for assembly and C.  The order is the one that SYSENTER (CS n, SS n+8,
   user CS n+16 and SS n+24, 64-bit user n+32 and n+40) and SYSCALL/SYSRET (CS n, SS n+8; user CS32 m,
   SS m+8, CS64 m+16) demand: SDM volume 2, the instructions' pages. */
#ifndef SELECTORS_H
#define SELECTORS_H

#define KCODE64  0x08           /* SYSCALL's CS; SS follows */
#define KDATA    0x10
#define KCODE32  0x18           /* SYSENTER's CS; SS follows */
#define KDATA_SE 0x20
#define UCODE32  0x28           /* SYSRET's base; without RPL */
#define UDATA    0x30
#define UCODE64  0x38
#define UDATA_SE 0x40
#define KCODE16  0x48           /* base 0, limit 64 KiB */
#define KDATA16  0x50
#define TSS_SEL  0x58           /* 16 bytes in long mode */
#define GDT_FREE 0x68           /* from here to GDT_LAST the ROM's own */
#define GDT_LAST 0x1f8
#endif
