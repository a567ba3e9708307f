# SPDX-License-Identifier: GPL-2.0-or-later
"""Random guest programs that change page tables, and the judge of what shadow paging makes of them.

The judge walks the guest's tables with tests/walker.py, and remembers every value that a table slot has held.  An access
that is refused, or that the monitor carries out itself, must be refused or answered as the tables say now.  One that is
allowed must lead where a walk leads that takes, at each level, a value which the slot holds now or held at some moment
since the address was last invalidated: what a TLB and paging-structure caches may do (SDM 3A 4.10.2 to 4.10.4).  INVLPG
invalidates the whole of a large page.
"""
import random
from collections import Counter
from dataclasses import dataclass, field

import walker
from mmu_help import *
from pyx86v.mmu.shadow_testing import ShadowBench

FORMATS = {"32": walker.LEGACY, "pse": walker.LEGACY, "pae": walker.PAE, "long": walker.LONG}
SIZE, ROM = 6 << 20, 1 << 14
ROM_GPA = (1 << 32) - ROM
TABLES = range(1, 9)              # frames that hold tables, most of the time
INDEXES = (0, 1, 2, 3, 511)
INDEXES_32 = (0, 1, 2, 256, 511, 512, 1023)  # a 32-bit table has 1,024: more than one shadow table each
SHIFTS = (12, 21, 22, 30, 39)     # of pages, and of what one entry above them covers
NO_A20 = ~(1 << 20) & (1 << 64) - 1


@dataclass
class Machine(walker.Context):
    """The guest's registers; memory is a bytearray of its RAM and, behind it, its firmware."""
    a20: int = (1 << 64) - 1
    history: dict = field(default_factory=dict)


class Native(walker.Walker):
    """The walker over a guest's RAM and firmware.  It notes the accessed and dirty flags that it sets."""

    def __init__(self, memory, ctx):
        super().__init__(memory, ctx)
        self.marks, self.path = [], []

    def nested(self, gpa, read=False, write=False, fetch=False, final=False):
        gpa &= self.ctx.a20
        if gpa < SIZE:
            return gpa, 48, "rwx"
        if 0 <= gpa - ROM_GPA < ROM:
            return SIZE + gpa - ROM_GPA, 48, "rwx"
        return None, 48, "rwx"

    def load(self, hpa, width):
        self.path.append((hpa, width))
        return super().load(hpa, width)

    def store(self, hpa, width, value):
        if hpa is not None and hpa < SIZE:
            self.marks.append((hpa, width, bytes(self.memory[hpa:hpa + width])))
            super().store(hpa, width, value)

    def undo(self):
        """Take the flags back.  {(slot, width): (value before, value after)}, the leaf's entry last."""
        marks = {}
        for hpa, width, was in reversed(self.marks):
            now = marks.get((hpa, width), (0, super().load(hpa, width)))[1]
            marks[hpa, width] = int.from_bytes(was, "little"), now
            self.memory[hpa:hpa + width] = was
        self.marks = []
        return dict(reversed(marks.items()))


