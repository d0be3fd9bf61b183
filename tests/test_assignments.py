"""The graded assignments: what students get, what is right and wrong, and what becomes of it. Answers of our own run without a sandbox;
test_assignments_sandbox.py runs strangers'."""

import csv
import io
import json
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "book" / "assignments"
sys.path.insert(0, str(HERE))

pytest.importorskip("nbgrader")
from grader import feedback, handout, judge, matrix, notebooks, run, secret, submissions, tasks, wire  # noqa: E402
from grader.__main__ import main  # noqa: E402
from grader.errors import GraderError  # noqa: E402
from grader.secret import PUBLIC, Secret  # noqa: E402

A, B = Secret(b"one course, one secret"), Secret(b"next year's, another one")
ALL = list(tasks.ASSIGNMENTS)
ENTRIES = [(a, entry) for a in ALL for entry in matrix.wrong_answers(a)]


def reference(assignment, which):
    return notebooks.reference(judge.rendered(assignment, which))


def graded(assignment, answers, which, records=None):
    records = matrix._records(assignment, which, "") if records is None else records
    return judge.grade(assignment, notebooks.Submitted(answers=answers, records=records), which, worker=judge.InProcess)


# --------------------------------------------------------------------------------------------------- sources and student versions

@pytest.mark.parametrize("assignment", ALL)
class TestSource:
    def test_is_well_formed(self, assignment):
        assert notebooks.check_sources(notebooks.source(assignment)) == []

    def test_holds_no_outputs(self, assignment):
        assert [c.id for c in notebooks.source(assignment).cells if c.get("outputs") or c.get("execution_count")] == []

    def test_points_of_test_cells_are_those_of_the_items(self, assignment):
        cells = {notebooks.grade_id(c): c for c in notebooks.source(assignment).cells if notebooks.is_test(c)}
        assert {name: cell.metadata.nbgrader.points for name, cell in cells.items()} == {
            f"test-{item.name}": item.points for item in tasks.items(assignment)}
        for item in tasks.items(assignment):
            assert f"{item.number} {item.name} ({item.points:g} points)" in cells[f"test-{item.name}"].source

    def test_answer_cells_define_what_items_need(self, assignment):
        answers = reference(assignment, PUBLIC)
        for item in tasks.items(assignment):
            for name in item.defines:
                assert re.search(rf"\b{name}\b", answers[item.name]), (item.name, name)

    def test_says_what_a_student_must_know(self, assignment):
        text = "\n".join(c.source for c in notebooks.source(assignment).cells)
        for words in ("You will be able to", "You need", "**Time:**", "**Points:**", "What is graded", "**Running:**"):
            assert words in text, words
        assert f"**Points:** {judge.total(assignment) + sum(p for p, _ in getattr(tasks.ASSIGNMENTS[assignment], 'RUBRIC', {}).values()):g}" in text
        for item in tasks.items(assignment):
            assert f"## {item.number} {item.title} ({item.points:g} points)" in text, item.title

    def test_student_version_leaks_nothing(self, assignment):
        made = judge.handed_out(assignment, A)
        assert handout.leaks(assignment, made, A) == []
        text = nbformat.writes(made)
        assert A.value.decode() not in text
        # what is asked for by hand stands nowhere: the numbers are long enough not to be there by accident
        course = tasks.course(assignment, A)
        for name in {"2": ("standardised", "size"), "3": ("held_loss", "flow_loss", "round_loss"), "4": ("share_leaky",)}.get(assignment, ()):
            assert str(course[name]) not in text, name

    def test_source_and_student_version_run(self, assignment, monkeypatch):
        """The source with its visible and its hidden tests; the student version up to its first unanswered test."""
        monkeypatch.setenv("SWITCHER_OFFLINE", "1")
        space = {}
        source = notebooks.source(assignment)
        for cell in source.cells:
            if cell.cell_type == "code" and "source-only" not in cell.metadata.get("tags", []):
                text = re.sub(r"^try:.*?^    import switcher_lib as sl\n(?=import)", "import switcher_lib as sl\n", cell.source, count=1,
                              flags=re.DOTALL | re.MULTILINE)
                exec(compile(text, f"{assignment}:{notebooks.grade_id(cell)}", "exec"), space)
            elif cell.cell_type == "code":
                space.update(judge=judge, course=notebooks.authoring(assignment))

    def test_student_version_has_nbgraders_marks(self, assignment):
        from nbgrader.nbgraderformat import MetadataValidator
        made = judge.handed_out(assignment, A)
        MetadataValidator().validate_nb(made)
        for cell in made.cells:
            if notebooks.is_test(cell):
                assert cell.metadata.nbgrader.locked and not cell.metadata.editable


