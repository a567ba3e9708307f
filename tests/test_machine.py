# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python API of a Machine, on guests of a few bytes: every expected value follows from the bytes."""
import gc
import os
import signal
import struct
import threading
import time

import pytest

from pyx86v import Machine, Stop, StopReason
from pyx86v._core import styles
from rom_runs import machine_for

ENTRY = 0x100020
MEMORY = 4 << 20
STYLES = tuple(styles())
ENGINES = ("inline", "portable")
SPIN = b"\xeb\xfe"                                       # jmp to itself
COUNT = b"\x40\xeb\xfd"                                  # 1: inc eax; jmp 1b
EXIT = b"\xb0\x07\xe6\xf4"                               # mov al, 7; out 0xf4, al
CPUID_LOOP = b"\x31\xc0\x0f\xa2\xeb\xfa"                 # 1: xor eax, eax; cpuid; jmp 1b
HLT = b"\xf4"


@pytest.fixture
def guest(tmp_path):
    """guest(code, **options) -> Machine with `code` as a multiboot kernel, 32-bit flat at ENTRY."""
    def build(code, **options):
        if options.get("engine") == "portable" and options.get("style") == "bt+shadow":
            pytest.skip("styles that translate need the inline engine")
        header = struct.pack("<8I", 0x1BADB002, 1 << 16, -(0x1BADB002 + (1 << 16)) & 0xFFFFFFFF, 0x100000, 0x100000, 0, 0, ENTRY)
        path = tmp_path / "guest"
        path.write_bytes(header + code)
        machine = Machine(memory=MEMORY, **options)
        machine.load(path)
        return machine
    return build


