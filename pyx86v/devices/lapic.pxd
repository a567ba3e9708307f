# SPDX-License-Identifier: GPL-2.0-or-later
"""The local APIC of one processor: xAPIC by memory, x2APIC by MSRs, its interrupts by priority, its timer.

Source: SDM 3A chapter 10, "Advanced Programmable Interrupt Controller"; section numbers below are those of that chapter.
The timer counts at the rate of the time stamp counter, which CPUID 15H gives as the crystal's.  It is run to the
present when somebody looks; `due` is absolute.  There is one processor, so an IPI reaches itself or nobody.
Not modelled: SMI, NMI, INIT and start-up IPIs (there is nobody to start), LINT0 but as ExtINT, sources of LINT1, of thermal
and of performance interrupts, focus processors, and registers moved to where the guest has RAM (RAM answers there).
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from pyx86v.devices.clock cimport NEVER

cdef extern from *:
    int highest_bit "31 - __builtin_clz"(unsigned int nonzero) noexcept nogil

cdef enum:
    LVT_TIMER = 0            # entries of the local vector table, in the order of their registers
    LVT_LINT0 = 3
    LVT_LINT1 = 4
    LVT_ERROR = 5
    LVT_COUNT = 6
    LVT_MASKED = 1 << 16
    LVT_PERIODIC = 1 << 17
    LVT_DEADLINE = 1 << 18
    LVT_MODE = 0x700         # delivery mode: 0 fixed,
    LVT_NMI = 0x400
    LVT_EXTINT = 0x700
    SVR_ENABLED = 1 << 8
    ESR_SEND_VECTOR = 1 << 5
    ESR_RECEIVE_VECTOR = 1 << 6
    ESR_REGISTER = 1 << 7
    APIC_ID = 0x02           # registers by number: offset / 16, or MSR - 800h
    APIC_VERSION = 0x03
    APIC_TPR = 0x08
    APIC_PPR = 0x0A
    APIC_EOI = 0x0B
    APIC_LDR = 0x0D
    APIC_DFR = 0x0E
    APIC_SVR = 0x0F
    APIC_ISR = 0x10
    APIC_TMR = 0x18
    APIC_IRR = 0x20
    APIC_ESR = 0x28
    APIC_ICR = 0x30
    APIC_ICR_HIGH = 0x31
    APIC_LVT = 0x32
    APIC_INITIAL = 0x38
    APIC_CURRENT = 0x39
    APIC_DIVIDE = 0x3E
    APIC_SELF_IPI = 0x3F
    LAPIC_VERSION = 0x14 | (LVT_COUNT - 1) << 16
    BASE_BSP = 1 << 8        # IA32_APIC_BASE: the bootstrap processor,
    BASE_X2APIC = 1 << 10
    BASE_ENABLED = 1 << 11
    MSR_APIC_BASE_NO = 0x1B
    MSR_DEADLINE_NO = 0x6E0
    MSR_X2APIC_FIRST = 0x800
    MSR_X2APIC_LAST = 0x83F
    LOWEST_VECTOR = 16       # 0 to 15 are illegal (10.5.2)

cdef extern from *:
    """
    #define PYX_APIC_DEFAULT 0xFEE00000ULL
    #define PYX_APIC_EVERYBODY 0xFFFFFFFFu
    """
    const uint64_t APIC_DEFAULT "PYX_APIC_DEFAULT"
    const uint32_t EVERYBODY "PYX_APIC_EVERYBODY"        # the destination of a broadcast

ctypedef struct Lapic:
    uint64_t base            # IA32_APIC_BASE
    uint64_t due             # guest time at which the count ends or the deadline comes, masked or not; NEVER: stopped
    uint64_t since           # guest time at which the count was `left`
    uint64_t deadline        # IA32_TSC_DEADLINE, 0 when none is armed
    uint64_t tsc_offset      # the processor's time stamp counter is guest time plus this
    uint32_t irr[8]          # requested,
    uint32_t isr[8]          # in service,
    uint32_t tmr[8]          # level-triggered: by vector
    uint32_t lvt[6]
    uint32_t id
    uint32_t tpr
    uint32_t ldr
    uint32_t dfr
    uint32_t svr
    uint32_t esr             # as the last write latched it
    uint32_t errors          # since then
    uint32_t icr_low
    uint32_t icr_high
    uint32_t initial
    uint32_t left
    uint32_t divide
    uint32_t ppr             # these three are derived (lapic_update):
    uint32_t vector          # the request that may interrupt the processor now; 0: none
    uint32_t extint          # the 8259 pair's INTR reaches the processor
    uint32_t ended           # the level-triggered vector that the I/O APIC must be told the end of; 0: none
    uint8_t has_x2apic       # what the processor offers
    uint8_t has_deadline
    uint8_t maxphyaddr

# Priorities (10.8) ------------------------------------------------------------------------------

cdef inline uint32_t highest_vector(const uint32_t* words) noexcept nogil:
    """The highest vector whose bit is set; 0: none."""
    cdef int i
    for i in range(7, -1, -1):
        if words[i]:
            return <uint32_t>(32 * i + highest_bit(words[i]))
    return 0

cdef inline bint has_vector(const uint32_t* words, uint32_t vector) noexcept nogil:
    return words[vector >> 5] >> (vector & 31) & 1

cdef inline bint is_enabled(const Lapic* l) noexcept nogil:
    """By IA32_APIC_BASE.  Otherwise the processor is as one without (10.4.3)."""
    return l.base & BASE_ENABLED != 0

cdef inline bint is_x2apic(const Lapic* l) noexcept nogil:
    return l.base & BASE_X2APIC != 0

cdef inline void lapic_update(Lapic* l) noexcept nogil:
    """Find what follows from registers: after each change of IRR, ISR, TPR, LINT0 or the mode."""
    cdef uint32_t serving = highest_vector(l.isr), wanted = highest_vector(l.irr)
    l.ppr = l.tpr if l.tpr >> 4 >= serving >> 4 else serving & 0xF0
    l.vector = wanted if wanted >> 4 > l.ppr >> 4 else 0
    l.extint = not is_enabled(l) or l.lvt[<int>LVT_LINT0] & (LVT_MASKED | LVT_MODE) == LVT_EXTINT

cdef inline bint lapic_listens(const Lapic* l, const uint32_t* redirection, int pins) noexcept nogil:
    """Can a request come, so that the task priority matters?  `redirection`: low words of the I/O APIC's entries.

    Only what is delivered as "fixed" waits for the priority (SDM 3A 10.8.3.1), not the NMI that LINT1 is after reset.
    """
    cdef int i
    for i in range(LVT_COUNT):
        if not l.lvt[i] & (LVT_MASKED | LVT_MODE):
            return True
    for i in range(pins):
        if not redirection[i] & LVT_MASKED:
            return True
    return highest_vector(l.irr) != 0 or highest_vector(l.isr) != 0

cdef inline bint lapic_would_interrupt(const Lapic* l, uint32_t vector) noexcept nogil:
    """Would a new request of this vector reach the processor at once?"""
    return l.svr & SVR_ENABLED and vector >= LOWEST_VECTOR and vector >> 4 > l.ppr >> 4 and not has_vector(l.irr, vector)

cdef inline void lapic_accept(Lapic* l, uint32_t vector, bint level) noexcept nogil:
    """A request of a legal vector arrives (10.8.4)."""
    cdef uint32_t bit = <uint32_t>1 << (vector & 31)
    if not l.svr & SVR_ENABLED:
        return
    l.irr[vector >> 5] |= bit
    if level:
        l.tmr[vector >> 5] |= bit
    else:
        l.tmr[vector >> 5] &= ~bit
    lapic_update(l)

cdef inline uint32_t lapic_ack(Lapic* l) noexcept nogil:
    """The processor takes the request of highest priority, or the spurious vector when there is none (10.9)."""
    cdef uint32_t vector = l.vector, bit = <uint32_t>1 << (vector & 31)
    if vector == 0:
        return l.svr & 0xFF
    l.irr[vector >> 5] &= ~bit
    l.isr[vector >> 5] |= bit
    lapic_update(l)
    return vector

cdef inline void lapic_eoi(Lapic* l) noexcept nogil:
    """End of interrupt (10.8.5): of the highest in service; of a level-triggered one the I/O APIC is told."""
    cdef uint32_t vector = highest_vector(l.isr)
    if vector == 0:
        return
    l.isr[vector >> 5] &= ~(<uint32_t>1 << (vector & 31))
    if has_vector(l.tmr, vector):
        l.ended = vector
    lapic_update(l)

# Errors and local interrupts (10.5) -------------------------------------------------------------

cdef inline void lapic_error(Lapic* l, uint32_t bit) noexcept nogil:
    cdef uint32_t entry = l.lvt[<int>LVT_ERROR]
    cdef bint fresh = l.errors & bit == 0
    l.errors |= bit
    if not fresh or entry & LVT_MASKED:
        return
    if entry & 0xFF < LOWEST_VECTOR:
        l.errors |= ESR_RECEIVE_VECTOR
    else:
        lapic_accept(l, entry & 0xFF, False)

cdef inline void lapic_local(Lapic* l, int n) noexcept nogil:
    """The source of entry `n` of the local vector table fires."""
    cdef uint32_t entry = l.lvt[n]
    if entry & LVT_MASKED:
        return
    if entry & 0xFF < LOWEST_VECTOR:
        lapic_error(l, ESR_RECEIVE_VECTOR)
    else:
        lapic_accept(l, entry & 0xFF, False)

# The timer (10.5.4) -----------------------------------------------------------------------------

cdef inline int timer_shift(const Lapic* l) noexcept nogil:
    """The divide register's bits 3, 1 and 0: 000 is by 2, 110 by 128, 111 by 1."""
    return <int>((((l.divide >> 1 & 4) | (l.divide & 3)) + 1) & 7)

