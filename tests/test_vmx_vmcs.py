# SPDX-License-Identifier: GPL-2.0-or-later
"""VMREAD, VMWRITE, VMXON, VMCLEAR, VMPTRLD, and guest state that lives in the processor."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyx86v.cost.ledger import Cause, Price
from pyx86v.vmm.vmx.fields import names
from pyx86v.vmm.testing import SEGMENTS
from pyx86v.vmm.vmx.testing import VmxBench

F = names()
BITS = {0: 16, 1: 64, 2: 32, 3: 64}
PLAIN = sorted(e for e in F.values() if e >> 10 & 3 in (0, 3))      # control and host fields only hold their value


@pytest.fixture(scope="module")
def bench():
    b = VmxBench(prices={Price.VMREAD: 3, Price.VMWRITE: 5})
    assert b.start() == 0
    return b


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLAIN), st.integers(0, 2**64 - 1))
def test_write_then_read_gives_the_bits_of_the_width(field, value):
    b = VmxBench()
    assert b.vmwrite(field, value) == 0
    assert b.vmread(field) == (0, value & (1 << BITS[field >> 13]) - 1)


@settings(deadline=None)
@given(st.sampled_from([e for e in PLAIN if e >> 13 == 1]), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_high_half(field, value, high):
    b = VmxBench()
    b.vmwrite(field, value)
    assert b.vmread(field + 1) == (0, value >> 32)
    assert b.vmwrite(field + 1, high | 0xabcd << 32) == 0
    assert b.vmread(field) == (0, high << 32 | value & 0xffffffff)


def test_fields_do_not_overlap():
    b = VmxBench()
    for n, field in enumerate(PLAIN):
        b.vmwrite(field, n + 1)
    assert [b.vmread(field)[1] for field in PLAIN] == [n + 1 for n in range(len(PLAIN))]


@pytest.mark.parametrize("field", [0x0a, 0x0400, 0x204e, 0x4026, 0x482c, 0x6010, 0x8000, 0x1000, 0x4001, 0x6801])
def test_unsupported_field_is_error_12(bench, field):
    assert bench.vmread(field)[0] == 12
    assert bench.vmwrite(field, 0) == 12


@pytest.mark.parametrize("field", [F["EXIT_REASON"], F["EXIT_QUALIFICATION"], F["GUEST_PHYSICAL_ADDRESS"]])
def test_read_only_field_is_error_13_without_misc_bit_29(field):
    b = VmxBench()
    assert b.start() == 0
    assert b.vmwrite(field, 1) == 13
    b.caps(misc=b.caps()["misc"] | 1 << 29)
    assert b.vmwrite(field, 1) == 0 and b.vmread(field) == (0, 1)


def test_each_access_is_charged_and_counted(bench):
    before, charged = bench.state, bench.causes[Cause.VMCS]
    for _ in range(4):
        bench.vmread(F["GUEST_RIP"])
    bench.vmwrite(F["EXCEPTION_BITMAP"], 0)
    after = bench.state
    assert (after["reads"] - before["reads"], after["writes"] - before["writes"]) == (4, 1)
    assert bench.causes[Cause.VMCS] - charged == 4 * 3 + 5


def test_start_makes_the_second_page_the_current_vmcs_and_launches_it(bench):
    s = bench.state
    assert s["vmxon"] == s["monitor"] and s["current"] == s["monitor"] + 4096 and s["launch"] == 1
    assert s["bytes"] <= 32768


def test_vmx_instructions_answer_as_the_manual_says():
    b = VmxBench()
    assert b.start() == 0
    on, current = b.state["vmxon"], b.state["current"]
    assert b.vmxon(0x3000) == 15, "VMXON in root operation"
    assert b.vmclear(0x123) == 2 and b.vmclear(1 << 39) == 2, "address"
    assert b.vmclear(on) == 3 and b.vmptrld(on) == 10, "VMXON pointer"
    assert b.vmptrld(0x800) == 9
    assert b.vmclear(current) == 0
    assert b.state["launch"] == 0 and b.state["current"] == 2**64 - 1
    assert b.vmptrld(current, revision=3) == 11
    assert b.vmptrld(current, revision=b.caps()["basic"] & 0x7fffffff) == 0 and b.state["current"] == current


def test_vmxon_needs_the_lock_and_the_enable_bit_of_feature_control():
    for value, answer in ((0, -1), (1, -1), (4, -1), (5, 0)):
        b = VmxBench(spare=0)        # no memory for the monitor: start fails and leaves VMX off
        assert b.start() != 0
        b.caps(feature_control=value)
        assert b.vmxon(0x2000) == answer


def test_capabilities_demand_the_default1_bits():
    """SDM appendix A.3.1, A.3.2, A.4, A.5: the default1 class, less what the TRUE MSRs relax."""
    caps = VmxBench()
    caps.start()
    caps = caps.caps()
    assert caps["pin"] & 0xffffffff == sum(1 << n for n in (1, 2, 4))
    assert caps["proc"] & 0xffffffff == sum(1 << n for n in (1, 4, 5, 6, 8, 13, 14, 26))
    assert caps["exit"] & 0xffffffff == sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 16, 17))
    assert caps["entry"] & 0xffffffff == sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 12))
    assert caps["secondary"] & 0xffffffff == 0
    for name in ("pin", "proc", "exit", "entry"):
        assert caps[name] & ~(caps[name] >> 32) & 0xffffffff == 0, "what must be 1 may be 1"
    assert caps["basic"] >> 32 & 0x1fff == 4096 and caps["basic"] >> 55 & 1


REGISTER_FIELDS = {"GUEST_RIP": "RIP", "GUEST_RFLAGS": "RFLAGS", "GUEST_CR3": "CR3", "GUEST_DR7": "DR7", "GUEST_PAT": "PAT",
                   "GUEST_GDTR_BASE": "GDTR_BASE", "GUEST_GDTR_LIMIT": "GDTR_LIMIT", "GUEST_IDTR_BASE": "IDTR_BASE",
                   "GUEST_IDTR_LIMIT": "IDTR_LIMIT", "GUEST_SYSENTER_CS": "SYSENTER_CS", "GUEST_SYSENTER_ESP": "SYSENTER_ESP",
                   "GUEST_SYSENTER_EIP": "SYSENTER_EIP"}


@pytest.mark.parametrize("field", REGISTER_FIELDS)
def test_guest_register_is_read_from_and_written_to_the_processor(field):
    b = VmxBench()
    assert b.start() == 0
    b.set(**{REGISTER_FIELDS[field]: 0x1234})
    assert b.vmread(F[field]) == (0, 0x1234)
    assert b.vmwrite(F[field], 0x4321) == 0
    assert b.get(REGISTER_FIELDS[field]) == 0x4321


def test_rsp_is_general_register_4():
    b = VmxBench()
    b.start()
    b.set_gpr(4, 0x7ff0)
    assert b.vmread(F["GUEST_RSP"]) == (0, 0x7ff0)
    b.vmwrite(F["GUEST_RSP"], 0x7fe0)
    assert b.gpr[4] == 0x7fe0


@pytest.mark.parametrize("n,name", list(enumerate(SEGMENTS)))
def test_segment_fields(n, name):
    """Access rights are the second descriptor word's bits 8..23 moved to bit 0 (SDM 24.4.1): here 4G code, DPL 3."""
    b = VmxBench()
    b.start()
    b.segment(name, 0x33, 0x12345000, 0xffffffff, 0x00affb00)
    assert b.vmread(0x800 + 2 * n) == (0, 0x33)
    assert b.vmread(0x4800 + 2 * n) == (0, 0xffffffff)
    assert b.vmread(0x4814 + 2 * n) == (0, 0xa0fb)
    assert b.vmread(0x6806 + 2 * n) == (0, 0x12345000)
    b.vmwrite(0x6806 + 2 * n, 0x5000)
    b.vmwrite(0x4814 + 2 * n, 0xc0f3)
    assert b.vmread(0x6806 + 2 * n) == (0, 0x5000) and b.segment_flags(name) & 0xd0fd00 == 0xc0f100


