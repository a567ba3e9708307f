# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF files: the headers that a loader reads, and loading by physical address."""
import io
import struct
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile

from pyx86v.boot.image import BootError

MACHINES = {"EM_386": 32, "EM_X86_64": 64}
MAX_SEGMENTS, MAX_SECTIONS = 256, 256
SECTION_FORMS = "<10I", "<IIQQQQIIQQ"          # of a section header, 32 and 64 bits wide:
SH_TYPE, SH_ADDR, SH_OFFSET, SH_SIZE = 1, 3, 4, 5
SYMBOLS, STRINGS = 2, 3         # types of a section


@dataclass(frozen=True)
class Elf:
    """An executable: `bits` 32 or 64, `entry` physical, `loads` [(gpa, data, size in memory)], `notes` {(name, type): data}."""
    bits: int
    entry: int
    loads: list
    notes: dict


def parse(path, data):
    """The Elf in `data`, or BootError."""
    def fail(field, text):
        return BootError(f"{path}: {field}: {text}")
    try:
        file = ELFFile(io.BytesIO(data))
        head = file.header
        kind, machine, entry, count = head["e_type"], head["e_machine"], head["e_entry"], head["e_phnum"]
        if count > MAX_SEGMENTS:
            raise fail("e_phnum", f"{count}, expected at most {MAX_SEGMENTS}")
        headers = [file.get_segment(i).header for i in range(count)]
    except BootError:
        raise
    except Exception as error:                  # the parser raises many kinds on hostile headers
        raise fail("ELF header", f"malformed ({type(error).__name__})") from None
    if MACHINES.get(machine) != file.elfclass:
        raise fail("e_machine", f"{machine} in a {file.elfclass}-bit file, expected EM_386 or EM_X86_64")
    if kind != "ET_EXEC" or any(h["p_type"] == "PT_INTERP" for h in headers):
        raise fail("e_type", f"{kind}, expected a statically linked ET_EXEC (a kernel, not a program)")
    loads, notes = [], {}
    for index, h in enumerate(headers):
        if h["p_type"] not in ("PT_LOAD", "PT_NOTE"):
            continue
        start, size = h["p_offset"], h["p_filesz"]
        if start + size > len(data):
            raise fail(f"segment {index}", f"ends at byte {start + size}, the file has {len(data)}: truncated")
        content = data[start:start + size]
        if h["p_type"] == "PT_NOTE":
            notes.update(parse_notes(content))
            continue
        if h["p_memsz"] < size:
            raise fail(f"segment {index}", f"p_memsz is {h['p_memsz']}, expected at least p_filesz {size}")
        if h["p_memsz"]:
            loads.append((h["p_paddr"], content, h["p_memsz"]))
        if h["p_vaddr"] != h["p_paddr"] and h["p_vaddr"] <= entry < h["p_vaddr"] + h["p_memsz"]:
            entry += h["p_paddr"] - h["p_vaddr"]
    if not loads:
        raise fail("program headers", "nothing to load, expected a PT_LOAD segment")
    return Elf(file.elfclass, entry, loads, notes)


def parse_notes(data):
    """{(name, type): description} of a PT_NOTE segment; stops at the first malformed note."""
    notes, at = {}, 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name_at = at + 12
        at = name_at + -(-name_size // 4) * 4
        if at + size > len(data):
            break
        notes[data[name_at:name_at + name_size].rstrip(b"\0"), kind] = data[at:at + size]
        at += -(-size // 4) * 4
    return notes


def place(elf, layout):
    """Put the segments of `elf` where they want to be and check the entry; returns the end of the last one."""
    for index, (gpa, data, size) in enumerate(elf.loads):
        layout.add(f"segment {index}", gpa, data, size)
    if not any(gpa <= elf.entry < gpa + size for gpa, _, size in elf.loads):
        raise layout.error("e_entry", f"{elf.entry:#x} lies in no loaded segment")
    return max(gpa + size for gpa, _, size in elf.loads)


def section_headers(data):
    """(index of the names, [fields of a header in the file's order]) of the section table; no headers when it is not whole."""
    wide = data[4] == 2
    at = struct.unpack_from("<Q", data, 0x28)[0] if wide else struct.unpack_from("<I", data, 0x20)[0]
    size, count, names = struct.unpack_from("<3H", data, 0x3A if wide else 0x2E)
    form = SECTION_FORMS[wide]
    if size != struct.calcsize(form) or count > MAX_SECTIONS or at + count * size > len(data):
        return 0, []
    return names, [list(struct.unpack_from(form, data, at + i * size)) for i in range(count)]
