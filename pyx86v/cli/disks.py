# SPDX-License-Identifier: GPL-2.0-or-later
"""--disk, --cdrom, --bios: a machine that has no kernel to start with starts its firmware."""
import os

import click

from pyx86v import disks
from pyx86v.boot import firmware
from pyx86v.cli import guests


def find(guest, options):
    """The Guest to run.  A GUEST that is a disk or CD-ROM image joins options.disk or options.cdrom, and firmware is run."""
    kind = disks.kind_of(guest) if guest and os.path.isfile(guest) else None
    if kind == "disk":
        options.disk = (guest, *options.disk)
    elif kind == "cdrom":
        options.cdrom = (guest, *options.cdrom)
    elif guest:
        if options.bios:
            raise click.UsageError("--bios: expected no GUEST that brings its own beginning")
        return guests.find(guest)
    if not (options.disk or options.cdrom or options.bios):
        raise click.UsageError("Missing argument 'GUEST'.")
    return guests.Guest(guest or (options.disk + options.cdrom + (options.bios,))[0], firmware.named(options.bios) if options.bios else firmware.find())