cdef inline bint by_deadline(const Lapic* l) noexcept nogil:
    return l.lvt[<int>LVT_TIMER] & LVT_DEADLINE != 0

cdef inline void timer_start(Lapic* l, uint32_t count, uint64_t now) noexcept nogil:
    """Count down from `count`, from now on; 0 stops."""
    l.left = count
    l.since = now
    l.due = now + (<uint64_t>count << timer_shift(l)) if count else NEVER

cdef inline uint32_t timer_count(const Lapic* l, uint64_t now) noexcept nogil:
    """The current count.  The timer must have been run to the present."""
    if l.due == NEVER or by_deadline(l):
        return 0
    return l.left - <uint32_t>((now - l.since) >> timer_shift(l))

cdef inline void lapic_run(Lapic* l, uint64_t now) noexcept nogil:
    """Let the timer come to the present.  Several ends of a periodic count are one request."""
    cdef uint64_t period = <uint64_t>l.initial << timer_shift(l), last
    if now < l.due:
        return
    if by_deadline(l):
        l.deadline = 0
        l.due = NEVER
    elif l.lvt[<int>LVT_TIMER] & LVT_PERIODIC and period:
        last = l.due + (now - l.due) // period * period
        timer_start(l, l.initial, last)
    else:
        timer_start(l, 0, now)
    lapic_local(l, LVT_TIMER)

