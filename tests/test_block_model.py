# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model: cases worked out by hand from the manuals, llvm-mca where it is sure, measured blocks, hostile bytes."""
import json
import math
import os
import shutil
from pathlib import Path

import capstone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyx86v.cli.blocks import assemble
from pyx86v.cost.model.groups import GROUPS, group_of, role_of
from pyx86v.cost.model.model import BlockModel
from pyx86v.cost.model.profile import ProfileError, load_model, model_names, parse_uops
from pyx86v.cost.profile import STATUSES
from pyx86v.report import blocks as report

BHIVE = Path(__file__).parent / "data" / "bhive_skylake.csv"
MODEL = BlockModel("skylake")
BHIVE_LONG = max((code for code, _ in report.read_blocks(BHIVE)), key=len)

# Cycles by hand.  A chain of one instruction costs its latency (Intel's optimisation manual, appendix on latencies); what has no
# chain costs its share of the ports, of four renamed a cycle, or of sixteen bytes and five instructions predecoded a cycle.
BY_HAND = [
    ("add rax, rbx", 1), ("imul rax, rcx", 3), ("lea rax, [rax+rbx+8]", 3), ("lea rax, [rax+8]", 1), ("popcnt rax, rbx", 3),
    ("adc rax, rbx", 1), ("cmovbe rax, rbx", 2), ("bswap rax", 2), ("addsd xmm0, xmm1", 4), ("mulsd xmm0, xmm1", 4),
    ("vfmadd231pd ymm0, ymm1, ymm2", 4), ("divsd xmm0, xmm1", 13), ("div ecx", 26), ("lock add [rdi], eax", 18),
    ("mov rax, [rax]", 4), ("mov rax, [rax+rbx]", 5),                  # a pointer chase, the short path and the long
    ("mov [rsp+8], rax; mov rax, [rsp+8]", 4), ("push rax; pop rax", 4), ("add dword ptr [rdi], 1", 5),    # through memory
    ("mov [rdi], eax; mov rax, [rdi]", 14),                            # a load wider than the store before it
    ("pop rbx; add rsp, 8", 2),                                        # the stack engine brings RSP up to date
    ("mov rax, [rdi]; mov rbx, [rsi]; mov rcx, [rdx]", 1.5),           # two loads a cycle
    ("mov [rdi], rax; mov [rdi+8], rax", 2),                           # one store a cycle
    ("xor eax, eax", 0.25), ("mov eax, ebx", 0.25), ("nop", 0.25),     # renamed away
    ("pcmpeqd xmm0, xmm0", 0.5), ("mov rcx, [rsp+0x12345678]", 0.5),   # two ports; two in sixteen bytes
    ("imul rax, rbx, 7", 1), ("imul rbx; xor eax, eax", 1),            # three operands: the first is only written; one: only read
    ("imul qword ptr [rsp]; xor eax, eax", 1), ("mulx rax, rbx, rcx; mov rdx, rbx", 4),
    ("sub rax, rax; imul rax, rbx", 1),                                # an idiom ends the chain; one multiplier
]


@pytest.mark.parametrize("text, cycles", BY_HAND)
def test_cases_by_hand(text, cycles):
    assert MODEL.cycles(assemble(text, 64)) == pytest.approx(cycles, rel=0.02)


@pytest.mark.parametrize("text, bound", [("imul rax, rcx", "dependency"), ("cmp si, 0x19c", "predecode"), ("movaps xmm1, xmm3; divsd xmm1, xmm2", "divider"),
                                         ("mov [rdi], rax; mov [rdi+8], rax", "ports"), ("cmova rbx, [rsi]", "dependency")])
def test_the_bound_that_decides(text, bound):
    assert MODEL.analyse(assemble(text, 64))["bound"] == bound


def test_length_changing_prefix():
    """16 instructions of five bytes fill five windows; each window is one cycle and three for each prefix in it (uiCA)."""
    assert MODEL.cycles(assemble("cmp si, 0x19c", 64)) == pytest.approx((5 + 16 * 3) / 16, rel=0.01)


def test_a_chain_is_shown():
    found = MODEL.analyse(assemble("add rax, rbx; imul rax, rcx; mov [rdi], rax; inc r8", 64))
    assert sorted(found["chain"]) == [0, 1] and found["cycles"] == 4
    assert sum(found["ports"][port] for port in (0, 1, 5, 6)) == pytest.approx(3, rel=0.02) and found["ports"][4] == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("name", model_names())
