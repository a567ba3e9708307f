# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the machine is, beside plain Unicorn and QEMU.  `make bench` runs this and bench/report.py.

Every measurement takes its turns with what it is compared to, and the best of the rounds counts.  Times are those
of the thread (`--benchmark-timer=time.thread_time`): on an idle machine the wall time, on a busy one what
the wall time would be if the machine were idle.  Creating a machine and loading it is not in them, translating is.
Each benchmark leaves in `extra_info`: table, name, value, unit, target ("at least" or "at most", number) and notes.
"""
import os
import statistics
import time
from pathlib import Path

import pytest

import linux_guest
from plain import Plain
from pyx86v import Machine
from pyx86v.cost.block import BlockDecoder
from pyx86v.cost.heat import CodeHeat
from pyx86v.cost.model.profile import load_model
from pyx86v.cost.profile import load_profile
from pyx86v.report.blocks import read_blocks
from subjects import EVENTS, PAGED, QEMU, ROUNDS, compute_roms, micro, qemu_linux, rom

TURNS = int(os.environ.get("PYX86V_BENCH_TURNS", 5))
SHORT = 3 * TURNS               # of what takes milliseconds, which a busy moment spoils
HOOKED = 200_000                # instructions that the Python hook counts
RATIO = {"inline": ("at least", 0.8), "portable": ("at least", 0.55)}
EXITS = {"paged cpuid": ("vmx+ept", "vmx+shadow", "svm+npt", "svm+shadow"), "paged cli": ("trap+shadow",),
         "PTE, INVLPG, load": ("vmx+shadow", "svm+shadow", "trap+shadow")}
BLOCKS = Path(__file__).resolve().parents[1] / "tests" / "data" / "bhive_skylake.csv"
PLAIN_BYTES = 240               # of a block, that one analysis takes (cost/heat.pxd)
SLICE, LONG_SLICE = 30, 10**9   # cycles of a guest's turn
QEMUS = {"native": ("at most", 1.2), "vmx+ept": ("at most", 1.5), "vmx+shadow": None, "svm+npt": None}       # times QEMU's time for Linux
PER_MISS = {"native": ("at most", 170), "vmx+ept": ("at most", 200)}


def machine(path, style="native", engine="inline", **options):
    made = Machine(style=style, engine=engine, **options)
    made.load(path)
    return made


def in_turns(benchmark, make, other=lambda: 0, turns=TURNS):
    """Run the machines that make() gives, each after a turn of other().

    Returns the last machine, the seconds of each run and what other() gave.
    """
    theirs, last = [], []

    def setup():
        theirs.append(other())
        last[:] = [make()]

    benchmark.pedantic(lambda: last[0].run(), setup=setup, rounds=turns)
    return last[0], list(benchmark.stats.stats.data), theirs


def note(benchmark, table, name, value, unit, target=None, **notes):
    benchmark.extra_info.update(table=table, name=name, value=value, unit=unit, target=target, notes=notes)


@pytest.fixture(scope="session")
def seen():
    """{ROM: (instructions, cycles, console, digest)}: both engines must give the same."""
    return {}


@pytest.mark.parametrize("engine", RATIO)
@pytest.mark.parametrize("name", compute_roms())
def test_compute(benchmark, seen, name, engine):
    plain = []

    def other():
        plain[:] = [Plain(rom(name))]
        return plain[0].run()

    ours, mine, theirs = in_turns(benchmark, lambda: machine(rom(name), engine=engine), other)
    assert ours.console == bytes(plain[0].console) and plain[0].status == 0
    result = ours.instructions, ours.cycles, ours.console, ours.digest()
    assert seen.setdefault(name, result) == result
    note(benchmark, f"compute, {engine}", name, min(theirs) / min(mine), "x plain Unicorn", RATIO[engine],
         median=statistics.median(t / m for t, m in zip(theirs, mine)), plain_mips=ours.instructions / min(theirs) / 1e6,
         mips=ours.instructions / min(mine) / 1e6, instructions=ours.instructions)


@pytest.mark.parametrize("style", PER_MISS)
def test_tlb_miss(benchmark, style):
    def other():
        return Plain(rom("tlbworst")).run()

    ours, mine, theirs = in_turns(benchmark, lambda: machine(rom("tlbworst"), style), other)
    first = ours.tlb["l1d_misses"] + ours.tlb["l1i_misses"]
    note(benchmark, "TLB misses", style, min(mine) * 1e9 / first, "ns a miss", PER_MISS[style],
         median=statistics.median(mine) * 1e9 / first, misses=first, per_1000=first * 1000 / ours.instructions,
         walks=ours.walks["count"], ns_a_walk=min(mine) * 1e9 / ours.walks["count"], plain_ns_a_miss=min(theirs) * 1e9 / first)


def test_python_hook(benchmark):
    def other():
        plain = Plain(rom("branchy"))
        plain.count_in_python(HOOKED)
        return plain.run() / plain.instructions

    ours, mine, theirs = in_turns(benchmark, lambda: machine(rom("branchy")), other)
    note(benchmark, "against a Python UC_HOOK_CODE counter", "branchy", min(theirs) / (min(mine) / ours.instructions), "times as fast",
         ("at least", 50), hook_ns=min(theirs) * 1e9, ns=min(mine) * 1e9 / ours.instructions)


@pytest.mark.parametrize("style", PER_MISS)
@pytest.mark.parametrize("event", EVENTS[1:])
def test_event(benchmark, event, style):
    """What one event takes, beyond the loop around it."""
    def other():
        empty = machine(micro("nothing"), style)
        start = time.thread_time()
        empty.run()
        return time.thread_time() - start

    ours, mine, theirs = in_turns(benchmark, lambda: machine(micro(event), style), other, SHORT)
    assert ours.instructions >= 3 * ROUNDS
    note(benchmark, "events", f"{event}, {style}", (min(mine) - min(theirs)) * 1e9 / ROUNDS, "ns", exits=sum(e["count"] for e in ours.exits.values()))


@pytest.mark.parametrize("event, style", [(event, style) for event in EXITS for style in EXITS[event]])
def test_exit(benchmark, event, style):
    """What an exit takes, beyond the loop around it."""
    def other():
        empty = machine(micro(PAGED[0]), style)
        start = time.thread_time()
        empty.run()
        exits.append(sum(kind["count"] for kind in empty.exits.values()))
        return time.thread_time() - start

    exits = []
    ours, mine, theirs = in_turns(benchmark, lambda: machine(micro(event), style), other, SHORT)
    count = sum(kind["count"] for kind in ours.exits.values()) - exits[0]
    assert count >= ROUNDS
    walks = ours.walks["count"] / ROUNDS
    note(benchmark, "exits", f"{event}, {style}", (min(mine) - min(theirs)) * 1e9 / count, "ns an exit", ("at most", 300) if walks < 1 else None,
         exits_a_round=count / ROUNDS, walks_a_round=walks)


@pytest.mark.parametrize("style", ["native", "vmx+ept", "vmx+shadow", "svm+npt", "svm+shadow", "trap+shadow"])
def test_switch_of_worlds(benchmark, style):
    """Two guests that take turns all the time against the same two with one turn each."""
    def two(quantum):
        made = Machine(guests=[{"style": style}] * 2, memory=16 << 20, quantum=quantum)
        for guest in made.guests:
            guest.load(micro(PAGED[0]))
        return made

    def other():
        few = two(LONG_SLICE)
        start = time.thread_time()
        few.run()
        misses.append(few.tlb["misses"])
        return time.thread_time() - start

    misses = []
    ours, mine, theirs = in_turns(benchmark, lambda: two(SLICE), other, SHORT)
    switches = ours._worlds()["switches"]
    assert switches > 5000
    note(benchmark, "a switch of worlds", style, (min(mine) - min(theirs)) * 1e9 / switches, "ns", ("at most", 1000), switches=switches,
         walks_a_switch=(ours.tlb["misses"] - misses[0]) / switches)


def block_times(run, prepare):
    """Seconds of run(code, state) for each of BHive's blocks that one analysis takes, after prepare() has made the state."""
    state, seconds = prepare(), []
    for code, _ in read_blocks(BLOCKS):
        if len(code) <= PLAIN_BYTES:
            start = time.perf_counter()
            run(code, state)
            seconds.append(time.perf_counter() - start)
    return seconds


