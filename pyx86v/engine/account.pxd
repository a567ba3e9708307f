# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the machine's counts belongs to one guest: the ledger, the MMU's counters, its arrays' fills and evictions.

The machine counts once, for all its guests together.  At each switch of worlds `account_book` adds what has been
counted since the last one to the guest that ran, so the guests' accounts sum to the machine's, whatever is counted.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memmove
from pyx86v.cost.ledger cimport Ledger
from pyx86v.mmu.mmu cimport Mmu, MmuCounters
from pyx86v.mmu.tlb cimport N_ARRAYS
from pyx86v.vmm.guest cimport Style, Vcpu

cdef extern from *:
    """
    #include <stdint.h>
    /* Separate arrays, said so that the compiler adds several at a time: half of what a switch of worlds books. */
    static inline void pyx_book(uint64_t *restrict own, uint64_t *restrict booked, const uint64_t *restrict now, int n)
    {
        for (int i = 0; i < n; i++) {
            own[i] += now[i] - booked[i];
            booked[i] = now[i];
        }
    }
    """
    void book "pyx_book" (uint64_t* own, uint64_t* booked, const uint64_t* now, int n) noexcept nogil

cdef enum:
    ACCOUNT_CAUSES = 32          # of Ledger.by

ctypedef struct Account:         # 64-bit counts and nothing else: account_book adds it up as an array
    uint64_t units               # 1/64 cycles
    uint64_t by[ACCOUNT_CAUSES]  # the same by Cause
    uint64_t instructions
    MmuCounters mmu
    uint64_t hits[N_ARRAYS]      # by TlbArrayId
    uint64_t fills[N_ARRAYS]
    uint64_t evictions[N_ARRAYS]

cdef dict account_ledger(const Account* a, bint exact)
cdef dict account_tlb(const Account* a)
cdef dict account_walks(const Account* a)
cdef dict account_exits(const Vcpu* v, const Style* style)
cdef dict account_events(const Vcpu* v)

cdef inline void account_now(const Ledger* l, const Mmu* m, Account* out) noexcept nogil:
    """The machine's counts as they stand.  The ledger must be settled.  (Why memmove: image_copy in worlds.pxd.)"""
    cdef int i
    out.units = l.total
    memmove(out.by, l.by, sizeof(out.by))
    out.instructions = l.instructions
    memmove(&out.mmu, &m.count, sizeof(MmuCounters))
    for i in range(N_ARRAYS):
        out.hits[i] = m.tlb.array[i].hits
        out.fills[i] = m.tlb.array[i].fills
        out.evictions[i] = m.tlb.array[i].evictions

cdef inline void account_book(Account* own, Account* booked, const Account* now) noexcept nogil:
    """Add what was counted since `booked` to `own`, and move `booked` to `now`."""
    book(<uint64_t*>own, <uint64_t*>booked, <const uint64_t*>now, <int>(sizeof(Account) // 8))
