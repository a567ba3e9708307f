# SPDX-License-Identifier: GPL-2.0-or-later
"""Several guests in one machine: one processor, one modelled TLB, one ledger, and a world for each guest.

The engine holds one world at a time, the one in front.  Every other one sits: its registers are an image, its
pointers a copy of `Guest`, everything else of it lies in its `World` and in its own part of machine RAM.
`worlds_run` (worlds.pyx) runs them round robin, a slice of `quantum` each; a switch of worlds happens between two
runs of the engine, at a block boundary, exactly where a run that a limit stopped goes on.

Invariants
1. Each world has a soft TLB of its own (kept.pxd), a subset of what the modelled TLB holds for it when it is in front.
2. A tag (ASID, VPID) belongs to one world in one generation.  Tag 0 (native, and everything where the TLB is not
   tagged) is flushed when it changes hands (`world_tag`).
3. A breakpoint of the engine's belongs to the world in front: they are lifted and set again at a switch, since
   they are addresses without a world.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from pyx86v.arch.types cimport PAGE_SHIFT
from pyx86v.cost.ledger cimport IDLE
from pyx86v.devices.sinks cimport Sinks
from pyx86v.engine.account cimport Account, account_book, account_now
from pyx86v.engine.breakpoints cimport breakpoints_arm
from pyx86v.engine.kept cimport Kept, kept_catch_up, kept_exchange
from pyx86v.engine.layout cimport *
from pyx86v.engine.remap cimport code_pages_forget
from pyx86v.engine.state cimport *
from pyx86v.vmm.guest cimport Guest, Style

cdef enum:
    MAX_WORLDS = 16
    DR7_ENABLES = 0xff       # L0 G0 ... L3 G3 (SDM 3B 17.2.4)
    DR7_RESET = 0x400

ctypedef struct Standing:    # saved: how one world stands
    Account account
    uint64_t left            # busy units of the ledger when it was last left
    uint64_t wake            # waiting: ledger total at which its next event comes
    uint32_t generation      # of its tag
    uint32_t asid
    bint waiting             # halted, and gave way
    bint ended
    bint open                # its last block ended in a control transfer
    uint8_t image[ENV_IMAGE_BYTES]   # registers, while another world is in front

ctypedef struct Schedule:    # saved: the machine's scheduler
    uint32_t count
    uint32_t front           # number of the world in front
    uint64_t quantum         # cycles, or instructions under --clock instructions
    uint64_t slice_units     # ledger total at which the slice ends
    uint64_t slice_instructions  # and its instructions; 0 and 0: the first slice has not begun
    uint64_t slice_retired   # instructions of the machine when it began; all ones: it was made longer (give_patience)
    uint64_t switches
    uint32_t generation      # of tags; worlds start in generation 0 and have none
    uint32_t next_asid
    uint32_t last_asid       # tags are 1 to last_asid
    uint32_t zero_owner      # number of the world that used tag 0 last
    Account booked           # the machine's counts that the accounts have

ctypedef struct Seat:        # one world beside the engine
    World* world
    const Style* style
    Guest guest              # the pointers that handlers see, while another world is in front
    Sinks sinks
    Standing standing
    uint64_t breakpoints[MAX_BREAKPOINTS]
    int breakpoint_count
    bint has_exit_hook
    bint look_first          # as in Engine
    Kept kept
    uint8_t py_ports[8192]   # bitmap of ports that belong to Python devices

ctypedef struct Worlds:
    Schedule plan
    Seat* seat
    Engine* engine
    uint32_t held            # number of the world whose soft TLB the engine has

cdef Worlds* worlds_new(Engine* e, uint32_t count) except NULL
cdef void worlds_free(Worlds* w) noexcept
cdef void worlds_connect(Worlds* w) noexcept
cdef int worlds_run(Worlds* w, bint step) noexcept nogil
cdef dict worlds_held(Worlds* w)

cdef inline uint64_t busy(const Engine* e) noexcept nogil:
    """The ledger's clock without the time that HLT skipped."""
    return e.ledger.total - e.ledger.by[<int>IDLE]

cdef inline void worlds_book(Worlds* w) noexcept nogil:
    """Bring the account of the world in front up to date."""
    cdef Account now
    account_now(w.engine.ledger, w.engine.mmu, &now)
    account_book(&w.seat[w.plan.front].standing.account, &w.plan.booked, &now)

cdef inline uint64_t worlds_exits(const Worlds* w) noexcept nogil:
    """Exits of all worlds."""
    cdef uint64_t n = 0
    cdef uint32_t i
    for i in range(w.plan.count):
        n += w.seat[i].world.vcpu[w.seat[i].world.running].exit_total
    return n

