# SPDX-License-Identifier: GPL-2.0-or-later
"""Shadow tables or nested paging: what is cheaper for how many page-table writes, and how prices move that (ROM crossover)."""
import functools
import json

import pytest

from pyx86v import cli
from pyx86v.cost.profile import load_profile
from rom_runs import LIMIT, Phases, machine_for

PAIRS = (("vmx+shadow", "vmx+ept"), ("svm+shadow", "svm+npt"))
STYLES = ("native", *PAIRS[0], *PAIRS[1])
ROUNDS, READS, WRITES = 16, 16 * 4096, 256
EXITS = {"vm_exit_page_fault": 2, "vm_exit": 1, "vm_entry": 3}      # of a write to a table: the store, INVLPG, the next use
WALK = ("nested_ref_1", "nested_ref_2", "nested_ref_3", "nested_ref_4")


@functools.cache
def rounds(style, writes, profile="skylake"):
    """What the rounds of the ROM took: counts, and cycles in all."""
    machine = machine_for("crossover", style=style, profile=profile, kernel_args=f"writes={writes}")
    phases = Phases(machine)
    stop = machine.run(max_instructions=LIMIT)
    assert (stop.reason.value, stop.status) == ("exit", 0), machine.console
    counts = phases.differences()[0]
    return counts | {"cycles": sum(value for key, value in counts.items() if key.endswith(" cycles"))}


def per_write(style, key, profile="skylake"):
    """How much a page-table write adds."""
    return (rounds(style, WRITES, profile)[key] - rounds(style, 0, profile)[key]) / (ROUNDS * WRITES)


def crossing(shadow, nested, profile="skylake"):
    """Writes a round at which both cost the same: the dearer walks of all reads over the price of a write."""
    walks = rounds(nested, 0, profile)["cycles"] - rounds(shadow, 0, profile)["cycles"]
    return walks / ROUNDS / (per_write(shadow, "cycles", profile) - per_write(nested, "cycles", profile))


@pytest.mark.slow
@pytest.mark.parametrize("writes, order", [(0, lambda native, shadow, nested: native <= shadow < nested),
                                           (128, lambda native, shadow, nested: native < nested < shadow)])
def test_one_compare_shows_who_wins(writes, order, capsys):
    """Over so many rounds, the first use of each page, which costs a shadow entry, counts for little."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "crossover", "--style", ",".join(STYLES), "--kernel-args", f"rounds=300 writes={writes}", "--json", "-"])
    result = json.loads(capsys.readouterr().out)
    cycles = {run["style"]: run["cycles"] for run in result["runs"]}
    assert not ended.value.code and result["check"]["equal"] and tuple(cycles) == STYLES
    for shadow, nested in PAIRS:
        assert order(cycles["native"], cycles[shadow], cycles[nested]), cycles


@pytest.mark.parametrize("shadow, nested", PAIRS)
def test_exits_follow_the_writes_and_walks_the_reads(shadow, nested):
    for writes in (16, 64, WRITES):
        more = rounds(shadow, writes)["exits"] - rounds(shadow, 0)["exits"]
        assert more == pytest.approx(sum(EXITS[key] for key in ("vm_exit_page_fault", "vm_exit")) * ROUNDS * writes, rel=0.02), writes
        assert rounds(nested, writes)["exits"] == rounds(nested, 0)["exits"] == 1, "the report word"
    refs = {style: rounds(style, 0)["refs"] / READS for style in ("native", shadow, nested)}
    assert refs["native"] == pytest.approx(1, rel=0.01) and refs[shadow] == pytest.approx(1, rel=0.01)
    assert refs[nested] == pytest.approx(5, rel=0.01), "its own entry, and four levels of the page's"


@pytest.mark.parametrize("shadow, nested", PAIRS)
def test_the_crossing_is_where_the_slopes_say(shadow, nested):
    at = crossing(shadow, nested)
    below, above = int(at * 0.8), round(at * 1.25)
    assert 1 < below < above < 128
    assert rounds(shadow, below)["cycles"] < rounds(nested, below)["cycles"]
    assert rounds(shadow, above)["cycles"] > rounds(nested, above)["cycles"]


def priced(folder, factor, lines):
    """Path of the profile skylake with some prices multiplied."""
    path = folder / f"x{factor}.toml"
    price = load_profile("skylake").cycles
    path.write_text('base = "skylake"\n[prices]\n' + "".join(
        f'{line} = {{ value = {price(line) * factor}, unit = "cycles", status = "estimated", source = "model" }}\n' for line in lines))
    return str(path)


@pytest.mark.parametrize("factor", [0.5, 2])
@pytest.mark.parametrize("shadow, nested", PAIRS)
def test_dearer_exits_move_it_down(shadow, nested, factor, tmp_path):
    price = load_profile("skylake").cycles
    write = per_write(shadow, "cycles") - per_write(nested, "cycles")
    more = sum(n * price(line) * (factor - 1) for line, n in EXITS.items())
    found = crossing(shadow, nested, priced(tmp_path, factor, EXITS))
    assert found == pytest.approx(crossing(shadow, nested) * write / (write + more), rel=0.03)
    assert (found < crossing(shadow, nested)) == (factor > 1)


@pytest.mark.parametrize("factor", [0.5, 2])
@pytest.mark.parametrize("shadow, nested", PAIRS)
def test_dearer_walks_move_it_up(shadow, nested, factor, tmp_path):
    price = load_profile("skylake").cycles
    walks = rounds(nested, 0)["cycles"] - rounds(shadow, 0)["cycles"]
    more = READS * sum(price(line) * (factor - 1) for line in WALK)
    found = crossing(shadow, nested, priced(tmp_path, factor, WALK))
    assert found == pytest.approx(crossing(shadow, nested) * (walks + more) / walks, rel=0.03)
    assert (found > crossing(shadow, nested)) == (factor > 1)
