# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel with its default command line and a serial console: ACPI, both APICs, and switching the machine off."""
import re

import pytest

import debian
import linux_guest
from guest_list import styles_for
from pyx86v import Machine, StopReason

STYLES = ("native", *styles_for(4))
LIMIT = 20_000_000_000           # instructions; a boot takes 1.4e9
ARGS = "console=ttyS0"
INIT = """#!/bin/busybox sh
mount -t proc proc /proc
echo INIT-OK
sleep 0.1
busybox cat /proc/interrupts
busybox poweroff -f
"""
SAID = ("ACPI: RSDP 0x00000000000E0000", "ACPI: Interpreter enabled", "ACPI: PM: (supports S0 S5)", "ACPI: Using IOAPIC for interrupt routing",
        "IOAPIC[0]: apic_id 1, version 17, address 0xfec00000, GSI 0-23", "APIC: Switch to symmetric I/O mode setup",
        "INIT-OK", "reboot: Power down")
NEVER = ("BUG", "Call Trace", "WARNING: CPU", "segfault", "Firmware Bug", "unchecked MSR", "ACPI Error", "ACPI Warning", "ACPI BIOS Error",
         "irq 4: nobody cared", "spurious", "Spurious APIC", "tsc: Marking TSC unstable", "rcu_sched self-detected")

pytestmark = pytest.mark.linux


@pytest.fixture(scope="module")
def boot(linux):
    """boot(style, ...): what a boot of an unwrapped kernel left; each is made once."""
    made = {}

    def boot(style, clock="instructions", name="cloud", args=ARGS, **options):
        key = (style, clock, name, args, *options.values())
        if key not in made:
            try:
                guest, kernel = linux_guest.linux(name, INIT, args), linux_guest.vmlinux(name)
            except debian.Unavailable as reason:
                debian.skip(reason)
            machine = guest.load(Machine(memory=guest.memory, style=style, clock=clock, **options), kernel)
            stop = machine.run(max_instructions=LIMIT)
            made[key] = {"stop": stop, "console": machine.console.decode("latin-1"), "instructions": machine.instructions,
                         "digest": machine.digest(), "exits": machine.exits}
        return made[key]
    return boot


def check_console(console):
    lines = console.replace("\r", "").split("\n")
    for said in SAID:
        assert any(said in line for line in lines), f"{said}\n{console}"
    assert not [line for line in lines for never in NEVER if never in line]
    counts = dict(re.findall(r"^ *(\w+): +(\d+)\b", console, re.M))
    assert int(counts["LOC"]) > 20 and int(counts["4"]) > 0 and counts["ERR"] == counts["MIS"] == "0", console
    assert re.search(r"^ *4: .*IO-APIC +4-edge +ttyS0", console, re.M) and re.search(r"^ *9: .*IO-APIC +9-fasteoi +acpi", console, re.M)


@pytest.mark.parametrize("style", STYLES)
def test_boots_and_switches_the_machine_off(boot, style):
    made = boot(style)
    check_console(made["console"])
    assert "TSC deadline timer available" in made["console"]
    assert made["stop"] == (StopReason.EXIT, 0, "power off")


@pytest.mark.parametrize("style", STYLES[1:])
def test_every_style_computes_the_same(boot, style):
    for key in ("stop", "instructions", "console", "digest"):
        assert boot(style)[key] == boot("native")[key], key


def test_a_processor_without_deadline_measures_its_timer(boot):
    """Nehalem: the timer's rate is measured against the 8254, which comes by the I/O APIC."""
    made = boot("native", "cycles", profile="nehalem")
    check_console(made["console"])
    assert "TSC deadline" not in made["console"] and made["stop"].detail == "power off"


def test_without_acpi_the_mp_table_says_the_same(boot):
    """The cloud kernel cannot read one; without ACPI nothing can switch the machine off."""
    made = boot("native", name="amd64", args="console=ttyS0 acpi=off")
    lines = made["console"].replace("\r", "").split("\n")
    for said in ("Intel MultiProcessor Specification v1.4", "MPTABLE: APIC at: 0xFEE00000", "IOAPIC[0]: apic_id 1, version 17, address 0xfec00000",
                 "APIC: Switch to symmetric I/O mode setup", "INIT-OK", "reboot: System halted"):
        assert any(said in line for line in lines), f"{said}\n{made['console']}"
    assert not [line for line in lines for never in NEVER if never in line]
    assert re.search(r"^ *4: .*IO-APIC +4-edge +ttyS0", made["console"], re.M)
    assert made["stop"].reason is StopReason.HALT
