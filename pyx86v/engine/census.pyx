# SPDX-License-Identifier: GPL-2.0-or-later
"""The census as Python reads it."""
from pyx86v.engine.state cimport CENSUS_SITES, Census

from pyx86v.arch.sensitive import ROWS

_PLACES = (*((mode, ring) for mode in ("paging", "protected") for ring in range(4)), ("real", 0), ("v86", 3))     # by CensusMode


cdef list census_rows(const Census* c):
    """A dict for each sensitive instruction (arch/sensitive.py) and place where it retired.

    mnemonic, class ("control" or "behaviour"), mode ("paging", and without it "protected", "real" or "v86"), ring (CPL),
    count (a REP instruction as in Machine.instructions), traps (always, outside ring 0), listed (one of the seventeen) and
    address (linear, of the first one).
    """
    return [{"mnemonic": row.name, "class": row.kind, "mode": mode, "ring": ring, "count": c.count[<int>number][<int>place],
             "traps": row.traps, "listed": row.listed, "address": c.first[<int>number][<int>place]}
            for number, row in enumerate(ROWS, 1) for place, (mode, ring) in enumerate(_PLACES)
            if c.count[<int>number][<int>place]]


cdef list census_sites(const Census* c):
    """[{mnemonic, class, traps, address (linear), count}] by address, then by instruction.

    Where more than CENSUS_SITES addresses have sensitive instructions, what has no place is in one row without address.
    """
    found = [(c.site[i].address, c.site[i].number, c.site[i].count) for i in range(CENSUS_SITES) if c.site[i].count]
    rows = [{"mnemonic": row.name, "class": row.kind, "traps": row.traps, "address": address, "count": count}
            for address, row, count in ((address, ROWS[number - 1], count) for address, number, count in sorted(found))]
    return rows + ([{"mnemonic": "", "class": "", "traps": False, "address": None, "count": c.unplaced}] if c.unplaced else [])
