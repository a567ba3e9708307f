# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots whose shadow tables lie are refused, or run: they never end the process (shadow_forger.py)."""
import json
import subprocess
import sys

import pytest

import shadow_forger
from pyx86v import Machine
from pyx86v.snapshot import SnapshotError
from rom_runs import machine_for
from shadow_forger import PAGE, POOL, Forger

STYLES = ("vmx+shadow", "svm+shadow", "trap+shadow")
SEEDS = 40                       # of each style
NIL = 0xffffffff
RAN = {"limit", "exit", "shutdown", "halt", "hole"}


@pytest.fixture(scope="module", params=STYLES)
def saved(request, tmp_path_factory):
    """A machine with 4-level tables, some of them out of sync."""
    path = tmp_path_factory.mktemp("forged") / "saved"
    machine = machine_for("shadowtorture", style=request.param, shadow_unsync=1)
    machine.run(max_instructions=1_900_000)
    while True:
        machine.run(max_instructions=5000)
        machine.save(path)
        forger = Forger(path)
        if forger.n_unsynced:
            break
    assert forger.n_used >= 8 and forger.n_pages > forger.n_used
    return path


def test_the_truth_is_accepted(saved, tmp_path):
    Forger(saved).save(tmp_path / "again")
    machines = [Machine.restore(path) for path in (saved, tmp_path / "again")]
    ends = [machine.run(max_instructions=200_000) for machine in machines]
    assert ends[0] == ends[1] and machines[0].digest() == machines[1].digest() and machines[0].units == machines[1].units


def page_field(forger, i, name, value):
    fields = dict(zip(("gfn", "next", "older", "newer", "parents", "live", "kind", "level", "quadrant", "clean"), forger.page(i)))
    forger.write(forger.page_array + i * PAGE.size, PAGE.pack(*(fields | {name: value}).values()))


def some_page(forger, level):
    """A used page of this level with entries."""
    return next(i for i in forger.used() if forger.page(i)[7] == level and forger.page(i)[5])


def some_entry(forger, i):
    """(machine address, value) of an entry of the page."""
    for at in range(forger.at + i * 4096, forger.at + i * 4096 + 4096, 8):
        if value := int.from_bytes(forger.read(at, 8), "little"):
            return at, value
    raise LookupError


def change_entry(forger, level, change):
    at, value = some_entry(forger, some_page(forger, level))
    forger.write(at, change(value).to_bytes(8, "little"))


def circle(forger, field):
    """Some list of pages that leads round."""
    one, other = forger.oldest, forger.newest
    page_field(forger, one, field, other)
    page_field(forger, other, field, one)


def link_of(forger, level=1):
    at, _ = some_entry(forger, some_page(forger, level))
    return forger.links + (at - forger.at)


