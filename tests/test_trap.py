# SPDX-License-Identifier: GPL-2.0-or-later
"""Trap-and-emulate: the deprivileged guest equals the native one, or ends at a hole that is named.

The judge of a hole is the engine itself, without the monitor: a native machine whose kernel has put itself into ring 1, on
empty descriptor tables, gives what the silicon gives there; a native machine in the guest's own ring what it has to be.
"""
import struct

import pytest

from pyx86v import Machine, StopReason
from pyx86v.arch.sensitive import SEVENTEEN
from rom_runs import HEADS, LIMIT, SAME, build_guests, machine_for, rom_run

CODE, DATA, STACK = 0x300000, 0x310000, 0x320800
KCODE64, KDATA, KCODE32, UCODE32, UDATA, UCODE64, TSS = 0x08, 0x10, 0x18, 0x28, 0x30, 0x38, 0x58
IF, IOPL3, ZF = 0x200, 0x3000, 0x40
DPL = 13                         # its place in the flags of a segment

# Kernels that use holes after they have tables and paging of their own; all others run to their end.
HOLED = {"fpu": "pushf", "gates64": "str", "strict": "pushf", "resume": "pushf", "sensitive": "pushf", "seventeen": "mov"}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_rom(name):
    """Under --clock instructions a guest ends as natively, or at a hole."""
    native, trap = rom_run(name), rom_run(name, "trap+shadow")
    if trap.end[0] == "hole":
        assert trap.end[2].startswith(HOLED.get(name, "a ROM that has no holes")) and trap.instructions < native.instructions
        assert native.console.startswith(trap.console)
    else:
        assert name not in HOLED
        different = {key: (getattr(native, key), getattr(trap, key)) for key in SAME if getattr(native, key) != getattr(trap, key)}
        assert not different
    assert sum(trap.ledger_units.values()) == trap.units


@pytest.mark.parametrize("name", ["usermode", "v86", "minikernel"])
def test_portable_engine_is_the_same(name):
    one, other = rom_run(name, "trap+shadow"), rom_run(name, "trap+shadow", engine="portable")
    assert {key: getattr(one, key) for key in (*SAME, "units", "exits")} == {key: getattr(other, key) for key in (*SAME, "units", "exits")}


def test_any_slicing(tmp_path):
    """A run in pieces, saved and restored between them, is the run in one piece: counts and cycles."""
    whole = rom_run("v86", "trap+shadow")
    machine = machine_for("v86", style="trap+shadow", clock="instructions")
    for n in range(12):
        machine.run(max_instructions=3001)
        machine.run(max_exits=7)
        machine.save(tmp_path / "snap")
        machine = Machine.restore(tmp_path / "snap")
    machine.run(max_instructions=LIMIT)
    assert (machine.units, machine.exits, machine.digest()) == (whole.units, whole.exits, whole.digest)


def test_steps(tmp_path):
    """One step is one instruction, whether it trapped or not; registers are those that the guest believes in."""
    images = build_guests(tmp_path, {"dropped": []})
    machines = [machine_for("dropped", images["dropped"], style=style, clock="instructions") for style in ("native", "trap+shadow")]
    for machine in machines:
        machine.run(max_instructions=600)
    native, trap = machines
    for _ in range(1500):
        native.step()
        trap.step()
        assert trap.instructions == native.instructions and trap.registers == native.registers


def test_prices(profile="p4-672"):
    """RDTSC by trap-and-emulate takes 2030 cycles on a Pentium 4 (Adams & Agesen 2006, section 3.3)."""
    row = rom_run_on("clockread", profile).exits["RDTSC"]
    assert row["min"] == row["max"] == 2030 and row["cycles"] == 2030 * row["count"]


def rom_run_on(name, profile):
    machine = machine_for(name, style="trap+shadow", profile=profile)
    machine.run(max_instructions=LIMIT)
    return machine


