# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a run ended."""
import enum
from collections import namedtuple


class StopReason(enum.Enum):
    """Why a run ended."""
    EXIT = "exit"              # the guest wrote its status to the debug-exit port, or switched the machine off (status 0)
    HALT = "halt"              # HLT with nothing left that could wake the guest
    SHUTDOWN = "shutdown"      # triple fault, or the guest reset the machine
    LIMIT = "limit"            # a limit of run()
    HOLE = "hole"              # a sensitive instruction that did not trap (deprivileged styles)
    ERROR = "error"            # the monitor could not go on
    BREAKPOINT = "breakpoint"  # an address of add_breakpoint()


Stop = namedtuple("Stop", "reason status detail")
Stop.__doc__ = "What run() returns: reason (StopReason), status (int, the guest's), detail (str)."
