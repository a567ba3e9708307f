/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints what its loader tells it, by multiboot 2 (Multiboot2 Specification 2.0, 3.6) or PVH (Xen, start_info.h). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

static void put(char c)
{
    while (1) {
        u8 status;
        asm volatile("inb %w1, %0" : "=a"(status) : "d"(0x3fd));
        if (status & 0x20)
            break;
    }
    asm volatile("outb %0, %w1" : : "a"(c), "d"(0x3f8));
}

static void text(const char *s)
{
    while (*s)
        put(*s++);
}

static void number(u64 value)
{
    for (int shift = 36; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

static void area(u64 base, u64 bytes, u32 kind)
{
    text("area ");
    number(base);
    put(' ');
    number(base + bytes);
    text(kind == 1 ? " usable\n" : " other\n");
}

static void module(u32 start, u32 bytes, const char *words)
{
    text("module ");
    for (u32 i = 0; i < bytes && i < 16; i++)
        put(((char *)start)[i]);
    text(" words ");
    text(words);
    put('\n');
}

struct start_info {
    u32 magic, version, flags, modules;
    u64 modlist, cmdline, rsdp, memmap;
    u32 areas, reserved;
};

static void pvh(const struct start_info *info)
{
    const u64 *entry = (u64 *)(u32)info->modlist;

    text("command line ");
    text((char *)(u32)info->cmdline);
    put('\n');
    for (u32 i = 0; i < info->modules; i++, entry += 4)
        module(entry[0], entry[1], entry[2] ? (char *)(u32)entry[2] : "");
    entry = (u64 *)(u32)info->memmap;
    for (u32 i = 0; i < info->areas; i++, entry += 3)
        area(entry[0], entry[1], entry[2]);
}

extern u32 kernel_main(u32 eax, u32 ebx);

/* The name of kernel_main, from the symbol table that the loader left in memory. */
static void symbols(const u32 *tag)
{
    u32 count = tag[2], bytes = tag[3], *sections = (u32 *)(tag + 5);

    for (u32 i = 0; i < count; i++) {
        u32 *section = sections + i * bytes / 4;
        if (section[1] != 2 || !section[3])
            continue;
        char *names = (char *)sections[section[6] * bytes / 4 + 3];
        for (u32 *symbol = (u32 *)section[3]; symbol < (u32 *)(section[3] + section[5]); symbol += 4)
            if (symbol[1] == (u32)kernel_main) {
                text("symbol ");
                text(names + symbol[0]);
                put('\n');
            }
    }
}

static u32 multiboot2(const u32 *info)
{
    const u8 *at = (u8 *)info + 8, *end = (u8 *)info + info[0];

    for (;; at += (((u32 *)at)[1] + 7) & ~7u) {
        const u32 *tag = (u32 *)at;
        if (at + 8 > end || tag[1] < 8)
            return 2;
        if (tag[0] == 0)
            return at + 8 == end ? 0 : 3;
        if (tag[0] == 1) {
            text("command line ");
            text((char *)(tag + 2));
            put('\n');
        } else if (tag[0] == 3) {
            module(tag[2], tag[3] - tag[2], (char *)(tag + 4));
        } else if (tag[0] == 4) {
            text("memory ");
            number(tag[2]);
            put(' ');
            number(tag[3]);
            put('\n');
        } else if (tag[0] == 6) {
            for (u32 o = 16; o < tag[1]; o += tag[2])
                area(*(u64 *)(at + o), *(u64 *)(at + o + 8), *(u32 *)(at + o + 16));
        } else if (tag[0] == 9) {
            symbols(tag);
        }
    }
}

u32 kernel_main(u32 eax, u32 ebx)
{
    u32 status = 1;

    if (eax == 0x36d76289 && !(ebx & 7)) {
        text("multiboot2\n");
        status = multiboot2((u32 *)ebx);
    } else if (*(u32 *)ebx == 0x336ec578) {
        text("pvh\n");
        pvh((struct start_info *)ebx);
        status = 0;
    }
    text("end\n");
    return status;
}
