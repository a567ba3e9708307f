# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that more than one file uses."""
import os

import pytest

import linux_guest


@pytest.fixture(scope="session")
def linux():
    """A linux_guest.Linux.  Without Debian's packages: skipped on somebody's machine, failed where CI is set."""
    try:
        return linux_guest.linux()
    except linux_guest.Unavailable as reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Debian kernel to boot: {reason}")
