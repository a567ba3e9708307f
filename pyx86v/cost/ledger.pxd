# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger: the only code that adds cycles.

Time is an integer in 1/64 cycle ("units"), so every host computes the same total.
Every charge names one cause, and the causes sum to the total by construction.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    UNITS_PER_CYCLE = 64
    MAX_PRICES = 128

cpdef enum Cause:
    INSTRUCTION = 0      # what the block model says the instructions themselves cost
    TLB = 1              # second-level TLB hits
    WALK_BASE = 2        # starting a page walk
    WALK_GUEST_1 = 3     # references to guest paging structures, by level (1 = PTE)
    WALK_GUEST_2 = 4
    WALK_GUEST_3 = 5
    WALK_GUEST_4 = 6
    WALK_NESTED_1 = 7    # references to EPT or NPT entries, by level
    WALK_NESTED_2 = 8
    WALK_NESTED_3 = 9
    WALK_NESTED_4 = 10
    TRAP = 11            # delivery of an exception or a software interrupt through the guest's tables
    INTERRUPT = 12       # delivery of an external interrupt
    EXIT = 13            # guest to monitor
    ENTRY = 14           # monitor to guest
    VMCS = 15            # VMREAD and VMWRITE by the monitor
    EMULATION = 16       # the monitor's own work on an exit
    DEVICE = 17          # port and memory-mapped device accesses
    IDLE = 18            # HLT: time skipped to the next event
    SHADOW = 19          # the monitor's work on shadow tables
    WORLD_SWITCH = 20    # another guest is put on the processor
    CACHE = 21           # what data accesses take beyond a hit in the first-level cache (--caches full)
    BRANCH = 22          # mispredicted branches (--branches)
    TRANSLATION = 23     # the monitor translates guest code, and finds translations
    N_CAUSES = 24

cpdef enum Price:        # one line of a profile each; units are charged, profiles are written in cycles
    TLB_L2_HIT = 0       # first-level miss that hits the second level
    WALK_START = 1       # fixed part of a walk
    WALK_REF_1 = 2       # one reference to a guest structure of that level
    WALK_REF_2 = 3
    WALK_REF_3 = 4
    WALK_REF_4 = 5
    NESTED_REF_1 = 6     # one reference to an EPT or NPT entry of that level
    NESTED_REF_2 = 7
    NESTED_REF_3 = 8
    NESTED_REF_4 = 9
    NESTED_TLB_HIT = 10
    DELIVER_FAULT = 11   # fault through the IDT, same privilege or inner, without the handler's IRET
    DELIVER_PAGE_FAULT = 12
    DELIVER_SOFTWARE = 13  # INT n, INT3, INTO
    DELIVER_INTERRUPT = 14
    PORT_IN = 15         # the bus access, beyond the instruction
    PORT_OUT = 16
    MMIO_READ = 17
    MMIO_WRITE = 18
    VM_EXIT = 19         # cheapest exit: guest instruction to first monitor instruction
    VM_EXIT_PAGE_FAULT = 20  # exit for a page fault
    VM_EXIT_EPT = 21     # EPT violation or misconfiguration
    VM_ENTRY = 22
    VMREAD = 23
    VMWRITE = 24
    EMUL_CPUID = 25      # software of the monitor, beyond exit, entry and VMCS accesses
    EMUL_CR = 26
    EMUL_MSR = 27
    EMUL_IO = 28
    EMUL_MMIO = 29
    EMUL_HLT = 30
    EMUL_INTERRUPT = 31
    EMUL_EXCEPTION = 32
    EMUL_INVLPG = 33
    EMUL_DESCRIPTOR = 34
    EMUL_RDTSC = 35
    EMUL_EPT = 36
    EMUL_OTHER = 37
    UNTAGGED_SWITCH = 38  # extra price of an exit or entry on a part without tagged TLBs, beyond the refills
    SHADOW_WALK = 39     # walk the guest's tables in software, on a fault of the shadow
    SHADOW_FILL = 40     # make the entries for one address
    SHADOW_REFLECT = 41  # the fault is the guest's own: hand it on
    SHADOW_TRACE = 42    # decode and carry out one write to a traced table, drop what was derived
    SHADOW_UPDATE = 43   # and when the new entry is present: check it and derive anew
    SHADOW_NEW = 44      # and when the old one was not
    SHADOW_SYNC = 45     # compare one entry of a table that is out of sync
    SHADOW_PAGE = 46     # take, clear and enter a shadow page
    SHADOW_ZAP = 47      # drop one
    EMUL_INSTRUCTION = 48  # one instruction interpreted by the monitor
    SWITCH_TASK = 49     # from one guest to another: as tasks, without hardware support
    SWITCH_VMX = 50      # under VT-x: exit, VMCLEAR and VMPTRLD, the state that no VMCS holds, entry
    SWITCH_SVM = 51      # under AMD-V: the same with VMSAVE and VMLOAD
    VMLOAD = 52          # AMD-V: what VMRUN and #VMEXIT do not move, from a VMCB or host save area,
    VMSAVE = 53          # and into one
    TRAP_EXIT = 54       # deprivileged: fault through the monitor's IDT, to its first instruction
    TRAP_RETURN = 55     # the monitor's IRET to the guest
    EMUL_DECODE = 56     # fetch and decode the instruction that trapped, and dispatch
    EMUL_REFLECT = 57    # enter the guest's handler: gate, segments and task state read, frame pushed
    EMUL_SEGMENT = 58    # segment load, far transfer, IRET by software: descriptors read and checked
    EMUL_FLAG = 59       # CLI, STI, SWAPGS: a variable of the monitor
    CACHE_L1 = 60        # an access that this level has, from load to use: page-table references with --caches
    CACHE_L2 = 61
    CACHE_L3 = 62
    CACHE_MEMORY = 63    # or none
    BRANCH_MISS = 64     # what a mispredicted branch takes more
    BT_TRANSLATE = 65    # binary translation: one guest instruction translated
    BT_DISPATCH = 66     # leave the translation cache for the monitor, find the next translation, go there
    BT_CALLOUT = 67      # leave it for the monitor's code of one instruction, and return
    BT_RDTSC = 68        # RDTSC in place: the processor's, and adding an offset
    BT_PORT = 69         # IN and OUT that the translation cache answers by itself: port 80h
    BT_TRACE = 70        # a write to a page table, retranslated because it trapped often: carry it out, drop what was derived,
    BT_TRACE_UPDATE = 71 # and when the new entry is present: check it and derive anew,
    BT_TRACE_NEW = 72    # and when the old one was not
    N_PRICES = 73

ctypedef struct Ledger:
    uint64_t total                  # units
    uint64_t by[32]                 # units, by Cause
    uint64_t instructions           # retired guest instructions
    uint64_t price[MAX_PRICES]      # units, by Price

cdef inline void charge_units(Ledger* l, int cause, uint64_t units) noexcept nogil:
    """Book `units` (1/64 cycle) to `cause`."""
    l.total += units
    l.by[cause] += units

cdef inline void charge(Ledger* l, int cause, int price) noexcept nogil:
    """Book one occurrence of a priced event to `cause`."""
    charge_units(l, cause, l.price[price])

cdef inline void charge_block(Ledger* l, int64_t units, int64_t instructions) noexcept nogil:
    """Book executed instructions; both numbers may be negative, to give back what did not run."""
    l.total += <uint64_t>units
    l.by[<int>INSTRUCTION] += <uint64_t>units
    l.instructions += <uint64_t>instructions
