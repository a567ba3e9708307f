# SPDX-License-Identifier: GPL-2.0-or-later
"""Each event under svm+npt: does it exit, what #VMEXIT records (APM 2 15.7 to 15.13), what the monitor did, and what it cost."""
import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.cost.ledger import Cause, Price
from svm_help import *

relaxed = settings(deadline=None)
PRICES = {Price.VM_EXIT: 1000, Price.VM_EXIT_EPT: 2000, Price.VM_EXIT_PAGE_FAULT: 3000, Price.VM_ENTRY: 500, Price.VMLOAD: 40,
          Price.VMSAVE: 30, Price.PORT_IN: 400, Price.PORT_OUT: 300, Price.MMIO_READ: 600, Price.MMIO_WRITE: 800}
EMUL = {p: 10000 + 100 * n for n, p in enumerate(p for p in Price if p.name.startswith("EMUL_"))}
NPF = 0x400


def machine(mode="long", **options):
    return bench(mode, prices=PRICES | EMUL, **options)


class Account:
    """What one event cost, by cause, and whether it exited."""
    def __init__(self, b, kind, **fields):
        before, exits = b.causes, b.exits
        self.result = b.event(kind, **fields)
        self.causes = {Cause(c): n - before.get(c, 0) for c, n in b.causes.items() if n != before.get(c, 0)}
        self.exits = {r: x["count"] - exits.get(r, {"count": 0})["count"] for r, x in b.exits.items()
                      if x["count"] != exits.get(r, {"count": 0})["count"]}
        self.verdict = self.result["verdict"]


# What exits, with which code, and what the monitor's software costs ---------------------------

EXITS = [
    ("CPUID", {}, 0x72, "RESUME", Price.EMUL_CPUID),
    ("INVD", {}, 0x76, "RESUME", Price.EMUL_OTHER),
    ("WBINVD", {}, 0x89, "RESUME", Price.EMUL_OTHER),
    ("RDPMC", {}, 0x6f, "REFLECT", Price.EMUL_OTHER),
    ("MONITOR", {"detail": 0}, 0x8a, "REFLECT", Price.EMUL_OTHER),
    ("MONITOR", {"detail": 1}, 0x8b, "REFLECT", Price.EMUL_OTHER),
    ("CR_READ", {"reg": 4, "gpr": 1}, 0x04, "RESUME", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 4, "value": 0x30}, 0x14, "RESUME", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 4, "value": 1 << 40}, 0x14, "REFLECT", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 0, "value": 0x80000031}, 0x65, "RESUME", Price.EMUL_CR),
    ("CR_WRITE", {"reg": 0, "value": 0x31}, 0x65, "REFLECT", Price.EMUL_CR),
    ("LMSW", {"value": 0x5}, 0x65, "RESUME", Price.EMUL_CR),
    ("PORT_IN", {"port": 0x3f8, "size": 1}, 0x7b, "RESUME", Price.EMUL_IO),
    ("PORT_OUT", {"port": 0x3f8, "size": 1, "value": 65}, 0x7b, "RESUME", Price.EMUL_IO),
    ("RDMSR", {"reg": 0x1b}, 0x7c, "RESUME", Price.EMUL_MSR),
    ("WRMSR", {"reg": 0x1b}, 0x7c, "RESUME", Price.EMUL_MSR),
    ("RDMSR", {"reg": 0x277}, 0x7c, "RESUME", Price.EMUL_MSR),
    ("RDMSR", {"reg": 0x12345}, 0x7c, "REFLECT", Price.EMUL_MSR),
    *[("EXCEPTION", {"vector": 6, "detail": code}, code, "REFLECT", Price.EMUL_OTHER) for code in (*range(0x80, 0x87), 0x7a)],
    ("EXCEPTION", {"vector": 6}, 0x46, "REFLECT", Price.EMUL_EXCEPTION),
    ("VMX_INSN", {"detail": 18}, 0x46, "REFLECT", Price.EMUL_EXCEPTION),
    ("XSETBV", {}, 0x46, "REFLECT", Price.EMUL_EXCEPTION),
    ("EXCEPTION", {"vector": 17, "has_error": True}, 0x51, "REFLECT", Price.EMUL_EXCEPTION),
    ("MMIO_READ", {"gpa": 0xfee00000, "size": 4}, NPF, "RESUME", Price.EMUL_MMIO),
    ("MMIO_WRITE", {"gpa": 0xfee00000, "size": 4}, NPF, "RESUME", Price.EMUL_MMIO),
    ("TASK_SWITCH", {"value": 0x48}, 0x7d, "RESUME", Price.EMUL_DESCRIPTOR),
]


