/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The end of every ROM, for start.S to call in 32-bit mode. */
#include "rom.h"

void rom_end32(void) { rom_end(); }
