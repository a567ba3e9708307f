# SPDX-License-Identifier: GPL-2.0-or-later
"""Processor profiles: what things cost on which processor, and where each figure comes from.

A profile is a TOML file.  Each price is one named line

    vm_entry = { value = 2409, unit = "cycles", status = "read", source = "aa06", spread = [2300, 2500], note = "..." }

where `source` is a key of the file's [sources] and `status` says how the figure was come by: read in the source, derived from
figures read there (the note says how), recalled from memory of it, or estimated.  A file may start with `base = "skylake"`
and then holds only the lines that differ; the base may have a base itself.
"""
import dataclasses
import functools
import hashlib
import json
import sys
from importlib import resources
from pathlib import Path

from pyx86v.cost.classes import CLASSES
from pyx86v.cost.ledger import Price

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNITS_PER_CYCLE = 64
# The most cycles a line may say.  An instruction with all three surcharges, 512 times over, still fits the 32 bits of InsnMark.units.
MAX_CYCLES = {"prices": 1 << 24, "instructions": (1 << 15) - 1}
STATUSES = ("read", "derived", "recalled", "estimated")
REPLACEMENTS = ("fifo", "round-robin", "random", "lru")
PAGE_SIZES = ("4K", "2M", "1G")
PRICES = tuple(name.lower() for name, number in sorted(Price.__members__.items(), key=lambda item: item[1]) if name != "N_PRICES")
FEATURES = ("pcid", "invpcid", "tagged_tlb", "nested_paging", "pages_1g", "nx", "smep", "smap", "sysenter", "syscall_32", "xsave",
            "avx", "rdtscp", "x2apic", "tsc_deadline")


class ProfileError(ValueError):
    """A profile that cannot be used; the message is one line naming file, field and what was expected."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a profile as the user reads it."""
    section: str
    name: str
    value: float
    unit: str
    source: str
    status: str
    spread: tuple = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class TlbGeometry:
    """One array of the TLB."""
    name: str
    side: str              # code, data or both
    level: int             # 1 or 2
    pages: tuple           # of PAGE_SIZES
    entries: int
    ways: int              # = entries where fully associative
    replacement: str       # of REPLACEMENTS
    approximates: str      # what the part does in life, where that is something else


@dataclasses.dataclass(frozen=True)
class Profile:
    name: str
    title: str
    frequency_hz: int
    maxphyaddr: int
    cpuid: dict            # vendor, brand, family, model, stepping
    features: dict         # bool by FEATURES
    tlbs: tuple            # of TlbGeometry
    walk_cache: dict       # entries by "pde", "pdpte", "pml4e"
    nested_tlb: int        # entries
    asids: int             # tags of TLB entries that a monitor may use: VPIDs or ASIDs but 0
    cache: dict            # (bytes, ways) by "l1", "l2", "l3"; empty: the profile models none
    predictor: dict        # entries by "counters", "targets", "returns"; empty: the same
    prices: list           # units of 1/64 cycle, indexed by ledger.Price
    instructions: list     # units of 1/64 cycle, indexed by class number (classes.INDEX)
    block_model: str       # the profile of the block model for this processor, "": none, instructions cost what their classes cost
    block_model_after: int # executions of a block after which it has the model's price
    rows: tuple            # of Row

    def cycles(self, name):
        """The price `name` (lower case, as in the file) in cycles, from [prices] or else [instructions]."""
        for row in self.rows:
            if row.name == name and row.section in ("prices", "instructions"):
                return row.value
        raise KeyError(name)


