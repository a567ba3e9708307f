/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     mmio
 * bits     64
 * proves   a storm on VGA text memory at B8000h: bytes, words, doublewords and quadwords, aligned and not, read-modify-
 *          write and string instructions leave what memory would hold; a scrolling console keeps its lines.
 *          Phase n lies between the report words 0xB000000n and 0xE000000n.
 * ends     0: everything reads back; 1: a FAIL line
 * mission  75 79
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     io
 */
#include "wx.h"

#define TEXT   ((volatile u8 *)0xb8000)
#define COLUMNS 80
#define ROWS   25
#define BYTES  (COLUMNS * ROWS * 2)     /* of a screen; a character and its attribute each */

static u8 shadow[BYTES + 16];           /* what the screen must hold */
static u32 sum, wrong;

static void compare_screen(void)
{
    for (u32 i = 0; i < BYTES; i++) {
        u8 got = TEXT[i];
        wrong += got != shadow[i];
        sum = (sum << 5 | sum >> 27) + got;
    }
}

#define FILL(type, step, factor)                                          \
    for (u32 at = 0; at + sizeof(type) <= BYTES; at += step) {            \
        type v = (type)((at + 1) * (type)(factor));                       \
        *(volatile type *)(TEXT + at) = v;                                \
        *(volatile type *)(shadow + at) = v;                              \
        wrong += *(volatile type *)(TEXT + at) != v;                      \
    }

static void by_bytes(void) { FILL(u8, 1, 31) compare_screen(); }
static void by_words(void) { FILL(u16, 2, 0x9e37) compare_screen(); }
static void by_doublewords(void) { FILL(u32, 4, 0x9e3779b1) compare_screen(); }
static void by_quadwords(void) { FILL(u64, 8, 0x9e3779b97f4a7c15) compare_screen(); }

/* Each access overlaps the one before. */
static void unaligned(void)
{
    FILL(u16, 3, 0x1235)
    FILL(u32, 7, 0x85ebca6b)
    FILL(u64, 11, 0xc2b2ae3d27d4eb4f)
    compare_screen();
}

/* The same instruction on the screen and on the shadow. */
#define BOTH(instruction, at, ...)                                                             \
    do {                                                                                       \
        u32 a = value, b = value;                                                              \
        asm volatile(instruction : "+r"(a), "+m"(*(volatile u32 *)(TEXT + (at))) : : "cc");    \
        asm volatile(instruction : "+r"(b), "+m"(*(volatile u32 *)(shadow + (at))) : : "cc");  \
        wrong += a != b;                                                                       \
    } while (0)

static void read_modify_write(void)
{
    u32 value = 1;

    for (u32 at = 0; at + 4 <= BYTES; at += 5) {
        value = value * 1664525 + 1013904223;
        BOTH("addl %0, %1", at);
        BOTH("xorb %b0, %1", at);
        BOTH("xchgl %0, %1", at);
        BOTH("lock xaddw %w0, %1", at);
        BOTH("incb %1", at);
        BOTH("shll $3, %1", at);
        BOTH("notw %1", at);
    }
    compare_screen();
}

static void string_move(volatile void *to, const volatile void *from, u64 n)
{
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void strings(void)
{
    volatile void *to = TEXT;
    u64 n = BYTES / 2;

    asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x0720) : "memory");
    to = shadow, n = BYTES / 2;
    asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x0720) : "memory");
    for (u32 row = 1; row < ROWS; row++) {      /* memory to screen, screen to screen, screen to memory */
        u8 line[COLUMNS * 2];

        for (u32 i = 0; i < sizeof line; i++)
            shadow[row * sizeof line + i] = line[i] = row * 3 + i;
        string_move(TEXT + row * sizeof line, line, sizeof line);
        string_move(TEXT, TEXT + row * sizeof line, sizeof line);
        string_move(shadow, TEXT, sizeof line);
        wrong += shadow[5] != line[5];
    }
    compare_screen();
}

/* What an early console does: print at the bottom, scroll by one row. */
static void scroll(void)
{
    const u32 row = COLUMNS * 2;

    for (u32 line = 0; line < 100; line++) {
        string_move(TEXT, TEXT + row, BYTES - row);
        string_move(shadow, shadow + row, BYTES - row);
        for (u32 column = 0; column < COLUMNS; column++) {
            u16 cell = 0x0700 | (' ' + (line + column) % 90);
            *(volatile u16 *)(TEXT + BYTES - row + 2 * column) = cell;
            *(volatile u16 *)(shadow + BYTES - row + 2 * column) = cell;
        }
    }
    compare_screen();
}

static const struct { const char *name; void (*run)(void); } phases[] = {
    {"bytes", by_bytes}, {"words", by_words}, {"doublewords", by_doublewords}, {"quadwords", by_quadwords},
    {"unaligned", unaligned}, {"read-modify-write", read_modify_write}, {"strings", strings}, {"scroll", scroll},
};

int main64(void)
{
    protect_memory();
    for (u32 i = 0; i < sizeof phases / sizeof *phases; i++) {
        sum = wrong = 0;
        report(0xb0000000 | i);
        phases[i].run();
        report(0xe0000000 | i);
        print("%s %08x\n", phases[i].name, sum);
        check_eq(wrong, 0, phases[i].name);
    }
    return 0;
}
