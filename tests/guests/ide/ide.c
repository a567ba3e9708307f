/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     ide
 * bits     64
 * proves   a PIIX3's IDE with a disk and a CD-ROM: reset and signatures, IDENTIFY, reads by three kinds of address, by blocks and
 *          by the bus master, writes, errors, packet commands, interrupt lines; it prints what the standard says, and no model's own
 * ends     0: the sectors that were written read back; 1: a FAIL line
 * mission  36
 * qemu     yes
 * time     no
 * kind     io
 */
#include "pc.h"
#include "wx.h"

#define PRIMARY 0x1f0
#define SECONDARY 0x170
#define ERR 1
#define DRQ 8
#define BSY 0x80
#define BUFFER ((u8 *)0x400000)
#define TABLE ((u32 *)0x3f0000)         /* of the bus master: address, bytes; in one 64 KiB */

static u16 base, master;
static int line;                        /* the drive's interrupt line when the command was first looked at; -1: not yet */

/* The status when nothing is under way any more; the line stays up, since it is the alternate one that is read. */
static u8 idle(void)
{
    u8 status;

    for (u32 i = 0; i < 4; i++)
        inb(base + 0x206);              /* 400 ns */
    do
        status = inb(base + 0x206);
    while (status & BSY);
    return status;
}

/* The interrupt controller as its request register shows it; whether a line that fell again stays latched differs. */
static void look(void)
{
    if (line < 0)
        line = pic_requested(PIC2) >> (base == PRIMARY ? 6 : 7) & 1;
}

static void start(u8 op)
{
    inb(base + 7);
    pic_init(0xff, 0xff);
    line = -1;
    outb(base + 7, op);
}

static void command(u8 op, u8 device, u32 lba, u8 count)
{
    outb(base + 6, device | (device & 0x40 ? lba >> 24 & 15 : 0));
    idle();
    outb(base + 2, count);
    outb(base + 3, lba);
    outb(base + 4, lba >> 8);
    outb(base + 5, lba >> 16);
    start(op);
}

/* Move DRQ blocks of so many words until the drive asks for no more; the words. */
static u32 transfer(u8 *at, u32 block, int out)
{
    u32 words = 0;

    while ((idle() & (DRQ | ERR)) == DRQ) {
        look();
        inb(base + 7);
        for (u32 i = 0; i < block; i++, words++, at += 2)
            if (out)
                outw(base, *(u16 *)at);
            else
                *(u16 *)at = inw(base);
    }
    if (out)
        line = -1;                      /* the first block is asked for without an interrupt, the end comes with one */
    return words;
}

static u32 sum(const u8 *at, u32 bytes)
{
    u32 h = MIX_START;

    for (u32 i = 0; i < bytes; i += 4)
        h = mix(h, *(u32 *)(at + i));
    return h;
}

static void show(const char *what, u32 words)
{
    u8 status = idle();

    look();
    print("%s: %u words %08x, status %02x, line %u\n", what, words, sum(BUFFER, words * 2), status & (ERR | DRQ | 0x20), line);
}

static void signature(const char *who, u8 device)
{
    outb(base + 6, device);
    idle();
    print("%s: error %02x, signature %02x %02x %02x %02x\n", who, inb(base + 1), inb(base + 2), inb(base + 3), inb(base + 4), inb(base + 5));
}

static void reset(void)
{
    outb(base + 6, 0xa0);
    outb(base + 0x206, 4);
    for (u32 i = 0; i < 20; i++)
        inb(base + 0x206);
    outb(base + 0x206, 0);
    for (u32 tries = 0; tries < 1000000 && (idle() & BSY || inb(base + 1) != 1); tries++)
        ;
}

static void identify(void)
{
    u16 *id = (u16 *)BUFFER;

    command(0xec, 0xa0, 0, 0);
    u32 words = transfer(BUFFER, 256, 0);
    print("identify: %u words, ATA %u, LBA %u, DMA %u, 48 bits %u, sectors %u and %u\n", words, !(id[0] >> 15), id[49] >> 9 & 1, id[49] >> 8 & 1, id[83] >> 10 & 1,
          id[60] | (u32)id[61] << 16, id[100] | (u32)id[101] << 16);
    inb(base + 7);
}

static void reads(void)
{
    command(0x20, 0xe0, 5, 3);
    show("sectors 5 to 7", transfer(BUFFER, 256, 0));
    outb(base + 6, 0xe0);
    outb(base + 2, 0);                  /* high halves first */
    outb(base + 3, 0);
    outb(base + 4, 0);
    outb(base + 5, 0);
    command(0x24, 0xe0, 5, 3);
    show("by 48 bits", transfer(BUFFER, 256, 0));
    command(0x91, 0xa0 | 15, 0, 63);    /* 16 heads, 63 sectors a track */
    show("geometry", 0);
    command(0x20, 0xa0 | 1, 2 | 1 << 8, 2);                     /* cylinder 1, head 1, sector 2: (1 * 16 + 1) * 63 + 1 */
    show("by cylinder", transfer(BUFFER, 256, 0));
    command(0x20, 0xe0, 17 * 63 + 1, 2);
    show("the same by number", transfer(BUFFER, 256, 0));
    command(0xc6, 0xe0, 0, 4);
    show("blocks of 4", 0);
    command(0xc4, 0xe0, 100, 8);
    show("by blocks", transfer(BUFFER, 4 * 256, 0));
    command(0x20, 0xe0, 100, 0);
    show("count 0", transfer(BUFFER, 256, 0));
    command(0x40, 0xe0, 100, 8);
    show("verify", 0);
}

