# SPDX-License-Identifier: GPL-2.0-or-later
"""Every reason for VMEXIT_INVALID by name, in the order of APM 2 15.5.1, 15.20 and 15.25.3."""

cpdef enum Rule:
    RULE_NONE = 0
    RULE_SVME = 1            # EFER.SVME is clear
    RULE_CR0_CACHE           # CD clear and NW set
    RULE_CR0_HIGH
    RULE_CR3
    RULE_CR4
    RULE_DR6
    RULE_DR7
    RULE_EFER
    RULE_LONG_PAE            # EFER.LME and CR0.PG without CR4.PAE,
    RULE_LONG_PE             # without CR0.PE,
    RULE_LONG_CS             # with CS.L and CS.D
    RULE_VMRUN_INTERCEPT     # not set
    RULE_MAPS                # MSRPM or IOPM beyond the physical-address width
    RULE_ASID                # 0 is the host's
    RULE_INJECT_TYPE         # 15.20
    RULE_INJECT_VECTOR
    RULE_N_CR3               # 15.25.3
    RULE_G_PAT
