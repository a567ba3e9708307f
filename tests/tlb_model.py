# SPDX-License-Identifier: GPL-2.0-or-later
"""An independent model of TLBs and paging-structure caches: per access, in plain Python lists and dicts.

Written from the description at the top of pyx86v/mmu/tlb.pxd and the manual; it shares no code with it.
"""
M64 = (1 << 64) - 1
TRANSLATIONS = ("I_4K", "I_2M", "I_1G", "D_4K", "D_2M", "D_1G", "L2", "L2_2M", "L2_1G", "L2_CODE")
NAMES = (*TRANSLATIONS, "PML4E", "PDPTE", "PDE", "NESTED")
SUFFIX = {12: "4K", 21: "2M", 30: "1G"}


class Set:
    """One set: way -> key, and which way goes next."""

    def __init__(self, ways, policy, draw):
        self.keys = [None] * ways
        self.age = {}            # key -> time of fill or use
        self.policy, self.draw = policy, draw
        self.pointer = self.time = 0

    def touch(self, key):
        self.time += 1
        self.age[key] = self.time

    def victim_way(self):
        free = [w for w, k in enumerate(self.keys) if k is None]
        if self.policy == "round-robin":
            way = self.pointer
            self.pointer = (way + 1) % len(self.keys)
            return way
        if free:
            return free[0]
        if self.policy == "random":
            return self.draw(len(self.keys))
        return min(range(len(self.keys)), key=lambda w: self.age[self.keys[w]])

    def insert(self, key):
        way = self.victim_way()
        old = self.keys[way]
        self.keys[way] = key
        self.touch(key)
        return old

    def remove(self, key):
        self.keys[self.keys.index(key)] = None


