# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model for Python: cycles for one repetition of a block, what decides them, how the ports are used, the critical chain."""
from libc.stdint cimport uint32_t
from libc.string cimport memset

from pyx86v.cost.model.decode cimport model_decode
from pyx86v.cost.model.pricer cimport MAX_INSTANCES, Arena, arena_free, arena_new, code_units
from pyx86v.cost.model.simulate cimport *
from pyx86v.cost.model.types cimport *
from pyx86v.cost.model.groups import GROUPS
from pyx86v.cost.model.profile import PIPELINE, load_model

cdef enum:
    MAX_BYTES = 8192
    LEAST_UOPS = 2000           # simulated, of which half are measured
    LEAST_ITERATIONS = 32
    MOST_ITERATIONS = 480

NAMES = tuple(GROUPS)
STAGES = {"predecode": WITH_PREDECODE, "decode": WITH_DECODE, "issue": 0, "ports": 0, "divider": WITH_DIVIDER, "dependency": WITH_DEPENDENCIES}


cdef int iterations_for(const Block* b, const Uarch* u, int* turn_out) noexcept nogil:
    """Enough for a steady state, and a whole number of turns of the predecoder's windows in each half."""
    cdef int turn = 1, n, slots = 0, k, bytes = b.bytes
    for k in range(b.n):
        slots += b.insns[k].slots
    while bytes % 2 == 0 and turn < u.pipe.predecode_bytes:
        bytes //= 2
        turn *= 2
    turn = u.pipe.predecode_bytes // turn if turn and u.pipe.predecode_bytes else 1
    if turn < 1:
        turn = 1
    turn_out[0] = turn if turn > 1 else 2
    n = (LEAST_UOPS + slots - 1) // slots if slots else LEAST_ITERATIONS
    if n < LEAST_ITERATIONS:
        n = LEAST_ITERATIONS
    if n > MOST_ITERATIONS:
        n = MOST_ITERATIONS
    n = (n + 2 * turn - 1) // (2 * turn) * 2 * turn
    return n if n < MAX_ITERATIONS else MAX_ITERATIONS


cdef int64_t issue_bound(const Block* b, const Uarch* u) noexcept nogil:
    cdef int64_t slots = 0
    cdef int k
    for k in range(b.n):
        if not b.insns[k].fused_branch:
            slots += b.insns[k].slots
    return slots * UNITS // u.pipe.issue


