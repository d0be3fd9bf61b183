"""Source notebooks, the student versions made of them, and what a submitted notebook holds.

The sources are nbgrader's: solutions between BEGIN SOLUTION and END SOLUTION, hidden tests likewise, locked test cells with points.
Beyond nbgrader, ``course.name`` in a source stands for a number of the course: it is replaced by the number itself when the student
version is made, so that the public reference solution of one year has another year's numbers, or none.
"""

import ast
import copy
import pprint
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import nbformat

from grader.errors import GraderError

__all__ = ["SOURCES", "Submitted", "authoring", "check_sources", "code_cells", "read_submission", "render", "source", "student"]

SOURCES = Path(__file__).resolve().parents[1] / "source"
IN_CODE = re.compile(r"\bcourse\.([a-z]\w*)")
IN_TEXT = re.compile(r"\{course\.([a-z]\w*)\}")
MARK = re.compile(r"^# (ANSWER|TEST) (\d\.\d) ([a-z]\w*)")
LARGEST = 8 << 20               # bytes of a submitted notebook, outputs included
MOST_CELLS = 500


# ---------------------------------------------------------------------------------------------------------- the sources

def source(assignment):
    """The committed source notebook of an assignment, by its number as text."""
    found = sorted(SOURCES.glob(f"{assignment}-*/{assignment}-*.ipynb"))
    if len(found) != 1:
        raise GraderError(f"assignment={assignment!r} has {len(found)} source notebooks in {SOURCES.name}/; it must have one.")
    return nbformat.read(found[0], as_version=4)


def title(assignment):
    """The file name of an assignment without its ending, such as ``1-scale-fold-remove``."""
    return next(SOURCES.glob(f"{assignment}-*")).name


def authoring(assignment):
    """What the first cell of a source notebook calls `course`: the public numbers, so that the source runs as it is."""
    from grader import tasks
    from grader.secret import PUBLIC
    return SimpleNamespace(**tasks.course(assignment, PUBLIC))


def _literal(value):
    text = pprint.pformat(value, width=66, compact=True)
    return text if not isinstance(value, (int, float)) or value >= 0 else f"({text})"


def render(notebook, values):
    """The source with the course's numbers in it, and without the cells that only authors need."""
    def look_up(name):
        if name not in values:
            raise GraderError(f"A source notebook asks for course.{name}; known: {', '.join(sorted(values))}.")
        return values[name]

    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if "source-only" not in cell.metadata.get("tags", [])]
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = IN_CODE.sub(lambda match: _literal(look_up(match[1])), cell.source)
        else:
            cell.source = IN_TEXT.sub(lambda match: _in_text(look_up(match[1])), cell.source)
    return made


def _in_text(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def student(rendered, about):
    """The student version of a rendered source: nbgrader's own steps, then nothing in metadata or outputs that is not needed.

    Parameters
    ----------
    rendered : nbformat.NotebookNode
        From :func:`render`; stays as it is.
    about : dict
        Goes into the notebook's metadata: the assignment's number and the course's fingerprint.
    """
    from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    made = copy.deepcopy(rendered)
    for step in (ClearSolutions, LockCells, ClearOutput, ClearHiddenTests):
        made, _ = step().preprocess(made, {})
    for cell in made.cells:
        if is_answer(cell):
            # Where numbers are asked for there are lines to fill in: a `raise` below them would undo what is filled in
            cell.source = re.sub(r"^# YOUR CODE HERE\nraise NotImplementedError\(\)$", "", cell.source, flags=re.MULTILINE).rstrip()
        kept = {"nbgrader": cell.metadata["nbgrader"]} if "nbgrader" in cell.metadata else {}
        if "nbgrader" in kept:
            kept["editable"], kept["deletable"] = bool(kept["nbgrader"]["solution"]), False
        cell.metadata = nbformat.from_dict(kept)
    made, _ = ComputeChecksums().preprocess(made, {})        # last: of what students get, nothing else
    made.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "reading_the_weights": dict(about)})
    return made


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def is_answer(cell):
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_test(cell):
    about = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and bool(about.get("grade")) and not about.get("solution")


def code_cells(rendered, answers):
    """What the worker executes: the given code cells from our own source and the answers, in the notebook's order.

    Parameters
    ----------
    rendered : nbformat.NotebookNode
        The rendered source.
    answers : dict
        Source of each answer cell by its grade_id; a missing one is left out.

    Returns
    -------
    list of (name, source, is_answer)
    """
    cells = []
    for number, cell in enumerate(rendered.cells):
        if cell.cell_type != "code" or is_test(cell):
            continue
        if is_answer(cell):
            if grade_id(cell) in answers:
                cells.append((grade_id(cell), answers[grade_id(cell)], True))
        elif "not-graded" not in cell.metadata.get("tags", []):
            cells.append((f"given {number}", cell.source, False))
    return cells


def reference(rendered):
    """The answers of the source itself."""
    return {grade_id(c): c.source for c in rendered.cells if is_answer(c)}


def check_sources(notebook):
    """Faults of a source notebook that would show only when students have it."""
    faults, seen = [], set()
    for number, cell in enumerate(notebook.cells, 1):
        name = grade_id(cell)
        if name in seen and name:
            faults.append(f"cell {number}: grade_id {name!r} twice")
        seen.add(name)
        if is_answer(cell) and "BEGIN SOLUTION" not in cell.source:
            faults.append(f"cell {number}: answer {name!r} without BEGIN SOLUTION")
        if not is_answer(cell) and "BEGIN SOLUTION" in cell.source:
            faults.append(f"cell {number}: a solution outside an answer cell")
        if is_test(cell) and not cell.metadata.nbgrader.locked:
            faults.append(f"cell {number}: test {name!r} is not locked")
        if (is_answer(cell) or is_test(cell)) and not MARK.match(cell.source):
            faults.append(f"cell {number}: {name!r} does not begin with its ANSWER or TEST line")
    return faults


