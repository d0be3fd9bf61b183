"""How the library is put together: imports run downward, and every public name says what it takes."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import switcher_lib

ROOT = Path(switcher_lib.__file__).parent
# From the bottom up; those that share a number may not import each other.
LEVEL = {"errors": 0, "files": 0, "outputs": 0, "data": 1, "models": 1, "layers": 1, "wiring": 2, "sites": 3,
         "gates": 4, "switchers": 5, "metrics": 6, "switched": 7, "precision": 8, "progress": 8, "training": 9, "transfer": 9,
         "compaction": 10, "sparse": 10, "experiments": 11, "plotting": 12, "explore": 13}
PACKAGE = 14    # switcher_lib itself, which gathers them
MODULES = sorted(ROOT.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(name):
    """The part of the library that a dotted name belongs to, or None for the package itself."""
    return name.split(".")[1] if "." in name else None


def imported(tree, name, is_package):
    """Every module of this library that a source imports, wherever in the file."""
    package = name if is_package else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []    # for annotations alone: never runs, so nothing depends on it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[:len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "switcher_lib":
                found |= {f"switcher_lib.{alias.name}" for alias in node.names}
            else:
                found.add(base)
    return {f for f in found if f == "switcher_lib" or f.startswith("switcher_lib.")}


def wrong_imports(name, tree, is_package):
    """Imports of a module that do not run downward."""
    own = unit(name)
    wrong = []
    for other in sorted(imported(tree, name, is_package)):
        theirs = unit(other)
        if theirs not in LEVEL and own is not None and LEVEL[own] >= 11:
            continue    # the outermost parts use the library as a reader does
        if own is not None and theirs != own and LEVEL.get(theirs, PACKAGE) >= LEVEL[own]:
            wrong.append(other)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_downward_only(path):
    name = module_name(path)
    assert unit(name) is None or unit(name) in LEVEL, f"{name} has no place in the order"
    assert wrong_imports(name, ast.parse(path.read_text()), path.name == "__init__.py") == []


@pytest.mark.parametrize("name, source, wrong", [
    ("switcher_lib.data", "from .errors import DataError", []),
    ("switcher_lib.data", "from switcher_lib import sites", ["switcher_lib.sites"]),
    ("switcher_lib.models", "from . import data", ["switcher_lib.data"]),
    ("switcher_lib.gates", "def f():\n    import switcher_lib.training", ["switcher_lib.training"]),
    ("switcher_lib.switchers.row", "from .base import Switcher\nfrom ..gates import make\nfrom ..switched import Switched",
     ["switcher_lib.switched"]),
    ("switcher_lib.sites", "import switcher_lib", ["switcher_lib"]),
    ("switcher_lib.compaction", "from switcher_lib.training import fit\nimport torch", []),
    ("switcher_lib.gates", "if TYPE_CHECKING:\n    from switcher_lib.training import fit", []),
    ("switcher_lib.gates", "if TYPE_CHECKING:\n    pass\nelse:\n    from switcher_lib.training import fit", ["switcher_lib.training"]),
])
def test_the_check_sees_every_way_to_import(name, source, wrong):
    assert wrong_imports(name, ast.parse(source), False) == wrong


def test_data_and_models_know_nothing_of_switching():
    for path in MODULES:
        name = module_name(path)
        if unit(name) in ("data", "models"):
            others = imported(ast.parse(path.read_text()), name, path.name == "__init__.py")
            assert {other for other in others if unit(other) != unit(name)} <= {"switcher_lib.errors"}


# -------- documentation

def public_modules():
    names = ["switcher_lib", *(m.name for m in pkgutil.walk_packages([str(ROOT)], "switcher_lib."))]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def public_objects():
    """(dotted name, object) for every public function, class and method that is written in this library."""
    found = {}
    for module_path in public_modules():
        module = importlib.import_module(module_path)
        listed = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        for name in listed:
            thing = getattr(module, name)
            home = getattr(thing, "__module__", None)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not str(home).startswith("switcher_lib"):
                continue
            if home != module_path and "__all__" not in vars(module):
                continue
            found[f"{home}.{thing.__qualname__}"] = thing
            if inspect.isclass(thing):
                for key, member in vars(thing).items():
                    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                    member = getattr(member, "func", member)    # cached_property
                    if not key.startswith("_") and inspect.isfunction(member):
                        found[f"{home}.{thing.__qualname__}.{key}"] = member
    return sorted(found.items())


OBJECTS = public_objects()


def parameters(thing):
    """The names that a caller can give."""
    if inspect.isclass(thing):
        if issubclass(thing, BaseException):
            return []
        thing = thing.__init__
        if not inspect.isfunction(thing):
            return []
    return [p.name for p in inspect.signature(thing).parameters.values()
            if p.name not in ("self", "cls") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def documented(text):
    """The names in a docstring's Parameters and Attributes sections (a dataclass's fields are both)."""
    names = set()
    for section in re.finditer(r"^(?:Parameters|Attributes)\n-{5,}\n(.*?)(?=^\w[^\n]*\n-{5,}$|\Z)", text, re.M | re.S):
        for line in section[1].splitlines():
            if line and not line.startswith(" "):
                names |= {name.strip().lstrip("*") for name in line.partition(" :")[0].split(",")}
    return names


def told_in_a_line(thing, text):
    """Short functions of one or two arguments may say it all in their first line, with the names in it."""
    names = parameters(thing)
    return len(names) <= 2 and "\n\n" not in text.strip() and not inspect.isclass(thing)


@pytest.mark.parametrize("name", public_modules())
def test_every_module_says_what_it_is(name):
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("name, thing", OBJECTS, ids=[name for name, _ in OBJECTS])
def test_every_public_name_has_a_docstring_that_names_its_parameters(name, thing):
    text = inspect.cleandoc(thing.__doc__ or "")
    if not text and overrides(name, thing):
        return
    assert text, f"{name} has no docstring"
    assert not re.search(r"\S ---", text), f"{name}: a section's heading and its underline stand on one line"
    missing = set(parameters(thing)) - documented(text)
    if missing and not told_in_a_line(thing, text) and not overrides(name, thing):
        raise AssertionError(f"{name} does not document {sorted(missing)}")


def overrides(name, thing):
    """Whether a base class has a method of the same name, whose documentation holds here too."""
    owner, _, method = name.rpartition(".")
    module, _, kind = owner.rpartition(".")
    cls = getattr(importlib.import_module(module), kind, None) if module in public_modules() else None
    return inspect.isclass(cls) and any(hasattr(base, method) for base in cls.__mro__[1:])


def untyped(thing):
    """What a caller gives or gets that has no annotation."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    if not inspect.isfunction(function) or not str(function.__module__).startswith("switcher_lib"):
        return []    # another package's, or Python's own
    signature = inspect.signature(function)
    given = [p.name for p in signature.parameters.values() if p.name not in ("self", "cls") and p.annotation is p.empty]
    return given + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("name, thing", OBJECTS, ids=[name for name, _ in OBJECTS])
def test_every_public_name_is_annotated(name, thing):
    """That the annotations are right is mypy's to say: tests/test_packaging.py."""
    assert untyped(thing) == []


def test_the_check_sees_what_has_no_type():
    class Half:
        def __init__(self, a: int, *b):
            pass

    def whole(a: int, **b: int) -> None:
        pass

    Half.__init__.__module__ = whole.__module__ = "switcher_lib.planted"
    assert untyped(Half) == ["b", "return"] and untyped(whole) == []


def test_the_check_reads_numpydoc():
    text = ("One line.\n\nParameters\n----------\na, b : int\n    Text.\nc : str, optional\n    Text : more.\n\n"
            "Returns\n-------\nd : int\n")
    assert documented(text) == {"a", "b", "c"}


def test_everything_that_the_package_names_is_there():
    assert all(hasattr(switcher_lib, name) for name in switcher_lib.__all__)
    assert len(switcher_lib.__all__) == len(set(switcher_lib.__all__))
