# SPDX-License-Identifier: GPL-2.0-or-later
r"""The fixed hardware of ACPI: PM1a event and control registers at 600h and 604h, the power-management timer at 608h.

Source: ACPI specification 6.4, 4.8 "ACPI register model".  There is no SMI and nothing to hand over: SCI_EN is always
one.  The one event is the timer's carry; buttons, the global lock's release and wake-up events do not occur.
The FADT and the sleep type of \_S5 that name all this are written by boot/acpi.py.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from pyx86v.devices.clock cimport NEVER

ctypedef struct AcpiPm:
    uint64_t turn            # how often bit 31 of the timer had changed when it was last looked at
    uint16_t status          # PM1a_STS
    uint16_t enable          # PM1a_EN
    uint16_t control         # PM1a_CNT

cdef enum:
    PM_HERTZ = 3579545
    PM_CARRY = 31            # the timer has 32 bits
    PM_TMR = 1 << 0          # in status and enable: the timer's highest bit changed
    PM_EVENTS = 0x0721       # enables that exist: timer, global lock, buttons, clock
    PM_SCI_EN = 1 << 0
    PM_CONTROL = 0x1C03      # what of control keeps what is written: SLP_TYP, BM_RLD, SCI_EN
    PM_SLP_EN = 1 << 13
    SLP_TYP_OFF = 5          # \_S5

cdef inline void pm_run(AcpiPm* pm, uint64_t pulses) noexcept nogil:
    """Let the timer come to the present."""
    if pulses >> PM_CARRY != pm.turn:
        pm.turn = pulses >> PM_CARRY
        pm.status |= PM_TMR

cdef inline bint pm_sci(const AcpiPm* pm) noexcept nogil:
    """The level of the SCI."""
    return pm.status & pm.enable != 0

cdef inline uint64_t pm_edge(const AcpiPm* pm) noexcept nogil:
    """The pulse at which the SCI next rises by itself; NEVER if it does not."""
    return (pm.turn + 1) << PM_CARRY if pm.enable & PM_TMR and not pm.status & PM_TMR else NEVER

cdef inline uint8_t pm_read(const AcpiPm* pm, int offset, uint64_t pulses) noexcept nogil:
    """A byte of 600h to 60Fh.  The timer must have been run to the present."""
    if offset >= 8:
        return pulses >> 8 * (offset - 8) & 0xFF if offset < 12 else 0xFF
    if offset < 2:
        return pm.status >> 8 * offset & 0xFF
    if offset < 4:
        return pm.enable >> 8 * (offset - 2) & 0xFF
    return (pm.control | PM_SCI_EN) >> 8 * (offset - 4) & 0xFF if offset < 6 else 0xFF

cdef inline bint pm_write(AcpiPm* pm, int offset, uint8_t value) noexcept nogil:
    """The timer must have been run to the present.  True: the guest switches the machine off."""
    cdef uint16_t byte = <uint16_t>0xFF << 8 * (offset & 1), wide = <uint16_t>value << 8 * (offset & 1)
    if offset < 2:
        pm.status &= ~wide                       # ones clear
    elif offset < 4:
        pm.enable = (pm.enable & ~byte) | (wide & PM_EVENTS)
    elif offset < 6:
        pm.control = (pm.control & ~byte) | (wide & PM_CONTROL)
        return wide & PM_SLP_EN and wide >> 10 & 7 == SLP_TYP_OFF
    return False
