# SPDX-License-Identifier: GPL-2.0-or-later
"""A 16550A on COM1 with an infinitely fast line.

Source: National Semiconductor PC16550D data sheet; OUT2 as the interrupt gate: IBM PC/AT Technical Reference.
A byte written has left at once, so THRE and TEMT always read 1.  A byte of the host's input arrives as
soon as there is room, so the line never overruns; a level below the trigger with nothing more to
come is a character timeout.
"""
from libc.stdint cimport uint8_t, uint64_t
from pyx86v.devices.sinks cimport Sinks, buffer_put

ctypedef struct Uart:
    uint64_t received        # bytes taken from Sinks.input
    uint64_t sent            # bytes given to Sinks.console
    uint8_t fifo[16]
    uint8_t head             # index of the oldest byte
    uint8_t count            # bytes held; at most 1 with the FIFO off
    uint8_t ier
    uint8_t fcr
    uint8_t lcr
    uint8_t mcr
    uint8_t errors           # LSR bits 4..1
    uint8_t msr
    uint8_t scratch
    uint8_t divisor[2]
    uint8_t thre_pending     # the transmitter-empty interrupt is due

cdef enum:
    IER_RX = 1
    IER_THRE = 2
    IER_LINE = 4
    IER_MODEM = 8
    IIR_NONE = 1
    IIR_MODEM = 0
    IIR_THRE = 2
    IIR_RX = 4
    IIR_LINE = 6
    IIR_TIMEOUT = 12
    LCR_DLAB = 0x80
    MCR_OUT2 = 0x08
    MCR_LOOP = 0x10
    LSR_READY = 0x01
    LSR_OVERRUN = 0x02
    LSR_EMPTY = 0x60         # THRE and TEMT
    MSR_PEER = 0xB0          # DCD, DSR, CTS: somebody listens

cdef inline void uart_init(Uart* u) noexcept nogil:
    u.msr = MSR_PEER
    u.lcr = 3
    u.divisor[0] = 1

cdef inline void uart_push(Uart* u, uint8_t byte) noexcept nogil:
    """A received byte.  A full FIFO loses it, a full holding register the byte before."""
    cdef int room = 16 if u.fcr & 1 else 1
    if u.count < room:
        u.fifo[(u.head + u.count) & 15] = byte
        u.count += 1
        return
    u.errors |= LSR_OVERRUN
    if room == 1:
        u.fifo[u.head] = byte

cdef inline void uart_receive(Uart* u, const Sinks* s) noexcept nogil:
    """Take what fits of the host's input; in loopback mode the pin is disconnected."""
    cdef int room = 16 if u.fcr & 1 else 1
    while u.received < s.input.size and u.count < room and not u.mcr & MCR_LOOP:
        uart_push(u, s.input.data[u.received])
        u.received += 1

cdef inline int uart_reason(const Uart* u) noexcept nogil:
    """IIR bits 3..0: the highest pending interrupt (data sheet, table V)."""
    cdef int trigger = 1
    if u.ier & IER_LINE and u.errors:
        return IIR_LINE
    if u.ier & IER_RX and u.count:
        if u.fcr & 1:
            trigger = 14 if u.fcr >> 6 == 3 else 1 if u.fcr >> 6 == 0 else 4 << ((u.fcr >> 6) - 1)
        return IIR_RX if u.count >= trigger else IIR_TIMEOUT
    if u.ier & IER_THRE and u.thre_pending:
        return IIR_THRE
    if u.ier & IER_MODEM and u.msr & 0x0F:
        return IIR_MODEM
    return IIR_NONE

cdef inline bint uart_irq(const Uart* u) noexcept nogil:
    """IRQ 4: the board passes INTR while the OUT2 pin is driven; loopback mode releases the pin."""
    return u.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 and uart_reason(u) != IIR_NONE

cdef inline void uart_modem(Uart* u) noexcept nogil:
    """The modem lines, of the peer or looped back, and what changed since MSR was read."""
    cdef uint8_t lines = MSR_PEER, change
    if u.mcr & MCR_LOOP:
        lines = (u.mcr & 1) << 5 | (u.mcr & 2) << 3 | (u.mcr & 4) << 4 | (u.mcr & 8) << 4
    change = (u.msr ^ lines) >> 4
    change = (change & 0x0B) | (change & 4 & u.msr >> 4)     # RI counts when it ends
    u.msr = lines | (u.msr & 0x0F) | change

cdef inline uint8_t uart_data(Uart* u) noexcept nogil:
    """RBR.  An empty receiver returns the byte read last."""
    cdef uint8_t byte
    if not u.count:
        return u.fifo[(u.head - 1) & 15]
    byte = u.fifo[u.head]
    u.head = (u.head + 1) & 15
    u.count -= 1
    return byte

cdef inline uint8_t uart_iir(Uart* u) noexcept nogil:
    """Reading IIR ends the transmitter-empty interrupt when it is the one reported."""
    cdef int reason = uart_reason(u)
    if reason == IIR_THRE:
        u.thre_pending = 0
    return reason | (0xC0 if u.fcr & 1 else 0)

cdef inline uint8_t uart_read(Uart* u, const Sinks* s, int at) noexcept nogil:
    """Register `at`, 0 to 7."""
    cdef uint8_t value
    if at == 5:
        uart_receive(u, s)
        value = LSR_EMPTY | u.errors | (LSR_READY if u.count else 0)
        u.errors = 0
        return value
    elif at == 0 or at == 1:
        if u.lcr & LCR_DLAB:
            return u.divisor[at]
        if at == 1:
            return u.ier
        uart_receive(u, s)
        value = uart_data(u)
        uart_receive(u, s)
        return value
    elif at == 2:
        uart_receive(u, s)
        return uart_iir(u)
    elif at == 3:
        return u.lcr
    elif at == 4:
        return u.mcr
    elif at == 6:
        value = u.msr
        u.msr &= 0xF0
        return value
    return u.scratch

cdef inline void uart_send(Uart* u, Sinks* s, uint8_t byte) noexcept nogil:
    if u.mcr & MCR_LOOP:
        uart_push(u, byte)
    else:
        buffer_put(&s.console, byte)
        u.sent += 1
    u.thre_pending = 1

cdef inline void uart_fifo_control(Uart* u, uint8_t value) noexcept nogil:
    """FCR: its other bits count only together with bit 0, the enable."""
    if value & 2 or (value ^ u.fcr) & 1:
        u.count = 0
    u.fcr = value & 0xC9 if value & 1 else 0

cdef inline void uart_write(Uart* u, Sinks* s, int at, uint8_t value) noexcept nogil:
    """Register `at`, 0 to 7."""
    if at == 0 or at == 1:
        if u.lcr & LCR_DLAB:
            u.divisor[at] = value
        elif at == 0:
            uart_send(u, s, value)
        else:
            u.thre_pending |= value & ~u.ier & IER_THRE    # enabling it raises it: the transmitter is empty
            u.ier = value & 0x0F
    elif at == 2:
        uart_fifo_control(u, value)
    elif at == 3:
        u.lcr = value
    elif at == 4:
        u.mcr = value & 0x1F
        uart_modem(u)
    elif at == 7:
        u.scratch = value
    uart_receive(u, s)
