# SPDX-License-Identifier: GPL-2.0-or-later
"""Several guests in one machine: each is what it is alone, their counts sum to the machine's, and none sees another.

The judge of a guest is the run of the same guest alone, under --clock instructions; of the sums, the machine's own counts;
of isolation, each world's window, and tenants whose registers and memory would show a leak.
"""
import functools
import json
import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyx86v import Machine, StopReason
from pyx86v._core import styles
from pyx86v.cli import guests
from pyx86v.cost.profile import load_profile
from rom_runs import HEADS, machine_for
from test_cli_machine import pyx, strip

SHORT = ("hello", "clockread", "v86", "modes", "demand", "fpu", "portio", "mmio", "tenant", "gates64", "splitfault")
SWITCH = {name: load_profile(name).cycles("switch_task") for name in ("skylake", "p4-672")}
TENANT_PAGES = 96


def runnable(style):
    """ROMs that run under the style alone to their own end."""
    return [name for name in SHORT if style in HEADS[name]["styles"]]


def machine_with(parts, **options):
    """A machine with [(ROM, style)], loaded.  Tenant i is told that it is tenant i + 1."""
    machine = Machine(guests=[{"style": style, "memory": int(HEADS[name]["memory"].rstrip("M")) << 20} for name, style in parts],
                      **options)
    for guest, (name, _) in zip(machine.guests, parts, strict=True):
        guest.load(guests.image(name), kernel_args=str(guest.index + 1) if name == "tenant" else "")
    return machine


def left_by(guest):
    return {key: getattr(guest, key) for key in ("instructions", "console", "report", "events")} | {"digest": guest.digest()}


@functools.cache
def alone(name, style, profile, number):
    """What the guest leaves that has the machine for itself."""
    machine = Machine(memory=int(HEADS[name]["memory"].rstrip("M")) << 20, style=style, profile=profile, clock="instructions")
    machine.load(guests.image(name), kernel_args=str(number) if name == "tenant" else "")
    return machine.run(), left_by(machine)


def check_sums(machine):
    """What the guests have of the machine's counts is all of them."""
    for name in ("units", "instructions"):
        assert sum(getattr(guest, name) for guest in machine.guests) == getattr(machine, name)
    for name in ("ledger_units", "tlb"):
        for key, value in getattr(machine, name).items():
            assert sum(getattr(guest, name)[key] for guest in machine.guests) == value, (name, key)
    for key in ("count", "references", "rewalks", "page_faults", "pdpte_loads"):
        assert sum(guest.walks[key] for guest in machine.guests) == machine.walks[key]
    for guest in machine.guests:
        assert sum(guest.ledger_units.values()) == guest.units and sum(guest.ledger.values()) == guest.cycles


parts_of_a_machine = st.lists(st.sampled_from(sorted(styles())).flatmap(
    lambda style: st.tuples(st.sampled_from(runnable(style)), st.just(style))), min_size=2, max_size=4)


@settings(max_examples=8, deadline=None)
@given(parts=parts_of_a_machine, quantum=st.sampled_from((5000, 300_000)), asids=st.sampled_from((None, 1, 2)),
       profile=st.sampled_from(("skylake", "p4-672", "zen")))
@example(parts=[("hello", "native"), ("hello", "bt+shadow")], quantum=5000, asids=None, profile="skylake")
def test_each_guest_is_what_it_is_alone(parts, quantum, asids, profile):
    machine = machine_with(parts, clock="instructions", quantum=quantum, asids=asids, profile=profile)
    machine.run()
    for guest, (name, style) in zip(machine.guests, parts, strict=True):
        assert (guest.end, left_by(guest)) == alone(name, style, profile, guest.index + 1)
    check_sums(machine)


@pytest.mark.parametrize("engine", ["inline", "portable"])
def test_a_hundred_thousand_switches(engine):
    """Tenants at the same addresses under every style: nothing of one's registers and memory ever reaches another."""
    names = sorted(name for name in styles() if name in HEADS["tenant"]["styles"] and (engine == "inline" or name != "bt+shadow"))
    parts = [("tenant", name) for name in (names * 4)[:max(4, len(names))]]
    machine = machine_with(parts, clock="instructions", quantum=220 if engine == "inline" else 100_000, engine=engine)
    machine.run()
    assert machine._worlds()["switches"] > (100_000 if engine == "inline" else 200)
    assert len({guest.console for guest in machine.guests}) == len(parts)
    for guest, (name, style) in zip(machine.guests, parts, strict=True):
        assert (guest.end, left_by(guest)) == alone(name, style, "skylake", guest.index + 1)


