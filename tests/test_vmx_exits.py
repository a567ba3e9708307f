# SPDX-License-Identifier: GPL-2.0-or-later
"""Each event under vmx+ept: does it exit, what the exit records (SDM 3C tables 27-1 to 27-7), what the monitor did,
and what it cost."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyx86v.cost.ledger import Cause, Price
from pyx86v.vmm.vmx.fields import names
from pyx86v.vmm.vmx.testing import VmxBench, instruction_information

F = names()
relaxed = settings(deadline=None)
PRICES = {Price.VM_EXIT: 1000, Price.VM_EXIT_EPT: 2000, Price.VM_EXIT_PAGE_FAULT: 3000, Price.VM_ENTRY: 500, Price.VMREAD: 7,
          Price.VMWRITE: 11, Price.UNTAGGED_SWITCH: 90, Price.PORT_IN: 400, Price.PORT_OUT: 300, Price.MMIO_READ: 600,
          Price.MMIO_WRITE: 800}
EMUL = {p: 10000 + 100 * n for n, p in enumerate(p for p in Price if p.name.startswith("EMUL_"))}
FLAT32, FLAT64 = 0xcf9b00, 0xaf9b00
CR0_PE, CR0_TS, CR0_NE, CR0_WP, CR0_PG = 1, 8, 0x20, 0x10000, 1 << 31


def bench(mode="long", **options):
    b = VmxBench(guest=1 << 20, prices=PRICES | EMUL, **options)
    if mode != "real":
        for name in ("ES", "SS", "DS", "FS", "GS"):
            b.segment(name, 0x18, 0, 0xffffffff, 0xcf9300)
        b.segment("CS", 0x10, 0, 0xffffffff, FLAT64 if mode == "long" else FLAT32)
        b.segment("TR", 0x40, 0x3000, 0x67, 0x8900)
        b.segment("LDTR", 0, 0, 0, 0)
    if mode == "long":
        b.set(EFER=0xd01, CR0=0x80010031, CR4=0x20, CR3=0x2000, BITS=64, DR6=0xffff0ff0)
    elif mode == "protected":
        b.set(CR0=0x31, BITS=32)
    assert b.start() == 0, b.state
    return b


class Account:
    """What one event cost, by cause, and whether it exited."""
    def __init__(self, b, kind, **fields):
        before, exits = b.causes, b.exits
        state = b.state
        self.result = b.event(kind, **fields)
        self.causes = {Cause(c): n - before.get(c, 0) for c, n in b.causes.items() if n != before.get(c, 0)}
        self.exits = {r: x["count"] - exits.get(r, {"count": 0})["count"] for r, x in b.exits.items()
                      if x["count"] != exits.get(r, {"count": 0})["count"]}
        self.reads, self.writes = b.state["reads"] - state["reads"], b.state["writes"] - state["writes"]
        self.verdict = self.result["verdict"]


# What exits, with which reason, and what the monitor's software costs ---------------------------

EXITS = [
    ("CPUID", {}, 10, "RESUME", Price.EMUL_CPUID),
    ("INVD", {}, 13, "RESUME", Price.EMUL_OTHER),
    ("RDPMC", {}, 15, "REFLECT", Price.EMUL_OTHER),
    ("VMX_INSN", {"detail": 18}, 18, "REFLECT", Price.EMUL_OTHER),
    ("VMX_INSN", {"detail": 23}, 23, "REFLECT", Price.EMUL_OTHER),
    ("VMX_INSN", {"detail": 27}, 27, "REFLECT", Price.EMUL_OTHER),
    ("VMX_INSN", {"detail": 50}, 50, "REFLECT", Price.EMUL_OTHER),
    ("CR_WRITE", {"reg": 0, "value": 0x80000031}, 28, "RESUME", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 4, "value": 0x30}, 28, "RESUME", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 0, "value": 1 << 31}, 28, "REFLECT", Price.EMUL_CR),
    ("PORT_IN", {"port": 0x3f8, "size": 1}, 30, "RESUME", Price.EMUL_IO),
    ("PORT_OUT", {"port": 0x3f8, "size": 1, "value": 65}, 30, "RESUME", Price.EMUL_IO),
    ("RDMSR", {"reg": 0x1b}, 31, "RESUME", Price.EMUL_MSR),
    ("WRMSR", {"reg": 0x1b}, 32, "RESUME", Price.EMUL_MSR),
    ("RDMSR", {"reg": 0x12345}, 31, "REFLECT", Price.EMUL_MSR),
    ("MONITOR", {"detail": 0}, 39, "REFLECT", Price.EMUL_OTHER),
    ("MONITOR", {"detail": 1}, 36, "REFLECT", Price.EMUL_OTHER),
    ("WBINVD", {}, 54, "RESUME", Price.EMUL_OTHER),
    ("EXCEPTION", {"vector": 6}, 0, "REFLECT", Price.EMUL_EXCEPTION),
    ("EXCEPTION", {"vector": 17, "has_error": True}, 0, "REFLECT", Price.EMUL_EXCEPTION),
    ("MMIO_READ", {"gpa": 0xfee00000, "size": 4}, 48, "RESUME", Price.EMUL_MMIO),
    ("MMIO_WRITE", {"gpa": 0xfee00000, "size": 4}, 48, "RESUME", Price.EMUL_MMIO),
]


@pytest.mark.parametrize("kind,fields,reason,verdict,price", EXITS)
def test_exit(kind, fields, reason, verdict, price):
    b = bench()
    a = Account(b, kind, **fields)
    assert (a.exits, a.verdict) == ({reason: 1}, verdict)
    assert a.causes[Cause.EMULATION] == EMUL[price]
    assert a.causes[Cause.EXIT] == (2000 if reason == 48 else 1000) and a.causes[Cause.ENTRY] == 500
    assert a.causes[Cause.VMCS] == 7 * a.reads + 11 * a.writes and a.reads >= 2 and a.writes >= 1
    assert b.peek(F["EXIT_REASON"]) == reason and not b.state["root"]
    assert b.exits[reason]["units"] == b.exits[reason]["least"] == b.exits[reason]["most"] == sum(a.causes.values())
    if verdict == "RESUME":
        assert not a.result["charge_insn"] and a.result["retire"]
    else:
        assert b.peek(F["ENTRY_INTR_INFO"]) >> 31, "the fault is injected"
        assert b.peek(F["ENTRY_INTR_INFO"]) & 0xff == a.result["vector"]


RUNS = [
    ("RDTSC", {}), ("RDTSC", {"detail": 1}), ("INVLPG", {"address": 0x5000}), ("CR_WRITE", {"reg": 3, "value": 0x3000}),
    ("CR_READ", {"reg": 3, "gpr": 1}), ("CR_READ", {"reg": 0}), ("CR_READ", {"reg": 8}), ("CR_WRITE", {"reg": 8, "value": 3}),
    ("CR_WRITE", {"reg": 0, "value": 0x80010039}), ("CLTS", {}), ("CR_WRITE", {"reg": 4, "value": 0xa0}), ("INVPCID", {"value": 2}),
    ("DR_WRITE", {"reg": 0, "value": 5}), ("DR_READ", {"reg": 7, "gpr": 2}),
    *[("WRMSR", {"reg": n, "value": 0x1000}) for n in (0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                                       0xc0000100, 0xc0000101, 0xc0000102)],
    *[("RDMSR", {"reg": n}) for n in (0x10, 0x174, 0xc0000082, 0xc0000102)],
]


@pytest.mark.parametrize("kind,fields", RUNS)
def test_no_exit(kind, fields):
    b = bench()
    a = Account(b, kind, **fields)
    assert (a.exits, a.verdict, a.reads, a.writes) == ({}, "RESUME", 0, 0)
    assert a.result["charge_insn"] and not set(a.causes) & {Cause.EXIT, Cause.ENTRY, Cause.VMCS, Cause.EMULATION}


@pytest.mark.parametrize("vector,error", [(0, None), (13, 0), (14, 2), (1 + 2, None), (16, None)])
def test_guest_exceptions_do_not_exit(vector, error):
    b = bench()
    a = Account(b, "EXCEPTION", vector=vector, error=error or 0, has_error=error is not None)
    assert (a.verdict, a.causes, a.exits) == ("REFLECT", {}, {})
    assert Account(b, "SOFTWARE_INT", vector=0x80).causes == {}


@pytest.mark.parametrize("kind,fields", [("HLT", {}), ("CR_WRITE", {"reg": 0}), ("WBINVD", {}), ("RDMSR", {"reg": 0x1b}), ("INVD", {}),
                                         ("MONITOR", {}), ("CR_WRITE", {"reg": 4})])
def test_privilege_faults_come_before_exits(kind, fields):
    """SDM 25.1.1."""
    b = bench()
    b.set(CPL=3)
    a = Account(b, kind, **fields)
    assert a.verdict == "REFLECT" and a.causes == {} and a.result["vector"] in (6, 13)


def test_cpuid_exits_at_every_privilege():
    b = bench()
    b.set(CPL=3)
    assert Account(b, "CPUID").exits == {10: 1}


@pytest.mark.parametrize("mode,reason,exits", [("real", 18, 1), ("real", 23, 0), ("protected", 23, 1)])
def test_vmx_instructions_need_protected_mode(mode, reason, exits):
    b = bench(mode)
    a = Account(b, "VMX_INSN", detail=reason)
    assert (len(a.exits), a.verdict, a.result["vector"]) == (exits, "REFLECT", 6)


# Qualifications ------------------------------------------------------------------------------

@pytest.mark.parametrize("kind,fields,qualification", [
    ("CR_WRITE", {"reg": 4, "value": 0x30, "gpr": 9}, 0x904),
    ("CR_WRITE", {"reg": 0, "value": 0x80000031, "gpr": 2}, 0x200),
    ("LMSW", {"value": 0x1236, "detail": 1}, 0x1236_0070),
    ("PORT_IN", {"port": 0x3f8, "size": 1, "length": 1}, 0x03f8_0008),
    ("PORT_OUT", {"port": 0x80, "size": 1, "length": 2}, 0x0080_0040),
    ("PORT_OUT", {"port": 0xcf8, "size": 4, "length": 1}, 0x0cf8_0003),
    ("PORT_IN", {"port": 0x1f0, "size": 2, "length": 2}, 0x01f0_0009),
    ("PORT_IN", {"port": 0x1f0, "size": 2, "length": 3, "rep": True, "string": True}, 0x01f0_0039),
    ("PORT_OUT", {"port": 0x1f0, "size": 1, "length": 1, "string": True}, 0x01f0_0010),
    ("PORT_OUT", {"port": 0x80, "size": 1, "length": 3, "rep": True}, 0x0080_0000),          # a REP that means nothing
    ("TASK_SWITCH", {"value": 0x68, "detail": 0}, 0x0000_0068),
    ("TASK_SWITCH", {"value": 0x70, "detail": 2}, 0x8000_0070),
    ("TASK_SWITCH", {"value": 0x1f8, "detail": 3}, 0xc000_01f8),
    ("VMX_INSN", {"detail": 23, "qualification": 0xffff_ffff_ffff_fff8}, 0xffff_ffff_ffff_fff8),
    ("EXCEPTION", {"vector": 1}, 0x4001),
    ("MMIO_WRITE", {"gpa": 0xb8000000, "size": 2}, 0x182),
    ("MMIO_READ", {"gpa": 0xb8000000, "size": 2}, 0x181),
    ("CPUID", {}, 0),
    ("TASK_SWITCH", {"value": 0x48, "detail": 0}, 0x48),
    ("TASK_SWITCH", {"value": 0x50, "detail": 3}, 0xc000_0050),
])
def test_exit_qualification(kind, fields, qualification):
    b = bench()
    b.set(DR6=0xffff0ff0 | 0x4001)
    assert Account(b, kind, **fields).exits
    assert b.peek(F["EXIT_QUALIFICATION"]) == qualification


@pytest.mark.parametrize("control,kind,fields,reason,qualification", [
    ("PROC", "CR_WRITE", {"reg": 3, "value": 0x3000, "gpr": 1}, 28, 0x103),
    ("PROC", "CR_READ", {"reg": 3, "gpr": 15}, 28, 0xf13),
    ("PROC", "CR_WRITE", {"reg": 8, "value": 1}, 28, 0x008),
    ("PROC", "CR_READ", {"reg": 8, "gpr": 3}, 28, 0x318),
    ("PROC", "DR_WRITE", {"reg": 7, "gpr": 1, "value": 0x400}, 29, 0x107),
    ("PROC", "DR_READ", {"reg": 6, "gpr": 4}, 29, 0x416),
    ("PROC", "INVLPG", {"address": 0x123456789}, 14, 0x123456789),
    ("PROC", "INVPCID", {"value": 2}, 58, 0),
    ("PROC", "RDTSC", {}, 16, 0),
    ("PROC", "RDTSC", {"detail": 1}, 51, 0),
])
def test_optional_exits(control, kind, fields, reason, qualification):
    """What the default controls leave to the guest exits when the control asks for it."""
    b = bench()
    b.vmwrite(F["PROC_BASED_CONTROLS"], b.peek(F["PROC_BASED_CONTROLS"]) | 1 << 9 | 1 << 12 | 3 << 15 | 3 << 19 | 1 << 23)
    assert b.enter() == 0
    a = Account(b, kind, **fields)
    assert (a.exits, a.verdict) == ({reason: 1}, "RESUME")
    assert b.peek(F["EXIT_QUALIFICATION"]) == qualification


@pytest.mark.parametrize("code,bits,fields,displacement", [            # of INVPCID, VMREAD, VMPTRLD and LTR, by hand
    ("660f3882 048b", 32, {"scaling": 2, "size": 1, "segment": 3, "index": 1, "base": 3, "reg2": 0}, 0),
    ("660f3882 4c2540", 64, {"size": 2, "segment": 2, "base": 5, "reg2": 1}, 0x40),                    # rcx, [rbp+40h]
    ("66460f3882 64edf0", 64, {"scaling": 3, "size": 2, "segment": 2, "index": 13, "base": 5, "reg2": 12}, -16),
    ("6667650f3882 10", 64, {"size": 1, "segment": 5, "base": 0, "reg2": 2}, 0),                        # rdx, gs:[eax]
    ("660f3882 1d00010000", 64, {"size": 2, "segment": 3, "reg2": 3}, 0x1000 + 9 + 0x100),             # relative to RIP
    ("66670f3882 42fe", 32, {"size": 0, "segment": 2, "index": 6, "base": 5, "reg2": 0}, -2),          # eax, [bp+si-2]
    ("660f3882 0534120000", 32, {"size": 1, "segment": 3, "reg2": 0}, 0x1234),
    ("450f78c2", 64, {"register": 10, "reg2": 8}, 0),                                                   # vmread r10, r8
    ("0fc7742410", 64, {"size": 2, "segment": 2, "base": 4, "reg2": 6}, 0x10),                          # vmptrld [rsp+10h]
    ("0f00d9", 32, {"register": 1, "reg2": 3}, 0),                                                      # ltr cx
])
def test_instruction_information(code, bits, fields, displacement):
    """SDM 3C tables 27-9, 27-11, 27-13, 27-14: what the bytes say, put together by hand."""
    f = {"scaling": 0, **fields}
    if "register" in f:
        want = 1 << 10 | f["register"] << 3
    else:
        want = f["scaling"] | f["size"] << 7 | f["segment"] << 15
        want |= f["index"] << 18 if "index" in f else 1 << 22
        want |= f["base"] << 23 if "base" in f else 1 << 27
    assert instruction_information(bytes.fromhex(code), bits, 0x1000) == (want, displacement % 2**64, f["reg2"])


def test_instruction_information_is_recorded():
    b = bench()
    assert Account(b, "VMX_INSN", detail=23, insn_info=0x12345678).exits == {23: 1}
    assert b.peek(F["EXIT_INSTR_INFO"]) == 0x12345678


@pytest.mark.parametrize("verdict,vector", [("RESUME", None), ("REFLECT", 10), ("STOP", None)])
def test_task_switch_exit(verdict, vector):
    """The monitor makes the switch, writes the fields that it changes, and injects the fault that it met."""
    b = bench("protected")
    b.device(value=0x50, verdict=verdict)
    a = Account(b, "TASK_SWITCH", value=0x68, detail=1)
    assert (a.exits, a.verdict) == ({9: 1}, verdict)
    if verdict != "STOP":
        assert a.writes >= 8 * 4 + 3, "every segment register, RIP, RSP and RFLAGS"
        assert b.peek(F["ENTRY_INTR_INFO"]) & 0x80000fff == (0x80000b00 | vector if vector else 0)
    assert Cause.EMULATION in a.causes


def test_cr3_targets_do_not_exit():
    b = bench()
    b.vmwrite(F["PROC_BASED_CONTROLS"], b.peek(F["PROC_BASED_CONTROLS"]) | 1 << 15)
    b.vmwrite(F["CR3_TARGET_VALUE1"], 0x7000)
    b.vmwrite(F["CR3_TARGET_COUNT"], 2)
    assert [bool(Account(b, "CR_WRITE", reg=3, value=v).exits) for v in (0x7000, 0x8000, 0)] == [False, True, False]


# Exceptions ----------------------------------------------------------------------------------

@relaxed
@given(st.integers(0, 31), st.integers(0, 2**32 - 1), st.integers(0, 31), st.integers(0, 31), st.integers(0, 31))
def test_exception_bitmap(vector, bitmap, error, mask, match):
    """25.2: the bit decides; for #PF it is inverted when the error code does not match under the mask."""
    b = bench()
    b.poke(F["EXCEPTION_BITMAP"], bitmap)
    b.poke(F["PF_ERROR_MASK"], mask)
    b.poke(F["PF_ERROR_MATCH"], match)
    expected = bitmap >> vector & 1 == 1
    if vector == 14 and error & mask != match:
        expected = not expected
    pushes = vector in (8, 10, 11, 12, 13, 14, 17)
    a = Account(b, "EXCEPTION", vector=vector, error=error if pushes else 0, has_error=pushes, address=0x1234)
    assert a.exits == ({0: 1} if expected else {}) and a.verdict == "REFLECT"
    if expected:
        info = 1 << 31 | 3 << 8 | vector | (1 << 11 if pushes else 0)
        assert b.peek(F["EXIT_INTR_INFO"]) == b.peek(F["ENTRY_INTR_INFO"]) == info
        assert a.causes[Cause.EXIT] == (3000 if vector == 14 else 1000)
    if expected and pushes:
        assert b.peek(F["EXIT_INTR_ERROR_CODE"]) == b.peek(F["ENTRY_ERROR_CODE"]) == error
    if expected and vector == 14:
        assert b.peek(F["EXIT_QUALIFICATION"]) == 0x1234


