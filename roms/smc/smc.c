/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     smc
 * bits     64
 * proves   changed code is executed as changed: an immediate ahead in the same block, the next instruction, a loop's body
 *          here and in another page, an instruction across two pages, 10,000 functions emitted at one address, copies by
 *          rep movs, writes through a second mapping, a page that is code and data in turn, another frame behind an address
 * ends     0: each call gave what its newest code says; 1: a FAIL line
 * mission  42
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "wx.h"

#define CODE      (1ull << 39)          /* two pages, writable and executable, on the frames below */
#define FRAMES_AT 0x1000000ull          /* reached as data by their identity mapping, which is NX */

typedef u32 (*function)(u32, u32);
#define TEMPLATE(name) extern const u8 name[], name##_end[]
TEMPLATE(patch_ahead);
TEMPLATE(patch_next);
TEMPLATE(patch_loop);
TEMPLATE(patch_far);

static u8 *const code = (u8 *)CODE;
static u32 sum, wrong, seed;

static u32 next_random(void)
{
    seed = seed * 1664525 + 1013904223;
    return seed >> 8;
}

static void compare(u32 got, u32 want)
{
    wrong += got != want;
    sum = mix(sum, got);
}

static function place(const u8 *from, const u8 *end)
{
    memcpy(code, from, end - from);
    return (function)code;
}
#define PLACE(name) place(name, name##_end)

/* mov $value, %eax; ret */
static void emit_constant(u8 *at, u32 value)
{
    at[0] = 0xb8;
    *(volatile u32 *)(at + 1) = value;
    at[5] = 0xc3;
}

/* A change through another linear address needs a serializing instruction: SDM 3A 9.1.3. */
static void serialize(void) { cpuid(0, 0); }

static void ahead_in_block(void)
{
    function f = PLACE(patch_ahead);

    for (u32 i = 0; i < 2000; i++)
        compare(f(i * 77, 0), i * 77);
}

static void next_instruction(void)
{
    function f = PLACE(patch_next);

    for (u32 i = 0; i < 2000; i++) {
        u32 down = next_random() & 1;
        compare(f(down ? 0xc8 : 0xc0, i), down ? i - 1 : i + 1);
    }
}

static void loop_body(void)
{
    function f = PLACE(patch_loop);

    for (u32 n = 1; n <= 60; n++)
        compare(f(n, 0), n * (n + 1) / 2);
}

static void body_in_next_page(void)
{
    function f = PLACE(patch_far);

    emit_constant(code + 4096, 0);
    for (u32 n = 1; n <= 60; n++)
        compare(f(n, 0), n * (n + 1) / 2);
}

/* The immediate lies half in one page and half in the next; one store changes both. */
static void across_pages(void)
{
    u8 *at = code + 4096 - 3;

    emit_constant(at, 0);
    for (u32 i = 0; i < 1000; i++) {
        u32 v = next_random();
        *(volatile u32 *)(at + 1) = v;
        compare(((function)at)(0, 0), v);
    }
}

/* Emit a function of one to eight operations on EAX, starting from EDI; returns what it gives for x. */
static u32 emit_random(u8 *p, u32 x)
{
    *p++ = 0x89;                                /* mov %edi, %eax */
    *p++ = 0xf8;
    for (u32 n = next_random() % 8 + 1; n > 0; n--) {
        u32 what = next_random() % 5, v = next_random(), bits = v % 31 + 1;

        if (what == 4) {
            *p++ = 0xc1;                        /* rol $bits, %eax */
            *p++ = 0xc0;
            *p++ = bits;
            x = x << bits | x >> (32 - bits);
            continue;
        }
        if (what == 3) {
            *p++ = 0x69;                        /* imul $v, %eax, %eax */
            *p++ = 0xc0;
        } else {
            *p++ = "\x05\x2d\x35"[what];        /* add, sub, xor $v, %eax */
        }
        *(volatile u32 *)p = v;
        p += 4;
        x = what == 0 ? x + v : what == 1 ? x - v : what == 2 ? x ^ v : x * v;
    }
    *p++ = 0xc3;
    return x;
}

static void emitted_functions(void)
{
    for (u32 i = 0; i < 10000; i++) {
        u32 want = emit_random(code, i);
        compare(((function)code)(i, 0), want);
    }
}

static void copied_code(void)
{
    static u8 variants[16][64];

    for (u32 v = 0; v < 16; v++)
        emit_constant(variants[v], v * 0x01010101);
    for (u32 i = 0; i < 2000; i++) {
        u32 v = next_random() % 16;
        memcpy(code, variants[v], 64);          /* rep movsb */
        compare(((function)code)(0, 0), v * 0x01010101);
    }
}

static void second_mapping(void)
{
    emit_constant(code, 0);
    for (u32 i = 0; i < 1000; i++) {
        u32 v = next_random();
        *(volatile u32 *)(FRAMES_AT + 1) = v;
        serialize();
        compare(((function)code)(0, 0), v);
        compare(*(volatile u32 *)(code + 1), v);
    }
}

static void set_page(u64 bits)
{
    page_map(identity_pml4, 4, CODE, FRAMES_AT, 1, bits);
    invlpg(code);
}

/* W^X by the page table, as a JIT compiler with some care does it. */
static void code_and_data_in_turn(void)
{
    for (u32 i = 0; i < 500; i++) {
        u32 want, noise = next_random();

        set_page(P_WRITE | P_NX);
        for (u32 at = 0; at < 128; at += 4)     /* first any data, then code */
            *(volatile u32 *)(code + at) = noise * at;
        compare(*(volatile u32 *)(code + 64), noise * 64);
        want = emit_random(code, i);
        set_page(0);
        compare(((function)code)(i, 0), want);
    }
    set_page(P_WRITE);
}

static void other_frame(void)
{
    emit_constant((u8 *)FRAMES_AT, 1111);
    emit_constant((u8 *)FRAMES_AT + 4096, 2222);
    serialize();
    for (u32 i = 0; i < 1000; i++) {
        u32 second = next_random() & 1;

        page_map(identity_pml4, 4, CODE, FRAMES_AT + second * 4096, 1, P_WRITE);
        invlpg(code);
        compare(((function)code)(0, 0), second ? 2222 : 1111);
    }
    set_page(P_WRITE);
}

static const struct { const char *name; void (*run)(void); } phases[] = {
    {"ahead in block", ahead_in_block}, {"next instruction", next_instruction}, {"loop body", loop_body},
    {"body in next page", body_in_next_page}, {"across pages", across_pages}, {"emitted functions", emitted_functions},
    {"copied code", copied_code}, {"second mapping", second_mapping}, {"code and data in turn", code_and_data_in_turn},
    {"other frame", other_frame},
};

int main64(void)
{
    protect_memory();
    pages_init(0x400000, FRAMES_AT);
    page_map(identity_pml4, 4, CODE, FRAMES_AT, 1, P_WRITE);
    page_map(identity_pml4, 4, CODE + 4096, FRAMES_AT + 4096, 1, P_WRITE);
    for (u32 i = 0; i < sizeof phases / sizeof *phases; i++) {
        sum = MIX_START;
        wrong = 0;
        seed = i;
        phases[i].run();
        print("%s %08x\n", phases[i].name, sum);
        check_eq(wrong, 0, phases[i].name);
    }
    return 0;
}
