# SPDX-License-Identifier: GPL-2.0-or-later
"""VM-entry checks, one at a time: from a legal state, what a rule forbids breaks that rule and no earlier one.

The legal states and what breaks them are written from SDM 3C 26.2 and 26.3.
"""
import pytest

from pyx86v.vmm.vmx.fields import names
from pyx86v.vmm.vmx.rules import rules
from pyx86v.vmm.testing import SEGMENTS
from pyx86v.vmm.vmx.testing import VmxBench

F = names()
RULES = rules()
BY_NUMBER = {number: name for name, number in RULES.items()}
NON_CANONICAL = 0x0000_9000_0000_0000
WIDE = 1 << 39                       # beyond the physical-address width of the bench, 39 bits
SEG = {name: n for n, name in enumerate(SEGMENTS)}


def set_segments(b, code, data, selectors=(0x10, 0x18)):
    for name in ("ES", "SS", "DS", "FS", "GS"):
        b.segment(name, selectors[1], 0, 0xffffffff, data)
    b.segment("CS", selectors[0], 0, 0xffffffff, code)
    b.segment("TR", 0x40, 0x3000, 0x67, 0x8900)
    b.segment("LDTR", 0, 0, 0, 0)


def real(b):
    pass


def protected(b):
    b.set(CR0=0x31, BITS=32)
    set_segments(b, 0xcf9b00, 0xcf9300)


def pae(b):
    b.set(CR0=0x80000031, CR4=0x20, CR3=0x2000, BITS=32)
    b.set_pdptes([0x3001, 0, 0, 0x4001])
    set_segments(b, 0xcf9b00, 0xcf9300)


def v86(b):
    protected(b)
    b.set(RFLAGS=0x23002, CPL=3, BITS=16)
    for n, name in enumerate(SEGMENTS[:6]):
        b.segment(name, 0x1000 + n, (0x1000 + n) << 4, 0xffff, 0xf300)


def long(b):
    b.set(EFER=0xd01, CR0=0x80010031, CR4=0x20, CR3=0x2000, BITS=64, RIP=0xffffffff80001000)
    set_segments(b, 0xaf9b00, 0xcf9300)


def user64(b):
    long(b)
    b.set(RIP=0x400000, CPL=3)
    set_segments(b, 0xaffb00, 0xcff300, (0x33, 0x2b))


def user32(b):
    """Compatibility mode."""
    user64(b)
    set_segments(b, 0xcffb00, 0xcff300, (0x23, 0x2b))


def bench(state, features=False):
    b = VmxBench(guest=1 << 20)
    state(b)
    assert b.start() == 0, BY_NUMBER.get(b.state["rule"])
    if features:                     # a processor that offers every control
        b.caps(**{name: b.caps()[name] | 0xffffffff << 32 for name in ("pin", "proc", "secondary", "exit", "entry")})
    return b


@pytest.mark.parametrize("state", [real, protected, pae, v86, long, user64, user32])
def test_legal_states_enter(state):
    b = bench(state)
    assert b.check() == 0, BY_NUMBER.get(b.check())
    assert b.state["launch"] == 1 and b.state["stop"] == 0


# A case: rule, state, and fields that are set (an integer), or changed (a function of the old value).
def on(bits):
    return lambda old: old | bits


def off(bits):
    return lambda old: old & ~bits


def flip(bits):
    return lambda old: old ^ bits


def every(*changes):
    def change(old):
        for c in changes:
            old = c(old)
        return old
    return change


def rights(name):
    return f"GUEST_{name}_AR"


RESTRICTED = {"SECONDARY_CONTROLS": off(1 << 7)}
HOST_32 = {"EXIT_CONTROLS": off(1 << 9), "HOST_EFER": 0x801, "HOST_RIP": 0x1000}
UNOFFERED = True                     # the control is one that only a processor with every feature has