def test_int3_is_a_software_exception_and_int_n_never_exits():
    b = bench()
    b.poke(F["EXCEPTION_BITMAP"], 0xffffffff)
    a = Account(b, "SOFTWARE_INT", vector=3, length=1)
    assert a.exits == {0: 1} and b.peek(F["EXIT_INTR_INFO"]) == b.peek(F["ENTRY_INTR_INFO"]) == 0x80000603
    assert b.peek(F["EXIT_INSTR_LENGTH"]) == b.peek(F["ENTRY_INSTR_LENGTH"]) == 1
    assert Account(b, "SOFTWARE_INT", vector=3, length=2).exits == {}, "INT n with n = 3"
    assert Account(b, "SOFTWARE_INT", vector=0x80, length=2).exits == {}


def test_faults_of_emulated_instructions_push_no_error_code_in_real_mode():
    b = bench("real")
    assert Account(b, "RDMSR", reg=0x12345).verdict == "REFLECT"
    assert b.peek(F["ENTRY_INTR_INFO"]) == 0x8000030d
    b = bench("protected")
    assert Account(b, "RDMSR", reg=0x12345).verdict == "REFLECT"
    assert b.peek(F["ENTRY_INTR_INFO"]) == 0x80000b0d


def test_the_next_exit_clears_the_injected_event():
    b = bench()
    b.event("EXCEPTION", vector=6)
    assert b.peek(F["ENTRY_INTR_INFO"]) >> 31
    b.event("CPUID")
    assert not b.peek(F["ENTRY_INTR_INFO"]) >> 31 and b.peek(F["EXIT_INTR_INFO"]) == 0


