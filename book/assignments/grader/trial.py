"""A trial run: a hundred submissions, hostile ones among them, graded in one run that is killed once and goes on."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from grader import judge, matrix, notebooks, tasks
from grader.errors import GraderError
from grader.hostile import HOSTILE
from grader.run import write_atomically
from grader.submissions import slug

__all__ = ["build", "command"]

HERE = Path(__file__).resolve().parents[1]
RESULT = HERE / "trial.json"
TEN = ("patches torch.allclose", "patches the worker's pipe", "reads the grader's files", "exits and pretends success",
       "loops for ever, deaf to alarms", "forks", "fills the memory at once", "opens a network connection", "writes outside its folder",
       "edits a test cell")


def build(folder, secret, count=100, assignment="2", hostile=TEN):
    """Write `count` submissions of one assignment and return {identifier: (kind, name or points)}: what is to come of each."""
    folder, expected = Path(folder), {}
    handed_out = judge.handed_out(assignment, secret)
    right = notebooks.reference(judge.rendered(assignment, secret))
    wrong = matrix.wrong_answers(assignment)
    points = {f"{i.name}.{n}": c.points for i in tasks.items(assignment) for n, c in i.checks.items()}
    by_name = {h.name: h for h in HOSTILE}
    target = tasks.items(assignment)[1].name
    for number in range(count):
        answers, made = dict(right), None
        if number % 10 == 7 and number // 10 < len(hostile):
            attempt = by_name[hostile[number // 10]]
            answers[target] = attempt.code + "\n" + answers[target]
            made = notebooks.answered(handed_out, answers)
            if attempt.change:
                attempt.change(made)
            kind = ("hostile", attempt.name)
        elif number % 3 == 0:
            kind = ("right", judge.total(assignment))
        else:
            entry = wrong[number % len(wrong)]
            answers[entry["answer"]] = matrix.numbers(entry["code"], assignment, secret)
            lost = matrix._grade(assignment, {entry["answer"]: entry["code"]}, secret).failed()
            kind = ("wrong", judge.total(assignment) - sum(points[name] for name in lost))
        identifier = f"student-{number:03d}"
        file = folder / identifier / "answers.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(nbformat.writes(made or notebooks.answered(handed_out, answers)), encoding="utf-8")
        expected[identifier] = kind
    return expected


def faults(out, expected):
    """Where grades or reasons are not what they should be."""
    with open(Path(out) / "grades.csv", encoding="utf-8", newline="") as file:
        rows = {row["identifier"]: row for row in csv.DictReader(file)}
    found = [f"{i} is not in grades.csv" for i in expected if i not in rows]
    by_name = {h.name: h for h in HOSTILE}
    for identifier, (kind, what) in expected.items():
        row = list(rows.get(identifier, {}).values())
        if not row:
            continue
        grade, said = row[3], (Path(out) / "feedback" / f"{slug(identifier)}.html").read_text(encoding="utf-8")
        if kind != "hostile":
            if grade != f"{what:g}":
                found.append(f"{identifier} ({kind}) has {grade}, should have {what:g}")
        elif by_name[what].zero == "all" and grade != "0" or not re.search(by_name[what].reason, said):
            found.append(f"{identifier} ({what}) has {grade}; its page says: {re.sub('<[^>]+>', ' ', said)[-400:]}")
    return found


def command(count, jobs, seed="the trial's own secret"):
    """Run the trial and write its result beside the guide."""
    from grader import sandbox
    from grader.secret import Secret
    sandbox.require()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        expected = build(folder / "in", Secret(seed.encode()), count)
        line = [sys.executable, "-m", "grader", "grade", str(folder / "in"), "--out", str(folder / "out"), "--jobs", str(jobs), "--seconds", "20",
                "--quiet"]
        environment = {**os.environ, "ASSIGNMENTS_SEED": seed, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
        began = time.monotonic()
        first = subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        while len(list((folder / "out" / "state").glob("*.json"))) < count // 3 and first.poll() is None:
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        kept = len(list((folder / "out" / "state").glob("*.json")))
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - began
        wrong = faults(folder / "out", expected)
        shutil.rmtree(folder / "in")
    if wrong or done.returncode:
        raise GraderError(f"the trial failed (exit status {done.returncode}): {'; '.join(wrong[:5])}\n{done.stdout}")
    kinds = [kind for kind, _ in expected.values()]
    result = {"submissions": count, "right": kinds.count("right"), "wrong": kinds.count("wrong"), "hostile": kinds.count("hostile"),
              "killed_after": kept, "lost": 0, "jobs": jobs, "cores": os.cpu_count(), "seconds": round(seconds),
              "command": f"make assignments-trial JOBS={jobs}"}
    write_atomically(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0