@pytest.fixture
def sigint():
    """Ctrl-C as in a terminal (background shells ignore it)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


# Longer programs ------------------------------------------------------------------------------

def tables(code, handler=b"", offset=ENTRY + 0xC0):
    """LGDT, LIDT, a stack, then `code` at ENTRY + 0x40 in a segment whose base is 0x1000 (selector 0x18); every vector's
    gate leads to 8:offset, where `handler` lies by default."""
    data, base = ENTRY + 0x100, 0x1000
    start = (b"\x0f\x01\x15" + struct.pack("<I", data) + b"\x0f\x01\x1d" + struct.pack("<I", data + 8)
             + b"\xbc" + struct.pack("<I", MEMORY - 16) + b"\xea" + struct.pack("<IH", ENTRY + 0x40 - base, 0x18))
    pointers = struct.pack("<HI2x", 31, data + 0x20) + struct.pack("<HI2x", 0x7FF, data + 0x100)
    gdt = struct.pack("<4Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF | base << 16)
    gate = struct.pack("<HHHH", offset & 0xFFFF, 8, 0x8E00, offset >> 16)
    text = start.ljust(0x40, b"\x90") + code
    return text.ljust(0xC0, b"\x90") + handler.ljust(0x40, b"\x90") + pointers.ljust(0x20, b"\0") + gdt.ljust(0xE0, b"\0") + gate * 256


def endless_fault():
    """UD2, whose handler is that same UD2."""
    return tables(b"\xbc" + struct.pack("<I", MEMORY - 16) + b"\x0f\x0b", offset=ENTRY + 0x40)


def endless_idle():
    """The timer at its fastest, a handler that only returns, and HLT in a loop: time passes in leaps."""
    writes = ((0x11, 0x20), (0x20, 0x21), (4, 0x21), (1, 0x21), (0xFE, 0x21), (0x34, 0x43), (0, 0x40), (1, 0x40))
    ports = b"".join(b"\xb0%c\xe6%c" % pair for pair in writes)                  # mov al, value; out port, al
    return tables(ports + b"\xfb\xf4\xeb\xfd", b"\x50\xb0\x20\xe6\x20\x58\xcf")   # sti; 1: hlt; jmp 1b -- push eax ... pop eax; iret


SELF_CHANGING = b"\xc6\x05" + struct.pack("<I", ENTRY + 7) + b"\x90\x90\xeb\xf6"      # 1: mov byte [2f], 0x90; 2: nop; jmp 1b
BOUNDLESS = {"jump": SPIN, "cpuid": CPUID_LOOP, "fault": endless_fault(), "idle": endless_idle(), "self-changing": SELF_CHANGING}


# Running --------------------------------------------------------------------------------------

@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_guest_ends_itself(guest, style, engine):
    console = b"".join(b"\xb0%c\xee" % c for c in b"hi\n")                    # mov al, c; out dx, al
    code = b"\x66\xba\xf8\x03" + console + b"\xb8\x78\x56\x34\x12\xe7\xe8" + EXIT
    m = guest(code, style=style, engine=engine)
    assert m.run() == Stop(StopReason.EXIT, 7, "")
    assert m.console == b"hi\n" and m.report == [0x12345678]
    assert m.instructions == 1 + 6 + 2 + 2
    assert sum(m.ledger.values()) == m.cycles > 0
    assert sum(m.ledger_units.values()) == m.units


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_that_is_read_ends_the_guest_there(guest, style, engine):
    """The 8042 holds the reset line: a guest that is made to go on is at its end with the next port that it reads."""
    m = guest(b"\xb0\xfe\xe6\x64" + b"\x90\xe4\x64\x90\x40\xeb\xf9", style=style, engine=engine)    # mov al, 0xfe; out 0x64, al
    for instructions, rip, al in (2, 4, 0xfe), (4, 7, 0x1c), (9, 7, 0x1c):               # 1: nop; in al, 0x64; nop; inc eax; jmp 1b
        assert m.run(max_instructions=100) == Stop(StopReason.SHUTDOWN, 0, "reset")
        assert (m.instructions, m.registers["rip"] - ENTRY, m.registers["rax"] & 0xff) == (instructions, rip, al)


def test_reasons(guest):
    assert guest(HLT).run() == Stop(StopReason.HALT, 0, "")
    assert guest(b"\x0f\x0b").run() == Stop(StopReason.SHUTDOWN, 0, "triple fault")           # ud2 without a table
    assert guest(b"\xb0\xfe\xe6\x64").run() == Stop(StopReason.SHUTDOWN, 0, "reset")          # 8042: pulse the reset line
    assert guest(b"\xb0\xff\xe6\xf4").run().status == 255


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_limits(guest, style, engine):
    m = guest(COUNT, style=style, engine=engine)
    assert m.run(max_instructions=1000).reason is StopReason.LIMIT
    assert 1000 <= m.instructions <= 1002                                     # blocks of two
    assert m.registers["rax"] == 0x2BADB002 + m.instructions // 2
    at = m.cycles
    assert m.run(max_cycles=5000).reason is StopReason.LIMIT
    assert 5000 <= m.cycles - at < 5100
    for name in ("max_cycles", "max_instructions"):
        before = m.instructions
        assert m.run(**{name: 0}).reason is StopReason.LIMIT and m.instructions == before
    m = guest(CPUID_LOOP, style=style, engine=engine)
    m.run(max_exits=10, max_instructions=3000)
    if style in ("native", "trap+shadow"):                                        # CPUID does not trap
        assert m.instructions >= 3000
    else:
        assert sum(row["count"] for row in m.exits.values()) == 10


@pytest.mark.parametrize("style", [style for style in STYLES if style != "bt+shadow"])       # README: stopping costs it a dispatch
@pytest.mark.parametrize("clock", ["cycles", "instructions"])
def test_slices_add_up_to_the_whole(guest, style, clock):
    """A run cut at many places is the same run."""
    code = b"\xbf\x00\x04\x00\x00" + b"\x0f\xa2\x4f\x75\xfb" + EXIT            # mov edi, 1024; 1: cpuid; dec edi; jnz 1b
    whole, cut = (guest(code, style=style, clock=clock) for _ in range(2))
    assert whole.run().reason is StopReason.EXIT
    while (stop := cut.run(max_instructions=37)).reason is StopReason.LIMIT:
        pass
    assert stop == Stop(StopReason.EXIT, 7, "")
    for what in ("instructions", "units", "ledger_units", "exits", "tlb", "walks"):
        assert getattr(cut, what) == getattr(whole, what)
    assert cut.digest() == whole.digest()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_limits_stop_what_never_runs_an_instruction(guest, style, engine):
    """An exception whose handler lies where nothing answers: each delivery ends in the next, and no block begins."""
    m = guest(tables(b"\x0f\x0b", offset=0xF0000000), style=style, engine=engine)
    assert m.run(max_cycles=50_000).reason is StopReason.LIMIT
    assert 50_000 <= m.cycles < 60_000
    retired = m.instructions
    assert retired == 4 and m.events["exceptions"][6] > 10                    # lgdt, lidt, mov, ljmp; #UD
    m.run(max_cycles=50_000)
    assert m.instructions == retired


def test_step(guest):
    m = guest(b"\x40\x41\x42\x40\x40" + SPIN)                                 # inc eax, ecx, edx, eax, eax
    rip = []
    for _ in range(5):
        assert m.step().reason is StopReason.LIMIT
        rip.append(m.registers["rip"] - ENTRY)
    assert rip == [1, 2, 3, 4, 5] and m.instructions == 5
    assert m.registers["rax"] == 0x2BADB002 + 3
    m.step(10)
    assert m.instructions == 15 and m.registers["rip"] == ENTRY + 5
    assert guest(EXIT).step(5) == Stop(StopReason.EXIT, 7, "")


@pytest.mark.parametrize("style", STYLES)
def test_a_delivered_exception_is_a_step(guest, style):
    """UD2 whose handler skips it: the steps are the same under every style."""
    handler = b"\x83\x04\x24\x02\xcf"                                        # add dword [esp], 2; iretd
    m = guest(tables(b"\x0f\x0b\x40" * 8, handler), style=style)
    m.run(max_instructions=4)
    rip = []
    for _ in range(8):
        m.step()
        rip.append(m.registers["rip"])
    first, at = ENTRY + 0x40 - 0x1000, ENTRY + 0xC0
    assert rip == [at, at + 4, first + 2, first + 3, at, at + 4, first + 5, first + 6]
    assert m.instructions == 4 + 6


# Registers and memory -------------------------------------------------------------------------

def test_registers(guest):
    m = guest(b"\x01\xd8" + SPIN)                                             # add eax, ebx
    m.set_register("rax", 0xFFFFFFFF)
    m.set_register("rbx", 2)
    m.step()
    got = m.registers
    assert got["rax"] == 1 and got["rflags"] & 0x8D5 == 0x11                  # CF and AF, neither ZF nor OF
    assert got["cr0"] == 0x11 and got["cpl"] == 0 and got["efer"] == 0
    assert got["cs"][1:3] == (0, 0xFFFFFFFF)
    m.set_register("rip", ENTRY)
    m.step()
    assert m.registers["rax"] == 3
    with pytest.raises(KeyError, match="expected a general register"):
        m.set_register("xmm0", 1)
    m.set_register("dr0", 0x1234)
    assert m.registers["dr0"] == 0x1234


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_64_bit_code_has_no_base(style, engine):
    """CS may have one from before; there it counts for nothing (SDM 3A 3.4.4)."""
    if engine == "portable" and style == "bt+shadow":
        pytest.skip("styles that translate need the inline engine")
    ends = []
    for base in (0, 0x5000):
        m = machine_for("resume", style=style, engine=engine, clock="instructions")
        m.run(max_instructions=12_000)
        selector, _, limit, flags = m.registers["cs"]
        assert flags >> 21 & 1 and m.registers["efer"] >> 10 & 1
        m.set_segment("cs", selector, base, limit, flags)
        ends.append((m.run(), m.instructions, m.console, m.digest()))
    assert ends[0] == ends[1] and ends[0][0].status == 0


def test_memory(guest):
    m = guest(b"\xa1\x00\x00\x20\x00\xa3\x08\x00\x20\x00" + EXIT)             # mov eax, [0x200000]; mov [0x200008], eax
    m.write_memory(0x200000, b"\x01\x02\x03\x04")
    m.run()
    assert m.read_memory(0x200000, 12) == b"\x01\x02\x03\x04\0\0\0\0\x01\x02\x03\x04"
    assert m.read_memory(MEMORY - 1, 1) == b"\0" and m.read_memory(0, 0) == b""
    for gpa, size in ((MEMORY, 1), (MEMORY - 1, 2), (-1, 1), (0, -1), (1 << 63, 1), (0, 1 << 40)):
        with pytest.raises(ValueError, match="expected within the memory") as error:
            m.read_memory(gpa, size)
        assert one_line(error)
    with pytest.raises(ValueError, match="expected within the memory"):
        m.write_memory(MEMORY - 2, b"abc")


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_written_from_outside_is_executed(guest, engine):
    """Translated code of the page is dropped."""
    m = guest(b"\x40" + COUNT[1:], engine=engine)
    m.run(max_instructions=100)
    m.set_register("rax", 0)
    m.set_register("rip", ENTRY)
    m.write_memory(ENTRY, b"\x48")                                            # dec eax
    m.run(max_instructions=100)
    assert m.registers["rax"] >= 0xFFFFFFFF - 60


# Breakpoints ----------------------------------------------------------------------------------

LOOP = b"\x31\xc0\xb9\x05\x00\x00\x00" + b"\x40\x40\x40\xe2\xfb" + EXIT          # xor eax, eax; mov ecx, 5; 1: inc eax x3; loop 1b
MIDDLE = ENTRY + 7 + 1                                                       # the second inc


# a page directory at 0x8000 with one 4 MB page, not dirty yet; CR3; CR4.PSE; CR0.PG; jmp .+0
PAGING = bytes.fromhex("c7050080000083000000 b800800000 0f22d8 b810000000 0f22e0 0f20c0 0d00000080 0f22c0 eb00")


@pytest.mark.parametrize("profile", ("p4-672", "skylake"))
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_changes_its_own_block_runs_as_changed(guest, style, engine, profile):
    """With shadow tables the first store to the page exits, and the TLB may lose the code's own translation."""
    store = b"\xc6\x05" + struct.pack("<I", ENTRY + len(PAGING) + 10) + b"\x40"       # mov byte [1f], 0x40 (inc eax)
    m = guest(PAGING + b"\x31\xc0" + store + b"\x90\x90\xe7\xe8" + EXIT, style=style, engine=engine, profile=profile)
    assert m.run() == Stop(StopReason.EXIT, 7, "")
    assert m.report == [1] and m.instructions == 16                           # nop; 1: nop, now inc; out 0xe8, eax


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("warm", [False, True])
def test_breakpoint_in_the_middle_of_a_block(guest, style, engine, warm):
    m = guest(LOOP, style=style, engine=engine)
    plain = guest(LOOP, style=style, engine=engine)
    if warm:                                                                 # the block is translated already
        m.run(max_instructions=6)
        assert m.registers["rip"] == ENTRY + 7
    m.add_breakpoint(MIDDLE)
    seen = []
    while (stop := m.run()).reason is StopReason.BREAKPOINT:
        assert m.registers["rip"] == MIDDLE
        seen.append(m.registers["rax"])
    assert stop == Stop(StopReason.EXIT, 7, "")
    assert seen == ([4, 7, 10, 13] if warm else [1, 4, 7, 10, 13])
    plain.run()
    assert (m.instructions, m.units, m.digest()) == (plain.instructions, plain.units, plain.digest())