def test_the_same_run_twice_sliced_and_restored(tmp_path):
    """Where run() stops, and whether the machine is saved there and restored, changes nothing of what comes."""
    parts = [("timer", "vmx+ept"), ("tenant", "native"), ("clockread", "vmx+ept"), ("v86", "native")]

    def outcome(machine):
        return [(guest.end, left_by(guest), guest.ledger_units, guest.tlb, guest.exits) for guest in machine.guests] + [machine.units]

    for clock in ("cycles", "instructions"):
        machine = machine_with(parts, clock=clock, quantum=5000)
        machine.run()
        expected = outcome(machine)
        machine, chance = machine_with(parts, clock=clock, quantum=5000), random.Random(clock)
        for cut in range(24):
            stop = machine.run(**{("max_cycles", "max_instructions")[cut & 1]: chance.randrange(1, 400_000)})
            assert stop.reason is StopReason.LIMIT
            if cut % 3 == 0:
                machine.save(tmp_path / "several.snap")
                machine = Machine.restore(tmp_path / "several.snap")
        machine.run()
        assert outcome(machine) == expected


def test_tags_keep_what_other_guests_leave_alone():
    """Two tenants at the same addresses: with tags no switch costs a translation; without, each drops all of them."""
    misses = {}
    for asids in (None, 1):
        machine = machine_with([("tenant", "vmx+ept")] * 2, quantum=20_000, asids=asids)
        machine.run()
        misses[asids] = machine.tlb["misses"]
        switches = machine._worlds()["switches"]
        assert switches > 100
    single = [machine_with([("tenant", "vmx+ept")]) for _ in range(2)]
    for machine in single:
        machine.run()
    assert misses[None] == sum(machine.tlb["misses"] for machine in single)     # skylake's second level holds both
    assert misses[1] > misses[None] + 2 * switches                              # code and data, at each switch
    untagged = machine_with([("tenant", "native")] * 2, quantum=20_000, profile="p4-672")
    untagged.run()
    assert untagged.ledger["world_switch"] == untagged._worlds()["switches"] * SWITCH["p4-672"]
    assert untagged.tlb["flushes"] >= untagged._worlds()["switches"]


def test_address_line_20_is_one_guests_own():
    """A guest that moves its A20 line all the time (XOR $2, %al; OUT %al, $0x92; JMP) drops its own translations alone."""
    machine = machine_with([("hello", "vmx+ept"), ("tenant", "vmx+ept")], quantum=20_000)
    machine.guests[0].write_memory(0x8000, bytes.fromhex("3402e692ebfa"))
    machine.guests[0].set_register("rip", 0x8000)
    while machine.guests[1].end is None:
        machine.run(max_cycles=10_000_000)
    single = machine_with([("tenant", "vmx+ept")])
    single.run()
    assert machine.guests[0].tlb["flushes"] > 1000
    assert machine.guests[1].tlb["misses"] == single.tlb["misses"]


def test_generations_of_tags():
    """Three guests and two tags: a new generation begins at every other switch and flushes everything, as one tag does."""
    flushes = {}
    for asids in (3, 2, 1):
        machine = machine_with([("tenant", "vmx+ept")] * 3, quantum=20_000, asids=asids)
        machine.run()
        flushes[asids] = machine.tlb["flushes"]
        switches = machine._worlds()["switches"]
        if asids == 3:
            base = flushes[3]
        elif asids == 2:
            assert abs(flushes[2] - base - switches / 2) <= 3
        else:
            assert abs(flushes[1] - base - switches) <= 3


def test_a_new_tag_comes_before_a_shadow_fault():
    """The exit after it may come in the middle of a block, where the VM-entry checks have no flags to look at."""
    machine = machine_with([("tenant", "vmx+shadow"), ("tenant", "svm+shadow")], quantum=1000, asids=1)
    machine.run(max_instructions=80_000)
    assert [guest.end for guest in machine.guests] == [None, None]


@pytest.mark.parametrize("style, profile", [("vmx+shadow", "p4-672"), ("native", "core2"), ("svm+npt", "core2")])
def test_a_turn_shorter_than_the_walks_that_it_begins_with(style, profile):
    """Without tags each turn begins with an empty TLB: every one gets an instruction further all the same."""
    machine = machine_with([("tenant", style)] * 2, quantum=5, profile=profile)
    machine.run(max_cycles=50_000_000)
    assert all(guest.instructions > 1000 for guest in machine.guests)


