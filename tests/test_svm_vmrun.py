# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMCB's layout, VMRUN's checks (APM 2 15.5.1, 15.20, 15.25.3), and what moves between processor and VMCB."""
import pytest
from hypothesis import given, settings, strategies as st

from pyx86v.cost.ledger import Cause, Price
from pyx86v.vmm.svm.rules import rules
from svm_help import *

RULES = rules()
relaxed = settings(deadline=None)


# ---------------------------------------------------------------- layout and first state

def test_saved_state_lies_where_the_manual_says():
    """Every register with a value of its own, found at the offset of table B-2 after an exit."""
    b = bench()
    values = {"CR2": 0x1122, "STAR": 0x33, "LSTAR": 0x44, "CSTAR": 0x55, "KERNEL_GS_BASE": 0x66, "SYSENTER_CS": 0x77,
              "SYSENTER_ESP": 0x88, "SYSENTER_EIP": 0x99, "RIP": 0xaa00, "RFLAGS": 0x246, "DR7": 0x455, "DR6": 0xffff4ff0, "CPL": 3}
    b.set(**values, FMASK=0xbb, GDTR_BASE=0xcc00, GDTR_LIMIT=0xdd, IDTR_BASE=0xee00, IDTR_LIMIT=0xff, PAT=0x0606060606060606, CR8=5)
    b.set_gpr(0, 0x123456789abcdef0)
    b.set_gpr(4, 0xfffffffffffffff8)
    b.segment("FS", 0x23, 0x7000_0000_0000, 0xfffff, 0xcf9300 | 0x6000)
    b.event("CPUID")
    assert {name: b.field(name) for name in values} == values | {"RIP": 0xaa02}, "behind CPUID, as the monitor left it"
    assert (b.field("SFMASK"), b.field("GDTR_BASE"), b.field("GDTR_LIMIT"), b.field("IDTR_BASE"), b.field("IDTR_LIMIT")) == (
        0xbb, 0xcc00, 0xdd, 0xee00, 0xff)
    assert (b.field("RSP"), b.field("EFER"), b.field("CR0"), b.field("CR3"), b.field("CR4")) == (
        0xfffffffffffffff8, 0xd01 | 0x1000, 0x80010031, 0x2000, 0x20)
    assert (b.field("FS_SELECTOR"), b.field("FS_BASE"), b.field("FS_LIMIT"), b.field("FS_ATTRIB")) == (0x23, 0x7000_0000_0000, 0xfffff, 0xcf3)
    assert b.field("CS_ATTRIB") == 0xa9b and b.field("TR_ATTRIB") == 0x08b, "descriptor bits 55:52 and 47:40; the TSS is busy"
    assert b.field("G_PAT") == 0x0606060606060606 and b.field("VINTR") & 0xff == 5


def test_kvms_intercepts():
    """As init_vmcb sets them for nested paging, by exit code (APM 2 table B-1)."""
    b = bench()
    codes = {0x60 + n for n in range(96) if (b.field("INTERCEPTS_1") | b.field("INTERCEPTS_2") << 32 | b.field("INTERCEPTS_3") << 64) >> n & 1}
    assert codes == {0x60, 0x61, 0x62, 0x63, 0x65, 0x6f, 0x72, 0x73, 0x76, 0x78, 0x7a, 0x7b, 0x7c, 0x7d, 0x7f,
                     *range(0x80, 0x87), 0x89, 0x8a, 0x8b, 0x8d}
    assert b.field("EXCEPTIONS") == 1 << 1 | 1 << 6 | 1 << 17 | 1 << 18
    assert (b.field("CR_READS"), b.field("CR_WRITES")) == (1 << 4, 1 << 4), "CR3 is the guest's; CR0 is what it sees"
    assert b.field("DR_READS") == b.field("DR_WRITES") == 0
    assert b.field("NP_ENABLE") == 1 and b.field("ASID") == 1 and b.field("VINTR") == 1 << 24