@pytest.mark.parametrize("kind,fields,code,verdict,price", EXITS)
def test_exit(kind, fields, code, verdict, price):
    b = machine()
    a = Account(b, kind, **fields)
    assert (a.exits, a.verdict) == ({b.kind(code): 1}, verdict)
    assert a.causes[Cause.EMULATION] == EMUL[price]
    assert a.causes[Cause.EXIT] == (2000 if code == NPF else 1000) + 70 and a.causes[Cause.ENTRY] == 540
    assert Cause.VMCS not in a.causes
    assert b.field("EXITCODE") == code and not b.state["host"] and b.field("CLEAN") == 0x7ff
    count = b.exits[b.kind(code)]
    assert count["units"] == count["least"] == count["most"] == sum(a.causes.values())
    if verdict == "RESUME":
        assert not a.result["charge_insn"] and a.result["retire"] and b.field("EVENTINJ") == 0
    else:
        assert b.field("EVENTINJ") & 0x80000700 == 0x80000300, "the fault is injected"
        assert b.field("EVENTINJ") & 0xff == a.result["vector"]


RUNS = [
    ("RDTSC", {}), ("RDTSC", {"detail": 1}), ("INVLPG", {"address": 0x5000}), ("CR_WRITE", {"reg": 3, "value": 0x3000}),
    ("CR_READ", {"reg": 3, "gpr": 1}), ("CR_READ", {"reg": 0}), ("CR_READ", {"reg": 8}), ("CR_WRITE", {"reg": 8, "value": 3}),
    ("CR_WRITE", {"reg": 0, "value": 0x80010039}), ("CLTS", {}), ("LMSW", {"value": 0xb}), ("INVPCID", {"value": 2}),
    ("DR_WRITE", {"reg": 0, "value": 5}), ("DR_READ", {"reg": 7, "gpr": 2}), ("DESCRIPTOR_LOAD", {"detail": 3, "value": 0x40}),
    *[("WRMSR", {"reg": n, "value": 0x1000}) for n in (0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                                       0xc0000100, 0xc0000101, 0xc0000102)],
    *[("RDMSR", {"reg": n}) for n in (0x174, 0xc0000082, 0xc0000102)],
]


@pytest.mark.parametrize("kind,fields", RUNS)
def test_no_exit(kind, fields):
    b = machine()
    a = Account(b, kind, **fields)
    assert (a.exits, a.verdict) == ({}, "RESUME")
    assert a.result["charge_insn"] and not set(a.causes) & {Cause.EXIT, Cause.ENTRY, Cause.EMULATION}


@pytest.mark.parametrize("vector,error", [(0, None), (13, 0), (14, 2), (3, None), (16, None)])
def test_guest_exceptions_do_not_exit(vector, error):
    b = machine()
    a = Account(b, "EXCEPTION", vector=vector, error=error or 0, has_error=error is not None)
    assert (a.verdict, a.causes, a.exits) == ("REFLECT", {}, {})
    assert Account(b, "SOFTWARE_INT", vector=0x80).causes == {}


@pytest.mark.parametrize("kind,fields", [
    ("HLT", {}), ("CR_WRITE", {"reg": 0}), ("WBINVD", {}), ("RDMSR", {"reg": 0x1b}), ("INVD", {}), ("CR_WRITE", {"reg": 4}),
    ("CR_READ", {"reg": 4})])
def test_privilege_faults_come_before_exits(kind, fields):
    """Tables 15-7 and 15-8: simple exceptions first."""
    b = machine()
    b.set(CPL=3)
    a = Account(b, kind, **fields)
    assert a.verdict == "REFLECT" and a.causes == {} and a.result["vector"] == 13


