# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's own structures: one `Engine` for each Unicorn instance.

An Engine holds pointers into the process and is never saved; what a snapshot
needs is in `World` and in the register image (see machine.pxd).
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from pyx86v.arch.cpu cimport Cpu
from pyx86v.arch.sensitive cimport MAX_SENSITIVE
from pyx86v.arch.types cimport hpa_t
from pyx86v.cost.block cimport Decoder, InsnMark
from pyx86v.cost.heat cimport PLAIN_BYTES, Heat
from pyx86v.devices.platform cimport Platform, Sinks
from pyx86v.cost.ledger cimport Ledger
from pyx86v.cost.predictor cimport Predictor
from pyx86v.engine.uc cimport uc_engine
from pyx86v.mmu.memory cimport Ram, Window
from pyx86v.mmu.mmu cimport Mmu
from pyx86v.mmu.shadow_state cimport Shadow
from pyx86v.mmu.state cimport Evicted
from pyx86v.vmm.bt.state cimport BtPart, BtTranslator
from pyx86v.vmm.bt.cache cimport Unit
from pyx86v.vmm.guest cimport Event, Guest, Style, STYLE_STATE_BYTES, Vcpu

cdef enum RecordFlags:
    REC_TRANSFER = 1     # ends in a control transfer, or an interrupt window of the architecture closes behind it
    REC_STRADDLE = 2     # crosses a page: its last page is looked up at each execution
    REC_SLOW = 4         # every execution goes through the slow path
    REC_NEW = 8          # not decoded yet
    REC_STEPPED = 32     # portable: decoded for one step, to be decoded again
    REC_TWIN = 64        # portable: another record has the same address and size
    REC_FAR = 128        # ends in a far transfer or IRET, which may switch tasks
    REC_RESTART = 16     # one instruction that the engine re-executes after it changed its own block
    REC_HOLE = 256       # deprivileged: begins with a hole (hole.pxd)
    REC_CUT = 512        # deprivileged: a hole lies further on, before which it is cut
    REC_COUNT = 1024     # its executions are counted: no price of the block model yet (price.pxd)
    REC_OPEN = 2048      # a stretch goes on behind it
    REC_PART = 4096      # the plain part of its stretch is not all in it
    REC_CONTINUES = 8192 # it has run as the later part of a stretch, and is priced so
    REC_PRICED = 16384   # its plain instructions have not, or not all, their classes' prices

cdef enum TranslatedCode:
    NOT_TRANSLATED = 0
    TRANSLATED = 1       # address and size are those in the translation cache, instructions the guest's
    TRANSLATED_INSIDE = 2    # in the middle of an expansion: no guest address is defined

cdef extern from *:
    """
    #define PYX_SLOW_COST (1LL << 60)
    #define PYX_NO_FRAME 0xffffffffULL
    #define PYX_MMIO_BASE (1ULL << 52)
    """
    const int64_t SLOW_COST "PYX_SLOW_COST"      # dearer than any budget: the first execution takes the slow path
    const uint64_t NO_FRAME "PYX_NO_FRAME"
    const uint64_t MMIO_BASE "PYX_MMIO_BASE"     # where holes lie in the engine's address space: base + gpa (52 bits)

ctypedef struct BlockRecord:     # 64 bytes: one line of the host's cache
    int64_t cost         # packed, see budget.pxd; first, so that translated code loads it at offset 0
    uint64_t pc          # linear address of the first instruction
    uint16_t size        # bytes
    uint16_t count       # instructions
    uint16_t flags
    uint16_t mode        # code_mode of ops.pxd
    int64_t true_cost    # packed cost of one execution
    uint64_t eip         # pc as instruction pointer
    uint32_t frame       # host frame of the first page
    uint32_t frame2      # of the last page when it straddles
    uint32_t slot        # of Heat.slot, and 1; 0: not looked for.  Of translated code: of its first piece
    uint16_t plain       # instructions of its stretch's plain part.  Of translated code: pieces
    uint16_t translated  # TranslatedCode
    uint32_t first_mark  # index into Engine.marks
    uint32_t next        # portable engine: index of the next in the hash chain, whose end is record 0

ctypedef struct PricedRecord:    # a record that is a part of a stretch (price.pxd), and what its prices come from
    const BlockRecord* record
    uint64_t first           # linear address at which the stretch begins
    uint64_t key             # of its plain part in Heat; 0: there is none
    uint32_t units           # that Heat had
    uint16_t end             # bytes of the plain part,
    uint16_t looked_at       # and those of the stretch from which that follows
    uint8_t code[PLAIN_BYTES]

