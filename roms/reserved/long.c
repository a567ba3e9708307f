/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit half of reserved. */
#define RESERVED_BITS 1
#include "../demand/long.c"
