# SPDX-License-Identifier: GPL-2.0-or-later
"""IDE: registers, PIO and bus-master transfers, packet commands, against ATA/ATAPI-6 and MMC-3; image files stay as they are."""
import random
import struct

import pytest

from pyx86v.devices.testing import PlatformBench

ERR, DRQ, DSC, DF, DRDY, BSY = 1, 8, 0x10, 0x20, 0x40, 0x80
ABRT, IDNF = 4, 0x10
BASE, CONTROL, MASTER = 0x1F0, 0x3F6, 0xC000
SECTORS = 4096


def words(data):
    return struct.unpack(f"<{len(data) // 2}H", data)


def text(data, first, last):
    return b"".join(struct.pack(">H", word) for word in words(data)[first:last + 1]).decode().rstrip()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SECTORS * 512))
    return path


@pytest.fixture
def disk(image):
    b = PlatformBench()
    b.attach(0, str(image))
    return b


@pytest.fixture
def cd(tmp_path):
    path = tmp_path / "cd.iso"
    path.write_bytes(random.Random(2).randbytes(100 * 2048))
    b = PlatformBench()
    b.attach(2, str(path), cdrom=True)
    return b


def irq(b, channel=0):
    return b.lines >> (14 + channel) & 1


def command(b, op, *, lba=0, count=1, features=0, ext=False, device=0x40, base=BASE):
    b.outb(base + 6, device | 0xA0 | (0 if ext else lba >> 24 & 15))
    if ext:
        b.outb(base + 2, count >> 8)
        for i in range(3):
            b.outb(base + 3 + i, lba >> (24 + 8 * i) & 0xFF)
    b.outb(base + 1, features)
    b.outb(base + 2, count & 0xFF)
    for i in range(3):
        b.outb(base + 3 + i, lba >> (8 * i) & 0xFF)
    b.outb(base + 7, op)


