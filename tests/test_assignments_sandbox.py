"""Strangers' code: what a submission may try in the sandbox, and what becomes of the others."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "book" / "assignments"
sys.path.insert(0, str(HERE))

pytest.importorskip("nbgrader")
from grader import feedback, judge, matrix, notebooks, run, sandbox, tasks, trial  # noqa: E402
from grader.errors import NoSandbox  # noqa: E402
from grader.hostile import HOSTILE  # noqa: E402
from grader.secret import Secret  # noqa: E402

A = Secret(b"one course, one secret")
QUICK = sandbox.Limits(cpu=25, cell=2, call=2)


@pytest.fixture(scope="module", autouse=True)
def contained():
    """These tests run hostile code: only where a sandbox holds. REQUIRE_SANDBOX turns its absence into a failure."""
    try:
        sandbox.require()
    except NoSandbox as error:
        if os.environ.get("REQUIRE_SANDBOX"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def reference(assignment):
    return notebooks.reference(judge.rendered(assignment, A))


def graded(assignment, answers, limits=QUICK, records=""):
    return judge.grade(assignment, notebooks.Submitted(answers=answers, records=records), A, limits=limits)


@pytest.mark.parametrize("assignment", list(tasks.ASSIGNMENTS))
def test_reference_has_full_marks_in_the_sandbox(assignment):
    result = graded(assignment, reference(assignment), sandbox.Limits(), matrix._records(assignment, A, ""))
    assert (result.zero, result.failed(), result.earned) == ("", set(), judge.total(assignment))


def test_sandbox_and_process_give_the_same_verdicts():
    """The catalogues run in this process; a sample of them in the sandbox fails the same."""
    for assignment, number in (("1", 12), ("2", 8), ("3", 14), ("4", 10), ("5", 12)):
        entry = matrix.wrong_answers(assignment)[number]
        answers = {**reference(assignment), entry["answer"]: matrix.numbers(entry["code"], assignment, A)}
        inside = graded(assignment, answers, records=matrix._records(assignment, A, "")).failed()
        outside = judge.grade(assignment, notebooks.Submitted(answers=answers, records=matrix._records(assignment, A, "")), A,
                              worker=judge.InProcess).failed()
        assert inside == outside != set(), entry["name"]


@pytest.mark.parametrize("attempt", HOSTILE, ids=lambda h: h.name)
def test_hostile_submission_gets_its_zero_with_the_reason(attempt):
    deaf = "deaf" in attempt.name
    answers = {**reference("2"), "rows": attempt.code + "\n" + reference("2")["rows"]}
    notebook = notebooks.answered(judge.handed_out("2", A), answers)
    if attempt.change:
        attempt.change(notebook)
    limits = sandbox.Limits(cpu=10, wall=4 if "waits" in attempt.name else 60, cell=2, call=2) if deaf else QUICK
    result = judge.grade("2", notebooks.read_submission(notebook, judge.handed_out("2", A)), A, limits=limits)
    page = feedback.page("x", [("2", {**result.to_dict(), "manual": []})])
    assert re.search(attempt.reason, page), re.sub("<[^>]+>", " ", page)[-600:]
    if attempt.zero == "all":
        assert result.earned == 0 and result.zero
    else:
        assert {name.split(".")[0] for name in result.failed()} == {"rows"}


def test_nothing_of_a_hostile_submission_is_left_behind():
    mark = f"left-{os.getpid()}"
    code = ("import os, sys\nimport _posixsubprocess as p\nr, w = os.pipe()\n"
            f"p.fork_exec([sys.executable, '-c', 'import time; time.sleep(30)', '{mark}'], [sys.executable.encode()], True, (w,), None, None, "
            "-1, -1, -1, -1, -1, -1, r, w, False, False, -1, None, None, None, -1, None, False)\nwhile True: pass")
    before = {p for p in Path("/tmp").iterdir()}
    assert graded("2", {**reference("2"), "rows": code}).earned == 0
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert mark not in running and not list(Path("/sys/fs/cgroup").glob(f"*/grading-{os.getpid()}-*"))
    assert {p for p in Path("/tmp").iterdir() if "grading" in p.name} <= before


def test_hidden_tests_the_seed_and_other_files_are_not_in_the_sandbox(monkeypatch):
    """Seen from the inside: what there is to read holds neither the secret nor an expected value."""
    monkeypatch.setenv("ASSIGNMENTS_SEED", A.value.decode())
    code = """
import sys
f = sys._getframe()
while f.f_back:
    f = f.f_back
