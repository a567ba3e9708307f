# SPDX-License-Identifier: GPL-2.0-or-later
"""Every bundled ROM on the machine: one result under every style, clock and engine, and the one that QEMU prints.

`native` is the ground truth of the other styles; QEMU's TCG and the ROMs' own checks are the judges of `native`.
"""
import pytest

from pyx86v._core import styles
from pyx86v.cli import guests
from qemu_guest import need_qemu, qemu_run
from rom_runs import HEADS, SAME, rom_run

ROMS = sorted(HEADS)
TIMELESS = [name for name in ROMS if HEADS[name]["time"] == "no"]
FOR_QEMU = [name for name in ROMS if HEADS[name]["qemu"] == "yes"]
HARDWARE = [style for style in styles() if style.startswith(("vmx+", "svm+"))]      # what runs every guest
STYLES = ["native", *HARDWARE]
QUICK = ("hello", "modes", "rings", "gates64", "v86", "minikernel", "triple", "bios")
EVERY_ROM = [pytest.param(name, marks=pytest.mark.quick) if name in QUICK else name for name in ROMS]


def assert_same(one, other, keys=SAME):
    different = {key: (getattr(one, key), getattr(other, key)) for key in keys if getattr(one, key) != getattr(other, key)}
    assert not different


def test_all_are_bundled():
    assert len(ROMS) >= 30 and all(set(STYLES) <= set(guests.styles_of(HEADS[name])) <= set(styles()) for name in ROMS)


@pytest.mark.parametrize("name", EVERY_ROM)
def test_ends_as_its_header_says(name):
    """Each header starts with the regular end: the debug-exit status, a reset or a triple fault."""
    run, says = rom_run(name), HEADS[name]["ends"]
    if says.startswith("reset"):
        assert run.end == ("shutdown", 0, "reset")
    elif says.startswith("shutdown"):
        assert run.end == ("shutdown", 0, "triple fault")
    else:
        assert says.removeprefix("debug-exit ").startswith("0: ")
        assert run.end == ("exit", 0, "")
    assert b"FAIL" not in run.console and run.console.endswith(b"OK\n"), run.console.decode()


@pytest.mark.parametrize("name", EVERY_ROM)
@pytest.mark.parametrize("style", HARDWARE)
def test_style_equals_native(name, style):
    """Under --clock instructions nothing a guest can see depends on the style."""
    assert_same(rom_run(name), rom_run(name, style))


@pytest.mark.parametrize("name", TIMELESS)
@pytest.mark.parametrize("style", STYLES)
def test_clock_does_not_matter_without_time(name, style):
    """A ROM that reads no clock ends alike when guest time is machine cycles, and costs the same; but for a timer that
    runs unread and exits to the monitor (external-interrupt exiting does not ask for the guest's IF, SDM 3C 25.2)."""
    one, other = rom_run(name, style), rom_run(name, style, "cycles")
    assert_same(rom_run(name), other)
    assert_same(one, other, ("tlb", "walks", "events"))
    if not {"EXTERNAL_INTERRUPT", "interrupt"} & {*one.exits, *other.exits}:
        assert_same(one, other, ("units", "ledger_units", "exits"))


@pytest.mark.parametrize("name", EVERY_ROM)
def test_portable_engine_equals_inline(name):
    """Accounting by a call for each block and accounting compiled into it give identical results, prices and all."""
    one, other = rom_run(name), rom_run(name, engine="portable")
    assert_same(one, other, [key for key in vars(one)])


@pytest.mark.parametrize("name", EVERY_ROM)
def test_ledger_sums_to_cycles(name):
    for style in STYLES:
        for clock in ("instructions", "cycles")[:1 + (name in TIMELESS)]:
            run = rom_run(name, style, clock)
            assert sum(run.ledger_units.values()) == run.units
            assert sum(run.ledger.values()) == run.cycles == run.units // 64
            assert all(abs(run.ledger[cause] * 64 - units) < 64 for cause, units in run.ledger_units.items())
            assert sum(run.walks["by_level"].values()) == run.walks["references"]


@pytest.mark.parametrize("name", ROMS)
def test_only_a_monitor_costs_exits(name):
    """Natively nothing exits; under VT-x exits, entries and VMCS accesses are there and are priced."""
    native = rom_run(name)
    monitor = ("exit", "entry", "vmcs", "emulation")
    assert native.exits == {} and not any(native.ledger_units[cause] for cause in monitor)
    for style in HARDWARE:
        run = rom_run(name, style)
        assert run.exits and all(run.ledger_units[cause] for cause in monitor if style.startswith("vmx") or cause != "vmcs")
        assert run.ledger_units["instruction"] <= native.ledger_units["instruction"], "an intercepted one costs an exit instead"


@pytest.mark.qemu
@pytest.mark.parametrize("name", FOR_QEMU)
def test_prints_what_qemu_prints(name):
    need_qemu()
    status, console = qemu_run(guests.image(name), HEADS[name]["memory"])
    run = rom_run(name)
    assert run.console.decode("latin-1") == console
    assert status == (run.end[1] << 1 | 1 if run.end[0] == "exit" else 0), "debug-exit gives value << 1 | 1, -no-reboot gives 0"
