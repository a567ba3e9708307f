# SPDX-License-Identifier: GPL-2.0-or-later
"""Clock policies, and the probe that measures outside (ROM plateau): what the guest's clocks show of machine time."""
import functools
import json

import pytest

from pyx86v import Machine, StopReason, cli
from pyx86v.clocks import plateaus, policy
from images import multiboot_elf
from rom_runs import LIMIT, machine_for

HIDDEN = ("exit", "entry", "vmcs", "emulation", "shadow", "world_switch")       # causes that are the monitor's
TICK_CLOCKS = 239                # of the 8254, in ROM plateau: at 1,193,182 Hz
HERTZ = 3_400_000_000            # skylake


@functools.cache
def plateau(style, tsc="equal", timers="equal", clock="cycles", engine="inline"):
    """(user, all, real in thousandths of a tick), the plateau, console and guest time of the ROM."""
    machine = machine_for("plateau", style=style, tsc=tsc, timers=timers, clock=clock, engine=engine)
    stop = machine.run(max_instructions=LIMIT)
    assert (stop.reason.value, stop.status) == ("exit", 0), machine.console
    assert len(machine.probe) == 1
    return machine.report, machine.probe[0], machine.console, machine


# ---------------------------------------------------------------- figure IV.5

def test_natively_time_is_what_it_is():
    (user, every, real), probe, console, _ = plateau("native")
    assert 0 < user <= every and user * 1000 <= real
    assert b"as it should be" in console
    assert abs(probe["tsc"] - probe["cycles"]) <= 1 and abs(probe["timers"] - probe["cycles"]) <= 1
    outside = probe["cycles"] / HERTZ * 1_193_182 / TICK_CLOCKS      # in ticks
    assert every == pytest.approx(outside, abs=1) and real / 1000 == pytest.approx(outside, rel=0.01)


@pytest.mark.parametrize("style", ["vmx+ept", "svm+npt", "vmx+shadow", "trap+shadow"])
def test_user_time_is_more_than_real_time_where_the_tsc_hides_the_monitor(style):
    """The timer's ticks go on while the monitor works, and find the program; the TSC, by which `real` is told, does not."""
    (user, _, real), probe, console, _ = plateau(style, tsc="hidden")
    exits = style != "trap+shadow"                                   # CPUID is not privileged: only hardware lets it exit
    assert (user * 1000 > 1.2 * real) == exits and (b"more than real" in console) == exits
    assert (probe["tsc"] < 0.8 * probe["cycles"]) == exits
    assert probe["timers"] == pytest.approx(probe["cycles"], abs=1)
    assert user == pytest.approx(probe["cycles"] / HERTZ * 1_193_182 / TICK_CLOCKS, abs=1), "ticks are right, `real` is not"


def test_the_other_way_round_user_time_gets_lost():
    (user, _, real), probe, _, _ = plateau("vmx+ept", timers="hidden")
    assert user * 1000 < 0.6 * real
    assert probe["timers"] < 0.6 * probe["tsc"] and probe["tsc"] == pytest.approx(probe["cycles"], abs=1)


def test_with_both_hidden_only_the_probe_sees_the_hypervisor():
    (user, _, real), probe, console, _ = plateau("vmx+ept", tsc="hidden", timers="hidden")
    _, bare, _, _ = plateau("native")
    assert user * 1000 <= real and b"as it should be" in console
    assert probe["tsc"] == pytest.approx(probe["timers"], abs=1)
    assert probe["tsc"] < 1.01 * bare["cycles"] < 0.7 * probe["cycles"]


# ---------------------------------------------------------------- the policies themselves

@pytest.mark.parametrize("style", ["native", "vmx+ept", "vmx+shadow", "svm+npt", "trap+shadow"])
def test_hidden_time_is_the_monitors_causes(style):
    machine = machine_for("plateau", style=style, timers="hidden")
    machine.run(max_instructions=10_000_000)
    units = machine.ledger_units
    assert machine.guest_time == (machine.units - sum(units[cause] for cause in HIDDEN)) // 64
    assert (machine.guest_time == machine.cycles) == (style == "native")


