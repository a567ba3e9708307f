# SPDX-License-Identifier: GPL-2.0-or-later
"""Build pyx86v: every pyx86v/**/*.pyx is one extension, every roms/<name> one image in pyx86v/_roms.

    pip install .        pip install -e .

For work on the extensions alone: python setup.py build_ext --inplace, with PYX86V_ONLY=mmu,cost to name the folders.
PYX86V_CFLAGS come last, so that they win over the flags here.
"""
import fcntl
import importlib.util
import os
import platform
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

DIRECTIVES = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}
# Who may call the C API of which wheel.  A folder that is not named here fails at import if it tries (-z now).
LINKS = {"pyx86v.engine": ("unicorn", "libunicorn.so.2"), "pyx86v._core": ("unicorn", "libunicorn.so.2"),
         "pyx86v._state": ("unicorn", "libunicorn.so.2"),
         "pyx86v.cost.block": ("capstone", "libcapstone.so"), "pyx86v.cost.model.decode": ("capstone", "libcapstone.so")}
FLAGS = ["-O2", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-sign-compare"]
if "-g" not in os.environ.get("CFLAGS", "").split():
    FLAGS.append("-g0")              # twice as fast to compile; CFLAGS=-g is for gdb
# Nothing in these runs per block, per miss or per exit: compile them quickly.
COLD = ("_core", "_state", "census", "configure", "fields", "layout", "ledger", "listing", "media", "ring", "rules", "snapshot", "testing")
ROOT = Path(__file__).resolve().parent
ROMS = ROOT / "pyx86v" / "_roms"


def wheel(name):
    """The folder of an installed wheel, found without loading its library."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        raise SystemExit(f"pyx86v: building needs the Python package {name!r}: pip install -r the 'requires' of pyproject.toml")
    return Path(spec.origin).parent


def extension(source):
    """The Extension of one .pyx file, linked with the libraries its folder may use."""
    name = ".".join(source.with_suffix("").parts)
    link = ["-Wl,-z,now"]
    for prefix, (package, library) in LINKS.items():
        if name == prefix or name.startswith(prefix + "."):
            up = "/".join([".."] * name.count("."))
            link += [str(wheel(package) / "lib" / library), f"-Wl,-rpath,$ORIGIN/{up}/{package}/lib"]
    flags = FLAGS + ["-O1"] * (source.stem in COLD) + os.environ.get("PYX86V_CFLAGS", "").split()
    return Extension(name, [str(source)], extra_link_args=link, extra_compile_args=flags,
                     include_dirs=[".", *(str(wheel(package) / "include") for package in ("unicorn", "capstone"))])


def extensions():
    only = tuple(f"pyx86v/{name}" for name in os.environ.get("PYX86V_ONLY", "").split(",") if name)
    sources = sorted(path.relative_to(ROOT) for path in (ROOT / "pyx86v").rglob("*.pyx"))
    return [extension(source) for source in sources if not only or str(source).startswith(only)]


def newest(folder):
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0)


def build_roms():
    """Assemble the bundled guests into the package, unless the ones there are newer than every source."""
    manifest = ROMS / "manifest.json"
    if manifest.exists() and manifest.stat().st_mtime > newest(ROOT / "roms"):
        return
    missing = [tool for tool in ("gcc", "ld", "objcopy") if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"pyx86v: building the bundled guests needs {', '.join(missing)} (Debian: apt-get install gcc binutils)")
    builder = runpy.run_path(str(ROOT / "roms" / "build.py"))
    try:
        builder["build_all"](ROMS)
    except builder["BuildError"] as error:
        raise SystemExit(f"pyx86v: {error}") from None


class BuildPy(build_py):
    def run(self):
        build_roms()
        super().run()


class BuildExt(build_ext):
    def run(self):
        from Cython.Build import cythonize
        jobs = self.parallel = self.parallel or os.cpu_count() or 1
        os.makedirs("build", exist_ok=True)
        with open("build/lock", "w") as lock:      # two builds in one checkout take turns
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.extensions = cythonize(self.extensions, nthreads=jobs, build_dir="build/c", force=self.force,
                                        compiler_directives=DIRECTIVES)
            for ext in self.extensions:
                ext._needs_stub = False            # setuptools sets this on extensions it saw at finalize_options
            super().run()


if __name__ == "__main__":
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SystemExit(f"pyx86v: needs Linux on x86-64, this is {sys.platform} on {platform.machine()}")
    os.chdir(ROOT)
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