def test_planted_leaks_are_found():
    made = judge.handed_out("1", A)
    for plant in (lambda n: n.cells[3].update(source="### BEGIN SOLUTION\nx\n### END SOLUTION"),
                  lambda n: n.cells[1].update(outputs=[nbformat.v4.new_output("stream", text="42")]),
                  lambda n: n.cells[3].metadata.update(tags=["a"]),
                  lambda n: n.metadata.update(author="x"),
                  lambda n: n.cells[0].update(source=A.value.decode()),
                  lambda n: n.cells[0].update(source="    return K[keep], b[keep], columns[:, keep].reshape(len(W), -1)")):
        planted = nbformat.from_dict(json.loads(nbformat.writes(made)))
        assert handout.leaks("1", planted, A) == []
        plant(planted)
        assert handout.leaks("1", planted, A)


def test_bench_of_the_notebook_is_the_graders():
    import inspect

    from grader.probes import Bench
    cell = next(c for c in notebooks.source("5").cells if notebooks.grade_id(c) == "bench")
    assert cell.source.strip() == inspect.getsource(Bench).strip()


def test_make_writes_folder_and_zip_twice_the_same(tmp_path):
    zips = handout.make(tmp_path / "one", A, ["1", "2"])
    again = handout.make(tmp_path / "two", A, ["1", "2"])
    assert [z.name for z in zips] == ["1-scale-fold-remove.zip", "2-switcher-and-gate.zip", "assignments.zip"]
    assert [z.read_bytes() for z in zips] == [z.read_bytes() for z in again]
    with zipfile.ZipFile(zips[-1]) as archive:
        assert sum(name.endswith(".ipynb") for name in archive.namelist()) == 2
        notebook = nbformat.reads(archive.read("assignments/1-scale-fold-remove/1-scale-fold-remove.ipynb").decode(), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.reading_the_weights == {"assignment": "1", "course": A.fingerprint}


# -------------------------------------------------------------------------------------------------------- the catalogues

def test_catalogue_is_large_enough():
    assert len(ENTRIES) >= 60
    for assignment in ALL:
        answers = {i.name for i in tasks.items(assignment) if i.defines}
        assert answers <= {entry["answer"] for a, entry in ENTRIES if a == assignment}
        right = [entry["answer"] for entry in matrix.right_answers(assignment)]
        assert all(right.count(name) >= 2 for name in answers), assignment
        names = [(entry["answer"], entry["name"]) for a, entry in ENTRIES if a == assignment]
        assert len(names) == len(set(names))


def test_every_check_is_failed_by_some_wrong_answer():
    every = {f"{item.name}.{name}" for a in ALL for item in tasks.items(a) for name in item.checks}
    assert every - {name for _, entry in ENTRIES for name in entry["fails"]} == set()


@pytest.mark.parametrize("assignment, entry", ENTRIES, ids=[f"{a}-{e['answer']}-{e['name']}" for a, e in ENTRIES])
def test_wrong_answer_fails_what_it_is_meant_to_fail(assignment, entry):
    assert matrix.run_wrong(assignment, entry) == set(entry["fails"])


@pytest.mark.parametrize("assignment", ALL)
@pytest.mark.parametrize("way", [0, 1])
def test_right_answers_written_differently_have_full_marks(assignment, way):
    assert matrix.run_right(assignment, matrix.right_sets(assignment)[way]) == set()


@pytest.mark.parametrize("assignment", ALL)
def test_reference_and_right_answers_have_full_marks_in_any_course(assignment):
    for number in range(6):
        which = Secret(f"course number {number}".encode())
        result = graded(assignment, reference(assignment, which), which)
        assert (result.failed(), result.earned) == (set(), judge.total(assignment))
        other = {name: matrix.numbers(code, assignment, which) for name, code in matrix.right_sets(assignment)[number % 2].items()}
        assert graded(assignment, {**reference(assignment, which), **other}, which).failed() == set()


def test_matrix_of_the_guide_is_what_the_catalogues_give():
    assert main(["matrix", "--check"]) == 0


def test_matrix_command_notices_a_wrong_answer_that_passes(monkeypatch):
    entry = {"name": "planted", "answer": "rows", "fails": ["rows.std"], "code": reference("2", matrix.test_secret())["rows"]}
    monkeypatch.setattr(matrix, "wrong_answers", lambda assignment: [entry] if assignment == "2" else [])
    with pytest.raises(GraderError, match="planted"):
        matrix.table()


# ------------------------------------------------------------------------------------ another year's answers, and the secret

NUMBERS = {"1": ["by_hand", "proof"], "2": ["numbers", "gate"], "3": ["scalar"], "4": ["one_weight", "step"]}


@pytest.mark.parametrize("assignment", NUMBERS)
def test_reference_of_one_course_fails_in_another(assignment):
    """Wherever an answer is a number, or has one of the course's in it, last year's and the public one are wrong."""
    for other in (A, PUBLIC):
        failed = {name.split(".")[0] for name in graded(assignment, reference(assignment, other), B).failed()}
        assert set(NUMBERS[assignment]) <= failed


def test_records_of_one_course_fail_in_another():
    assert "records.planned" in graded("5", reference("5", B), B, records=matrix._records("5", A, "")).failed()


@pytest.mark.parametrize("assignment", ALL)
def test_hidden_cases_differ_between_courses_and_from_the_visible(assignment):
    for item in tasks.items(assignment):
        cases = [wire.dumps([case for case, _ in judge.expected(assignment, which, purpose)[item.name]])
                 for which in (A, B) for purpose in ("hidden", "visible")]
        if item.name not in {"by_hand", "proof", "numbers", "scalar", "one_weight", "dataset", "records"}:     # these have no arguments
            assert len(set(cases)) == 4, item.name


def test_public_solution_does_not_run_in_a_course():
    """Copied from the repository as it stands, an answer with the course's numbers in it is no Python of the student's notebook."""
    source = notebooks.reference(notebooks.source("2"))
    result = graded("2", {**reference("2", A), "gate": source["gate"]}, A)
    assert {name.split(".")[0] for name in result.failed()} == {"gate"}


def test_draws_of_one_scope_say_nothing_about_another():
    assert A.digest("1", "hidden") != A.digest("1", "visible") != B.digest("1", "visible")
    assert A.rng("x").integers(1 << 60) == A.rng("x").integers(1 << 60) != A.rng("y").integers(1 << 60)
    assert "secret" not in repr(A) and "course" not in repr(A)


def test_secret_is_kept_to_oneself(tmp_path, monkeypatch):
    monkeypatch.delenv("ASSIGNMENTS_SEED", raising=False)
    path = secret.create(tmp_path / "seed")
    assert path.stat().st_mode & 0o777 == 0o600 and secret.find(path).fingerprint == secret.find(path).fingerprint
    with pytest.raises(GraderError, match="there already"):
        secret.create(path)
    path.chmod(0o644)
    with pytest.raises(GraderError, match="chmod 600"):
        secret.find(path)
    with pytest.raises(GraderError, match="git work tree"):
        secret.create(ROOT / "seed")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".git").mkdir()
    with pytest.raises(GraderError, match="git work tree"):
        secret.create(tmp_path / "work" / "deep" / "seed")
    with pytest.raises(GraderError, match="No course secret"):
        secret.find(tmp_path / "none")
    short = tmp_path / "short"
    short.write_text("abc")
    short.chmod(0o600)
    with pytest.raises(GraderError, match="at least 16"):
        secret.find(short)
    monkeypatch.setenv("ASSIGNMENTS_SEED", "from the environment, long enough")
    assert secret.find().value == b"from the environment, long enough"