def test_triple_fault_ends_the_run():
    b = bench()
    a = Account(b, "TRIPLE_FAULT")
    assert (a.verdict, a.exits) == ("STOP", {2: 1}) and b.state["stop"] == 3
    assert Cause.ENTRY not in a.causes and b.exits[2]["units"] == sum(a.causes.values())


# Control registers ---------------------------------------------------------------------------

@relaxed
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_mov_to_cr0_and_cr4_exit_when_an_owned_bit_differs_from_the_shadow(value, mask, shadow):
    for number in (0, 4):
        b = bench()
        b.poke(F[f"CR{number}_MASK"], mask)
        b.poke(F[f"CR{number}_READ_SHADOW"], shadow)
        differs = any((value ^ shadow) >> bit & mask >> bit & 1 for bit in range(64))
        b.event("CR_WRITE", reg=number, value=value)
        assert b.exits == ({28: b.exits[28]} if differs else {})


@pytest.mark.parametrize("owned,shadow,value,exits", [
    (0xe, 0, 0xe, True), (0xe, 0xe, 0xe, False), (0xe, 2, 0, True), (0, 0, 0xf, False),
    (1, 0, 1, True), (1, 1, 1, False), (1, 1, 0, False), (0x10, 0, 0x10, False)])
def test_lmsw_exits(owned, shadow, value, exits):
    """25.1.3: PE counts only when LMSW would set it; bits above TS do not count."""
    b = bench("protected")
    b.poke(F["CR0_MASK"], owned)
    b.poke(F["CR0_READ_SHADOW"], shadow)
    assert bool(Account(b, "LMSW", value=value).exits) == exits


