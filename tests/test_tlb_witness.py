# SPDX-License-Identifier: GPL-2.0-or-later
"""TLB counts of the machine against per-access models that watch the same ROM on plain Unicorn (tlb_witness.py).

The machine sees only what its engine lacks, a block at a time; the models see every instruction and every access.  They have to
agree on every miss, natively and under nested paging, for large TLBs and for some that hold next to nothing.
"""
import functools

import pytest

from pyx86v import Machine
from pyx86v.cost.profile import load_profile
from rom_runs import build_guests
from tlb_witness import Witness

ARRAY = '[tlb.{name}]\nside = "{side}"\nlevel = {level}\npages = {pages}\nentries = {entries}\nways = {ways}\n' \
        'replacement = "{policy}"\nstatus = "estimated"\nsource = "model"\n'
SIZES = {"4K": ["4K"], "2M": ["2M"], "all": ["4K", "2M", "1G"], "both": ["4K", "2M"]}
# Profiles made up for this test: (array, side, level, pages, entries, ways, replacement) in the place of the base's lines.
TINY = {
    "four-fifo": ("zen", [("data", "data", 1, "all", 4, 4, "fifo"), ("code", "code", 1, "all", 4, 4, "fifo"),
                          ("second_data", "data", 2, "both", 8, 4, "lru"), ("second_code", "code", 2, "both", 8, 2, "lru")]),
    "one-code-entry": ("zen", [("data", "data", 1, "all", 2, 2, "fifo"), ("code", "code", 1, "all", 1, 1, "fifo"),
                               ("second_data", "data", 2, "both", 4, 4, "lru"), ("second_code", "code", 2, "both", 2, 2, "lru")]),
    "random": ("zen", [("data", "data", 1, "all", 32, 32, "random"), ("code", "code", 1, "all", 4, 4, "random")]),
    "round-robin": ("skylake", [("data_4k", "data", 1, "4K", 8, 2, "round-robin"), ("data_2m", "data", 1, "2M", 2, 2, "round-robin"),
                                ("code_4k", "code", 1, "4K", 8, 2, "round-robin"), ("code_2m", "code", 1, "2M", 1, 1, "fifo"),
                                ("second", "both", 2, "both", 32, 4, "lru")]),
}
PROFILES = ("skylake", "zen", *TINY)
SPACES = (("native", "4K", None), ("vmx+ept", "4K", 12), ("vmx+ept", "2M", 21))     # style, EPT page, its shift
VIEWS = [(profile, space) for profile in PROFILES for space in SPACES[:3 if profile in ("skylake", "four-fifo") else 2]]
# Shorter builds of bundled ROMs, for a witness that takes microseconds an instruction: (file, text, its replacement).
SHORTER = {
    "itlb": [("itlb.c", "20 * PAGES}", "2 * PAGES}"), ("itlb.c", "at_random, 100000}", "at_random, 2500}"),
             ("itlb.c", "code_as_data, 30000}", "code_as_data, 800}"), ("itlb.c", "data_beside_code, 2000}", "data_beside_code, 150}")],
    "tlbworst": [("tlbworst.c", "(16ull << 20)", "(256ull << 10)"), ("tlbworst.c", 'print("words', 'if (0) print("words')],
    "tlbreach": [("tlbreach.c", "ACCESSES  16384", "ACCESSES  512"), ("tlbreach.c", "offset < 0x200000; offset += 4)", "offset < 0x200000; offset += 64)"),
                 ("tlbreach.c", "128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384}", "128, 300}"), ("tlbreach.c", "p < 16384", "p < 300")],
    "straddle": [],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """{ROM: path of its short build}."""
    return build_guests(tmp_path_factory.mktemp("guests"), SHORTER)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """{name: what Machine takes as profile}."""
    folder = tmp_path_factory.mktemp("profiles")
    for name, (base, arrays) in TINY.items():
        lines = [ARRAY.format(name=a, side=side, level=level, pages=SIZES[pages], entries=entries, ways=ways, policy=policy)
                 for a, side, level, pages, entries, ways, policy in arrays]
        (folder / f"{name}.toml").write_text(f'base = "{base}"\n' + "\n".join(lines).replace("'", '"'))
    return {name: str(folder / f"{name}.toml") if name in TINY else name for name in PROFILES}


def model_config(profile):
    """What tlb_model.py takes, from a profile's lines."""
    loaded = load_profile(profile)
    config = {name.upper(): (entries, 0, "lru") for name, entries in loaded.walk_cache.items()}
    for tlb in loaded.tlbs:
        geometry = (tlb.entries, tlb.ways, tlb.replacement)
        if tlb.level == 1:
            side = {"code": "I", "data": "D"}[tlb.side]
            config["large_whole"] = config.get("large_whole") or ("4K" in tlb.pages and "2M" in tlb.pages)
            config |= {f"{side}_{size}": geometry for size in (["4K"] if "4K" in tlb.pages else tlb.pages)}
        elif tlb.side == "code":
            config |= {"L2_CODE": geometry, "l2_code_2m": "2M" in tlb.pages}
        else:
            config["l2_split"] = tlb.side == "data"
            config["L2_1G" if "1G" in tlb.pages else "L2"] = geometry
            config["l2_2m"] = config.get("l2_2m") or "2M" in tlb.pages
    return config


@pytest.fixture(scope="module")
def witness(images, profiles):
    """witness(ROM): one run on plain Unicorn with all models of VIEWS."""
    @functools.cache
    def run(name):
        seen = Witness(images[name], [(model_config(profiles[profile]), shift) for profile, (_, _, shift) in VIEWS])
        assert seen.status == 0 and seen.console.endswith(b"OK\n"), seen.console.decode()
        return seen
    return run


def counts(machine):
    tlb, walks = machine.tlb, machine.walks
    return {"I misses": tlb["l1i_misses"], "D misses": tlb["l1d_misses"], "second-level hits": tlb["hits"], "walks": tlb["misses"],
            "flushed": tlb["entries_flushed"], "rewalks": walks["rewalks"],
            "references": sum(n for level, n in walks["by_level"].items() if level.startswith("guest"))}


def foreseen(model):
    return {"I misses": model.misses["I"], "D misses": model.misses["D"], "second-level hits": model.l2_hits,
            "walks": sum(model.walks.values()), "flushed": model.flushed, "rewalks": model.rewalks, "references": model.refs}


@pytest.mark.parametrize("name", SHORTER)
@pytest.mark.parametrize("view", range(len(VIEWS)), ids=[f"{profile}-{style}-{page}" for profile, (style, page, _) in VIEWS])
def test_counts_equal_the_per_access_model(name, view, witness, images, profiles):
    profile, (style, ept_page, _) = VIEWS[view]
    seen = witness(name)
    for engine in ("inline", "portable"):
        machine = Machine(style=style, profile=profiles[profile], ept_page=ept_page, engine=engine)
        machine.load(images[name])
        machine.run(max_instructions=1_000_000_000)
        assert machine.console == bytes(seen.console)
        assert machine.instructions == seen.instructions
        assert counts(machine) == foreseen(seen.models[view]), engine


@pytest.mark.parametrize("name", SHORTER)
def test_there_is_something_to_count(name, witness):
    """Some view of each ROM misses often, on the side that it is about."""
    seen = witness(name)
    side = "I" if name in ("itlb", "straddle") else "D"
    assert max(model.misses[side] for model in seen.models) > seen.instructions / 200