def test_segment_without_p_is_unusable_and_the_tss_in_tr_is_busy():
    b = VmxBench()
    b.start()
    b.segment("DS", 0, 0, 0, 0)
    assert b.peek(F["GUEST_DS_AR"]) == 0x10000
    b.segment("TR", 0x40, 0, 0x67, 0x8900)
    assert b.peek(F["GUEST_TR_AR"]) == 0x8b


def test_a_loaded_cs_is_accessed():
    """Loading sets the bit (SDM 3A 3.4.5.1), whatever the engine keeps in its cache."""
    b = VmxBench()
    b.start()
    b.segment("CS", 0x10, 0, 0xffffffff, 0xcf9a00)
    assert b.peek(F["GUEST_CS_AR"]) == 0xc09b


def test_forced_bits_of_cr0_and_cr4_stay_out_of_the_guests_view():
    b = VmxBench()
    b.start()
    b.set(CR0=0x60000011, CR4=0x20)
    assert b.peek(F["GUEST_CR0"]) == 0x31, "NE on, CD and NW off"
    assert b.peek(F["GUEST_CR4"]) == 0x2020, "VMXE on"
    b.vmwrite(F["GUEST_CR0"], 0x80000031)
    b.vmwrite(F["GUEST_CR4"], 0x20a0)
    assert (b.get("CR0"), b.get("CR4")) == (0xe0000011, 0xa0)


def test_interruptibility_tells_sti_from_mov_ss_by_if():
    b = VmxBench()
    b.start()
    seen = []
    for flags, shadow in ((2, 0), (0x202, 0), (0x202, 1), (2, 1)):
        b.set(RFLAGS=flags, SHADOW=shadow)
        seen.append(b.peek(F["GUEST_INTERRUPTIBILITY"]))
    assert seen == [0, 0, 1, 2]


def test_pdptes_are_the_walkers_registers():
    b = VmxBench()
    b.start()
    b.set_pdptes([0x1001, 0x2001, 0x3001, 0x4001])
    assert [b.peek(F["GUEST_PDPTE0"] + 2 * n) for n in range(4)] == [0x1001, 0x2001, 0x3001, 0x4001]
    b.vmwrite(F["GUEST_PDPTE2"], 0x9001)
    assert b.peek(F["GUEST_PDPTE2"]) == 0x9001
