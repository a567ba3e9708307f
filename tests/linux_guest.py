# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux to boot: Debian's cloud kernel as distributed, and an initial RAM disk around a static busybox.

Both packages are fetched once by apt-get into build/linux; PYX86V_VMLINUZ and PYX86V_BUSYBOX name files to use instead.
`python tests/linux_guest.py [FOLDER]` prints the two paths.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / "build" / "linux"
KERNEL_PACKAGE, BUSYBOX_PACKAGE = "linux-image-cloud-amd64", "busybox-static"
KERNEL_ARGS = ("console=ttyS0 noapic nolapic acpi=off pci=off nosmp tsc=reliable no_timer_check nokaslr mitigations=off panic=-1 reboot=k")
APPLETS = ("sh", "mount", "echo", "cat", "seq", "awk", "grep", "wc", "sort", "reboot", "uname", "md5sum", "head", "dd", "sync")
INIT = """#!/bin/sh
mount -t proc proc /proc
echo INIT-OK
seq 1 1000 | awk '{ s += $1 } END { print "sum", s }'
seq 1 2000 | sort -rn | head -n 3 | wc -l
sync
reboot -f
"""
DIRECTORY, FILE, LINK, CHARACTER = 0o040755, 0o100755, 0o120777, 0o020600


class Unavailable(Exception):
    """There is no such package here; the text says what was tried."""


def fetch(package):
    """Unpack a Debian package into CACHE/package and return that folder; a package without files leads to what it depends on."""
    folder = CACHE / package
    if folder.exists():
        return folder
    if not shutil.which("apt-get"):
        raise Unavailable(f"{package}: needs apt-get")
    if package == KERNEL_PACKAGE:
        depends = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True).stdout.split()
        name = next((word for word in depends if word.startswith("linux-image-") and word != package), None)
    else:
        name = package
    work = CACHE / f"{package}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    done = subprocess.run(["apt-get", "download", "-qq", str(name)], cwd=work, capture_output=True, text=True)
    archives = list(work.glob("*.deb"))
    if done.returncode or not archives:
        raise Unavailable(f"{package}: apt-get download {name} failed: {' '.join(done.stderr.split())}")
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(work)], check=True)
    archives[0].unlink()
    work.rename(folder)
    return folder


def kernel():
    """Path of a bzImage."""
    named = os.environ.get("PYX86V_VMLINUZ")
    return Path(named) if named else next(fetch(KERNEL_PACKAGE).glob("boot/vmlinuz-*"))


def busybox():
    """Path of a statically linked busybox."""
    named = os.environ.get("PYX86V_BUSYBOX")
    return Path(named) if named else next(path for path in fetch(BUSYBOX_PACKAGE).rglob("bin/busybox") if path.is_file())


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One member of a cpio archive in the newc format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst)."""
    name = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def initrd(init=INIT):
    """The bytes of an initial RAM disk whose /init is the shell script `init`; the same for the same busybox."""
    members = [(name, DIRECTORY) for name in ("bin", "dev", "proc", "tmp")]
    members += [("dev/console", CHARACTER, b"", (5, 1)), ("bin/busybox", FILE, busybox().read_bytes()), ("init", FILE, init.encode())]
    members += [(f"bin/{applet}", LINK, b"busybox") for applet in APPLETS]
    archive = b"".join(entry(number, *member) for number, member in enumerate(members, 1)) + entry(0, "TRAILER!!!", 0)
    return archive + bytes(-len(archive) % 512)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE
    target.mkdir(parents=True, exist_ok=True)
    (target / "initrd.cpio").write_bytes(initrd())
    print(kernel(), target / "initrd.cpio")
