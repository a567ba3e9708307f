# SPDX-License-Identifier: GPL-2.0-or-later
"""An independent page walker in Python, written from the manual and from nothing of pyx86v.mmu.

Each format is a table of levels (SDM 3A tables 4-3 to 4-20, SDM 3C tables 28-1 to 28-6, APM 2 5.3 and 15.25); a walk
first gathers the chain of entries, then judges it.  A bytearray is machine memory; a context is a plain object.
"""
from dataclasses import dataclass, field

READ, WRITE, FETCH = 0, 1, 2
KERNEL_SMAP, USER, KERNEL = 0, 1, 2
BIT = [1 << i for i in range(64)]
ALL_ONES = (1 << 64) - 1


def bits(high, low):
    """The manual's notation high:low as a mask; empty when high < low."""
    return sum(BIT[low:high + 1])


@dataclass
class Level:
    shift: int            # address bits below this level's index
    index_bits: int
    can_map: bool = False  # bit 7 makes it a page


LONG = [Level(39, 9), Level(30, 9, True), Level(21, 9, True), Level(12, 9)]
PAE = [Level(21, 9, True), Level(12, 9)]
LEGACY = [Level(22, 10, True), Level(12, 10)]


@dataclass
class Context:
    cr0: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    pdpte: list = field(default_factory=lambda: [0] * 4)
    eptp: int = 0
    maxphyaddr: int = 40
    base: int = 0          # window
    size: int = 1 << 20
    page1g: bool = True
    ept_1g: bool = True
    exec_only: bool = False
    nested_kind: int = 0   # 1: NPT, and then
    nested_nxe: bool = False   # the host's EFER.NXE

    wp = property(lambda s: bool(s.cr0 & BIT[16]))
    pg = property(lambda s: bool(s.cr0 & BIT[31]))
    pse = property(lambda s: bool(s.cr4 & BIT[4]))
    pae = property(lambda s: bool(s.cr4 & BIT[5]))
    pge = property(lambda s: bool(s.cr4 & BIT[7]))
    smep = property(lambda s: bool(s.cr4 & BIT[20]))
    smap = property(lambda s: bool(s.cr4 & BIT[21]))
    lme = property(lambda s: bool(s.efer & BIT[8]))
    nxe = property(lambda s: bool(s.efer & BIT[11]))


@dataclass
class Result:
    kind: str                      # "ok", "page-fault", "ept-violation", "ept-misconfig", "no-ram"
    gpa: int = 0                   # exact
    hpa: int = 0                   # exact
    pfec: int = 0
    qualification: int = 0
    shift: int = 0                 # smaller of guest and nested page
    guest_refs: int = 0
    nested_refs: int = 0


class Stop(Exception):
    """A walk ended without a page."""


def reserved(ctx, fmt, level, entry):
    """Mask of the bits that must be zero in this present guest entry."""
    m = ctx.maxphyaddr
    maps = level.shift == 12 or (level.can_map and entry & BIT[7])
    if fmt is LEGACY:
        if level.shift == 22 and maps and ctx.pse:
            m = min(m, 40)         # PSE-36: bits 20:13 hold address bits 39:32
            return bits(21, 13) & ~bits(m - 20, 13)
        return 0
    high = bits(51, m) if fmt is LONG else bits(62, m)
    if not ctx.nxe:
        high |= BIT[63]
    if fmt is LONG and level.shift == 39:
        high |= BIT[7]
    if maps and level.shift == 30:
        high |= bits(29, 13) if ctx.page1g else BIT[7]
    if maps and level.shift == 21:
        high |= bits(20, 13)
    return high


