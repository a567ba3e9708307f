# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that the commands share, and how a wrong one becomes one line."""
import re
from dataclasses import dataclass
from pathlib import Path

import click

from pyx86v.boot import ENTRIES

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text):
    """Bytes of "64M", "1G", "512KiB" or "65536"; ValueError."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise ValueError(f"{text!r}, expected a size such as 64M, 1G or 65536")
    return int(match[1]) * UNITS[match[2].upper()]


class Size(click.ParamType):
    name = "size"

    def convert(self, value, param, ctx):
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType):
    """A positive whole number; 5e9, 10M and 1_000 are understood."""
    name = "count"

    def convert(self, value, param, ctx):
        text = str(value).replace("_", "").upper()
        match = re.fullmatch(r"(\d+)(?:E(\d{1,2})|([KMG]))?", text)
        number = int(match[1]) * 10 ** int(match[2] or {"K": 3, "M": 6, "G": 9}.get(match[3], 0)) if match else 0
        if not 0 < number < 1 << 63:
            self.fail(f"{value!r}, expected a positive whole number such as 5000000, 5M or 5e6", param, ctx)
        return number


class Output(click.ParamType):
    """A file to be written at the end, checked at the start; - is standard output."""
    name = "file"

    def convert(self, value, param, ctx):
        path = Path(value)
        if value != "-" and (path.is_dir() or not path.absolute().parent.is_dir()):
            self.fail(f"{value!r}, expected the name of a file in an existing folder, or -", param, ctx)
        return value


@dataclass
class Options:
    """What the user asked for; limits are None where there is none, memory 0 for the guest's default."""
    cpu: str = "skylake"
    memory: int = 0
    clock: str = "cycles"
    tsc: str = "equal"
    timers: str = "equal"
    caches: str = "off"
    branches: str = "off"
    max_cycles: int = None
    max_instructions: int = None
    kernel_args: str = ""
    initrd: tuple = ()
    entry: str = "auto"
    disk: tuple = ()
    cdrom: tuple = ()
    bios: str = None
    snapshot: bool = True
    holes: str = "stop"
    json: str = None
    quantum: int = 1_000_000
    size = staticmethod(parse_size)


SHARED = (
    click.option("--cpu", metavar="PROFILE", default="skylake", show_default=True, help="Processor whose prices count; see `pyx86v profiles`."),
    click.option("--memory", type=Size(), default=0, metavar="SIZE", help="Guest RAM, such as 64M.  [default: what a bundled guest asks for (64M); 256M]"),
    click.option("--clock", default="cycles", show_default=True, metavar="cycles|instructions",
                 help="What guest time follows.  Under `instructions` every style must give the same result."),
    click.option("--tsc", default="equal", show_default=True, metavar="equal|hidden|offset=N|scale=N/M",
                 help="What the guest's time stamp counter shows of machine time; hidden: not the monitor's part."),
    click.option("--timers", default="equal", show_default=True, metavar="equal|hidden|scale=N/M", help="The same for its timers: PIT, RTC, ACPI and APIC."),
    click.option("--caches", default="off", show_default=True, metavar="off|walks|full",
                 help="Do page-table references (walks), or all data accesses (full, slow), go through modelled data caches?"),
    click.option("--branches", default="off", show_default=True, metavar="off|on", help="Model a branch predictor (slow)."),
    click.option("--max-cycles", type=Count(), metavar="N", help="Stop after N modelled cycles (status 124)."),
    click.option("--max-instructions", type=Count(), metavar="N", help="Stop after N guest instructions (status 124)."),
    click.option("--kernel-args", default="", metavar="TEXT", help="The guest's command line."),
    click.option("--initrd", metavar="FILE", multiple=True,
                 help="Initial RAM disk or module; repeatable.  \"FILE WORDS\" gives a module a command line."),
    click.option("--entry", default="auto", show_default=True, metavar="|".join(ENTRIES),
                 help="By which of its entries a kernel starts.  16, 32 and 64 are those of Linux's boot protocol."),
    click.option("--disk", metavar="FILE", multiple=True,
                 help="Raw disk image; repeatable, four with the CD-ROMs.  Without GUEST the machine boots from it."),
    click.option("--cdrom", metavar="FILE", multiple=True, help="CD-ROM image; repeatable."),
    click.option("--bios", metavar="FILE", help="Firmware to boot with.  [default: SeaBIOS of the package seabios]"),
    click.option("--snapshot/--no-snapshot", default=True, show_default=True,
                 help="What the guest writes to a disk stays in memory, and the image as it is; or goes to the image."),
    click.option("--quantum", type=Count(), default=1_000_000, show_default=True, metavar="N",
                 help="With several guests: cycles of a turn (instructions under --clock instructions)."),
    click.option("--holes", default="stop", show_default=True, metavar="stop|continue",
                 help="Does a sensitive instruction that should have trapped end the run?"),
    click.option("--json", type=Output(), metavar="FILE", help="Write the result as JSON; - for standard output, which then has nothing else."),
)


class SymbolFile(click.ParamType):
    """A file with the guest's symbols, as report.symbols.Symbols."""
    name = "file"

    def convert(self, value, param, ctx):
        from pyx86v.report import symbols
        return value if isinstance(value, symbols.Symbols) else symbols.load(value)


SYMBOLS = click.option("--symbols", type=SymbolFile(), metavar="FILE", help="Names for addresses: System.map, /proc/kallsyms, "
                       "an ELF file's symbols, or Linux's vmlinux.  The kernel needs `nokaslr`.")


def shared(command):
    """Decorator: the options every command that runs a guest takes, handed over as one Options."""
    names = [option for option in Options.__dataclass_fields__]

    def wrapped(*args, **values):
        options = Options(**{name: values.pop(name) for name in names})
        return command(*args, options=options, **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])
    for option in reversed(SHARED):
        wrapped = option(wrapped)
    return wrapped


def styles(_, __, value):
    """Callback: a comma-separated list without repetition."""
    found = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not found:
        raise click.BadParameter("expected one or more styles, separated by commas")
    return found
