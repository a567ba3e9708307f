# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots whose shadow tables lie, with a checksum that fits; and the process that restores them and runs on.

    python shadow_forger.py SNAPSHOT SEED...

prints one line of JSON for each seed, before and after: what was changed, and how it went.  Where the arrays lie is told
here once more, from the description in mmu/shadow_state.pxd.
"""
import json
import random
import struct
import sys
import tempfile
from pathlib import Path

from pyx86v import Machine, snapshot

INSTRUCTIONS = 200_000
PAGE = struct.Struct("<QIIIIHBBBBxx")      # gfn, next, older, newer, parents, live, kind, level, quadrant, clean
CONFIG, COUNTERS, HEAD = 16, 19 * 8, struct.Struct("<QQQ")
SHADOW_BYTES = CONFIG + COUNTERS + 7 * 8 + 32 * 8 + 16 * 4
POOL = 32 * 8 + 7 * 8 + CONFIG + COUNTERS       # offset of n_unsynced, n_pages, n_used, free, oldest, newest, root[4], bucket_bits


class Forger:
    """The sections of a snapshot of a machine with one world and shadow tables, to be changed and written again."""

    def __init__(self, path):
        with snapshot.opened(path) as (header, views):
            self.header = {key: value for key, value in header.items() if key != "sections"}
            self.sections = {name: bytearray(view) for name, view in views.items()}
            self.order = [name for name, _ in header["sections"]]
        frames = self.sections["frames"]
        self.pages = {number: i << 12 for i, number in enumerate(struct.unpack(f"<{len(frames) // 4}I", frames))}
        world, memory = self.sections["world"], header["options"]["memory"]
        found = [at for at in range(CONFIG + COUNTERS, len(world) - SHADOW_BYTES, 8)
                 if (t := HEAD.unpack_from(world, at))[1:] == (0, memory >> 12) and t[0] >= memory and not t[0] & 0xfff]
        assert len(found) == 1, "the Shadow in the world"
        self.shadow = found[0] - CONFIG - COUNTERS
        self.at = HEAD.unpack_from(world, found[0])[0]
        self.frame_count = memory >> 12
        fields = struct.unpack_from("<6I", world, self.shadow + POOL)
        self.n_unsynced, self.n_pages, self.n_used, self.free, self.oldest, self.newest = fields
        self.links = self.at + self.n_pages * 4096
        self.page_array = self.links + self.n_pages * 4096
        self.frame_array = self.page_array + self.n_pages * PAGE.size
        self.large_array = self.frame_array + self.frame_count * 8
        self.buckets = self.large_array + (self.frame_count + 511 >> 9) * 8
        self.end = self.buckets + (4 << struct.unpack_from("<I", world, self.shadow + POOL + 40)[0])

    def read(self, at, n):
        """Machine memory; pages that were not saved are zero."""
        return bytes(self.sections["ram"][self.pages[b >> 12] + (b & 0xfff)] if b >> 12 in self.pages else 0 for b in range(at, at + n))

    def write(self, at, data):
        for i, byte in enumerate(data, at):
            if i >> 12 not in self.pages:
                self.pages[i >> 12] = len(self.sections["ram"])
                self.sections["ram"] += bytes(4096)
                self.sections["frames"] += struct.pack("<I", i >> 12)
            self.sections["ram"][self.pages[i >> 12] + (i & 0xfff)] = byte

    def page(self, i):
        return PAGE.unpack(self.read(self.page_array + i * PAGE.size, PAGE.size))

    def used(self):
        return [i for i in range(self.n_pages) if self.page(i)[6]]

    def put(self, offset, value, form="<I"):
        """A field of the Shadow itself."""
        struct.pack_into(form, self.sections["world"], self.shadow + offset, value)

    def save(self, path):
        snapshot.write(path, self.header, [(name, [bytes(self.sections[name])]) for name in self.order])


def flip(forger, rng):
    """Change a few bytes of the Shadow or of an array.  What was changed."""
    done = []
    for _ in range(rng.choice((1, 1, 2, 8))):
        value = rng.choice((rng.randbytes(1), b"\xff", b"\0", rng.randbytes(4), b"\xff" * 4, bytes(4)))
        where = rng.choice(("shadow", "table", "link", "page", "page", "frame", "large", "bucket"))
        i = rng.choice(forger.used())
        at = {"table": forger.at + i * 4096 + 8 * rng.randrange(512), "link": forger.links + i * 4096 + 4 * rng.randrange(1024),
              "page": forger.page_array + i * PAGE.size + rng.randrange(PAGE.size),
              "frame": forger.frame_array + 8 * rng.randrange(forger.frame_count) + rng.randrange(8),
              "large": forger.large_array + rng.randrange(16),
              "bucket": forger.buckets + 4 * rng.randrange(forger.end - forger.buckets >> 2)}
        if where == "shadow":
            at = rng.randrange(SHADOW_BYTES)
            old = forger.sections["world"][forger.shadow + at:forger.shadow + at + len(value)]
            forger.sections["world"][forger.shadow + at:forger.shadow + at + len(value)] = value[:len(old)]
        else:
            at = at[where]
            forger.write(at, value)
        done.append((where, at, value.hex()))
    return done


def main(path, seeds):
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            forger = Forger(path)
            print(json.dumps({"seed": seed, "changed": flip(forger, random.Random(seed))}), flush=True)
            forged = Path(folder, "forged")
            forger.save(forged)
            try:
                machine = Machine.restore(forged)
                stop = machine.run(max_instructions=INSTRUCTIONS)
                how = stop.reason.value
            except snapshot.SnapshotError as error:
                how = str(error).rsplit(":", 2)[1].strip()
            print(json.dumps({"seed": seed, "how": how}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], map(int, sys.argv[2:]))