@pytest.mark.parametrize("owned,shadow,exits,cleared", [(0, 8, False, True), (8, 8, True, True), (8, 0, False, False)])
def test_clts(owned, shadow, exits, cleared):
    b = bench()
    b.set(CR0=b.get("CR0") | CR0_TS)
    b.poke(F["CR0_MASK"], owned)
    b.poke(F["CR0_READ_SHADOW"], shadow)
    a = Account(b, "CLTS")
    assert bool(a.exits) == exits and a.verdict == "RESUME" and bool(b.get("CR0") & CR0_TS) != cleared
    if exits:
        assert b.peek(F["EXIT_QUALIFICATION"]) == 0x20


def test_cr0_write_shows_the_guest_its_value_and_runs_it_on_the_real_one():
    b = bench("protected")
    assert Account(b, "CR_WRITE", reg=0, value=0x60010011).exits == {28: 1}
    assert b.get("CR0") == b.peek(F["CR0_READ_SHADOW"]) == 0x60010011
    assert b.peek(F["GUEST_CR0"]) == 0x10031, "NE forced on, CD and NW off"


def test_the_way_into_and_out_of_long_mode():
    """CR4.PAE, EFER.LME, CR0.PG: the IA-32e entry control follows EFER.LMA, and every entry passes the checks."""
    b = bench("protected")
    ia32e = lambda: b.peek(F["ENTRY_CONTROLS"]) >> 9 & 1
    assert Account(b, "CR_WRITE", reg=4, value=0x20).verdict == "RESUME"
    assert Account(b, "CR_WRITE", reg=3, value=0x4000).exits == {}
    assert Account(b, "WRMSR", reg=0xc0000080, value=0x100).exits == {32: 1} and not ia32e()
    a = Account(b, "CR_WRITE", reg=0, value=CR0_PG | 0x31)
    assert a.verdict == "RESUME", b.state
    assert b.get("EFER") == 0x500 and ia32e() and b.peek(F["GUEST_EFER"]) == 0x500
    a = Account(b, "CR_WRITE", reg=0, value=0x31)
    assert a.verdict == "RESUME" and b.get("EFER") == 0x100 and not ia32e()


