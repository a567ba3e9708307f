# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies where, and the processor's state, after each kind of image was loaded."""
import struct

import pytest

import images
from pyx86v import boot

MIB = 1 << 20
MEMORY = 64 * MIB
FLAT_CODE, FLAT_DATA = (0, 0xFFFFFFFF, 0xC09B00), (0, 0xFFFFFFFF, 0xC09300)


@pytest.fixture
def load(tmp_path):
    def loaded(data, memory=MEMORY, initrd=None, **more):
        (tmp_path / "image").write_bytes(data)
        if isinstance(initrd, bytes):
            (tmp_path / "initrd").write_bytes(initrd)
            initrd = tmp_path / "initrd"
        return boot.load(tmp_path / "image", memory, initrd=initrd, **more)
    return loaded


def u32(ram, at):
    return struct.unpack_from("<I", ram, at)[0]


def cstring(ram, at):
    return bytes(ram[at:ram.index(0, at)])


def check_flat(image, code, data):
    assert image.entry["segments"]["cs"] == (code, *FLAT_CODE)
    assert {image.entry["segments"][name] for name in ("ds", "es", "ss", "fs", "gs")} == {(data, *FLAT_DATA)}


# Multiboot

def test_multiboot_state_is_what_the_specification_says(load):
    entry = load(images.multiboot_elf()).entry
    assert entry["mode"] == "prot32" and entry["rip"] == 0x10000C
    assert entry["gpr"]["rax"] == 0x2BADB002
    assert entry["cr0"] & 0x80000001 == 1, "protection on, paging off"
    assert entry["eflags"] & 0x20200 == 0, "VM and IF clear"


