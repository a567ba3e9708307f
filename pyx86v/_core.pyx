# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled entry: `Machine`.  The one boundary where Python exceptions start.

    >>> from pyx86v import Machine
    >>> m = Machine(style="vmx+ept", profile="skylake")
    >>> m.load("hello.elf")
    >>> m.run()
    Stop(reason=<StopReason.EXIT: 'exit'>, status=0, detail='')
"""
import enum
import hashlib
import importlib
import pkgutil
from collections import namedtuple

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.arch.types cimport PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from pyx86v.cost.block cimport decoder_free, decoder_new
from pyx86v.cost.ledger cimport Ledger, N_CAUSES
from pyx86v.devices.platform cimport Platform, platform_init
from pyx86v.devices.sinks cimport Sinks, buffer_append, sinks_free, sinks_init
from pyx86v.engine.engine cimport *
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport uc_strerror
from pyx86v.mmu.mmu cimport Mmu, MmuConfig, mmu_init, paging_mode
from pyx86v.mmu.tlb cimport *
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.guest cimport *

from pyx86v import boot, vmm
from pyx86v.cost.ledger import Cause
from pyx86v.cost.profile import load_profile
from pyx86v.engine.layout import verify

verify()

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    enum:
        MADV_HUGEPAGE
    enum:
        PROT_READ
        PROT_WRITE
        MAP_PRIVATE
        MAP_ANONYMOUS
        MAP_NORESERVE

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


class StopReason(enum.Enum):
    """Why a run ended."""
    EXIT = "exit"              # the guest wrote its status to the debug-exit port
    HALT = "halt"              # HLT with nothing left that could wake the guest
    SHUTDOWN = "shutdown"      # triple fault, or the guest reset the machine
    LIMIT = "limit"            # a limit of run()
    HOLE = "hole"              # a sensitive instruction that did not trap (deprivileged styles)
    ERROR = "error"            # the monitor could not go on
    BREAKPOINT = "breakpoint"  # an address of add_breakpoint()


Stop = namedtuple("Stop", "reason status detail")
Stop.__doc__ = "What run() returns: reason (StopReason), status (int, the guest's), detail (str)."

_REASONS = {STOP_EXIT: StopReason.EXIT, STOP_HALT: StopReason.HALT, STOP_SHUTDOWN: StopReason.SHUTDOWN,
            STOP_LIMIT: StopReason.LIMIT, STOP_HOLE: StopReason.HOLE, STOP_ERROR: StopReason.ERROR,
            STOP_BREAKPOINT: StopReason.BREAKPOINT}
_GPR = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_CONTROL = {"rip": REG_RIP, "rflags": REG_RFLAGS, "cr0": REG_CR0, "cr2": REG_CR2, "cr4": REG_CR4, "cr8": REG_CR8,
            "efer": REG_EFER, "dr0": REG_DR0, "dr1": REG_DR1, "dr2": REG_DR2, "dr3": REG_DR3, "dr6": REG_DR6, "dr7": REG_DR7}
_MSR_REGISTERS = {"star": REG_STAR, "lstar": REG_LSTAR, "cstar": REG_CSTAR, "fmask": REG_FMASK,
                  "kernel_gs_base": REG_KERNEL_GS_BASE, "sysenter_cs": REG_SYSENTER_CS, "sysenter_esp": REG_SYSENTER_ESP,
                  "sysenter_eip": REG_SYSENTER_EIP, "pat": REG_PAT}
_TABLES = {"gdtr_base": REG_GDTR_BASE, "gdtr_limit": REG_GDTR_LIMIT, "idtr_base": REG_IDTR_BASE, "idtr_limit": REG_IDTR_LIMIT}
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
_ARRAYS = {("code", "4K"): ARRAY_I_4K, ("code", "2M"): ARRAY_I_2M, ("code", "1G"): ARRAY_I_1G,
           ("data", "4K"): ARRAY_D_4K, ("data", "2M"): ARRAY_D_2M, ("data", "1G"): ARRAY_D_1G}
_POLICIES = {"fifo": POLICY_FIFO, "round-robin": POLICY_ROUND_ROBIN, "random": POLICY_RANDOM, "lru": POLICY_LRU}
LARGEST_MEMORY = 3 << 30


def styles():
    """{name: capsule} of every style: each module below pyx86v.vmm with a `style_capsule` function."""
    found = {}
    for module in pkgutil.walk_packages(vmm.__path__, "pyx86v.vmm."):
        if module.ispkg or module.name.endswith("testing"):
            continue
        loaded = importlib.import_module(module.name)
        if hasattr(loaded, "style_capsule"):
            capsule = loaded.style_capsule()
            found[_style_name(capsule)] = capsule
    return dict(sorted(found.items()))


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


cdef class Machine:
    """One computer: RAM, a processor profile, a modelled TLB, devices, a clock, and a guest.

    memory   bytes of guest RAM, a multiple of 4096 from 2 MiB to 3 GiB
    style    "native" or "vmx+ept" (styles() lists them)
    profile  name of a bundled profile or path of a TOML file
    clock    "cycles": guest time is machine cycles; "instructions": retired instructions, the same under every style
    engine   None, or "portable": accounting through Unicorn's public hooks only (slower, same results)
    seed     of the TLB arrays with random replacement
    ept_page page size of the monitor's EPT: "4K", "2M" or "1G"

    Raises ValueError (one line) for arguments that cannot be, MemoryError when RAM is not to be had.
    A Machine belongs to one thread at a time; run() releases the GIL.
    """
    cdef Engine* e
    cdef World* world
    cdef Ledger ledger_
    cdef Mmu* mmu
    cdef Sinks sinks
    cdef object _profile, _capsule, _style_name, _error, _brand, _vendor
    cdef readonly str style, clock
    cdef readonly uint64_t memory
    cdef readonly dict options
    cdef uint64_t ram_bytes
    cdef list _ports, _mmio, _exit_hooks
    cdef bint loaded

    def __cinit__(self, *args, **kwargs):
        self.e = <Engine*>calloc(1, sizeof(Engine))
        self.world = <World*>calloc(1, sizeof(World))
        self.mmu = <Mmu*>calloc(1, sizeof(Mmu))
        if self.e is NULL or self.world is NULL or self.mmu is NULL:
            raise MemoryError("machine state")
        sinks_init(&self.sinks)

    def __dealloc__(self):
        if self.e is not NULL:
            engine_close(self.e)
            free_engine(self.e, self.ram_bytes)
        free(self.world)
        free(self.mmu)
        sinks_free(&self.sinks)

    def __init__(self, memory=64 << 20, style="native", profile="skylake", clock="cycles", engine=None, seed=0, ept_page="4K"):
        known = styles()
        if style not in known:
            raise ValueError(f"style: {style!r}, expected one of {', '.join(known)}")
        if clock not in ("cycles", "instructions"):
            raise ValueError(f"clock: {clock!r}, expected cycles or instructions")
        if engine not in (None, "portable", "inline"):
            raise ValueError(f"engine: {engine!r}, expected inline or portable")
        if not isinstance(memory, int) or memory % PAGE_SIZE or not 2 << 20 <= memory <= LARGEST_MEMORY:
            raise ValueError(f"memory: {memory!r}, expected a multiple of 4096 from {2 << 20} to {LARGEST_MEMORY} bytes")
        if ept_page not in ("4K", "2M", "1G"):
            raise ValueError(f"ept_page: {ept_page!r}, expected 4K, 2M or 1G")
        self._profile = load_profile(profile)
        self._capsule = known[style]
        self.style, self.clock, self.memory = style, clock, memory
        self.options = {"memory": memory, "style": style, "profile": profile, "clock": clock, "engine": engine, "seed": seed,
                        "ept_page": ept_page}
        self._ports, self._mmio, self._exit_hooks = [], [], []
        self._configure(seed, ept_page)
        self._open(engine)

    # -- construction ------------------------------------------------------------------------

    cdef int _configure(self, seed, ept_page) except -1:
        """Profile -> ledger prices, TLB geometry, processor identity."""
        cdef int i
        p = self._profile
        for i, units in enumerate(p.prices):
            self.ledger_.price[i] = units
        status = mmu_init(self.mmu, &_mmu_config(p, seed)[0])
        if status:
            raise ValueError(f"profile: {p.name}: TLB array {-status - 1} has a geometry that cannot be, "
                             "expected sets (entries / ways) a power of two")
        g = &self.e.guest
        g.frequency_hz = p.frequency_hz
        g.clock_instructions = self.clock == "instructions"
        self._vendor = p.cpuid["vendor"].encode("ascii")[:12].ljust(13, b"\0")
        self._brand = p.cpuid["brand"].encode("ascii", "replace")[:47].ljust(48, b"\0")
        g.cpu_vendor = self._vendor
        g.cpu_brand = self._brand
        g.cpu_signature = _signature(p.cpuid)
        g.cpu_maxphyaddr = p.maxphyaddr
        g.cpu_pcid = p.features["pcid"]
        g.cpu_invpcid = p.features["invpcid"]
        g.cpu_vpid = p.features["tagged_tlb"]
        g.ept_leaf = {"4K": 1, "2M": 2, "1G": 3}[ept_page]
        return 0

    cdef int _open(self, engine) except -1:
        cdef Engine* e = self.e
        cdef Style* style = _style_of(self._capsule)
        cdef uint64_t monitor
        cdef int err
        import os
        monitor = (style.monitor_bytes(self.memory) + PAGE_MASK) & ~<uint64_t>PAGE_MASK
        e.style = style
        e.ledger = &self.ledger_
        e.mmu = self.mmu
        e.world = self.world
        e.world.vcpu_count = 1
        e.vcpu = &e.world.vcpu[0]
        e.guest.sinks = &self.sinks
        e.owner = <void*>self
        e.poll = poll_signals
        e.py_port = python_port
        e.py_exit = python_exit
        self.ram_bytes = self.memory + monitor + ROM_BYTES + SPARE_BYTES
        e.ram.size = self.ram_bytes
        e.ram.base = <uint8_t*>mmap(NULL, self.ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if <void*>e.ram.base == <void*>-1:
            e.ram.base = NULL
            raise MemoryError(f"memory: {self.ram_bytes} bytes are not available")
        madvise(e.ram.base, self.ram_bytes, MADV_HUGEPAGE)   # the host's own TLB misses would be half of a modelled one's time
        self._lay_out(monitor)
        if not allocate_engine(e):
            raise MemoryError("engine tables")
        classes = self._profile.instructions
        e.decoder = decoder_for(classes)
        if e.decoder is NULL:
            raise MemoryError("block decoder")
        if engine is None:
            engine = os.environ.get("PYX86V_ENGINE", "inline")
            if engine not in ("inline", "portable"):
                raise ValueError(f"PYX86V_ENGINE: {engine!r}, expected inline or portable")
        err = engine_open(e, engine == "portable")
        if err:
            raise RuntimeError(f"engine: {uc_strerror(err).decode()}")
        platform_init(&self.world.platform, self._profile.frequency_hz, self.memory)
        return 0

    cdef void _lay_out(self, uint64_t monitor) noexcept:
        """Machine RAM: the guest, the monitor's memory, firmware, one page of all ones twice, the engine's "VMCB"."""
        cdef Engine* e = self.e
        cdef uint64_t at = self.memory + monitor
        self.world.window.base = 0
        self.world.window.size = self.memory
        self.world.window.a20_mask = FOREVER
        self.world.window.rom_base = at
        at += ROM_BYTES
        e.void_page = at
        memset(e.ram.base + at, 0xff, 2 * PAGE_SIZE)
        e.vmcb_page = at + 2 * PAGE_SIZE
        (<uint64_t*>(e.ram.base + e.vmcb_page + 0x48))[0] = at       # MSRPM_BASE_PA (APM 2 table B-1): every MSR exits
        self.e.vcpu.paging.window = self.world.window
        self.e.vcpu.paging.maxphyaddr = <uint8_t>self._profile.maxphyaddr

    # -- loading -----------------------------------------------------------------------------

    def load(self, path, initrd=None, kernel_args=""):
        """Put a guest into memory and the processor into the state its boot protocol defines.

        path         multiboot kernel, Linux bzImage or vmlinux, PVH kernel, firmware image
        initrd       path of an initial RAM disk or first module
        kernel_args  command line
        Raises BootError (a ValueError, one line) when the image cannot be booted.
        """
        if self.loaded:
            raise ValueError("machine: has a guest already, expected a new Machine for another")
        image = boot.load(path, self.memory, kernel_args, initrd)
        for gpa, data in image.segments:
            self.write_memory(gpa, data)
        for gpa, data in image.roms:
            self._add_rom(gpa, data)
        self._set_entry(image.entry)
        self._start()

    cdef int _add_rom(self, uint64_t gpa, bytes data) except -1:
        cdef const uint8_t* p = data
        if len(data) > ROM_BYTES:
            raise ValueError(f"firmware: {len(data)} bytes, expected at most {ROM_BYTES}")
        memcpy(self.e.ram.base + self.world.window.rom_base, p, len(data))
        self.world.window.rom_gpa = gpa
        self.world.window.rom_size = len(data)
        self.e.vcpu.paging.window = self.world.window
        return 0

    cdef int _set_entry(self, dict entry) except -1:
        """The processor's state at the first instruction (boot/state.py)."""
        cdef Cpu* c = &self.e.ops
        engine_reset(self.e)
        c.set(c, REG_EFER, entry["efer"])
        c.set(c, REG_CR0, entry["cr0"])
        c.set(c, REG_CR4, entry["cr4"])
        c.set(c, REG_EFER, entry["efer"])
        self.e.vcpu.cr3 = entry["cr3"]
        c.set(c, REG_CR3, entry["cr3"])
        for name, (selector, base, limit, flags) in entry["segments"].items():
            self.set_segment(name, selector, base, limit, flags if name != "tr" else flags & ~0x200)
        c.set(c, REG_GDTR_BASE, entry["gdt"][0])
        c.set(c, REG_GDTR_LIMIT, entry["gdt"][1])
        c.set(c, REG_IDTR_BASE, entry["idt"][0])
        c.set(c, REG_IDTR_LIMIT, entry["idt"][1])
        for name in _GPR:
            c.gpr[_GPR.index(name)] = entry["gpr"].get(name, 0)
        c.set(c, REG_RFLAGS, entry.get("eflags", 2))
        c.set(c, REG_RIP, entry["rip"])
        c.set(c, REG_PAT, 0x0007040600070406)          # SDM 3A 11.12.4
        self.e.vcpu.msr_value[1] = 1               # IA32_MISC_ENABLE: fast strings
        self._refresh_paging()
        return 0

    cdef void _refresh_paging(self) noexcept:
        cdef Cpu* c = &self.e.ops
        p = &self.e.vcpu.paging
        p.cr0 = c.get(c, REG_CR0)
        p.cr3 = self.e.vcpu.cr3
        p.cr4 = c.get(c, REG_CR4)
        p.efer = c.get(c, REG_EFER)
        p.pcid = <uint16_t>(self.e.vcpu.cr3 & 0xfff) if p.cr4 & CR4_PCIDE else 0
        p.mode = <uint8_t>paging_mode(p.cr0, p.cr4, p.efer)
        engine_flush(self.e)

    cdef int _start(self) except -1:
        """The style's own beginning (a VMCS, EPT tables); the guest's first state is in place."""
        if self.e.style.start(&self.e.guest) != 0:
            raise RuntimeError(f"style: {self.style} refused the guest's first state (VM entry failed)")
        self.loaded = True
        return 0

    # -- running -----------------------------------------------------------------------------

    def run(self, max_cycles=None, max_instructions=None, max_exits=None):
        """Run until the guest ends, or one of the limits (counted from here) is reached.

        Returns Stop(reason, status, detail).  Limits are looked at between blocks and may be passed by one block.
        Ctrl-C raises KeyboardInterrupt within a second; the machine stays readable and can run on.
        """
        return self._run(max_cycles, max_instructions, max_exits, False)

    def step(self, instructions=1):
        """Run exactly `instructions` instructions; the delivery of an exception or interrupt counts as one.

        Returns the last Stop: LIMIT unless the guest ended before.  About a microsecond an instruction, with its own
        translation: for looking, not for running.
        """
        stop = Stop(StopReason.LIMIT, 0, "")
        for _ in range(instructions):
            stop = self._run(None, 1, None, True)
            if stop.reason is not StopReason.LIMIT:
                break
        return stop

    def _run(self, max_cycles, max_instructions, max_exits, bint step):
        cdef Engine* e = self.e
        cdef int err
        if not self.loaded:
            raise ValueError("machine: no guest, expected load() before run()")
        for name, limit in (("max_cycles", max_cycles), ("max_instructions", max_instructions), ("max_exits", max_exits)):
            if limit is not None and limit < 0:
                raise ValueError(f"{name}: {limit}, expected at least 0")
        e.max_units = _limit(self.ledger_.total, max_cycles, 64)
        e.max_instructions = _limit(self.ledger_.instructions, max_instructions, 1)
        e.max_exits = _limit(self.e.vcpu.exit_total, max_exits, 1)
        e.poll_units = self.ledger_.total
        self._error = None
        with nogil:
            err = engine_run(e, step)
        raise_pending()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if err:
            return Stop(StopReason.ERROR, 1, f"engine: {uc_strerror(err).decode()}")
        reason = self.e.vcpu.stop_reason
        if reason == STOP_SIGNAL:
            return Stop(StopReason.LIMIT, 0, "interrupted")
        return Stop(_REASONS.get(reason, StopReason.ERROR), self.e.vcpu.stop_status, self._detail(reason))

    def _detail(self, reason):
        if reason == STOP_SHUTDOWN:
            return "reset" if self.world.platform.stop else "triple fault"
        return ""

    # -- counts ------------------------------------------------------------------------------

    @property
    def profile(self):
        """Name of the processor profile."""
        return self._profile.name

    @property
    def instructions(self):
        """Retired guest instructions; a REP instruction counts once per element and once more at its end."""
        return self.ledger_.instructions

    @property
    def cycles(self):
        """Modelled core cycles, whole."""
        return self.ledger_.total // 64

    @property
    def units(self):
        """Modelled time in 1/64 cycle: exact."""
        return self.ledger_.total

    @property
    def ledger(self):
        """{cause: cycles}; the values sum to `cycles`.  Rounded from 1/64 cycle by largest remainder."""
        units = {cause.name.lower(): self.ledger_.by[cause.value] for cause in Cause if cause.value < N_CAUSES}
        whole = {name: value // 64 for name, value in units.items()}
        missing = self.cycles - sum(whole.values())
        for name in sorted(units, key=lambda name: (-(units[name] % 64), name))[:missing]:
            whole[name] += 1
        return whole

    @property
    def ledger_units(self):
        """{cause: units of 1/64 cycle}, exact."""
        return {cause.name.lower(): self.ledger_.by[cause.value] for cause in Cause if cause.value < N_CAUSES}

    @property
    def exits(self):
        """{reason: {count, cycles, min, max, squares}} of the style's exits; cycles from exit to entry."""
        result = {}
        for i in range(MAX_EXIT_KINDS):
            x = &self.e.vcpu.exits[i]
            if x.count:
                name = self.e.style.exit_names[i]
                result[name.decode() if name is not NULL else str(i)] = {
                    "count": x.count, "cycles": x.units // 64, "min": x.least // 64, "max": x.most // 64, "squares": x.squares}
        return result

    @property
    def tlb(self):
        """Exact counts of the modelled TLB: hits are second-level hits, misses are first-level misses that walked."""
        c = &self.mmu.count
        return {"hits": c.l2_hits, "misses": c.walks[0] + c.walks[1], "flushes": sum(c.flushes),
                "evictions": sum([self.mmu.tlb.array[<int>i].evictions for i in range(<int>N_TLB_ARRAYS)]),
                "l1i_misses": c.l1_misses[0], "l1d_misses": c.l1_misses[1], "entries_flushed": c.entries_flushed,
                "fills": sum([self.mmu.tlb.array[<int>i].fills for i in range(<int>N_TLB_ARRAYS)])}

    @property
    def walks(self):
        """Page walks: count, references to paging structures, and references by level and kind."""
        c = &self.mmu.count
        levels = {}
        for i in range(4, 0, -1):
            levels[f"guest_{i}"] = c.guest_refs[i]
        for i in range(4, 0, -1):
            levels[f"nested_{i}"] = c.nested_refs[0][i] + c.nested_refs[1][i]
        return {"count": c.walks[0] + c.walks[1] + c.rewalks, "references": sum(levels.values()), "by_level": levels,
                "rewalks": c.rewalks, "page_faults": c.page_faults, "pdpte_loads": c.pdpte_loads,
                "hits": {name: self.mmu.tlb.array[<int>i].hits for name, i in
                         (("pml4e", ARRAY_PML4E), ("pdpte", ARRAY_PDPTE), ("pde", ARRAY_PDE), ("nested_tlb", ARRAY_NESTED))}}

    @property
    def events(self):
        """What was delivered to the guest: exceptions by vector, software interrupts, external interrupts."""
        v = self.e.vcpu
        return {"exceptions": {i: v.exceptions[i] for i in range(32) if v.exceptions[i]},
                "software_interrupts": v.software_ints, "interrupts": v.interrupts}

    @property
    def holes(self):
        """{mnemonic: count} of sensitive instructions that did not trap; empty where the guest runs privileged."""
        return {}

    @property
    def console(self):
        """Everything the guest sent through COM1 (bytes)."""
        return self.sinks.console.data[:self.sinks.console.size]

    @property
    def debug_console(self):
        """Everything the guest sent to port 0xe9 (bytes)."""
        return self.sinks.debug.data[:self.sinks.debug.size]

    @property
    def report(self):
        """The 32-bit words the guest wrote to port 0xe8 (list of int)."""
        cdef bytes raw = self.sinks.report.data[:self.sinks.report.size]
        return [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]

    @property
    def guest_time(self):
        """The guest's clock in cycles at `frequency_hz`."""
        return guest_time(&self.e.guest)

    @property
    def slow_paths(self):
        """How often a block took the slow path (a figure about speed, not a result)."""
        return self.e.slow_paths

    def send(self, bytes data):
        """Let the guest receive `data` on COM1."""
        buffer_append(&self.sinks.input, <const uint8_t*><const char*>data, len(data))

    # -- registers and memory ----------------------------------------------------------------

    @property
    def registers(self):
        """{name: value} of general, control and table registers, MSRs that have names, and segments
        as (selector, base, limit, flags)."""
        cdef Cpu* c = &self.e.ops
        cdef Segment s
        result = {name: c.gpr[i] for i, name in enumerate(_GPR)}
        for group in (_CONTROL, _TABLES, _MSR_REGISTERS):
            for name, number in group.items():
                result[name] = c.get(c, number)
        result["cr3"] = self.e.vcpu.cr3
        result["cpl"] = c.get(c, REG_CPL)
        for i, name in enumerate(_SEGMENTS):
            c.get_segment(c, i, &s)
            result[name] = (s.selector, s.base, s.limit, s.flags)
        return result

    def set_register(self, name, value):
        """Set a general register, rip, rflags, cr2 or a debug register.  KeyError for another name."""
        cdef Cpu* c = &self.e.ops
        value &= FOREVER
        if name in _GPR:
            c.gpr[_GPR.index(name)] = value
        elif name in ("rip", "rflags", "cr2") or name.startswith("dr"):
            c.set(c, _CONTROL[name], value)
        else:
            raise KeyError(f"{name}: expected a general register, rip, rflags, cr2 or dr0..dr7")

    def set_segment(self, name, selector, base, limit, flags):
        """Load a segment register with its hidden part; flags are the descriptor's second word's bits 8-23."""
        cdef Segment s
        s.selector = selector
        s.base = base
        s.limit = limit
        s.flags = flags
        s.pad = 0
        s.pad2 = 0
        self.e.ops.set_segment(&self.e.ops, _SEGMENTS.index(name), &s)

    def read_memory(self, gpa, size):
        """`size` bytes of guest-physical memory.  ValueError outside RAM."""
        self._check_range(gpa, size)
        return (<char*>self.e.ram.base + self.world.window.base + <uint64_t>gpa)[:size]

    def write_memory(self, gpa, data):
        """Write bytes to guest-physical memory; translated code there is dropped.  ValueError outside RAM."""
        cdef const uint8_t[::1] view = bytes(data)
        cdef uint64_t n = view.shape[0]
        self._check_range(gpa, n)
        if n:
            memcpy(self.e.ram.base + self.world.window.base + <uint64_t>gpa, &view[0], n)
            engine_changed_memory(self.e, self.world.window.base + <uint64_t>gpa, n)

    def _check_range(self, gpa, size):
        if gpa < 0 or size < 0 or gpa + size > self.memory:
            raise ValueError(f"address: {gpa:#x}..{gpa + size:#x}, expected within the memory of {self.memory:#x} bytes")

    def digest(self):
        """sha256 over guest RAM in address order and the architectural registers; neither time nor monitor state."""
        cdef uint64_t at = 0, step = 1 << 24
        cdef Cpu* c = &self.e.ops
        h = hashlib.sha256()
        base = <char*>self.e.ram.base + self.world.window.base
        while at < self.memory:
            n = min(step, self.memory - at)
            h.update(memoryview(<char[:n]>(base + at)))
            at += n
        h.update(repr(sorted(self.registers.items())).encode())
        h.update(engine_fpu_image(self.e))
        return h.hexdigest()

    def _fpu_image(self):
        return engine_fpu_image(self.e)

    # -- breakpoints, devices, hooks ---------------------------------------------------------

    def add_breakpoint(self, address):
        """Stop (StopReason.BREAKPOINT) before the instruction at this linear address runs."""
        if not engine_breakpoint(self.e, address, True):
            raise ValueError(f"breakpoint: more than {MAX_BREAKPOINTS}")

    def remove_breakpoint(self, address):
        """Undo add_breakpoint.  KeyError when there is none."""
        if not engine_breakpoint(self.e, address, False):
            raise KeyError(f"breakpoint: none at {address:#x}")

    def add_port_device(self, first, count, device):
        """Let a Python object answer ports first .. first + count - 1.

        device.port_in(port, size) -> int and device.port_out(port, size, value) are called with the GIL held.
        """
        if not 0 <= first < first + count <= 65536:
            raise ValueError(f"ports: {first:#x}..{first + count - 1:#x}, expected within 0..0xffff")
        self._ports.append((first, first + count, device))
        for port in range(first, first + count):
            self.e.py_ports[port >> 3] |= 1 << (port & 7)

    def add_mmio_device(self, gpa, size, device):
        """Let a Python object answer guest-physical addresses gpa .. gpa + size - 1, above RAM.

        device.mmio_read(offset, size) -> int and device.mmio_write(offset, size, value) are called with the GIL held.
        """
        if gpa < self.memory or size <= 0 or gpa + size > 1 << 40:
            raise ValueError(f"mmio: {gpa:#x}..{gpa + size:#x}, expected above the memory and below 1 TiB")
        self._mmio.append((gpa, gpa + size, device))
        self.e.py_mmio = python_mmio

    def on_exit(self, hook):
        """Call hook(kind, rip, detail) after each sensitive event has been handled; True stops the run."""
        self._exit_hooks.append(hook)
        self.e.has_exit_hook = True

    cdef int _failed(self, error) noexcept:
        """Keep the first exception of a callback for run() to raise."""
        if self._error is None:
            self._error = error
        return 1

    cdef int _port_event(self, Event* ev) noexcept:
        try:
            for first, end, device in self._ports:
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
            for first, end, device in self._mmio:
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
            return 1 if any([hook(_EVENT_NAMES[ev.kind], ev.rip, ev.value) for hook in self._exit_hooks]) else 0
        except BaseException as error:
            return self._failed(error)


_EVENT_NAMES = ("exception", "software_int", "interrupt", "triple_fault", "cpuid", "rdtsc", "hlt", "cr_write", "cr_read", "clts",
                "lmsw", "dr_write", "dr_read", "invlpg", "invpcid", "rdmsr", "wrmsr", "port_in", "port_out", "mmio_read",
                "mmio_write", "wbinvd", "invd", "descriptor_load", "xsetbv", "rdpmc", "monitor", "vmx_insn", "ept_violation",
                "ept_misconfig")

cdef enum:
    ROM_BYTES = 16 << 20
    SPARE_BYTES = 4 * 4096


cdef uint64_t _limit(uint64_t now, object more, int units) except? 0:
    if more is None:
        return FOREVER
    return min(now + int(more) * units, FOREVER)


cdef uint32_t _signature(dict cpuid) except? 0:
    """CPUID.1:EAX from family, model, stepping (SDM 2A CPUID)."""
    family, model = cpuid["family"], cpuid["model"]
    base, extended = (family, 0) if family < 15 else (15, family - 15)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | cpuid["stepping"]


cdef MmuConfig CONFIG


cdef MmuConfig* _mmu_config(object p, object seed) except NULL:
    """The profile's TLB geometry as the MMU takes it."""
    memset(&CONFIG, 0, sizeof(CONFIG))
    CONFIG.seed = seed & FOREVER
    CONFIG.page1g = p.features["pages_1g"]
    CONFIG.ept_1g = 1
    for t in p.tlbs:
        for index in (_second_level_arrays(t) if t.level == 2 else _first_level_arrays(t)):
            CONFIG.array[<int>index].entries = t.entries
            CONFIG.array[<int>index].ways = 0 if t.ways >= t.entries else t.ways
            CONFIG.array[<int>index].policy = _POLICIES[t.replacement]
    for name, index in (("pml4e", ARRAY_PML4E), ("pdpte", ARRAY_PDPTE), ("pde", ARRAY_PDE)):
        CONFIG.array[<int>index].entries = p.walk_cache[name]
        CONFIG.array[<int>index].policy = POLICY_LRU
    CONFIG.array[<int>ARRAY_NESTED].entries = p.nested_tlb
    CONFIG.array[<int>ARRAY_NESTED].policy = POLICY_LRU
    return &CONFIG


def _first_level_arrays(t):
    """The MMU's arrays that a profile's first-level TLB stands for.  One for 4K pages takes the larger ones whole."""
    if "4K" in t.pages and len(t.pages) > 1:
        CONFIG.large_whole = 1
    sizes = ("4K",) if "4K" in t.pages else t.pages
    return [_ARRAYS[side, size] for side in (("code", "data") if t.side == "both" else (t.side,)) for size in sizes]


def _second_level_arrays(t):
    """The same of the second level: shared by both sides, or of data, and then code has its own or none."""
    CONFIG.l2_split |= t.side != "both"
    if t.side == "code":
        CONFIG.l2_code_2m = "2M" in t.pages
        return [ARRAY_L2_CODE] if "4K" in t.pages else []
    CONFIG.l2_2m |= "4K" in t.pages and "2M" in t.pages
    return [{"4K": ARRAY_L2, "2M": ARRAY_L2_2M, "1G": ARRAY_L2_1G}[size] for size in t.pages
            if size != "2M" or "4K" not in t.pages]


cdef Decoder* decoder_for(list prices) except? NULL:
    cdef uint32_t units[256]
    for i in range(256):
        units[i] = 0
    for i, price in enumerate(prices):
        units[i] = price
    return decoder_new(units)


cdef bint allocate_engine(Engine* e) noexcept:
    e.frames = e.ram.size >> PAGE_SHIFT
    e.records = <BlockRecord*>calloc(MAX_RECORDS, sizeof(BlockRecord))
    e.marks = <InsnMark*>calloc(MAX_MARKS, sizeof(InsnMark))
    e.hash = <uint32_t*>calloc(RECORD_HASH, sizeof(uint32_t))
    e.page_state = <uint8_t*>calloc(e.frames, 1)
    e.page_flips = <uint8_t*>calloc(e.frames, 1)
    e.write_map = <uint64_t*>calloc(e.frames, 8)
    return e.records is not NULL and e.marks is not NULL and e.hash is not NULL and e.page_state is not NULL and \
        e.page_flips is not NULL and e.write_map is not NULL


cdef void free_engine(Engine* e, uint64_t ram_bytes) noexcept:
    free(e.records)
    free(e.marks)
    free(e.hash)
    free(e.page_state)
    free(e.page_flips)
    free(e.write_map)
    if e.decoder is not NULL:
        decoder_free(e.decoder)
    if e.ram.base is not NULL:
        munmap(e.ram.base, ram_bytes)
    free(e)
