# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: every price has a source, the published figures come out again, and a broken file gives one line."""
import dataclasses

import pytest

from pyx86v.cost.classes import CLASSES
from pyx86v.cost.ledger import Price
from pyx86v.cost.profile import STATUSES, ProfileError, load_profile, profile_names

BUNDLED = ["core2", "merom", "nehalem", "p4-672", "penryn", "prescott", "sandybridge", "skylake", "westmere",
           "zen"]

# Agesen, Mattson, Rugina, Sheldon, USENIX ATC 2012, Table 1: hardware round trip of exit and entry, cycles
ROUND_TRIP = {"p4-672": 3963, "prescott": 3963, "core2": 1579, "merom": 1579, "penryn": 1266, "nehalem": 1009, "westmere": 761,
              "sandybridge": 784}

# Adams & Agesen, ASPLOS 2006, Table 1
AA06_TABLE_1 = {"p4-672": {"vm_entry": 2409, "vm_exit_page_fault": 1931, "vmread": 178, "vmwrite": 171},
                "core2": {"vm_entry": 937, "vm_exit_page_fault": 1186, "vmread": 52, "vmwrite": 44}}

# The same paper's nanobenchmarks on the Pentium 4 672, native and under VT-x; ten VMREADs an exit (section 7.1)
AA06_NANO = {
    242: ["syscall", "sysret"],
    11: ["call", "return"],
    3209: ["port", "port_in"],
    150: ["write_cr"],
    60: ["cli"],
    889: ["deliver_fault", "interrupt_return"],
    1093: ["deliver_page_fault", "interrupt_return"],
    15826: ["vm_exit", "vm_entry", "emul_io", "port_in"] + ["vmread"] * 10,
    12733: ["vm_exit_page_fault", "vm_entry", "emul_mmio"] + ["vmread"] * 10,
    11242: ["vm_exit_page_fault", "vm_entry", "emul_exception", "deliver_page_fault", "interrupt_return"] + ["vmread"] * 10,
}

# Its page-table writes and its page fault, in the parts that shadow tables are priced by
AA06_SHADOW = {
    9154: ["shadow_trace"],
    12733: ["shadow_trace", "shadow_update"],
    17020: ["shadow_trace", "shadow_update", "shadow_new"],
    11242: ["shadow_reflect", "deliver_page_fault", "interrupt_return"],
}