CASES = [
    ("CTL_PIN_RESERVED", long, {"PIN_BASED_CONTROLS": off(1 << 1)}),
    ("CTL_PIN_RESERVED", long, {"PIN_BASED_CONTROLS": on(1 << 31)}),
    ("CTL_PROC_RESERVED", long, {"PROC_BASED_CONTROLS": on(1)}),
    ("CTL_PROC_RESERVED", long, {"PROC_BASED_CONTROLS": off(1 << 26)}),
    ("CTL_SECONDARY_RESERVED", long, {"SECONDARY_CONTROLS": on(1 << 31)}),
    ("CTL_CR3_TARGETS", long, {"CR3_TARGET_COUNT": 5}),
    ("CTL_IO_BITMAPS", long, {"PROC_BASED_CONTROLS": on(1 << 25), "IO_BITMAP_A": 0x800}),
    ("CTL_IO_BITMAPS", long, {"PROC_BASED_CONTROLS": on(1 << 25), "IO_BITMAP_B": WIDE}),
    ("CTL_MSR_BITMAPS", long, {"MSR_BITMAP": 0x1010}),
    ("CTL_MSR_BITMAPS", long, {"MSR_BITMAP": WIDE}),
    ("CTL_VIRTUAL_APIC", long, {"VIRTUAL_APIC_ADDR": 0x1001}),
    ("CTL_VIRTUAL_APIC", long, {"VIRTUAL_APIC_ADDR": WIDE}),
    ("CTL_TPR_THRESHOLD", long, {"TPR_THRESHOLD": 0x10}),
    ("CTL_TPR_THRESHOLD_VTPR", long, {"TPR_THRESHOLD": 1}),
    ("CTL_VIRTUAL_NMIS", long, {"PIN_BASED_CONTROLS": off(1 << 3)}),
    ("CTL_NMI_WINDOW", long, {"PIN_BASED_CONTROLS": off(1 << 5), "PROC_BASED_CONTROLS": on(1 << 22)}),
    ("CTL_APIC_ACCESS", long, {"SECONDARY_CONTROLS": on(1), "APIC_ACCESS_ADDR": 0x10}, UNOFFERED),
    ("CTL_APIC_WITHOUT_TPR", long, {"SECONDARY_CONTROLS": on(1 << 8), "PROC_BASED_CONTROLS": off(1 << 21)}, UNOFFERED),
    ("CTL_X2APIC", long, {"SECONDARY_CONTROLS": on(1 << 4 | 1)}, UNOFFERED),
    ("CTL_VIRTUAL_INTERRUPT", long, {"SECONDARY_CONTROLS": on(1 << 9), "PIN_BASED_CONTROLS": off(1)}, UNOFFERED),
    ("CTL_POSTED_INTERRUPTS", long, {"PIN_BASED_CONTROLS": on(1 << 7)}, UNOFFERED),
    ("CTL_POSTED_INTERRUPTS", long, {"PIN_BASED_CONTROLS": on(1 << 7), "SECONDARY_CONTROLS": on(1 << 9), "EXIT_CONTROLS": on(1 << 15),
                                     "POSTED_INTR_NV": 256}, UNOFFERED),
    ("CTL_POSTED_INTERRUPTS", long, {"PIN_BASED_CONTROLS": on(1 << 7), "SECONDARY_CONTROLS": on(1 << 9), "EXIT_CONTROLS": on(1 << 15),
                                     "POSTED_INTR_DESC_ADDR": 0x20}, UNOFFERED),
    ("CTL_VPID", long, {"VPID": 0}),
    ("CTL_EPTP_TYPE", long, {"EPT_POINTER": every(off(7), on(1))}),
    ("CTL_EPTP_LEVELS", long, {"EPT_POINTER": flip(1 << 5)}),
    ("CTL_EPTP_AD", long, {"EPT_POINTER": on(1 << 6)}, {"ept_vpid": off(1 << 21)}),
    ("CTL_EPTP_RESERVED", long, {"EPT_POINTER": on(1 << 7)}),
    ("CTL_EPTP_RESERVED", long, {"EPT_POINTER": on(WIDE)}),
    ("CTL_PML_EPT", long, {"SECONDARY_CONTROLS": every(off(1 << 1 | 1 << 7), on(1 << 17))}, UNOFFERED),
    ("CTL_PML_ADDRESS", long, {"SECONDARY_CONTROLS": on(1 << 17), "PML_ADDRESS": 0x800}, UNOFFERED),
    ("CTL_UNRESTRICTED_EPT", long, {"SECONDARY_CONTROLS": off(1 << 1)}),
    ("CTL_VM_FUNCTIONS", long, {"SECONDARY_CONTROLS": on(1 << 13), "VM_FUNCTION_CONTROLS": 1}, UNOFFERED),
    ("CTL_SHADOW_BITMAPS", long, {"SECONDARY_CONTROLS": on(1 << 14), "VMWRITE_BITMAP": 1}, UNOFFERED),
    ("CTL_VE_ADDRESS", long, {"SECONDARY_CONTROLS": on(1 << 18), "VE_INFO_ADDR": 1}, UNOFFERED),
    ("CTL_EXIT_RESERVED", long, {"EXIT_CONTROLS": off(1)}),
    ("CTL_EXIT_TIMER", long, {"EXIT_CONTROLS": on(1 << 22)}, UNOFFERED),
    ("CTL_EXIT_MSR_STORE", long, {"EXIT_MSR_STORE_COUNT": 1, "EXIT_MSR_STORE_ADDR": 8}),
    ("CTL_EXIT_MSR_LOAD", long, {"EXIT_MSR_LOAD_COUNT": 2, "EXIT_MSR_LOAD_ADDR": WIDE - 16}),
    ("CTL_ENTRY_RESERVED", long, {"ENTRY_CONTROLS": on(1 << 31)}),
    ("CTL_INJECT_TYPE", long, {"ENTRY_INTR_INFO": 0x80000100}),
    ("CTL_INJECT_TYPE", long, {"ENTRY_INTR_INFO": 0x80000700}),
    ("CTL_INJECT_VECTOR", long, {"ENTRY_INTR_INFO": 0x80000203}),
    ("CTL_INJECT_VECTOR", long, {"ENTRY_INTR_INFO": 0x80000320}),
    ("CTL_INJECT_ERROR_BIT", long, {"ENTRY_INTR_INFO": 0x8000030d}),
    ("CTL_INJECT_ERROR_BIT", long, {"ENTRY_INTR_INFO": 0x80000b06}),
    ("CTL_INJECT_ERROR_BIT", real, {"ENTRY_INTR_INFO": 0x80000b0d}),
    ("CTL_INJECT_RESERVED", long, {"ENTRY_INTR_INFO": 0x80001306}),
    ("CTL_INJECT_ERROR_CODE", long, {"ENTRY_INTR_INFO": 0x80000b0d, "ENTRY_ERROR_CODE": 0x10000}),
    ("CTL_INJECT_LENGTH", long, {"ENTRY_INTR_INFO": 0x80000480, "ENTRY_INSTR_LENGTH": 16}),
    ("CTL_INJECT_LENGTH", long, {"ENTRY_INTR_INFO": 0x80000603, "ENTRY_INSTR_LENGTH": 0}),
    ("CTL_ENTRY_MSR_LOAD", long, {"ENTRY_MSR_LOAD_COUNT": 1, "ENTRY_MSR_LOAD_ADDR": 1}),
    ("CTL_ENTRY_SMM", long, {"ENTRY_CONTROLS": on(1 << 10)}),
    ("CTL_ENTRY_SMM", long, {"ENTRY_CONTROLS": on(1 << 11)}, UNOFFERED),

    ("HOST_RULE_CR0", long, {"HOST_CR0": off(1 << 5)}),
    ("HOST_RULE_CR0", long, {"HOST_CR0": on(1 << 32)}),
    ("HOST_RULE_CR4", long, {"HOST_CR4": off(1 << 13)}),
    ("HOST_RULE_CR4", long, {"HOST_CR4": on(1 << 31)}),
    ("HOST_RULE_CR3", long, {"HOST_CR3": WIDE}),
    ("HOST_RULE_SYSENTER", long, {"HOST_SYSENTER_ESP": NON_CANONICAL}),
    ("HOST_RULE_SYSENTER", long, {"HOST_SYSENTER_EIP": NON_CANONICAL}),
    ("HOST_RULE_PAT", long, {"HOST_PAT": 0x0007040600070402}),
    ("HOST_RULE_EFER", long, {"HOST_EFER": off(1 << 8)}),
    ("HOST_RULE_EFER", long, {"HOST_EFER": on(1 << 1)}),
    *[("HOST_RULE_SELECTOR_BITS", long, {f"HOST_{s}_SELECTOR": 8 | bit}) for s in ("ES", "CS", "SS", "DS", "FS", "GS", "TR") for bit in (1, 4)],
    ("HOST_RULE_CS_ZERO", long, {"HOST_CS_SELECTOR": 0}),
    ("HOST_RULE_TR_ZERO", long, {"HOST_TR_SELECTOR": 0}),
    ("HOST_RULE_SS_ZERO", real, HOST_32 | {"HOST_SS_SELECTOR": 0}),
    *[("HOST_RULE_BASES", long, {f"HOST_{s}_BASE": NON_CANONICAL}) for s in ("FS", "GS", "TR", "GDTR", "IDTR")],
    ("HOST_RULE_ADDRESS_SIZE", real, HOST_32),
    ("HOST_RULE_32_GUEST_64", long, HOST_32),
    ("HOST_RULE_32_PCIDE", real, HOST_32 | {"HOST_CR4": on(1 << 17)}),
    ("HOST_RULE_32_RIP", real, HOST_32 | {"HOST_RIP": 1 << 32}),
    ("HOST_RULE_64_PAE", long, {"HOST_CR4": off(1 << 5)}),
    ("HOST_RULE_64_RIP", long, {"HOST_RIP": NON_CANONICAL}),

    ("GUEST_RULE_CR0_FIXED", real, {"GUEST_CR0": off(1 << 5)}),
    ("GUEST_RULE_CR0_FIXED", long, {"GUEST_CR0": on(1 << 40)}),
    ("GUEST_RULE_CR0_FIXED", protected, RESTRICTED),
    ("GUEST_RULE_PG_PE", real, {"GUEST_CR0": on(1 << 31)}),
    ("GUEST_RULE_CR4_FIXED", long, {"GUEST_CR4": off(1 << 13)}),
    ("GUEST_RULE_CR4_FIXED", long, {"GUEST_CR4": on(1 << 30)}),
    ("GUEST_RULE_DEBUGCTL", long, {"GUEST_DEBUGCTL": 1 << 2}),
    ("GUEST_RULE_IA32E_PAGING", long, {"GUEST_CR0": off(1 << 31)}),
    ("GUEST_RULE_IA32E_PAGING", long, {"GUEST_CR4": off(1 << 5)}),
    ("GUEST_RULE_PCIDE", protected, {"GUEST_CR4": on(1 << 17)}),
    ("GUEST_RULE_CR3", long, {"GUEST_CR3": WIDE}),
    ("GUEST_RULE_DR7", long, {"GUEST_DR7": 1 << 32}),
    ("GUEST_RULE_SYSENTER", long, {"GUEST_SYSENTER_ESP": NON_CANONICAL}),
    ("GUEST_RULE_SYSENTER", long, {"GUEST_SYSENTER_EIP": NON_CANONICAL}),
    ("GUEST_RULE_PAT", long, {"GUEST_PAT": 8 << 56}),
    ("GUEST_RULE_EFER_RESERVED", long, {"GUEST_EFER": on(1 << 9)}),
    ("GUEST_RULE_EFER_LMA", long, {"GUEST_EFER": off(1 << 10)}),
    ("GUEST_RULE_EFER_LMA", protected, {"GUEST_EFER": on(1 << 10)}),
    ("GUEST_RULE_EFER_LME", long, {"GUEST_EFER": off(1 << 8)}),
    ("GUEST_RULE_TR_TI", long, {"GUEST_TR_SELECTOR": 0x44}),
    ("GUEST_RULE_LDTR_TI", long, {"GUEST_LDTR_SELECTOR": 0x4c, "GUEST_LDTR_AR": 0x82, "GUEST_LDTR_LIMIT": 0xfff}),
    ("GUEST_RULE_SS_RPL", long, RESTRICTED | {"GUEST_SS_SELECTOR": 0x1b}),
    *[("GUEST_RULE_V86_BASE", v86, {f"GUEST_{s}_BASE": 0}) for s in SEGMENTS[:6]],
    *[("GUEST_RULE_BASE_CANONICAL", long, {f"GUEST_{s}_BASE": NON_CANONICAL}) for s in ("TR", "FS", "GS")],
    ("GUEST_RULE_BASE_CANONICAL", long, {"GUEST_LDTR_BASE": NON_CANONICAL, "GUEST_LDTR_AR": 0x82, "GUEST_LDTR_LIMIT": 0xfff}),
    *[("GUEST_RULE_BASE_32", long, {f"GUEST_{s}_BASE": 1 << 32}) for s in ("CS", "SS", "DS", "ES")],
    *[("GUEST_RULE_V86_LIMIT", v86, {f"GUEST_{s}_LIMIT": 0xfffff}) for s in SEGMENTS[:6]],
    *[("GUEST_RULE_V86_RIGHTS", v86, {rights(s): 0x93}) for s in SEGMENTS[:6]],
    ("GUEST_RULE_CS_TYPE", long, {rights("CS"): 0xa097}),
    ("GUEST_RULE_CS_TYPE", long, RESTRICTED | {rights("CS"): 0xa093}),
    ("GUEST_RULE_CS_TYPE", long, {rights("CS"): 0xa09a}),
    ("GUEST_RULE_SS_TYPE", long, {rights("SS"): 0xc091}),
    ("GUEST_RULE_SS_TYPE", long, {rights("SS"): 0xc09b}),
    *[("GUEST_RULE_DATA_ACCESSED", long, {rights(s): 0xc092}) for s in ("DS", "ES", "FS", "GS")],
    *[("GUEST_RULE_DATA_READABLE", long, {rights(s): 0xc099}) for s in ("DS", "ES", "FS", "GS")],
    *[("GUEST_RULE_SEGMENT_S", long, {rights(s): off(1 << 4)}) for s in SEGMENTS[:6]],
    ("GUEST_RULE_CS_DPL", long, {rights("CS"): on(3 << 5)}),
    ("GUEST_RULE_CS_DPL", user64, {rights("CS"): 0xa09b}),
    ("GUEST_RULE_CS_DPL", long, {rights("CS"): 0xa0ff}),
    ("GUEST_RULE_CS_DPL", protected, {rights("CS"): 0xc0f3}),
    ("GUEST_RULE_SS_DPL_RPL", user64, RESTRICTED | {"GUEST_SS_SELECTOR": 0x28, "GUEST_CS_SELECTOR": 0x30}),
    ("GUEST_RULE_SS_DPL_ZERO", real, {rights("CS"): 0xfb, rights("SS"): 0xf3}),
    ("GUEST_RULE_SS_DPL_ZERO", protected, {rights("CS"): 0xc093, rights("SS"): 0xc0f3}),
    ("GUEST_RULE_DATA_DPL", user64, RESTRICTED | {rights("DS"): 0xc093}),
    *[("GUEST_RULE_SEGMENT_P", long, {rights(s): off(1 << 7)}) for s in SEGMENTS[:6]],
    *[("GUEST_RULE_SEGMENT_RESERVED", long, {rights(s): on(1 << 8)}) for s in SEGMENTS[:6]],
    *[("GUEST_RULE_SEGMENT_RESERVED", long, {rights(s): on(1 << 17)}) for s in SEGMENTS[:6]],
    ("GUEST_RULE_CS_DB", long, {rights("CS"): on(1 << 14)}),
    *[("GUEST_RULE_GRANULARITY", long, {f"GUEST_{s}_LIMIT": 0xfffffffe}) for s in SEGMENTS[:6]],
    *[("GUEST_RULE_GRANULARITY", long, {rights(s): off(1 << 15)}) for s in SEGMENTS[:6]],
    ("GUEST_RULE_TR_TYPE", long, {rights("TR"): 0x83}),
    ("GUEST_RULE_TR_TYPE", protected, {rights("TR"): 0x89}),
    ("GUEST_RULE_TR_S", long, {rights("TR"): 0x9b}),
    ("GUEST_RULE_TR_P", long, {rights("TR"): 0x0b}),
    ("GUEST_RULE_TR_RESERVED", long, {rights("TR"): 0x18b}),
    ("GUEST_RULE_TR_GRANULARITY", long, {rights("TR"): 0x808b}),
    ("GUEST_RULE_TR_GRANULARITY", long, {"GUEST_TR_LIMIT": 0x100fff}),
    ("GUEST_RULE_TR_UNUSABLE", long, {rights("TR"): 0x1008b}),
    ("GUEST_RULE_LDTR_TYPE", long, {rights("LDTR"): 0x83, "GUEST_LDTR_LIMIT": 0xfff}),
    ("GUEST_RULE_LDTR_S", long, {rights("LDTR"): 0x92, "GUEST_LDTR_LIMIT": 0xfff}),
    ("GUEST_RULE_LDTR_P", long, {rights("LDTR"): 0x02, "GUEST_LDTR_LIMIT": 0xfff}),
    ("GUEST_RULE_LDTR_RESERVED", long, {rights("LDTR"): 0x182, "GUEST_LDTR_LIMIT": 0xfff}),
    ("GUEST_RULE_LDTR_GRANULARITY", long, {rights("LDTR"): 0x8082, "GUEST_LDTR_LIMIT": 0xffe}),
    ("GUEST_RULE_TABLE_BASE", long, {"GUEST_GDTR_BASE": NON_CANONICAL}),
    ("GUEST_RULE_TABLE_BASE", long, {"GUEST_IDTR_BASE": NON_CANONICAL}),
    ("GUEST_RULE_TABLE_LIMIT", long, {"GUEST_GDTR_LIMIT": 0x10000}),
    ("GUEST_RULE_TABLE_LIMIT", long, {"GUEST_IDTR_LIMIT": 0x10000}),
    ("GUEST_RULE_RIP_32", protected, {"GUEST_RIP": 1 << 32}),
    ("GUEST_RULE_RIP_32", user32, {"GUEST_RIP": 1 << 32}),
    ("GUEST_RULE_RIP_64", long, {"GUEST_RIP": 0x1_0000_0000_0000}),
    ("GUEST_RULE_RFLAGS_RESERVED", long, {"GUEST_RFLAGS": 0}),
    *[("GUEST_RULE_RFLAGS_RESERVED", long, {"GUEST_RFLAGS": 2 | 1 << bit}) for bit in (3, 5, 15, 22, 63)],
    ("GUEST_RULE_RFLAGS_IF", long, {"ENTRY_INTR_INFO": 0x80000020}),
    ("GUEST_RULE_ACTIVITY", long, {"GUEST_ACTIVITY_STATE": 4}),
    ("GUEST_RULE_ACTIVITY", long, {"GUEST_ACTIVITY_STATE": 3}),
    ("GUEST_RULE_HLT_DPL", user64, {"GUEST_ACTIVITY_STATE": 1}),
    ("GUEST_RULE_ACTIVITY_SHADOW", long, {"GUEST_ACTIVITY_STATE": 1, "GUEST_INTERRUPTIBILITY": 2}),
    ("GUEST_RULE_HLT_EVENT", long, {"GUEST_ACTIVITY_STATE": 1, "ENTRY_INTR_INFO": 0x80000306}),
    ("GUEST_RULE_SHADOW_RESERVED", long, {"GUEST_INTERRUPTIBILITY": 1 << 5}),
    ("GUEST_RULE_SHADOW_BOTH", long, {"GUEST_INTERRUPTIBILITY": 3, "GUEST_RFLAGS": 0x202}),
    ("GUEST_RULE_SHADOW_IF", long, {"GUEST_INTERRUPTIBILITY": 1}),
    ("GUEST_RULE_SHADOW_INTERRUPT", long, {"GUEST_INTERRUPTIBILITY": 1, "GUEST_RFLAGS": 0x202, "ENTRY_INTR_INFO": 0x80000020}),
    ("GUEST_RULE_SHADOW_INTERRUPT", long, {"GUEST_INTERRUPTIBILITY": 2, "GUEST_RFLAGS": 0x202, "ENTRY_INTR_INFO": 0x80000020}),
    ("GUEST_RULE_SHADOW_NMI", long, {"GUEST_INTERRUPTIBILITY": 2, "ENTRY_INTR_INFO": 0x80000202}),
    ("GUEST_RULE_SHADOW_SMI", long, {"GUEST_INTERRUPTIBILITY": 4}),
    ("GUEST_RULE_SHADOW_VIRTUAL_NMI", long, {"GUEST_INTERRUPTIBILITY": 8, "ENTRY_INTR_INFO": 0x80000202}),
    ("GUEST_RULE_PENDING_RESERVED", long, {"GUEST_PENDING_DEBUG": 1 << 4}),
    ("GUEST_RULE_PENDING_RESERVED", long, {"GUEST_PENDING_DEBUG": 1 << 17}),
    ("GUEST_RULE_PENDING_BS", long, {"GUEST_INTERRUPTIBILITY": 2, "GUEST_RFLAGS": 0x102}),
    ("GUEST_RULE_PENDING_BS", long, {"GUEST_INTERRUPTIBILITY": 2, "GUEST_PENDING_DEBUG": 1 << 14}),
    ("GUEST_RULE_LINK_POINTER", long, {"VMCS_LINK_POINTER": 0x1000}),
    *[("GUEST_RULE_PDPTE", pae, {f"GUEST_PDPTE{n}": 1 | bit}) for n in range(4) for bit in (2, 1 << 5, 1 << 8, WIDE)],
]


