# SPDX-License-Identifier: GPL-2.0-or-later
"""Paging-structure entries: bit positions, reserved bits and page frames of the five formats.

Guest formats: 32-bit with PSE-36 (SDM 3A 4.3), PAE (4.4), 4-level (4.5).
EPT: SDM 3C 28.3 (section numbers of the 2021 edition; "EPT translation mechanism").
A reserved-bit mask depends on the level, on leaf or table, and on MAXPHYADDR ("M" in the manual).
"""
from libc.stdint cimport uint64_t

cdef enum:               # guest entries, all formats
    PTE_P = 0x1
    PTE_W = 0x2
    PTE_U = 0x4
    PTE_A = 0x20
    PTE_D = 0x40
    PTE_PS = 0x80        # in a PDE or PDPTE: maps a page
    PTE_G = 0x100

cdef enum:               # EPT entries
    EPT_R = 0x1
    EPT_W = 0x2
    EPT_X = 0x4
    EPT_RWX = 0x7
    EPT_PS = 0x80
    EPT_A = 0x100
    EPT_D = 0x200
    EPTP_AD = 0x40       # in the EPT pointer: accessed and dirty flags are on

cdef enum PagingMode:
    PAGING_NONE = 0
    PAGING_32 = 1
    PAGING_PAE = 2
    PAGING_LONG = 3      # 4-level

cdef extern from *:
    """
    #define PYX_PTE_NX 0x8000000000000000ULL
    #define PYX_VA_MASK 0x0000ffffffffffffULL
    #define PYX_FRAME_MASK 0x000ffffffffff000ULL
    """
    const uint64_t PTE_NX "PYX_PTE_NX"
    const uint64_t VA_MASK "PYX_VA_MASK"         # the 48 translated bits of a canonical address
    const uint64_t FRAME_MASK "PYX_FRAME_MASK"   # bits 51:12, the widest address an entry can hold

cdef inline uint64_t above(int maxphyaddr) noexcept nogil:
    """Bits 63:M."""
    return ~<uint64_t>0 << maxphyaddr

cdef inline uint64_t reserved_32(bint leaf, int level, int maxphyaddr) noexcept nogil:
    """32-bit paging: only a 4 MB PDE has reserved bits, 21:(M-19) with M at most 40 (SDM table 4-4, PSE-36)."""
    cdef int m = maxphyaddr if maxphyaddr < 40 else 40
    if level != 2 or not leaf:
        return 0
    return 0x3fe000 & (~<uint64_t>0 << (m - 19))

cdef inline uint64_t frame_4m(uint64_t pde) noexcept nogil:
    """Address of a 4 MB page: bits 31:22 in place, bits 39:32 from bits 20:13."""
    return (pde & 0xffc00000ULL) | ((pde >> 13 & 0xff) << 32)

cdef inline uint64_t reserved_pae(bint leaf, int level, int maxphyaddr, bint nxe) noexcept nogil:
    """PAE PDE and PTE: bits 62:M, bit 63 without NXE, 20:13 of a 2 MB page (SDM tables 4-9 to 4-11)."""
    cdef uint64_t mask = above(maxphyaddr)
    if nxe:
        mask &= ~PTE_NX
    if level == 2 and leaf:
        mask |= 0x1fe000
    return mask

cdef inline uint64_t reserved_pdpte(int maxphyaddr) noexcept nogil:
    """PAE PDPTE: bits 2:1, 8:5 and 63:M; checked when CR3 is loaded (SDM 4.4.1, table 4-8)."""
    return above(maxphyaddr) | 0x1e6

cdef inline uint64_t reserved_long(bint leaf, int level, int maxphyaddr, bint nxe, bint page1g) noexcept nogil:
    """4-level entries: bits 51:M, bit 63 without NXE, bit 7 of a PML4E, the low address bits of a large page
    (SDM tables 4-15 to 4-20).  Bit 7 of a PDPTE is reserved where the part has no 1 GB pages."""
    cdef uint64_t mask = above(maxphyaddr) & FRAME_MASK
    if not nxe:
        mask |= PTE_NX
    if level == 4:
        mask |= PTE_PS
    elif level == 3 and leaf:
        mask |= 0x3fffe000ULL if page1g else <uint64_t>PTE_PS
    elif level == 2 and leaf:
        mask |= 0x1fe000
    return mask

cdef inline uint64_t reserved_ept(bint leaf, int level, int maxphyaddr, bint page1g) noexcept nogil:
    """EPT entries: bits 51:M; 7:3 of a PML4E, 6:3 of a table pointer, the low address bits of a large page
    (SDM 3C tables 28-1 to 28-6)."""
    cdef uint64_t mask = above(maxphyaddr) & FRAME_MASK
    if level == 4:
        return mask | 0xf8
    if not leaf:
        return mask | 0x78
    if level == 3:
        return mask | (0x3ffff000ULL if page1g else <uint64_t>EPT_PS)
    if level == 2:
        return mask | 0x1ff000
    return mask

cdef inline bint ept_illegal(uint64_t e, bint leaf, bint exec_only) noexcept nogil:
    """A present entry that is misconfigured whatever its level (SDM 3C 28.3.3.1): write without read,
    execute-only on a part without it, memory type 2, 3 or 7 of a leaf."""
    cdef uint64_t rwx = e & EPT_RWX
    cdef uint64_t kind = e >> 3 & 7
    if rwx == EPT_W or rwx == (EPT_W | EPT_X) or (rwx == EPT_X and not exec_only):
        return True
    return leaf and (kind == 2 or kind == 3 or kind == 7)
