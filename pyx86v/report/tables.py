# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for people: 80 to 100 columns, no colour codes unless a terminal reads them."""
import re
import sys
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyx86v.report.census import place

PLAIN_WIDTH = 100


def console(file=None):
    """A rich console for `file` (default: standard output); a fixed width where no terminal gives one."""
    file = file or sys.stdout
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=False,
                   width=None if file.isatty() else PLAIN_WIDTH)


def show(*parts, file=None):
    """Print strings and tables to `file` (default: standard output), without blanks at the ends of lines."""
    out = console(file)
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    out.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def number(value):
    return f"{value:,}"


def percent(part, whole, signed=False):
    if not whole:
        return ""
    return f"{100 * part / whole:{'+' if signed else ''}.2f} %"


def label(cause):
    return cause.replace("_", " ")


def table(*columns, title=None):
    """A table whose first column is text and whose others are numbers."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index else "left", no_wrap=index > 0)
    return made


def end_text(end):
    """How a run ended, in a few words."""
    text = {"exit": f"ended with status {end['status']}", "halt": "halted for good", "limit": "reached its limit",
            "interrupt": "was interrupted"}.get(end["reason"], end["reason"])
    return text + (f" ({end['detail']})" if end["detail"] else "")


def summary(runs, hertz):
    """The guest and the processor on one line, then a line for each run."""
    lines = [f"{runs[0]['guest']} on {runs[0]['profile']}, {hertz / 1e9:.2f} GHz"]
    for run in runs:
        instructions, cycles = run["instructions"], run["cycles"]
        per = f" ({cycles / instructions:.2f} each)" if instructions else ""
        lines.append(f"  {run['style']}: {end_text(run['end'])}, {instructions:,} instructions, "
                     f"{cycles:,} cycles{per}, {1e3 * cycles / hertz:,.3f} ms")
    return "\n".join(lines)


def ledger_table(result):
    """Where the cycles of one run went."""
    rows, total = table("cause", "cycles", "share"), result["cycles"]
    for cause, cycles in result["ledger"].items():
        if cycles:
            rows.add_row(label(cause), number(cycles), percent(cycles, total))
    rows.add_section()
    rows.add_row("total", number(total), percent(total, total))
    return rows


def counts(result):
    """The counts of a run that no cycle says: [(name, value)]."""
    rows = [("exits", sum(row["count"] for row in result["exits"].values()))]
    rows += [(f"TLB {label(name)}", value) for name, value in result["tlb"].items()]
    rows += [(f"walk {label(name)}" if name != "count" else "walks", value)
             for name, value in result["walks"].items() if isinstance(value, int)]
    rows += [(f"shadow: {label(name)}", value) for name, value in result["shadow"].items()]
    rows += [(f"cache: {name}", value) for name, value in result["caches"].items()]
    rows += [(f"branches: {label(name)}, {what}", value) for name, row in result["branches"].items() for what, value in row.items()]
    return rows + [(f"hole: {name}", value) for name, value in result["holes"].items()]


def counts_table(result):
    rows = table("count", "")
    for name, value in counts(result):
        if value:
            rows.add_row(name, number(value))
    return rows


def exits_table(result):
    """The exits of one run by reason, most expensive first."""
    rows = table("exit", "count", "cycles", "average", "min", "max")
    for name, row in sorted(result["exits"].items(), key=lambda item: (-item[1]["cycles"], item[0])):
        if row["count"]:
            rows.add_row(name, number(row["count"]), number(row["cycles"]), number(row["cycles"] // row["count"]),
                         number(row.get("min", 0)), number(row.get("max", 0)))
    return rows


def guests_table(result):
    """Several guests of one machine: what each had of it."""
    rows = table("guest", "style", "end", "instructions", "cycles", "share", "of it switches", "TLB misses")
    for index, guest in enumerate(result["guests"]):
        rows.add_row(f"{index} {guest['guest']}", guest["style"], f"{guest['end']['reason']} {guest['end']['status']}",
                     number(guest["instructions"]), number(guest["cycles"]), percent(guest["cycles"], result["cycles"]),
                     number(guest["ledger"]["world_switch"]), number(guest["tlb"]["misses"]))
    return rows


def probe_table(runs, hertz, most=10):
    """How long the guest held bit 0 of port 378h up: measured outside, and by its own clocks."""
    rows = table("probe at port 378h", "up, by the ledger", "us", "by the guest's TSC", "of it", "by its timers", "of it")
    for run in runs:
        for index, up in enumerate(run["probe"][:most]):
            rows.add_row(f"{run['style']} {index}", number(up["cycles"]), f"{1e6 * up['cycles'] / hertz:,.1f}",
                         number(up["tsc"]), percent(up["tsc"], up["cycles"]), number(up["timers"]), percent(up["timers"], up["cycles"]))
    return rows


def holes_table(sites):
    """Sensitive instructions that did not trap, by address."""
    rows = table("hole", "address", "count", "effective", "symbol")
    for site in sites:
        rows.add_row(site["mnemonic"], f"{site['address']:#x}", number(site["count"]), number(site["effective"]), site.get("symbol", ""))
    return rows


def sites_table(sites, most=10):
    """Where the sensitive instructions are that a guest executed most."""
    rows = table("site", "address", "count", "traps", "symbol")
    for site in sorted(sites, key=lambda site: -site["count"])[:most]:
        rows.add_row(label(site["mnemonic"]), "elsewhere" if site["address"] is None else f"{site['address']:#x}", number(site["count"]),
                     "yes" if site["traps"] else "no", site.get("symbol", ""))
    return rows


def compare_table(runs):
    """Runs side by side; each cause's percentage is its share of the first run's cycles, so that they add up."""
    base, others = runs[0], runs[1:]
    rows = table("cycles by cause", base["style"], *(cell for run in others for cell in (run["style"], f"over {base['style']}")))
    causes = dict.fromkeys(cause for run in runs for cause, cycles in run["ledger"].items() if cycles)
    for cause in causes:
        own = base["ledger"].get(cause, 0)
        _compare_row(rows, label(cause), own, [run["ledger"].get(cause, 0) for run in others], base["cycles"])
    rows.add_section()
    _compare_row(rows, "total", base["cycles"], [run["cycles"] for run in others], base["cycles"])
    return rows


def _compare_row(rows, name, own, values, whole):
    cells = [cell for value in values for cell in (number(value), percent(value - own, whole, signed=True))]
    rows.add_row(name, number(own), *cells)


def compare_counts_table(runs):
    """What the runs counted, side by side."""
    rows = table("counts", *(run["style"] for run in runs))
    columns = [dict([("instructions", run["instructions"]), *counts(run)]) for run in runs]
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name, 0) for column in columns]
        if any(values):
            rows.add_row(name, *map(number, values))
    return rows


def perf_kvm_stat(result, hertz):
    """The table of `perf kvm stat report` (Linux, tools/perf/builtin-kvm.c), times in microseconds at `hertz`."""
    micro = 1e6 / hertz
    exits = {name: row for name, row in result["exits"].items() if row["count"]}
    samples = sum(row["count"] for row in exits.values())
    cycles = sum(row["cycles"] for row in exits.values())
    lines = ["", "", "Analyze events for all VMs, all VCPUs:", "",
             f"{'VM-EXIT':>20} {'Samples':>10} {'Samples%':>9} {'Time%':>9} {'Min Time':>11} {'Max Time':>11} {'Avg time':>16} ", ""]
    for name, row in sorted(exits.items(), key=lambda item: (-item[1]["count"], item[0])):
        count, time = row["count"], row["cycles"]
        lines.append(f"{name:>20} {count:>10} {100 * count / samples:>8.2f}% {100 * time / max(cycles, 1):>8.2f}% "
                     f"{row.get('min', 0) * micro:>9.2f}us {row.get('max', 0) * micro:>9.2f}us {time / count * micro:>9.2f}us"
                     + (f" ( +-{relative_error(row):>7.2f}% )" if "squares" in row else ""))
    return "\n".join(lines + ["", f"Total Samples:{samples}, Total events handled time:{cycles * micro:.2f}us.", ""])


def relative_error(row):
    """Standard error of the mean in percent of the mean, as perf's rel_stddev_stats(); 0 for one sample.

    row["squares"] is the sum of the squares of the cycles of each exit.
    """
    count, total = row["count"], row["cycles"]
    if count < 2 or not total:
        return 0.0
    variance = max(row["squares"] - total * total / count, 0) / (count - 1)
    return 100 * (variance / count) ** 0.5 / (total / count)


def census_table(census):
    """The sensitive instructions that a guest executed, the most frequent first; "traps": always, outside ring 0."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("instruction", "class", "where", "count", "traps", "of 17", "first at"):
        rows.add_column(name, no_wrap=True, justify="right" if name in ("count", "first at") else "left")
    for row in sorted(census, key=lambda row: -row["count"]):
        rows.add_row(label(row["mnemonic"]), row["class"], place(row), number(row["count"]), "yes" if row["traps"] else "no",
                     "yes" if row["listed"] else "", f"{row['address']:#x}")
    return rows


