# SPDX-License-Identifier: GPL-2.0-or-later
"""VGA registers that keep what is written.  The text itself is RAM at B8000h; screen.py reads both.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video subsystem".  Retrace bits follow a picture of 70 Hz and
449 lines.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

ctypedef struct Vga:
    uint8_t misc
    uint8_t feature
    uint8_t seq_index
    uint8_t seq[8]
    uint8_t graphics_index
    uint8_t graphics[16]
    uint8_t crtc_index
    uint8_t crtc[32]
    uint8_t attribute_index
    uint8_t attribute_data   # the next write to 3C0h is data
    uint8_t attribute[32]
    uint8_t dac_mask
    uint8_t dac_reads        # the palette was addressed for reading
    uint16_t dac_at          # byte of the palette, 0 to 767
    uint8_t palette[768]

cdef enum:
    FRAME = 17045            # pulses of the timer clock in 1/70 s
    LINE = 38                # and in 1/449 of it, rounded
    RETRACE = 1860           # 49 lines

cdef extern from *:
    """
    /* mode 3 as a PC's firmware leaves it: sequencer, CRT controller, graphics controller, attribute controller */
    static const unsigned char pyx86v_mode3[] = {
        0x03, 0x00, 0x03, 0x00, 0x02,
        0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00,
        0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF,
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C, 0x00, 0x0F, 0x08, 0x00};
    """
    const uint8_t* MODE3 "pyx86v_mode3"

cdef inline void vga_init(Vga* v) noexcept nogil:
    """Colour text, 80 by 25; the palette's 64 colours have two bits each of red, green and blue."""
    cdef int i, gun
    v.misc = 0x67
    v.dac_mask = 0xFF
    v.attribute_index = 0x20             # the display owns the palette
    memcpy(v.seq, MODE3, 5)
    memcpy(v.crtc, MODE3 + 5, 25)
    memcpy(v.graphics, MODE3 + 30, 9)
    memcpy(v.attribute, MODE3 + 39, 21)
    for i in range(64):
        for gun in range(3):
            v.palette[3 * i + gun] = (42 if i >> (2 - gun) & 1 else 0) + (21 if i >> (5 - gun) & 1 else 0)

cdef inline uint8_t vga_status(Vga* v, uint64_t pulse) noexcept nogil:
    """3DAh: bit 3 vertical retrace, bit 0 no display.  Reading resets 3C0h to its index."""
    cdef uint64_t at = pulse % FRAME
    v.attribute_data = 0
    if at < RETRACE:
        return 0x09
    return at % LINE < LINE // 5

cdef inline uint8_t vga_dac_byte(Vga* v, bint write, uint8_t value) noexcept nogil:
    cdef uint8_t* at = &v.palette[v.dac_at]
    v.dac_at = v.dac_at + 1 if v.dac_at < 767 else 0
    if write:
        at[0] = value & 0x3F
    return at[0]

cdef inline void vga_crtc_write(Vga* v, int index, uint8_t value) noexcept nogil:
    """Bit 7 of register 17 protects registers 0 to 7, but for bit 4 of register 7."""
    if index < 8 and v.crtc[17] & 0x80:
        if index == 7:
            v.crtc[7] = (v.crtc[7] & ~0x10) | (value & 0x10)
    else:
        v.crtc[index] = value

cdef inline uint8_t vga_read(Vga* v, uint16_t port, uint64_t pulse) noexcept nogil:
    """Ports 3C0h to 3DFh; `pulse` counts the timer clock."""
    if port == 0x3C0:
        return v.attribute_index
    elif port == 0x3C1:
        return v.attribute[v.attribute_index & 31]
    elif port == 0x3C2:
        return 0x10                              # the monitor's sense switch
    elif port == 0x3C4:
        return v.seq_index
    elif port == 0x3C5:
        return v.seq[v.seq_index & 7]
    elif port == 0x3C6:
        return v.dac_mask
    elif port == 0x3C7:
        return v.dac_reads * 3
    elif port == 0x3C8:
        return <uint8_t>(v.dac_at // 3)
    elif port == 0x3C9:
        return vga_dac_byte(v, False, 0)
    elif port == 0x3CA:
        return v.feature
    elif port == 0x3CC:
        return v.misc
    elif port == 0x3CE:
        return v.graphics_index
    elif port == 0x3CF:
        return v.graphics[v.graphics_index & 15]
    elif port == 0x3D4:
        return v.crtc_index
    elif port == 0x3D5:
        return v.crtc[v.crtc_index & 31]
    elif port == 0x3DA:
        return vga_status(v, pulse)
    return 0xFF

cdef inline void vga_write(Vga* v, uint16_t port, uint8_t value) noexcept nogil:
    """Ports 3C0h to 3DFh."""
    if port == 0x3C0:
        if v.attribute_data:
            v.attribute[v.attribute_index & 31] = value
        else:
            v.attribute_index = value & 0x3F
        v.attribute_data ^= 1
    elif port == 0x3C2:
        v.misc = value
    elif port == 0x3C4:
        v.seq_index = value
    elif port == 0x3C5:
        v.seq[v.seq_index & 7] = value
    elif port == 0x3C6:
        v.dac_mask = value
    elif port == 0x3C7 or port == 0x3C8:
        v.dac_reads = port == 0x3C7
        v.dac_at = value * 3
    elif port == 0x3C9:
        vga_dac_byte(v, True, value)
    elif port == 0x3CE:
        v.graphics_index = value
    elif port == 0x3CF:
        v.graphics[v.graphics_index & 15] = value
    elif port == 0x3D4:
        v.crtc_index = value
    elif port == 0x3D5:
        vga_crtc_write(v, v.crtc_index & 31, value)
    elif port == 0x3DA:
        v.feature = value
