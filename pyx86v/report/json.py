# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as a dict in the form that `--json` promises.  Everything but wall_s is the same on every machine, every time."""
import hashlib
import json

REASONS = {"limit": 124, "interrupt": 130}      # exit statuses that are ours and not the guest's
FAILED = ("shutdown", "hole", "error")          # ends that no guest wants: at least status 1
RESET = "reset"                                 # the detail of a shutdown that the guest asked for


def run_result(machine, guest, end, wall_s, names=()):
    """The result of a machine that has stopped; `end` is {"reason", "status", "detail"}.

    With several guests, called `names`, "guests" has the result of each, and their sums and joined texts stand above.
    """
    if len(names) < 2:
        return {**_result(machine, machine, guest, end), "wall_s": round(wall_s, 6)}
    guests = [_result(machine, view, name, _end_of(view, end)) for view, name in zip(machine.guests, names, strict=True)]
    return {**_result(machine, Total(machine, guests), guest, end), "guests": guests, "wall_s": round(wall_s, 6)}


def _result(machine, one, name, end):
    """What there is to say of a machine, or of one guest in it."""
    console = one.console if isinstance(one.console, str) else one.console.decode("utf-8", "backslashreplace")
    return {
        "style": one.style, "guest": name, "profile": machine.profile, "clock": machine.clock, "end": end,
        "instructions": one.instructions, "cycles": one.cycles, "ledger": dict(one.ledger),
        "exits": {reason: dict(row) for reason, row in one.exits.items()},
        "tlb": dict(one.tlb), "walks": dict(one.walks), "shadow": dict(one.shadow), "holes": dict(one.holes),
        "caches": dict(machine.caches), "branches": dict(machine.branches), "console": console, "report": list(one.report), "digest": one.digest(), "probe": list(one.probe), "guests": [],
    }


def _end_of(view, end):
    """How a guest ended; one that did not was stopped with the machine."""
    if view.end is None:
        return {"reason": end["reason"], "status": 0, "detail": end["detail"]}
    return {"reason": view.end.reason.name.lower(), "status": view.end.status, "detail": view.end.detail}


class Total:
    """A machine with several guests as one: what it counts itself, and the guests' results added or joined."""

    def __init__(self, machine, guests):
        self.guests = guests
        self.style = ",".join(guest["style"] for guest in guests)
        self.console = "".join(guest["console"] for guest in guests)
        self.report = [word for guest in guests for word in guest["report"]]
        self.probe = [plateau for guest in guests for plateau in guest["probe"]]
        for name in ("instructions", "cycles", "ledger", "tlb", "walks"):
            setattr(self, name, getattr(machine, name))
        self.holes, self.shadow, self.exits = {}, {}, {}
        for guest in guests:
            for total, counts in ((self.holes, guest["holes"]), (self.shadow, guest["shadow"])):
                for name, count in counts.items():
                    total[name] = total.get(name, 0) + count
            for reason, row in guest["exits"].items():
                self.exits[reason] = _sum_of_rows(self.exits.get(reason), row)

    def digest(self):
        """sha256 of the guests' digests."""
        return hashlib.sha256("".join(guest["digest"] for guest in self.guests).encode()).hexdigest()


def _sum_of_rows(row, other):
    """Two rows of exits as one."""
    if row is None:
        return dict(other)
    return {**{key: row[key] + other[key] for key in ("count", "cycles", "squares")},
            "min": min(row["min"], other["min"]), "max": max(row["max"], other["max"])}


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