def first_times():
    """Of decoding, the classes' prices and the entry where executions are counted; Python's two calls and a list included."""
    profile = load_profile("skylake")

    def run(code, state):
        marks = state[0].block(code)
        state[1].execute(code, 64, min(len(marks), 64), marks[-1][1])

    return block_times(run, lambda: (BlockDecoder(profile.instructions), CodeHeat(load_model("skylake"), profile.block_model_after)))


def model_times():
    """Of the block model's price, at the execution that asks for it; Python's call included."""
    return block_times(lambda code, heat: heat.execute(code, 64, 1, 64), lambda: CodeHeat(load_model("skylake"), 1))


def least_mean(rounds):
    """Mean over the blocks of the least of the rounds."""
    return statistics.mean(min(each) for each in zip(*rounds))


@pytest.mark.parametrize("name, most, times", [("at first sight", 2, first_times), ("by the model", 20, model_times)])
def test_block_price(benchmark, name, most, times):
    rounds = []
    benchmark.pedantic(lambda: rounds.append(times()), rounds=SHORT)
    note(benchmark, "block prices", name, least_mean(rounds) * 1e6, "microseconds a block", ("at most", most),
         worst=max(min(each) for each in zip(*rounds)) * 1e6, blocks=len(rounds[0]))


def test_block_prices_of_linux(benchmark):
    """What both prices take of a boot: as often as Machine.blocks says, each as long as here."""
    try:
        linux = linux_guest.linux()
    except linux_guest.Unavailable as reason:
        pytest.skip(str(reason))
    ours, mine, theirs = in_turns(benchmark, lambda: linux.load(Machine(memory=linux.memory)), lambda: (first_times(), model_times()), max(2, TURNS // 2))
    first, model = (least_mean(rounds) for rounds in zip(*theirs))
    seen, modelled = ours.blocks["seen"], ours.blocks["modelled"]
    note(benchmark, "block prices of Linux", "native", 100 * (seen * first + modelled * model) / min(mine), "% of the boot", ("at most", 10),
         seconds=min(mine), seen=seen, modelled=modelled)


@pytest.mark.skipif(not QEMU, reason="qemu-system-x86_64 missing: apt install qemu-system-x86")
@pytest.mark.parametrize("style", QEMUS)
def test_linux(benchmark, style):
    try:
        linux = linux_guest.linux()
    except linux_guest.Unavailable as reason:
        pytest.skip(str(reason))

    def other():
        runs = qemu_linux(linux), qemu_linux(linux, "-icount", "shift=0")
        assert all(linux.expected[0].encode() in console for _, _, console in runs)
        return [cpu for _, cpu, _ in runs]

    def make():
        return linux.load(Machine(style=style, memory=linux.memory))

    ours, mine, theirs = in_turns(benchmark, make, other, max(2, TURNS // 2))
    assert linux.expected[0].encode() in ours.console
    tcg, icount = (min(column) for column in zip(*theirs))
    note(benchmark, "Linux to its end", style, min(mine) / tcg, "x QEMU's time", QEMUS[style],
         seconds=min(mine), qemu_seconds=tcg, icount_seconds=icount, times_icount=min(mine) / icount, mips=ours.instructions / min(mine) / 1e6)


def beside(benchmark, make, style, base, turns=max(2, TURNS // 2)):
    """make(style) in turns with make(base).  The first's last machine, and the seconds of both, round by round."""
    def other():
        machine = make(base)
        start = time.thread_time()
        machine.run()
        return time.thread_time() - start

    return in_turns(benchmark, lambda: make(style), other, turns)


def linux_beside(benchmark, style, base):
    """The same for Debian's kernel to its end."""
    try:
        linux = linux_guest.linux()
    except linux_guest.Unavailable as reason:
        pytest.skip(str(reason))
    ours, mine, theirs = beside(benchmark, lambda style: linux.load(Machine(style=style, memory=linux.memory)), style, base)
    assert linux.expected[0].encode() in ours.console
    return ours, min(mine), min(theirs)


def test_linux_on_shadow_tables(benchmark):
    """Debian's kernel to its end: shadow tables against EPT."""
    ours, mine, theirs = linux_beside(benchmark, "vmx+shadow", "vmx+ept")
    note(benchmark, "Linux on shadow tables", "vmx+shadow", mine / theirs, "x the time of vmx+ept", ("at most", 1.3), seconds=mine,
         ept_seconds=theirs, exits=sum(kind["count"] for kind in ours.exits.values()))


def test_linux_translated(benchmark):
    """Debian's kernel to its end: binary translation against native."""
    ours, mine, theirs = linux_beside(benchmark, "bt+shadow", "native")
    count = ours.translation_counts
    note(benchmark, "Linux translated", "bt+shadow", mine / theirs, "x the time of native", ("at most", 3.0), seconds=mine, native_seconds=theirs,
         units=count["units"], dispatches=count["dispatches"], call_outs=count["callouts"])


@pytest.mark.parametrize("name", compute_roms())
def test_translated(benchmark, name):
    """The compute ROMs: binary translation against native, making the translations included.

    A few percent, where the best of a side may be a round when the machine was fast: so each round is compared with the one before it.
    """
    ours, mine, theirs = beside(benchmark, lambda style: machine(rom(name), style), "bt+shadow", "native", turns=2 * SHORT)
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    note(benchmark, "compute, translated", name, ratio, "x the time of native", ("at most", 1.1), best=min(mine) / min(theirs),
         units=ours.translation_counts["units"], dispatches=ours.translation_counts["dispatches"])
