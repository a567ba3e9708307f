# SPDX-License-Identifier: GPL-2.0-or-later
"""VT-x without EPT: page faults, devices, and guest states that non-root operation cannot run.

Before unrestricted guests a processor in non-root operation is in protected mode with paging (SDM 3C 23.8), and
its segments pass the entry checks.  A guest in real-address mode, or on the way out of it, does neither: the
monitor interprets it, instruction by instruction, until it can be entered again, as KVM does on such parts.
"""
from libc.stdint cimport uint64_t
from pyx86v.arch.types cimport REFLECT, RESUME, STOP
from pyx86v.cost.ledger cimport EMUL_INSTRUCTION, EMULATION, charge, charge_units
from pyx86v.mmu.shadow cimport SHADOW_FAULT, SHADOW_NO_RAM, SHADOW_ONCE
from pyx86v.vmm.clock cimport guest_time
from pyx86v.vmm.emulate cimport *
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.shadow cimport shadow_resolve
from pyx86v.vmm.vmx.handlers cimport *
from pyx86v.vmm.vmx.native cimport fill_native_table
from pyx86v.vmm.vmx.path cimport enter

# Page faults -----------------------------------------------------------------------------------

cdef inline int exit_shadow_fault(Guest* g, Event* e) noexcept nogil:
    """Each page fault exits (the exception bitmap has #PF).  The monitor walks the guest's tables: its own entry
    was missing, or a table is written, or the fault is the guest's, which gets it injected.  shadow_resolve books that work."""
    cdef uint64_t began = busy_units(g.ledger), address = e.address
    cdef uint32_t error = e.error
    cdef int status = shadow_resolve(g, e), verdict = RESUME
    if status == SHADOW_NO_RAM or g.vcpu.interpreting or vmx_of(g).root:
        return RESUME                        # the access to the device exits; an interpreter takes no exits, nor does the monitor
    e.error, error = error, e.error          # the processor's own error code is recorded
    vm_exit(g, e, REASON_EXCEPTION, address)
    g.vcpu.exit_started = began
    monitor_reads(g)
    vmread(g, EXIT_INTR_INFO)
    vmread(g, EXIT_INTR_ERROR_CODE)
    vmread(g, EXIT_QUALIFICATION)
    e.error = error
    if status == SHADOW_FAULT:
        verdict = inject_fault(g, e)
    elif status == SHADOW_ONCE:              # the monitor has carried the store out: it moves RIP
        vmread(g, EXIT_INSTR_LENGTH)
        vmread(g, GUEST_RIP)
        vmwrite(g, GUEST_RIP, g.cpu.get(g.cpu, REG_RIP))
    return enter(g, verdict)

cdef inline int exit_page_fault(Guest* g, Event* e) noexcept nogil:
    """Reason 0: a device's page, which no shadow entry maps; any other exception is the guest's."""
    if e.kind == EV_MMIO_READ or e.kind == EV_MMIO_WRITE:
        vmread(g, EXIT_QUALIFICATION)
        return emulate_mmio(g, e)
    return exit_exception(g, e)

# Interpretation --------------------------------------------------------------------------------

cdef inline void load_guest(Guest* g) noexcept nogil:
    """Bring the VMCS to where the interpreter has brought the guest."""
    write_cr0(g, g.cpu.get(g.cpu, REG_CR0))
    write_cr4(g)
    follow_efer(g)
    vmwrite(g, TSC_OFFSET, g.vcpu.tsc_offset)

cdef inline int interpret(Guest* g, int instructions) noexcept nogil:
    """A block is about to run under the interpreter; leave it when the guest can be entered.  0, or -1: the entry failed."""
    if enterable(g):
        g.vcpu.interpreting = False
        load_guest(g)
        return vm_entry(g)
    charge_units(g.ledger, EMULATION, <uint64_t>instructions * g.ledger.price[<int>EMUL_INSTRUCTION])
    return 0

cdef inline int interpreted_interrupt(Guest* g, Event* e) noexcept nogil:
    """The monitor looks at the interrupt controller itself."""
    charge(g.ledger, EMULATION, EMUL_INTERRUPT)
    g.vcpu.line_seen = False
    if not e.open:
        return RESUME
    e.vector = platform_ack(g.platform, guest_time(g))
    e.delivery = DELIVER_EXTERNAL
    return REFLECT

cdef inline int interpreted_mmio(Guest* g, Event* e) noexcept nogil:
    charge(g.ledger, DEVICE, MMIO_WRITE if e.kind == EV_MMIO_WRITE else MMIO_READ)
    return g.mmio(g, e)

cdef inline int interpreted_task_switch(Guest* g, Event* e) noexcept nogil:
    return g.switch_task(g, e)

cdef inline void fill_interpreter_table(handler_fn* t) noexcept:
    """What an event does under the interpreter: the same, and no exit."""
    fill_native_table(t)
    t[EV_INTERRUPT] = interpreted_interrupt
    t[EV_TRIPLE_FAULT] = exit_triple_fault
    t[EV_CPUID] = emul_cpuid
    t[EV_RDTSC] = emul_rdtsc
    t[EV_INVPCID] = emul_invpcid
    t[EV_CLTS] = emul_clts
    t[EV_MMIO_READ] = interpreted_mmio
    t[EV_MMIO_WRITE] = interpreted_mmio
    t[EV_SHADOW_FAULT] = exit_shadow_fault
    t[EV_TASK_SWITCH] = interpreted_task_switch
