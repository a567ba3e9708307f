# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub _core.pyi beside the compiled module: the same names and parameters, types that the values really have, and a
docstring for everything that users call.  And the .pxd files: another module can cimport Machine.
"""
import ast
import inspect
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest

import pyx86v
from pyx86v import _core
from pyx86v._core import Machine
from rom_runs import machine_for

PACKAGE = Path(pyx86v.__file__).parent
TREE = ast.parse((PACKAGE / "_core.pyi").read_text())
STUB = next(node for node in TREE.body if isinstance(node, ast.ClassDef) and node.name == "Machine")
METHODS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def decorators(node):
    return {decorator.id for decorator in node.decorator_list}


CALLED = sorted(name for name, node in METHODS.items() if "property" not in decorators(node) and name != "__init__")
READ = sorted(name for name, node in METHODS.items() if "property" in decorators(node))


def stub_module():
    """The stub, executed: its annotations are then objects that can be looked up."""
    module = types.ModuleType("stub")
    exec(compile(TREE, "_core.pyi", "exec", dont_inherit=True), vars(module))
    return module


def parameters(arguments):
    """[(name, default or None)] of an ast.arguments."""
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    rest = [(arguments.vararg.arg, None)] if arguments.vararg else []
    return [(arg.arg, default and ast.unparse(default)) for arg, default in zip(arguments.args, defaults, strict=True)] + rest


def test_typed_package():
    assert (PACKAGE / "py.typed").exists()


def test_module_has_the_names_of_the_stub():
    stub = next(ast.literal_eval(node.value) for node in TREE.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    assert sorted(_core.__all__) == sorted(stub) and all(hasattr(_core, name) for name in stub)
    assert set(pyx86v.__all__) <= set(stub)


def test_machine_has_the_names_of_the_stub():
    public = {name for name in dir(Machine) if not name.startswith("_")}
    assert public == set(METHODS) - {"__init__"}


@pytest.mark.parametrize("name", CALLED)
def test_same_parameters(name):
    signature = inspect.signature(getattr(Machine, name).__func__ if name == "restore" else getattr(Machine, name))
    actual = [(p.name, None if p.default is p.empty else repr(p.default)) for p in signature.parameters.values()]
    assert actual == parameters(METHODS[name].args)


def test_same_constructor():
    """A compiled class does not tell its constructor's parameters: the source does."""
    source = (PACKAGE / "_core.pyx").read_text()
    head = re.search(r"\n    def (__init__\(self.*?\)):\n", source, re.S)[1]
    actual = parameters(ast.parse(f"def {head}: pass").body[0].args)
    stub = parameters(METHODS["__init__"].args)
    assert [(name, default) for name, default in actual if name != "memory"] == [pair for pair in stub if pair[0] != "memory"]
    assert [name for name, _ in actual] == [name for name, _ in stub]
    assert list(Machine().options) == [name for name, _ in actual[1:]]


@pytest.mark.parametrize("name", CALLED + [name for name in READ if name not in ("style", "clock", "memory", "options")])
def test_everything_has_a_docstring(name):
    text = getattr(Machine, name).__doc__
    assert text and len(text.split()) > 3


def test_enum_and_tuple():
    stub = stub_module()
    assert {m.name: m.value for m in stub.StopReason} == {m.name: m.value for m in _core.StopReason}
    assert stub.Stop._fields == _core.Stop._fields


def fits(value, hint):
    """Is the value of this type, all the way down?"""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is typing.Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is dict:
        return type(value) is dict and all(fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items())
    if origin is list:
        return type(value) is list and all(fits(item, arguments[0]) for item in value)
    if origin is tuple:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        return set(value) == set(fields) and all(fits(value[name], kind) for name, kind in fields.items())
    return type(value) is hint


@pytest.fixture(scope="module")
def finished():
    machine = machine_for("minikernel", style="vmx+ept")
    machine.run()
    return machine


@pytest.mark.parametrize("name", READ)
def test_values_have_the_types_of_the_stub(finished, name):
    hint = typing.get_type_hints(vars(stub_module().Machine)[name].fget)["return"]
    assert fits(getattr(finished, name), hint), (getattr(finished, name), hint)


def test_results_have_the_types_of_the_stub(finished):
    hints = {name: typing.get_type_hints(vars(stub_module().Machine)[name]).get("return") for name in ("digest", "read_memory")}
    assert fits(finished.digest(), hints["digest"]) and fits(finished.read_memory(0, 16), hints["read_memory"])
    assert type(finished.step()) is _core.Stop


def test_typing_catches_a_wrong_stub():
    """The checks above can fail."""
    assert not fits({"a": "b"}, dict[str, int]) and not fits((1, 2), tuple[int, int, int]) and not fits("x", bytes)


CONSUMER = '''
from pyx86v._core cimport Machine
from pyx86v.cost.ledger cimport Ledger
from pyx86v.mmu.mmu cimport Mmu

def counts(Machine m):
    """Read a machine's structs without Python in between."""
    cdef Ledger* ledger = &m.ledger_
    cdef Mmu* mmu = m.mmu
    return ledger.instructions, ledger.total, mmu.count.walks[0] + mmu.count.walks[1], m.e.ram.size
'''


def test_another_module_can_cimport_machine(finished, tmp_path):
    pytest.importorskip("Cython")
    import unicorn
    include = Path(unicorn.__file__).parent / "include"
    (tmp_path / "consumer.pyx").write_text(CONSUMER)
    (tmp_path / "setup.py").write_text(
        "from Cython.Build import cythonize\nfrom setuptools import Extension, setup\n"
        f"setup(ext_modules=cythonize([Extension('consumer', ['consumer.pyx'], include_dirs=[{str(include)!r}], "
        "extra_compile_args=['-O0', '-g0'])], "
        f"language_level=3, include_path=[{str(PACKAGE.parent)!r}]))\n")
    done = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    sys.path.insert(0, str(tmp_path))
    try:
        import consumer
        instructions, units, walks, ram = consumer.counts(finished)
    finally:
        sys.path.remove(str(tmp_path))
    assert (instructions, units, walks) == (finished.instructions, finished.units, finished.tlb["misses"])
    assert ram > finished.memory
