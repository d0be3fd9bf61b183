"""Grading a folder of submissions: in parallel, resumable, nobody lost, grades and feedback at the end."""

import concurrent.futures
import csv
import io
import json
import os
import tempfile
from collections import Counter
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from grader import feedback, judge, notebooks, sandbox, tasks
from grader.errors import GraderError
from grader.submissions import collect, slug

__all__ = ["grade_folder", "read_roster", "read_rubric", "write_atomically"]

ROSTER = ("identifier", "name", "email", "canvas_id", "sis_user_id", "sis_login_id", "section")


def write_atomically(path, text):
    """A reader, and a run after a kill, sees the whole file or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _version():
    """Changes when a result could: the grader, the sources, and the library that answers may use."""
    here = Path(__file__).resolve().parent
    library = Path(find_spec("switcher_lib").origin).parent
    files = sorted([*here.rglob("*.py"), *library.rglob("*.py"), *notebooks.SOURCES.rglob("*.ipynb")])
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def safe_cell(value):
    """Text for a spreadsheet cell that no spreadsheet takes for a formula."""
    text = " ".join(str(value).split()) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "|", "%") else text


# ------------------------------------------------------------------------------------------- what the instructor hands in

def _table(path, what):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return [{(k or "").strip().lower(): (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GraderError(f"{what}={path} cannot be read: {error}") from None


def read_roster(path):
    """{identifier: row} of a CSV with the columns identifier, name, email, canvas_id, sis_user_id, sis_login_id, section."""
    rows = _table(path, "ROSTER")
    if not rows or "identifier" not in rows[0]:
        raise GraderError(f"ROSTER={path} needs a column identifier; allowed besides: {', '.join(ROSTER[1:])}.")
    found = {}
    for line, row in enumerate(rows, 2):
        if not row["identifier"]:
            raise GraderError(f"ROSTER={path}, line {line}: no identifier.")
        if row["identifier"] in found:
            raise GraderError(f"ROSTER={path}, line {line}: identifier {row['identifier']!r} is there twice.")
        found[row["identifier"]] = row
    return found


def read_rubric(path, known=None):
    """{identifier: {criterion: (points, remark)}} of a CSV with a column per criterion of assignment 5, and remark-<criterion> if wanted."""
    rubric = tasks.ASSIGNMENTS["5"].RUBRIC
    rows, found = _table(path, "RUBRIC"), {}
    for line, row in enumerate(rows, 2):
        at = f"RUBRIC={path}, line {line}"
        unknown = set(row) - {"identifier", *rubric, *(f"remark-{name}" for name in rubric)}
        if unknown or "identifier" not in row:
            raise GraderError(f"{at}: columns must be identifier, {', '.join(rubric)} and remark-<criterion>; not {', '.join(sorted(unknown))}.")
        if known is not None and row["identifier"] not in known:
            raise GraderError(f"{at}: no submission of {row['identifier']!r}.")
        if row["identifier"] in found:
            raise GraderError(f"{at}: {row['identifier']!r} is there twice.")
        marks = {}
        for name, (points, _) in rubric.items():
            if not row.get(name):
                continue
            try:
                value = float(row[name])
            except ValueError:
                value = None
            if value is None or not 0 <= value <= points:
                raise GraderError(f"{at}: {name}={row[name]!r} must be a number from 0 to {points:g}.")
            marks[name] = (value, row.get(f"remark-{name}", ""))
        found[row["identifier"]] = marks
    return found


# ----------------------------------------------------------------------------------------------------------- the grading

def _units(submission, names, secret):
    """What of a submission is graded: {assignment: (file, notebook)}, and what is wrong with the rest."""
    units, problems = {}, list(submission.problems)
    for file, raw in submission.notebooks:
        try:
            notebook = notebooks.read_bytes(raw)
        except notebooks.Unreadable as error:
            problems.append(f"{ascii(file)[1:-1][:60]}: {error}")
            continue
        assignment = notebooks.which(notebook, names)
        if assignment is None:
            problems.append(f"{ascii(file)[1:-1][:60]} is none of the assignments: none of its cells has a name that was handed out.")
        elif assignment in units and units[assignment][2] != raw:
            problems.append(f"Two different notebooks answer assignment {assignment}: {ascii(units[assignment][0])[1:-1][:60]} and "
                            f"{ascii(file)[1:-1][:60]}. Hand in one of them; neither was graded.")
            units[assignment] = None
        elif assignment not in units:
            units[assignment] = (file, notebook, raw)
    return {a: unit for a, unit in units.items() if unit is not None}, problems


def _grade_unit(assignment, notebook, secret, limits, edited):
    handed_out = judge.handed_out(assignment, secret)
    submitted = notebooks.read_submission(notebook, handed_out)
    about = notebook.metadata.get("reading_the_weights")
    if isinstance(about, dict) and about.get("course") not in (None, secret.fingerprint):
        submitted.told.append("This notebook was made for another course or another year: its numbers are not the ones of yours.")
    return judge.grade(assignment, submitted, secret, limits=limits, edited=edited).to_dict()


def grade_folder(folder, out, secret, jobs=2, limits=None, edited="zero", rubric=None, roster=None, book=None, progress=True):
    """Grade every submission of a folder, write grades and feedback, and return a summary.

    What is graded already, with the same submission, grader and secret, is not graded again: a killed run goes on where it was.

    Parameters
    ----------
    folder, out : path
        Submissions, and where state, grades and feedback go.
    secret : Secret
    jobs : int, default 2
        Sandboxes at a time, at least 1.
    limits : sandbox.Limits, optional
    edited : {"zero", "tell"}
    rubric, roster : path, optional
        CSV files of the instructor's.
    book : str, optional
        Address of the published book, for the links.
    progress : bool

    Returns
    -------
    dict
        Counts: graded, resumed, zeros, problems, faults.
    """
    if not isinstance(jobs, int) or jobs < 1:
        raise GraderError(f"JOBS={jobs!r} must be an integer of at least 1.")
    sandbox.require()
    sandbox.sweep()
    out, limits = Path(out), limits or sandbox.Limits()
    submissions, refused = collect(folder)
    people = read_roster(roster) if roster else {}
    marks = read_rubric(rubric, {s.identifier for s in submissions}) if rubric else {}
    names = {a: [notebooks.grade_id(c) for c in judge.handed_out(a, secret).cells if notebooks.is_answer(c) or notebooks.is_test(c)]
             for a in tasks.ASSIGNMENTS}
    version = _version()
    work, done, faults, problems, counts = [], {}, {}, {}, Counter()
    for submission in submissions:
        units, problems[submission.identifier] = _units(submission, names, secret)
        for assignment, (file, notebook, raw) in units.items():
            key = sha256(json.dumps([sha256(raw).hexdigest(), version, secret.fingerprint, edited, str(limits)]).encode()).hexdigest()
            state = out / "state" / f"{slug(submission.identifier)}-{assignment}.json"
            kept = _kept(state, key)
            if kept is not None:
                done[submission.identifier, assignment] = kept
                counts["resumed"] += 1
            else:
                work.append((submission.identifier, assignment, notebook, state, key))
    for assignment in {unit[1] for unit in work}:
        judge.expected(assignment, secret, "hidden")     # once, before the threads

    def one(unit):
        identifier, assignment, notebook, state, key = unit
        result = _grade_unit(assignment, notebook, secret, limits, edited)
        write_atomically(state, json.dumps({"key": key, "identifier": identifier, "result": result}, ensure_ascii=False))
        return result

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, unit): unit for unit in work}
        try:
            for future in tqdm(concurrent.futures.as_completed(futures), total=len(futures), desc="grading", unit="notebook",
                               disable=not progress):
                identifier, assignment, *_ = futures[future]
                try:
                    done[identifier, assignment] = future.result()
                    counts["graded"] += 1
                except Exception as error:               # a fault of ours must not cost the others their grades
                    faults[identifier, assignment] = f"{type(error).__name__}: {error}"
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _report(out, submissions, refused, done, faults, problems, people, marks, book)
    counts["zeros"] = sum(bool(result["zero"]) for result in done.values())
    counts["problems"] = sum(map(bool, problems.values())) + len(refused)
    counts["faults"] = len(faults)
    counts["submissions"] = len(submissions)
    return {**dict.fromkeys(("graded", "resumed", "zeros", "problems", "faults", "submissions"), 0), **counts,
            "refused": refused, "fault_reasons": faults}


def _kept(state, key):
    try:
        stored = json.loads(state.read_text(encoding="utf-8"))
        return stored["result"] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None                                  # unreadable: grade again


def _manual(assignment, marks):
    rubric = getattr(tasks.ASSIGNMENTS[assignment], "RUBRIC", {})
    return [{"name": name, "points": points, "asks": asks, "earned": marks.get(name, (None, ""))[0], "remark": marks.get(name, (None, ""))[1]}
            for name, (points, asks) in rubric.items()]


def _short(result):
    """One line for a gradebook's feedback column."""
    if result["zero"]:
        return result["zero"]
    missing = [f"{item['number']} {item['title']}: {item['earned']:g}/{item['points']:g}" for item in result["items"]
               if item["earned"] < item["points"]]
    return "; ".join(missing) if missing else "Everything that was tried is right."


