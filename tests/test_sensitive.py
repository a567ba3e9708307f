# SPDX-License-Identifier: GPL-2.0-or-later
"""The classifier of sensitive instructions against capstone's own list, the decoder, and a processor at rings 1 and 3."""
import re
from pathlib import Path

import capstone
import pytest
from capstone import x86 as cs

from pyx86v.arch import sensitive as s
from pyx86v.cost.block import BlockDecoder
from pyx86v.cost.profile import load_profile

CODE = {            # one encoding of each instruction of the list, 32-bit code unless said
    "sgdt": "0f0100", "sidt": "0f0108", "sldt": "0f00c0", "str": "0f00c8", "smsw": "0f01e0", "pushf": "9c", "popf": "9d",
    "lar": "0f02c1", "lsl": "0f03c1", "verr": "0f00e0", "verw": "0f00e8", "mov_from_segment": "8cc8", "push_segment": "0e",
    "mov_to_segment": "8ed8", "pop_segment": "1f", "call_far": "ff18", "jmp_far": "ff28", "ret_far": "cb", "int": "cd80",
}
OTHERS = {"lds": "c500", "lss": "0fb200", "int3": "cc", "into": "ce", "iret": "cf", "rdtsc": "0f31", "in": "ec", "outs": "6e", "cli": "fa",
          "hlt": "f4", "lgdt": "0f0110", "ltr": "0f00d8", "mov_to_cr": "0f22c0", "mov_from_cr": "0f20c0", "mov_to_dr": "0f23c0",
          "mov_from_dr": "0f21c0", "rdmsr": "0f32", "wrmsr": "0f30", "invlpg": "0f0138", "vmcall": "0f01c1", "clts": "0f06", "rsm": "0faa"}


def number(code, bits=32):
    decoder = BlockDecoder(load_profile("skylake").instructions)
    (_, _, flags), = decoder.block(bytes.fromhex(code), 0, bits)
    return s.NAMES[flags >> 8]


@pytest.mark.parametrize("name", {**CODE, **OTHERS})
def test_the_decoder_names_each(name):
    assert number({**CODE, **OTHERS}[name]) == name


@pytest.mark.parametrize("code", ["90", "89c8", "50", "40", "e800000000", "ffd0", "ffe0", "c3", "0fa2", "f3a4", "6a00"])
def test_innocuous_instructions_have_no_number(code):
    assert number(code) == ""


def test_the_list_has_the_eighteen_names():
    names = {re.sub("_(from|to)?_?(segment|far)$", "", name).rstrip("_") for name in s.SEVENTEEN}
    assert names == set("sgdt sidt sldt smsw pushf popf lar lsl verr verw pop push call jmp int ret str mov".split())
    assert not any(s.ROWS[s.NUMBER[name] - 1].traps for name in s.SEVENTEEN)


@pytest.mark.slow
def test_every_mnemonic_that_capstone_calls_privileged_is_in_the_table():
    """Capstone's group of privileged instructions, asked of each one- and two-byte opcode in 32- and 64-bit code."""
    seen = {}
    for mode in (capstone.CS_MODE_32, capstone.CS_MODE_64):
        md = capstone.Cs(capstone.CS_ARCH_X86, mode)
        md.detail = True
        for opcode in [bytes([a]) for a in range(256)] + [bytes([0x0f, a]) for a in range(256)]:
            for modrm in range(256):
                for insn in md.disasm(opcode + bytes([modrm]) + bytes(8), 0, 1):
                    if cs.X86_GRP_PRIVILEGE in insn.groups:
                        seen[insn.mnemonic.split()[-1]] = insn
    unknown = {name for name in seen if name not in s.BY_MNEMONIC}
    assert len(seen) > 20 and unknown <= {"mov", "pop"}      # decided by operands


def test_numbers_of_the_core_are_the_tables():
    text = (Path(s.__file__).with_name("sensitive.pxd")).read_text()
    pairs = dict(re.findall(r"SENSITIVE_(\w+) = (\d+)", text))
    assert len(pairs) > 20
    for name, value in pairs.items():
        assert s.NAMES[int(value)] == ("" if name == "NONE" else name.lower())
