# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that a command can name: a path, or a bundled ROM from the manifest that the build wrote."""
import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pyx86v import disks
from pyx86v.boot import BootError, firmware
from pyx86v.cli.options import parse_size

ROMS = Path(__file__).resolve().parents[1] / "_roms"
FIRST_KEYS = ("name", "bits", "styles", "proves", "mission")
FIELDS = ("style", "memory", "initrd", "kernel_args", "entry", "disk", "cdrom")     # what --guest says of one guest
IMAGES = ("disk", "cdrom")      # of them, those that may be repeated
DEFAULT_MEMORY = "64M"
LARGE_MEMORY = "256M"           # for what is not a bundled ROM: a distribution's kernel does not unpack itself in 64 MiB


@dataclass(frozen=True)
class Guest:
    """What to run: `rom` is its entry in the manifest, None for a file of the user's."""
    name: str
    path: str
    rom: dict = None

    @property
    def memory(self):
        return self.rom.get("memory", DEFAULT_MEMORY) if self.rom else LARGE_MEMORY

    @property
    def time_dependent(self):
        """Whether equal results need `--clock instructions`."""
        return self.rom is None or self.rom["time"] != "no"


@dataclass(frozen=True)
class Several:
    """Guests that share one machine: [(Guest, what of FIELDS was given)]."""
    parts: tuple

    @property
    def name(self):
        return "+".join(guest.name for guest, _ in self.parts)

    @property
    def rom(self):
        """Whether all are bundled guests."""
        return all(guest.rom for guest, _ in self.parts) or None

    @property
    def time_dependent(self):
        return any(guest.time_dependent for guest, _ in self.parts)


def several(texts):
    """Several from the texts of --guest: FILE[,style=STYLE][,memory=SIZE][,...] with FIELDS."""
    parts = []
    for text in texts:
        name, *fields = text.split(",")
        given = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if key not in FIELDS or not equals:
                raise BootError(f"{name}: --guest: {field!r}, expected {', '.join(f'{each}=' for each in FIELDS)}")
            if key in IMAGES:
                given.setdefault(key, []).append(value)
            else:
                given[key] = size_of(name, value) if key == "memory" else value
        kind = disks.kind_of(name) if os.path.isfile(name) else None
        if kind:                                        # an image that the guest boots from
            given[kind] = [name, *given.get(kind, [])]
        parts.append((Guest(name, firmware.find()) if kind else find(name), given))
    return Several(tuple(parts))


def size_of(name, text):
    """The bytes of memory= of the guest `name`; BootError."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise BootError(f"{name}: --guest: memory: {error}") from None


def manifest(folder=ROMS):
    """The bundled ROMs' headers, in order of name; BootError if they were not built."""
    try:
        roms = json.loads((folder / "manifest.json").read_text())
    except OSError:
        raise BootError(f"{folder}: the bundled guests are not built: python roms/build.py {folder}") from None
    return sorted(({**dict.fromkeys(FIRST_KEYS), **rom, "styles": styles_of(rom)} for rom in roms), key=lambda rom: rom["name"])


def image(name, folder=ROMS):
    """The path of a ROM's image: a kernel or a flat firmware."""
    flat = folder / f"{name}.bin"
    return str(flat if flat.exists() else folder / f"{name}.elf")


def find(name, folder=ROMS):
    """The Guest called `name`; a name with a slash, or of an existing file that is no ROM, is a path."""
    if os.sep not in name:
        roms = {rom["name"]: rom for rom in manifest(folder)} if (folder / "manifest.json").exists() else {}
        if name in roms:
            return Guest(name, image(name, folder), roms[name])
        if not os.path.exists(name):
            close = difflib.get_close_matches(name, roms, 1)
            hint = f"did you mean {close[0]}?" if close else "see: pyx86v roms"
            raise BootError(f"{name}: guest: neither a file nor a bundled guest; {hint}")
    return Guest(name, name)


def styles_of(rom):
    """The styles a ROM runs under, as a list; "all" means every style that the core finds."""
    from pyx86v._core import styles
    return list(styles()) if rom["styles"] == "all" else rom["styles"]
