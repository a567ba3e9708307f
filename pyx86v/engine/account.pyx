# SPDX-License-Identifier: GPL-2.0-or-later
"""Accounts as Python reads them: of one guest, or of the whole machine."""
from pyx86v.cost.ledger cimport N_CAUSES, UNITS_PER_CYCLE
from pyx86v.mmu.tlb cimport *
from pyx86v.vmm.guest cimport MAX_EXIT_KINDS

from pyx86v.cost.ledger import Cause

_CAUSES = {cause.name.lower(): cause.value for cause in Cause if cause.value < N_CAUSES}


cdef dict account_ledger(const Account* a, bint exact):
    """{cause: cycles}, which sum to the whole cycles of the account, rounded by largest remainder; or exact, in units."""
    units = {name: a.by[<int>i] for name, i in _CAUSES.items()}
    if exact:
        return units
    whole = {name: value // UNITS_PER_CYCLE for name, value in units.items()}
    missing = a.units // <unsigned>UNITS_PER_CYCLE - sum(whole.values())
    for name in sorted(units, key=lambda name: (-(units[name] % UNITS_PER_CYCLE), name))[:missing]:
        whole[name] += 1
    return whole


cdef dict account_tlb(const Account* a):
    """Hits are second-level hits, misses are first-level misses that walked."""
    c = &a.mmu
    return {"hits": c.l2_hits, "misses": c.walks[0] + c.walks[1], "flushes": sum(c.flushes),
            "evictions": sum([a.evictions[<int>i] for i in range(<int>N_TLB_ARRAYS)]),
            "l1i_misses": c.l1_misses[0], "l1d_misses": c.l1_misses[1], "entries_flushed": c.entries_flushed,
            "fills": sum([a.fills[<int>i] for i in range(<int>N_TLB_ARRAYS)])}


cdef dict account_walks(const Account* a):
    """Page walks: count, references to paging structures, and references by level and kind."""
    c = &a.mmu
    levels = {}
    for i in range(4, 0, -1):
        levels[f"guest_{i}"] = c.guest_refs[i]
    for i in range(4, 0, -1):
        levels[f"nested_{i}"] = c.nested_refs[0][i] + c.nested_refs[1][i]
    return {"count": c.walks[0] + c.walks[1] + c.rewalks, "references": sum(levels.values()), "by_level": levels,
            "rewalks": c.rewalks, "page_faults": c.page_faults, "pdpte_loads": c.pdpte_loads,
            "hits": {name: a.hits[<int>i] for name, i in
                     (("pml4e", ARRAY_PML4E), ("pdpte", ARRAY_PDPTE), ("pde", ARRAY_PDE), ("nested_tlb", ARRAY_NESTED))}}


cdef dict account_exits(const Vcpu* v, const Style* style):
    """{reason: {count, cycles, min, max, squares}} of a guest's exits, those that there were."""
    result = {}
    for i in range(MAX_EXIT_KINDS):
        x = &v.exits[i]
        if x.count:
            name = style.exit_names[i]
            result[name.decode() if name is not NULL else str(i)] = {
                "count": x.count, "cycles": x.units // 64, "min": x.least // 64, "max": x.most // 64, "squares": x.squares}
    return result


cdef dict account_events(const Vcpu* v):
    """What was delivered to a guest."""
    return {"exceptions": {i: v.exceptions[i] for i in range(32) if v.exceptions[i]},
            "software_interrupts": v.software_ints, "interrupts": v.interrupts}
