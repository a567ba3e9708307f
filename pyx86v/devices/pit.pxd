# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8254 interval timer: three 16-bit down counters on a clock of 1.193182 MHz.

Source: Intel 8254 data sheet (231164), "Mode definitions" and "Read operations".
A channel's state is that after `tick` clock pulses.  channel_run() brings it to a later pulse in
constant time: whole periods are divided away, so no count and no pause makes it loop.
A count of 1 is illegal in modes 2 and 3: here OUT then stays high.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from pyx86v.devices.clock cimport NEVER

ctypedef struct PitChannel:
    uint64_t tick            # clock pulses seen so far
    uint32_t count           # CE, the counting element: 0 to the modulus, which reads as 0
    uint32_t initial         # what CR stands for: 1 to the modulus
    uint16_t latch           # OL, the output latch
    uint8_t latched          # bytes of OL still to be read
    uint8_t control          # the last control word's RW, M and BCD bits (status bits 5..0)
    uint8_t mode             # 0 to 5
    uint8_t gate
    uint8_t out
    uint8_t odd              # mode 3: the count loaded last was odd
    uint8_t written          # a count came since the control word
    uint8_t load             # the next pulse moves CR to CE
    uint8_t counting         # CE counts
    uint8_t armed            # modes 4 and 5: the strobe is still to come
    uint8_t null_count       # CR is not yet in CE
    uint8_t low_byte         # first byte of a two-byte count
    uint8_t write_high       # the next byte written is the high one
    uint8_t read_high        # the next byte read is the high one
    uint8_t status           # latched by the read-back command
    uint8_t status_latched

ctypedef struct Pit:
    PitChannel channel[3]

cdef enum:
    RW_LOW = 0x10            # bits 5..4 of the control word
    RW_HIGH = 0x20
    RW_BOTH = 0x30

cdef inline uint32_t modulus(const PitChannel* c) noexcept nogil:
    return 10000 if c.control & 1 else 65536

cdef inline uint32_t decode_count(const PitChannel* c, uint16_t raw) noexcept nogil:
    """What a written count stands for: 0 is the modulus.  Digits above 9 count with their weight."""
    cdef uint32_t n = raw
    if c.control & 1:
        n = ((raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15)) % 10000
    return n if n else modulus(c)

