/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe.h -- run and judge the probes that probe.inc tables.  A ROM supplies probe_reset(), which makes the
 * state every probe starts from, and probe_enter(), which runs one in its ring; its trap handler fills `seen`. */
#ifndef PROBE_H
#define PROBE_H

#define PROBE_DONE 0x40                 /* int 40: a probe's good end */
#define V_DE 0
#define V_DB 1
#define V_BP 3
#define V_OF 4
#define V_BR 5
#define V_UD 6
#define V_NM 7
#define V_DF 8
#define V_TS 10
#define V_NP 11
#define V_SS 12
#define V_GP 13
#define V_PF 14
#define V_MF 16

#ifndef __ASSEMBLER__
#include "ring.h"
#include "traps.h"

struct probe { u32 name, ring, code, at, vector, error, len, want, setup, flags; };
struct seen { u32 vector, error, cs, eax; word ip, cr2; };
extern const struct probe probes[], probes_end[];

static void probe_reset(void);
static void probe_enter(const struct probe *p);
static struct seen seen;

INLINE void seen_note(const trap_frame *f, word eax)
{
    seen = (struct seen){f->vector, f->error, f->cs, eax, f->FRAME_IP, read_cr2()};
}

INLINE const char *vector_name(u32 vector)
{
    static const char names[20][4] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP",
                                      "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM"};
    return vector < 20 ? names[vector] : "int";
}

INLINE int probe_as_expected(const struct probe *p)
{
    if (seen.vector != p->vector || seen.error != p->error || seen.ip != p->at + p->len)
        return 0;
    if (p->vector == PROBE_DONE)
        return seen.eax == p->want;
    return (seen.cs & 3) == p->ring && (p->vector != V_PF || seen.cr2 == p->want);
}

/* Run all probes, a line each; returns how many. */
INLINE u32 probes_run(void)
{
    for (const struct probe *p = probes; p < probes_end; p++) {
        probe_reset();
        if (p->setup)
            ((void (*)(void))(word)p->setup)();
        probe_enter(p);
        probe_reset();
        print("ring %u %s: ", p->ring, (char *)(word)p->name);
        if (seen.vector == PROBE_DONE)
            print("runs, eax %x\n", seen.eax);
        else
            print(seen.vector == V_PF ? "%s(%x) at +%x, cr2 %lx\n" : "%s(%x) at +%x\n", vector_name(seen.vector),
                  seen.error, (u32)(seen.ip - p->at), seen.cr2);
        if (!check(probe_as_expected(p), "the line above"))
            print("  expected vector %u error %x at +%x, want %x; seen vector %u cs %x\n", p->vector, p->error, p->len,
                  p->want, seen.vector, seen.cs);
    }
    return probes_end - probes;
}
#endif
#endif
