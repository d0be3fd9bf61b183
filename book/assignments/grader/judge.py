"""Outside the sandbox: draws the cases, knows what is right, compares, gives points."""

import types
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache


import torch

from grader import notebooks, probes, tasks, wire
from grader.sandbox import Ended, Limits, Worker

__all__ = ["InProcess", "Result", "grade", "handed_out", "rendered"]


@dataclass
class Found:
    """What became of one check."""

    name: str
    points: float
    earned: float
    tried: str
    idea: str
    where: str
    reason: str = ""


@dataclass
class ItemResult:
    name: str
    number: str
    title: str
    points: float
    earned: float
    checks: list
    error: str = ""


@dataclass
class Result:
    """A graded submission of one assignment. `zero` is the reason for a zero of the whole, if there is one."""

    assignment: str
    points: float
    earned: float
    items: list
    zero: str = ""
    told: list = field(default_factory=list)

    def to_dict(self):
        return asdict(self)

    def failed(self):
        """The checks that did not pass, as ``item.check``."""
        return {f"{item['name']}.{check['name']}" for item in self.to_dict()["items"] for check in item["checks"]
                if check["earned"] < check["points"]}


# ------------------------------------------------------------------------------------------------ the course's versions

@lru_cache(maxsize=32)
def rendered(assignment, secret):
    """The source with this course's numbers."""
    return notebooks.render(notebooks.source(assignment), tasks.course(assignment, secret))


@lru_cache(maxsize=32)
def handed_out(assignment, secret):
    """The student version of this course."""
    return notebooks.student(rendered(assignment, secret), {"assignment": assignment, "course": secret.fingerprint})


class InProcess:
    """The same interface as a sandboxed :class:`Worker`, without a sandbox: for code of our own only."""

    def __init__(self, cells, limits=None):
        self.cells, self.space = cells, types.ModuleType("answers").__dict__

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def start(self):
        failed = {}
        for name, source, is_answer in self.cells:
            try:
                lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n"))
                exec(compile("\n".join(lines), f"<{name}>", "exec"), self.space)
            except Exception as error:
                failed[name] = [type(error).__name__, str(error), None]
        return failed

    def has(self, names):
        return all(name in self.space for name in names)

    def call(self, probe, arguments):
        arguments = wire.loads(wire.dumps(arguments), torch.from_numpy)
        state = torch.get_rng_state()
        try:
            torch.manual_seed(0)
            return wire.loads(wire.dumps({"ok": probes.ask(probe, self.space, arguments)}))
        except Exception as error:
            return {"error": [type(error).__name__, str(error), None]}
        finally:
            torch.set_rng_state(state)

    def end(self):
        return None


@lru_cache(maxsize=64)
def expected(assignment, secret, purpose):
    """For every item its cases and what the reference makes of them: [(case, outputs)]."""
    course = tasks.course(assignment, secret)
    source = rendered(assignment, secret)
    found = {}
    with InProcess(notebooks.code_cells(source, notebooks.reference(source))) as reference:
        failed = reference.start()
        if failed:
            raise RuntimeError(f"the source of assignment {assignment} does not run: {failed}")
        for item in tasks.items(assignment):
            found[item.name] = []
            for case in item.cases(secret.rng(assignment, item.name, purpose), course):
                if item.local:
                    found[item.name].append((case, None))
                    continue
                answer = reference.call(item.probe or item.name, case)
                if "error" in answer:
                    raise RuntimeError(f"{item.name}: the reference fails: {answer['error']}")
                found[item.name].append((case, answer["ok"]))
    return found


# --------------------------------------------------------------------------------------------------------------- grading

def _said(error):
    kind, text, line = error if isinstance(error, list) and len(error) == 3 else ("Error", str(error), None)
    at = ""
    if isinstance(line, list) and len(line) == 2:
        at = f" (answer cell “{line[0]}”, line {line[1]})"
    if kind in ("TooLong", "SystemExit", "KeyboardInterrupt", "MemoryError") or (kind == "OSError" and "disk space" in str(text)):
        return f"it {str(text)[:100]}{at}"
    return f"{str(kind)[:60]}: {str(text)[:240]}{at}"


def _item(item, pairs, outcomes, course):
    passed = dict.fromkeys(item.checks, None)
    reasons, error = {}, ""
    for (case, want), outcome in zip(pairs, outcomes):
        if "error" in outcome:
            error = error or _said(outcome["error"])
            verdicts = dict.fromkeys(item.checks, False)
        else:
            try:
                verdicts = item.check(case, outcome.get("ok"), want, course)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, FloatingPointError):
                verdicts = dict.fromkeys(item.checks, False)       # an answer of another form than asked for
                reasons.setdefault("", "what came back has not the form that the text asks for")
        for name, ok in verdicts.items():
            passed[name] = bool(ok) if passed[name] is None else passed[name] and bool(ok)
    checks = []
    for name, check in item.checks.items():
        ok = bool(passed[name]) if outcomes else False
        checks.append(Found(name, check.points, check.points if ok else 0.0, check.tried, check.idea, check.where,
                            "" if ok else error or reasons.get("", "")))
    return ItemResult(item.name, item.number, item.title, item.points, sum(c.earned for c in checks), checks, error)


