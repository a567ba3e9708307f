# SPDX-License-Identifier: GPL-2.0-or-later
"""What a caller gives to Machine, checked: whatever cannot be is one line with the argument's name."""
import os
from numbers import Real


def whole(name, value, least, most):
    """`value` as an int.  ValueError unless it is a whole number from `least` to `most`."""
    if not isinstance(value, Real) or not least <= value <= most or value != int(value):
        raise ValueError(f"{name}: {value!r}, expected {least} to {most}")
    return int(value)


def limit(name, value):
    """A limit of a run as an int, None for none.  ValueError unless it is a number from 0 on."""
    if value is None:
        return None
    if not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value!r}, expected at least 0")
    return int(value)


def paths(name, value):
    """`value` as a list of absolute paths.  ValueError for one path alone, and for what is none."""
    try:
        if isinstance(value, (str, bytes, os.PathLike)):
            raise TypeError
        return [os.path.abspath(path) for path in value]
    except TypeError:
        raise ValueError(f"{name}: {value!r}, expected a list of paths") from None


def guests(value, known):
    """The dicts of `guests`.  ValueError for anything else, and for a key that is not `known`."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"guests: {value!r}, expected a list of dicts")
    for each in value:
        if not isinstance(each, dict) or not each.keys() <= set(known):
            raise ValueError(f"guests: {each!r}, expected a dict with some of {', '.join(known)}")
    return value


def hook(name, value):
    """`value`.  TypeError unless it can be called."""
    if not callable(value):
        raise TypeError(f"{name}: {value!r}, expected something to call")
    return value