@pytest.mark.parametrize("value", [1 << 31, 1 << 29 | 0x80010031, 1 << 32 | 0x80010031])
def test_illegal_cr0_values_come_before_exits(value):
    """PG without PE, NW without CD, a high bit: \"illegal bit combinations\" are exceptions before the intercept."""
    a = Account(machine(), "CR_WRITE", reg=0, value=value)
    assert (a.verdict, a.causes, a.result["vector"]) == ("REFLECT", {}, 13)


@pytest.mark.parametrize("fields,exits", [({"CPL": 3}, 0x46), ({"CR0": 0x10}, 0x46), ({"RFLAGS": 0x20002}, 0x46), ({}, 0x80)])
def test_svm_instructions_are_undefined_where_no_svm_guest_could_run_them(fields, exits):
    b = machine("protected")
    b.set(**fields)
    assert list(Account(b, "EXCEPTION", vector=6, detail=0x80).exits) == [exits]
    assert list(Account(b, "EXCEPTION", vector=6, detail=0x81).exits) == [0x81], "VMMCALL exits anywhere"


def test_cpuid_exits_at_every_privilege():
    b = machine()
    b.set(CPL=3)
    assert Account(b, "CPUID").exits == {0x72: 1} and b.field("CPL") == 3


# Information ---------------------------------------------------------------------------------

MOV = 1 << 63


@pytest.mark.parametrize("kind,fields,info1,info2", [
    ("CR_WRITE", {"reg": 4, "value": 0x30, "gpr": 9}, MOV | 9, 0),
    ("CR_WRITE", {"reg": 0, "value": 0x80000031, "gpr": 2}, MOV | 2, 0),
    ("CR_READ", {"reg": 4, "gpr": 15}, MOV | 15, 0),
    ("LMSW", {"value": 5}, 0, 0),
    ("PORT_IN", {"port": 0x3f8, "size": 1, "length": 1}, 0x03f8_0211, 0x1001),
    ("PORT_OUT", {"port": 0x80, "size": 1, "length": 2}, 0x0080_0210, 0x1002),
    ("PORT_OUT", {"port": 0xcf8, "size": 4, "length": 1}, 0x0cf8_0240, 0x1001),
    ("PORT_IN", {"port": 0x1f0, "size": 2, "length": 3, "string": True, "rep": True}, 0x01f0_022d, 0x1003),
    ("PORT_OUT", {"port": 0x1f0, "size": 2, "length": 1, "string": True}, 0x01f0_0224, 0x1001),
    ("RDMSR", {"reg": 0x1b}, 0, 0),
    ("WRMSR", {"reg": 0x1b}, 1, 0),
    ("MMIO_WRITE", {"gpa": 0xb8000000, "size": 2}, 1 << 32 | 6, 0xb8000000),
    ("MMIO_READ", {"gpa": 0xb8000000, "size": 2}, 1 << 32 | 4, 0xb8000000),
    ("EPT_VIOLATION", {"gpa": 0x5678, "qualification": 1 << 33 | 7}, 1 << 33 | 7, 0x5678),
    ("EXCEPTION", {"vector": 17, "error": 0, "has_error": True}, 0, 0),
    ("CPUID", {}, 0, 0),
    ("TASK_SWITCH", {"value": 0x48, "detail": 0, "address": 0x202}, 0x48, 0),
    ("TASK_SWITCH", {"value": 0x50, "detail": 1, "address": 0x10202}, 0x50, 1 << 36 | 1 << 48),
    ("TASK_SWITCH", {"value": 0x58, "detail": 2}, 0x58, 1 << 38),
    ("TASK_SWITCH", {"value": 0x58, "detail": 3, "has_error": True, "error": 0x1234}, 0x58, 1 << 44 | 0x1234),
])
def test_exit_information(kind, fields, info1, info2):
    b = machine()
    assert Account(b, kind, **fields).exits or kind == "EPT_VIOLATION"
    assert (hex(b.field("EXITINFO1")), hex(b.field("EXITINFO2"))) == (hex(info1), hex(info2))


