/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What kernel and program of forkwait share. */
#ifndef FORKWAIT_H
#define FORKWAIT_H
#define CHILDREN 400
#define AREA 0x8000000000               /* the process: text, data, stack; an entry of its own in the root table */
#define SYS_FORK 1
#define SYS_WAIT 2
#define SYS_EXIT 3                      /* edi: the sum of the child's data */
#define SYS_DONE 4                      /* edi: the sum of the parent's */
#define DATA_PAGES 96
#define WRITTEN_PAGES 12                /* every second page from the first */
#endif
