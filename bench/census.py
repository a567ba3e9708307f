# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels from their first instruction to power-off: what is sensitive in them, and what virtualizing it costs.

    python bench/census.py [KERNEL ...]     run what is asked for (default: all), write census.json and CENSUS.md
    python bench/census.py --report         census.json to CENSUS.md

One audit natively and one run under each style for each kernel, under `--clock instructions`, where all execute the same.
"""
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import debian  # noqa: E402
import linux_guest  # noqa: E402
from guest_list import EQUAL  # noqa: E402

DATA, PAGE = HERE / "census.json", HERE / "CENSUS.md"
ARGS = "console=ttyS0 nokaslr"          # addresses stay those of the symbols
HOTTEST = 10
HEAD = """# What is sensitive in Linux

Written by `make census` (bench/census.py): Debian's kernels as distributed, `{args}`, from the first instruction to power-off, on skylake
under `--clock instructions`. The initial RAM disk's script is that of tests/linux_guest.py. Classes are Popek and Goldberg's; an instruction traps
if it always does outside ring 0 (`pyx86v audit --help`). An instruction is one cycle of this clock, a port 2,800, RDTSC 25: loops
that wait (`delay_tsc`) execute a few times as often as on a real machine.
"""


def run(command, kernel, *options):
    """The JSON of one command on one kernel."""
    linux = linux_guest.linux(kernel, linux_guest.POWER_OFF, ARGS)
    done = subprocess.run([sys.executable, "-m", "pyx86v", command, str(linux.kernel), "--clock", "instructions", "--json", "-", *linux.options, *options],
                          cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{kernel}: status {done.returncode}: {done.stderr}{done.stdout[-2000:]}")
    return json.loads(done.stdout)


def measure(kernel):
    """What the page needs of one kernel."""
    audit = run("audit", kernel, "--symbols", str(linux_guest.vmlinux(kernel)))
    styles = {"native": audit, **{style: run("run", kernel, "--style", style) for style in EQUAL}}
    assert len({(one["instructions"], one["digest"]) for one in styles.values()}) == 1, f"{kernel}: the styles differ"
    sites = sorted(audit["sites"], key=lambda site: -site["count"])
    return {"name": linux_guest.kernel(kernel).name, "instructions": audit["instructions"], "census": audit["census"], "audit": audit["audit"],
            "places": len(sites), "sites": sites[:HOTTEST],
            "styles": {style: {"cycles": one["cycles"], "ledger": one["ledger"],
                               "exits": sum(row["count"] for row in one["exits"].values())} for style, one in styles.items()}}


def table(head, rows, left=1):
    """The lines of a Markdown table whose first `left` columns are text."""
    marks = ["---"] * left + ["--:"] * (len(head) - left)
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, marks, *rows)] + [""]


def instructions_table(kernel):
    """By instruction and class, rings summed up into kernel and user."""
    rows = {}
    for row in kernel["census"]:
        counts = rows.setdefault((row["class"], row["traps"], row["mnemonic"]), [0, 0])
        counts[row["ring"] == 3] += row["count"]
    ordered = sorted(rows.items(), key=lambda item: (item[0][0], item[0][1], -sum(item[1])))
    return table(["instruction", "class", "traps", "ring 0", "ring 3"],
                 [[name.replace("_", " "), kind, "yes" if traps else "**no**", f"{ring0:,}", f"{ring3:,}" if ring3 else ""]
                  for (kind, traps, name), (ring0, ring3) in ordered], 3)


def sites_table(kernel):
    return table(["instruction", "site", "count"], [[site["mnemonic"].replace("_", " "), f"`{site['symbol'] or hex(site['address'])}`", f"{site['count']:,}"]
                                                    for site in kernel["sites"]], 2)


def styles_table(kernel):
    """What each style's cycles are beyond the native ones, by cause, in percent of its own total; what only rounds to 0.0 is left out."""
    native, styles = kernel["styles"]["native"], {name: one for name, one in kernel["styles"].items() if name != "native"}
    share = {name: {cause: 100 * (cycles - native["ledger"][cause]) / one["cycles"] for cause, cycles in one["ledger"].items()} for name, one in styles.items()}
    causes = [cause for cause in native["ledger"] if any(abs(share[name][cause]) >= 0.05 for name in styles)]
    rows = [[name, f"{one['cycles']:,}", f"{one['exits']:,}", f"{100 * (one['cycles'] - native['cycles']) / one['cycles']:.1f}",
             *(f"{share[name][cause]:.1f}" for cause in causes)] for name, one in styles.items()]
    return table(["style", "cycles", "exits", "virtualization, % of cycles", *(cause.replace("_", " ") for cause in causes)],
                 [["native", f"{native['cycles']:,}", "", "", *("" for _ in causes)], *rows])


def page(data):
    lines = [HEAD.format(args=ARGS), "Packages: " + ", ".join(data["packages"]) + ".", ""]
    for kernel in data["kernels"].values():
        classes = kernel["audit"]["classes"]
        lines += [f"## {kernel['name']}", "", f"{kernel['instructions']:,} instructions. Sensitive: " + "; ".join(
            f"{kind} {row['traps'] + row['holes']:,}, of which {row['holes']:,} do not trap" for kind, row in classes.items()) + f"; in {kernel['places']:,} places.", "",
            *instructions_table(kernel), "The places that executed most:", "", *sites_table(kernel), "What virtualizing cost:", "", *styles_table(kernel)]
    return "\n".join(lines)


def main(*arguments):
    data = json.loads(DATA.read_text()) if DATA.exists() else {"kernels": {}}
    if arguments != ("--report",):
        for kernel in arguments or linux_guest.KERNELS:
            data["kernels"][kernel] = measure(kernel)
            data["packages"] = [line for line in debian.versions() if line.startswith(("linux", "busybox"))]
            DATA.write_text(json.dumps(data, indent=1) + "\n")
    data["kernels"] = {kernel: data["kernels"][kernel] for kernel in linux_guest.KERNELS if kernel in data["kernels"]}
    PAGE.write_text(page(data))
    print(PAGE)


if __name__ == "__main__":
    main(*sys.argv[1:])
