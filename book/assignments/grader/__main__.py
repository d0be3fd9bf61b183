"""The commands behind `make assignments` and `make grade`."""

import argparse
import os
import sys
from pathlib import Path

from grader import matrix, secret
from grader.errors import GraderError

ROOT = Path(__file__).resolve().parents[3]


def parser():
    top = argparse.ArgumentParser(prog="grader", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    seed = commands.add_parser("seed", help="write a new course secret outside the repository")
    seed.add_argument("--seed-file", help=f"where; default $ASSIGNMENTS_SEED_FILE or {secret.DEFAULT_FILE}")
    make = commands.add_parser("make", help="write the student versions, a folder and a zip")
    make.add_argument("--seed-file")
    make.add_argument("--out", default=str(ROOT / "_build" / "assignments"))
    make.add_argument("--only", nargs="*", choices=list("12345"), help="assignments; default all")
    grade = commands.add_parser("grade", help="grade a folder of submissions")
    grade.add_argument("submissions")
    grade.add_argument("--seed-file")
    grade.add_argument("--out", help="default: _build/graded/<name of the folder>")
    grade.add_argument("--jobs", type=int, default=max(1, os.cpu_count() or 1))
    grade.add_argument("--seconds", type=int, default=60, help="seconds of processor time for one notebook (default 60)")
    grade.add_argument("--edited", choices=("zero", "tell"), default="zero",
                       help="what an edited or deleted test cell costs: all points, or only a remark")
    grade.add_argument("--rubric", help="CSV with marks by hand for assignment 5")
    grade.add_argument("--roster", help="CSV: identifier, name, email, canvas_id, sis_user_id, sis_login_id, section")
    grade.add_argument("--book", help="address of the published book, for links from the feedback")
    grade.add_argument("--quiet", action="store_true", help="no progress bar")
    table = commands.add_parser("matrix", help="run the catalogues of wrong and right answers and write the guide's tables")
    table.add_argument("--check", action="store_true", help="only compare with what is written")
    trial = commands.add_parser("trial", help="grade a hundred made-up submissions, ten of them hostile, with a kill in between")
    trial.add_argument("--count", type=int, default=100)
    trial.add_argument("--jobs", type=int, default=max(1, os.cpu_count() or 1))
    return top


def main(arguments=None):
    told = parser().parse_args(arguments)
    try:
        return COMMANDS[told.command](told)
    except GraderError as error:
        print(f"{told.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What was graded is kept; the same command goes on from here.", file=sys.stderr)
        return 130


def _seed(told):
    path = secret.create(told.seed_file)
    print(f"The course's secret is in {path}. Keep a copy where you keep exams: without it the course cannot be graded.")
    return 0


def _make(told):
    from grader import handout
    found = secret.find(told.seed_file)
    for path in handout.make(told.out, found, told.only):
        print(path)
    print(f"Student versions for the course {found.fingerprint} are in {told.out}.")
    return 0


def _grade(told):
    from grader import run, sandbox
    out = Path(told.out) if told.out else ROOT / "_build" / "graded" / Path(told.submissions).resolve().name
    if told.seconds < 20:
        raise GraderError(f"--seconds {told.seconds} must be at least 20: starting takes some of them.")
    limits = sandbox.Limits(cpu=told.seconds, wall=max(90.0, 2.0 * told.seconds))
    done = run.grade_folder(told.submissions, out, secret.find(told.seed_file), told.jobs, limits, told.edited, told.rubric, told.roster,
                            told.book, not told.quiet)
    print(f"{done['submissions']} submissions: {done['graded']} notebooks graded now, {done['resumed']} earlier; "
          f"{done['zeros']} zeros with a reason.")
    print(f"Grades: {out / 'grades.csv'} (Moodle), {out / 'grades-canvas.csv'} (Canvas). Feedback: {out / 'feedback'}")
    if done["problems"]:
        print(f"{done['problems']} could not be graded as handed in; see {out / 'problems.csv'}:")
        for name, reason in done["refused"]:
            print(f"  {name}: {reason}")
    for (identifier, assignment), why in done["fault_reasons"].items():
        print(f"  A fault of the grader, not of {ascii(identifier)[1:-1]} (assignment {assignment}): {why}. Run the command again.")
    return 1 if done["problems"] or done["faults"] else 0


def _matrix(told):
    return matrix.command(told.check)


def _trial(told):
    from grader import trial
    return trial.command(told.count, told.jobs)


COMMANDS = {"trial": _trial, "seed": _seed, "make": _make, "grade": _grade, "matrix": _matrix}

if __name__ == "__main__":
    sys.exit(main())