@pytest.mark.parametrize("code,kind,fields,info1", [
    (0x66 + 5, "DESCRIPTOR_LOAD", {"detail": 0}, 0), (0x6a, "DESCRIPTOR_LOAD", {"detail": 1}, 0), (0x6c, "DESCRIPTOR_LOAD", {"detail": 2}, 0),
    (0x6d, "DESCRIPTOR_LOAD", {"detail": 3}, 0), (0x6e, "RDTSC", {}, 0), (0x87, "RDTSC", {"detail": 1}, 0), (0x79, "INVLPG", {"address": 0x123456789}, 0x123456789),
    (0xa2, "INVPCID", {"value": 2}, 0), (0x75, "SOFTWARE_INT", {"vector": 0x21}, 0x21),
])
def test_optional_exits(code, kind, fields, info1):
    """What the monitor leaves to the guest exits when its bit is set."""
    b = machine()
    b.intercept(code)
    assert b.enter() == 0
    b.event(kind, **fields)
    assert (b.field("EXITCODE"), b.field("EXITINFO1")) == (code, info1) and list(b.exits) == [code]


@pytest.mark.parametrize("reg", (0, 2, 3, 4, 8))
def test_each_control_register_has_its_bits(reg):
    for name, kind, first in (("CR_READS", "CR_READ", 0), ("CR_WRITES", "CR_WRITE", 0x10)):
        b = machine()
        b.write(**{name: 1 << reg})
        value = {0: 0x80010031, 4: 0x20}.get(reg, 1)
        assert list(Account(b, kind, reg=reg, value=value).exits) == [first + reg]
        b = machine()
        b.write(**{name: 0xffff & ~(1 << reg)})
        assert not Account(b, kind, reg=reg, value=value).exits


@pytest.mark.parametrize("reg", range(8))
def test_each_debug_register_has_its_bits(reg):
    for name, kind, first in (("DR_READS", "DR_READ", 0x20), ("DR_WRITES", "DR_WRITE", 0x30)):
        b = machine()
        b.write(**{name: 1 << reg})
        a = Account(b, kind, reg=reg, value=0x400, gpr=3)
        assert a.exits == {first + reg: 1} and b.field("EXITINFO1") == 3 and a.verdict == "RESUME"


@relaxed
@given(st.integers(0, 31).filter(lambda vector: vector != 2), st.integers(0, 2**32 - 1), st.integers(0, 31))
def test_exception_intercepts(vector, bits, error):
    """15.12: the vector's bit decides; EXITINFO1 has the error code, EXITINFO2 the address of #PF.  (2 is NMI, no exception;
    #OF and #BR do not occur in 64-bit mode.)"""
    b = machine("protected")
    b.write(EXCEPTIONS=bits)
    pushes = vector in (8, 10, 11, 12, 13, 14, 17)
    a = Account(b, "EXCEPTION", vector=vector, error=error if pushes else 0, has_error=pushes, address=0x1234)
    expected = bits >> vector & 1
    assert a.exits == ({0x40 + vector: 1} if expected else {}) and a.verdict == "REFLECT"
    if expected:
        assert b.field("EXITINFO1") == (error if pushes else 0) and b.field("EXITINFO2") == (0x1234 if vector == 14 else 0)
        assert b.field("EVENTINJ") == 1 << 31 | 3 << 8 | vector | (1 << 11 | error << 32 if pushes else 0)
        assert a.causes[Cause.EXIT] == (3000 if vector == 14 else 1000) + 70
        assert b.field("NRIP") == 0, "only for instructions"


def test_int3_belongs_to_its_vector_and_int_n_to_none():
    """nRIP tells the monitor where INT3 ends; what it injects pushes the VMCB's RIP."""
    b = machine()
    b.write(EXCEPTIONS=0xffffffff)
    assert Account(b, "SOFTWARE_INT", vector=3, length=1).exits == {0x43: 1}
    assert b.field("NRIP") == b.field("RIP") == 0x1001 and b.field("EVENTINJ") == 0x80000303
    assert Account(b, "SOFTWARE_INT", vector=3, length=2).exits == {}, "INT n with n = 3"
    assert Account(b, "SOFTWARE_INT", vector=0x80, length=2).exits == {}