# uops.info, Skylake, reciprocal throughput as measured: instruction form -> cycles, by the class it stands for
UOPS = {
    "nop": ("NOP", 0.25), "move": ("MOV (R64, I32)", 0.25), "alu": ("ADD (R64, R64)", 0.25), "alu_carry": ("ADC (R64, R64)", 0.5),
    "lea": ("LEA_B_D32 (R64)", 0.5), "extend": ("CDQE", 0.5), "shift": ("SHL (R64, I8)", 0.5), "shift_carry": ("RCL (R64, 1)", 1.04),
    "shift_double": ("SHLD (R64, R64, I8)", 1.0), "bit": ("BT (R64, R64)", 0.5), "bit_scan": ("BSF (R64, R64)", 1.0),
    "cmov": ("CMOVZ (R64, R64)", 0.5), "setcc": ("SETZ (R8l)", 0.5), "flags": ("CMC", 0.52), "direction": ("CLD", 4.0),
    "decimal": ("XLAT", 1.0), "exchange": ("XCHG (R64, R64)", 0.75), "multiply": ("IMUL (R64, R64)", 1.0), "divide_8": ("DIV (R8l)", 6.0),
    "divide_16": ("DIV (R16)", 6.0), "divide_32": ("DIV (R32)", 6.0), "divide_64": ("DIV (R64)", 21.04), "push": ("PUSH (R64)", 1.0),
    "pop": ("POP (R64)", 0.5), "push_flags": ("PUSHF", 1.06), "pop_flags": ("POPF", 21.0), "leave": ("LEAVE", 2.0),
    "jump": ("JMP (Rel32)", 2.12), "jump_indirect": ("JMP (R64)", 1.94), "branch": ("JZ (Rel32)", 0.5), "loop": ("LOOP (Rel8)", 5.0),
    "call_indirect": ("CALL_NEAR (R64)", 3.16), "string_move": ("MOVSD", 4.0), "string_store": ("STOSD", 1.0),
    "string_load": ("LODSD", 1.0), "string_scan": ("SCASD", 1.2), "string_compare": ("CMPSD", 4.0), "fence": ("MFENCE", 33.0),
    "fence_load": ("LFENCE", 4.0), "pause": ("PAUSE", 140.0), "cpuid": ("CPUID", 100.72), "read_tsc": ("RDTSC", 25.0),
    "read_pmc": ("RDPMC", 40.0), "read_msr": ("RDMSR", 87.08), "write_msr": ("WRMSR", 135.09), "random": ("RDRAND (R64)", 6158.58),
    "read_xcr": ("XGETBV", 7.0), "write_xcr": ("XSETBV", 17.0), "read_cr": ("MOV_CR (R64, CR)", 7.87), "clear_ts": ("CLTS", 57.0),
    "debug_register": ("MOV_DR (DR, R64)", 200.63), "invlpg": ("INVLPG (M8)", 211.13),
    "cli": ("CLI", 2.0), "sti": ("STI", 4.0), "load_table": ("LGDT (M80)", 120.85), "store_table": ("SGDT (M80)", 8.0),
    "query_segment": ("LAR (R64, R64)", 60.0), "state_save": ("FXSAVE (M4096)", 62.0), "simd_move": ("MOVAPS (XMM, XMM)", 0.25),
    "simd_mask": ("PMOVMSKB (R32, XMM)", 1.0), "simd_integer": ("PADDD (XMM, XMM)", 0.33), "simd_shuffle": ("PSHUFD (XMM, XMM, I8)", 1.0),
    "simd_multiply_integer": ("PMULLW (XMM, XMM)", 0.5), "simd_add": ("ADDSD (XMM, XMM)", 0.5), "simd_multiply": ("MULSD (XMM, XMM)", 0.5),
    "simd_fused": ("VFMADD132SD (XMM, XMM, XMM)", 0.5), "simd_divide_single": ("DIVSS (XMM, XMM)", 3.0),
    "simd_divide_double": ("DIVSD (XMM, XMM)", 4.0), "simd_convert": ("CVTSI2SD (XMM, R64)", 1.0), "simd_crypto": ("AESENC (XMM, XMM)", 1.0),
    "simd_text": ("PCMPISTRI (XMM, XMM, I8)", 3.0), "simd_gather": ("VPGATHERDD (XMM, VSIB_XMM, XMM)", 4.0),
    "simd_control": ("LDMXCSR (M32)", 2.91),
}
READ_ELSEWHERE = {"p4-672": {"write_cr", "cli", "bt_rdtsc", "bt_translate", "bt_port"}}     # by AA06_NANO; sections 3.3 and 6.3
OTHERWISE_LIKE = {"prescott": "p4-672", "merom": "core2", "penryn": "core2"}      # whose lines they have where they have none

# CPUID leaves 80000005h and 80000006h of a Ryzen: entries of the arrays
ZEN_TLB = {"data": 64, "code": 64, "second_data": 1536, "second_code": 1024}


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_bundled_names():
    assert profile_names() == BUNDLED


@pytest.mark.parametrize("name", BUNDLED)
def test_every_price_is_there_with_source_and_status(name):
    profile = load_profile(name)
    assert len(profile.prices) == Price.N_PRICES
    assert len(profile.instructions) == len(CLASSES)
    for row in profile.rows:
        assert row.source.strip(), row
        assert row.status in STATUSES, row
        if row.section == "prices" and row.status in ("derived", "estimated"):
            assert row.note.strip(), f"{row.name}: a {row.status} price says from what"


@pytest.mark.parametrize("name", BUNDLED)
def test_prices_are_the_rows_in_units(name):
    profile = load_profile(name)
    by_row = {row.name: row.value for row in profile.rows if row.section == "prices"}
    for label, number in Price.__members__.items():
        if label != "N_PRICES":
            assert profile.prices[number] == round(by_row[label.lower()] * 64)


@pytest.mark.parametrize("name", ROUND_TRIP)
def test_exit_and_entry_add_up_to_the_published_round_trip(name):
    profile = load_profile(name)
    assert profile.cycles("vm_exit") + profile.cycles("vm_entry") == ROUND_TRIP[name]


@pytest.mark.parametrize("name", AA06_TABLE_1)
def test_one_way_figures_are_those_of_the_paper(name):
    profile = load_profile(name)
    assert {price: profile.cycles(price) for price in AA06_TABLE_1[name]} == AA06_TABLE_1[name]


@pytest.mark.parametrize("total", AA06_SHADOW)
def test_shadow_figures_of_the_pentium_4(total):
    profile = load_profile("p4-672")
    parts = ["vm_exit_page_fault", "vm_entry", "shadow_walk"] + ["vmread"] * 10 + AA06_SHADOW[total]
    assert sum(profile.cycles(price) for price in parts) == total


@pytest.mark.parametrize("total", AA06_NANO)
def test_nanobenchmarks_of_the_pentium_4_come_out_again(total):
    profile = load_profile("p4-672")
    assert sum(profile.cycles(price) for price in AA06_NANO[total]) == total