main, seen = f.f_globals, []
def rows(W, b):
    import os as o
    names = sorted(set(sys.modules) & {"grader", "tasks", "grader.tasks", "grader.secret", "judge"})
    return [names, dict(o.environ).get("ASSIGNMENTS_SEED", "none"), sorted(o.environ)]
"""
    with sandbox.Worker(notebooks.code_cells(judge.rendered("2", A), {**reference("2"), "rows": code}), QUICK) as worker:
        assert worker.start() == {}
        case = judge.expected("2", A, "hidden")["rows"][0][0]
        names, seed, environment = worker.call("rows", case)["ok"]["rows"]
        worker.end()
    assert names == [] and seed == "none" and not any("SEED" in name for name in environment)
    command = " ".join(sandbox._command(QUICK))
    for hidden in ("grader/tasks", "judge.py", "secret.py", "source", str(ROOT) + " ", "/home", "/etc/passwd"):
        assert hidden not in command


def test_inputs_alone_do_not_give_points():
    """A submission that answers with what it was asked, or echoes the visible example, passes next to nothing."""
    echo = "def rows(W, b):\n    return W\n\n\ndef gate(a):\n    return a\n\n\ndef cost(s1, s2):\n    return (s1.sum() + s2.sum()) * 0 + 1\n"
    result = graded("2", {"rows": echo, "gate": echo, "cost": echo})
    assert result.earned <= 2


def test_a_busy_machine_costs_nobody_points():
    """Slow by the clock, not by the processor: the answer waits longer than the clock allows, once, and is tried again with more time."""
    code = reference("2")["rows"] + "\nimport time\nfor _ in range(8):\n    time.sleep(0.5)\n"
    result = graded("2", {**reference("2"), "rows": code}, sandbox.Limits(wall=3, cell=9, call=9))
    assert result.earned == result.points and not result.zero
    with pytest.raises(RuntimeError, match="did not start in time"):       # a fault of the machine is none of the student's
        graded("2", reference("2"), sandbox.Limits(start=0.2))


def test_the_start_of_the_worker_is_not_the_submissions():
    """Importing torch takes a processor some seconds, ten and more where it finds no bytecode: no answer pays for that."""
    result = graded("2", reference("2"), sandbox.Limits(cpu=1))
    assert result.earned == result.points and not result.zero


def test_no_sandbox_no_grading(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_checked", {})
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(NoSandbox, match="bubblewrap is not installed"):
        run.grade_folder(tmp_path, tmp_path / "out", A)
    monkeypatch.setattr(sandbox, "_checked", {})
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(NoSandbox, match="needs Linux"):
        sandbox.require()


def test_a_sandbox_with_a_hole_is_refused(monkeypatch):
    """The trial before the first submission notices: an open network, files that can be seen, processes without bound."""
    command, make = sandbox._command, sandbox.Group.make
    at = command(sandbox.Limits()).index("--proc")
    namespaces = ["--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    for hole, says in ((lambda line: [*line[:at], "--ro-bind", "/home", "/home", *line[at:]], "files of this machine"),
                       (lambda line: [a for word in line for a in (namespaces if word == "--unshare-all" else [word])], "network is open")):
        monkeypatch.setattr(sandbox, "_command", lambda limits: hole(command(limits)))
        assert says in sandbox._problem()
    monkeypatch.setattr(sandbox, "_command", command)
    if os.getuid() == 0:            # root's processes are bounded by the control group alone
        monkeypatch.setattr(sandbox.Group, "make", classmethod(lambda cls, *a: None))
        assert "number of processes" in sandbox._problem()
    monkeypatch.setattr(sandbox.Group, "make", make)
    assert sandbox._problem() is None


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_loses_nobody(tmp_path):
    """A dozen submissions, one of them hostile, graded by the command; killed once in between."""
    expected = trial.build(tmp_path / "in", A, count=12, hostile=("forks", "exits at once"))
    line = [sys.executable, "-m", "grader", "grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--jobs", "2", "--seconds", "20", "--quiet"]
    environment = {**os.environ, "ASSIGNMENTS_SEED": A.value.decode(), "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}
    first = subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    state = tmp_path / "out" / "state"
    deadline = time.monotonic() + 120
    while len(list(state.glob("*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = len(list(state.glob("*.json")))
    assert 4 <= kept < 12 and not (tmp_path / "out" / "grades.csv").exists()
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{12 - kept} notebooks graded now, {kept} earlier" in done.stdout
    assert trial.faults(tmp_path / "out", expected) == []
    with open(tmp_path / "out" / "grades.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