def classes_table(classes):
    """How many sensitive instructions of each of Popek and Goldberg's classes are privileged."""
    rows = table("class", "executed", "trap outside ring 0", "do not always")
    for kind, row in classes.items():
        rows.add_row(kind, number(row["traps"] + row["holes"]), number(row["traps"]), number(row["holes"]))
    return rows


def roms_table(roms):
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("guest", "bits", "kind", "proves"):
        rows.add_column(name, no_wrap=name != "proves")
    for rom in roms:
        rows.add_row(rom["name"], " ".join(map(str, rom["bits"])), rom["kind"], re.split(r"[.:;] ", rom["proves"])[0])
    return rows


def fields(pairs):
    """Name and text, two columns, the text wrapped."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, text in pairs:
        grid.add_row(name, Text(" ".join(map(str, text)) if isinstance(text, list) else str(text)))
    return grid


def profiles_table(profiles):
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("profile", "clock", "processor", "4 KiB TLB: code / data / level 2"):
        rows.add_column(name, no_wrap=name in ("profile", "clock"))
    for profile in profiles:
        sizes = [" + ".join(str(tlb.entries) for tlb in profile.tlbs if rule(tlb)) or "-" for rule in
                 (lambda t: t.level == 1 and t.side == "code" and "4K" in t.pages,
                  lambda t: t.level == 1 and t.side == "data" and "4K" in t.pages,
                  lambda t: t.level == 2 and "4K" in t.pages)]
        rows.add_row(profile.name, f"{profile.frequency_hz / 1e9:.2f} GHz", profile.title, " / ".join(sizes))
    return rows


def sourced_table(title, narrow=("price", "value", "status")):
    """An empty table of lines with their sources; columns that are not `narrow` break lines."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in ("price", "value", "status", "source"):
        rows.add_column(name, no_wrap=name in narrow, justify="right" if name == "value" else "left")
    return rows


