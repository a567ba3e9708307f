# SPDX-License-Identifier: GPL-2.0-or-later
"""Accounting compiled into each translated block instead of a call per block.

Unicorn asks `uc_struct.add_inline_hook` once per translated block to emit the call of the
single BLOCK hook.  Ours emits five operations:

    budget -= record.cost;  if budget < 0: block_slow(engine, record);  current = record

`noexit` removes the engine's own exit check from every block, load and store by telling the translator
that the helper has no side effects; leaving a run is then the slow path's business (blocks.pxd).
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from pyx86v.engine.layout cimport *
from pyx86v.engine.state cimport BlockRecord, Engine
from pyx86v.engine.uc cimport uc_engine

cdef extern from *:
    """
    typedef struct { void *key_func; const char *name; uint32_t flags; uint32_t sizemask; } PyxHelperInfo;
    typedef struct { void *key; void *value; uint32_t hash; } PyxHashNode;
    """
    ctypedef struct PyxHelperInfo:
        void* key_func
        const char* name
        uint32_t flags
        uint32_t sizemask
    ctypedef struct PyxHashNode:
        void* key
        void* value
        uint32_t hash

cdef inline void* temp_of(char* s, void* tcgv) noexcept nogil:
    """A TCGv is an offset into the context; operations want the temporary itself."""
    return s + <uintptr_t>tcgv

cdef inline void emit_call(Engine* e, char* s, void* function, bint* known, const void* about) noexcept nogil:
    """Emit function(engine, about).  `known`: the translator has its description; set."""
    cdef void* args[2]
    args[0] = temp_of(s, tcg_const_i64_x86_64(s, <int64_t><uintptr_t>e))
    args[1] = temp_of(s, tcg_const_i64_x86_64(s, <int64_t><uintptr_t>about))
    if not known[0]:
        known[0] = True
        register_slow_path(e, function, args)
    else:
        tcg_gen_callN_x86_64(s, function, NULL, 2, args)
    tcg_temp_free_internal_x86_64(s, args[0])
    tcg_temp_free_internal_x86_64(s, args[1])

cdef inline void emit_accounting(Engine* e, void* slow, BlockRecord* r, bint becomes_current) noexcept nogil:
    """Emit the block prologue of the module's docstring at the translator's current position, without its last operation unless the
    record `becomes_current`."""
    cdef char* s = (<char**>(<char*>e.uc + UC_TCG_CONTEXT))[0]
    cdef uintptr_t env = <uintptr_t>(s + (<uintptr_t*>(s + TCG_CPU_ENV))[0])
    cdef void* rec = tcg_const_i64_x86_64(s, <int64_t><uintptr_t>r)
    cdef void* cost = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    cdef void* left = tcg_temp_new_internal_x86_64(s, TYPE_I64, False)
    cdef void* label = gen_new_label_x86_64(s)
    tcg_gen_op3_x86_64(s, OP_LD_I64, <uintptr_t>cost, <uintptr_t>temp_of(s, rec), 0)
    tcg_gen_op3_x86_64(s, OP_LD_I64, <uintptr_t>left, env, ENV_BUDGET)
    tcg_gen_op3_x86_64(s, OP_SUB_I64, <uintptr_t>left, <uintptr_t>left, <uintptr_t>cost)
    tcg_gen_op3_x86_64(s, OP_ST_I64, <uintptr_t>left, env, ENV_BUDGET)
    tcg_gen_brcondi_i64_x86_64(s, COND_GE, <void*>(<char*>left - s), 0, label)
    tcg_temp_free_internal_x86_64(s, cost)
    tcg_temp_free_internal_x86_64(s, left)
    tcg_temp_free_internal_x86_64(s, temp_of(s, rec))
    emit_call(e, s, slow, &e.slow_known, r)
    tcg_gen_op1_x86_64(s, OP_SET_LABEL, <uintptr_t>label)
    if not becomes_current:
        return
    rec = tcg_const_i64_x86_64(s, <int64_t><uintptr_t>r)
    tcg_gen_op3_x86_64(s, OP_ST_I64, <uintptr_t>temp_of(s, rec), env, ENV_CURRENT)
    tcg_temp_free_internal_x86_64(s, temp_of(s, rec))

cdef inline PyxHashNode* helper_node(uc_engine* uc, void* func) noexcept nogil:
    """The node of a helper function in the translator's table (GHashTable), or NULL."""
    cdef char* s = (<char**>(<char*>uc + UC_TCG_CONTEXT))[0]
    cdef char* table = (<char**>(s + TCG_HELPER_TABLE))[0]
    cdef PyxHashNode* nodes = (<PyxHashNode**>(table + HASH_NODES))[0]
    cdef int32_t i
    for i in range((<int32_t*>table)[0]):
        if nodes[i].hash > 1 and nodes[i].key == func:      # 0 unused, 1 removed
            return &nodes[i]
    return NULL

cdef inline bint remove_exit_checks(uc_engine* uc, PyxHelperInfo* copy) noexcept nogil:
    """`noexit`: give the exit check a description without side effects.  False: not found."""
    cdef PyxHashNode* n = helper_node(uc, <void*>helper_check_exit_request_x86_64)
    if n is NULL:
        return False
    copy[0] = (<PyxHelperInfo*>n.value)[0]
    if copy.key_func != n.key:
        return False
    copy.flags |= CALL_NO_SIDE_EFFECTS
    n.value = copy
    return True

cdef inline void register_slow_path(Engine* e, void* slow, void** args) noexcept nogil:
    """Make `slow` known to the translator: the engine's own inline hook registers its callback.

    It also emits the call, with these arguments.
    """
    cdef uint64_t hook[16]
    cdef int i
    for i in range(16):
        hook[i] = 0
    (<int*>hook)[0] = 8                                      # UC_HOOK_BLOCK's bit selects the argument sizes
    hook[HOOK_CALLBACK // 8] = <uint64_t><uintptr_t>slow
    uc_add_inline_hook_x86_64(e.uc, hook, args, 2)