FRAME_OUT = 1 << 51
LIES = {
    "more pages": lambda f: f.put(POOL + 4, f.n_pages + 1),
    "fewer pages": lambda f: f.put(POOL + 4, 8),
    "arrays elsewhere": lambda f: f.put(shadow_forger.CONFIG + shadow_forger.COUNTERS, 0, "<Q"),
    "guest elsewhere": lambda f: f.put(shadow_forger.CONFIG + shadow_forger.COUNTERS + 8, 0x1000, "<Q"),
    "more frames": lambda f: f.put(shadow_forger.CONFIG + shadow_forger.COUNTERS + 16, f.frame_count * 2, "<Q"),
    "more buckets": lambda f: f.put(POOL + 40, 30),
    "more pages used": lambda f: f.put(POOL + 8, f.n_used + 1),
    "no page free": lambda f: f.put(POOL + 12, NIL),
    "free page out of the pool": lambda f: f.put(POOL + 12, f.n_pages),
    "free page in use": lambda f: f.put(POOL + 12, f.oldest),
    "oldest page out of the pool": lambda f: f.put(POOL + 16, 1 << 30),
    "newest page another": lambda f: f.put(POOL + 20, f.oldest),
    "root out of the pool": lambda f: f.put(POOL + 24, f.n_pages),
    "no root": lambda f: f.put(POOL + 24, NIL),
    "root of another level": lambda f: f.put(POOL + 24, some_page(f, 1)),
    "too many out of sync": lambda f: f.put(POOL, 33),
    "one more out of sync": lambda f: f.put(POOL, f.n_unsynced + 1),
    "may have too many out of sync": lambda f: f.put(8, 1000),
    "frame out of sync that is none": lambda f: f.put(POOL - 32 * 8, 1 << 40, "<Q"),
    "ages in a circle": lambda f: circle(f, "newer"),
    "bucket in a circle": lambda f: circle(f, "next"),
    "bucket out of the pool": lambda f: f.write(f.buckets, u32(f.n_pages)),
    "more entries live": lambda f: page_field(f, some_page(f, 1), "live", 600),
    "level 0": lambda f: page_field(f, some_page(f, 1), "level", 0),
    "level 9": lambda f: page_field(f, some_page(f, 4), "level", 9),
    "no such kind": lambda f: page_field(f, some_page(f, 1), "kind", 7),
    "no such quadrant": lambda f: page_field(f, some_page(f, 1), "quadrant", 200),
    "parents out of the pool": lambda f: page_field(f, some_page(f, 1), "parents", f.n_pages * 512),
    "a free page with entries, said to be clean": lambda f: (page_field(f, f.free, "clean", 1), f.write(f.at + f.free * 4096, b"\1")),
    "an entry that maps no memory": lambda f: change_entry(f, 1, lambda e: e | FRAME_OUT),
    "an entry that maps the monitor": lambda f: change_entry(f, 1, lambda e: e & 0xfff | f.at),
    "an entry that points nowhere": lambda f: change_entry(f, 4, lambda e: e | FRAME_OUT),
    "an entry that points to its own page": lambda f: change_entry(f, 3, lambda e: e & 0xfff | f.at + some_page(f, 3) * 4096),
    "an entry not present": lambda f: change_entry(f, 1, lambda e: e & ~1),
    "a large page at level 3": lambda f: change_entry(f, 3, lambda e: e | 0x80),
    "a link out of the pool": lambda f: f.write(link_of(f), u32(f.n_pages * 512)),
    "a link to itself": lambda f: f.write(link_of(f), u32((link_of(f) - f.links) // 8)),
    "a link back elsewhere": lambda f: f.write(link_of(f) + 4, u32(5)),
    "a frame mapped by a slot out of the pool": lambda f: f.write(f.frame_array, u32(f.n_pages * 512)),
    "a frame with tables that has none": lambda f: f.write(f.frame_array + 4, b"\1\0"),
    "a frame without tables that has some": lambda f: f.write(f.frame_array + 8 * f.page(some_page(f, 1))[0] + 4, b"\0\0"),
    "2 MB with more tables": lambda f: f.write(f.large_array + 4, b"\xff\0\0\0"),
    "2 MB mapped by a slot out of the pool": lambda f: f.write(f.large_array, u32(f.n_pages * 512 + 7)),
}


def u32(number):
    return number.to_bytes(4, "little")


def test_lies_are_refused(saved, tmp_path):
    accepted = []
    for name, lie in LIES.items():
        forger = Forger(saved)
        lie(forger)
        forger.save(tmp_path / "lie")
        try:
            Machine.restore(tmp_path / "lie")
            accepted.append(name)
        except SnapshotError as error:
            assert str(error).endswith("shadow: a state that this machine cannot be in"), (name, error)
    assert not accepted


def test_flipped_bytes_end_no_process(saved):
    """Each either refused, or run for 200,000 instructions or to its end."""
    done = subprocess.run([sys.executable, shadow_forger.__file__, str(saved), *map(str, range(SEEDS))], capture_output=True,
                          text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-500:])
    how = [line["how"] for line in lines if "how" in line]
    assert len(how) == SEEDS and "shadow" in how and set(how) & RAN and set(how) <= RAN | {"shadow"}
