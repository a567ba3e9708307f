# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may cimport whom, and who may do what only one folder may do.  The tables are the architecture; the code obeys."""
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pyx86v"
RANK = {"arch": 0, "cost": 1, "mmu": 1, "devices": 1, "vmm": 2, "xen": 2, "engine": 3, "_core": 4, "_state": 4, "boot": 5, "report": 5, "cli": 5}
SIDEWAYS = {("mmu", "cost"), ("devices", "cost"),             # the ledger is below what charges to it
            ("_core", "_state")}                              # one class in two files
IMPORT = re.compile(r"^\s*(?:from\s+pyx86v\.(\w+)[.\w]*\s+(?:c?import)|cimport\s+pyx86v\.(\w+))", re.M)
SOURCES = sorted(path for path in PACKAGE.rglob("*.p[yx][xd]") if path.name != "__init__.pxd") + sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 800


def layer(path):
    top = path.relative_to(PACKAGE).parts[0]
    return top.split(".")[0]


def code(path):
    """The text without comments and docstrings."""
    return re.sub(r'"""(?:.|\n)*?"""|#.*', "", path.read_text())


def test_imports_only_point_down():
    bad = []
    for path in SOURCES:
        own = layer(path)
        if own not in RANK:                                  # the package's own __init__ and __main__
            continue
        for names in IMPORT.findall(path.read_text()):
            other = names[0] or names[1]
            if other in RANK and other != own and RANK[other] >= RANK[own] and (own, other) not in SIDEWAYS and RANK[own] < 5:
                bad.append(f"{path.relative_to(PACKAGE)} -> {other}")
    assert not bad, "imports that point up or sideways:\n  " + "\n  ".join(bad)


def test_every_folder_has_a_rank():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert folders <= set(RANK), f"unknown layers: {folders - set(RANK)}"


@pytest.mark.parametrize("pattern, allowed, what", [
    (r"\buc_[a-z]\w*\s*\(", ("engine", "_core"), "calls the engine"),
    (r"\b\w*\.by\[[^\]]*\]\s*[-+]?=", ("cost",), "adds cycles to a cause"),
])
def test_one_place_for(pattern, allowed, what):
    bad = [f"{path.relative_to(PACKAGE)}: {match}" for path in SOURCES if layer(path) not in allowed and path.stem != "testing"
           for match in re.findall(pattern, code(path))]
    assert not bad, f"what {what} outside {allowed}:\n  " + "\n  ".join(bad)


def test_every_source_has_a_licence_line_and_fits():
    for path in SOURCES:
        lines = path.read_text().splitlines()
        assert not lines or lines[0] == "# SPDX-License-Identifier: GPL-2.0-or-later", path
        assert len(lines) <= MAX_LINES, f"{path}: {len(lines)} lines"


def test_nothing_is_left_for_later():
    words = re.compile(r"\b(TODO|FIXME|XXX)\b")
    bad = [str(path.relative_to(PACKAGE)) for path in SOURCES if words.search(path.read_text())]
    assert not bad
