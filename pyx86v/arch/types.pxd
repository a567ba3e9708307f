# SPDX-License-Identifier: GPL-2.0-or-later
"""Address and frame types.  A number without one of these names is a bug.

A gva_t goes through the guest's page tables, a gpa_t through the world's
window or EPT, and only an hpa_t may index host memory (mmu/memory.pxd).
"""
from libc.stdint cimport uint64_t

ctypedef uint64_t gva_t  # guest virtual: the manual's linear address, segmentation already applied
ctypedef uint64_t gpa_t  # guest physical: what the guest's page-table entries hold
ctypedef uint64_t hpa_t  # host physical: an offset into the machine's RAM

cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    PAGE_MASK = 4095     # the offset within a page

cdef enum Access:        # the engine's own numbering of a memory access
    ACCESS_READ = 0
    ACCESS_WRITE = 1
    ACCESS_FETCH = 2

cdef enum Privilege:     # who accesses, for the U/S, SMEP and SMAP rules (SDM 3A 4.6)
    SUPERVISOR_SMAP = 0  # supervisor, SMAP enforced
    USER = 1             # CPL 3
    SUPERVISOR = 2       # supervisor, SMAP off or EFLAGS.AC = 1

cdef enum Verdict:       # the closed list of what a handler may answer
    RESUME = 0           # done; the guest goes on
    REFLECT = 1          # give the event to the guest unchanged
    STOP = 2             # end the run; the reason is in the vCPU
