"""Run notebooks as Colab does: each alone in an empty folder, with Colab's packages and without the library, twice.

    python .ci/colab.py --freeze FILE [NOTEBOOK ...]      # makes an environment with the versions of a `pip freeze` of Colab's
    python .ci/colab.py --python PYTHON [NOTEBOOK ...]    # takes an environment that is there

Colab's own image takes some 20 GB, more than a hosted runner has; what notebooks meet there are its versions, which Google publishes as
https://github.com/googlecolab/backend-info/blob/main/pip-freeze.txt. The environment made here holds those of the library's dependencies
that Colab has, with PyTorch's CPU build. The first cell fetches the book's repository: here, the commit that is checked out.
With no name, chapters 1, 5, 8, 10 and 14 are run: one without and four with stored results.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
CPU = "https://download.pytorch.org/whl/cpu"


def pins(freeze):
    """Return {name: version} of a `pip freeze`, local versions (+cu126) and direct addresses without what tells the build."""
    found = dict(re.findall(r"^([\w.-]+)==([^+\s]+)", freeze, re.MULTILINE))
    found |= dict(re.findall(r"^([\w.-]+) @ \S+/[\w.]+?-(\d[\w.]*)(?:%2B|\+|-)\S*\.whl", freeze, re.MULTILINE))
    return {name.lower().replace("_", "-"): version for name, version in found.items()}


def environment(folder, freeze):
    """Make a virtual environment with those of the library's dependencies that the freeze has; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    versions = pins(freeze)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [re.match(r"[\w.-]+", one)[0] for one in [*dependencies, "ipykernel"]]
    there = [f"{name}=={versions[name]}" for name in names if name in versions]
    print("Colab has", *there, flush=True)
    (folder / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--extra-index-url", CPU, "-c", folder / "constraints.txt", *there], check=True)
    return python


def served(folder):
    """Return the address of a clone of this repository whose branch main is the commit that is checked out."""
    subprocess.run(["git", "clone", "-q", "--bare", ROOT.as_uri(), folder], check=True)
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "-C", folder, "update-ref", "refs/heads/main", head], check=True)
    return folder.as_uri()


def torch_version(python):
    command = "from importlib.metadata import version; print(version('torch'), version('torchvision'))"
    return subprocess.run([python, "-c", command], check=True, capture_output=True, text=True).stdout.strip()


def run(path, folder, address, timeout=600):
    """Run a notebook alone in a folder; return what its first code cell printed, and the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source, count = re.subn(r'url = (?:"\S+"|\([^)]*\))(\n.*?-b )\S+', lambda m: f'url = "{address}"{m[1]}main', first.source, count=1)
    assert count == 1, f"{path.name} does not begin with the book's first lines: python book/_scripts/fork.py writes them"
    start = time.perf_counter()
    NotebookClient(notebook, timeout=timeout, kernel_name="colab", resources={"metadata": {"path": str(folder)}}).execute()
    said = "".join(output.text for output in first.outputs if output.output_type == "stream")
    return said, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--freeze", type=Path, help="a file with Colab's `pip freeze`")
    parser.add_argument("--python", type=Path, help="the Python of an environment like Colab's")
    options = parser.parse_args()
    if bool(options.freeze) == bool(options.python):
        parser.error("give one of --freeze and --python")
    chapters = options.notebooks or [next((ROOT / "book").glob(f"{number:02}-*.ipynb")) for number in (1, 5, 8, 10, 14)]
    os.environ.pop("PYTHONPATH", None)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        python = options.python.absolute() if options.python else environment(scratch / "venv", options.freeze.read_text(encoding="utf-8"))
        spec = scratch / "kernels" / "colab" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "colab", "language": "python"}), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = str(scratch)
        before, address = torch_version(python), served(scratch / "book.git")
        for path in chapters:
            folder = scratch / path.stem
            folder.mkdir()
            for turn in ("first", "second"):
                try:
                    said, seconds = run(path, folder, address)
                except Exception as error:    # whatever the notebook raises: told, and the next one runs
                    said, seconds, failed = f"FAILED: {error}", float("nan"), 1
                print(f"{path.name}, {turn} time: {seconds:.0f} s. {said.strip()}", flush=True)
        after = torch_version(python)
    print(f"torch and torchvision: {before} before, {after} after.")
    return int(failed or before != after)


if __name__ == "__main__":
    sys.exit(main())
