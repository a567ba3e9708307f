# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine memory: bounds, widths, open bus; and that the MMU's state is plain bytes."""
import pytest

from mmu_help import *
from pyx86v.mmu.testing import MmuBench


@pytest.mark.parametrize("width", (8, 16, 32, 64))
def test_bounds(width):
    """The last place that fits works; one byte further, and addresses that wrap, read ones and write nothing."""
    bench, n = MmuBench(4096), width // 8
    value = 0x1122334455667788 & (1 << width) - 1
    assert bench.store(4096 - n, width, value) and bench.load(4096 - n, width) == (True, value)
    before = bench.read(0, 4096)
    for at in (4096 - n + 1, 4096, 1 << 63, (1 << 64) - 1, (1 << 64) - n):
        assert not bench.store(at, width, 0)
        assert bench.load(at, width) == (False, (1 << width) - 1)
    assert bench.read(0, 4096) == before


def test_unaligned_little_endian():
    bench = MmuBench(4096)
    bench.write(1, bytes(range(8)))
    assert bench.load(1, 64)[1] == 0x0706050403020100 and bench.load(3, 16)[1] == 0x0302


def test_two_equal_histories_give_equal_state():
    """The state has no pointer and no leftover: the same history gives the same bytes, at another address too."""
    def run():
        bench = MmuBench(1 << 16, {"L2": (16, 4, "random"), "seed": 3, "PDE": (4, 0, "lru")})
        tables = Tables(bench, 0x1000)
        for i in range(40):
            tables.map(i << 12, 0x8000)
        bench.set(cr3=tables.root, **MODES["long"])
        bench.touch([i * 7 % 40 << 12 for i in range(200)])
        bench.invlpg(0x3000)
        return bench
    first, second = run(), run()
    assert first.state() == second.state()
