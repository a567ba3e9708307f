# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine shows: counts, consoles, registers and memory.  The first half of `Machine` (_core.pyx has the other)."""
import hashlib
import struct
from numbers import Integral

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.cost.block cimport decoder_forms
from pyx86v.cost.predictor cimport BRANCH_CALL, BRANCH_CALL_INDIRECT, BRANCH_CONDITIONAL, BRANCH_INDIRECT, BRANCH_RETURN
from pyx86v.devices.sinks cimport buffer_append
from pyx86v.engine.account cimport Account, account_events, account_exits, account_ledger, account_now, account_tlb, account_walks
from pyx86v.engine.census cimport census_rows, census_sites
from pyx86v.engine.snapshot cimport engine_fpu_image
from pyx86v.engine.engine cimport engine_changed_memory
from pyx86v.engine.worlds cimport worlds_book
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.ring cimport hole_counts, hole_sites
from pyx86v.vmm.bt.cache cimport Bt
from pyx86v.vmm.bt.listing cimport callout_counts, unit_rows

from pyx86v import arguments, clocks
from pyx86v.devices import keys, screen

cdef extern from *:
    """
    #define PYX_FOREVER 0xffffffffffffffffULL
    """
    const uint64_t FOREVER "PYX_FOREVER"

GPR = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_CONTROL = {"rip": REG_RIP, "rflags": REG_RFLAGS, "cr0": REG_CR0, "cr2": REG_CR2, "cr4": REG_CR4, "cr8": REG_CR8,
            "efer": REG_EFER, "dr0": REG_DR0, "dr1": REG_DR1, "dr2": REG_DR2, "dr3": REG_DR3, "dr6": REG_DR6, "dr7": REG_DR7}
_MSR_REGISTERS = {"star": REG_STAR, "lstar": REG_LSTAR, "cstar": REG_CSTAR, "fmask": REG_FMASK, "kernel_gs_base": REG_KERNEL_GS_BASE,
                  "sysenter_cs": REG_SYSENTER_CS, "sysenter_esp": REG_SYSENTER_ESP, "sysenter_eip": REG_SYSENTER_EIP, "pat": REG_PAT}
_TABLES = {"gdtr_base": REG_GDTR_BASE, "gdtr_limit": REG_GDTR_LIMIT, "idtr_base": REG_IDTR_BASE, "idtr_limit": REG_IDTR_LIMIT}
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


