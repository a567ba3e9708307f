# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux to boot: Debian's kernels as distributed, and an initial RAM disk around a static busybox of the same architecture.

PYX86V_VMLINUZ and PYX86V_BUSYBOX name files to use instead of the packages of the cloud kernel.
`python tests/linux_guest.py [KERNEL [FOLDER]]` prints what to boot and leaves it in the folder.
"""
import hashlib
import lzma
import os
import shutil
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import debian
from debian import Unavailable

CACHE = Path(__file__).resolve().parents[1] / "build" / "linux"
# name -> (package of the kernel, package of busybox)
KERNELS = {"cloud": ("linux-image-cloud-amd64:amd64", "busybox-static:amd64"),
           "amd64": ("linux-image-amd64:amd64", "busybox-static:amd64"),
           "686": ("linux-image-686:i386", "busybox-static:i386"),
           "686-pae": ("linux-image-686-pae:i386", "busybox-static:i386")}
MEMORY = 256 << 20
# No APIC, ACPI or PCI is there to be found; the clock rate is given, so that nothing is measured against the timer.
KERNEL_ARGS = ("console=ttyS0 noapic nolapic acpi=off pci=off nosmp tsc=reliable no_timer_check tsc_early_khz=3400000 lpj=13600000 "
               "nokaslr mitigations=off panic=-1 reboot=k")
APPLETS = ("sh", "mount", "seq", "sort", "head", "tail", "awk", "dd", "date", "sha256sum", "uname", "sleep", "reboot", "poweroff")
TEXT = "".join(f"line {number} of a text that both sides know\n" for number in range(200))
# What a distribution's shell does all day: pipes, 200 processes, 64 MiB of memory, the clock, and computing.
WORK = """#!/bin/sh
mount -t proc proc /proc
echo INIT-OK
echo "kernel $(uname -r)"
echo "last $(seq 1 1000 | sort -rn | sort -n | tail -n 1)"
seq 1 1000 | awk '{ s += $1 } END { print "sum", s }'
i=0 odd=0
while [ $i -lt 200 ]; do
  (exit $((i & 1))) || odd=$((odd + 1))
  i=$((i + 1))
done
echo "forked $i, $odd failed"
echo "memory $(dd if=/dev/zero of=/dev/null bs=64M count=1 2>&1 | head -n 1) of 64 MiB"
echo "clock $(date -u +%F)"
echo "text $(sha256sum < /text)"
echo "symbol $(head -n 3000 /proc/kallsyms | tail -n 1)"
sleep 0.1
"""
INIT = WORK + "reboot -f\n"
POWER_OFF = WORK + "poweroff -f\n"
STARTED = "2024-01-01"          # the machine's clock when it is switched on (devices/rtc.pxd)
DIRECTORY, FILE, PROGRAM, LINK, CHARACTER = 0o040755, 0o100644, 0o100755, 0o120777, 0o020600
LZ4_LEGACY, XZ = b"\x02\x21\x4C\x18", b"\xFD7zXZ\0"


@dataclass(frozen=True)
class Linux:
    """What to boot, and what its console must then show."""
    kernel: Path
    initrd: Path
    args: str = KERNEL_ARGS
    memory: int = MEMORY

    @property
    def options(self):
        """The command line's options, as a list."""
        return ["--initrd", str(self.initrd), "--kernel-args", self.args, "--memory", str(self.memory)]

    @property
    def expected(self):
        """The lines of WORK, by arithmetic, by the host's SHA-256 and by the name of the kernel's file."""
        return ["INIT-OK", f"kernel {self.kernel.name.partition('-')[2]}", "last 1000", f"sum {1000 * 1001 // 2}",
                "forked 200, 100 failed", "memory 1+0 records in of 64 MiB", f"clock {STARTED}", f"text {hashlib.sha256(TEXT.encode()).hexdigest()}  -"]

    def load(self, machine, kernel=None):
        """Put it, or another kernel of the same version, into the machine, and return that."""
        machine.load(str(kernel or self.kernel), initrd=str(self.initrd), kernel_args=self.args)
        return machine


def linux(name="cloud", init=INIT, args=KERNEL_ARGS, more=()):
    """The Linux of one of KERNELS, fetched when it is not there yet.  Raises Unavailable."""
    content = initrd(init, name, more)
    disk = CACHE / f"{hashlib.sha256(content).hexdigest()[:16]}.cpio"
    if not disk.exists():
        save(disk, content)
    return Linux(kernel(name), disk, args)