ctypedef struct Piece:   # of a block of translated code (cache_blocks.pxd): the plain part of a stretch
    uint32_t slot        # of Heat.slot,
    uint32_t units       # that this had when the block was priced
    uint32_t base        # units by the classes' prices
    uint32_t at          # offset in the code area
    uint8_t bytes
    uint8_t insns
    bint jumps           # a jump with a distance of 32 bits is the last of them

cdef enum:
    KNOWN_PRICES = 256       # a power of two
    MAX_RECORDS = 1 << 20
    MAX_MARKS = 1 << 23
    MAX_PIECES = 1 << 22
    RECORD_HASH = 1 << 16    # more than a page
    CODE_PAGES = 1 << 10     # a power of two
    MAX_BREAKPOINTS = 64
    MARK_HOLE = 1 << 7   # InsnMark.flags: a hole of a deprivileged guest
    PAGE_DATA = 0        # states of a host frame: no translated code,
    PAGE_CODE = 1        # translated code, mapped without write permission,
    PAGE_MIXED = 2       # both: the engine watches each store
    MAX_PAGE_FLIPS = 8

    MAX_OPEN_PAGES = 16
    EVICT_LOG = 256      # evictions of other worlds' translations that are remembered

    MAX_VCPUS = 1        # of one guest
    SPARE_BYTES = 4 * 4096   # mapped behind RAM for the engine alone (configure.pyx)

cdef enum CensusMode:    # where an instruction ran
    CENSUS_PAGING = 0    # protected or long mode with paging, rings 0 to 3
    CENSUS_PROTECTED = 4 # without paging, rings 0 to 3
    CENSUS_REAL = 8
    CENSUS_V86 = 9
    CENSUS_MODES = 10

cdef enum:
    CENSUS_SITES = 4096  # a power of two; a Linux boot has about a thousand,
    CENSUS_PROBES = 16   # each within so many of where its hash points

ctypedef struct CensusSite:
    uint64_t address     # linear
    uint64_t count       # 0: free, or of an instruction that was taken back
    uint64_t number      # arch/sensitive.pxd; 0: free

ctypedef struct Census:  # the sensitive instructions that retired (census.pxd), by number (arch/sensitive.pxd)
    uint64_t count[MAX_SENSITIVE][CENSUS_MODES]
    uint64_t first[MAX_SENSITIVE][CENSUS_MODES]      # linear address of the first one
    uint64_t mode        # of the block that was counted last
    CensusSite site[CENSUS_SITES]
    uint64_t unplaced    # executions of instructions that found no place among them

ctypedef struct World:   # saved: one guest of the machine
    uint32_t vcpu_count
    uint32_t running     # index of the vCPU whose registers the engine holds
    Vcpu vcpu[MAX_VCPUS]
    Window window
    Platform platform
    Shadow shadow        # of a style that has shadow tables
    uint64_t skipped     # Guest.skipped, copied when saved
    Census census        # of an audit
    uint8_t style_state[STYLE_STATE_BYTES]

ctypedef struct TaskSwitch:
    int source               # TASK_* of task.pxd
    uint32_t selector        # of the new TSS,
    uint32_t descriptor[2]   # and its descriptor
    uint32_t ext             # EXT bit of error codes
    uint64_t rip             # what the old task goes on with
    uint64_t flags
    bint has_error           # an error code is pushed in the new task
    uint32_t error
    bint switched            # the new task's registers are loaded

ctypedef struct CodePage:    # portable: what was executed from a page
    uint64_t page            # linear address, and 1; 0: nothing
    uint64_t frame