@pytest.mark.parametrize("engine", ENGINES)
def test_breakpoints_come_and_go(guest, engine):
    m = guest(LOOP, engine=engine)
    m.add_breakpoint(ENTRY)                                                  # the very first instruction
    assert m.run().reason is StopReason.BREAKPOINT and m.instructions == 0
    m.add_breakpoint(MIDDLE)
    m.add_breakpoint(MIDDLE)                                                 # twice is once
    assert m.run().reason is StopReason.BREAKPOINT and m.registers["rax"] == 1
    assert m.step().reason is StopReason.LIMIT and m.registers["rax"] == 2
    m.remove_breakpoint(MIDDLE)
    assert m.run().reason is StopReason.EXIT
    with pytest.raises(KeyError, match=hex(MIDDLE)):
        m.remove_breakpoint(MIDDLE)
    for n in range(63):
        m.add_breakpoint(0x200000 + n)
    with pytest.raises(ValueError, match="at most 64") as error:
        m.add_breakpoint(0x300000)
    assert one_line(error)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_guest_has_breakpoints_of_its_own(guest, style, engine):
    """DR0 holds a linear address; code in a segment with a base reaches it inside a block (SDM 3B 17.2)."""
    linear = ENTRY + 0x60
    code = (b"\xb8" + struct.pack("<I", linear) + b"\x0f\x23\xc0" + b"\xb8\x02\x04\0\0" + b"\x0f\x23\xf8").ljust(0x20, b"\x90") + EXIT
    # mov eax, linear; mov dr0, eax; mov eax, 0x402; mov dr7, eax; nop ... -- handler: dr6, then the pushed EIP, to port 0xe8
    m = guest(tables(code, b"\x0f\x21\xf0\xe7\xe8\x58\xe7\xe8\xb0\x09\xe6\xf4"), style=style, engine=engine)
    assert m.run() == Stop(StopReason.EXIT, 9, "")
    assert m.report[0] & 0xF == 1 and m.report[1] == linear - 0x1000
    assert m.events["exceptions"] == {1: 1}