def test_one_waits_while_the_other_runs():
    """Time in which one guest is halted is the other's, as far as that has work: together they take less than one after the other."""
    times = {}
    for parts in ([("timer", "native")], [("qsort", "native")], [("timer", "native"), ("qsort", "native")]):
        machine = machine_with(parts)
        machine.run()
        times[len(times)] = machine.units, machine.ledger_units["idle"]
        check_sums(machine)
    (timer, idle), (qsort, _), (both, left) = times.values()
    assert idle > qsort and left < idle and both < timer + qsort // 4


def test_breakpoints_belong_to_one_guest():
    machine = machine_with([("hello", "native"), ("hello", "vmx+ept"), ("hello", "native")], quantum=50)
    entry = machine.guests[1].registers["rip"]
    for address in (entry, entry + 0x10000):
        machine.guests[1].add_breakpoint(address)
    stop = machine.run()
    assert stop.reason is StopReason.BREAKPOINT and machine.guests[1].instructions == 0
    machine.guests[1].remove_breakpoint(entry)
    assert machine.run().reason is StopReason.EXIT
    assert [guest.end.status for guest in machine.guests] == [0, 0, 0]


def test_python_devices_belong_to_one_guest():
    class Words(list):
        def port_in(self, port, size):
            return 0

        def port_out(self, port, size, value):
            self.append(value)

    machine, words = machine_with([("tenant", "native"), ("tenant", "vmx+ept")], quantum=3000), Words()
    machine.guests[1].add_port_device(0xE8, 4, words)
    machine.run()
    assert machine.guests[1].report == [] and words == alone("tenant", "native", "skylake", 2)[1]["report"]
    assert machine.guests[0].report == alone("tenant", "native", "skylake", 1)[1]["report"]


def test_every_style_has_a_price_for_the_switch():
    for style in styles():
        machine = machine_with([("hello", style)] * 2, quantum=100)
        machine.run(max_cycles=5_000_000)
        assert machine.ledger["world_switch"] >= machine._worlds()["switches"] * 1000 > 0


@pytest.mark.parametrize("options, word", [({"guests": []}, "guests"), ({"guests": [{}] * 17}, "guests"),
                                           ({"guests": [{"style": "xyz"}, {}]}, "style"), ({"guests": [{"memory": 5}, {}]}, "memory"),
                                           ({"quantum": 0}, "quantum"), ({"asids": 65536}, "asids")])
def test_what_cannot_be(options, word):
    with pytest.raises(ValueError, match=f"^{word}"):
        Machine(**options)


def test_a_guest_that_is_not_loaded():
    machine = Machine(guests=[{}, {}])
    machine.guests[0].load(guests.image("hello"))
    with pytest.raises(ValueError, match="no guest"):
        machine.run()


def test_command_line():
    line = ("run", "--guest", "tenant,style=vmx+ept,kernel_args=3", "--guest", "timer,memory=32M", "--quantum", "20000", "--json", "-")
    one, other = pyx(*line), pyx(*line)
    assert one.returncode == 0 and strip(one.stdout) == strip(other.stdout)
    result = json.loads(one.stdout)
    first, second = result["guests"]
    assert (first["style"], second["style"]) == ("vmx+ept", "native") and result["style"] == "vmx+ept,native"
    assert set(first) == set(result) - {"wall_s"}
    for key in ("instructions", "console"):
        assert result[key] == first[key] + second[key]
    assert sum(result["ledger"].values()) == result["cycles"] and first["exits"] == result["exits"]
    shown = pyx("run", "--guest", "tenant", "--guest", "hello,style=vmx+ept")
    assert shown.returncode == 0 and "0| tenant 1" in shown.stdout and "1| OK" in shown.stdout and "vmx+ept" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize("line, word", [(("run",), "GUEST"), (("run", "hello", "--guest", "hello"), "either"),
                                        (("run", "--guest", "hello,colour=red"), "colour"), (("run", "--guest", "nosuch"), "nosuch")])
def test_command_line_mistakes(line, word):
    done = pyx(*line)
    assert done.returncode == 2 and word in done.stderr and len(done.stderr.splitlines()) == 1