class Judge:
    """Guest memory as the manual has it, and what may still be cached."""

    def __init__(self, ctx, memory):
        self.ctx, self.memory = ctx, memory
        self.past = {}            # (slot, width): [(time of the change, value until then)]
        self.now = self.flushed = self.walks_flushed = 0
        self.dropped = {}         # (shift, prefix): time of the last invalidation of a page of that size
        self.seen = {}            # (shift, prefix), and ("written", shift, prefix): time of the last access

    def write(self, gpa, data):
        """Guest memory changes: remember what its aligned slots were."""
        self.now += 1
        for width in (4, 8):
            for slot in range(gpa & -width, gpa + len(data), width):
                was = int.from_bytes(self.memory[slot:slot + width], "little")
                self.past.setdefault((slot, width), []).append((self.now, was))
        self.memory[gpa:gpa + len(data)] = data

    def flush(self):
        self.now += 1
        self.flushed = self.walks_flushed = self.now

    def invalidate(self, gva, shifts=SHIFTS):
        self.now += 1
        self.walks_flushed = self.now
        for shift in shifts:
            self.dropped[shift, gva >> shift] = self.now

    def since(self, gva, shift=12):
        """When what may be cached for the address from a page of this size was last dropped."""
        return max(self.flushed, self.dropped.get((12, gva >> 12), 0), self.dropped.get((shift, gva >> shift), 0))

    def values(self, native, gpa, width, gva, level, maps):
        """All that the slot has held since the page that it maps, or else the address, was invalidated; accessed and dirty
        flags count as set."""
        hpa = native.nested(gpa)[0]
        values = {native.load(hpa, width)}
        since = self.since(gva), self.since(gva, level.shift)
        values.update(v for time, v in self.past.get((hpa, width), ()) if time > since[maps(v)])
        return {v | BIT_A for v in values if v & 1}

    def reachable(self, gva, access, who):
        """Every machine address that a TLB may hold for the access."""
        ctx, native = self.ctx, Native(self.memory, self.ctx)
        if not ctx.pg:
            return {native.nested(gva)[0]}
        fmt = walker.LEGACY if not ctx.pae else walker.LONG if ctx.lme else walker.PAE
        table = ctx.cr3 & walker.bits(ctx.maxphyaddr - 1 if fmt is walker.LONG else 31, 12)
        if fmt is walker.PAE:
            pdpte = ctx.pdpte[gva >> 30 & 3]
            if not pdpte & 1:
                return set()
            table = pdpte & walker.bits(51, 12)
        return set(self.descend(native, fmt, 0, table, [], gva, access, who))

    def descend(self, native, fmt, depth, table, chain, gva, access, who):
        ctx, level, width = self.ctx, fmt[depth], 4 if fmt is walker.LEGACY else 8
        at = table + width * (gva >> level.shift & (1 << level.index_bits) - 1)
        def maps(e):
            return level.shift == 12 or bool(level.can_map and e & PS and (fmt is not walker.LEGACY or ctx.pse))
        for e in self.values(native, at, width, gva, level, maps):
            if e & walker.reserved(ctx, fmt, level, e):
                continue
            if not maps(e):
                yield from self.descend(native, fmt, depth + 1, e & walker.bits(51, 12), chain + [e], gva, access, who)
            elif native.permitted(chain + [e], access, who):
                page = e & walker.bits(51, level.shift) & ~NX
                if fmt is walker.LEGACY and level.shift == 22:
                    page = (e & walker.bits(31, 22)) | (e >> 13 & 0xff) << 32
                yield native.nested(page + (gva & walker.bits(level.shift - 1, 0)))[0]

    def touched(self, gva, access):
        """An allowed access: what may be cached from now on."""
        self.now += 1
        for shift in SHIFTS:
            self.seen[shift, gva >> shift] = self.now
            if access == WRITE:
                self.seen["written", shift, gva >> shift] = self.now

    def may_spare(self, gva, access, path, shift):
        """May a processor leave flags clear, because it walks from what it has cached: (of tables, of the page)?
        `path`: the (slot, width) of the walk's entries, the last that of a page of this size.  An upper entry that is cached
        and has changed, into that of a large page perhaps, leads elsewhere, where the flags may have been set before."""
        since = self.since(gva, shift)
        above = any(self.seen.get((s, gva >> s), 0) > self.walks_flushed for s in SHIFTS[1:])
        past = [[v for time, v in self.past.get(slot, ()) if time > since] for slot in path]
        if above and (any(past[:-1]) or shift > 12 and any(v & (P | PS) == P for v in past[-1])):
            return True, True
        if not self.seen.get((shift, gva >> shift), 0) > since:
            return above, any(v & A and (v & D or access != WRITE) for v in past[-1])   # cached by speculation (4.10.2.3)
        return True, access != WRITE or self.seen.get(("written", shift, gva >> shift), 0) > since or any(v & D for v in past[-1])


BIT_A = A


