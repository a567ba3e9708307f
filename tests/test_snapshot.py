# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine.save() and restore(): the future of a restored machine is the one that the saved machine had.

The judge of each restored run is the run that was never interrupted: its end, its counts, its digest, and the checksum
of a snapshot of its end, in which every bit of state counts (registers, memory, devices, modelled TLB, ledger, VMCS).
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyx86v import Machine, StopReason, snapshot
from pyx86v.snapshot import FORMAT, MAGIC, PREFIX, SnapshotError
from rom_runs import build_guests, machine_for
from snapshot_worker import fingerprint, outcome, run_on

POINTS = 20
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
FEW = 6                     # of a run of more than LONG_RUN instructions
LONG_RUN = 5_000_000
MODES = [("native", "cycles"), ("vmx+ept", "instructions"), ("native", "instructions"), ("vmx+ept", "cycles"), ("svm+npt", "cycles")]
ROMS = ("timer", "clockread", "v86", "modes", "gates64", "usermode", "aspace", "demand", "smc", "fpu", "rdrand", "bios", "portio",
        "mmio", "ptestorm", "rings", "x2apic", "lapic")
LONG = ("aspace", "smc", "ptestorm", "lapic")
MANY = [pytest.param(name, *mode, marks=pytest.mark.quick if name in ROMS[:1] and mode == MODES[1] else ())
        for name in ROMS for mode in (MODES if name in ROMS[:3] else MODES[1:2] if name in LONG else MODES[:2])]


def worker(files, *options):
    """Run on from each file in one new process; the list of outcomes."""
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("snapshot_worker.py")), *options, *map(str, files)],
                          capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def whole(name, **options):
    """The outcome of a run that nobody interrupts."""
    machine = machine_for(name, **options)
    return outcome(machine, machine.run(), full=True)


def points(seed, last, count):
    """`count` instruction counts between the first and the last, in order; the same for the same seed."""
    chance = random.Random(seed)
    return sorted(chance.randrange(1, last) for _ in range(count))


def saved_at(machine, counts, folder):
    """Run through the given instruction counts and save at each; the files."""
    files = []
    for count in counts:
        if count > machine.instructions:
            assert machine.run(max_instructions=count - machine.instructions).reason is StopReason.LIMIT
            files.append(folder / f"{count}.snap")
            machine.save(files[-1])
    return files


@pytest.mark.parametrize("name, style, clock", MANY)
def test_twenty_points_of_a_rom(tmp_path, name, style, clock):
    options = {"style": style, "clock": clock}
    expected = whole(name, **options)
    machine = machine_for(name, **options)
    wanted = POINTS if expected["instructions"] < LONG_RUN else FEW
    files = saved_at(machine, points(f"{name} {style} {clock}", expected["instructions"] - 100, wanted), tmp_path)
    assert len(files) > wanted // 2
    first, *others = worker(files, "--json", "1")
    assert first == expected
    del expected["json"]
    for file, found in zip(files[1:], others, strict=True):
        assert found == expected, file.name
    assert outcome(machine, machine.run()) == expected, "saving changed the machine that was saved"


@pytest.mark.parametrize("profile", ["p4-672", "zen"])
def test_blocks_across_pages(tmp_path, profile):
    """Between a block that straddles pages and the next one, too, the future does not depend on what the engine caches."""
    image = build_guests(tmp_path, {"straddle": []})["straddle"]

    def machine():
        made = Machine(style="vmx+ept", profile=profile)
        made.load(image)
        return made
    first = machine()
    expected = outcome(first, first.run(), full=True)
    files = saved_at(machine(), points(profile, expected["instructions"] - 100, POINTS), tmp_path)
    assert worker(files, "--json", str(len(files))) == [expected] * len(files) and len(files) > POINTS // 2


@pytest.mark.parametrize("style", ["vmx+shadow", "svm+shadow"])
def test_exits_in_a_block_that_drop_its_page(tmp_path, style):
    """Without tags a shadow fault drops the code's page too: code that goes on is fetched again, as in the machine that comes back."""
    options = {"style": style, "profile": "core2", "clock": "instructions"}
    expected = whole("avoider", **options)
    files = saved_at(machine_for("avoider", **options), (40_000, 100_000, 150_000), tmp_path)
    assert worker(files, "--json", str(len(files))) == [expected] * 3


@pytest.mark.parametrize("name", ["minikernel", "itlb", "tlbreach"])
@pytest.mark.parametrize("style, clock", MODES)
def test_a_few_points_of_a_long_rom(tmp_path, name, style, clock):
    options = {"style": style, "clock": clock, "profile": "nehalem"}
    expected = whole(name, **options)
    files = saved_at(machine_for(name, **options), points(name + style, expected["instructions"] - 1000, 3), tmp_path)
    first, *others = worker(files, "--json", "1")
    assert first == expected
    del expected["json"]
    assert others == [expected] * (len(files) - 1)


