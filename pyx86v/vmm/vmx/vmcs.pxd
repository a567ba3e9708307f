# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMCS and the instructions that manage it (SDM 3C chapters 24 and 30).

The processor keeps the current VMCS in itself; here it is a plain struct whose rows are
field groups and whose columns are field indexes, so an access by encoding is one load.
A style has one VMCS, in one region of the monitor's memory.
"""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.types cimport hpa_t
from pyx86v.vmm.nested_map cimport NestedMap
from pyx86v.vmm.vmx.controls cimport VmxCaps
from pyx86v.vmm.vmx.fields cimport *

cdef enum VmInstructionError:    # SDM 3C 30.4
    VMERR_NONE = 0
    VMERR_VMCALL_ROOT = 1
    VMERR_CLEAR_ADDRESS = 2
    VMERR_CLEAR_VMXON = 3
    VMERR_LAUNCH_NOT_CLEAR = 4
    VMERR_RESUME_NOT_LAUNCHED = 5
    VMERR_RESUME_AFTER_VMXOFF = 6
    VMERR_ENTRY_CONTROLS = 7
    VMERR_ENTRY_HOST = 8
    VMERR_PTRLD_ADDRESS = 9
    VMERR_PTRLD_VMXON = 10
    VMERR_PTRLD_REVISION = 11
    VMERR_UNSUPPORTED_FIELD = 12
    VMERR_READ_ONLY_FIELD = 13
    VMERR_VMXON_ROOT = 15
    VMERR_ENTRY_MOV_SS = 26

cdef enum LaunchState:
    LAUNCH_CLEAR = 0
    LAUNCHED = 1

cdef extern from *:
    """
    #define PYX_NO_VMCS 0xffffffffffffffffULL
    """
    const uint64_t NO_VMCS "PYX_NO_VMCS"     # the current-VMCS pointer when there is none, and the unused link pointer

ctypedef struct Vmcs:
    uint32_t revision
    int launch
    uint64_t field[N_FIELD_GROUPS][N_FIELD_INDEXES]

ctypedef struct Vmx:         # VMX operation on one logical processor, and the monitor's bookkeeping
    VmxCaps caps
    Vmcs vmcs
    hpa_t vmxon              # the VMXON region, or NO_VMCS: not in VMX operation
    hpa_t current            # the current VMCS, or NO_VMCS
    hpa_t monitor            # first byte of the monitor's memory
    NestedMap ept            # the tables in the rest of it
    bint dirty               # a control or guest field that entry checks look at was written since the last checks
    bint root                # the processor is in root operation: an exit without its entry yet
    int reason               # basic reason of the exit being handled
    int failed_rule          # the rule that the last failed entry broke
    uint64_t reads           # VMREADs and VMWRITEs by the monitor
    uint64_t writes

cdef inline uint64_t field_get(const Vmcs* v, uint32_t field) noexcept nogil:
    """A field that exists, without price or check."""
    return v.field[field_group(field)][field_index(field)]

cdef inline void field_set(Vmcs* v, uint32_t field, uint64_t value) noexcept nogil:
    v.field[field_group(field)][field_index(field)] = value & field_mask(field)

cdef inline int vmcs_read(const Vmcs* v, uint32_t field, uint64_t* out) noexcept nogil:
    """VMREAD of any encoding: 0, or the VM-instruction error."""
    if not field_exists(field):
        return VMERR_UNSUPPORTED_FIELD
    out[0] = field_get(v, field)
    if field & 1:
        out[0] >>= 32
    return VMERR_NONE

cdef inline int vmcs_write(Vmcs* v, const VmxCaps* c, uint32_t field, uint64_t value) noexcept nogil:
    """VMWRITE of any encoding: 0, or the VM-instruction error.  Read-only fields need IA32_VMX_MISC bit 29."""
    if not field_exists(field):
        return VMERR_UNSUPPORTED_FIELD
    if field_type(field) == TYPE_READ_ONLY and not c.misc >> 29 & 1:
        return VMERR_READ_ONLY_FIELD
    if field & 1:
        value = value << 32 | field_get(v, field) & 0xffffffffULL
    field_set(v, field, value)
    return VMERR_NONE

cdef inline bint region_legal(const VmxCaps* c, hpa_t address) noexcept nogil:
    """4-KByte aligned and within the physical-address width."""
    return not address & 0xfff and not address >> c.maxphyaddr

cdef inline int vmxon(Vmx* x, hpa_t region) noexcept nogil:
    """VMXON (SDM 3C 30.3): 0, or an error; -1 is VMfailInvalid.  CR0 and CR4 are the monitor's own and legal."""
    if x.vmxon != NO_VMCS:
        return VMERR_VMXON_ROOT
    if not x.caps.feature_control & 1 or not x.caps.feature_control & 4 or not region_legal(&x.caps, region):
        return -1
    x.vmxon = region
    x.current = NO_VMCS
    return VMERR_NONE

cdef inline int vmclear(Vmx* x, hpa_t address) noexcept nogil:
    """VMCLEAR: launch state clear; the current VMCS, if it is this one, is none."""
    if not region_legal(&x.caps, address):
        return VMERR_CLEAR_ADDRESS
    if address == x.vmxon:
        return VMERR_CLEAR_VMXON
    x.vmcs.launch = LAUNCH_CLEAR
    if x.current == address:
        x.current = NO_VMCS
    return VMERR_NONE

cdef inline int vmptrld(Vmx* x, hpa_t address) noexcept nogil:
    """VMPTRLD: the region becomes current if its revision identifier is the processor's."""
    if not region_legal(&x.caps, address):
        return VMERR_PTRLD_ADDRESS
    if address == x.vmxon:
        return VMERR_PTRLD_VMXON
    if x.vmcs.revision != <uint32_t>x.caps.basic & 0x7fffffff:
        return VMERR_PTRLD_REVISION
    x.current = address
    return VMERR_NONE
