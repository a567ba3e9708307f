# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest on one machine: start it, run it with progress on a terminal, and give back its result.

A run is one call of Machine.run(), so that nothing about it depends on whether somebody watches: progress is shown
by a timer signal's handler, which the machine calls when it looks for signals (about once a million cycles).
"""
import signal
import sys
import time
from contextlib import contextmanager

from rich.live import Live

from pyx86v.cli.guests import Guest, Several
from pyx86v.cli.terminal import Left, Terminal
from pyx86v.report import json as report
from pyx86v.report.screen import panel
from pyx86v.report.tables import console

LOADED = ("initrd", "kernel_args", "entry")     # what Machine.load() is told
INTERRUPTED = {"reason": "interrupt", "status": 0, "detail": "Ctrl-C"}
PERIOD_S = 0.2                  # how often the progress line changes, in seconds


def start(guest, style, options, **more):
    """A Machine (with the arguments `more`) with the guest, or several, loaded; ValueError (one line) for what cannot be."""
    from pyx86v import Machine
    common = {"profile": options.cpu, "clock": options.clock, "tsc": options.tsc, "timers": options.timers,
              "caches": options.caches, "branches": options.branches, "holes": options.holes, **more}
    parts = [(guest, {})] if isinstance(guest, Guest) else guest.parts
    wanted = [{"style": style, "memory": options.memory or options.size(part.memory), "initrd": options.initrd,
               "kernel_args": options.kernel_args, "entry": options.entry, **given} for part, given in parts]
    try:
        if len(wanted) == 1:
            machine = Machine(memory=wanted[0]["memory"], style=wanted[0]["style"], disks=options.disk, cdroms=options.cdrom,
                              write_disks=not options.snapshot, **common)
            machine.load(parts[0][0].path, **{name: wanted[0][name] for name in LOADED})
        else:
            machine = Machine(guests=[{"style": each["style"], "memory": each["memory"], "disks": each.get("disk", ()),
                                       "cdroms": each.get("cdrom", ()), "write_disks": not options.snapshot} for each in wanted],
                              quantum=options.quantum, **common)
            for view, (part, _), each in zip(machine.guests, parts, wanted, strict=True):
                view.load(part.path, **{name: each[name] for name in LOADED})
    except MemoryError:
        raise ValueError(f"memory: {sum(each['memory'] for each in wanted)} bytes are not available") from None
    return machine


class Screen:
    """The guest's console on `out` as it comes, and a progress line on standard error if that is a terminal.

    With several guests each line of a console is led by the guest's number.
    """

    def __init__(self, machine, out=None):
        self.machine, self.out = machine, out
        self.shown = [0] * max(len(machine.guests), 1)
        self.status = console(sys.stderr).status("", refresh_per_second=5) if sys.stderr.isatty() else None
        self.live = self.status is not None or (out is not None and out.isatty())
        self.mark = (time.perf_counter(), 0)

    def update(self, *_):
        """Bring the screen up to date; a signal handler."""
        machine = self.machine
        if self.out:
            self.show_console()
        if self.status:
            then, before = self.mark
            now, count = self.mark = (time.perf_counter(), machine.instructions)
            mips = (count - before) / max(now - then, 1e-9) / 1e6
            exits = sum(row["count"] for row in machine.exits.values())      # of the guest that runs
            self.status.update(f"{machine.style}: {mips:,.0f} MIPS, {machine.cycles / 1e6:,.0f} M cycles, {exits:,} exits")
            self.status.start()

    def show_console(self, last=False):
        """Write what is new of the guests' consoles: whole lines, at the end all of it."""
        for index in range(len(self.shown)):
            text = self.machine.guests[index].console if len(self.shown) > 1 else self.machine.console
            end = len(text) if last else text.rfind(b"\n") + 1
            if end > self.shown[index]:
                self.write(text[self.shown[index]:end].decode("utf-8", "replace"), f"{index}| " if len(self.shown) > 1 else "")
                self.shown[index] = end

    def write(self, text, lead):
        if self.status:
            self.status.stop()
        if not text.endswith("\n"):
            text += "\n"
        self.out.write("".join(lead + line for line in text.splitlines(True)) if lead else text)
        self.out.flush()

    def close(self):
        if self.status:
            self.status.stop()
        if self.out:
            self.show_console(last=True)


class Picture:
    """The guest's text screen in the terminal while it runs; on what is no terminal only the last picture."""

    live = True

    def __init__(self, machine, out):
        self.machine = machine
        self.view = Live(console=console(out), auto_refresh=False, vertical_overflow="visible")
        self.view.start()

    def update(self, *_):
        """A signal handler."""
        self.view.update(panel(self.machine.screen, f"{self.machine.style}, {self.machine.cycles / 1e6:,.0f} M cycles"), refresh=True)

    def close(self):
        self.update()
        self.view.stop()


@contextmanager
def every(seconds, handler):
    """Call handler in the main thread every so often, by SIGALRM."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(machine, guest, options, out=None, picture=False):
    """Run to the guest's end, a limit or Ctrl-C, with its console or the picture of its screen on `out`; the result of
    report.run_result()."""
    began, screen = time.perf_counter(), Picture(machine, out) if picture else Screen(machine, out)
    try:
        if screen.live:
            with every(PERIOD_S, screen.update):
                end = run_to_end(machine, options)
        else:
            end = run_to_end(machine, options)
    except KeyboardInterrupt:
        end = INTERRUPTED
    finally:
        screen.close()
    return finished(machine, guest, end, began)


def interact(machine, guest, options):
    """The same with the user at the guest's serial console, who may also leave by Ctrl-A x."""
    began, terminal = time.perf_counter(), Terminal(machine)
    try:
        with terminal.opened():
            end = run_to_end(machine, options)
    except Left:
        end = {"reason": "left", "status": 0, "detail": "Ctrl-A x"}
    except KeyboardInterrupt:
        end = INTERRUPTED
    return finished(machine, guest, end, began)


def finished(machine, guest, end, began):
    names = [part.name for part, _ in guest.parts] if isinstance(guest, Several) else []
    return report.run_result(machine, guest.name, end, time.perf_counter() - began, names)


def run_to_end(machine, options):
    stop = machine.run(max_cycles=options.max_cycles, max_instructions=options.max_instructions)
    detail = limit_reached(machine, options) if stop.reason.name == "LIMIT" else stop.detail
    return {"reason": stop.reason.name.lower(), "status": stop.status, "detail": detail}


def limit_reached(machine, options):
    """The name of the option whose limit the machine has reached."""
    return "max-cycles" if options.max_cycles is not None and machine.cycles >= options.max_cycles else "max-instructions"
