# SPDX-License-Identifier: GPL-2.0-or-later
"""Which x86 instructions are sensitive, and whether they trap below ring 0.

The classes are Popek & Goldberg's ("Formal requirements for virtualizable third generation architectures", CACM 1974):

control     changes the processor's mode or its resources: what decides translation, privilege, interrupts, devices
behaviour   gives a result that depends on the mode, or on where in real memory the processor's tables lie
(none)      innocuous: every instruction that is not in the table

The architecture can be virtualized by trap and emulate when each sensitive instruction is privileged: when it traps
outside ring 0.  Those that do not are holes.  Robin & Irvine ("Analysis of the Intel Pentium's ability to support a
secure virtual machine monitor", USENIX Security 2000) found seventeen of them; `listed` is True for the mnemonics that
their sections 3.1 and 3.2 discuss.  That is eighteen names: CALL, JMP, INT n and RET, PUSH, POP, MOV and STR beside the
six that store and load system registers and the four that look descriptors up.  Lists that say seventeen and
lists that say eighteen mean the same instructions.

Whether it traps is said for a protected-mode processor with IOPL 0, CR4.TSD 1, CR4.PCE 0, CR4.UMIP 0, in a code
segment of ring 1 and of ring 3 (SDM 2A, 2B: the instruction's exceptions; SDM 3A 5.9).  A trap is #GP(0), or #UD for
instructions that need a mode which is not on.
"""
from dataclasses import dataclass

CONTROL, BEHAVIOUR, INNOCUOUS = "control", "behaviour", "innocuous"


@dataclass(frozen=True)
class Sensitive:
    """One sensitive instruction (mnemonic, or a form of one where operands decide)."""
    name: str              # as reports show it
    kind: str              # CONTROL or BEHAVIOUR
    traps: bool            # outside ring 0, always
    listed: bool           # by Robin & Irvine
    note: str


def _rows(kind, traps, listed, note, names):
    return [Sensitive(name, kind, traps, listed, note) for name in names.split()]


# Holes first: numbers below N_HOLES are instructions that do not always trap at ring 1.
ROWS = (
    *_rows(BEHAVIOUR, False, True, "stores the real table's base and limit", "sgdt sidt"),
    *_rows(BEHAVIOUR, False, True, "stores the real selector", "sldt str"),
    *_rows(BEHAVIOUR, False, True, "stores the real CR0's low half", "smsw"),
    *_rows(BEHAVIOUR, False, True, "pushes the real IF and IOPL", "pushf"),
    *_rows(CONTROL, False, True, "drops IF and IOPL without a word", "popf"),
    *_rows(BEHAVIOUR, False, True, "looks at real descriptors with the real CPL", "lar lsl verr verw"),
    *_rows(BEHAVIOUR, False, True, "shows the real CPL: CS and SS only", "mov_from_segment push_segment"),
    *_rows(CONTROL, False, True, "loads from the real tables with the real CPL; traps only when they forbid it", "mov_to_segment pop_segment"),
    *_rows(CONTROL, False, False, "loads from the real tables with the real CPL; traps only when they forbid it", "lds les lfs lgs lss"),
    *_rows(CONTROL, False, True, "checks and pushes the real CPL, through real descriptors", "call_far jmp_far ret_far"),
    *_rows(CONTROL, False, True, "goes through the real IDT", "int"),
    *_rows(CONTROL, False, False, "goes through the real IDT", "int1 int3 into"),
    *_rows(CONTROL, False, False, "loads the real CPL; drops IF and IOPL without a word", "iret"),
    *_rows(CONTROL, False, False, "enters ring 0 where the real MSRs say; #UD where they do not enable it", "syscall sysenter"),
    *_rows(BEHAVIOUR, True, False, "traps with CR4.TSD", "rdtsc rdtscp"),
    *_rows(BEHAVIOUR, True, False, "traps without CR4.PCE", "rdpmc"),
    *_rows(CONTROL, True, False, "traps above IOPL and outside the TSS's permission bitmap", "in out ins outs"),
    *_rows(CONTROL, True, False, "traps above IOPL", "cli sti"),
    *_rows(CONTROL, True, False, "", "hlt lgdt lidt lldt ltr lmsw clts mov_to_cr mov_to_dr invd wbinvd wbnoinvd invlpg invpcid "
                                     "wrmsr swapgs sysret sysexit xsetbv xsaves xrstors monitor mwait"),
    *_rows(BEHAVIOUR, True, False, "", "mov_from_cr mov_from_dr rdmsr"),
    *_rows(CONTROL, True, False, "#UD outside ring 0", "clac stac"),
    *_rows(CONTROL, True, False, "#UD outside SMM", "rsm"),
    *_rows(CONTROL, True, False, "VT-x: #UD outside VMX operation", "vmcall vmlaunch vmresume vmxon vmxoff vmread vmwrite vmclear "
                                                                    "vmptrld vmptrst vmfunc invept invvpid getsec"),
    *_rows(CONTROL, True, False, "AMD-V: #UD without EFER.SVME", "vmrun vmload vmsave vmmcall stgi clgi skinit invlpga"),
    *_rows(CONTROL, True, False, "not on the processors modelled: #UD", "encls enclv pconfig setssbsy clrssbsy wruss monitorx mwaitx"),
)
NAMES = ("",) + tuple(row.name for row in ROWS)        # by number; 0 is innocuous
NUMBER = {name: number for number, name in enumerate(NAMES) if name}
SEVENTEEN = tuple(row.name for row in ROWS if row.listed)
# What shows through in every ring but 0 whatever tables the monitor has loaded; the other holes trap when these are empty.
SILENT = tuple("sgdt sidt sldt str smsw pushf popf lar lsl verr verw mov_from_segment push_segment".split())
SILENT_TO_USERS = tuple(name for name in SILENT if name not in ("pushf", "popf", "mov_from_segment", "push_segment"))
SILENT_IN_V86 = ("sgdt", "sidt", "smsw")
N_HOLES = 1 + max(number for number, row in enumerate(ROWS, 1) if not row.traps)

# Capstone's spellings that differ from the names above.
_SPELLINGS = {"pushf": "pushf pushfd pushfq", "popf": "popf popfd popfq", "iret": "iret iretd iretq", "sysret": "sysret sysretq",
              "sysexit": "sysexit sysexitq", "ins": "insb insw insd", "outs": "outsb outsw outsd", "call_far": "lcall", "jmp_far": "ljmp",
              "ret_far": "retf retfq", "xsaves": "xsaves xsaves64", "xrstors": "xrstors xrstors64", "wruss": "wrussd wrussq"}
BY_MNEMONIC = {spelling: NUMBER[name] for name in NUMBER for spelling in _SPELLINGS.get(name, name).split()}


def sensitive_of(mnemonic):
    """The row of a mnemonic in capstone's spelling, or None: innocuous, or decided by operands (MOV, PUSH, POP, CALL, JMP)."""
    number = BY_MNEMONIC.get(mnemonic)
    return ROWS[number - 1] if number else None
