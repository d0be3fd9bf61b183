"""Name another repository everywhere: in _config.yml, the notebooks' first cells, README, CITATION.cff, pyproject.toml, workflows.

    python book/_scripts/fork.py [--repo https://github.com/YOU/COURSE] [--branch main]

_config.yml says which repository and branch this is (`repository:`); from there every text file of the repository is brought to
the new ones. Without --repo and --branch only the notebooks' first cells are written anew, as they have to be. All files are written or
none. LICENSE-CONTENT keeps the original's address: that is the attribution its licence asks for.

Needs nothing but Python, so that it runs in a fresh clone.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path("_config.yml")
KEEPS = {Path("LICENSE-CONTENT")}
# What is made or fetched: nothing in there is the repository's own text.
SKIPPED = {".git", ".venv", "_build", ".cache", ".pytest_cache", ".hypothesis", "__pycache__", ".ipynb_checkpoints", "vendor"}
COLUMNS = 78
# The first lines of a notebook's first code cell, whichever version of them.
FIRST_LINES = re.compile(r"\Atry:\n    import switcher_lib as sl\nexcept ModuleNotFoundError:.*\n(?:    .*(?:\n|\Z))+")


class Repository(NamedTuple):
    """A repository on GitHub and the branch that readers get."""

    owner: str
    name: str
    branch: str

    @property
    def url(self):
        return f"https://github.com/{self.owner}/{self.name}"

    @property
    def pages(self):
        """Where GitHub Pages publishes it, less the protocol."""
        site = f"{self.owner}.github.io"
        return site if self.name.lower() == site.lower() else f"{site}/{self.name}"


def parsed(url, branch):
    """Return the Repository of an address as a browser or `git clone` has it; ValueError says what is wrong with it."""
    match = re.fullmatch(r"https://github\.com/([A-Za-z\d](?:-?[A-Za-z\d]){0,38})/([\w.-]{1,100}?)(?:\.git)?/?", url, re.ASCII)
    if not match or set(match[2]) <= {"."}:
        raise ValueError(f"REPO={url!r} is not the address of a repository on GitHub; allowed: https://github.com/OWNER/NAME, with or "
                         "without .git or / at its end. (Binder, Colab and the pages' buttons are built for GitHub: elsewhere they would be dead.)")
    if not re.fullmatch(r"\w[\w./-]*", branch, re.ASCII) or re.search(r"\.\.|//|/\.|\.lock(/|$)|[./]$", branch):
        raise ValueError(f"BRANCH={branch!r} is not the name of a branch; allowed: letters, digits, and _ . / - between them.")
    return Repository(match[1], match[2], branch)


def current(root=ROOT):
    """Return the Repository that _config.yml names."""
    text = (root / CONFIG).read_text(encoding="utf-8")
    found = re.search(r"^repository:\n(?:  .*\n)*?  url: (\S+)\n  branch: (\S+)$", text, re.MULTILINE)
    if not found:
        raise ValueError("_config.yml has no `repository:` with the lines `url:` and `branch:`; nothing can follow from it.")
    return parsed(*found.groups())


def first_lines(repository):
    """Return what every notebook's first code cell begins with."""
    url, branch = f'"{repository.url}"', repository.branch
    if len(f"    url = {url}") > COLUMNS:
        url = f'("https://github.com/"\n           "{repository.owner}/{repository.name}")'
    clone = f"    !test -d the-book || git clone -q --depth 1 -b {branch} {{url}} the-book"
    if len(clone) > COLUMNS:
        clone = clone.replace(" {url}", " \\\n        {url}")
    return f"""try:
    import switcher_lib as sl
except ModuleNotFoundError:  # alone, as on Colab: fetch the book
    url = {url}
{clone}
    %run the-book/book/_scripts/alone.py
    import switcher_lib as sl
"""


def with_first_lines(text, repository):
    """Return a notebook's text with the first lines that it has to have; outputs and other cells stay as they are."""
    notebook, wanted = json.loads(text), first_lines(repository)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        renewed = FIRST_LINES.sub(lambda _: wanted, source) if cell["cell_type"] == "code" else source
        if renewed != source:
            cell["source"] = renewed.splitlines(keepends=True)
            text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"
    return text