class _File:
    """A parsed profile with the checks that turn a wrong field into one line."""

    def __init__(self, path, data):
        self.path = path
        self.data = data
        self.rows = []

    def fail(self, field, expected):
        raise ProfileError(f"{self.path}: {field}: expected {expected}")

    def take(self, table, where, field, kind, expected):
        value = table.get(field)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"{where}.{field}", expected + ("" if field in table else ", it is missing"))
        return value

    def table(self, field, allowed=None):
        value = self.take(self.data, "profile", field, dict, f"a table [{field}]")
        self.only(value, field, allowed)
        return value

    def only(self, table, where, allowed):
        for key in table:
            if allowed is not None and key not in allowed:
                self.fail(f"{where}.{key}", "no such line, this name is not known")

    def count(self, table, where, field, least=0, most=1 << 20):
        value = self.take(table, where, field, int, f"a whole number from {least} to {most}")
        if not least <= value <= most:
            self.fail(f"{where}.{field}", f"a whole number from {least} to {most}, got {value}")
        return value

    def choice(self, table, where, field, choices):
        value = self.take(table, where, field, str, "one of " + ", ".join(choices))
        if value not in choices:
            self.fail(f"{where}.{field}", "one of " + ", ".join(choices) + f", got {value!r}")
        return value

    def origin(self, table, where):
        """(source, status, note) of a line; the source is a key of [sources]."""
        sources = self.table("sources")
        source = self.take(table, where, "source", str, "a key of [sources]")
        if not isinstance(sources.get(source), str) or not sources[source].strip():
            self.fail(f"{where}.source", f"a key of [sources], got {source!r}")
        note = table.get("note", "")
        if not isinstance(note, str):
            self.fail(f"{where}.note", "a string")
        return sources[source], self.choice(table, where, "status", STATUSES), note

    def spread(self, table, where):
        spread = table.get("spread", [])
        numbers = isinstance(spread, list) and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in spread)
        if not numbers or len(spread) not in (0, 2) or list(spread) != sorted(spread):
            self.fail(f"{where}.spread", "two numbers, the lower first")
        return tuple(spread)

    def price(self, section, name, table):
        """Check one price line, note its row, return its units."""
        where = f"{section}.{name}"
        if not isinstance(table, dict):
            self.fail(where, "a line { value, unit, status, source }")
        self.only(table, where, ("value", "unit", "status", "source", "spread", "note"))
        value = self.take(table, where, "value", (int, float), "a number of cycles")
        if not 0 <= value <= MAX_CYCLES[section]:
            self.fail(f"{where}.value", f"0 to {MAX_CYCLES[section]} cycles, got {value}")
        self.choice(table, where, "unit", ("cycles",))
        source, status, note = self.origin(table, where)
        self.rows.append(Row(section, name, value, "cycles", source, status, self.spread(table, where), note))
        return round(value * UNITS_PER_CYCLE)

    def prices(self, section, names):
        table = self.table(section, names)
        for name in names:
            if name not in table:
                self.fail(f"{section}.{name}", "a price line, it is missing")
        return [self.price(section, name, table[name]) for name in names]

    def tlb(self, name, table):
        where = f"tlb.{name}"
        if not isinstance(table, dict):
            self.fail(where, f"a table [{where}]")
        self.only(table, where, ("side", "level", "pages", "entries", "ways", "replacement", "approximates", "source", "status", "note"))
        entries = self.count(table, where, "entries", 1)
        ways = self.count(table, where, "ways", 1, entries)
        sets = entries // ways
        if sets * ways != entries or sets & (sets - 1):
            self.fail(f"{where}.ways", f"{entries} entries in a power of two of sets, got {ways} ways")
        pages = self.take(table, where, "pages", list, "a list of " + ", ".join(PAGE_SIZES))
        if not pages or any(page not in PAGE_SIZES for page in pages):
            self.fail(f"{where}.pages", "a list of " + ", ".join(PAGE_SIZES))
        approximates = table.get("approximates", "")
        if not isinstance(approximates, str):
            self.fail(f"{where}.approximates", "a string")
        source, status, note = self.origin(table, where)
        self.rows.append(Row("tlb", name, entries, "entries", source, status, (), note))
        return TlbGeometry(name, self.choice(table, where, "side", ("code", "data", "both")), self.count(table, where, "level", 1, 2),
                           tuple(pages), entries, ways, self.choice(table, where, "replacement", REPLACEMENTS), approximates)

    def walk_caches(self):
        """Entries of the paging-structure caches and of the nested TLB."""
        table = self.table("walk_cache", ("pde", "pdpte", "pml4e", "nested_tlb"))
        sizes = {}
        for name in ("pde", "pdpte", "pml4e", "nested_tlb"):
            where = f"walk_cache.{name}"
            line = self.take(table, "walk_cache", name, dict, "a line { entries, status, source }")
            self.only(line, where, ("entries", "status", "source", "note"))
            sizes[name] = self.count(line, where, "entries", 0, 4096)
            source, status, note = self.origin(line, where)
            self.rows.append(Row("walk_cache", name, sizes[name], "entries", source, status, (), note))
        return sizes

    def block_model(self):
        """(name of the block model's profile, executions of a block at which the model is asked); ("", 0) without the table."""
        if "block_model" not in self.data:
            return "", 0
        table = self.table("block_model", ("name", "after"))
        name = self.take(table, "block_model", "name", str, "the name of a profile of the block model, or \"\"")
        line = self.take(table, "block_model", "after", dict, "a line { value, unit, status, source }")
        self.only(line, "block_model.after", ("value", "unit", "status", "source", "note"))
        after = self.count(line, "block_model.after", "value", 1, 255)
        self.choice(line, "block_model.after", "unit", ("executions",))
        source, status, note = self.origin(line, "block_model.after")
        self.rows.append(Row("block_model", "after", after, "executions", source, status, (), note))
        return name, after

    def caches(self):
        """{level: (bytes, ways)} of the data caches, none where there is no table."""
        table = self.table("cache", ("l1", "l2", "l3")) if "cache" in self.data else {}
        sizes = {}
        for name, line in table.items():
            where = f"cache.{name}"
            if not isinstance(line, dict):
                self.fail(where, "a line { bytes, ways, status, source }")
            self.only(line, where, ("bytes", "ways", "status", "source", "note"))
            sizes[name] = self.count(line, where, "bytes", 64, 64 << 20), self.count(line, where, "ways", 1, 64)
            if sizes[name][0] % (64 * sizes[name][1]):
                self.fail(f"{where}.bytes", f"a multiple of {sizes[name][1]} ways of 64 bytes, got {sizes[name][0]}")
            source, status, note = self.origin(line, where)
            self.rows.append(Row("cache", f"{name}_size", sizes[name][0], "bytes", source, status, (), note))
        return sizes

    def predictor(self):
        """{table: entries} of the branch predictor, none where there is no table."""
        most = {"counters": 65536, "targets": 8192, "returns": 64}       # as cost/predictor.pxd
        table = self.table("predictor", tuple(most)) if "predictor" in self.data else {}
        sizes = {}
        for name in most if table else ():
            where = f"predictor.{name}"
            line = self.take(table, "predictor", name, dict, "a line { entries, status, source }")
            self.only(line, where, ("entries", "status", "source", "note"))
            sizes[name] = self.count(line, where, "entries", 1, most[name])
            if sizes[name] & (sizes[name] - 1):
                self.fail(f"{where}.entries", f"a power of two, got {sizes[name]}")
            source, status, note = self.origin(line, where)
            self.rows.append(Row("predictor", f"branch_{name}", sizes[name], "entries", source, status, (), note))
        return sizes

    def profile(self, name):
        self.only(self.data, "profile", ("base", "processor", "sources", "tlb", "walk_cache", "cache", "predictor", "prices", "instructions",
                              "block_model"))
        processor = self.table("processor", ("title", "frequency_hz", "maxphyaddr", "cpuid", "features", "asids", "source", "status", "note"))
        source, status, note = self.origin(processor, "processor")
        frequency = self.count(processor, "processor", "frequency_hz", 1_000_000, 10_000_000_000)
        maxphyaddr = self.count(processor, "processor", "maxphyaddr", 32, 52)
        self.rows += [Row("processor", "frequency", frequency, "Hz", source, status, (), note),
                      Row("processor", "maxphyaddr", maxphyaddr, "bits", source, status)]
        cpuid = self.take(processor, "processor", "cpuid", dict, "a table")
        self.only(cpuid, "processor.cpuid", ("vendor", "brand", "family", "model", "stepping"))
        vendor = self.take(cpuid, "processor.cpuid", "vendor", str, "12 characters")
        brand = self.take(cpuid, "processor.cpuid", "brand", str, "at most 47 characters")
        if len(vendor) != 12 or not vendor.isascii():
            self.fail("processor.cpuid.vendor", "12 characters")
        if len(brand) > 47 or not brand.isascii():
            self.fail("processor.cpuid.brand", "at most 47 characters")
        for field, most in (("family", 270), ("model", 255), ("stepping", 15)):
            self.count(cpuid, "processor.cpuid", field, 0, most)
        features = self.take(processor, "processor", "features", dict, "a table")
        self.only(features, "processor.features", FEATURES)
        for feature in FEATURES:
            self.take(features, "processor.features", feature, bool, "true or false")
        tlbs = tuple(self.tlb(name, table) for name, table in self.table("tlb").items())
        for side in ("code", "data"):
            if not any(tlb.level == 1 and tlb.side in (side, "both") and "4K" in tlb.pages for tlb in tlbs):
                self.fail("tlb", f"a first level for 4K pages of {side}")
        asids = self.count(processor, "processor", "asids", 1, 65535) if "asids" in processor else 65535
        sizes = self.walk_caches()
        nested_tlb = sizes.pop("nested_tlb")
        return Profile(name, self.take(processor, "processor", "title", str, "a string"), frequency, maxphyaddr, dict(cpuid),
                       dict(features), tlbs, sizes, nested_tlb, asids, self.caches(), self.predictor(), self.prices("prices", PRICES),
                       self.prices("instructions", tuple(CLASSES)), *self.block_model(), tuple(self.rows))


