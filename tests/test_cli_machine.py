# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line on the real machine: results, determinism, slices, Ctrl-C, bad input."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import images
from pyx86v import cli
from pyx86v.boot import firmware

ROOT = Path(__file__).resolve().parents[1]
PYX = [sys.executable, "-m", "pyx86v"]


def pyx(*arguments):
    return subprocess.run([*PYX, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)


def strip(text):
    return [line for line in text.splitlines() if '"wall_s"' not in line]


@pytest.mark.parametrize("style", ["native", "vmx+ept"])
def test_run_is_deterministic_and_adds_up(style):
    one, other = (pyx("run", "modes", "--style", style, "--json", "-") for _ in range(2))
    assert one.returncode == 0 and strip(one.stdout) == strip(other.stdout)
    result = json.loads(one.stdout)
    assert sum(result["ledger"].values()) == result["cycles"] > 0
    assert result["walks"]["references"] == sum(result["walks"]["by_level"].values())
    assert result["console"].endswith("OK\n")
    if style == "vmx+ept":
        assert result["exits"]["CR_ACCESS"]["count"] > 0
        # an exit's time is what these causes hold, up to the rounding of each row
        booked = sum(result["ledger"][cause] for cause in ("exit", "entry", "vmcs", "emulation"))
        assert sum(row["cycles"] for row in result["exits"].values()) <= booked + result["ledger"]["device"]


def test_compare_ends_equal():
    done = pyx("compare", "ptestorm")
    assert done.returncode == 0 and "Equal under all styles" in done.stdout, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_status_and_end_of_a_triple_fault_and_a_reset():
    assert pyx("run", "triple", "-q").returncode == 1
    assert pyx("run", "reset", "-q").returncode == 0


@pytest.mark.parametrize("limit", [["--max-cycles", "3000017"], ["--max-instructions", "2000003"], []])
def test_progress_changes_nothing(monkeypatch, capsys, limit):
    """Whether somebody watches the run on a terminal must not show in its result."""
    monkeypatch.setattr("pyx86v.cli.session.PERIOD_S", 0.003)
    texts = []
    for live in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda live=live: live, raising=False)
        with pytest.raises(SystemExit) as ended:
            cli.main(["run", "ptestorm", "--style", "vmx+ept", "--json", "-", *limit])
        shown = capsys.readouterr()
        texts.append((ended.value.code, strip(shown.out)))
        assert ("MIPS" in shown.err) == live
    assert texts[0] == texts[1] and texts[0][0] == (124 if limit else 0)


def cpu_seconds(pid):
    """What a process has computed so far, however busy the computer is (proc(5): utime and stime, behind the name in parentheses)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_interrupt_stops_within_a_second_and_shows_the_table(tmp_path):
    (tmp_path / "loop").write_bytes(images.multiboot_elf(code=b"\xEB\xFE"))      # jmp to itself
    process = subprocess.Popen([*PYX, "run", str(tmp_path / "loop")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while cpu_seconds(process.pid) < 1:          # Python takes less than half of it to start
        time.sleep(0.05)
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert time.perf_counter() - began < 2 and process.returncode == 130, error
    assert "was interrupted" in " ".join(out.split()) and "instruction " in out and error == ""


@pytest.mark.slow
@pytest.mark.parametrize("arguments, text", [
    (["run", "hello", "--style", "qemu"], "style: 'qemu'"),
    (["run", "hello", "--cpu", "z80"], "z80"),
    (["run", "hello", "--clock", "sundial"], "clock: 'sundial'"),
    (["run", "hello", "--memory", "1M"], "memory"),
    (["run", "hello", "--memory", "65537"], "memory"),
    (["run", "hello", "--memory", "900T"], "--memory"),
    (["run", "hello", "--memory", "4G"], "memory"),
    (["run", str(ROOT / "LICENSE")], "format: not recognized"),
    (["run", "hello", "--initrd", "/nowhere"], "/nowhere: initrd: No such file"),
    (["run", "{kernel}", "--initrd", "{large}", "--memory", "64M"], "kernel: initrd: 68157440 bytes do not fit between"),
    (["run", "{corrupt}"], "corrupt: checksum: 0x"),
    (["run", "{kernel}", "--entry", "pvh"], "kernel: entry: a kernel without the needed entry pvh"),
    (["run", "hello", "--disk", "/nowhere"], "/nowhere: disk: No such file"),
    (["run", "hello", "--disk", "{odd}"], "odd: disk: 700 bytes, expected whole sectors"),
    (["run", "--cdrom", "{odd}"], "odd: cdrom: 700 bytes, expected whole sectors"),
    (["run", "--bios", "{odd}"], "odd: firmware: expected whole 64 KiB units"),
    (["run", "--bios", "{kernel}"], "kernel: firmware: expected whole 64 KiB units"),
    (["run", "--guest", "hello,disk={odd}", "--guest", "hello"], "odd: disk: 700 bytes"),
    (["run", "--guest", "hello,floppy={odd}"], "hello: --guest: 'floppy="),
])
def test_bad_input_is_one_line_and_status_2(arguments, text, files):
    done = pyx(*(argument.format(**files) for argument in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("pyx86v: ") and done.stderr.count("\n") == 1 and text in done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, kernel = tmp_path_factory.mktemp("files"), images.bzimage(release="6.1.0")
    made = {"kernel": kernel, "corrupt": kernel[:3000] + bytes([kernel[3000] ^ 1]) + kernel[3001:], "odd": bytes(700), "large": bytes(65 << 20)}
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in made}


@pytest.mark.skipif(not os.path.exists(firmware.SEABIOS) and not os.environ.get("CI"), reason="package seabios missing")
def test_guests_with_disks_of_their_own(tmp_path):
    """Each boots from an image: `out` to the status port, as the boot sector of a disk and behind it, where no guest looks."""
    for status in (1, 2):
        sector = bytes([0xB0, status, 0xBA, 0xF4, 0x00, 0xEE, 0xF4]).ljust(510, b"\0") + b"\x55\xAA"
        (tmp_path / f"{status}.raw").write_bytes(sector + bytes(512))
    options = ["-q", "--json", "-", "--memory", "16M"]
    done = pyx("run", *options, "--guest", f"{tmp_path}/1.raw,style=vmx+ept", "--guest", f"{tmp_path}/2.raw,disk={tmp_path}/1.raw")
    assert [guest["end"]["status"] for guest in json.loads(done.stdout)["guests"]] == [1, 2], done.stderr


def test_unusable_profile_file_is_one_line(tmp_path):
    (tmp_path / "mine.toml").write_text("name = 3\n")
    done = pyx("run", "hello", "--cpu", str(tmp_path / "mine.toml"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "mine.toml" in done.stderr