@pytest.mark.parametrize("kind,fields,nrip", [("CPUID", {"length": 2}, 0x1002), ("RDMSR", {"reg": 0x1b, "length": 3}, 0x1003),
                                              ("PORT_IN", {"port": 1, "size": 1, "length": 1}, 0x1001), ("MMIO_READ", {"gpa": 1 << 31, "size": 1}, 0),
                                              ("EXCEPTION", {"vector": 6}, 0), ("INTERRUPT", {"open": True}, 0)])
def test_next_rip(kind, fields, nrip):
    """15.7.1: for instruction, MSR and I/O intercepts only."""
    b = machine()
    b.irq(0)
    b.event(kind, **fields)
    assert b.field("NRIP") == nrip


def test_faults_of_emulated_instructions_push_no_error_code_in_real_mode():
    b = machine("real")
    assert Account(b, "RDMSR", reg=0x12345).verdict == "REFLECT" and b.field("EVENTINJ") == 0x8000030d
    b = machine("protected")
    assert Account(b, "RDMSR", reg=0x12345).verdict == "REFLECT" and b.field("EVENTINJ") == 0x80000b0d


def test_the_next_exit_clears_the_injected_event():
    b = machine()
    b.event("EXCEPTION", vector=6)
    assert b.field("EVENTINJ") >> 31 & 1
    b.event("CPUID")
    assert not b.field("EVENTINJ") and not b.field("EXITINTINFO")


def test_shutdown_ends_the_run():
    b = machine()
    a = Account(b, "TRIPLE_FAULT")
    assert (a.verdict, a.exits) == ("STOP", {0x7f: 1}) and b.state["stop"] == 3
    assert Cause.ENTRY not in a.causes and b.exits[0x7f]["units"] == sum(a.causes.values())


# Control registers ---------------------------------------------------------------------------

@relaxed
@given(st.integers(0, 2**32 - 1))
def test_selective_cr0_intercept(value):
    """15.9: any bit but TS and MP."""
    b = machine()
    legal = value & 1 or not value >> 31
    legal = legal and not (value >> 29 & 1 and not value >> 30 & 1)
    changes = (value ^ 0x80010031) & ~0xa
    assert (list(Account(b, "CR_WRITE", reg=0, value=value).exits) == [0x65]) == bool(legal and changes)


@pytest.mark.parametrize("value,exits", [(0x1, False), (0xb, False), (0x5, True), (0xf, True), (0x0, False)])
def test_lmsw_is_selected_by_em_alone(value, exits):
    """In protected mode LMSW can change MP, EM and TS; PE stays."""
    assert bool(Account(machine("protected"), "LMSW", value=value).exits) == exits


def test_clts_exits_only_with_the_bit_of_cr0():
    b = machine()
    b.set(CR0=b.get("CR0") | CR0_TS)
    assert not Account(b, "CLTS").exits and not b.get("CR0") & CR0_TS
    b.set(CR0=b.get("CR0") | CR0_TS)
    b.write(CR_WRITES=1)
    assert Account(b, "CLTS").exits == {0x10: 1} and not b.get("CR0") & CR0_TS and not b.field("CR0") & CR0_TS


def test_cr0_write_runs_the_guest_on_the_real_one():
    b = machine("protected")
    assert Account(b, "CR_WRITE", reg=0, value=0x60010011).exits == {0x65: 1}
    assert b.get("CR0") == 0x60010011 and b.field("CR0") == 0x10011 and b.field("CR_READS") & 1, "CD and NW off, and hidden"


def test_the_way_into_and_out_of_long_mode():
    """CR4.PAE, EFER.LME, CR0.PG: EFER in the VMCB follows, and every VMRUN passes the checks."""
    b = machine("protected")
    assert Account(b, "CR_WRITE", reg=4, value=0x20).verdict == "RESUME"
    assert Account(b, "CR_WRITE", reg=3, value=0x4000).exits == {}
    assert Account(b, "WRMSR", reg=0xc0000080, value=0x100).exits == {0x7c: 1} and b.field("EFER") == 0x1100
    assert Account(b, "CR_WRITE", reg=0, value=CR0_PG | 0x31).verdict == "RESUME", b.state
    assert b.get("EFER") == 0x500 and b.field("EFER") == 0x1500 and b.field("CR3") == 0x4000
    assert Account(b, "CR_WRITE", reg=0, value=0x31).verdict == "RESUME"
    assert b.get("EFER") == 0x100 and b.field("EFER") == 0x1100


