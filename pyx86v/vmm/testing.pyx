# SPDX-License-Identifier: GPL-2.0-or-later
"""StyleBench: any style around a processor that only holds registers.  Not part of the product's API."""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from pyx86v.arch.cpu cimport *
from pyx86v.arch.regs cimport *
from pyx86v.cost.ledger cimport N_CAUSES
from pyx86v.devices.platform cimport platform_init, platform_set_irq
from pyx86v.mmu.memory cimport ram_read64
from pyx86v.mmu.mmu cimport (ARRAY_D_4K, ARRAY_I_4K, FLUSH_ASID, MmuConfig, Translation, mmu_init, mmu_translate,
                             mmu_translate_quiet, paging_mode)
from pyx86v.vmm.guest cimport *

REGISTERS = ("RIP RFLAGS CR0 CR2 CR3 CR4 CR8 EFER GDTR_BASE GDTR_LIMIT IDTR_BASE IDTR_LIMIT DR6 DR7 CPL BITS SHADOW STAR "
             "LSTAR CSTAR FMASK KERNEL_GS_BASE SYSENTER_CS SYSENTER_ESP SYSENTER_EIP PAT DR0 DR1 DR2 DR3").split()
SEGMENTS = "ES CS SS DS FS GS LDTR TR".split()
EVENTS = ("EXCEPTION SOFTWARE_INT INTERRUPT TRIPLE_FAULT CPUID RDTSC HLT CR_WRITE CR_READ CLTS LMSW DR_WRITE DR_READ "
          "INVLPG INVPCID RDMSR WRMSR PORT_IN PORT_OUT MMIO_READ MMIO_WRITE WBINVD INVD DESCRIPTOR_LOAD XSETBV RDPMC "
          "MONITOR VMX_INSN EPT_VIOLATION EPT_MISCONFIG SHADOW_FAULT TRAP SYSCALL HOLE TASK_SWITCH").split()
VERDICTS = ("RESUME", "REFLECT", "STOP")
assert len(REGISTERS) == N_CPU_REGS and len(EVENTS) == N_EVENTS

cdef uint64_t fake_get(Cpu* c, int reg) noexcept nogil:
    return (<Fake*>c.owner).reg[reg]

cdef void fake_set(Cpu* c, int reg, uint64_t value) noexcept nogil:
    """EFER.LMA follows CR0.PG as in the processor."""
    cdef Fake* f = <Fake*>c.owner
    f.reg[reg] = value
    if reg == REG_CR0 or reg == REG_EFER:
        f.reg[<int>REG_EFER] &= ~<uint64_t>EFER_LMA
        if f.reg[<int>REG_CR0] & CR0_PG and f.reg[<int>REG_EFER] & EFER_LME:
            f.reg[<int>REG_EFER] |= EFER_LMA

cdef void fake_get_segment(Cpu* c, int seg, Segment* out) noexcept nogil:
    out[0] = (<Fake*>c.owner).segment[seg]

cdef void fake_set_segment(Cpu* c, int seg, const Segment* value) noexcept nogil:
    (<Fake*>c.owner).segment[seg] = value[0]

cdef void fake_flush(Cpu* c) noexcept nogil:
    (<Fake*>c.owner).flushes += 1

cdef void fake_flush_page(Cpu* c, uint64_t gva) noexcept nogil:
    (<Fake*>c.owner).flushes += 1

cdef int fake_in(Guest* g, Event* e) noexcept nogil:
    e.value = (<Fake*>g.cpu.owner).device_value
    return (<Fake*>g.cpu.owner).device_verdict

cdef int fake_out(Guest* g, Event* e) noexcept nogil:
    (<Fake*>g.cpu.owner).written = e.value
    return (<Fake*>g.cpu.owner).device_verdict

cdef int fake_mmio(Guest* g, Event* e) noexcept nogil:
    return fake_out(g, e) if e.kind == EV_MMIO_WRITE else fake_in(g, e)

cdef int fake_switch_task(Guest* g, Event* e) noexcept nogil:
    """The device's verdict; REFLECT is #TS(value)."""
    e.vector, e.error, e.has_error = 10, <uint32_t>(<Fake*>g.cpu.owner).device_value, True
    return (<Fake*>g.cpu.owner).device_verdict

cdef void fake_cpuid(Cpu* cpu, uint32_t leaf, uint32_t subleaf, uint32_t* out) noexcept nogil:
    out[0] = out[1] = out[2] = out[3] = 0

