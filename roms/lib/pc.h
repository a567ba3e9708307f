/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pc.h -- the PC's old devices: 8259 pair, 8254 timer, port 61h, MC146818 clock (data sheets of these parts). */
#ifndef PC_H
#define PC_H

#include "rom.h"

#define PIC1 0x20                       /* command port; data port is the next one */
#define PIC2 0xa0
#define PIC_EOI 0x20                    /* OCW2: end the interrupt of highest priority in service */
#define PIC_EOI_OF(irq) (0x60 | (irq))  /* OCW2: end this one */
#define IRQ_BASE 0x20                   /* vectors 20h-2Fh after pic_init() */
#define IRQ_PIT 0
#define IRQ_CASCADE 2
#define IRQ_RTC 8

#define PIT_HZ 1193182
#define PIT_DATA(channel) (0x40 + (channel))
#define PIT_COMMAND 0x43
#define PORT_61 0x61                    /* bit 0 gate of channel 2, bit 1 speaker, bit 5 output of channel 2 */

#define RTC_A 0x0a                      /* bits 3:0 rate, bit 7 update in progress */
#define RTC_B 0x0b                      /* bit 6 periodic interrupt, bit 2 binary, bit 1 24 hours */
#define RTC_C 0x0c                      /* interrupt flags; reading clears them and releases the line */

/* Vectors 20h and up, edge triggered, normal EOI; a 1 in a mask closes the line. */
INLINE void pic_init(u8 mask1, u8 mask2)
{
    outb(PIC1, 0x11);
    outb(PIC2, 0x11);
    outb(PIC1 + 1, IRQ_BASE);
    outb(PIC2 + 1, IRQ_BASE + 8);
    outb(PIC1 + 1, 1 << IRQ_CASCADE);
    outb(PIC2 + 1, IRQ_CASCADE);
    outb(PIC1 + 1, 1);
    outb(PIC2 + 1, 1);
    outb(PIC1 + 1, mask1);
    outb(PIC2 + 1, mask2);
}

INLINE u8 pic_requested(u16 pic) { outb(pic, 0x0a); return inb(pic); }          /* IRR */
INLINE u8 pic_in_service(u16 pic) { outb(pic, 0x0b); u8 isr = inb(pic); outb(pic, 0x0a); return isr; }

INLINE void pic_end(u32 irq)
{
    if (irq >= 8)
        outb(PIC2, PIC_EOI);
    outb(PIC1, PIC_EOI);
}

/* Binary count, low byte first; a count of 0 means 65,536. */
INLINE void pit_program(u32 channel, u32 mode, u16 count)
{
    outb(PIT_COMMAND, channel << 6 | 0x30 | mode << 1);
    outb(PIT_DATA(channel), count & 255);
    outb(PIT_DATA(channel), count >> 8);
}

INLINE u16 pit_read(u32 channel)
{
    outb(PIT_COMMAND, channel << 6);    /* latch */
    u8 low = inb(PIT_DATA(channel));
    return low | inb(PIT_DATA(channel)) << 8;
}

/* Wait until channel 2, started with `count` in mode 0, puts its output high.  0 when it never does. */
INLINE int pit_wait(u16 count)
{
    outb(PORT_61, (inb(PORT_61) & ~2) | 1);
    pit_program(2, 0, count);
    for (u32 tries = 0; tries < 100000000; tries++)
        if (inb(PORT_61) & 0x20)
            return 1;
    return 0;
}

INLINE u8 cmos_read(u8 at) { outb(0x70, at | 0x80); return inb(0x71); }         /* bit 7: NMI stays off */
INLINE void cmos_write(u8 at, u8 v) { outb(0x70, at | 0x80); outb(0x71, v); }
#endif
