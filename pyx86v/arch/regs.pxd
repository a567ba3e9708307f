# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers by name and number, and the bits in them (SDM 3A 2.3, 2.5, 2.2.1; SDM 4 for MSRs)."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:               # general registers in the processor's own encoding
    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7

cdef enum:               # segment registers in the processor's own encoding
    SEG_ES = 0
    SEG_CS = 1
    SEG_SS = 2
    SEG_DS = 3
    SEG_FS = 4
    SEG_GS = 5
    SEG_LDTR = 6
    SEG_TR = 7
    N_SEGS = 8

cdef enum:               # exception vectors (SDM 3A table 6-1)
    VEC_DE = 0
    VEC_DB = 1
    VEC_NMI = 2
    VEC_BP = 3
    VEC_OF = 4
    VEC_BR = 5
    VEC_UD = 6
    VEC_NM = 7
    VEC_DF = 8
    VEC_TS = 10
    VEC_NP = 11
    VEC_SS = 12
    VEC_GP = 13
    VEC_PF = 14
    VEC_MF = 16
    VEC_AC = 17
    VEC_MC = 18
    VEC_XM = 19

cdef enum:               # RFLAGS
    FL_CF = 0x1
    FL_FIXED = 0x2
    FL_TF = 0x100
    FL_IF = 0x200
    FL_DF = 0x400
    FL_IOPL = 0x3000
    FL_NT = 0x4000
    FL_RF = 0x10000
    FL_VM = 0x20000
    FL_AC = 0x40000
    FL_VIF = 0x80000
    FL_VIP = 0x100000
    FL_ID = 0x200000
    FL_ALL = 0x3f7fd7        # the others are reserved and 0

cdef enum:               # CR0; PG is bit 31 and therefore needs the unsigned constant below
    CR0_PE = 0x1
    CR0_MP = 0x2
    CR0_EM = 0x4
    CR0_TS = 0x8
    CR0_ET = 0x10
    CR0_NE = 0x20
    CR0_WP = 0x10000
    CR0_AM = 0x40000
    CR0_NW = 0x20000000
    CR0_CD = 0x40000000

cdef enum:               # CR4
    CR4_VME = 0x1
    CR4_PVI = 0x2
    CR4_TSD = 0x4
    CR4_DE = 0x8
    CR4_PSE = 0x10
    CR4_PAE = 0x20
    CR4_MCE = 0x40
    CR4_PGE = 0x80
    CR4_PCE = 0x100
    CR4_OSFXSR = 0x200
    CR4_OSXMMEXCPT = 0x400
    CR4_UMIP = 0x800
    CR4_VMXE = 0x2000
    CR4_FSGSBASE = 0x10000
    CR4_PCIDE = 0x20000
    CR4_OSXSAVE = 0x40000
    CR4_SMEP = 0x100000
    CR4_SMAP = 0x200000

cdef enum:               # IA32_EFER
    EFER_SCE = 0x1
    EFER_LME = 0x100
    EFER_LMA = 0x400
    EFER_NXE = 0x800
    EFER_SVME = 0x1000

cdef enum:               # page-fault error code (SDM 3A 4.7)
    PFEC_P = 1
    PFEC_W = 2
    PFEC_U = 4
    PFEC_RSVD = 8
    PFEC_I = 16

cdef extern from *:
    """
    #define PYX_CR0_PG 0x80000000ULL
    """
    const uint64_t CR0_PG "PYX_CR0_PG"

ctypedef struct Segment: # a segment register with its hidden part
    uint64_t base
    uint32_t limit       # bytes, granularity applied
    uint16_t selector
    uint16_t pad
    uint32_t flags       # second descriptor word's bits 8..23 in place: type 8-11, S 12, DPL 13-14, P 15, AVL 20, L 21, D/B 22, G 23
    uint32_t pad2
