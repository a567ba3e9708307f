# SPDX-License-Identifier: GPL-2.0-or-later
"""The other process of the snapshot tests: restore each file, run on, and tell what came out, one line of JSON each.

    python snapshot_worker.py [--engine NAME] [--until INSTRUCTIONS] [--json FILES] FILE...

--until stops at the first block from that many instructions in all on, not at the end; --json adds the whole result with its digest
to those of the first so many files.
"""
import argparse
import json
import tempfile
from pathlib import Path

from pyx86v import Machine, StopReason
from pyx86v.report.json import run_result


def fingerprint(machine):
    """The checksum of the machine's snapshot: equal when all of its state is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        machine.save(path)
        return path.read_bytes()[-32:].hex()


def outcome(machine, stop, full=False):
    """What a finished run is judged by, as plain JSON values."""
    end = {"reason": stop.reason.value, "status": stop.status, "detail": stop.detail}
    result = {"end": end, "instructions": machine.instructions, "units": machine.ledger_units, "state": fingerprint(machine)}
    if full:
        result["json"] = run_result(machine, "", end, 0)
    return json.loads(json.dumps(result))


def run_on(path, engine=None, until=None, full=False):
    machine = Machine.restore(path, engine=engine)
    if until is None:
        return outcome(machine, machine.run(), full)
    stop = machine.run(max_instructions=until - machine.instructions)
    assert stop.reason is StopReason.LIMIT, stop
    return outcome(machine, stop, full)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine")
    parser.add_argument("--until", type=int)
    parser.add_argument("--json", type=int, default=0)
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    for number, file in enumerate(options.files):
        print(json.dumps(run_on(file, options.engine, options.until, number < options.json)), flush=True)
