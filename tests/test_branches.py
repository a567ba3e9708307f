# SPDX-License-Identifier: GPL-2.0-or-later
"""The branch predictor: a loop counted by hand, and a machine's counts against a predictor in Python that follows single steps."""
import capstone
import pytest

from images import multiboot_elf
from pyx86v import Machine, StopReason
from pyx86v.cost.profile import load_profile
from rom_runs import LIMIT, machine_for

MASK = (1 << 64) - 1


class Predictor:
    """gshare, last targets, a wrapping stack of returns: the scheme as the documentation says it."""

    def __init__(self, sizes):
        self.counters, self.targets, self.returns = [1] * sizes["counters"], [0] * sizes["targets"], [0] * sizes["returns"]
        self.history = self.top = 0
        self.seen, self.missed = {}, {}

    def branch(self, kind, pc, behind, went):
        place = pc ^ pc >> 16
        right = True
        if kind == "conditional":
            at = (place ^ self.history) % len(self.counters)
            taken = went != behind
            right = (self.counters[at] > 1) == taken
            self.counters[at] = min(self.counters[at] + 1, 3) if taken else max(self.counters[at] - 1, 0)
            self.history = (self.history << 1 | taken) & 0xFFFFFFFF
        elif kind in ("indirect", "call_indirect"):
            right = self.targets[place % len(self.targets)] == went
            self.targets[place % len(self.targets)] = went
        elif kind == "return":
            self.top -= 1
            right = self.returns[self.top % len(self.returns)] == went
        if kind.startswith("call"):
            self.returns[self.top % len(self.returns)] = behind
            self.top += 1
        self.seen[kind] = self.seen.get(kind, 0) + 1
        self.missed[kind] = self.missed.get(kind, 0) + (not right)


def kind_of(insn):
    """By capstone, which the engine does not ask here."""
    direct = insn.operands and insn.operands[0].type == capstone.x86.X86_OP_IMM
    if insn.id == capstone.x86.X86_INS_RET:
        return "return"
    if insn.id == capstone.x86.X86_INS_CALL:
        return "call" if direct else "call_indirect"
    if insn.id == capstone.x86.X86_INS_JMP:
        return None if direct else "indirect"
    return "conditional" if insn.group(capstone.CS_GRP_JUMP) and insn.id not in (capstone.x86.X86_INS_LJMP,) else None


def follow(machine, steps, predictor):
    """Step a machine and tell the predictor of each branch."""
    known = {}
    for _ in range(steps):
        rip = machine.registers["rip"]
        if rip not in known:
            bits = capstone.CS_MODE_64 if machine.registers["cs"][3] >> 13 & 1 else capstone.CS_MODE_32
            decoder = capstone.Cs(capstone.CS_ARCH_X86, bits)
            decoder.detail = True
            insn = next(decoder.disasm(machine.read_memory(rip, 15), rip), None)
            known[rip] = (kind_of(insn), rip + insn.size) if insn else (None, 0)
        if machine.step().reason is not StopReason.LIMIT:
            return
        kind, behind = known[rip]
        if kind:
            predictor.branch(kind, rip, behind, machine.registers["rip"])


@pytest.mark.parametrize("name, steps", [("hello", 4000), ("modes", 4000), ("rings", 8000), ("seventeen", 8000)])
def test_counts_are_those_of_the_scheme(name, steps):
    """The branch that leads to the block before which the machine stops is not judged yet."""
    predictor, whole = Predictor(load_profile("skylake").predictor), machine_for(name, branches="on")
    whole.run(max_instructions=steps)
    follow(machine_for(name), whole.instructions - 1, predictor)
    counts = whole.branches
    assert sum(predictor.missed.values()) > 10
    assert {kind: row["seen"] for kind, row in counts.items() if row["seen"]} == predictor.seen
    assert {kind: row["missed"] for kind, row in counts.items() if row["seen"]} == predictor.missed


LOOP = bytes.fromhex("b9e8030000"      # mov $1000, %ecx
                     "49" "75fd"       # 1: dec %ecx; jnz 1b
                     "f4")             # hlt


def test_a_loop_is_foreseen_once_its_history_is_full(tmp_path):
    """Twelve bits of history: the branch is new under 0 to 12 outcomes taken, each time missed, and then once more at its end."""
    (tmp_path / "loop.elf").write_bytes(multiboot_elf(code=LOOP))
    machine = Machine(memory=2 << 20, branches="on")
    machine.load(tmp_path / "loop.elf")
    assert machine.run(max_cycles=1_000_000).reason is StopReason.HALT
    assert machine.branches["conditional"] == {"seen": 1000, "missed": 14}
    assert machine.ledger["branch"] == 14 * load_profile("skylake").cycles("branch_miss")


@pytest.mark.parametrize("name", ["modes", "rings"])
def test_no_engine_and_no_style_changes_what_is_foreseen(name):
    runs = {}
    for key in (("native", "inline"), ("native", "portable"), ("vmx+ept", "inline")):
        machine = machine_for(name, style=key[0], engine=key[1], branches="on", clock="instructions")
        machine.run(max_instructions=LIMIT)
        runs[key] = machine.branches, machine.digest(), machine.instructions, machine.ledger["branch"]
        assert sum(machine.ledger.values()) == machine.cycles
    assert len({repr(run) for run in runs.values()}) == 1, runs
    plain = machine_for(name, clock="instructions")
    plain.run(max_instructions=LIMIT)
    assert (plain.digest(), plain.instructions) == runs["native", "inline"][1:3] and plain.branches == {} and plain.ledger["branch"] == 0


@pytest.mark.slow
def test_a_snapshot_keeps_the_tables(tmp_path):
    whole = machine_for("minikernel", branches="on")
    whole.run(max_instructions=LIMIT)
    machine = machine_for("minikernel", branches="on")
    for part in range(1, 8):
        machine.run(max_instructions=whole.instructions // 8)
        machine.save(tmp_path / "part.snap")
        machine = Machine.restore(tmp_path / "part.snap")
    machine.run(max_instructions=LIMIT)
    assert (machine.digest(), machine.branches, machine.ledger_units) == (whole.digest(), whole.branches, whole.ledger_units)
