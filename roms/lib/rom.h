/* SPDX-License-Identifier: GPL-2.0-or-later */
/* rom.h -- what every ROM has: ports, console, checks, report words, end, control registers.
 *
 * Everything is static inline, so that 32-bit and 64-bit C of one ROM can both include it; the few shared
 * variables live in start.S.  Memory: the image at 1 MiB (image_start..image_end, see rom.lds); below
 * 0x80000 and from 4 MiB up to the ROM's `memory` everything is free.  Tests must not print addresses of
 * their own code: say "fault at instruction + n". */
#ifndef ROM_H
#define ROM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "selectors.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long word;             /* 32 or 64 bits: what a register holds */
#define INLINE static inline __attribute__((unused))

#define PORT_COM1   0x3f8
#define PORT_REPORT 0xe8                /* 32-bit words for the ledger's reader; QEMU ignores them */
#define PORT_END    0xf4                /* byte written = exit status (QEMU: value << 1 | 1) */

extern u32 multiboot_magic, multiboot_info, rom_checks, rom_failures;
extern char image_start[], text_end[], image_end[], stack_top[];
extern u64 gdt[64];
extern u64 identity_pml4[512], identity_pdpt[512], identity_pd[2048];

/* ---- strings: gcc may call these by itself ---- */
static __attribute__((used)) void *memset(void *to, int c, size_t n)
{
    u8 *d = to;
    asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return to;
}