def broken(b, changes):
    return {F[name]: change(b.peek(F[name])) if callable(change) else change for name, change in changes.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_broken_rule_is_found(case):
    rule, state, changes, *extra = case
    b = bench(state, features=UNOFFERED in extra)
    for caps in extra:
        if caps is not UNOFFERED:
            b.caps(**{name: change(b.caps()[name]) for name, change in caps.items()})
    assert BY_NUMBER.get(b.check(broken(b, changes)), "passed") == rule


def test_v86_outside_protected_mode_is_not_a_legal_rflags():
    """VM=1 needs PE=1 and IA-32e off; the segments must be those of the mode for the check to be reached."""
    b = bench(v86)
    assert BY_NUMBER[b.check({F["GUEST_CR0"]: b.peek(F["GUEST_CR0"]) & ~1})] == "GUEST_RULE_RFLAGS_VM"


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} | {"GUEST_RULE_RFLAGS_VM"} == set(RULES)


@pytest.mark.parametrize("state,fields", [
    (long, {"ENTRY_INTR_INFO": 0x80000b0e, "ENTRY_ERROR_CODE": 7}),              # #PF with an error code
    (long, {"ENTRY_INTR_INFO": 0x80000b0d, "ENTRY_ERROR_CODE": 0xfff8}),         # of a selector of the upper half
    (long, {"ENTRY_INTR_INFO": 0x80000306}),                                     # #UD without
    (real, {"ENTRY_INTR_INFO": 0x8000030d}),                                     # #GP in real mode pushes none
    (long, {"ENTRY_INTR_INFO": 0x80000202}),                                     # NMI
    (long, {"ENTRY_INTR_INFO": 0x80000603, "ENTRY_INSTR_LENGTH": 1}),            # INT3
    (long, {"ENTRY_INTR_INFO": 0x80000020, "GUEST_RFLAGS": 0x202}),              # external interrupt with IF
    (long, {"GUEST_ACTIVITY_STATE": 1, "ENTRY_INTR_INFO": 0x80000020, "GUEST_RFLAGS": 0x202}),
    (long, {"GUEST_RIP": 0x0000_9000_0000_0000}),                                # bit 47 alone is not checked
    (long, {"GUEST_INTERRUPTIBILITY": 2, "GUEST_RFLAGS": 0x102, "GUEST_PENDING_DEBUG": 1 << 14}),
    (real, {"GUEST_CS_AR": 0x93, "GUEST_SS_AR": 0x93}),                          # type 3 in CS, unrestricted guest
    (long, {"CR3_TARGET_COUNT": 4}),
    (long, {"EXIT_MSR_LOAD_COUNT": 1, "EXIT_MSR_LOAD_ADDR": WIDE - 16}),
    (long, {"GUEST_CS_AR": 0xa09f}),                                             # conforming code
    (protected, {"GUEST_TR_AR": 0x83}),                                          # 16-bit TSS outside IA-32e mode
])
def test_what_the_rules_allow(state, fields):
    b = bench(state)
    assert b.check(broken(b, fields)) == 0


