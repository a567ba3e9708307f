# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of sensitive instructions against one that steps, decodes with capstone and looks at the registers; and
what the table says of traps against a processor that runs each encoding in rings 1 and 3."""
import json
import struct
from collections import Counter

import capstone
import pytest
import unicorn
from capstone import x86 as cs
from unicorn import x86_const as ux

import images
from pyx86v import Machine, cli
from pyx86v._core import styles
from pyx86v.arch import sensitive as s
from pyx86v.cli import guests
from pyx86v.report import census as report
from rom_runs import machine_for
from test_sensitive import CODE, OTHERS

PLAIN = set("sgdt sidt sldt str smsw lar lsl verr verw lds les lfs lgs lss int int1 int3 into syscall sysenter rdtsc rdtscp rdpmc in out "
            "cli sti hlt lgdt lidt lldt ltr lmsw clts invd wbinvd invlpg invpcid wrmsr rdmsr swapgs monitor mwait clac stac rsm".split())
FORMS = {"pushfd": "pushf", "pushfq": "pushf", "pushf": "pushf", "popfd": "popf", "popfq": "popf", "popf": "popf", "iretd": "iret",
         "iretq": "iret", "iret": "iret", "lcall": "call_far", "ljmp": "jmp_far", "retf": "ret_far", "retfq": "ret_far", "insb": "ins",
         "insd": "ins", "insw": "ins", "outsb": "outs", "outsd": "outs", "outsw": "outs", "sysret": "sysret", "sysretq": "sysret"}
SEGMENTS = {cs.X86_REG_ES, cs.X86_REG_CS, cs.X86_REG_SS, cs.X86_REG_DS, cs.X86_REG_FS, cs.X86_REG_GS}
CODE_OR_STACK = {cs.X86_REG_CS, cs.X86_REG_SS}
CONTROLS = {reg: name[:2] for name, reg in ((f"{kind}{i}", getattr(cs, f"X86_REG_{kind.upper()}{i}")) for kind in ("cr", "dr") for i in range(8))}
DECODERS = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in
            ((16, capstone.CS_MODE_16), (32, capstone.CS_MODE_32), (64, capstone.CS_MODE_64))}
for decoder in DECODERS.values():
    decoder.detail = True


# The other count

def name_of(insn):
    """The sensitive instruction that this is, or None."""
    mnemonic = insn.mnemonic.split()[-1]
    regs = [op.reg if op.type == cs.X86_OP_REG else None for op in insn.operands]
    if mnemonic == "mov" and regs[1] in CODE_OR_STACK:
        return "mov_from_segment"
    if mnemonic == "mov" and regs[0] in SEGMENTS:
        return "mov_to_segment"
    if mnemonic == "mov" and regs[0] in CONTROLS:
        return f"mov_to_{CONTROLS[regs[0]]}"
    if mnemonic == "mov" and regs[1] in CONTROLS:
        return f"mov_from_{CONTROLS[regs[1]]}"
    if mnemonic == "push" and regs[0] in CODE_OR_STACK:
        return "push_segment"
    if mnemonic == "pop" and regs[0] in SEGMENTS:
        return "pop_segment"
    if mnemonic in ("jmp", "call") and insn.opcode[0] == 0xFF and insn.modrm >> 3 & 7 in (3, 5):
        return f"{mnemonic}_far"
    return FORMS.get(mnemonic, mnemonic if mnemonic in PLAIN else None)


def place_of(r):
    if r["rflags"] >> 17 & 1 and r["cr0"] & 1:
        return "v86", 3
    if not r["cr0"] & 1:
        return "real", 0
    return "paging" if r["cr0"] >> 31 else "protected", r["cpl"]


def physical(machine, r, at):
    """The address behind a linear one: a walk of the guest's tables, which are there."""
    if not r["cr0"] >> 31:
        return at
    size, bits, levels = (8, 9, 4 if r["efer"] >> 10 & 1 else 3) if r["cr4"] >> 5 & 1 else (4, 10, 2)
    table = r["cr3"] & ~0x1F if levels == 3 else r["cr3"] & ~0xFFF
    for level in range(levels, 0, -1):
        shift = 12 + bits * (level - 1)
        entry = int.from_bytes(machine.read_memory(table + (at >> shift & (1 << bits) - 1) * size, size), "little")
        table = entry & 0xFFFFFFFFFF000
        if level == 1 or (entry >> 7 & 1 and level == 2):
            return table >> shift << shift | at & (1 << shift) - 1


