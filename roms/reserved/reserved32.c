/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     reserved
 * bits     32, 64
 * proves   a present leaf with a reserved bit (bit 21 of a 4 MiB PDE, bit 13 of a 2 MiB PDE, bit 51 of a PTE, NX without NXE)
 *          faults on every access with RSVD and P in the code, before any right is looked at; an absent one does not care
 * ends     0: every code was right in the 32-bit, PAE and 4-level formats
 * mission  10
 * qemu     no: its TCG (7.2) leaves P out of the code; the witness is Bochs 2.7 and SDM 3A 4.7
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#define RESERVED_BITS 1
#include "../demand/demand32.c"