cdef inline void image_copy(char* to, const char* image) noexcept nogil:
    """Copy a register image but for the room of registers that the processor does not have, and scratch.  A slot of 64
    bytes holds an XMM register in its first 16.

    memmove, because the compiler turns a memcpy of known size into REP MOVS, which takes three times as long here.
    """
    cdef int i
    memmove(to, image, ENV_XMM)
    for i in range(16):
        (<uint64_t*>(to + ENV_XMM + 64 * i))[0] = (<uint64_t*>(image + ENV_XMM + 64 * i))[0]
        (<uint64_t*>(to + ENV_XMM + 64 * i))[1] = (<uint64_t*>(image + ENV_XMM + 64 * i))[1]
    memmove(to + ENV_SYSENTER_CS, image + ENV_SYSENTER_CS, ENV_IMAGE_BYTES - ENV_SYSENTER_CS)

# The switch -----------------------------------------------------------------------------------

cdef inline void breakpoints_lift(Engine* e) noexcept nogil:
    """Take the world's breakpoints out of the engine (invariant 3); DR7 keeps its value."""
    cdef uint64_t dr7 = env_u64(e.env, ENV_DR + 56)[0]
    cpu_breakpoint_remove_all_x86_64(e.cpu, BP_GDB)
    if dr7 & DR7_ENABLES:
        cpu_x86_update_dr7_x86_64(e.env, DR7_RESET)
        env_u64(e.env, ENV_DR + 56)[0] = dr7

cdef inline void breakpoints_set(Engine* e) noexcept nogil:
    """The reverse: what the engine must know of DR7 and of the debugger's breakpoints."""
    cdef uint64_t dr7 = env_u64(e.env, ENV_DR + 56)[0]
    if dr7 & DR7_ENABLES:
        env_u64(e.env, ENV_DR + 56)[0] = DR7_RESET
        cpu_x86_update_dr7_x86_64(e.env, <uint32_t>dr7)
        env_u64(e.env, ENV_DR + 56)[0] = dr7
    breakpoints_arm(e, <uint64_t>-1)

cdef inline void world_sit(Worlds* w) noexcept nogil:
    """The world in front leaves the engine for its seat."""
    cdef Engine* e = w.engine
    cdef Seat* s = &w.seat[w.plan.front]
    worlds_book(w)
    breakpoints_lift(e)
    image_copy(<char*>s.standing.image, e.env)
    s.standing.open = e.current[0].flags & REC_TRANSFER != 0
    s.standing.left = busy(e)
    s.guest = e.guest
    s.look_first = e.look_first
    s.has_exit_hook = e.has_exit_hook
    s.breakpoint_count = e.breakpoint_count
    memcpy(s.breakpoints, e.breakpoints, sizeof(uint64_t) * <size_t>e.breakpoint_count)

cdef inline void world_stand(Worlds* w, uint32_t i) noexcept nogil:
    """World `i` takes the engine.  An exit that it is in (HLT) goes on; the time in between is not the exit's."""
    cdef Engine* e = w.engine
    cdef Seat* s = &w.seat[i]
    w.plan.front = i
    e.world = s.world
    e.vcpu = &s.world.vcpu[s.world.running]
    e.style = s.style
    e.guest = s.guest
    e.guest.elsewhere = e.ledger.instructions - s.standing.account.instructions
    e.py_ports = s.py_ports
    e.has_exit_hook = s.has_exit_hook
    e.breakpoint_count = s.breakpoint_count
    memcpy(e.breakpoints, s.breakpoints, sizeof(uint64_t) * <size_t>s.breakpoint_count)
    image_copy(e.env, <char*>s.standing.image)
    e.vcpu.exit_started += busy(e) - s.standing.left
    s.standing.left = busy(e)
    e.current[0] = &e.open_end if s.standing.open else &e.closed_end
    e.look_first = s.look_first
    if i != w.held:
        kept_exchange(e, &w.seat[w.held].kept, &s.kept, i)
        kept_catch_up(e, &s.kept)
        code_pages_forget(e)
        w.held = i
    world_forget(e)
    breakpoints_set(e)

cdef inline void world_forget(Engine* e) noexcept nogil:
    """Drop what the engine remembers of the world before (why that changes nothing: snapshot.pyx)."""
    cdef int i
    e.looked_up = NULL
    e.split_eip = <uint64_t>-1
    env_u32(e.cpu, CPU_NEXT_CFLAGS)[0] = 0xffffffffU      # a block to be cut was the other world's
    if e.portable:                           # its records are found by address, and addresses have no world
        for i in range(RECORD_HASH):
            e.hash[i] = &e.records[0]

cdef inline void worlds_bring(Worlds* w, uint32_t i) noexcept nogil:
    """Put world `i` in front, outside of modelled time: for Python, which looks at it.  The machine does not run."""
    if i != w.plan.front:
        world_sit(w)
        world_stand(w, i)