def test_a_16_bit_tss_is_replaced_on_the_way_into_long_mode():
    b = bench("protected")
    b.segment("TR", 0x40, 0x3000, 0x67, 0x8100)
    b.event("CR_WRITE", reg=4, value=0x20)
    b.event("WRMSR", reg=0xc0000080, value=0x100)
    assert b.event("CR_WRITE", reg=0, value=CR0_PG | 0x31)["verdict"] == "RESUME"
    assert b.peek(F["GUEST_TR_AR"]) & 15 == 11


def test_pae_loads_the_pdptes_of_the_vmcs():
    b = bench("protected")
    for n in range(4):
        b.write64(0x4000 + 8 * n, 0x5001 + 0x1000 * n)
    b.event("CR_WRITE", reg=4, value=0x20)
    b.event("CR_WRITE", reg=3, value=0x4000)
    assert b.event("CR_WRITE", reg=0, value=CR0_PG | 0x31)["verdict"] == "RESUME"
    assert [b.peek(F[f"GUEST_PDPTE{n}"]) for n in range(4)] == [0x5001, 0x6001, 0x7001, 0x8001]
    b.write64(0x4000, 0x9001)
    assert Account(b, "CR_WRITE", reg=3, value=0x4000).exits == {}, "the processor reloads them without an exit"
    assert b.peek(F["GUEST_PDPTE0"]) == 0x9001


