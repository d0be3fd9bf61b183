"""Student versions as a folder and a zip: notebooks with a course's numbers, and nothing that students must not have."""

import hashlib
import os
import zipfile
from pathlib import Path

import nbformat

from grader import judge, notebooks, tasks
from grader.errors import GraderError
from grader.run import write_atomically

__all__ = ["leaks", "make"]

README = """# Reading the Weights: assignments

Each folder holds one assignment, a Jupyter notebook. Open it on your machine (`jupyter lab`), on Colab (File, Upload notebook) or in the
book's Binder (upload it there). On Colab the first cell installs the book's library.

1. Read the text, write into the answer cells, run the test cells below them. A test cell that says nothing is content.
2. To try things out, add cells of your own. Do not edit, delete or copy test cells: an edited or deleted one costs all points.
3. Before you hand in: restart the kernel and run all cells. Then hand in the one .ipynb file, under the name that your course asks for.

What is graded, how, and what the feedback page says: see the book's page "Assignments, for students".
"""


def make(out, secret, only=None):
    """Write the student versions under `out` and return the paths of the zip files.

    Raises
    ------
    GraderError
        If something that students must not have would get out.
    """
    out, written, zips = Path(out), [], []
    for assignment in only or tasks.ASSIGNMENTS:
        made = judge.handed_out(assignment, secret)
        found = leaks(assignment, made, secret)
        if found:
            raise GraderError(f"Assignment {assignment} was not written: {'; '.join(found)}.")
        name = notebooks.title(assignment)
        file = out / name / f"{name}.ipynb"
        write_atomically(file, nbformat.writes(made) + "\n")
        written.append(file)
        zips.append(_zip(out / f"{name}.zip", [(f"{name}/{name}.ipynb", file.read_bytes()), (f"{name}/README.md", README.encode())]))
    write_atomically(out / "README.md", README)
    zips.append(_zip(out / "assignments.zip", [("assignments/README.md", README.encode()),
                                               *((f"assignments/{f.parent.name}/{f.name}", f.read_bytes()) for f in written)]))
    return zips


def _zip(path, members):
    """The same bytes for the same content: dates are fixed."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            about = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            about.compress_type, about.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(about, content)
    os.replace(part, path)
    return path


def leaks(assignment, made, secret):
    """What a student version must not hold: solutions, hidden tests, outputs, metadata beyond nbgrader's own, the secret."""
    found = []
    text = nbformat.writes(made)
    for word in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "in_process", "source-only", "course.", "from grader"):
        if word in text:
            found.append(f"it holds {word!r}")
    if secret.value.decode() in text or hashlib.sha256(secret.value).hexdigest() in text:
        found.append("it holds the course's secret")
    solutions = judge.rendered(assignment, secret)
    for cell in made.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            found.append(f"cell {cell.id} has outputs")
        extra = set(cell.metadata) - {"nbgrader", "editable", "deletable"}
        if extra:
            found.append(f"cell {cell.id} has metadata {', '.join(sorted(extra))}")
    for cell in solutions.cells:
        if notebooks.is_answer(cell):
            for line in _solution(cell.source):
                # a line that the student version gives away elsewhere, such as in another cell, is no secret
                if len(line) > 24 and line in text.replace("\\\"", "\"").replace("\\n", "\n"):
                    found.append(f"a line of the solution of {notebooks.grade_id(cell)}: {line[:40]!r}")
    if set(made.metadata) != {"kernelspec", "language_info", "reading_the_weights"}:
        found.append("the notebook has other metadata than it needs")
    return found


def _solution(source):
    inside, lines = False, []
    for line in source.splitlines():
        if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside:
            lines.append(line.strip())
    return lines