# -------------------------------------------------------------------------------------------------------- a submission

@dataclass
class Submitted:
    """What a submitted notebook holds, and what is odd about it.

    Attributes
    ----------
    answers : dict
        Source of each answer cell that was found, by grade_id.
    elsewhere : dict
        Names defined in cells that the student added, and in which cell.
    edited, deleted : list of str
        Locked test cells that do something else than the ones handed out, or are gone.
    told : list of str
        What the student should know, in plain words.
    records : str
        The text output of the hand-in cell, if the assignment has one.
    """

    answers: dict = field(default_factory=dict)
    elsewhere: dict = field(default_factory=dict)
    edited: list = field(default_factory=list)
    deleted: list = field(default_factory=list)
    told: list = field(default_factory=list)
    records: str = ""


def answered(handed_out, answers, shown=None):
    """A filled-in student version, as a student would hand it in: for trials and tests.

    Parameters
    ----------
    handed_out : nbformat.NotebookNode
    answers : dict
        Source by grade_id.
    shown : str, optional
        What the hand-in cell printed.
    """
    made = copy.deepcopy(handed_out)
    for cell in made.cells:
        if is_answer(cell) and grade_id(cell) in answers:
            cell.source = answers[grade_id(cell)]
        if grade_id(cell) == "hand-in" and shown:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=shown + "\n")]
            cell.execution_count = 1
    return made


class Unreadable(Exception):
    """A file that is no notebook; the message is for the student."""


def read_bytes(raw):
    """A notebook from a stranger's bytes."""
    if len(raw) > LARGEST:
        raise Unreadable(f"The notebook has {len(raw) / (1 << 20):.0f} MB; at most {LARGEST >> 20} MB are read. "
                         "Clear its outputs and hand it in again.")
    try:
        notebook = nbformat.reads(raw.decode("utf-8-sig"), as_version=4)
        cells = [cell for cell in notebook.cells if isinstance(cell.source, str) and isinstance(cell.metadata, dict)]
    except RecursionError:
        raise Unreadable("The file is nested too deeply to be a notebook.") from None
    except Exception as error:    # nbformat raises many kinds; every one means that this is no notebook
        raise Unreadable(f"The file is no Jupyter notebook ({type(error).__name__}).") from None
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"The notebook has {len(cells)} cells; at most {MOST_CELLS} are read.")
    notebook.cells = cells
    return notebook


def _marks(cell):
    found = MARK.match(cell.source.lstrip())
    return (found[1], found[3]) if found else None


def _name(cell):
    """A cell's grade_id: from its metadata or, where a tool has dropped those, from its first line."""
    about = cell.metadata.get("nbgrader")
    if isinstance(about, dict) and isinstance(about.get("grade_id"), str):
        return about["grade_id"]
    mark = _marks(cell)
    if cell.source.startswith("# The hand-in cell"):
        return "hand-in"
    if mark:
        return mark[1] if mark[0] == "ANSWER" else f"test-{mark[1]}"
    return None


def which(notebook, names):
    """The assignment that a notebook answers: the one with which it shares most grade_ids. None if it shares none."""
    own = {_name(cell) for cell in notebook.cells}
    shared = {assignment: len(own & set(ids)) for assignment, ids in names.items()}
    best = max(shared, key=shared.get)
    return best if shared[best] else None


def _meaning(text):
    """What a cell does: comments and layout aside."""
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def read_submission(notebook, handed_out):
    """Match a submitted notebook with the version that was handed out.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        From :func:`read_bytes`.
    handed_out : nbformat.NotebookNode
        The student version of this course.

    Returns
    -------
    Submitted
    """
    found = Submitted()
    by_name = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" or _name(cell):
            by_name.setdefault(_name(cell), []).append(cell)
    known = {grade_id(cell) for cell in handed_out.cells} - {None}
    for cell in handed_out.cells:
        name = grade_id(cell)
        if name is None or cell.cell_type != "code":
            continue
        copies = by_name.get(name, [])
        if is_answer(cell):
            if not copies:
                found.told.append(f"The answer cell “{name}” is missing.")
                continue
            if len({c.source for c in copies}) > 1:
                found.told.append(f"The answer cell “{name}” is there {len(copies)} times with different content; the first one counts. "
                                  "A copied cell keeps its name: write into a new cell instead.")
            found.answers[name] = copies[0].source
        elif is_test(cell):
            if not copies:
                found.deleted.append(name)
            elif any(_meaning(c.source) != _meaning(cell.source) for c in copies):
                found.edited.append(name)
            elif len(copies) > 1:
                found.told.append(f"The test cell “{name}” is there {len(copies)} times; tests of our own are run, so this changes nothing.")
        elif cell.metadata["nbgrader"]["locked"] and copies and any(_meaning(c.source) != _meaning(cell.source) for c in copies):
            found.told.append(f"The given cell “{name}” was changed. Grading uses the one that was handed out.")
        if name == "hand-in" and copies:
            found.records = "".join(str(out.get("text", "")) for out in copies[0].get("outputs", [])
                                    if isinstance(out, dict) and out.get("output_type") == "stream" and out.get("name") == "stdout")
    for cell in notebook.cells:
        if cell.cell_type == "code" and _name(cell) not in known:
            for name in _defined(cell.source):
                found.elsewhere[name] = (cell.source.strip().splitlines() or [""])[0][:60]
    return found


def _defined(text):
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return names
