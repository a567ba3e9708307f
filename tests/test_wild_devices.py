# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that programs the APICs and timers at random: it comes to its end, and to the same one under every style and engine."""
import pytest

from pyx86v import Machine, StopReason
from pyx86v._core import styles
from rom_runs import build_guests


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("wild"), {"wilddevices": []})["wilddevices"]


def outcome(image, **options):
    machine = Machine(memory=64 << 20, **options)
    machine.load(str(image))
    stop = machine.run(max_instructions=100_000_000)
    assert (stop.reason, stop.status) == (StopReason.EXIT, 0), machine.console
    return machine.instructions, machine.report, machine.events["interrupts"], machine.digest()


@pytest.mark.parametrize("options", [{"style": style} for style in styles()] + [{"style": "native", "engine": "portable"}],
                         ids=lambda options: "-".join(options.values()))
def test_the_same_end(image, options):
    found = outcome(image, clock="instructions", **options)
    assert found == outcome(image, clock="instructions")
    assert found[2] > 100, "interrupts came"


@pytest.mark.parametrize("profile", ["p4-672", "nehalem"])
def test_it_ends_by_the_machines_clock_too(image, profile):
    assert outcome(image, style="vmx+shadow", profile=profile)[2] > 100