# Permission maps -----------------------------------------------------------------------------

@pytest.mark.parametrize("first,at", [(0, 0), (0xc0000000, 0x800), (0xc0010000, 0x1000)])
@pytest.mark.parametrize("offset", (0, 1, 0x80, 0x1fff))
def test_msr_permission_map(first, at, offset):
    """15.11: two bits an MSR, the lower for RDMSR; three ranges of 8192."""
    b = machine()
    base = b.field("MSRPM_BASE_PA")
    for n in range(0, 0x2000, 8):
        b.write64(base + n, 0)
    bit = at * 8 + 2 * offset
    for write in (False, True):
        b.write64(base + (bit >> 6) * 8, 1 << (bit & 63) + write)
        assert [b.msr_exits(first + offset, w) for w in (False, True)] == [not write, write]
        assert not b.msr_exits(first + (offset ^ 2), write)
    assert all(b.msr_exits(n, False) for n in (0x2000, 0xbfffffff, 0xc0002000, 0xc000ffff, 0xc0012000, 0xffffffff))
    b.intercept(0x7c, False)
    assert not b.msr_exits(0x2000, True)


@pytest.mark.parametrize("port,size,bit,exits", [
    (0x3f8, 1, 0x3f8, True), (0x3f9, 1, 0x3f8, False), (0x3f5, 4, 0x3f8, True), (0x3f4, 4, 0x3f8, False), (0x7fff, 2, 0x8000, True),
    (0xffff, 2, 0, False), (0xffff, 2, 0x10000, True), (0xffff, 1, 0x10000, False), (0xfffe, 4, 0x10001, True)])
def test_io_permission_map(port, size, bit, exits):
    """15.10.1: every byte of the access has a bit; an access at the end uses the three behind the last."""
    b = machine()
    base = b.field("IOPM_BASE_PA")
    for n in range(0, 0x3000, 8):
        b.write64(base + n, 0)
    b.write64(base + (bit >> 6) * 8, 1 << (bit & 63))
    a = Account(b, "PORT_OUT", port=port, size=size, value=1)
    assert bool(a.exits) == exits and a.causes[Cause.DEVICE] == 300


def test_ports_and_mmio_reach_the_device_and_are_booked_to_it():
    b = machine()
    b.device(0xab)
    a = Account(b, "PORT_IN", port=0x60, size=1)
    assert a.result["value"] == 0xab and a.causes[Cause.DEVICE] == 400
    a = Account(b, "MMIO_READ", gpa=0xfed00000, address=0xffff0000, size=4)
    assert a.result["value"] == 0xab and a.causes[Cause.DEVICE] == 600
    assert Account(b, "MMIO_WRITE", gpa=0xfed00000, size=4, value=7).causes[Cause.DEVICE] == 800 and b.state["written"] == 7


def test_a_device_may_end_the_run():
    b = machine()
    b.device(verdict="STOP")
    a = Account(b, "PORT_OUT", port=0xf4, size=1, value=3)
    assert a.verdict == "STOP" and Cause.ENTRY not in a.causes and a.exits == {0x7b: 1}


# Interrupts ----------------------------------------------------------------------------------

def window(b):
    """V_IRQ, its priority, and the intercept of the virtual interrupt."""
    return b.field("VINTR") >> 8 & 1, b.field("VINTR") >> 16 & 15, b.field("INTERCEPTS_1") >> 4 & 1


def test_interrupt_of_an_open_guest_takes_one_exit():
    b = machine()
    b.set(RFLAGS=0x202)
    b.irq(4)
    a = Account(b, "INTERRUPT", open=True)
    assert (a.verdict, a.exits, a.result["vector"], a.result["delivery"]) == ("REFLECT", {0x60: 1}, 0x24, 2)
    assert b.field("EVENTINJ") == 0x80000024 and a.causes[Cause.EMULATION] == EMUL[Price.EMUL_INTERRUPT]


