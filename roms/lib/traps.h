/* SPDX-License-Identifier: GPL-2.0-or-later */
/* traps.h -- an IDT whose 256 gates come to one C function, and a way to try an instruction that may fault.
 *
 * A ROM calls idt_init() and defines (64-bit C)  void trap64(struct frame64 *f)  or (32-bit C)
 * void trap32(struct frame32 *f); what it changes in the frame is what the processor resumes with.  A
 * ROM that needs no handler of its own writes  CATCH_ONLY  at file scope: then only TRY() may fault. */
#ifndef TRAPS_H
#define TRAPS_H

#include "rom.h"

struct frame64 {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};
struct frame32 {                        /* esp and ss only after a change of privilege; then v86 segments */
    u32 edi, esi, ebp, unused, ebx, edx, ecx, eax;
    u32 ds, es, fs, gs;
    u32 vector, error, eip, cs, eflags, esp, ss, v_es, v_ds, v_fs, v_gs;
};

/* What the last TRY saw.  vector is NO_FAULT when nothing was raised; at is the offset of the reported
 * instruction from the tried one (0 for a fault, the instruction's length for a trap). */
#define NO_FAULT 0xff
struct caught { u32 vector, error, at, count; word cr2; };
extern struct caught caught;
extern word catch_resume, catch_at;     /* traps.S; catch_resume 0 = no TRY under way */

#ifdef __x86_64__
typedef struct frame64 trap_frame;
#define TRAP_FUNCTION trap64
#define FRAME_IP rip
#define CATCH_WORD "movq"
extern u64 idt64[512];
extern const u32 trap_stubs64[256];
void trap64(struct frame64 *f);

INLINE void idt_set(int n, const void *entry, u32 access, u32 ist)
{
    idt64[2 * n] = gate((u32)(word)entry, KCODE64, access, ist);
    idt64[2 * n + 1] = (word)entry >> 32;
}
INLINE void idt_init(void)
{
    for (int n = 0; n < 256; n++)
        idt_set(n, (void *)(word)trap_stubs64[n], GATE_INT, 0);
    load_idt(idt64, sizeof idt64 - 1);
}
#else
typedef struct frame32 trap_frame;
#define TRAP_FUNCTION trap32
#define FRAME_IP eip
#define CATCH_WORD "movl"
extern u64 idt32[256];
extern const u32 trap_stubs32[256];
void trap32(struct frame32 *f);

INLINE void idt_set(int n, const void *entry, u32 access, u32 unused)
{
    (void)unused;
    idt32[n] = gate((u32)entry, KCODE32, access, 0);
}
INLINE void idt_init(void)
{
    for (int n = 0; n < 256; n++)
        idt_set(n, (void *)trap_stubs32[n], GATE_INT, 0);
    load_idt(idt32, sizeof idt32 - 1);
}
#endif

/* For a handler: true when the event belongs to a TRY; it is then noted and the frame made to resume. */
INLINE int trap_catch(trap_frame *f)
{
    if (!catch_resume)
        return 0;
    caught.vector = f->vector;
    caught.error = f->error;
    caught.at = (u32)f->FRAME_IP - (u32)catch_at;
    caught.cr2 = read_cr2();
    caught.count++;
    f->FRAME_IP = catch_resume;
    catch_resume = 0;
    return 1;
}

/* For a handler: an event nobody expects ends the ROM. */
INLINE void __attribute__((noreturn)) trap_unexpected(trap_frame *f)
{
    print("unexpected vector %u error %x cs %x ip %llx cr2 %llx\n", (u32)f->vector, (u32)f->error,
          (u32)f->cs, (u64)f->FRAME_IP, (u64)read_cr2());
    rom_failures++;
    rom_end();
}

#define CATCH_ONLY                                                                                \
    void TRAP_FUNCTION(trap_frame *f)                                                             \
    {                                                                                             \
        if (!trap_catch(f))                                                                       \
            trap_unexpected(f);                                                                   \
    }

/* Execute `instruction` (an asm string); afterwards `caught` says what happened.  The remaining arguments
 * are the asm operands; TRY("mov %0, %%cr0", : : "r"(v)). */
#define TRY(instruction, ...)                                                                     \
    do {                                                                                          \
        caught.vector = NO_FAULT;                                                                 \
        caught.error = caught.at = 0;                                                             \
        asm volatile("" : : : "memory");                                                          \
        asm volatile(CATCH_WORD " $771f, catch_at\n\t" CATCH_WORD " $772f, catch_resume\n"        \
                     "771: " instruction "\n"                                                     \
                     "772: " CATCH_WORD " $0, catch_resume" __VA_ARGS__);                         \
        asm volatile("" : : : "memory");                                                          \
    } while (0)

/* The last TRY raised `vector` with `error` at the instruction itself. */
INLINE int check_fault(u32 vector, u32 error, const char *what)
{
    int good = caught.vector == vector && caught.error == error && caught.at == 0;
    rom_checks++;
    if (!good) {
        rom_failures++;
        print("FAIL %s: vector %u error %x at +%x, expected %u %x +0\n", what, caught.vector, caught.error,
              caught.at, vector, error);
    }
    return good;
}
INLINE int check_no_fault(const char *what)
{
    int good = caught.vector == NO_FAULT;
    rom_checks++;
    if (!good) {
        rom_failures++;
        print("FAIL %s: vector %u error %x, expected none\n", what, caught.vector, caught.error);
    }
    return good;
}
#endif
