"""The ablation explorer: compared by the library, and trained from its button."""

import pytest
from browser import open_page, write_page
from explorers import RESULTS

from switcher_lib.explore import Ablations


def test_ablations_compare_by_the_library(tmp_path):
    table = Ablations(RESULTS)
    names = [v["name"] for v in table.variants]
    assert names[0] == "as compared" and len(names) > 20
    table.b = names.index("gate: step")
    assert table.difference().verdict == table.shown()["difference"]["verdict"] == "higher"
    table.a = table.b
    assert table.difference() is None and table.shown()["difference"] is None
    with pytest.raises(FileNotFoundError, match="run lenet300-ablations makes them"):
        Ablations(tmp_path)


def test_an_ablation_is_trained_from_the_page_s_button():
    from switcher_lib import data

    table, digits = Ablations(RESULTS), data.load("digits")
    seen = []
    table.observe(lambda change: seen.append(change["new"]), "progress")
    found = [table.train(i, 100, i, 2, data=digits) for i in (0, 1)]
    assert [t["name"] for t in table.trained] == [f["name"] for f in found] == [table.variants[i]["name"] for i in (0, 1)]
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 4
    assert all(50 < f["accuracy"] <= 100 and 0 < f["parameters"] <= 266_610 for f in found)


@pytest.mark.browser
def test_the_button_is_there_with_a_kernel_only(browser, tmp_path):
    from test_explore import LIVE

    table = Ablations(RESULTS)
    with open_page(browser, write_page(tmp_path / "page.html", table.html())) as page:
        assert page.locator("progress").count() == 0 and page.get_by_text("Opened in Jupyter").count() == 1
    live = LIVE.replace("save_changes()", "send(message) { window.sent = message; },\n    save_changes()")
    with open_page(browser, write_page(tmp_path / "page.html")) as page:
        page.evaluate(live, [table._esm, table.page_state()])
        page.get_by_role("button", name="Train A and B here").click()
        assert page.evaluate("window.sent") == {"train": [0, 1]}
        page.evaluate("window.model.set('progress', 0.25)")
        assert page.locator("progress").evaluate("node => node.value") == 0.25
        assert page.get_by_role("button", name="Train A and B here").is_disabled()
        done = [{"name": "gate: relu", "seed": 100, "accuracy": 91.5, "parameters": 1234}]
        page.evaluate("(done) => { window.model.set('trained', done); window.model.set('progress', 1); }", done)
        assert page.get_by_text("1,234").count() == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: setattr(Ablations(RESULTS), "group", "gates"), r"group='gates' .*did you mean 'gate'\?"),
        (lambda: setattr(Ablations(RESULTS), "metric", 9), "metric=9 has to lie between 0 and 5"),
    ],
)
def test_ablations_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
