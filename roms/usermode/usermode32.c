/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     usermode
 * bits     32, 64
 * proves   user programs under a kernel: 32-bit with int 80 and SYSENTER/SYSEXIT, 32-bit under a 64-bit kernel (compatibility
 *          mode) with int 80, 64-bit with SYSCALL/SYSRET and int 80; a table of system calls; the kernel's memory and
 *          CLI stay out of reach
 * ends     0: every program's checksum is what the kernel foresaw, every way in was counted as often as it was used
 * mission  4, 43, 44, 61
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mode
 */
#include "paging.h"
#include "ring.h"
#include "traps.h"
#include "usermode.h"

u32 long_call(u32 (*fn)(void));
u32 main_long(void);
void sysenter_entry(void);

extern char user_start[], user_end[], kernel_stack[], sysenter_stack[];
extern const u32 user32_at;
static struct counts counts;
static struct tss32 tss;
static u32 result;

static void user_fault(struct frame32 *f)
{
    counts.faults++;
    if (f->vector == 14)
        check_eq(f->error, PF_P | PF_U, "#PF code of the kernel's memory");
    f->eip = f->ebx;
}

void trap32(struct frame32 *f)
{
    if (f->vector == 0x80 && f->eax == SYS_EXIT) {
        result = f->ebx;
        ring_leave32();
    } else if (f->vector == 0x80) {
        counts.int80++;
        f->eax = sys_call(&counts, f->eax, f->ebx, f->esi);
    } else if ((f->vector == 13 || f->vector == 14) && (f->cs & 3) == 3) {
        user_fault(f);
    } else {
        trap_unexpected(f);
    }
}

u32 kernel_sysenter(u32 number, u32 a, u32 b)
{
    counts.sysenter++;
    return sys_call(&counts, number, a, b);
}

/* 4 MiB pages; only the one at USER_AT is the user's. */
static void paging_on(void)
{
    u32 *directory = page_alloc();
    for (u32 i = 0; i < 16; i++)
        directory[i] = i << 22 | P_LARGE | P_WRITE | P_PRESENT;
    directory[USER_AT >> 22] |= P_USER;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((u32)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

static void user_run(void)
{
    *(u32 *)USER_STACK = 1;             /* with the SYSENTER round */
    ring_run32(UCODE32 | 3, UDATA | 3, user32_at, USER_STACK, 2);
}

int main32(void)
{
    pages_init(0x400000, 0x500000);
    memcpy((void *)USER_AT, user_start, user_end - user_start);
    idt_init();
    idt_set(0x80, (void *)trap_stubs32[0x80], GATE_INT | 0x60, 0);
    tss.ss0 = KDATA, tss.esp0 = (u32)kernel_stack, tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    wrmsr(MSR_SYSENTER_CS, KCODE32);
    wrmsr(MSR_SYSENTER_ESP, (u32)sysenter_stack);
    wrmsr(MSR_SYSENTER_EIP, (u32)sysenter_entry);
    paging_on();
    user_run();
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~CR4_PSE);
    print("32-bit kernel: %08x, int 80 %u, sysenter %u, unknown %u, faults %u\n", result, counts.int80, counts.sysenter,
          counts.unknown, counts.faults);
    check_eq(result, foresee(foresee(0, 32), 32), "32-bit program");
    check_eq(counts.int80, CALLS + 1, "int 80");
    check_eq(counts.sysenter, CALLS + 1, "sysenter");
    check_eq(counts.unknown * 10 + counts.faults, 22, "unknown calls and faults");
    return long_call(main_long);
}
