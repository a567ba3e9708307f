# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands.  Each runs a guest or shows what there is, prints a table, and writes JSON where asked."""
import sys
from dataclasses import replace

import click

from pyx86v.cli import disks, guests, session
from pyx86v.cli.blocks import accuracy, block
from pyx86v.cli.options import SYMBOLS, Options, Output, shared, styles
from pyx86v.cli.translations import bt
from pyx86v.report import blocks, census
from pyx86v.report import json as report
from pyx86v.report import tables
from pyx86v.report.screen import check_target
from pyx86v.report.screen import write as write_screen

OPTIONAL_GUEST = click.argument("guest", metavar="[GUEST]", required=False)
SEVERAL = click.option("--guest", "several", multiple=True, metavar="FILE[,style=...][,memory=...]",
                       help="One of several guests that share the machine; also initrd=, kernel_args=, entry=, disk= and cdrom=.  Repeatable.")


def find_guests(guest, several, options):
    """The Guest, or the guests of --guest."""
    if not several:
        return disks.find(guest, options)
    if guest or options.disk or options.cdrom or options.bios:
        raise click.UsageError("expected either GUEST, with its disks, or --guest")
    found = guests.several(several)
    return found if len(found.parts) > 1 or found.parts[0][1] else found.parts[0][0]


def write_json(value, target):
    """To a file, or to standard output for "-"."""
    if target == "-":
        sys.stdout.write(report.dumps(value))
    elif target:
        with open(target, "w", encoding="ascii") as file:
            file.write(report.dumps(value))


def named(sites, symbols):
    """The sites, each with its "symbol" if --symbols was given."""
    return [{**site, "symbol": symbols.name(site["address"] or 0)} for site in sites] if symbols else sites


def name_end(result, symbols):
    """The result; where its end says an address, with a name behind it."""
    return {**result, "end": {**result["end"], "detail": symbols.add_to(result["end"]["detail"])}} if symbols else result


def hertz(profile):
    from pyx86v.cost.profile import load_profile
    return load_profile(profile).frequency_hz


@click.command(short_help="Run a guest, or several at once: console and where the cycles went.")
@OPTIONAL_GUEST
@SEVERAL
@click.option("--style", metavar="STYLE", default="native", show_default=True, help="native, trap+shadow, bt+shadow, vmx+shadow, svm+shadow, vmx+ept or svm+npt.")
@click.option("--interactive", "-i", is_flag=True,
              help="Your terminal is the guest's serial console; Ctrl-A x leaves.  Only here idle time passes by the wall clock.")
@click.option("--screen", is_flag=True, help="Show the guest's text screen (VGA) while it runs, instead of its serial console.")
@click.option("--screen-to", type=Output(), metavar="FILE", help="Write the text screen at the end to FILE.txt or FILE.png.")
@click.option("--quiet", "-q", is_flag=True, help="Only the guest's console.")
@SYMBOLS
@shared
def run(guest, several, style, interactive, screen, screen_to, quiet, symbols, options):
    """Run one GUEST, or several in one machine, and show the console and where the cycles went.

    GUEST is a file (multiboot or PVH kernel, Linux bzImage or vmlinux, firmware, disk or CD-ROM image) or the name of a
    bundled guest; without it the machine boots from --disk or --cdrom.
    The exit status is the guest's own, 0 when it switched the machine off; 124 if a limit was reached, 2 for a bad argument or image.

    A run is deterministic, and a guest that waits for a timer does so in no time.  With --interactive your terminal is its
    serial console (COM1; Linux: console=ttyS0): keys go there as you type them, Ctrl-C too, and waiting takes as long as the
    guest's clock says.  Ctrl-A x leaves, Ctrl-A a sends Ctrl-A, Ctrl-A h helps.  Pipes work as well.

    \b
    Examples:
      pyx86v run sieve
      pyx86v run sieve --style vmx+ept --cpu nehalem
      pyx86v run bzImage --initrd initrd.cpio --kernel-args "console=ttyS0" --json run.json
      pyx86v run bzImage --entry 64 --initrd base.cpio --initrd extra.cpio
      pyx86v run --disk debian.raw --memory 512M
      pyx86v run vmlinuz --initrd shell.cpio --kernel-args "console=ttyS0" --interactive
      pyx86v run memtest.bin --screen --screen-to end.png --max-cycles 20e9
      pyx86v run --guest qsort,style=vmx+ept --guest sieve,memory=32M --quantum 100000
    """
    found = find_guests(guest, several, options)
    if interactive and (several or options.json == "-"):
        raise click.UsageError("--interactive: expected one GUEST, and no --json -")
    if screen and (interactive or options.json == "-"):
        raise click.UsageError("--screen: expected no --interactive and no --json -")
    if screen_to:
        check_target(screen_to)
    machine = session.start(found, style, options)
    if interactive:
        result = session.interact(machine, found, options)
    else:
        result = session.run(machine, found, options, None if options.json == "-" else sys.stdout, screen)
    if screen_to:
        write_screen(machine.screen, screen_to)
    result = name_end(result, symbols)
    if not quiet and options.json != "-":
        parts = [tables.ledger_table(result), tables.counts_table(result)]
        if any(row["count"] for row in result["exits"].values()):
            parts.insert(1, tables.exits_table(result))
        if result["guests"]:
            parts.insert(0, tables.guests_table(result))
        if result["probe"]:
            parts.append(tables.probe_table([result], hertz(result["profile"])))
        if machine.hole_sites:
            parts.append(tables.holes_table(named(machine.hole_sites, symbols)))
        tables.show("", tables.summary([result], hertz(result["profile"])), *parts)
    write_json(result, options.json)
    return report.exit_status(result)