def test_cr0_exits_while_the_guest_must_not_see_the_real_one():
    """After reset CD and NW are set, which the monitor does not let take effect."""
    b = bench("real")
    assert b.get("CR0") == 0x60000010 and b.field("CR0") == 0x10
    assert (b.field("CR_READS") & 1, b.field("CR_WRITES") & 1) == (1, 1)
    assert b.event("CR_WRITE", reg=0, value=0x10)["verdict"] == "RESUME"
    assert (b.field("CR_READS") & 1, b.field("CR_WRITES") & 1) == (0, 0) and 0x10 in b.exits


def test_permission_maps_lie_in_the_monitors_memory():
    b = bench()
    s = b.state
    assert s["vmcb"] == s["monitor"] == 1 << 20
    pages = [(s["vmcb"], 1), (b.field("MSRPM_BASE_PA"), 2), (b.field("IOPM_BASE_PA"), 3), (b.field("N_CR3"), 1)]
    taken = [at + 4096 * n for at, count in pages for n in range(count)]
    assert len(set(taken)) == 7 and all(s["monitor"] <= at < s["monitor_end"] and at % 4096 == 0 for at in taken)
    assert b.field("N_CR3") == s["root"] and s["next_table"] <= s["monitor_end"]


# ---------------------------------------------------------------- checks

LONG = {"EFER": 0x1d01, "CR0": 0x80010031, "CR4": 0x20}
BROKEN = [
    ("RULE_SVME", {"EFER": 0xd01}),
    ("RULE_CR0_CACHE", {"CR0": 0xa0010031}),
    ("RULE_CR0_HIGH", {"CR0": 1 << 32 | 0x80010031}),
    ("RULE_CR3", {"CR3": 1 << 39}),
    ("RULE_CR4", {"CR4": 1 << 31 | 0x20}), ("RULE_CR4", {"CR4": 1 << 13 | 0x20}),
    ("RULE_DR6", {"DR6": 1 << 32}),
    ("RULE_DR7", {"DR7": 1 << 63}),
    ("RULE_EFER", {"EFER": 0x1d01 | 1 << 1}), ("RULE_EFER", {"EFER": 0x1d01 | 1 << 63}),
    ("RULE_LONG_PAE", {"CR4": 0}),
    ("RULE_LONG_PE", {"CR0": 0x80010030}),
    ("RULE_LONG_CS", {"CS_ATTRIB": 0xe9b}),
    ("RULE_VMRUN_INTERCEPT", {"INTERCEPTS_2": 0x2}),
    ("RULE_MAPS", {"MSRPM_BASE_PA": (1 << 39) - 0x1000}), ("RULE_MAPS", {"IOPM_BASE_PA": (1 << 39) - 0x2000}),
    ("RULE_ASID", {"ASID": 0}),
    *[("RULE_INJECT_TYPE", {"EVENTINJ": 1 << 31 | kind << 8 | 6}) for kind in (1, 5, 6, 7)],
    *[("RULE_INJECT_VECTOR", {"EVENTINJ": 1 << 31 | 3 << 8 | vector}) for vector in (2, 4, 5, 32, 255)],
    ("RULE_N_CR3", {"N_CR3": 1 << 39}),
    *[("RULE_G_PAT", {"G_PAT": kind << 8 * n | 0}) for n, kind in ((0, 2), (3, 3), (7, 8), (5, 0xff))],
]
LEGAL = [
    {}, {"CR0": 0xc0010031}, {"CR0": 0xe0010031}, {"CR3": (1 << 39) - 1}, {"MSRPM_BASE_PA": (1 << 39) - 0x2000},
    {"IOPM_BASE_PA": (1 << 39) - 0x3000}, {"ASID": 0xffffffff}, {"CS_ATTRIB": 0xc9b}, {"EVENTINJ": 5 << 8}, {"EVENTINJ": 1 << 31 | 0xff},
    {"EVENTINJ": 1 << 31 | 2 << 8}, {"EVENTINJ": 1 << 31 | 4 << 8 | 0x80}, {"EVENTINJ": 1 << 31 | 3 << 8 | 13 | 1 << 11},
    {"EFER": 0x1000, "CR0": 0}, {"EFER": 0x1000, "CR0": CR0_PG, "CR4": 0},             # paged real mode: 15.19
    {"NP_ENABLE": 0, "N_CR3": 1 << 60, "G_PAT": 2}, {"EFER": 0x1000, "CR4": 0, "CS_ATTRIB": 0xc9b, "EVENTINJ": 1 << 31 | 3 << 8 | 5},
]