def test_interrupt_waits_for_the_window():
    b = machine()
    b.irq(4)
    a = Account(b, "INTERRUPT", open=False)
    assert (a.verdict, a.exits, window(b)) == ("RESUME", {0x60: 1}, (1, 15, 1))
    for _ in range(3):
        assert Account(b, "INTERRUPT", open=False).causes == {}, "seen: nothing happens until the guest is open"
    b.set(RFLAGS=0x202)
    a = Account(b, "INTERRUPT", open=True)
    assert (a.verdict, a.exits, a.result["vector"], window(b)) == ("REFLECT", {0x64: 1}, 0x24, (0, 0, 0))
    b.irq(5)
    assert Account(b, "INTERRUPT", open=True).exits == {0x60: 1}, "the next line is a new exit"


@relaxed
@given(st.lists(st.booleans(), max_size=12))
def test_window_sequences(opens):
    """Whatever the guest's IF does: one INTR exit an interrupt, one VINTR exit if it had to wait."""
    b = machine()
    b.set(RFLAGS=0x202)
    b.irq(4)
    external = windows = 0
    waiting = False
    for is_open in opens:
        a = Account(b, "INTERRUPT", open=is_open)
        external += not waiting
        windows += waiting and is_open
        waiting = not is_open
        assert (a.verdict == "REFLECT") == is_open
    assert (b.exits.get(0x60, {"count": 0})["count"], b.exits.get(0x64, {"count": 0})["count"]) == (external, windows)


def test_halt_waits_in_the_monitor_and_idle_time_is_not_the_exits():
    b = machine()
    a = Account(b, "HLT")
    assert (a.verdict, a.exits) == ("RESUME", {0x78: 1}) and b.state["halted"] and b.state["host"]
    assert Cause.ENTRY not in a.causes, "the guest does not run before something wakes it"
    b.idle(10**6)
    b.irq(0)
    b.set(RFLAGS=0x202)
    w = Account(b, "INTERRUPT", open=True)
    assert (w.verdict, w.exits, w.result["vector"]) == ("REFLECT", {}, 0x20)
    assert w.causes[Cause.ENTRY] == 540 and Cause.EXIT not in w.causes and not b.state["host"]
    assert b.exits[0x78]["units"] == sum(a.causes.values()) + sum(w.causes.values())


def test_an_event_after_a_halt_ends_the_halt_first():
    b = machine()
    b.event("HLT")
    a = Account(b, "CPUID")
    assert a.exits == {0x72: 1} and a.causes[Cause.ENTRY] == 1080, "the VMRUN of the halt and that of CPUID"


# The account ---------------------------------------------------------------------------------

@relaxed
@given(st.lists(st.sampled_from(EXITS[:-2]), max_size=8))
def test_the_causes_sum_to_the_total(events):
    b = machine()
    for kind, fields, *_ in events:
        b.event(kind, **fields)
    assert sum(b.causes.values()) == b.total


def test_names_are_those_of_perf():
    """SVM_EXIT_REASONS of Linux's uapi svm.h."""
    b = machine()
    names = {code: b.exit_name(b.kind(code)) for code in (0, 4, 0x13, 0x20, 0x37, 0x41, 0x46, 0x4e, 0x53, 0x60, 0x64, 0x65, 0x72, 0x78, 0x7a,
                                                          0x7b, 0x7c, 0x7f, 0x80, 0x81, 0x8d, 0xa2, 0x400, -1)}
    assert list(names.values()) == [
        "read_cr0", "read_cr4", "write_cr3", "read_dr0", "write_dr7", "DB excp", "UD excp", "PF excp", "XF excp", "interrupt", "vintr",
        "cr0_sel_write", "cpuid", "hlt", "invlpga", "io", "msr", "shutdown", "vmrun", "hypercall", "xsetbv", "invpcid", "npf",
        "invalid_guest_state"]
    assert b.exit_name(1) is None and b.exit_name(0x42) is None


# Nested tables -------------------------------------------------------------------------------