cdef inline void deadline_schedule(Lapic* l, uint64_t now) noexcept nogil:
    """Find when the time stamp counter reaches the deadline; a passed one is due at once."""
    cdef uint64_t tsc = now + l.tsc_offset
    if not by_deadline(l):
        return
    l.due = NEVER
    if l.deadline:
        l.due = now if l.deadline <= tsc else now + (l.deadline - tsc)
        if l.due < now:
            l.due = NEVER                        # beyond the end of guest time
    lapic_run(l, now)

cdef inline void timer_lvt_write(Lapic* l, uint32_t value) noexcept nogil:
    """Changing to the deadline mode or from it disarms the timer (10.5.4.1)."""
    if (l.lvt[<int>LVT_TIMER] ^ value) & LVT_DEADLINE:
        l.initial = l.left = 0
        l.deadline = 0
        l.due = NEVER
    l.lvt[<int>LVT_TIMER] = value

# Interprocessor interrupts (10.6) ---------------------------------------------------------------

cdef inline uint32_t destination(uint32_t eight_bits) noexcept nogil:
    """The 8 bits that a message of xAPIC mode or of an I/O APIC names; all ones are everybody."""
    return EVERYBODY if eight_bits == 0xFF else eight_bits

cdef inline uint32_t lapic_x2_ldr(const Lapic* l) noexcept nogil:
    """In x2APIC mode the logical identity follows from the physical one (10.12.10.2)."""
    return l.id >> 4 << 16 | <uint32_t>1 << (l.id & 15)