# Devices --------------------------------------------------------------------------------------

class Ports:
    def __init__(self, answer=0):
        self.answer, self.seen = answer, []

    def port_in(self, port, size):
        self.seen.append(("in", port, size))
        return self.answer

    def port_out(self, port, size, value):
        self.seen.append(("out", port, size, value))


class Cells:
    def __init__(self):
        self.seen = []

    def mmio_read(self, offset, size):
        self.seen.append(("read", offset, size))
        return 0x8877665544332211

    def mmio_write(self, offset, size, value):
        self.seen.append(("write", offset, size, value))


class Broken:
    def fail(self, *_):
        raise LookupError("the device is on fire")
    port_in = port_out = mmio_read = mmio_write = fail


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_python_port_device(guest, style, engine):
    code = b"\x66\xba\x00\x03\xed\x89\xc3\xb8\x44\x33\x22\x11\xef\x42\x66\xef\x42\xee\xec" + EXIT
    # mov dx, 0x300; in eax, dx; mov ebx, eax; mov eax, 0x11223344; out dx, eax; inc edx; out dx, ax; inc edx; out dx, al; in al, dx
    m, ports = guest(code, style=style, engine=engine), Ports(0xCAFEBABE)
    m.add_port_device(0x300, 4, ports)
    assert m.run() == Stop(StopReason.EXIT, 7, "")
    assert m.registers["rbx"] == 0xCAFEBABE
    assert ports.seen == [("in", 0x300, 4), ("out", 0x300, 4, 0x11223344), ("out", 0x301, 2, 0x3344), ("out", 0x302, 1, 0x44),
                          ("in", 0x302, 1)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("engine", ENGINES)
def test_python_mmio_device(guest, style, engine):
    code = b"\xa1\x10\x00\x00\xfe\xa2\x03\x00\x00\xfe\x66\xa3\x08\x00\x00\xfe\x89\xc3" + EXIT
    # mov eax, [0xfe000010]; mov [0xfe000003], al; mov [0xfe000008], ax; mov ebx, eax
    m, cells = guest(code, style=style, engine=engine), Cells()
    m.add_mmio_device(0xFE000000, 0x1000, cells)
    assert m.run() == Stop(StopReason.EXIT, 7, "")
    assert m.registers["rbx"] == 0x44332211
    assert cells.seen == [("read", 0x10, 4), ("write", 3, 1, 0x11), ("write", 8, 2, 0x2211)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("access", [b"\xe5\x40", b"\xe7\x40", b"\xa1\x00\x00\x00\xfe", b"\xa3\x00\x00\x00\xfe"])
def test_what_a_device_raises_comes_out_of_run(guest, style, access):
    """The exception itself; the machine stays readable and runs on."""
    m = guest(b"\x40" + access + COUNT, style=style)
    m.add_port_device(0x40, 4, Broken())
    m.add_mmio_device(0xFE000000, 0x1000, Broken())
    with pytest.raises(LookupError, match="on fire"):
        m.run(max_instructions=1000)
    assert m.instructions <= 4 and m.registers["cs"][1] == 0
    assert m.run(max_instructions=1000).reason is StopReason.LIMIT


def test_device_arguments(guest):
    m = guest(SPIN)
    for first, count in ((-1, 1), (0x10000, 1), (0xFFFF, 2), (0, 0), (5, -1)):
        with pytest.raises(ValueError, match="ports: ") as error:
            m.add_port_device(first, count, Ports())
        assert one_line(error)
    for gpa, size in ((0, 4096), (MEMORY - 1, 4096), (MEMORY, 0), (1 << 40, 1), (MEMORY, -1)):
        with pytest.raises(ValueError, match="mmio: ") as error:
            m.add_mmio_device(gpa, size, Cells())
        assert one_line(error)


# Hooks ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("style", STYLES)
def test_exit_hook_sees_each_event(guest, style):
    m, seen = guest(b"\x0f\xa2\x0f\x20\xd8\x0f\x22\xd8\xb0\x05\xe6\x80" + EXIT, style=style), []
    m.on_exit(lambda kind, rip, value: seen.append((kind, rip - ENTRY, value)))
    m.run()
    # cpuid; mov eax, cr3; mov cr3, eax; out 0x80, al; out 0xf4, al
    in_place = [] if style == "bt+shadow" else [("cr_read", 2, 0)]       # translated code reads it without the monitor
    assert seen == [("cpuid", 0, 0), *in_place, ("cr_write", 5, 0), ("port_out", 10, 5), ("port_out", 14, 7)]


@pytest.mark.parametrize("style", STYLES)
def test_exit_hook_stops_and_raises(guest, style):
    m = guest(CPUID_LOOP, style=style)
    m.on_exit(lambda kind, rip, value: m.instructions > 100)
    assert m.run(max_instructions=10_000).reason is StopReason.LIMIT
    assert 100 < m.instructions < 110
    m = guest(CPUID_LOOP, style=style)

    def broken(kind, rip, value):
        raise LookupError(kind)
    m.on_exit(broken)
    with pytest.raises(LookupError, match="cpuid"):
        m.run(max_instructions=10_000)


def test_a_callback_does_not_run_the_machine(guest):
    m = guest(CPUID_LOOP)
    m.on_exit(lambda kind, rip, value: m.run())
    with pytest.raises(ValueError, match="inside a callback"):
        m.run(max_instructions=100)


# Bad arguments --------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {"style": "kvm"}, {"style": None}, {"profile": "486"}, {"profile": "/nonexistent.toml"}, {"clock": "sundial"}, {"engine": "steam"},
    {"memory": 0}, {"memory": -4096}, {"memory": (4 << 20) + 1}, {"memory": 1 << 20}, {"memory": 1 << 40}, {"memory": "4M"},
    {"memory": 4.5}, {"ept_page": "8K"}, {"holes": "fill"}, {"seed": "one"}, {"seed": 1 << 64}, {"quantum": 0.5}, {"asids": 0},
    {"guests": 2}, {"guests": [1]}, {"guests": [{"size": 1}]}, {"guests": []}, {"disks": "one.raw"}, {"cdroms": None}, {"disks": [1]}])
