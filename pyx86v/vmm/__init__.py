# SPDX-License-Identifier: GPL-2.0-or-later
"""Styles of virtualization.  What exit hooks are told of an event, by EventKind of guest.pxd."""
EVENT_NAMES = ("exception", "software_int", "interrupt", "triple_fault", "cpuid", "rdtsc", "hlt", "cr_write", "cr_read", "clts",
                "lmsw", "dr_write", "dr_read", "invlpg", "invpcid", "rdmsr", "wrmsr", "port_in", "port_out", "mmio_read",
                "mmio_write", "wbinvd", "invd", "descriptor_load", "xsetbv", "rdpmc", "monitor", "vmx_insn", "ept_violation",
                "ept_misconfig")
