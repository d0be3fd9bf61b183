"""The library as it is installed: what its wheel holds and asks for, how soon it is there, and what its types say."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import switcher_lib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines):
    """{name: version specifier} of requirements, those of this project itself left out."""
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {name: str(one.specifier) for one in parsed if (name := canonicalize_name(one.name)) != PROJECT["name"]}


def file_lines(name):
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def python(code, folder, *, path=None):
    """What a fresh interpreter prints, with ``path`` in front of everything that is installed."""
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:1] = {[str(path)] if path else []!r}\n{code}"], cwd=folder,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------------- what is told

def test_one_version():
    """``switcher_lib.__version__`` is what the wheel is made with (see below); whoever tells it too must tell the same."""
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == switcher_lib.__version__
    assert re.search(rf"^## \[{re.escape(switcher_lib.__version__)}\]|^What {re.escape(switcher_lib.__version__)} will be:",
                     (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_requirements_are_those_of_the_project_and_its_extras():
    extras = PROJECT["optional-dependencies"]
    wanted = requirements([*PROJECT["dependencies"], *extras["dask"], *extras["book"]])
    assert requirements(file_lines("requirements.txt")) == wanted
    assert "switcher-lib[dask]" in extras["book"]


def test_every_requirement_has_a_lowest_version():
    """If this fails: ``make lock-lowest``. A new or lowered bound is a promise that has to be tried."""
    bounds = {name: re.findall(r">=([\w.]+)", specifier) for name, specifier in requirements(file_lines("requirements.txt")).items()}
    lowest = {name: told for name, told in requirements(file_lines("constraints-lowest.txt")).items() if not told.startswith("<")}
    assert {name: f"=={low}" for name, (low,) in bounds.items()} == lowest


def test_what_others_made_comes_with_its_licence():
    vendor = ROOT / "book" / "_static" / "vendor"
    credits, table = ((ROOT / "book" / "credits.md").read_text(encoding="utf-8"), (vendor / "README.md").read_text(encoding="utf-8"))
    folders = [path.name for path in vendor.iterdir() if path.is_dir()]
    assert folders
    for name in folders:
        assert (vendor / name / "LICENSE").stat().st_size > 0 and f"`{name}/`" in table and name in credits.lower(), name
    assert [path.name for path in vendor.iterdir() if path.is_file()] == ["README.md"]


# --------------------------------------------------------------------------------------------------------------- the wheel

BUILD = "from setuptools import build_meta\nbuild_meta.build_{kind}({out!r})"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist, the wheel made of the sdist), built of a copy: setuptools leaves its traces beside its sources.

    With the setuptools that is installed, where ``pip wheel`` would ask the network for one.
    """
    folder = tmp_path_factory.mktemp("build")
    tops = ["pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "LICENSE-CONTENT"]
    files = [ROOT / name for name in tops] + [path for part in ("switcher_lib", "tests", "benchmarks", "results", "book/_scripts")
                                              for path in (ROOT / part).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in files:
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    out = folder / "out"
    for kind in ("wheel", "sdist"):
        python(BUILD.format(kind=kind, out=str(out)), folder / "source")
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    python(BUILD.format(kind="wheel", out=str(folder / "again")), source)
    return wheel, sdist, next((folder / "again").glob("*.whl"))


def test_the_wheel_holds_the_library_whole_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "switcher_lib").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == here
    assert {"switcher_lib/py.typed", "switcher_lib/explore/base.js", "switcher_lib/explore/base.css"} <= names


def test_the_wheel_tells_version_licence_and_needs(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        told = wheel.read(name).decode()
        licence = wheel.read(name.replace("METADATA", "licenses/LICENSE")).decode()
    assert f"\nVersion: {switcher_lib.__version__}\n" in told
    assert "\nLicense-Expression: MIT\nLicense-File: LICENSE\n" in re.sub(r"\n(?!License).*", "", told) + "\n"
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert set(re.findall(r"^Provides-Extra: (.*)$", told, re.MULTILINE)) == {"book", "dask"}


def test_the_sdist_makes_the_same_wheel(built):
    wheel, sdist, again = built
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {name: one.read(name) for name in one.namelist()} == {name: other.read(name) for name in other.namelist()}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "LICENSE-CONTENT", "README.md"} <= names
    assert {name.split("/")[0] for name in names if "/" in name} == {"switcher_lib", "switcher_lib.egg-info"}


def test_the_installed_library_works_without_its_repository(built, tmp_path):
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(tmp_path / "site")
    told = python("import switcher_lib as sl\nprint(sl.__file__, sl.__version__, len(sl.explore.Gates().html()), "
                  "len(sl.data.load('digits').train))", tmp_path, path=tmp_path / "site")
    file, told_version, size, images = told.split()
    assert Path(file).is_relative_to(tmp_path) and told_version == switcher_lib.__version__ and int(size) > 1000 and int(images) > 1000


# ------------------------------------------------------------------------------------------------------------- the import

HEAVY = {"IPython", "anywidget", "dask", "ipywidgets", "joblib", "matplotlib", "pandas", "scipy", "sklearn", "sympy", "torchvision", "tqdm",
         "torch._dynamo", "torch._inductor"}
IMPORTING = """
import time
start = time.perf_counter()
import torch
ready, before = time.perf_counter(), set(sys.modules)
import switcher_lib
print(ready - start, time.perf_counter() - ready, *sorted(set(sys.modules) - before))
"""


def test_importing_the_library_takes_little_beside_torch(tmp_path):
    """About 0.08 s after torch's 1.4 s. Held against torch in the same process, for a busy machine slows both."""
    shares = []
    for _ in range(3):
        torch_seconds, own_seconds, *new = python(IMPORTING, tmp_path, path=ROOT).split()
        shares.append(float(own_seconds) / float(torch_seconds))
        assert {name for name in new if name in HEAVY or name.partition(".")[0] in HEAVY} == set()
    assert min(shares) < 0.2


# -------------------------------------------------------------------------------------------------------------- the types

PLANTED = """
import switcher_lib as sl

def run(net: sl.Switched, data: sl.data.Data) -> int:
    sl.fit(net, data, epochs=20)
    sl.fit(net, data, epochs="20")
    return sl.compact(net, data.example)
"""


def test_the_library_and_what_a_reader_writes_have_the_right_types(tmp_path):
    """One run of mypy, 25 seconds at first and 2 with its cache; the planted file shows that it looks.

    What PyTorch, NumPy and safetensors say of themselves changes, so their versions are those of requirements.lock, or later ones.
    """
    for name, specifier in requirements(file_lines("requirements.lock")).items():
        if name in ("torch", "numpy", "safetensors", "mypy") and Version(version(name)) < Version(specifier.removeprefix("==")):
            pytest.skip(f"types are held against {name}{specifier}; here it is {version(name)}")
    planted = tmp_path / "planted.py"
    planted.write_text(PLANTED)
    done = subprocess.run([sys.executable, "-m", "mypy", "switcher_lib", "tests/typed_use.py", str(planted)], cwd=ROOT, capture_output=True,
                          text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line for line in errors if "planted.py" not in line] == [], done.stderr
    assert [re.search(r":(\d+): .*\[([\w-]+)\]$", line).groups() for line in errors] == [("6", "arg-type"), ("7", "return-value")]