def test_arguments_that_cannot_be(options):
    with pytest.raises(ValueError) as error:
        Machine(**options)
    assert one_line(error) and "expected" in str(error.value)


def test_misuse(guest, tmp_path):
    with pytest.raises(ValueError, match="expected load") as error:
        Machine(memory=MEMORY).run()
    assert one_line(error)
    m = guest(SPIN)
    for name in ("max_cycles", "max_instructions", "max_exits"):
        with pytest.raises(ValueError, match=name) as error:
            m.run(**{name: -1})
        assert one_line(error)
        with pytest.raises(ValueError, match=name):
            m.run(**{name: "many"})
    with pytest.raises(ValueError, match="has a guest already") as error:
        m.load(tmp_path / "guest")
    assert one_line(error)
    with pytest.raises(ValueError, match="missing") as error:
        Machine(memory=MEMORY).load(tmp_path / "missing")
    assert one_line(error)
    assert m.run(max_instructions=10 ** 30, max_cycles=100).reason is StopReason.LIMIT        # beyond 64 bits is no limit


def test_values_that_cannot_be(guest):
    m = guest(SPIN)
    for error, text, wrong in (
            (ValueError, "instructions", lambda: m.step(-1)), (ValueError, "breakpoint", lambda: m.add_breakpoint(-1)),
            (ValueError, "breakpoint", lambda: m.remove_breakpoint("here")), (ValueError, "rax", lambda: m.set_register("rax", 1 << 64)),
            (KeyError, "draft", lambda: m.set_register("draft", 0)), (ValueError, "segment", lambda: m.set_segment("xs", 0, 0, 0, 0)),
            (ValueError, "selector", lambda: m.set_segment("ds", 1 << 16, 0, 0, 0)), (ValueError, "address", lambda: m.read_memory("0", 1)),
            (TypeError, "bytes", lambda: m.write_memory(0, 5)), (TypeError, "on_exit", lambda: m.on_exit(5)),
            (TypeError, "on_idle", lambda: m.on_idle("sleep")), (ValueError, "kernel-args", lambda: Machine().load(__file__, kernel_args=5))):
        with pytest.raises(error, match=text) as raised:
            wrong()
        assert one_line(raised)
    assert m.read_memory(0, 5) == bytes(5) and m.run(max_instructions=10).reason is StopReason.LIMIT