cdef int64_t port_bound(const Block* b) noexcept nogil:
    """For every union of sets of ports: micro-operations that must go there over the ports in it."""
    cdef uint16_t masks[64]
    cdef int counts[64]
    cdef int n = 0, k, j, total, bits
    cdef int64_t best = 0
    cdef uint32_t union_, m
    for k in range(b.n_uops):
        for j in range(n):
            if masks[j] == b.uops[k].ports:
                counts[j] += 1
                break
        else:
            if n < 64:
                masks[n] = b.uops[k].ports
                counts[n] = 1
                n += 1
    for k in range(n):
        for j in range(n):
            union_ = masks[k] | masks[j]
            total = bits = 0
            for m in range(<uint32_t>n):
                if masks[m] & ~union_ == 0:
                    total += counts[m]
            for m in range(MAX_PORTS):
                bits += union_ >> m & 1
            best = later(best, total * UNITS // bits)
    return best


cdef class BlockModel:
    """The block model of one processor.

    name  of a bundled profile of the model, or the path of a .toml file
    """
    cdef Arena* a
    cdef uint32_t uses[MAX_INSNS * MAX_PORTS]       # of the block that was analysed last
    cdef readonly str name

    def __cinit__(self, name):
        table = load_model(str(name))
        self.name = str(name)
        self.a = arena_new(table)

    def __dealloc__(self):
        arena_free(self.a)

    cdef int decode(self, const uint8_t[::1] code, int bits) except -1:
        if bits not in (16, 32, 64):
            raise ValueError(f"bits: expected 16, 32 or 64, got {bits}")
        if not 1 <= len(code) <= MAX_BYTES:
            raise ValueError(f"code: expected 1 to {MAX_BYTES} bytes, got {len(code)}")
        taken = model_decode(&self.a.capstone, &self.a.uarch, &code[0], <uint32_t>len(code), bits, &self.a.block)
        if taken != len(code):
            raise ValueError(f"code: expected whole instructions, at most {MAX_INSNS}; byte {taken} begins none")
        return taken

    cdef int64_t run(self, int with_, bint same, int32_t* parent, bint quick, uint32_t* uses=NULL) noexcept nogil:
        cdef int turn = 1, iterations = iterations_for(&self.a.block, &self.a.uarch, &turn)
        sim_start(&self.a.sim, with_, same)
        self.a.sim.insn_uses = uses
        return simulate(&self.a.sim, &self.a.uarch, &self.a.block, iterations, turn if quick else 0, parent, MAX_INSTANCES)

    def first(self, code, int bits=64):
        """(bytes, group, whether it has an entry) of the instruction that `code` begins with; None if it begins none."""
        cdef const uint8_t[::1] view = code
        if bits not in (16, 32, 64):
            raise ValueError(f"bits: expected 16, 32 or 64, got {bits}")
        if len(view) == 0 or model_decode(&self.a.capstone, &self.a.uarch, &view[0], <uint32_t>min(len(view), 15), bits, &self.a.block) == 0:
            return None
        i = &self.a.block.insns[0]
        return i.length, NAMES[i.group], not i.uncovered

    def cycles(self, code, int bits=64, bint loop=False, start="distinct", bint quick=False):
        """Cycles for one repetition of the machine code `code`, a multiple of 1/64.

        loop   the block ends in a branch to its start and comes from the decoded cache; otherwise it is laid out again and again
        start  what registers and memory hold: "distinct" values, or all the "same" one, as the harness of BHive has it
        quick  stop as soon as some repetitions take the same time: a quarter of the work for a twentieth more error
        """
        self.decode(code, bits)
        return self.run(WITH_ALL | (WITH_LOOP if loop else 0), start == "same", NULL, quick) / 64.0

    def engine_units(self, const uint8_t[::1] code, int bits=64, bint loop=True):
        """What the engine books for one repetition, in units of 1/64 cycle; 0 if these are no whole instructions."""
        if bits not in (16, 32, 64) or not 1 <= len(code) <= MAX_BYTES:
            raise ValueError(f"code: expected 1 to {MAX_BYTES} bytes of 16, 32 or 64-bit code")
        return code_units(self.a, &code[0], <uint32_t>len(code), bits, loop)

    def analyse(self, code, int bits=64, bint loop=False, start="distinct"):
        """The same with what it is made of: {"cycles", "bounds", "bound", "instructions": [...], "ports", "chain", "uncovered", ...}."""
        cdef Block* b = &self.a.block
        cdef bint same = start == "same"
        self.decode(code, bits)
        memset(self.uses, 0, sizeof(self.uses))
        total = self.run(WITH_ALL | (WITH_LOOP if loop else 0), same, NULL, False, self.uses)
        iterations = <double>self.a.sim.iterations
        uses = [<double>self.a.sim.port_uses[p] / self.a.sim.iterations for p in range(MAX_PORTS)]
        front = WITH_LOOP if loop else 0
        bounds = {
            "predecode": 0 if loop else self.run(WITH_PREDECODE, same, NULL, False),
            "decode": self.run(WITH_DECODE | front, same, NULL, False),
            "issue": issue_bound(b, &self.a.uarch),
            "ports": port_bound(b),
            "divider": self.run(WITH_DIVIDER, same, NULL, False),
            "dependency": self.run(WITH_DEPENDENCIES, same, self.a.parent, False),
        }
        bound = max(bounds, key=bounds.get)
        if bounds[bound] * 10 < total * 9:
            bound = "conflicts"
        return {"cycles": total / 64.0, "bound": bound, "bounds": {name: value / 64.0 for name, value in bounds.items()},
                "instructions": [self.instruction(k, iterations) for k in range(b.n)], "ports": uses, "chain": self.chain(),
                "uncovered": b.uncovered, "uops": int(issue_bound(b, &self.a.uarch) * self.a.uarch.pipe.issue // 64), "width": self.a.uarch.pipe.issue, "bytes": b.bytes}

    cdef instruction(self, int k, double iterations):
        """`ports`: what each micro-operation may use; `pressure`: how often the instruction used each in one iteration."""
        cdef Insn* i = &self.a.block.insns[k]
        return {"length": i.length, "group": NAMES[i.group], "uops": i.slots, "latency": i.latency + (i.load_latency if i.loads else 0),
                "loads": i.loads, "stores": i.stores, "uncovered": bool(i.uncovered), "fused": bool(i.fused_branch),
                "ports": [self.a.block.uops[i.first + j].ports for j in range(i.n_uops)],
                "pressure": [self.uses[k * MAX_PORTS + p] / iterations for p in range(MAX_PORTS)]}

    cdef list chain(self):
        """The instructions of one turn of the longest chain, in its order: from the last instance back until an instruction repeats."""
        cdef int n = self.a.block.n, at, latest = -1
        cdef int64_t best = -1
        for k in range(N_CELLS):
            if self.a.sim.writer[k] >= 0 and self.a.sim.ready[k] > best and self.a.sim.writer[k] < MAX_INSTANCES:
                best, latest = self.a.sim.ready[k], self.a.sim.writer[k]
        path, seen = [], {}
        at = latest
        while at >= 0 and at < MAX_INSTANCES and at % n not in seen:
            seen[at % n] = len(path)
            path.append(at % n)
            at = self.a.parent[at]
        if at < 0 or at >= MAX_INSTANCES:
            return []
        return path[seen[at % n]:][::-1]
