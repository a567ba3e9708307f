# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the bytes: an image inside memory, or one line."""
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

import images
from pyx86v import boot

MEMORY = 32 << 20
NOTES = images.note(b"Xen", 18, struct.pack("<I", 0x100000))
MULTIBOOT2 = images.multiboot2_header((1, struct.pack("<II", 3, 6)), (4, b"\1\0\0\0"), (10, bytes(16)))
ADDRESSES2 = images.multiboot2_header((2, struct.pack("<4I", 0x100000, 0x100000, 0, 0)), (3, struct.pack("<I", 0x100010)))
SEEDS = [images.elf(32, ((0x100000, MULTIBOOT2, 0x1000),)), ADDRESSES2 + images.CODE,
         images.multiboot_elf(), images.bzimage(), images.elf(64, notes=NOTES), images.elf(32, notes=NOTES),
         images.elf(64, notes=images.note(b"Linux", 1, b"abcd")), bytes(65520) + b"\xEA" * 16,
         images.multiboot_header(1 << 16, 0x100000, 0x100000, 0x100020, 0x101000, 0x100000) + images.CODE]
CHANGES = st.lists(st.tuples(st.integers(0, 0x300), st.binary(min_size=1, max_size=8)), max_size=6)


def check(tmp_path, data, entry="auto", modules=0):
    path = tmp_path / "image"
    path.write_bytes(data)
    try:
        image = boot.load(path, MEMORY, initrd=[str(path)] * modules, entry=entry)
    except boot.BootError as error:
        assert "\n" not in str(error)
        return
    spans = sorted((gpa, gpa + len(part)) for gpa, part in image.segments)
    assert all(0 <= low < high <= MEMORY for low, high in spans)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:]))
    if image.kind != "firmware":
        assert 0 <= image.entry["rip"] < MEMORY


@settings(max_examples=1500, deadline=None)
@given(seed=st.sampled_from(SEEDS), changes=CHANGES, keep=st.one_of(st.none(), st.integers(0, 0x1000)),
       entry=st.sampled_from(("auto", *boot.ENTRIES)), modules=st.integers(0, 2))
def test_mutated_images(tmp_path_factory, seed, changes, keep, entry, modules):
    data = bytearray(seed)
    for at, new in changes:
        data[at:at + len(new)] = new
    check(tmp_path_factory.getbasetemp(), bytes(data[:keep]), entry, modules)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=600))
def test_random_bytes(tmp_path_factory, data):
    check(tmp_path_factory.getbasetemp(), data)
