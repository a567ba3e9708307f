# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel saved at 20 points of its boot: restored in a new process, each goes on as the boot that nobody interrupted.

The points lie at random between the first instruction and the reset, so some are in the decompressor, in early paging, in
interrupt handlers, in the shell's processes.
"""
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyx86v import Machine, StopReason
from snapshot_worker import outcome
from test_snapshot import ENVIRONMENT

POINTS = 20
AT_ONCE = 2                         # restored machines that run side by side
WORKER = Path(__file__).with_name("snapshot_worker.py")

pytestmark = pytest.mark.linux


def go_on(path, *options):
    """The outcome of a new process that restores this file; the file is then gone."""
    try:
        done = subprocess.run([sys.executable, str(WORKER), *options, str(path)], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    finally:
        path.unlink()


def booted(guest, **options):
    return guest.load(Machine(memory=guest.memory, **options))


def points_of(total, seed):
    chance = random.Random(seed)
    return sorted(chance.randrange(1, total - 1000) for _ in range(POINTS))


def saved(machine, count, path):
    assert machine.run(max_instructions=count - machine.instructions).reason is StopReason.LIMIT
    machine.save(path)
    return path


@pytest.mark.parametrize("style, clock", [("native", "cycles"), ("vmx+ept", "instructions")])
def test_from_each_of_twenty_points_to_the_next(linux, tmp_path, style, clock):
    """By induction each ends in the same JSON: what is restored at one point is, at the next, the very state that the boot has there.

    State is compared as the checksum of a snapshot; from the last point on the boot runs to its end, in JSON.
    """
    whole = booted(linux, style=style, clock=clock)
    expected = outcome(whole, whole.run(), full=True)
    assert expected["end"] == {"reason": "shutdown", "status": 0, "detail": "reset"} and "INIT-OK" in expected["json"]["console"]
    counts = points_of(whole.instructions, style)
    machine, running, states = booted(linux, style=style, clock=clock), [], []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, count in enumerate(counts):
            path = saved(machine, count, tmp_path / f"{number}.snap")
            states.append(path.read_bytes()[-32:].hex())
            until = ("--until", str(counts[number + 1])) if number + 1 < POINTS else ("--json", "1")
            running.append(pool.submit(go_on, path, *until))
            if number >= AT_ONCE:
                running[number - AT_ONCE].result()
        *found, last = [task.result() for task in running]
    assert last == expected
    assert [result["state"] for result in found] == states[1:]