# Holes one by one -------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """{bits: image of a kernel that waits in a loop}."""
    folder = tmp_path_factory.mktemp("dropped")
    return {bits: build_guests(folder / str(bits), {"dropped": [("dropped32.c", "WIDE 0", f"WIDE {bits // 64}")]})["dropped"] for bits in (32, 64)}


def waiting(kernels, bits, **options):
    """A machine whose kernel waits, with its tables and paging."""
    machine = machine_for("dropped", kernels[bits], clock="instructions", **options)
    machine.run(max_instructions=100_000)
    assert not machine.holes
    return machine


def enter_ring(machine, ring, bits):
    """Put the processor into another ring by its segment registers."""
    registers = machine.registers
    code = {0: KCODE64 if bits == 64 else KCODE32, 1: (KCODE64 if bits == 64 else KCODE32) | 1,
            3: (UCODE64 if bits == 64 else UCODE32) | 3}[ring]
    data = {0: KDATA, 1: KDATA | 1, 3: UDATA | 3}[ring]
    for name, selector in (("cs", code), ("ss", data)):
        _, base, limit, flags = registers[name]
        machine.set_segment(name, selector, base, limit, flags & ~(3 << DPL) | ring << DPL)


def place(machine, code, flags, rcx=KDATA, top=0, at=CODE):
    """An instruction at `at`, about to run."""
    machine.write_memory(at, code + b"\x90" * 16)
    machine.write_memory(DATA, bytes(64))
    machine.write_memory(STACK - 64, bytes(64) + struct.pack("<Q", top) + bytes(64))
    for name, value in (("rip", at), ("rsp", STACK), ("rax", 0x5a5a), ("rcx", rcx), ("rdi", DATA), ("rflags", flags | 2)):
        machine.set_register(name, value)


def result(machine, code, flags, **operands):
    """Run the instruction and see what it has written: stop, registers, memory, stack, ZF."""
    place(machine, code, flags, **operands)
    stop = machine.step()
    registers = machine.registers
    return stop, (registers["rax"], registers["rsp"], registers["rflags"] & ZF, machine.read_memory(DATA, 64),
                  machine.read_memory(STACK - 64, 128))


def silicon(kernels, bits, ring):
    """A native machine whose kernel has put itself on the monitor's tables and into ring 1, or entered ring 3 from there."""
    machine = waiting(kernels, bits)
    wide = bits == 64
    base = 0xffffffffffc00000 if wide else 0xffc00000
    for at, table in ((DATA + 0x100, base), (DATA + 0x200, base + 0x1000)):
        machine.write_memory(at, struct.pack("<HQ" if wide else "<HI", 0, table))
    # LLDT of null; LGDT; LIDT; MOV CR0, EAX with WP
    for code, rax, rdi in (("0f00d0", 0, 0), ("0f0117", 0, DATA + 0x100), ("0f011f", 0, DATA + 0x200),
                           ("0f22c0", machine.registers["cr0"] | 1 << 16, 0)):
        place(machine, bytes.fromhex(code), 0)
        machine.set_register("rax", rax)
        machine.set_register("rdi", rdi)
        machine.step()
    machine.set_segment("tr", 8, *machine.registers["tr"][1:])
    enter_ring(machine, ring or 1, bits)
    return machine


def in_ring(machine, ring, bits):
    enter_ring(machine, ring, bits)
    return machine