# Where a slice ends: instructions, cycles (also inside a HLT), or single steps.
slices = st.lists(st.one_of(st.tuples(st.just("max_instructions"), st.integers(1, 3000)),
                            st.tuples(st.just("max_cycles"), st.integers(1, 20000)),
                            st.tuples(st.just("max_exits"), st.integers(1, 5)),
                            st.tuples(st.just("step"), st.integers(1, 4))), min_size=1, max_size=8)
reference = {}


@pytest.mark.parametrize("name", ["timer", "v86", "usermode"])
@settings(max_examples=15, deadline=None)
@given(cuts=slices, mode=st.sampled_from(MODES), seed=st.integers(0, 3))
def test_any_slicing_with_restores_in_between(tmp_path_factory, name, cuts, mode, seed):
    """Run by slices, each on a machine restored from the one before: the whole is the same."""
    options = {"style": mode[0], "clock": mode[1], "seed": seed, "profile": "nehalem"}
    key = (name, *options.values())
    if key not in reference:
        reference[key] = whole(name, **options)
    machine = machine_for(name, **options)
    path = tmp_path_factory.getbasetemp() / "slice.snap"
    for what, amount in cuts:
        stop = machine.step(amount) if what == "step" else machine.run(**{what: amount})
        if stop.reason is not StopReason.LIMIT:
            break
        machine.save(path)
        machine = Machine.restore(path)
    else:
        stop = machine.run()
    assert outcome(machine, stop, full=True) == reference[key]


@pytest.mark.parametrize("style, clock", MODES)
def test_saved_while_the_guest_is_halted(tmp_path, style, clock):
    """HLT jumps to the next event, past the limit: the guest, still halted, takes its interrupt after the restore."""
    expected = whole("timer", style=style, clock=clock)
    machine = machine_for("timer", style=style, clock=clock)
    path, halted = tmp_path / "halted.snap", 0
    for _ in range(300):
        before = machine.cycles
        assert machine.run(max_cycles=200).reason is StopReason.LIMIT
        if machine.cycles - before > 100_000:
            halted += 1
            machine.save(path)
            machine = Machine.restore(path)
    assert halted > 5 and machine.ledger["idle"] > halted * 100_000
    assert outcome(machine, machine.run(), full=True) == expected


def before_an_interrupt(machine, path):
    """Run to the last place where run() can stop before the next interrupt."""
    for size in (100_000, 2_000, 1):
        machine.save(path)
        seen = machine.events["interrupts"]
        while machine.events["interrupts"] == seen:
            count = machine.instructions
            assert machine.run(max_instructions=size).reason is StopReason.LIMIT
        machine = Machine.restore(path)
        if count > machine.instructions:
            machine.run(max_instructions=count - machine.instructions)
    return machine


@pytest.mark.parametrize("style, clock", MODES)
def test_between_a_jump_and_an_interrupt(tmp_path, style, clock):
    """An interrupt is taken only behind a control transfer: that one was lies before the snapshot, and so in it."""
    machine, path, found = machine_for("minikernel", style=style, clock=clock), tmp_path / "m", 0
    while found < 3:
        machine = before_an_interrupt(machine, path)
        machine.save(path)
        with snapshot.opened(path) as (_, sections):
            found += sections["boundary"][0]            # else it comes out of HLT, or behind STI
        other = Machine.restore(path)
        seen = machine.events["interrupts"]
        for each in (machine, other):
            each.run(max_instructions=1)
        assert machine.events["interrupts"] == other.events["interrupts"] == seen + 1
        assert fingerprint(machine) == fingerprint(other)


@pytest.mark.parametrize("style", ["native", "vmx+ept"])
def test_the_guests_breakpoints_are_armed_again(tmp_path, style):
    """DR0 to DR3 are more than registers: the engine keeps breakpoints beside them."""
    image = build_guests(tmp_path, {"debugregs": []})["debugregs"]

    def machine():
        made = Machine(style=style)
        made.load(image)
        return made
    first = machine()
    expected = outcome(first, first.run(), full=True)
    assert expected["end"]["reason"] == "exit" and expected["json"]["report"] == [4], expected["json"]["console"]
    other = machine()
    while not other.console.endswith(b"armed\n"):
        other.run(max_instructions=20)
    assert other.registers["dr7"] & 1 and not other.events["exceptions"]
    other.save(tmp_path / "m")
    restored = Machine.restore(tmp_path / "m")
    assert outcome(restored, restored.run(), full=True) == expected


