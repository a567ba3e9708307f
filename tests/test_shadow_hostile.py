# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose memory is page tables, thousands of roots among them: shadow tables stay as many as there is room for."""
import os

import pytest

from rom_runs import LIMIT, build_guests, machine_for

SHADOWED = ("vmx+shadow", "svm+shadow", "trap+shadow")
MOST_GROWTH = 4 << 20            # bytes of the process, from when the pool is full


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("manytables"), {"manytables": []})["manytables"]


@pytest.fixture(scope="module")
def native(image):
    machine = machine_for("manytables", image, clock="instructions")
    stop = machine.run(max_instructions=LIMIT)
    return stop, machine.instructions, machine.report, machine.digest()


def resident():
    """Bytes of this process that are in memory."""
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("style", SHADOWED)
def test_tables_everywhere_cost_evictions_not_memory(image, native, style):
    machine = machine_for("manytables", image, style=style, clock="instructions")
    while machine.shadow["evictions"] < 100:
        machine.run(max_instructions=1_000_000)
    full, before = resident(), machine.instructions
    stop = machine.run(max_instructions=LIMIT)
    assert resident() - full < MOST_GROWTH and machine.instructions - before > 100_000
    assert machine.shadow["evictions"] > 10_000
    assert (stop, machine.instructions, machine.report, machine.digest()) == native
