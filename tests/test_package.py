# SPDX-License-Identifier: GPL-2.0-or-later
"""The package as it is installed: metadata, entry points, shipped files."""
import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import pyx86v
from pyx86v import boot
from pyx86v.cli import guests

PACKAGE = Path(pyx86v.__file__).parent
ROOT = Path(__file__).resolve().parents[1]


def test_version_is_one():
    assert re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1] == pyx86v.__version__
    assert f"[{pyx86v.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_installed_metadata_agrees():
    try:
        found = metadata.version("pyx86v")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a build in place, not installed")
    assert found == pyx86v.__version__


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["roms"], ["profiles"]])
def test_python_dash_m(command):
    done = subprocess.run([sys.executable, "-m", "pyx86v", *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "" and done.stdout


def test_closed_pipe_is_no_traceback():
    done = subprocess.run(f"{sys.executable} -m pyx86v profiles skylake | head -1", shell=True, capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed, arguments, status", [(">&-", "roms", 0), ("2>&-", "run ./missing", 2), ("<&-", "run -i hello", 0)])
def test_closed_stream_is_no_traceback(closed, arguments, status):
    done = subprocess.run(f"{sys.executable} -m pyx86v {arguments} {closed}", shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == status and "Traceback" not in done.stderr


def test_shipped_beside_the_extensions():
    for name in ("py.typed", "arch/types.pxd", "cost/ledger.pxd", "cost/profiles/skylake.toml", "_roms/manifest.json"):
        assert (PACKAGE / name).is_file(), name


def test_every_rom_of_the_manifest_is_there():
    for rom in json.loads((PACKAGE / "_roms" / "manifest.json").read_text()):
        assert boot.load(guests.image(rom["name"]), 64 << 20).kind in ("multiboot", "firmware")


def test_every_source_is_built():
    for source in PACKAGE.rglob("*.pyx"):
        name = "pyx86v." + ".".join(source.relative_to(PACKAGE).with_suffix("").parts)
        spec = importlib.util.find_spec(name)
        assert spec and spec.origin.endswith(".so"), name


def test_no_binary_in_git():
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        assert not path.is_file() or b"\0" not in path.read_bytes()[:4096], name
