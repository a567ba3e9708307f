# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/results.json -> bench/RESULTS.md: python bench/report.py [JSON [MARKDOWN]]

Exit status 1 when a target is missed.
"""
import importlib.metadata
import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEANS = {"compute, inline": ("at least", 1.0), "compute, portable": ("at least", 0.55)}
ABOUT = {
    "compute, inline": "The compute ROMs against Unicorn without hooks, same code, data pages mapped no-execute.",
    "compute, portable": "The same with PYX86V_ENGINE=portable; instructions, cycles, console and digest are checked to be equal.",
    "TLB misses": "tlbworst, the whole run by the modelled first-level misses; `walks` are those that missed the second level too.",
    "events": "One event beyond the loop around it (micro.S). `out` is a byte to port 80h; `movcr3` drops all translations.",
    "exits": "The same with paging, by the exits that a round takes: CPUID and CLI one; a store to a page-table entry, INVLPG and a load three without nested paging.",
    "a switch of worlds": "Two guests in turns of 30 cycles against one turn each, what the turns themselves take included; `walks` follow each switch where TLBs are not tagged.",
    "block prices": "BHive's blocks: the price by classes at first sight, decoding included, and the block model's later, once for the same bytes.",
    "block prices of Linux": "Both prices in a boot: code that was seen at least once, and code that ran until it got the model's.",
    "Linux on shadow tables": "The same boot under vmx+shadow, by the time that it takes under vmx+ept.",
    "Linux translated": "The same boot under bt+shadow, by the time that it takes natively.",
    "compute, translated": "The compute ROMs under bt+shadow, by the time that they take natively; making the translations is in it.  The median of the rounds, each beside the native one before it; `best` is by the best of each.",
    "Linux to its end": "Debian's kernel to its script and reset, `qemu-system-x86_64 -accel tcg` on the same kernel and initrd.",
}
HEAD = """# How fast

Written by `make bench`; bench/test_speed.py says how each number is measured.
{cpu}, Python {python}, unicorn {unicorn}.

`value` is the best of the rounds, which take turns with what they are compared to; times are CPU time of the thread.
"""


def met(value, target):
    if target is None:
        return ""
    sense, bound = target
    return "met" if (value >= bound if sense == "at least" else value <= bound) else "MISSED"


def number(value):
    """Three digits, thousands separated."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def rows_of(data):
    """{table: [row]}; the tables of MEANS get a geometric mean as their last row."""
    tables = {}
    for entry in data["benchmarks"]:
        row = entry["extra_info"]
        tables.setdefault(row["table"], []).append(row)
    for table, target in MEANS.items():
        if table in tables:
            rows = tables[table]
            mean = math.exp(sum(math.log(row["value"]) for row in rows) / len(rows))
            rows.append({**rows[0], "name": "**geometric mean**", "value": mean, "target": target, "notes": {}})
    return tables


def table_lines(name, rows):
    notes = list(rows[0]["notes"])
    yield f"\n## {name[0].upper()}{name[1:]}\n"
    if name in ABOUT:
        yield ABOUT[name] + "\n"
    yield f"| | {rows[0]['unit']} | target | | " + " | ".join(note.replace("_", " ") for note in notes) + " |"
    yield "|---|--:|---|---|" + "--:|" * len(notes)
    for row in rows:
        target = f"{row['target'][0]} {row['target'][1]}" if row["target"] else ""
        cells = [number(row["notes"][note]) if note in row["notes"] else "" for note in notes]
        yield f"| {row['name']} | {number(row['value'])} | {target} | {met(row['value'], row['target'])} | " + " | ".join(cells) + " |"


def main(source=HERE / "results.json", target=HERE / "RESULTS.md"):
    data = json.loads(Path(source).read_text())
    tables = rows_of(data)
    info = data["machine_info"]
    head = HEAD.format(cpu=info["cpu"].get("brand_raw", "unknown processor"), python=info["python_version"],
                       unicorn=importlib.metadata.version("unicorn"))
    lines = [line for name, rows in tables.items() for line in table_lines(name, rows)]
    Path(target).write_text(head + "\n".join(lines) + "\n")
    missed = [f"{name}: {row['name']}" for name, rows in tables.items() for row in rows if met(row["value"], row["target"]) == "MISSED"]
    print(f"{target}: {len(missed)} targets missed" + "".join(f"\n  {line}" for line in missed))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
