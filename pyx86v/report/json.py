# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as a dict in the form that `--json` promises.  Everything but wall_s is the same on every machine, every time."""
import json

REASONS = {"limit": 124, "interrupt": 130}      # exit statuses that are ours and not the guest's
FAILED = ("shutdown", "hole", "error")          # ends that no guest wants: at least status 1
RESET = "reset"                                 # the detail of a shutdown that the guest asked for


def run_result(machine, guest, end, wall_s):
    """The result of a machine that has stopped; `end` is {"reason", "status", "detail"}."""
    return {
        "style": machine.style, "guest": guest, "profile": machine.profile, "clock": machine.clock, "end": end,
        "instructions": machine.instructions, "cycles": machine.cycles, "ledger": dict(machine.ledger),
        "exits": {name: dict(row) for name, row in machine.exits.items()},
        "tlb": dict(machine.tlb), "walks": dict(machine.walks), "shadow": dict(machine.shadow), "holes": dict(machine.holes),
        "console": machine.console.decode("utf-8", "backslashreplace"), "report": list(machine.report),
        "digest": machine.digest(), "guests": [], "wall_s": round(wall_s, 6),
    }


def exit_status(result):
    """What the process returns for this run: the guest's own status where it gave one."""
    end = result["end"]
    if end["reason"] in REASONS:
        return REASONS[end["reason"]]
    failed = end["reason"] in FAILED and end["detail"] != RESET
    return max(end["status"], 1) if failed else end["status"]


def differences(runs):
    """What is not equal among runs of one guest: a list of lines for people, empty if all is equal."""
    first, lines = runs[0], []
    for other in runs[1:]:
        for key in ("end", "instructions", "console", "report", "digest"):
            if first[key] != other[key]:
                lines.append(f"{key}: {_show(key, first, other)} under {first['style']}, "
                             f"{_show(key, other, first)} under {other['style']}")
    return lines


def _show(key, run, other):
    """The part of run[key] that tells it from other[key], short enough for a line."""
    value = run[key]
    if key == "console":
        lines, others = value.splitlines(), other[key].splitlines()
        at = next((i for i, pair in enumerate(zip(lines, others)) if pair[0] != pair[1]), min(len(lines), len(others)))
        return f"line {at + 1} is {lines[at]!r}" if at < len(lines) else f"ends after {at} lines"
    if key == "report":
        at = next((i for i, pair in enumerate(zip(value, other[key])) if pair[0] != pair[1]), None)
        return f"{len(value)} words" if at is None else f"word {at} is {value[at]:#x}"
    if key == "end":
        return " ".join(str(part) for part in value.values() if part != "")
    return f"{value:,}" if isinstance(value, int) else f"{value:.16}"


def dumps(value):
    """The text that goes into a file: indented, ASCII, one newline at the end."""
    return json.dumps(value, indent=1) + "\n"