def test_commands_without_a_secret_say_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("ASSIGNMENTS_SEED", raising=False)
    monkeypatch.setenv("ASSIGNMENTS_SEED_FILE", str(tmp_path / "none"))
    assert main(["make", "--out", str(tmp_path / "out")]) == 2
    assert "make assignments-seed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- what is handed in

def answered(assignment="2", which=A, **changes):
    return notebooks.answered(judge.handed_out(assignment, which), {**reference(assignment, which), **changes})


def read(notebook, assignment="2", which=A):
    return notebooks.read_submission(notebooks.read_bytes(nbformat.writes(notebook).encode()), judge.handed_out(assignment, which))


def test_test_cells_of_the_submission_are_never_run():
    """They come from our source: a changed one is told, and only that."""
    notebook = answered()
    for cell in notebook.cells:
        if notebooks.is_test(cell):
            cell.source = "raise SystemExit"
    found = read(notebook)
    assert len(found.edited) == len(tasks.items("2"))
    result = judge.grade("2", found, A, worker=judge.InProcess, edited="tell")
    assert result.earned == result.points and "was changed" in " ".join(result.told)
    zero = judge.grade("2", found, A, worker=judge.InProcess)
    assert zero.earned == 0 and "test-gate" in zero.zero


def test_comments_and_layout_of_a_test_cell_are_no_edit():
    notebook = answered()
    for cell in notebook.cells:
        if notebooks.is_test(cell):
            cell.source = cell.source.replace("assert ", "assert  ") + "\n# I checked this"
    assert read(notebook).edited == []


