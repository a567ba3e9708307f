# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a run ended."""
import enum
from collections import namedtuple


class StopReason(enum.Enum):
    """Why a run ended.

    EXIT        the guest wrote its status to the debug-exit port, or switched the machine off (status 0)
    HALT        HLT with nothing left that could wake the guest
    SHUTDOWN    triple fault, or the guest reset the machine
    LIMIT       a limit of run(), or an exit hook that returned True
    HOLE        a sensitive instruction that did not trap (deprivileged styles)
    ERROR       the monitor could not go on
    BREAKPOINT  an address of add_breakpoint()
    """
    EXIT = "exit"
    HALT = "halt"
    SHUTDOWN = "shutdown"
    LIMIT = "limit"
    HOLE = "hole"
    ERROR = "error"
    BREAKPOINT = "breakpoint"


Stop = namedtuple("Stop", "reason status detail")
Stop.__doc__ = "What run() returns: reason (StopReason), status (int, the guest's), detail (str)."
