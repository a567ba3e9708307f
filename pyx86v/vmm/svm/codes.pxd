# SPDX-License-Identifier: GPL-2.0-or-later
"""EXITCODE (APM 2 appendix C), and the codes' names as `perf kvm stat` prints them."""
from pyx86v.arch.regs cimport *

cdef enum:
    EXIT_READ_CR0 = 0x00         # + number
    EXIT_WRITE_CR0 = 0x10
    EXIT_READ_DR0 = 0x20
    EXIT_WRITE_DR0 = 0x30
    EXIT_EXCEPTION = 0x40        # + vector
    EXIT_INTR = 0x60
    EXIT_NMI = 0x61
    EXIT_SMI = 0x62
    EXIT_INIT = 0x63
    EXIT_VINTR = 0x64
    EXIT_CR0_SEL_WRITE = 0x65
    EXIT_READ_IDTR = 0x66
    EXIT_READ_GDTR = 0x67
    EXIT_READ_LDTR = 0x68
    EXIT_READ_TR = 0x69
    EXIT_WRITE_IDTR = 0x6a
    EXIT_WRITE_GDTR = 0x6b
    EXIT_WRITE_LDTR = 0x6c
    EXIT_WRITE_TR = 0x6d
    EXIT_RDTSC = 0x6e
    EXIT_RDPMC = 0x6f
    EXIT_PUSHF = 0x70
    EXIT_POPF = 0x71
    EXIT_CPUID = 0x72
    EXIT_RSM = 0x73
    EXIT_IRET = 0x74
    EXIT_SWINT = 0x75
    EXIT_INVD = 0x76
    EXIT_PAUSE = 0x77
    EXIT_HLT = 0x78
    EXIT_INVLPG = 0x79
    EXIT_INVLPGA = 0x7a
    EXIT_IOIO = 0x7b
    EXIT_MSR = 0x7c
    EXIT_TASK_SWITCH = 0x7d
    EXIT_FERR_FREEZE = 0x7e
    EXIT_SHUTDOWN = 0x7f
    EXIT_VMRUN = 0x80
    EXIT_VMMCALL = 0x81
    EXIT_VMLOAD = 0x82
    EXIT_VMSAVE = 0x83
    EXIT_STGI = 0x84
    EXIT_CLGI = 0x85
    EXIT_SKINIT = 0x86
    EXIT_RDTSCP = 0x87
    EXIT_ICEBP = 0x88
    EXIT_WBINVD = 0x89
    EXIT_MONITOR = 0x8a
    EXIT_MWAIT = 0x8b
    EXIT_XSETBV = 0x8d
    EXIT_INVPCID = 0xa2
    EXIT_NPF = 0x400
    EXIT_INVALID = -1            # VMRUN found the VMCB illegal
    NO_EXIT = -2
    KIND_NPF = 0xa3              # numbers of exits as they are counted: the code itself, but for two that lie apart
    KIND_INVALID = 0xa4
    N_KINDS = 0xa5

cdef inline int exit_kind(int code) noexcept nogil:
    """The place of a code in the tables."""
    if code == EXIT_NPF:
        return KIND_NPF
    return code if 0 <= code < KIND_NPF else KIND_INVALID

cdef inline void fill_exception_names(const char** names) noexcept:
    names[EXIT_EXCEPTION + VEC_DE] = b"DE excp"
    names[EXIT_EXCEPTION + VEC_DB] = b"DB excp"
    names[EXIT_EXCEPTION + VEC_BP] = b"BP excp"
    names[EXIT_EXCEPTION + VEC_OF] = b"OF excp"
    names[EXIT_EXCEPTION + VEC_BR] = b"BR excp"
    names[EXIT_EXCEPTION + VEC_UD] = b"UD excp"
    names[EXIT_EXCEPTION + VEC_NM] = b"NM excp"
    names[EXIT_EXCEPTION + VEC_DF] = b"DF excp"
    names[EXIT_EXCEPTION + VEC_TS] = b"TS excp"
    names[EXIT_EXCEPTION + VEC_NP] = b"NP excp"
    names[EXIT_EXCEPTION + VEC_SS] = b"SS excp"
    names[EXIT_EXCEPTION + VEC_GP] = b"GP excp"
    names[EXIT_EXCEPTION + VEC_PF] = b"PF excp"
    names[EXIT_EXCEPTION + VEC_MF] = b"MF excp"
    names[EXIT_EXCEPTION + VEC_AC] = b"AC excp"
    names[EXIT_EXCEPTION + VEC_MC] = b"MC excp"
    names[EXIT_EXCEPTION + VEC_XM] = b"XF excp"

