/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     avoider
 * bits     64
 * proves   a kernel that avoids the sensitive instructions which do not trap can be run by trap and emulate: descriptor tables, a user
 *          at ring 3 with int 80h, demand paging, page-table updates, timer interrupts, HLT; flags are never saved, as it knows them.
 *          `sensitive` is its twin
 * ends     0: the work is done and its sum is printed
 * mission  4, 41, 42, 43
 * qemu     yes
 * time     yes: waits for the timer; nothing printed depends on it
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "work.h"

static word lock(void) { return 0; }    /* interrupts are off wherever this kernel works */
static void unlock(word was) { (void)was; }
static void look(void) {}

int main64(void)
{
    return work();
}