def test_copied_deleted_and_unmarked_cells():
    notebook = answered()
    first = next(c for c in notebook.cells if notebooks.is_answer(c))
    twin = nbformat.from_dict(json.loads(json.dumps(first)))
    twin.source += "\nsize = 0"
    notebook.cells.append(twin)
    notebook.cells = [c for c in notebook.cells if notebooks.grade_id(c) not in ("gate", "test-rows")]
    found = read(notebook)
    assert "gate" not in found.answers and found.deleted == ["test-rows"]
    assert "2 times" in " ".join(found.told) and found.answers["numbers"] == first.source
    # a tool that drops metadata: the first line says which cell it is
    bare = answered()
    for cell in bare.cells:
        cell.metadata = nbformat.from_dict({})
    found = read(bare)
    assert set(found.answers) == {i.name for i in tasks.items("2")} and not found.edited and not found.deleted


def test_answer_that_needs_a_cell_of_ones_own_is_told_so():
    notebook = answered(rows="# ANSWER 2.2 rows\ndef rows(W, b):\n    return helper(W, b)")
    notebook.cells.append(nbformat.v4.new_code_cell("def helper(W, b):\n    return W"))
    result = judge.grade("2", read(notebook), A, worker=judge.InProcess)
    assert {n.split(".")[0] for n in result.failed()} == {"rows"}
    assert "helper" in " ".join(result.told) and "Only answer cells" in " ".join(result.told)


def test_an_error_costs_its_own_item_only():
    for broken in ("def rows(W, b:\n    pass", "1 / 0", "def rows(W, b):\n    raise ValueError('no')", "rows = 3", "def rows():\n    pass",
                   "def rows(W, b):\n    return 'text'", "def rows(W, b):\n    return None", "def rows(W, b):\n    return {1: [object()]}"):
        result = judge.grade("2", read(answered(rows=broken)), A, worker=judge.InProcess)
        assert {n.split(".")[0] for n in result.failed()} == {"rows"}, broken
        assert result.earned == 17


def test_a_stop_after_the_definition_costs_nothing():
    result = judge.grade("2", read(answered(rows=reference("2", A)["rows"] + "\nplot()")), A, worker=judge.InProcess)
    assert result.earned == result.points and "stopped with an error" in " ".join(result.told)


def test_a_changed_library_is_graded_again(tmp_path, monkeypatch):
    """Results of a half-graded folder are kept only while the library, which answers may use, is the same."""
    library = tmp_path / "__init__.py"
    monkeypatch.setattr(run, "find_spec", lambda name: SimpleNamespace(origin=str(library)))
    versions = []
    for text in ("a = 1", "a = 2", "a = 1"):
        library.write_text(text)
        versions.append(run._version())
    assert versions[0] == versions[2] != versions[1]


def test_empty_student_version_has_no_points_and_no_fault():
    for assignment in ALL:
        found = notebooks.read_submission(judge.handed_out(assignment, A), judge.handed_out(assignment, A))
        result = judge.grade(assignment, found, A, worker=judge.InProcess)
        assert result.earned <= 0.05 * result.points and not result.zero, assignment