@pytest.mark.parametrize("field,value,error", [("CR3_TARGET_COUNT", 9, 7), ("HOST_CS_SELECTOR", 0, 8)])
def test_illegal_controls_and_host_state_fail_the_instruction(field, value, error):
    b = bench(long)
    reason = b.peek(F["EXIT_REASON"])
    assert b.vmwrite(F[field], value) == 0 and b.enter() == -1
    assert b.peek(F["VM_INSTR_ERROR"]) == error and b.peek(F["EXIT_REASON"]) == reason
    assert b.exits == {} and b.state["stop"] == 6


@pytest.mark.parametrize("field,value,qualification", [
    ("GUEST_PAT", 2, 0), ("GUEST_PDPTE1", 3, 2), ("VMCS_LINK_POINTER", 0, 4)])
def test_illegal_guest_state_is_an_exit_with_reason_33(field, value, qualification):
    b = bench(pae)
    b.vmwrite(F[field], value)
    assert b.enter() == -1
    assert b.peek(F["EXIT_REASON"]) == 0x80000021 and b.peek(F["EXIT_QUALIFICATION"]) == qualification
    assert b.exits[33]["count"] == 1


def test_checks_wait_for_a_write_to_a_checked_field():
    b = bench(long)
    b.poke(F["HOST_CS_SELECTOR"], 0)             # behind the monitor's back: the next entry does not look
    assert b.enter() == 0
    b.vmwrite(F["GUEST_RIP"], 0x1000)
    assert b.enter() == 0
    b.vmwrite(F["EXCEPTION_BITMAP"], 0)
    assert b.enter() == -1


def test_an_injected_event_is_checked_at_every_entry():
    b = bench(long)
    b.vmwrite(F["ENTRY_INTR_INFO"], 0x80000100)
    assert not b.state["dirty"] and b.enter() == -1 and b.peek(F["VM_INSTR_ERROR"]) == 7