# MSRs and ports ------------------------------------------------------------------------------

@relaxed
@given(st.one_of(st.integers(0, 0x2100), st.integers(0xc0000000, 0xc0002100), st.integers(0, 2**32 - 1)), st.booleans(),
       st.integers(0, 32767))
def test_msr_bitmap(msr, write, cleared):
    """24.6.9: four bitmaps of 1 KByte: read low, read high, write low, write high; outside both ranges always."""
    b = bench()
    at = b.peek(F["MSR_BITMAP"])
    for n in range(512):
        b.write64(at + 8 * n, 2**64 - 1)
    b.write64(at + (cleared >> 6) * 8, 2**64 - 1 & ~(1 << (cleared & 63)))
    low, high = msr < 0x2000, 0xc0000000 <= msr < 0xc0002000
    bit = (msr & 0x1fff) + (8192 if high else 0) + (16384 if write else 0)
    assert b.msr_exits(msr, write) == (not (low or high) or bit != cleared)


def test_efer_and_tsc_writes_reach_the_vmcs():
    b = bench()
    assert Account(b, "WRMSR", reg=0xc0000080, value=0x501).verdict == "RESUME"
    assert b.peek(F["GUEST_EFER"]) == 0x501
    assert Account(b, "WRMSR", reg=0x10, value=0).exits == {32: 1}
    assert b.peek(F["TSC_OFFSET"]) == b.state["tsc_offset"] != 0


@pytest.mark.parametrize("port,size,bit,exits", [
    (0x3f8, 1, ("A", 0x3f8), True), (0x3f9, 1, ("A", 0x3f8), False), (0x3f5, 4, ("A", 0x3f8), True), (0x3f4, 4, ("A", 0x3f8), False),
    (0x8000, 1, ("B", 0), True), (0x7fff, 2, ("B", 0), True), (0xffff, 2, ("B", 0), True), (0xffff, 1, ("B", 0), False)])
def test_io_bitmaps(port, size, bit, exits):
    """24.6.4: A covers ports to 7FFFh, B the rest; any byte of the access counts; an access that wraps exits."""
    b = bench()
    for name in "AB":
        for n in range(512):
            b.write64(b.peek(F[f"IO_BITMAP_{name}"]) + 8 * n, 0)
    b.write64(b.peek(F[f"IO_BITMAP_{bit[0]}"]) + (bit[1] >> 6) * 8, 1 << (bit[1] & 63))
    b.vmwrite(F["PROC_BASED_CONTROLS"], b.peek(F["PROC_BASED_CONTROLS"]) | 1 << 25)
    a = Account(b, "PORT_OUT", port=port, size=size, value=1)
    assert bool(a.exits) == exits and a.causes[Cause.DEVICE] == 300


def test_ports_and_mmio_reach_the_device_and_are_booked_to_it():
    b = bench()
    b.device(0xab)
    a = Account(b, "PORT_IN", port=0x60, size=1)
    assert a.result["value"] == 0xab and a.causes[Cause.DEVICE] == 400
    assert Account(b, "PORT_OUT", port=0x60, size=1, value=0x55).causes[Cause.DEVICE] == 300 and b.state["written"] == 0x55
    a = Account(b, "MMIO_READ", gpa=0xfed00000, address=0xffff0000, size=4)
    assert a.result["value"] == 0xab and a.causes[Cause.DEVICE] == 600
    assert (b.peek(F["GUEST_PHYSICAL_ADDRESS"]), b.peek(F["GUEST_LINEAR_ADDRESS"])) == (0xfed00000, 0xffff0000)
    assert Account(b, "MMIO_WRITE", gpa=0xfed00000, size=4, value=7).causes[Cause.DEVICE] == 800 and b.state["written"] == 7


def test_a_device_may_end_the_run():
    b = bench()
    b.device(verdict="STOP")
    a = Account(b, "PORT_OUT", port=0xf4, size=1, value=3)
    assert a.verdict == "STOP" and Cause.ENTRY not in a.causes and a.exits == {30: 1}


# Interrupts ----------------------------------------------------------------------------------

def test_interrupt_of_an_open_guest_takes_one_exit():
    b = bench()
    b.set(RFLAGS=0x202)
    b.irq(4)
    a = Account(b, "INTERRUPT", open=True)
    assert (a.verdict, a.exits, a.result["vector"], a.result["delivery"]) == ("REFLECT", {1: 1}, 0x24, 2)
    assert b.peek(F["ENTRY_INTR_INFO"]) == 0x80000024 and a.causes[Cause.EMULATION] == EMUL[Price.EMUL_INTERRUPT]


