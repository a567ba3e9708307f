# SPDX-License-Identifier: GPL-2.0-or-later
"""`machine.guests[i]`: one guest's own part of a machine, whichever guest is on the processor.

What Machine says of a guest holds for the one in front; a Guest puts its own there, asks, and puts the other back.
Neither modelled time nor any count changes by that.
"""
import struct
import weakref

from pyx86v import clocks, disks as images

SMALLEST_MEMORY, LARGEST_MEMORY = 2 << 20, 3 << 30      # bytes of one guest


class Guest:
    """One guest of a machine: its image, console, registers, memory, and its share of the machine's counts.

        for guest in machine.guests:
            print(guest.index, guest.style, guest.end, guest.instructions, guest.console)

    Inside a callback of a machine that runs, only the guest that called can be asked: ValueError for another.
    """

    def __init__(self, machine, index, known, style, memory, disks=(), cdroms=(), write_disks=False):
        if style not in known:
            raise ValueError(f"style: {style!r}, expected one of {', '.join(known)}")
        if not isinstance(memory, int) or memory % 4096 or not SMALLEST_MEMORY <= memory <= LARGEST_MEMORY:
            raise ValueError(f"memory: {memory!r}, expected a multiple of 4096 from {SMALLEST_MEMORY} to {LARGEST_MEMORY} bytes")
        self._machine, self.index, self.style, self.memory = weakref.ref(machine), index, style, memory
        self.loaded, self.capsule = False, known[style]
        self.images = images.plug(disks, cdroms, write_disks)
        self.ports, self.mmio, self.exit_hooks, self.awaited = [], [], [], []

    @property
    def machine(self):
        """The Machine; ReferenceError when it is gone: a guest does not keep it."""
        machine = self._machine()
        if machine is None:
            raise ReferenceError("guest: its machine is gone")
        return machine

    def __repr__(self):
        return f"<guest {self.index} of {len(self.machine.guests)}: {self.style}, {self.memory >> 20} MiB>"

    def _ask(self, question):
        before = self.machine._bring(self.index)
        try:
            return question(self.machine)
        finally:
            self.machine._bring(before)

    def load(self, path=None, **how):
        """Machine.load() for this guest."""
        self._ask(lambda machine: machine.load(path, **how))

    @property
    def end(self):
        """The Stop with which the guest ended; None while it can run on."""
        return self._ask(lambda machine: machine._ended())

    @property
    def units(self):
        """This guest's part of the machine's time in 1/64 cycle; the guests' parts sum to Machine.units."""
        return self.machine._account(self.index, "units")

    @property
    def cycles(self):
        """The same in whole cycles, the switches to this guest and the idle time in which it was waited for included."""
        return self.units // 64

    @property
    def instructions(self):
        """Instructions that this guest retired."""
        return self.machine._account(self.index, "instructions")

    @property
    def ledger(self):
        """{cause: cycles} of this guest; the values sum to its `cycles`."""
        return self.machine._account(self.index, "ledger")

    @property
    def ledger_units(self):
        """{cause: units of 1/64 cycle}, exact: over all guests they sum to the machine's."""
        return self.machine._account(self.index, "ledger_units")

    @property
    def tlb(self):
        """Machine.tlb while this guest ran."""
        return self.machine._account(self.index, "tlb")

    @property
    def walks(self):
        """Machine.walks while this guest ran."""
        return self.machine._account(self.index, "walks")

    @property
    def console(self):
        """Machine.console of this guest, at any time."""
        return self.machine._sink(self.index, "console")

    @property
    def debug_console(self):
        """Machine.debug_console of this guest, at any time."""
        return self.machine._sink(self.index, "debug")

    @property
    def report(self):
        """Machine.report of this guest, at any time."""
        raw = self.machine._sink(self.index, "report")
        return [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]

    @property
    def probe(self):
        """Machine.probe of this guest, at any time."""
        return clocks.plateaus(struct.iter_unpack("<5Q", self.machine._sink(self.index, "probe")))

    def digest(self):
        """Machine.digest() of this guest."""
        return self._ask(lambda machine: machine.digest())

    def read_memory(self, gpa, size):
        """Machine.read_memory() of this guest."""
        return self._ask(lambda machine: machine.read_memory(gpa, size))

    def write_memory(self, gpa, data):
        """Machine.write_memory() of this guest."""
        self._ask(lambda machine: machine.write_memory(gpa, data))

    def set_register(self, name, value):
        """Machine.set_register() of this guest."""
        self._ask(lambda machine: machine.set_register(name, value))

    def send(self, data):
        """Machine.send() to this guest."""
        self._ask(lambda machine: machine.send(data))

    def type_keys(self, text):
        """Machine.type_keys() to this guest."""
        self._ask(lambda machine: machine.type_keys(text))

    def press_keys(self, *names):
        """Machine.press_keys() to this guest."""
        self._ask(lambda machine: machine.press_keys(*names))

    def add_breakpoint(self, address):
        """Machine.add_breakpoint() for this guest alone."""
        self._ask(lambda machine: machine.add_breakpoint(address))

    def remove_breakpoint(self, address):
        """Machine.remove_breakpoint() of this guest."""
        self._ask(lambda machine: machine.remove_breakpoint(address))

    def add_port_device(self, first, count, device):
        """Machine.add_port_device() for this guest alone."""
        self._ask(lambda machine: machine.add_port_device(first, count, device))

    def add_mmio_device(self, gpa, size, device):
        """Machine.add_mmio_device() for this guest alone."""
        self._ask(lambda machine: machine.add_mmio_device(gpa, size, device))

    def on_exit(self, hook):
        """Machine.on_exit() for this guest alone."""
        self._ask(lambda machine: machine.on_exit(hook))


def _same(name):
    return property(lambda guest: guest._ask(lambda machine: getattr(machine, name)), doc=f"Machine.{name} of this guest.")


for _name in ("registers", "events", "exits", "shadow", "holes", "hole_sites", "census", "census_sites", "guest_time"):
    setattr(Guest, _name, _same(_name))
