# SPDX-License-Identifier: GPL-2.0-or-later
"""A block, repeated, through the pipeline: predecoder, decoders, renamer, scheduler, ports, retirement.

Each instruction passes the stages in program order and every stage gives it a time, so one pass over the repeated block is the
whole simulation: no clock is stepped.  This is exact for the in-order stages, and for the scheduler because an older
micro-operation always goes first: where it executes does not depend on younger ones.  The rules are those published in
"uiCA: Accurate Throughput Prediction of Basic Blocks on Recent Intel Microarchitectures" (Abel, Reineke, ICS 2022) and in the
optimisation manual; the numbers stand in the profile.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx86v.cost.model.types cimport *
from pyx86v.cost.model.values cimport *

cdef enum:
    RING = 2048                # cycles that the ports are remembered for, a power of two
    QUEUE = 512                # more than any queue of a processor, a power of two
    MAX_ITERATIONS = 512
    STEADY_TURNS = 3
    STEADY_UOPS = 96
    PAGE_SETS = 16             # of the harness's first-level TLB
    PAGE_WAYS = 4
    DECODE_DELAY = 3           # cycles from predecoding to decoding, at least (uiCA)
    DISPATCH_DELAY = 5         # cycles from renaming to execution, at least (uiCA)

cdef enum:                     # what of the processor is there; the rest takes no time
    WITH_PREDECODE = 1
    WITH_DECODE = 2
    WITH_ISSUE = 4
    WITH_PORTS = 8
    WITH_DEPENDENCIES = 16
    WITH_DIVIDER = 32
    WITH_LOOP = 64             # from the decoded cache, a taken branch at the end
    WITH_APART = 128           # no repetition waits for what one before it left in registers or memory
    WITH_ALL = 63

ctypedef struct Cycle:
    int32_t cycle
    uint16_t busy              # ports

ctypedef struct Sim:
    int with_                  # WITH_*
    int64_t insns              # how many have been predecoded
    int64_t window             # of the predecoder: which aligned bytes it is at
    int64_t predecode_at
    int32_t predecoded         # in this cycle
    int32_t window_cycles      # that it has taken, without what length-changing prefixes cost
    int32_t slack              # cycles more than one that the window before took
    int64_t decode_window
    int64_t decode_at
    int32_t decoders_used
    int32_t decoded
    int64_t decoded_insns
    int64_t issue_at
    int32_t issued             # in this cycle
    int64_t issued_total
    int64_t retire_at
    int32_t retired
    int64_t committed
    int64_t loads
    int64_t stores
    int64_t divider            # units: when it is free
    int64_t serial             # units
    bint load_port             # which of two load ports is next
    int32_t waiting            # micro-operations in the scheduler
    int32_t pending[MAX_PORTS]     # of those, by port, issued before this cycle
    int32_t added[MAX_PORTS]       # in this cycle,
    uint32_t touched           # to these ports
    int32_t stack              # what the stack engine owes RSP
    int64_t ready[N_CELLS]
    int32_t writer[N_CELLS]    # instance that wrote it, -1 none
    uint8_t loaded[N_CELLS]    # it came from a load
    int64_t decoded_when[QUEUE]    # by instruction
    int64_t issued_when[QUEUE]     # by fused micro-operation
    int64_t retired_when[QUEUE]
    int64_t load_done[QUEUE]
    int64_t store_done[QUEUE]
    Cycle ring[RING]
    Values values
    uint64_t page[PAGE_SETS][PAGE_WAYS]           # translations that the first level holds, and when each came
    int64_t page_ready[PAGE_SETS][PAGE_WAYS]
    uint8_t page_next[PAGE_SETS]   # replaced next
    int32_t iterations         # simulated
    int64_t ended[MAX_ITERATIONS]  # when each iteration was retired
    uint64_t port_uses[MAX_PORTS]
    uint32_t* insn_uses        # by instruction and port, if somebody asks
    int32_t number             # of the instruction that executes


cdef extern from * nogil:
    int lowest "__builtin_ctz" (unsigned int)


cdef inline int64_t later(int64_t a, int64_t b) noexcept nogil:
    return a if a > b else b


cdef inline void sim_start(Sim* s, int with_, bint same) noexcept nogil:
    cdef int i
    s.with_ = with_
    s.insns = s.window = s.predecode_at = s.decode_at = s.decoded_insns = s.decode_window = 0
    s.window_cycles = 1
    s.slack = 0
    s.predecoded = s.decoders_used = s.decoded = s.issued = s.retired = s.waiting = s.stack = 0
    s.issue_at = s.issued_total = s.retire_at = s.committed = s.loads = s.stores = s.divider = s.serial = 0
    s.load_port = False
    s.touched = 0
    s.insn_uses = NULL
    s.number = 0
    for i in range(MAX_PORTS):
        s.pending[i] = s.added[i] = 0
        s.port_uses[i] = 0
    for i in range(N_CELLS):
        s.ready[i] = 0
        s.writer[i] = -1
        s.loaded[i] = 0
    memset(s.decoded_when, 0, sizeof(s.decoded_when))
    memset(s.issued_when, 0, sizeof(s.issued_when))
    memset(s.retired_when, 0, sizeof(s.retired_when))
    memset(s.load_done, 0, sizeof(s.load_done))
    memset(s.store_done, 0, sizeof(s.store_done))
    memset(s.ring, 0xff, sizeof(s.ring))                # cycle -1
    for i in range(PAGE_SETS * PAGE_WAYS):
        s.page[i // PAGE_WAYS][i % PAGE_WAYS] = ~<uint64_t>0
        s.page_next[i // PAGE_WAYS] = 0
    values_start(&s.values, same)
    s.page[(START_SAME >> 12) & (PAGE_SETS - 1)][0] = START_SAME >> 12      # the harness has just filled it
    s.page_ready[(START_SAME >> 12) & (PAGE_SETS - 1)][0] = 0
    s.page_next[(START_SAME >> 12) & (PAGE_SETS - 1)] = 1


# The front end.

cdef inline void predecode_window(Sim* s, int64_t window) noexcept nogil:
    while s.window < window:
        s.window += 1
        s.predecode_at += 1
        s.predecoded = 0
        s.slack = s.window_cycles - 1
        s.window_cycles = 1


cdef inline void predecode_slot(Sim* s, const Uarch* u) noexcept nogil:
    if s.predecoded >= u.pipe.predecode:
        s.predecode_at += 1
        s.window_cycles += 1
        s.predecoded = 0
    s.predecoded += 1


cdef inline int64_t predecode(Sim* s, const Uarch* u, const Insn* i, int64_t start) noexcept nogil:
    """When the instruction at byte `start` of the repeated code is predecoded.

    It takes a slot in the window where it ends, and one in the window of its opcode where that is another.
    """
    cdef int bytes = u.pipe.predecode_bytes
    cdef int64_t opcode, last, full
    if not s.with_ & WITH_PREDECODE or s.with_ & WITH_LOOP or bytes == 0:
        return 0
    opcode = (start + i.opcode_at) >> lowest(bytes)     # a power of two
    last = (start + i.length - 1) >> lowest(bytes)
    full = s.decoded_when[(s.insns - u.pipe.instruction_queue) & (QUEUE - 1)] if s.insns >= u.pipe.instruction_queue else 0
    s.insns += 1
    if s.predecode_at < full:
        s.predecode_at = full
        s.predecoded = 0
    predecode_window(s, opcode)
    if i.length_change:
        s.predecode_at += later(0, u.pipe.length_change - s.slack)
        s.slack = <int32_t>later(0, s.slack - u.pipe.length_change)
        s.predecoded = 0
    if opcode != last:
        predecode_slot(s, u)
        predecode_window(s, last)
    predecode_slot(s, u)
    return s.predecode_at + DECODE_DELAY


cdef inline void next_decode(Sim* s) noexcept nogil:
    s.decode_at += 1
    s.decoders_used = 0
    s.decoded = 0


cdef inline int64_t decode(Sim* s, const Uarch* u, const Insn* i, int64_t predecoded, int64_t next_predecoded) noexcept nogil:
    """When the instruction is decoded."""
    cdef int64_t room, begin
    if not s.with_ & WITH_DECODE or i.fused_branch:
        return predecoded
    begin = predecoded
    if i.fusible and not u.pipe.fusible_last:
        begin = later(begin, next_predecoded)           # it is held until what follows is known
    if s.issued_total >= u.pipe.decode_queue and s.with_ & WITH_ISSUE:
        room = s.issued_when[(s.issued_total - u.pipe.decode_queue) & (QUEUE - 1)]
        begin = later(begin, room)
    if begin > s.decode_at:
        s.decode_at = begin
        s.decoders_used = 0
        s.decoded = 0
    if s.with_ & WITH_LOOP:
        if s.decoded + i.fused > u.pipe.loop_buffer:
            next_decode(s)
    elif i.fused > 4:
        if s.decoders_used:
            next_decode(s)
        s.decode_at += (i.fused + u.pipe.microcode - 1) // u.pipe.microcode - 1 + u.pipe.microcode_switch
        s.decoders_used = u.pipe.decoders
    else:
        if s.decoders_used >= u.pipe.decoders or (s.decoders_used and (i.complex or s.decoded + i.fused > u.pipe.decode)):
            next_decode(s)
        if i.fusible and not u.pipe.fusible_last and s.decoders_used == u.pipe.decoders - 1:
            next_decode(s)
        s.decoders_used += 1
    s.decoded += i.fused
    s.decoded_when[s.decoded_insns & (QUEUE - 1)] = s.decode_at
    s.decoded_insns += 1
    return s.decode_at + 1


# Renaming.

cdef inline void next_issue(Sim* s, int64_t to) noexcept nogil:
    """Go on to cycle `to`: what executes until then leaves the scheduler."""
    cdef int64_t c
    cdef int p
    cdef uint16_t busy
    cdef int64_t first = s.issue_at
    cdef uint32_t left = s.touched
    while left:
        p = lowest(left)
        left &= left - 1
        s.pending[p] += s.added[p]
        s.added[p] = 0
    s.touched = 0
    for c in range(first, to if to - first < RING else first + RING):       # nothing is remembered of later cycles
        if s.ring[c & (RING - 1)].cycle == c:
            busy = s.ring[c & (RING - 1)].busy
            while busy:
                p = lowest(busy)
                busy &= <uint16_t>(busy - 1)
                s.pending[p] -= 1
                s.waiting -= 1
    s.issue_at = to
    s.issued = 0


cdef inline void issue_slot(Sim* s, const Uarch* u, int64_t decoded) noexcept nogil:
    """Give one fused micro-operation its place in issue order."""
    cdef int64_t earliest = decoded, last
    if not s.with_ & WITH_ISSUE:
        if decoded > s.issue_at:
            s.issue_at = decoded
        s.issued_total += 1
        return
    if earliest > s.issue_at:
        next_issue(s, earliest)
    if s.issued >= u.pipe.issue:
        next_issue(s, s.issue_at + 1)
    if s.issued == 0:                                   # a cycle begins only with room for all it may issue
        last = s.issued_total + u.pipe.issue - 1 - u.pipe.reorder_buffer
        if last >= 0 and last < s.issued_total and s.retired_when[last & (QUEUE - 1)] > s.issue_at:
            next_issue(s, s.retired_when[last & (QUEUE - 1)])
        while s.waiting > 0 and s.waiting + u.pipe.issue > u.pipe.scheduler:
            next_issue(s, s.issue_at + 1)
    s.issued_when[s.issued_total & (QUEUE - 1)] = s.issue_at
    s.issued += 1
    s.issued_total += 1


cdef inline int choose_port(Sim* s, uint16_t ports) noexcept nogil:
    """The port that renaming gives a micro-operation (uiCA, section on port assignment): the least loaded of those it can use, for
    every other slot of the cycle the second least unless that has three more waiting; loads take turns."""
    cdef int p, best = -1, second = -1
    cdef uint32_t left = ports
    if ports & (ports - 1) == 0:
        return lowest(ports)
    while left:                                         # of equals the highest
        p = lowest(left)
        left &= left - 1
        if best < 0 or s.pending[p] <= s.pending[best]:
            second = best
            best = p
        elif second < 0 or s.pending[p] <= s.pending[second]:
            second = p
    if (s.issued - 1) & 1 and s.pending[second] - s.pending[best] < 3:
        return second
    return best


cdef inline int choose_load_port(Sim* s, uint16_t ports) noexcept nogil:
    cdef int p = lowest(ports)
    if ports == 3 << p:                                 # two neighbours: take turns
        s.load_port = not s.load_port
        return p + (1 if s.load_port else 0)
    return choose_port(s, ports)


cdef inline int64_t dispatch(Sim* s, const Uop* op, int64_t ready) noexcept nogil:
    """When the micro-operation executes: the first cycle its port is free for it."""
    cdef int p
    cdef int64_t at = later(ready, s.issue_at + DISPATCH_DELAY if s.with_ & WITH_ISSUE else s.issue_at)
    cdef Cycle* c
    if not s.with_ & WITH_PORTS:
        return at
    p = choose_load_port(s, op.ports) if op.kind == UOP_LOAD or op.kind == UOP_ADDRESS else choose_port(s, op.ports)
    s.port_uses[p] += 1
    if s.insn_uses is not NULL:
        s.insn_uses[s.number * MAX_PORTS + p] += 1
    while at - s.issue_at < RING:                       # what executes later than that takes no place, in the scheduler or at a port
        c = &s.ring[at & (RING - 1)]
        if c.cycle < at:
            c.cycle = <int32_t>at
            c.busy = 0
        if not c.busy >> p & 1:
            c.busy |= <uint16_t>(1 << p)
            if s.with_ & WITH_ISSUE:
                s.added[p] += 1
                s.touched |= 1U << p
                s.waiting += 1
            break
        at += 1
    return at


# Execution.

cdef inline int64_t translated(Sim* s, const Uarch* u, const Uop* op, uint64_t address, int64_t at) noexcept nogil:
    """When an access that executes at `at` has its translation.

    Only under the harness's start, where each page is a new one: the machine has a TLB of its own.  What meets a missing
    translation executes again when it has come, which takes the port twice.
    """
    cdef uint64_t page = address >> 12
    cdef int set_ = <int>(page & (PAGE_SETS - 1)), way
    if not s.values.same or not u.pipe.tlb_miss:
        return at
    for way in range(PAGE_WAYS):
        if s.page[set_][way] == page:
            break
    else:
        way = s.page_next[set_]
        s.page_next[set_] = <uint8_t>((way + 1) % PAGE_WAYS)
        s.page[set_][way] = page
        s.page_ready[set_][way] = at + u.pipe.tlb_miss
    return at if at >= s.page_ready[set_][way] else dispatch(s, op, s.page_ready[set_][way])


cdef inline int64_t forwarded(Sim* s, const Uarch* u, const Insn* i, uint64_t address, int64_t loaded, int32_t* by) noexcept nogil:
    """When a load that would have its data at `loaded` has them, given the stores before it."""
    cdef uint64_t at = address
    cdef const Store* st
    cdef bint forwards
    cdef int latency
    while at < address + i.size:
        st = newest_store(&s.values, cell_number(&s.values, at), address, i.size)
        at = (at | 7) + 1
        if st == NULL or st.committed <= loaded - u.pipe.load:
            continue
        forwards = covers(&s.values, st, address, i.size)
        latency = u.pipe.forward_vector if st.vector or i.vector else u.pipe.forward
        if forwards and st.ready + latency > loaded:
            loaded = st.ready + latency
            by[0] = st.by
        elif not forwards and st.committed + u.pipe.forward_fail > loaded:
            loaded = st.committed + u.pipe.forward_fail
            by[0] = st.by
    return loaded


cdef inline void retire(Sim* s, const Uarch* u, int slots, int64_t complete) noexcept nogil:
    """In order, a few a cycle."""
    cdef int k
    if complete > s.retire_at:
        s.retire_at = complete
        s.retired = 0
    for k in range(slots):
        if s.retired >= u.pipe.issue and s.with_ & WITH_ISSUE:
            s.retire_at += 1
            s.retired = 0
        s.retired += 1
        s.retired_when[(s.issued_total - slots + k) & (QUEUE - 1)] = s.retire_at


cdef inline void sync_stack(Sim* s, const Uarch* u, const Insn* i, int64_t decoded, int instance) noexcept nogil:
    """The micro-operation that brings RSP up to date before an instruction that names it."""
    cdef Uop op
    cdef int64_t at
    if i.stack:
        s.stack += i.stack
        return
    if not i.names_rsp or s.stack == 0 or not u.pipe.stack_sync:
        return
    s.stack = 0
    op.ports = u.ports.sync
    op.kind = UOP_COMPUTE
    issue_slot(s, u, decoded)
    at = dispatch(s, &op, s.ready[CELL_RSP])
    s.ready[CELL_RSP] = at + 1
    retire(s, u, 1, at + 1)


cdef inline int64_t sources_ready(Sim* s, const uint8_t* cells, int n, int32_t* by) noexcept nogil:
    cdef int64_t t = 0
    cdef int k
    for k in range(n):
        if s.ready[cells[k]] > t:
            t = s.ready[cells[k]]
            by[0] = s.writer[cells[k]]
    return t


cdef inline int64_t execute(Sim* s, const Uarch* u, const Block* b, const Insn* i, int number, int instance, uint64_t rip, int64_t decoded, int32_t* by) noexcept nogil:
    """Rename, execute and retire one instruction; returns when its result is there, and in by[0] the instance that it waited for."""
    cdef const Uop* op
    cdef int k, slot = 0
    cdef int32_t address_by = -1, data_by = -1, memory_by = -1
    cdef int64_t address_ready, data_ready, operand = 0, done = 0, at, started = -1, complete = 0, stored = 0, commit
    cdef uint64_t address = 0, value
    cdef int latency = i.latency
    cdef bint depends = s.with_ & WITH_DEPENDENCIES != 0
    sync_stack(s, u, i, decoded, instance)
    address_ready = sources_ready(s, i.address, i.n_address, &address_by) if depends else 0
    if i.stack and depends:
        address_ready = later(address_ready, s.ready[CELL_RSP])
        if address_ready == s.ready[CELL_RSP]:
            address_by = s.writer[CELL_RSP]
    data_ready = sources_ready(s, i.source, i.n_source, &data_by) if depends else 0
    operand = data_ready
    by[0] = data_by
    if i.loads or i.stores or i.eval == EVAL_LEA:
        address = address_of(&s.values, i, rip)
    issue_slot(s, u, decoded)
    if s.with_ & WITH_ISSUE:
        if i.loads and s.loads >= u.pipe.load_buffer and s.load_done[(s.loads - u.pipe.load_buffer) & (QUEUE - 1)] > s.issue_at:
            next_issue(s, s.load_done[(s.loads - u.pipe.load_buffer) & (QUEUE - 1)])
        if i.stores and s.stores >= u.pipe.store_buffer and s.store_done[(s.stores - u.pipe.store_buffer) & (QUEUE - 1)] > s.issue_at:
            next_issue(s, s.store_done[(s.stores - u.pipe.store_buffer) & (QUEUE - 1)])
    if i.eliminated and not i.loads and not i.stores:
        latency = 0
    for k in range(i.n_uops):
        op = &b.uops[i.first + k]
        while slot < op.slot:
            issue_slot(s, u, decoded)
            slot += 1
        if op.kind == UOP_LOAD:
            at = translated(s, u, op, address, dispatch(s, op, address_ready))
            done = at + (u.pipe.load_chase if i.chase and s.loaded[i.base] else i.load_latency)
            if depends:
                done = forwarded(s, u, i, address, done, &memory_by)
            if done >= operand:
                operand = done
                by[0] = memory_by if memory_by >= 0 else address_by
        elif op.kind == UOP_COMPUTE:
            at = operand
            if i.busy and started < 0 and s.with_ & WITH_DIVIDER:
                at = later(at, (s.divider + UNITS - 1) // UNITS)
            at = dispatch(s, op, at)
            if i.busy and started < 0 and s.with_ & WITH_DIVIDER:
                s.divider = later(s.divider, at * UNITS) + i.busy
            if started < 0:
                started = at
            complete = later(complete, at + 1)
        elif op.kind == UOP_ADDRESS:
            complete = later(complete, translated(s, u, op, address, dispatch(s, op, address_ready)) + 1)
        else:
            at = started + latency if started >= 0 else operand
            stored = dispatch(s, op, at)
            complete = later(complete, stored + 1)
    while slot < i.slots - 1:
        issue_slot(s, u, decoded)
        slot += 1
    done = (started + latency) if started >= 0 else operand + latency
    if i.serial and s.with_ & WITH_DIVIDER:
        s.serial = later(s.serial + i.serial, later(done - latency, s.issue_at if s.with_ & WITH_ISSUE else 0) * UNITS)
        done = later(done, s.serial // UNITS)
    complete = later(complete, done)
    if s.with_ & WITH_ISSUE and i.n_uops == 0:
        complete = later(complete if i.serial else 0, s.issue_at)
    value = values_step(&s.values, i, number, address)
    for k in range(i.n_result):
        s.ready[i.result[k]] = done
        s.writer[i.result[k]] = instance
        s.loaded[i.result[k]] = i.loads and i.n_uops == i.loads
    retire(s, u, i.slots, complete if depends or s.with_ & WITH_ISSUE else 0)
    if i.loads:
        s.load_done[s.loads & (QUEUE - 1)] = s.retire_at
        s.loads += 1
    if i.stores:
        commit = later(s.retire_at, s.committed + (1 if s.with_ & WITH_ISSUE else 0))
        s.committed = commit
        s.store_done[s.stores & (QUEUE - 1)] = commit
        s.stores += 1
        memory_store(&s.values, address, i.size, value, stored, commit, instance, i.vector)
    return done


cdef inline bint is_steady(const Sim* s, int done, int turn) noexcept nogil:
    """Did the last few turns, `turn` iterations each, take the same time?"""
    cdef int k
    cdef int64_t first, other
    if turn == 0 or done % turn or done < turn * (STEADY_TURNS + 1) or s.issued_total < STEADY_UOPS:
        return False
    first = s.ended[done - 1] - s.ended[done - 1 - turn]
    for k in range(1, STEADY_TURNS):
        other = s.ended[done - 1 - k * turn] - s.ended[done - 1 - (k + 1) * turn]
        if other != first:
            return False
    return True


cdef inline int64_t simulate(Sim* s, const Uarch* u, const Block* b, int iterations, int turn, int32_t* parent, int max_parents) noexcept nogil:
    """Repeat the block; returns units for one iteration: of a turn once these are all alike, else of the second half.

    iterations  the most
    turn        after how many of them the code lies the same way in the predecoder's windows; 0: do not look for alike turns
    parent      parent[n], if not NULL, becomes the instance (instruction + iteration * instructions) whose result instance n waited for
    """
    cdef int it, k, instance
    cdef int64_t start = 0, now, ahead
    cdef int32_t by
    cdef int half = iterations // 2
    cdef const Insn* i
    ahead = predecode(s, u, &b.insns[0], 0)
    for it in range(iterations):
        if s.with_ & WITH_APART:
            memset(s.ready, 0, sizeof(s.ready))
            s.values.run += 1
        for k in range(b.n):
            i = &b.insns[k]
            instance = it * b.n + k
            now = ahead
            start += i.length
            ahead = predecode(s, u, &b.insns[k + 1 if k + 1 < b.n else 0], start)
            now = decode(s, u, i, now, ahead)
            if i.fused_branch:
                continue
            by = -1
            s.number = k
            execute(s, u, b, i, k, instance, <uint64_t>start, now, &by)
            if parent != NULL and instance < max_parents:
                parent[instance] = by
        s.ended[it] = finish_iteration(s)
        s.iterations = it + 1
        if is_steady(s, it + 1, turn):
            return (s.ended[it] - s.ended[it - turn]) * UNITS // turn
    return (s.ended[iterations - 1] - s.ended[iterations - 1 - half]) * UNITS // half


cdef inline int64_t finish_iteration(Sim* s) noexcept nogil:
    """When everything so far has passed the last stage that there is."""
    cdef int64_t t = s.retire_at
    cdef int k
    if s.with_ & WITH_LOOP:
        s.decode_at += 1                                # a taken branch ends the group
        s.decoders_used = 0
        s.decoded = 0
    if not s.with_ & WITH_ISSUE:
        t = later(later(s.decode_at, s.predecode_at), s.issue_at)
        if s.with_ & WITH_DEPENDENCIES:
            for k in range(N_CELLS):
                t = later(t, s.ready[k])
            t = later(t, s.committed if s.with_ & WITH_DEPENDENCIES else 0)
    if s.with_ & WITH_DIVIDER:
        t = later(t, s.divider // UNITS)
        t = later(t, s.serial // UNITS)
    return t
