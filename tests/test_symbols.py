# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for addresses, against nm and against what Linux itself says in /proc/kallsyms (test_guests.py)."""
import random
import subprocess

import pytest

import linux_guest
from debian import Unavailable, skip
from pyx86v import cli
from pyx86v.boot import BootError
from pyx86v.report import symbols

MAP = """ffffffff81000000 T _text
ffffffff81000160 t verify_cpu
ffffffff81001000 T start
000000000000a000 D __per_cpu_end
ffffffff81002000 A absolute
"""


@pytest.fixture
def system_map(tmp_path):
    (tmp_path / "System.map").write_text(MAP)
    return symbols.load(tmp_path / "System.map")


@pytest.mark.parametrize("address, name", [
    (0xFFFFFFFF81000160, "verify_cpu"), (0xFFFFFFFF81000FFF, "verify_cpu+0xe9f"), (0xFFFFFFFF81002003, "start+0x1003"),
    (0x1000161, "verify_cpu+0x1 (physical)"), (0xA004, ""), (0xFFFFFFFF80FFFFFF, ""), (0xFFFFFFFF81101000, ""), (0, "")])
def test_a_map(system_map, address, name):
    assert system_map.name(address) == name


def test_a_text_that_says_an_address(system_map):
    text = "pushf at 0xffffffff81000161: 0x206 at 0x7 on the processor"
    assert system_map.add_to(text) == text.replace("161", "161 <verify_cpu+0x1>")


def test_elf_symbols_are_those_of_nm(tmp_path):
    (tmp_path / "a.S").write_text(".globl _start, other\n.type other,@function\n_start: nop; nop\nother: hlt\nlocal: hlt\n.data\nword: .long 1\n")
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-Wl,-Ttext=0x100000", "a.S", "-o", "a.elf"], cwd=tmp_path, check=True, capture_output=True)
    listed = subprocess.run(["nm", "a.elf"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    found = symbols.load(tmp_path / "a.elf")
    assert {f"{address:08x}": name for address, name in zip(found.addresses, found.names)}["00100002"] == "other"
    assert found.name(0x100003) == "local" and found.name(0x100001) == "_start+0x1"
    for line in listed.splitlines():
        address, _, name = line.split()
        assert name in found.names or found.name(int(address, 16))
    (tmp_path / "nm").write_text(listed)
    assert symbols.load(tmp_path / "nm").name(0x100003) == "local"


@pytest.mark.parametrize("content", [b"hello\n", b"\x7FELF" + bytes(60), bytes(5000), b"ffffffff81000000 T _text\nnonsense\n"])
def test_what_has_no_symbols_is_one_line_and_status_2(tmp_path, capsys, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BootError):
        symbols.load(tmp_path / "file")
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "hello", "--symbols", str(tmp_path / "file")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "symbols" in error
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "hello", "--symbols", str(tmp_path / "missing")])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.linux
def test_a_kernel_whose_kallsyms_is_cut_or_changed():
    """Whatever the bytes are: names, or a BootError."""
    try:
        data = linux_guest.vmlinux().read_bytes()
    except Unavailable as reason:
        skip(reason)
    whole = symbols.of_elf("kernel", data)
    assert {"start_kernel", "panic", "native_save_fl"} <= {name for _, name in whole}
    assert symbols.of_elf("kernel", data.replace(symbols.DIGITS, bytes(20))) == []
    start = data.index(symbols.DIGITS, 1 + data.index(symbols.DIGITS, 1 + data.index(symbols.DIGITS)))
    for cut in (start, start + 15, start - 200_000):
        assert symbols.of_kallsyms(data[:cut], 0xFFFFFFFF81000000, 8) == []
    chance = random.Random(4)
    for _ in range(10):
        changed = bytearray(data[start - (4 << 20):start + 0x4000])
        for _ in range(1000):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        symbols.of_kallsyms(bytes(changed), 0xFFFFFFFF81000000, 8)
