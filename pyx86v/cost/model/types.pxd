# SPDX-License-Identifier: GPL-2.0-or-later
"""What the block model knows of a processor and of a block: plain structs, sizes fixed, nothing allocated per block.

Times are cycles; a price is units of 1/64 cycle.  A set of ports is a mask, bit p for port p.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_INSNS = 512            # of a block, the engine's own limit
    MAX_UOPS = 4096
    MAX_INSN_UOPS = 64         # of one instruction: microcode beyond it is in `serial`
    MAX_PORTS = 16
    MAX_KINDS = 12             # different sets of ports in a group
    MAX_GROUPS = 256
    UNITS = 64

cdef enum:                     # what holds a value that an instruction may wait for
    CELL_VECTOR = 16           # 0 to 15 are the general registers
    CELL_CARRY = 32
    CELL_FLAGS = 33            # all but carry
    CELL_MMX = 34
    CELL_X87 = 42
    CELL_OTHER = 43
    N_CELLS = 44
    NO_CELL = 255
    CELL_RSP = 4
    CELL_RBP = 5
    CELL_RIP = 254             # as a base only

cdef enum:                     # what a micro-operation is
    UOP_COMPUTE = 0
    UOP_LOAD = 1
    UOP_ADDRESS = 2            # of a store
    UOP_DATA = 3

cdef enum:                     # what an instruction does to the value of a general register; addresses follow from it
    EVAL_UNKNOWN = 0
    EVAL_MOVE = 1
    EVAL_ADD = 2
    EVAL_SUB = 3
    EVAL_AND = 4
    EVAL_OR = 5
    EVAL_XOR = 6
    EVAL_SHL = 7
    EVAL_SHR = 8
    EVAL_SAR = 9
    EVAL_LEA = 10
    EVAL_INC = 11
    EVAL_DEC = 12
    EVAL_NEG = 13
    EVAL_NOT = 14
    EVAL_SIGN = 15             # MOVSX
    EVAL_MULTIPLY = 16
    EVAL_POP = 17
    EVAL_PUSH = 18
    EVAL_KEEP = 19             # CMOV: the old value will do

ctypedef struct Group:
    uint8_t kinds              # entries of ports and counts
    uint16_t ports[MAX_KINDS]
    uint8_t counts[MAX_KINDS]
    uint8_t fused              # fused micro-operations: of the register form,
    uint8_t loaded             # with a load,
    uint8_t rmw                # with a store
    uint8_t first              # only the first decoder takes it
    uint16_t latency           # cycles, from registers to result
    uint32_t busy              # units that the divider is taken
    uint32_t serial            # units that two of them cannot overlap

ctypedef struct Pipeline:      # the lines of [pipeline], in the order of PIPELINE in profile.py
    int32_t predecode_bytes
    int32_t predecode
    int32_t length_change
    int32_t instruction_queue
    int32_t decoders
    int32_t simple
    int32_t decode
    int32_t microcode
    int32_t microcode_switch
    int32_t fusible_last
    int32_t decode_queue
    int32_t loop_buffer
    int32_t issue
    int32_t reorder_buffer
    int32_t scheduler
    int32_t load_buffer
    int32_t store_buffer
    int32_t load
    int32_t load_chase
    int32_t load_vector
    int32_t forward
    int32_t forward_vector
    int32_t forward_fail
    int32_t move_elimination
    int32_t unlaminate_indexed
    int32_t stack_sync
    int32_t pop_first
    int32_t tlb_miss
    int32_t wide_access
    int32_t fuse_arithmetic

ctypedef struct Ports:         # the lines of [ports]
    uint16_t load
    uint16_t address
    uint16_t address_indexed
    uint16_t data
    uint16_t sync

ctypedef struct Uarch:
    Pipeline pipe
    Ports ports
    Group groups[MAX_GROUPS]

ctypedef struct Insn:
    uint8_t length             # bytes
    uint8_t opcode_at          # offset of the nominal opcode
    uint8_t length_change      # has a length-changing prefix
    uint8_t fusible            # kinds of branch that may fuse with it (FUSES_*, decode.pyx)
    uint8_t fused_branch       # a branch that has fused with the instruction before: decoded and issued with it
    uint8_t branch             # the kind of a conditional branch
    uint8_t complex            # only the first decoder takes it
    uint8_t group
    uint8_t uncovered          # of no group
    uint8_t fused              # fused micro-operations as decoded
    uint8_t slots              # the same as issued, after unlamination
    uint8_t eliminated         # a move that renaming does
    uint8_t loads
    uint8_t stores
    uint8_t load_latency
    uint8_t chase              # its load may have the short latency
    uint8_t vector
    uint8_t n_source
    uint8_t n_address
    uint8_t n_result
    uint8_t source[12]         # cells that the operation waits for
    uint8_t address[2]         # cells that the address needs
    uint8_t result[8]
    uint8_t base               # of the memory operand: a cell, CELL_RIP or NO_CELL
    uint8_t index
    uint8_t scale
    uint8_t size               # bytes read or written
    int64_t disp
    int8_t stack               # what PUSH, POP, CALL and RET add to RSP
    uint8_t names_rsp          # needs RSP itself, not through the stack engine
    uint8_t eval
    uint8_t width              # bytes of the operation
    uint8_t to                 # general register or NO_CELL (memory)
    uint8_t by                 # the same; NO_CELL with by_memory 0: immediate
    uint8_t to_memory
    uint8_t by_memory
    int64_t immediate
    uint16_t latency
    uint32_t busy
    uint32_t serial
    uint16_t first             # of its micro-operations
    uint16_t n_uops

ctypedef struct Uop:
    uint16_t ports
    uint8_t kind
    uint8_t slot               # which of the instruction's fused micro-operations it is issued with

ctypedef struct Block:
    int32_t n                  # instructions
    int32_t n_uops
    int32_t bytes
    int32_t uncovered
    Insn insns[MAX_INSNS]
    Uop uops[MAX_UOPS]
