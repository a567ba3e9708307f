# SPDX-License-Identifier: GPL-2.0-or-later
"""A PS/2 keyboard behind the 8042: its commands, and the host's typing.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboards"; scan codes: "Scan code sets 1 and 2".
The host types codes of set 1 (Sinks.keys).  The keyboard sends set 2 and the controller translates it back to set 1, which
is how a PC comes up; without translation set 2 comes out.  Answers to commands come at once, typed codes one at a time, the
time of BYTES_PER_SECOND apart, so that firmware with a small buffer loses none.
"""
from libc.stdint cimport uint8_t, uint64_t

ctypedef struct Keyboard:
    uint64_t typed           # bytes taken from Sinks.keys
    uint64_t ready           # guest time at which the next one may come
    uint8_t answers[8]       # of the keyboard, oldest first
    uint8_t count            # of them
    uint8_t command          # that awaits its parameter, or 0
    uint8_t last             # byte sent, for "resend"
    uint8_t off              # scanning is disabled
    uint8_t set              # scan code set: 1 or 2
    uint8_t leds             # bits 2..0: Caps, Num, Scroll Lock
    uint8_t rate             # typematic
    uint8_t release          # a break code of set 2 has begun: its second byte comes next

cdef enum:
    BYTES_PER_SECOND = 200
    ACK = 0xFA
    RESEND = 0xFE

cdef extern from *:
    """
    static const unsigned char pyx86v_set2[96] = {      /* codes of set 2 by those of set 1; 0: there is none */
        0x00, 0x76, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36, 0x3D, 0x3E, 0x46, 0x45, 0x4E, 0x55, 0x66, 0x0D,
        0x15, 0x1D, 0x24, 0x2D, 0x2C, 0x35, 0x3C, 0x43, 0x44, 0x4D, 0x54, 0x5B, 0x5A, 0x14, 0x1C, 0x1B,
        0x23, 0x2B, 0x34, 0x33, 0x3B, 0x42, 0x4B, 0x4C, 0x52, 0x0E, 0x12, 0x5D, 0x1A, 0x22, 0x21, 0x2A,
        0x32, 0x31, 0x3A, 0x41, 0x49, 0x4A, 0x59, 0x7C, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0C, 0x03,
        0x0B, 0x83, 0x0A, 0x01, 0x09, 0x77, 0x7E, 0x6C, 0x75, 0x7D, 0x7B, 0x6B, 0x73, 0x74, 0x79, 0x69,
        0x72, 0x7A, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F};
    """
    const uint8_t* SET2 "pyx86v_set2"

cdef inline void keyboard_init(Keyboard* k) noexcept nogil:
    k.set = 2

cdef inline void keyboard_answer(Keyboard* k, uint8_t byte) noexcept nogil:
    if k.count < 8:
        k.answers[k.count] = byte
        k.count += 1

cdef inline uint8_t keyboard_take(Keyboard* k) noexcept nogil:
    """The oldest answer; there is one."""
    cdef uint8_t byte = k.answers[0]
    cdef int i
    k.count -= 1
    for i in range(k.count):
        k.answers[i] = k.answers[i + 1]
    k.last = byte
    return byte

cdef inline void keyboard_defaults(Keyboard* k) noexcept nogil:
    k.set = 2
    k.leds = 0
    k.rate = 0x2B                # 10.9 codes a second after 500 ms

cdef inline void keyboard_parameter(Keyboard* k, uint8_t value, bint translates) noexcept nogil:
    """The byte behind ED (lights), F0 (scan code set) or F3 (typematic rate)."""
    cdef uint8_t command = k.command
    k.command = 0
    if command == 0xF0 and value > 2:
        keyboard_answer(k, RESEND)
        return
    keyboard_answer(k, ACK)
    if command == 0xED:
        k.leds = value & 7
    elif command == 0xF3:
        k.rate = value & 0x7F
    elif value:
        k.set = value
    elif translates:
        keyboard_answer(k, 0x43 if k.set == 1 else 0x41)     # what the controller makes of 1 and 2
    else:
        keyboard_answer(k, k.set)

cdef inline void keyboard_write(Keyboard* k, uint8_t value, bint translates) noexcept nogil:
    """A byte for the keyboard."""
    if value == 0xFE:
        keyboard_answer(k, k.last)
        return
    k.count = 0                              # what it was about to answer is void
    if k.command:
        keyboard_parameter(k, value, translates)
        return
    if value == 0xEE:                        # echo
        keyboard_answer(k, 0xEE)
        return
    if value < 0xED or value == 0xEF or value == 0xF1:
        keyboard_answer(k, RESEND)
        return
    keyboard_answer(k, ACK)
    if value == 0xED or value == 0xF0 or value == 0xF3:
        k.command = value
    elif value == 0xF2:                      # identify
        keyboard_answer(k, 0xAB)
        keyboard_answer(k, 0x41 if translates else 0x83)
    elif value == 0xF4:
        k.off = 0
    elif value == 0xF5:
        keyboard_defaults(k)
        k.off = 1
    elif value == 0xF6:
        keyboard_defaults(k)
    elif value == 0xFF:                      # reset, and the self-test passed
        keyboard_defaults(k)
        k.off = 0
        keyboard_answer(k, 0xAA)

cdef inline uint8_t keyboard_typed(Keyboard* k, const uint8_t* next, bint translates) noexcept nogil:
    """One byte of the host's typing as the guest gets it.  Set 2 has two for a release: F0h, then the code."""
    cdef uint8_t code = next[0]
    if k.set == 1 or translates or code >= 0xE0 or SET2[code & 0x7F if code & 0x7F < 96 else 0] == 0:
        k.typed += 1
    elif code & 0x80 and not k.release:
        k.release = 1
        code = 0xF0
    else:
        k.release = 0
        k.typed += 1
        code = SET2[code & 0x7F]
    k.last = code
    return code
