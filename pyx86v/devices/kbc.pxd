# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8042 keyboard controller with a keyboard (keyboard.pxd) and no auxiliary device.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and auxiliary device controller".
There is no auxiliary port: its interface test fails, and what is sent there comes back as FEh (resend) with the time-out bit.
The A20 line and the reset line are outputs: the caller reads `a20` and `reset`.
"""
from libc.stdint cimport uint8_t, uint64_t
from pyx86v.devices.clock cimport NEVER
from pyx86v.devices.keyboard cimport BYTES_PER_SECOND, Keyboard, keyboard_init, keyboard_take, keyboard_typed, keyboard_write
from pyx86v.devices.sinks cimport Sinks

ctypedef struct Kbc:
    uint8_t status           # OBF, SYS, A2, TIMEOUT
    uint8_t data             # the output buffer
    uint8_t command          # the command that awaits a byte at port 60h, or 0
    uint8_t ram[32]          # [0] is the command byte
    uint8_t a20
    uint8_t reset
    uint8_t filled           # the output buffer has been filled since somebody looked: an edge of IRQ 1
    Keyboard keyboard

cdef enum:
    KBC_OBF = 0x01           # the output buffer is full
    KBC_SYS = 0x04           # the self-test has passed
    KBC_A2 = 0x08            # the last write went to port 64h
    KBC_UNLOCKED = 0x10
    KBC_TIMEOUT = 0x40
    KBC_IRQ1 = 0x01          # command byte: interrupt when the output buffer fills
    KBC_OFF = 0x10           # command byte: keyboard disabled
    KBC_AUX_OFF = 0x20
    KBC_TRANSLATE = 0x40     # command byte: scan codes of set 2 become set 1

cdef inline void kbc_init(Kbc* k) noexcept nogil:
    k.status = KBC_SYS
    k.ram[0] = 0x45 | KBC_AUX_OFF    # translate, SYS, IRQ 1
    k.a20 = 1
    keyboard_init(&k.keyboard)

cdef inline bint kbc_irq(const Kbc* k) noexcept nogil:
    """IRQ 1."""
    return k.status & KBC_OBF and k.ram[0] & KBC_IRQ1

cdef inline void kbc_answer(Kbc* k, uint8_t byte) noexcept nogil:
    k.data = byte
    k.status = (k.status & ~KBC_TIMEOUT) | KBC_OBF
    k.filled = 1

cdef inline bint kbc_translates(const Kbc* k) noexcept nogil:
    return k.ram[0] & KBC_TRANSLATE != 0

cdef inline bint kbc_listens(const Kbc* k) noexcept nogil:
    """There is room for a byte of the keyboard."""
    return not k.status & KBC_OBF and not k.ram[0] & KBC_OFF

cdef inline uint64_t kbc_due(const Kbc* k, const Sinks* s) noexcept nogil:
    """Guest time at which a typed byte comes; NEVER: none does."""
    return k.keyboard.ready if k.keyboard.typed < s.keys.size and kbc_listens(k) and not k.keyboard.off else NEVER

cdef inline void kbc_run(Kbc* k, const Sinks* s, uint64_t now, uint64_t cycles_per_second) noexcept nogil:
    """Take what the keyboard has to say: an answer, or a typed byte whose time has come."""
    if k.keyboard.count and kbc_listens(k):
        kbc_answer(k, keyboard_take(&k.keyboard))
    elif kbc_due(k, s) <= now:
        kbc_answer(k, keyboard_typed(&k.keyboard, &s.keys.data[k.keyboard.typed], kbc_translates(k)))
        k.keyboard.ready = now + cycles_per_second // BYTES_PER_SECOND

cdef inline uint8_t kbc_status(const Kbc* k) noexcept nogil:
    """Port 64h.  The input buffer is never full: every byte is handled at once."""
    return k.status | KBC_UNLOCKED

cdef inline uint8_t kbc_data(Kbc* k) noexcept nogil:
    """Port 60h."""
    k.status &= ~(KBC_OBF | KBC_TIMEOUT)
    return k.data

cdef inline void kbc_output_port(Kbc* k, uint8_t value) noexcept nogil:
    """Bit 0 low resets the processor, bit 1 is A20."""
    k.a20 = value >> 1 & 1
    k.reset |= not value & 1

cdef inline void kbc_command(Kbc* k, uint8_t value) noexcept nogil:
    """Port 64h."""
    k.status |= KBC_A2
    k.command = 0
    if value >= 0xF0:                            # pulse output-port bits 3..0 that are 0
        k.reset |= not value & 1
    elif value & 0xE0 == 0x20:
        kbc_answer(k, k.ram[value & 31])
    elif value & 0xE0 == 0x60 or value == 0xD1 or value == 0xD2 or value == 0xD3 or value == 0xD4:
        k.command = value
    elif value == 0xA7:
        k.ram[0] |= KBC_AUX_OFF
    elif value == 0xA9:
        kbc_answer(k, 1)                         # clock line stuck low
    elif value == 0xAA:
        k.status |= KBC_SYS
        kbc_answer(k, 0x55)
    elif value == 0xAB:
        kbc_answer(k, 0)
    elif value == 0xAD:
        k.ram[0] |= KBC_OFF
    elif value == 0xAE:
        k.ram[0] &= ~KBC_OFF
    elif value == 0xC0:
        kbc_answer(k, 0x80)                      # input port: not locked
    elif value == 0xD0:
        kbc_answer(k, 0xCD | k.a20 << 1 | (k.status & KBC_OBF) << 4)
    elif value == 0xDD or value == 0xDF:
        k.a20 = value >> 1 & 1
    elif value == 0xE0:
        kbc_answer(k, 0)

cdef inline void kbc_write(Kbc* k, uint8_t value) noexcept nogil:
    """Port 60h: the parameter of a command, or a byte for the keyboard."""
    cdef uint8_t command = k.command
    k.status &= ~KBC_A2
    k.command = 0
    if command & 0xE0 == 0x60:
        k.ram[command & 31] = value
        if command == 0x60:
            k.status = (k.status & ~KBC_SYS) | (value & KBC_SYS)
    elif command == 0xD1:
        kbc_output_port(k, value)
    elif command == 0xD2 or command == 0xD3:
        kbc_answer(k, value)
    elif command == 0:
        k.ram[0] &= ~KBC_OFF                     # writing to the keyboard enables it
        keyboard_write(&k.keyboard, value, kbc_translates(k))
    else:
        kbc_answer(k, 0xFE)
        k.status |= KBC_TIMEOUT