class Program:
    """One guest on a ShadowBench and on the judge."""

    def __init__(self, seed, modes, base=2 << 20, **options):
        self.random = random.Random(seed)
        self.modes = modes
        self.bench = ShadowBench(guest=SIZE, base=base, rom=ROM, **{"unsync_after": 4} | options)
        self.bench.set(maxphyaddr=36)
        self.ctx = Machine(maxphyaddr=36, size=SIZE)
        self.memory = bytearray(SIZE + ROM)
        self.judge = Judge(self.ctx, self.memory)
        self.base = base
        self.rom_at = None
        self.steps = self.stale = 0
        self.compared = Counter()  # (mode, answer): accesses that were judged
        self.enter_mode(self.random.choice(modes))

    # ---- entries and addresses

    def entry(self, width):
        r = self.random
        frame = r.choice(TABLES) if r.random() < .7 else r.choice((*range(16), 0x1ff, 0x200, 0x300, 0x401, SIZE >> 12, 0x100 | r.choice(TABLES)))
        e = frame << 12 | P
        for bit, chance in ((W, .85), (U, .85), (A, .3), (D, .3), (G, .1), (PS, .04)):
            e |= bit * (r.random() < chance)
        if e & PS and r.random() < .8:
            e &= ~0x1ff000
        if r.random() < .1:
            e &= ~P
        if r.random() < .03:
            e ^= 1 << r.randrange(width * 8)
        if self.ctx.nxe and r.random() < .1:
            e |= NX
        if r.random() < .02:
            e = ROM_GPA | r.getrandbits(14) & 0x3000 | 7
        return e & (1 << 8 * width) - 1

    @property
    def indexes(self):
        """Of the entries that programs change and use."""
        return INDEXES_32 if self.mode in ("32", "pse") else INDEXES

    def address(self):
        r = self.random
        gva = r.choice((0, 1, 8, 0x230, r.randrange(4096))) | r.choice(self.indexes) << 12
        if not self.ctx.pae:
            return gva | r.choice((0, 1, 1, 2, 256, 1023)) << 22
        for shift in (21, 30, 39) if self.ctx.lme and self.ctx.pg else (21, 30):
            gva |= r.choice(INDEXES[:3]) << shift
        return gva

    # ---- the guest's registers

    def registers(self, **changes):
        for name, value in changes.items():
            setattr(self.ctx, {"a20_mask": "a20"}.get(name, name), value)
        self.bench.enter(**changes)
        self.judge.flush()

    def enter_mode(self, name):
        """Fresh identity-like tables for the mode, in the frames for tables: all present, written by DMA."""
        self.mode = name
        r, width = self.random, 4 if name in ("32", "pse") else 8
        for frame in TABLES:
            for index in self.indexes:
                to = frame + 1 if index < 2 and frame < 8 else r.choice((*TABLES, *range(16)))
                self.dma((frame << 12) + index * width, (to << 12 | 7).to_bytes(width, "little"))
        changes = dict(MODES[name]) if name != "off" else dict(cr0=PE, cr4=0, efer=0)
        changes["cr0"] |= WP * r.randrange(2)
        changes["efer"] |= NXE * r.randrange(2) if width == 8 else 0
        changes["cr3"] = 0x1000
        if name == "pae":
            changes["pdpte"] = [0x1001, 0x2001, 0x3001, 0]
        self.registers(**changes)

    def mov_cr3(self):
        cr3 = self.random.choice((1, 1, 1, 2, 3, 0x401, SIZE >> 12)) << 12
        if self.mode == "pae":
            values = [self.random.choice((0, *TABLES)) << 12 for _ in range(4)]
            self.registers(pdpte=[v | (v > 0) for v in values], cr3=cr3)
        else:
            self.registers(cr3=cr3)

    def change_controls(self):
        r, ctx = self.random, self.ctx
        what = r.choice(("cr0", "cr4", "cr4", "efer", "a20"))
        if what == "cr0":
            self.registers(cr0=ctx.cr0 ^ WP)
        elif what == "cr4":
            self.registers(cr4=ctx.cr4 ^ r.choice((SMEP, SMAP, PGE, PSE if self.mode in ("32", "pse") else PGE)))
        elif what == "efer" and self.mode in ("pae", "long"):
            self.registers(efer=ctx.efer ^ NXE)
        elif what == "a20" and r.random() < .2:
            self.registers(a20_mask=NO_A20 if ctx.a20 & 1 << 20 else (1 << 64) - 1)

    # ---- memory

    def dma(self, gpa, data):
        """Somebody else writes guest memory."""
        self.bench.host_wrote(gpa, len(data))
        self.bench.poke(gpa, data)
        self.judge.write(gpa, data)

    def machine(self, hpa):
        """Index in `memory` of a machine address."""
        return hpa - self.base if hpa - self.base < SIZE else SIZE + hpa - self.bench.rom_base

    def access(self, gva, access, who, size=1):
        """One access, judged.  Index in `memory` where it may go, or None."""
        native = Native(self.memory, self.ctx)
        want = native.translate(gva, access, who)
        path, marks = native.path, native.undo()
        kind, value = self.bench.access(gva, access, who, size)
        where = f"step {self.steps} {self.mode} {gva:#x} access {access} privilege {who}"
        if kind == "page-fault":
            assert want.kind == "page-fault" and value == want.pfec, f"{where}: {value:#x}, tables say {want}"
        elif kind == "no-ram":
            rom = access == WRITE and want.kind == "ok" and want.hpa >= SIZE
            assert (rom or want.kind == "no-ram") and value == want.gpa & self.ctx.a20, f"{where}: {value:#x}, tables say {want}"
        else:
            value = self.machine(value)
            if want.kind != "ok" or want.hpa != value:
                assert kind == "ok" and value in self.judge.reachable(gva, access, who), f"{where}: {kind} {value:#x}, tables say {want}"
                self.stale += 1
        self.compared[self.mode, kind] += 1
        self.check_marks(marks, path, gva, access, kind == "ok", kind == "ok" and want.hpa != value, want, where)
        if kind == "page-fault":
            self.judge.invalidate(gva, (12,))
            self.judge.walks_flushed = self.judge.flushed
        else:
            self.judge.touched(gva, access)
        return value if kind in ("ok", "once") else None

    def check_marks(self, marks, path, gva, access, allowed, stale, want, where):
        """Accessed and dirty flags: those of a native walk, but for what caches may spare."""
        above, leaf = self.judge.may_spare(gva, access, path, want.shift if want.kind == "ok" else 12) if marks else (False, False)
        for (at, width), (was, value) in marks.items():
            got = int.from_bytes(self.bench.peek(at, width), "little")
            spared = leaf if want.kind == "ok" and (at, width) == path[-1] else above
            assert got == value or got == was and allowed and (spared or stale), (
                f"{where}: entry at {at:#x} {got:#x}, native {value:#x}")
            self.memory[at:at + width] = got.to_bytes(width, "little")

    def store(self, gva, data, who=KERNEL):
        """A store, byte by byte where it crosses a page, as engines do."""
        pieces = [(gva, data)] if (gva & 0xfff) + len(data) <= 4096 else [(gva + i, data[i:i + 1]) for i in range(len(data))]
        for at, piece in pieces:
            to = self.access(at, WRITE, who, len(piece))
            if to is None:
                break
            if to < SIZE:
                self.bench.poke(to, piece)
                self.judge.write(to, piece)

    def gva_of(self, gpa):
        """Some address at which the guest can reach the frame now, or None."""
        for _ in range(6):
            gva = self.address() & ~0xfff | gpa & 0xfff
            native = Native(self.memory, self.ctx)
            found = native.translate(gva, WRITE, KERNEL)
            native.undo()
            if found.kind == "ok" and found.hpa >> 12 == gpa >> 12:
                return gva
        return None

    def write_table(self):
        """Change an entry of some table, through the guest's own mapping when there is one."""
        r, width = self.random, 4 if self.mode in ("32", "pse") else 8
        gpa = (r.choice(TABLES) << 12) + r.choice(self.indexes) * width
        data = self.entry(width).to_bytes(width, "little")
        if r.random() < .1:
            gpa += r.randrange(-3, 4)
            data = r.randbytes(r.choice((1, 2, 4, 8, 16)))
        if r.random() < .1:
            data = bytes(self.memory[gpa:gpa + len(data)])
        gva = self.gva_of(gpa) if r.random() < .9 else None
        if gva is None:
            self.dma(gpa, data)
        else:
            for _ in range(r.choice((1, 1, 1, 8))):
                self.store(gva, data)

    def step(self):
        r, dice = self.random, self.random.random()
        self.steps += 1
        if dice < .45:
            self.write_table()
        elif dice < .55:
            self.store(self.address(), r.randbytes(r.choice((1, 4, 8))), r.choice((KERNEL, USER)))
        elif dice < .70:
            gva = self.address()
            self.bench.invlpg(gva)
            self.judge.invalidate(gva)
        elif dice < .74:
            self.mov_cr3()
        elif dice < .78:
            self.change_controls()
        elif dice < .79:
            self.enter_mode(r.choice(self.modes))
        for _ in range(2):
            self.access(self.address(), r.randrange(3), r.randrange(3))

    def run(self, steps, check=1000):
        for i in range(steps):
            before = self.compared.total()
            self.step()
            assert self.compared.total() >= before + 2, "each step is judged by two accesses of its own"
            if i % check == check - 1:
                self.bench.check()
                assert self.bench.peek(0, SIZE) == self.memory[:SIZE]
        return self.bench.counts()