def test_the_other_engine_goes_on(tmp_path):
    """A snapshot has nothing of the accounting in it: either engine takes it over."""
    files = saved_at(machine_for("demand", engine="inline"), [1_000_000], tmp_path)
    one, = worker(files, "--engine", "inline")
    other, = worker(files, "--engine", "portable")
    assert one.pop("state") != other.pop("state"), "the option itself is in the state"
    assert one == other


@pytest.mark.parametrize("style", ["native", "vmx+ept", "svm+npt", "svm+shadow"])
def test_the_same_state_is_the_same_file(tmp_path, style):
    """In two processes, and after a restore: no address of this process and no leftover is in it."""
    one, again = tmp_path / "one", tmp_path / "again"
    saved_at(machine_for("usermode", style=style), [20_000], tmp_path)[0].rename(one)
    Machine.restore(one).save(again)
    assert one.read_bytes() == again.read_bytes()
    code = (f"from rom_runs import machine_for; m = machine_for('usermode', style={style!r}); "
            f"m.run(max_instructions=20_000); m.save({str(again)!r})")
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
    assert one.read_bytes() == again.read_bytes()


def test_everything_visible_comes_back(tmp_path):
    machine = machine_for("minikernel", style="vmx+ept", profile="zen", clock="instructions", seed=7, ept_page="2M")
    machine.run(max_instructions=5_000_000)
    machine.set_register("dr0", 0x1234)
    machine.set_register("r15", 0xFEDC_BA98_7654_3210)
    machine.send(b"typed ahead")
    machine.save(tmp_path / "m")
    other = Machine.restore(tmp_path / "m")
    for name in ("options", "style", "clock", "memory", "profile", "registers", "instructions", "cycles", "units", "ledger", "ledger_units",
                 "exits", "tlb", "walks", "events", "console", "debug_console", "report", "guest_time"):
        assert getattr(other, name) == getattr(machine, name), name
    assert other.digest() == machine.digest() and other.exits and other.walks["count"]


class Dice:
    """A device that the guest of the test never uses."""

    def port_in(self, port, size):
        return 4

    def port_out(self, port, size, value):
        pass

    def mmio_read(self, offset, size):
        return 4

    def mmio_write(self, offset, size, value):
        pass


def test_python_devices_have_to_come_back(tmp_path):
    """Their state is theirs: the restored machine does not run without them."""
    machine = machine_for("hello")
    machine.add_port_device(0x300, 2, Dice())
    machine.add_mmio_device(0xFD00_0000, 4096, Dice())
    machine.run(max_instructions=100)
    machine.save(tmp_path / "m")
    other = Machine.restore(tmp_path / "m")
    with pytest.raises(ValueError, match=r"ports 0x300\.\.0x301"):
        other.run()
    other.add_port_device(0x300, 2, Dice())
    with pytest.raises(ValueError, match=r"mmio 0xfd000000\.\.0xfd000fff"):
        other.run()
    other.add_mmio_device(0xFD00_0000, 4096, Dice())
    assert outcome(other, other.run()) == outcome(machine, machine.run())


def test_a_finished_machine_stays_finished(tmp_path):
    machine = machine_for("hello")
    machine.run()
    machine.save(tmp_path / "m")
    other = Machine.restore(tmp_path / "m")
    assert other.digest() == machine.digest() and other.console == machine.console
    assert fingerprint(other) == fingerprint(machine)


def test_a_subclass_is_restored_as_itself(tmp_path):
    class Mine(Machine):
        pass
    machine_for("hello").save(tmp_path / "m")
    assert type(Mine.restore(tmp_path / "m")) is Mine


# When it cannot be saved ------------------------------------------------------------------------

def test_without_a_guest():
    with pytest.raises(ValueError, match="no guest"):
        Machine().save("never")
    assert not Path("never").exists()


@pytest.mark.parametrize("what", ["save", "run", "step", "load"])
def test_not_from_a_callback(tmp_path, what):
    """In the middle of an instruction there is no state to save, nor may the machine be run."""
    machine = machine_for("hello")
    arguments = {"save": (tmp_path / "m",), "run": (), "step": (), "load": ("hello.elf",)}[what]
    machine.on_exit(lambda *_: getattr(machine, what)(*arguments))
    with pytest.raises(ValueError, match="inside a callback"):
        machine.run()
    assert not (tmp_path / "m").exists()
    machine.save(tmp_path / "m")                # the machine has stopped by now
    assert Machine.restore(tmp_path / "m").run().reason is StopReason.EXIT


