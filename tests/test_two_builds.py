# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guests in two processes, of builds with different optimisation: every count, cause and byte is the same.

What a guest costs is decided in these modules and what they inline, which is nearly all; the second build has them without
optimisation, and with the compiler free to treat floating point as it likes: nothing may depend on it.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import linux_guest
import pyx86v

ROOT = Path(__file__).resolve().parents[1]
MODULES = "engine/engine,cost,devices/platform,vmm/native"
FLAGS = "-O0 -ffast-math"


def costs(folder, linux):
    """What tests/build_worker.py says of the pyx86v in `folder`."""
    done = subprocess.run([sys.executable, ROOT / "tests" / "build_worker.py", *linux], env={**os.environ, "PYTHONPATH": str(folder)}, cwd="/",
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def other(tmp_path):
    """A folder with the same package, MODULES built with FLAGS."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    environment = {**os.environ, "PYX86V_ONLY": MODULES, "PYX86V_CFLAGS": FLAGS}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "built", "--build-temp", tmp_path / "objects"], cwd=ROOT,
                   env=environment, capture_output=True, timeout=600, check=True)
    shutil.copytree(Path(pyx86v.__file__).parent, tmp_path / "pyx86v", copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    for built in (tmp_path / "built").rglob("*.so"):
        place = tmp_path / built.relative_to(tmp_path / "built")
        place.unlink()
        shutil.move(built, place)
    return tmp_path


@pytest.mark.slow
def test_two_builds_agree(other):
    try:
        guest = linux_guest.linux()
        linux = [guest.kernel, guest.initrd, guest.args]
    except linux_guest.Unavailable:
        linux = []
    ours, theirs = costs(Path(pyx86v.__file__).parents[1], linux), costs(other, linux)
    assert Path(theirs.pop("build")).is_relative_to(other) and not Path(ours.pop("build")).is_relative_to(other)
    for name, run in ours.items():
        assert run == theirs[name], name
        assert run["instructions"] > 100_000 and sum(run["ledger"].values()) // 64 == run["cycles"]
    assert ours.keys() == theirs.keys()
