# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model beside measurements, and one block in the layout of llvm-mca."""
import bisect
import re
import shutil
import subprocess

import capstone

from pyx86v.report.tables import console, table

WORST = 20
MARK = 0x10000000
MCA_NAMES = {"skylake": "skylake", "haswell": "haswell", "broadwell": "broadwell", "ivybridge": "ivybridge", "zen2": "znver2"}    # llvm-mca's own, by profile


def read_blocks(path):
    """[(machine code, measured cycles)] of a file of `hex,cycles` lines; # begins a comment.  ValueError names the line."""
    blocks = []
    with open(path, encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, 1):
            line = line.split("#")[0].strip()
            if not line:
                continue
            try:
                code, cycles = line.split(",")[:2]
                code, cycles = bytes.fromhex(code), float(cycles)
            except ValueError:
                raise ValueError(f"{path}: line {number}: expected hex,cycles, got {line[:60]!r}") from None
            if not code or not 0 < cycles < float("inf"):
                raise ValueError(f"{path}: line {number}: expected machine code and a positive number of cycles, got {line[:60]!r}")
            blocks.append((code, cycles))
    if not blocks:
        raise ValueError(f"{path}: expected lines of hex,cycles, got none")
    return blocks


def kendall_tau(xs, ys):
    """Kendall's tau-b of two lists: how well one orders what the other orders (Kendall 1945), in n log n."""
    pairs = sorted(zip(xs, ys))
    n = len(pairs)

    def ties(values):
        counts = {}
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        return sum(count * (count - 1) // 2 for count in counts.values())

    all_pairs, same_x, same_y, same_both = n * (n - 1) // 2, ties(xs), ties(ys), ties(pairs)
    discordant, seen = 0, []
    for _, y in pairs:
        discordant += len(seen) - bisect.bisect_right(seen, y)
        bisect.insort(seen, y)
    concordant = all_pairs - same_x - same_y + same_both - discordant
    scale = ((all_pairs - same_x) * (all_pairs - same_y)) ** 0.5
    return (concordant - discordant) / scale if scale else 0.0


def errors(predicted, measured):
    """{"mean_error", "median_error", "tau"} of two lists; errors are fractions of the measurement."""
    each = sorted(abs(p - m) / m for p, m in zip(predicted, measured))
    middle = len(each) // 2
    median = each[middle] if len(each) % 2 else (each[middle - 1] + each[middle]) / 2
    return {"mean_error": sum(each) / len(each), "median_error": median, "tau": kendall_tau(predicted, measured)}


def accuracy(model, blocks, start="same"):
    """What a BlockModel predicts of measured blocks: the keys of errors(), blocks, uncovered instructions, the worst blocks.

    A block that holds no whole instructions counts with a prediction of one cycle, as "undecoded".
    """
    rows = []
    for code, cycles in blocks:
        try:
            found = model.analyse(code, 64, False, start)
        except ValueError:
            found = {"cycles": 1.0, "bound": "undecoded", "uncovered": 1}
        rows.append({"code": code.hex(), "measured": cycles, "predicted": found["cycles"], "bound": found["bound"],
                     "error": (found["cycles"] - cycles) / cycles, "uncovered": found["uncovered"]})
    measured = [row["measured"] for row in rows]
    return {"cpu": model.name, "blocks": len(rows), **errors([row["predicted"] for row in rows], measured),
            "uncovered": sum(row["uncovered"] for row in rows),
            "worst": sorted(rows, key=lambda row: -abs(row["error"]))[:WORST]}


def assembly_of(codes):
    """AT&T assembly of each piece of machine code, by llvm-mc in one call; None if that does not succeed.

    A NOP that carries a number follows each piece: llvm-mc may print several lines for one instruction.
    """
    text = "".join(" ".join(f"0x{byte:02x}" for byte in code + b"\x0f\x1f\x80" + (MARK + number).to_bytes(4, "little")) + "\n"
                   for number, code in enumerate(codes))
    done = subprocess.run(["llvm-mc", "--disassemble", "-triple", "x86_64"], input=text, capture_output=True, text=True, check=False)
    found, lines = [], []
    for line in done.stdout.splitlines():
        if re.fullmatch(rf"\s*nopl\s+{MARK + len(found)}\(%rax\)", line):
            found.append(lines)
            lines = []
        elif line.startswith("\t") and not line.startswith("\t."):
            lines.append(line)
    return found if len(found) == len(codes) else None


def llvm_mca(codes, cpu, iterations=100):
    """Cycles for one repetition of each block by llvm-mca, or None where the tools are missing or cannot be made to answer."""
    if cpu not in MCA_NAMES or not shutil.which("llvm-mca") or not shutil.which("llvm-mc"):
        return None
    assembly = assembly_of(codes)
    if assembly is None:
        return None
    text = "".join(f"# LLVM-MCA-BEGIN b{number}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n" for number, lines in enumerate(assembly))
    done = subprocess.run(["llvm-mca", f"-mcpu={MCA_NAMES[cpu]}", "-mtriple=x86_64", f"-iterations={iterations}", "-instruction-info=0",
                           "-resource-pressure=0"], input=text, capture_output=True, text=True, check=False)
    found = {int(name): int(cycles) / iterations
             for name, cycles in re.findall(r"Code Region - b(\d+)\n.*?Total Cycles: +(\d+)", done.stdout, re.S)}
    return [found[number] for number in range(len(codes))] if len(found) == len(codes) else None


def llvm_mca_version():
    """The major version of the installed one, "" if it does not say."""
    done = subprocess.run(["llvm-mca", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)", done.stdout)
    return found[1] if found else ""


ACCURACY = ("predictor", "blocks", "mean error", "median error", "Kendall tau")


def accuracy_rows(result):
    return [(f"{name} {found.get('version', '')}".strip(), str(result["blocks"]), f"{100 * found['mean_error']:.2f} %", f"{100 * found['median_error']:.2f} %", f"{found['tau']:.3f}")
            for name, found in [("pyx86v", result), *result.get("others", {}).items()]]


def accuracy_table(result):
    made = table(*ACCURACY, title=f"Block model, profile {result['cpu']}")
    for row in accuracy_rows(result):
        made.add_row(*row)
    return made


def accuracy_markdown(result):
    lines = ["| " + " | ".join(row) + " |" for row in [ACCURACY, *accuracy_rows(result)]]
    return "\n".join([lines[0], "|---" * len(ACCURACY) + "|", *lines[1:]])


def worst_table(result):
    made = table("worst blocks", "measured", "predicted", "error", "bound")
    for row in result["worst"]:
        code = row["code"] if len(row["code"]) <= 44 else row["code"][:41] + "..."
        made.add_row(code, f"{row['measured']:.2f}", f"{row['predicted']:.2f}", f"{100 * row['error']:+.0f} %", row["bound"])
    return made


def disassembly(code, bits):
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    return [f"{name} {operands}".strip() for _, _, name, operands in decoder.disasm_lite(code, 0)]


def uncovered_forms(forms, name):
    """The rows of Machine.forms that have no entry in the profile `name`, and how many there were.

    A row says which of the two falls to a default: the class of the prices, or, where the block model knows the processor, the group.
    """
    from pyx86v.cost.model.model import BlockModel
    from pyx86v.cost.model.profile import model_names
    model = BlockModel(name) if name in model_names() else None
    rows = []
    for code, bits, kind in forms:
        first = model.first(code, bits) if model else None
        if kind != "default" and (model is None or (first and first[2])):
            continue
        text = disassembly(code, bits)
        rows.append({"code": code[:first[0] if first else 1].hex(), "bits": bits, "text": text[0] if text else "not known to capstone",
                     "class": kind, "group": first[1] if first else ""})
    return sorted(rows, key=lambda row: (row["bits"], row["text"])), len(forms)


def model_of(name):
    """{"name", "title", "block_model": lines with their sources in full} of a processor of the block model, None if it has no such."""
    from pyx86v.cost.model.profile import load_model, model_names
    if name not in model_names():
        return None
    lines = load_model(name)["lines"]
    rows = [{"section": section, "name": key, **line, "source": lines["sources"][line["source"]]}
            for section in ("pipeline", "ports", "groups") for key, line in lines[section].items()]
    return {"name": name, "title": lines["title"], "block_model": rows}


def uncovered_table(rows):
    made = table("instruction, plainest of its form", "bits", "code", "class of the prices", "group of the block model")
    for row in rows:
        made.add_row(row["text"], str(row["bits"]), row["code"], row["class"], row["group"])
    return made


def port_names(ports):
    """The ports that a profile has, as numbers: up to the highest in use."""
    return range(max((number for number, uses in enumerate(ports) if uses), default=0) + 1)


def pressure_line(uses, names):
    return " ".join(f"{uses[number]:<6.2f}" if uses[number] else " -    " for number in names).rstrip()


def show_block(found, texts, iterations=100, file=None):
    """Print an analysis in the layout of llvm-mca."""
    out = console(file).file
    cycles, uops, n = found["cycles"] * iterations, found["uops"] * iterations, len(texts) * iterations
    rows = [("Iterations", f"{iterations}"), ("Instructions", f"{n}"), ("Total Cycles", f"{cycles:.0f}"), ("Total uOps", f"{uops}")]
    print("\n".join(f"{name + ':':<19}{value}" for name, value in rows), "", file=out, sep="\n")
    rows = [("Dispatch Width", f"{found['width']}"), ("uOps Per Cycle", f"{uops / cycles:.2f}"), ("IPC", f"{n / cycles:.2f}"),
            ("Block RThroughput", f"{found['cycles']:.2f}")]
    print("\n".join(f"{name + ':':<19}{value}" for name, value in rows), "", file=out, sep="\n")
    print("Bounds, cycles per iteration" + (" (decided by conflicts between them):" if found["bound"] == "conflicts" else ":"), file=out)
    for name, value in found["bounds"].items():
        print(f"  {name:<12}{value:8.2f}{'   <- decides' if name == found['bound'] else ''}", file=out)
    names = port_names(found["ports"])
    print("\nResource pressure per iteration:", file=out)
    print(" ".join(f"{f'[{number}]':<6}" for number in names).rstrip(), file=out)
    print(pressure_line(found["ports"], names), file=out)
    print("\nResource pressure by instruction:", file=out)
    print(" ".join(f"{f'[{number}]':<6}" for number in names) + " Instructions:", file=out)
    for row, text in zip(found["instructions"], texts):
        print(f"{pressure_line(row['pressure'], names):<{7 * len(names)}}{text}", file=out)
    print("\nInstruction Info:\n[1]: #uOps\n[2]: Latency\n[3]: MayLoad\n[4]: MayStore\n[5]: on the critical chain\n[6]: without an entry",
          file=out)
    print("\n[1]    [2]    [3]    [4]    [5]    [6]    Instructions:", file=out)
    for number, (row, text) in enumerate(zip(found["instructions"], texts)):
        marks = ("*" if row["loads"] else "", "*" if row["stores"] else "", "*" if number in found["chain"] else "",
                 "*" if row["uncovered"] else "")
        print(f" {0 if row['fused'] else row['uops']:<5}  {row['latency']:<5}" + "".join(f"  {mark:<5}" for mark in marks) + f"  {text}",
              file=out)
    if found["chain"]:
        print("\nCritical chain: " + " -> ".join(texts[number] for number in found["chain"]), file=out)