cdef inline bint lapic_is_logical(const Lapic* l, uint32_t to) noexcept nogil:
    """Logical destinations: flat or cluster (10.6.2.2), in x2APIC mode clusters of 16."""
    cdef uint32_t own = l.ldr >> 24
    if is_x2apic(l):
        own = lapic_x2_ldr(l)
        return to >> 16 == own >> 16 and to & own & 0xFFFF
    if l.dfr >> 28 == 0xF:
        return to & own & 0xFF
    return (to >> 4 & 15 == own >> 4 or to >> 4 & 15 == 15) and to & own & 15

cdef inline bint lapic_is_addressed(const Lapic* l, uint32_t to, bint logical) noexcept nogil:
    """Is this processor the destination?"""
    if to == EVERYBODY:
        return True
    return lapic_is_logical(l, to) if logical else to == l.id

cdef inline void lapic_send(Lapic* l) noexcept nogil:
    """The command in the ICR.  A fixed or lowest-priority one for this processor is its own request."""
    cdef uint32_t command = l.icr_low, mode = command >> 8 & 7, short = command >> 18 & 3, vector = command & 0xFF
    cdef uint32_t to = l.icr_high if is_x2apic(l) else destination(l.icr_high >> 24)
    if mode > 1:
        return
    if vector < LOWEST_VECTOR:
        lapic_error(l, ESR_SEND_VECTOR)
    elif short == 1 or short == 2 or (short == 0 and lapic_is_addressed(l, to, command >> 11 & 1)):
        lapic_accept(l, vector, False)

# Registers (10.4) -------------------------------------------------------------------------------

cdef inline uint32_t lvt_bits(const Lapic* l, int n) noexcept nogil:
    """What software may write of a table entry (figure 10-8)."""
    if n == LVT_TIMER:
        return 0x300FF | (LVT_DEADLINE if l.has_deadline else 0)
    if n == LVT_ERROR:
        return 0x100FF
    return 0x1A7FF if n == LVT_LINT0 or n == LVT_LINT1 else 0x107FF

cdef inline bint lapic_read(Lapic* l, uint32_t reg, uint64_t now, uint32_t* out) noexcept nogil:
    """A register of either mode that reads: False when there is none.  The timer must have been run to the present."""
    out[0] = 0
    if reg == APIC_ID: out[0] = l.id if is_x2apic(l) else l.id << 24
    elif reg == APIC_VERSION: out[0] = LAPIC_VERSION
    elif reg == APIC_TPR: out[0] = l.tpr
    elif reg == APIC_PPR: out[0] = l.ppr
    elif reg == APIC_LDR: out[0] = lapic_x2_ldr(l) if is_x2apic(l) else l.ldr
    elif reg == APIC_SVR: out[0] = l.svr
    elif APIC_ISR <= reg < APIC_TMR: out[0] = l.isr[reg & 7]
    elif APIC_TMR <= reg < APIC_IRR: out[0] = l.tmr[reg & 7]
    elif APIC_IRR <= reg < APIC_ESR: out[0] = l.irr[reg & 7]
    elif reg == APIC_ESR: out[0] = l.esr
    elif reg == APIC_ICR: out[0] = l.icr_low
    elif APIC_LVT <= reg < APIC_LVT + LVT_COUNT: out[0] = l.lvt[reg - APIC_LVT]
    elif reg == APIC_INITIAL: out[0] = l.initial
    elif reg == APIC_CURRENT: out[0] = timer_count(l, now)
    elif reg == APIC_DIVIDE: out[0] = l.divide
    else: return False
    return True

cdef inline void svr_write(Lapic* l, uint32_t value) noexcept nogil:
    """Disabling masks the whole local vector table (10.4.7.2)."""
    cdef int n
    l.svr = value & 0x1FF
    if not value & SVR_ENABLED:
        for n in range(LVT_COUNT):
            l.lvt[n] |= LVT_MASKED
    lapic_update(l)

