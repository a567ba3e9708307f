# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line on a machine without an engine: statuses, one-line errors, tables, JSON."""
import json

import pytest

import fake_machine
import images
import pyx86v
from pyx86v import cli
from pyx86v.cli.options import parse_size
from pyx86v.report import json as report
from pyx86v.report import tables

KEYS = ["style", "guest", "profile", "clock", "end", "instructions", "cycles", "ledger", "exits", "tlb", "walks", "shadow", "holes",
        "caches", "branches", "console", "report", "digest", "probe", "guests", "wall_s"]


@pytest.fixture
def pyx(monkeypatch, capsys, tmp_path):
    """Call the command line; returns (status, standard output, standard error)."""
    monkeypatch.setitem(vars(pyx86v), "Machine", fake_machine.Machine)
    monkeypatch.setattr(fake_machine.Machine, "made", [])
    (tmp_path / "guest").write_bytes(images.multiboot_elf())
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        return (ended.value.code or 0, *capsys.readouterr())
    return call


# Statuses

@pytest.mark.parametrize("script, status", [("end=exit:0", 0), ("end=exit:7", 7), ("end=halt:0", 0), ("end=shutdown", 1), ("end=shutdown detail=reset", 0), ("end=hole", 1),
                                            ("end=error", 1), ("interrupt=5", 130)])
def test_status_is_the_guests(pyx, script, status):
    assert pyx("run", "./guest", "--kernel-args", script)[0] == status


@pytest.mark.parametrize("option", ["--max-cycles", "--max-instructions"])
def test_limit_is_124(pyx, option):
    status, out, _ = pyx("run", "./guest", option, "100", "--json", "-")
    assert status == 124
    assert json.loads(out)["end"] == {"reason": "limit", "status": 0, "detail": option[2:]}


@pytest.mark.parametrize("arguments, text", [
    (["run", "./missing"], "./missing: image: No such file or directory"),
    (["run", "missing"], "missing: guest: neither a file nor a bundled guest"),
    (["run", "./guest", "--style", "kvm"], "style: 'kvm'"),
    (["run", "./guest", "--cpu", "z80"], "z80"),
    (["run", "./guest", "--clock", "sundial"], "sundial"),
    (["run", "./guest", "--memory", "12x"], "--memory"),
    (["run", "./guest", "--memory", "0"], "--memory"),
    (["run", "./guest", "--memory", "1K"], "memory"),
    (["run", "./guest", "--memory", "-5M"], "--memory"),
    (["run", "./guest", "--memory", "64G"], "memory"),
    (["run", "./guest", "--max-cycles", "0"], "--max-cycles"),
    (["run", "./guest", "--max-cycles", "many"], "--max-cycles"),
    (["run", "./guest", "--initrd", "nothing"], "nothing: initrd"),
    (["run", "./guest", "--json", "no/such/folder.json"], "--json"),
    (["run", "./guest", "--frobnicate"], "--frobnicate"),
    (["run"], "GUEST"),
    (["frobnicate"], "frobnicate"),
    (["compare", "./guest", "--style", "native,kvm"], "style: 'kvm'"),
    (["compare", "./guest", "--style", ","], "--style"),
    (["exits", "."], ".: image: not a regular file"),
    (["profiles", "z80"], "z80"),
    (["roms", "z80"], "z80"),
    (["roms", "./guest"], "not a bundled one"),
    (["run", "--guest", "./guest,memory=x"], "./guest: --guest: memory"),
    (["accuracy", "--blocks", "./guest"], "./guest: line 1"),
])
def test_bad_input_is_one_line_and_status_2(pyx, arguments, text):
    status, out, error = pyx(*arguments)
    assert status == 2 and out == ""
    assert error.startswith("pyx86v: ") and error.count("\n") == 1 and text in error


def test_error_in_a_later_style_costs_no_run(pyx):
    pyx("compare", "./guest", "--style", "native,kvm")
    assert [machine.slices for machine in fake_machine.Machine.made] == [0]


# run

def test_run_shows_console_ledger_and_total(pyx):
    status, out, error = pyx("run", "./guest", "--style", "vmx+ept")
    assert status == 0 and error == "" and out.startswith("hello\nOK\n")
    rows = {" ".join(line.split()[:-3]): line.split()[-3:-1] for line in out.splitlines() if line.endswith("%")}
    assert rows == {"instruction": ["2,000", "20.00"], "walk guest 1": ["1,000", "10.00"], "walk nested 1": ["3,000", "30.00"],
                    "exit": ["4,000", "40.00"], "total": ["10,000", "100.00"]}
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= 100


def test_quiet_shows_the_console_only(pyx):
    assert pyx("run", "./guest", "-q", "--kernel-args", "console=abc") == (0, "abc\n", "")


def test_interrupted_run_still_shows_its_table(pyx):
    status, out, _ = pyx("run", "./guest", "--kernel-args", "interrupt=5")
    assert status == 130 and "was interrupted" in out and " 10 " in next(line for line in out.splitlines() if "instruction " in line)