def stepped(machine, steps):
    """{(mnemonic, mode, ring): [count, first address]} and {(mnemonic, address): count} of the instructions that retire in so many steps."""
    found, sites = {}, {}
    for _ in range(steps):
        before, r = machine.instructions, machine.registers
        at = (r["rip"] + r["cs"][1]) & (0xFFFFFFFF if not r["efer"] >> 10 & 1 else ~0)
        bits = 64 if r["cs"][3] >> 21 & 1 and r["efer"] >> 10 & 1 else 32 if r["cs"][3] >> 22 & 1 else 16
        insn = next(DECODERS[bits].disasm(machine.read_memory(physical(machine, r, at), 15), 0, 1), None)
        stop = machine.step()
        name = name_of(insn) if insn and machine.instructions > before else None
        if name:
            found.setdefault((name, *place_of(r)), [0, at])[0] += 1
            sites[name, at] = sites.get((name, at), 0) + 1
        if stop.reason.name != "LIMIT":
            break
    return found, sites


def counted(machine):
    return {(row["mnemonic"], row["mode"], row["ring"]): [row["count"], row["address"]] for row in machine.census}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "portable"])
@pytest.mark.parametrize("rom, start, steps", [("hello", 0, 20000), ("resume", 0, 25000), ("rings", 470_000, 20000),
                                               ("gates64", 220_000, 20000), ("v86", 80_000, 22000)])
def test_census_is_what_stepping_finds(rom, start, steps, engine):
    """From instruction `start` on.  The audited machine runs in blocks, but for the last few instructions."""
    other, machine = machine_for(rom), machine_for(rom, audit=True, engine=engine)
    for each in (other, machine):
        each.run(max_instructions=start)
    assert machine.instructions == other.instructions
    before, sites_before = counted(machine), counted_sites(machine)
    expected, expected_sites = stepped(other, steps)
    machine.run(max_instructions=max(other.instructions - machine.instructions - 1000, 0))
    while machine.instructions < other.instructions:
        machine.step()
    found = {key: [count - before.get(key, [0])[0], at if key not in before else expected.get(key, [0, 0])[1]]
             for key, (count, at) in counted(machine).items() if count != before.get(key, [0])[0]}
    assert found == expected and len(expected) > 9
    sites = {key: count - sites_before.get(key, 0) for key, count in counted_sites(machine).items()}
    assert {key: count for key, count in sites.items() if count} == expected_sites


def counted_sites(machine):
    return {(row["mnemonic"], row["address"]): row["count"] for row in machine.census_sites}


def test_more_sites_than_there_is_room_for(tmp_path):
    """6000 CLIs in a row, 4096 places: what is found no place for is counted together."""
    (tmp_path / "kernel").write_bytes(images.multiboot_elf(code=b"\xFA" * 6000 + bytes.fromhex("e6f4ebfe"), size=0x2000))
    machine = Machine(memory=2 << 20, audit=True)
    machine.load(tmp_path / "kernel")
    machine.run(max_instructions=6000)
    *sites, rest = machine.census_sites
    assert rest["address"] is None and rest["count"] == sum(row["count"] for row in machine.census) - len(sites) > 1000
    assert len(sites) > 3000 and all(row["count"] == 1 and row["address"] >= 0x10000C for row in sites)

# Equal everywhere

@pytest.mark.slow
@pytest.mark.parametrize("rom", ["mbinfo", "hello", "modes", "smc"])
def test_equal_under_every_style_and_engine_and_nothing_else_changes(rom):
    limit = 300_000
    plain = machine_for(rom, clock="instructions")
    plain.run(max_instructions=limit)
    first = None
    for style in styles():
        for engine in ("inline", "portable")[:1 if style == "bt+shadow" else 2]:
            machine = machine_for(rom, clock="instructions", style=style, engine=engine, audit=True)
            machine.run(max_instructions=limit)
            assert machine.digest() == plain.digest() and machine.instructions == plain.instructions
            first = first or machine.census
            assert machine.census == first and first
            totals = {}
            for row in machine.census_sites:
                totals[row["mnemonic"]] = totals.get(row["mnemonic"], 0) + row["count"]
            assert totals == {name: sum(row["count"] for row in first if row["mnemonic"] == name) for name in totals}


