# SPDX-License-Identifier: GPL-2.0-or-later
"""SvmBench: the style svm+npt around a processor that only holds registers.  Not part of the product's API."""
from libc.stdint cimport uint8_t, uint64_t
from pyx86v.mmu.memory cimport ram_pointer
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.svm.checks cimport check_vmrun
from pyx86v.vmm.svm.codes cimport exit_kind
from pyx86v.vmm.svm.entry cimport vmrun
from pyx86v.vmm.svm.intercept cimport msr_exits
from pyx86v.vmm.svm.vmcb cimport *
from pyx86v.vmm.testing cimport StyleBench
from pyx86v.vmm.svm.svm_npt import style_capsule


cdef class SvmBench(StyleBench):
    """StyleBench, and the VMCB as bytes: the test has the manual's table of offsets."""
    cdef Svm* x

    def __cinit__(self, *args, **options):
        self.x = <Svm*>self.state_bytes

    def capsule(self):
        return style_capsule()

    def peek(self, int offset, int size):
        """A field of the VMCB."""
        cdef const uint8_t* at = ram_pointer(&self.ram, self.x.vmcb + <uint64_t>offset, <uint64_t>size)
        return int.from_bytes((<char*>at)[:size], "little")

    def poke(self, int offset, int size, value):
        """Write a field of the VMCB, without a word to the clean bits."""
        cdef uint8_t* at = ram_pointer(&self.ram, self.x.vmcb + <uint64_t>offset, <uint64_t>size)
        for i, byte in enumerate(int(value).to_bytes(size, "little")):
            at[<int>i] = byte

    def check(self):
        """The first VMRUN rule that the VMCB breaks as it is."""
        return check_vmrun(vmcb_of(&self.g), self.x.maxphyaddr)

    def enter(self):
        """VMRUN: 0, or -1."""
        return vmrun(&self.g)

    def msr_exits(self, msr, bint write):
        return bool(msr_exits(&self.g, vmcb_of(&self.g), msr, write))

    def kind(self, int code):
        """The number under which exits with this code are counted."""
        return exit_kind(code)

    @property
    def state(self):
        return self.base_state() | {
            "host": bool(self.x.host), "rule": self.x.failed_rule, "vmcb": self.x.vmcb, "monitor": self.x.monitor,
            "next_table": self.x.npt.next, "monitor_end": self.x.monitor_end, "root": self.x.npt.root, "bytes": sizeof(Svm)}