def test_interrupt_waits_for_the_window():
    b = bench()
    b.irq(4)
    a = Account(b, "INTERRUPT", open=False)
    assert (a.verdict, a.exits) == ("RESUME", {1: 1}) and b.peek(F["PROC_BASED_CONTROLS"]) & 4
    for _ in range(3):
        assert Account(b, "INTERRUPT", open=False).causes == {}, "seen: nothing happens until the guest is open"
    b.set(RFLAGS=0x202)
    a = Account(b, "INTERRUPT", open=True)
    assert (a.verdict, a.exits, a.result["vector"]) == ("REFLECT", {7: 1}, 0x24)
    assert not b.peek(F["PROC_BASED_CONTROLS"]) & 4 and not b.state["window"]
    b.irq(5)
    assert Account(b, "INTERRUPT", open=True).exits == {1: 1}, "the next line is a new exit"


@relaxed
@given(st.lists(st.booleans(), max_size=12))
def test_window_sequences(opens):
    """Whatever the guest's IF does: one external-interrupt exit an interrupt, one window exit if it had to wait."""
    b = bench()
    b.set(RFLAGS=0x202)
    b.irq(4)
    external = window = taken = 0
    waiting = False
    for is_open in opens:
        a = Account(b, "INTERRUPT", open=is_open)
        external += not waiting
        window += waiting and is_open
        taken += is_open
        waiting = not is_open
        assert (a.verdict == "REFLECT") == is_open
    assert (b.exits.get(1, {"count": 0})["count"], b.exits.get(7, {"count": 0})["count"]) == (external, window)


def test_halt_waits_in_the_monitor_and_idle_time_is_not_the_exits():
    b = bench()
    a = Account(b, "HLT")
    assert (a.verdict, a.exits) == ("RESUME", {12: 1}) and b.state["halted"] and b.state["root"]
    assert Cause.ENTRY not in a.causes, "the guest is not entered before something wakes it"
    b.idle(10**6)
    b.irq(0)
    b.set(RFLAGS=0x202)
    w = Account(b, "INTERRUPT", open=True)
    assert (w.verdict, w.exits, w.result["vector"]) == ("REFLECT", {}, 0x20)
    assert w.causes[Cause.ENTRY] == 500 and Cause.EXIT not in w.causes and not b.state["root"]
    assert b.exits[12]["units"] == sum(a.causes.values()) + sum(w.causes.values())


def test_an_event_after_a_halt_ends_the_halt_first():
    b = bench()
    b.event("HLT")
    a = Account(b, "CPUID")
    assert a.exits == {10: 1} and a.causes[Cause.ENTRY] == 1000, "the entry of the halt and that of CPUID"


# The account ---------------------------------------------------------------------------------