def test_the_pressure_of_the_instructions_adds_up(name):
    for code, _ in report.read_blocks(BHIVE)[::25]:
        found = BlockModel(name).analyse(code)
        sums = [sum(column) for column in zip(*(row["pressure"] for row in found["instructions"]))]
        assert sums == pytest.approx(found["ports"])
        for row in found["instructions"]:
            more = sum(row["pressure"]) - len(row["ports"])
            assert row["fused"] or more == pytest.approx(0) or more == pytest.approx(1, abs=0.05)       # the stack engine's, before it


def test_loops_come_from_the_decoded_cache():
    body = "add rax, 1; add rbx, 1; add rcx, 0x12345678; add rdx, 0x12345678; "
    assert MODEL.cycles(assemble("1:" + body + "cmp rax, rsi; jne 1b", 64), loop=True) == pytest.approx(1.25, abs=0.3)
    assert MODEL.cycles(assemble("dec rax; jnz .", 64), loop=True) == pytest.approx(1, rel=0.02)


def test_a_branch_fuses_with_the_comparison_before_it():
    fused, apart = (MODEL.analyse(assemble(text, 64))["uops"] for text in ("cmp rax, rbx; jne .", "mov rax, rbx; jne ."))
    assert (fused, apart) == (1, 2)


ZERO, CARRY, SIGN = "e ne l ge le g", "b ae be a", "s ns o no p np"


@pytest.mark.parametrize("text, fuses", [
    ("test eax, ebx", f"{ZERO} {CARRY} {SIGN}"), ("and eax, 7", f"{ZERO} {CARRY} {SIGN}"), ("cmp eax, ebx", f"{ZERO} {CARRY}"),
    ("cmp [rdi], eax", f"{ZERO} {CARRY}"), ("cmp eax, [rdi]", f"{ZERO} {CARRY}"), ("sub eax, ebx", f"{ZERO} {CARRY}"), ("inc eax", ZERO),
    ("add [rdi], eax", ""), ("inc dword ptr [rdi]", ""), ("cmp dword ptr [rdi], 1", ""), ("mov eax, ebx", ""), ("shl eax, 1", "")])
def test_what_fuses_with_which_branch(text, fuses):
    """The optimisation manual's table of macro-fusion; nothing that stores fuses, nor a comparison of memory with a constant."""
    for condition in f"{ZERO} {CARRY} {SIGN} rcxz".split():
        found = MODEL.analyse(assemble(f"1: {text}; j{condition} 1b", 64), loop=True)["instructions"][1]["fused"]
        assert found == (condition in fuses.split()), condition


# Cycles by hand on the others: Ivy Bridge computes on three ports and has no third port for the addresses of stores; its decoders, and
# Haswell's, hold what may fuse with a branch back from the last of four (uiCA); PAUSE grew with Skylake (optimisation manual); AMD fuses
# CMP and TEST only (optimisation guide), and its six-wide renamer takes five instructions.
@pytest.mark.parametrize("name, text, cycles", [
    ("ivybridge", "mov [rdi], rax; mov rbx, [rsi]; mov rcx, [rsi]", 1.5), ("haswell", "mov [rdi], rax; mov rbx, [rsi]; mov rcx, [rsi]", 1),
    ("haswell", "cmp ebx, edx", 1 / 3), ("ivybridge", "cmp ebx, edx", 1 / 3), ("ivybridge", "mov eax, 1; mov ebx, 2", 2 / 3),
    ("haswell", "adc rax, rbx", 2), ("haswell", "cmove rax, rbx", 2), ("haswell", "addsd xmm0, xmm1", 3), ("haswell", "mulsd xmm0, xmm1", 5),
    ("haswell", "pause", 10), ("skylake", "pause", 140), ("zen2", "addsd xmm0, xmm1", 3), ("zen2", "mov rax, [rax]", 4)])
def test_cases_by_hand_on_other_processors(name, text, cycles):
    assert BlockModel(name).cycles(assemble(text, 64)) == pytest.approx(cycles, rel=0.02)


@pytest.mark.parametrize("below", range(1, 33))
def test_the_end_of_the_address_space(below):
    """An access that lies across it, or near it, is one like any other."""
    text = f"xor eax, eax; fild qword ptr [rax-{below}]; mov [rax-{below}], rdx"
    assert 0 < MODEL.cycles(assemble(text, 64)) < 100


def test_where_memory_starts_decides_what_overlaps():
    """Under the harness's start every register points to the same place, and the store feeds the load."""
    code = assemble("mov rax, [rsi+8]; add rax, 1; mov [rdi+8], rax", 64)
    assert MODEL.cycles(code, start="same") == pytest.approx(5, rel=0.05) and MODEL.cycles(code) == pytest.approx(1, rel=0.1)


