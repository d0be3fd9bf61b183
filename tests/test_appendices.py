"""The appendices that quote: every number of "Misconceptions" is what its chapter or result file says, and "Results and hardware"
tells what there is.

The checkers are shown to go red: each has a test with a small planted violation.
"""

import html
import json
import re
from functools import cache

import nbformat
import pytest
from test_book import CHAPTERS, ROOT, execute

from switcher_lib import models
from switcher_lib.experiments import EXPERIMENTS, Results, table

MISCONCEPTIONS = ROOT / "book" / "misconceptions.md"
PAGE = ROOT / "book" / "results.ipynb"


# ------------------------------------------------------------------------------------------ what a notebook's outputs say

@cache
def outputs(path):
    """(tables, texts) of a notebook: each table a list of rows of cells, the head first; each text as it was printed."""
    tables, texts = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [text.replace("\xa0", " ") for text in (output.get("text"), data.get("text/markdown")) if text]
            for part in re.findall(r"<table.*?</table>", data.get("text/html", ""), re.DOTALL):
                tables.append([[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", row, re.DOTALL)]
                               for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL)])
    return tables, texts


def chapter(number):
    return next(path for path in CHAPTERS if path.name.startswith(f"{number:02}-"))


def cell(number, column, row):
    """What stands in a chapter's tables under a heading, in the row of this name; the same in all tables that have it."""
    found = {line[head.index(column)] for head, *lines in outputs(chapter(number))[0] if column in head[1:]
             for line in lines if line[0] == row}
    assert len(found) == 1, f"chapter {number}, {column!r}, {row!r}: {sorted(found)}"
    return found.pop()


def entry(number, column, row):
    """The numbers of a cell, without their signs; the one number, if there is one."""
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?", cell(number, column, row))
    return found[0] if len(found) == 1 else found


def said(number, pattern):
    """What the groups of a pattern match in a chapter's printed lines."""
    found = {match.groups() for text in outputs(chapter(number))[1] for match in re.finditer(pattern, text, re.DOTALL)}
    assert len(found) == 1, f"chapter {number}, {pattern!r}: {sorted(found)}"
    return found.pop()


@cache
def stored(name, method, point=None):
    """A method's means and standard deviations, from the result file and by the rules of comparison."""
    results, experiment = Results(ROOT / "results" / f"{name}.json"), EXPERIMENTS[name]
    (row,) = (row for row in table(results, [method], experiment) if row.point == point)
    assert set(row.seeds) == set(experiment.seeds)
    return row


# -------------------------------------------------------------------------------------------------- the numbers of a page

NUMBER = re.compile(r"(?<![\w.−-])[-−+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?(?!\w)")
IN_WORDS = re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozens?|hundreds?|thousands?|twice|thirds?|"
                      r"quarters?)\b", re.IGNORECASE)


def prose(text):
    """A text without its links' addresses, roles and code; powers of ten as a computer prints them."""
    text = re.sub(r"\{math\}`(\d\.\d) \\cdot 10\^\{-(\d+)\}`", lambda match: f"{match[1]}e-{int(match[2]):02}", text)
    return re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\]\([^)]*\)", " ", text)


def quoted(text):
    """The numbers of a text in their order; those of names (float32, LeNet-5) do not count."""
    return NUMBER.findall(prose(text))


def beliefs(text):
    """{belief: what the page says of it}, and what stands before the first one under the name None."""
    first, *parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)
    return {None: first} | {name: body for name, body in zip(parts[::2], parts[1::2])}


def faults(text, sources):
    """Where a page's numbers and those of its sources differ, and numbers that hide in words."""
    page = beliefs(text)
    found = [f"not on the page: {name}" for name in sources if name not in page]
    for name, body in page.items():
        told, wanted = quoted(body), [str(n) for n in sources[name]()] if name in sources else []
        if told != wanted:
            found.append(f"{name}: the page says {told}, the sources {wanted}")
        found += [f"{name}: {word!r} is a number in words" for word in IN_WORDS.findall(prose(body))]
    return found


# ------------------------------------------------------------------------------ where the numbers of Misconceptions come from

def small_weights():
    return "75", models.lenet_300_100().fc1.out_features, entry(2, "75 off", "norm")[0], entry(2, "75 off", "random")[0]


def gradient_of_a_factor():
    signed, random = entry(2, "75 off", "signed")[0], entry(2, "75 off", "random")[0]
    assert float(signed) > float(random)
    assert entry(2, "together, on B", "signed, 75 off")[0] == signed
    return "75", entry(2, "derivatives promise", "signed, 75 off")[0], signed


def weights_of_zero():
    assert entry(2, "s = 0", "row and bias before BatchNorm") == entry(2, "s = 0", "γ only")
    return [entry(2, "s = 0", row) for row in ("row only, ReLU", "γ only", "row and bias, sigmoid")]


