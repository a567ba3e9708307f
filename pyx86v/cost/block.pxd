# SPDX-License-Identifier: GPL-2.0-or-later
"""Block decoder: where the instructions of a block end and what each one costs.

The model is on purpose a simple one: every instruction has the price of its class, with surcharges for an
explicit memory operand read or written and for LOCK; a block costs the sum.  So the cost of some code does not depend
on where the engine cuts it into blocks, and a part of a block costs what its instructions cost.  What is wrong
on purpose: no ports, no dependencies, no decoder limits, no mispredicted branches, no caches.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx86v.cost.form cimport FormTables

cdef enum:
    BLOCK_MAX_INSNS = 512     # the engine's own limits
    BLOCK_MAX_BYTES = 8192
    MAX_CLASSES = 128
    FACTS = 8192              # slots of a decoder's table of known forms, a power of two

cdef enum:                    # bits of InsnMark.flags
    MARK_CT = 1               # control transfer, taken or not: what follows was not entered merely because a block ended
    MARK_IO = 2               # IN, OUT, INS, OUTS
    MARK_REP = 4              # string instruction with REP: one execution is one element
    MARK_PLAIN = 16           # the block model may price it (classes.WITHOUT_MODEL)
    MARK_ENDS = 32            # the engine always ends a block behind it, though it is no control transfer
    MARK_SENSITIVE = 8        # a shift; bits 15:8: the number of the sensitive instruction (arch/sensitive.pxd), 0 = innocuous

ctypedef struct InsnMark:
    uint16_t end              # bytes from the block's start to the end of this instruction
    uint16_t flags            # MARK_*
    uint32_t units            # 1/64 cycle, from the block's start to the end of this instruction; cannot overflow (profile.py)

ctypedef struct InsnInfo:
    uint8_t length            # bytes
    uint8_t insn_class        # number in classes.CLASSES
    uint16_t flags            # MARK_*
    uint32_t id               # capstone's X86_INS_*, 0 if capstone does not know the bytes
    uint32_t units            # 1/64 cycle

ctypedef struct Fact:         # what is known of one form
    uint32_t key              # 0 = empty
    uint32_t units
    uint16_t flags
    uint8_t insn_class

ctypedef struct Decoder:      # one per processor profile and thread; holds no state of a machine, only what is known of forms
    size_t handle[3]          # capstone, for 16, 32 and 64 bits
    void* insn                # cs_insn, allocated once
    uint32_t price[MAX_CLASSES]   # units by class
    FormTables forms
    Fact facts[FACTS]
    Fact vex                  # of the last VEX form

cdef Decoder* decoder_new(const uint32_t* units) noexcept nogil
cdef void decoder_free(Decoder* d) noexcept nogil
cdef list decoder_forms(const Decoder* d)
cdef int block_decode(Decoder* d, const uint8_t* code, uint32_t size, uint64_t pc, int bits,
                      InsnMark* marks, int max_marks) noexcept nogil
cdef int plain_decode(Decoder* d, const uint8_t* code, uint32_t size, int bits, InsnMark* marks, int max_marks) noexcept nogil
cdef int insn_decode(Decoder* d, const uint8_t* code, uint32_t avail, uint64_t pc, int bits, InsnInfo* out) noexcept nogil
