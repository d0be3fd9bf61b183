"""The chapter on switching one's own network: the solutions of its exercises are right."""

import json
import re
from pathlib import Path

import pytest

import switcher_lib as sl

CHAPTER = Path(__file__).resolve().parents[1] / "book" / "14-your-network.ipynb"
GIVEN = ("setup", "blocks", "mine", "tools", "error", "sums-run", "products-run", "places", "places-checked", "ask-run", "loop",
         "search")    # the cells that the exercises use


def cells():
    return {cell["id"].removeprefix("ch14-"): "".join(cell["source"]) for cell in json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]}


def solutions():
    """{label of the exercise: the code of its solution}."""
    text = "\n".join(cells().values())
    found = re.findall(r"^````\{solution\} (\S+)\n(.*?)^````$", text, re.DOTALL | re.MULTILINE)
    return {label: "\n".join(re.findall(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)) for label, body in found}


@pytest.fixture(scope="module")
def given():
    """The names that the chapter has made, on the embedded images."""
    names, load = {}, sl.data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sl.data, "load", lambda name: load("digits_rgb"))
        for name in GIVEN:
            exec(re.sub(r"^ *[!%].*$", "    pass", cells()[name], flags=re.MULTILINE), names)
    return names


def test_every_exercise_has_a_solution_with_code():
    exercises = re.findall(r"^:label: (ch14-ex-\d)$", "\n".join(cells().values()), re.MULTILINE)
    assert exercises == list(solutions()) and len(exercises) == 4 and all(solutions().values())


@pytest.mark.parametrize("label", solutions())
def test_a_solution_does_what_its_exercise_asks(label, given):
    exec(solutions()[label], dict(given))


def test_a_wrong_solution_is_noticed(given):
    forgotten = solutions()["ch14-ex-1"].replace('"block.two.0.weight": 1', '"block.two.0.weight": 0')
    with pytest.raises((AssertionError, RuntimeError)):
        exec(forgotten, dict(given))
