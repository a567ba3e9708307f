# SPDX-License-Identifier: GPL-2.0-or-later
"""The two 8259A interrupt controllers of a PC: master at 20h, slave at A0h on the master's IR2.

Source: Intel 8259A data sheet (231468); ELCR: Intel 82371SB data sheet, 4D0h and 4D1h.
A request that its line withdraws before the acknowledgement is gone (data sheet, "Edge and level
triggered modes"); acknowledging then yields IR7 without an in-service bit.
"""
from libc.stdint cimport uint8_t
from pyx86v.devices.clock cimport lowest_bit

ctypedef struct PicChip:
    uint8_t line             # levels of IR7..IR0
    uint8_t latch            # lines that rose and were not acknowledged since
    uint8_t isr              # in service
    uint8_t imr              # masked
    uint8_t elcr             # level-triggered lines
    uint8_t ltim             # ICW1: every line is level-triggered
    uint8_t vector           # ICW2: bits 7..3
    uint8_t icw3
    uint8_t lowest           # the IR of lowest priority
    uint8_t icw              # initialization word awaited: 0 none, 2, 3 or 4
    uint8_t needs_icw4
    uint8_t single
    uint8_t auto_eoi
    uint8_t rotate_auto_eoi
    uint8_t nested           # special fully nested mode
    uint8_t special_mask
    uint8_t read_isr         # what A0 = 0 reads: ISR or IRR
    uint8_t poll             # the next read is a poll

ctypedef struct Pic:
    PicChip master
    PicChip slave

cdef enum:
    ELCR_MASTER = 0xF8       # IRQ 0 to 2 cannot be level-triggered
    ELCR_SLAVE = 0xDE        # nor IRQ 8 and 13

cdef inline void pic_init(Pic* p) noexcept nogil:
    """Vectors as PC firmware leaves them, everything masked."""
    p.master.vector = 0x08
    p.slave.vector = 0x70
    p.master.icw3 = 4
    p.slave.icw3 = 2
    p.master.imr = p.slave.imr = 0xFF
    p.master.lowest = p.slave.lowest = 7

cdef inline uint8_t chip_irr(const PicChip* c) noexcept nogil:
    cdef uint8_t level = 0xFF if c.ltim else c.elcr
    return (c.latch & ~level) | (c.line & level)

cdef inline int chip_rank(const PicChip* c, uint8_t bits) noexcept nogil:
    """Priority of the highest of `bits`: 0 is highest, 8 means none."""
    cdef int first = (c.lowest + 1) & 7
    cdef unsigned int turned = ((bits >> first) | (bits << (8 - first))) & 0xFF
    return lowest_bit(turned | 0x100)

cdef inline uint8_t chip_serving(const PicChip* c) noexcept nogil:
    """In-service bits that hold others back; special mask mode disregards the masked ones."""
    return c.isr & ~c.imr if c.special_mask else c.isr

cdef inline int chip_highest(const PicChip* c, uint8_t wanted) noexcept nogil:
    """The IR among these requests that would drive INT, or -1: masked, or held back by what is in service."""
    cdef int rank, serving, ir
    wanted &= ~c.imr
    if not wanted:
        return -1
    rank = chip_rank(c, wanted)
    serving = chip_rank(c, chip_serving(c))
    ir = (rank + c.lowest + 1) & 7
    if rank < serving:
        return ir
    if rank == serving and c.nested and not c.single and c.icw3 >> ir & 1:
        return ir            # a slave may interrupt its own service (special fully nested mode)
    return -1

cdef inline int chip_pending(const PicChip* c) noexcept nogil:
    """The IR that drives INT, or -1."""
    return chip_highest(c, chip_irr(c))

cdef inline void chip_set_line(PicChip* c, int ir, bint level) noexcept nogil:
    cdef uint8_t bit = 1 << ir
    if level:
        c.latch |= bit & ~c.line
        c.line |= bit
    else:
        c.line &= ~bit
        c.latch &= ~bit

cdef inline void pic_cascade(Pic* p) noexcept nogil:
    """The slave's INT is the master's IR2.  Call after any change in the slave."""
    chip_set_line(&p.master, 2, chip_pending(&p.slave) >= 0)

cdef inline void pic_set_irq(Pic* p, int irq, bint level) noexcept nogil:
    """Drive one of the 15 request lines (never 2)."""
    if irq < 8:
        chip_set_line(&p.master, irq, level)
    elif (p.slave.line >> (irq - 8) & 1) != level:
        chip_set_line(&p.slave, irq - 8, level)
        pic_cascade(p)

