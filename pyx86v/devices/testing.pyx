# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare platform for tests: no processor, ports and time by hand."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.devices.fwcfg cimport FWCFG_ITEMS
from pyx86v.devices.ide_state cimport ide_drive_attach
from pyx86v.devices.platform cimport (FEATURE_DEADLINE, FEATURE_X2APIC, Platform, platform_ack, platform_advance, platform_cr8,
                                      platform_in, platform_init, platform_irq, platform_mmio_read, platform_mmio_write,
                                      platform_msr_read, platform_msr_write, platform_next_event, platform_out,
                                      platform_set_cr8, platform_set_irq, platform_tsc_set)
from pyx86v.devices.sinks cimport Buffer, Sinks, buffer_append, sinks_free, sinks_init
from pyx86v.devices.sound cimport platform_is_sound
from pyx86v.devices.storage cimport disk_open

cdef enum:
    BENCH_MEMORY = 1 << 20   # bytes that devices can reach



cdef bytes buffer_bytes(const Buffer* b):
    return b.data[:b.size] if b.size else b""


cdef void memory_read(void* owner, uint64_t at, void* data, uint64_t n) noexcept nogil:
    cdef uint64_t part = 0 if at >= BENCH_MEMORY else min(n, BENCH_MEMORY - at)
    memcpy(data, <uint8_t*>owner + at, part)
    memset(<uint8_t*>data + part, 0xFF, n - part)


cdef void memory_write(void* owner, uint64_t at, const void* data, uint64_t n) noexcept nogil:
    memcpy(<uint8_t*>owner + at, data, 0 if at >= BENCH_MEMORY else min(n, BENCH_MEMORY - at))


