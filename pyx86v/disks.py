# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images: which there are, where they are plugged in, and what is wrong with one, in one line."""
import hashlib
import os
import stat
from dataclasses import dataclass, field

SECTOR, CD_SECTOR = 512, 2048
PLACES = 4                      # master and slave of the first IDE channel, of the second
LARGEST = 1 << 41               # bytes: 2 TiB
OVERLAY_LIMIT = 4 << 30         # bytes a guest may write to a disk before the host has had enough
HASH_STEP = 1 << 22


class DiskError(ValueError):
    """An image cannot be a disk; the text is one line."""


@dataclass
class Image:
    """An open image file, plugged in at `place`.

    write  the guest's writes go to the file, not into memory
    limit  bytes that memory may hold of what the guest writes
    """
    path: str
    place: int
    cdrom: bool
    write: bool = False
    limit: int = OVERLAY_LIMIT
    size: int = 0
    file: object = field(default=None, repr=False)

    def open(self):
        """Open the file; DiskError when it cannot be a disk."""
        what = "cdrom" if self.cdrom else "disk"
        sector = CD_SECTOR if self.cdrom else SECTOR
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise DiskError(f"{self.path}: {what}: not a regular file")
            self.file = open(self.path, "r+b" if self.write else "rb", buffering=0)
        except OSError as error:
            raise DiskError(f"{self.path}: {what}: {error.strerror or error}") from None
        except ValueError as error:             # a NUL in the name
            raise error if isinstance(error, DiskError) else DiskError(f"{self.path!r}: {what}: {error}") from None
        self.size = os.fstat(self.file.fileno()).st_size
        if not self.size:
            raise DiskError(f"{self.path}: {what}: the file is empty")
        if self.size % sector or self.size > LARGEST:
            raise DiskError(f"{self.path}: {what}: {self.size} bytes, expected whole sectors of {sector} bytes, at most {LARGEST}")
        return self

    def digest(self):
        """sha256 of the file as it is now, in hex."""
        h = hashlib.sha256()
        with open(self.path, "rb") as file:
            while data := file.read(HASH_STEP):
                h.update(data)
        return h.hexdigest()

    def identity(self):
        """What a snapshot says of the image: its place, bytes and sha256."""
        return [self.place, self.size, self.digest()]


def plug(disks, cdroms, write=False):
    """The Images of a guest: CD-ROMs on the second channel first, disks in order on the places that are left.

    disks, cdroms  paths
    write          the guest's writes go to the disks' files

    Raises DiskError, one line.
    """
    paths = [[os.path.abspath(os.fspath(path)) for path in group] for group in (disks, cdroms)]
    if sum(map(len, paths)) > PLACES:
        raise DiskError(f"disks: {sum(map(len, paths))} with the CD-ROMs, expected at most {PLACES}")
    cd_places = (2, 3, 1, 0)[:len(paths[1])]
    free = [place for place in range(PLACES) if place not in cd_places]
    images = [Image(path, place, False, write) for path, place in zip(paths[0], free, strict=False)]
    images += [Image(path, place, True) for path, place in zip(paths[1], cd_places, strict=True)]
    return [image.open() for image in images]


def kind_of(path):
    """"cdrom" for an ISO 9660 image, "disk" for one with a boot sector, None for anything else."""
    try:
        with open(path, "rb") as file:
            start = file.read(0x8006)
    except OSError:
        return None
    if start[0x8001:0x8006] == b"CD001":
        return "cdrom"
    return "disk" if start[510:512] == b"\x55\xAA" and start[0x202:0x206] != b"HdrS" else None


def identities(guests):
    """What a snapshot says of all guests' images, for its header."""
    return [[guest.index, *image.identity()] for guest in guests for image in guest.images]


def changed(guests, recorded):
    """None, or which image is not the one that a snapshot was made over."""
    for guest in guests:
        for image in guest.images:
            if [guest.index, *image.identity()] not in recorded:
                return f"{image.path}: has changed, expected it as it was when the machine was saved"
    return None