# Signals and threads --------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("style", [pytest.param(style, marks=pytest.mark.quick) if style == "native" else style for style in STYLES])
@pytest.mark.parametrize("kind", BOUNDLESS)
@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_stops_within_a_second(guest, sigint, style, kind, engine):
    m = guest(BOUNDLESS[kind], style=style, engine=engine)
    start = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        m.run()
    assert 0.15 < time.monotonic() - start < 1.2
    before = m.instructions
    assert m.run(max_instructions=1000).reason is StopReason.LIMIT and m.instructions > before      # it can run on
    assert sum(m.ledger.values()) == m.cycles


def test_a_pending_signal_is_seen_by_a_short_run(guest, sigint):
    m = guest(SPIN)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        m.run(max_instructions=10)


def test_a_handler_that_does_not_raise_goes_on(guest):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        m = guest(COUNT)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert m.run(max_instructions=200_000_000).reason is StopReason.LIMIT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen and m.instructions >= 200_000_000


def test_other_threads_go_on(guest):
    """run() holds no lock that others need: a Python thread counts while the guest spins."""
    m, stop, count = guest(SPIN), threading.Event(), [0]

    def work():
        while not stop.is_set():
            count[0] += 1
    thread = threading.Thread(target=work)
    thread.start()
    try:
        before, start = count[0], time.monotonic()
        while time.monotonic() - start < 0.3:
            m.run(max_instructions=50_000_000)                               # tens of milliseconds, the switch interval is 5
        assert count[0] - before > 1000
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("style", STYLES)
def test_two_machines_in_two_threads(guest, style):
    code = b"\xbf\x00\x80\x00\x00" + b"\x0f\xa2\x31\xd8\xa3\x00\x00\x20\x00\x4f\x75\xf4" + EXIT
    # mov edi, 0x8000; 1: cpuid; xor eax, ebx; mov [0x200000], eax; dec edi; jnz 1b
    machines = [guest(code, style=style) for _ in range(3)]

    def result(m):
        assert m.run() == Stop(StopReason.EXIT, 7, "")
        return m.instructions, m.units, m.digest(), m.exits
    expected = result(machines[0])
    got = [None, None]
    threads = [threading.Thread(target=lambda n=n: got.__setitem__(n, result(machines[n + 1]))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected, expected]


@pytest.mark.parametrize("style", STYLES)
def test_the_environment_of_the_fpu_names_the_guests_segment(guest, style):
    """FNSTENV shows the selector in which the last x87 instruction lay: with the guest's RPL, whatever ring its kernel runs in."""
    at = struct.pack("<I", 0x150000), struct.pack("<I", 0x150010)
    code = b"\xd9\xe8\xd9\x35" + at[0] + b"\xa1" + at[1] + b"\xe7\xe8" + EXIT      # fld1; fnstenv [at]; mov eax, [at + 16]; out 0xe8, eax
    m = guest(tables(code), style=style)
    assert m.run(max_instructions=1000).status == 7 and m.report[0] & 0xffff == 0x18


@pytest.mark.parametrize("style", STYLES)
def test_smep_holds_from_the_next_instruction_on(guest, style):
    """A kernel that sets CR4.SMEP while it runs in a user page: the next fetch faults (SDM 3A 4.6.1), and so does the handler's."""
    directory = struct.pack("<I", 0x110000)
    paging = (b"\xc7\x05" + directory + struct.pack("<I", 0x87)             # one large page for user and supervisor
              + b"\xb8" + directory + b"\x0f\x22\xd8\xb8\x10\0\0\0\x0f\x22\xe0"    # CR3; CR4.PSE
              + b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0" + b"\x40" * 8        # CR0.PG; some code in ring 1
              + b"\xb8\x10\0\x10\0\x0f\x22\xe0" + EXIT)                      # CR4.SMEP
    m = guest(tables(paging), style=style, holes="continue")
    assert m.run(max_instructions=1000).reason is StopReason.SHUTDOWN and m.instructions == 4 + 8 + 8 + 2


@pytest.mark.parametrize("engine", ENGINES)
def test_one_address_under_two_segments(tmp_path, engine):
    """Code that is called through two bases: CPUID leaves a block halfway, and what was run is counted from its IP."""
    calls = (b"\xb8\x00\x10\x8e\xd0\xbc\x00\x10"                   # mov ax, 0x1000; mov ss, ax; mov sp, 0x1000
             b"\xbe\x08\x00"                                       # mov si, 8
             b"\x9a\x00\x01\x00\xf0\x9a\x00\x00\x10\xf0"          # 1: call 0xf000:0x100; call 0xf010:0
             b"\x4e\x75\xf3" + EXIT)                               # dec si; jnz 1b
    called = b"\x90\x31\xc0\x0f\xa2\x90\xcb"                       # nop; xor ax, ax; cpuid; nop; retf
    reset = b"\xea\x00\x00\x00\xf0"                              # jmp 0xf000:0
    path = tmp_path / "firmware"
    path.write_bytes(calls.ljust(0x100, b"\xf4") + called.ljust(0xfef0, b"\xf4") + reset.ljust(16, b"\xf4"))
    machine = Machine(memory=MEMORY, engine=engine)
    machine.load(path)
    assert machine.run(max_instructions=1000).status == 7
    assert machine.instructions == 5 + 8 * (2 * (1 + 5) + 2) + 2


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
def test_a_thousand_machines_leave_nothing_behind(guest):
    mappings = lambda: len(open("/proc/self/maps").readlines())

    def use(n):
        for i in range(n):
            style = STYLES[i % len(STYLES)]
            m = guest(EXIT, style=style, engine="inline" if style == "bt+shadow" else ENGINES[i >> 1 & 1])
            m.on_exit(lambda kind, rip, value, m=m: False)                   # a cycle through the machine's own hook
            m.add_port_device(0x300, 1, Ports())
            assert m.run().status == 7
            del m
            if i % 20 == 0:
                gc.collect()
        gc.collect()
    use(100)
    seen = [(resident(), mappings())]
    for _ in range(3):                                                       # what leaks grows each time, the allocator's own only now and then
        use(300)
        seen.append((resident(), mappings()))
    bytes_, maps = ([after - before for before, after in zip(each, each[1:])] for each in zip(*seen))
    assert min(bytes_) < 5 << 20 and min(maps) < 7, (bytes_, maps)