def read_block(b, size, base=BASE, width=2):
    return b"".join(b.read(base, width).to_bytes(width, "little") for _ in range(size // width))


def write_block(b, data, base=BASE):
    for word in words(data):
        b.write(base, 2, word)


def test_identify(disk, image):
    command(disk, 0xEC)
    assert irq(disk) and disk.inb(CONTROL) == DRDY | DSC | DRQ and irq(disk), "the alternate status does not acknowledge"
    assert disk.inb(BASE + 7) == DRDY | DSC | DRQ and not irq(disk)
    data = read_block(disk, 512)
    w = words(data)
    assert disk.inb(BASE + 7) == DRDY | DSC and not irq(disk)
    assert text(data, 27, 46) == "PYX86V DISK" and text(data, 10, 19) and text(data, 23, 26)
    assert w[60] | w[61] << 16 == SECTORS and w[100] | w[101] << 16 | w[102] << 32 | w[103] << 48 == SECTORS
    assert w[0] & 0x8000 == 0 and w[49] >> 9 & 1 and w[49] >> 8 & 1 and w[83] >> 10 & 1 and w[83] & 0xC000 == 0x4000
    assert w[1] * w[3] * w[6] <= SECTORS and (w[3], w[6]) == (16, 63) and w[47] & 0xFF == 16


@pytest.mark.parametrize("op, ext", [(0x20, False), (0x24, True), (0x21, False)])
@pytest.mark.parametrize("width", [2, 4])
def test_read_sectors_with_an_interrupt_each(disk, image, op, ext, width):
    command(disk, op, lba=77, count=3, ext=ext)
    got = b""
    for _ in range(3):
        assert irq(disk) and disk.inb(BASE + 7) & (BSY | DRQ | ERR) == DRQ and not irq(disk)
        got += read_block(disk, 512, width=width)
    assert not irq(disk) and disk.inb(BASE + 7) == DRDY | DSC
    assert got == image.read_bytes()[77 * 512:80 * 512]
    assert disk.read(BASE, 2) == 0, "nothing more"


def test_read_by_cylinder_head_and_sector(disk, image):
    disk.outb(BASE + 6, 0xA0 | 3)
    for i, value in enumerate((1, 5, 2, 0)):             # count, sector, cylinder
        disk.outb(BASE + 2 + i, value)
    disk.outb(BASE + 7, 0x20)
    lba = (2 * 16 + 3) * 63 + 4
    assert read_block(disk, 512) == image.read_bytes()[lba * 512:(lba + 1) * 512]


def test_count_zero_is_256_and_multiple_blocks(disk, image):
    command(disk, 0xC4, count=4)
    assert disk.inb(BASE + 7) & ERR and disk.inb(BASE + 1) == ABRT, "not set yet"
    command(disk, 0xC6, count=3)
    assert disk.inb(BASE + 7) & ERR, "a power of two"
    command(disk, 0xC6, count=16)
    assert disk.inb(BASE + 7) == DRDY | DSC
    command(disk, 0xC4, lba=1, count=0)
    got, interrupts = b"", 0
    while disk.inb(CONTROL) & DRQ:
        interrupts += irq(disk)
        disk.inb(BASE + 7)
        got += read_block(disk, 16 * 512)
    assert got == image.read_bytes()[512:257 * 512] and interrupts == 16


@pytest.mark.parametrize("op, ext", [(0x30, False), (0x34, True), (0xC5, False), (0x39, True)])
def test_writes_are_read_back_and_the_file_is_not_changed(disk, image, op, ext):
    before, data = image.read_bytes(), random.Random(op).randbytes(5 * 512)
    command(disk, 0xC6, count=4)
    command(disk, op, lba=SECTORS - 5, count=5, ext=ext)
    assert not irq(disk), "the first block is asked for without an interrupt"
    left = data
    while disk.inb(CONTROL) & DRQ:
        disk.inb(BASE + 7)
        size = 512 * (4 if op in (0xC5, 0x39) else 1)
        write_block(disk, left[:size])
        left = left[size:]
        assert irq(disk)
    assert not left and disk.inb(BASE + 7) == DRDY | DSC
    command(disk, 0x20, lba=SECTORS - 6, count=6)
    assert read_block(disk, 6 * 512) == before[-6 * 512:-5 * 512] + data
    assert image.read_bytes() == before


def test_write_through_reaches_the_file(image):
    b = PlatformBench()
    b.attach(1, str(image), write=True)
    command(b, 0x30, lba=9, device=0x50)
    write_block(b, b"new!" * 128)
    command(b, 0xE7, device=0x50)
    assert b.inb(BASE + 7) == DRDY | DSC and image.read_bytes()[9 * 512:10 * 512] == b"new!" * 128


def test_a_full_overlay_is_a_device_fault(image):
    b = PlatformBench()
    b.attach(0, str(image), limit=4096)
    for lba, status in ((0, DRDY | DSC), (7, DRDY | DSC), (8, DRDY | DSC | DF | ERR)):
        command(b, 0x30, lba=lba)
        write_block(b, bytes(512))
        assert b.inb(BASE + 7) == status


def test_a_file_that_shrinks_is_a_read_error(disk, image):
    with open(image, "r+b") as file:
        file.truncate(512)
    command(disk, 0x20, lba=100)
    assert disk.inb(BASE + 7) & DRQ
    disk.read(BASE, 2)
    assert disk.inb(BASE + 7) & ERR and disk.inb(BASE + 1) == 0x40


@pytest.mark.parametrize("op, lba, count, ext", [(0x20, SECTORS, 1, False), (0x20, SECTORS - 1, 2, False), (0x30, 0x0FFFFFFF, 1, False),
                                                (0x24, 1 << 47, 1, True), (0x25, SECTORS, 1, True), (0x40, SECTORS - 3, 4, False)])
def test_beyond_the_end_is_not_found(disk, op, lba, count, ext):
    command(disk, op, lba=lba, count=count, ext=ext)
    assert irq(disk) and disk.inb(BASE + 7) & (ERR | DRQ | BSY) == ERR and disk.inb(BASE + 1) == IDNF


@pytest.mark.parametrize("op, error", [(0x00, ABRT), (0xA0, ABRT), (0xA1, ABRT), (0xB0, ABRT), (0x08, ABRT), (0xFF, ABRT),
                                       (0x10, 0), (0x70, 0), (0x91, 0), (0xE0, 0), (0xE7, 0), (0xEA, 0)])
def test_commands_without_data(disk, op, error):
    command(disk, op)
    assert irq(disk) and disk.inb(BASE + 7) == DRDY | DSC | (ERR if error else 0) and disk.inb(BASE + 1) == error


def test_set_features_shows_in_identify(disk):
    command(disk, 0xEF, features=3, count=0x22)
    command(disk, 0xEF, features=0x82)
    command(disk, 0xEC)
    w = words(read_block(disk, 512))
    assert w[63] == 0x0407 and w[88] >> 8 == 0 and w[85] & 0x20 == 0
    command(disk, 0xEF, features=3, count=0x47)
    assert disk.inb(BASE + 7) & ERR, "no such mode"


def test_masked_interrupt_and_software_reset(disk):
    disk.outb(CONTROL, 2)
    command(disk, 0x20)
    assert not irq(disk)
    disk.outb(CONTROL, 0)
    disk.write(CONTROL, 1, 4)
    assert disk.inb(CONTROL) == BSY
    disk.outb(CONTROL, 0)
    assert [disk.inb(BASE + i) for i in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, DRDY | DSC], "the signature of a disk"


def test_both_bytes_of_a_48_bit_register(disk):
    disk.outb(BASE + 2, 0x12, 0x34)
    assert disk.inb(BASE + 2) == 0x34
    disk.outb(CONTROL, 0x80)
    assert disk.inb(BASE + 2) == 0x12
    disk.outb(BASE + 3, 0)
    assert disk.inb(BASE + 2) == 0x34, "writing a register ends that"


def test_absent_drives(disk):
    disk.outb(BASE + 6, 0xB0)
    disk.outb(BASE + 7, 0xEC)
    assert disk.inb(BASE + 7) == 0 and disk.inb(BASE + 2) == 0 and not irq(disk)
    assert disk.inb(0x177) == 0 and disk.inb(0x172) == 0


def master_table(b, at, *regions):
    b.set_memory(at, b"".join(struct.pack("<IHH", address, size & 0xFFFF, 0x8000 if i == len(regions) - 1 else 0)
                              for i, (address, size) in enumerate(regions)))


@pytest.mark.parametrize("order", ["command first", "start first"])
def test_bus_master_read(disk, image, order):
    master_table(disk, 0x100, (0x1000, 0x600), (0x8000, 65536), (0x40000, 0xA00))
    disk.write(MASTER + 4, 4, 0x100)
    steps = [lambda: command(disk, 0xC8, lba=5, count=136), lambda: disk.outb(MASTER, 9)]
    for step in steps if order == "command first" else steps[::-1]:
        step()
    got = disk.memory(0x1000, 0x600) + disk.memory(0x8000, 65536) + disk.memory(0x40000, 0xA00)
    assert got == image.read_bytes()[5 * 512:141 * 512]
    assert irq(disk) and disk.inb(MASTER + 2) == 4 and disk.inb(BASE + 7) == DRDY | DSC
    disk.outb(MASTER + 2, 0x64)
    assert disk.inb(MASTER + 2) == 0x60, "the interrupt bit is cleared by writing it, capability bits stay"


def test_bus_master_write(disk, image):
    data = random.Random(3).randbytes(1024)
    disk.set_memory(0x2000, data)
    master_table(disk, 0x100, (0x2000, 100), (0x2064, 924))
    disk.write(MASTER + 4, 4, 0x100)
    command(disk, 0x35, lba=1000, count=2, ext=True)
    assert disk.inb(CONTROL) & DRQ and not irq(disk)
    disk.outb(MASTER, 1)
    assert irq(disk) and disk.inb(MASTER + 2) & 7 == 4
    command(disk, 0x20, lba=1000, count=2)
    assert read_block(disk, 1024) == data


def test_bus_master_table_without_end(disk):
    disk.write(MASTER + 4, 4, 0x10000)                   # all zeros: regions of 64 KiB at 0 that never end
    command(disk, 0x25, count=SECTORS, ext=True)
    disk.outb(MASTER, 9)
    assert disk.inb(MASTER + 2) & 1 == 0 and disk.inb(BASE + 7) == DRDY | DSC, "the disk ends it"
    disk.set_memory(0x10000, struct.pack("<IHH", 0, 2, 0) * 8192)
    disk.outb(MASTER, 0)
    command(disk, 0x25, count=SECTORS, ext=True)
    disk.outb(MASTER, 9)
    assert disk.inb(MASTER + 2) & 3 == 2, "8,192 descriptors are the most there can be: an error"


# CD-ROM ----------------------------------------------------------------------------------------

CD = 0x170


def packet(b, cdb, limit=0xFFFE, features=0):
    command(b, 0xA0, lba=limit << 8, count=0, features=features, device=0, base=CD)
    assert b.inb(CD + 7) == DRDY | DRQ and b.inb(CD + 2) & 3 == 1 and not irq(b, 1)
    write_block(b, bytes(cdb).ljust(12, b"\0"), base=CD)


def data_of(b):
    """All DRQ blocks of a packet command's data: [block, ...]."""
    blocks = []
    while b.inb(0x376) & DRQ:
        assert irq(b, 1) and b.inb(CD + 7) & DRQ and b.inb(CD + 2) & 3 == 2
        blocks.append(read_block(b, b.inb(CD + 4) | b.inb(CD + 5) << 8, base=CD))
    assert irq(b, 1) and b.inb(CD + 7) & (DRQ | BSY) == 0 and b.inb(CD + 2) & 3 == 3
    return blocks


def sense(b):
    packet(b, [3, 0, 0, 0, 18])
    (data,) = data_of(b)
    return data[2], data[12]


def test_cd_signature_and_identify(cd):
    assert [cd.inb(CD + i) for i in (2, 3, 4, 5)] == [1, 1, 0x14, 0xEB]
    command(cd, 0xEC, base=CD, device=0)
    assert cd.inb(CD + 7) & ERR and (cd.inb(CD + 4), cd.inb(CD + 5)) == (0x14, 0xEB)
    command(cd, 0xA1, base=CD, device=0)
    data = read_block(cd, 512, base=CD)
    assert words(data)[0] == 0x85C0 and text(data, 27, 46) == "PYX86V CD-ROM" and not cd.inb(CD + 7) & DRQ


@pytest.mark.parametrize("op", [0x28, 0xA8])
@pytest.mark.parametrize("limit, sizes", [(0xFFFE, [6144]), (2048, [2048] * 3), (2049, [2048] * 3), (5000, [5000, 1144]), (0, [6144])])
def test_cd_read(cd, tmp_path, op, limit, sizes):
    cdb = struct.pack(">BBIBHB", op, 0, 17, 0, 3, 0) if op == 0x28 else struct.pack(">BBIIBB", op, 0, 17, 3, 0, 0)
    packet(cd, cdb, limit)
    blocks = data_of(cd)
    assert [len(block) for block in blocks] == sizes
    assert b"".join(blocks) == (tmp_path / "cd.iso").read_bytes()[17 * 2048:20 * 2048]


def test_cd_read_by_bus_master(cd, tmp_path):
    master_table(cd, 0x100, (0x1000, 3000), (0x2000, 1096))
    cd.write(MASTER + 12, 4, 0x100)
    packet(cd, struct.pack(">BBIBHB", 0x28, 0, 98, 0, 2, 0), features=1)
    cd.outb(MASTER + 8, 9)
    assert cd.memory(0x1000, 3000) + cd.memory(0x2000, 1096) == (tmp_path / "cd.iso").read_bytes()[-4096:]
    assert irq(cd, 1) and cd.inb(CD + 7) == DRDY and cd.inb(CD + 2) & 3 == 3 and cd.inb(MASTER + 10) & 7 == 4


def test_cd_capacity_inquiry_and_contents(cd):
    packet(cd, [0x25])
    assert b"".join(data_of(cd)) == struct.pack(">II", 99, 2048)
    packet(cd, [0x12, 0, 0, 0, 36])
    (data,) = data_of(cd)
    assert data[0] == 5 and data[1] == 0x80 and data[8:32].split() == [b"PYX86V", b"PYX86V", b"CD-ROM"]
    packet(cd, [0x43, 0, 0, 0, 0, 0, 0, 0, 100])
    (data,) = data_of(cd)
    assert data == struct.pack(">HBB", 18, 1, 1) + struct.pack(">BBBBI", 0, 0x14, 1, 0, 0) + struct.pack(">BBBBI", 0, 0x14, 0xAA, 0, 100)
    packet(cd, [0x43, 2, 0, 0, 0, 0, 0xAA, 0, 100])
    assert data_of(cd)[0][8:] == bytes([0, 0, 3, 25]), "100 sectors and two seconds as minute, second, frame"
    packet(cd, [0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 100])
    (data,) = data_of(cd)
    assert data[1] + 2 == len(data) and data[8:10] == b"\x2A\x12"
    packet(cd, [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
    assert data_of(cd)[0] == bytes([0, 6, 4, 0x10, 0, 2, 0, 0])


@pytest.mark.parametrize("cdb, expected", [([0x28, 0, 0, 0, 0, 100, 0, 0, 1], (5, 0x21)), ([0xFF], (5, 0x20)), ([0x43, 0, 5], (5, 0x24)),
                                           ([0x5A, 0, 0x0F, 0, 0, 0, 0, 0, 9], (5, 0x24)), ([0x4A, 0], (5, 0x24))])
def test_cd_refuses_with_sense(cd, cdb, expected):
    packet(cd, cdb)
    assert irq(cd, 1) and cd.inb(CD + 7) & ERR and cd.inb(CD + 1) >> 4 == expected[0]
    assert sense(cd) == expected and sense(cd) == (0, 0), "told once"


def test_cd_takes_what_moves_nothing(cd):
    for op in (0x00, 0x1B, 0x1E, 0x2B):
        packet(cd, [op])
        assert irq(cd, 1) and cd.inb(CD + 7) == DRDY and cd.inb(CD + 2) & 3 == 3


# Hostile guests --------------------------------------------------------------------------------

PORTS = [*range(0x1F0, 0x1F8), *range(0x170, 0x178), 0x3F6, 0x376, *range(0xC000, 0xC010), 0x1F7, 0x1F7, 0x177, 0x177, 0x170, 0x1F0, 0x1F0]
OPS = [0x20, 0x24, 0x30, 0x34, 0xC4, 0xC5, 0x29, 0x39, 0xC8, 0xCA, 0x25, 0x35, 0xA0, 0xA1, 0xEC, 0xC6, 0xEF, 0x90, 0x08, 0xE7]


@pytest.mark.parametrize("seed", range(4))
def test_random_programming_stays_sound(tmp_path, image, seed):
    """25,000 random accesses: nothing is read or written outside a buffer, and the state can be saved at any time."""
    rng, before = random.Random(seed), image.read_bytes()
    (tmp_path / "cd.iso").write_bytes(bytes(50 * 2048))
    b = PlatformBench()
    b.attach(0, str(image))
    b.attach(1, str(image), limit=1 << 16)
    b.attach(2, str(tmp_path / "cd.iso"), cdrom=True)
    b.set_memory(0, rng.randbytes(1 << 20))
    for _ in range(25_000):
        port = rng.choice(PORTS)
        if rng.random() < 0.5:
            b.read(port, rng.choice((1, 2, 4)))
        else:
            value = rng.choice(OPS) if port & 7 == 7 and port < 0x200 else rng.getrandbits(32) & rng.choice((0xFFFFFFFF, 0xFF, 3))
            b.write(port, rng.choice((1, 2, 4)), value)
        assert b.is_sound()
    assert image.read_bytes() == before