def _nothing(assignment, why=""):
    made = []
    for item in tasks.items(assignment):
        checks = [Found(n, c.points, 0.0, c.tried, c.idea, c.where, why) for n, c in item.checks.items()]
        made.append(ItemResult(item.name, item.number, item.title, item.points, 0.0, checks, why))
    return made


def total(assignment):
    return sum(item.points for item in tasks.items(assignment))


def zero(assignment, reason, told=()):
    """The result of a submission that gets nothing, and why."""
    return Result(assignment, total(assignment), 0.0, _nothing(assignment), zero=reason, told=list(told))


def grade(assignment, submitted, secret, worker=Worker, limits=None, edited="zero", patient=True):
    """Grade one submission.

    Parameters
    ----------
    assignment : str
        Its number.
    submitted : notebooks.Submitted
        What was handed in.
    secret : Secret
        The course's.
    worker : callable, default Worker
        Where answers run: a sandbox; :class:`InProcess` for our own code in tests.
    limits : sandbox.Limits, optional
    edited : {"zero", "tell"}, default "zero"
        What an edited or deleted test cell costs: everything, or only a remark. Grading never runs it either way.
    patient : bool, default True
        Try a submission again, once and with twice the time, whose time by the clock ran out.

    Returns
    -------
    Result
    """
    told = list(submitted.told)
    for names, what in ((submitted.edited, "was changed"), (submitted.deleted, "is missing")):
        told += [f"The locked test cell “{name}” {what}." for name in names]
    if edited == "zero" and (submitted.edited or submitted.deleted):
        what = [f"the test cell “{n}” was changed" for n in submitted.edited] + [f"the test cell “{n}” is missing" for n in submitted.deleted]
        return zero(assignment, f"Test cells must stay as they were handed out: {'; '.join(what[:4])}. "
                                "Put your answers into a fresh copy of the assignment and hand that in.", told)
    course = tasks.course(assignment, secret)
    pairs = expected(assignment, secret, "hidden")
    results, ended = [], None
    try:
        with worker(notebooks.code_cells(rendered(assignment, secret), submitted.answers), limits) as running:
            failed = running.start()
            if str(next(iter(failed), "")).startswith("given"):
                raise RuntimeError(f"a given cell fails in the sandbox: {_said(next(iter(failed.values())))}")
            for item in tasks.items(assignment):
                outcomes = []
                if item.local:
                    outcomes = [item.outputs(submitted)]
                elif item.name not in submitted.answers:
                    outcomes = [{"error": ["Missing", "the answer cell is not there", None]}]
                elif item.name in failed and not running.has(item.defines):
                    outcomes = [{"error": failed[item.name]}]
                else:
                    for case, _ in pairs[item.name]:
                        outcome = running.call(item.probe or item.name, case)
                        outcomes.append(outcome)
                        if "error" in outcome and outcome["error"][0] == "TooLong":
                            break                    # the next case would cost the same time again
                results.append(_item(item, pairs[item.name], outcomes, course))
                if item.name in failed:
                    told.append(f"The answer cell “{item.name}” stopped with an error: {_said(failed[item.name])}.")
            running.end()
    except Ended as error:
        ended = error
    if ended is not None and ended.slow and patient:
        limits = limits or Limits()
        return grade(assignment, submitted, secret, worker, replace(limits, wall=2 * limits.wall), edited, patient=False)
    if ended is not None:
        if not ended.caught:
            raise RuntimeError(str(ended))
        return zero(assignment, f"The submission {ended}. Answers may compute and nothing else, so none of it was graded.", told)
    for result in results:
        told += _elsewhere(result.error, submitted.elsewhere)
    return Result(assignment, total(assignment), sum(r.earned for r in results), results, told=list(dict.fromkeys(told)))


def _elsewhere(error, names):
    for name, line in names.items():
        if error.startswith("NameError") and f"'{name}'" in error:
            return [f"Your answer uses “{name}”, which you define in a cell of your own (“{line}”). Only answer cells are graded: "
                    "move the definition into one."]
    return []


def in_process(assignment, name, space, secret=None, purpose="hidden"):
    """Check one item against names that are defined already: what a hidden test in a source notebook calls. No sandbox."""
    from grader.secret import PUBLIC
    secret = secret or PUBLIC
    item = next(i for i in tasks.items(assignment) if i.name == name)
    runner = InProcess([])
    runner.space = space
    pairs = expected(assignment, secret, purpose)[name]
    outcomes = [runner.call(item.probe or name, case) for case, _ in pairs]
    result = _item(item, pairs, outcomes, tasks.course(assignment, secret))
    lost = [f"{c.name}: {c.idea} {c.reason}" for c in result.checks if c.earned < c.points]
    assert not lost, "; ".join(lost)