cdef class StyleBench:
    """A guest of `guest` bytes, its registers and its ledger under the hands of a test.

    prices  {number of Price: units}; every other price is 0
    vpid    the TLB is tagged by VPID or ASID
    leaf    largest nested page: 1 4K, 2 2M, 3 1G
    base    where the guest's window begins in machine memory
    spare   bytes behind it, in the place of what the style asks for
    """
    def __cinit__(self, guest=1 << 22, prices=None, vpid=True, leaf=1, base=0, spare=None):
        self.style = <const Style*>PyCapsule_GetPointer(self.capsule(), b"pyx86v.style")
        self.ram.size = base + guest + (self.style.monitor_bytes(guest) if spare is None else spare)
        self.ram.base = <uint8_t*>calloc(self.ram.size, 1)
        self.mmu = <Mmu*>calloc(1, sizeof(Mmu))
        self.vcpu = <Vcpu*>calloc(1, sizeof(Vcpu))
        self.platform = <Platform*>calloc(1, sizeof(Platform))
        self.state_bytes = calloc(1, STYLE_STATE_BYTES)
        self.shadow = <Shadow*>calloc(1, sizeof(Shadow))
        if not (self.ram.base and self.mmu and self.vcpu and self.platform and self.state_bytes and self.shadow):
            raise MemoryError

    def capsule(self):
        """The style's capsule; each bench names its own."""
        raise NotImplementedError

    def __dealloc__(self):
        free(self.ram.base)
        free(self.mmu)
        free(self.vcpu)
        free(self.platform)
        free(self.state_bytes)
        free(self.shadow)

    def __init__(self, guest=1 << 22, prices=None, vpid=True, leaf=1, base=0, spare=None):
        self.cpu.owner = &self.fake
        self.cpu.gpr = self.fake.gpr
        self.cpu.get, self.cpu.set = fake_get, fake_set
        self.cpu.get_segment, self.cpu.set_segment = fake_get_segment, fake_set_segment
        self.cpu.flush, self.cpu.flush_page = fake_flush, fake_flush_page
        for price, units in (prices or {}).items():
            self.ledger.price[<int>price] = units
        platform_init(self.platform, 1_000_000_000, guest, 0, 39)
        platform_set_irq(self.platform, 0, False)        # the 8254's, which is high until it is programmed
        self.platform.pic.master.imr = self.platform.pic.slave.imr = 0
        self.platform.pic.master.vector = 0x20
        self.vcpu.paging.window.base = base
        self.vcpu.paging.window.size = guest
        self.vcpu.paging.window.a20_mask = <uint64_t>-1
        self.vcpu.paging.maxphyaddr = 39
        self.connect(vpid, leaf)
        self.reset()

    cdef void connect(self, bint vpid, int leaf):
        cdef MmuConfig c
        memset(&c, 0, sizeof(c))
        c.array[<int>ARRAY_I_4K].entries = c.array[<int>ARRAY_D_4K].entries = 64
        c.ept_1g = 1
        mmu_init(self.mmu, &c)
        self.g.cpu, self.g.ledger, self.g.mmu, self.g.ram = &self.cpu, &self.ledger, self.mmu, &self.ram
        self.g.platform, self.g.vcpu, self.g.style_state = self.platform, self.vcpu, self.state_bytes
        self.g.shadow = self.shadow if self.style.shadow else NULL
        self.g.port_in, self.g.port_out, self.g.mmio, self.g.cpuid = fake_in, fake_out, fake_mmio, fake_cpuid
        self.g.switch_task = fake_switch_task
        self.g.cpu_vendor = b"GenuineIntel"
        self.g.cpu_brand = b"test bench                                      "
        self.g.cpu_maxphyaddr = 39
        self.g.cpu_vpid = vpid
        self.g.cpu_pcid = self.g.cpu_invpcid = True
        self.g.ept_leaf = leaf

    def reset(self):
        """Real-address mode as after reset, but at 0:1000h (SDM 3A table 9-1)."""
        self.set(RIP=0x1000, RFLAGS=2, CR0=0x60000010, DR6=0xffff0ff0, DR7=0x400, BITS=16, IDTR_LIMIT=0x3ff,
                 GDTR_LIMIT=0xffff, PAT=0x0007040600070406)
        for name in SEGMENTS:
            self.segment(name, 0, 0, 0xffff, 0x9b00 if name == "CS" else 0x8b00 if name == "TR" else 0x8200 if name == "LDTR" else 0x9300)

    def monitor_bytes(self):
        """What the style asks for, for a guest of this size."""
        return self.style.monitor_bytes(self.vcpu.paging.window.size)

    def firmware(self, uint64_t gpa, uint64_t base, uint64_t size):
        """Read-only memory at `gpa`, in machine memory at `base`."""
        self.vcpu.paging.window.rom_gpa = gpa
        self.vcpu.paging.window.rom_base = base
        self.vcpu.paging.window.rom_size = size

    def start(self):
        """The style's start: 0, or not."""
        return self.style.start(&self.g)

    def set(self, **registers):
        for name, value in registers.items():
            fake_set(&self.cpu, REGISTERS.index(name), value)
        self.vcpu.cr3 = self.fake.reg[<int>REG_CR3]
        self.vcpu.paging.mode = paging_mode(self.fake.reg[<int>REG_CR0], self.fake.reg[<int>REG_CR4], self.fake.reg[<int>REG_EFER])

    def get(self, name):
        return self.fake.reg[<int>REGISTERS.index(name)]

    @property
    def gpr(self):
        return [self.fake.gpr[i] for i in range(16)]

    def set_gpr(self, int index, uint64_t value):
        self.fake.gpr[index] = value

    def segment(self, name, selector, base, limit, flags):
        cdef Segment s
        memset(&s, 0, sizeof(s))
        s.selector, s.base, s.limit, s.flags = selector, base, limit, flags
        self.fake.segment[<int>SEGMENTS.index(name)] = s

    def segment_flags(self, name):
        return self.fake.segment[<int>SEGMENTS.index(name)].flags

    def set_pdptes(self, values):
        for i, value in enumerate(values):
            self.vcpu.paging.pdpte[<int>i] = value

    def device(self, value=0, verdict="RESUME"):
        """What ports and MMIO read, and what the device answers."""
        self.fake.device_value = value
        self.fake.device_verdict = VERDICTS.index(verdict)

    def irq(self, int line, bint level=True):
        platform_set_irq(self.platform, line, level)

    def idle(self, uint64_t units):
        """Time that the engine skips while the guest is halted."""
        self.ledger.total += units
        self.ledger.by[18] += units

    def event(self, kind, **fields):
        """Send an event; the verdict and what the event became."""
        cdef Event e
        memset(&e, 0, sizeof(e))
        e.kind = EVENTS.index(kind)
        e.length, e.retire, e.charge_insn, e.rip = fields.pop("length", 2), True, True, self.fake.reg[<int>REG_RIP]
        e.vector, e.error, e.has_error = fields.pop("vector", 0), fields.pop("error", 0), fields.pop("has_error", False)
        e.reg, e.gpr, e.detail = <int><uint32_t>fields.pop("reg", 0), fields.pop("gpr", 0), fields.pop("detail", 0)
        e.port, e.size, e.rep = fields.pop("port", 0), fields.pop("size", 0), fields.pop("rep", False)
        e.string, e.insn_info = fields.pop("string", False), fields.pop("insn_info", 0)
        e.value, e.address, e.target = fields.pop("value", 0), fields.pop("address", 0), fields.pop("target", 0)
        e.gpa, e.qualification, e.pcid = fields.pop("gpa", 0), fields.pop("qualification", 0), fields.pop("pcid", 0)
        e.open, e.access, e.privilege = fields.pop("open", False), fields.pop("access", 0), fields.pop("privilege", 0)
        if fields:
            raise TypeError(f"no such field of an event: {fields}")
        verdict = self.style.handlers[e.kind](&self.g, &e)
        return {"verdict": VERDICTS[verdict], "vector": e.vector, "error": e.error, "has_error": bool(e.has_error),
                "delivery": e.delivery, "value": e.value, "detail": e.detail, "retire": bool(e.retire), "charge_insn": bool(e.charge_insn)}

    def translate(self, uint64_t gva, int access=0, bint quiet=True):
        """(status, machine address, page shift) of a supervisor access, as the processor walks."""
        cdef Translation t
        if quiet:
            status = mmu_translate_quiet(self.mmu, &self.ram, walked(self.vcpu), gva, access, 2, False, &t)
        else:
            status = mmu_translate(self.mmu, &self.ram, &self.ledger, walked(self.vcpu), gva, access, 2, &t)
        return status, t.hpa, t.shift

    def read64(self, uint64_t hpa):
        cdef uint64_t value = 0
        ram_read64(&self.ram, hpa, &value)
        return value

    def write64(self, uint64_t hpa, uint64_t value):
        (<uint64_t*>(self.ram.base + hpa))[0] = value

    def exit_name(self, int reason):
        return self.style.exit_names[reason].decode() if self.style.exit_names[reason] != NULL else None

    @property
    def exits(self):
        """{basic reason: {count, units, least, most}} of the reasons that occurred."""
        cdef int r
        return {r: self.vcpu.exits[r] for r in range(MAX_EXIT_KINDS) if self.vcpu.exits[r].count}

    @property
    def causes(self):
        """{number of Cause: units} of what was charged."""
        cdef int c
        return {c: self.ledger.by[c] for c in range(<int>N_CAUSES) if self.ledger.by[c]}

    @property
    def total(self):
        return self.ledger.total

    def base_state(self):
        """What every style's bench tells of its state."""
        return {"halted": bool(self.vcpu.halted), "line_seen": bool(self.vcpu.line_seen), "window": bool(self.vcpu.window),
                "stop": self.vcpu.stop_reason, "eptp": self.vcpu.paging.eptp, "asid": self.vcpu.paging.asid,
                "flushes": self.fake.flushes, "written": self.fake.written, "tsc_offset": self.vcpu.tsc_offset,
                "asid_flushes": self.mmu.count.flushes[<int>FLUSH_ASID]}