def another_order():
    weights = sum(p.numel() for p in models.lenet_300_100().parameters() if p.dim() == 2)
    return entry(3, "fc2, layer before permuted", "row, incoming weights"), entry(7, "on to off, or back", "U-Net"), f"{weights:,}"


def off_without_a_term():
    row = stored("lenet300-free", "switcher")
    return "0", *entry(3, "fraction off at step 0, c = 0", "relu_bn"), f"{row.off_at_start[0]:.1f}", f"{row.off[0]:.1f}"


def on_again():
    free, shared, step, outgoing = [[entry(4, column, row) for column in ("neurons ever off", "of these came back")] for row in (
        "free, clamp, incoming", "row, clamp, incoming", "free, step, incoming", "free, step, outgoing")]
    return *free, *shared, *reversed(step), *reversed(outgoing)


def what_is_paid():
    return [entry(5, column, row) for row in ("min(s, 1)", "q, saturation 0.3") for column in ("C, %", "left after compaction, %")]


def zeros_kept_and_cut():
    told = json.loads((ROOT / "results" / "bench_compacted.json").read_text(encoding="utf-8"))
    gain = {row["batch"]: f"{row['ratio']:.1f}" for row in told["rows"]}
    return (*said(6, r"Zeros kept: no faster in (\d+) of (\d+) rows"), *said(6, r"Cut: faster in (\d+) of (\d+) rows"),
            f"{told['parameters']['dense'] / told['parameters']['compacted']:.1f}", gain[1], gain[1024], "1,024")


def two_kinds():
    left = int(entry(7, "parameters left", "compacted, CSR").replace(",", ""))
    times = sum(p.numel() for p in models.lenet_300_100().parameters()) / left
    return (*[entry(10, column, row) for row in ("neurons", "connections") for column in ("parameters", "MACs, dense kernel")],
            f"{times:.1f}", entry(7, "times smaller", "compacted, CSR"), "6")


def rounding():
    (images,) = said(6, r"pixels are constant on (\d+) images")
    return (*said(6, r"removed in float32, measured in float64: up to (\S+)"), *said(6, r"float64 from the start: +up to (\S+)"), images,
            entry(6, "relative error", f"the {images} images it was derived from"), entry(6, "relative error", "5,000 other real images"))


def other_statistics():
    old, new = "when cut, statistics as they were, %", "made anew, %"
    return entry(13, old, "dense"), entry(13, old, "priced in MACs"), entry(13, new, "priced in MACs")


def cut_weights():
    return [entry(7, "weights that are not 0 after ten steps", row) for row in (
        "new optimizer, keep_zeros", "new optimizer, nothing else", "old optimizer, keep_zeros")] + ["2"]


def retraining():
    after = [entry(1, column, "after 300 steps (test)")[0] for column in ("wrong", "coin", "norm")]
    return "75", entry(1, "wrong", "at once (validation)")[0], "300", *after, entry(1, "75% off", "test: from scratch, 1,300 steps")[0]


def survivors():
    sizes, ahead = said(7, r"from scratch against magnitude: lower error at 0 sizes of (\d), higher at (\d), not settled")
    return (*said(11, r"Against \*from scratch\*:[^-]*settled as higher at 0, as lower at 0 of (\d) sizes"),
            *said(8, r"SCL minus its mask on the\s+first weights: -([\d.]+) ± [\d.]+ points \(lower in every seed\)"), ahead, sizes)


def how_many_and_which():
    apart = "shares of a layer apart, points"
    return (entry(13, apart, "switcher and free gates, same seed"), entry(13, apart, "switcher, two seeds"), entry(13, "in both", "0"),
            entry(13, "in both, by chance", "0")[0], entry(13, "at most possible", "0"))


def same_settings():
    pairs = [(stored("lenet300-cost", method), stored("lenet300-neurons", method, 33_300)) for method in ("free gates", "switcher")]
    assert all(row.parameters[0] <= 33_300 for _, row in pairs)
    assert "not settled" in cell(11, "difference", "each at its own tuned rate")
    return (*[text for row, _ in pairs for text in (f"{row.parameters[0]:,.0f}", f"{row.accuracy[0]:.2f}")], "33,300",
            *[f"{row.accuracy[0]:.2f}" for _, row in pairs], *said(10, r"In (\d+) of (\d+) pairs the loser wins"), "4")


def reading_inside_one_network():
    assert cell(10, "minus switcher, points", "shuffled weights").startswith("+")
    sizes = EXPERIMENTS["lenet300-neurons"].points("switcher")
    free = sum(stored("lenet300-neurons", "free gates", s).accuracy > stored("lenet300-neurons", "switcher", s).accuracy for s in sizes)
    return *entry(10, "minus switcher, points", "shuffled weights"), free, len(sizes), *said(10, r"Highest mean at (\d) of (\d) sizes")