cdef inline void lvt_write(Lapic* l, int n, uint32_t value) noexcept nogil:
    value &= lvt_bits(l, n)
    if not l.svr & SVR_ENABLED:
        value |= LVT_MASKED
    if n == LVT_TIMER:
        timer_lvt_write(l, value)
    else:
        l.lvt[n] = value
        lapic_update(l)

cdef inline bint lapic_write(Lapic* l, uint32_t reg, uint32_t value, uint64_t now) noexcept nogil:
    """A register of either mode that can be written: False when there is none.  The timer must have been run to the present;
    afterwards look at l.ended."""
    cdef uint32_t count
    if reg == APIC_TPR:
        l.tpr = value & 0xFF
        lapic_update(l)
    elif reg == APIC_EOI:
        lapic_eoi(l)
    elif reg == APIC_SVR:
        svr_write(l, value)
    elif reg == APIC_ESR:
        l.esr = l.errors
        l.errors = 0
    elif reg == APIC_ICR:
        l.icr_low = value & 0xCCFFF
        lapic_send(l)
    elif APIC_LVT <= reg < APIC_LVT + LVT_COUNT:
        lvt_write(l, <int>(reg - APIC_LVT), value)
    elif reg == APIC_INITIAL:
        if not by_deadline(l):
            l.initial = value
            timer_start(l, value, now)
    elif reg == APIC_DIVIDE:
        count = timer_count(l, now)
        l.divide = value & 0xB
        if not by_deadline(l):
            timer_start(l, count, now)
    else:
        return False
    return True

# By memory (10.4.1) -----------------------------------------------------------------------------

cdef inline bint lapic_answers(const Lapic* l, uint64_t gpa) noexcept nogil:
    """Are the registers of xAPIC mode at this address?"""
    return l.base & (BASE_ENABLED | BASE_X2APIC) == BASE_ENABLED and (gpa ^ l.base) >> 12 == 0

cdef inline uint32_t lapic_load(Lapic* l, uint32_t offset, uint64_t now) noexcept nogil:
    """The doubleword at an offset into the page; only every fourth one is a register."""
    cdef uint32_t reg = offset >> 4, value = 0
    if offset & 12:
        return 0
    if reg == APIC_DFR:
        return l.dfr
    if reg == APIC_ICR_HIGH:
        return l.icr_high
    if not lapic_read(l, reg, now, &value) and reg != APIC_EOI:
        lapic_error(l, ESR_REGISTER)
    return value

cdef inline void lapic_store(Lapic* l, uint32_t offset, uint32_t value, uint64_t now) noexcept nogil:
    cdef uint32_t reg = offset >> 4, old
    if offset & 12:
        return
    if reg == APIC_LDR:
        l.ldr = value & 0xFF000000U
    elif reg == APIC_DFR:
        l.dfr = value | 0x0FFFFFFF
    elif reg == APIC_ICR_HIGH:
        l.icr_high = value & 0xFF000000U
    elif not lapic_write(l, reg, value, now) and not lapic_read(l, reg, now, &old):
        lapic_error(l, ESR_REGISTER)

# By MSR (10.12) ---------------------------------------------------------------------------------

cdef inline bint x2_legal(const Lapic* l, uint32_t reg, uint64_t value) noexcept nogil:
    """May WRMSR put `value` into register `reg`?  Reserved bits raise #GP (10.12.1.2, 10.12.1.3)."""
    if reg == APIC_ICR:
        return value & 0xFFF33000U == 0
    if value >> 32:
        return False
    if reg == APIC_TPR or reg == APIC_SELF_IPI: return value <= 0xFF
    if reg == APIC_EOI or reg == APIC_ESR: return value == 0
    if reg == APIC_SVR: return value <= 0x1FF
    if reg == APIC_DIVIDE: return value & ~<uint64_t>0xB == 0
    if APIC_LVT <= reg < APIC_LVT + LVT_COUNT:
        return value & ~<uint64_t>(lvt_bits(l, <int>(reg - APIC_LVT)) | 0x5000) == 0     # 0x5000: status, read-only
    return reg == APIC_INITIAL

cdef inline bint x2_read(Lapic* l, uint32_t reg, uint64_t now, uint64_t* out) noexcept nogil:
    cdef uint32_t value
    if not lapic_read(l, reg, now, &value):
        return False
    out[0] = value
    if reg == APIC_ICR:
        out[0] |= <uint64_t>l.icr_high << 32
    return True