@pytest.mark.parametrize("raw, says", [
    (b"", "no Jupyter notebook"), (b"{}", "no Jupyter notebook"), (b"\xff\xfe", "no Jupyter notebook"), (b"[" * 100_000, "no"),
    (b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no Jupyter notebook"),
    (b" " * (notebooks.LARGEST + 1), "MB"),
])
def test_what_is_no_notebook_is_told_so(raw, says):
    with pytest.raises(notebooks.Unreadable, match=says):
        notebooks.read_bytes(raw)


def test_the_assignment_is_found_by_its_cells():
    names = {a: [notebooks.grade_id(c) for c in judge.handed_out(a, A).cells if notebooks.is_answer(c) or notebooks.is_test(c)] for a in ALL}
    assert [notebooks.which(judge.handed_out(a, B), names) for a in ALL] == ALL
    assert notebooks.which(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), names) is None
    every = [item.name for a in ALL for item in tasks.items(a)]
    assert len(every) == len(set(every))


# --------------------------------------------------------------------------------------------------------- whose it is

@pytest.mark.parametrize("name, identifier", [
    ("anna", "anna"), ("anna.meier@example.org", "anna.meier@example.org"), ("Jürgen Groß", "Jürgen Groß"), ("李明", "李明"),
    ("Anna Meier_12345_assignsubmission_file_", "Participant 12345"), ("Anna Meier_12345_assignsubmission_file", "Participant 12345"),
    ("meieranna_6789_13579_2-switcher", "6789"), ("meieranna_LATE_6789_13579_2-switcher-1", "6789"),
])
def test_names_of_moodle_canvas_and_plain_folders(name, identifier):
    assert submissions.identify(name)[0] == identifier


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-x", "@SUM(1)", "..", "../x", "a/../b", "a\nb", "a\tb", "a\0b", "x" * 200, "", " a",
                                  "a.", "a<script>", "a;b", "a\"b", "\u202eabc", "a..b", "%0a", "|x"])
def test_nonsense_names_are_refused(name):
    with pytest.raises(ValueError, match="name begins"):
        submissions.identify(name)


def test_formulas_do_not_reach_a_spreadsheet():
    for text in ("=1+1", "+1", "-1", "@x", "\t=1", " =1", "|x", "%x"):
        assert run.safe_cell(text).startswith("'")
    assert run.safe_cell("Anna") == "Anna" and "\n" not in run.safe_cell("a\nb") and run.safe_cell(3) == 3


def test_a_folder_of_everything(tmp_path):
    raw = nbformat.writes(answered()).encode()
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "x.ipynb").write_bytes(raw)
    (tmp_path / "anna" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "anna" / ".ipynb_checkpoints" / "x.ipynb").write_bytes(b"old")
    (tmp_path / "ben.ipynb").write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "carla.zip", "w") as archive:
        archive.writestr("../../../evil.ipynb", raw)
        archive.writestr("__MACOSX/._x.ipynb", b"mac")
    (tmp_path / "dora").mkdir()
    (tmp_path / "Anna.ipynb").write_bytes(raw)           # the same student, again
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "=1+1.ipynb").write_bytes(raw)
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "emil.zip").write_bytes(b"no zip")
    (tmp_path / "fritz").mkdir()
    (tmp_path / "fritz" / "x.ipynb").symlink_to(tmp_path / "ben.ipynb")
    (tmp_path / "gina_55_1_a.ipynb").write_bytes(raw)
    (tmp_path / "gina_55_2_b.ipynb").write_bytes(b"two")
    found, refused = submissions.collect(tmp_path)
    by_name = {s.identifier: s for s in found}
    assert set(by_name) == {"Anna", "ben", "carla", "dora", "emil", "fritz", "55"}
    assert [len(by_name[n].notebooks) for n in ("ben", "carla", "dora", "55")] == [1, 1, 0, 2]
    assert "one student: Anna.ipynb, anna" in by_name["Anna"].problems[0] and not by_name["Anna"].notebooks
    assert "no notebook" in by_name["dora"].problems[0] and "cannot be read" in by_name["emil"].problems[0] and by_name["fritz"].problems
    assert {name for name, _ in refused} == {"=1+1.ipynb", "link", "notes.txt"}
    assert not list(tmp_path.parent.rglob("evil.ipynb"))
    assert submissions.slug("anna") == "anna" and submissions.slug("a b") != submissions.slug("a-b") != submissions.slug("a_b")
    with pytest.raises(GraderError, match="not a folder"):
        submissions.collect(tmp_path / "none")


