# SPDX-License-Identifier: GPL-2.0-or-later
"""A price that changes moves the causes that it is a price of, and nothing else.

Runs go by `--clock instructions`, so that a dearer event does not make a timer fire earlier: what is charged, and how often, stays.
"""
import functools

import pytest

from images import multiboot_elf
from pyx86v import Machine
from pyx86v.cli import guests
from pyx86v.cost.classes import CLASSES
from pyx86v.cost.profile import PRICES, load_profile

MORE = 1000                      # cycles
LIMIT = 300_000                  # instructions of a run
LONGER = {"unsync": 3_000_000, "caches": 3_000_000}
WALKS = {f"walk_{kind}_{level}" for kind in ("guest", "nested") for level in (1, 2, 3, 4)}
# Causes by the beginning of the price's name; the longest that fits counts.
CAUSES = {
    "tlb_": {"tlb"}, "nested_tlb": {"tlb"}, "walk_start": {"walk_base"}, "deliver_": {"trap"}, "deliver_interrupt": {"interrupt"},
    "port_": {"device"}, "mmio_": {"device"}, "vm_exit": {"exit"}, "vm_entry": {"entry"}, "vmread": {"vmcs"}, "vmwrite": {"vmcs"},
    "emul_": {"emulation"}, "untagged_switch": {"entry", "exit"}, "shadow_": {"shadow"}, "switch_": {"world_switch"},
    "vmload": {"exit", "entry"}, "vmsave": {"exit"}, "trap_exit": {"exit"}, "trap_return": {"entry"}, "branch_miss": {"branch"},
    "bt_translate": {"translation"}, "bt_dispatch": {"translation"}, "bt_callout": {"exit"}, "bt_rdtsc": {"emulation"},
    "bt_port": {"emulation"}, "bt_trace": {"shadow"},
    **{f"walk_ref_{n}": {f"walk_guest_{n}"} for n in range(1, 5)}, **{f"nested_ref_{n}": {f"walk_nested_{n}"} for n in range(1, 5)},
    **{f"cache_{level}": WALKS | {"cache"} for level in ("l1", "l2", "l3", "memory")},
}
# Runs that between them pay every price: a ROM, or several as guests of one machine, and the machine's options.
NO_TABLES = bytes.fromhex("b8000000d00f22d8" "b8110000800f22c0")         # mov $0xd0000000, %cr3; mov $0x80000011, %cr0
RUNS = {
    "native": ("modes", {}), "faults": ("demand", {}), "avoider": ("avoider", {"style": "vmx+ept"}), "devices": ("lapic", {"style": "vmx+ept"}),
    "ept": ("modes", {"style": "vmx+ept"}), "shadow": ("demand", {"style": "vmx+shadow"}), "bios": ("bios", {"style": "vmx+shadow"}),
    "unsync": ("shadowtorture", {"style": "vmx+shadow", "shadow_unsync": 1}), "trap": ("timer", {"style": "trap+shadow", "holes": "continue"}),
    "rdtsc": ("clockread", {"style": "trap+shadow"}), "npt": ("hello", {"style": "svm+npt"}), "tasks": (("hello", "hello"), {}),
    "two vmx": (("hello", "hello"), {"style": "vmx+ept"}), "two svm": (("hello", "hello"), {"style": "svm+npt"}), "triple": ("triple", {"style": "vmx+ept"}),
    "no tables": (NO_TABLES, {"style": "vmx+ept"}), "untagged": ("hello", {"style": "vmx+ept", "profile": "core2"}),
    "translated": ("clockread", {"style": "bt+shadow"}), "in place": ("nanobench", {"style": "bt+shadow"}), "caches": ("qsort", {"caches": "full"}), "branches": ("modes", {"branches": "on"}),
}
# Where each price is paid; the others are natively.
PAID = {
    "avoider": ("deliver_interrupt", "emul_hlt", "emul_interrupt"), "devices": ("mmio_read", "mmio_write", "vm_exit_ept", "emul_mmio"),
    "faults": ("deliver_page_fault",), "bios": ("emul_exception", "emul_instruction"), "unsync": ("shadow_sync",),
    "ept": ("nested_ref_1", "nested_ref_2", "nested_ref_3", "nested_ref_4", "nested_tlb_hit", "vm_exit", "vm_entry", "vmread", "vmwrite", "emul_cr",
            "emul_msr", "emul_io"),
    "shadow": ("vm_exit_page_fault", "emul_cpuid", "emul_invlpg", "shadow_walk", "shadow_fill", "shadow_reflect", "shadow_trace", "shadow_update",
               "shadow_new", "shadow_page", "shadow_zap"),
    "trap": ("trap_exit", "trap_return", "emul_decode", "emul_reflect", "emul_segment", "emul_flag", "emul_descriptor"), "rdtsc": ("emul_rdtsc",),
    "npt": ("vmload", "vmsave"), "tasks": ("switch_task",), "two vmx": ("switch_vmx",), "two svm": ("switch_svm",), "triple": ("emul_other",),
    "no tables": ("emul_ept",), "untagged": ("untagged_switch",), "branches": ("branch_miss",),
    "translated": ("bt_translate", "bt_dispatch", "bt_callout", "bt_rdtsc"), "in place": ("bt_port", "bt_trace", "bt_trace_update", "bt_trace_new"),
    "caches": ("cache_l1", "cache_l2", "cache_l3", "cache_memory"),
}


