# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMCB by the manual's names (APM 2 tables B-1 and B-2), written from the manual and from nothing of pyx86v.vmm.svm."""
from pyx86v.vmm.svm.testing import SvmBench

# name: (offset, bytes)
CONTROL = {
    "CR_READS": (0x000, 2), "CR_WRITES": (0x002, 2), "DR_READS": (0x004, 2), "DR_WRITES": (0x006, 2), "EXCEPTIONS": (0x008, 4),
    "INTERCEPTS_1": (0x00c, 4), "INTERCEPTS_2": (0x010, 4), "INTERCEPTS_3": (0x014, 4), "PAUSE_THRESHOLD": (0x03c, 2),
    "PAUSE_COUNT": (0x03e, 2), "IOPM_BASE_PA": (0x040, 8), "MSRPM_BASE_PA": (0x048, 8), "TSC_OFFSET": (0x050, 8), "ASID": (0x058, 4),
    "TLB_CONTROL": (0x05c, 1), "VINTR": (0x060, 8), "INTERRUPT_SHADOW": (0x068, 8), "EXITCODE": (0x070, 8), "EXITINFO1": (0x078, 8),
    "EXITINFO2": (0x080, 8), "EXITINTINFO": (0x088, 8), "NP_ENABLE": (0x090, 8), "EVENTINJ": (0x0a8, 8), "N_CR3": (0x0b0, 8),
    "LBR_VIRTUALIZATION_ENABLE": (0x0b8, 8), "CLEAN": (0x0c0, 4), "NRIP": (0x0c8, 8), "INSN_COUNT": (0x0d0, 1)}
SAVE = {
    "CPL": (0x4cb, 1), "EFER": (0x4d0, 8), "CR4": (0x548, 8), "CR3": (0x550, 8), "CR0": (0x558, 8), "DR7": (0x560, 8), "DR6": (0x568, 8),
    "RFLAGS": (0x570, 8), "RIP": (0x578, 8), "RSP": (0x5d8, 8), "RAX": (0x5f8, 8), "STAR": (0x600, 8), "LSTAR": (0x608, 8),
    "CSTAR": (0x610, 8), "SFMASK": (0x618, 8), "KERNEL_GS_BASE": (0x620, 8), "SYSENTER_CS": (0x628, 8), "SYSENTER_ESP": (0x630, 8),
    "SYSENTER_EIP": (0x638, 8), "CR2": (0x640, 8), "G_PAT": (0x668, 8), "DBGCTL": (0x670, 8), "BR_FROM": (0x678, 8)}
for number, name in enumerate("ES CS SS DS FS GS GDTR LDTR IDTR TR".split()):
    at = 0x400 + 16 * number
    SAVE |= {f"{name}_SELECTOR": (at, 2), f"{name}_ATTRIB": (at + 2, 2), f"{name}_LIMIT": (at + 4, 4), f"{name}_BASE": (at + 8, 8)}
FIELDS = CONTROL | SAVE
CR0_PG, CR0_CD, CR0_NW, CR0_WP, CR0_TS, CR0_PE = 1 << 31, 1 << 30, 1 << 29, 1 << 16, 8, 1
FLAT32, FLAT64 = 0xcf9b00, 0xaf9b00


class Bench(SvmBench):
    """SvmBench whose VMCB is read and written by name."""

    def field(self, name):
        return self.peek(*FIELDS[name])

    def write(self, clean=0, **fields):
        """Write fields as the monitor does: nothing of the VMCB counts as clean after it (or what `clean` says)."""
        for name, value in fields.items():
            self.poke(*FIELDS[name], value)
        self.poke(*FIELDS["CLEAN"], clean)

    def intercept(self, code, on=True):
        """Set or clear the bit of an exit code from 60h on."""
        name = ("INTERCEPTS_1", "INTERCEPTS_2", "INTERCEPTS_3")[(code - 0x60) // 32]
        value = self.field(name) & ~(1 << (code & 31))
        self.write(**{name: value | on << (code & 31)})


def bench(mode="long", started=True, kind=Bench, **options):
    """A guest in 64-bit, protected or real-address mode, running under the monitor."""
    b = kind(guest=1 << 20, **options)
    if mode != "real":
        for name in ("ES", "SS", "DS", "FS", "GS"):
            b.segment(name, 0x18, 0, 0xffffffff, 0xcf9300)
        b.segment("CS", 0x10, 0, 0xffffffff, FLAT64 if mode == "long" else FLAT32)
        b.segment("TR", 0x40, 0x3000, 0x67, 0x8900)
        b.segment("LDTR", 0, 0, 0, 0)
    if mode == "long":
        b.set(EFER=0xd01, CR0=0x80010031, CR4=0x20, CR3=0x2000, BITS=64, DR6=0xffff0ff0)
    elif mode == "protected":
        b.set(CR0=0x31, BITS=32)
    if started:
        assert b.start() == 0, b.state
    return b