def test_multiboot_information(load):
    image = load(images.multiboot_elf(), kernel_args="root=x quiet", initrd=b"module!")
    ram, info = images.memory(image, MEMORY), image.entry["gpr"]["rbx"]
    flags, lower, upper, _, cmdline, count, modules = struct.unpack_from("<7I", ram, info)
    assert flags == 0b1001001101
    assert (lower, upper) == (639, (MEMORY - MIB) // 1024)
    assert cstring(ram, cmdline) == b"image root=x quiet"
    assert cstring(ram, u32(ram, info + 64)) == b"pyx86v"
    assert count == 1
    start, end = struct.unpack_from("<II", ram, modules)
    assert ram[start:end] == b"module!" and start % 4096 == 0 and start >= 0x101000
    at, length = u32(ram, info + 48), u32(ram, info + 44)
    found = []
    for at in range(at, at + length, 24):
        size, base, span, kind = struct.unpack_from("<IQQI", ram, at)
        assert size == 20
        found.append((base, base + span, kind))
    assert [area for area in found if area[2] == 1] == [(0, 0x9FC00, 1), (MIB, MEMORY, 1)]


def test_multiboot_bss_is_kept_free_for_the_kernel(load):
    image = load(images.multiboot_elf(size=0x300000), initrd=b"i")
    ram = images.memory(image, MEMORY)
    modules = u32(ram, image.entry["gpr"]["rbx"] + 24)
    assert u32(ram, modules) >= 0x400000


def test_multiboot_low_kernel_and_information_do_not_collide(load):
    header = images.multiboot_header(0)
    image = load(images.elf(segments=((0x8000, header + images.CODE, 0x6000),), entry=0x800C))
    assert not 0x8000 - 88 < image.entry["gpr"]["rbx"] < 0xE000


def test_multiboot_address_fields_win_over_the_file_format(load):
    # 32 bytes of something, then the header, which belongs at 0x200020
    header = images.multiboot_header(1 << 16, 0x200020, 0x200010, 0x200060, 0x201000, 0x200050)
    body = bytes(range(32)) + header + images.CODE * 8
    image = load(body)
    ram = images.memory(image, MEMORY)
    assert image.entry["rip"] == 0x200050
    assert ram[0x200010:0x200060] == body[16:16 + 0x50]
    assert not any(ram[0x200060:0x201000])


@pytest.mark.parametrize("flags, text", [(4, "asks for 0x4"), (0x8000, "asks for 0x8000")])
def test_multiboot_requirement_that_we_do_not_meet(load, flags, text):
    with pytest.raises(boot.BootError, match=text):
        load(images.multiboot_elf(flags))


@pytest.mark.parametrize("tags, text", [
    ([(7, b"")], "tag 7 is required"),
    ([(1, struct.pack("<II", 3, 8))], "information 8 is required"),
    ([(2, bytes(16))], "address tag without an entry tag"),
    ([(2, bytes(15))], "tag 2 has 23 bytes, expected at least 24"),
    ([(3, struct.pack("<I", 0x200000))], "multiboot2 entry: 0x200000, expected within 0x100000..0x101000"),
])
def test_multiboot2_header_that_we_cannot_meet(load, tags, text):
    with pytest.raises(boot.BootError, match=text):
        load(images.elf(64, ((0x100000, images.multiboot2_header(*tags), 0x1000),)))


def test_multiboot2_optional_tags_and_entry(load):
    header = images.multiboot2_header((7, b"", 1), (1, struct.pack("<II", 3, 8), 1), (5, bytes(12)), (10, bytes(16)),
                                      (3, struct.pack("<I", 0x100020)))
    image = load(images.elf(64, ((0x100000, header, 0x1000),)), kernel_args="x")
    assert (image.kind, image.entry["mode"], image.entry["rip"]) == ("multiboot2", "prot32", 0x100020)
    assert image.entry["gpr"]["rax"] == 0x36D76289
    ram, info = images.memory(image, MEMORY), image.entry["gpr"]["rbx"]
    assert info % 8 == 0 and struct.pack("<III", 21, 12, 0x100000) in ram[info:info + u32(ram, info)], "where it was loaded"


def test_multiboot2_address_tag(load):
    header = images.multiboot2_header((2, struct.pack("<4I", 0x200020, 0x200010, 0, 0x201000)), (3, struct.pack("<I", 0x200040)))
    body = bytes(range(32)) + header + images.CODE * 8
    image = load(body)
    assert images.memory(image, MEMORY)[0x200010:0x200010 + len(body) - 16] == body[16:] and image.entry["rip"] == 0x200040


def test_virtual_entry_becomes_physical(load):
    image = load(images.elf(segments=((0x100000, images.multiboot_header() + images.CODE, 0x1000, 0xC0100000),), entry=0xC010000C))
    assert image.entry["rip"] == 0x10000C


# Linux

def test_bzimage_by_the_32_bit_protocol(load):
    kernel = bytes(range(256)) * 20
    image = load(images.bzimage(kernel=kernel), kernel_args="console=ttyS0", initrd=b"cpio" * 1000)
    ram, entry = images.memory(image, MEMORY), image.entry
    assert image.kind == "bzimage" and entry["mode"] == "prot32" and entry["rip"] == 0x100000
    assert ram[0x100000:0x100000 + len(kernel)] == kernel
    check_flat(image, 0x10, 0x18)
    base, limit = entry["gdt"]
    assert limit >= 0x1F
    assert ram[base + 0x10:base + 0x20] == bytes.fromhex("ffff0000009bcf00" "ffff00000093cf00")
    params = entry["gpr"]["rsi"]
    assert {name: value for name, value in entry["gpr"].items() if name in ("rbx", "rbp", "rdi") and value} == {}
    assert ram[params + 0x1F1:params + 0x202] == images.bzimage(kernel=kernel)[0x1F1:0x1FA] + b"\xFF\xFF" + images.bzimage()[0x1FC:0x202]
    assert ram[params + 0x202:params + 0x206] == b"HdrS" and ram[params + 0x210] == 0xFF
    assert cstring(ram, u32(ram, params + 0x228)) == b"console=ttyS0"
    start, size = struct.unpack_from("<II", ram, params + 0x218)
    assert ram[start:start + size] == b"cpio" * 1000 and start % 4096 == 0
    assert start + 4096 >= MEMORY - 4096, "as high as memory goes"
    entries = [struct.unpack_from("<QQI", ram, params + 0x2D0 + 20 * i) for i in range(ram[params + 0x1E8])]
    assert [(base, base + span) for base, span, kind in entries if kind == 1] == [(0, 0x9FC00), (MIB, MEMORY)]


def test_bzimage_without_initrd_names_none(load):
    image = load(images.bzimage())
    ram = images.memory(image, MEMORY)
    assert struct.unpack_from("<II", ram, image.entry["gpr"]["rsi"] + 0x218) == (0, 0)


def test_initrd_stays_below_what_the_kernel_allows(load):
    image = load(images.bzimage(initrd_addr_max=0x1FFFFFF), initrd=b"x" * 5000)
    ram = images.memory(image, MEMORY)
    start, size = struct.unpack_from("<II", ram, image.entry["gpr"]["rsi"] + 0x218)
    assert start + size <= 0x2000000 and start >= 0x1FFD000


@pytest.mark.parametrize("change, text", [
    ({"version": 0x201}, "protocol 2.01, expected 2.02"),
    ({"loadflags": 0}, "zImage"),
    ({"init_size": 0x4000000}, "64 MiB, this kernel needs 80 MiB"),
])
def test_bzimage_that_cannot_be_booted(load, change, text):
    with pytest.raises(boot.BootError, match=text):
        load(images.bzimage(**change))


@pytest.mark.parametrize("length", [0x206, 0x240, 0x5FF, 0x600, 0x15EF])
def test_truncated_bzimage(load, length):
    with pytest.raises(boot.BootError, match="truncated"):
        load(images.bzimage()[:length])


def test_corrupt_bzimage(load):
    """Every byte counts, but what a signature for UEFI changes; a kernel of 6.15 or later has no CRC-32."""
    image = bytearray(images.bzimage(release="6.14.2 (me)"))
    load(bytes(image))
    for at in (0x1000, 0x1F1 + 100, len(image) - 1):
        with pytest.raises(boot.BootError, match="checksum: 0x[0-9a-f]+ over the kernel"):
            load(bytes(image[:at]) + bytes([image[at] ^ 0x10]) + bytes(image[at + 1:]))
    load(images.bzimage(release="6.15.0")[:-1] + b"!")
    load(images.bzimage(release="7.2")[:-1] + b"!")


def test_command_line_too_long(load):
    assert load(images.bzimage(), kernel_args="x" * 100)
    with pytest.raises(boot.BootError, match="command line: 101 bytes, expected at most 100"):
        load(images.bzimage(), kernel_args="x" * 101)


def vmlinux(**more):
    return images.elf(64, (((0x1000000, images.CODE, 0x200000, 0xFFFFFFFF81000000)),), 0x1000000,
                      notes=images.note(b"Linux", 0x101, b"\0\0\0\0") + images.note(b"Xen", 18, struct.pack("<Q", 0x1000000)), **more)


def walk(ram, cr3, address):
    """Where 4-level tables with 2 MiB leaves map `address` (SDM 3A figure 4-9)."""
    table = cr3
    for shift in (39, 30, 21):
        item = struct.unpack_from("<Q", ram, table + 8 * (address >> shift & 511))[0]
        assert item & 3 == 3, f"not present and writable at shift {shift}"
        table = item & 0xFFFFFFFFFF000
    assert item & 0x80, "a 2 MiB page"
    return (item & 0xFFFFFFFE00000) | address & 0x1FFFFF


def test_vmlinux_by_the_64_bit_protocol(load):
    image = load(vmlinux(), kernel_args="quiet", initrd=b"initrd")
    ram, entry = images.memory(image, MEMORY), image.entry
    assert image.kind == "linux64" and entry["mode"] == "long64" and entry["rip"] == 0x1000000
    assert entry["cr0"] & 0x80000001 == 0x80000001 and entry["cr4"] & 0x20 and entry["efer"] & 0x500 == 0x500
    assert entry["segments"]["cs"] == (0x10, 0, 0xFFFFFFFF, 0xA09B00) and entry["segments"]["ds"][0] == 0x18
    base, limit = entry["gdt"]
    assert ram[base + 0x10:base + 0x20] == bytes.fromhex("ffff0000009baf00" "ffff00000093cf00") and limit == 0x1F
    for address in (0, 0x10000, 0x1234567, MEMORY - 1, 0x3FFFFFFF):
        assert walk(ram, entry["cr3"], address) == address
    params = entry["gpr"]["rsi"]
    assert u32(ram, params + 0x202) == int.from_bytes(b"HdrS", "little") and cstring(ram, u32(ram, params + 0x228)) == b"quiet"
    start, size = struct.unpack_from("<II", ram, params + 0x218)
    assert ram[start:start + size] == b"initrd" and start >= 0x1200000


def test_identity_map_covers_memory_above_1_gib(load):
    image = load(vmlinux(), memory=2560 * MIB)
    ram = images.memory(image, 32 * MIB)
    for address in (0x3FFFFFFF, 0x40000000, 2560 * MIB - 1):
        assert walk(ram, image.entry["cr3"], address) == address


# PVH and firmware

def test_pvh(load):
    kernel = images.elf(64, ((0x200000, images.CODE, 0x1000),), 0x200000, notes=images.note(b"Xen", 18, struct.pack("<I", 0x200004)))
    image = load(kernel, kernel_args="a=b", initrd=b"ramdisk")
    ram, entry = images.memory(image, MEMORY), image.entry
    assert image.kind == "pvh" and entry["mode"] == "prot32" and entry["rip"] == 0x200004
    assert (entry["cr0"] & ~0x10, entry["cr4"], entry["efer"]) == (1, 0, 0)
    assert entry["segments"]["tr"][2] == 0x67
    magic, version, _, count, modules, cmdline, _, memmap, entries, _ = struct.unpack_from("<IIIIQQQQII", ram, entry["gpr"]["rbx"])
    assert (magic, version, count) == (0x336EC578, 1, 1) and cstring(ram, cmdline) == b"a=b"
    start, size = struct.unpack_from("<QQ", ram, modules)
    assert ram[start:start + size] == b"ramdisk"
    usable = [struct.unpack_from("<QQI", ram, memmap + 24 * i) for i in range(entries)]
    assert [(base, base + span) for base, span, kind in usable if kind == 1] == [(0, 0x9FC00), (MIB, MEMORY)]


@pytest.mark.parametrize("kib", [64, 128, 256])
def test_firmware_ends_at_4_gib_and_at_1_mib(load, kib):
    data = bytes(i * 7 & 0xFF for i in range(kib * 1024 - 16)) + b"\xEA\x5B\xE0\x00\xF0" + bytes(11)
    image = load(data)
    assert image.roms == [((4 << 30) - len(data), data)]
    [(low, copy)] = image.segments
    assert low + len(copy) == MIB and data.endswith(copy) and len(copy) == min(kib, 128) * 1024
    cs, ip = image.entry["segments"]["cs"], image.entry["rip"]
    assert image.entry["mode"] == "real" and cs[0] == 0xF000 and cs[1] + ip == 0xFFFFFFF0


# What is wrong with a file is said in one line

MEMBER = images.multiboot_header() + images.CODE
BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, world\n" * 100, "format: not recognized"),
    "filler": (bytes(65536), "format: not recognized"),
    "elf magic alone": (b"\x7FELF", "ELF header: malformed"),
    "elf header cut": (images.multiboot_elf()[:40], "format|malformed"),
    "elf segment cut": (images.multiboot_elf()[:-1], "segment 0: ends at byte .* truncated"),
    "elf64 multiboot": (images.elf(64, ((0x100000, MEMBER, 0x1000),)), "expected a 32-bit ELF"),
    "shared object": (images.elf(segments=((0x100000, MEMBER, 0x1000),), kind=3), "e_type: ET_DYN"),
    "arm": (images.elf(segments=((0x100000, MEMBER, 0x1000),), machine=40), "e_machine: EM_ARM"),
    "no segment": (images.elf(segments=(), entry=0, notes=MEMBER), "nothing to load"),
    "outside memory": (images.elf(segments=((MEMORY - 0x100, MEMBER, 0x1000),), entry=MEMORY - 0x100), "expected within the memory"),
    "in the hole": (images.elf(segments=((0x9F000, MEMBER, 0x2000),), entry=0x9F000), "overlaps the hole"),
    "overlap": (images.elf(segments=((0x100000, MEMBER, 0x1000), (0x100800, MEMBER, 0x1000))), "segment 1: .* overlaps segment 0"),
    "memsz below filesz": (images.elf(segments=((0x100000, MEMBER, 4),)), "expected at least p_filesz"),
    "entry nowhere": (images.elf(segments=((0x100000, MEMBER, 0x1000),), entry=0x500000), "e_entry: 0x500000 lies in no loaded"),
    "plain elf": (images.elf(64), "without multiboot header, PVH note or Linux note"),
    "address fields cut": (images.multiboot_header(1 << 16, 1, 2), "truncated"),
    "address fields odd": (images.multiboot_header(1 << 16, 0x100000, 0x200000, 0, 0, 0x100000), "load_addr"),
    "address fields long": (images.multiboot_header(1 << 16, 0x100000, 0x100000, 0x200000, 0, 0x100000), "load_end_addr"),
    "address entry": (images.multiboot_header(1 << 16, 0x100000, 0x100000, 0, 0, 0x900000), "entry_addr"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_image(load, tmp_path, name):
    data, expected = BAD[name]
    with pytest.raises(boot.BootError, match=expected) as caught:
        load(data)
    assert str(caught.value).startswith(str(tmp_path / "image")) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path, expected", [("missing", "No such file"), (".", "not a regular file"), ("/dev/zero", "not a regular file"),
                                            ("nul\0", "null")])