cdef inline bint x2_write(Lapic* l, uint32_t reg, uint64_t value, uint64_t now) noexcept nogil:
    if not x2_legal(l, reg, value):
        return False
    if reg == APIC_SELF_IPI:
        if value < LOWEST_VECTOR:
            lapic_error(l, ESR_SEND_VECTOR)
        else:
            lapic_accept(l, <uint32_t>value, False)
        return True
    if reg == APIC_ICR:
        l.icr_high = <uint32_t>(value >> 32)
    return lapic_write(l, reg, <uint32_t>value, now)

cdef inline void lapic_reset(Lapic* l) noexcept nogil:
    """The state after power-up (10.4.7.1) and when the APIC is enabled again; what the processor is stays."""
    cdef int n
    memset(l.irr, 0, sizeof(l.irr))
    memset(l.isr, 0, sizeof(l.isr))
    memset(l.tmr, 0, sizeof(l.tmr))
    for n in range(LVT_COUNT):
        l.lvt[n] = LVT_MASKED
    l.tpr = l.ldr = l.esr = l.errors = l.icr_low = l.icr_high = l.initial = l.left = l.divide = l.ended = 0
    l.dfr = 0xFFFFFFFFU
    l.svr = 0xFF
    l.deadline = 0
    l.due = NEVER
    lapic_update(l)

cdef inline bint base_write(Lapic* l, uint64_t value) noexcept nogil:
    """IA32_APIC_BASE (10.4.4) and the ways between its modes (10.12.5).  False: #GP."""
    cdef uint64_t modes = BASE_ENABLED | BASE_X2APIC, old = l.base & modes, new = value & modes
    if value >> l.maxphyaddr or value & 0x2FF or (value & BASE_X2APIC and not l.has_x2apic):
        return False
    if new == BASE_X2APIC or (old == modes and new == BASE_ENABLED) or (old == 0 and new == modes):
        return False
    l.base = value
    if old != new and (old == 0 or new == 0):
        lapic_reset(l)
    elif old != new:
        l.ldr = l.icr_high = 0                   # xAPIC to x2APIC: the rest is kept (10.12.5.1)
        l.dfr = 0xFFFFFFFFU
    lapic_update(l)
    return True

cdef inline bint lapic_msr_read(Lapic* l, uint32_t msr, uint64_t now, uint64_t* out) noexcept nogil:
    """IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.  False: there is no such register now (#GP)."""
    if msr == MSR_APIC_BASE_NO:
        out[0] = l.base
    elif msr == MSR_DEADLINE_NO:
        out[0] = l.deadline
        return l.has_deadline
    else:
        return MSR_X2APIC_FIRST <= msr <= MSR_X2APIC_LAST and is_x2apic(l) and x2_read(l, msr - MSR_X2APIC_FIRST, now, out)
    return True

cdef inline bint lapic_msr_write(Lapic* l, uint32_t msr, uint64_t value, uint64_t now) noexcept nogil:
    if msr == MSR_APIC_BASE_NO:
        return base_write(l, value)
    if msr == MSR_DEADLINE_NO:
        if l.has_deadline and by_deadline(l):
            l.deadline = value
            deadline_schedule(l, now)
        return l.has_deadline
    return MSR_X2APIC_FIRST <= msr <= MSR_X2APIC_LAST and is_x2apic(l) and x2_write(l, msr - MSR_X2APIC_FIRST, value, now)

cdef inline void lapic_init(Lapic* l, bint x2apic, bint deadline, int maxphyaddr) noexcept nogil:
    """As firmware leaves it for the bootstrap processor: enabled, the 8259 pair wired through (MP specification 3.6.2.2)."""
    l.has_x2apic = x2apic
    l.has_deadline = deadline
    l.maxphyaddr = <uint8_t>maxphyaddr
    l.base = APIC_DEFAULT | BASE_BSP | BASE_ENABLED
    lapic_reset(l)
    l.svr |= SVR_ENABLED
    l.lvt[<int>LVT_LINT0] = LVT_EXTINT
    l.lvt[<int>LVT_LINT1] = LVT_NMI
    lapic_update(l)