@click.command(short_help="Run a guest under several styles, side by side.")
@OPTIONAL_GUEST
@SEVERAL
@click.option("--style", "names", default="native,vmx+ept", show_default=True, callback=styles, metavar="STYLE,...",
              help="The styles to compare; the first is what the others are measured against.")
@click.option("--check/--no-check", default=None, help="Make sure that the styles give equal results.  [default: for bundled guests]")
@shared
def compare(guest, several, names, check, options):
    """Run one GUEST, or several in one machine, under several styles and show their cycles side by side.

    A percentage is a part of the first style's total, so that those in a column add up to the whole overhead.
    The check compares instructions, console, report words and the digest of memory and registers; a guest that
    depends on time is run again for it under `--clock instructions`.  The exit status is 1 if something differs.

    \b
    Examples:
      pyx86v compare ptestorm
      pyx86v compare tlbreach --cpu nehalem --json -
      pyx86v compare --guest qsort --guest sieve,style=vmx+ept
    """
    found = find_guests(guest, several, options)
    if not options.snapshot:
        raise click.UsageError("--no-snapshot: expected one run that changes an image, not one for each style")
    check = found.rom is not None if check is None else check
    runs = compare_runs(found, names, options)
    results = {"guest": found.name, "profile": runs[0]["profile"], "runs": runs}
    complete = len(runs) == len(names) and runs[-1]["end"]["reason"] != "interrupt"
    if check and complete:
        results["check"] = check_equal(found, names, runs, options)
    if options.json != "-":
        show_comparison(results)
    write_json(results, options.json)
    differs = not results.get("check", {}).get("equal", True)
    return next((status for status in map(report.exit_status, runs) if status), int(differs))


def compare_runs(found, names, options):
    """The results under each style, up to an interrupted one.  All machines start first: an error costs no run."""
    runs, machines = [], [session.start(found, name, options) for name in names]
    while machines:
        runs.append(session.run(machines.pop(0), found, options))
        if runs[-1]["end"]["reason"] == "interrupt":
            break
    return runs


def check_equal(found, names, runs, options):
    """{"clock", "equal", "differs"}: whether runs are equal, made again where guest time would tell them apart."""
    clock = "instructions" if found.time_dependent else options.clock
    if clock != options.clock:
        runs = compare_runs(found, names, replace(options, clock=clock))
    differs = report.differences(runs)
    return {"clock": clock, "equal": not differs, "differs": differs}


def show_comparison(results):
    runs, check = results["runs"], results.get("check")
    tables.show(tables.summary(runs, hertz(results["profile"])), tables.compare_table(runs), tables.compare_counts_table(runs))
    if any(run["probe"] for run in runs):
        tables.show(tables.probe_table(runs, hertz(results["profile"])))
    if check and check["equal"]:
        tables.show(f"Equal under all styles (--clock {check['clock']}): end, instructions, console, report words, digest.")
    elif check:
        tables.show("\n".join([f"DIFFERENT (--clock {check['clock']}):", *check["differs"]]))


@click.command(short_help="Run a guest: its exits, as perf kvm stat shows them.")
@OPTIONAL_GUEST
@click.option("--style", metavar="STYLE", default="vmx+ept", show_default=True, help="A style that has exits.")
@SYMBOLS
@shared
def exits(guest, style, symbols, options):
    """Run one GUEST and show its exits as `perf kvm stat report` does.

    Times are modelled cycles at the profile's clock, from the exit to the end of the entry.

    \b
    Examples:
      pyx86v exits modes
      pyx86v exits bzImage --initrd initrd.cpio --max-cycles 5e9
    """
    found = disks.find(guest, options)
    result = name_end(session.run(session.start(found, style, options), found, options), symbols)
    if options.json != "-":
        click.echo(tables.perf_kvm_stat(result, hertz(result["profile"])))
    write_json(result, options.json)
    return report.exit_status(result)