cdef inline uint16_t encode_count(const PitChannel* c) noexcept nogil:
    """CE as the bus reads it."""
    cdef uint32_t n = c.count
    if c.control & 1:
        return <uint16_t>((n // 1000 % 10) << 12 | (n // 100 % 10) << 8 | (n // 10 % 10) << 4 | n % 10)
    return <uint16_t>n

cdef inline uint32_t count_down(const PitChannel* c, uint64_t pulses) noexcept nogil:
    """CE after `pulses` decrements, wrapping from 0 to the highest count."""
    cdef uint32_t step = <uint32_t>(pulses % modulus(c))
    return c.count - step if c.count >= step else c.count + modulus(c) - step

cdef inline void load_count(PitChannel* c) noexcept nogil:
    """The clock pulse that moves CR to CE; it does not count."""
    c.load = c.null_count = 0
    c.counting = c.armed = 1
    c.count = c.initial
    if c.mode == 3:
        c.odd = c.initial & 1
        c.count &= ~<uint32_t>1
    if c.mode == 1:
        c.out = 0
    elif c.mode != 0:
        c.out = 1

cdef inline bint run_once(PitChannel* c, uint64_t pulses) noexcept nogil:
    """Modes 0 and 1: OUT rises when CE reaches 0, and stays."""
    cdef bint rose
    if c.mode == 0 and not c.gate:
        return False
    rose = not c.out and pulses >= c.count
    c.out |= rose
    c.count = count_down(c, pulses)
    return rose

cdef inline bint run_rate(PitChannel* c, uint64_t pulses) noexcept nogil:
    """Mode 2: OUT is low while CE is 1; the next pulse reloads."""
    cdef bint rose
    if not c.gate:
        return False
    if pulses < c.count:
        c.count -= <uint32_t>pulses
        c.out &= c.count != 1
        return False
    rose = c.count > 1 or not c.out
    pulses -= c.count
    c.null_count = 0
    rose |= c.initial > 1 and pulses >= c.initial
    c.count = c.initial - <uint32_t>(pulses % c.initial)
    c.out = c.count != 1 or c.initial == 1
    return rose

cdef inline uint64_t half_left(const PitChannel* c) noexcept nogil:
    """Mode 3: pulses to the end of the half period.  An odd count gives the high half one more."""
    return c.count // 2 + (c.odd & c.out)

cdef inline bint run_square(PitChannel* c, uint64_t pulses) noexcept nogil:
    """Mode 3: CE counts by two, OUT toggles at each end."""
    cdef uint64_t left = half_left(c)
    cdef bint rose
    if not c.gate:
        return False
    if pulses < left:
        c.count -= 2 * <uint32_t>pulses
        return False
    pulses -= left
    c.null_count = 0
    c.odd = c.initial & 1
    if c.initial == 1:
        rose = not c.out
        c.out = 1
        c.count = 0
        return rose
    c.out ^= 1
    rose = c.out
    pulses %= c.initial
    c.count = c.initial & ~<uint32_t>1
    if pulses >= half_left(c):
        pulses -= half_left(c)
        c.out ^= 1
        rose |= c.out
    c.count -= 2 * <uint32_t>pulses
    return rose

cdef inline bint run_strobe(PitChannel* c, uint64_t pulses) noexcept nogil:
    """Modes 4 and 5: OUT is low for the one pulse at which CE reaches 0."""
    cdef bint rose = not c.out
    c.out = 1
    if c.mode == 4 and not c.gate:
        return rose
    if c.armed and pulses >= c.count:
        c.armed = 0
        if pulses == c.count:
            c.out = 0
        else:
            rose = True
    c.count = count_down(c, pulses)
    return rose

cdef inline bint channel_run(PitChannel* c, uint64_t tick) noexcept nogil:
    """Let the clock pulse up to `tick`.  When OUT ends high, True says that it rose on the way."""
    cdef uint64_t pulses = tick - c.tick
    cdef bint rose = False
    if tick <= c.tick:
        return False
    c.tick = tick
    if c.load:
        rose = not c.out
        load_count(c)
        rose &= c.out
        pulses -= 1
    if not c.counting or pulses == 0:
        return rose
    if c.mode < 2:
        return run_once(c, pulses) | rose
    if c.mode == 2:
        return run_rate(c, pulses) | rose
    if c.mode == 3:
        return run_square(c, pulses) | rose
    return run_strobe(c, pulses) | rose

cdef inline uint64_t counting_edge(const PitChannel* c, bint rising) noexcept nogil:
    """Pulses from a counting state to the next edge of OUT in that direction; NEVER if none."""
    cdef uint64_t left
    if c.mode >= 4:
        if not c.out:
            return 1 if rising else NEVER
        if not c.armed or (c.mode == 4 and not c.gate):
            return NEVER
        return <uint64_t>c.count + rising
    if c.mode < 2:
        if c.out or not rising or (c.mode == 0 and not c.gate):
            return NEVER
        return c.count
    if not c.gate:
        return NEVER
    if c.mode == 2:
        if c.count > 1:
            return c.count - (0 if rising else 1)
        if not c.out and rising:
            return 1
        return NEVER if c.initial == 1 else <uint64_t>c.initial + rising
    left = half_left(c)
    if c.initial == 1:                           # the end of the half period raises OUT for good
        return left if rising and not c.out else NEVER
    if c.out != rising:
        return left
    return left + c.initial // 2 + (0 if rising else c.initial & 1)

cdef inline uint64_t channel_edge(const PitChannel* c, bint rising) noexcept nogil:
    """The tick at which OUT next rises (or falls) by itself; NEVER if it does not."""
    cdef PitChannel loaded
    cdef uint64_t pulses
    if not c.load:
        if not c.counting:
            return NEVER
        pulses = counting_edge(c, rising)
        return NEVER if pulses == NEVER else c.tick + pulses
    loaded = c[0]
    load_count(&loaded)
    if loaded.out != c.out and loaded.out == rising:
        return c.tick + 1
    pulses = counting_edge(&loaded, rising)
    return NEVER if pulses == NEVER else c.tick + 1 + pulses

cdef inline void channel_control(PitChannel* c, uint8_t value) noexcept nogil:
    """A control word: OUT takes its initial state at once, counting waits for a count."""
    cdef int mode = value >> 1 & 7
    c.control = value & 0x3F
    c.mode = mode & 3 if mode > 5 else mode      # modes 6 and 7 are 2 and 3
    c.out = c.mode != 0
    c.null_count = 1
    c.written = c.load = c.counting = c.armed = 0
    c.write_high = c.read_high = c.latched = c.status_latched = 0
    c.count %= modulus(c)

cdef inline void channel_count(PitChannel* c, uint16_t raw) noexcept nogil:
    """A complete count has been written to CR."""
    c.initial = decode_count(c, raw)
    c.null_count = 1
    if c.mode == 0:
        c.out = 0
    if c.mode == 0 or c.mode == 4:
        c.load = 1
    elif c.mode == 2 or c.mode == 3:
        c.load |= not c.counting                 # a running period ends first
    c.written = 1

cdef inline void channel_write(PitChannel* c, uint8_t value) noexcept nogil:
    cdef int rw = c.control & RW_BOTH
    if rw == RW_LOW:
        channel_count(c, value)
    elif rw == RW_HIGH:
        channel_count(c, <uint16_t>(value << 8))
    elif c.write_high:
        c.write_high = 0
        channel_count(c, <uint16_t>(value << 8 | c.low_byte))
    else:
        c.write_high = 1
        c.low_byte = value
        if c.mode == 0:                          # the first byte stops the counter
            c.out = c.counting = c.load = 0

cdef inline uint8_t channel_read(PitChannel* c) noexcept nogil:
    """One byte: latched status before latched count before CE."""
    cdef int rw = c.control & RW_BOTH
    cdef uint16_t value
    cdef bint high = rw == RW_HIGH
    if c.status_latched:
        c.status_latched = 0
        return c.status
    value = c.latch if c.latched else encode_count(c)
    if c.latched:
        c.latched -= 1
    if rw == RW_BOTH:
        high = c.read_high
        c.read_high ^= 1
    return <uint8_t>(value >> 8 if high else value)

cdef inline void latch_count(PitChannel* c) noexcept nogil:
    """A second latch command before the count has been read is ignored."""
    if not c.latched:
        c.latch = encode_count(c)
        c.latched = 2 if c.control & RW_BOTH == RW_BOTH else 1

cdef inline void latch_status(PitChannel* c) noexcept nogil:
    if not c.status_latched:
        c.status = c.out << 7 | c.null_count << 6 | c.control
        c.status_latched = 1

cdef inline void channel_gate(PitChannel* c, bint level) noexcept nogil:
    """GATE: an edge triggers modes 1 and 5 and restarts 2 and 3, whose OUT a low level sets high."""
    if level == c.gate:
        return
    c.gate = level
    if level and c.mode != 0 and c.mode != 4:
        c.load |= c.written
    elif not level and (c.mode == 2 or c.mode == 3):
        c.out = 1

cdef inline void pit_control(Pit* p, uint8_t value) noexcept nogil:
    """Port 43h.  All channels must have been run to the present."""
    cdef int i
    if value >> 6 != 3:
        if value & RW_BOTH:
            channel_control(&p.channel[value >> 6], value)
        else:
            latch_count(&p.channel[value >> 6])
        return
    for i in range(3):                           # read-back command
        if value >> (i + 1) & 1:
            if not value & 0x20:
                latch_count(&p.channel[i])
            if not value & 0x10:
                latch_status(&p.channel[i])

cdef inline void pit_init(Pit* p) noexcept nogil:
    """As PC firmware leaves it: three square waves of 65,536; channel 2's gate is low."""
    cdef int i
    for i in range(3):
        p.channel[i].gate = i != 2
        channel_control(&p.channel[i], <uint8_t>(i << 6 | 0x36))
        channel_count(&p.channel[i], 0)
