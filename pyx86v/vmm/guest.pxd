# SPDX-License-Identifier: GPL-2.0-or-later
"""What a style sees: the guest, the event it is asked about, and its table of handlers.

Event -> table -> handler -> verdict.  The engine fills an `Event` in, calls
`style.handlers[event.kind]` and carries the verdict out:

RESUME   an instruction event is complete: RIP moves behind the instruction, which is
         retired (unless `retire` is 0: then the handler set RIP itself)
REFLECT  deliver `vector`/`error`/`delivery` through the guest's own tables;
         the instruction is not retired
STOP     the run ends with `vcpu.stop_reason`, `stop_status`

A handler sees an exact ledger: everything before the instruction is booked, the
instruction itself is not.  `charge_insn` 0 says that the guest's processor did not
execute the instruction (the monitor did), so only the count and not its price is booked.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.arch.cpu cimport Cpu
from pyx86v.arch.types cimport gpa_t, gva_t
from pyx86v.cost.ledger cimport Ledger
from pyx86v.devices.platform cimport Platform, Sinks
from pyx86v.mmu.memory cimport Ram
from pyx86v.mmu.mmu cimport Mmu, PagingContext
from pyx86v.mmu.shadow_state cimport Shadow
from pyx86v.vmm.ring cimport Ring

cdef enum:               # EventKind: the closed list
    EV_EXCEPTION = 0     # vector, error, has_error; RIP at the instruction (fault) or after (trap).  #UD of an AMD-V
                         # instruction: detail = its exit code (VMRUN 80h, ...; on a processor that has it, it exits)
    EV_SOFTWARE_INT      # INT n, INT3, INTO: vector; RIP at the instruction, length set
    EV_INTERRUPT         # the interrupt line is up at a boundary; `open` says whether the guest takes it now
    EV_TRIPLE_FAULT
    EV_CPUID
    EV_RDTSC             # detail 1: RDTSCP
    EV_HLT
    EV_CR_WRITE          # reg = CR number, value = new value, gpr = source register
    EV_CR_READ           # reg = CR number, gpr = destination register
    EV_CLTS
    EV_LMSW              # value = source
    EV_DR_WRITE          # reg, value
    EV_DR_READ           # reg, gpr
    EV_INVLPG            # address
    EV_INVPCID           # value = type, address = descriptor's address; pcid, target = its contents
    EV_RDMSR             # reg = MSR number (ECX)
    EV_WRMSR             # reg = MSR number, value = EDX:EAX
    EV_PORT_IN           # port, size, value = result; rep set for REP INS
    EV_PORT_OUT          # port, size, value; rep set for REP OUTS
    EV_MMIO_READ         # gpa, size, value = result
    EV_MMIO_WRITE        # gpa, size, value
    EV_WBINVD
    EV_INVD
    EV_DESCRIPTOR_LOAD   # detail 0 GDT 1 IDT 2 LDT 3 TR (LGDT LIDT LLDT LTR); address or value = operand
    EV_XSETBV            # reg = ECX, value = EDX:EAX
    EV_RDPMC
    EV_MONITOR           # detail 1: MWAIT
    EV_VMX_INSN          # VMCALL, VMXON and the rest; detail = exit reason of the instruction
    EV_EPT_VIOLATION     # gpa, address = GVA, qualification; RESUME: try again, detail 1: with nothing at gpa
    EV_EPT_MISCONFIG     # gpa
    EV_SHADOW_FAULT      # the processor's walk of shadow tables faulted: address, error, size, access, privilege; see shadow.pxd
    EV_TRAP              # deprivileged: an instruction trapped that runs next in the virtual state; detail = TrapKind
    EV_SYSCALL           # deprivileged: SYSCALL or SYSENTER, which the engine then carries out
    EV_HOLE              # deprivileged: detail = Hole; value as the processor gives it, target as it has to be, qualification: they differ
    EV_TASK_SWITCH       # value = selector of the new TSS, detail = source (CALL IRET JMP IDT gate), address = EFLAGS that the
                         # old task keeps, error code that the new one gets; Guest.switch_task does it
    N_EVENTS

cdef enum Delivery:
    DELIVER_EXCEPTION = 0  # fault or trap of the processor
    DELIVER_INT_N = 1      # INT n, INT3, INTO: the gate's DPL is checked
    DELIVER_EXTERNAL = 2   # external interrupt

cdef enum:               # why a run ended
    STOP_NONE = 0
    STOP_EXIT = 1        # debug-exit port, status = value written; or power off, 0
    STOP_HALT = 2        # HLT with nothing that could wake the guest
    STOP_SHUTDOWN = 3    # triple fault, or reset asked for
    STOP_LIMIT = 4       # cycles, instructions or exits
    STOP_HOLE = 5
    STOP_ERROR = 6
    STOP_BREAKPOINT = 7
    STOP_SIGNAL = 8      # a Python exception (Ctrl-C) is pending
    STOP_WAIT = 9        # HLT while the machine has other guests; never seen outside of engine/

ctypedef struct Event:
    int kind
    int vector
    uint32_t error
    bint has_error
    int delivery
    int length           # of the instruction, bytes
    int reg
    int gpr
    int detail
    int size             # bytes, of an I/O or MMIO access
    int access           # Access and Privilege of EV_SHADOW_FAULT
    int privilege
    bint rep
    bint string          # INS or OUTS; address = of its memory operand
    uint32_t insn_info   # the operand as VT-x's instruction-information field has it
    bint open            # EV_INTERRUPT: IF set and no interrupt shadow
    bint retire          # RESUME: advance RIP and retire (1 when the handler is called)
    bint charge_insn     # book the instruction's own price when it retires (1 when the handler is called)
    uint16_t port
    uint16_t pcid
    uint64_t value
    gva_t address
    gva_t target
    gpa_t gpa
    uint64_t qualification
    uint64_t rip         # of the instruction

cdef inline void event_init(Event* ev, int kind) noexcept nogil:
    """An empty event of this kind, as a handler may rely on it."""
    ev.kind = kind
    ev.vector = 0
    ev.error = 0
    ev.has_error = False
    ev.delivery = 0
    ev.length = 0
    ev.reg = 0
    ev.gpr = 0
    ev.detail = 0
    ev.size = 0
    ev.access = 0
    ev.privilege = 0
    ev.rep = False
    ev.string = False
    ev.insn_info = 0
    ev.open = False
    ev.retire = True
    ev.charge_insn = True
    ev.port = 0
    ev.pcid = 0
    ev.value = 0
    ev.address = 0
    ev.target = 0
    ev.gpa = 0
    ev.qualification = 0
    ev.rip = 0

cdef enum:
    MAX_EXIT_KINDS = 168
    N_MSR_SLOTS = 64

ctypedef struct ExitCount:
    uint64_t count
    uint64_t units       # everything from exit to entry, in 1/64 cycle
    uint64_t least
    uint64_t most
    uint64_t squares     # sum of the squares of each exit's whole cycles

ctypedef struct Vcpu:    # saved state of one virtual processor beyond the engine's register image
    PagingContext paging # the guest's own view
    PagingContext hardware   # what the processor walks while `shadowing`
    bint shadowing       # the monitor's shadow tables are in use
    bint interpreting    # the monitor executes the guest's instructions: the processor could not (vmx+shadow, real mode)
    uint64_t cr3         # as the guest wrote it, PCID included
    uint64_t msr_value[N_MSR_SLOTS]
    uint64_t tsc_offset  # added to what the TSC's policy gives (tsc_time)
    int stop_reason
    int stop_status
    bint halted
    bint line_seen       # vmx: the external-interrupt exit for the asserted line has happened
    bint window          # an interrupt waits for the window
    bint depth           # an event is being delivered through the guest's tables:
    int first_vector     # its vector (IDT-vectoring information of an exit on the way),
    int first_kind       # Delivery,
    bint first_has_error
    uint32_t first_error # and error code
    uint64_t exceptions[32]
    uint64_t interrupts
    uint64_t software_ints
    ExitCount exits[MAX_EXIT_KINDS]
    uint64_t exit_total  # of all kinds
    uint64_t exit_started  # ledger total when the running exit began
    Ring ring            # of a deprivileged guest
    uint64_t lead        # in the middle of a stretch (engine/price.pxd): its linear address, and 1; else 0

ctypedef struct ClockPolicy:     # what a clock of the guest shows of machine time (clock.pxd)
    uint64_t numerator   # clock cycles = machine cycles * numerator / denominator
    uint64_t denominator
    bint hidden          # the monitor's time does not pass

ctypedef struct Guest:   # everything a handler may touch: pointers, rebuilt at load, never saved
    Cpu* cpu
    Ledger* ledger
    Mmu* mmu
    Ram* ram
    Platform* platform
    Sinks* sinks
    Vcpu* vcpu
    Shadow* shadow       # shadow tables, in the world's saved memory; NULL: the style has none
    void* style_state    # the style's own plain struct (a Vmcs and so on), in the world's saved memory
    void* owner          # the engine
    uint64_t frequency_hz
    bint clock_instructions     # --clock instructions
    ClockPolicy timers          # of guest time, which the timers follow
    ClockPolicy tsc             # of the time stamp counter, beside Vcpu.tsc_offset
    uint64_t skipped            # guest cycles under --clock instructions beside the instructions' (clock.pxd); saved by the engine
    uint64_t elsewhere          # instructions of the ledger that other guests retired
    const char* cpu_vendor      # 12 characters
    const char* cpu_brand       # up to 48 characters
    uint32_t cpu_signature      # CPUID.1:EAX
    uint32_t cpu_maxphyaddr
    bint cpu_pcid
    bint cpu_invpcid
    int (*port_in)(Guest* g, Event* e) noexcept nogil    # devices, Python ones included: fills e.value
    int (*port_out)(Guest* g, Event* e) noexcept nogil
    int (*mmio)(Guest* g, Event* e) noexcept nogil
    void (*cpuid)(Cpu* cpu, uint32_t leaf, uint32_t subleaf, uint32_t* out) noexcept nogil  # the engine's own features
    int (*read_linear)(Guest* g, gva_t gva, int size, void* out) noexcept nogil  # supervisor read through the MMU; 0 ok
    int (*switch_task)(Guest* g, Event* e) noexcept nogil   # RESUME; REFLECT with the fault in the event; STOP
    bint cpu_vpid               # the TLB is tagged by VPID or ASID; without, every exit and entry flushes it
    uint32_t shadow_unsync      # traced writes after which a leaf table goes out of sync; 0: never (ShadowConfig)
    bint adaptive               # bt: instructions that trap often are translated to call-outs
    int ept_leaf                # largest page the nested tables map: 1 4K, 2 2M, 3 1G; 0 = 1

ctypedef int (*handler_fn)(Guest* g, Event* e) noexcept nogil

cdef inline PagingContext* walked(Vcpu* v) noexcept nogil:
    """The context that the processor's MMU translates in."""
    return &v.hardware if v.shadowing else &v.paging