def _report(out, submissions, refused, done, faults, problems, people, marks, book):
    graded = sorted({a for _, a in [*done, *faults]})
    titles = {a: f"{a}: {tasks.ASSIGNMENTS[a].TITLE}" for a in graded}
    header = ["identifier", "name", "email"]
    for a in graded:
        header += [f"Assignment {titles[a]}", f"Feedback {a}"]
    rows, canvas = [], []
    canvas_header = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(f"Assignment {titles[a]}" for a in graded)]
    possible = [judge.total(a) + sum(row["points"] for row in _manual(a, {})) for a in graded]
    everybody = {s.identifier: s for s in submissions}
    for identifier in [*everybody, *(i for i in people if i not in everybody)]:
        person = people.get(identifier, {})
        name = person.get("name") or (everybody[identifier].name if identifier in everybody else "")
        row, grades, results = [identifier, name, person.get("email", "") or (identifier if "@" in identifier else "")], [], []
        troubles = list(problems.get(identifier, []))
        for a in graded:
            result = done.get((identifier, a))
            if result is None:
                fault = faults.get((identifier, a))
                row += ["", f"Not graded, a fault of the grader: {fault}" if fault else " ".join(troubles)]
                grades.append("")
                continue
            result = {**result, "manual": _manual(a, marks.get(identifier, {}))}
            results.append((titles[a], result))
            grade = result["earned"] + sum(m["earned"] or 0 for m in result["manual"])
            row += [f"{grade:g}", _short(result)]
            grades.append(f"{grade:g}")
        rows.append(row)
        canvas.append([name or identifier, person.get("canvas_id") or (identifier if identifier.isdigit() else ""), person.get("sis_user_id", ""),
                       person.get("sis_login_id") or ("" if identifier.isdigit() else identifier), person.get("section", ""), *grades])
        if identifier in everybody:
            ours = [f"Assignment {a}: a fault of the grader, not yours; it will be graded again." for (i, a) in faults if i == identifier]
            write_atomically(out / "feedback" / f"{slug(identifier)}.html", feedback.page(identifier, results, troubles + ours, book))
    write_atomically(out / "grades-canvas.csv", _csv([canvas_header, ["Points Possible", "", "", "", "", *(f"{p:g}" for p in possible)], *canvas]))
    write_atomically(out / "problems.csv", _csv([["entry", "problem"], *refused, *((i, p) for i, ps in problems.items() for p in ps),
                                                 *((f"{i}, assignment {a}", f"fault of the grader: {why}") for (i, a), why in faults.items())]))
    write_atomically(out / "grades.csv", _csv([header, *rows]))        # last: where it is, the rest is


def _csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([[safe_cell(cell) for cell in row] for row in rows])
    return text.getvalue()