def test_measured_blocks():
    result = report.accuracy(MODEL, report.read_blocks(BHIVE))
    assert result["blocks"] == 1048 and result["uncovered"] == 0
    assert result["mean_error"] <= 0.065 and result["median_error"] <= 0.025 and result["tau"] >= 0.94


needs_llvm = pytest.mark.skipif(not (shutil.which("llvm-mca") and shutil.which("llvm-mc")), reason="llvm-mca is not installed (Debian: llvm)")


@pytest.mark.slow
@needs_llvm
def test_better_than_llvm_mca_on_measured_blocks():
    blocks = report.read_blocks(BHIVE)
    theirs = report.errors(report.llvm_mca([code for code, _ in blocks], "skylake"), [cycles for _, cycles in blocks])
    ours = report.accuracy(MODEL, blocks)
    assert ours["mean_error"] < theirs["mean_error"] / 2 and ours["median_error"] < theirs["median_error"] and ours["tau"] > theirs["tau"]


@needs_llvm
@pytest.mark.parametrize("name", model_names())
def test_chains_agree_with_llvm_mca(name):
    """Where one latency decides, the two models have nothing to disagree about but that latency."""
    texts = ["add rax, rbx", "imul rax, rcx", "lea rax, [rax+8]", "addsd xmm0, xmm1", "mulps xmm0, xmm1", "paddd xmm0, xmm1", "pshufd xmm0, xmm0, 1",
             "pmulld xmm0, xmm1", "shl rax, 3", "and rax, rbx; imul rax, rbx"]
    codes = [assemble(text, 64) for text in texts]
    theirs = report.llvm_mca(codes, name)
    if theirs is None:
        pytest.skip(f"llvm-mca does not know {name}")
    ours = [BlockModel(name).cycles(code) for code in codes]
    differ = [(text, a, b) for text, a, b in zip(texts, ours, theirs) if abs(a - b) > 0.1 * b]
    assert len(differ) <= 2, differ


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.sampled_from([16, 32, 64]), st.booleans(), st.sampled_from(["same", "distinct"]))
def test_any_bytes_are_whole_instructions_or_an_error(code, bits, loop, start):
    try:
        found = MODEL.analyse(code, bits, loop, start)
    except ValueError:
        return
    assert 0 < found["cycles"] < 1e6 and math.isfinite(found["cycles"]) and found["cycles"] * 64 == int(found["cycles"] * 64)
    assert sum(row["length"] for row in found["instructions"]) == len(code)
    assert found["cycles"] == MODEL.cycles(code, bits, loop, start)               # nothing of an earlier block is left


MEASURED = report.read_blocks(BHIVE)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MEASURED), st.sampled_from(MEASURED))
def test_more_instructions_never_cost_less(first, second):
    """The bounds that add up, exactly; the prediction but for how the code lies in the predecoder's windows and which port is taken."""
    one, both = MODEL.analyse(first[0]), MODEL.analyse(first[0] + second[0])
    assert both["bounds"]["issue"] >= one["bounds"]["issue"] and both["bounds"]["ports"] >= one["bounds"]["ports"]
    assert both["uops"] == one["uops"] + MODEL.analyse(second[0])["uops"]
    assert both["cycles"] >= one["bounds"]["issue"] - 0.05 and both["cycles"] >= one["bounds"]["ports"] - 0.25


@pytest.mark.parametrize("name", model_names())
def test_every_line_has_a_source(name):
    table = load_model(name)["lines"]
    lines = [(section, key, line) for section in ("pipeline", "ports", "groups") for key, line in table[section].items()]
    assert len(lines) > 150 and set(table["groups"]) == set(GROUPS)
    for section, key, line in lines:
        assert line["source"] in table["sources"] and line["status"] in STATUSES, (section, key)


@pytest.mark.parametrize("change, message", [
    ("[groups]\nalu = { uops = 'p0156', latency = 1, source = 'nowhere', status = 'read' }", "groups.alu.source"),
    ("[groups]\nalu = { uops = 'p0156', latency = 1, source = 'uops', status = 'sure' }", "groups.alu.status"),
    ("[groups]\nalu = { uops = '4*q1', latency = 1, source = 'uops', status = 'read' }", "groups.alu.uops"),
    ("[groups]\nalu = { uops = 'p0', latency = -1, source = 'uops', status = 'read' }", "groups.alu.latency"),
    ("[groups]\naul = { uops = 'p0', latency = 1, source = 'uops', status = 'read' }", "groups.aul"),
    ("[pipeline]\nissue = { value = 0, source = 'uica', status = 'read' }", "pipeline.issue"),
    ("[ports]\nload = { uops = '2*p1', source = 'uops', status = 'read' }", "ports.load.uops")])