def test_bad_path(tmp_path, path, expected):
    with pytest.raises(boot.BootError, match=expected):
        boot.load(tmp_path / path, MEMORY)


def test_oversized(load, monkeypatch):
    monkeypatch.setattr("pyx86v.boot.image.LARGEST_FILE", 100)
    with pytest.raises(boot.BootError, match="bytes, expected at most 100"):
        load(images.multiboot_elf())


def test_initrd_that_does_not_fit(load):
    with pytest.raises(boot.BootError, match="initrd: .* do not fit"):
        load(images.bzimage(), memory=20 * MIB, initrd=bytes(4 * MIB))
    with pytest.raises(boot.BootError, match="initrd: No such file"):
        boot.load(__file__, MEMORY, initrd="/nowhere/initrd")


@pytest.mark.parametrize("memory", [0, MIB, 4 << 30])
def test_impossible_memory(load, memory):
    with pytest.raises(boot.BootError, match="memory"):
        load(images.multiboot_elf(), memory=memory)


def test_firmware_takes_no_arguments(load):
    data = bytes(65536 - 16) + b"\xEA" + bytes(15)
    for more in ({"kernel_args": "x"}, {"initrd": b"x"}):
        with pytest.raises(boot.BootError, match="firmware takes none"):
            load(data, **more)