def reading_unseen_networks():
    above, below, cases, *later = said(11, r"at once the switcher is settled as higher at (\d) and as lower at (\d) of (\d); "
                                           r"after one epoch as higher at (\d) and as lower at (\d)")
    return above, cases, below, *later


def one_standard_deviation():
    rows = ("one rival: more than 1 std away", "any of 7: p < 0.05", "any of 7: settled by Holm")
    often = [entry(10, "how often, %", row) for row in rows]
    return often[0], "7", "0.05", *often[1:]


def not_significant():
    return (len(EXPERIMENTS["lenet300-free"].seeds), *said(12, r"random − dense, five seeds: -([\d.]+) ± ([\d.]+), lower"),
            *said(12, r"two seeds each: (\d+) of (\d+) pairs “not significantly worse”"), "2")


SOURCES = {
    '"A neuron with small weights does little"': small_weights,
    '"The gradient of a factor says what it costs to switch the neuron off"': gradient_of_a_factor,
    '"Set the weights to zero and the neuron is gone"': weights_of_zero,
    '"The network computes the same, so the switcher says the same"': another_order,
    '"Half of the neurons are off and the loss has no sparsity term, so learning did it"': off_without_a_term,
    '"A neuron that is needed switches itself on again"': on_again,
    '"The cost term says how much of the network is left"': what_is_paid,
    '"Zeros make a network smaller and faster"': zeros_kept_and_cut,
    '"Networks with as many parameters are equally small"': two_kinds,
    '"The outputs agree to rounding, so the cut is right"': rounding,
    '"Accuracy falls when it is cut, so the channels were needed"': other_statistics,
    '"What was cut stays cut while you fine-tune"': cut_weights,
    '"After retraining hardly anything is lost, so the rule is good"': retraining,
    '"The trained weights that survive are what you keep"': survivors,
    '"The search finds out which channels matter"': how_many_and_which,
    '"Everything else was the same, so the difference is the method\'s"': same_settings,
    '"The switcher works because it reads the weights"': reading_inside_one_network,
    '"So reading the weights is worth nothing"': reading_unseen_networks,
    '"More than one standard deviation apart is better"': one_standard_deviation,
    '"Not significantly worse is as good"': not_significant,
}


def test_every_number_of_the_misconceptions_is_what_its_source_says():
    assert faults(MISCONCEPTIONS.read_text(encoding="utf-8"), SOURCES) == []


def test_every_misconception_leads_to_its_evidence():
    page = beliefs(MISCONCEPTIONS.read_text(encoding="utf-8"))
    assert [name for name, body in page.items() if name and not re.search(r"\*Where:\*.*?(\.ipynb#|\{ref\})", body, re.DOTALL)] == []


# ------------------------------------------------------------------------------------------------------- Results and hardware

def named(name, text):
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


