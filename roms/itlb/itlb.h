/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the assembler puts into code page i and the C model expects of it. */
#ifndef ITLB_H
#define ITLB_H

#define PAGES        600
#define SPLIT(i)     ((i) % 10)                  /* bytes of the ten-byte MOVABS that lie in page i; the rest in page i + 1 */
#define MOVABS(i)    ((i) * 4096 + 4096 - SPLIT(i))  /* its place, from code_pages */
#define ENTRY(i)     (MOVABS(i) - 4)             /* a four-byte ROL comes first */
#define LEAF(i)      ((i) * 4096 + 512 + 64 * ((i) % 40))
#define PARTNER(i)   (((i) * 277 + 131) % PAGES) /* whose leaf the function of page i calls; 277 and 600 are coprime */
#define KEY(i)       (((i) + 1) * 0x00019e3779b97f4b)
#define ADDEND(i)    ((i) * 0x12345)
#define SPARE        3584                        /* offset in a page where no code lies */
#endif