def test_rubric_and_roster_are_checked(tmp_path):
    file = tmp_path / "rubric.csv"
    file.write_text("identifier,question,controls,reading,limits,remark-reading\nanna,3,2.5,,1,well put\n", encoding="utf-8")
    assert run.read_rubric(file, {"anna"}) == {"anna": {"question": (3.0, ""), "controls": (2.5, ""), "limits": (1.0, "")}}
    for text, says in (("identifier,question\nanna,4\n", "from 0 to 3"), ("identifier,question\nanna,nan\n", "from 0 to 3"),
                       ("identifier,style\nanna,1\n", "style"), ("identifier,question\nbob,1\n", "bob"),
                       ("identifier,question\nanna,1\nanna,2\n", "twice"), ("who,question\nanna,1\n", "identifier")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(GraderError, match=says):
            run.read_rubric(file, {"anna"})
    with pytest.raises(GraderError, match="cannot be read"):
        run.read_rubric(tmp_path / "none")
    file.write_text("name,email\nAnna,a@b\n", encoding="utf-8")
    with pytest.raises(GraderError, match="identifier"):
        run.read_roster(file)


# ---------------------------------------------------------------------------------------------------------- feedback

PLACES = sorted({check.where for a in ALL for item in tasks.items(a) for check in item.checks.values()})


@pytest.mark.parametrize("where", PLACES)
def test_feedback_leads_to_a_section_of_the_book(where):
    name, _, anchor = where.partition("#")
    assert (ROOT / "book" / f"{name}.ipynb").exists() and anchor in feedback.section_titles(name)


def test_anchors_are_those_of_the_built_pages(html):
    for where in PLACES:
        name, _, anchor = where.partition("#")
        page = (html / "book" / f"{name}.html").read_text(encoding="utf-8")
        assert f'id="{anchor}"' in page, where


def test_planted_anchor_is_missed():
    assert "no-such-section" not in feedback.section_titles("02-scaling-factors")


def test_feedback_names_idea_and_place_but_no_hidden_number():
    result = graded("2", {**reference("2", A), "gate": "def gate(a):\n    return (%s * a + %s).clamp(0, %s)" % (
        tasks.course("2", A)["slope"], tasks.course("2", A)["shift"], tasks.course("2", A)["top"])}, A)
    page = feedback.page("anna", [("2: x", {**result.to_dict(), "manual": []})], book="https://books.example.org/weights")
    check = tasks.items("2")[2].checks["above"]
    assert check.idea in page.replace("&#x27;", "'") and "https://books.example.org/weights/book/03-reading-weights.html#gates-how-a-score" in page
    assert "19 of 20 points" in page
    numbers = re.findall(r"-?\d+\.\d{3,}", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    assert numbers == []


def test_feedback_escapes_what_students_write():
    result = graded("2", {**reference("2", A), "rows": "def rows(W, b):\n    raise ValueError('<script>alert(1)</script>')"}, A)
    page = feedback.page("<b>x</b>", [("2", {**result.to_dict(), "manual": []})], ["<img src=x>"])
    assert "<script>" not in page and "<b>x" not in page and "<img" not in page and "&lt;script&gt;" in page


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_feedback_page_opens_alone_in_light_and_dark(tmp_path, page, scheme):
    result = graded("2", {**reference("2", A), "rows": "def rows(W, b):\n    return W"}, A)
    file = tmp_path / "x.html"
    file.write_text(feedback.page("anna", [("2: A switcher", {**result.to_dict(), "manual": []})]), encoding="utf-8")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(file.as_uri())
    assert page.asked == [] and page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    light = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light") and abs(light[0] - light[1]) > 400


# -------------------------------------------------------------------------------------------------------- the wire

def test_wire_carries_plain_data_and_nothing_else():
    import torch
    for value in (None, True, 3, -2.5, "x", [1, [2.0]], {"a": {"b": [1]}}, {1: 2}):
        assert wire.loads(wire.dumps(value)) == value
    for tensor in (torch.randn(2, 3), torch.arange(4), torch.tensor(True), torch.zeros(0, 2), torch.randn(3, requires_grad=True)):
        assert np.array_equal(wire.loads(wire.dumps(tensor)), tensor.detach().numpy())
    assert isinstance(wire.loads(wire.dumps(object())), wire.Other) and isinstance(wire.loads(wire.dumps(lambda: 0)), wire.Other)
    assert str(wire.loads(wire.dumps([float("nan")]))) == "[nan]"


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, '{"array":["float32",[9],"AAAA"]}', '{"array":["object",[1],"AAAA"]}', '{"a":1,"b":2}',
                                  '{"unknown":1}', '{"array":["float32",[-1],""]}', '{"array":[]}', '{"float":"1e9"}', "NaN,"])