static void errors(void)
{
    command(0x20, 0xe0, 0xfffff0, 1);
    show("beyond the end", transfer(BUFFER, 256, 0));
    command(0xfe, 0xe0, 0, 0);
    show("no such command", 0);
    print("abort %u\n", inb(base + 1) >> 2 & 1);
    command(0xa1, 0xe0, 0, 0);
    show("a disk is no packet device", 0);
    outb(base + 0x206, 2);              /* nIEN */
    command(0x20, 0xe0, 0, 1);
    show("without interrupt", transfer(BUFFER, 256, 0));
    outb(base + 0x206, 0);
    command(0xec, 0xb0, 0, 0);
    print("no drive 1: status %02x\n", inb(base + 7));
}

static void writes(void)
{
    for (u32 i = 0; i < 3 * 512; i++)
        BUFFER[i] = i * 7 + (i >> 8);
    u32 written = sum(BUFFER, 3 * 512);
    command(0x30, 0xe0, 50, 3);
    show("written", transfer(BUFFER, 256, 1));
    command(0xe7, 0xe0, 0, 0);
    show("flushed", 0);
    memset(BUFFER, 0, 3 * 512);
    command(0x20, 0xe0, 49, 5);
    show("around it", transfer(BUFFER, 256, 0));
    check_eq(sum(BUFFER + 512, 3 * 512), written, "what was written reads back");
}

static u32 pci_read(u32 at) { outl(0xcf8, 0x80000900 | at); return inl(0xcfc); }        /* device 1, function 1 */
static void pci_write(u32 at, u32 v) { outl(0xcf8, 0x80000900 | at); outl(0xcfc, v); }

static void run_master(const char *what, u8 op, u32 lba, u8 count, int in)
{
    outb(master, 0);
    outb(master + 2, 6);                /* the flags are cleared by ones */
    outl(master + 4, (u32)(word)TABLE);
    command(op, 0xe0, lba, count);
    outb(master, in << 3 | 1);
    for (u32 tries = 0; tries < 10000000 && !(inb(master + 2) & 4); tries++)
        ;
    u8 flags = inb(master + 2) & 7;
    outb(master, 0);
    show(what, count * 256);
    outb(master + 2, 6);
    print("bus master %u, then %u\n", flags, inb(master + 2) & 7);
}

static void bus_master(void)
{
    print("PCI %08x, class %06x\n", pci_read(0), pci_read(8) >> 8 & ~0xffu);        /* the programming interface says what is wired */
    pci_write(4, (pci_read(4) & 0xffff) | 5);
    master = pci_read(0x20) & ~15;
    TABLE[0] = (u32)(word)BUFFER;       /* the second begins in the middle of a sector */
    TABLE[1] = 1000;
    TABLE[2] = (u32)(word)BUFFER + 1000;
    TABLE[3] = 4096 - 1000;
    TABLE[4] = (u32)(word)BUFFER + 4096;
    TABLE[5] = 0x80000000 | 4096;
    memset(BUFFER, 0, 8192);
    run_master("master reads", 0xc8, 200, 16, 1);
    run_master("master writes", 0xca, 300, 16, 0);
    command(0x20, 0xe0, 300, 16);
    show("read by words", transfer(BUFFER, 256, 0));
}

/* A packet command; DRQ blocks of at most `limit` bytes.  The bytes. */
static u32 packet(u8 op, u32 lba, u32 blocks, u32 allocation, u32 limit)
{
    u8 cdb[12] = {op, 0, lba >> 24, lba >> 16, lba >> 8, lba, 0, blocks >> 8, blocks};
    u32 bytes = 0;

    if (allocation)
        cdb[4] = allocation;
    outb(base + 6, 0xa0);
    idle();
    outb(base + 1, 0);
    outb(base + 4, limit);
    outb(base + 5, limit >> 8);
    start(0xa0);
    idle();
    for (u32 i = 0; i < 12; i += 2)
        outw(base, *(u16 *)(cdb + i));
    while ((idle() & (DRQ | ERR)) == DRQ) {
        u32 n = inb(base + 4) | inb(base + 5) << 8;
        look();
        inb(base + 7);
        for (u32 i = 0; i < n; i += 2, bytes += 2)
            *(u16 *)(BUFFER + bytes) = inw(base);
    }
    return bytes;
}

static void cdrom(void)
{
    base = SECONDARY;
    reset();
    signature("CD-ROM", 0xa0);
    for (u32 tries = 0; tries < 5; tries++) {                   /* attention, as long as there is any */
        packet(0, 0, 0, 0, 0xfffe);
        look();
        if (!(inb(base + 7) & ERR))
            break;
        packet(3, 0, 0, 18, 0xfffe);
    }
    show("ready", 0);
    u32 n = packet(0x12, 0, 0, 36, 0xfffe);
    print("inquiry: %u bytes, %02x %02x\n", n, BUFFER[0], BUFFER[1]);
    inb(base + 7);
    show("capacity", packet(0x25, 0, 0, 0, 0xfffe) / 2);
    show("blocks 3 and 4", packet(0x28, 3, 2, 0, 2048) / 2);
    show("block 90", packet(0x28, 90, 1, 0, 512) / 2);
    show("beyond the end", packet(0x28, 100000, 1, 0, 2048) / 2);
    packet(3, 0, 0, 18, 0xfffe);
    print("sense %x %02x\n", BUFFER[2] & 15, BUFFER[12]);
    inb(base + 7);
    command(0xec, 0xa0, 0, 0);
    show("a packet device is no disk", 0);
}

int main64(void)
{
    protect_memory();
    pic_init(0xff, 0xff);
    base = PRIMARY;
    reset();
    signature("disk", 0xa0);
    identify();
    reads();
    errors();
    writes();
    bus_master();
    cdrom();
    return 0;
}
