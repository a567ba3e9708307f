# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest on one machine: start it, run it with progress on a terminal, and give back its result."""
import sys
import time
from fractions import Fraction

from pyx86v.report import json as report
from pyx86v.report.tables import console

SLICE_S = 0.2                   # how often the progress line changes, in seconds
UNITS = 64                      # a cycle in the ledger: slices must not round
FIRST_SLICE = 20_000_000        # cycles


def start(guest, style, options):
    """A Machine with the guest loaded; ValueError (one line) for anything that cannot be."""
    from pyx86v import Machine
    try:
        machine = Machine(memory=options.memory or options.size(guest.memory), style=style, profile=options.cpu, clock=options.clock)
        machine.load(guest.path, initrd=options.initrd, kernel_args=options.kernel_args)
    except MemoryError:
        raise ValueError(f"memory: {options.memory} bytes are not available") from None
    return machine


class Screen:
    """The guest's console on `out` as it comes, and a progress line on standard error if that is a terminal."""

    def __init__(self, style, out=None):
        self.style, self.out, self.shown = style, out, 0
        self.status = console(sys.stderr).status("") if sys.stderr.isatty() else None
        self.live = self.status is not None or (out is not None and out.isatty())
        self.mark = (time.perf_counter(), 0)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.status:
            self.status.stop()

    def update(self, machine):
        if self.out:
            self.show_console(machine.console)
        if self.status:
            then, before = self.mark
            now, count = self.mark = (time.perf_counter(), machine.instructions)
            mips = (count - before) / max(now - then, 1e-9) / 1e6
            exits = sum(row["count"] for row in machine.exits.values())
            self.status.update(f"{self.style}: {mips:,.0f} MIPS, {machine.cycles / 1e6:,.0f} M cycles, {exits:,} exits")
            self.status.start()

    def show_console(self, text, last=False):
        """Write what is new of `text`: whole lines, at the end all of it."""
        end = len(text) if last else text.rfind(b"\n") + 1
        if end > self.shown:
            if self.status:
                self.status.stop()
            self.out.write(text[self.shown:end].decode("utf-8", "replace"))
            self.out.flush()
            self.shown = end

    def close(self, machine):
        if self.status:
            self.status.stop()
        if self.out:
            self.show_console(machine.console, last=True)
            if self.shown and not machine.console.endswith(b"\n"):
                self.out.write("\n")


def run(machine, guest, options, out=None):
    """Run to the guest's end, a limit or Ctrl-C; returns the result of report.run_result()."""
    began = time.perf_counter()
    with Screen(machine.style, out) as screen:
        try:
            end = (run_in_slices if screen.live else run_through)(machine, options, screen)
        except KeyboardInterrupt:
            end = {"reason": "interrupt", "status": 0, "detail": "Ctrl-C"}
        screen.close(machine)
    return report.run_result(machine, guest.name, end, time.perf_counter() - began)


def run_through(machine, options, screen):
    return end_of(machine.run(max_cycles=options.max_cycles, max_instructions=options.max_instructions), machine, options)


def run_in_slices(machine, options, screen):
    """As run_through(), but with the screen brought up to date about every SLICE_S seconds."""
    size = FIRST_SLICE
    while True:
        cycles_left = left(options.max_cycles, Fraction(machine.units, UNITS))
        began = time.perf_counter()
        stop = machine.run(max_cycles=size if cycles_left is None else min(size, cycles_left),
                           max_instructions=left(options.max_instructions, machine.instructions))
        screen.update(machine)
        if stop.reason.name != "LIMIT" or limit_reached(machine, options):
            return end_of(stop, machine, options)
        took = max(time.perf_counter() - began, 1e-6)
        size = max(FIRST_SLICE // 20, min(int(size * SLICE_S / took), 4 * size))


def left(limit, used):
    return None if limit is None else max(limit - used, 0)


def limit_reached(machine, options):
    """The name of the limit that the machine has reached, or None."""
    if left(options.max_cycles, machine.cycles) == 0:
        return "max-cycles"
    return "max-instructions" if left(options.max_instructions, machine.instructions) == 0 else None


def end_of(stop, machine, options):
    detail = limit_reached(machine, options) if stop.reason.name == "LIMIT" else None
    return {"reason": stop.reason.name.lower(), "status": stop.status, "detail": detail or stop.detail}
