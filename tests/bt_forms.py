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


def encoding(rng, bits, map_, op, reg):
    """Any instruction with this opcode and ModRM.reg, whether it exists or not."""
    prefixes = [p for p, chance in ((0x66, 0.25), (0x67, 0.12), (rng.choice((0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65)), 0.2),
                                    (rng.choice((0xf2, 0xf3)), 0.25), (0xf0, 0.06)) if rng.random() < chance]
    rng.shuffle(prefixes)
    rex = bytes([0x40 | rng.randrange(16)]) if bits == 64 and rng.random() < 0.6 else b""
    opcode = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[map_] + bytes([op])
    if map_ == 0 and 0xa0 <= op <= 0xa3:
        rest = struct.pack("<Q", pointer(rng, bits))
    else:
        rest = modrm(rng, bits, reg, prefixes, register=rng.choice((None, None, rng.randrange(8)))) + rng.randbytes(8)
    return (bytes(prefixes) + rex + opcode + rest)[:15]


def vex(rng, bits):
    """A VEX instruction that exists: BMI (SDM 2D table A-4)."""
    pp, op, reg, map_ = rng.choice(((0, 0xf2, None, 2), (0, 0xf3, 1, 2), (0, 0xf3, 2, 2), (0, 0xf3, 3, 2), (0, 0xf5, None, 2), (2, 0xf5, None, 2),
                                    (3, 0xf5, None, 2), (3, 0xf6, None, 2), (0, 0xf7, None, 2), (1, 0xf7, None, 2), (2, 0xf7, None, 2),
                                    (3, 0xf7, None, 2), (3, 0xf0, None, 3)))
    prefixes = [0x67] if rng.random() < 0.15 else []
    if rng.random() < 0.2:
        prefixes.append(rng.choice((0x64, 0x36)))
    reg = rng.randrange(8) if reg is None else reg
    first = rng.choice((0x00, 0x20, 0x40, 0x60)) | (0x80 if reg else rng.randrange(2) << 7) if bits == 64 else 0xe0
    second = (rng.randrange(16) if bits == 64 else 8 | rng.randrange(8)) << 3 | pp | (rng.randrange(2) << 7 if bits == 64 else 0)
    if op == 0xf0:
        second |= 0x78
    return bytes(prefixes) + bytes([0xc4, first | map_, second, op]) + modrm(rng, bits, reg, prefixes, register=rng.choice((None, rng.randrange(8)))) + \
        (rng.randbytes(1) if map_ == 3 else b"")


class Program:
    """A random program that ends: blocks that lead to later ones, and functions behind them that return."""
    def __init__(self, rng, bits, ip):
        self.rng, self.bits, self.ip = rng, bits, ip
        self.code, self.fixups, self.labels = bytearray(), [], {}
        self.word = 2 if bits == 16 else 4               # of a displacement
        n = rng.randrange(6, 16)
        self.functions = [f"f{k}" for k in range(3)]
        for k in range(n):
            self.labels[k] = len(self.code)
            self.body()
            self.terminator(rng.randrange(k + 1, n + 1))
        self.labels[n] = len(self.code)
        self.code.append(0xf4)
        for name in self.functions:
            self.labels[name] = len(self.code)
            self.body()
            self.code += b"\xc3"
        for at, label, kind in self.fixups:
            to = self.labels[label]
            value = to - at - self.word if kind == "relative" else ip + to & 0xffffffff
            self.code[at:at + self.word] = (value & (1 << 8 * self.word) - 1).to_bytes(self.word, "little")

    def field(self, label, kind="relative"):
        self.fixups.append((len(self.code), label, kind))
        self.code += bytes(self.word)

    def terminator(self, to):
        kind = self.rng.randrange(7)
        if kind == 0:
            self.code += b"\xe9"
            self.field(to)
        elif kind == 1:
            self.code += bytes([0x0f, 0x80 + self.rng.randrange(16)])
            self.field(to)
        elif kind == 2:
            self.code += b"\xe8"
            self.field(self.rng.choice(self.functions))
        elif kind == 3:                                  # MOV EAX, label; JMP or CALL by register or memory
            self.by_register(b"\xff\xe0", to)
        elif kind == 4:
            self.by_register(b"\xff\xd0", self.rng.choice(self.functions))
        elif kind == 5:                                  # MOV [EBX + 8], EAX; JMP [EBX + 8]
            self.by_register((b"\x48" if self.bits == 64 else b"") + b"\x89\x43\x08\xff\x63\x08" if self.bits != 16 else b"\x89\x47\x08\xff\x67\x08", to)

    def by_register(self, code, label):
        self.code += b"\x48\xc7\xc0" if self.bits == 64 else b"\xb8"
        self.field(label, "absolute")
        self.code += code

    def body(self):
        """Instructions that leave the stack as it was and EBX, the pointer to data, alone."""
        rng, out = self.rng, self.code
        wide = lambda: rng.choice((b"", b"\x48")) if self.bits == 64 else rng.choice((b"", b"", b"\x66"))
        reg = lambda: rng.choice((0, 1, 2, 5, 6, 7))
        for _ in range(rng.choice((0, 1, 3, 3, 5, 15))):
            kind = rng.randrange(13)
            if kind < 5:                                 # arithmetic on registers
                out += wide() + bytes([rng.choice((0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85)), 0xc0 | reg() << 3 | reg()])
            elif kind == 5:                              # with memory at EBX
                out += wide() + bytes([rng.choice((0x01, 0x03, 0x89, 0x8b)), 0x40 | reg() << 3 | (7 if self.bits == 16 else 3), rng.randrange(0x70)])
            elif kind == 6:
                out += b"\x9c" + bytes([0x58 | reg()])
            elif kind == 7:
                image = 2 | rng.getrandbits(12) & ~0x100 | rng.choice((0, 0, 0, 0x4000, 0x3000))
                out += b"\x68" + image.to_bytes(self.word, "little") + b"\x9d"
            elif kind == 8:
                out += rng.choice((b"\xfa", b"\xfb"))
            elif kind == 9:
                out += bytes([0x50 | reg(), 0x58 | reg()])
            elif kind == 10:
                out += bytes([0x8c, 0xc8 | reg()])
            elif kind == 11:
                out += rng.choice((b"\x0f\x00\xc8", b"\x0f\x01\xe0", b"\x8c\xd0", b"\x0f\x06"))        # STR, SMSW, MOV from SS, CLTS: call-outs
            elif self.bits == 64:                        # LEA RDX, [RIP]; MOV EAX, [RIP + x]
                out += b"\x48\x8d\x15" + bytes(4) + b"\x8b\x05" + bytes([rng.randrange(100), 0, 0, 0])