@pytest.mark.parametrize("leaf,base,shifts", [(1, 0, {12}), (2, 0, {21}), (3, 0, {21}), (2, 0x100000, {12}), (1, 0x100000, {12})])
def test_npt_maps_all_guest_memory_at_its_place_and_nothing_else(leaf, base, shifts):
    guest = 4 << 20
    b = Bench(guest=guest, leaf=leaf, base=base)
    assert b.start() == 0
    pages = [b.translate(gpa) for gpa in range(0, guest, 4096)]
    assert [p[:2] for p in pages] == [(0, base + gpa) for gpa in range(0, guest, 4096)]
    assert {p[2] for p in pages} == shifts
    for gpa in (guest, guest + 4096, 0xfee00000, (1 << 39) - 4096):
        assert b.translate(gpa)[0] == 3, "nested page fault"


def test_npt_entries_are_ordinary_ones():
    b = Bench(guest=2 << 20)
    assert b.start() == 0
    entries = [b.read64(b.field("N_CR3"))]
    for _ in range(3):
        entries.append(b.read64(entries[-1] & ~0xfff))
    assert [e & 0xfff for e in entries] == [7, 7, 7, 7], "present, writable, user: every access is a user's (15.25.5)"


def test_firmware_below_4_gib_is_readable_and_executable():
    b = Bench(guest=1 << 20, spare=1 << 20)
    at = (1 << 20) + b.monitor_bytes()
    b.firmware(0xffff0000, at, 0x10000)
    assert b.start() == 0
    for gpa in range(0xffff0000, 1 << 32, 4096):
        assert b.translate(gpa)[:2] == b.translate(gpa, access=2)[:2] == (0, at + gpa - 0xffff0000)
        assert b.translate(gpa, access=1)[0] != 0


@relaxed
@given(st.integers(1, 6000))
def test_monitor_memory_is_enough_for_any_size(pages):
    b = Bench(guest=pages * 4096)
    assert b.start() == 0 and b.state["next_table"] <= b.state["monitor_end"] and b.state["bytes"] <= 32768


def test_too_little_monitor_memory_is_refused():
    assert Bench(guest=1 << 20, spare=3 * 4096).start() != 0


def test_nested_fault_of_guest_memory_is_mapped_and_retried():
    b = machine()
    table = b.read64(b.read64(b.read64(b.field("N_CR3")) & ~0xfff) & ~0xfff) & ~0xfff
    b.write64(table + 8 * 5, 0)
    a = Account(b, "EPT_VIOLATION", gpa=0x5678, address=0x5678, qualification=1 << 32 | 6)
    assert (a.verdict, a.exits, a.result["retire"]) == ("RESUME", {b.kind(NPF): 1}, False)
    assert b.read64(table + 8 * 5) == 0x5007 and a.causes[Cause.EMULATION] == EMUL[Price.EMUL_EPT]


def test_the_monitor_finishes_a_nested_fault_outside_guest_memory():
    b = machine()
    a = Account(b, "EPT_VIOLATION", gpa=0x40000000, qualification=1 << 33 | 6)
    assert (a.verdict, a.exits, a.result["retire"], a.result["detail"]) == ("RESUME", {b.kind(NPF): 1}, False, 1)
    assert b.event("EPT_VIOLATION", gpa=0x5000)["verdict"] == "STOP" and b.state["stop"] == 6, "it is mapped: nothing to repair"


def test_pdptes_outside_guest_memory_exit_once_and_are_all_ones():
    b = machine("protected")
    b.event("CR_WRITE", reg=4, value=0x20)
    b.event("CR_WRITE", reg=3, value=0x4000)
    assert b.event("CR_WRITE", reg=0, value=CR0_PG | 0x31)["verdict"] == "RESUME"
    a = Account(b, "CR_WRITE", reg=3, value=0x40000000)
    assert (a.verdict, a.exits, a.result["vector"]) == ("REFLECT", {b.kind(NPF): 1}, 13), "all ones: reserved bits"
    assert (b.field("EXITINFO1"), b.field("EXITINFO2")) == (1 << 33 | 6, 0x40000000)