@pytest.mark.parametrize("text, ratio", [("scale=1/2", 0.5), ("scale=7/3", 7 / 3), ("scale=2", 2)])
def test_scaled_clocks_keep_their_ratio(text, ratio):
    _, probe, _, _ = plateau("vmx+ept", tsc=text)
    assert probe["tsc"] == pytest.approx(probe["cycles"] * ratio, abs=3) and probe["timers"] == pytest.approx(probe["cycles"], abs=1)
    (user, _, real), probe, console, _ = plateau("vmx+ept", tsc=text, timers=text)
    assert probe["tsc"] == pytest.approx(probe["timers"], abs=3) == pytest.approx(probe["cycles"] * ratio, abs=3)
    assert b"as it should be" in console and user * 1000 <= 1.001 * real       # whole ticks, and a clock calibrated by them


def test_an_offset_is_on_every_reading():
    """clockread reports the TSC's two halves, the 8254's count and the clock chip's second, twice."""
    def readings(offset):
        machine = machine_for("clockread", tsc=f"offset={offset}")
        machine.run(max_instructions=LIMIT)
        words = machine.report
        return [words[at] | words[at + 1] << 32 for at in (0, 4)], words[2:4] + words[6:8]
    stamps, others = readings(0)
    for offset in (1_000_000, -7, 1 << 40):
        moved, same = readings(offset)
        assert [(a - b) % 2**64 for a, b in zip(moved, stamps)] == [offset % 2**64] * 2 and same == others


@pytest.mark.parametrize("both", ["hidden", "scale=2/3", "scale=5/2"])
@pytest.mark.parametrize("style", ["native", "vmx+ept", "vmx+shadow"])
def test_all_clocks_of_a_guest_agree_under_one_policy(style, both):
    """clockread compares TSC, 8254 and clock chip, lapic the local APIC's timer with both, x2apic its deadline with the TSC."""
    for name in ("clockread", "timer", "lapic", "x2apic"):
        machine = machine_for(name, style=style, tsc=both, timers=both)
        stop = machine.run(max_instructions=LIMIT)
        assert (stop.reason.value, stop.status) == ("exit", 0), (name, machine.console)


@pytest.mark.slow
@pytest.mark.parametrize("tsc, timers", [("hidden", "equal"), ("scale=2/3", "scale=2/3"), ("offset=99", "scale=3")])
def test_under_instructions_no_style_shows(tsc, timers):
    reference = plateau("native", tsc, timers, "instructions")
    for style in ("vmx+ept", "trap+shadow"):
        report, probe, console, machine = plateau(style, tsc, timers, "instructions")
        assert (report, console, machine.digest()) == (*reference[::2], reference[3].digest())
        assert [probe[key] for key in ("tsc", "timers", "instructions")] == [reference[1][key] for key in ("tsc", "timers", "instructions")]


@pytest.mark.parametrize("tsc, timers", [("equal", "equal"), ("hidden", "scale=1/3")])
def test_both_engines_see_the_same_edges(tsc, timers):
    assert plateau("vmx+ept", tsc, timers)[:3] == plateau("vmx+ept", tsc, timers, engine="portable")[:3]


def test_where_tsc_and_timers_differ_there_is_no_deadline_mode():
    def offers_deadline(**clocks):
        machine = machine_for("x2apic", **clocks)
        assert machine.run(max_instructions=LIMIT).status == 0, machine.console
        return b"no deadline" not in machine.console
    assert offers_deadline() and offers_deadline(tsc="hidden", timers="hidden") and offers_deadline(tsc="offset=-5")
    assert not offers_deadline(tsc="scale=2") and not offers_deadline(timers="hidden")


