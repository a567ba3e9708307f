# SPDX-License-Identifier: GPL-2.0-or-later
"""What a census of sensitive instructions (Machine.census) says of its guest.

Could trap and emulate run the guest?  Its kernel would be in ring 1, on tables of the monitor that are empty, from the
moment when it turns paging on or leaves ring 0; what comes before that a monitor interprets.  Obstacles are what does not trap there and gives
another result than natively: the processor's tables in any ring, the real flags and selectors outside ring 3.
"""
from pyx86v.arch.sensitive import BEHAVIOUR, CONTROL, SEVENTEEN, SILENT, SILENT_IN_V86, SILENT_TO_USERS


def is_obstacle(row):
    """Does this row of a census keep trap and emulate from running its guest as it runs natively?"""
    if row["mode"] == "v86":
        return row["mnemonic"] in SILENT_IN_V86
    if row["mode"] == "real" or (row["mode"] == "protected" and row["ring"] == 0):
        return False
    return row["mnemonic"] in (SILENT if row["ring"] < 3 else SILENT_TO_USERS)


def judge(census):
    """{"classes": {class: {"traps", "holes"}}, "seventeen": {mnemonic: count}, "obstacles": [row], "trap_and_emulate": bool}."""
    classes = {kind: {"traps": sum(row["count"] for row in census if row["class"] == kind and row["traps"]),
                      "holes": sum(row["count"] for row in census if row["class"] == kind and not row["traps"])}
               for kind in (CONTROL, BEHAVIOUR)}
    executed = {name: sum(row["count"] for row in census if row["mnemonic"] == name) for name in SEVENTEEN}
    obstacles = [row for row in census if is_obstacle(row)]
    return {"classes": classes, "seventeen": {name: count for name, count in executed.items() if count},
            "obstacles": obstacles, "trap_and_emulate": not obstacles}


def verdict(found):
    """What judge() found, in sentences."""
    seventeen, obstacles = found["seventeen"], found["obstacles"]
    lines = [f"Of the seventeen instructions of Robin and Irvine it executed {', '.join(seventeen)}." if seventeen else
             "Of the seventeen instructions of Robin and Irvine it executed none."]
    if not obstacles:
        return [*lines, "Trap and emulate can run it: behind its real-mode and boot code, all that is sensitive traps outside ring 0."]
    lines.append("Trap and emulate alone cannot run it as it runs natively. These do not trap outside ring 0:")
    return lines + [f"  {row['mnemonic']} in {place(row)}, {row['count']:,} executed, first at {row['address']:#x}" for row in obstacles]


def place(row):
    """Where the instructions of a row ran."""
    return {"real": "real mode", "v86": "virtual-8086", "protected": f"ring {row['ring']}, no paging"}.get(row["mode"], f"ring {row['ring']}")
