# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that more than one file uses."""
import pytest

import debian
import linux_guest


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