def causes_of(price):
    return CAUSES[max((name for name in CAUSES if price.startswith(name)), key=len)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prices")


@functools.cache
def run(name, folder, section="", line=""):
    """(units by cause, instructions, digest) of a run in which one line of the profile says more."""
    what, options = RUNS[name]
    profile = options.get("profile", "skylake")
    if line:
        value = load_profile(profile).cycles(line) + MORE
        path = folder / f"{profile}_{line}.toml"
        path.write_text(f'base = "{profile}"\n[{section}]\n{line} = {{ value = {value}, unit = "cycles", status = "estimated", source = "model" }}\n')
        profile = str(path)
    options = {**options, "profile": profile, "clock": "instructions"}
    if isinstance(what, bytes):
        image = folder / "guest.elf"
        image.write_bytes(multiboot_elf(code=what))
        images = [image]
    else:
        images = [guests.image(each) for each in ([what] if isinstance(what, str) else what)]
    machine = Machine(**options) if len(images) == 1 else Machine(guests=[{}] * len(images), quantum=20_000, **options)
    for guest, image in zip(machine.guests, images, strict=True):
        guest.load(image)
    machine.run(max_instructions=LONGER.get(name, LIMIT))
    assert sum(machine.ledger_units.values()) == machine.units
    return machine.ledger_units, machine.instructions, [guest.digest() for guest in machine.guests]


def moved(name, folder, section, line):
    """{cause: how much more} of a run with a dearer line; nothing else may change."""
    (before, *same), (after, *still) = run(name, folder), run(name, folder, section, line)
    assert same == still
    return {cause: after[cause] - before[cause] for cause in before if after[cause] != before[cause]}


@pytest.mark.parametrize("price", PRICES)
def test_a_price_moves_its_causes_alone(price, folder):
    name = next((name for name, prices in PAID.items() if price in prices), "native")
    found = moved(name, folder, "prices", price)
    assert found, "never paid"
    assert set(found) <= causes_of(price)
    if not price.startswith("cache_"):
        assert all(more > 0 and more % (64 * MORE) == 0 for more in found.values()), found
    assert set(moved("trap" if name == "ept" else "ept", folder, "prices", price)) <= causes_of(price)


@pytest.mark.parametrize("line", ["default", "alu", "load", "store", "divide_64", "cpuid", "branch", "return", "push"])
def test_the_price_of_a_class_moves_the_instructions_alone(line, folder):
    assert line in CLASSES
    for name in ("ept", "trap"):
        assert set(moved(name, folder, "instructions", line)) <= {"instruction"}