ctypedef struct Engine:
    uc_engine* uc
    char* cpu            # CPUState
    char* env            # CPUX86State
    int64_t* budget      # these two are in env, where translated code reaches them,
    BlockRecord** current
    int64_t own_budget   # or here: portable
    BlockRecord* own_current
    int64_t granted      # what the budget was when it was last settled
    bint portable        # public BLOCK hook instead of inline accounting
    void (*block_rest)(Engine* e, uint64_t pc, uint32_t size) noexcept nogil  # its rare part, apart lest the hook saves registers
    bint slow_known      # the translator knows the slow path's description,
    bint lookup_known    # and that of
    void* lookup_slow    # what translated code calls for an indirect target without a valid shortcut (lookup.pxd);
    void* went           # its answer
    void* shortcuts      # of a style that translates,
    uintptr_t last_tb    # and the block that was translated last
    bint lookups_by_code # the code in the translation cache looks indirect targets up, and not the engine
    uint64_t seen_clears[256]    # by world: Bt.clears that the shortcuts know of
    bint fresh           # portable: the first block after a start is not announced
    Cpu ops
    Guest guest
    World* world         # the guest that runs,
    Vcpu* vcpu           # and its virtual processor
    const Style* style
    Ledger* ledger
    Mmu* mmu
    Ram ram
    Decoder* decoder
    Heat* heat           # NULL: the profile has no block model
    PricedRecord known[KNOWN_PRICES]     # by record
    uint64_t running_lead    # Vcpu.lead as it was when the running block was booked, if that took the slow path
    void* record_memory  # what was allocated for
    BlockRecord* records # these, each in one line of the host's cache
    uint32_t record_count
    InsnMark* marks
    uint64_t mark_count
    Piece* pieces        # of translated code; the first few are for a record without room
    uint32_t piece_count
    BlockRecord** hash   # portable: the first record of each chain
    CodePage code_pages[CODE_PAGES]  # and which frames they belong to (remap.pxd)
    BlockRecord open_end     # stands for "the last thing was a control transfer"
    BlockRecord closed_end   # stands for "the engine stopped here"
    BlockRecord lost         # where a block starts when the arena is full
    bint audit           # take the census
    int called           # the instruction that the monitor carries out for translated code, as a sensitive one,
    uint64_t called_at   # and its linear address
    Predictor* predictor     # NULL: branches are not predicted (branches.pxd)
    const BlockRecord* branch_block  # the block that ended in Predictor.last; NULL: none did
    uint8_t* page_state      # by host frame
    uint8_t* page_flips
    BtTranslator* translator # of a style that translates,
    char* context        # parts.pxd: the translator's while it is at a block of translated code, else NULL;
    uint64_t context_tb  # what it was at first,
    uint64_t context_first
    uint64_t context_base    # linear address of the unit's code,
    Unit* context_unit
    int32_t context_most # instructions that the block might have in all,
    int context_joined   # and units that it has beyond the first;
    BtPart* part         # where it is in the unit,
    BtPart* last_part
    int32_t guest_index  # and the soft TLB that the guest's own accesses use
    bint redo            # and the instruction that runs overwrites its own unit: the monitor is to carry it out
    uint64_t open_pages[MAX_OPEN_PAGES]      # mapped for the supervisor while EFLAGS.AC lets it see the user's (SMAP),
    int open_count       # so many; beyond, all are dropped
    uint64_t* write_map      # by host frame: 0, gva | 1 of the one page mapped writable, or all ones
    uint64_t frames
    hpa_t void_page          # a page of all ones, executed when the guest jumps into a hole
    uint64_t vmcb_page       # what the engine believes is its VMCB, for the MSR bitmap pointer
    uint64_t fault_rip   # the instruction at which a fault during delivery is reported
    TaskSwitch task      # the task switch that is being made (task.pxd)
    uint64_t stray       # the non-canonical address of the data access that has just raised #GP, or 0
    uint64_t mmio_rip
    uint64_t mmio_gva
    uint64_t split_eip   # fault_of_block: the block that is being translated again,
    int split_count      # and with how many instructions
    const BlockRecord* looked_up   # the block that was left to have its last page looked up
    bint look_first      # the next block looks its first page up (invariant 3, blocks.pxd)
    bint look_again      # and is looked up itself (look_again, cache_kill.pxd)
    uint32_t short_blocks    # so many translations are to be of one instruction only (blocks.pxd)
    uint32_t window_blocks   # translations,
    uint64_t window_insns    # instructions in them,
    uint64_t window_start    # and instructions retired before them
    bint flush_blocks    # the arena is nearly full
    uint64_t due         # guest time of the next device event
    uint64_t poll_units  # ledger total at which to poll for signals
    uint64_t max_units
    uint64_t max_instructions
    uint64_t max_exits
    uint64_t exits       # of all kinds
    uint64_t breakpoints[MAX_BREAKPOINTS]
    int breakpoint_count
    bint rearm           # they have changed: the engine must be told (breakpoints.pxd)
    bint stopping
    bint stepping        # run one instruction
    bint step_next       # the next block is that one, and no restart
    int resuming         # one instruction is to run with RF set (breakpoints.pxd)
    uint64_t evictions   # of translations of worlds that were not in front, so far,
    Evicted evicted[EVICT_LOG]   # the last of them, number n at n % EVICT_LOG (kept.pxd)
    bint gives_way       # there are other worlds: HLT ends this one's turn (worlds.pxd)
    int (*poll)(void* owner) noexcept nogil      # 0, or stop: a Python signal handler raised
    int (*py_port)(void* owner, Event* e) noexcept nogil   # 1 when a Python device took it
    int (*py_mmio)(void* owner, Event* e) noexcept nogil
    int (*py_exit)(void* owner, Event* e) noexcept nogil   # hook on exits: 0 or stop
    bint has_exit_hook
    uint64_t (*idle)(void* owner, uint64_t cycles) noexcept nogil    # NULL, or who says how many of the cycles of a HLT pass; NEVER: stop
    uint8_t* py_ports        # bitmap of ports that belong to Python devices, of the world in front
    void* owner
    uint64_t slow_paths  # how often the slow path ran (a speed figure, not a result)