@cache
def chapters_that_quote(name):
    """The numbers of the chapters whose text or code names an experiment or a benchmark."""
    texts = ["\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells) for path in CHAPTERS]
    return ", ".join(str(number) for number, text in enumerate(texts, start=1) if named(name, text)) or "–"


def listed(path, first, *columns):
    """{name: its cells under some headings} of the page's table that has these headings."""
    (found,) = ({line[0]: tuple(line[head.index(column)] for column in columns) for line in lines}
                for head, *lines in outputs(path)[0] if head[0] == first and set(columns) <= set(head))
    return found


def state(name):
    experiment, results = EXPERIMENTS[name], Results(ROOT / "results" / f"{name}.json")
    tasks = experiment.tasks()
    done = sum(any((r["method"], r.get("point"), r["seed"]) == task and r["spec"] == experiment.spec(*task[:2]) for r in results.runs)
               for task in tasks)
    told = "complete" if done == len(tasks) else f"incomplete: {done} of {len(tasks)}" if done else "not begun"
    return told, str(len(results.runs)), str(sum("stopped" in r for r in results.runs))


def page_faults(path):
    """What the page leaves out, or tells otherwise than the chapters and the files."""
    benches = {p.stem for p in (ROOT / "results").glob("bench_*.json")}
    used = listed(path, "experiment", "chapters") | listed(path, "benchmark", "chapters")
    run = listed(path, "experiment", "state", "runs", "stopped")
    found = [f"{name} is missing; chapters {chapters_that_quote(name)} quote it" for name in sorted({*EXPERIMENTS, *benches} - set(used))]
    found += [f"{name}: chapters {told}, not {chapters_that_quote(name)}" for name, (told,) in used.items() if told != chapters_that_quote(name)]
    found += [f"{name}: {run.get(name)}, not {state(name)}" for name in EXPERIMENTS if run.get(name) != state(name)]
    return found


def test_results_page_tells_of_every_experiment_what_there_is():
    """If this fails, run the page again: python book/_scripts/execute.py book/results.ipynb"""
    assert page_faults(PAGE) == []


def test_no_result_file_names_a_processor_as_the_page_says():
    for path in (ROOT / "results").glob("*.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        for record in [told, *told.get("runs", [])]:
            assert not {"cpu", "cpu_model", "processor"} & set(record), path.name


def test_results_page_runs_with_nothing_beside_it(tmp_path):
    alone = tmp_path / "results.ipynb"
    alone.write_bytes(PAGE.read_bytes())
    ran, _, stand_ins = execute.run(alone)
    assert [fault for fault in execute.faults(ran) if "stderr" not in fault] == [] and stand_ins == ""
    printed = " ".join(output.text for cell in ran.cells for output in cell.get("outputs", []) if output.output_type == "stream")
    assert "Not here: results/." in printed and "Not here: the chapters." in printed


# ------------------------------------------------------------------------------------------------ the checkers can go red

TEXT = "Of LeNet-300-100, with `run 7` and {doc}`05-mnist` in float32.\n\n### A\n\nIt has 0.5 ± 0.1 [of 2](a.ipynb#c-3).\n"


def test_numbers_of_a_text():
    assert quoted("1,024 of 2,000; 5.0, −0.3 and {math}`3.4 \\cdot 10^{-8}`, at 98.40 %.") == ["1,024", "2,000", "5.0", "−0.3", "3.4e-08",
                                                                                        "98.40"]
    assert faults(TEXT, {"A": lambda: ("0.5", "0.1", 2)}) == []


@pytest.mark.parametrize("text, says", [
    (TEXT.replace("0.5", "0.6"), "0.6"),
    (TEXT.replace("0.5", "0.50"), "0.50"),
    (TEXT.replace("± 0.1 ", ""), "the sources"),
    (TEXT.replace("It has", "At 3 it has"), "'3'"),
    (TEXT.replace("Of", "Of 4"), "'4'"),
    (TEXT.replace("It has", "Five times it has"), "in words"),
    (TEXT.replace("### A", "### B"), "not on the page: A"),
])
def test_planted_number_is_found(text, says):
    assert says in " ".join(faults(text, {"A": lambda: ("0.5", "0.1", 2)}))


def test_planted_source_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="chapter 2"):
        entry(2, "75 off", "no such row")
    with pytest.raises(AssertionError, match="chapter 10"):
        said(10, "no such sentence (.)")


@pytest.mark.parametrize("old, new, says", [
    ("lenet300-sixty", "lenet300-other", "lenet300-sixty is missing; chapters 7 quote it"),
    ("bench_csr", "bench_other", "bench_csr is missing; chapters 7 quote it"),
    (">9, 12<", ">9<", "lenet300-ablations: chapters 9, not 9, 12"),
    (">230<", ">229<", "lenet300-neurons"),
    (">complete<", ">not begun<", "'complete'"),
])
def test_planted_fault_of_the_results_page_is_found(tmp_path, old, new, says):
    text = PAGE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "page.ipynb").write_text(text.replace(old, new), encoding="utf-8")
    assert says in " ".join(page_faults(tmp_path / "page.ipynb"))


# ------------------------------------------------------------------------------------------------------- for instructors

INSTRUCTORS = ROOT / "book" / "instructors.md"


def times_of(text):
    """Minutes of a chapter, as its own texts say: of reading, and of each exercise."""
    exercises = re.findall(r"```\{exercise\}.*?\n```", text, re.DOTALL)
    return re.search(r"(\d+) minutes", text)[1], ", ".join(re.search(r"(\d+) minutes", one)[1] for one in exercises)


def time_rows(page):
    """{chapter's file: (reading, exercises)} of the instructors' table."""
    return {name: (reading, each) for name, reading, each in re.findall(r"\{doc\}`(\d\d-[\w-]+)` \|[^|]*\| (\d+) \| ([\d, ]+?) \|", page)}


def test_the_instructors_times_are_the_chapters():
    said = {path.stem: times_of("\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"))
            for path in CHAPTERS}
    assert time_rows(INSTRUCTORS.read_text(encoding="utf-8")) == said


def test_another_time_is_seen():
    chapter = "*Reading:* 25 minutes.\n```{exercise} One (10 minutes)\n```\n```{exercise} Two\nAbout 15 minutes.\n```"
    assert time_rows("| 1. {doc}`01-a` | – | 25 | 10, 15 |") == {"01-a": times_of(chapter)}
    assert time_rows("| 1. {doc}`01-a` | – | 25 | 10, 20 |") != {"01-a": times_of(chapter)}
