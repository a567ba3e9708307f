# SPDX-License-Identifier: GPL-2.0-or-later
"""Which styles run the systems that nobody here wrote.  A new style adds its name to one of the first two lists.

The suite runs each guest natively and under one style that changes from day to day; `make test-guests` runs them all.
"""
import os
import time

import pytest

EQUAL = ("vmx+shadow", "vmx+ept", "svm+shadow", "svm+npt", "bt+shadow")     # whatever runs natively runs alike under these
HOLES = ("trap+shadow",)                                       # in theory these cannot run a kernel for the bare machine
ALL = os.environ.get("PYX86V_GUESTS") == "all"
DAY = int(time.time()) // 86400
LONGEST_BLOCK = 1100            # instructions


def styles_for(number):
    """The styles of EQUAL that guest `number` runs under today, beside native."""
    return EQUAL if ALL else (EQUAL[(DAY + number) % len(EQUAL)],)


def pairs(guests, first=0):
    """[(guest, style)] of a list of guests, native included, in the order of the guests; `first`: the number of the first."""
    return [(guest, style) for number, guest in enumerate(guests, first) for style in ("native", *styles_for(number))]


def grouped(cases):
    """The cases as parameters; those of one guest stay in one process (pytest --dist loadgroup), where runs are made once."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=pytest.mark.xdist_group(row[0])) for row in rows]


def stop_alike(machine, every=10_000):
    """Run on to the next multiple of `every` instructions: a limit stops between blocks, and those of translated code lie elsewhere."""
    goal = (machine.instructions + 2 * LONGEST_BLOCK) // every * every + every
    machine.run(max_instructions=goal - LONGEST_BLOCK - machine.instructions)
    machine.step(goal - machine.instructions)
    assert machine.instructions == goal