def test_every_rule_can_be_broken():
    assert {rule for rule, _ in BROKEN} == set(RULES)


@pytest.mark.parametrize("rule, fields", BROKEN)
def test_illegal_state(rule, fields):
    """VMEXIT_INVALID, and the run ends with the rule's number."""
    b = bench()
    b.write(**LONG)
    b.write(**fields)
    assert b.check() == RULES[rule]
    assert b.enter() == -1 and b.state["rule"] == RULES[rule] and b.state["stop"] == 6
    assert b.field("EXITCODE") == (1 << 64) - 1 and b.exits[b.kind(-1)]["count"] == 1


@pytest.mark.parametrize("fields", LEGAL)
def test_legal_state(fields):
    b = bench()
    b.write(**fields)
    assert b.check() == 0


def judge(f, maxphyaddr=39):
    """15.5.1, 15.20 and 15.25.3 once more, as the set of what is wrong."""
    bad = set()
    bit = lambda name, n: f[name] >> n & 1
    long_paging = bit("EFER", 8) and bit("CR0", 31)
    if not bit("EFER", 12): bad.add("RULE_SVME")
    if bit("CR0", 29) > bit("CR0", 30): bad.add("RULE_CR0_CACHE")
    if f["CR0"] >= 1 << 32: bad.add("RULE_CR0_HIGH")
    if f["CR3"] >= 1 << maxphyaddr: bad.add("RULE_CR3")
    if any(bit("CR4", n) for n in (*range(11, 16), 19, *range(22, 64))): bad.add("RULE_CR4")
    if f["DR6"] >= 1 << 32: bad.add("RULE_DR6")
    if f["DR7"] >= 1 << 32: bad.add("RULE_DR7")
    if any(bit("EFER", n) for n in range(64) if n not in (0, 8, 10, 11, 12)): bad.add("RULE_EFER")
    if long_paging and not bit("CR4", 5): bad.add("RULE_LONG_PAE")
    if long_paging and not bit("CR0", 0): bad.add("RULE_LONG_PE")
    if long_paging and bit("CS_ATTRIB", 9) and bit("CS_ATTRIB", 10): bad.add("RULE_LONG_CS")
    if not f["ASID"]: bad.add("RULE_ASID")
    kind, vector = f["EVENTINJ"] >> 8 & 7, f["EVENTINJ"] & 255
    wide = bit("EFER", 10) and bit("CS_ATTRIB", 9)
    if bit("EVENTINJ", 31) and kind in (1, 5, 6, 7): bad.add("RULE_INJECT_TYPE")
    if bit("EVENTINJ", 31) and kind == 3 and (vector > 31 or vector == 2 or (wide and vector in (4, 5))): bad.add("RULE_INJECT_VECTOR")
    if bit("NP_ENABLE", 0) and f["N_CR3"] >= 1 << maxphyaddr: bad.add("RULE_N_CR3")
    return bad


@relaxed
@given(st.dictionaries(st.sampled_from(("CR0", "CR3", "CR4", "DR6", "DR7", "EFER", "CS_ATTRIB", "ASID", "EVENTINJ", "NP_ENABLE", "N_CR3")),
                       st.integers(0, 63), max_size=6), st.sampled_from((0, 0x80000100 | 2 << 8, 1 << 31 | 3 << 8 | 4)))
def test_single_bits_flipped(flips, event):
    b = bench()
    b.write(**LONG, EVENTINJ=event)
    b.write(**{name: b.field(name) ^ 1 << n % (8 * FIELDS[name][1]) for name, n in flips.items()})
    bad = judge({name: b.field(name) for name in FIELDS})
    found = {name for name, number in RULES.items() if number == b.check()}
    assert found <= bad and bool(found) == bool(bad)


