"""What readers see: no figure without words, and tables that a screen reader can tell."""

import math
from xml.etree import ElementTree

import pytest
import torch

from switcher_lib import plotting


def test_a_figure_without_a_text_that_says_something_is_refused():
    figure, _ = plotting.plt.subplots()
    with pytest.raises(ValueError, match="at least 30 characters"):
        plotting.show(figure, "a plot")
    picture = plotting.show(figure, 'Accuracy falls from 98 % to "50 %" when half is off.')
    assert 'alt="Accuracy falls from 98 % to &quot;50 %&quot;' in picture._repr_mimebundle_()["text/html"]


def test_a_table_has_headings_for_rows_and_columns_and_shows_text_as_text():
    table = plotting.Table(["method", "accuracy %"], [["dense", 98.5], ["<b>", "1 & 2"]])
    page = ElementTree.fromstring(table._repr_mimebundle_()["text/html"])
    assert [cell.text for cell in page.findall(".//th[@scope='col']")] == ["method", "accuracy %"]
    assert [cell.text for cell in page.findall(".//th[@scope='row']")] == ["dense", "<b>"]
    assert [cell.text for cell in page.findall(".//td")] == ["98.5", "1 & 2"]
    assert str(table).splitlines() == ["method  accuracy %", "dense   98.5", "<b>     1 & 2"]


def test_a_cell_may_have_two_lines():
    table = plotting.Table(["method", "error"], [["dense", "1.50\n266,610"]])
    assert "1.50<br/>266,610" in table._repr_mimebundle_()["text/html"] and "1.50, 266,610" in str(table)


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="has 1 cells, the head has 2"):
        plotting.Table(["a", "b"], [["only one"]])


@pytest.mark.parametrize("values, shown", [
    ([1.0, 2.0, 3.0], "2.00±1.00"), (torch.tensor([1.0, 2.0, 3.0]), "2.00±1.00"), ((98.456, 0.04), "98.46±0.04"), ([7], "7.00±0.00"),
    ((33_300.0, 12.0), "33,300.00±12.00"), ((math.nan, math.nan), "nan±nan"),
])
def test_mean_and_spread_are_told_in_one_piece(values, shown):
    assert plotting.plus_minus(values).replace("\u00a0", "") == shown
    assert " " not in plotting.plus_minus(values)


def test_a_run_that_disagrees_with_the_text_is_told(capsys):
    plotting.as_told("magnitude is better", True)
    assert not capsys.readouterr().out
    plotting.as_told("3 < 4 & <b>", False)
    assert "than the text, which says: 3 < 4 & <b>. Other" in capsys.readouterr().out
    page = ElementTree.fromstring(plotting.Remark("3 < 4 & <b>")._repr_mimebundle_()["text/html"])
    assert page.get("role") == "note" and page.text == "3 < 4 & <b>"
