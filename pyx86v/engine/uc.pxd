# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn's public C API, as far as the engine uses it (unicorn/unicorn.h of the pinned wheel)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "unicorn/unicorn.h" nogil:
    ctypedef struct uc_engine:
        pass
    ctypedef size_t uc_hook
    ctypedef int uc_err
    ctypedef struct uc_tb:
        uint64_t pc
        unsigned short icount
        unsigned short size
    enum:
        UC_ARCH_X86
        UC_MODE_64
        UC_PROT_ALL
        UC_HOOK_INTR
        UC_HOOK_INSN
        UC_HOOK_BLOCK
        UC_HOOK_INSN_INVALID
        UC_HOOK_MEM_READ
        UC_HOOK_MEM_WRITE
        UC_HOOK_EDGE_GENERATED
        UC_X86_INS_IN
        UC_X86_INS_OUT
        UC_X86_INS_SYSCALL
        UC_X86_INS_SYSENTER
        UC_X86_REG_RIP
        UC_X86_REG_RSP
        UC_X86_REG_MSR
        UC_X86_REG_CR0
        UC_X86_REG_CR2
        UC_X86_REG_R15
        UC_X86_REG_DR3
        UC_X86_REG_XMM0
        UC_X86_REG_GDTR
        UC_X86_REG_IDTR
        UC_X86_REG_LDTR
        UC_X86_REG_TR
        UC_CPU_X86_HASWELL
    ctypedef struct uc_x86_msr:
        uint32_t rid
        uint64_t value
    ctypedef struct uc_x86_mmr:
        unsigned short selector
        uint64_t base
        uint32_t limit
        uint32_t flags
    uc_err uc_mem_map(uc_engine* uc, uint64_t address, size_t size, uint32_t perms)
    uc_err uc_mem_write(uc_engine* uc, uint64_t address, const void* data, size_t size)
    ctypedef uint64_t (*uc_cb_mmio_read_t)(uc_engine*, uint64_t offset, unsigned size, void* user) noexcept nogil
    ctypedef void (*uc_cb_mmio_write_t)(uc_engine*, uint64_t offset, unsigned size, uint64_t value, void* user) noexcept nogil
    unsigned uc_version(unsigned* major, unsigned* minor)
    uc_err uc_open(int arch, int mode, uc_engine** uc)
    uc_err uc_close(uc_engine* uc)
    const char* uc_strerror(uc_err code)
    uc_err uc_reg_write(uc_engine* uc, int reg, const void* value)
    uc_err uc_reg_read(uc_engine* uc, int reg, void* value)
    uc_err uc_emu_start(uc_engine* uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count)
    uc_err uc_emu_stop(uc_engine* uc)
    uc_err uc_hook_add(uc_engine* uc, uc_hook* hh, int type, void* callback, void* user, uint64_t begin, uint64_t end, ...)
    uc_err uc_mem_map_ptr(uc_engine* uc, uint64_t address, size_t size, uint32_t perms, void* ptr)
    uc_err uc_mmio_map(uc_engine* uc, uint64_t address, size_t size, uc_cb_mmio_read_t read_cb, void* user_read,
                       uc_cb_mmio_write_t write_cb, void* user_write)
    uc_err uc_ctl_exits_enable(uc_engine* uc)
    uc_err uc_ctl_set_exits(uc_engine* uc, uint64_t* exits, size_t n)
    uc_err uc_ctl_set_cpu_model(uc_engine* uc, int model)
    uc_err uc_ctl_flush_tb(uc_engine* uc)
    uc_err uc_ctl_set_tcg_buffer_size(uc_engine* uc, uint32_t size)
