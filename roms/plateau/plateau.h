/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plateau.h -- the size of the load. */
#define ROUNDS 10000
#define INNER  400
#define END    0x40                     /* the program's last interrupt */
