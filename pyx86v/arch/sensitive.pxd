# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of the sensitive instructions that the core names; the table with all of them is sensitive.py, which checks these."""

cdef enum:
    SENSITIVE_NONE = 0
    SENSITIVE_SGDT = 1
    SENSITIVE_SIDT = 2
    SENSITIVE_SLDT = 3
    SENSITIVE_STR = 4
    SENSITIVE_SMSW = 5
    SENSITIVE_PUSHF = 6
    SENSITIVE_POPF = 7
    SENSITIVE_LAR = 8
    SENSITIVE_LSL = 9
    SENSITIVE_VERR = 10
    SENSITIVE_VERW = 11
    SENSITIVE_MOV_FROM_SEGMENT = 12
    SENSITIVE_PUSH_SEGMENT = 13
    SENSITIVE_MOV_TO_SEGMENT = 14
    SENSITIVE_POP_SEGMENT = 15
    SENSITIVE_LDS = 16
    SENSITIVE_LSS = 20
    SENSITIVE_CALL_FAR = 21
    SENSITIVE_JMP_FAR = 22
    SENSITIVE_RET_FAR = 23
    SENSITIVE_INT = 24
    SENSITIVE_IRET = 28
    SENSITIVE_SYSCALL = 29
    SENSITIVE_SYSENTER = 30
    SENSITIVE_RDTSC = 31     # from here on they trap outside ring 0
    MAX_SENSITIVE = 128
