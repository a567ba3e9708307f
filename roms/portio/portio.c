/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     portio
 * bits     64
 * proves   a storm of port accesses reads back what the devices must hold: PIC masks, PIT read-back status, CMOS
 *          bytes, the UART's scratch, line, divisor and loopback registers, an empty port, the diagnostic port, and
 *          string instructions to the debug console and from a register.  Phase n lies between the report
 *          words 0xB000000n and 0xE000000n.
 * ends     0: all values read back; 1: a FAIL line
 * mission  75 79
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     io
 */
#include "pc.h"
#include "wx.h"

#define UART_SCRATCH (PORT_COM1 + 7)
#define UART_LCR     (PORT_COM1 + 3)
#define UART_MCR     (PORT_COM1 + 4)
#define UART_LSR     (PORT_COM1 + 5)
#define DEBUG_PORT   0xe9
#define EMPTY_PORT   0x1e0              /* nothing answers here in a PC: the bus floats high */
#define CMOS_FREE    0x50               /* a byte of CMOS memory without meaning to firmware */

static u32 sum, accesses, wrong;

static void compare(u8 got, u8 want)
{
    wrong += got != want;
    sum = mix(sum, got);
}

static void diagnostic_port(void)
{
    for (u32 i = 0; i < 40000; i++)
        outb(0x80, i);
    accesses += 40000;
}

static void pic_masks(void)
{
    for (u32 i = 0; i < 5000; i++) {
        outb(PIC1 + 1, i * 7);
        outb(PIC2 + 1, i * 13);
        compare(inb(PIC1 + 1), i * 7);
        compare(inb(PIC2 + 1), i * 13);
    }
    outb(PIC1 + 1, 0xff);
    outb(PIC2 + 1, 0xff);
    accesses += 20002;
}

/* Read-back command: latch the status of one channel; bits 5:0 repeat the control word (8254 data sheet). */
static void pit_status(void)
{
    for (u32 i = 0; i < 4000; i++) {
        u32 mode = i % 6, bcd = i / 6 % 2;

        outb(PIT_COMMAND, 2 << 6 | 3 << 4 | mode << 1 | bcd);
        outb(PIT_DATA(2), i);
        outb(PIT_DATA(2), i >> 8);
        outb(PIT_COMMAND, 0xe8);
        compare(inb(PIT_DATA(2)) & 0x3f, 3 << 4 | mode << 1 | bcd);
    }
    accesses += 20000;
}

static void cmos_bytes(void)
{
    u8 before[8];

    for (u32 at = 0; at < 8; at++)
        before[at] = cmos_read(CMOS_FREE + at);
    for (u32 i = 0; i < 4000; i++) {
        cmos_write(CMOS_FREE + i % 8, i * 5);
        compare(cmos_read(CMOS_FREE + i % 8), i * 5);
    }
    for (u32 at = 0; at < 8; at++)
        cmos_write(CMOS_FREE + at, before[at]);
    accesses += 16048;
}

static void uart_registers(void)
{
    u8 lcr = inb(UART_LCR), low, high;

    for (u32 i = 0; i < 10000; i++) {
        outb(UART_SCRATCH, i * 3);
        compare(inb(UART_SCRATCH), i * 3);
    }
    while (!(inb(UART_LSR) & 0x40))     /* all sent, before the divisor changes */
        ;
    for (u32 i = 0; i < 256; i++) {
        outb(UART_LCR, i & 0x3f);
        compare(inb(UART_LCR), i & 0x3f);
    }
    outb(UART_LCR, 0x80 | lcr);         /* DLAB: the divisor latch lies over data and interrupt enable */
    low = inb(PORT_COM1);
    high = inb(PORT_COM1 + 1);
    for (u32 i = 1; i < 256; i++) {
        outb(PORT_COM1, i);
        outb(PORT_COM1 + 1, 255 - i);
        compare(inb(PORT_COM1), i);
        compare(inb(PORT_COM1 + 1), 255 - i);
    }
    outb(PORT_COM1, low);
    outb(PORT_COM1 + 1, high);
    outb(UART_LCR, lcr);
    accesses += 20000 + 512 + 1020 + 7;
}

/* In loopback a byte sent is a byte received, and modem status shows the modem controls. */
static void uart_loopback(void)
{
    u8 mcr = inb(UART_MCR);

    for (u32 i = 0; i < 16; i++) {
        outb(UART_MCR, 0x10 | i);
        compare(inb(PORT_COM1 + 6) >> 4, (i & 1) << 1 | (i & 2) >> 1 | (i & 4) | (i & 8));
    }
    for (u32 i = 0; i < 256; i++) {
        outb(PORT_COM1, i);
        for (u32 tries = 0; tries < 10000000 && !(inb(UART_LSR) & 1); tries++)
            ;
        compare(inb(PORT_COM1), i);
    }
    outb(UART_MCR, mcr);
}

static void empty_port(void)
{
    for (u32 i = 0; i < 5000; i++) {
        compare(inb(EMPTY_PORT), 0xff);
        wrong += inw(EMPTY_PORT) != 0xffff;
        wrong += inl(EMPTY_PORT) != 0xffffffff;
    }
    accesses += 15000;
}

static void strings(void)
{
    static u8 text[4096], back[4096];
    static u32 words[16];
    const void *from;
    void *to;
    u64 n;

    for (u32 i = 0; i < sizeof text; i++)
        text[i] = i % 64 == 63 ? '\n' : 'a' + i % 26;
    for (u32 i = 0; i < 8; i++) {
        from = text, n = sizeof text;
        asm volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(DEBUG_PORT) : "memory");
        wrong += n != 0 || from != text + sizeof text;
    }
    outb(UART_SCRATCH, 0x5a);
    to = back, n = sizeof back;
    asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(UART_SCRATCH) : "memory");
    for (u32 i = 0; i < sizeof back; i++)
        compare(back[i], 0x5a);
    to = back + sizeof back - 1, n = 100;        /* downwards */
    outb(UART_SCRATCH, 0xa5);
    asm volatile("std; rep insb; cld" : "+D"(to), "+c"(n) : "d"(UART_SCRATCH) : "memory");
    for (u32 i = 0; i < sizeof back; i++)
        compare(back[i], i < sizeof back - 100 ? 0x5a : 0xa5);
    for (u32 i = 0; i < 16; i++)
        words[i] = i * 0x11111111u;
    from = words, n = 16;
    asm volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(PORT_REPORT) : "memory");
    wrong += n != 0;
    n = 0;                                      /* a count of 0 does nothing */
    asm volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(PORT_REPORT) : "memory");
    accesses += 8 * 4096 + 4096 + 100 + 16 + 2;
}

static const struct { const char *name; void (*run)(void); } phases[] = {
    {"diagnostic port", diagnostic_port}, {"PIC masks", pic_masks}, {"PIT status", pit_status}, {"CMOS bytes", cmos_bytes},
    {"UART registers", uart_registers}, {"UART loopback", uart_loopback}, {"empty port", empty_port}, {"strings", strings},
};

int main64(void)
{
    protect_memory();
    for (u32 i = 0; i < sizeof phases / sizeof *phases; i++) {
        sum = MIX_START;
        wrong = 0;
        report(0xb0000000 | i);
        phases[i].run();
        report(0xe0000000 | i);
        print("%s %08x\n", phases[i].name, sum);
        check_eq(wrong, 0, phases[i].name);
    }
    print("accesses %u, not counting polls\n", accesses + 16 * 2 + 256 * 2);
    return 0;
}