static __attribute__((used)) void *memcpy(void *to, const void *from, size_t n)
{
    u8 *d = to;
    asm volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

INLINE size_t str_len(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

/* ---- ports ---- */
INLINE void outb(u16 port, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
INLINE void outw(u16 port, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
INLINE void outl(u16 port, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
INLINE u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
INLINE u16 inw(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
INLINE u32 inl(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
INLINE void report(u32 v) { outl(PORT_REPORT, v); }

/* ---- console ---- */
INLINE void put_char(char c)
{
    while (!(inb(PORT_COM1 + 5) & 0x20))
        ;
    outb(PORT_COM1, c);
}

INLINE void put_string(const char *s)
{
    while (*s)
        put_char(*s++);
}

/* Digits of v in base 10 or 16, at least `width` of them, padded with zeros. */
static __attribute__((unused, noinline)) void put_number(u64 v, u32 base, int width)
{
    char text[24];
    int n = 0;
    do {
        u32 digit;
        if (base == 16) {
            digit = v & 15;
            v >>= 4;
        } else {                        /* by halves: 32-bit code has no 64-bit division */
            u32 hi = v >> 32, lo = (u32)v, top = hi / 10;
            asm("divl %4" : "=a"(lo), "=d"(digit) : "0"(lo), "1"(hi % 10), "r"(10));
            v = (u64)top << 32 | lo;
        }
        text[n++] = "0123456789abcdef"[digit];
    } while (v);
    while (width-- > n)
        put_char('0');
    while (n)
        put_char(text[--n]);
}

/* printf with %s %c %d %u %x %lu %lx %llu %llx, a width of zeros as in %08x, and %%. */
static __attribute__((unused, noinline)) void print(const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    for (; *f; f++) {
        int width = 0, longs = 0;
        if (*f != '%') {
            put_char(*f);
            continue;
        }
        for (f++; *f >= '0' && *f <= '9'; f++)
            width = width * 10 + *f - '0';
        for (; *f == 'l'; f++)
            longs++;
        if (*f == 's') {
            put_string(va_arg(ap, const char *));
        } else if (*f == 'c') {
            put_char(va_arg(ap, int));
        } else if (*f == 'd') {
            int v = va_arg(ap, int);
            if (v < 0)
                put_char('-');
            put_number(v < 0 ? -(u32)v : (u32)v, 10, width);
        } else if (*f == 'u' || *f == 'x') {
            u64 v = longs == 2 ? va_arg(ap, u64) : longs ? va_arg(ap, word) : va_arg(ap, u32);
            put_number(v, *f == 'x' ? 16 : 10, width);
        } else {
            put_char(*f);
        }
    }
    va_end(ap);
}

/* ---- checks and the end ---- */
static __attribute__((unused, noinline)) int check(int good, const char *what)
{
    rom_checks++;
    if (!good) {
        rom_failures++;
        print("FAIL %s\n", what);
    }
    return good;
}

static __attribute__((unused, noinline)) int check_eq(u64 got, u64 want, const char *what)
{
    rom_checks++;
    if (got != want) {
        rom_failures++;
        print("FAIL %s: got %llx, expected %llx\n", what, got, want);
    }
    return got == want;
}

/* One step of a 32-bit FNV-1a hash over the bytes of v: h = mix(h, v), starting from MIX_START. */
#define MIX_START 0x811c9dc5u
INLINE u32 mix(u32 h, u32 v)
{
    for (int i = 0; i < 4; i++, v >>= 8)
        h = (h ^ (v & 255)) * 0x01000193u;
    return h;
}

/* Print the verdict as the last line and end the machine: status 0, or 1 after a failed check. */
INLINE void __attribute__((noreturn)) rom_end(void)
{
    if (rom_failures)
        print("FAIL %u of %u checks\n", rom_failures, rom_checks);
    else
        print("OK\n");
    outb(PORT_END, rom_failures ? 1 : 0);
    for (;;)
        asm volatile("cli; hlt");
}

/* ---- registers ---- */
#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_VME 0x1u
#define CR4_TSD 0x4u
#define CR4_DE 0x8u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_PGE 0x80u
#define CR4_PCIDE 0x20000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define FLAG_CF 0x1u
#define FLAG_TF 0x100u
#define FLAG_IF 0x200u
#define FLAG_DF 0x400u
#define FLAG_IOPL(n) ((n) << 12)
#define FLAG_NT 0x4000u
#define FLAG_VM 0x20000u
#define FLAG_AC 0x40000u

#define CR_ACCESS(n)                                                                              \
    INLINE word read_cr##n(void) { word v; asm volatile("mov %%cr" #n ", %0" : "=r"(v)); return v; } \
    INLINE void write_cr##n(word v) { asm volatile("mov %0, %%cr" #n : : "r"(v) : "memory"); }
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)

INLINE u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (u64)hi << 32 | lo;
}

INLINE void wrmsr(u32 msr, u64 v)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

INLINE u64 rdtsc(void)
{
    u32 lo, hi;
    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}

struct cpuid { u32 a, b, c, d; };
INLINE struct cpuid cpuid(u32 leaf, u32 sub)
{
    struct cpuid r;
    asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "0"(leaf), "2"(sub));
    return r;
}

INLINE word read_flags(void) { word v; asm volatile("pushf; pop %0" : "=r"(v)); return v; }
INLINE u16 read_cs(void) { u16 v; asm volatile("mov %%cs, %0" : "=r"(v)); return v; }
INLINE void invlpg(const volatile void *p) { asm volatile("invlpg (%0)" : : "r"(p) : "memory"); }

/* ---- descriptors ---- */
struct __attribute__((packed)) table_register { u16 limit; word base; };
INLINE void load_gdt(const void *base, u16 limit)
{
    struct table_register r = {limit, (word)base};
    asm volatile("lgdt %0" : : "m"(r));
}
INLINE void load_idt(const void *base, u16 limit)
{
    struct table_register r = {limit, (word)base};
    asm volatile("lidt %0" : : "m"(r));
}

/* A segment descriptor: access is the byte with P, DPL, S and type; flags the G, D/B, L, AVL nibble. */
INLINE u64 descriptor(u32 base, u32 limit, u32 access, u32 flags)
{
    u32 lo = (limit & 0xffff) | base << 16;
    u32 hi = (base >> 16 & 255) | access << 8 | (limit & 0xf0000) | flags << 20 | (base & 0xff000000);
    return (u64)hi << 32 | lo;
}

/* A 32-bit gate, or the first half of a 64-bit one.  low is the parameter count or the IST number. */
INLINE u64 gate(u32 offset, u32 selector, u32 access, u32 low)
{
    u32 lo = (offset & 0xffff) | selector << 16;
    u32 hi = (low & 0x1f) | access << 8 | (offset & 0xffff0000);
    return (u64)hi << 32 | lo;
}
#define GATE_INT 0x8e                   /* present, DPL 0; add n << 5 for another DPL */
#define GATE_TRAP 0x8f
#define GATE_CALL 0x8c
#define GATE_TASK 0x85

struct __attribute__((packed)) tss64 {
    u32 reserved0;
    u64 rsp[3], ist[8];                 /* ist[0] is reserved, ist[1..7] are IST1..IST7 */
    u16 reserved1[5], io_map;
};
struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, io_map;
};

/* Put the TSS at `tss` into the lib's GDT and load TR.  io_map is left to the caller (limit = no bitmap). */
INLINE void load_tss(void *tss, u32 limit)
{
    gdt[TSS_SEL / 8] = descriptor((u32)(word)tss, limit, 0x89, 0);
    gdt[TSS_SEL / 8 + 1] = 0;
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
}
#endif