def test_an_unwritable_path_leaves_nothing(tmp_path):
    machine = machine_for("hello")
    with pytest.raises(OSError):
        machine.save(tmp_path / "missing" / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        machine.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# When it cannot be restored ---------------------------------------------------------------------

@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "good"
    machine = machine_for("hello")
    machine.run(max_instructions=5000)
    machine.save(path)
    return path.read_bytes()


def refused(path, data):
    """The one line that restore() says about these bytes."""
    path.write_bytes(data)
    with pytest.raises(SnapshotError) as caught:
        Machine.restore(path)
    text = str(caught.value)
    assert isinstance(caught.value, ValueError) and "\n" not in text and text.startswith(f"{path}: ")
    return text


def rewritten(image, **changes):
    """The file with other header fields and a checksum that fits."""
    size = PREFIX.unpack_from(image)[2]
    header = json.dumps({**json.loads(image[PREFIX.size:PREFIX.size + size]), **changes}).encode()
    data = PREFIX.pack(MAGIC, FORMAT, len(header)) + header + image[PREFIX.size + size:-32]
    return data + sha256(data).digest()


def test_rewritten_without_changes_is_accepted(tmp_path, image):
    (tmp_path / "m").write_bytes(rewritten(image))
    assert run_on(tmp_path / "m")["end"]["reason"] == "exit"


def test_other_files(tmp_path, image):
    path = tmp_path / "m"
    assert "size" in refused(path, b"")
    assert "magic" in refused(path, b"\x7fELF" + bytes(1000))
    assert "format: 99" in refused(path, struct.pack("<8sI", MAGIC, 99) + image[12:])
    assert "checksum" in refused(path, image + b"\0")
    assert "version: 0.0.0, expected" in refused(path, rewritten(image, version="0.0.0"))
    with pytest.raises(SnapshotError, match="No such file"):
        Machine.restore(tmp_path / "missing")
    with pytest.raises(SnapshotError, match="directory"):
        Machine.restore(tmp_path)


def test_a_machine_that_cannot_be(tmp_path, image):
    size = PREFIX.unpack_from(image)[2]
    options = json.loads(image[PREFIX.size:PREFIX.size + size])["options"]
    path = tmp_path / "m"
    assert "style" in refused(path, rewritten(image, options={**options, "style": "magic"}))
    assert "memory" in refused(path, rewritten(image, options={**options, "memory": 5}))
    assert "wings" in refused(path, rewritten(image, options={**options, "wings": 2}))
    assert "world" in refused(path, rewritten(image, options={**options, "memory": 2 << 20}))


def test_sections_of_another_size(tmp_path, image):
    size = PREFIX.unpack_from(image)[2]
    sections = dict(json.loads(image[PREFIX.size:PREFIX.size + size])["sections"])
    for name in ("world", "ledger", "mmu", "registers"):
        other = dict(sections)
        other[name] -= 8
        other["ram"] += 8
        assert f"{name}: {other[name]} bytes" in refused(tmp_path / "m", rewritten(image, sections=list(other.items())))
    assert "sections" in refused(tmp_path / "m", rewritten(image, sections=list(sections.items())[:-1]))


def test_a_profile_that_has_changed(tmp_path):
    """A snapshot of a machine with the user's own profile needs that profile as it was."""
    profile = tmp_path / "mine.toml"
    profile.write_text('base = "skylake"\n')
    machine = machine_for("hello", profile=profile)
    machine.save(tmp_path / "m")
    assert Machine.restore(tmp_path / "m").profile == "mine"
    profile.write_text('base = "nehalem"\n')
    with pytest.raises(SnapshotError, match="profile: mine has changed"):
        Machine.restore(tmp_path / "m")
    profile.unlink()
    with pytest.raises(SnapshotError, match="mine.toml"):
        Machine.restore(tmp_path / "m")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_noticed(tmp_path_factory, image, data):
    """Any other bytes, or fewer: one clear error."""
    kind = data.draw(st.sampled_from(("flip", "cut", "swap", "grow")))
    broken = bytearray(image)
    if kind == "flip":
        for at in data.draw(st.lists(st.integers(0, len(image) - 1), min_size=1, max_size=5, unique=True)):
            broken[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del broken[data.draw(st.integers(0, len(image) - 1)):]
    elif kind == "swap":
        at = data.draw(st.integers(0, len(image) // 2))
        broken = broken[at:] + broken[:at] if at else broken[::-1]
    else:
        broken += data.draw(st.binary(min_size=1, max_size=64))
    refused(tmp_path_factory.getbasetemp() / "damaged", bytes(broken))
