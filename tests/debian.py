# SPDX-License-Identifier: GPL-2.0-or-later
"""Files out of Debian packages: one release, whatever the host is, fetched by name with apt and never installed.

apt-get gets a configuration of its own below build/debian: sources, state and cache there, Debian's archive keys for
signatures; of the host it uses the programs and, if /etc/apt names one, the proxy.  Only the wanted files of a package
are kept.  `python tests/debian.py` fetches all that the tests name and prints the versions.
"""
import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest

RELEASE = "bookworm"            # Debian 12
CACHE = Path(__file__).resolve().parents[1] / "build" / "debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The suite alone, without its security updates: its versions change with point releases only.
SOURCES = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n"
CONFIGURATION = f"""Dir::State "{CACHE}/state";
Dir::State::status "{CACHE}/status";
Dir::Cache "{CACHE}/cache";
Dir::Etc::sourcelist "{CACHE}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "i386"; }};
APT::Default-Release "";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""
FRESH_S = 24 * 3600             # how long the index is taken as it is

# What the tests want: package -> the files to keep, as patterns of their names in it.
PACKAGES = {
    "linux-image-cloud-amd64:amd64": ("boot/*", "*/drivers/ata/*.ko", "*/drivers/scsi/s*.ko", "*/drivers/cdrom/*.ko"),
    "linux-image-amd64:amd64": ("boot/*",),
    "linux-image-686:i386": ("boot/*",),
    "linux-image-686-pae:i386": ("boot/*",),
    "busybox-static:amd64": ("*bin/busybox",),
    "busybox-static:i386": ("*bin/busybox",),
    "memtest86+:amd64": ("boot/*",),
    "seabios:all": ("usr/share/seabios/*.bin",),
    "grub-pc-bin:amd64": ("usr/lib/grub/i386-pc/*",),
    "gnumach-image-1.8-486:i386": ("boot/*",),
}


class Unavailable(Exception):
    """There is no such package here; the text says what was tried."""


def skip(reason):
    """A visible skip on somebody's machine, a failure where CI is set."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(str(reason))


def files(package):
    """Where the wanted files of a package of PACKAGES lie; fetched when they are not there yet.  Raises Unavailable."""
    folder = CACHE / package.replace(":", "_")
    if not is_fetched(package, folder):
        with locked():
            if not is_fetched(package, folder):         # nobody was faster
                fetch(package, folder)
    return folder


def is_fetched(package, folder):
    """Is all there that is wanted of the package today?"""
    wanted = folder / "WANTED"
    return (folder / "VERSION").exists() and wanted.exists() and wanted.read_text() == " ".join(PACKAGES[package])


def find(package, pattern):
    """The one file of a package whose name in it matches the pattern."""
    found = sorted(path for path in files(package).rglob("*") if path.is_file() and fnmatch(str(path.relative_to(files(package))), pattern))
    if len(found) != 1:
        raise Unavailable(f"{package}: {len(found)} files are called {pattern}")
    return found[0]


def versions():
    """["package version"] of what was fetched."""
    return sorted(path.read_text().strip() for path in CACHE.glob("*/VERSION"))


@contextmanager
def locked():
    """Only one process at a time works in CACHE."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(package, folder):
    """Download the package, or the one it stands for, and unpack the wanted files; VERSION comes last."""
    update()
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        name = real_name(package)
        run("apt-get", "download", "-qq", name, cwd=work)
        archives = list(Path(work).glob("*.deb"))
        if len(archives) != 1:
            raise Unavailable(f"{package}: apt-get download left {len(archives)} files")
        unpack(archives[0], PACKAGES[package], folder)
        (folder / "WANTED").write_text(" ".join(PACKAGES[package]))
        (folder / "VERSION").write_text(run("dpkg-deb", "-W", "--showformat=${Package}:${Architecture} ${Version}", str(archives[0])))


def update():
    """The release's index, not older than FRESH_S."""
    stamp = CACHE / "updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_S:
        return
    if not KEYRING.exists():
        raise Unavailable(f"{KEYRING}: missing (apt-get install debian-archive-keyring)")
    for part in ("state/lists/partial", "cache/archives/partial"):
        (CACHE / part).mkdir(parents=True, exist_ok=True)
    (CACHE / "status").touch()
    (CACHE / "sources.list").write_text(SOURCES)
    (CACHE / "apt.conf").write_text(CONFIGURATION)
    run("apt-get", "update", "-qq")
    stamp.touch()


def real_name(package):
    """A kernel's package only depends on the current kernel: that one."""
    if not package.startswith("linux-image"):
        return package.removesuffix(":all")
    architecture = package.partition(":")[2]
    depends = [line.split()[-1].partition(":")[0] for line in run("apt-cache", "depends", package).splitlines() if "Depends: linux-image-" in line]
    if len(depends) != 1:
        raise Unavailable(f"{package}: depends on {len(depends)} kernels")
    return f"{depends[0]}:{architecture}"


def unpack(archive, patterns, folder):
    """The files of the archive that match one of the patterns, below the folder."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as packed, \
            tarfile.open(fileobj=packed.stdout, mode="r|") as members:
        for member in members:
            name = member.name.removeprefix("./")
            if member.isfile() and any(fnmatch(name, pattern) for pattern in patterns) and ".." not in name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(members.extractfile(member).read())
        while packed.stdout.read(1 << 20):              # the padding: dpkg-deb shall not meet a closed pipe
            pass
    if packed.returncode:
        raise Unavailable(f"{archive.name}: dpkg-deb ended with status {packed.returncode}")


def run(command, *arguments, cwd=None):
    """The command's output; Unavailable with its error when it fails.  apt's commands get our configuration."""
    ours = ("-c", str(CACHE / "apt.conf")) if command.startswith("apt-") else ()
    try:
        done = subprocess.run([command, *ours, *arguments], cwd=cwd, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{command}: {error.strerror}") from None
    if done.returncode:
        raise Unavailable(f"{command} {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout


if __name__ == "__main__":
    for each in sys.argv[1:] or PACKAGES:
        files(each)
    print(*versions(), sep="\n")
