/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tasks (tasks.S) and the monitor (v8632.c) agree on. */
#ifndef V86_H
#define V86_H

#define TASK_SEG 0x100                  /* a task's code and data: linear 1000 of its own memory */
#define TASK_STACK 0xf000
#define ROUNDS 20
#define COM1_LINE_STATUS 0x3fd
#define COM1_DATA 0x3f8
#define FREE_PORT 0x80                  /* the I/O bitmap lets the tasks have it */
#define INT_SERVICE 0x60                /* through the task's own IVT */
#define INT_EXIT 0x21                   /* taken by the monitor: ax = result */
#define FAR_SEG 0x8000                  /* memory that a task touches late: mapped on demand */
#endif