cdef class PlatformBench:
    """One Platform with its Sinks.  `now` is a field: guest time in cycles, moved by run() and run_to()."""
    cdef Platform p
    cdef Sinks s
    cdef public uint64_t now
    cdef list files

    def __cinit__(self):
        sinks_init(&self.s)

    def __init__(self, uint64_t cycles_per_second=1_193_182, uint64_t ram_bytes=64 << 20):
        platform_init(&self.p, cycles_per_second, ram_bytes, FEATURE_X2APIC | FEATURE_DEADLINE, 40)
        self.s.bus.owner = calloc(1, BENCH_MEMORY)
        self.s.bus.read = memory_read
        self.s.bus.write = memory_write
        self.files = []

    def __dealloc__(self):
        free(self.s.bus.owner)
        sinks_free(&self.s)

    def attach(self, int place, path, bint cdrom=False, bint write=False, uint64_t limit=1 << 30):
        """Plug an image file in."""
        file = open(path, "r+b" if write else "rb", buffering=0)
        self.files.append(file)
        size = file.seek(0, 2)
        if not disk_open(&self.s.disk[place], file.fileno(), size, cdrom, write, limit):
            raise MemoryError(path)
        ide_drive_attach(&self.p.ide, place, cdrom, size)

    def set_items(self, dict items):
        """What fw_cfg has: {key: bytes}."""
        data = b"".join(items.values())
        self.s.firmware.data = <uint8_t*>calloc(1, len(data) + 1)
        memcpy(self.s.firmware.data, <const char*>data, len(data))
        at = 0
        for i, (key, value) in enumerate(list(items.items())[:FWCFG_ITEMS]):
            self.s.firmware.item[i].key, self.s.firmware.item[i].offset, self.s.firmware.item[i].size_bytes = key, at, len(value)
            at += len(value)
        self.s.firmware.count = len(items)

    def memory(self, uint64_t at, uint64_t n):
        assert at + n <= BENCH_MEMORY
        return (<char*>self.s.bus.owner + at)[:n]

    def set_memory(self, uint64_t at, bytes data):
        memory_write(self.s.bus.owner, at, <const char*>data, len(data))

    def is_sound(self):
        """Would a snapshot with this state be taken?"""
        return bool(platform_is_sound(&self.p, &self.p))

    def inb(self, uint16_t port):
        return platform_in(&self.p, &self.s, port, 1, self.now)

    def read(self, uint16_t port, int size_bytes):
        return platform_in(&self.p, &self.s, port, size_bytes, self.now)

    def outb(self, uint16_t port, *values):
        for value in values:
            platform_out(&self.p, &self.s, port, 1, value, self.now)

    def write(self, uint16_t port, int size_bytes, uint32_t value):
        platform_out(&self.p, &self.s, port, size_bytes, value, self.now)

    def load(self, uint64_t gpa, int size_bytes=4):
        """What memory of the platform reads, or None where there is none."""
        cdef uint64_t value = 0
        return value if platform_mmio_read(&self.p, gpa, size_bytes, &value, self.now) else None

    def store(self, uint64_t gpa, uint64_t value, int size_bytes=4):
        return bool(platform_mmio_write(&self.p, gpa, size_bytes, value, self.now))

    def rdmsr(self, uint32_t msr):
        """An MSR of the local APIC, or None: #GP."""
        cdef uint64_t value = 0
        return value if platform_msr_read(&self.p, msr, &value, self.now) else None

    def wrmsr(self, uint32_t msr, uint64_t value):
        """False: #GP."""
        return bool(platform_msr_write(&self.p, msr, value, self.now))

    def set_tsc_offset(self, uint64_t offset):
        platform_tsc_set(&self.p, offset, self.now)

    @property
    def cr8(self):
        return platform_cr8(&self.p)

    @cr8.setter
    def cr8(self, uint32_t value):
        platform_set_cr8(&self.p, value)

    def run_to(self, uint64_t now):
        """Move time and advance the platform."""
        self.now = now
        platform_advance(&self.p, &self.s, now)

    def run(self, uint64_t cycles):
        self.run_to(self.now + cycles)

    def next_event(self):
        """The cycle of the next event, or None."""
        cdef uint64_t next = platform_next_event(&self.p, self.now)
        return None if next == <uint64_t>-1 else next

    def irq(self):
        return bool(platform_irq(&self.p))

    def ack(self):
        return platform_ack(&self.p, self.now)

    def set_irq(self, int irq, bint level):
        """Drive a request line by hand; the chips own 0, 1, 4 and 8."""
        if not 0 <= irq <= 15 or irq == 2:
            raise ValueError(f"IRQ {irq}: expected 0 to 15, not 2")
        platform_set_irq(&self.p, irq, level)

    def feed(self, bytes data):
        """Append to the host's input for COM1."""
        buffer_append(&self.s.input, <const char*>data, len(data))

    def type(self, bytes codes):
        """Append to the host's typing."""
        buffer_append(&self.s.keys, <const char*>codes, len(codes))
        self.p.key_due = 0

    def limit_console(self, uint64_t limit):
        self.s.console.limit = limit

    @property
    def console(self):
        return buffer_bytes(&self.s.console)

    @property
    def console_dropped(self):
        return self.s.console.dropped

    @property
    def debug(self):
        return buffer_bytes(&self.s.debug)

    @property
    def report(self):
        data = buffer_bytes(&self.s.report)
        return [int.from_bytes(data[i:i + 4], "little") for i in range(0, len(data), 4)]

    @property
    def stop(self):
        return self.p.stop, self.p.stop_status

    @property
    def a20(self):
        return self.p.kbc.a20

    @property
    def lines(self):
        """IRQ levels, bit 0 is IRQ 0 (bit 2 the slave's INT)."""
        return self.p.pic.master.line | self.p.pic.slave.line << 8

    def save(self):
        return (<const char*>&self.p)[:sizeof(Platform)]

    def restore(self, bytes state):
        if len(state) != sizeof(Platform):
            raise ValueError(f"a Platform has {sizeof(Platform)} bytes, not {len(state)}")
        memcpy(&self.p, <const char*>state, sizeof(Platform))

    def time_port(self, uint16_t port, uint64_t count, bint write=False, uint32_t step=7):
        """Access a port `count` times in C, `step` cycles apart; the sum of what was read."""
        cdef uint64_t i, total = 0, now = self.now
        with nogil:
            for i in range(count):
                if write:
                    platform_out(&self.p, &self.s, port, 1, 0, now)
                else:
                    total += platform_in(&self.p, &self.s, port, 1, now)
                now += step
        self.now = now
        return total
