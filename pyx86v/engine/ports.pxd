# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports and memory-mapped devices: IN, OUT and MMIO in the middle of a block, the style's handler, and the devices behind it."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from pyx86v.arch.decode cimport Insn
from pyx86v.arch.types cimport *
from pyx86v.devices.platform cimport platform_in, platform_mmio_read, platform_mmio_write, platform_out
from pyx86v.engine.access cimport *
from pyx86v.engine.blocks cimport *
from pyx86v.engine.breakpoints cimport resume_clear
from pyx86v.engine.budget cimport *
from pyx86v.engine.deliver cimport *
from pyx86v.engine.fill cimport fetch_privilege, page_is_held, translate
from pyx86v.engine.intercept cimport *
from pyx86v.engine.layout cimport *
from pyx86v.engine.limits cimport *
from pyx86v.engine.operands cimport fetch_insn, string_operand
from pyx86v.engine.price cimport stretch_stays
from pyx86v.engine.ring cimport Peek, ring_back, ring_go_on, ring_peek, to_virtual
from pyx86v.engine.state cimport *
from pyx86v.engine.uc cimport *
from pyx86v.mmu.mmu cimport Translation
from pyx86v.vmm.clock cimport MMIO_CYCLES, PORT_CYCLES, time_passes, guest_time
from pyx86v.vmm.guest cimport *
from pyx86v.vmm.probe cimport probe_look

cdef inline uint64_t advance(Engine* e, uint64_t rip, int length) noexcept nogil:
    cdef int bits = env_bits(e.env)
    rip += <uint64_t>length
    if bits == 64:
        return rip
    return rip & 0xffffffffULL

cdef inline int device_in(Guest* g, Event* ev) noexcept nogil:
    cdef Engine* e = <Engine*>g.owner
    time_passes(g, PORT_CYCLES)
    if e.py_ports[ev.port >> 3] & (1 << (ev.port & 7)):
        return RESUME if e.py_port(e.owner, ev) == 0 else STOP
    ev.value = platform_in(g.platform, g.sinks, ev.port, ev.size, guest_time(g))
    return RESUME

cdef inline int device_out(Guest* g, Event* ev) noexcept nogil:
    cdef Engine* e = <Engine*>g.owner
    cdef int lines = g.platform.parallel.data
    time_passes(g, PORT_CYCLES)
    if e.py_ports[ev.port >> 3] & (1 << (ev.port & 7)):
        return RESUME if e.py_port(e.owner, ev) == 0 else STOP
    platform_out(g.platform, g.sinks, ev.port, ev.size, <uint32_t>ev.value, guest_time(g))
    probe_look(g, lines)
    return RESUME

cdef inline int device_mmio(Guest* g, Event* ev) noexcept nogil:
    cdef Engine* e = <Engine*>g.owner
    time_passes(g, MMIO_CYCLES)
    if ev.kind == EV_MMIO_WRITE:
        if platform_mmio_write(g.platform, ev.gpa, ev.size, ev.value, guest_time(g)):
            return RESUME
    elif platform_mmio_read(g.platform, ev.gpa, ev.size, &ev.value, guest_time(g)):
        return RESUME
    ev.value = NEVER if ev.kind == EV_MMIO_READ else ev.value
    if e.py_mmio is not NULL:
        return RESUME if e.py_mmio(e.owner, ev) == 0 else STOP
    return RESUME

cdef inline void fetch_on(Engine* e, uint64_t rip) noexcept nogil:
    """The instruction at `rip` is done and its block goes on.  Where TLBs are not tagged an exit has just emptied them:
    the processor fetches the next instruction through a walk, as if a block started there."""
    cdef BlockRecord* r = e.current[0]
    cdef Translation t
    cdef int n = mark_at(e, r, rip)
    if e.guest.cpu_vpid or e.stopping or n < 0 or n >= r.count:
        return
    rip = linear_rip(e, r.eip + e.marks[r.first_mark + n].end)
    if not page_is_held(e, rip):
        translate(e, rip, 1, ACCESS_FETCH, fetch_privilege(e), &t)

