# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of the block model: what a basic block costs, and how good the model is."""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from pyx86v.cli import guests
from pyx86v.cli.options import Output, parse_size
from pyx86v.report import blocks as report
from pyx86v.report import tables

CPU = click.option("--cpu", metavar="PROFILE", default="skylake", show_default=True, help="Profile of the block model, or the path of one.")
JSON = click.option("--json", "target", type=Output(), metavar="FILE", help="Write the result as JSON; - for standard output.")
LONGEST = 4096                  # bytes looked at for the end of a block


def assemble(text, bits):
    """Machine code of assembly text by GNU as: AT&T syntax if it names registers with %, else Intel's."""
    head = "" if "%" in text else ".intel_syntax noprefix\n"
    with tempfile.TemporaryDirectory() as folder:
        made, raw = Path(folder, "block.o"), Path(folder, "block.bin")
        try:
            done = subprocess.run(["as", "--64" if bits == 64 else "--32", "-o", made], input=f".code{bits}\n{head}{text}\n",
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "Error" in line] or ["not assembled"]
                raise click.UsageError(f"block: {lines[0].split('Error: ')[-1]}, expected assembly text, hex or an address")
            subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, raw], check=True, capture_output=True)
        except FileNotFoundError as error:
            raise click.UsageError(f"block: assembly text needs {error.filename} (Debian: apt-get install binutils); hex works without") from None
        return raw.read_bytes()


def of_guest(guest, address, bits):
    """The block at a physical address of a guest as it was loaded: up to the first transfer of control."""
    import capstone

    from pyx86v import Machine
    found = guests.find(guest)
    machine = Machine(parse_size(found.memory))
    machine.load(found.path)
    try:
        code = machine.read_memory(address, min(LONGEST, max(1, machine.memory - address)))
    except (ValueError, OverflowError):
        raise click.UsageError(f"--at: {address:#x}: expected an address in {machine.memory >> 20} MB of RAM") from None
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    decoder.detail = True
    end = 0
    for insn in decoder.disasm(code, 0):
        end = insn.address + insn.size
        if any(insn.group(kind) for kind in (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET, capstone.CS_GRP_INT,
                                             capstone.CS_GRP_IRET)):
            break
    if not end:
        raise click.UsageError(f"--at: {address:#x}: expected code")
    return code[:end]


class Address(click.ParamType):
    name = "address"

    def convert(self, value, param, ctx):
        try:
            return value if isinstance(value, int) else int(value, 0)
        except ValueError:
            self.fail(f"{value!r}, expected a number such as 0x100000", param, ctx)


@click.command(short_help="What a basic block costs: cycles, the bound that decides, ports, critical chain.")
@click.argument("text", metavar="BLOCK", required=False)
@click.option("--at", "place", nargs=2, type=(str, Address()), metavar="GUEST ADDRESS", help="The block at a physical address of a guest.")
@click.option("--bits", type=click.Choice(["16", "32", "64"]), default="64", show_default=True, help="Mode of the code segment.")
@click.option("--loop", is_flag=True, help="The block ends in a branch to its start; otherwise it is laid out again and again.")
@CPU
@JSON
def block(text, place, bits, loop, cpu, target):
    """Predict the cycles of one iteration of BLOCK, which is assembly text or machine code in hex, or of the block --at an address.

    \b
    Examples:
      pyx86v block "add rax, rbx; imul rax, rcx"
      pyx86v block 4801d8480fafc1
      pyx86v block --at sieve 0x100020 --bits 32
      pyx86v block --loop "1: mov (%rax), %rax; test %rax, %rax; jne 1b"
    """
    from pyx86v.cost.model.model import BlockModel
    if (text is None) == (place is None):
        raise click.UsageError("expected either BLOCK or --at GUEST ADDRESS")
    if place:
        code = of_guest(*place, int(bits))
    elif re.fullmatch(r"(?:[0-9a-fA-F]{2}\s*)+", text.strip()):
        code = bytes.fromhex(text)
    else:
        code = assemble(text, int(bits))
    found = BlockModel(cpu).analyse(code, int(bits), loop)
    texts = report.disassembly(code, int(bits))
    if target != "-":
        report.show_block(found, texts)
    for row, name in zip(found["instructions"], texts):
        row["text"] = name
    write_json({"code": code.hex(), "bits": int(bits), "loop": loop, "cpu": cpu, **found}, target)


@click.command(short_help="How good the block model is: predictions beside measurements.")
@click.option("--blocks", "path", required=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Lines of `hex,cycles`: 64-bit code and the cycles of one repetition, unrolled.")
@click.option("--start", type=click.Choice(["same", "distinct"]), default="same", show_default=True,
              help="What registers and memory hold at first: all the same value, as where BHive measures, or different ones.")
@click.option("--llvm-mca", "mca", is_flag=True, help="Measure llvm-mca on the same blocks, if it is installed.")
@click.option("--markdown", is_flag=True, help="Print the table alone, in Markdown: README.md's.")
@CPU
@JSON
def accuracy(path, start, mca, markdown, cpu, target):
    """Run the block model on measured blocks: mean and median error, Kendall's tau, and the worst blocks with what decided them.

    \b
    Examples:
      pyx86v accuracy --blocks skylake.csv
      pyx86v accuracy --blocks skylake.csv --cpu skylake --llvm-mca --json -
    """
    from pyx86v.cost.model.model import BlockModel
    measured = report.read_blocks(path)
    result = report.accuracy(BlockModel(cpu), measured, start)
    if mca:
        other = report.llvm_mca([code for code, _ in measured], cpu)
        if other is None:
            raise click.UsageError("--llvm-mca: expected llvm-mca and llvm-mc (Debian: apt-get install llvm), and a processor that it knows")
        result["others"] = {"llvm-mca": {**report.errors(other, [cycles for _, cycles in measured]), "version": report.llvm_mca_version()}}
    if markdown:
        click.echo(report.accuracy_markdown(result))
    elif target != "-":
        tables.show(report.accuracy_table(result), report.worst_table(result))
        if result["uncovered"]:
            tables.show(f"{result['uncovered']} instructions have no entry and count as the default group")
    write_json(result, target)


def write_json(value, target):
    """To a file, or to standard output for "-"; OSError names the file."""
    from pyx86v.report.json import dumps
    if target == "-":
        sys.stdout.write(dumps(value))
    elif target:
        try:
            Path(target).write_text(dumps(value), encoding="ascii")
        except OSError as error:                # a full disk does not
            raise OSError(error.errno, error.strerror, target) from None