cdef class MachineState:
    """A machine to look at and to change: the base of Machine, which makes and runs it."""

    # -- who may look ------------------------------------------------------------------------

    cdef int _expect_stopped(self, str what) except -1:
        if self.running:
            where = "inside a callback" if self.runner == PyThread_get_thread_ident() else "while another thread runs it"
            raise ValueError(f"machine: {what} {where}, expected after run() has returned")
        return 0

    cdef int _expect_made(self) except -1:
        if self.e.env is NULL:
            raise ValueError("machine: not made, expected __init__() before anything else")
        return 0

    cdef int _expect_mine(self) except -1:
        """What the engine may be changing at this moment is for the thread that runs it, in a callback."""
        self._expect_made()
        if self.running and self.runner != PyThread_get_thread_ident():
            raise ValueError("machine: runs in another thread, expected this after run() has returned")
        return 0

    cdef object _own(self):
        """The Guest on the processor."""
        self._expect_made()
        return self._guests[self.worlds.plan.front]

    def _account(self, int index, what):
        """What one guest has of the machine's counts (-1: all): "units", "instructions", "ledger", "ledger_units", "tlb", "walks"."""
        self._expect_made()
        cdef Account a
        if index < 0:
            account_now(&self.ledger_, self.mmu, &a)
        else:
            worlds_book(self.worlds)
            a = self.worlds.seat[index].standing.account
        if what == "units":
            return a.units
        if what == "instructions":
            return a.instructions
        if what == "tlb":
            return account_tlb(&a)
        return account_walks(&a) if what == "walks" else account_ledger(&a, what == "ledger_units")

    def _sink(self, uint32_t index, what, uint64_t first=0):
        """What one guest sent, from byte `first` on: "console", "debug", "report" or "probe", as bytes."""
        self._expect_mine()
        s = &self.worlds.seat[index].sinks
        b = &s.console if what == "console" else &s.debug if what == "debug" else &s.report if what == "report" else &s.probe
        return b.data[min(first, b.size):b.size]

    # -- counts ------------------------------------------------------------------------------

    @property
    def profile(self):
        """Name of the processor profile."""
        return self._profile.name

    @property
    def guests(self):
        """A view of each guest, in order (guests.py): its console, registers, memory, counts, and how it ended."""
        return list(self._guests)

    @property
    def style(self):
        """Name of the guest's style."""
        return self._own().style

    @property
    def memory(self):
        """Bytes of the guest's RAM."""
        return self._own().memory

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
        return self._account(-1, "ledger")

    @property
    def ledger_units(self):
        """{cause: units of 1/64 cycle}, exact."""
        return self._account(-1, "ledger_units")

    @property
    def exits(self):
        """{reason: {count, cycles, min, max, squares}} of the style's exits; cycles from exit to entry."""
        self._expect_mine()
        return account_exits(self.e.vcpu, self.e.style)

    @property
    def tlb(self):
        """Exact counts of the modelled TLB: hits are second-level hits, misses are first-level misses that walked."""
        return self._account(-1, "tlb")

    @property
    def walks(self):
        """Page walks: count, references to paging structures, and references by level and kind."""
        return self._account(-1, "walks")

    @property
    def events(self):
        """What was delivered to the guest: exceptions by vector, software interrupts, external interrupts."""
        self._expect_mine()
        return account_events(self.e.vcpu)

    @property
    def blocks(self):
        """Different pieces of code that the guest has executed: {"seen": all, "modelled": of these with the block model's price}."""
        self._expect_made()
        return {"seen": self.e.heat.used, "modelled": self.e.heat.priced} if self.e.heat is not NULL else {"seen": 0, "modelled": 0}

    @property
    def caches(self):
        """{"l1": accesses that the first level had, "l2", "l3", "memory"} of the modelled data caches; {} without."""
        self._expect_made()
        c = self.e.ram.caches
        return {"l1": c.level[0].hits, "l2": c.level[1].hits, "l3": c.level[2].hits, "memory": c.misses} if c is not NULL else {}

    @property
    def branches(self):
        """{kind of branch: {"seen", "missed"}} of the modelled predictor; {} without."""
        self._expect_made()
        b = self.e.predictor
        kinds = (("conditional", BRANCH_CONDITIONAL), ("indirect", BRANCH_INDIRECT), ("return", BRANCH_RETURN), ("call", BRANCH_CALL),
                 ("call_indirect", BRANCH_CALL_INDIRECT))
        return {name: {"seen": b.seen[<int>kind], "missed": b.missed[<int>kind]} for name, kind in kinds} if b is not NULL else {}

    @property
    def shadow(self):
        """Counts of the monitor's shadow tables, as ShadowCounters in mmu/shadow_state.pxd has them; {} for a style without."""
        self._expect_made()
        return dict(self.e.world.shadow.count) if self.e.style.shadow else {}

    @property
    def holes(self):
        """{mnemonic: count} of sensitive instructions that did not trap; empty where the guest runs privileged.

        Those of the kernel count always, those of other rings when they gave another result than natively.
        """
        return hole_counts(&self.e.vcpu.ring)

    @property
    def hole_sites(self):
        """Where they are, by linear address: [{address, mnemonic, count, effective: another result than natively}], 64 at most."""
        return hole_sites(&self.e.vcpu.ring)

    @property
    def translations(self):
        """What the translation cache holds, [] under styles without: a row for each unit that lives, in the order of their code.

        address, eip, bits    linear address of its guest code, as instruction pointer, mode of the code segment
        guest, code, at       guest code and its translation, which lies at this offset of the cache
        exits, chained        direct jumps out of it, and how many of them lead to other units without the monitor
        insns                 [{offset, length: of guest code; code, code_end: of the translation; kind}]

            sum(len(unit["code"]) for unit in m.translations)
        """
        self._expect_mine()
        return unit_rows(<Bt*>self.e.world.style_state, &self.e.ram) if self.e.style.translates else []

    @property
    def callouts(self):
        """{kind of instruction: how many the monitor of a translated kernel carried out}; {} under styles without translation."""
        self._expect_mine()
        return callout_counts(<Bt*>self.e.world.style_state) if self.e.style.translates else {}

    @property
    def forms(self):
        """The forms of instructions that the machine has met, for whoever asks which of them have a price: [(machine code of a plain
        instruction of the form, then zeros, bits of the mode, class)].  Nearly all of them: a form may have lost its place to another,
        and VEX forms are not held."""
        self._expect_made()
        return decoder_forms(self.e.decoder)

    @property
    def census(self):
        """What an audit counted (engine/census.pyx says what the keys mean); empty without audit."""
        return census_rows(&self.e.world.census)

    @property
    def census_sites(self):
        """The same by address: [{mnemonic, class, traps, address, count}]; empty without audit."""
        return census_sites(&self.e.world.census)

    @property
    def console(self):
        """Everything the guest sent through COM1 (bytes; the first 64 MiB)."""
        self._expect_mine()
        return self._sink(self.worlds.plan.front, "console")

    @property
    def debug_console(self):
        """Everything the guest sent to port 0xe9 (bytes)."""
        self._expect_mine()
        return self._sink(self.worlds.plan.front, "debug")

    @property
    def report(self):
        """The 32-bit words the guest wrote to port 0xe8 (list of int)."""
        self._expect_mine()
        raw = self._sink(self.worlds.plan.front, "report")
        return [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]

    @property
    def probe(self):
        """How long the guest held bit 0 of parallel port 378h up, each time, by the ledger and by its own clocks (clocks.plateaus())."""
        self._expect_mine()
        return clocks.plateaus(struct.iter_unpack("<5Q", self._sink(self.worlds.plan.front, "probe")))

    @property
    def screen(self):
        """What the VGA shows: a TextScreen (devices/screen.py) with `lines`, `attributes` and `cursor`; str() of it is the text."""
        self._expect_mine()
        v = &self.e.world.platform.vga
        return screen.read(self.read_memory(screen.WINDOW, screen.WINDOW_BYTES), v.crtc[:32], v.graphics[:16])

    @property
    def guest_time(self):
        """The guest's clock, in cycles of the profile's frequency."""
        self._expect_mine()
        return guest_time(&self.e.guest)

    @property
    def slow_paths(self):
        """How often a block took the slow path (a figure about speed, not a result)."""
        return self.e.slow_paths

    def send(self, bytes data):
        """Let the guest receive `data` (bytes) on COM1, after what was sent before.

            m.send(b"root\\n")
        """
        self._expect_mine()
        buffer_append(&self.e.guest.sinks.input, <const uint8_t*><const char*>data, len(data))
        self.worlds.seat[self.worlds.plan.front].standing.wake = 0         # it may be what a halted guest waits for
        self.e.due = 0                                                     # and a running one is interrupted

    def type_keys(self, str text):
        """Type `text` on the guest's keyboard, a US one, after what was typed before; ValueError for what it has no key for.

        Each key takes some 10 ms of the guest's time; Enter is "\\n".  What the guest does not take waits.

            m.type_keys("root\\n")
        """
        self._type(keys.of_text(text))

    def press_keys(self, *names):
        """Press keys together: names such as "ctrl", "alt", "shift", "f10", "up", "enter", and characters.

            m.press_keys("ctrl", "alt", "delete")
        """
        self._type(keys.of_names(names))

    def _type(self, bytes codes):
        """Scan codes of set 1."""
        self._expect_mine()
        buffer_append(&self.e.guest.sinks.keys, <const uint8_t*><const char*>codes, len(codes))
        self.e.world.platform.key_due = 0
        self.worlds.seat[self.worlds.plan.front].standing.wake = 0
        self.e.due = 0

    @property
    def translation_counts(self):
        """Counts of binary translation so far, {} under other styles.

        units, insns, guest_bytes, code_bytes   translated so far; an instruction that two units hold counts twice
        dispatches, lookups, chains             entries from the monitor; of these, indirect targets; exits that were chained
        callouts, adapted, restored             instructions that the monitor carried out; that became call-outs because they trapped; and back
        dead, dropped, generations, spaces      units whose code or tables were written, times such tables had changed, times all was forgotten, spaces made

            m.translation_counts["dispatches"]
        """
        self._expect_mine()
        if not self.e.style.translates:
            return {}
        cdef Bt* b = <Bt*>self.e.world.style_state
        c = b.count
        return {"units": c.units, "insns": c.insns, "guest_bytes": c.guest_bytes, "code_bytes": c.code_bytes,
                "dispatches": c.dispatches, "lookups": c.lookups, "chains": c.chains, "callouts": c.callouts, "adapted": c.adapted, "restored": c.restored,
                "dead": c.dead, "dropped": c.dropped, "generations": c.generations, "spaces": c.spaces}

    # -- registers and memory ----------------------------------------------------------------

    @property
    def registers(self):
        """{name: value} of general, control and table registers, MSRs that have names, and segments
        as (selector, base, limit in bytes, flags: bits 8-23 of the descriptor's second word).

            hex(m.registers["rip"]), m.registers["cs"][0]
        """
        self._expect_mine()
        cdef Cpu* c = &self.e.ops
        cdef Segment s
        result = {name: c.gpr[i] for i, name in enumerate(GPR)}
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
        """Set a general register, rip, rflags, cr2 or a debug register: 64 bits, of which negative numbers are two's complement.

        KeyError for another name, ValueError for a number that has no place.
        """
        self._expect_mine()
        cdef Cpu* c = &self.e.ops
        value = arguments.whole(name, value, -(1 << 63), FOREVER) & FOREVER
        if name in GPR:
            c.gpr[GPR.index(name)] = value
        elif name in ("rip", "rflags", "cr2") or name in _CONTROL and name.startswith("dr"):
            c.set(c, _CONTROL[name], value)
        else:
            raise KeyError(f"{name}: expected a general register, rip, rflags, cr2 or dr0..dr7")

    def set_segment(self, name, selector, base, limit, flags):
        """Load a segment register with its hidden part; flags are the descriptor's second word's bits 8-23.

        Raises ValueError for a name that there is not, and for a TR that is no present TSS.
        """
        self._expect_mine()
        cdef Segment s
        if name not in _SEGMENTS:
            raise ValueError(f"segment: {name!r}, expected one of {', '.join(_SEGMENTS)}")
        selector, base = arguments.whole("selector", selector, 0, 0xffff), arguments.whole("base", base, 0, FOREVER)
        limit, flags = arguments.whole("limit", limit, 0, 0xffffffff), arguments.whole("flags", flags, 0, 0xffffffff)
        if name == "tr":
            flags &= ~0x200                            # kept "available": the engine aborts on a busy TSS
            if flags & 0x9700 != 0x8100:
                raise ValueError(f"tr: flags {flags:#x}, expected those of a present TSS")
        s.selector = selector
        s.base = base
        s.limit = limit
        s.flags = flags
        s.pad = 0
        s.pad2 = 0
        self.e.ops.set_segment(&self.e.ops, _SEGMENTS.index(name), &s)

    def read_memory(self, gpa, size):
        """`size` bytes of guest-physical memory from address `gpa` on.  ValueError outside RAM.

            m.read_memory(0xb8000, 160)
        """
        self._expect_mine()
        self._check_range(gpa, size)
        return (<char*>self.e.ram.base + self.e.world.window.base + <uint64_t>gpa)[:size]

    def write_memory(self, gpa, data):
        """Write bytes to guest-physical memory; translated code there is dropped.  ValueError outside RAM."""
        self._expect_mine()
        cdef const uint8_t[::1] view = bytes(memoryview(data))
        cdef uint64_t n = view.shape[0]
        self._check_range(gpa, n)
        if n:
            memcpy(self.e.ram.base + self.e.world.window.base + <uint64_t>gpa, &view[0], n)
            engine_changed_memory(self.e, self.e.world.window.base + <uint64_t>gpa, n)

    def _check_range(self, gpa, size):
        if not isinstance(gpa, Integral) or not isinstance(size, Integral):
            raise ValueError(f"address: {gpa!r} and {size!r} bytes, expected whole numbers")
        if gpa < 0 or size < 0 or gpa + size > self.memory:
            raise ValueError(f"address: {gpa:#x}..{gpa + size:#x}, expected within the memory of {self.memory:#x} bytes")

    def digest(self):
        """sha256 over guest RAM in address order and the architectural registers; neither time nor monitor state."""
        self._expect_mine()
        cdef uint64_t at = 0, step = 1 << 24
        cdef Cpu* c = &self.e.ops
        h = hashlib.sha256()
        base = <char*>self.e.ram.base + self.e.world.window.base
        while at < self.memory:
            n = min(step, self.memory - at)
            h.update(memoryview(<char[:n]>(base + at)))
            at += n
        h.update(repr(sorted(self.registers.items())).encode())
        h.update(engine_fpu_image(self.e))
        return h.hexdigest()
