/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     mbinfo
 * bits     32
 * proves   the loader follows Multiboot 0.6.96: magic, protected mode without paging, address line 20 open,
 *          interrupts off, memory sizes, command line, modules and a memory map that agree with each other
 * ends     0: what is there is consistent; 1: a FAIL line
 * mission  37
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "rom.h"

#define HAS_MEMORY  0x1u        /* bits of the information structure's flags (Multiboot 0.6.96, 3.3) */
#define HAS_COMMAND 0x4u
#define HAS_MODULES 0x8u
#define HAS_MAP     0x40u
#define USABLE      1           /* type of a map entry */

struct information {
    u32 flags, lower_kib, upper_kib, boot_device, command, module_count, modules, symbols[4], map_bytes, map;
};
struct __attribute__((packed)) map_entry {
    u32 size;                   /* of what follows; the next entry is at + size + 4 */
    u64 base, bytes;
    u32 type;
};

/* The words after the first one, which names the image. */
static const char *arguments(const char *line)
{
    while (*line && *line != ' ')
        line++;
    while (*line == ' ')
        line++;
    return line;
}

static void memory(const struct information *m)
{
    check(m->flags & HAS_MEMORY, "memory sizes, which the header asks for");
    check(m->lower_kib >= 512 && m->lower_kib <= 640, "lower memory");
    check(m->upper_kib >= 32 * 1024, "upper memory");
    print("upper memory at least 32 MiB: %s\n", m->upper_kib >= 32 * 1024 ? "yes" : "no");
}

/* Usable memory at 1 MiB must be as long as upper_kib says, and no usable range may overlap another. */
static void memory_map(const struct information *m)
{
    u32 ranges = 0, end = m->map + m->map_bytes, upper_found = 0;
    u64 last_end = 0;

    if (!(m->flags & HAS_MAP))
        return;
    for (u32 at = m->map; at < end; at += ((struct map_entry *)at)->size + 4) {
        const struct map_entry *e = (struct map_entry *)at;

        check(e->size >= 20, "size of a map entry");
        if (e->size < 20)
            return;
        if (e->type != USABLE)
            continue;
        ranges++;
        check(e->base >= last_end, "map entries ascend");
        last_end = e->base + e->bytes;
        if (e->base <= 0x100000 && last_end > 0x100000)
            upper_found = (u32)(last_end - 0x100000) >> 10 == m->upper_kib;
    }
    check(ranges >= 2, "usable ranges below 640 KiB and above 1 MiB");
    check(upper_found, "map and upper memory agree");
}

static void command_line(const struct information *m)
{
    const char *line = m->flags & HAS_COMMAND ? (const char *)m->command : "";

    check(str_len(line) < 4096, "command line ends");
    print("arguments: '%s'\n", arguments(line));
}

static void modules(const struct information *m)
{
    u32 count = m->flags & HAS_MODULES ? m->module_count : 0;
    const u32 *module = (const u32 *)m->modules;        /* start, end, string, reserved */

    for (u32 i = 0; i < count; i++, module += 4)
        check(module[0] >= (u32)image_end && module[1] >= module[0], "module lies above the image");
    print("modules: %u\n", count);
}

static void state_of_machine(void)
{
    volatile u32 *low = (u32 *)0x400000, *high = (u32 *)0x500000;       /* differ in address bit 20 */

    *low = 0x12345678;
    *high = 0x9abcdef0;
    check_eq(*low, 0x12345678, "address line 20");
    check_eq(read_cr0() & (CR0_PE | CR0_PG), CR0_PE, "protected mode without paging");
    check_eq(read_flags() & FLAG_IF, 0, "interrupts off");
}

int main32(void)
{
    const struct information *m = (const struct information *)multiboot_info;

    print("magic %08x\n", multiboot_magic);
    check_eq(multiboot_magic, 0x2badb002, "magic in EAX");
    state_of_machine();
    memory(m);
    memory_map(m);
    command_line(m);
    modules(m);
    return 0;
}
