/* SPDX-License-Identifier: GPL-2.0-or-later */
/* name     forkwait
 * bits     64
 * proves   a kernel whose process forks 400 children and waits for each: page tables copied, pages shared until they are
 *          written and copied then, tables freed.  The children's sums and the parent's show who sees which copy.  All forks
 *          lie between the report words 0xB0000000 and 0xE0000000: what one costs is their cycles by 400.
 *          After the benchmark of Adams & Agesen (ASPLOS 2006, section 6.3), which does it 40,000 times on Linux.
 * ends     0: the sums, the number of copies and of pages given back are the known ones; 1: a FAIL line
 * mission  10 13 16 44
 * qemu     yes
 * time     no
 * styles   all
 * memory   64M
 * kind     mmu
 */
#include "forkwait.h"
#include "ring.h"
#include "traps.h"
#include "wx.h"

#define PAGES    (DATA_PAGES + 3)       /* text, data, two pages of stack */
#define STACK_TOP (AREA + PAGES * 4096)
#define PTE_OF(p, n) (&(p)->table[n])

struct process { u64 *root, *table; struct frame64 at; };

extern u8 program[], program_end[];

static u8 kernel_stack[8192] __attribute__((aligned(16)));
static struct tss64 tss;
static struct process parent, child, *now;
static u64 free_list;                   /* frames given back, each holds the next one's address */
static u32 taken, freed, copies, reclaimed, exits, data_sum;
static u8 sharers[0x4000];              /* by frame, of the process's pages */

static u64 frame_take(void)
{
    u64 f = free_list;

    taken++;
    if (f) {
        free_list = *(u64 *)f;
        return f;
    }
    return (word)page_alloc();
}

static void frame_give(u64 f)
{
    freed++;
    *(u64 *)f = free_list;
    free_list = f;
}

/* A root table with the kernel's half, and one table of each level for the process's pages. */
static void tables_make(struct process *p)
{
    u64 *upper, *middle;

    p->root = memset((void *)frame_take(), 0, 4096);
    upper = memset((void *)frame_take(), 0, 4096);
    middle = memset((void *)frame_take(), 0, 4096);
    p->table = memset((void *)frame_take(), 0, 4096);
    p->root[0] = identity_pml4[0];
    p->root[1] = (word)upper | P_PRESENT | P_WRITE | P_USER;
    upper[0] = (word)middle | P_PRESENT | P_WRITE | P_USER;
    middle[0] = (word)p->table | P_PRESENT | P_WRITE | P_USER;
}

static void tables_free(struct process *p)
{
    u64 *upper = (u64 *)(p->root[1] & P_ADDRESS);

    frame_give(upper[0] & P_ADDRESS);
    frame_give((word)p->table);
    frame_give((word)upper);
    frame_give((word)p->root);
}

static void switch_to(struct process *p, struct frame64 *f)
{
    now = p;
    *f = p->at;
    write_cr3((word)p->root);
}

/* Both have all pages from here on, and neither may write any. */
static void fork(struct frame64 *f)
{
    tables_make(&child);
    for (u32 n = 0; n < PAGES; n++) {
        u64 e = *PTE_OF(&parent, n) & ~(P_WRITE | P_ACCESSED | P_DIRTY);
        *PTE_OF(&parent, n) = e;
        *PTE_OF(&child, n) = e;
        sharers[(e & P_ADDRESS) >> 12]++;
    }
    f->rax = 1;
    parent.at = *f;
    child.at = *f;
    child.at.rax = 0;
    switch_to(&child, f);
}

static void leave(struct frame64 *f)
{
    exits++;
    data_sum = mix(data_sum, f->rdi);
    for (u32 n = 0; n < PAGES; n++) {
        u64 frame = *PTE_OF(&child, n) & P_ADDRESS;
        if (--sharers[frame >> 12] == 0)
            frame_give(frame);
    }
    switch_to(&parent, f);
    tables_free(&child);
}

/* A write to a shared page: the last one that has it may have it, any other gets a copy. */
static void write_fault(struct frame64 *f)
{
    u64 at = read_cr2(), n = (at - AREA) >> 12, *e, frame;

    if (f->error != (PF_P | PF_W | PF_U) || n == 0 || n >= PAGES)
        trap_unexpected(f);
    e = PTE_OF(now, n);
    frame = *e & P_ADDRESS;
    if (sharers[frame >> 12] == 1) {
        *e |= P_WRITE;
        reclaimed++;
    } else {
        u64 own = frame_take();
        memcpy((void *)own, (void *)frame, 4096);
        sharers[frame >> 12]--;
        sharers[own >> 12] = 1;
        *e = own | (*e & ~P_ADDRESS) | P_WRITE;
        copies++;
    }
    invlpg((void *)at);
}

void trap64(struct frame64 *f)
{
    if (f->vector == 14)
        write_fault(f);
    else if (f->vector != 0x80)
        trap_unexpected(f);
    else if (f->rax == SYS_FORK)
        fork(f);
    else if (f->rax == SYS_EXIT)
        leave(f);
    else if (f->rax == SYS_DONE) {
        parent.at.rdi = f->rdi;
        ring_leave64();
    }
}

static void process_make(void)
{
    tables_make(&parent);
    for (u32 n = 0; n < PAGES; n++) {
        u64 frame = frame_take();
        memset((void *)frame, 0, 4096);
        if (n == 0)
            memcpy((void *)frame, program, program_end - program);
        else
            *(u32 *)frame = n * n;
        sharers[frame >> 12] = 1;
        *PTE_OF(&parent, n) = frame | P_PRESENT | P_USER | (n ? P_WRITE | P_NX : 0);
    }
    now = &parent;
}

int main64(void)
{
    u32 sums = MIX_START, of_parent = 0;

    protect_memory();
    idt_init();
    idt_set(0x80, (void *)(word)trap_stubs64[0x80], GATE_INT | 0x60, 0);
    tss.rsp[0] = (word)kernel_stack + sizeof kernel_stack;
    tss.io_map = sizeof tss;
    load_tss(&tss, sizeof tss - 1);
    pages_init(0x400000, 0x4000000);
    process_make();
    for (u32 n = 1; n <= DATA_PAGES; n++)
        of_parent += n * n;
    for (u32 n = 0; n < CHILDREN; n++)
        sums = mix(sums, of_parent + WRITTEN_PAGES);
    data_sum = MIX_START;
    report(0xb0000000);
    write_cr3((word)parent.root);
    ring_run64(UCODE64 | 3, UDATA | 3, AREA, STACK_TOP, 2);
    write_cr3((word)identity_pml4);
    report(0xe0000000);
    print("%u children, %u pages copied, %u taken back\n", exits, copies, reclaimed);
    check_eq(exits, CHILDREN, "children");
    check_eq(data_sum, sums, "the children's sums");
    check_eq(parent.at.rdi, of_parent, "the parent's sum");
    check_eq(copies, CHILDREN * WRITTEN_PAGES, "copies");
    check_eq(reclaimed, CHILDREN - 1, "pages taken back");      /* the stack, when the parent goes on */
    check_eq(taken - freed, 4 + PAGES, "frames in use");
    return 0;
}
