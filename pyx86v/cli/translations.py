# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyx86v bt`: a guest under binary translation, and what became of its code."""
import bisect
from collections import Counter

import click

from pyx86v.cli import disks, session
from pyx86v.cli.blocks import write_json
from pyx86v.cli.options import SYMBOLS, shared
from pyx86v.report import json as report
from pyx86v.report import tables
from pyx86v.report import translations

STYLE = "bt+shadow"
FIRST_STEP, MOST_SAMPLES = 1_009, 2_048      # instructions between samples at first; then every second one is forgotten


class Profile:
    """Where the kernel is, looked at every so many instructions: runs a machine to its end and counts units."""

    def __init__(self, machine):
        self.machine, self.places = machine, []

    def run(self, max_instructions, max_cycles):
        """To the end, or a limit counted from the start."""
        machine, step = self.machine, FIRST_STEP
        while True:
            left = step if max_instructions is None else min(step, max_instructions - machine.instructions)
            stop = machine.run(max_instructions=left, max_cycles=None if max_cycles is None else max_cycles - machine.cycles)
            if stop.reason.name != "LIMIT" or (max_instructions is not None and machine.instructions >= max_instructions) or \
                    (max_cycles is not None and machine.cycles >= max_cycles):
                return
            self.look()
            if len(self.places) == MOST_SAMPLES:
                self.places = self.places[1::2]
                step *= 2

    def look(self):
        registers = self.machine.registers
        _, base, _, flags = registers["cs"]
        if not flags >> 13 & 3:                  # the kernel
            self.places.append(registers["rip"] if flags >> 21 & 1 else base + registers["rip"] & 0xffffffff)

    def hottest(self, units, n):
        """[(unit, samples)] of the n units that were met most often."""
        units = sorted(units, key=lambda unit: (unit["address"], unit["at"]))
        starts = [unit["address"] for unit in units]
        met = Counter()
        for place in self.places:
            at = bisect.bisect_right(starts, place) - 1
            while at >= 0 and starts[at] > place - 200:
                if place < starts[at] + len(units[at]["guest"]):
                    met[at] += 1
                    break
                at -= 1
        return [(units[at], count) for at, count in sorted(met.items(), key=lambda item: (-item[1], item[0]))[:n]], sum(met.values())


@click.command(short_help="A guest under binary translation: the translation cache, call-outs, the hottest code on both sides.")
@click.argument("guest", metavar="GUEST")
@click.option("--top", type=click.IntRange(0, 1000), default=10, show_default=True, help="So many of the hottest units, side by side.")
@SYMBOLS
@shared
def bt(guest, top, symbols, options):
    """Run GUEST under bt+shadow and show what became of its kernel's code: units and bytes, how far the translation is longer than
    the code, how many direct jumps are chained, call-outs by kind, and the hottest units in guest and translated assembly.

    The hottest are found by a second run, which is stopped every so many instructions to look where the kernel is (that makes units of
    its own, so the figures are the first run's).  What user code does is not in them.

    \b
    Examples:
      pyx86v bt branchy
      pyx86v bt bzImage --kernel-args "console=ttyS0" --symbols System.map --top 3
      pyx86v bt seventeen --json -
    """
    found = disks.find(guest, options)
    machine = session.start(found, STYLE, options)
    end = session.run_to_end(machine, options)
    profile = Profile(session.start(found, STYLE, options))
    profile.run(options.max_instructions, options.max_cycles)
    result = {"guest": found.name, "style": STYLE, "end": end, "instructions": machine.instructions, "cycles": machine.cycles,
              **translations.figures(machine)}
    units, samples = profile.hottest(machine.translations, top)
    result["samples"] = samples
    result["hottest"] = [translations.at_work(unit, count, symbols) for unit, count in units]
    if options.json != "-":
        tables.show(f"{found.name}: {tables.end_text(result['end'])}, {machine.instructions:,} instructions", "",
                    translations.cache_table(result), translations.callouts_table(result))
        for unit in result["hottest"]:
            print(translations.unit_text(unit, samples) + "\n")
    write_json(result, options.json)
    return report.exit_status(result)