def test_exit_counts_keep_least_most_and_sum():
    b = bench()
    costs = [sum(Account(b, "PORT_IN", port=1, size=1).causes.values()), sum(Account(b, "PORT_OUT", port=1, size=1).causes.values()),
             sum(Account(b, "PORT_IN", port=1, size=1).causes.values())]
    assert b.exits[30] == {"count": 3, "units": sum(costs), "least": min(costs), "most": max(costs),
                           "squares": sum((units // 64) ** 2 for units in costs)}


@relaxed
@given(st.lists(st.sampled_from(EXITS[:-2]), max_size=8))
def test_the_causes_sum_to_the_total(events):
    b = bench()
    for kind, fields, *_ in events:
        b.event(kind, **fields)
    assert sum(b.causes.values()) == b.total


def test_every_counted_reason_has_a_name():
    names_of = {n: bench().exit_name(n) for n in (0, 1, 2, 7, 10, 12, 28, 30, 31, 32, 48, 49, 54)}
    assert names_of == {0: "EXCEPTION_NMI", 1: "EXTERNAL_INTERRUPT", 2: "TRIPLE_FAULT", 7: "INTERRUPT_WINDOW", 10: "CPUID", 12: "HLT",
                        28: "CR_ACCESS", 30: "IO_INSTRUCTION", 31: "MSR_READ", 32: "MSR_WRITE", 48: "EPT_VIOLATION",
                        49: "EPT_MISCONFIG", 54: "WBINVD"}
    assert bench().exit_name(5) is None


# EPT and VPID --------------------------------------------------------------------------------

@pytest.mark.parametrize("leaf,base,shifts", [
    (1, 0, {12}), (2, 0, {21}), (3, 0, {21}), (2, 0x100000, {12}), (1, 0x100000, {12})])
def test_ept_maps_all_guest_memory_at_its_place_and_nothing_else(leaf, base, shifts):
    guest = 4 << 20
    b = VmxBench(guest=guest, leaf=leaf, base=base)
    assert b.start() == 0
    pages = [b.translate(gpa) for gpa in range(0, guest, 4096)]
    assert [p[:2] for p in pages] == [(0, base + gpa) for gpa in range(0, guest, 4096)]
    assert {p[2] for p in pages} == shifts
    for gpa in (guest, guest + 4096, 0xfee00000, (1 << 39) - 4096):
        assert b.translate(gpa)[0] == 3, "EPT violation"


def test_ept_pointer_and_entries_read_as_the_manual_says():
    b = VmxBench(guest=2 << 20)
    assert b.start() == 0
    eptp = b.peek(F["EPT_POINTER"])
    assert eptp & 0xfff == 6 | 3 << 3 | 1 << 6, "write-back, four levels, accessed and dirty flags"
    assert b.state["eptp"] == eptp
    entries = [b.read64(eptp & ~0xfff)]
    for _ in range(3):
        entries.append(b.read64(entries[-1] & ~0xfff))
    assert [e & 0xfff for e in entries] == [7, 7, 7, 7 | 6 << 3], "table, table, table, leaf"


def test_firmware_below_4_gib_is_readable_and_executable():
    b = VmxBench(guest=1 << 20, spare=1 << 20)
    at = (1 << 20) + b.monitor_bytes()
    b.firmware(0xffff0000, at, 0x10000)
    assert b.start() == 0
    for gpa in range(0xffff0000, 1 << 32, 4096):
        assert b.translate(gpa)[:2] == b.translate(gpa, access=2)[:2] == (0, at + gpa - 0xffff0000)
        assert b.translate(gpa, access=1)[0] != 0
    assert b.translate(0xfffef000)[0] != 0


def test_ltr_is_the_guests_own():
    a = Account(bench(), "DESCRIPTOR_LOAD", detail=3, value=0x40)
    assert (a.verdict, a.exits, a.causes) == ("RESUME", {}, {})


def test_the_last_page_of_an_odd_sized_guest_is_mapped_small():
    b = VmxBench(guest=(2 << 20) + 4096, leaf=2)
    assert b.start() == 0
    assert b.translate(0)[2] == 21 and b.translate(2 << 20) == (0, 2 << 20, 12)
    assert b.translate((2 << 20) + 4096)[0] == 3


@relaxed
@given(st.integers(1, 6000))
def test_monitor_memory_is_enough_for_any_size(pages):
    b = VmxBench(guest=pages * 4096)
    assert b.start() == 0 and b.state["next_table"] <= b.state["monitor_end"]


def test_too_little_monitor_memory_is_refused():
    assert VmxBench(guest=1 << 20, spare=3 * 4096).start() != 0


def test_violation_of_guest_memory_is_mapped_and_retried():
    b = bench()
    table = b.read64(b.read64(b.read64(b.state["eptp"] & ~0xfff) & ~0xfff) & ~0xfff) & ~0xfff
    b.write64(table + 8 * 5, 0)
    a = Account(b, "EPT_VIOLATION", gpa=0x5678, address=0x5678, qualification=0x182)
    assert (a.verdict, a.exits, a.result["retire"]) == ("RESUME", {48: 1}, False)
    assert b.read64(table + 8 * 5) == 0x5037 and b.peek(F["EXIT_QUALIFICATION"]) == 0x182
    assert a.causes[Cause.EMULATION] == EMUL[Price.EMUL_EPT]


def test_the_monitor_finishes_a_violation_outside_guest_memory():
    b = bench()
    a = Account(b, "EPT_VIOLATION", gpa=0x40000000, qualification=0x81)
    assert (a.verdict, a.exits, a.result["retire"], a.result["detail"]) == ("RESUME", {48: 1}, False, 1)
    assert a.causes[Cause.EMULATION] == EMUL[Price.EMUL_EPT]


def test_pdptes_outside_guest_memory_exit_once_and_are_all_ones():
    b = bench("protected")
    b.event("CR_WRITE", reg=4, value=0x20)
    b.event("CR_WRITE", reg=3, value=0x4000)
    assert b.event("CR_WRITE", reg=0, value=CR0_PG | 0x31)["verdict"] == "RESUME"
    a = Account(b, "CR_WRITE", reg=3, value=0x40000000)
    assert (a.verdict, a.exits, a.result["vector"]) == ("REFLECT", {48: 1}, 13), "all ones: reserved bits"


def test_violation_without_room_and_misconfiguration_stop():
    b = bench()
    assert b.event("EPT_VIOLATION", gpa=0x5000)["verdict"] == "STOP" and b.state["stop"] == 6, "it is mapped"
    b = bench()
    assert b.event("EPT_MISCONFIG", gpa=0x5000)["verdict"] == "STOP" and b.state["stop"] == 6 and 49 in b.exits


def test_with_vpid_translations_survive_an_exit_and_without_they_do_not():
    for vpid in (True, False):
        b = bench("real", vpid=vpid)
        assert b.state["asid"] == (1 if vpid else 0)
        b.translate(0x5000, quiet=False)
        flushes = b.state["asid_flushes"]
        a = Account(b, "CPUID")
        assert b.state["asid_flushes"] - flushes == (0 if vpid else 2)
        assert a.causes[Cause.EXIT] == (1000 if vpid else 1090) and a.causes[Cause.ENTRY] == (500 if vpid else 590)
