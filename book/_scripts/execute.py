"""Run the book's notebooks one after another and store their outputs.

    python book/_scripts/execute.py [NOTEBOOK ...] [--stand-ins] [--timeout SECONDS]

With no name: every notebook of _toc.yml, in order. A notebook is rewritten only when all of it ran and its outputs are fit to
be published: no error, nothing on stderr, no path of this machine, nothing that contradicts the text beside it, no data set
that is a stand-in for the real one (--stand-ins allows that). What differs between two runs of the same code is left out, so
that a second run makes a small diff. Times go to results/execution_times.json.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from switcher_lib.explore import strip_widget_state
from switcher_lib.plotting import OTHERWISE

ROOT = Path(__file__).resolve().parents[2]
TIMES = ROOT / "results" / "execution_times.json"
LIMIT = 60.0  # seconds a notebook may take on two cores
LIMIT_OF_ALL = 600.0
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"},
}
# A home or temporary folder of any machine, a drive of Windows, and an absolute path into an installation or this repository.
ELSEWHERE = (
    r"(?<![\w.:/])/(?:home|Users|root|tmp|private|var|mnt|opt)/[\w.-]+"
    r"|\b[A-Za-z]:\\\\?\w+"
    r"|(?<![\w.:/])/[\w./-]*(?:site-packages|dist-packages|\.venv|ipykernel_|switcher_lib/|book/)"
)
# Run in the kernel after the last cell: the names of the data sets that stand in for others.
STAND_INS = """
print([name for name, value in list(globals().items())
       if getattr(value, "is_stand_in", False) is True and not isinstance(value, type)])
"""


def notebooks_of_the_book(root=ROOT):
    """The notebooks that _toc.yml names, in its order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [c for part in toc.get("parts", []) for c in part["chapters"]]
    chapters += [s for c in chapters for s in c.get("sections", [])]
    files = [root / f"{chapter['file']}.ipynb" for chapter in chapters]
    return [file for file in files if file.exists()]


def machine_paths(text):
    """The pieces of a text that name a folder of this machine, or a home or temporary folder of any."""
    here = {str(p) for p in (ROOT, Path.home(), tempfile.gettempdir(), sys.prefix) if len(str(p)) > 3}
    return re.findall("|".join([*(re.escape(p) + r"(?![\w-])" for p in sorted(here)), ELSEWHERE]), text)


def texts(output):
    """All that an output says in words: streams, tracebacks, and every text representation of a result."""
    found = [output.get("text", ""), *output.get("traceback", [])]
    for mime, content in output.get("data", {}).items():
        if mime.startswith("text/") or mime.endswith(("json", "xml", "javascript")):
            found.append(content if isinstance(content, str) else json.dumps(content))
    return ["".join(t) if isinstance(t, list) else t for t in found]


def faults(notebook):
    """What keeps a notebook's outputs from being published, one sentence each."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            found.append(f"cell {number} was not run")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number} ends in {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {number} writes to stderr: {output.text.strip()[:300]}")
            found += [f"cell {number} contradicts the text: {text}" for text in texts(output) if text.startswith(OTHERWISE)]
            for path in sorted({p for text in texts(output) for p in machine_paths(text)}):
                found.append(f"cell {number} shows a path of this machine: {path}")
    return found


def normalise(notebook):
    """Leave out what changes from run to run or from machine to machine; give every cell an id that stays."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    strip_widget_state(notebook).metadata.update(nbformat.from_dict(METADATA))
    seen = set()
    for number, cell in enumerate(notebook.cells, start=1):
        if not cell.get("id") or cell["id"] in seen:
            cell["id"] = f"cell-{number}"
        seen.add(cell["id"])
        for noise in ("execution", "ExecuteTime", "scrolled"):
            cell.metadata.pop(noise, None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if isinstance(data.get("text/plain"), str):
                data["text/plain"] = re.sub(r" at 0x[0-9a-fA-F]+", "", data["text/plain"])
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    return notebook


def merged(outputs):
    """The outputs with neighbouring pieces of one stream joined: where the kernel cuts a stream is chance."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and output.get("name") == last.get("name"):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def run(path, timeout=600.0):
    """Run a notebook; return it with its outputs, the seconds it took and the names of its stand-ins."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    probe = nbformat.v4.new_code_cell(STAND_INS)
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False, store_widget_state=False,
                            resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel():
        start = time.perf_counter()
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - start
        notebook.cells.append(probe)
        client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
    answer = "".join(output.text for output in notebook.cells.pop().outputs if output.output_type == "stream")
    return notebook, seconds, answer.strip().strip("[]")


def write(path, text):
    """Write a file as a whole or not at all, and not when it holds the same already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def record(path, seconds):
    """Put a notebook's time into results/execution_times.json, beside those of the others."""
    import torch

    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.exists() else {}
    seconds_by_name = times.get("seconds", {}) | {path.name: round(seconds, 1)}
    content = {
        "command": "make execute",
        "cores": os.cpu_count(),
        "python": ".".join(map(str, sys.version_info[:2])),
        "torch": torch.__version__.split("+")[0],
        "seconds": dict(sorted(seconds_by_name.items())),
    }
    write(TIMES, json.dumps(content, indent=1) + "\n")


def execute(path, timeout=600.0, stand_ins_allowed=False):
    """Run one notebook and store it; return the faults that kept it from being stored, if any."""
    try:
        notebook, seconds, stand_ins = run(path, timeout)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [str(error).strip()]
    found = faults(normalise(notebook))
    if stand_ins and not stand_ins_allowed:
        found.append(f"it ran on a stand-in ({stand_ins}); set SWITCHER_DATA to a folder with the real data, or use --stand-ins")
    if not found:
        write(path, nbformat.writes(notebook).rstrip("\n") + "\n")
        if not stand_ins:
            record(path, seconds)
        print(f"{path.name}: {seconds:.1f} s" + (f"  (over the limit of {LIMIT:.0f} s)" if seconds > LIMIT else ""), flush=True)
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run (default: all of the book's)")
    parser.add_argument("--stand-ins", action="store_true", help="store outputs made with stand-in data too")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds one cell may take (default: 600)")
    options = parser.parse_args(arguments)
    paths = [p.resolve() for p in options.notebooks] or notebooks_of_the_book()
    for path in paths:
        if path.suffix != ".ipynb" or not path.exists():
            parser.error(f"{path}: no such notebook; known: {', '.join(p.name for p in notebooks_of_the_book())}")
    # No progress bars in stored outputs, and debuggers that keep their remarks on frozen modules to themselves.
    os.environ |= {"TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONHASHSEED": "0"}
    failed = 0
    for path in paths:
        found = execute(path, options.timeout, options.stand_ins)
        failed += bool(found)
        for fault in found:
            print(f"{path.name}: NOT stored: {fault}", file=sys.stderr, flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