def renamed(text, old, new):
    """Return a text in which every address of one repository is that of another, and its branch with it."""
    end = r"(?=\.git\b|(?!\.?[\w-]))"    # the name ends here: course is not course-2, nor course.js
    slash = r"(/|%2F)"
    place = rf"(github[\w.]*(?:[/:]|%2F)(?:[\w-]+/)*?|/gh/){re.escape(old.owner)}{slash}{re.escape(old.name)}{end}"
    kinds = "(?:blob|tree|raw|edit|commits)"

    def at_branch(match):
        return match[0][: -len(old.branch)] + new.branch

    for before in (rf"{place}(?:\.git)?{slash}{kinds}{slash}", rf"(?:/gh/|githubusercontent\.com/){re.escape(old.owner)}/{re.escape(old.name)}/",
                   rf"{place}[^\s\"')]*[?&]branch="):
        text = re.sub(rf"{before}{re.escape(old.branch)}(?![\w-])", at_branch, text)
    text = re.sub(place, lambda m: f"{m[1]}{new.owner}{m[2]}{new.name}", text)
    return re.sub(rf"(?<=//){re.escape(old.pages)}{end}", lambda _: new.pages, text)


def renewed(path, text, old, new):
    """Return the text that a file of the repository has to have in the new one."""
    if path in KEEPS:
        return text
    text = renamed(text, old, new)
    if path == CONFIG:
        text = re.sub(r"^(repository:\n(?:  .*\n)*?  branch: ).*$", lambda m: m[1] + new.branch, text, count=1, flags=re.MULTILINE)
    if path.parts[:2] == (".github", "workflows"):
        text = re.sub(rf"(branches: \[){re.escape(old.branch)}\]", lambda m: f"{m[1]}{new.branch}]", text)
    if path.suffix == ".ipynb":
        text = with_first_lines(text, new)
    return text


def texts(root):
    """Yield (path, text) of every text file under a folder that is no product: the path relative to the folder."""
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if name not in SKIPPED and not name.endswith(".egg-info")
                           and not (Path(folder) / name / "pyvenv.cfg").exists())
        for name in sorted(files):
            path = Path(folder) / name
            if name in SKIPPED or path.is_symlink() or not path.is_file():    # .git is a file in a git worktree
                continue
            try:
                yield path.relative_to(root), path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue    # no text


def write_all(contents):
    """Write {path: text}, all or none: an error leaves every file as it was.

    The files are replaced in the order given, each as a whole: after a kill the rest can be replaced by a second run.
    """
    parts, before = {path: path.with_name(path.name + ".part") for path in contents}, {}
    try:
        for path, text in contents.items():
            parts[path].write_bytes(text.encode("utf-8"))
            parts[path].chmod(path.stat().st_mode)
        for path in contents:
            before[path] = path.read_bytes()
            os.replace(parts[path], path)
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        raise
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def fork(root, new):
    """Bring every file under `root` to the Repository `new`; return the relative paths that changed."""
    old = current(root)
    changed = {path: after for path, text in texts(root) if (after := renewed(path, text, old, new)) != text}
    # _config.yml last: until then it names the old address, so that a second run finds what a killed one left.
    paths = sorted(changed, key=lambda path: (path == CONFIG, path))
    write_all({root / path: changed[path] for path in paths})
    return paths


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repo", help="address of the new repository: https://github.com/OWNER/NAME")
    parser.add_argument("--branch", help="the branch that readers get (default: as now)")
    options = parser.parse_args(arguments)
    try:
        now = current()
        new = parsed(options.repo or now.url, options.branch or now.branch)
    except ValueError as error:
        parser.exit(2, f"{error}\nNothing was changed.\n")
    paths = fork(ROOT, new)
    print(f"{new.url}, branch {new.branch}: {len(paths)} files changed.", *paths, sep="\n  ")
    if paths and new.url != now.url:
        print("LICENSE-CONTENT keeps the address of the book you forked: its licence asks for that attribution.")


if __name__ == "__main__":
    sys.exit(main())