cdef inline bint pic_irq(const Pic* p) noexcept nogil:
    """INTR, the wire to the processor."""
    return chip_pending(&p.master) >= 0

cdef inline int chip_take(PicChip* c) noexcept nogil:
    """INTA inside one chip: the IR acknowledged, or -1 for a spurious one (the vector is that of IR7)."""
    cdef int ir = chip_pending(c)
    cdef uint8_t bit
    if ir < 0:
        return -1
    bit = 1 << ir
    c.latch &= ~bit
    if not c.auto_eoi:
        c.isr |= bit
    elif c.rotate_auto_eoi:
        c.lowest = ir
    return ir

cdef inline int pic_ack(Pic* p) noexcept nogil:
    """The INTA cycle: the vector, 0 to 255."""
    cdef int ir = chip_take(&p.master)
    if ir == 2 and not p.master.single and p.master.icw3 & 4:
        chip_set_line(&p.master, 2, False)       # INT falls with INTA, and rises anew for the next
        ir = chip_take(&p.slave)
        pic_cascade(p)
        return p.slave.vector | (7 if ir < 0 else ir)
    return p.master.vector | (7 if ir < 0 else ir)

cdef inline void chip_icw1(PicChip* c, uint8_t value) noexcept nogil:
    """ICW1 starts initialization: data sheet, "Initialization command words 1 and 2"."""
    c.latch = c.isr = c.imr = 0
    c.lowest = 7
    c.special_mask = c.read_isr = c.poll = 0
    c.auto_eoi = c.rotate_auto_eoi = c.nested = 0
    c.needs_icw4 = value & 1
    c.single = value >> 1 & 1
    c.ltim = value >> 3 & 1
    c.icw = 2

cdef inline void chip_ocw2(PicChip* c, uint8_t value) noexcept nogil:
    """End of interrupt and rotation: bits 7 R, 6 SL, 5 EOI, 2..0 level."""
    cdef int command = value >> 5, ir = value & 7, rank
    if command == 1 or command == 5:             # non-specific EOI, with rotation
        rank = chip_rank(c, chip_serving(c))
        if rank == 8:
            return
        ir = (rank + c.lowest + 1) & 7
        c.isr &= ~(1 << ir)
        if command == 5:
            c.lowest = ir
    elif command == 3 or command == 7:           # specific EOI, with rotation
        c.isr &= ~(1 << ir)
        if command == 7:
            c.lowest = ir
    elif command == 6:                           # set priority
        c.lowest = ir
    elif command == 0 or command == 4:           # rotate in automatic EOI mode
        c.rotate_auto_eoi = command == 4

cdef inline void chip_ocw3(PicChip* c, uint8_t value) noexcept nogil:
    if value & 0x40:
        c.special_mask = value >> 5 & 1
    if value & 0x04:
        c.poll = 1
    elif value & 0x02:
        c.read_isr = value & 1

cdef inline void chip_write(PicChip* c, bint a0, uint8_t value) noexcept nogil:
    if not a0:
        if value & 0x10:
            chip_icw1(c, value)
        elif value & 0x08:
            chip_ocw3(c, value)
        else:
            chip_ocw2(c, value)
    elif c.icw == 2:
        c.vector = value & 0xF8
        c.icw = 3 if not c.single else 4 if c.needs_icw4 else 0
    elif c.icw == 3:
        c.icw3 = value
        c.icw = 4 if c.needs_icw4 else 0
    elif c.icw == 4:
        c.nested = value >> 4 & 1
        c.auto_eoi = value >> 1 & 1
        c.icw = 0
    else:
        c.imr = value                            # OCW1

cdef inline uint8_t chip_read(PicChip* c, bint a0) noexcept nogil:
    cdef int ir
    if c.poll:
        c.poll = 0
        ir = chip_take(c)
        return 0 if ir < 0 else 0x80 | ir
    if a0:
        return c.imr
    return c.isr if c.read_isr else chip_irr(c)

cdef inline void pic_write(Pic* p, bint slave, bint a0, uint8_t value) noexcept nogil:
    chip_write(&p.slave if slave else &p.master, a0, value)
    pic_cascade(p)

cdef inline uint8_t pic_read(Pic* p, bint slave, bint a0) noexcept nogil:
    cdef uint8_t value = chip_read(&p.slave if slave else &p.master, a0)
    pic_cascade(p)
    return value