def test_a_broken_profile_is_one_line(tmp_path, change, message):
    path = tmp_path / "mine.toml"
    path.write_text("base = 'skylake'\n" + change)
    with pytest.raises(ProfileError) as caught:
        BlockModel(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_processor_is_a_file(tmp_path):
    path = tmp_path / "slow.toml"
    path.write_text("base = 'skylake'\n[groups]\nmultiply = { uops = 'p1', latency = 9, source = 'model', status = 'estimated' }")
    assert BlockModel(path).cycles(assemble("imul rax, rcx", 64)) == 9


@pytest.mark.parametrize("lines", [
    "[pipeline]\nscheduler = { value = 500, source = 'model', status = 'estimated' }\nreorder_buffer = { value = 500, source = 'model', status = 'estimated' }\n",
    "[pipeline]\npredecode_bytes = { value = 64, source = 'model', status = 'estimated' }\nissue = { value = 500, source = 'model', status = 'estimated' }\n",
    "[pipeline]\npredecode_bytes = { value = 0, source = 'model', status = 'estimated' }\nscheduler = { value = 1, source = 'model', status = 'estimated' }\n"])
def test_strange_processors_come_to_an_end(tmp_path, lines):
    """Latencies of 500 cycles put execution far beyond what is remembered of the ports."""
    path = tmp_path / "strange.toml"
    path.write_text("base = 'skylake'\n" + lines + "[groups]\nalu = { uops = '60*p0', latency = 500, source = 'model', status = 'estimated' }\n"
                    "multiply = { uops = 'p1', latency = 500, source = 'model', status = 'estimated' }\n")
    model = BlockModel(path)
    for text in ("imul rax, rcx", "add rax, rbx", "imul rax, rcx; add rbx, rcx; mov rdx, [rax]; mov [rdx+rdx], eax; mov rax, [rdx+rdx]"):
        assert model.cycles(assemble(text, 64)) >= 500 and model.cycles(assemble(text, 64), start="same") >= 500
    assert model.cycles(BHIVE_LONG * (400 // len(MODEL.analyse(BHIVE_LONG)["instructions"]))) > 1


def test_parse_uops():
    assert parse_uops("") == [] and parse_uops("2*p06+pA") == [(0x41, 2), (0x400, 1)]


def test_groups_know_what_capstone_names():
    """Every mnemonic stands in one group, and is one that capstone prints."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    known = {decoder.insn_name(number) for number in range(1, capstone.x86_const.X86_INS_ENDING)}
    written = [name for names in GROUPS.values() for name in names.split()]
    assert len(written) == len(set(written))
    assert not {name for name in written if name not in known and "v" + name not in known}
    assert group_of("vaddps") == "fp_add" and group_of("vfmadd231sd") == "fp_fused" and group_of("verr") == "system"
    assert role_of("cmp") == "r" and role_of("vmovaps") == "w" and role_of("xadd") == "rw"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
def test_tau_is_what_counting_pairs_gives(pairs):
    total = x_only = y_only = 0
    for k, (a, b) in enumerate(pairs):
        for c, d in pairs[:k]:
            x, y = (a > c) - (a < c), (b > d) - (b < d)
            total, x_only, y_only = total + x * y, x_only + (x != 0), y_only + (y != 0)
    expected = total / math.sqrt(x_only * y_only) if x_only * y_only else 0
    assert report.kendall_tau(*zip(*pairs)) == pytest.approx(expected)


def run(capsys, *arguments):
    from pyx86v import cli
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return end.value.code, *capsys.readouterr()


def test_accuracy_command(capsys, tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("# three\n4801d8,1.0\n480fafc1,3.03\n06,2\n")
    status, out, _ = run(capsys, "accuracy", "--blocks", str(path), "--cpu", "skylake", "--json", "-")
    found = json.loads(out)
    assert status == 0 and {"blocks", "mean_error", "median_error", "tau", "uncovered"} <= set(found)
    assert found["blocks"] == 3 and found["uncovered"] == 1 and found["median_error"] == pytest.approx(0.03 / 3.03)
    assert found["worst"][0]["bound"] == "undecoded"
    status, out, _ = run(capsys, "accuracy", "--blocks", str(path))
    assert status == 0 and "Kendall" in out and "480fafc1" in out


@pytest.mark.slow
def test_the_readmes_table_is_the_commands(capsys):
    """Line by line, llvm-mca's too where it is the one of the table."""
    status, out, _ = run(capsys, "accuracy", "--blocks", str(BHIVE), "--markdown", *(["--llvm-mca"] if shutil.which("llvm-mca") else []))
    lines = [line for line in out.splitlines() if line.startswith("|")]
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    assert status == 0 and "1048" in lines[2]
    assert "\n".join(lines if any(line.startswith("| llvm-mca 14 ") for line in lines) else lines[:3]) in readme


@pytest.mark.parametrize("name", ["skylake", "haswell", "zen2"])
def test_profiles_show_every_line_of_the_model(capsys, name):
    status, out, _ = run(capsys, "profiles", name)
    assert status == 0 and "pipeline scheduler" in out and all(f"groups {group}" in out for group in GROUPS)
    status, out, _ = run(capsys, "profiles", name, "--json", "-")
    [model] = [each for each in json.loads(out) if "block_model" in each]
    lines = load_model(name)["lines"]
    for row in model["block_model"]:
        line = lines[row["section"]][row["name"]]
        assert row["source"] == lines["sources"][line["source"]] and row.get("value") == line.get("value") and row.get("uops") == line.get("uops")


@pytest.mark.parametrize("line", ["48zz,1", "4801d8", "4801d8,0", "4801d8,nan", ",1"])
def test_bad_block_files(capsys, tmp_path, line):
    path = tmp_path / "bad.csv"
    path.write_text(line + "\n")
    status, _, err = run(capsys, "accuracy", "--blocks", str(path))
    assert status == 2 and "line 1" in err and err.count("\n") == 1


def test_block_command(capsys):
    status, out, _ = run(capsys, "block", "imul rax, rcx; add rbx, rax")
    assert status == 0 and "Block RThroughput: 3.00" in out and "decides" in out and "Critical chain: imul rax, rcx" in out
    assert "Resource pressure by instruction:" in out and " -     1.00" in out
    status, out, _ = run(capsys, "block", "480fafc1", "--json", "-")
    assert json.loads(out)["cycles"] == 3
    status, out, _ = run(capsys, "block", "--at", "sieve", "0x100020", "--bits", "32")
    assert status == 0 and "Instructions:" in out


@pytest.mark.parametrize("arguments", [["block"], ["block", "not an instruction"], ["block", "06"], ["block", "4801d8", "--cpu", "nothing"],
                                       ["block", "--at", "sieve", "0xffffffffff"], ["block", "--at", "nothing", "0"]])
def test_bad_blocks_are_one_line(capsys, arguments):
    status, _, err = run(capsys, *arguments)
    assert status == 2 and err.startswith("pyx86v: ") and err.count("\n") == 1


def test_bhive_rows_keep_their_licence():
    text = BHIVE.read_text()
    assert "Permission is hereby granted" in text and "MIT CSAIL" in text


def test_uncovered_instructions_of_a_guest(capsys):
    """What a guest executes of the instructions that have no entry, and nothing that has one."""
    status, out, _ = run(capsys, "profiles", "--uncovered", "nanobench", "--json", "-")
    found = json.loads(out)
    assert status == 0 and found["profile"] == "skylake" and 50 < found["forms"] < 1000 and len(found["uncovered"]) < found["forms"] / 4
    assert all(row["class"] == "default" or row["group"] in ("default", "") for row in found["uncovered"])
    status, out, _ = run(capsys, "profiles", "nehalem", "--uncovered", "sieve")
    assert status == 0 and "fall to a default" in out


def test_forms_come_back_from_their_keys():
    """The plain instruction of a form has the class that the instruction itself was given."""
    from pyx86v.cost.block import BlockDecoder
    from pyx86v.cost.classes import CLASSES
    decoder = BlockDecoder([64] * len(CLASSES))
    code = assemble("add rax, [rdi+8]; imul rcx, rdx, 77; movaps xmm0, xmm1; lock xadd [rsi], r9; cpuid; push rbx; shl edx, 3; popcnt rax, rbx", 64)
    decoder.block(code)
    names = sorted(kind for _, _, kind in decoder.forms())
    assert names == sorted(["alu", "multiply", "simd_move", "exchange", "cpuid", "push", "shift", "bit_scan"])
    for form, bits, kind in decoder.forms():
        assert bits == 64 and decoder.insn(form)[1] == kind


def test_quick_is_nearly_as_good():
    """Stopping at the first alike repetitions changes few blocks, and never the answer's kind."""
    blocks = report.read_blocks(BHIVE)
    full, quick = ([MODEL.cycles(code, start="same", quick=quick) for code, _ in blocks] for quick in (False, True))
    assert report.errors(quick, [cycles for _, cycles in blocks])["mean_error"] <= 0.065
    assert sum(abs(a - b) > 0.1 * a for a, b in zip(full, quick)) < len(blocks) / 20
