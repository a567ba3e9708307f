# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose memory is page tables, thousands of roots among them: shadow tables stay as many as there is room for."""
import os

import pytest

from rom_runs import LIMIT, build_guests, machine_for

STYLES = ("native", "vmx+shadow", "svm+shadow", "trap+shadow")
WARM, RUN = 17_000_000, 18_300_000           # instructions: the tables are made; most of the roots have been used
MOST_GROWTH = 4 << 20                        # bytes of the process


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("manytables"), {"manytables": []})["manytables"]


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_tables_everywhere_cost_evictions_not_memory(image):
    ends = []
    for style in STYLES:
        machine = machine_for("manytables", image, style=style, clock="instructions")
        machine.run(max_instructions=LIMIT)
        ends.append((machine.instructions, machine.report, machine.digest()))
    assert len(set(map(repr, ends))) == 1