def test_wire_refuses_what_is_none_of_ours(text):
    with pytest.raises(wire.Malformed):
        wire.loads(text)


def test_judge_survives_any_output():
    """Whatever comes back for a probe, an item gives false, never an exception."""
    nasty = [None, 3, "x", [], {}, float("nan"), [[1, 2], [3]], {"rows": None}, wire.Other("x"), {"s": np.zeros((2, 2)), "grad": "x"},
             {"widths": [[[]]], "y": {}, "unchanged": 1}, {"record": 3, "log": None, "first": []}, {"first": {"train": 3}}, np.array(["a"])]
    for assignment in ALL:
        pairs = judge.expected(assignment, A, "hidden")
        for item in tasks.items(assignment):
            for value in nasty:
                found = judge._item(item, pairs[item.name], [{"ok": value}] * len(pairs[item.name]), tasks.course(assignment, A))
                assert found.earned < found.points, (item.name, value)


# ---------------------------------------------------------------------------------------------------- grades and state

def fake_grading(monkeypatch, calls=None):
    """The run without sandboxes: our own answers only."""
    monkeypatch.setattr(run.sandbox, "require", lambda: None)
    monkeypatch.setattr(run.sandbox, "sweep", lambda: None)
    grade = judge.grade

    def ours(*arguments, **options):
        if calls is not None:
            calls.append(arguments[0])
        return grade(*arguments, **{**options, "worker": judge.InProcess})

    monkeypatch.setattr(run.judge, "grade", ours)


