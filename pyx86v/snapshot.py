# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a saved machine: a header that says what is inside, sections of bytes, a checksum.

    offset    bytes  what
    0         8      MAGIC
    8         4      FORMAT, little-endian like every number here
    12        4      bytes of the header
    16               header: JSON; "sections" is a list of [name, bytes] in the order of the file
                     the sections, one behind the other
    end - 32  32     sha256 of everything before

The format says nothing about what the sections mean: that is engine/snapshot.pyx.  A checksum is no signature, so
what the sections say is checked before it is used (engine/sound.pxd), and of memory the shadow tables with the lists that
lead through them (mmu/shadow_sound.pxd).
"""
import hashlib
import json
import mmap
import os
import struct
from contextlib import contextmanager

MAGIC = b"PYX86V\x1a\n"
FORMAT = 1                      # raised when an older reader could misread a newer file
PREFIX = struct.Struct("<8sII")
DIGEST_BYTES = 32
HASH_STEP = 1 << 24


class SnapshotError(ValueError):
    """A file is not a snapshot that this machine can go on from; the text is one line."""


def write(path, header, sections):
    """Write a snapshot file, whole or not at all.

    header    dict for JSON
    sections  [(name, [buffer, ...])]; a section is its buffers one behind the other

    Raises OSError when the file cannot be written.
    """
    path = os.fspath(path)
    sizes = [[name, sum(memoryview(buffer).nbytes for buffer in buffers)] for name, buffers in sections]
    text = json.dumps({**header, "sections": sizes}, sort_keys=True).encode()
    part = f"{path}.{os.getpid()}.part"
    digest = hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for buffer in [PREFIX.pack(MAGIC, FORMAT, len(text)), text] + [b for _, buffers in sections for b in buffers]:
                digest.update(buffer)
                file.write(buffer)
            file.write(digest.digest())
        os.replace(part, path)
    except BaseException as error:
        if os.path.exists(part):
            os.unlink(part)
        if isinstance(error, OSError):          # in the user's name, not that of the part
            raise type(error)(error.errno, error.strerror, path) from None
        raise


@contextmanager
def opened(path):
    """(header, {section name: memoryview}) of a snapshot file; the views live inside the `with`.

    Raises SnapshotError for a file that is no snapshot, of another format, or damaged.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < PREFIX.size + DIGEST_BYTES:
                raise SnapshotError(f"{path}: size: shorter than any snapshot, expected a file written by Machine.save()")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
                views = {}
                try:
                    yield _parse(path, data, views), views
                finally:
                    for view in views.values():
                        view.release()
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}, expected a snapshot") from None


def _parse(path, data, views):
    """Check the file and fill `views`; returns the header."""
    magic, version, header_bytes = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise SnapshotError(f"{path}: magic: {bytes(magic)!r}, expected {MAGIC!r}, a file written by Machine.save()")
    if version != FORMAT:
        raise SnapshotError(f"{path}: format: {version}, expected {FORMAT}")
    end = len(data) - DIGEST_BYTES
    digest = hashlib.sha256()
    for at in range(0, end, HASH_STEP):
        with data[at:min(at + HASH_STEP, end)] as piece:
            digest.update(piece)
    if digest.digest() != data[end:]:
        raise SnapshotError(f"{path}: checksum: differs, expected {digest.hexdigest()}: the file is damaged or cut short")
    at = PREFIX.size + header_bytes
    header = _header(path, bytes(data[PREFIX.size:at]))
    for name, size in header["sections"]:
        views[name] = data[at:at + size]
        at += size
    if at != end:
        raise SnapshotError(f"{path}: sections: end at {at}, expected {end}")
    return header


def _header(path, text):
    """The header as write() makes it: every field that a reader relies on, of its type."""
    try:
        header = json.loads(text)
        good = (isinstance(header["version"], str) and isinstance(header["profile"], str) and isinstance(header["options"], dict)
                and isinstance(header["disks"], list)
                and all(isinstance(name, str) and isinstance(size, int) and size >= 0 for name, size in header["sections"])
                and all(kind in ("ports", "mmio") and all(isinstance(number, int) for number in (guest, first, end))
                        for guest, kind, first, end in header["devices"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise SnapshotError(f"{path}: header: cannot be read, expected what Machine.save() writes")
    return header
