# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled entry: `Machine`.  The one boundary where Python exceptions start.

    >>> from pyx86v import Machine
    >>> m = Machine(style="vmx+ept", profile="skylake")
    >>> m.load("hello.elf")
    >>> m.run()
    Stop(reason=<StopReason.EXIT: 'exit'>, status=0, detail='')
"""
import os

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from pyx86v._state cimport MachineState
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport PAGE_MASK
from pyx86v.cost.ledger cimport Ledger
from pyx86v.devices.platform cimport FEATURE_DEADLINE, FEATURE_X2APIC, PLATFORM_OFF, platform_init
from pyx86v.engine.breakpoints cimport breakpoint_change
from pyx86v.engine.configure cimport *
from pyx86v.engine.engine cimport *
from pyx86v.engine.media cimport media_attach, media_firmware
from pyx86v.engine.snapshot cimport *
from pyx86v.engine.state cimport *
from pyx86v.engine.worlds cimport *
from pyx86v.engine.uc cimport uc_strerror
from pyx86v.mmu.mmu cimport Mmu
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.msr cimport msr_init
from pyx86v.vmm.ring cimport hole_text
from pyx86v.vmm.paging cimport paging_refresh

from pyx86v import __version__, arguments, boot, disks as images, snapshot, vmm
from pyx86v._state import GPR
from pyx86v.clocks import policy
from pyx86v.cost.profile import fingerprint, load_profile
from pyx86v.engine.layout import verify
from pyx86v.guests import LARGEST_MEMORY, Guest as GuestOfMachine
from pyx86v.snapshot import SnapshotError
from pyx86v.stop import Stop, StopReason

__all__ = ["LARGEST_MEMORY", "Machine", "SnapshotError", "Stop", "StopReason", "styles"]

verify()

cdef extern from "Python.h" nogil:
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure()
    void PyGILState_Release(PyGILState_STATE)
    int check_signals "PyErr_CheckSignals" ()

cdef extern from *:
    """
    #define PYX_FOREVER 0xffffffffffffffffULL
    static int pyx_raise_pending(void) { return PyErr_Occurred() ? -1 : PyErr_CheckSignals(); }
    """
    const uint64_t FOREVER "PYX_FOREVER"
    int raise_pending "pyx_raise_pending"() except -1   # what a signal handler raised during or just after the run

CACHE_MODES = ("off", "walks", "full")              # by CacheMode
_REASONS = {STOP_EXIT: StopReason.EXIT, STOP_HALT: StopReason.HALT, STOP_SHUTDOWN: StopReason.SHUTDOWN, STOP_LIMIT: StopReason.LIMIT,
            STOP_HOLE: StopReason.HOLE, STOP_ERROR: StopReason.ERROR, STOP_BREAKPOINT: StopReason.BREAKPOINT}


def styles():
    """{name: capsule} of every style: each module below pyx86v.vmm with a `style_capsule` function."""
    return dict(sorted((_style_name(capsule), capsule) for capsule in vmm.style_capsules()))


cdef Style* _style_of(object capsule) except NULL:
    return <Style*>PyCapsule_GetPointer(capsule, b"pyx86v.style")


def _style_name(capsule):
    return _style_of(capsule).name.decode()


cdef int poll_signals(void* owner) noexcept nogil:
    """Called about once a million modelled cycles: 1 when a Python signal handler raised."""
    cdef PyGILState_STATE gil = PyGILState_Ensure()
    cdef int result = 1 if check_signals() != 0 else 0
    PyGILState_Release(gil)
    return result


cdef int python_port(void* owner, Event* ev) noexcept with gil:
    return (<Machine>owner)._port_event(ev)


cdef int python_mmio(void* owner, Event* ev) noexcept with gil:
    return (<Machine>owner)._mmio_event(ev)


cdef int python_exit(void* owner, Event* ev) noexcept with gil:
    return (<Machine>owner)._exit_event(ev)


cdef uint64_t python_idle(void* owner, uint64_t cycles) noexcept with gil:
    return (<Machine>owner)._idle_for(cycles)


cdef class Machine(MachineState):
    """One computer: RAM, a processor profile, a modelled TLB, devices, a clock, and a guest.

    memory   bytes of guest RAM, a multiple of 4096 from 2 MiB to 3 GiB
    style    "native", "vmx+ept", "svm+npt", ... (styles() lists them)
    profile  name of a bundled profile or path of a TOML file
    clock    "cycles": guest time is machine cycles; "instructions": retired instructions, the same under every style
    engine   None, or "portable": accounting through Unicorn's public hooks only (slower, same results)
    seed     of the TLB arrays with random replacement
    ept_page page size of the monitor's EPT or NPT: "4K", "2M" or "1G"
    adaptive  False: an instruction that traps because it writes guest tables stays as it is (bt+shadow)
    shadow_unsync  traced writes to a leaf table, none of its entries used between, after which shadow styles let it go out of
             sync until the guest flushes (1 to 255); 0: each write is traced
    guests   two to sixteen dicts with the style and memory of each guest, the arguments above where they say nothing;
             they share everything else, take turns, and `machine.guests` has a view of each
    quantum  cycles of a turn (instructions under clock="instructions")
    asids    how many tags of TLB entries there are for guests; None: as many as the processor has
    holes    "stop": the first sensitive instruction that should have trapped, and shows, ends the run (StopReason.HOLE);
             "continue": they are only counted.  For styles that deprivilege the guest's kernel
    audit    take a `census` of sensitive instructions; slower, with equal results
    disks    paths of raw disk images, cdroms: of CD-ROM images; together at most four a guest
    write_disks  what the guest writes goes to the disks' files; else it stays in memory, and the files are as they were
    tsc      what the guests' time stamp counter shows of machine time: "equal", "offset=N" cycles more, "scale=N/M" of it, "hidden":
             without the monitor's time.  timers: the same for the clock that all timers follow, without offset.  Where the two differ
             in more than an offset, the local APIC offers no TSC-deadline mode
    caches   "walks": references of page walks go through modelled data caches; "full": all data accesses do, which is slow; "off"
    branches "on": a predictor and a return stack are modelled, which is slow; "off"

        m = Machine(memory=128 << 20, style="vmx+ept", profile="nehalem", clock="instructions")
        m.load("bzImage", initrd="initrd.cpio", kernel_args="console=ttyS0")
        m.run()
        m.cycles, m.ledger, m.exits

        m = Machine(guests=[{"style": "vmx+ept"}, {"style": "native", "memory": 16 << 20}])
        for guest, path in zip(m.guests, ("one.elf", "two.elf")):
            guest.load(path)
        m.run()

    With several guests cycles, ledger, tlb and walks count the whole machine; what belongs to a guest (registers, memory,
    console, exits, breakpoints, devices) is that of the guest that is on the processor; machine.guests[i] has each one's own.
    Raises ValueError (one line) for arguments that cannot be, MemoryError when RAM is not to be had.
    A Machine belongs to one thread at a time; run() releases the GIL.
    """
    def __cinit__(self, *args, **kwargs):
        self.e = <Engine*>calloc(1, sizeof(Engine))
        self.mmu = <Mmu*>calloc(1, sizeof(Mmu))
        if self.e is NULL or self.mmu is NULL:
            raise MemoryError("machine state")

    def __dealloc__(self):
        if self.e is not NULL:
            engine_close(self.e)
            free_engine(self.e)
        worlds_free(self.worlds)
        free(self.mmu)

    def __init__(self, memory=64 << 20, style="native", profile="skylake", clock="cycles", engine=None, seed=0, ept_page="4K",
                 shadow_unsync=0, guests=None, quantum=1_000_000, asids=None, holes="stop", audit=False,
                 disks=(), cdroms=(), write_disks=False, tsc="equal", timers="equal",
                 caches="off", branches="off", adaptive=True):
        for name, value, known in (("clock", clock, ("cycles", "instructions")), ("engine", engine, ("inline", "portable", None)),
                                   ("ept_page", ept_page, ("4K", "2M", "1G")), ("holes", holes, ("stop", "continue")),
                                   ("caches", caches, CACHE_MODES), ("branches", branches, ("off", "on"))):
            if value not in known:
                raise ValueError(f"{name}: {value!r}, expected one of {', '.join(map(str, known))}")
        if self.e.uc is not NULL:
            raise ValueError("machine: it is made already, expected one __init__()")
        if guests is not None:
            guests = arguments.guests(guests, ("style", "memory", "disks", "cdroms", "write_disks"))
            arguments.whole("guests", len(guests), 1, MAX_WORLDS)
        shadow_unsync, quantum = arguments.whole("shadow_unsync", shadow_unsync, 0, 255), arguments.whole("quantum", quantum, 1, 1 << 40)
        seed, asids = arguments.whole("seed", seed, -(1 << 63), FOREVER), None if asids is None else arguments.whole("asids", asids, 1, 65535)
        self._profile = load_profile(profile)
        self.clock = clock
        self.options = {"memory": memory, "style": style, "profile": str(profile), "clock": clock, "engine": engine,
                        "seed": seed, "ept_page": ept_page, "shadow_unsync": shadow_unsync,
                        "guests": guests, "quantum": quantum, "asids": asids, "holes": holes, "audit": audit,
                        "disks": arguments.paths("disks", disks), "cdroms": arguments.paths("cdroms", cdroms),
                        "write_disks": write_disks, "tsc": tsc, "timers": timers, "caches": caches, "branches": branches,
                        "adaptive": adaptive}
        tsc_policy, timer_policy = policy("tsc", tsc, True), policy("timers", timers, False)
        self._guests = [GuestOfMachine(self, i, styles(), **{"style": style, "memory": memory, "disks": disks, "cdroms": cdroms,
                                                             "write_disks": write_disks, **each})
                        for i, each in enumerate(guests or [{}])]
        self.e.guest.shadow_unsync, self.e.audit, self.e.guest.adaptive = shadow_unsync, bool(audit), bool(adaptive)
        self._open(seed & FOREVER, engine, {"4K": 1, "2M": 2, "1G": 3}[ept_page], tsc_policy, timer_policy)

    # -- construction ------------------------------------------------------------------------

    cdef int _open(self, uint64_t seed, engine, int ept_leaf, tsc, timers) except -1:
        """Connect the parts: profile, RAM, world, style, sinks, callbacks, and the Unicorn instance around them."""
        cdef Engine* e = self.e
        cdef Seat* seat
        cdef uint64_t end = 0
        cdef int err
        self.worlds = worlds_new(e, len(self._guests))
        e.ledger, e.mmu, e.vcpu = &self.ledger_, self.mmu, &e.world.vcpu[0]
        p = self._profile
        self._vendor = p.cpuid["vendor"].encode("ascii")[:12].ljust(13, b"\0")
        self._brand = p.cpuid["brand"].encode("ascii", "replace")[:47].ljust(48, b"\0")
        e.guest.cpu_vendor = self._vendor
        e.guest.cpu_brand = self._brand
        e.guest.clock_instructions = self.clock == "instructions"
        e.guest.ept_leaf = ept_leaf
        configure_profile(e, p, seed)
        configure_clocks(e, tsc, timers)
        if self.options["caches"] != "off":
            configure_caches(e, p, CACHE_MODES.index(self.options["caches"]))
        if self.options["branches"] == "on":
            configure_predictor(e, p)
        for each in self._guests:
            seat = &self.worlds.seat[<uint32_t>each.index]
            seat.style = _style_of(each.capsule)
            end = place_world(e, seat.world, end, each.memory,
                              (seat.style.monitor_bytes(each.memory) + PAGE_MASK) & ~<uint64_t>PAGE_MASK)
            platform_init(&seat.world.platform, p.frequency_hz, each.memory, FEATURE_X2APIC * p.features["x2apic"] |
                          FEATURE_DEADLINE * (p.features["tsc_deadline"] and tsc[:3] == timers[:3]), p.maxphyaddr)
            seat.world.vcpu[0].tsc_offset = seat.world.platform.lapic.tsc_offset = tsc.offset & FOREVER
            media_attach(seat, each.images)
        e.style = self.worlds.seat[0].style
        allocate_ram(e, end)
        for i in range(self.worlds.plan.count):
            if self.worlds.seat[i].style.translates:
                small_pages(e, self.worlds.seat[i].world)
        allocate_tables(e, p)
        e.owner = <void*>self
        e.poll = poll_signals
        e.py_port = python_port
        e.py_exit = python_exit
        if engine is None:
            engine = os.environ.get("PYX86V_ENGINE", "inline")
            if engine not in ("inline", "portable"):
                raise ValueError(f"PYX86V_ENGINE: {engine!r}, expected inline or portable")
        if engine == "portable" and any(self.worlds.seat[i].style.translates for i in range(self.worlds.plan.count)):
            raise ValueError("engine: 'portable', expected 'inline' for styles that translate: they decide what a block may touch")
        lookups = os.environ.get("PYX86V_LOOKUPS", "engine")
        if lookups not in ("engine", "code"):
            raise ValueError(f"PYX86V_LOOKUPS: {lookups!r}, expected engine or code")
        e.lookups_by_code = lookups == "code"
        err = engine_open(e, engine == "portable")
        if err:
            raise RuntimeError(f"engine: {uc_strerror(err).decode()}")
        worlds_connect(self.worlds)
        self.worlds.plan.quantum = self.options["quantum"]
        self.worlds.plan.last_asid = self.options["asids"] or p.asids
        return 0

    def _bring(self, uint32_t index):
        """Put a guest on the processor, outside of modelled time; the one that was there.  ValueError inside a callback."""
        self._expect_made()
        cdef uint32_t before = self.worlds.plan.front
        if index != before:
            self._expect_stopped("looking at another guest")
            worlds_bring(self.worlds, index)
        return before

    # -- loading -----------------------------------------------------------------------------

    def load(self, path=None, initrd=None, kernel_args="", entry="auto"):
        """Put a guest into memory and the processor into the state its boot protocol defines.

        path         multiboot kernel, Linux bzImage or vmlinux, PVH kernel, firmware image; None: SeaBIOS, to boot from a disk
        initrd       path of an initial RAM disk or first module, or a list of paths; "PATH WORDS" gives a module a command line
        kernel_args  command line
        entry        by which of its entries a kernel with several starts: "auto" or another of boot.ENTRIES

            m.load("kernel.elf", initrd="module.bin", kernel_args="verbose")

        Raises BootError (a ValueError, one line) when the image cannot be booted, ValueError when there is a guest already.
        """
        self._expect_mine()
        self._expect_stopped("load()")
        if self._own().loaded:
            raise ValueError("machine: has a guest already, expected a new Machine for another")
        image = boot.load(boot.firmware.find() if path is None else path, self.memory, kernel_args, initrd, entry)
        for gpa, data in image.segments:
            self.write_memory(gpa, data)
        for gpa, data in image.roms:
            add_rom(self.e, gpa, data)
        media_firmware(self.e.guest.sinks, image.fw_cfg)
        self._set_entry(image.entry)
        self._start()

    cdef int _set_entry(self, dict entry) except -1:
        """The processor's state at the first instruction (boot/state.py)."""
        cdef Cpu* c = &self.e.ops
        engine_reset(self.e)
        c.set(c, REG_CR4, entry["cr4"])                # before CR0: long mode needs PAE
        c.set(c, REG_EFER, entry["efer"])
        c.set(c, REG_CR0, entry["cr0"])
        self.e.vcpu.cr3 = entry["cr3"]
        c.set(c, REG_CR3, entry["cr3"])
        for name, (selector, base, limit, flags) in entry["segments"].items():
            self.set_segment(name, selector, base, limit, flags)
        c.set(c, REG_GDTR_BASE, entry["gdt"][0])
        c.set(c, REG_GDTR_LIMIT, entry["gdt"][1])
        c.set(c, REG_IDTR_BASE, entry["idt"][0])
        c.set(c, REG_IDTR_LIMIT, entry["idt"][1])
        for name in GPR:
            c.gpr[GPR.index(name)] = entry["gpr"].get(name, 0)
        c.set(c, REG_RFLAGS, entry.get("eflags", 2))
        c.set(c, REG_RIP, entry["rip"])
        c.set(c, REG_PAT, 0x0007040600070406)          # SDM 3A 11.12.4
        msr_init(&self.e.guest, entry["mode"] != "real")
        paging_refresh(&self.e.guest)
        return 0

    cdef int _start(self) except -1:
        """The style's own beginning (a VMCS, EPT tables); the guest's first state is in place."""
        self.e.vcpu.ring.keep_on = self.options["holes"] == "continue"
        if self.e.style.start(&self.e.guest) != 0:
            raise RuntimeError(f"style: {self.style} refused the guest's first state (VM entry failed)")
        self._own().loaded = True
        return 0

    # -- running -----------------------------------------------------------------------------

    def run(self, max_cycles=None, max_instructions=None, max_exits=None):
        """Run until the guest ends, or one of the limits (counted from here) is reached.

        max_cycles        modelled core cycles
        max_instructions  retired guest instructions
        max_exits         exits of the style, of all kinds

            if m.run(max_cycles=10_000_000).reason is StopReason.LIMIT: ...

        Returns Stop(reason, status, detail).  Limits are looked at between blocks and may be passed by one block.
        Ctrl-C raises KeyboardInterrupt within a second; the machine stays readable and can run on.
        Raises ValueError without a guest, for a negative limit, and from a callback of the same machine; what a
        Python device or hook raised, after the guest has stopped.
        """
        return self._run(max_cycles, max_instructions, max_exits, False)

    def step(self, instructions=1):
        """Run exactly `instructions` instructions; the delivery of an exception or interrupt counts as one.

        Returns the last Stop: LIMIT unless the guest ended before.  About a microsecond an instruction, with its own
        translation: for looking, not for running.

            m.step(); print(hex(m.registers["rip"]))
        """
        stop = Stop(StopReason.LIMIT, 0, "")
        for _ in range(arguments.limit("instructions", instructions)):
            stop = self._run(None, 1, None, True)
            if stop.reason is not StopReason.LIMIT:
                break
        return stop

    cdef object _run(self, max_cycles, max_instructions, max_exits, bint step):
        cdef Engine* e = self.e
        cdef int err
        self._expect_made()
        self._expect_stopped("run() or step()")
        if not all([guest.loaded for guest in self._guests]):
            raise ValueError("machine: no guest, expected load() before run()")
        self._expect_devices()
        max_cycles, max_instructions = arguments.limit("max_cycles", max_cycles), arguments.limit("max_instructions", max_instructions)
        e.max_units = _limit(self.ledger_.total, max_cycles, 64)
        e.max_instructions = _limit(self.ledger_.instructions, max_instructions, 1)
        e.max_exits = _limit(worlds_exits(self.worlds), arguments.limit("max_exits", max_exits), 1)
        e.poll_units = self.ledger_.total
        self._error = None
        self.running, self.runner = True, PyThread_get_thread_ident()
        with nogil:
            err = worlds_run(self.worlds, step)
        self.running = False
        raise_pending()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if err:
            return Stop(StopReason.ERROR, 1, f"engine: {uc_strerror(err).decode()}")
        reason = self.e.vcpu.stop_reason
        if len(self._guests) == 1 or reason == STOP_BREAKPOINT or reason == STOP_SIGNAL:
            return self._result(reason)
        ends = [guest.end for guest in self._guests]
        if None in ends:
            return Stop(StopReason.LIMIT, 0, "")
        return next((end for end in ends if end[:2] != (StopReason.EXIT, 0)), ends[0])

    cdef object _result(self, int reason):
        """The Stop of the guest on the processor."""
        if reason == STOP_SIGNAL:
            return Stop(StopReason.LIMIT, 0, "interrupted")
        detail = ""
        if reason == STOP_SHUTDOWN:
            detail = "reset" if self.e.world.platform.stop else "triple fault"
        elif reason == STOP_EXIT and self.e.world.platform.stop == PLATFORM_OFF:
            detail = "power off"
        elif reason == STOP_HOLE and self.e.style.deprivileged:
            detail = hole_text(&self.e.vcpu.ring)
        return Stop(_REASONS.get(reason, StopReason.ERROR), self.e.vcpu.stop_status, detail)

    def _ended(self):
        """The Stop of the guest on the processor when it has ended, else None."""
        return self._result(self.e.vcpu.stop_reason) if self.worlds.seat[self.worlds.plan.front].standing.ended else None

    def _worlds(self):
        """For tests: how often worlds were switched, and who holds what (worlds_held() of engine/worlds.pyx)."""
        self._expect_made()
        return {"switches": self.worlds.plan.switches, **worlds_held(self.worlds)}

    # -- saved state -------------------------------------------------------------------------

    def save(self, path):
        """Write the machine to a file from which restore() goes on to the identical future, in another process too.

            m.run(max_instructions=1_000_000)
            m.save("million.snap")

        In it: guest and monitor, memory, modelled TLB, counts, and what came out so far.  Not in it: breakpoints, exit
        hooks and Python devices, which keep their own state; the file is written whole or not at all.
        Raises ValueError before load() and from a callback, OSError when the file cannot be written.
        """
        self._expect_made()
        self._expect_stopped("save()")
        if not all([guest.loaded for guest in self._guests]):
            raise ValueError("machine: no guest, expected load() before save()")
        header = {"version": __version__, "options": self.options, "profile": fingerprint(self._profile),
                  "disks": images.identities(self._guests),
                  "devices": [[guest.index, kind, *device[:2]] for guest in self._guests
                              for kind, devices in (("ports", guest.ports), ("mmio", guest.mmio)) for device in devices]}
        snapshot.write(path, header, snapshot_sections(self.worlds))

    @classmethod
    def restore(cls, path, engine=None):
        """A new machine from a file that save() wrote: where that one stood, with all its counts.

        engine   "inline" or "portable" instead of the saved machine's

            m = Machine.restore("million.snap")
            m.run()

        Python devices of the saved machine have to be added again, at the same place, before it runs.
        Raises SnapshotError (a ValueError, one line) when the file is damaged, from another version of pyx86v, or was
        made with a profile that has changed since.
        """
        cdef Machine m
        cdef str problem
        with snapshot.opened(path) as (header, sections):
            if header["version"] != __version__:
                raise SnapshotError(f"{path}: version: {header['version']}, expected {__version__}")
            try:
                m = cls(**{**header["options"], "engine": engine or header["options"].get("engine")})
            except (TypeError, ValueError, OSError) as error:
                raise SnapshotError(f"{path}: options: {' '.join(str(error).split())}") from None
            if header["profile"] != fingerprint(m._profile):
                raise SnapshotError(f"{path}: profile: {m.profile} has changed, expected it as it was when the machine was saved")
            problem = images.changed(m._guests, header["disks"]) or snapshot_apply(m.worlds, sections)
            if problem is not None:
                raise SnapshotError(f"{path}: {problem}")
            for guest in m._guests:
                guest.awaited = [tuple(device[1:]) for device in header["devices"] if device[0] == guest.index]
                guest.loaded = True
            return m

    cdef int _expect_devices(self) except -1:
        """A restored machine runs with the Python devices that it was saved with."""
        for guest, (kind, first, end) in [(guest, device) for guest in self._guests for device in guest.awaited]:
            if not any([(first, end) == device[:2] for device in (guest.ports if kind == "ports" else guest.mmio)]):
                raise ValueError(f"machine: a Python device was at {kind} {first:#x}..{end - 1:#x} when it was saved, "
                                 "expected it to be added before run()")
        return 0

    # -- breakpoints, devices, hooks ---------------------------------------------------------

    def add_breakpoint(self, address):
        """Stop (StopReason.BREAKPOINT) before the instruction at this linear address runs.

        Set by a callback it counts from the next block on.  Raises ValueError beyond 64 of them.
        """
        self._expect_mine()
        if not breakpoint_change(self.e, arguments.whole("breakpoint", address, 0, FOREVER), True):
            raise ValueError(f"breakpoint: {address:#x} is one too many, expected at most {MAX_BREAKPOINTS}")

    def remove_breakpoint(self, address):
        """Undo add_breakpoint.  KeyError when there is none."""
        self._expect_mine()
        if not breakpoint_change(self.e, arguments.whole("breakpoint", address, 0, FOREVER), False):
            raise KeyError(f"breakpoint: none at {address:#x}")

    def add_port_device(self, first, count, device):
        """Let a Python object answer ports first .. first + count - 1.

        device.port_in(port, size) -> int and device.port_out(port, size, value) are called with the GIL held; size is
        1, 2 or 4 bytes.  An exception in them ends the run and comes out of run().

            class Dice:
                def port_in(self, port, size): return 4
                def port_out(self, port, size, value): pass
            m.add_port_device(0x300, 1, Dice())

        Raises ValueError for ports that there are not.
        """
        first = arguments.whole("ports: the first", first, 0, 0xffff)
        count = arguments.whole(f"ports: the number of those from {first:#x} on", count, 1, 0x10000 - first)
        self._own().ports.append((first, first + count, device))
        for port in range(first, first + count):
            self.e.py_ports[port >> 3] |= 1 << (port & 7)

    def add_mmio_device(self, gpa, size, device):
        """Let a Python object answer guest-physical addresses gpa .. gpa + size - 1, above RAM.

        device.mmio_read(offset, size) -> int and device.mmio_write(offset, size, value) are called with the GIL held;
        size is 1, 2, 4 or 8 bytes.  Raises ValueError for an address in RAM or above 1 TiB.
        """
        gpa, size = arguments.whole("mmio: the address", gpa, 0, 1 << 40), arguments.whole("mmio: the size", size, 1, 1 << 40)
        if gpa < self.memory or gpa + size > 1 << 40:
            raise ValueError(f"mmio: {gpa:#x}..{gpa + size:#x}, expected above the memory and below 1 TiB")
        self._own().mmio.append((gpa, gpa + size, device))
        self.e.py_mmio = python_mmio

    def on_exit(self, hook):
        """Call hook(kind, rip, value) after each sensitive event has been handled; True stops the run.

        kind is a name such as "cpuid", "cr_write", "port_out"; value is the event's own: what a
        port_out writes, the new value of a cr_write, 0 where there is none.

            m.on_exit(lambda kind, rip, value: print(kind, hex(rip)))
        """
        self._own().exit_hooks.append(arguments.hook("on_exit", hook))
        self.e.has_exit_hook = True

    def on_idle(self, hook):
        """Call hook(seconds) where the guest waits in HLT for its next event, instead of letting its time jump there.

        seconds is how far off the event is, None when there is none, so that only the host can wake the guest.  The hook
        sleeps as it likes, may send(), and returns the seconds that have passed for the guest, at most those.  An exception
        in it ends the run and comes out of run().  None: time jumps again.  ValueError on a machine with several guests.

            m.on_idle(lambda seconds: time.sleep(seconds) or seconds)       # idle time as long as it would be
        """
        if len(self._guests) > 1:
            raise ValueError("on_idle: several guests, expected one")
        self._expect_made()
        self._idle_hook = None if hook is None else arguments.hook("on_idle", hook)
        self.e.idle = python_idle
        if hook is None:
            self.e.idle = NULL

    cdef uint64_t _idle_for(self, uint64_t cycles) noexcept:
        """What of `cycles` passes; FOREVER after an exception."""
        hertz = self.e.world.platform.cycles_per_second
        seconds = None if cycles == FOREVER else cycles / hertz
        try:
            passed = self._idle_hook(seconds)
            return cycles if seconds is not None and passed >= seconds else min(max(int(passed * hertz), 0), FOREVER - 1)
        except BaseException as error:
            self._failed(error)
            return FOREVER

    cdef int _failed(self, error) noexcept:
        """Keep the first exception of a callback for run() to raise."""
        if self._error is None:
            self._error = error
        return 1

    cdef int _port_event(self, Event* ev) noexcept:
        try:
            for first, end, device in self._own().ports:
                if first <= ev.port < end:
                    if ev.kind == EV_PORT_IN:
                        ev.value = device.port_in(ev.port, ev.size) & 0xffffffff
                    else:
                        device.port_out(ev.port, ev.size, ev.value)
                    return 0
            return 0
        except BaseException as error:
            return self._failed(error)

    cdef int _mmio_event(self, Event* ev) noexcept:
        try:
            for first, end, device in self._own().mmio:
                if first <= ev.gpa < end:
                    if ev.kind == EV_MMIO_READ:
                        ev.value = device.mmio_read(ev.gpa - first, ev.size) & FOREVER
                    else:
                        device.mmio_write(ev.gpa - first, ev.size, ev.value)
                    return 0
            return 0
        except BaseException as error:
            return self._failed(error)

    cdef int _exit_event(self, Event* ev) noexcept:
        try:
            return 1 if any([hook(vmm.EVENT_NAMES[ev.kind], ev.rip, ev.value) for hook in self._own().exit_hooks]) else 0
        except BaseException as error:
            return self._failed(error)


cdef uint64_t _limit(uint64_t now, object more, int units) except? 0:
    if more is None:
        return FOREVER
    return min(now + more * units, FOREVER)
