# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that looks for the translating monitor (tests/guests/btwild): nothing it can do tells it from ring 0 of the processor."""
import pytest

from qemu_guest import need_qemu, qemu_run
from rom_runs import LIMIT, build_guests, machine_for

STYLE = "bt+shadow"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("btwild"), {"btwild": [], "btticks": []})


@pytest.fixture(scope="module")
def image(images):
    return images["btwild"]


def run(image, style):
    machine = machine_for("btwild", image, style=style, clock="instructions")
    stop = machine.run(max_instructions=LIMIT)
    return machine, (stop, machine.instructions, machine.console, machine.report, machine.digest())


def test_the_monitor_is_not_seen(image):
    """Its addresses are the guest's own, unmapped or mapped, as data, stack and code; odd entries and changed code are exact."""
    machine, translated = run(image, STYLE)
    assert translated == run(image, "native")[1]
    assert translated[0].status == 0, machine.console
    assert machine.translation_counts["units"] > 1000 and machine.translation_counts["dead"] > 100
    assert "SWAPGS" not in machine.callouts and machine.callouts["FAULT"] > 600      # its RDGSBASE and WRGSBASE without CR4.FSGSBASE


def test_interrupts_are_taken_where_they_are_natively(images):
    """tests/guests/btticks: the timer fires at each moment of a stretch of code; each word of its report is where all handlers came from."""
    def ended(style):
        machine = machine_for("btticks", images["btticks"], style=style, clock="instructions")
        stop = machine.run(max_instructions=LIMIT)
        assert stop.status == 0, (stop, machine.console)
        return machine.report, machine.instructions, machine.digest()

    native = ended("native")
    assert len(set(native[0])) > 10                      # the places do differ
    assert ended(STYLE) == native


def test_qemu_says_the_same(image):
    need_qemu()
    status, console = qemu_run(image, "64M")
    assert status == 1 and console == run(image, "native")[1][2].decode()