# (mnemonic, bytes, operands)
HOLES = [
    ("sgdt", "0f0107", {}), ("sidt", "0f010f", {}), ("sldt", "0f00c0", {}), ("sldt", "0f0007", {}), ("str", "0f00c8", {}), ("str", "0f000f", {}),
    ("smsw", "0f01e0", {}), ("smsw", "0f0127", {}), ("smsw", "660f01e0", {}), ("pushf", "9c", {}), ("pushf", "669c", {}),
    ("lar", "0f02c1", {}), ("lar", "0f02c1", {"rcx": 0}), ("lar", "0f02c1", {"rcx": TSS}), ("lar", "0f02c1", {"rcx": UDATA | 3}),
    ("lar", "0f02c1", {"rcx": KDATA | 3}), ("lar", "0f02c1", {"rcx": KDATA | 4}), ("lar", "0f02c1", {"rcx": 0x1000}),
    ("lsl", "0f03c1", {}), ("lsl", "0f03c1", {"rcx": TSS}), ("lsl", "0f03c1", {"rcx": UDATA | 3}), ("lsl", "0f03c1", {"rcx": KCODE32}),
    ("verr", "0f00e1", {}), ("verr", "0f00e1", {"rcx": UCODE32 | 3}), ("verr", "0f00e1", {"rcx": TSS}), ("verr", "0f00e1", {"rcx": 3}),
    ("verw", "0f00e9", {}), ("verw", "0f00e9", {"rcx": UDATA | 3}), ("verw", "0f00e9", {"rcx": KCODE32}), ("verw", "0f00e9", {"rcx": TSS}),
    ("mov_from_segment", "8cc8", {}), ("mov_from_segment", "8cd0", {}), ("mov_from_segment", "8c0f", {}),
    ("push_segment", "0e", {}), ("push_segment", "16", {}),
]
NAMES = {name for name, _, _ in HOLES} | {"popf"}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("flags", [0, IF, IF | IOPL3])
def test_every_hole(kernels, bits, ring, flags):
    """Each hole gives what the silicon gives, is counted, and ends the run exactly when that is not what it has to be."""
    real = silicon(kernels, bits, ring)
    own = in_ring(waiting(kernels, bits), ring, bits)
    counting = in_ring(waiting(kernels, bits, style="trap+shadow", holes="continue"), ring, bits)
    stopping = in_ring(waiting(kernels, bits, style="trap+shadow"), ring, bits)
    wrong, sites = [], []
    for n, (name, text, operands) in enumerate(HOLES):
        if name == "push_segment" and bits == 64 or (flags and name != "pushf"):
            continue
        code, at = bytes.fromhex(text), CODE + 64 * n
        gives = result(real, code, flags & ~IOPL3 | IF, at=at, **operands)[1]
        effective = int(gives != result(own, code, flags, at=at, **operands)[1])
        if effective or ring == 0:
            sites.append({"address": at, "mnemonic": name, "count": 1, "effective": effective})
        if result(counting, code, flags, at=at, **operands)[1] != gives or counting.hole_sites != sites:
            wrong.append((name, text, operands, "continue", effective, counting.hole_sites[-1:]))
        stop, _ = result(stopping, code, flags, at=at, **operands)
        if (stop.reason is StopReason.HOLE) != bool(effective) or (effective and not stop.detail.startswith(f"{name} at {at:#x}: ")):
            wrong.append((name, text, operands, "stop", effective, stop))
    assert not wrong


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("ring, flags, image, effective", [
    (0, 0, 0, False), (0, 0, IF, True), (0, IF, 0, True), (0, IF, IF, False), (0, IF, IF | IOPL3, True), (0, IF | IOPL3, IF | IOPL3, False),
    (3, IF, 0, False), (3, IF | IOPL3, 0, True), (3, IF | IOPL3, IF, False), (3, IF, IF | IOPL3, False)])
def test_popf(kernels, bits, ring, flags, image, effective):
    """POPF drops IF and IOPL in ring 1 and 3: effective when the guest's own ring would have changed them (SDM 2B POPF)."""
    machine = waiting(kernels, bits, style="trap+shadow", holes="continue")
    enter_ring(machine, ring, bits)
    place(machine, b"\x9d", flags, top=image | ZF | 2)
    machine.step()
    registers = machine.registers
    assert registers["rip"] == CODE + 1 and registers["rflags"] & (IF | IOPL3 | ZF) == flags | ZF
    assert machine.hole_sites == [{"address": CODE, "mnemonic": "popf", "count": 1, "effective": int(effective)}] * (effective or ring == 0)
    native = waiting(kernels, bits)
    enter_ring(native, ring, bits)
    place(native, b"\x9d", flags, top=image | ZF | 2)
    native.step()
    assert (native.registers["rflags"] != registers["rflags"]) == effective