@click.command(short_help="Run a guest: which sensitive instructions it executes.")
@OPTIONAL_GUEST
@click.option("--style", metavar="STYLE", default="native", show_default=True, help="Any style; under --clock instructions all count the same.")
@SYMBOLS
@shared
def audit(guest, style, symbols, options):
    """Run one GUEST and count its sensitive instructions, by instruction, ring, and whether they trap outside ring 0.

    The table of sites shows the ten addresses that executed most.  The classes are Popek and Goldberg's, the seventeen Robin and Irvine's; the last lines say whether trap and emulate
    could run what this guest executed.

    \b
    Examples:
      pyx86v audit rings
      pyx86v audit bzImage --initrd initrd.cpio --json census.json
    """
    found = disks.find(guest, options)
    machine = session.start(found, style, options, audit=True)
    result = name_end(session.run(machine, found, options), symbols)
    counted, sites = machine.census, named(machine.census_sites, symbols)
    judged = census.judge(counted)
    if options.json != "-":
        tables.show("", tables.summary([result], hertz(result["profile"])), tables.census_table(counted),
                    tables.sites_table(sites), tables.classes_table(judged["classes"]), *census.verdict(judged))
    write_json({**result, "census": counted, "sites": sites, "audit": judged}, options.json)
    return report.exit_status(result)


@click.command(short_help="List the bundled guests.")
@click.argument("name", required=False)
@click.option("--json", "target", type=Output(), metavar="FILE", help="Write the list as JSON; - for standard output.")
def roms(name, target):
    """List the bundled guests, or show all that is known of the guest NAME.

    \b
    Examples:
      pyx86v roms
      pyx86v roms tlbreach
      pyx86v roms --json -
    """
    found = guests.manifest()
    if name:
        found = [guests.find(name).rom]
        if found == [None]:
            raise click.UsageError(f"{name}: guest: not a bundled one")
    if target != "-":
        tables.show(tables.fields(found[0].items()) if name else tables.roms_table(found))
    write_json(found, target)




@click.command(short_help="List the processor profiles and their prices.")
@click.argument("name", required=False)
@click.option("--uncovered", "guest", metavar="GUEST", help="Run GUEST natively and list the instructions it has that have no entry.")
@click.option("--json", "target", type=Output(), metavar="FILE", help="Write the profiles as JSON; - for standard output.")
def profiles(name, guest, target):
    """List the processor profiles, or show each price of the profile NAME with unit, source and status.

    A price is `read` in its source, `derived` from figures read there, `recalled` from memory, or `estimated`.
    NAME may also be a processor of the block model, whose lines follow the prices where a profile has both.
    With --uncovered: the instructions of a run that fall to a default, in NAME's prices or in its block model.

    \b
    Examples:
      pyx86v profiles
      pyx86v profiles skylake
      pyx86v profiles haswell
      pyx86v profiles ./mine.toml --json mine.json
      pyx86v profiles skylake --uncovered nanobench
    """
    if guest:
        return uncovered(guest, name or "skylake", target)
    from pyx86v.cost.profile import load_profile, profile_names
    model = blocks.model_of(name) if name else None
    found = [] if model and name not in profile_names() else [load_profile(each) for each in ([name] if name else profile_names())]
    shown = [tables.prices_table(each) for each in found] if name else [tables.profiles_table(found)]
    if target != "-":
        tables.show(*shown, *([tables.model_table(model)] if model else []))
    write_json([tables.profile_dict(profile) for profile in found] + ([model] if model else []), target)


def uncovered(guest, name, target):
    """Run the guest and show the forms of instructions that have no entry."""
    found = guests.find(guest)
    machine = session.start(found, "native", Options(cpu=name))
    result = session.run(machine, found, Options(cpu=name), None)
    rows, met = blocks.uncovered_forms(machine.forms, name)
    if target != "-":
        tables.show(blocks.uncovered_table(rows), f"{len(rows)} of the {met} forms of instructions that {found.name} has met fall to a default")
    write_json({"guest": found.name, "profile": name, "forms": met, "uncovered": rows}, target)
    return report.exit_status(result) if result["end"]["reason"] == "interrupt" else 0


COMMANDS = (run, compare, exits, bt, audit, roms, profiles, block, accuracy)
