# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests cost, as one line of JSON, from whichever build of pyx86v comes first on PYTHONPATH.

python tests/build_worker.py [KERNEL INITRD ARGS]: bundled guests, and the start of that Linux.
"""
import json
import sys

from pyx86v import Machine
from pyx86v.cli.guests import image
from pyx86v.engine import engine

GUESTS = [("minikernel", "native", {}), ("qsort", "native", {}), ("fpu", "native", {"caches": "full", "branches": "on"}),
          ("ptestorm", "vmx+shadow", {}), ("tlbreach", "vmx+ept", {}), ("usermode", "trap+shadow", {}), ("timer", "svm+npt", {}),
          ("forkwait", "bt+shadow", {"profile": "p4-672"})]
LINUX = 100_000_000             # instructions


def outcome(machine, stop):
    return {"end": stop.reason.name, "instructions": machine.instructions, "cycles": machine.cycles, "ledger": machine.ledger_units,
            "tlb": machine.tlb, "walks": machine.walks, "blocks": machine.blocks, "console": machine.console.decode("latin-1"),
            "digest": machine.digest()}


def main(linux):
    found = {"build": engine.__file__}
    for name, style, options in GUESTS:
        machine = Machine(style=style, **options)
        machine.load(image(name))
        found[f"{name}, {style}"] = outcome(machine, machine.run())
    for style in ("native", "vmx+ept") if linux else ():
        machine = Machine(style=style, memory=256 << 20)
        machine.load(linux[0], initrd=linux[1], kernel_args=linux[2])
        found[f"Linux, {style}"] = outcome(machine, machine.run(max_instructions=LINUX))
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
