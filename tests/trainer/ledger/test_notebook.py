"""What a notebook shows: the ledger and the table of terms as HTML, the stack with matplotlib."""

import sys

import numpy as np
import pytest

import losses
from trainer import History
from trainer.ledger.describe import TermTable


def entries(step, a, b, split="train"):
    return {
        **{"step": step, "split": split, "total": a + (b or 0)},
        **{"terms/a": a, "raw/a": a, "weight/a": 1.0},
        **{"terms/<b>": b, "raw/<b>": b, "weight/<b>": 1.0},
    }


@pytest.fixture
def history():
    return History([entries(1, 2.0, -1.0), entries(2, 1.0, None), entries(2, 3.0, 1.0, "eval")])


def test_a_history_is_shown_as_its_ledger_and_names_are_text(history):
    shown = history._repr_html_()
    assert "<td>&lt;b&gt;</td>" in shown and "<b>" not in shown
    assert "<tr><td>a</td><td>1</td><td>1</td><td>1</td><td>100.0%</td><td>2</td>" in shown
    assert repr(history).splitlines()[0].split() == [
        *("term", "raw", "weight", "weighted", "share", "first", "last")
    ]
    assert repr(History()) == "History of 0 rows" and "of 0 rows" in History()._repr_html_()


def test_columns_have_one_length_and_none_for_what_is_not_there(history):
    columns = history.to_dict()
    assert columns["step"] == [1, 2, 2] and columns["terms/<b>"] == [-1.0, None, 1.0]
    assert history.to_dict("eval")["total"] == [4.0]


def test_a_table_of_terms_is_a_str_and_html():
    table = TermTable("term  from\n<a>   model", [[("term", "from"), ("<a>", "model")]], ["note <"])
    assert isinstance(table, str) and table.splitlines()[1] == "<a>   model"
    assert "<td>&lt;a&gt;</td><td>model</td>" in table._repr_html_()
    assert table._repr_html_().endswith("<p>note &lt;</p>")


def test_areas_lie_on_each_other_and_negative_ones_hang_below(history):
    pytest.importorskip("matplotlib").use("agg")
    axes = history.plot()
    first, second = (collection.get_paths()[0].vertices for collection in axes.collections)
    assert first[:, 1].max() == 2.0 and first[:, 1].min() == 0.0
    assert second[:, 1].min() == -1.0 and second[:, 1].max() == 0.0
    assert [line.get_label() for line in axes.lines] == ["total"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1.0, 1.0])
    shares = history.plot("share", axes=history.plot("raw"))
    assert shares.get_ylabel() == "share"


def test_what_cannot_be_drawn_is_refused(history, monkeypatch):
    with pytest.raises(losses.TermwiseError, match="view='pie': give one of stack, share"):
        history.plot("pie")
    with pytest.raises(losses.TermwiseError, match="split='test': the history has no such rows"):
        history.plot(split="test")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install \"termwise\[plot\]\""):
        history.plot()
