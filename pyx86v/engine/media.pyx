# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and fw_cfg items of a world: attached before it runs, and between the sections of a snapshot and back."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy
from pyx86v.devices.fwcfg cimport FWCFG_ITEMS, FwItem
from pyx86v.devices.ide_state cimport cylinders, ide_drive_attach
from pyx86v.devices.platform cimport Platform
from pyx86v.devices.sinks cimport Sinks
from pyx86v.devices.storage cimport CHUNK, MAX_DISKS, Disk, chunk_open, chunk_written, disk_open
from pyx86v.engine.worlds cimport Seat

cdef enum:
    CMOS_TRANSLATION = 0x39  # two bits a disk: how the BIOS translates its geometry; 1 is by LBA
    TRANSLATE_LBA = 1
    MAX_CYLINDERS = 1024     # that fit in the BIOS interface


cdef int media_attach(Seat* s, object images) except -1:
    """Plug the disks in.  `images` are disks.Image: place, file, size, cdrom, write, limit.  MemoryError."""
    cdef Disk* d
    for image in images:
        d = &s.sinks.disk[<int>image.place]
        if not disk_open(d, image.file.fileno(), image.size, image.cdrom, image.write, image.limit):
            raise MemoryError(f"{image.path}: disk: {image.size} bytes are not available")
        ide_drive_attach(&s.world.platform.ide, image.place, image.cdrom, image.size)
        note_translation(&s.world.platform, image.place)
    return 0


cdef void note_translation(Platform* p, int place) noexcept:
    if cylinders(&p.ide.channel[place >> 1].drive[place & 1]) > MAX_CYLINDERS:
        p.rtc.ram[CMOS_TRANSLATION] |= TRANSLATE_LBA << (2 * place)


cdef int media_firmware(Sinks* s, dict items) except -1:
    """What fw_cfg has: {key: bytes}.  MemoryError."""
    cdef uint32_t at = 0
    cdef const uint8_t[::1] view
    if len(items) > FWCFG_ITEMS:
        raise ValueError(f"fw_cfg: {len(items)} items, expected at most {FWCFG_ITEMS}")
    s.firmware.data = <uint8_t*>malloc(sum(map(len, items.values())) or 1)
    if s.firmware.data is NULL:
        raise MemoryError("fw_cfg")
    for i, (key, data) in enumerate(items.items()):
        s.firmware.item[i].key = key
        s.firmware.item[i].offset = at
        s.firmware.item[i].size_bytes = len(data)
        if data:
            view = data
            memcpy(s.firmware.data + at, &view[0], len(data))
        at += len(data)
    s.firmware.count = len(items)
    return 0

# Snapshots -------------------------------------------------------------------------------------

cdef view(void* data, uint64_t size):
    """The memory itself, not a copy."""
    return memoryview(<uint8_t[:size]><uint8_t*>data)


cdef list overlay_sections(const Disk* d, str end):
    """The numbers of the written chunks, and the chunks."""
    chunks = [chunk for chunk in range((d.bytes + CHUNK - 1) // CHUNK) if chunk_written(d, chunk)] if d.chunks else []
    return [("written" + end, [chunk.to_bytes(8, "little") for chunk in chunks]),
            ("overlay" + end, [view(d.overlay + <uint64_t>chunk * CHUNK, CHUNK) for chunk in chunks])]


cdef list firmware_sections(const Sinks* s, str end):
    cdef const FwItem* item
    cdef uint32_t i
    keys, data = [], []
    for i in range(s.firmware.count):
        item = &s.firmware.item[i]
        keys.append(int(item.key).to_bytes(4, "little") + int(item.size_bytes).to_bytes(4, "little"))
        data.append((<const char*>s.firmware.data + item.offset)[:item.size_bytes])
    return [("fwkeys" + end, keys), ("fwdata" + end, data)]


cdef list media_sections(Sinks* s, str end):
    """[(name, [buffer, ...])] of a world's disks and fw_cfg items."""
    sections = firmware_sections(s, end)
    for i in range(MAX_DISKS):
        if s.disk[i].present:
            sections += overlay_sections(&s.disk[i], f".disk{i}{end}")
    return sections


cdef str overlay_load(Disk* d, str end, dict sections):
    numbers, data = sections.get("written" + end, b""), sections.get("overlay" + end, b"")
    cdef const uint8_t[::1] bytes_ = data
    cdef uint64_t chunk, at = 0
    if len(numbers) % 8 or len(data) != len(numbers) // 8 * CHUNK:
        return f"overlay{end}: {len(data)} bytes for {len(numbers) // 8} chunks"
    for i in range(0, len(numbers), 8):
        chunk = int.from_bytes(numbers[i:i + 8], "little")
        if chunk >= (d.bytes + CHUNK - 1) // CHUNK or d.overlay is NULL or not chunk_open(d, chunk, True):
            return f"written{end}: a chunk that this disk does not have"
        memcpy(d.overlay + chunk * CHUNK, &bytes_[at], CHUNK)
        at += CHUNK
    return None


cdef str media_load(Seat* s, dict sections, str end):
    """The way back.  None, or what does not fit."""
    keys, data = bytes(sections.get("fwkeys" + end, b"")), bytes(sections.get("fwdata" + end, b""))
    items, at = {}, 0
    for i in range(0, len(keys), 8):
        key, size = int.from_bytes(keys[i:i + 4], "little"), int.from_bytes(keys[i + 4:i + 8], "little")
        items[key] = data[at:at + size]
        at += size
    if len(keys) % 8 or len(keys) // 8 > FWCFG_ITEMS or at != len(data):
        return f"fwkeys{end}: {len(keys)} bytes for {len(data)} bytes of items"
    media_firmware(&s.sinks, items)
    for i in range(MAX_DISKS):
        problem = overlay_load(&s.sinks.disk[i], f".disk{i}{end}", sections)
        if problem is not None:
            return problem
    return None