# ---------------------------------------------------------------- what VMRUN loads

def test_vmrun_loads_what_the_monitor_wrote():
    b = bench()
    b.event("CPUID")
    b.write(RFLAGS=0x202, CR2=0x7777, DR7=0x401, GDTR_LIMIT=0x3f, IDTR_BASE=0x9000, CR4=0x2a0, CR3=0x5000, SS_BASE=0x10,
            INTERRUPT_SHADOW=1)
    assert b.enter() == 0
    assert [b.get(n) for n in ("RFLAGS", "CR2", "DR7", "GDTR_LIMIT", "IDTR_BASE", "CR4", "CR3", "SHADOW")] == [
        0x202, 0x7777, 0x401, 0x3f, 0x9000, 0x2a0, 0x5000, 1]


def test_a_group_called_clean_is_not_looked_at():
    """Neither loaded nor checked (15.15): RFLAGS has no clean bit, CR2 and CR4 have."""
    b = bench()
    b.event("CPUID")
    b.write(clean=0x7ff, RFLAGS=0x202, CR2=0x7777, CR4=1 << 31)
    assert b.enter() == 0
    assert (b.get("RFLAGS"), b.get("CR2"), b.get("CR4")) == (0x202, 0, 0x20)
    b.write(CR4=1 << 31)
    assert b.enter() == -1


def test_vmrun_leaves_the_guest_as_it_is():
    """A round trip with nothing written changes no register and drops no translation of the engine's."""
    b = bench()
    before = {n: b.get(n) for n in ("RFLAGS", "CR0", "CR2", "CR3", "CR4", "EFER", "DR6", "DR7", "GDTR_BASE", "IDTR_LIMIT", "STAR", "PAT")}
    flushes = b.state["flushes"]
    b.write()
    assert b.enter() == 0 and {n: b.get(n) for n in before} == before and b.state["flushes"] == flushes


# ---------------------------------------------------------------- price and TLB

def test_round_trip_is_priced_with_vmload_and_vmsave():
    b = bench(prices={Price.VM_EXIT: 1000, Price.VM_ENTRY: 500, Price.VMLOAD: 30, Price.VMSAVE: 7, Price.VMREAD: 10**6, Price.VMWRITE: 10**6})
    before = b.causes
    b.event("CPUID")
    spent = {Cause(c): n - before.get(c, 0) for c, n in b.causes.items() if n != before.get(c, 0)}
    assert spent == {Cause.EXIT: 1000 + 7 + 30, Cause.ENTRY: 30 + 500}, "the VMCB is memory: no VMREAD"


def test_without_asids_each_vmrun_drops_every_translation():
    for tagged in (True, False):
        b = bench("real", vpid=tagged, prices={Price.UNTAGGED_SWITCH: 90})
        b.translate(0x5000, quiet=False)
        held = b.translate(0x5000, quiet=False)
        entry = b.causes.get(Cause.ENTRY, 0)
        b.event("CPUID")
        assert held[0] == 0 and b.field("TLB_CONTROL") == (0 if tagged else 1)
        assert b.causes.get(Cause.ENTRY, 0) - entry == (0 if tagged else 90)


@pytest.mark.parametrize("control, dropped", [(0, False), (1, True), (3, True), (7, True)])
def test_tlb_control(control, dropped):
    """15.16.1, with the nested tables changed behind the TLB's back."""
    b = bench("real")
    b.translate(0x5000, quiet=False)
    table = b.read64(b.read64(b.read64(b.state["root"]) & ~0xfff) & ~0xfff) & ~0xfff
    b.write64(table + 8 * 5, 0x6007)
    b.write(clean=0x7ff, TLB_CONTROL=control)
    assert b.enter() == 0 and b.field("TLB_CONTROL") == 0
    assert b.translate(0x5000, quiet=False)[:2] == (0, 0x6000 if dropped else 0x5000)
