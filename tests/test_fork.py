"""One place names the repository: `make fork` brings every other one to it, and back, or says why not and changes nothing."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import nbformat
import pytest
from test_book import execute, load_script, repository_names

ROOT = Path(__file__).resolve().parents[1]
fork = load_script("fork")
alone = load_script("alone")
HERE = fork.current(ROOT)
COURSE = fork.Repository("a-school", "weights.course", "term-2")


@pytest.fixture
def copy(tmp_path):
    """The repository as somebody has it who unpacked its zip: what is its own text, without products and without git."""
    for path, text in fork.texts(ROOT):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8"))
    return tmp_path


def tree(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def names(text, repository):
    """Every mention of a repository that a link could be made of, however it is written: wider than what `make fork` rewrites."""
    o, n = re.escape(repository.owner), re.escape(repository.name)
    return re.findall(rf"(?<![\w.-]){o}(?:/|%2F|:|\.github\.io(?:/|%2F)){n}(?!\.?[\w-]*\.(?:py|js)\b)", text, re.IGNORECASE)


def mentions(root, repository):
    return {str(path): found for path, text in fork.texts(root) if path not in fork.KEEPS and (found := names(text, repository))}


# ------------------------------------------------------------------------------------------------------------- there and back

def test_a_fork_names_its_own_repository_everywhere_and_attributes_the_original(copy):
    before = tree(copy)
    assert Path("LICENSE-CONTENT") not in fork.fork(copy, COURSE)
    assert mentions(copy, HERE) == {}
    assert fork.current(copy) == COURSE
    assert all((copy / path).read_bytes() == before[path] and b"https://github.com/" in before[path] for path in fork.KEEPS)
    for place in ("_config.yml", "pyproject.toml", "CITATION.cff", "book/01-why-structure.ipynb"):
        assert COURSE.url in (copy / place).read_text(encoding="utf-8"), place
    assert {str(p): repository_names(text, COURSE.url) for p, text in fork.texts(copy) if repository_names(text, COURSE.url)} == {}
    for path in [*copy.glob("book/*.ipynb"), *copy.glob("book/assignments/source/*/*.ipynb")]:
        assert fork.first_lines(COURSE) in first_code(path), path.name
    assert f"branches: [{COURSE.branch}]" in (copy / ".github/workflows/pages.yml").read_text(encoding="utf-8")

    assert fork.fork(copy, COURSE) == []
    fork.fork(copy, HERE)
    assert tree(copy) == before


@pytest.mark.parametrize("course", [
    HERE._replace(name=HERE.name + "-2027"),
    HERE._replace(name="course", branch="2027/spring"),
    HERE._replace(owner="x", name="x.github.io"),
    HERE._replace(branch="2027"),
])
def test_addresses_that_begin_alike_are_told_apart(copy, course):
    before = tree(copy)
    fork.fork(copy, course)
    assert fork.current(copy) == course and fork.fork(copy, course) == []
    fork.fork(copy, HERE)
    assert tree(copy) == before


# o, n: as it is; O, N: of the course
@pytest.mark.parametrize("text, becomes", [
    ("https://github.com/{o}/{n}", "https://github.com/{O}/{N}"),
    ("see https://github.com/{o}/{n}.", "see https://github.com/{O}/{N}."),
    ("git+https://github.com/{o}/{n}.git", "git+https://github.com/{O}/{N}.git"),
    ("git@github.com:{o}/{n}.git", "git@github.com:{O}/{N}.git"),
    ("https://github.com/{o}/{n}/blob/main/README.md", "https://github.com/{O}/{N}/blob/term-2/README.md"),
    ("https://github.com/{o}/{n}/actions/workflows/ci.yml/badge.svg?branch=main)",
     "https://github.com/{O}/{N}/actions/workflows/ci.yml/badge.svg?branch=term-2)"),
    ("https://raw.githubusercontent.com/{o}/{n}/main/x", "https://raw.githubusercontent.com/{O}/{N}/term-2/x"),
    ("https://mybinder.org/v2/gh/{o}/{n}/main?urlpath=lab", "https://mybinder.org/v2/gh/{O}/{N}/term-2?urlpath=lab"),
    ("https://colab.research.google.com/github/{o}/{n}/blob/main/book/a.ipynb",
     "https://colab.research.google.com/github/{O}/{N}/blob/term-2/book/a.ipynb"),
    ("https://img.shields.io/github/license/{o}/{n}", "https://img.shields.io/github/license/{O}/{N}"),
    ("repo=https%3A%2F%2Fgithub.com%2F{o}%2F{n}&branch=main", "repo=https%3A%2F%2Fgithub.com%2F{O}%2F{N}&branch=term-2"),
    ("https://{o}.github.io/{n}/book/index.html", "https://{O}.github.io/{N}/book/index.html"),
    ("https://github.com/{o}/{n}-2, github.com/{o}/{n}.js", "https://github.com/{o}/{n}-2, github.com/{o}/{n}.js"),
    ("~/.config/{n}/seed, main", "~/.config/{n}/seed, main"),
])
def test_every_form_of_an_address_follows(text, becomes):
    here = HERE._replace(branch="main")
    said = {"o": here.owner, "n": here.name, "O": COURSE.owner, "N": COURSE.name}
    assert fork.renamed(text.format(**said), here, COURSE) == becomes.format(**said)
    assert fork.renamed(becomes.format(**said), COURSE, here) == text.format(**said)


def test_a_place_that_fork_does_not_know_is_found(copy):
    (copy / "book" / "new.md").write_text(f"ask {HERE.owner}/{HERE.name} on the forum", encoding="utf-8")
    fork.fork(copy, COURSE)
    assert mentions(copy, HERE) == {os.path.join("book", "new.md"): [f"{HERE.owner}/{HERE.name}"]}


# -------------------------------------------------------------------------------------------------------- refused, and unharmed

@pytest.mark.parametrize("given", ["https://github.com/you/course", "https://github.com/you/course/", "https://github.com/you/course.git",
                                   "https://github.com/you/course.git/"])
def test_an_address_is_taken_as_browsers_and_git_have_it(given):
    assert fork.parsed(given, "main") == fork.Repository("you", "course", "main")


@pytest.mark.parametrize("url, branch", [
    ("you/course", "main"), ("http://github.com/you/course", "main"), ("https://gitlab.com/you/course", "main"),
    ("https://github.com/you", "main"), ("https://github.com/you/course/tree/main", "main"), ("https://github.com/you/..", "main"),
    ("https://github.com/-you/course", "main"), ("https://github.com/you/cou rse", "main"), ('https://github.com/you/course"', "main"),
    ("https://github.com/you/course", "two words"), ("https://github.com/you/course", "a..b"), ("https://github.com/you/course", "-b"),
    ("https://github.com/you/course", "x;reboot"), ("https://github.com/you/course", "x.lock"),
])
def test_what_is_no_address_is_refused(url, branch):
    with pytest.raises(ValueError, match="allowed: "):
        fork.parsed(url, branch)


def test_the_command_says_what_is_wrong_and_changes_nothing(copy):
    before, command = tree(copy), ["make", "--no-print-directory", "fork", "REPO=https://github.com/you"]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert run.returncode != 0 and "REPO='https://github.com/you' is not the address" in run.stderr and "Nothing was changed." in run.stderr
    assert tree(copy) == before
    run = subprocess.run([*command[:3], "REPO=https://github.com/you/course/"], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0 and f"https://github.com/you/course, branch {HERE.branch}: " in run.stdout and "LICENSE-CONTENT keeps" in run.stdout
    assert fork.current(copy) == ("you", "course", HERE.branch)


@pytest.mark.parametrize("step, at", [("replace", 4), ("write_bytes", 4)])
def test_an_error_on_the_way_leaves_every_file_as_it_was(copy, monkeypatch, step, at):
    before, calls = tree(copy), []
    owner = os if step == "replace" else Path
    real = getattr(owner, step)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError("the disk is full")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, failing)
        with pytest.raises(OSError, match="the disk is full"):
            fork.fork(copy, COURSE)
    assert tree(copy) == before


def test_the_file_that_names_the_repository_is_written_last(copy):
    assert fork.fork(copy, COURSE)[-1] == fork.CONFIG


# ------------------------------------------------------------------------------------------------------------- the first cell

def first_code(path):
    """The first code cell of a notebook, those for authors only left out."""
    cells = nbformat.read(path, as_version=4).cells
    return next(c.source for c in cells if c.cell_type == "code" and "source-only" not in c.metadata.get("tags", []))


@pytest.mark.parametrize("path", [*sorted((ROOT / "book").glob("*.ipynb")), *sorted((ROOT / "book/assignments/source").glob("*/*.ipynb"))],
                         ids=lambda p: p.stem)
def test_every_notebook_begins_alike(path):
    """If this fails: python book/_scripts/fork.py writes the first lines, and nothing else."""
    assert first_code(path).startswith(fork.first_lines(HERE))
    assert sum("ModuleNotFoundError" in "".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]) == 1


def test_first_lines_are_short_even_with_a_long_address():
    assert len(fork.first_lines(HERE).splitlines()) <= 8
    longest = fork.Repository("o" * 39, "n" * 20, "2027/spring")
    for repository in (HERE, longest):
        text = fork.first_lines(repository)
        assert max(map(len, text.splitlines())) <= fork.COLUMNS
        assert fork.FIRST_LINES.sub("", text) == ""
    scope = {}
    exec(textwrap.dedent(re.search(r"    url = [^!]*", fork.first_lines(longest))[0]), scope)
    assert scope["url"] == longest.url


def test_other_lines_of_the_first_cell_stay(tmp_path):
    old = "try:\n    import switcher_lib as sl\nexcept ModuleNotFoundError:  # as it once was\n    %pip install x\n"
    cell = nbformat.v4.new_code_cell(old + "import math\n\nif math:\n    pass")
    text = fork.with_first_lines(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])), HERE)
    assert nbformat.reads(text, as_version=4).cells[0].source == fork.first_lines(HERE) + "import math\n\nif math:\n    pass"
    assert fork.with_first_lines(text, HERE) == text


# ------------------------------------------------------------------------------------------------------- a notebook that is alone

def test_only_what_is_missing_is_named_and_never_torch(monkeypatch):
    there = {"numpy": "2.0.0", "tqdm": "4.0", "torch": "2.5.0"}
    monkeypatch.setattr(alone, "installed", there.get)
    wanted = ["torch>=2.6", "torchvision>=0.21", "numpy>=1.26", "tqdm>=4.60", "anywidget", "safetensors>=0.4"]
    assert alone.missing(wanted) == ["tqdm>=4.60", "anywidget", "safetensors>=0.4"]


def test_a_notebook_that_is_alone_fetches_the_book_once(tmp_path):
    """Without the library: the first cell clones, imports from the clone and moves into it; a second kernel finds it there."""
    if shutil.which("git") is None:
        pytest.skip("git is not here, and the first cell needs it")
    book = tmp_path / "origin"      # what the first cell needs of the repository, and a library that is quick to import
    for path in ("pyproject.toml", "book/_scripts/alone.py"):
        (book / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, book / path)
    (book / "switcher_lib").mkdir()
    (book / "switcher_lib" / "__init__.py").write_text("")
    git = ["git", "-C", str(book), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)

    # The library is installed where tests run: its import fails until the clone is on the path, as where it is not.
    absent = ("import sys\nclass Absent:\n    def find_spec(self, name, *rest):\n"
              "        if name == 'switcher_lib' and not any(p.endswith('the-book') for p in sys.path):\n"
              "            raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Absent())")
    lines = re.sub(r'url = "\S+"', f'url = "{book.as_uri()}"', fork.first_lines(HERE._replace(branch="main")))
    tell = "import os; print(os.path.relpath(sl.__file__), os.getcwd())"
    cells = [nbformat.v4.new_code_cell(source) for source in (absent, lines, lines, tell)]
    alone_here = tmp_path / "empty" / "chapter.ipynb"
    alone_here.parent.mkdir()
    for _ in range(2):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), alone_here)
        said, again, found = ("".join(output.text for output in cell.outputs) for cell in execute.run(alone_here)[0].cells[1:])
        assert said.startswith("The book's repository is in the-book/; installed: nothing; torch ") and said.count("\n") == 1
        assert again == ""
        assert found.split() == ["../switcher_lib/__init__.py", str(alone_here.parent / "the-book" / "book")]
