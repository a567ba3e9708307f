# SPDX-License-Identifier: GPL-2.0-or-later
"""Cold 2-D walks on the machine: one read by the guest makes (g + 1)(n + 1) - 1 references (AMD, Bhargava et al. 2008)."""
import pytest

from rom_runs import build_guests, phases_of

LEVELS = {"4K": 4, "2M": 3, "1G": 2}             # entries that a walk reads down to a page of this size
NO_CACHES = 'base = "skylake"\n[walk_cache]\n' + "".join(
    f'{name} = {{ entries = 0, status = "estimated", source = "model" }}\n' for name in ("pde", "pdpte", "pml4e", "nested_tlb"))


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    return build_guests(tmp_path_factory.mktemp("guests"), {"coldwalk": []})["coldwalk"]


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """Skylake without paging-structure caches and nested TLB: every walk is cold."""
    path = tmp_path_factory.mktemp("profiles") / "cold.toml"
    path.write_text(NO_CACHES)
    return str(path)


def references(guest, profile, **options):
    """{guest page size: (walks, references)} of the one read of each."""
    phases, _ = phases_of("coldwalk", guest, profile=profile, **options)
    return {size: (phases[0x100 | level]["misses"], phases[0x100 | level]["refs"]) for level, size in enumerate(LEVELS, 1)}


def test_native_walk_reads_one_entry_a_level(guest, profile):
    assert references(guest, profile) == {size: (1, levels) for size, levels in LEVELS.items()}


@pytest.mark.parametrize("style", ("vmx+ept", "svm+npt"))
@pytest.mark.parametrize("ept_page", LEVELS)
def test_two_dimensional_walk(guest, profile, ept_page, style):
    n = LEVELS[ept_page]
    found = references(guest, profile, style=style, ept_page=ept_page, memory=1 << 30)
    assert found == {size: (1, (g + 1) * (n + 1) - 1) for size, g in LEVELS.items()}
