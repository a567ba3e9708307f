# SPDX-License-Identifier: GPL-2.0-or-later
"""One x86 guest under every style of virtualization, every cycle booked to a cause.

    >>> from pyx86v import Machine
    >>> m = Machine(style="vmx+ept")
    >>> m.load("hello.elf")
    >>> m.run().reason
    <StopReason.EXIT: 'exit'>
"""
import ctypes
import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyx86v._core import Machine, SnapshotError, Stop, StopReason

__version__ = "0.1.0"
__all__ = ["Machine", "SnapshotError", "Stop", "StopReason"]


def _preload(package, library):
    """Load a wheel's library so that our extensions, wherever they lie, find it by its SONAME.

    The rpath of an installed extension leads to the wheel; that of an editable install does not, and
    libcapstone's SONAME is not its file name.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"pyx86v needs the Python package {package!r}")
    ctypes.CDLL(os.path.join(os.path.dirname(spec.origin), "lib", library))


_preload("unicorn", "libunicorn.so.2")
_preload("capstone", "libcapstone.so")


def __getattr__(name):
    """The engine is loaded on first use: --help and the image parsers do without it."""
    if name in __all__:
        from pyx86v import _core
        return getattr(_core, name)
    raise AttributeError(f"module 'pyx86v' has no attribute {name!r}")
