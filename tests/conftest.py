# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that more than one file uses; the order of the files."""
import pytest

import debian
import linux_guest

# The files that take longest, in this order: more than eight seconds each, two minutes the first.  `make test-quick` leaves them out, and
# several processes get them first, whole, so that none is left with a long one at the end.
LONGEST = ("guests_linux", "two_builds", "snapshot", "roms", "fuzz", "snapshot_linux", "bt_linux", "tlb_witness", "shadow", "guests_disk",
           "guests_default", "determinism", "boot_entries", "trap", "shadow_forged", "prices_move", "worlds", "interactive", "typing",
           "guests_firmware", "guests_other", "roms_bochs", "boot_fuzz")


def pytest_configure(config):
    """pytest-xdist would begin with the files of most tests, and the longest have few."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
    for item in items:
        if item.path.stem in place:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def linux():
    """A linux_guest.Linux.  Without Debian's packages: skipped on somebody's machine, failed where CI is set."""
    try:
        return linux_guest.linux()
    except debian.Unavailable as reason:
        debian.skip(f"no Debian kernel to boot: {reason}")


def pytest_terminal_summary(terminalreporter):
    """The results name the versions of what was booted."""
    for line in debian.versions():
        terminalreporter.write_line(f"Debian {debian.RELEASE}: {line}")