def prices_table(profile):
    """Every line of a profile that has a source."""
    rows = sourced_table(f"{profile.name}: {profile.title}")
    for row in profile.rows:
        rows.add_row(row.name, f"{row.value:,} {row.unit}", row.status, row.source)
    return rows


def model_table(model):
    """Every line of a processor of the block model (report/blocks.py, model_of)."""
    rows = sourced_table(f"Block model of {model['name']}: {model['title']}", ("price", "status"))
    for row in model["block_model"]:
        more = [f"{name} {value}" for name, value in row.items() if name not in ("section", "name", "value", "uops", "source", "status", "note")]
        rows.add_row(f"{row['section']} {row['name']}", " ".join([str(row.get("value", row.get("uops"))), *more]).strip(), row["status"], row["source"])
    return rows


def profile_dict(profile):
    """A profile as JSON has it."""
    return {"name": profile.name, "title": profile.title, "frequency_hz": profile.frequency_hz, "cpuid": profile.cpuid,
            "features": profile.features, "tlbs": [asdict(tlb) for tlb in profile.tlbs], "walk_cache": profile.walk_cache,
            "nested_tlb": profile.nested_tlb, "asids": profile.asids, "cache": profile.cache, "predictor": profile.predictor,
            "prices": [asdict(row) for row in profile.rows]}
