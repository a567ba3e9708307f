# SPDX-License-Identifier: GPL-2.0-or-later
"""A Machine without an engine, for the tests of the command line: it counts, and ends as its guest's command line says.

    end=exit:3      reason and status        console=text      after=N instructions
    differ          vmx+ept retires one instruction more       interrupt=N   Ctrl-C after N instructions
"""
import enum
import hashlib
from collections import namedtuple

from pyx86v import boot
from pyx86v.cost.profile import load_profile

StopReason = enum.Enum("StopReason", "EXIT HALT SHUTDOWN LIMIT HOLE ERROR BREAKPOINT")
Stop = namedtuple("Stop", "reason status detail")
PER_INSTRUCTION = {"native": {"instruction": 2, "walk_guest_1": 1},
                   "vmx+ept": {"instruction": 2, "walk_guest_1": 1, "walk_nested_1": 3, "exit": 4}}


class Machine:
    made = []

    def __init__(self, memory=64 << 20, style="native", profile="skylake", clock="cycles", engine=None, seed=0, holes="stop",
                 disks=(), cdroms=(), write_disks=False, tsc="equal", timers="equal", caches="off",
                 branches="off", adaptive=True):
        if style not in PER_INSTRUCTION:
            raise ValueError(f"style: {style!r}, expected native or vmx+ept")
        if clock not in ("cycles", "instructions"):
            raise ValueError(f"clock: {clock!r}, expected cycles or instructions")
        load_profile(profile)
        self.memory, self.style, self.profile, self.clock = memory, style, profile, clock
        self.instructions, self.script, self.slices = 0, {}, 0
        Machine.made.append(self)

    def load(self, path, initrd=None, kernel_args="", entry="auto"):
        boot.load(path, self.memory, kernel_args, initrd, entry)
        self.script = dict(word.partition("=")[::2] for word in kernel_args.split())

    def run(self, max_cycles=None, max_instructions=None, max_exits=None):
        self.slices += 1
        left = int(self.script.get("after", 1000)) + self.extra - self.instructions
        if "interrupt" in self.script:
            self.instructions = int(self.script["interrupt"])
            raise KeyboardInterrupt
        limits = [n for n in (max_instructions, None if max_cycles is None else -(-max_cycles // self.price)) if n is not None]
        if limits and min(limits) < left:
            self.instructions += min(limits)
            return Stop(StopReason.LIMIT, 0, "")
        self.instructions += left
        reason, _, status = self.script.get("end", "exit:0").partition(":")
        return Stop(StopReason[reason.upper()], int(status or 0), self.script.get("detail", ""))

    @property
    def extra(self):
        return 1 if self.style == "vmx+ept" and "differ" in self.script else 0

    @property
    def price(self):
        return sum(PER_INSTRUCTION[self.style].values())

    @property
    def cycles(self):
        return self.instructions * self.price

    @property
    def ledger(self):
        return {cause: self.instructions * price for cause, price in PER_INSTRUCTION[self.style].items()}

    @property
    def exits(self):
        if self.style == "native":
            return {}
        return {"CPUID": {"count": 3, "cycles": 3000, "min": 900, "max": 1100, "squares": 3020000},
                "IO": {"count": 1, "cycles": 5000, "min": 5000, "max": 5000, "squares": 25000000}}

    tlb = {"hits": 10, "misses": 2, "flushes": 0, "evictions": 0}
    walks = {"count": 2, "references": 8, "by_level": {"guest_1": 2}}
    shadow, holes, hole_sites = {}, {}, ()
    guests = probe = ()
    caches = branches = {}
    report = [1, 2]

    @property
    def console(self):
        return self.script.get("console", "hello\nOK\n").encode()

    def digest(self):
        return hashlib.sha256(str(self.instructions).encode()).hexdigest()
