# SPDX-License-Identifier: GPL-2.0-or-later
"""Styles: what an event means and what it costs."""
import importlib
import pkgutil

# What on_exit() calls the events, in the order of EventKind (guest.pxd).
EVENT_NAMES = (
    "exception", "software_int", "interrupt", "triple_fault", "cpuid", "rdtsc", "hlt", "cr_write", "cr_read", "clts", "lmsw", "dr_write",
    "dr_read", "invlpg", "invpcid", "rdmsr", "wrmsr", "port_in", "port_out", "mmio_read", "mmio_write", "wbinvd", "invd",
    "descriptor_load", "xsetbv", "rdpmc", "monitor", "vmx_insn", "ept_violation", "ept_misconfig", "shadow_fault", "trap", "syscall", "hole",
    "task_switch")


def style_capsules():
    """The capsule of every style: each module below this package with a `style_capsule` function."""
    for module in pkgutil.walk_packages(__path__, "pyx86v.vmm."):
        if not module.ispkg and not module.name.endswith("testing"):
            loaded = importlib.import_module(module.name)
            if hasattr(loaded, "style_capsule"):
                yield loaded.style_capsule()
