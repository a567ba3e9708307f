# SPDX-License-Identifier: GPL-2.0-or-later
"""The translation cache as Python reads it."""
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from pyx86v.mmu.memory cimport Ram, ram_pointer
from pyx86v.vmm.bt.cache cimport *
from pyx86v.vmm.bt.state cimport *
from pyx86v.vmm.trap.kinds cimport N_TRAP_KINDS, fill_kind_names

from pyx86v.vmm.bt.translate import KINDS


cdef list unit_rows(const Bt* b, const Ram* ram):
    """The units that live, in the order of their code."""
    cdef const Unit* u
    rows = []
    for number in range(1, b.n_units + 1):
        u = unit_of(b, ram, number)
        if u is not NULL and not u.flags & UNIT_DEAD and guest_of(b, ram, u) is not NULL:
            rows.append(unit_row(b, ram, u))
    return rows


cdef dict unit_row(const Bt* b, const Ram* ram, const Unit* u):
    cdef const uint8_t* code = ram_pointer(ram, b.code + u.code, u.code_bytes)
    cdef const uint8_t* guest = guest_of(b, ram, u)
    cdef const BtInsn* insns = insns_of(b, ram, u)
    return {"address": u.pc, "eip": u.eip, "bits": 16 * (u.mode & 7), "at": u.code, "guest": bytes(guest[:u.guest_bytes]),
            "code": bytes(code[:u.code_bytes]) if code is not NULL else b"", "exits": u.n_exits, "chained": exits_chained(b, ram, u, code),
            "insns": [{"offset": insns[i].offset, "length": insns[i].length, "code": insns[i].code, "code_end": insns[i].code_end,
                       "kind": KINDS[insns[i].kind] if insns[i].kind < N_BT_KINDS else ""} for i in range(u.n_insns)]}


cdef int exits_chained(const Bt* b, const Ram* ram, const Unit* u, const uint8_t* code):
    """Exits that lead to another translation, no longer to their stub."""
    cdef const BtExit* exits = exits_of(b, ram, u)
    cdef int i, n = 0
    cdef int32_t distance
    for i in range(u.n_exits):
        if code is not NULL and exits[i].at + 4 <= u.code_bytes:
            memcpy(&distance, code + exits[i].at, 4)
            n += exits[i].at + 4 + distance != exits[i].stub
    return n


cdef dict callout_counts(const Bt* b):
    """{kind of instruction: call-outs}, those that there were."""
    cdef const char* names[64]
    cdef int i
    fill_kind_names(names)
    return {names[i].decode(): b.count.by_kind[i] for i in range(<int>N_TRAP_KINDS) if b.count.by_kind[i]}
