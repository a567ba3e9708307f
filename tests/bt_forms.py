# SPDX-License-Identifier: GPL-2.0-or-later
"""Random instructions and states for the translator's test."""
import struct

from bt_machine import ALIASES, DATA_BIAS, DATA_PAGES, FL_IF, FL_IOPL, FLAGS

LANDING = 0x80000                # code from here on is HLT only


def modrm(rng, bits, reg, prefixes, aligned=False, register=None):
    """(ModRM and what follows it, prefixes with 67 added or not).  `register`: the only register operand allowed, or None for memory."""
    if register is not None:
        return bytes([0xc0 | reg << 3 | register])
    size16 = bits == 16 and 0x67 not in prefixes or bits == 32 and 0x67 in prefixes
    mod = rng.choice((0, 1, 1, 2))
    rm = rng.randrange(8)
    out = bytearray([mod << 6 | reg << 3 | rm])
    if size16:
        if mod == 0 and rm == 6:
            return bytes(out) + struct.pack("<H", 0x4000 + rng.randrange(0x8000))
        return bytes(out) + (b"" if mod == 0 else struct.pack("<b", rng.randrange(-8, 64)) if mod == 1 else struct.pack("<h", rng.randrange(-8, 64)))
    if rm == 4:
        index = rng.choice((4, 4, 4, rng.randrange(8)))
        base = rng.randrange(8)
        out.append((rng.randrange(2) << 6 if index != 4 else 0) | index << 3 | base)
        if mod == 0 and base == 5:
            return bytes(out) + absolute(rng, bits)
    elif mod == 0 and rm == 5:
        return bytes(out) + absolute(rng, bits)
    return bytes(out) + (b"" if mod == 0 else struct.pack("<b", rng.randrange(-8, 64)) if mod == 1 else struct.pack("<i", rng.randrange(-8, 64)))


def absolute(rng, bits):
    """A 32-bit displacement: of data, in 64-bit mode also of data relative to RIP."""
    offset = rng.randrange(DATA_PAGES * 0x1000)
    if bits == 64 and rng.random() < 0.9:
        return struct.pack("<i", DATA_BIAS + offset - rng.choice((0, 0, 0x40000)))
    return struct.pack("<I", ALIASES[32][0] + DATA_BIAS + offset if bits != 16 else 0x4000 + offset)


def pointer(rng, bits, edge=0.3):
    """An address in or near the data."""
    alias = rng.choice(ALIASES[bits]) + DATA_BIAS if bits != 16 else 0x4000
    if rng.random() < edge:
        return alias + rng.randrange(1, DATA_PAGES) * 0x1000 + rng.randrange(-16, 16)
    return alias + rng.choice((1, 2, 3, 5)) * 0x1000 + 8 * rng.randrange(8, 500)


def value(rng, bits):
    kind = rng.random()
    if kind < 0.55:
        return pointer(rng, bits)
    if kind < 0.7:
        return target(rng, bits)
    if kind < 0.85:
        return rng.randrange(16)
    return rng.getrandbits(64) >> rng.choice((0, 8, 32, 33, 48))


def target(rng, bits):
    """Where a jump may lead: HLTs, or nothing."""
    if bits == 16:
        return rng.getrandbits(16) | 0x8000
    if rng.random() < 0.2:
        return rng.getrandbits(bits) | 1 << bits - 1
    return rng.choice(ALIASES[bits]) + LANDING + rng.randrange(0x70000)


def registers(rng, bits, stack_flat):
    """16 registers; the stack pointer is where pushes and pops mostly work."""
    mask = (1 << 64) - 1 if bits == 64 else 0xffffffff
    out = [value(rng, bits) & mask for _ in range(16)]
    if bits == 32:                                       # not the monitor's memory: who may see that is the engine's business
        out = [v & 0x7fffffff if v >= 0xf0000000 else v for v in out]
    if bits == 16:                                       # upper halves that must survive
        out = [v & 0xffff | rng.choice((0, 0x12340000)) for v in out]
    out[4] = pointer(rng, bits if bits == 64 else 32, 0.4) if stack_flat else pointer(rng, 16, 0.4) | 0x5a5a0000
    return out


def flags(rng):
    return 2 | rng.getrandbits(12) & FLAGS | rng.choice((0, FL_IF)) | rng.choice((0, FL_IOPL, 0x1000)) | rng.choice((0, 0, 1 << 21))


def memory(rng, bits):
    """The data pages: addresses, targets, images of EFLAGS."""
    page = []
    mask = (1 << 64) - 1
    for _ in range(128):
        kind = rng.random()
        if kind < 0.4:
            v = target(rng, bits)
        elif kind < 0.6:
            v = 2 | rng.getrandbits(12) & ~0x100 | rng.choice((0, 0, 0, 1 << 14, 1 << 18, 1 << 19, 1 << 20, 0x100, 1 << 21, 1 << 16)) | rng.choice((0, 0x3000))
        else:
            v = value(rng, bits)
        if bits == 16:
            v = sum(((v >> 16 * n | 0x8000) & 0xffff) << 16 * n for n in range(4))
        page.append(v & mask)
    return struct.pack("<128Q", *page) * 4 * DATA_PAGES
