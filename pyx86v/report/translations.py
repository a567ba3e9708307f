# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run under binary translation left: the cache in figures, call-outs, and units side by side with their translation."""
import capstone

from pyx86v.report.tables import number, percent, table

_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


def figures(machine):
    """The cache of a machine in figures: counts so far, and what lives at this moment."""
    units = machine.translations
    exits, chained = sum(unit["exits"] for unit in units), sum(unit["chained"] for unit in units)
    guest, code = sum(len(unit["guest"]) for unit in units), sum(len(unit["code"]) for unit in units)
    return {"counts": machine.translation_counts, "callouts": machine.callouts,
            "cache": {"units": len(units), "guest_bytes": guest, "code_bytes": code, "expansion": code / guest if guest else 0.0,
                      "exits": exits, "chained": chained}}


def at_work(unit, samples, symbols=None):
    """A unit for people and JSON: both sides disassembled, instruction by instruction."""
    rows = []
    base = 0 if unit["bits"] != 64 else -0x4000000 & (1 << 64) - 1
    for insn in unit["insns"]:
        guest = unit["guest"][insn["offset"]:insn["offset"] + insn["length"]]
        code = unit["code"][insn["code"]:insn["code_end"]]
        rows.append({"guest": text_of(guest, unit["eip"] + insn["offset"], unit["bits"])[:1],
                     "translation": text_of(code, base + unit["at"] + insn["code"], 64 if unit["bits"] == 64 else 32), "kind": insn["kind"]})
    found = {"address": unit["address"], "bits": unit["bits"], "samples": samples, "guest_bytes": len(unit["guest"]),
             "code_bytes": len(unit["code"]), "instructions": rows}
    return {**found, "symbol": symbols.name(unit["address"])} if symbols else found


def text_of(code, address, bits):
    """Assembly of machine code, a string for each instruction."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
    return [f"{name} {operands}".strip() for _, _, name, operands in decoder.disasm_lite(code, address)]


def cache_table(found):
    counts, cache = found["counts"], found["cache"]
    made = table("translation", "count", "")
    rows = [("units translated", counts["units"], ""), ("guest instructions in them", counts["insns"], ""),
            ("units in the cache", cache["units"], ""), ("their guest code, bytes", cache["guest_bytes"], ""),
            ("their translation, bytes", cache["code_bytes"], f"{cache['expansion']:.2f} x"),
            ("direct exits", cache["exits"], ""), ("of these chained", cache["chained"], percent(cache["chained"], cache["exits"])),
            ("entries from the monitor", counts["dispatches"], ""), ("of these indirect targets", counts["lookups"], ""),
            ("call-outs", counts["callouts"], ""), ("made call-outs as they trap", counts["adapted"], ""),
            ("units whose code was written", counts["dead"], ""), ("times the cache was emptied", counts["generations"], "")]
    for name, value, note in rows:
        made.add_row(name, number(value), note)
    return made


def callouts_table(found):
    made = table("call-out", "count", "share")
    for kind, count in sorted(found["callouts"].items(), key=lambda item: -item[1]):
        made.add_row(kind, number(count), percent(count, found["counts"]["callouts"]))
    return made


def unit_text(unit, samples):
    """A unit, guest code on the left and its translation on the right."""
    name = f" {unit['symbol']}" if unit.get("symbol") else ""
    lines = [f"{unit['address']:#x}{name}: {percent(unit['samples'], samples)} of the time in translated code, "
             f"{unit['guest_bytes']} bytes became {unit['code_bytes']}"]
    for row in unit["instructions"]:
        left = row["guest"] or ["(bytes)"]
        for n, right in enumerate(row["translation"] or [""]):
            lines.append(f"  {left[0] if n == 0 else '':<42.42} {right:.54}")
    return "\n".join(lines)