def test_json_is_the_contract(pyx, tmp_path):
    status, out, _ = pyx("run", "./guest", "--style", "vmx+ept", "--json", "-")
    result = json.loads(out)
    assert list(result) == KEYS
    assert result["end"] == {"reason": "exit", "status": 0, "detail": ""}
    assert sum(result["ledger"].values()) == result["cycles"] == 10000
    assert result["exits"]["CPUID"]["count"] == 3 and result["report"] == [1, 2]
    assert pyx("run", "./guest", "--style", "vmx+ept", "--json", "out.json")[1].startswith("hello")
    written = json.loads((tmp_path / "out.json").read_text())
    assert {**written, "wall_s": 0} == {**result, "wall_s": 0}


# compare and exits

def test_compare_percentages_add_up_to_the_overhead(pyx):
    status, out, _ = pyx("compare", "./guest")
    assert status == 0
    rows = {" ".join(line.split()[:-4]): line.split()[-4:-1] for line in out.splitlines() if line.endswith("%")}
    assert rows == {"instruction": ["2,000", "2,000", "+0.00"], "walk guest 1": ["1,000", "1,000", "+0.00"],
                    "walk nested 1": ["0", "3,000", "+100.00"], "exit": ["0", "4,000", "+133.33"],
                    "total": ["3,000", "10,000", "+233.33"]}
    assert max(map(len, out.splitlines())) <= 100


def test_compare_check(pyx):
    status, out, _ = pyx("compare", "./guest", "--check")
    assert status == 0 and "Equal under all styles (--clock instructions)" in out
    status, out, _ = pyx("compare", "./guest", "--check", "--kernel-args", "differ", "--json", "-")
    result = json.loads(out)
    assert status == 1 and list(result) == ["guest", "profile", "runs", "check"]
    assert result["check"]["differs"][0] == "instructions: 1,000 under native, 1,001 under vmx+ept"


def test_compare_interrupted_keeps_what_there_is(pyx):
    status, out, _ = pyx("compare", "./guest", "--kernel-args", "interrupt=5")
    assert status == 130 and "was interrupted" in out and "vmx+ept" not in out


def test_exits_have_the_layout_of_perf_kvm_stat(pyx):
    """Column for column what tools/perf/builtin-kvm.c prints; times at skylake's 3.4 GHz, worked out by hand."""
    status, out, _ = pyx("exits", "./guest")
    lines = out.split("\n")
    assert status == 0 and lines[2] == "Analyze events for all VMs, all VCPUs:"
    assert lines[4] == "             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time "
    assert lines[6] == "               CPUID          3    75.00%    37.50%      0.26us      0.32us      0.29us ( +-   5.77% )"
    assert lines[7] == "                  IO          1    25.00%    62.50%      1.47us      1.47us      1.47us ( +-   0.00% )"
    assert lines[9] == "Total Samples:4, Total events handled time:2.35us."


# roms, profiles, help

def test_roms_json(pyx):
    found = json.loads(pyx("roms", "--json", "-")[1])
    hello = next(rom for rom in found if rom["name"] == "hello")
    assert {"name", "bits", "styles", "proves", "mission"} <= set(hello)
    assert {"native", "vmx+ept"} <= set(hello["styles"]) and all(isinstance(row, int) for row in hello["mission"])
    assert [rom["name"] for rom in found] == sorted(rom["name"] for rom in found)


def test_rom_close_name_is_suggested(pyx):
    assert "did you mean hello?" in pyx("run", "helo")[2]


def test_profiles(pyx):
    table = pyx("profiles")[1]
    for name in ("p4-672", "core2", "nehalem", "skylake", "zen"):
        assert name in table
    [one] = json.loads(pyx("profiles", "nehalem", "--json", "-")[1])
    row = next(row for row in one["prices"] if row["name"] == "vm_exit")
    assert {"value", "unit", "status", "source"} <= set(row) and row["status"] in ("read", "derived", "recalled", "estimated")


@pytest.mark.parametrize("command", ["run", "compare", "exits", "audit", "roms", "profiles"])
def test_help(pyx, command):
    status, out, _ = pyx(command, "--help")
    assert status == 0 and out.startswith(f"Usage: pyx86v {command}")


def test_help_without_a_command(pyx):
    assert "compare" in pyx()[1] and pyx()[0] == 0


# report

@pytest.mark.parametrize("text, size", [("64M", 64 << 20), ("1G", 1 << 30), ("512KiB", 512 << 10), ("65536", 65536), ("2 MB", 2 << 20)])
def test_sizes(text, size):
    assert parse_size(text) == size


def test_differences_name_the_first_line_that_differs():
    one = {"style": "native", "end": {"reason": "exit", "status": 0, "detail": ""}, "instructions": 5, "console": "a\nb\n",
           "report": [1, 2], "digest": "00"}
    other = {**one, "style": "vmx+ept", "console": "a\nc\n", "report": [1, 3]}
    assert report.differences([one, other]) == ["console: line 2 is 'b' under native, line 2 is 'c' under vmx+ept",
                                                "report: word 1 is 0x2 under native, word 1 is 0x3 under vmx+ept"]


def test_relative_error_is_that_of_the_mean():
    values = [900, 1000, 1100]
    row = {"count": 3, "cycles": sum(values), "squares": sum(v * v for v in values)}
    assert tables.relative_error(row) == pytest.approx(100 * (100 / 3 ** 0.5) / 1000)
