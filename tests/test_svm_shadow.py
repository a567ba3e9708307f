# SPDX-License-Identifier: GPL-2.0-or-later
"""svm+shadow: what AMD-V without nested paging intercepts besides, what runs in the VMCB, and what a page fault costs."""
import pytest

from pyx86v.cost.ledger import Cause, Price
from pyx86v.vmm.svm.svm_shadow import style_capsule
from svm_help import *
from test_svm_exits import EMUL, PRICES, Account

PF = 0x4e
RETRY, FAULT, NO_RAM = 0, 1, 2               # mmu/shadow's answers


class ShadowBench(Bench):
    def capsule(self):
        return style_capsule()


def machine(mode="long"):
    """A guest whose tables map its first 2 MiB page by page, user and writable, but for page 7 (not present)."""
    b = bench(mode, started=False, kind=ShadowBench, prices=PRICES | EMUL)
    for at, entry in ((0x2000, 0x3007), (0x3000, 0x4007), (0x4000, 0x5007)):
        b.write64(at, entry)
    for page in range(512):
        b.write64(0x5000 + 8 * page, page << 12 | (7 if page != 7 else 0))
    assert b.start() == 0, b.state
    return b


def test_intercepts_besides_those_of_nested_paging():
    plain, b = bench(), machine()
    assert b.field("NP_ENABLE") == 0 and b.field("N_CR3") == 0
    assert b.field("EXCEPTIONS") == plain.field("EXCEPTIONS") | 1 << 14
    assert b.field("CR_READS") == b.field("CR_WRITES") == 1 << 3 | 1 << 4
    assert b.field("INTERCEPTS_1") == plain.field("INTERCEPTS_1") | 1 << (0x79 & 31)
    assert b.field("INTERCEPTS_3") == 1 << (0xa2 & 31)


@pytest.mark.parametrize("mode, cr0, cr4, efer", [("long", 0x80010031, 0x20, 0x1d01), ("protected", 0x80010031, 0x20, 0x1800),
                                                  ("real", 0x80010010, 0x20, 0x1800)])
def test_the_mmus_registers_are_the_monitors(mode, cr0, cr4, efer):
    """Paging is always on, over the monitor's tables; PE is the guest's, which in real-address mode makes paged real mode
    (15.19).  VMRUN's checks pass."""
    b = machine(mode)
    assert (hex(b.field("CR0")), hex(b.field("CR4")), hex(b.field("EFER"))) == (hex(cr0), hex(cr4), hex(efer))
    assert b.state["monitor"] < b.field("CR3") < b.state["monitor_end"] and b.check() == 0
    assert b.event("SHADOW_FAULT", address=0x6123, size=1, privilege=2, vector=14, has_error=True)["verdict"] == "RESUME"
    assert b.translate(0x6123)[:2] == (0, 0x6000)
    if mode != "long":                       # CR3 points at PDPTEs: present, without the bits that are reserved in them (5.3.2)
        assert [b.read64(b.field("CR3") + 8 * n) & 0x1e7 for n in range(4)] == [1, 0, 0, 0]
    b.write()
    before = b.get("CR0"), b.get("CR3"), b.get("CR4"), b.get("EFER")
    assert b.enter() == 0 and (b.get("CR0"), b.get("CR3"), b.get("CR4"), b.get("EFER")) == before, "the guest's view stays"


def test_a_hidden_fault_makes_an_entry_and_is_all_exit():
    b = machine()
    assert b.translate(0x6123)[0] != 0
    a = Account(b, "SHADOW_FAULT", address=0x6123, size=4, privilege=2, error=0, vector=14, has_error=True)
    assert (a.verdict, a.exits, a.result["detail"]) == ("RESUME", {PF: 1}, RETRY)
    assert b.translate(0x6123)[:2] == (0, 0x6000)
    assert (b.field("EXITCODE"), b.field("EXITINFO1"), b.field("EXITINFO2"), b.field("EVENTINJ")) == (PF, 0, 0x6123, 0)
    assert a.causes[Cause.EXIT] == 3070 and a.causes[Cause.ENTRY] == 540 and Cause.VMCS not in a.causes
    assert b.exits[PF]["units"] == sum(a.causes.values())


def test_a_true_fault_is_injected_with_the_guests_error_code():
    b = machine()
    a = Account(b, "SHADOW_FAULT", address=0x7abc, size=1, access=1, privilege=1, error=7, vector=14, has_error=True)
    assert (a.verdict, a.exits, a.result["detail"], a.result["error"]) == ("REFLECT", {PF: 1}, FAULT, 6)
    assert b.field("EXITINFO1") == 7, "the processor's own error code, of the shadow tables"
    assert b.field("EVENTINJ") == 6 << 32 | 0x80000b0e and b.field("CR2") == 0x7abc
    assert Cause.EMULATION not in a.causes, "the work is the shadow tables'"
    assert Account(b, "EXCEPTION", vector=14, error=6, has_error=True, address=0x7abc).causes == {}, "its delivery is no second exit"


def test_a_device_is_a_page_fault():
    b = machine()
    b.write64(0x5000 + 8 * 9, 0xfee00007)
    a = Account(b, "SHADOW_FAULT", address=0x9010, size=4, privilege=2, error=0, vector=14, has_error=True)
    assert (a.verdict, a.exits, a.result["detail"]) == ("RESUME", {}, NO_RAM), "the access itself exits"
    b.device(0xab)
    a = Account(b, "MMIO_READ", gpa=0xfee00010, address=0x9010, size=4)
    assert a.exits == {PF: 1} and a.result["value"] == 0xab and b.field("EXITINFO2") == 0x9010
    assert a.causes[Cause.EMULATION] == EMUL[Price.EMUL_MMIO] and a.causes[Cause.DEVICE] == 600


def test_cr3_and_invlpg_exit():
    b = machine()
    root = b.field("CR3")
    b.write64(0x8000, 0x3007)
    a = Account(b, "CR_WRITE", reg=3, value=0x8000)
    assert a.exits == {0x13: 1} and b.get("CR3") == 0x8000 and b.field("CR3") not in (root, 0x8000)
    assert Account(b, "CR_READ", reg=3, gpr=1).exits == {0x03: 1} and b.gpr[1] == 0x8000
    assert Account(b, "INVLPG", address=0x6000).exits == {0x79: 1}
    assert Account(b, "INVPCID", value=2).exits == {0xa2: 1}


def test_cr0_exits_while_its_paging_bits_are_the_monitors():
    b = machine()
    assert b.field("CR_WRITES") & 1 == 0, "PG and WP are set: the guest may see the real one"
    assert Account(b, "CR_WRITE", reg=0, value=0x80000031).exits == {0x65: 1}
    assert b.field("CR0") == 0x80010031 and b.field("CR_WRITES") & 1 and b.field("CR_READS") & 1
    assert Account(b, "CLTS").exits == {0x10: 1}