cdef inline void fill_register_names(const char** names) noexcept:
    names[EXIT_READ_CR0] = b"read_cr0"
    names[EXIT_READ_CR0 + 2] = b"read_cr2"
    names[EXIT_READ_CR0 + 3] = b"read_cr3"
    names[EXIT_READ_CR0 + 4] = b"read_cr4"
    names[EXIT_READ_CR0 + 8] = b"read_cr8"
    names[EXIT_WRITE_CR0] = b"write_cr0"
    names[EXIT_WRITE_CR0 + 2] = b"write_cr2"
    names[EXIT_WRITE_CR0 + 3] = b"write_cr3"
    names[EXIT_WRITE_CR0 + 4] = b"write_cr4"
    names[EXIT_WRITE_CR0 + 8] = b"write_cr8"
    names[EXIT_READ_DR0] = b"read_dr0"
    names[EXIT_READ_DR0 + 1] = b"read_dr1"
    names[EXIT_READ_DR0 + 2] = b"read_dr2"
    names[EXIT_READ_DR0 + 3] = b"read_dr3"
    names[EXIT_READ_DR0 + 4] = b"read_dr4"
    names[EXIT_READ_DR0 + 5] = b"read_dr5"
    names[EXIT_READ_DR0 + 6] = b"read_dr6"
    names[EXIT_READ_DR0 + 7] = b"read_dr7"
    names[EXIT_WRITE_DR0] = b"write_dr0"
    names[EXIT_WRITE_DR0 + 1] = b"write_dr1"
    names[EXIT_WRITE_DR0 + 2] = b"write_dr2"
    names[EXIT_WRITE_DR0 + 3] = b"write_dr3"
    names[EXIT_WRITE_DR0 + 4] = b"write_dr4"
    names[EXIT_WRITE_DR0 + 5] = b"write_dr5"
    names[EXIT_WRITE_DR0 + 6] = b"write_dr6"
    names[EXIT_WRITE_DR0 + 7] = b"write_dr7"

cdef inline void fill_exit_names(const char** names) noexcept:
    """The name of every exit that can be counted, in the order of the appendix."""
    fill_register_names(names)
    fill_exception_names(names)
    names[EXIT_INTR] = b"interrupt"
    names[EXIT_NMI] = b"nmi"
    names[EXIT_SMI] = b"smi"
    names[EXIT_INIT] = b"init"
    names[EXIT_VINTR] = b"vintr"
    names[EXIT_CR0_SEL_WRITE] = b"cr0_sel_write"
    names[EXIT_READ_IDTR] = b"read_idtr"
    names[EXIT_READ_GDTR] = b"read_gdtr"
    names[EXIT_READ_LDTR] = b"read_ldtr"
    names[EXIT_READ_TR] = b"read_rt"
    names[EXIT_WRITE_IDTR] = b"write_idtr"
    names[EXIT_WRITE_GDTR] = b"write_gdtr"
    names[EXIT_WRITE_LDTR] = b"write_ldtr"
    names[EXIT_WRITE_TR] = b"write_rt"
    names[EXIT_RDTSC] = b"rdtsc"
    names[EXIT_RDPMC] = b"rdpmc"
    names[EXIT_PUSHF] = b"pushf"
    names[EXIT_POPF] = b"popf"
    names[EXIT_CPUID] = b"cpuid"
    names[EXIT_RSM] = b"rsm"
    names[EXIT_IRET] = b"iret"
    names[EXIT_SWINT] = b"swint"
    names[EXIT_INVD] = b"invd"
    names[EXIT_PAUSE] = b"pause"
    names[EXIT_HLT] = b"hlt"
    names[EXIT_INVLPG] = b"invlpg"
    names[EXIT_INVLPGA] = b"invlpga"
    names[EXIT_IOIO] = b"io"
    names[EXIT_MSR] = b"msr"
    names[EXIT_TASK_SWITCH] = b"task_switch"
    names[EXIT_FERR_FREEZE] = b"ferr_freeze"
    names[EXIT_SHUTDOWN] = b"shutdown"
    names[EXIT_VMRUN] = b"vmrun"
    names[EXIT_VMMCALL] = b"hypercall"
    names[EXIT_VMLOAD] = b"vmload"
    names[EXIT_VMSAVE] = b"vmsave"
    names[EXIT_STGI] = b"stgi"
    names[EXIT_CLGI] = b"clgi"
    names[EXIT_SKINIT] = b"skinit"
    names[EXIT_RDTSCP] = b"rdtscp"
    names[EXIT_ICEBP] = b"icebp"
    names[EXIT_WBINVD] = b"wbinvd"
    names[EXIT_MONITOR] = b"monitor"
    names[EXIT_MWAIT] = b"mwait"
    names[EXIT_XSETBV] = b"xsetbv"
    names[EXIT_INVPCID] = b"invpcid"
    names[KIND_NPF] = b"npf"
    names[KIND_INVALID] = b"invalid_guest_state"
