# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor's memory in the guest's address space: what translated code and the monitor tell each other.

   B                  translation cache, up to BT_CACHE_BYTES
   B + BT_DATA        cells, one page; each is 8 bytes, of which 32-bit code uses the lower 4
   B + BT_TABLE       table of targets, by the low 14 bits of the guest's instruction pointer: minus all of it, and behind
                      that where its translation lies (linear)

In 64-bit mode code reaches it by a sign-extended 32-bit displacement, otherwise through GS, which is flat and the monitor's then.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define PYX_BT_BASE_32 0xfc000000ULL
    #define PYX_BT_BASE_64 0xfffffffffc000000ULL
    """
    const uint64_t BT_BASE_32 "PYX_BT_BASE_32"
    const uint64_t BT_BASE_64 "PYX_BT_BASE_64"

cdef enum:
    BT_CACHE_BYTES = 0x1000000
    BT_DATA = 0x2000000
    BT_TARGETS = 0x4000      # entries of the table of targets: two words each.  So few that the engine's soft TLB holds its pages
    BT_TABLE = 0x2010000
    BT_DATA_BYTES = 0x50000  # from BT_DATA on

cdef enum:                   # offsets in the page of cells
    CELL_IF = 0x00           # FL_IF or 0: the guest's
    CELL_IOPL = 0x08         # FL_IOPL bits: the guest's
    CELL_CR0 = 0x10          # what MOV from CR gives
    CELL_CR2 = 0x18
    CELL_CR3 = 0x20
    CELL_CR4 = 0x28
    CELL_CR8 = 0x30          # task priority, 0 to 15; written by translated MOV to CR8
    CELL_CR8_HOLD = 0x38     # not 0 (32 bits): the monitor wants to see every MOV to CR8
    CELL_GS_OTHER = 0x40     # what SWAPGS exchanges the GS base with; written by translated SWAPGS
    CELL_TARGET = 0x48       # guest instruction pointer, at BT_INT_LOOKUP
    CELL_JUMP = 0x50         # linear address in the translation cache
    CELL_RCX = 0x58          # guest's registers while expansions use them
    CELL_RDX = 0x60
    CELL_RSP = 0x68
    CELL_WORK = 0x70         # 16 bytes of scratch; the upper 8 stay 0
    CELL_SMALL = 0x80        # scratch
    CELL_IMAGE = 0x90        # POPF's image; PUSHF's lies below it
    CELL_INDEX = 0xa0        # 4 times the target, cut to 16 bits
    CELL_SS = 0xa8           # the guest's SS selector, whose real one says ring 1
    CELL_ODD = 0x100         # 256 bytes: is this a byte 1 of an EFLAGS image that POPF calls out for?
    CELL_ODD_SMAP = 0x200    # 256 bytes: byte 2, with SMAP
    CELL_ODD_PLAIN = 0x300   # 256 bytes: byte 2, without

cdef inline uint64_t bt_empty_key(uint32_t index) noexcept nogil:
    """A key for an unused place of the table: no target has both this key and this place.  Cut it to 4 bytes outside 64-bit mode."""
    return 0 - <uint64_t>(index ^ 1)

cdef inline void bt_cells_init(uint8_t* page) noexcept nogil:
    """Fill the tables in the page of cells, which is zero otherwise (SDM 3A 2.3: TF 8, NT 14; AC 18, VIF 19, VIP 20)."""
    cdef int i
    for i in range(256):
        page[CELL_ODD + i] = i & 0x41
        page[CELL_ODD_SMAP + i] = i & 0x1c
        page[CELL_ODD_PLAIN + i] = i & 0x18