FAR_DEADLINE = bytes.fromhex("b8ff010000a3f000e0fe"          # mov $0x1ff, %eax; mov %eax, 0xfee000f0: the local APIC is on
                             "b840000400a32003e0fe"          # mov $0x40040, %eax; mov %eax, 0xfee00320: its timer goes by deadline
                             "b9e006000031c0ba000000080f30"  # IA32_TSC_DEADLINE = 2**59
                             "fbf4")                         # sti; hlt


@pytest.mark.parametrize("clocks", [{}, {"tsc": "scale=1/65535", "timers": "scale=1/65535"}])
@pytest.mark.parametrize("guests", [1, 2])
def test_a_wait_of_centuries_is_one_for_good(tmp_path, guests, clocks):
    (tmp_path / "far.elf").write_bytes(multiboot_elf(code=FAR_DEADLINE))
    machine = Machine(guests=[{}] * guests, memory=2 << 20, **clocks)
    for guest in machine.guests:
        guest.load(tmp_path / "far.elf")
    assert machine.run(max_cycles=1_000_000_000).reason is StopReason.HALT
    assert machine.cycles < 10_000_000


def test_a_snapshot_in_the_middle_keeps_the_edge(tmp_path):
    whole = plateau("vmx+ept", "hidden", "scale=1/3")
    machine = machine_for("plateau", style="vmx+ept", tsc="hidden", timers="scale=1/3")
    machine.run(max_cycles=whole[1]["start"] + whole[1]["cycles"] // 2)
    assert machine.probe == []
    machine.save(tmp_path / "half.snap")
    other = Machine.restore(tmp_path / "half.snap")
    other.run(max_instructions=LIMIT)
    assert (other.report, other.probe[0], other.console) == whole[:3]


def test_the_line_is_read_back_and_only_bit_0_is_probed():
    edges = [(1, 640, 5, 100, 90), (0, 6400, 50, 200, 95), (0, 9999, 60, 300, 99), (1, 64000, 70, 50, 100), (0, 64064, 71, 20, 101), (1, 70000, 80, 1, 1)]
    assert plateaus(edges) == [{"start": 10, "cycles": 90, "instructions": 45, "tsc": 100, "timers": 5},
                               {"start": 1000, "cycles": 1, "instructions": 1, "tsc": 2**64 - 30, "timers": 1}]


@pytest.mark.parametrize("name, text, offsets", [
    ("tsc", "fast", True), ("tsc", "scale=0/1", True), ("tsc", "scale=1/0", True), ("tsc", "scale=65536", True), ("tsc", "scale=-1", True),
    ("tsc", "offset=", True), ("tsc", "offset=99999999999999999999", True), ("timers", "offset=5", False), ("tsc", "", True), ("tsc", None, True)])
def test_a_wrong_policy_is_one_line(name, text, offsets):
    with pytest.raises(ValueError) as caught:
        policy(name, text, offsets)
    assert str(caught.value).startswith(f"{name}: {text!r}, expected" if text is not None else f"{name}: 'None'") and "\n" not in str(caught.value)
    with pytest.raises(ValueError):
        Machine(**{name: text})


def test_the_command_shows_it_beside_the_guests_clocks(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "plateau", "--style", "vmx+ept", "--tsc", "hidden"])
    text = capsys.readouterr().out
    assert not ended.value.code and "more than real" in text
    probe = plateau("vmx+ept", "hidden")[1]
    row = next(line for line in text.splitlines() if line.strip().startswith("vmx+ept 0"))
    assert f"{probe['cycles']:,}" in row and f"{probe['tsc']:,}" in row and f"{probe['timers']:,}" in row
    with pytest.raises(SystemExit):
        cli.main(["run", "plateau", "--style", "vmx+ept", "--tsc", "hidden", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["probe"] == [probe]
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "plateau", "--tsc", "slow"])
    assert ended.value.code == 2 and "tsc: 'slow', expected" in capsys.readouterr().err
