# SPDX-License-Identifier: GPL-2.0-or-later
"""SYSCALL and SYSENTER, which Unicorn leaves to its hooks (SDM 2B SYSCALL, SYSENTER)."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.regs cimport *
from pyx86v.engine.descriptors cimport load_flat, set_cpl
from pyx86v.engine.layout cimport *
from pyx86v.engine.ops cimport env_bits, env_cpl, env_rflags, env_set_rflags, env_update_hflags
from pyx86v.engine.ring cimport ring_go_on, ring_syscall
from pyx86v.engine.state cimport Engine

cdef enum:
    FLAT_CODE32 = 0xc09b00   # present, S, code, readable, accessed, 32-bit, 4 KiB granularity
    FLAT_CODE64 = 0xa09b00
    FLAT_DATA = 0xc09300
    INSN_BYTES = 2           # the engine adds the instruction's length after the hook

cdef inline void do_syscall(Engine* e) noexcept nogil:
    """#UD without EFER.SCE or outside 64-bit mode (Intel)."""
    cdef char* env = e.env
    cdef uint64_t efer = env_u64(env, ENV_EFER)[0], flags, star
    cdef uint64_t* gpr = env_u64(env, ENV_REGS)
    ring_syscall(e)
    if not efer & EFER_SCE or not efer & EFER_LMA or env_bits(env) != 64:
        raise_exception_err_x86_64(env, VEC_UD, 0)
    flags = env_rflags(env)
    star = env_u64(env, ENV_STAR)[0]
    gpr[RCX] = env_u64(env, ENV_EIP)[0] + INSN_BYTES
    gpr[11] = flags & ~<uint64_t>FL_RF
    env_set_rflags(env, flags & ~(env_u64(env, ENV_FMASK)[0] | FL_RF))
    load_flat(e, SEG_CS, <uint32_t>(star >> 32) & 0xfffc, 0, 0xffffffffU, FLAT_CODE64)
    load_flat(e, SEG_SS, (<uint32_t>(star >> 32) & 0xfffc) + 8, 0, 0xffffffffU, FLAT_DATA)
    set_cpl(e, 0)
    env_u64(env, ENV_EIP)[0] = env_u64(env, ENV_LSTAR)[0]
    ring_go_on(e)
    env_u64(env, ENV_EIP)[0] -= INSN_BYTES

cdef inline void do_sysenter(Engine* e) noexcept nogil:
    """#GP(0) in real mode or with a null IA32_SYSENTER_CS."""
    cdef char* env = e.env
    cdef uint64_t cs = env_u32(env, ENV_SYSENTER_CS)[0]
    cdef bint long_mode = env_u64(env, ENV_EFER)[0] & EFER_LMA != 0
    ring_syscall(e)
    if not env_u32(env, ENV_HFLAGS)[0] & HF_PE or cs & 0xfffc == 0:
        raise_exception_err_x86_64(env, VEC_GP, 0)
    env_set_rflags(env, env_rflags(env) & ~<uint64_t>(FL_VM | FL_IF | FL_RF))
    load_flat(e, SEG_CS, <uint32_t>cs & 0xfffc, 0, 0xffffffffU, FLAT_CODE64 if long_mode else FLAT_CODE32)
    load_flat(e, SEG_SS, (<uint32_t>cs & 0xfffc) + 8, 0, 0xffffffffU, FLAT_DATA)
    set_cpl(e, 0)
    env_u64(env, ENV_REGS)[RSP] = env_u64(env, ENV_SYSENTER_ESP)[0]
    env_u64(env, ENV_EIP)[0] = env_u64(env, ENV_SYSENTER_EIP)[0]
    if not long_mode:
        env_u64(env, ENV_REGS)[RSP] &= 0xffffffffULL
    ring_go_on(e)
    env_u64(env, ENV_EIP)[0] -= INSN_BYTES