cdef enum:
    STYLE_STATE_BYTES = 32768

ctypedef struct Style:
    const char* name                 # as on the command line: "native", "vmx+ept"
    bint nested                      # guest-physical addresses go through EPT
    bint shadow                      # the processor walks shadow tables
    bint deprivileged                # the guest's kernel runs in ring 1 (ring.pxd)
    bint translates                  # and is translated (vmm/bt); style_state is a Bt
    handler_fn handlers[N_EVENTS]
    const char* exit_names[MAX_EXIT_KINDS]   # by the style's own exit number; NULL = unused
    int (*start)(Guest* g) noexcept nogil    # once, when the guest's first state is loaded; 0 ok
    int (*interpret)(Guest* g, int instructions) noexcept nogil   # so many are about to run while vcpu.interpreting; may clear it
    # every page of the monitor's own memory that the style asked for lies behind the guest's window
    uint64_t (*monitor_bytes)(uint64_t guest_bytes) noexcept nogil
    # several guests in one machine
    int switch_price                 # Price of putting this guest on the processor; 0: SWITCH_TASK
    void (*retag)(Guest* g, int asid) noexcept nogil     # the guest's translations carry this ASID or VPID from now on;
                                     # NULL: they carry 0, and the machine flushes them when another guest comes
    # may style_state, which comes from a file, be used?  NULL: whatever it holds
    bint (*is_sound)(const Guest* g) noexcept nogil