def test_skylake_instructions_are_those_measured():
    profile = load_profile("skylake")
    assert {name: profile.cycles(name) for name in UOPS} == {name: cycles for name, (_, cycles) in UOPS.items()}


def test_memory_surcharges_of_skylake_give_the_measured_forms():
    """uops.info: MOV (R64, M64) 0.50, MOV (M64, R64) 1.00, CMPXCHG (M64, R64) 4.00, ADD_LOCK (M64, R64) 18.00 against ADD 1.00."""
    cycles = load_profile("skylake").cycles
    assert cycles("move") + cycles("load") == 0.5
    assert cycles("move") + cycles("store") == 1.0
    assert cycles("compare_exchange") + cycles("load") + cycles("store") == 4.0
    assert cycles("lock") == 18.0 - 1.0


@pytest.mark.parametrize("name", BUNDLED)
def test_a_price_called_read_is_a_published_figure(name):
    like = OTHERWISE_LIKE.get(name, name)
    known = set(AA06_TABLE_1.get(like, ())) | READ_ELSEWHERE.get(like, set()) | (set(UOPS) if like == "skylake" else set())
    called_read = {row.name for row in load_profile(name).rows if row.section in ("prices", "instructions") and row.status == "read"}
    assert called_read <= known


@pytest.mark.parametrize("name", ["skylake", "zen"])
def test_round_trips_without_a_source_are_called_estimated(name):
    status = {row.name: row.status for row in load_profile(name).rows if row.section == "prices"}
    virtual = [price for price in status if price.startswith(("vm_", "vmread", "vmwrite", "emul_"))]
    assert len(virtual) > 15
    assert {status[price] for price in virtual} == {"estimated"}


def test_features_follow_the_generations():
    has = {name: load_profile(name).features for name in BUNDLED}
    assert [name for name in BUNDLED if has[name]["tagged_tlb"]] == ["nehalem", "sandybridge", "skylake", "westmere", "zen"]
    assert [name for name in BUNDLED if has[name]["nested_paging"]] == ["nehalem", "sandybridge", "skylake", "westmere", "zen"]
    assert [name for name in BUNDLED if has[name]["pcid"]] == ["sandybridge", "skylake", "westmere"], "Zen 1 has none, Intel from Westmere on"


def test_tlb_geometry():
    tlbs = {tlb.name: tlb for tlb in load_profile("zen").tlbs}
    assert {name: tlb.entries for name, tlb in tlbs.items()} == ZEN_TLB
    second = next(tlb for tlb in load_profile("skylake").tlbs if tlb.name == "second")
    assert (second.side, second.level, second.pages, second.entries, second.ways) == ("both", 2, ("4K", "2M"), 1536, 12)
    assert load_profile("p4-672").tlbs[0].ways == 64, "fully associative"
    for name in BUNDLED:
        for tlb in load_profile(name).tlbs:
            if tlb.level == 1:
                assert tlb.replacement != "lru", "true LRU would need every access"


LINE = '{ value = 700.5, unit = "cycles", status = "estimated", source = "me" }'


def test_a_base_may_have_a_base():
    """sandybridge is westmere with lines of its own, and that nehalem: each line from the nearest file that has it."""
    own, one, two = (load_profile(name) for name in ("sandybridge", "westmere", "nehalem"))
    assert own.features["xsave"] and not one.features["xsave"] and one.features["pcid"] and not two.features["pcid"]
    assert own.cycles("vm_exit") != one.cycles("vm_exit") != two.cycles("vm_exit")
    assert own.cycles("emul_io") == two.cycles("emul_io") and own.instructions == two.instructions


def test_a_users_file_changes_only_its_lines(tmp_path):
    mine = load_profile(write(tmp_path, f'base = "skylake"\n[sources]\nme = "guess"\n[prices]\nvm_exit = {LINE}\n'))
    base = load_profile("skylake")
    assert mine.name == "mine"
    assert mine.prices[Price.VM_EXIT] == 44832, "700.5 cycles in 1/64 cycle"
    assert [n for n in range(Price.N_PRICES) if mine.prices[n] != base.prices[n]] == [Price.VM_EXIT]
    assert mine.instructions == base.instructions and mine.tlbs == base.tlbs
    assert next(row for row in mine.rows if row.name == "vm_exit").source == "guess"


