# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles of the block model: one processor a file, every number with its source.

A file has the sections [sources]; [pipeline], the widths, queues and latencies of PIPELINE; [ports], what loads and stores
execute on; [groups], a line for each group of groups.py:

    shift = { uops = "p06", latency = 1, rmw = 3, source = "uops", status = "read", note = "SHL (R64, I8)" }

uops     what the register form executes: a micro-operation that may go to port 0 or 6; `2*p06+p1` are three
latency  cycles from register operands to result
fused, loaded, rmw  fused micro-operations of the register form, the form with a load and the form with a store, where they are not
         what the micro-operations make by themselves
first    1: only the first decoder takes it, though it is one micro-operation
busy     cycles that the divider is taken;  serial  cycles that two such instructions cannot overlap, for microcode

`base = "skylake"` takes the lines that a file does not have from another profile.
"""
import functools
import re
from importlib import resources
from pathlib import Path

from pyx86v.cost.model.groups import GROUPS
from pyx86v.cost.profile import STATUSES, ProfileError, tomllib

# The order of Pipeline in types.pxd.
PIPELINE = ("predecode_bytes", "predecode", "length_change", "instruction_queue", "decoders", "simple", "decode", "microcode",
            "microcode_switch", "fusible_last", "decode_queue", "loop_buffer", "issue", "reorder_buffer", "scheduler", "load_buffer",
            "store_buffer", "load", "load_chase", "load_vector", "forward", "forward_vector", "forward_fail", "move_elimination",
            "unlaminate_indexed", "stack_sync", "pop_first", "tlb_miss", "wide_access", "fuse_arithmetic")
PORTS = ("load", "store_address", "store_address_indexed", "store_data", "stack_sync")
AT_LEAST_ONE = ("predecode", "instruction_queue", "decoders", "decode", "microcode", "decode_queue", "loop_buffer", "issue", "reorder_buffer",
                "scheduler", "load_buffer", "store_buffer", "wide_access")
MOST = 500                      # of a queue (simulate.pxd, QUEUE) or a latency
MAX_KINDS, MAX_PORTS, MAX_UOPS = 12, 16, 60
LINE = {"uops", "latency", "fused", "loaded", "rmw", "busy", "serial", "first", "source", "status", "note"}
ORIGIN = {"source", "status", "note"}


def folder():
    return resources.files("pyx86v.cost.model") / "profiles"


def model_names():
    """Names of the bundled profiles of the block model."""
    return sorted(item.name[:-5] for item in folder().iterdir() if item.name.endswith(".toml"))


def parse_uops(text):
    """[(mask of ports, count)] of `2*p06+p1`; ValueError for anything else."""
    parts = []
    for part in text.split("+") if text else []:
        found = re.fullmatch(r"(?:(\d+)\*)?p([0-9A-F]+)", part)
        if not found:
            raise ValueError(part)
        parts.append((sum(1 << int(port, 16) for port in set(found[2])), int(found[1] or 1)))
    return parts


class _Checked:
    """The checks that turn a wrong field into one line."""

    def __init__(self, shown, data):
        self.shown = shown
        self.data = data

    def fail(self, where, expected):
        raise ProfileError(f"{self.shown}: {where}: expected {expected}")

    def table(self, name):
        if not isinstance(self.data.get(name), dict):
            self.fail(name, f"a table [{name}]")
        return self.data[name]

    def line(self, section, name, allowed):
        line = self.table(section).get(name)
        where = f"{section}.{name}"
        if not isinstance(line, dict):
            self.fail(where, "a line { ..., source, status }")
        for key in line:
            if key not in allowed:
                self.fail(f"{where}.{key}", "no such field")
        if not isinstance(self.table("sources").get(line.get("source")), str):
            self.fail(f"{where}.source", f"a key of [sources], got {line.get('source')!r}")
        if line.get("status") not in STATUSES:
            self.fail(f"{where}.status", "one of " + ", ".join(STATUSES))
        return where, line

    def number(self, where, line, field, default=None, kind=int):
        value = line.get(field, default)
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value <= MOST:
            self.fail(f"{where}.{field}", f"a number from 0 to {MOST}, got {value!r}")
        return value

    def uops(self, where, line):
        try:
            parts = parse_uops(line["uops"])
        except (KeyError, AttributeError, TypeError, ValueError):
            self.fail(f"{where}.uops", f"micro-operations like 2*p06+p1, got {line.get('uops')!r}")
        if len(parts) > MAX_KINDS or sum(count for _, count in parts) > MAX_UOPS:
            self.fail(f"{where}.uops", f"at most {MAX_KINDS} kinds and {MAX_UOPS} micro-operations")
        return parts

    def pipeline(self):
        values = []
        for name in PIPELINE:
            where, line = self.line("pipeline", name, {"value"} | ORIGIN)
            value = self.number(where, line, "value")
            if name == "predecode_bytes" and value not in (0, 1, 2, 4, 8, 16, 32, 64):
                self.fail(where, "a power of two up to 64, or 0 where there is no predecoder")
            if name in AT_LEAST_ONE and value == 0:
                self.fail(where, "at least 1")
            values.append(value)
        return values

    def ports(self):
        masks = []
        for name in PORTS:
            where, line = self.line("ports", name, {"uops"} | ORIGIN)
            parts = self.uops(where, line)
            if len(parts) != 1 or parts[0][1] != 1:
                self.fail(f"{where}.uops", "one micro-operation")
            masks.append(parts[0][0])
        return masks

    def groups(self):
        rows = []
        for name in GROUPS:
            where, line = self.line("groups", name, LINE)
            rows.append((self.uops(where, line), self.number(where, line, "latency"), self.number(where, line, "fused", 0),
                         self.number(where, line, "loaded", 0), self.number(where, line, "rmw", 0), self.number(where, line, "first", 0),
                         round(64 * self.number(where, line, "busy", 0, (int, float))),
                         round(64 * self.number(where, line, "serial", 0, (int, float)))))
        for name in self.table("groups"):
            if name not in GROUPS:
                self.fail(f"groups.{name}", "no such line, this name is not known")
        return rows


def _parse(name_or_path):
    text = str(name_or_path)
    if text in model_names():
        path, shown = folder() / f"{text}.toml", f"model/profiles/{text}.toml"
    elif text.endswith(".toml"):
        path, shown = Path(text), text
    else:
        raise ProfileError(f"block model {text!r}: expected one of {', '.join(model_names())} or the path of a .toml file")
    try:
        return shown, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{shown}: {error.strerror or error}, expected a profile in TOML") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{shown}: {error}, expected TOML in UTF-8".replace("\n", " ")) from None


def _merged(name_or_path, depth):
    """(path as shown, the lines of the file over those of its base)."""
    shown, data = _parse(name_or_path)
    if "base" not in data:
        return shown, data
    if data["base"] not in model_names() or depth > 8:
        raise ProfileError(f"{shown}: base: expected one of {', '.join(model_names())}, got {data['base']!r}")
    below = _merged(data["base"], depth + 1)[1]
    merged = dict(below)
    for key, value in data.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = {**below[key], **value} if both else value
    return shown, merged


@functools.cache
def load_model(name_or_path):
    """{"title", "pipeline": numbers, "ports": masks, "groups": rows, "lines": as in the file}.  Raises ProfileError, one line."""
    shown, data = _merged(name_or_path, 0)
    checked = _Checked(shown, data)
    return {"title": data.get("title", ""), "pipeline": checked.pipeline(), "ports": checked.ports(), "groups": checked.groups(),
            "lines": data}