cdef inline void port_access(Engine* e, Event* ev) noexcept nogil:
    """IN, OUT, INS, OUTS in the middle of a block: the engine goes on behind them by itself.

    The ledger is put to the exact instant of the access, which devices and monitors see.
    """
    cdef uint64_t rip = env_u64(e.env, ENV_EIP)[0]
    cdef Insn d
    cdef Fault f
    cdef int verdict
    f.vector = -1
    f.stop = False
    ev.rip = rip
    to_virtual(e)
    give_back(e, rip)
    if not io_allowed(e, ev.port, ev.size, &f):
        take_again(e, rip)
        raise_exception_err_x86_64(e.env, f.vector, <int>f.error)
    fetch_insn(e, rip, &d)
    ev.length = d.length
    ev.rep = d.rep
    if d.map == 0 and 0x6c <= d.opcode <= 0x6f:
        string_operand(e, &d, ev)
    verdict = e.style.handlers[ev.kind](&e.guest, ev)
    if e.has_exit_hook and e.py_exit(e.owner, ev) != 0:
        stop(e, STOP_SIGNAL, 0)
    if verdict == STOP:
        e.stopping = True
    fetch_on(e, rip)
    take_again(e, rip)
    ring_go_on(e)
    after_device(e)

cdef inline void end_here(Engine* e, const Event* ev) noexcept nogil:
    """The guest ended itself by a port: not an instruction further.  Never returns."""
    cdef uint64_t next = advance(e, ev.rip, ev.length)
    stretch_stays(e)
    give_back(e, next)
    resume_clear(e)
    e.current[0] = &e.closed_end
    leave_block(e, next)

cdef inline void read_done(Engine* e, const Event* ev) noexcept nogil:
    """What an IN does with its value: AL, AX or EAX, whose upper half is cleared as by any 32-bit result."""
    cdef uint64_t* rax = env_u64(e.env, ENV_REGS)
    cdef uint64_t mask = 0xff if ev.size == 1 else 0xffff
    rax[0] = ev.value & 0xffffffffULL if ev.size == 4 else (rax[0] & ~mask) | (ev.value & mask)

cdef inline uint32_t on_in(uc_engine* uc, uint32_t port, int size, void* user) noexcept nogil:
    cdef Engine* e = <Engine*>user
    cdef Event ev
    event_init(&ev, EV_PORT_IN)
    ev.port = <uint16_t>port
    ev.size = size
    port_access(e, &ev)
    if e.stopping and not ev.string:
        read_done(e, &ev)
        end_here(e, &ev)
    return <uint32_t>ev.value

cdef inline void on_out(uc_engine* uc, uint32_t port, int size, uint32_t value, void* user) noexcept nogil:
    cdef Engine* e = <Engine*>user
    cdef Event ev
    event_init(&ev, EV_PORT_OUT)
    ev.port = <uint16_t>port
    ev.size = size
    ev.value = value
    port_access(e, &ev)
    if e.stopping and not ev.string:
        end_here(e, &ev)

cdef inline void mmio_access(Engine* e, Event* ev) noexcept nogil:
    cdef uint64_t rip = e.mmio_rip
    cdef Peek k
    ev.rip = rip
    ev.address = e.mmio_gva
    give_back(e, rip)
    ring_peek(e, &k)
    if e.style.handlers[ev.kind](&e.guest, ev) == STOP:
        e.stopping = True
    if e.has_exit_hook and e.py_exit(e.owner, ev) != 0:
        stop(e, STOP_SIGNAL, 0)
    if not e.current[0].translated:
        fetch_on(e, rip)
    take_again(e, rip)
    ring_back(e, &k)
    after_device(e)

cdef inline uint64_t on_mmio_read(uc_engine* uc, uint64_t offset, unsigned size, void* user) noexcept nogil:
    cdef Event ev
    event_init(&ev, EV_MMIO_READ)
    ev.gpa = offset
    ev.size = <int>size
    mmio_access(<Engine*>user, &ev)
    return ev.value

cdef inline void on_mmio_write(uc_engine* uc, uint64_t offset, unsigned size, uint64_t value, void* user) noexcept nogil:
    cdef Event ev
    event_init(&ev, EV_MMIO_WRITE)
    ev.gpa = offset
    ev.size = <int>size
    ev.value = value
    mmio_access(<Engine*>user, &ev)