@pytest.mark.parametrize("style", styles())
def test_what_the_monitor_emulates_is_counted(tmp_path, style):
    """INVPCID: the engine does not know it, and has not read all of it."""
    (tmp_path / "kernel").write_bytes(images.multiboot_elf(code=bytes.fromhex("b802000000 31c9 660f388201 660f388201 f4"), size=0x2000))
    machine = Machine(memory=2 << 20, audit=True, style=style)
    machine.load(tmp_path / "kernel")
    machine.run()
    assert [(row["mnemonic"], row["count"], row["address"]) for row in machine.census if row["mnemonic"] != "hlt"] == [("invpcid", 2, 0x100013)]


def test_an_audit_changes_no_count():
    runs = [machine_for("timer", audit=audit) for audit in (False, True)]
    for machine in runs:
        machine.run(max_instructions=200_000)
    assert len({(m.instructions, m.units, str(m.ledger_units), str(m.tlb), m.digest()) for m in runs}) == 1


def test_innocuous_code_has_no_census(tmp_path):
    """A loop, calls, string moves, CPUID; then one OUT, which ends the guest."""
    code = bytes.fromhex("bc00801000" "b910000000" "50" "58" "0fa2" "b903000000" "f3a4" "b103" "49" "75fd" "e800000000" "58" "31c0")
    (tmp_path / "kernel").write_bytes(images.multiboot_elf(code=code + bytes.fromhex("e6f4ebfe")))
    machine = Machine(memory=2 << 20, audit=True)
    machine.load(tmp_path / "kernel")
    machine.run(max_instructions=8)
    assert machine.census == [] and machine.instructions >= 8
    machine.run()
    assert [(row["mnemonic"], row["mode"], row["ring"], row["count"]) for row in machine.census] == [("out", "protected", 0, 1)]
    assert machine.census[0]["address"] == 0x10000C + len(code)


def test_counts_survive_a_snapshot(tmp_path):
    machine = machine_for("hello", audit=True)
    machine.run(max_instructions=5000)
    machine.save(tmp_path / "half")
    again = Machine.restore(tmp_path / "half")
    assert again.census == machine.census
    machine.run()
    again.run()
    assert again.census == machine.census


def test_guests_of_one_machine_have_their_own():
    machine = Machine(guests=[{}, {}], audit=True)
    alone = []
    for guest, rom in zip(machine.guests, ("hello", "mbinfo")):
        one = machine_for(rom, audit=True)
        guest.load(guests.image(rom))
        one.run()
        alone.append(one.census)
    machine.run()
    assert [guest.census for guest in machine.guests] == alone and alone[0] != alone[1]


def test_without_audit_there_is_none():
    machine = machine_for("hello")
    machine.run()
    assert machine.census == []


# The command

def test_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "hello", "--json", "-"])
    result = json.loads(capsys.readouterr().out)
    machine = machine_for("hello", audit=True)
    machine.run()
    assert not ended.value.code and result["census"] == machine.census
    assert sum(sum(row.values()) for row in result["audit"]["classes"].values()) == sum(row["count"] for row in machine.census)
    assert set(result["audit"]["seventeen"]) == {row["mnemonic"] for row in machine.census if row["listed"]}
    with pytest.raises(SystemExit):
        cli.main(["audit", "rings", "--max-instructions", "600000"])
    out = capsys.readouterr().out
    assert "Trap and emulate alone cannot run it" in out and "  sgdt in ring 3, " in out and "control" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("mnemonic, mode, ring, obstacle", [
    ("popf", "paging", 0, True), ("popf", "paging", 3, False), ("sgdt", "paging", 3, True), ("popf", "protected", 0, False), ("popf", "protected", 1, True),
    ("sgdt", "v86", 3, True), ("str", "v86", 3, False), ("mov_to_cr", "paging", 0, False), ("int", "paging", 3, False)])