@pytest.mark.parametrize("text, says", [
    ("base = 'haswell'", "base: expected one of core2"),
    ("base = [1]", "base: expected one of core2"),
    ("processor = 3\n", "profile.processor: expected a table"),
    ("a = = 3", "expected TOML in UTF-8"),
    ("", "profile.processor: expected a table [processor], it is missing"),
    ("base = 'zen'\n[prizes]\n", "profile.prizes: expected no such line"),
    (f"base = 'zen'\n[prices]\nvm_exits = {LINE}", "prices.vm_exits: expected no such line"),
    (f"base = 'zen'\n[prices]\nvm_exit = {LINE}", "prices.vm_exit.source: expected a key of [sources], got 'me'"),
    ("base = 'zen'\n[prices]\nvm_exit = 700", "prices.vm_exit: expected a line { value"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = 700, unit = 'cycles', status = 'read' }", "prices.vm_exit.source: expected a key of [sources], it is missing"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = 700, unit = 'cycles', source = 'model' }", "prices.vm_exit.status: expected one of read"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = 700, unit = 'cycles', status = 'sure', source = 'model' }", "prices.vm_exit.status: expected one of read"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = 700, status = 'read', source = 'model' }", "prices.vm_exit.unit: expected one of cycles"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = '7', unit = 'cycles', status = 'read', source = 'model' }", "prices.vm_exit.value: expected a number of cycles"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = true, unit = 'cycles', status = 'read', source = 'model' }", "prices.vm_exit.value: expected a number of cycles"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = -1, unit = 'cycles', status = 'read', source = 'model' }", "prices.vm_exit.value: expected 0 to"),
    ("base = 'zen'\n[instructions]\nwbinvd = { value = 32768, unit = 'cycles', status = 'read', source = 'model' }", "instructions.wbinvd.value: expected 0 to 32767"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = nan, unit = 'cycles', status = 'read', source = 'model' }", "prices.vm_exit.value: expected 0 to"),
    ("base = 'zen'\n[prices]\nvm_exit = { value = 1, unit = 'cycles', status = 'read', source = 'model', spread = [2, 1] }", "prices.vm_exit.spread: expected two numbers"),
    ("base = 'zen'\n[instructions]\nfma = 3", "instructions.fma: expected no such line"),
    ("base = 'zen'\n[tlb]\nextra = 3", "tlb.extra: expected a table"),
    ("base = 'zen'\n[tlb.code]\nside = 'code'\nlevel = 1\npages = ['4K']\nentries = 48\nways = 4\nreplacement = 'fifo'\nstatus = 'read'\nsource = 'model'",
     "tlb.code.ways: expected 48 entries in a power of two of sets, got 4 ways"),
    ("base = 'zen'\n[tlb.code]\nside = 'code'\nlevel = 1\npages = ['4M']\nentries = 64\nways = 4\nreplacement = 'fifo'\nstatus = 'read'\nsource = 'model'",
     "tlb.code.pages: expected a list of 4K, 2M, 1G"),
    ("base = 'zen'\n[tlb.code]\nside = 'code'\nlevel = 1\npages = ['2M']\nentries = 64\nways = 4\nreplacement = 'fifo'\nstatus = 'read'\nsource = 'model'",
     "tlb: expected a first level for 4K pages of code"),
    ("base = 'zen'\n[processor]\nmaxphyaddr = 60", "processor.maxphyaddr: expected a whole number from 32 to 52, got 60"),
    ("base = 'zen'\n[processor]\nfrequency_hz = 3.6e9", "processor.frequency_hz: expected a whole number"),
    ("base = 'zen'\n[processor]\ncpuid = { vendor = 'AMD' }", "processor.cpuid.brand: expected at most 47 characters, it is missing"),
    ("base = 'zen'\n[walk_cache]\npde = 4", "walk_cache.pde: expected a line { entries"),
])
def test_a_broken_profile_gives_one_line(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: {says}") or (says == "expected TOML in UTF-8" and says in message and str(path) in message)


def test_missing_price_is_named(tmp_path):
    from importlib import resources
    whole = (resources.files("pyx86v.cost") / "profiles" / "zen.toml").read_text()
    lines = [line for line in whole.splitlines() if not line.startswith("vmread =")]
    with pytest.raises(ProfileError, match=r"prices\.vmread: expected a price line, it is missing"):
        load_profile(write(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize("name, says", [("z80", "expected one of core2"), ("/no/such/file.toml", "No such file"), ("../zen", "expected one of")])
def test_unknown_profile(name, says):
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "bin.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="expected TOML in UTF-8"):
        load_profile(path)


def test_a_profile_is_the_callers_own():
    """A bundled file is read once; what one caller does to its Profile, the next does not see."""
    first, expected = load_profile("skylake"), dataclasses.asdict(load_profile("skylake"))
    for owned in (first.cpuid, first.features, first.walk_cache, first.cache, first.predictor):
        owned.clear()
    for owned in (first.prices, first.instructions):
        owned[:] = [0] * len(owned)
    assert dataclasses.asdict(load_profile("skylake")) == expected != dataclasses.asdict(first)
