# SPDX-License-Identifier: GPL-2.0-or-later
"""Every ROM builds; each one whose header says `qemu: yes` passes under QEMU's TCG, which is not our engine's caller."""
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_guest import QEMU, need_qemu, qemu_run

ROMS = Path(__file__).resolve().parents[1] / "roms"

spec = importlib.util.spec_from_file_location("roms_build", ROMS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

HEADS = {name: build.read_header(ROMS / name) for name in build.rom_names()}
FOR_QEMU = [name for name, head in HEADS.items() if head["qemu"] == "yes"]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder with all ROMs, built once."""
    out = tmp_path_factory.mktemp("roms")
    build.build_all(out)
    return out


def test_qemu_is_there():
    need_qemu()
    assert Path(QEMU).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.quick) if name in ("hello", "modes", "smc") else name for name in FOR_QEMU])
def test_rom_passes_under_qemu(name, images):
    need_qemu()
    for attempt in range(3 if name == "clockread" else 1):      # its clocks under QEMU are the host's, which may be busy
        status, console = qemu_run(images / build.image_name(HEADS[name]), HEADS[name]["memory"], attempt)
        if status == 1:
            break
    by_itself = HEADS[name]["ends"].startswith(("reset", "shutdown"))       # QEMU -no-reboot exits 0, debug-exit of 0 gives 1
    assert (status, console.split("\n")[-2:]) == (0 if by_itself else 1, ["OK", ""]), console


def test_most_roms_have_qemu_as_witness():
    assert len(FOR_QEMU) >= 0.8 * len(HEADS), "a ROM without QEMU as witness has to stay the exception"


def test_headers_name_rows_of_the_mission():
    for name, head in HEADS.items():
        assert head["mission"] and all(1 <= row <= 81 for row in head["mission"]), name
        assert head["bits"] and set(head["bits"]) <= {16, 32, 64}, name
        assert head["time"] == "no" or head["time"].startswith("yes: "), name
        assert re.fullmatch(r"\d+[MG]", head["memory"]), name


@pytest.mark.slow
def test_images_are_multiboot_and_the_same_from_any_path(images, tmp_path):
    """The builder run from a copy of the tree elsewhere gives the same bytes."""
    copy = tmp_path / "elsewhere" / "roms"
    shutil.copytree(ROMS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path / "out"
    subprocess.run(["python3", copy / "build.py", out], check=True, capture_output=True)
    for name, head in HEADS.items():
        image = (out / build.image_name(head)).read_bytes()
        if head["kind"] == "firmware":
            assert len(image) == 65536 and image[0xfff0] == 0xea, "64 KiB with a far jump at the reset vector"
        else:
            assert image[:5] == b"\x7fELF\x01" and b"\x02\xb0\xad\x1b" in image[:8192], name
        assert image == (images / build.image_name(head)).read_bytes(), name


@pytest.mark.parametrize("change, message", [
    (("name     hello", "name     other"), "name is 'other', expected 'hello'"),
    (("qemu     yes", "qemu     perhaps"), "qemu is 'perhaps'"),
    (("proves ", "prove "), "header lacks 'proves'"),
])
def test_bad_header_is_one_clear_line(change, message, tmp_path):
    folder = tmp_path / "hello"
    folder.mkdir()
    text = (ROMS / "hello" / "hello.c").read_text()
    assert change[0] in text
    (folder / "hello.c").write_text(text.replace(*change))
    with pytest.raises(build.BuildError, match=re.escape(message)):
        build.read_header(folder)


def test_unknown_rom_is_one_line(tmp_path):
    done = subprocess.run(["python3", ROMS / "build.py", tmp_path, "nosuch"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "build.py: no ROM named 'nosuch' in roms/\n"