def _bundled():
    return resources.files("pyx86v.cost") / "profiles"


def profile_names():
    """Names of the bundled profiles."""
    return sorted(item.name[:-5] for item in _bundled().iterdir() if item.name.endswith(".toml"))


def _parse(name_or_path):
    """(name, path as shown to the user, parsed TOML)."""
    text = str(name_or_path)
    if text in profile_names():
        path = _bundled() / f"{text}.toml"
        name, shown = text, f"profiles/{text}.toml"
    elif text.endswith(".toml"):
        path = Path(text)
        name, shown = path.stem, text
    else:
        raise ProfileError(f"profile {text!r}: expected one of {', '.join(profile_names())} or the path of a .toml file")
    try:
        return name, shown, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{shown}: {error.strerror or error}, expected a profile in TOML") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{shown}: {error}, expected TOML in UTF-8".replace("\n", " ")) from None


def _merge(base, data):
    """`data` over `base`: processor fields and lines replace one by one, a line as a whole."""
    merged = dict(base)
    for section, table in data.items():
        if isinstance(table, dict) and isinstance(base.get(section), dict):
            merged[section] = {**base[section], **table}
        else:
            merged[section] = table
    return merged


def load_profile(name_or_path):
    """The Profile of a bundled name or of the user's own .toml file.  It is the caller's own: nobody else sees a change to it.

    Raises ProfileError, one line naming the file, the field and what was expected.
    """
    profile = _read_once(str(name_or_path)) if str(name_or_path) in profile_names() else _read(name_or_path)
    return dataclasses.replace(profile, cpuid=dict(profile.cpuid), features=dict(profile.features), walk_cache=dict(profile.walk_cache),
                               cache=dict(profile.cache), predictor=dict(profile.predictor),
                               prices=list(profile.prices), instructions=list(profile.instructions))


def _lines(name_or_path):
    """(name, path as shown, TOML) with the lines of all bases.  A bundled file's base is a bundled one, never itself."""
    name, shown, data = _parse(name_or_path)
    if "base" in data:
        if data["base"] not in profile_names():
            raise ProfileError(f"{shown}: base: expected one of {', '.join(profile_names())}, got {data['base']!r}")
        data = _merge(_lines(data["base"])[2], data)
    return name, shown, data


def _read(name_or_path):
    name, shown, data = _lines(name_or_path)
    return _File(shown, data).profile(name)


_read_once = functools.cache(_read)      # bundled ones: reading one takes five times as long as the rest of making a Machine


def fingerprint(profile):
    """sha256 of what a run depends on in a profile: everything but where its numbers come from."""
    fields = {name: value for name, value in dataclasses.asdict(profile).items() if name not in ("title", "rows")}
    if profile.block_model:
        from pyx86v.cost.model.profile import load_model
        fields["block_model"] = {name: value for name, value in load_model(profile.block_model).items() if name not in ("title", "lines")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
