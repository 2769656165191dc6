"""One run, seen on the terminal, in its files, in TensorBoard, the tab and the report."""

import csv
import io
import json

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import losses
from trainer import Trainer
from trainer.report import Runs
from trainer.report.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a run with a term of weight 0, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "q1"
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_regularizer="l2")])
    terms = [
        losses.term(lambda step, i=i: step.y_pred[:, 0] ** 2, name=f"idle_{i}", weight=0.0)
        for i in range(2)
    ]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        charbonnier = losses.Charbonnier()
        trainer = Trainer(net, optimizer="adam", loss=charbonnier, terms=terms, workdir=workdir)
        trainer.fit((x, x[:, :1]), steps=40, batch_size=16, log_every=4)
    return workdir, printed.getvalue().splitlines()


def test_the_last_row_is_the_same_everywhere(run, capsys):
    workdir, printed = run
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tags = {k: v for k, v in rows[-1].items() if k not in ("step", "split", "time")}
    events = EventAccumulator(str(workdir / "tb" / "train")).Reload()
    for tag, value in tags.items():
        assert events.Scalars(tag)[-1].value == np.float32(value)
    train = Runs(workdir).rows("q1")["splits"]["train"]
    assert {tag: values[-1] for tag, values in train["tags"].items()} == tags
    assert main([str(workdir), "--format=csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {tag: float(table[-1][tag]) for tag in tags} == tags
    assert main([str(workdir), "--format=md"]) == 0
    markdown = capsys.readouterr().out
    shown = f"{tags['raw/charbonnier']:.4g}"
    (line,) = [line for line in printed if line.startswith("charbonnier ") and shown in line]
    cells = line.split()[1:6]
    assert f"| charbonnier | {' | '.join(cells)} |" in markdown
    (text,) = EventAccumulator(str(workdir / "tb")).Reload().Tensors("ledger")
    assert "|".join(cells) in text.tensor_proto.string_val[0].decode()


def test_what_is_off_stands_at_the_end_of_a_fit(run):
    _, printed = run
    look = [line for line in printed if line.startswith("look: ")]
    assert look == [
        "look: the weights of 'idle_0' and 'idle_1' are 0 throughout: logged but not trained; "
        "see loss_weights="
    ]
    assert printed[-1] == f"see it: tensorboard --logdir {run[0]}/tb"


def test_where_each_term_is_from_is_noted_for_the_page(run):
    (start,) = Runs(run[0]).about("q1")["starts"]
    assert [(term["name"], term["from"], term["weight"]) for term in start["terms"]] == [
        ("charbonnier", "compiled", "1"),
        ("idle_0", "term", "0"),
        ("idle_1", "term", "0"),
        (start["terms"][3]["name"], "model", "1"),
    ]
    equation = start["terms"][0]["equation"]
    assert equation.startswith("value = mean over the last axis of sqrt(e^2 + epsilon^2)")
    events = EventAccumulator(str(run[0] / "tb" / "train")).Reload()
    assert equation in events.SummaryMetadata("raw/charbonnier").summary_description
