# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for addresses: --symbols FILE.

FILE is a System.map (or a copy of /proc/kallsyms), an ELF file with a symbol table, or an ELF kernel of Linux without one,
which has its names in kallsyms.  Addresses are the ones the kernel was linked for, so the guest needs `nokaslr`.
"""
import io
import re
import struct
from bisect import bisect_right

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from pyx86v.boot import BootError
from pyx86v.boot.image import GIB, read_file

MAP_LINE = re.compile(rb"([0-9a-f]{8,16}) ([A-Za-z?]) ([^\s]+)")
FURTHEST = 1 << 20              # no function is longer: beyond it an address has no name
DIGITS = b"".join(b"%d\0" % digit for digit in range(10))      # kallsyms' tokens of the codes '0' to '9' are themselves
MARKED = 256                    # names between two markers of kallsyms
LEAST, MOST = 1000, 1 << 20     # names of a kernel
LARGEST_TOKENS, LARGEST_TABLE = 0x4000, 1 << 24     # bytes


class Symbols:
    """Functions and other symbols by address; empty when made of nothing.

    above_physical: Linux's image starts at an address that is 1 GiB-aligned but for its physical address (0 for others).
    """

    def __init__(self, pairs=()):
        """`pairs` are (address, name); of several names for one address the last wins."""
        table = dict(sorted(pairs, key=lambda pair: pair[0]))
        text = next((address for address, name in table.items() if name in ("_text", "_stext")), 0)
        self.above_physical = text - text % GIB
        self.addresses = [address for address in table if address >= self.above_physical]      # below it are offsets of per-CPU data
        self.names = [table[address] for address in self.addresses]

    def __len__(self):
        return len(self.names)

    def name(self, address):
        """"symbol+0x12" for an address inside or behind a symbol, "" where none is near.

        An address of Linux's first steps, on tables that map memory to itself, is named too: "symbol+0x12 (physical)".
        """
        name = self.exact(address)
        if name or not self.above_physical:
            return name
        name = self.exact(address + self.above_physical) if address < GIB else ""
        return name and f"{name} (physical)"

    def exact(self, address):
        at = bisect_right(self.addresses, address) - 1
        if at < 0 or address - self.addresses[at] >= FURTHEST:
            return ""
        offset = address - self.addresses[at]
        return f"{self.names[at]}+{offset:#x}" if offset else self.names[at]

    def add_to(self, text):
        """The text with a name behind each "at 0x..."."""
        return re.sub(r"\bat (0x[0-9a-f]+)", lambda match: f"{match[0]} <{name}>" if (name := self.name(int(match[1], 16))) else match[0], text)


def load(path):
    """The Symbols of a file; BootError, one line, when it has none."""
    data = read_file(str(path), "symbols")
    found = of_elf(path, data) if data[:4] == b"\x7FELF" else of_map(data)
    if not found:
        raise BootError(f"{path}: symbols: none found, expected a System.map, an ELF file with symbols, or Linux's vmlinux with kallsyms")
    return Symbols(found)


def of_map(data):
    """[(address, name)] of lines "address type name"; empty unless all of a file's first lines are such."""
    matches = [MAP_LINE.match(line) for line in data.splitlines()]
    if not all(matches[:10]):
        return []
    return [(int(m[1], 16), m[3].decode("ascii", "replace")) for m in matches if m and m[2] not in b"aA"]


def of_elf(path, data):
    """[(address, name)] of the ELF file's symbol table, else of the kernel's kallsyms."""
    try:
        file = ELFFile(io.BytesIO(data))
        tables = [section for section in file.iter_sections() if isinstance(section, SymbolTableSection)]
        found = [(symbol["st_value"], symbol.name) for table in tables for symbol in table.iter_symbols()
                 if symbol.name and symbol["st_info"]["type"] in ("STT_FUNC", "STT_NOTYPE", "STT_OBJECT") and symbol["st_shndx"] not in ("SHN_ABS", "SHN_UNDEF")]
        first = min(segment["p_vaddr"] for segment in file.iter_segments() if segment["p_type"] == "PT_LOAD" and segment["p_vaddr"])
    except Exception as error:                  # the parser raises many kinds on hostile files
        raise BootError(f"{path}: symbols: malformed ELF file ({type(error).__name__})") from None
    return found or of_kallsyms(data, first, file.elfclass // 8)

# kallsyms: names as strings of one-byte codes, each a token (Linux, scripts/kallsyms.c up to 6.3, and kernel/kallsyms.c).
# One behind the other, aligned: offsets, their base, number of names, names, markers (where each 256th name starts), in
# later versions an order of the names, tokens, where each token starts.


def of_kallsyms(data, base, size):
    """[(address, name)] of the table of a kernel that starts at address `base`, [] where there is none that makes sense."""
    digits = data.find(DIGITS)
    while digits > 0:
        start = digits
        for _ in range(ord("0")):               # back to the first token
            start = max(data.rfind(b"\0", 0, max(start - 1, 0)) + 1, 0)
        tokens = data[start:start + LARGEST_TOKENS].split(b"\0")[:256]
        found = table_before(data, start, base.to_bytes(size, "little"), tokens) if len(tokens) == 256 and tokens[ord("z")] == b"z" else []
        if found:
            return found
        digits = data.find(DIGITS, digits + 1)
    return []


def table_before(data, end, base, tokens):
    """Search backwards from the tokens for the base, behind it a number that as many names follow, and decode what is there."""
    size, lowest = len(base), max(end - LARGEST_TABLE, 0)
    at = data.rfind(base, lowest, end)
    while at >= 0:
        number = int.from_bytes(data[at + size:at + 2 * size], "little")
        if LEAST <= number <= MOST and 4 * number + size <= at:
            names = names_at(data, at + 2 * size, number, tokens)
            if names:
                return list(zip(addresses_before(data, at, base, number), names))
        at = data.rfind(base, lowest, at)
    return []


def names_at(data, start, number, tokens):
    """The names, or [] if the first two markers do not follow them."""
    names, at, marker = [], start, 0
    for index in range(number):
        marker = at - start if index == MARKED else marker
        length, at = data[at], at + 1
        if length & 0x80:                       # two bytes of seven bits
            length, at = length & 0x7F | data[at] << 7, at + 1
        names.append(b"".join(tokens[code] for code in data[at:at + length])[1:].decode("ascii", "replace"))      # behind its type
        at += length
        if at + 16 > len(data):
            return []
    return names if struct.pack("<II", 0, marker) in data[at:at + 16] else []


def addresses_before(data, at, base, number):
    """What the offsets before the base mean; with 64 bits a negative one counts up from the base, others are per-CPU."""
    size, start = len(base), int.from_bytes(base, "little")
    offsets = struct.unpack_from(f"<{number}i", data, at - -(-4 * number // size) * size)
    if size == 4:
        return [start + offset & 0xFFFFFFFF for offset in offsets]
    return [start - 1 - offset if offset < 0 else offset for offset in offsets]
