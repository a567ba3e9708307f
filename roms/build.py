#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the ROMs: python roms/build.py OUTDIR [NAME...]

Writes OUTDIR/NAME.elf (ELF32, multiboot; a flat OUTDIR/NAME.bin when the kind is firmware) and
OUTDIR/manifest.json (the headers of the ROMs built).
Needs gcc, ld and objcopy.  The same sources give the same bytes wherever the checkout lies.

A ROM is a folder with NAME.S or NAME.c, whose top comment is the header.  Everything is linked as elf64
so that one image can hold code of all widths: *.S files say .code16/32/64 themselves, *.c files are 64-bit,
and *32.c files are compiled with -m32 to assembly that is then assembled after a .code32.
"""
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = ("name", "bits", "proves", "ends", "mission", "qemu", "time", "styles", "memory", "kind")
OPTIONAL = ("cflags",)
DEFAULTS = {"memory": "64M", "styles": "all"}
CFLAGS = ("-O2 -std=gnu11 -Wall -Wextra -Wno-array-bounds -ffreestanding -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only "
          "-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-ident -U_FORTIFY_SOURCE "
          "-fno-strict-aliasing -fno-tree-loop-distribute-patterns -Ilib").split()


class BuildError(Exception):
    """What is wrong, in one line."""


def main_source(folder):
    """The file that carries the header: NAME.c, NAME32.c or NAME.S, else BuildError."""
    for end in (".c", "32.c", ".S"):
        source = folder / (folder.name + end)
        if source.exists():
            return source
    raise BuildError(f"{folder.name}: no {folder.name}.S or {folder.name}.c")


def header_lines(text):
    """The lines of the first comments, without their comment marks; stops at the first line of code."""
    for line in text.splitlines():
        mark = re.match(r"\s*(/\*|\*/|\*|#(?!\w)|//|;)\s?(.*)$", line)
        if not mark:
            return
        yield mark[2].replace("*/", "").rstrip()


def read_header(folder):
    """The header of the ROM in `folder` as a dict with KEYS (bits and mission as lists of int)."""
    folder = Path(folder)
    source = main_source(folder)
    found, key = {}, None
    for line in header_lines(source.read_text()):
        field = re.match(r"(\w+)\s{1,}(\S.*)$", line)
        if field and field[1] in KEYS + OPTIONAL and field[1] not in found:
            key = field[1]
            found[key] = field[2]
        elif key and re.match(r"\s{4,}\S", line):
            found[key] += " " + line.strip()
        else:
            key = None
    head = {**DEFAULTS, **found}
    for name in KEYS:
        if name not in head:
            raise BuildError(f"{source.relative_to(folder.parent)}: header lacks '{name}'")
    if head["name"] != folder.name:
        raise BuildError(f"{source.relative_to(folder.parent)}: name is '{head['name']}', expected '{folder.name}'")
    for name in ("bits", "mission"):
        head[name] = [int(n) for n in re.findall(r"\d+", head[name])]
    if not head["qemu"].startswith(("yes", "no: ")):
        raise BuildError(f"{source.relative_to(folder.parent)}: qemu is '{head['qemu']}', expected 'yes' or 'no: witness'")
    if head["styles"] != "all":
        head["styles"] = re.split(r"[,\s]+", head["styles"])
    return head


def run(*command):
    """Run a tool in roms/ so that no path of this machine reaches the output."""
    try:
        done = subprocess.run([str(c) for c in command], cwd=HERE, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed (Debian: apt install gcc binutils)") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "rror" in line), done.stderr.strip())
        raise BuildError(f"{command[0]} failed: {first}")
    sys.stderr.write(done.stderr)       # warnings


def compile_one(source, out, flags):
    """One source (path relative to roms/) to one elf64 object."""
    if source.suffix == ".S":
        run("gcc", "-m64", "-c", "-Ilib", *flags, source, "-o", out)
    elif source.stem.endswith("32"):
        listing = out.with_suffix(".s")
        run("gcc", "-m32", "-S", *CFLAGS, *flags, source, "-o", listing)
        listing.write_text(".code32\n" + listing.read_text())
        run("as", "--64", listing, "-o", out)
    else:
        run("gcc", "-m64", "-c", *CFLAGS, *flags, source, "-o", out)


def image_name(head):
    """File name of the built ROM: firmware is a flat .bin, everything else a multiboot .elf."""
    return head["name"] + (".bin" if head["kind"] == "firmware" else ".elf")


def build_one(head, outdir, lib, work):
    """Compile and link one ROM into outdir/image_name(head)."""
    flags = head.get("cflags", "").split() + [f"-I{head['name']}"]
    objects = []
    for source in sorted((HERE / head["name"]).iterdir()):
        if source.suffix in (".S", ".c"):
            out = work / f"{head['name']}-{source.name}.o"
            compile_one(source.relative_to(HERE), out, flags)
            objects.append(out)
    linked, image = work / f"{head['name']}.elf64", outdir / image_name(head)
    if head["kind"] == "firmware":
        run("ld", "-m", "elf_x86_64", "-Ttext=0", "-e", "0", "--oformat", "binary", "-o", image, *objects)
        return image
    run("ld", "-m", "elf_x86_64", "-nostdlib", "-static", "--build-id=none", "-z", "max-page-size=4096", "-z",
        "noexecstack", "--no-warn-rwx-segments", "-T", "lib/rom.lds", "-o", linked, *lib, *objects)
    run("objcopy", "-O", "elf32-i386", linked, image)
    return image


def rom_names():
    """Names of all ROM folders, sorted."""
    return sorted(d.name for d in HERE.iterdir() if d.is_dir() and d.name != "lib" and any(d.glob(d.name + "*.[Sc]")))


def build_all(outdir, names=None):
    """Build `names` (default: all); returns the manifest as a list of dicts.  Raises BuildError."""
    outdir = Path(outdir).resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    for name in names or ():
        if not (HERE / name).is_dir() or name == "lib":
            raise BuildError(f"no ROM named '{name}' in roms/")
    heads = [read_header(HERE / name) for name in names or rom_names()]
    with tempfile.TemporaryDirectory() as tmp, ThreadPoolExecutor(2) as pool:
        work = Path(tmp)
        sources = sorted(s.relative_to(HERE) for s in (HERE / "lib").iterdir() if s.suffix in (".S", ".c"))
        lib = [work / f"lib-{s.name}.o" for s in sources]
        list(pool.map(lambda pair: compile_one(*pair, []), zip(sources, lib)))
        list(pool.map(lambda head: build_one(head, outdir, lib, work), heads))
    (outdir / "manifest.json").write_text(json.dumps(heads, indent=1) + "\n")
    return heads


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python roms/build.py OUTDIR [NAME...]")
    try:
        for rom in build_all(sys.argv[1], sys.argv[2:] or None):
            print(rom["name"])
    except BuildError as error:
        sys.exit(f"build.py: {error}")