def folder_of(tmp_path, **people):
    folder = tmp_path / "in"
    for name, notebook in people.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "a.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    return folder


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_grades_for_moodle_and_canvas(tmp_path, monkeypatch):
    fake_grading(monkeypatch)
    five = notebooks.answered(judge.handed_out("5", A), reference("5", A), matrix._records("5", A, ""))
    folder = folder_of(tmp_path, anna=answered(), ben=answered(rows="def rows(W, b):\n    return None"))
    (folder / "anna" / "five.ipynb").write_text(nbformat.writes(five), encoding="utf-8")
    (folder / "=evil").mkdir()
    (tmp_path / "roster.csv").write_text("identifier,name,email,canvas_id,sis_login_id,section\nanna,Anna Meier,anna@example.org,77,am,S1\n"
                                         "zoe,Zoe,zoe@example.org,78,zz,S1\n", encoding="utf-8")
    (tmp_path / "rubric.csv").write_text("identifier,question,controls,reading,limits\nanna,3,4,4,2\n", encoding="utf-8")
    done = run.grade_folder(folder, tmp_path / "out", A, roster=tmp_path / "roster.csv", rubric=tmp_path / "rubric.csv", progress=False)
    assert (done["graded"], done["problems"], done["faults"]) == (3, 1, 0)
    grades = rows_of(tmp_path / "out" / "grades.csv")
    assert grades[0] == ["identifier", "name", "email", "Assignment 2: A switcher and its gate", "Feedback 2", "Assignment 5: An honest comparison",
                         "Feedback 5"]
    assert grades[1][:4] == ["anna", "Anna Meier", "anna@example.org", "20"] and grades[1][5] == "39"
    assert grades[2][0] == "ben" and grades[2][3] == "17" and "2.2 Rows for a switcher: 0/3" in grades[2][4] and grades[2][5] == ""
    assert grades[3] == ["zoe", "Zoe", "zoe@example.org", "", "", "", ""]
    canvas = rows_of(tmp_path / "out" / "grades-canvas.csv")
    assert canvas[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas[1] == ["Points Possible", "", "", "", "", "20", "40"]
    assert canvas[2] == ["Anna Meier", "77", "", "am", "S1", "20", "39"] and canvas[3][:4] == ["ben", "", "", "ben"]
    assert "=evil" in (tmp_path / "out" / "problems.csv").read_text() and "\n=evil" not in (tmp_path / "out" / "problems.csv").read_text()
    assert "13 of 14" not in (tmp_path / "out" / "feedback" / "anna.html").read_text()
    assert "39 of 40 points" in (tmp_path / "out" / "feedback" / "anna.html").read_text()


def test_a_run_goes_on_where_it_was_and_grades_again_what_has_changed(tmp_path, monkeypatch):
    calls = []
    fake_grading(monkeypatch, calls)
    folder = folder_of(tmp_path, anna=answered(), ben=answered(), carla=answered())
    first = run.grade_folder(folder, tmp_path / "out", A, jobs=1, progress=False)
    assert first["graded"] == 3 and len(calls) == 3
    (tmp_path / "out" / "state" / "ben-2.json").write_text('{"key": "cut o')      # killed while writing, on a poor disk
    folder_of(tmp_path, carla=answered(rows="def rows(W, b):\n    return None"))
    again = run.grade_folder(folder, tmp_path / "out", A, jobs=1, progress=False)
    assert (again["graded"], again["resumed"]) == (2, 1)
    assert {r[0]: r[3] for r in rows_of(tmp_path / "out" / "grades.csv")[1:]} == {"anna": "20", "ben": "20", "carla": "17"}
    other = run.grade_folder(folder, tmp_path / "out", B, jobs=1, progress=False)
    assert other["graded"] == 3


def test_a_fault_of_the_grader_costs_nobody_else_a_grade(tmp_path, monkeypatch):
    fake_grading(monkeypatch)
    grade = run.judge.grade

    def faulty(assignment, submitted, *arguments, **options):
        if "FAULT" in submitted.answers["rows"]:
            raise RuntimeError("broken")
        return grade(assignment, submitted, *arguments, **options)

    monkeypatch.setattr(run.judge, "grade", faulty)
    folder = folder_of(tmp_path, anna=answered(), ben=answered(rows="# FAULT"))
    done = run.grade_folder(folder, tmp_path / "out", A, progress=False)
    assert (done["graded"], done["faults"]) == (1, 1)
    rows = {r[0]: r[3:] for r in rows_of(tmp_path / "out" / "grades.csv")[1:]}
    assert rows["anna"][0] == "20" and rows["ben"][0] == "" and "fault of the grader" in rows["ben"][1]
    assert "not yours" in (tmp_path / "out" / "feedback" / "ben.html").read_text()


def test_a_notebook_of_another_course_is_told_so(tmp_path, monkeypatch):
    fake_grading(monkeypatch)
    folder = folder_of(tmp_path, anna=answered(which=B))
    run.grade_folder(folder, tmp_path / "out", A, progress=False)
    page = (tmp_path / "out" / "feedback" / "anna.html").read_text()
    assert "another course" in page or "another year" in page


def test_files_are_written_whole(tmp_path, monkeypatch):
    target = tmp_path / "x.json"
    run.write_atomically(target, "old")

    def broken(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(run.os, "replace", broken)
    with pytest.raises(OSError):
        run.write_atomically(target, "new")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


# --------------------------------------------------------------------------------------------------- pages and catalogues

def test_pages_are_in_the_table_of_contents_before_the_appendices():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    places = [toc.index(text) for text in ("caption: Assignments", "book/assignments/students", "book/assignments/guide", "caption: Appendices")]
    assert places == sorted(places)


def test_guide_shows_the_trial_as_it_was_measured():
    result = json.loads((HERE / "trial.json").read_text(encoding="utf-8"))
    guide = (HERE / "guide.md").read_text(encoding="utf-8")
    assert result["submissions"] == 100 and result["hostile"] == 10 and result["lost"] == 0
    assert f"({result['right']} right, {result['wrong']} wrong" in guide
    assert f"{result['seconds']} seconds" in guide and f"killed after {result['killed_after']}" in guide


def test_guide_names_every_command_and_item():
    guide = (HERE / "guide.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (assignments[\w-]*|grade)", guide):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for name, (points, _) in tasks.ASSIGNMENTS["5"].RUBRIC.items():
        assert f"`{name}`" in guide and f"{points:g}" in guide


def test_catalogues_are_plain_data():
    for kind in ("wrong", "right"):
        for file in sorted((HERE / kind).glob("*.toml")):
            for entry in tomllib.loads(file.read_text(encoding="utf-8"))[kind]:
                assert set(entry) <= {"name", "answer", "fails", "code"} and entry["code"].strip()
