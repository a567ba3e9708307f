# SPDX-License-Identifier: GPL-2.0-or-later
"""VmxBench: the style vmx+ept around a processor that only holds registers.  Not part of the product's API."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.decode cimport Insn, insn_decode, insn_displacement, insn_info
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.testing cimport StyleBench
from pyx86v.vmm.vmx.entry cimport *
from pyx86v.vmm.vmx.intercept cimport msr_exits
from pyx86v.vmm.vmx.vmx_ept import style_capsule

CAPABILITIES = ("feature_control basic pin proc secondary exit entry misc cr0_fixed0 cr0_fixed1 cr4_fixed0 cr4_fixed1 "
                "ept_vpid").split()


def instruction_information(bytes code, int bits, uint64_t rip=0):
    """(operand fields of the instruction information, displacement, Reg2) of the instruction's bytes."""
    cdef Insn d
    cdef bytes padded = code.ljust(32, b"\0")
    if not insn_decode(padded, bits, &d):
        raise ValueError(code.hex())
    return insn_info(&d), insn_displacement(&d, rip), d.reg


cdef class VmxBench(StyleBench):
    """StyleBench, and the VMCS."""
    cdef Vmx* x

    def __cinit__(self, *args, **options):
        self.x = <Vmx*>self.state_bytes

    def capsule(self):
        return style_capsule()

    def peek(self, uint32_t field):
        """A field as the next VMREAD would find it, free."""
        if not field_exists(field):
            raise LookupError(hex(field))
        if field_type(field) == TYPE_GUEST:
            return guest_field(&self.g, field) & field_mask(field)
        return field_get(&self.x.vmcs, field)

    def poke(self, uint32_t field, uint64_t value):
        """Set a field of the VMCS, bypassing the monitor and the processor."""
        field_set(&self.x.vmcs, field, value)

    def vmread(self, uint32_t field):
        """The monitor's VMREAD: (VM-instruction error, value)."""
        cdef uint64_t value = 0
        return vmread_any(&self.g, field, &value), value

    def vmwrite(self, uint32_t field, uint64_t value):
        """The monitor's VMWRITE: the VM-instruction error."""
        return vmwrite(&self.g, field, value)

    def check(self, fields=None, sync=True):
        """The first entry rule that is broken when `fields` {encoding: value} are as given."""
        if sync:
            sync_guest(&self.g)
        for field, value in (fields or {}).items():
            field_set(&self.x.vmcs, field, value)
        return entry_checks(&self.x.vmcs, &self.x.caps)

    def enter(self):
        """VM entry: 0, or -1."""
        return vm_entry(&self.g)

    def caps(self, **values):
        """Set capability MSRs; returns all of them."""
        for name, value in values.items():
            (&self.x.caps.feature_control)[<int>CAPABILITIES.index(name)] = value
        return {name: (&self.x.caps.feature_control)[<int>i] for i, name in enumerate(CAPABILITIES)}

    def vmxon(self, uint64_t region):
        return vmxon(self.x, region)

    def vmclear(self, uint64_t region):
        return vmclear(self.x, region)

    def vmptrld(self, uint64_t region, revision=None):
        if revision is not None:
            self.x.vmcs.revision = revision
        return vmptrld(self.x, region)

    def msr_exits(self, uint32_t msr, bint write):
        return bool(msr_exits(&self.g, msr, write))

    @property
    def state(self):
        return self.base_state() | {
            "root": bool(self.x.root), "launch": self.x.vmcs.launch, "rule": self.x.failed_rule, "dirty": bool(self.x.dirty),
            "reads": self.x.reads, "writes": self.x.writes, "monitor": self.x.monitor, "next_table": self.x.ept.next,
            "monitor_end": self.x.ept.end, "current": self.x.current, "vmxon": self.x.vmxon, "bytes": sizeof(Vmx)}
