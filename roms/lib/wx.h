/* SPDX-License-Identifier: GPL-2.0-or-later */
/* wx.h -- split the identity map of start.S into code that is not writable and data that is not executable.
 *
 * An engine that translates code is several times slower at stores to pages that are mapped executable, and
 * kernels have long mapped their data NX.  long_call() sets EFER.NXE; the image's text ends below 4 MiB. */
#ifndef WX_H
#define WX_H

#include "paging.h"

/* First 4 MiB in 4 KiB pages: text read-only and executable; everything else writable and NX. */
INLINE void protect_memory(void)
{
    static u64 __attribute__((aligned(4096))) low_tables[2 * 512];
    u64 text = (word)image_start, end = (word)text_end;
    u32 own = (word)identity_pd >> 21;

    for (u64 page = 0; page < 2 * 512; page++) {
        u64 at = page << 12;
        low_tables[page] = at | P_PRESENT | (at >= text && at < end ? 0 : P_WRITE | P_NX);
    }
    for (u32 i = 2; i < 2048; i++)
        identity_pd[i] |= P_NX;
    /* The entries that map us last: a page first touched between here and CR3 may be found through the old or the
     * new entry (SDM 3A 4.10.2.3), which would leave accessed bits that depend on the TLB.  The one for these tables
     * themselves is the very last: a monitor with shadow tables walks for each store to them. */
    identity_pd[!own] = (word)(low_tables + 512 * !own) | P_PRESENT | P_WRITE;
    __asm__ volatile ("" ::: "memory");
    identity_pd[own] = (word)(low_tables + 512 * own) | P_PRESENT | P_WRITE;
    write_cr3(read_cr3());
    write_cr0(read_cr0() | CR0_WP);
}
#endif
