# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's cloud kernel, unmodified, on a processor that cannot be virtualized: what trap+shadow must fail at, bt+shadow must not."""
import functools

import pytest

import debian
import linux_guest
from pyx86v import Machine


@functools.cache
def boot(style):
    """A machine that has booted the kernel's uncompressed image to user space and reset itself."""
    try:
        guest = linux_guest.linux()
        image = linux_guest.vmlinux()
    except debian.Unavailable as reason:
        debian.skip(f"no Debian kernel to boot: {reason}")
    machine = Machine(memory=guest.memory, style=style, clock="instructions")
    machine.load(str(image), initrd=str(guest.initrd), kernel_args=guest.args)
    machine.run()
    return guest, machine


def test_linux_runs_translated_as_it_runs_natively():
    guest, native = boot("native")
    _, translated = boot("bt+shadow")
    text = translated.console.decode()
    assert all(line in text for line in guest.expected)
    assert (translated.instructions, translated.console, translated.digest()) == (native.instructions, native.console, native.digest())
    assert not translated.holes


def test_translated_code_finds_its_way_by_itself():
    """Of a boot's translated units only a small part is entered by way of the monitor."""
    _, machine = boot("bt+shadow")
    count = machine.translation_counts
    assert count["units"] > 50_000
    assert count["dispatches"] * 100 < machine.instructions