# The rest of the seventeen: with empty tables these trap, and end as natively.
TRAPPING = [
    ("mov_to_segment", "8ed9", {}), ("mov_to_segment", "8ed1", {}), ("mov_to_segment", "8ed9", {"rcx": 0xfff8}), ("pop_segment", "1f", {"top": KDATA}),
    ("pop_segment", "17", {"top": KDATA}), ("int", "cd80", {}), ("int", "cc", {}), ("int", "cd06", {}), ("int", "cd0d", {}), ("ret_far", "cb", {"top": CODE + 8 | KCODE32 << 32}),
    ("jmp_far", "ea08003000" + "1800", {}), ("call_far", "9a08003000" + "1800", {}), ("iret", "cf", {"top": CODE + 8 | KCODE32 << 32}),
]


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("name, text, operands", TRAPPING)
def test_the_others_trap(kernels, name, text, operands, ring):
    machines = [waiting(kernels, 32, style=style) for style in ("native", "trap+shadow")]
    for machine in machines:
        enter_ring(machine, ring, 32)
        place(machine, bytes.fromhex(text), IF, **operands)
        machine.step()
    native, trap = machines
    assert trap.registers == native.registers and trap.digest() == native.digest() and not trap.holes


def test_the_list_is_whole():
    assert set(SEVENTEEN) == NAMES | {name for name, _, _ in TRAPPING} - {"iret"}


def test_null_stack_segment(kernels):
    """A null SS in 64-bit mode is fine in ring 0 and must not bring ring 0 with it in ring 1 (SDM 2B MOV)."""
    machine = waiting(kernels, 64, style="trap+shadow")
    place(machine, bytes.fromhex("8ed1" "90" "fa"), IF, rcx=0)
    machine.step(3)
    assert machine.registers["cpl"] == 0 and machine.registers["ss"][0] == 0 and not machine.registers["rflags"] & IF
    assert machine.exits["SEGMENT_LOAD"]["count"] and machine.exits["INTERRUPT_FLAG"]["count"]


def test_virtual_8086_far_jump(kernels):
    """A virtual-8086 task changes CS without a trap; what it has then is what an interrupt pushes and Python shows."""
    machines = [waiting(kernels, 32, style=style) for style in ("native", "trap+shadow")]
    for machine in machines:
        machine.write_memory(0x8000, bytes.fromhex("ea00001008" "9090"))     # jmp 0810:0000
        machine.write_memory(0x8100, bytes.fromhex("8cc8" "8ed0" "cd80" "9090"))     # mov ax, cs; mov ss, ax; int 80h: #GP with IOPL 0
        frame = struct.pack("<9I", 0x0, 0x800, 0x20002, 0x400, 0x820, 0, 0, 0, 0)    # ip cs flags sp ss es ds fs gs
        place(machine, b"\xcf", 0)
        machine.write_memory(STACK, frame)
        machine.step(5)
    native, trap = machines
    assert trap.registers == native.registers and trap.digest() == native.digest()
    assert native.registers["rax"] & 0xffff == 0x810 and native.events["exceptions"] == {13: 1}


def test_an_audit_counts_as_natively():
    """The census is of the guest's own instructions: the monitor's ring and its stepping do not show in it."""
    counted = {}
    for style in ("native", "trap+shadow"):
        machine = machine_for("avoider", style=style, clock="instructions", audit=True)
        assert machine.run()[:2] == (StopReason.EXIT, 0)
        counted[style] = machine.census
    assert counted["native"] and counted["trap+shadow"] == counted["native"]


def test_nanobench_shows_what_a_trap_costs():
    """rdtsc of a deprivileged kernel: Adams and Agesen (2006, section 6.3) give 2030 cycles on the Pentium 4 for trap-and-emulate."""
    machine = machine_for("nanobench", style="trap+shadow", profile="p4-672")
    machine.run()
    row = machine.exits["RDTSC"]
    assert row["count"] and 0.9 < row["cycles"] / row["count"] / 2030 < 1.1