class Array:
    """A key is (tag, number, shift); tag is (pcid) or "global"."""

    def __init__(self, name, entries, ways, policy, seed):
        self.name, self.policy = name, policy
        ways = ways or entries
        self.state = (seed + NAMES.index(name) + 1) * 0x9E3779B97F4A7C15 & M64 | 1
        self.sets = [Set(ways, policy, self.draw) for _ in range(entries // ways if entries else 0)]
        self.hits = self.fills = self.evictions = 0
        self.flags = {}          # key -> dirty?

    def draw(self, n):
        """xorshift64*, scaled to 0..n-1 by its upper half."""
        x = self.state
        x ^= x >> 12
        x = (x ^ x << 25) & M64
        x ^= x >> 27
        self.state = x
        return ((x * 0x2545F4914F6CDD1D & M64) >> 32) * n >> 32

    def find(self, key):
        return key in self.flags

    def use(self, key):
        self.hits += 1
        if self.policy == "lru":
            self.sets[key[1] % len(self.sets)].touch(key)

    def insert(self, key, dirty=True):
        old = self.sets[key[1] % len(self.sets)].insert(key)
        self.fills += 1
        if old:
            self.evictions += 1
            del self.flags[old]
        self.flags[key] = dirty
        return old

    def remove(self, key):
        self.sets[key[1] % len(self.sets)].remove(key)
        del self.flags[key]


class Page:
    """`shift` is that of the TLB entry, `guest_shift` of the guest's page where that is larger."""

    def __init__(self, va, shift, is_global=False, dirty=True, guest_shift=None):
        self.va, self.shift, self.is_global, self.dirty = va, shift, is_global, dirty
        self.guest_shift = guest_shift or shift


class TlbModel:
    """Pages of a 4-level guest; `pages` maps a 4K page number to a Page."""

    def __init__(self, config):
        get = lambda name: config.get(name, (0, 0, "fifo"))
        self.array = {n: Array(n, *get(n), config.get("seed", 0)) for n in NAMES}
        self.config = config
        self.pcid = 0
        self.misses = {"I": 0, "D": 0}
        self.walks = {"I": 0, "D": 0}
        self.l2_hits = self.rewalks = self.refs = self.flushed = 0

    # ---- where a page lives

    def l1_key(self, side, va, page):
        """(array, key, part of a larger page?) that the first level uses for this page at va."""
        shift = page.shift
        tag = "global" if page.is_global else self.pcid
        while True:
            name = f"{side}_{SUFFIX[shift]}"
            if not self.array[name].sets and self.config.get("large_whole"):
                name = f"{side}_4K"
            if self.array[name].sets:
                return self.array[name], (tag, va >> shift, shift)
            shift -= 9

    def l2_key(self, side, va, page):
        """The same of the second level, (None, None) where the page does not go."""
        config = self.config
        if side == "I" and config.get("l2_split"):
            name = {12: "L2_CODE", 21: "L2_CODE" if config.get("l2_code_2m") else None, 30: None}[page.shift]
        else:
            name = {12: "L2", 21: "L2" if config.get("l2_2m") else "L2_2M", 30: "L2_1G"}[page.shift]
        if not name or not self.array[name].sets:
            return None, None
        return self.array[name], ("global" if page.is_global else self.pcid, va >> page.shift, page.shift)

    # ---- an access

    def access(self, va, side, page, write=False):
        """Returns (va, shift, tag) of an evicted first-level entry, or None."""
        l1, key = self.l1_key(side, va, page)
        l2, key2 = self.l2_key(side, va, page)
        if l1.find(key):
            if not write or l1.flags[key]:
                return None
            self.rewalks += 1
            self.walk(va, page, write)
            l1.flags[key] = page.dirty
            self.fill_l2(l2, key2, page)
            return None
        self.misses[side] += 1
        if l2 and l2.find(key2):
            self.l2_hits += 1
            l2.use(key2)
            if write and not l2.flags[key2]:
                self.rewalks += 1
                self.walk(va, page, write)
                l2.flags[key2] = page.dirty
            return self.gone(l1.insert(key, l2.flags[key2]))
        self.walks[side] += 1
        self.walk(va, page, write)
        self.fill_l2(l2, key2, page)
        return self.gone(l1.insert(key, page.dirty))

    @staticmethod
    def gone(key):
        return key and (key[1] << key[2], key[2], key[0])

    def fill_l2(self, l2, key, page):
        if l2 is None:
            return
        if l2.find(key):
            l2.flags[key] = page.dirty
        else:
            l2.insert(key, page.dirty)

    def walk(self, va, page, write):
        page.dirty |= write
        cached = [("PDE", 21), ("PDPTE", 30), ("PML4E", 39)]
        leaf_level = {12: 1, 21: 2, 30: 3}[page.guest_shift]
        first = 4
        for level, (name, shift) in enumerate(cached, 2):
            key = (self.pcid, va >> shift, shift)
            if self.array[name].find(key):
                self.array[name].use(key)
                first = level - 1
                break
        self.refs += first - leaf_level + 1
        for level in range(first, leaf_level, -1):
            name, shift = cached[level - 2]
            if self.array[name].sets:
                self.array[name].insert((self.pcid, va >> shift, shift))

    # ---- invalidation

    def drop(self, wanted, names):
        for name in names:
            for key in [k for k in self.array[name].flags if wanted(k)]:
                self.array[name].remove(key)
                self.flushed += name in TRANSLATIONS

    def mov_cr3(self, pcid, flush=True):
        self.pcid = pcid
        if flush:
            self.drop(lambda k: k[0] == pcid, NAMES)

    def invlpg(self, va, page):
        inside = lambda k: k[1] << k[2] >> page.shift == va >> page.shift or k[1] == va >> k[2]
        self.drop(lambda k: k[0] in (self.pcid, "global") and inside(k), TRANSLATIONS)
        self.drop(lambda k: k[0] == self.pcid, NAMES[len(TRANSLATIONS):])

    def invpcid(self, kind, pcid, va, page):
        if kind == 0:
            inside = lambda k: k[1] << k[2] >> page.shift == va >> page.shift or k[1] == va >> k[2]
            self.drop(lambda k: k[0] == pcid and inside(k), TRANSLATIONS)
            self.drop(lambda k: k[0] == pcid, NAMES[len(TRANSLATIONS):])
        elif kind == 1:
            self.drop(lambda k: k[0] == pcid, NAMES)
        else:
            self.drop(lambda k: kind == 2 or k[0] != "global", NAMES)