class Walker:
    """Walks in `memory` (a bytearray), which it changes as the processor would."""

    def __init__(self, memory, ctx):
        self.memory, self.ctx = memory, ctx
        self.guest_refs = self.nested_refs = 0
        self.reset_outcome()

    def reset_outcome(self):
        self.pfec = self.qualification = self.gpa = 0

    # ---- memory

    def load(self, hpa, width):
        if hpa is None or hpa < 0 or hpa + width > len(self.memory):
            return (1 << 8 * width) - 1
        return int.from_bytes(self.memory[hpa:hpa + width], "little")

    def store(self, hpa, width, value):
        if hpa is not None and 0 <= hpa and hpa + width <= len(self.memory):
            self.memory[hpa:hpa + width] = value.to_bytes(width, "little")

    # ---- nested

    def nested(self, gpa, read=False, write=False, fetch=False, final=False):
        """(hpa, shift, rights string) of a guest-physical address, or Stop."""
        ctx = self.ctx
        if not ctx.eptp:
            return (ctx.base + gpa if gpa < ctx.size else None), 48, "rwx"
        if ctx.nested_kind:
            return self.npt(gpa, write, fetch, final)
        table, rights, chain = ctx.eptp & bits(51, 12), {"r", "w", "x"}, []
        want = read * 1 + write * 2 + fetch * 4

        def violation():
            self.gpa = gpa
            self.qualification = (want | ("r" in rights) << 3 | ("w" in rights) << 4 | ("x" in rights) << 5
                                  | BIT[7] | final * BIT[8])
            raise Stop("ept-violation")

        if gpa > bits(47, 0):
            rights.clear()
            violation()
        for depth, level in enumerate(LONG):
            at = table + 8 * (gpa >> level.shift & 511)
            entry = self.load(at, 8)
            self.nested_refs += 1
            here = {c for c, bit in zip("rwx", BIT) if entry & bit}
            rights &= here
            if not here:
                violation()
            maps = level.shift == 12 or (level.can_map and entry & BIT[7])
            must_be_zero = bits(51, ctx.maxphyaddr)
            if depth == 0:
                must_be_zero |= bits(7, 3)
            elif not maps:
                must_be_zero |= bits(6, 3)
            elif level.shift > 12:
                must_be_zero |= bits(level.shift - 1, 12)
                if level.shift == 30 and not ctx.ept_1g:
                    must_be_zero |= BIT[7]
            bad = entry & must_be_zero or ("w" in here and "r" not in here) or (here == {"x"} and not ctx.exec_only)
            if bad or (maps and (entry >> 3 & 7) in (2, 3, 7)):
                self.gpa = gpa
                raise Stop("ept-misconfig")
            chain.append((at, entry, maps))
            if maps:
                break
            if ctx.eptp & BIT[6]:
                self.store(at, 8, entry | BIT[8])
            table = entry & bits(51, 12)
        if (read and "r" not in rights) or (write and "w" not in rights) or (fetch and "x" not in rights):
            violation()
        if ctx.eptp & BIT[6]:
            self.store(at, 8, entry | BIT[8] | write * BIT[9])
        page = entry & bits(51, level.shift)
        return page + (gpa & bits(level.shift - 1, 0)), level.shift, rights

    def npt(self, gpa, write, fetch, final):
        """The same through AMD's nested tables: a long-mode walk of a user's access (APM 2 15.25.4 to 15.25.6)."""
        ctx = self.ctx
        host = Context(maxphyaddr=ctx.maxphyaddr, page1g=ctx.page1g, efer=ctx.nested_nxe * BIT[11])
        seen = []

        def fault(present, rsvd=False):
            self.gpa = gpa
            self.qualification = (present | write << 1 | BIT[2] | rsvd << 3 | (fetch and ctx.nested_nxe) << 4
                                  | (BIT[32] if final else BIT[33]))
            raise Stop("ept-violation")

        if gpa > bits(47, 0):
            fault(False)
        table = ctx.eptp & bits(51, 12)
        for level in LONG:
            at = table + 8 * (gpa >> level.shift & 511)
            entry = self.load(at, 8)
            self.nested_refs += 1
            if not entry & BIT[0]:
                fault(False)
            if entry & reserved(host, LONG, level, entry):
                fault(True, rsvd=True)
            seen.append(entry)
            if level.shift == 12 or (level.can_map and entry & BIT[7]):
                break
            self.store(at, 8, entry | BIT[5])
            table = entry & bits(51, 12)
        user, writable, no_execute = (all(e & BIT[2] for e in seen), all(e & BIT[1] for e in seen), any(e & BIT[63] for e in seen))
        if not user or (write and not writable) or (fetch and no_execute):
            fault(True)
        self.store(at, 8, entry | BIT[5] | write * BIT[6])
        return (entry & bits(51, level.shift)) + (gpa & bits(level.shift - 1, 0)), level.shift, "rw" if writable else "r"

    # ---- guest

    def entry_hpa(self, gpa):
        """Where a guest entry lies, and whether it may be written (EPT without A/D flags can forbid that)."""
        ad = bool(self.ctx.eptp & BIT[6] or self.ctx.nested_kind)
        hpa, _, rights = self.nested(gpa, read=True, write=ad)
        return hpa, rights

    def mark(self, gpa, hpa, rights, width, entry, flags):
        if entry & flags == flags:
            return
        if "w" not in rights:
            self.gpa = gpa
            self.qualification = 2 | ("r" in rights) << 3 | ("x" in rights) << 5 | BIT[7]
            raise Stop("ept-violation")
        self.store(hpa, width, entry | flags)

    def fault(self, access, user, present, rsvd=False):
        ctx = self.ctx
        fetch_shown = access == FETCH and (ctx.smep or (ctx.pae and ctx.nxe))
        self.pfec = present | (access == WRITE) << 1 | user << 2 | rsvd << 3 | fetch_shown << 4
        raise Stop("page-fault")

    def permitted(self, chain, access, who):
        """SDM 3A 4.6.1, sentence by sentence."""
        ctx = self.ctx
        user_page = all(e & BIT[2] for e in chain)
        writable = all(e & BIT[1] for e in chain)
        executable = not any(e & BIT[63] for e in chain)
        if who != USER:
            smap = ctx.smap and who == KERNEL_SMAP
            if access == READ:
                return not (user_page and smap)
            if access == WRITE:
                return (writable or not ctx.wp) and not (user_page and smap)
            return executable and not (user_page and ctx.smep)
        return user_page and (access == READ or (access == WRITE and writable) or (access == FETCH and executable))

    def guest(self, gva, access, who):
        """(exact gpa, shift) of a linear address, or Stop."""
        ctx = self.ctx
        if not ctx.pg:
            return gva, 48
        user = who == USER
        width = 8
        if not ctx.pae:
            fmt, table, width = LEGACY, ctx.cr3 & bits(31, 12), 4
        elif ctx.lme:
            fmt, table = LONG, ctx.cr3 & bits(ctx.maxphyaddr - 1, 12)
        else:
            fmt = PAE
            if not ctx.pdpte[gva >> 30 & 3] & BIT[0]:
                self.fault(access, user, False)
            table = ctx.pdpte[gva >> 30 & 3] & bits(51, 12)
        chain = []
        for level in fmt:
            gpa = table + width * (gva >> level.shift & (1 << level.index_bits) - 1)
            hpa, rights = self.entry_hpa(gpa)
            entry = self.load(hpa, width)
            self.guest_refs += 1
            if not entry & BIT[0]:
                self.fault(access, user, False)
            if entry & reserved(ctx, fmt, level, entry):
                self.fault(access, user, True, rsvd=True)
            chain.append(entry)
            if level.shift == 12 or (level.can_map and entry & BIT[7] and (fmt is not LEGACY or ctx.pse)):
                break
            self.mark(gpa, hpa, rights, width, entry, BIT[5])
            table = entry & bits(51, 12)
        if not self.permitted(chain, access, who):
            self.fault(access, user, True)
        self.mark(gpa, hpa, rights, width, entry, BIT[5] | (access == WRITE) * BIT[6])
        page = entry & bits(51, level.shift) & ~BIT[63]
        if fmt is LEGACY and level.shift == 22:
            page = (entry & bits(31, 22)) | (entry >> 13 & 0xff) << 32
        return page + (gva & bits(level.shift - 1, 0)), level.shift

    def translate(self, gva, access, who):
        """The whole of one access, as a Result."""
        before = self.guest_refs, self.nested_refs
        self.reset_outcome()
        result = Result("ok")
        try:
            gpa, guest_shift = self.guest(gva, access, who)
            result.gpa = gpa
            hpa, nested_shift, _ = self.nested(gpa, access == READ, access == WRITE, access == FETCH, final=True)
            result.shift = min(guest_shift, nested_shift)
            if hpa is None or hpa | 0xfff >= len(self.memory):
                result.kind = "no-ram"
            else:
                result.hpa = hpa
        except Stop as stop:
            result.kind = str(stop)
            result.gpa = self.gpa
            result.pfec, result.qualification = self.pfec, self.qualification
        result.guest_refs = self.guest_refs - before[0]
        result.nested_refs = self.nested_refs - before[1]
        return result


def pdptes(memory, ctx, cr3):
    """What MOV to CR3 loads under PAE (SDM 3A 4.4.1): a list, or None for #GP."""
    table = cr3 & bits(31, 5)
    values = [int.from_bytes(memory[table + 8 * i:table + 8 * i + 8], "little") for i in range(4)]
    must_be_zero = bits(2, 1) | bits(8, 5) | bits(63, ctx.maxphyaddr)
    return None if any(v & BIT[0] and v & must_be_zero for v in values) else values