def test_what_keeps_trap_and_emulate_from_running_a_guest(mnemonic, mode, ring, obstacle):
    row = {"mnemonic": mnemonic, "mode": mode, "ring": ring, "class": s.CONTROL, "count": 2, "traps": False, "address": 1}
    assert report.judge([row])["trap_and_emulate"] is not obstacle


# The table against a processor

GDT, BUFFER, POINTER, STACK, START, TARGET, LANDING = 0x1000, 0x2000, 0x2100, 0x4000, 0x5000, 0x6000, 0x7000
DATA_OF_RING = {1: 0x21, 3: 0x33}
CODE_OF_RING = {1: 0x19, 3: 0x2B}


def trap_in_ring(code, ring, takes_selector):
    """The exception of one instruction in 32-bit code of a ring (IOPL 0, CR4.TSD), on plain Unicorn: 13, 6, or None."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.mem_map(0, 0x10000)
    flat = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF]
    flat += [kind | dpl << 45 for dpl in (1, 3) for kind in flat[1:3]]
    uc.mem_write(GDT, struct.pack("<7Q", *flat))
    uc.reg_write(ux.UC_X86_REG_GDTR, (0, GDT, 55, 0))
    uc.mem_write(STACK, struct.pack("<5I", TARGET, CODE_OF_RING[ring], 2, STACK + 0x800, DATA_OF_RING[ring]))
    uc.mem_write(START, bytes.fromhex("0f20e0" "83c804" "0f22e0" "cf"))          # CR4.TSD, IRETD
    uc.mem_write(TARGET, code + b"\x90" * 8)
    uc.mem_write(POINTER, struct.pack("<IH", LANDING, DATA_OF_RING[ring] if code[0] == 0xC5 or code[:2] == b"\x0f\xb2" else CODE_OF_RING[ring]))
    uc.mem_write(LANDING, b"\x90" * 8)
    uc.reg_write(ux.UC_X86_REG_ESP, STACK)
    uc.emu_start(START, TARGET)
    assert uc.reg_read(ux.UC_X86_REG_CS) == CODE_OF_RING[ring]
    first = DATA_OF_RING[ring] if code[0] == 0x1F else 2 if code[0] == 0x9D else LANDING
    uc.mem_write(STACK + 0x800, struct.pack("<3I", first, CODE_OF_RING[ring], 2))
    uc.reg_write(ux.UC_X86_REG_EAX, DATA_OF_RING[ring] if takes_selector else POINTER if code[0] in (0xFF, 0xC5) or code[:2] == b"\x0f\xb2" else BUFFER)
    uc.reg_write(ux.UC_X86_REG_ECX, DATA_OF_RING[ring])
    seen = []

    def on_interrupt(uc, number, _):
        seen.append(number)
        uc.emu_stop()

    def on_invalid(uc, _):
        seen.append(6)
        uc.emu_stop()
        return True
    uc.hook_add(unicorn.UC_HOOK_INTR, on_interrupt)
    uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, on_invalid)
    try:
        uc.emu_start(TARGET, 0xFFFF, count=1)
    except unicorn.UcError as error:
        seen.append(6 if error.errno == unicorn.UC_ERR_INSN_INVALID else error)
    return seen[0] if seen and seen[0] in (6, 13) else None if not seen or isinstance(seen[0], int) else seen[0]


@pytest.mark.parametrize("ring", [1, 3])
@pytest.mark.parametrize("name", sorted({**CODE, **OTHERS}.keys() - {"in", "outs"}))     # whose permission Unicorn leaves to its user
def test_what_traps_is_what_the_table_says(name, ring):
    takes_selector = name in ("mov_to_segment", "verr", "verw", "lar", "lsl")
    code = bytes.fromhex({**CODE, **OTHERS}[name])
    assert (trap_in_ring(code, ring, takes_selector) is not None) == s.ROWS[s.NUMBER[name] - 1].traps


def test_most_traps_are_protection_faults():
    """#GP(0), as the SDM lists it for each of these, and no other fault by accident."""
    for name in ("hlt", "cli", "lgdt", "mov_to_cr", "mov_from_cr", "rdmsr", "wrmsr", "invlpg", "clts", "rdtsc"):
        assert [trap_in_ring(bytes.fromhex(OTHERS[name]), ring, False) for ring in (1, 3)] == [13, 13], name
