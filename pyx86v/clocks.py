# SPDX-License-Identifier: GPL-2.0-or-later
"""Clock policies as the user writes them, and the probed line's plateaus as the user reads them."""
import re
from typing import NamedTuple

LARGEST_RATE = 65535            # of each part of a ratio, so that two ratios multiply within 32 bits
LARGEST_OFFSET = 1 << 62


class Policy(NamedTuple):
    """What a guest's clock shows of machine time: times numerator over denominator, plus offset; without the monitor's part if hidden."""
    numerator: int = 1
    denominator: int = 1
    hidden: bool = False
    offset: int = 0


def policy(name, text, offsets):
    """The Policy that `text` says; `offsets` tells whether the clock may have one.  ValueError (one line)."""
    kinds = "equal, hidden, scale=N/M" + (" or offset=N" if offsets else "")
    text = str(text)
    if text == "equal":
        return Policy()
    if text == "hidden":
        return Policy(hidden=True)
    if match := re.fullmatch(r"scale=(\d{1,5})(?:/(\d{1,5}))?", text):
        numerator, denominator = int(match[1]), int(match[2] or 1)
        if 1 <= numerator <= LARGEST_RATE and 1 <= denominator <= LARGEST_RATE:
            return Policy(numerator, denominator)
        raise ValueError(f"{name}: {text!r}, expected a ratio of two numbers from 1 to {LARGEST_RATE}")
    if offsets and (match := re.fullmatch(r"offset=([+-]?\d{1,19})", text)) and abs(int(match[1])) <= LARGEST_OFFSET:
        return Policy(offset=int(match[1]))
    raise ValueError(f"{name}: {text!r}, expected {kinds}")


def plateaus(edges):
    """[{...}] of the plateaus of the probed line, from its edges (high, units, instructions, tsc, timers).

    start         cycles of the ledger at which the line rose
    cycles        how long it stayed up, by the ledger: the time outside
    instructions  retired meanwhile
    tsc, timers   the same by the guest's time stamp counter, and by the clock that its timers follow, in cycles
    A line that is still up at the end is no plateau.
    """
    found, rose = [], None
    for edge in edges:
        if edge[0]:
            rose = edge
        elif rose is not None:
            found.append({"start": rose[1] // 64, "cycles": (edge[1] - rose[1]) // 64, "instructions": edge[2] - rose[2],
                          "tsc": (edge[3] - rose[3]) & (1 << 64) - 1, "timers": edge[4] - rose[4]})
            rose = None
    return found
