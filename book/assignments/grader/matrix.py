"""The catalogues of wrong and right answers: does every wrong one fail the check that it is meant to fail, and only that?"""

import re
import tomllib
from pathlib import Path

from grader.errors import GraderError

__all__ = ["command", "run_right", "run_wrong", "table", "wrong_answers"]

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "matrix.md"


def test_secret():
    """The secret under which the catalogues are run."""
    from grader.secret import Secret
    return Secret(b"the catalogue's own secret")


def wrong_answers(assignment):
    """[{name, answer, fails, code}] of an assignment's catalogue."""
    return tomllib.loads((HERE / "wrong" / f"{assignment}.toml").read_text(encoding="utf-8"))["wrong"]


def right_answers(assignment):
    """[{answer, code}], in the order of the file; each answer has at least two."""
    return tomllib.loads((HERE / "right" / f"{assignment}.toml").read_text(encoding="utf-8"))["right"]


def numbers(code, assignment, secret):
    """Catalogue code may say course.name, too. ``last_year.name`` is the number of the public course."""
    from grader import notebooks, tasks
    from grader.secret import PUBLIC
    code = notebooks.IN_CODE.sub(lambda m: notebooks._literal(tasks.course(assignment, secret)[m[1]]), code)
    return re.sub(r"\blast_year\.(\w+)", lambda m: notebooks._literal(tasks.course(assignment, PUBLIC)[m[1]]), code)


def _grade(assignment, replaced, secret, worker=None):
    from grader import judge, notebooks
    replaced = dict(replaced)
    records = _records(assignment, secret, replaced.pop("hand-in", ""))
    answers = {**notebooks.reference(judge.rendered(assignment, secret)),
               **{name: numbers(code, assignment, secret) for name, code in replaced.items()}}
    return judge.grade(assignment, notebooks.Submitted(answers=answers, records=records), secret,
                       worker=worker or judge.InProcess)


def _records(assignment, secret, change):
    """The hand-in cell's output of a faultless submission; `change` is code that alters its `data`."""
    import json

    from grader import tasks
    if not hasattr(tasks.ASSIGNMENTS[assignment], "example_data"):
        return ""
    data = tasks.ASSIGNMENTS[assignment].example_data(secret)
    exec(change, {"data": data})
    return "RECORDS " + json.dumps(data)


def run_wrong(assignment, entry, worker=None):
    """The checks that a wrong answer fails."""
    return _grade(assignment, {entry["answer"]: entry["code"]}, test_secret(), worker).failed()


def run_right(assignment, replaced, worker=None):
    """The checks that right answers fail: none, one hopes."""
    return _grade(assignment, replaced, test_secret(), worker).failed()


def right_sets(assignment):
    """The right answers as two sets: the first other way of each answer, and the second."""
    ways = {}
    for entry in right_answers(assignment):
        ways.setdefault(entry["answer"], []).append(entry["code"])
    return [{name: codes[i] for name, codes in ways.items() if len(codes) > i} for i in range(max(map(len, ways.values())))]


def table():
    """The matrix as a page of the guide: every wrong answer with the checks that it fails, as measured now."""
    from grader import tasks
    parts, total = [], 0
    for assignment in tasks.ASSIGNMENTS:
        entries = wrong_answers(assignment)
        total += len(entries)
        parts.append(f"## Assignment {assignment}: {tasks.ASSIGNMENTS[assignment].TITLE}\n")
        parts.append("| Wrong answer | Answer cell | Checks that it fails | Points lost |\n|---|---|---|---|")
        points = {f"{i.name}.{n}": c.points for i in tasks.items(assignment) for n, c in i.checks.items()}
        for entry in entries:
            failed = run_wrong(assignment, entry)
            if failed != set(entry["fails"]):
                raise GraderError(f"assignment {assignment}, {entry['name']!r}: fails {sorted(failed)}, meant {sorted(entry['fails'])}")
            shown = ", ".join(f"`{name}`" for name in sorted(failed))
            parts.append(f"| {entry['name']} | `{entry['answer']}` | {shown} | {sum(points[name] for name in failed):g} |")
        parts.append("")
    return ("# Wrong answers and what they fail\n\nWritten by `make assignments-matrix`; a test holds it. Each wrong answer replaces one "
            f"answer cell of the reference and fails the checks named here and no other: {total} wrong answers. Every answer cell also has "
            "at least two right answers written differently from the reference; these fail nothing.\n\n" + "\n".join(parts))


def command(check):
    made = table()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
            raise GraderError(f"{PAGE.name} is not what the catalogues give; `make assignments-matrix` writes it.")
        return 0
    PAGE.write_text(made, encoding="utf-8")
    print(PAGE)
    return 0