def save(path, data):
    """Write a file of the cache so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)


def kernel(name="cloud"):
    """Path of a bzImage."""
    named = os.environ.get("PYX86V_VMLINUZ") if name == "cloud" else None
    return Path(named) if named else debian.find(KERNELS[name][0], "boot/vmlinuz-*")


def busybox(name="cloud"):
    """Path of a statically linked busybox for the kernel."""
    named = os.environ.get("PYX86V_BUSYBOX") if name == "cloud" else None
    return Path(named) if named else debian.find(KERNELS[name][1], "*bin/busybox")

# The initial RAM disk --------------------------------------------------------------------------


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One member of a cpio archive in the newc format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst)."""
    name = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def initrd(init=INIT, name="cloud", more=()):
    """The bytes of an initial RAM disk whose /init is the shell script `init`, with `more` members; the same for the same busybox."""
    members = [(name, DIRECTORY) for name in ("bin", "dev", "proc")]
    members += [("dev/console", CHARACTER, b"", (5, 1)), ("dev/null", CHARACTER, b"", (1, 3)), ("dev/zero", CHARACTER, b"", (1, 5)),
                ("bin/busybox", PROGRAM, busybox(name).read_bytes())]
    members += [(f"bin/{applet}", LINK, b"busybox") for applet in APPLETS]
    members += [("init", PROGRAM, init.encode()), ("text", FILE, TEXT.encode()), *more]
    archive = b"".join(entry(number, *member) for number, member in enumerate(members, 1)) + entry(0, "TRAILER!!!", 0)
    return archive + bytes(-len(archive) % 512)

# The kernel without its wrapping ---------------------------------------------------------------


def vmlinux(name="cloud"):
    """Path of the ELF file inside the bzImage (boot.rst: payload_offset, payload_length).  Unavailable: neither LZ4 nor XZ."""
    packed = kernel(name)
    path = CACHE / f"vmlinux-{packed.name.partition('-')[2]}"
    if not path.exists():
        data = packed.read_bytes()
        start = (data[0x1F1] + 1) * 512 + struct.unpack_from("<I", data, 0x248)[0]
        payload = data[start:start + struct.unpack_from("<I", data, 0x24C)[0] - 4]       # the last four bytes are the size
        if payload.startswith(LZ4_LEGACY):
            save(path, unpack_lz4(payload[4:]))
        elif payload.startswith(XZ):
            save(path, lzma.decompress(payload))
        else:
            raise Unavailable(f"{packed}: payload: starts with {payload[:4].hex()}, expected LZ4's legacy frame or XZ")
    return path


def unpack_lz4(data):
    """LZ4 blocks, each behind its size (lz4: doc/lz4_Frame_format.md, legacy frame)."""
    parts, at = [], 0
    while at + 4 <= len(data):
        size = struct.unpack_from("<I", data, at)[0]
        parts.append(unpack_lz4_block(data[at + 4:at + 4 + size]))
        at += 4 + size
    return b"".join(parts)


def unpack_lz4_block(data):
    """Sequences of literals and a match (lz4: doc/lz4_Block_format.md)."""
    out, at, end = bytearray(), 0, len(data)
    while at < end:
        token = data[at]
        count, at = length(data, at + 1, token >> 4)
        out += data[at:at + count]
        at += count
        if at >= end:
            break                                       # the last sequence has no match
        offset = data[at] | data[at + 1] << 8
        count, at = length(data, at + 2, token & 15)
        count += 4
        start = len(out) - offset
        match = out[start:start + count]
        out += (match * (count // offset + 1))[:count] if offset < count else match
    return bytes(out)


def length(data, at, count):
    """(length, where it ends): 15 goes on in the next bytes, up to one that is not 255."""
    if count == 15:
        while data[at] == 255:
            count, at = count + 255, at + 1
        count, at = count + data[at], at + 1
    return count, at


if __name__ == "__main__":
    guest = linux(*sys.argv[1:2])
    if len(sys.argv) > 2:
        guest = Linux(Path(shutil.copy(guest.kernel, sys.argv[2])), Path(shutil.copy(guest.initrd, sys.argv[2])))
    print(*debian.versions(), guest.kernel, guest.initrd, guest.args, sep="\n")
