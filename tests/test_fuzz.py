# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the guest: a stop reason, within its time, never a crash.  fuzz_worker.py makes the guests.

The guests run in worker processes; one that dies or stays silent is named by its seed.  The seeds are the same
in every run; PYX86V_FUZZ_SEED=N starts at another place.
"""
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import fuzz_worker
from fuzz_worker import CPU_SECONDS, FAMILIES

GUESTS = 2040                   # run once
CHECKED = 96                    # run again, and under every style and engine
FOUND = (771, 802, 894, 950, 1115, 2915, 3369, 50027, 50133)     # these too: once they did not end as natively
WORKERS = max(1, min(4, os.cpu_count() or 1))
SILENCE = 120                   # seconds without a line: hung, however busy the computer is (the worker's own limit is CPU_SECONDS)
FIRST = int(os.environ.get("PYX86V_FUZZ_SEED", "0"))
REASONS = {"exit", "halt", "shutdown", "limit"}
SAME = ("reason", "status", "instructions", "console", "digest")


class Worker(threading.Thread):
    """One worker process at a time, over its share of the seeds; a new one after each death."""

    def __init__(self, folder, seeds, checks):
        super().__init__(daemon=True)
        self.folder, self.seeds, self.checks, self.results, self.deaths = folder, list(seeds), checks, [], []
        self.start()

    def run(self):
        while self.seeds:
            self.seeds = self.work(self.seeds)

    def work(self, seeds):
        """Run seeds until they are done or the process dies; returns what is left."""
        process = subprocess.Popen([sys.executable, fuzz_worker.__file__, str(self.folder), *map(str, seeds)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "FUZZ_CHECKS": "1" if self.checks else ""})
        guard = threading.Timer(SILENCE, process.kill)
        guard.start()
        running = None
        for line in process.stdout:
            guard.cancel()
            guard = threading.Timer(SILENCE, process.kill)
            guard.start()
            words = json.loads(line)
            if "family" in words:
                running = words
            else:
                self.results.append({**running, **words})
                running = None
        guard.cancel()
        error = process.stderr.read()
        if process.wait() == 0:
            return []
        self.deaths.append(f"{running or seeds[0]}: status {process.returncode} {error[-500:]}")
        return seeds[seeds.index(running["seed"]) + 1:] if running else []


def run_guests(folder, seeds, checks=False):
    """The results of all seeds; fails with the seeds that killed a process."""
    workers = [Worker(folder, seeds[n::WORKERS], checks) for n in range(WORKERS)]
    for worker in workers:
        worker.join()
    deaths = [death for worker in workers for death in worker.deaths]
    assert not deaths, "guests that ended the process:\n  " + "\n  ".join(deaths)
    return [result for worker in workers for result in worker.results]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = Path(tmp_path_factory.mktemp("fuzz"))
    fuzz_worker.build_frame(path)
    return path


def wrong(result):
    """What is wrong with a guest's end, or None."""
    if result["reason"] == "refused":
        return None if result["lines"] == 1 else "refused in more than one line"
    holes = fuzz_worker.options_of(result["seed"])["style"].startswith("trap")      # which such guests are full of
    if result["reason"] not in REASONS and not (holes and result["reason"] == "hole"):
        return f"ended by {result['reason']} {result['status']} {result['detail']}"
    if not result["adds_up"]:
        return "ledger and cycles differ"
    if result["seconds"] > CPU_SECONDS:
        return f"took {result['seconds']} s"
    return None


def test_hostile_guests_end(folder):
    results = run_guests(folder, list(range(FIRST, FIRST + GUESTS)))
    assert len(results) == GUESTS
    bad = [f"seed {result['seed']} ({result['family']}): {wrong(result)}" for result in results if wrong(result)]
    assert not bad, "\n".join(bad)
    ends = {(result["family"], result["reason"]) for result in results}
    # the guests are worth their time: each family runs, and guests of most families get to some end of their own
    assert {family for family, _ in ends} == {family.__name__ for family in FAMILIES}
    assert {"exit", "halt", "shutdown", "limit"} <= {reason for _, reason in ends}
    ran = [result["instructions"] for result in results if result["reason"] != "refused"]
    assert sorted(ran)[len(ran) // 2] > 100


def comparable(result, style):
    """Must the guest end under `style` as natively?

    Not when the frame refused it, or a hole ended it; nor at a limit, which cuts between blocks: these lie elsewhere in
    another engine, are cut at holes, and under bt+shadow lie before a page whose fault a block natively begins with: the counts are
    then equal, and the fault is delivered under one of them only.  Nor under trap+shadow after LAR, LSL, VERR or VERW: against the monitor's empty
    tables they read no descriptor, so no accessed flag of its page is set, even where they give the same value.
    """
    one, other = result["native"], result[style]
    reasons = {one["reason"], other["reason"]}
    if reasons & {"refused", "error", "hole"} or style in ("trap+shadow", "bt+shadow") and "limit" in reasons:
        return False
    if style == "trap+shadow" and result["forgetful"]["silent_reads"]:
        return False
    return reasons != {"limit"} or one["instructions"] == other["instructions"] >= fuzz_worker.SAME["max_instructions"]


def has_one_answer(result):
    """A processor may use a translation that it holds after the tables have changed, until INVLPG, or forget it at any time
    (SDM 3A 4.10.2.3, 4.10.4.3).  A guest that natively ends elsewhere with the smallest TLB than with a large one depends on
    that; shadow tables, which forget at other times, may then show a third end."""
    return all(result["native"][key] == result["forgetful"][key] for key in SAME if key in result["native"])


def differences(result):
    """What differs between native and the other styles and engine, and how many of them could be compared."""
    found, compared = [], 0
    for other in (*(style for style in fuzz_worker.STYLES if style != "native"), "portable"):
        if comparable(result, other) and (not other.endswith("+shadow") or has_one_answer(result)):
            compared += 1
            found += [f"seed {result['seed']} ({result['family']}): {key} is {result['native'][key]!r} natively, {result[other][key]!r} "
                      f"under {other}" for key in SAME if result["native"][key] != result[other][key]]
    return found, compared


def test_the_same_guest_ends_the_same(folder):
    """Again, under every style, and with the portable engine."""
    results = run_guests(folder, [*range(FIRST + 100_000, FIRST + 100_000 + CHECKED), *FOUND], checks=True)
    bad, compared = [], 0
    for result in results:
        again = result["again"]
        if any(again[key] != result[key] for key in again):
            bad.append(f"seed {result['seed']}: not the same when repeated")
        found, count = differences(result)
        bad += found
        compared += count
    assert not bad, "\n".join(bad)
    assert compared > CHECKED * len(fuzz_worker.STYLES) // 2     # of that many pairs
    assert sum(not has_one_answer(result) for result in results) <= CHECKED // 16
