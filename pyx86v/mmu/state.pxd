# SPDX-License-Identifier: GPL-2.0-or-later
"""What the MMU knows: configuration, counters, the context of a translation and its result.

`Mmu` is one plain struct without pointers: it can be copied, saved and restored as bytes.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from pyx86v.arch.ptes cimport PAGING_32, PAGING_LONG, PAGING_NONE, PAGING_PAE, PTE_NX
from pyx86v.arch.regs cimport CR0_PG, CR4_PAE, EFER_LME, EFER_NXE
from pyx86v.arch.types cimport gpa_t, hpa_t
from pyx86v.mmu.memory cimport Window
from pyx86v.mmu.tlb cimport ArrayConfig, N_ARRAYS, N_SIZES, Tlb

cdef enum XlatStatus:
    XLAT_OK = 0
    XLAT_PAGE_FAULT = 1      # Translation.pfec
    XLAT_NO_RAM = 2          # Translation.gpa lies outside RAM: a device or a hole
    XLAT_EPT_VIOLATION = 3   # Translation.qualification, Translation.gpa; also a nested page fault of NPT
    XLAT_EPT_MISCONFIG = 4   # Translation.gpa
    XLAT_GP = 5              # mmu_load_pdptes only: reserved bit in a PDPTE

cdef enum XlatSource:        # where a translation came from
    FROM_NOWHERE = 0         # paging off, not nested: nothing was looked up
    FROM_L1 = 1
    FROM_L2 = 2
    FROM_WALK = 3

cdef enum Drop:              # what the engine must drop of its own translations, of the current context
    DROP_NOTHING = 0
    DROP_PAGE = 1            # the 4 KB page of the address
    DROP_ALL = 2             # more than that page

cdef enum:                   # engine's rights of a page
    PROT_R = 1
    PROT_W = 2
    PROT_X = 4

cdef enum Side:
    SIDE_I = 0
    SIDE_D = 1

cdef enum NestedKind:        # format of a nested space's tables
    NESTED_EPT = 0
    NESTED_NPT = 1           # AMD: ordinary long-mode entries (APM 2 15.25)

cdef enum RefKind:           # why a nested entry was read
    NESTED_FOR_TABLE = 0     # to reach a guest paging structure
    NESTED_FOR_PAGE = 1      # to reach the final page

cdef enum FlushKind:
    FLUSH_CR3 = 0
    FLUSH_INVLPG = 1
    FLUSH_INVPCID = 2
    FLUSH_MODE = 3           # CR0 or CR4 write
    FLUSH_ASID = 4
    FLUSH_ALL = 5
    FLUSH_INVEPT = 6
    FLUSH_INVVPID = 7
    FLUSH_FAULT = 8          # a #PF or EPT violation that dropped entries of its page
    N_FLUSH_KINDS = 9

ctypedef struct MmuConfig:
    ArrayConfig array[N_ARRAYS]  # by TlbArrayId
    uint64_t seed        # of the RANDOM arrays
    uint8_t large_whole  # a first level without an array for 2M (1G) pages: 1 = holds them whole in its
                         # 4K array, 0 = fractures them into the next smaller size it has
    uint8_t l2_2m        # ARRAY_L2 also holds 2M pages
    uint8_t l2_split     # the second level is of D alone, but for ARRAY_L2_CODE
    uint8_t l2_code_2m   # ARRAY_L2_CODE also holds 2M pages
    uint8_t page1g       # guests have 1 GB pages
    uint8_t ept_1g       # EPT has 1 GB pages
    uint8_t ept_exec_only  # EPT has execute-only pages
    uint8_t pad

ctypedef struct MmuCounters:
    uint64_t l1_misses[2]        # by Side.  l1_misses[0] + l1_misses[1] = l2_hits + walks[0] + walks[1]
    uint64_t l2_hits
    uint64_t walks[2]            # by Side
    uint64_t rewalks             # walks after a hit without the needed right or dirty flag
    uint64_t page_faults
    uint64_t ept_violations
    uint64_t ept_misconfigs
    uint64_t no_ram              # walks that ended where there is no RAM
    uint64_t guest_refs[5]       # entries read, by level 1..4
    uint64_t nested_refs[2][5]   # EPT entries read, by RefKind and level
    uint64_t table_writes        # accessed and dirty updates of guest entries
    uint64_t nested_writes       # the same of EPT entries
    uint64_t pdpte_loads         # loads of the four PDPTE registers
    uint64_t flushes[N_FLUSH_KINDS]
    uint64_t entries_flushed     # final translations that flushes dropped

ctypedef struct Mmu:
    MmuConfig config
    MmuCounters count
    uint8_t route[4][N_SIZES]    # [SIDE_I, SIDE_D, second level of I, of D][size]: array, or NO_ARRAY
    Tlb tlb

cdef enum:
    ROUTE_L2 = 2         # + Side
    NO_ARRAY = 0xff

ctypedef struct PagingContext:   # all a translation depends on besides memory and the caches
    uint64_t cr0
    uint64_t cr3
    uint64_t cr4
    uint64_t efer
    uint64_t pdpte[4]    # PAE only: mmu_load_pdptes
    uint64_t eptp        # EPT pointer as in the VMCS, or N_CR3 with EPTP_AD (NPT always has these flags); 0 = not nested
    Window window        # not nested: where guest-physical memory lies.  Nested: only a20_mask counts
    uint16_t asid        # VPID; 0 = root or native
    uint16_t pcid        # CR3[11:0] with CR4.PCIDE, otherwise 0
    uint8_t maxphyaddr   # 32..52
    uint8_t mode         # PagingMode of cr0, cr4, efer: paging_mode()
    uint8_t nested_kind  # NestedKind, when eptp is not 0
    uint8_t nested_nxe   # NPT: the host's EFER.NXE

ctypedef struct Evicted:         # a first-level entry that a fill replaced
    uint64_t gva         # first address, bits 63:48 zero
    uint16_t asid
    uint16_t pcid        # or TAG_GLOBAL, TAG_UNPAGED
    uint8_t shift        # 12, 21 or 30
    uint8_t side         # Side of the array that held it
    uint8_t pad[2]

ctypedef struct Translation:
    hpa_t hpa            # of the 4 KB page of the address
    gpa_t gpa            # of the same; for an EPT exit or NO_RAM the exact guest-physical address
    uint64_t qualification   # EPT violation: SDM 3C table 27-7 without bit 12 (NMI unblocking).  Nested page fault: EXITINFO1
    uint32_t pfec        # page fault: error code
    uint8_t prot         # PROT_*: allowed now to this privilege; W only when no dirty flag is left to set
    uint8_t shift        # size of the TLB entry: 12, 21, 30
    uint8_t source       # XlatSource
    uint8_t drop         # Drop: set on a page fault or EPT violation that dropped entries
    uint32_t n_evicted   # 0 or 1
    uint8_t fresh        # 1: the first level held nothing at the address
    uint8_t once         # 1: for this one access only; set by the engine's translate()
    uint8_t pad[2]
    Evicted evicted[2]

cdef inline int paging_mode(uint64_t cr0, uint64_t cr4, uint64_t efer) noexcept nogil:
    """PagingMode that CR0.PG, CR4.PAE and EFER.LME select (SDM 3A 4.1.1)."""
    if not cr0 & CR0_PG:
        return PAGING_NONE
    if not cr4 & CR4_PAE:
        return PAGING_32
    return PAGING_LONG if efer & EFER_LME else PAGING_PAE
