# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own drivers on the IDE controller: ata_piix, sd_mod and sr_mod from an initial RAM disk read a disk and a CD-ROM and write.

The host's SHA-256 judges what they read, and what is to be read after they have written.
"""
import functools
import hashlib
import random
import tempfile
from pathlib import Path

import pytest

import debian
import linux_guest
from guest_list import ALL, grouped, pairs
from pyx86v import Machine, StopReason

MODULES = ("scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod", "cdrom", "sr_mod")        # in the order of what needs what
BLOCK, BLOCKS = 4096, 16                        # that the guest overwrites with zeros
INIT = f"""#!/bin/sh
mount -t proc proc /proc
busybox mount -t devtmpfs none /dev
for each in {" ".join(MODULES)}; do
  case $each in libata) how="$dma";; *) how=;; esac
  busybox insmod /$each.ko $how || echo "no $each"
done
while [ ! -b /dev/sda ] || [ ! -b /dev/sr0 ]; do sleep 0.1; done
echo DISKS
awk '$4 == "sda" {{ print $3 " KiB" }}' /proc/partitions
sha256sum /dev/sda /dev/sr0
dd if=/dev/zero of=/dev/sda bs={BLOCK} count={BLOCKS} conv=fsync
echo 3 > /proc/sys/vm/drop_caches
sha256sum /dev/sda
poweroff -f
"""
# What Linux hands on to init as a variable.  Without the bus master every four bytes come through a port.
ARGS = {"dma": "console=ttyS0", "pio": "console=ttyS0 dma=dma=0"}

PORT_CYCLES = 2800                              # port_in of the profile skylake

pytestmark = pytest.mark.linux


@functools.cache
def images():
    """Paths of a disk of 2 MiB and a CD-ROM of 512 KiB, of random bytes, which live as long as the process."""
    images.folder = tempfile.TemporaryDirectory()
    made = []
    for name, size in (("disk.raw", 1 << 21), ("cd.iso", 1 << 19)):
        made.append(Path(images.folder.name) / name)
        made[-1].write_bytes(random.Random(name).randbytes(size))
    return made


@functools.cache
def boot(how, style):
    try:
        modules = [(f"{name}.ko", linux_guest.FILE, debian.find("linux-image-cloud-amd64:amd64", f"*/{name}.ko").read_bytes()) for name in MODULES]
        linux, kernel = linux_guest.linux(init=INIT, args=ARGS[how], more=modules), linux_guest.vmlinux()
    except debian.Unavailable as reason:
        debian.skip(reason)
    disk, cd = images()
    machine = linux.load(Machine(memory=linux.memory, style=style, clock="instructions", disks=[disk], cdroms=[cd]), kernel)
    stop = machine.run(max_instructions=10_000_000_000)
    return {"stop": stop, "console": machine.console.decode(), "instructions": machine.instructions, "digest": machine.digest()}, machine.ledger["device"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


CASES = [case for case in pairs(ARGS, 4) if ALL or case[0] == "dma" or case[1] == "native"]


@pytest.mark.parametrize("how, style", grouped(CASES))
def test_linux_reads_and_writes(how, style):
    (made, device_cycles), (disk, cd) = boot(how, style), images()
    assert made["stop"] == (StopReason.EXIT, 0, "power off"), made["console"]
    lines = made["console"].replace("\r", "").split("\n")
    data = disk.read_bytes()
    said = [line for line in lines[lines.index("DISKS") + 1:] if line and not line.startswith("[")]
    zeroed = bytes(BLOCK * BLOCKS) + data[BLOCK * BLOCKS:]
    assert said[:3] == [f"{len(data) // 1024} KiB", f"{digest(data)}  /dev/sda", f"{digest(cd.read_bytes())}  /dev/sr0"], said
    assert f"{BLOCKS}+0 records out" in said and said[-1] == f"{digest(zeroed)}  /dev/sda", said
    if style == "native":
        words = (2 * len(data) + cd.stat().st_size) // 4
        assert (device_cycles > words * PORT_CYCLES) == (how == "pio")
    assert digest(data) == digest(random.Random("disk.raw").randbytes(1 << 21)), "the image stays as it was"


@pytest.mark.parametrize("how, style", grouped(case for case in CASES if case[1] != "native"))
def test_every_style_computes_the_same(how, style):
    assert boot(how, style)[0] == boot(how, "native")[0]
